//! What was observed of one device, and what a pod made of all of its devices.

use std::time::Duration;

use gpu_autoscaler_model::{
    Activity, ActivitySource, Bytes, GpuShare, Interval, PodUsage, Ratio, Timestamp, UnknownReason,
};

use crate::Thresholds;
use crate::series::Series;

/// One reading of one device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// When.
    pub at: Timestamp,
    /// Compute.
    pub activity: Activity,
    /// Framebuffer in use.
    pub fb_used: Option<Bytes>,
    /// Framebuffer in all.
    pub fb_total: Option<Bytes>,
}

/// The readings of one device of one pod, oldest first, not older than the window.
///
/// A reading takes 12 bytes: ten minutes at one in ten seconds take 768 bytes a device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Window {
    points: Series<Point>,
    fb_total: Option<Bytes>,
}

/// Compute and framebuffer in use, in eight bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    /// Two bits of the counter above 30 of its share in millionths, which is finer than any counter
    /// and at most 2^20.
    activity: u32,
    /// In KiB, so that 4 TiB fit; [`u32::MAX`] is unknown.
    fb_used_kib: u32,
}

const SOURCE_SHIFT: u32 = 30;

impl Point {
    fn of(reading: &Reading) -> Self {
        let source: u32 = match reading.activity.source {
            ActivitySource::SmActive => 0,
            ActivitySource::GrEngineActive => 1,
            ActivitySource::GpuUtil => 2,
        };
        let used = reading.fb_used.and_then(|used| u32::try_from(used.as_u64() >> 10).ok());
        Self {
            activity: source << SOURCE_SHIFT | reading.activity.ratio.as_ppm(),
            fb_used_kib: used.unwrap_or(u32::MAX),
        }
    }

    fn activity_ppm(self) -> u32 {
        self.activity & ((1 << SOURCE_SHIFT) - 1)
    }

    fn source(self) -> ActivitySource {
        match self.activity >> SOURCE_SHIFT {
            0 => ActivitySource::SmActive,
            1 => ActivitySource::GrEngineActive,
            _ => ActivitySource::GpuUtil,
        }
    }

    fn fb_used(self) -> Option<Bytes> {
        let known = self.fb_used_kib != u32::MAX;
        known.then(|| Bytes::new(u64::from(self.fb_used_kib) << 10))
    }
}

impl Window {
    /// Takes a reading in and forgets what is older than the window. A second reading of the same
    /// instant is the same reading delivered again.
    pub fn push(&mut self, reading: Reading, limits: &Thresholds) {
        let new = self.points.push(reading.at, Point::of(&reading), limits.window);
        if new && reading.fb_total.is_some() {
            self.fb_total = reading.fb_total;
        }
    }

    /// When the last reading was.
    pub fn last(&self) -> Option<Timestamp> {
        self.points.last()
    }

    /// The highest activity of the device.
    pub fn activity_max(&self) -> Ratio {
        let points = self.points.values(0..self.points.len());
        ratio(points.map(|p| u64::from(p.activity_ppm())).max().unwrap_or(0))
    }

    /// Framebuffer of the device in all, as it was last said.
    pub fn fb_total(&self) -> Option<Bytes> {
        self.fb_total
    }

    /// Readings at or after `start` and at or before `end`.
    pub(crate) fn between(
        &self,
        start: Timestamp,
        end: Timestamp,
    ) -> impl Iterator<Item = Seen> + Clone {
        let after = self.points.before(end.after(Duration::from_millis(1)));
        let points = self.points.values(self.points.before(start)..after);
        points.map(|p| Seen {
            activity_ppm: p.activity_ppm(),
            source: p.source(),
            fb_used: p.fb_used(),
        })
    }

    /// When the first reading was.
    pub(crate) fn first(&self) -> Option<Timestamp> {
        self.points.first()
    }

