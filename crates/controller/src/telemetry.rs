//! Reads telemetry again and again, so that no gap is left where a source was away for a while.

use std::sync::Arc;
use std::time::Duration;

use gpu_autoscaler_model::{GpuSample, Interval, Scrape, Timestamp};
use gpu_autoscaler_telemetry::prometheus::history::History;
use gpu_autoscaler_telemetry::scrape::{Target, read_failure, scrape};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::clock;
use crate::health::TelemetryHealth;

/// Exporters scraped at once.
const SCRAPES_MAX: usize = 32;

/// What one reading brought.
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
            read_history(history, span, &mut progress, &mut reading).await;
        }
        scrape_all(&sources, &mut reading).await;
        note(&reading, &health);
        if out.send(reading).await.is_err() {
            return;
        }
    }
}

async fn read_history(
    history: &mut History,
    span: Interval,
    progress: &mut Progress,
    reading: &mut Reading,
) {
    let target: Arc<str> = history.prometheus().shown().to_string().into();
    let result = match history.read(span).await {
        Ok(found) => {
            progress.read(span, found.missing.is_empty());
            reading.partial.extend(found.lacking().map(|why| (Arc::clone(&target), why.into())));
            reading.samples.extend(found.samples);
            Ok(found.counts)
        }
        Err(error) => Err(read_failure(&error)),
    };
    reading.scrapes.push(Scrape { at: span.end, target, result });
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
