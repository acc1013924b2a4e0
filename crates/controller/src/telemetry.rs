//! Reads telemetry again and again, so that no gap is left where a source was away for a while.

use std::sync::Arc;
use std::time::Duration;

use gpu_autoscaler_model::{GpuSample, Interval, Scrape, Timestamp};
use gpu_autoscaler_telemetry::prometheus::Prometheus;
use gpu_autoscaler_telemetry::scrape::{Target, scrape};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::clock;
use crate::health::TelemetryHealth;

/// Exporters scraped at once.
const SCRAPES_MAX: usize = 32;

/// What one reading brought.
#[derive(Debug)]
pub struct Reading {
    /// Measurements.
    pub samples: Vec<GpuSample>,
    /// How reading them went.
    pub scrapes: Vec<Scrape>,
}

/// Where measurements come from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// One that keeps a history.
    pub prometheus: Option<Prometheus>,
    /// Exporters themselves.
    pub targets: Vec<Target>,
    /// For the exporters.
    pub client: reqwest::Client,
}

/// Reads `sources` every `interval` into `out`, the first time as far back as `lookback`.
pub async fn run(
    sources: Sources,
    interval: Duration,
    lookback: Duration,
    out: mpsc::Sender<Reading>,
    health: watch::Sender<TelemetryHealth>,
) {
    let count = sources.targets.len() + usize::from(sources.prometheus.is_some());
    health.send_modify(|health| health.sources = count);
    // Up to where Prometheus was read without a gap.
    let mut read_to: Option<Timestamp> = None;
    let mut beat = tokio::time::interval(interval);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        let now = clock::now();
        let mut reading = Reading { samples: Vec::new(), scrapes: Vec::new() };
        if let Some(prometheus) = &sources.prometheus {
            // Two intervals overlap: what was scraped late is not missed, and what is read twice
            // is the same sample.
            let earliest = now.before(lookback);
            let start = read_to.map_or(earliest, |to| to.before(interval * 2).max(earliest));
            let span = Interval { start: start.min(now), end: now };
            let (samples, scrape) = prometheus.history(span).await;
            if scrape.result.is_ok() {
                read_to = Some(now);
            }
            reading.samples.extend(samples);
            reading.scrapes.push(scrape);
        }
        scrape_all(&sources, &mut reading).await;
        note(&reading, &health);
        if out.send(reading).await.is_err() {
            return;
        }
    }
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
    let before = health.borrow().failing.len();
    if let Some((target, why)) = failing.first().filter(|_| before == 0) {
        warn!(sources = failing.len(), %target, %why, "telemetry cannot be read");
    }
    if failing.is_empty() && before > 0 {
        info!("telemetry can be read again");
    }
    health.send_modify(|health| {
        health.asked = true;
        health.failing = failing;
    });
}