    /// Readings in `span` that follow another one without a gap.
    pub(crate) fn within(
        &self,
        span: Interval,
        limits: &Thresholds,
    ) -> impl Iterator<Item = Weighed> {
        let gap_max = limits.gap_max;
        let places = self.points.before(span.start)..self.points.before(span.end);
        self.points.steps(places).filter_map(move |(millis, p)| {
            let since = Duration::from_millis(millis.into());
            (since <= gap_max).then(|| Weighed {
                activity_ppm: p.activity_ppm(),
                fb_used: p.fb_used(),
                // To the nearest, so that scrapes that drift by milliseconds add up.
                secs: (since + Duration::from_millis(500)).as_secs(),
            })
        })
    }

    /// Milliseconds observed up to the last reading: time between readings, unless it is a gap.
    fn observed_millis(&self, limits: &Thresholds) -> u64 {
        let gap_max = u64::try_from(limits.gap_max.as_millis()).unwrap_or(u64::MAX);
        let steps = self.points.steps(0..self.points.len());
        // Their sum is at most the window.
        steps.map(|(millis, _)| u64::from(millis)).filter(|millis| *millis <= gap_max).sum()
    }
}

/// A reading, whenever it was.
pub(crate) struct Seen {
    pub activity_ppm: u32,
    pub source: ActivitySource,
    pub fb_used: Option<Bytes>,
}

/// A reading, and for how long it stands.
pub(crate) struct Weighed {
    pub activity_ppm: u32,
    pub fb_used: Option<Bytes>,
    /// Seconds since the reading before it.
    pub secs: u64,
}

/// A device of a pod, and what part of it the pod holds.
#[derive(Clone, Copy, Debug)]
pub struct Held<'w> {
    /// What was observed of the pod on it.
    pub window: &'w Window,
    /// The part of the device that the pod holds: readings of a shared device are set against it,
    /// so that a pod which uses all of its quarter is fully used, not a quarter.
    pub share: GpuShare,
    /// Framebuffer of the device in all, where the pod's own readings do not say.
    pub fb_total: Option<Bytes>,
}

impl<'w> Held<'w> {
    /// A device that the pod has for itself.
    pub fn whole(window: &'w Window) -> Self {
        Self { window, share: GpuShare::ALL, fb_total: None }
    }
}

/// What a pod made of its devices up to `now`, of the part that it holds of each.
///
/// Means are over the readings of each device, then over devices; percentiles are over all
/// readings (nearest rank).
///
/// # Errors
/// Why it is not known: a device has no reading ([`UnknownReason::NeverMeasured`]), its last one is
/// too old ([`UnknownReason::Stale`]), or it was not observed for long enough
/// ([`UnknownReason::TooShort`]). One unknown device makes the pod unknown.
pub fn usage<'w>(
    devices: impl IntoIterator<Item = Held<'w>>,
    now: Timestamp,
    limits: &Thresholds,
) -> Result<PodUsage, UnknownReason> {
    let mut pool = Pool::default();
    for held in devices {
        pool.add(held, now, limits)?;
    }
    pool.finish(limits)
}

#[derive(Default)]
struct Pool {
    devices: u64,
    touched: u32,
    observed_millis: Option<u64>,
    activities: Vec<u32>,
    activity_means_ppm: u64,
    sources: Option<ActivitySource>,
    fb_ppm: Vec<u32>,
    fb_means_ppm: u64,
    fb_devices: u64,
    fb_untouched_ppm: Vec<u64>,
    fb_p99: Option<Bytes>,
    fb_max: Option<Bytes>,
    fb_total: Option<Bytes>,
    fb_varies: bool,
}

