//! Kubernetes quantities: what is read is written and read back as the same number.
#![no_main]

use gpu_autoscaler_k8s::quantity::Quantity;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(quantity) = text.parse::<Quantity>() {
        let shown = format!("{}n", quantity.as_nanos());
        assert_eq!(shown.parse::<Quantity>().as_ref(), Ok(&quantity), "{text:?} as {shown:?}");
    }
});
