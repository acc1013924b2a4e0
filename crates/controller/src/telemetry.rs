//! Reads telemetry again and again, so that no gap is left where a source was away for a while.

use std::sync::Arc;
use std::time::Duration;

use gpu_autoscaler_model::{GpuSample, Interval, Scrape, ScrapeCounts, Timestamp};
use gpu_autoscaler_telemetry::prometheus::history::History;
use gpu_autoscaler_telemetry::scrape::{Target, read_failure, scrape};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::clock;
use crate::health::TelemetryHealth;

/// Exporters scraped at once.
const SCRAPES_MAX: usize = 32;

/// Samples that are read of Prometheus at once, about: what windows reach back over comes in
/// several parts, of which three are in memory at most. This many take 32 MiB.
const SAMPLES_AT_ONCE: usize = 100_000;

/// What one reading brought, or a part of it.
#[derive(Debug, Default)]
pub struct Reading {
    /// Measurements.
    pub samples: Vec<GpuSample>,
    /// How reading them went.
    pub scrapes: Vec<Scrape>,
    /// Sources that gave a part only, and what is missing.
    partial: Vec<(Arc<str>, Arc<str>)>,
}

/// Where measurements come from.
#[derive(Debug)]
pub struct Sources {
    /// One that keeps a history.
    pub prometheus: Option<History>,
    /// Exporters themselves.
    pub targets: Vec<Target>,
    /// For the exporters.
    pub client: reqwest::Client,
}

/// Up to where Prometheus was read.
#[derive(Debug, Default)]
struct Progress {
    /// In part or in full.
    read_to: Option<Timestamp>,
    /// In full, without a gap.
    whole_to: Option<Timestamp>,
    /// Whether the last reading was a part only. While it is, only what is new is read; once it
    /// is not, what was missed is read again.
    partial: bool,
}

impl Progress {
    /// What is to be read at `now`. Two intervals overlap: what was scraped late is not missed, and
    /// what is read twice is the same sample.
    fn next(&self, now: Timestamp, interval: Duration, lookback: Duration) -> Interval {
        let earliest = now.before(lookback);
        let to = if self.partial { self.read_to } else { self.whole_to };
        let start = to.map_or(earliest, |to| to.before(interval * 2).max(earliest));
        Interval { start: start.min(now), end: now }
    }

    fn read(&mut self, span: Interval, whole: bool) {
        self.read_to = Some(span.end);
        // After a part, `span` begins where the part ended.
        let from_whole = !std::mem::replace(&mut self.partial, !whole);
        if whole && from_whole {
            self.whole_to = Some(span.end);
        }
    }
}

/// Parts of what is to be read, in the order of time.
#[derive(Debug)]
struct Parts {
    left: Interval,
    /// Of the next part.
    length: Duration,
}

impl Parts {
    /// Of `span`; the first part is as long as what is read every `interval` in quiet times.
    fn of(span: Interval, interval: Duration) -> Self {
        Self { left: span, length: interval * 3 }
    }

    /// The next part; `None` when nothing is left.
    fn next(&self) -> Option<Interval> {
        let Interval { start, end } = self.left;
        let next = Interval { start, end: start.after(self.length).min(end) };
        (start < end).then_some(next)
    }

    /// `part` was read and brought so many samples: the next one is longer where they were few.
    fn read(&mut self, part: Interval, samples: usize) {
        self.left.start = part.end;
        let times = SAMPLES_AT_ONCE / samples.max(1);
        let times = u32::try_from(times).unwrap_or(u32::MAX).max(1);
        self.length = Duration::from_millis(part.millis()).saturating_mul(times);
    }
}

/// Reads `sources` every `interval` into `out`, the first time as far back as `lookback`.
pub async fn run(
    mut sources: Sources,
    interval: Duration,
    lookback: Duration,
    out: mpsc::Sender<Reading>,
    health: watch::Sender<TelemetryHealth>,
) {
    let count = sources.targets.len() + usize::from(sources.prometheus.is_some());
    health.send_modify(|health| health.sources = count);
    let mut progress = Progress::default();
    let mut beat = tokio::time::interval(interval);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        let mut reading = Reading::default();
        if let Some(history) = &mut sources.prometheus {
            let span = progress.next(clock::now(), interval, lookback);
            let parts = Parts::of(span, interval);
            let Some(last) = read_history(history, span, parts, &mut progress, &out).await else {
                return;
            };
            reading = last;
        }
        scrape_all(&sources, &mut reading).await;
        note(&reading, &health);
        if out.send(reading).await.is_err() {
            return;
        }
    }
}

/// Reads `span` part by part into `out`; returns the last part, with how all of it went, or `None`
/// where nobody takes them.
async fn read_history(
    history: &mut History,
    span: Interval,
    mut parts: Parts,
    progress: &mut Progress,
    out: &mpsc::Sender<Reading>,
) -> Option<Reading> {
    let target: Arc<str> = history.prometheus().shown().to_string().into();
    let mut reading = Reading::default();
    let mut counts = ScrapeCounts::default();
    let mut whole = true;
    let mut failure = None;
    while let Some(part) = parts.next() {
        match history.read(part).await {
            Ok(found) => {
                whole &= found.missing.is_empty();
                counts.samples = counts.samples.saturating_add(found.counts.samples);
                counts.dropped = counts.dropped.saturating_add(found.counts.dropped);
                parts.read(part, found.samples.len());
                // Who is silent counts at the end alone; what was missed counts whenever it was.
                let tells = !found.missing.is_empty() || parts.next().is_none();
                if let Some(why) = found.lacking().filter(|_| tells) {
                    reading.partial = vec![(Arc::clone(&target), why.into())];
                }
                reading.samples = found.samples;
            }
            Err(error) => {
                failure = Some(read_failure(&error));
                break;
            }
        }
        if parts.next().is_some() {
            let samples = std::mem::take(&mut reading.samples);
            out.send(Reading { samples, ..Reading::default() }).await.ok()?;
        }
    }
    let read = Interval { start: span.start, end: parts.left.start };
    if failure.is_none() || read.start < read.end {
        progress.read(read, whole);
    }
    reading.scrapes.push(Scrape { at: span.end, target, result: failure.map_or(Ok(counts), Err) });
    Some(reading)
}