impl Pool {
    fn add(
        &mut self,
        held: Held<'_>,
        now: Timestamp,
        limits: &Thresholds,
    ) -> Result<(), UnknownReason> {
        let start = now.before(limits.window);
        let window = held.window;
        let last = window.last().ok_or(UnknownReason::NeverMeasured)?;
        if now.since(last) > limits.gap_max {
            return Err(UnknownReason::Stale { last });
        }
        // Readings are in the order of time.
        let from = window.points.before(start);
        let points = || window.points.values(from..window.points.len());
        let observed = window.observed_millis(limits);
        self.observed_millis = Some(self.observed_millis.map_or(observed, |o| o.min(observed)));
        self.devices += 1;
        // Each is worked out once: this is what a judgement of a fleet spends its time on.
        let before = self.activities.len();
        let share_of = |p: Point| of_share(p.activity_ppm().into(), 1_000_000, held.share);
        self.activities.extend(points().map(share_of));
        let activities = &self.activities[before..];
        self.activity_means_ppm += mean(activities.iter().copied());
        let touched =
            activities.iter().max().is_some_and(|most| *most > limits.idle_up_to.as_ppm());
        self.touched += u32::from(touched);
        // The enum's order is from the best counter to the weakest.
        self.sources = self.sources.max(points().map(Point::source).max());
        self.add_memory(held, points().map(|p| p.fb_used_kib), touched);
        Ok(())
    }

    fn add_memory(&mut self, held: Held<'_>, used: impl Iterator<Item = u32>, touched: bool) {
        let total = held.window.fb_total.or(held.fb_total);
        let Some(total) = total.filter(|total| *total > Bytes::ZERO) else { return };
        let mut used_kib: Vec<u32> = used.collect();
        used_kib.retain(|kib| *kib != u32::MAX);
        if used_kib.is_empty() {
            return;
        }
        used_kib.sort_unstable();
        let bytes = |kib: u64| Bytes::new(kib << 10);
        let (least, most) = (used_kib[0], used_kib[used_kib.len() - 1]);
        self.fb_max = self.fb_max.max(Some(bytes(most.into())));
        self.fb_p99 = self.fb_p99.max(Some(bytes(percentile(&used_kib, 99))));
        self.fb_total = Some(self.fb_total.map_or(total, |smallest| smallest.min(total)));
        // What a runtime allocates now and then beside its pool is below a hundredth of it.
        self.fb_varies |= most == 0 || most - least > most / 100;
        let before = self.fb_ppm.len();
        let share_of = |kib: &u32| of_share(u64::from(*kib) << 10, total.as_u64(), held.share);
        self.fb_ppm.extend(used_kib.iter().map(share_of));
        let mean = mean(self.fb_ppm[before..].iter().copied());
        self.fb_devices += 1;
        self.fb_means_ppm += mean;
        if !touched {
            self.fb_untouched_ppm.push(mean);
        }
    }

    fn finish(mut self, limits: &Thresholds) -> Result<PodUsage, UnknownReason> {
        let observed_millis = self.observed_millis.ok_or(UnknownReason::NeverMeasured)?;
        let source = self.sources.ok_or(UnknownReason::NeverMeasured)?;
        let observed_secs = observed_millis / 1000;
        let needed_secs = limits.observed_min.as_secs();
        if observed_secs < needed_secs {
            return Err(UnknownReason::TooShort { observed_secs, needed_secs });
        }
        let all_memory = self.fb_devices == self.devices;
        let untouched = self.fb_untouched_ppm.len() as u64;
        let fb_untouched = self.fb_untouched_ppm.iter().sum::<u64>().checked_div(untouched);
        self.activities.sort_unstable();
        self.fb_ppm.sort_unstable();
        Ok(PodUsage {
            observed_secs,
            samples: u32::try_from(self.activities.len()).unwrap_or(u32::MAX),
            activity_mean: ratio(self.activity_means_ppm / self.devices),
            activity_p95: ratio(percentile(&self.activities, 95)),
            activity_p99: ratio(percentile(&self.activities, 99)),
            activity_max: ratio(self.activities.last().copied().unwrap_or(0).into()),
            activity_source: source,
            fb_mean: all_memory.then(|| ratio(self.fb_means_ppm / self.devices)),
            fb_p95: all_memory.then(|| ratio(percentile(&self.fb_ppm, 95))),
            fb_p99: self.fb_p99.filter(|_| all_memory),
            fb_max: self.fb_max,
            fb_total: self.fb_total.filter(|_| all_memory),
            fb_untouched_mean: fb_untouched.filter(|_| all_memory).map(ratio),
            preallocated: all_memory && !self.fb_varies,
            touched: self.touched,
        })
    }
}

