//! What was measured, added to what is kept of the past.

use gpu_autoscaler_model::{Interval, UsageProfile};

use crate::window::Held;
use crate::{Thresholds, window};

/// After how long a stretch of the window is counted: half of it, so that a stretch is still whole
/// in the window when the last readings of it have come.
pub fn stretch(limits: &Thresholds) -> std::time::Duration {
    limits.window / 2
}

/// Adds what a pod made of its devices within `span` to the profile of its like: each reading
/// weighs the seconds since the one before it, and none where that is a gap.
///
/// Calling it twice for the same pod and span counts it twice; the caller keeps
/// [`UsageProfile::through`].
pub fn count<'w>(
    profile: &mut UsageProfile,
    devices: impl IntoIterator<Item = Held<'w>>,
    span: Interval,
    limits: &Thresholds,
) {
    let (mut touched, mut longest_secs) = (0u32, 0u64);
    for held in devices {
        let (mut secs, mut computed) = (0, false);
        for reading in held.window.within(span, limits) {
            let ppm = window::of_share(reading.activity_ppm.into(), 1_000_000, held.share);
            profile.activity_ppm.add(ppm.into(), reading.secs);
            if let Some(bytes) = reading.fb_used {
                // Up, so that what is kept is never less than what was used.
                profile.fb_mib.add(bytes.as_u64().div_ceil(1 << 20), reading.secs);
            }
            secs += reading.secs;
            computed |= ppm > limits.idle_up_to.as_ppm();
        }
        touched += u32::from(computed);
        longest_secs = longest_secs.max(secs);
    }
    if longest_secs > 0 {
        profile.pods = profile.pods.saturating_add(1);
        profile.observed_secs = profile.observed_secs.saturating_add(longest_secs);
    }
    profile.touched_max = profile.touched_max.max(touched);
    if profile.observed_secs > OBSERVED_SECS_MAX {
        profile.halve();
    }
}

/// 30 days of one pod, the published retention of aggregates: beyond it older use counts half as
/// much, so that a profile follows its workload.
const OBSERVED_SECS_MAX: u64 = 30 * 86_400;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use gpu_autoscaler_model::{Activity, ActivitySource, Bytes, ProfileKey, Ratio, Timestamp};

    use super::*;
    use crate::{Reading, Window};

    fn at(secs: u64) -> Timestamp {
        Timestamp::EPOCH.after(Duration::from_secs(secs))
    }

    fn span(from: u64, to: u64) -> Interval {
        Interval::new(at(from), at(to)).expect("in order")
    }

    fn profile() -> UsageProfile {
        let key = ProfileKey { namespace: "ml".into(), owner: "Job/a".into(), image: "i".into() };
        UsageProfile::empty(key, Timestamp::EPOCH)
    }

    /// One reading in 30 s; its activity in hundredths is its number.
    fn window(secs: impl Iterator<Item = u64>) -> Window {
        let mut window = Window::default();
        for secs in secs {
            let reading = Reading {
                at: at(secs),
                activity: Activity {
                    ratio: Ratio::new(secs as f64 / 3000.0).expect("a share"),
                    source: ActivitySource::SmActive,
                },
                fb_used: Bytes::from_mib(1000),
                fb_total: Bytes::from_mib(4000),
            };
            window.push(reading, &Thresholds::published());
        }
        window
    }

    #[test]
    fn two_halves_count_what_the_whole_counts() {
        let readings = window((0..=20).map(|i| i * 30));
        let limits = Thresholds::published();
        let (mut halves, mut whole) = (profile(), profile());
        count(&mut halves, [Held::whole(&readings)], span(0, 300), &limits);
        count(&mut halves, [Held::whole(&readings)], span(300, 601), &limits);
        count(&mut whole, [Held::whole(&readings)], span(0, 601), &limits);
        assert_eq!(halves.activity_ppm, whole.activity_ppm);
        assert_eq!((whole.observed_secs, whole.pods, halves.pods), (600, 1, 2));
        assert_eq!(whole.fb_mib.quantile(990), Some(1007), "1000 MiB, to the end of its bucket");
    }

    #[test]
    fn gaps_weigh_nothing() {
        let readings = window([0, 30, 300, 330].into_iter());
        let mut profile = profile();
        count(&mut profile, [Held::whole(&readings)], span(0, 600), &Thresholds::published());
        assert_eq!(profile.observed_secs, 60);
    }

    #[test]
    fn what_was_long_ago_counts_half() {
        let readings = window((0..=20).map(|i| i * 30));
        let mut profile = profile();
        profile.observed_secs = OBSERVED_SECS_MAX;
        profile.activity_ppm.add(900_000, 1000);
        count(&mut profile, [Held::whole(&readings)], span(0, 601), &Thresholds::published());
        assert_eq!(profile.observed_secs, (OBSERVED_SECS_MAX + 600) / 2);
        assert_eq!(profile.activity_ppm.weight(), 800);
    }
}
