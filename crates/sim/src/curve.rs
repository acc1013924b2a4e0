//! How much of its GPUs a pod uses over its life.
//!
//! A curve is a formula with a closed integral, not a list of points: the true mean of any window
//! is exact, costs nothing, and owes nothing to how an exporter samples it.

use std::time::Duration;

use serde::Serialize;

use crate::Chance;

const HOUR_MS: f64 = 3_600_000.0;
const DAY_MS: f64 = 24.0 * HOUR_MS;

/// What a pod does with its GPUs, in the words in which people complain about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Load {
    /// Training: high, with a short dip whenever it writes a checkpoint.
    Training,
    /// Every cycle used.
    Full,
    /// Training that computes nothing for minutes while it loads, then runs high.
    SlowStart,
    /// Inference under load: short bursts, busy most of the time.
    BusyInference,
    /// Inference with few requests: short bursts, idle most of the time.
    QuietInference,
    /// Inference that follows the day: busy at noon, nearly idle at night.
    DailyInference,
    /// One short burst in twenty: easily taken for idle, easily missed by a scrape.
    FivePercent,
    /// A notebook that nobody types in.
    IdleNotebook,
    /// A model kept in memory that nobody asks.
    HeldMemory,
    /// A job that hangs: busy at first, then nothing, and never ends.
    Stalled,
    /// A job that needs a small part of a GPU and holds a whole one.
    SmallShare,
    /// Several GPUs requested, the first one used.
    OneOfMany,
}

/// Share of the devices that a pod uses, by time since its containers started.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// What kind it is.
    pub load: Load,
    /// Nothing is computed before.
    warm_up_ms: f64,
    /// Nothing is computed from then on.
    stalls_ms: Option<f64>,
    /// Share of compute during a burst.
    high: f64,
    /// Share of compute between bursts.
    low: f64,
    /// From burst to burst.
    period_ms: f64,
    /// Length of a burst.
    burst_ms: f64,
    /// Bursts follow the hour of the day.
    daily: bool,
    /// Share of framebuffer held once loaded.
    fb: f64,
    /// Devices that are used at all; the others hold memory for nothing.
    devices: u32,
}

/// Share of its noon load that a daily service has in each hour, from midnight.
const DAY: [f64; 24] = [
    0.12, 0.08, 0.06, 0.05, 0.05, 0.08, 0.15, 0.35, 0.70, 0.95, 1.0, 1.0, //
    1.0, 1.0, 1.0, 0.95, 0.90, 0.80, 0.75, 0.80, 0.85, 0.70, 0.40, 0.20,
];

impl Curve {
    /// A curve of this kind, its details by chance. `devices` is how many the pod holds.
    pub fn draw(load: Load, devices: u32, chance: &mut Chance) -> Self {
        let secs = |s: f64| s * 1e3;
        let mut curve = Self {
            load,
            warm_up_ms: secs(chance.within(5.0, 60.0)),
            stalls_ms: None,
            high: chance.within(0.86, 0.98),
            low: 0.0,
            period_ms: secs(chance.within(31.0, 77.0)),
            burst_ms: 0.0,
            daily: false,
            fb: chance.within(0.55, 0.93),
            devices,
        };
        match load {
            Load::Training | Load::SlowStart | Load::Stalled | Load::OneOfMany => {
                curve.period_ms = secs(chance.within(600.0, 1800.0));
                curve.burst_ms = curve.period_ms - secs(chance.within(15.0, 45.0));
                curve.low = 0.02;
                if load == Load::SlowStart {
                    curve.warm_up_ms = secs(chance.within(120.0, 280.0));
                }
                if load == Load::Stalled {
                    curve.stalls_ms = Some(secs(chance.within(900.0, 7200.0)));
                }
                if load == Load::OneOfMany {
                    curve.devices = 1;
                }
            }
            Load::Full => {
                (curve.high, curve.burst_ms) = (1.0, curve.period_ms);
                curve.fb = chance.within(0.90, 0.97);
            }
            Load::BusyInference => curve.burst_ms = curve.period_ms * chance.within(0.85, 0.95),
            Load::QuietInference => curve.burst_ms = curve.period_ms * chance.within(0.10, 0.30),
            Load::DailyInference => {
                curve.burst_ms = curve.period_ms;
                curve.daily = true;
            }
            Load::FivePercent => curve.burst_ms = curve.period_ms * 0.05,
            Load::SmallShare => {
                curve.high = chance.within(0.08, 0.33);
                curve.burst_ms = curve.period_ms;
                curve.fb = chance.within(0.05, 0.30);
            }
            Load::IdleNotebook => {
                curve.high = 0.0;
                curve.fb = chance.within(0.01, 0.10);
            }
            Load::HeldMemory => {
                curve.high = 0.0;
                curve.fb = 0.90;
            }
        }
        curve
    }

    /// The same curve with at most `share` of a device used: how a request for a part of a GPU
    /// looks when it is given a whole one.
    pub fn limited_to(mut self, share: f64) -> Self {
        self.high = self.high.min(share);
        self.low = self.low.min(self.high);
        self.fb = self.fb.min(share);
        self
    }

