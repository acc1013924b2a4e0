//! Whether what was observed is waste.

use gpu_autoscaler_model::{FindingKind, PodUsage, Ratio, UsageProfile, WasteScore};

use crate::Thresholds;

/// Waste, in one pod.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judgement {
    /// Which kind.
    pub kind: FindingKind,
    /// How bad.
    pub score: WasteScore,
    /// The share that could be given back; `None` where memory is not measured.
    pub reclaimable: Option<Ratio>,
}

/// `None` when it is no waste: busy enough, or below the score that is announced.
///
/// `history` is what pods of the same owner and image used before: a device that any of them
/// touched is not over-requested.
pub fn judge(
    usage: &PodUsage,
    devices: u32,
    history: Option<&UsageProfile>,
    limits: &Thresholds,
) -> Option<Judgement> {
    let reclaimable = reclaimable(usage);
    let touched = usage.touched.max(history.map_or(0, |history| history.touched_max));
    if usage.touched > 0 && touched < devices {
        // Some are used, however much; the score is that of those which are not.
        let score = waste_score(Ratio::ZERO, usage.fb_untouched_mean);
        return Some(Judgement { kind: FindingKind::OverRequested, score, reclaimable });
    }
    if usage.activity_mean >= limits.busy_from {
        return None;
    }
    let score = waste_score(usage.activity_mean, usage.fb_mean);
    if score.total() <= limits.score_above {
        return None;
    }
    let kind = if usage.activity_max > limits.idle_up_to {
        FindingKind::Underutilized
    } else if usage.fb_mean.is_some_and(|mean| mean >= limits.memory_held_from) {
        FindingKind::MemoryHeld
    } else {
        FindingKind::Idle
    };
    Some(Judgement { kind, score, reclaimable })
}

/// 60 % of the compute and 40 % of the memory that was not used, of 100.
///
/// Source: the published formula `0.6 * (100 - gpuUtil) + 0.4 * (100 - memUtil)`.
pub fn waste_score(activity_mean: Ratio, fb_mean: Option<Ratio>) -> WasteScore {
    WasteScore {
        compute: 60.0 * activity_mean.rest().as_f64(),
        memory: fb_mean.map(|fb| 40.0 * fb.rest().as_f64()),
    }
}

/// What neither compute nor memory needs at its 95th percentile.
pub fn reclaimable(usage: &PodUsage) -> Option<Ratio> {
    usage.fb_p95.map(|fb| usage.activity_p95.max(fb).rest())
}

#[cfg(test)]
mod tests {
    use gpu_autoscaler_model::{ActivitySource, ProfileKey};

    use super::*;

    fn usage(activity: f64, activity_max: f64, fb: Option<f64>) -> PodUsage {
        let share = |value| Ratio::new(value).expect("a share");
        PodUsage {
            observed_secs: 600,
            samples: 60,
            activity_mean: share(activity),
            activity_p95: share(activity_max),
            activity_p99: share(activity_max),
            activity_max: share(activity_max),
            activity_source: ActivitySource::SmActive,
            fb_mean: fb.map(share),
            fb_p95: fb.map(share),
            fb_p99: None,
            fb_max: None,
            fb_total: None,
            fb_untouched_mean: None,
            preallocated: false,
            touched: u32::from(activity_max > 0.01),
        }
    }

    fn found(activity: f64, activity_max: f64, fb: Option<f64>) -> Option<FindingKind> {
        judge(&usage(activity, activity_max, fb), 1, None, &Thresholds::published()).map(|j| j.kind)
    }

    #[test]
    fn the_ends_of_the_score_are_as_published() {
        assert_eq!(waste_score(Ratio::ZERO, Some(Ratio::ZERO)).total(), 100.0);
        assert_eq!(waste_score(Ratio::ONE, Some(Ratio::ONE)).total(), 0.0);
        let half = Ratio::new(0.5).expect("a share");
        assert_eq!(waste_score(half, Some(half)).total(), 50.0);
    }

    #[test]
    fn full_load_is_no_waste() {
        assert_eq!(found(1.0, 1.0, Some(0.1)), None);
    }

    #[test]
    fn memory_held_without_compute_is_found() {
        assert_eq!(found(0.0, 0.0, Some(0.9)), Some(FindingKind::MemoryHeld));
        assert_eq!(found(0.0, 0.0, Some(1.0)), Some(FindingKind::MemoryHeld));
        assert_eq!(found(0.0, 0.0, Some(0.49)), Some(FindingKind::Idle));
    }

    #[test]
    fn a_device_that_was_never_touched_is_found_however_busy_the_others_are() {
        let mut seen = usage(0.95, 1.0, Some(0.9));
        (seen.touched, seen.fb_untouched_mean) = (7, Ratio::new(0.25));
        let limits = Thresholds::published();
        let found = judge(&seen, 8, None, &limits).expect("one of eight is untouched");
        assert_eq!((found.kind, found.score.total()), (FindingKind::OverRequested, 90.0));
        assert_eq!(judge(&seen, 7, None, &limits), None, "all of seven are touched");
        let key = ProfileKey { namespace: "a".into(), owner: "b".into(), image: "c".into() };
        let mut history = UsageProfile::empty(key, gpu_autoscaler_model::Timestamp::EPOCH);
        history.touched_max = 8;
        assert_eq!(judge(&seen, 8, Some(&history), &limits), None, "its like touched all eight");
    }

    #[test]
    fn a_duty_cycle_of_five_percent_is_underutilized() {
        assert_eq!(found(0.05, 1.0, Some(0.5)), Some(FindingKind::Underutilized));
    }

    #[test]
    fn half_busy_is_busy() {
        assert_eq!(found(0.5, 0.5, Some(0.0)), None, "published: below 50 %");
    }

    #[test]
    fn unknown_memory_never_accuses() {
        // With known empty memory this would score 42 + 40.
        assert_eq!(found(0.3, 0.4, None), None);
        // Compute alone is enough here: 60.
        assert_eq!(found(0.0, 0.0, None), Some(FindingKind::Idle));
        let idle = judge(&usage(0.0, 0.0, None), 1, None, &Thresholds::published()).expect("idle");
        assert_eq!(idle.reclaimable, None, "what memory needs is not known");
    }

    #[test]
    fn what_is_needed_at_p95_is_not_reclaimable() {
        let share = reclaimable(&usage(0.1, 0.3, Some(0.6))).expect("measured");
        assert!((share.as_f64() - 0.4).abs() < 1e-12);
    }
}
