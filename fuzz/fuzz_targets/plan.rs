//! `plan -f`: a dump from anywhere, judged.
#![no_main]

use gpu_autoscaler_k8s::dump;
use gpu_autoscaler_model::Timestamp;
use gpu_autoscaler_reconciler::{Policy, State, reconcile};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    if let Ok(read) = dump::parse(text) {
        let mut state = State::new();
        let outcome = reconcile(Timestamp::EPOCH, &mut state, &read.delta, &Policy::published());
        assert!(outcome.view.findings.is_empty(), "without samples nothing can be found");
        let rebuilt = State::rebuild(Timestamp::EPOCH, &read.delta, &Policy::published());
        let mut rebuilt = rebuilt;
        let again = reconcile(Timestamp::EPOCH, &mut rebuilt, &Default::default(), &Policy::published());
        assert_eq!(outcome.effects, again.effects, "a rebuilt state decides the same");
    }
});