    /// Exact mean share of compute of the device that is the pod's `device`th, over the time from
    /// `from` to `to` after its containers started. `start_ms` is the time of day of that start,
    /// in milliseconds since midnight. A window of no length is the value at `from`.
    pub fn mean(&self, device: u32, start_ms: f64, from: Duration, to: Duration) -> f64 {
        if device >= self.devices {
            return 0.0;
        }
        let (from, to) = (from.as_secs_f64() * 1e3, to.as_secs_f64() * 1e3);
        // A millisecond stands for an instant: no burst is shorter than a second.
        let to = to.max(from + 1.0);
        let mut sum = 0.0;
        let mut at = from;
        while at < to {
            // Within an hour of the day the curve is a plain wave.
            let clock = start_ms + at;
            let end = if self.daily { to.min(at + (HOUR_MS - clock % HOUR_MS)) } else { to };
            let factor = if self.daily {
                // Within 0..24: a remainder of a day over an hour.
                DAY[((clock % DAY_MS) / HOUR_MS) as usize]
            } else {
                1.0
            };
            sum += factor * (self.integral(end) - self.integral(at));
            at = end;
        }
        (sum / (to - from)).clamp(0.0, 1.0)
    }

    /// Integral of the plain wave from the start to `until`, in milliseconds of full use.
    fn integral(&self, until: f64) -> f64 {
        let until = self.stalls_ms.map_or(until, |stalls| until.min(stalls.max(self.warm_up_ms)));
        let running = until - self.warm_up_ms;
        if running <= 0.0 {
            return 0.0;
        }
        let rest_ms = self.period_ms - self.burst_ms;
        let whole = (running / self.period_ms).floor();
        let part = running - whole * self.period_ms;
        whole * (self.high * self.burst_ms + self.low * rest_ms)
            + self.high * part.min(self.burst_ms)
            + self.low * (part - self.burst_ms).max(0.0)
    }

    /// Share of framebuffer in use `after` the start: it fills within half a minute and stays.
    pub fn framebuffer(&self, after: Duration) -> f64 {
        self.fb * (after.as_secs_f64() / 30.0).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Load; 12] = [
        Load::Training,
        Load::Full,
        Load::SlowStart,
        Load::BusyInference,
        Load::QuietInference,
        Load::DailyInference,
        Load::FivePercent,
        Load::IdleNotebook,
        Load::HeldMemory,
        Load::Stalled,
        Load::SmallShare,
        Load::OneOfMany,
    ];

    #[test]
    fn the_closed_integral_agrees_with_adding_up_small_steps() {
        let mut chance = Chance::stream(3, "curves");
        for load in ALL {
            let curve = Curve::draw(load, 1, &mut chance);
            let start_ms = chance.within(0.0, DAY_MS);
            let from = chance.span(Duration::ZERO, Duration::from_secs(9_000));
            let step = Duration::from_millis(250);
            let summed: f64 =
                (0..2400).map(|i| curve.mean(0, start_ms, from + step * i, from + step * i)).sum();
            let exact = curve.mean(0, start_ms, from, from + step * 2400);
            assert!((summed / 2400.0 - exact).abs() < 0.01, "{load:?}: {exact} != {summed}/2400");
        }
    }

    #[test]
    fn every_kind_does_what_its_name_says() {
        let mut chance = Chance::stream(5, "kinds");
        let noon = 12.0 * HOUR_MS;
        for _ in 0..200 {
            let mut mean = |load| {
                let curve = Curve::draw(load, 4, &mut chance);
                let hour = Duration::from_secs(3_600);
                curve.mean(0, noon, hour * 2, hour * 2 + hour / 2)
            };
            assert!((mean(Load::FivePercent) - 0.045).abs() < 0.01);
            assert!((mean(Load::Full) - 1.0).abs() < 1e-9);
            for idle in [Load::IdleNotebook, Load::HeldMemory, Load::Stalled] {
                assert!(mean(idle) < 1e-9, "{idle:?}");
            }
            for low in [Load::QuietInference, Load::SmallShare] {
                assert!((0.05..0.40).contains(&mean(low)), "{low:?}");
            }
            let high = [Load::Training, Load::SlowStart, Load::BusyInference, Load::OneOfMany];
            for high in high.into_iter().chain([Load::DailyInference]) {
                assert!(mean(high) > 0.65, "{high:?}");
            }
        }
    }

    #[test]
    fn a_daily_service_sleeps_at_night_and_a_spare_device_always() {
        let curve = Curve::draw(Load::DailyInference, 1, &mut Chance::stream(1, "day"));
        let (at, hour) = (Duration::from_secs(600), Duration::from_secs(3_600));
        assert!(curve.mean(0, 2.0 * HOUR_MS, at, at + hour) < 0.15);
        assert!(curve.mean(0, 11.0 * HOUR_MS, at, at + hour) > 0.7);
        let many = Curve::draw(Load::OneOfMany, 4, &mut Chance::stream(1, "many"));
        assert!(many.mean(0, 0.0, hour, hour * 2) > 0.7);
        assert_eq!(many.mean(1, 0.0, hour, hour * 2), 0.0);
    }
}