/// What `amount` of `whole` is of the held share of it, in millionths; at most all of it, since
/// nothing keeps a pod on a shared device from taking more than its part, and an exporter's total
/// can be short of what is used by what the driver reserves.
pub(crate) fn of_share(amount: u64, whole: u64, share: GpuShare) -> u32 {
    let (part, of) = (u64::from(share.part()), u64::from(share.of()));
    let parts = amount.checked_mul(of).and_then(|parts| parts.checked_mul(1_000_000));
    // 64 bits hold 16 TiB of a whole GPU; dividing 128 costs several times as much.
    let ppm = match (parts, whole.checked_mul(part)) {
        (Some(parts), Some(held)) => parts.checked_div(held),
        _ => {
            let parts = u128::from(amount) * u128::from(of) * 1_000_000;
            let ppm = parts.checked_div(u128::from(whole) * u128::from(part));
            ppm.map(|ppm| u64::try_from(ppm).unwrap_or(u64::MAX))
        }
    };
    // At most the whole, which 32 bits hold.
    ppm.map_or(1_000_000, |ppm| ppm.min(1_000_000) as u32)
}

/// Zero for nothing: callers ask only for windows that hold something.
fn mean(values: impl Iterator<Item = u32>) -> u64 {
    let (sum, count) = values.fold((0u64, 0u64), |(sum, count), v| (sum + u64::from(v), count + 1));
    (sum + count / 2).checked_div(count).unwrap_or(0)
}

/// The smallest value that `percent` of `sorted` do not exceed.
fn percentile(sorted: &[u32], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0).into()
}

