//! Whether a pod is changed before it is created.

use gpu_autoscaler_model::{LeftAlone, PodRequest, Verdict, View, consent};

/// The answer to a pod that asks to be created. It never refuses: a pod that is not changed is let
/// through as it is.
pub fn admit(request: &PodRequest, view: &View) -> Verdict {
    Verdict::Unchanged(left_alone(request, view))
}

fn left_alone(request: &PodRequest, view: &View) -> LeftAlone {
    if !request.requests.has_gpu() {
        LeftAlone::NoGpu
    } else if consent::left_alone(&request.annotations).is_some()
        || consent::unshared(&request.annotations).is_some()
    {
        LeftAlone::OptedOut
    } else if request.scheduler.as_ref() != "default-scheduler" {
        LeftAlone::ForeignScheduler
    } else if view.acting {
        LeftAlone::NoStrategy
    } else {
        LeftAlone::NoPolicy
    }
}
