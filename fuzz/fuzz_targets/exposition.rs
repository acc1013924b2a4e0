//! Exposition text: whatever a port on the network answers.
#![no_main]

use gpu_autoscaler_model::Timestamp;
use gpu_autoscaler_telemetry::dcgm::{self, Origin};
use gpu_autoscaler_telemetry::exposition;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let origin = Origin {
        at: Timestamp::EPOCH,
        node: Some("node".into()),
        exporter: Default::default(),
    };
    let lines = text.split(|byte| *byte == b'\n').count();
    let series: Vec<_> = exposition::parse(text).collect();
    assert!(series.len() <= lines, "a line is at most one series or one fault");
    let (samples, _) = dcgm::samples(series.into_iter().flatten(), &origin);
    for sample in samples {
        if let (Some(used), Some(total)) = (sample.fb_used, sample.fb_total) {
            // A share of a whole, or no share at all: never above one.
            let _ = used.of(total);
        }
    }
});
