//! What goes wrong in a world, and how often.

use std::time::Duration;

use crate::Chance;

/// Probabilities and periods of faults. All of them end when the world heals.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Faults {
    /// A scrape that brings nothing.
    pub scrape_lost: f64,
    /// A scrape that arrives late, by up to 45 s.
    pub scrape_late: f64,
    /// A scrape that arrives twice.
    pub scrape_twice: f64,
    /// Exporters that die, some minutes after the start, until the world heals.
    pub exporters_die: u32,
    /// How far the clock of a node is off at most, in either direction.
    pub clock_skew_max: Duration,
    /// Mean time between interruptions of the watches, each of up to a minute.
    pub watch_outage_every: Option<Duration>,
    /// An object that a watch delivers twice.
    pub watch_repeats: f64,
    /// An effect that never reaches the server, answered by a time-out.
    pub request_lost: f64,
    /// An effect that is performed and answered by a time-out.
    pub answer_lost: f64,
    /// A receipt that comes twice.
    pub receipt_twice: f64,
    /// A receipt that never comes.
    pub receipt_missing: f64,
    /// Mean time between writes of others to our resources, which make our preconditions fail.
    pub foreign_write_every: Option<Duration>,
}

impl Faults {
    /// A perfect world.
    pub const NONE: Self = Self {
        scrape_lost: 0.0,
        scrape_late: 0.0,
        scrape_twice: 0.0,
        exporters_die: 0,
        clock_skew_max: Duration::ZERO,
        watch_outage_every: None,
        watch_repeats: 0.0,
        request_lost: 0.0,
        answer_lost: 0.0,
        receipt_twice: 0.0,
        receipt_missing: 0.0,
        foreign_write_every: None,
    };

    /// What a healthy cluster has on an ordinary day.
    pub const ORDINARY: Self = Self {
        scrape_lost: 0.01,
        scrape_late: 0.02,
        scrape_twice: 0.001,
        exporters_die: 1,
        clock_skew_max: Duration::from_millis(800),
        watch_outage_every: Some(Duration::from_secs(6 * 3600)),
        watch_repeats: 0.01,
        request_lost: 0.005,
        answer_lost: 0.005,
        receipt_twice: 0.005,
        receipt_missing: 0.001,
        foreign_write_every: Some(Duration::from_secs(1800)),
    };

    /// A bad day, its own for each seed: each fault is drawn anew and every third is switched off
    /// wholly, so that over many seeds every combination occurs.
    pub fn drawn(seed: u64) -> Self {
        let mut chance = Chance::stream(seed, "faults");
        let mut up_to = |most: f64| {
            let off = chance.happens(1.0 / 3.0);
            let p = chance.within(0.0, most);
            if off { 0.0 } else { p }
        };
        Self {
            scrape_lost: up_to(0.25),
            scrape_late: up_to(0.3),
            scrape_twice: up_to(0.2),
            // At most three: the value is below 4.
            exporters_die: up_to(4.0) as u32,
            clock_skew_max: Duration::from_millis(up_to(2_500.0) as u64),
            watch_outage_every: Some(Duration::from_secs(120 + up_to(1_800.0) as u64)),
            watch_repeats: up_to(0.3),
            request_lost: up_to(0.3),
            answer_lost: up_to(0.3),
            receipt_twice: up_to(0.3),
            receipt_missing: up_to(0.2),
            foreign_write_every: Some(Duration::from_secs(5 + up_to(300.0) as u64)),
        }
    }
}
