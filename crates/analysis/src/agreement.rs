//! Whether two exporters of one device say the same.

use gpu_autoscaler_model::{ActivitySource, Bytes};

use crate::Window;
use crate::window::Seen;

/// Readings that each must have of the time that both observed: fewer contradict nobody.
const READINGS_MIN: usize = 3;

/// What rounding explains: `DCGM_FI_DEV_GPU_UTIL` is in whole percents.
const COMPUTE_ROUNDING_PPM: f64 = 10_000.0;

/// What rounding explains of framebuffer: counters are in whole MiB, of which each exporter may
/// count what the driver reserves or not.
const MEMORY_ROUNDING: f64 = 0.01;

/// How many standard errors of a difference chance explains: one in 370 differences is larger where
/// nothing else makes them.
const CHANCE: f64 = 3.0;

/// Whether two windows that two exporters filled of one device contradict each other: of the time
/// that both observed, the means of compute by the same counter, or of framebuffer, lie further
/// apart than rounding and chance explain.
///
/// Exporters read at different instants, so that of a load that changes each reading differs; what
/// chance explains are three standard errors of the difference of the means.
///
/// Source: Welch, "The generalization of Student's problem when several different population
/// variances are involved", Biometrika 34, 1947.
pub fn contradict(one: &Window, other: &Window) -> bool {
    let starts = one.first().zip(other.first()).map(|(a, b)| a.max(b));
    let Some((start, end)) = starts.zip(one.last().zip(other.last()).map(|(a, b)| a.min(b))) else {
        return false;
    };
    let (one, other) = (one.between(start, end), other.between(start, end));
    let source = |seen: &Seen| seen.source;
    if same(one.clone().map(|s| source(&s)), other.clone().map(|s| source(&s))).is_some() {
        let ppm = |seen: Seen| f64::from(seen.activity_ppm);
        if differ(one.clone().map(ppm), other.clone().map(ppm), |_| COMPUTE_ROUNDING_PPM) {
            return true;
        }
    }
    let memory = |seen: Seen| seen.fb_used.map(mib);
    differ(one.filter_map(memory), other.filter_map(memory), |most| 1.0 + most * MEMORY_ROUNDING)
}

/// The one counter of all readings; `None` where there are several, which measure different things.
fn same(
    one: impl Iterator<Item = ActivitySource>,
    other: impl Iterator<Item = ActivitySource>,
) -> Option<ActivitySource> {
    let mut all = one.chain(other);
    let first = all.next()?;
    all.all(|source| source == first).then_some(first)
}

/// Framebuffer is far below 2^53 MiB.
fn mib(bytes: Bytes) -> f64 {
    (bytes.as_u64() >> 20) as f64
}

fn differ(
    one: impl Iterator<Item = f64>,
    other: impl Iterator<Item = f64>,
    rounding: impl Fn(f64) -> f64,
) -> bool {
    let (Some(one), Some(other)) = (Spread::of(one), Spread::of(other)) else { return false };
    let apart = (one.mean - other.mean).abs();
    let chance = CHANCE * (one.error_squared + other.error_squared).sqrt();
    apart > rounding(one.mean.max(other.mean)) + chance
}

/// The mean of some readings, and the square of its standard error.
struct Spread {
    mean: f64,
    error_squared: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let values: Vec<f64> = values.collect();
        if values.len() < READINGS_MIN {
            return None;
        }
        // A window holds far fewer readings than a float can count.
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
        Some(Self { mean, error_squared: squares / (count - 1.0) / count })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use gpu_autoscaler_model::{Activity, Ratio, Timestamp};

    use super::*;
    use crate::{Reading, Thresholds};

    fn window(
        from: u64,
        source: ActivitySource,
        activity: impl Fn(u64) -> f64,
        fb_mib: u64,
    ) -> Window {
        let mut window = Window::default();
        for n in 0..20 {
            let reading = Reading {
                at: Timestamp::EPOCH.after(Duration::from_secs(from + n * 30)),
                activity: Activity { ratio: Ratio::new(activity(n)).expect("a share"), source },
                fb_used: Bytes::from_mib(fb_mib),
                fb_total: Bytes::from_mib(40_000),
            };
            window.push(reading, &Thresholds::published());
        }
        window
    }

    #[test]
    fn rounding_and_other_instants_contradict_nobody_and_other_values_do() {
        let util = ActivitySource::GpuUtil;
        let steady = window(0, util, |_| 0.30, 4_000);
        let contradicts = |other: &Window| contradict(&steady, other);
        assert!(!contradicts(&window(7, util, |_| 0.30, 4_000)));
        assert!(!contradicts(&window(7, util, |_| 0.309, 4_030)), "rounded");
        assert!(contradicts(&window(7, util, |_| 0.33, 4_000)), "compute");
        assert!(contradicts(&window(7, util, |_| 0.30, 4_100)), "memory");
        let half = window(0, util, |n| (n % 2) as f64, 4_000);
        let other_half = window(15, util, |n| ((n / 2) % 2) as f64, 4_000);
        assert!(!contradict(&half, &other_half), "a duty cycle, read at other instants");
        assert!(contradict(&half, &window(7, util, |_| 0.0, 4_000)), "one of them reads nothing");
    }

    #[test]
    fn other_counters_and_other_times_say_nothing_about_each_other() {
        let util = ActivitySource::GpuUtil;
        let busy = window(0, util, |_| 0.90, 4_000);
        assert!(!contradict(&busy, &window(7, ActivitySource::SmActive, |_| 0.2, 4_000)));
        assert!(!contradict(&busy, &window(600, util, |_| 0.2, 4_000)));
        assert!(!contradict(&busy, &Window::default()));
    }
}
