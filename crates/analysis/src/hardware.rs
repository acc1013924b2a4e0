//! Whether a device's hardware needs a look.

use gpu_autoscaler_model::{HardwareFault, HardwareReading, Ratio, ThrottleReasons, Timestamp};

use crate::Thresholds;
use crate::series::Series;

/// Reasons that are no one's wish: heat, and power that the machine cannot give.
///
/// Left out: nothing runs, somebody limited the clocks, clocks follow those of other devices, and
/// the power limit, which full load reaches on most models.
const INVOLUNTARY: ThrottleReasons = ThrottleReasons::HW_SLOWDOWN
    .union(ThrottleReasons::SW_THERMAL)
    .union(ThrottleReasons::HW_THERMAL)
    .union(ThrottleReasons::HW_POWER_BRAKE);

/// XID errors that stand for a mistake of the program that ran; every other one stands for the
/// device, its memory, its links or its driver.
///
/// Source: `ignoredXids` in NVIDIA k8s-device-plugin `internal/rm/health.go` (commit 02597b97),
/// which takes a device out of service for every XID but these: graphics engine exception, memory
/// page fault, processing stopped, cleanup after earlier errors, video processor exception, context
/// switch timeout.
const XIDS_OF_PROGRAMS: [u32; 6] = [13, 31, 43, 45, 68, 109];

/// What a device said of its clocks, oldest first, not older than the window.
///
/// A reading takes 5 bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ThrottleWindow {
    /// The reasons of [`INVOLUNTARY`] that held: all of them fit in a byte.
    points: Series<u8>,
}

impl ThrottleWindow {
    /// Takes a reading in and forgets what is older than the window. A second reading of the same
    /// instant is the same reading delivered again.
    pub fn push(&mut self, at: Timestamp, reasons: ThrottleReasons, limits: &Thresholds) {
        const { assert!(INVOLUNTARY.bits() <= u8::MAX as u64) };
        let held = reasons.intersection(INVOLUNTARY).bits() as u8;
        self.points.push(at, held, limits.window);
    }

    /// All reasons beyond anybody's wish, and the share of the readings that have one; `None`
    /// when it was not observed for long enough.
    fn involuntary(&self, now: Timestamp, limits: &Thresholds) -> Option<(ThrottleReasons, Ratio)> {
        let places = self.points.before(now.before(limits.window))..self.points.len();
        let (first, last) = (self.points.time(places.start)?, self.points.last()?);
        if last.since(first) < limits.observed_min || now.since(last) > limits.gap_max {
            return None;
        }
        let count = places.len();
        let points = || self.points.values(places.clone());
        let held_down = points().filter(|held| *held != 0).count();
        let reasons = points().fold(0, |all, held| all | held);
        let reasons = ThrottleReasons::from_bits(reasons.into());
        Some((reasons, Ratio::new(held_down as f64 / count as f64)?))
    }
}

/// What is wrong with a device, worst first; empty where nothing is, or nothing is known.
///
/// `last` is its last reading: XIDs and counts of memory errors stay until the driver is loaded
/// anew, which takes the device out of use anyway.
pub fn hardware_faults(
    window: &ThrottleWindow,
    last: &HardwareReading,
    now: Timestamp,
    limits: &Thresholds,
) -> Vec<HardwareFault> {
    let mut faults = Vec::new();
    if last.row_remap_failed == Some(true) {
        faults.push(HardwareFault::RowRemapFailed);
    }
    if let Some(count) = last.ecc_uncorrected.filter(|count| *count > 0) {
        faults.push(HardwareFault::UncorrectedEcc { count });
    }
    if let Some(code) = last.xid.filter(|code| *code != 0 && !XIDS_OF_PROGRAMS.contains(code)) {
        faults.push(HardwareFault::Xid { code });
    }
    if let Some((reasons, share)) = window.involuntary(now, limits)
        && share >= limits.throttled_from
    {
        faults.push(HardwareFault::Throttled { reasons, share });
    }
    faults
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(secs: u64) -> Timestamp {
        Timestamp::EPOCH.after(Duration::from_secs(secs))
    }

    /// Ten minutes of readings of which `throttled` in ten say `reasons`.
    fn window(throttled: u64, reasons: ThrottleReasons) -> ThrottleWindow {
        let mut window = ThrottleWindow::default();
        for reading in 0..=20 {
            let of = if reading % 10 < throttled { reasons } else { ThrottleReasons::GPU_IDLE };
            window.push(at(reading * 30), of, &Thresholds::published());
        }
        window
    }

    fn faults(window: &ThrottleWindow, last: HardwareReading) -> Vec<String> {
        let found = hardware_faults(window, &last, at(600), &Thresholds::published());
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn heat_over_half_of_the_window_is_found() {
        let hot = window(6, ThrottleReasons::HW_THERMAL);
        assert_eq!(
            faults(&hot, HardwareReading::default()),
            ["clocks held down in 61.9 % of the window: hardware thermal slowdown"]
        );
        assert!(
            faults(&window(4, ThrottleReasons::HW_THERMAL), HardwareReading::default()).is_empty()
        );
    }

    #[test]
    fn heat_in_just_half_of_the_window_is_found() {
        let mut half = ThrottleWindow::default();
        for reading in 0..20 {
            let hot =
                [ThrottleReasons::HW_THERMAL, ThrottleReasons::GPU_IDLE][reading as usize % 2];
            half.push(at(reading * 30), hot, &Thresholds::published());
        }
        assert_eq!(
            faults(&half, HardwareReading::default()),
            ["clocks held down in 50.0 % of the window: hardware thermal slowdown"]
        );
    }

    #[test]
    fn one_error_that_could_not_be_corrected_is_enough() {
        let of =
            |count| HardwareReading { ecc_uncorrected: Some(count), ..HardwareReading::default() };
        let quiet = ThrottleWindow::default();
        assert!(faults(&quiet, of(0)).is_empty());
        assert_eq!(faults(&quiet, of(1)).len(), 1);
    }

    #[test]
    fn full_load_at_the_power_limit_is_no_fault() {
        let capped =
            window(10, ThrottleReasons::SW_POWER_CAP.union(ThrottleReasons::APPLICATIONS_CLOCKS));
        assert!(faults(&capped, HardwareReading::default()).is_empty());
    }

    #[test]
    fn what_was_seen_for_a_minute_only_is_not_known() {
        let mut short = ThrottleWindow::default();
        for secs in [540, 570, 600] {
            short.push(at(secs), ThrottleReasons::HW_THERMAL, &Thresholds::published());
        }
        assert!(faults(&short, HardwareReading::default()).is_empty());
    }

    #[test]
    fn xids_of_programs_accuse_no_device() {
        let last = |xid| HardwareReading { xid: Some(xid), ..HardwareReading::default() };
        let quiet = ThrottleWindow::default();
        for xid in [0, 13, 31, 43, 45, 68, 109] {
            assert!(faults(&quiet, last(xid)).is_empty(), "{xid}");
        }
        assert_eq!(faults(&quiet, last(79)), ["XID 79"]);
    }

    #[test]
    fn the_worst_comes_first_and_corrected_errors_are_none() {
        let sick = HardwareReading {
            row_remap_failed: Some(true),
            ecc_uncorrected: Some(2),
            ecc_corrected: Some(5_000),
            xid: Some(48),
            ..HardwareReading::default()
        };
        assert_eq!(
            faults(&ThrottleWindow::default(), sick),
            ["spare memory rows ran out", "2 memory errors that could not be corrected", "XID 48"]
        );
    }
}
