//! Windows of samples turned into findings of waste.
//!
//! In: the samples of one pod's devices, and what is kept of the past. Out: what the pod made of
//! them ([`usage`]) or why that is not known, whether it is waste ([`judge`], by the questions of
//! [`Rule`]), what would be enough ([`advise`]), which devices need a look ([`hardware_faults`]),
//! and the past with the present added to it ([`count`]); whether two exporters of one device
//! [`contradict`] each other.
//!
//! # Invariants
//! - Unknown is neither idle nor busy: what was not observed long enough accuses nobody.
//! - Gaps do not count as observed time, and no value is carried across them.
//! - The same samples in any order of arrival give the same result.
//! - No prices and no actions: a finding says what is wasted, not what is done about it.

mod advice;
mod agreement;
mod hardware;
mod history;
mod verdict;
mod window;

pub use advice::{Holding, Part, Ways, advise};
pub use agreement::contradict;
pub use hardware::{ThrottleWindow, hardware_faults};
pub use history::{count, stretch};
pub use verdict::{Judgement, Measured, Rule, judge, reclaimable, waste_score};
pub use window::{Held, Reading, Window, usage};

use std::time::Duration;

use gpu_autoscaler_model::Ratio;

/// What counts as waste. The published values: [`Thresholds::published`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// How far back is looked.
    pub window: Duration,
    /// How much of the window must have been observed. Published: more than 5 minutes.
    pub observed_min: Duration,
    /// The longest time between two samples that counts as observed, and the oldest last sample
    /// that is believed. Three scrapes at the exporter's default interval of 30 s.
    pub gap_max: Duration,
    /// Pods that started more recently are left alone.
    pub pod_age_min: Duration,
    /// Mean activity from which on a pod is busy.
    pub busy_from: Ratio,
    /// Highest activity up to which a pod is idle, and a device untouched.
    pub idle_up_to: Ratio,
    /// Mean framebuffer from which on an idle pod counts as holding memory.
    pub memory_held_from: Ratio,
    /// Share of the window from which on a device whose clocks are held down is throttled.
    pub throttled_from: Ratio,
    /// What a smaller device must hold beyond the measured framebuffer, as a share of it.
    pub memory_margin: Ratio,
    /// Waste score above which it is announced.
    pub score_above: f64,
}

impl Thresholds {
    /// Window 10 min, observed 5 min, busy from 50 %, score above 50.
    ///
    /// `idle_up_to` is 1 %: a driver's housekeeping and a metrics agent's own kernels show as
    /// fractions of a percent. `memory_margin` is 10 %: what a CUDA context and fragmentation take
    /// differs between devices by some hundred MiB.
    pub fn published() -> Self {
        Self {
            window: Duration::from_secs(600),
            observed_min: Duration::from_secs(300),
            gap_max: Duration::from_secs(90),
            pod_age_min: Duration::from_secs(300),
            busy_from: Ratio::new(0.5).expect("a half is a ratio"),
            idle_up_to: Ratio::new(0.01).expect("a hundredth is a ratio"),
            memory_held_from: Ratio::new(0.5).expect("a half is a ratio"),
            throttled_from: Ratio::new(0.5).expect("a half is a ratio"),
            memory_margin: Ratio::new(0.1).expect("a tenth is a ratio"),
            score_above: 50.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What users were told: below 50 % for more than 5 minutes over a 10-minute window, pods
    /// younger than 5 minutes left alone, announced above a score of 50.
    #[test]
    fn the_published_thresholds_are_those_that_were_published() {
        let limits = Thresholds::published();
        let minutes = |count: u64| Duration::from_secs(count * 60);
        assert_eq!((limits.window, limits.observed_min), (minutes(10), minutes(5)));
        assert_eq!((limits.pod_age_min, limits.score_above), (minutes(5), 50.0));
        assert_eq!(limits.busy_from.as_percent(), 50.0);
    }
}
