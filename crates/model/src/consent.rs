//! What a pod's own labels and annotations say about being touched and shared.
//!
//! Source: the annotations and labels that earlier releases published (`gpu-autoscaler.io/`).

use crate::{Labels, SharingStrategy};

/// `"false"`: the pod is left alone altogether.
pub const OPTIMIZE: &str = "gpu-autoscaler.io/optimize";
/// `disabled`: it is not shared in any way; `enabled`: it may be.
pub const SHARING: &str = "gpu-autoscaler.io/sharing";
/// The strategy that it wants, and so no other; see [`SharingStrategy`].
pub const SHARING_MODE: &str = "gpu-autoscaler.io/sharing-mode";
/// `"false"`: it is no client of an MPS server.
pub const MPS_ENABLED: &str = "gpu-autoscaler.io/mps-enabled";
/// `"false"`: it is no time-slicing replica.
pub const TIME_SLICING_ENABLED: &str = "gpu-autoscaler.io/time-slicing-enabled";
/// What kind of work it does, as a label or an annotation.
pub const WORKLOAD_TYPE: &str = "gpu-autoscaler.io/workload-type";
/// The same as a label without prefix, as some published examples have it.
pub const WORKLOAD_TYPE_BARE: &str = "workload-type";

/// The annotation by which a pod wants to be left alone, if it does.
pub fn left_alone(annotations: &Labels) -> Option<&'static str> {
    says(annotations, OPTIMIZE, "false").then_some(OPTIMIZE)
}

/// The annotation by which a pod opts out of all sharing, if it does.
pub fn unshared(annotations: &Labels) -> Option<&'static str> {
    says(annotations, SHARING, "disabled").then_some(SHARING)
}

/// The annotation by which a pod opts out of this one strategy, if it does.
pub fn opts_out(annotations: &Labels, strategy: SharingStrategy) -> Option<&'static str> {
    let key = match strategy {
        SharingStrategy::Mps => MPS_ENABLED,
        SharingStrategy::TimeSlicing => TIME_SLICING_ENABLED,
        SharingStrategy::Mig | SharingStrategy::Exclusive => return None,
    };
    says(annotations, key, "false").then_some(key)
}

/// The annotation that keeps this strategy from being recommended for a pod: it opts out of it, or
/// of all, or wants another one.
pub fn rules_out(annotations: &Labels, strategy: SharingStrategy) -> Option<&'static str> {
    let mode = annotations.get(SHARING_MODE).and_then(SharingStrategy::parse);
    unshared(annotations)
        .or_else(|| opts_out(annotations, strategy))
        .or_else(|| mode.filter(|mode| *mode != strategy).map(|_| SHARING_MODE))
}

/// What a pod declares to do, by its label, else its annotation, else its label without prefix.
pub fn workload_types<'a>(
    labels: &'a Labels,
    annotations: &'a Labels,
) -> impl Iterator<Item = &'a str> {
    let annotation = annotations.get(WORKLOAD_TYPE);
    let places = [labels.get(WORKLOAD_TYPE), annotation, labels.get(WORKLOAD_TYPE_BARE)];
    places.into_iter().flatten()
}

/// Whether any of the places in which a pod declares what it does says training: such a pod is
/// never shared.
pub fn declares_training(labels: &Labels, annotations: &Labels) -> bool {
    workload_types(labels, annotations).any(|kind| kind.eq_ignore_ascii_case("training"))
}

/// Case is ignored: `"False"` is what some tools write, and taking it for no answer would touch a
/// pod that asked not to be.
fn says(annotations: &Labels, key: &str, word: &str) -> bool {
    annotations.get(key).is_some_and(|value| value.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use SharingStrategy::{Mig, Mps, TimeSlicing};

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::new(pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())))
    }

    #[test]
    fn only_the_published_words_leave_a_pod_alone() {
        let optimize = |value| left_alone(&labels(&[(OPTIMIZE, value)]));
        assert_eq!([optimize("false"), optimize("False")], [Some(OPTIMIZE); 2]);
        assert_eq!([optimize("true"), optimize(""), optimize("disabled")], [None; 3]);
        assert_eq!(left_alone(&labels(&[(SHARING, "disabled")])), None);
    }

    #[test]
    fn each_annotation_rules_out_what_it_is_about() {
        let table = |key, value| {
            [Mig, Mps, TimeSlicing].map(|strategy| rules_out(&labels(&[(key, value)]), strategy))
        };
        let all = |key| [Some(key); 3];
        assert_eq!(table(SHARING, "disabled"), all(SHARING));
        assert_eq!(table(SHARING, "enabled"), [None; 3]);
        assert_eq!(table(SHARING_MODE, "exclusive"), all(SHARING_MODE));
        assert_eq!(table(SHARING_MODE, "mig"), [None, Some(SHARING_MODE), Some(SHARING_MODE)]);
        assert_eq!(table(SHARING_MODE, "mps"), [Some(SHARING_MODE), None, Some(SHARING_MODE)]);
        assert_eq!(table(SHARING_MODE, "some"), [None; 3], "a word that means nothing");
        assert_eq!(table(MPS_ENABLED, "false"), [None, Some(MPS_ENABLED), None]);
        let sliced = [None, None, Some(TIME_SLICING_ENABLED)];
        assert_eq!(table(TIME_SLICING_ENABLED, "false"), sliced);
        assert_eq!(table(OPTIMIZE, "false"), [None; 3], "that is another question");
    }

    #[test]
    fn training_is_declared_in_any_of_three_places() {
        let typed = labels(&[(WORKLOAD_TYPE, "Training")]);
        let bare = labels(&[(WORKLOAD_TYPE_BARE, "training")]);
        let serving = labels(&[(WORKLOAD_TYPE, "serving")]);
        let none = Labels::default();
        assert!(declares_training(&typed, &none) && declares_training(&none, &typed));
        assert!(declares_training(&bare, &none) && declares_training(&bare, &serving));
        assert!(!declares_training(&serving, &none) && !declares_training(&none, &bare));
    }
}