fn ratio(ppm: u64) -> Ratio {
    Ratio::new(ppm as f64 / 1e6).expect("means and percentiles of shares are shares")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn reading(secs: u64, activity: f64) -> Reading {
        Reading {
            at: Timestamp::EPOCH.after(Duration::from_secs(secs)),
            activity: Activity {
                ratio: Ratio::new(activity).expect("a share"),
                source: ActivitySource::SmActive,
            },
            fb_used: Bytes::from_mib(1000),
            fb_total: Bytes::from_mib(4000),
        }
    }

    fn window(readings: impl IntoIterator<Item = Reading>) -> Window {
        let mut window = Window::default();
        for reading in readings {
            window.push(reading, &Thresholds::published());
        }
        window
    }

    fn at(secs: u64) -> Timestamp {
        Timestamp::EPOCH.after(Duration::from_secs(secs))
    }

    fn judge(windows: &[Window], secs: u64) -> Result<PodUsage, UnknownReason> {
        usage(windows.iter().map(Held::whole), at(secs), &Thresholds::published())
    }

    #[test]
    fn steady_use_is_its_own_mean() {
        let usage = judge(&[window((0..=60).map(|i| reading(i * 10, 0.3)))], 600).expect("known");
        assert_eq!(usage.observed_secs, 600);
        assert_eq!(usage.activity_mean, Ratio::new(0.3).expect("a share"));
        assert_eq!(usage.fb_mean, Ratio::new(0.25));
        assert_eq!(usage.fb_max, Bytes::from_mib(1000));
    }

    #[test]
    fn observed_just_long_enough_is_known() {
        let windows = [window((0..=30).map(|i| reading(i * 10, 0.3)))];
        assert_eq!(judge(&windows, 300).map(|usage| usage.observed_secs), Ok(300));
        // As far apart as is allowed.
        let windows = [window((0..=6).map(|i| reading(i * 90, 0.3)))];
        assert_eq!(judge(&windows, 540).map(|usage| usage.observed_secs), Ok(540));
    }

    #[test]
    fn the_device_observed_least_decides_what_is_known() {
        let long = window((0..=60).map(|i| reading(i * 10, 0.9)));
        let short = window((36..=60).map(|i| reading(i * 10, 0.9)));
        let too_short = Err(UnknownReason::TooShort { observed_secs: 240, needed_secs: 300 });
        assert_eq!(judge(&[long.clone(), short.clone()], 600), too_short);
        assert_eq!(judge(&[short, long], 600), too_short);
    }

    #[test]
    fn a_device_is_touched_above_one_percent() {
        let at_most = |activity| window((0..=60).map(|i| reading(i * 10, activity)));
        let touched = |activity| judge(&[at_most(activity)], 600).expect("known").touched;
        assert_eq!((touched(0.01), touched(0.0101)), (0, 1));
    }

    #[test]
    fn framebuffer_within_a_hundredth_is_preallocated_and_the_smallest_device_counts() {
        let varying = |mib: u64, total: u64| {
            window((0..=60).map(|i| Reading {
                fb_used: Bytes::from_mib(1000 - (i % 2) * mib),
                fb_total: Bytes::from_mib(total),
                ..reading(i * 10, 0.3)
            }))
        };
        let of = |windows: &[Window]| judge(windows, 600).expect("known");
        assert!(of(&[varying(10, 4000)]).preallocated);
        assert!(!of(&[varying(11, 4000)]).preallocated);
        let mixed = of(&[varying(0, 4000), varying(0, 2000), varying(0, 8000)]);
        assert_eq!(mixed.fb_total, Bytes::from_mib(2000));
    }

    #[test]
    fn no_reading_is_unknown() {
        assert_eq!(judge(&[], 0), Err(UnknownReason::NeverMeasured));
        assert_eq!(judge(&[Window::default()], 0), Err(UnknownReason::NeverMeasured));
    }

    #[test]
    fn a_silent_exporter_makes_it_unknown_again() {
        let windows = [window((0..=60).map(|i| reading(i * 10, 0.0)))];
        assert!(judge(&windows, 690).is_ok());
        assert_eq!(judge(&windows, 691), Err(UnknownReason::Stale { last: at(600) }));
    }

    #[test]
    fn gaps_are_not_observed() {
        // Two bursts of two minutes, five minutes apart.
        let readings = (0..=12).chain(42..=54).map(|i| reading(i * 10, 0.0));
        assert_eq!(
            judge(&[window(readings)], 540),
            Err(UnknownReason::TooShort { observed_secs: 240, needed_secs: 300 })
        );
    }

    #[test]
    fn one_unknown_device_makes_the_pod_unknown() {
        let busy = window((0..=60).map(|i| reading(i * 10, 0.9)));
        assert!(judge(&[busy, Window::default()], 600).is_err());
    }

    #[test]
    fn a_rare_burst_shows_in_the_maximum_but_not_in_p95() {
        let readings = (0..=60).map(|i| reading(i * 10, if i == 30 { 1.0 } else { 0.0 }));
        let usage = judge(&[window(readings)], 600).expect("known");
        assert_eq!((usage.activity_p95, usage.activity_max), (Ratio::ZERO, Ratio::ONE));
    }

    proptest! {
        #[test]
        fn order_and_repetition_of_arrival_do_not_matter(
            mut order in Just((0u64..=60).collect::<Vec<_>>()).prop_shuffle(),
            again in prop::collection::vec(0u64..=60, 0..20),
        ) {
            let value = |i: u64| reading(i * 10, (i % 7) as f64 / 7.0);
            let in_order = window((0..=60).map(value));
            order.extend(again);
            let shuffled = window(order.into_iter().map(value));
            prop_assert_eq!(in_order, shuffled);
        }
    }
}