async fn scrape_all(sources: &Sources, reading: &mut Reading) {
    let mut targets = sources.targets.iter();
    let mut under_way = JoinSet::new();
    loop {
        while under_way.len() < SCRAPES_MAX {
            let Some(target) = targets.next().cloned() else { break };
            let client = sources.client.clone();
            under_way.spawn(async move { scrape(&client, &target, clock::now()).await });
        }
        match under_way.join_next().await {
            None => return,
            Some(Ok((samples, scrape))) => {
                reading.samples.extend(samples);
                reading.scrapes.push(scrape);
            }
            Some(Err(error)) => warn!(%error, "a scrape did not end"),
        }
    }
}

fn note(reading: &Reading, health: &watch::Sender<TelemetryHealth>) {
    let failing: Vec<(Arc<str>, Arc<str>)> = reading
        .scrapes
        .iter()
        .filter_map(|scrape| {
            let failure = scrape.result.as_ref().err()?;
            Some((Arc::clone(&scrape.target), Arc::clone(&failure.why)))
        })
        .collect();
    let (before, partial_before) = {
        let health = health.borrow();
        (health.failing.len(), health.partial.len())
    };
    if let Some((target, why)) = failing.first().filter(|_| before == 0) {
        warn!(sources = failing.len(), %target, %why, "telemetry cannot be read");
    }
    if failing.is_empty() && before > 0 {
        info!("telemetry can be read again");
    }
    if let Some((target, why)) = reading.partial.first().filter(|_| partial_before == 0) {
        warn!(%target, %why, "telemetry is read in part");
    }
    if reading.partial.is_empty() && partial_before > 0 {
        info!("telemetry is read in full again");
    }
    health.send_modify(|health| {
        health.asked = true;
        health.failing = failing;
        health.partial.clone_from(&reading.partial);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Timestamp {
        Timestamp::EPOCH.after(Duration::from_secs(secs))
    }

    /// The lengths of the parts of ten minutes, in seconds, at so many samples a second.
    fn lengths(samples_per_sec: usize) -> Vec<u64> {
        let span = Interval { start: at(1000), end: at(1600) };
        let mut parts = Parts::of(span, Duration::from_secs(10));
        let mut lengths = Vec::new();
        let mut end = span.start;
        while let Some(part) = parts.next() {
            assert_eq!(part.start, end, "no part is left out or read twice");
            end = part.end;
            lengths.push(part.millis() / 1000);
            parts.read(part, samples_per_sec * (part.millis() / 1000) as usize);
        }
        assert_eq!(end, span.end);
        lengths
    }

    #[test]
    fn what_windows_reach_back_over_is_read_in_parts_that_memory_holds() {
        assert_eq!(lengths(0), [30, 570], "nothing tells how much there will be");
        // 100 nodes of 8 GPUs, scraped every ten seconds.
        assert_eq!(lengths(80), [30, 570]);
        // 2,000 nodes.
        let parts = lengths(1_600);
        assert!(parts.iter().all(|secs| secs * 1_600 <= SAMPLES_AT_ONCE as u64), "{parts:?}");
        assert!(parts.len() <= 11, "{parts:?}");
        // 10,000 nodes: no more at once than in quiet times.
        assert_eq!(lengths(8_000), [30; 20]);
        // More than that at once cannot be cut: a scrape has no parts.
        assert_eq!(lengths(100_000), [30; 20]);
    }

    #[test]
    fn what_a_partial_answer_lacked_is_read_once_the_source_is_whole_again() {
        let (interval, lookback) = (Duration::from_secs(10), Duration::from_secs(600));
        let mut progress = Progress::default();
        let mut read = |now: u64, whole: Option<bool>| {
            let span = progress.next(at(now), interval, lookback);
            if let Some(whole) = whole {
                progress.read(span, whole);
            }
            (now - u64::try_from(span.start.as_millis() / 1000).expect("positive"), span.end)
        };
        assert_eq!(read(1000, Some(true)), (600, at(1000)), "as far back as windows reach");
        assert_eq!(read(1010, Some(true)).0, 30);
        assert_eq!(read(1020, None).0, 30, "it was away");
        assert_eq!(read(1030, Some(false)).0, 40, "so what it missed is read again");
        assert_eq!(read(1040, Some(false)).0, 30, "a part: what is lacking is not there anyway");
        assert_eq!(read(1100, Some(true)).0, 80);
        assert_eq!(read(1110, Some(true)).0, 120, "whole again: from where it was whole before");
        assert_eq!(read(1120, Some(true)).0, 30);
        assert_eq!(read(9000, Some(true)).0, 600, "never further back than windows reach");
        assert_eq!(read(9010, Some(true)).0, 30);
    }
}
