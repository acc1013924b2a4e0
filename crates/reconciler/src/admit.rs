//! Whether a pod is changed before it is created.

use gpu_autoscaler_model::{LeftAlone, PodRequest, Verdict, View};

/// The answer to a pod that asks to be created. It never refuses: a pod that is not changed is let
/// through as it is.
pub fn admit(request: &PodRequest, view: &View) -> Verdict {
    Verdict::Unchanged(left_alone(request, view))
}

fn left_alone(request: &PodRequest, view: &View) -> LeftAlone {
    if !request.requests.has_gpu() {
        LeftAlone::NoGpu
    } else if request.annotations.get("gpu-autoscaler.io/optimize") == Some("false") {
        LeftAlone::OptedOut
    } else if request.scheduler.as_ref() != "default-scheduler" {
        LeftAlone::ForeignScheduler
    } else if view.acting {
        LeftAlone::NoStrategy
    } else {
        LeftAlone::NoPolicy
    }
}
