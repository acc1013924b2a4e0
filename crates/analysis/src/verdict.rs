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

/// What [`judge`] asks of what was observed, in the order of [`Rule::ALL`]; the first that holds
/// decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Some of its devices were touched, and some never.
    SomeUntouched,
    /// It computes enough on average.
    Busy,
    /// Its score is too low to be announced.
    ScoreTooLow,
    /// It computes now and then.
    ComputesAtTimes,
    /// It computes nothing, and holds memory.
    HoldsMemory,
    /// None of these holds: it uses nothing.
    UsesNothing,
}

/// What a rule looks at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Measured {
    /// Devices that computed anything, and those that it holds.
    Devices {
        /// How many computed.
        touched: u32,
        /// How many it holds.
        of: u32,
    },
    /// A share of compute or memory; `None` where it is not measured.
    Share(Option<Ratio>),
    /// A waste score, 0 to 100.
    Score(f64),
}

impl Rule {
    /// In the order in which they are asked.
    pub const ALL: [Self; 6] = [
        Self::SomeUntouched,
        Self::Busy,
        Self::ScoreTooLow,
        Self::ComputesAtTimes,
        Self::HoldsMemory,
        Self::UsesNothing,
    ];

    /// The kind of waste that it means; `None` for no waste.
    pub const fn outcome(self) -> Option<FindingKind> {
        match self {
            Self::SomeUntouched => Some(FindingKind::OverRequested),
            Self::Busy | Self::ScoreTooLow => None,
            Self::ComputesAtTimes => Some(FindingKind::Underutilized),
            Self::HoldsMemory => Some(FindingKind::MemoryHeld),
            Self::UsesNothing => Some(FindingKind::Idle),
        }
    }

    fn holds(
        self,
        usage: &PodUsage,
        devices: u32,
        history: Option<&UsageProfile>,
        limits: &Thresholds,
    ) -> bool {
        match self {
            Self::SomeUntouched => {
                let ever = usage.touched.max(history.map_or(0, |history| history.touched_max));
                usage.touched > 0 && ever < devices
            }
            Self::Busy => usage.activity_mean >= limits.busy_from,
            Self::ScoreTooLow => score_of(usage).total() <= limits.score_above,
            Self::ComputesAtTimes => usage.activity_max > limits.idle_up_to,
            Self::HoldsMemory => usage.fb_mean.is_some_and(|mean| mean >= limits.memory_held_from),
            Self::UsesNothing => true,
        }
    }

    /// When it holds, in words; `None` for the last, which always does.
    pub fn condition(self, limits: &Thresholds) -> Option<String> {
        let percent = |share: Ratio| f64::from(share.as_ppm()) / 1e4;
        Some(match self {
            Self::SomeUntouched => {
                "some but not all of its devices were touched, now or by its like before".to_owned()
            }
            Self::Busy => format!("mean compute is at least {}%", percent(limits.busy_from)),
            Self::ScoreTooLow => format!("the waste score is {} or less", limits.score_above),
            Self::ComputesAtTimes => {
                format!("the highest compute is above {}%", percent(limits.idle_up_to))
            }
            Self::HoldsMemory => {
                format!("mean memory is at least {}%", percent(limits.memory_held_from))
            }
            Self::UsesNothing => return None,
        })
    }

    /// What it looks at; `None` for the last, which looks at nothing.
    pub fn measured(self, usage: &PodUsage, devices: u32) -> Option<Measured> {
        Some(match self {
            Self::SomeUntouched => Measured::Devices { touched: usage.touched, of: devices },
            Self::Busy => Measured::Share(Some(usage.activity_mean)),
            Self::ScoreTooLow => Measured::Score(score_of(usage).total()),
            Self::ComputesAtTimes => Measured::Share(Some(usage.activity_max)),
            Self::HoldsMemory => Measured::Share(usage.fb_mean),
            Self::UsesNothing => return None,
        })
    }
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
    let rule = Rule::ALL.into_iter().find(|rule| rule.holds(usage, devices, history, limits));
    let kind = rule?.outcome()?;
    let score = match kind {
        // Some are used, however much; the score is that of those which are not.
        FindingKind::OverRequested => waste_score(Ratio::ZERO, usage.fb_untouched_mean),
        _ => score_of(usage),
    };
    Some(Judgement { kind, score, reclaimable: reclaimable(usage) })
}

fn score_of(usage: &PodUsage) -> WasteScore {
    waste_score(usage.activity_mean, usage.fb_mean)
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
    fn a_value_at_its_threshold_is_on_the_side_that_is_published() {
        // 60 x 0.75 + 40 x 0.125 is 50, and waste is above 50.
        assert_eq!(found(0.25, 1.0, Some(0.875)), None);
        assert_eq!(found(0.25, 1.0, Some(0.87)), Some(FindingKind::Underutilized));
        assert_eq!(found(0.01, 0.01, Some(0.3)), Some(FindingKind::Idle), "up to 1 %");
        assert_eq!(found(0.01, 0.011, Some(0.3)), Some(FindingKind::Underutilized));
        assert_eq!(found(0.0, 0.0, Some(0.5)), Some(FindingKind::MemoryHeld), "from half on");
    }

    #[test]
    fn rules_say_what_they_compare_and_with_what() {
        let limits = Thresholds::published();
        let seen = usage(0.09, 0.2, Some(0.25));
        let words = Rule::ALL.map(|rule| rule.condition(&limits).unwrap_or_default());
        let like = "some but not all of its devices were touched, now or by its like before";
        let expected = [
            like,
            "mean compute is at least 50%",
            "the waste score is 50 or less",
            "the highest compute is above 1%",
            "mean memory is at least 50%",
            "",
        ];
        assert_eq!(words, expected);
        let share = |value| Some(Measured::Share(Ratio::new(value)));
        let measured = Rule::ALL.map(|rule| rule.measured(&seen, 2));
        assert_eq!(measured[0], Some(Measured::Devices { touched: 1, of: 2 }));
        assert_eq!([measured[1], measured[3], measured[4]], [share(0.09), share(0.2), share(0.25)]);
        assert_eq!(measured[2], Some(Measured::Score(score_of(&seen).total())));
        assert_eq!(measured[5], None);
        let decides = |seen: &PodUsage, devices| {
            Rule::ALL.into_iter().find(|rule| rule.holds(seen, devices, None, &limits))
        };
        for (rule, activity, most, fb, devices) in [
            (Rule::SomeUntouched, 0.9, 1.0, 0.9, 2),
            (Rule::Busy, 0.5, 0.5, 0.0, 1),
            (Rule::ScoreTooLow, 0.45, 1.0, 1.0, 1),
            (Rule::ComputesAtTimes, 0.1, 1.0, 0.9, 1),
            (Rule::HoldsMemory, 0.0, 0.0, 0.9, 1),
            (Rule::UsesNothing, 0.0, 0.0, 0.1, 1),
        ] {
            assert_eq!(decides(&usage(activity, most, Some(fb)), devices), Some(rule));
        }
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
        let share = |value| Ratio::new(value).expect("a share");
        let mut seen = usage(0.1, 0.25, Some(0.75));
        // Means are lower, and would give back what a burst needs.
        seen.fb_mean = Some(share(0.125));
        assert_eq!(reclaimable(&seen), Some(share(0.25)), "memory is what it needs most of");
        (seen.activity_mean, seen.fb_p95) = (share(0.125), Some(share(0.125)));
        seen.activity_p95 = share(0.5);
        assert_eq!(reclaimable(&seen), Some(share(0.5)), "compute is");
    }
}
