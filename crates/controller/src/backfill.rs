//! Reads back what Prometheus holds of the time before the first tick, so that a controller without
//! a past recommends what one with a long past does.
//!
//! Rounds go from the oldest stretch to the newest and chase the present; what a round brings goes
//! to [`learn`], which counts as a tick at that time would have. Nothing is counted twice: the loop
//! counts nothing meanwhile, and a stretch that the store has is not read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use gpu_autoscaler_model::{
    Backfill, Change, Delta, GpuSample, HistoryKey, HistoryRecord, Interval, Pod, Timestamp,
};
use gpu_autoscaler_reconciler::{Policy, State, learn, stretch};
use gpu_autoscaler_store::Writer;
use gpu_autoscaler_telemetry::http::ReadError;
use gpu_autoscaler_telemetry::prometheus::Prometheus;
use gpu_autoscaler_telemetry::prometheus::history::{Found, History};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::clock;

/// Values of one round, unless a single stretch has more: 10 MB of JSON in all its queries, 50 MB
/// of samples.
const VALUES_A_ROUND: u64 = 400_000;

/// The longest time of one round: Prometheus loads it all at once.
const ROUND_MAX: Duration = Duration::from_secs(3600);

/// How often a round that was answered in part is asked for again before the part is taken.
const PARTIAL_ATTEMPTS: u32 = 3;

/// Pause after a first failure; it doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_secs(1);

/// Longest pause between two attempts.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// How often the log tells how far it is.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// How much is read back at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From how long ago on.
    pub reach: Duration,
    /// Values in all. A larger fleet is read back less far.
    pub values_max: u64,
    /// For how long, attempts that fail included.
    pub time_max: Duration,
}

impl Limits {
    /// Of a controller: 20 million values are a week of 40 nodes of 8 GPUs with three counters
    /// each, or four hours of 1,700, one value in 30 s.
    pub const fn of_controller(reach: Duration) -> Self {
        Self { reach, values_max: 20_000_000, time_max: Duration::from_secs(600) }
    }

    /// Of a command that somebody waits for.
    pub const COMMAND: Self = Self {
        reach: Duration::from_secs(86_400),
        values_max: 2_000_000,
        time_max: Duration::from_secs(15),
    };
}

/// How reading back is going.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Samples that were read back.
    pub samples: u64,
    /// Why it does not go on, or was given up; nothing where it goes on, or is done.
    pub error: Option<Arc<str>>,
}

/// What one round brought.
#[derive(Debug)]
pub struct Round {
    /// Of which time.
    pub span: Interval,
    /// Samples that were read.
    pub samples: usize,
    /// The records that changed, by key.
    pub records: BTreeMap<HistoryKey, HistoryRecord>,
    /// What is lacking, in words.
    pub lacking: Option<String>,
}

/// Reads the past back, a round at a time.
#[derive(Debug)]
pub struct ReadBack {
    history: History,
    policy: Policy,
    limits: Limits,
    /// What exists now, and what was learned so far.
    state: State,
    /// From when on, and how many stretches are read in one round; known once Prometheus has
    /// answered.
    bounds: Option<(Timestamp, u32)>,
    partial_attempts: u32,
}

impl ReadBack {
    /// Of the nodes and pods of `objects`, on top of the history in it.
    pub fn new(prometheus: Prometheus, objects: &Delta, policy: Policy, limits: Limits) -> Self {
        let state = State::rebuild(clock::now(), objects, &policy);
        let (history, partial_attempts) = (History::new(prometheus), 0);
        Self { history, policy, limits, state, bounds: None, partial_attempts }
    }

    /// Reads and counts the next stretches; `None` when the present is reached.
    ///
    /// # Errors
    /// It cannot be read, or, for some attempts, only in part; the next call tries the same again.
    pub async fn round(&mut self) -> Result<Option<Round>> {
        let now = clock::now();
        let (earliest, count) = match self.bounds {
            Some(bounds) => bounds,
            None => *self.bounds.insert(self.bounds(now).await?),
        };
        let Some(span) = self.state.unlearned(now, earliest, count, &self.policy) else {
            return Ok(None);
        };
        let found = self.read(span).await?;
        let lacking = (!found.missing.is_empty()).then(|| found.lacking()).flatten();
        if let Some(lacking) = &lacking
            && self.partial_attempts < PARTIAL_ATTEMPTS
        {
            self.partial_attempts += 1;
            bail!("{lacking}");
        }
        self.partial_attempts = 0;
        let samples = found.samples.len();
        let (mut state, policy) = (std::mem::take(&mut self.state), self.policy.clone());
        let counting = spawn_blocking(move || {
            let records = count_stretches(&mut state, span, found.samples, &policy);
            (state, records)
        });
        let (state, records) = match counting.await {
            Ok(counted) => counted,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The process ends.
            Err(_) => return Ok(None),
        };
        self.state = state;
        Ok(Some(Round { span, samples, records, lacking }))
    }

    /// From when on it is read, and stretches a round, so that neither all nor one round is more
    /// than is allowed.
    async fn bounds(&self, now: Timestamp) -> Result<(Timestamp, u32), ReadError> {
        let series = self.history.learned_series(now).await?.max(1);
        let step = step(&self.policy);
        let steps_max = u32::try_from(self.limits.values_max / series).unwrap_or(u32::MAX);
        let reach = self.limits.reach.min(step.saturating_mul(steps_max));
        let stretch = stretch(&self.policy).max(Duration::from_millis(1));
        let steps = stretch.as_millis().div_ceil(step.as_millis()).max(1);
        let values = u128::from(series) * steps;
        let count = (u128::from(VALUES_A_ROUND) / values)
            .clamp(1, (ROUND_MAX.as_millis() / stretch.as_millis()).max(1));
        let from = now.before(reach);
        info!(%from, series, asked = ?self.limits.reach, "read back the past");
        Ok((from, u32::try_from(count).unwrap_or(1)))
    }

    async fn read(&self, span: Interval) -> Result<Found, ReadError> {
        let step = step(&self.policy);
        // From a step before, so that the first reading has one before it; what is of the end
        // belongs to the next stretch.
        let end = span.end.before(Duration::from_millis(1));
        self.history.read_stepped(Interval { start: span.start.before(step), end }, step).await
    }
}

/// A third of the longest gap, so that one reading may be lacking; whole seconds, because that is
/// what readings are weighed by.
fn step(policy: &Policy) -> Duration {
    Duration::from_secs((policy.waste.gap_max.as_secs() / 3).max(1))
}

/// Counts one stretch after the other; `samples` are in the order of time.
fn count_stretches(
    state: &mut State,
    span: Interval,
    mut samples: Vec<GpuSample>,
    policy: &Policy,
) -> BTreeMap<HistoryKey, HistoryRecord> {
    let length = stretch(policy);
    let mut changed = BTreeMap::new();
    let mut end = span.start.after(length);
    // As many times as there are stretches in the span.
    while end <= span.end && end > span.start {
        let later = samples.split_off(samples.partition_point(|sample| sample.at < end));
        let seen = Delta { samples: std::mem::replace(&mut samples, later), ..Delta::default() };
        let records = learn(end, state, &seen, policy);
        changed.extend(records.into_iter().map(|record| (record.key(), record)));
        end = end.after(length);
    }
    changed
}

/// What [`ReadBack`] is to know of everything that was `seen`.
pub fn objects(seen: &Delta) -> Delta {
    let gpu_pod = |change: &&Change<Pod, _>| match change {
        Change::Upsert(pod) => pod.requests.has_gpu(),
        Change::Delete(_) => true,
    };
    Delta {
        nodes: seen.nodes.clone(),
        pods: seen.pods.iter().filter(gpu_pod).cloned().collect(),
        history: seen.history.clone(),
        ..Delta::default()
    }
}

/// Where it comes from, and where it goes.
pub(crate) struct Ways {
    /// What there is at the first tick.
    pub objects: oneshot::Receiver<Delta>,
    /// To the store, where there is one.
    pub kept: Option<Arc<Writer>>,
    /// To the loop.
    pub out: mpsc::Sender<Delta>,
    /// To the probes.
    pub standing: watch::Sender<Standing>,
}

/// Reads back, and lets the loop count from there on, whatever came of it.
pub(crate) async fn run(prometheus: Prometheus, policy: Policy, limits: Limits, ways: Ways) {
    let (out, standing) = (ways.out.clone(), ways.standing.clone());
    // A task of its own: the loop counts again also where this ends in a way that it should not.
    let reading = tokio::spawn(read_back(prometheus, policy, limits, ways));
    if let Err(error) = reading.await {
        give_up(&standing, &error.to_string());
    }
    let ended = Delta { backfill: Some(Backfill::Ended), ..Delta::default() };
    // Nobody takes it where the loop has ended.
    let _ = out.send(ended).await;
}

async fn read_back(prometheus: Prometheus, policy: Policy, limits: Limits, ways: Ways) {
    let Ways { objects, kept, out, standing } = ways;
    let Ok(objects) = objects.await else { return };
    let mut back = ReadBack::new(prometheus, &objects, policy, limits);
    drop(objects);
    let deadline = Instant::now() + limits.time_max;
    let (mut retry, mut told) = (RETRY_MIN, Instant::now());
    loop {
        let round = tokio::select! {
            round = back.round() => round,
            () = tokio::time::sleep_until(deadline) => {
                let why = format!("not done within {} s", limits.time_max.as_secs());
                give_up(&standing, &why);
                return;
            }
        };
        match round {
            Ok(None) => {
                info!(samples = standing.borrow().samples, "the past is read back");
                return;
            }
            Ok(Some(round)) => {
                retry = RETRY_MIN;
                note(&standing, &round, &mut told);
                let records: Vec<HistoryRecord> = round.records.into_values().collect();
                if let Some(kept) = &kept {
                    kept.put(records.iter().cloned());
                }
                if out.send(Delta { history: records, ..Delta::default() }).await.is_err() {
                    return;
                }
            }
            Err(error) if Instant::now() + retry < deadline => {
                let why = format!("{error:#}");
                warn!(error = why, "the past cannot be read back now");
                standing.send_modify(|standing| standing.error = Some(why.into()));
                tokio::time::sleep(retry).await;
                retry = (retry * 2).min(RETRY_MAX);
            }
            Err(error) => {
                give_up(&standing, &format!("{error:#}"));
                return;
            }
        }
    }
}

fn give_up(standing: &watch::Sender<Standing>, why: &str) {
    let before = standing.borrow().error.clone();
    let why = match before.filter(|before| **before != *why) {
        Some(before) => format!("given up: {why}; {before}"),
        None => format!("given up: {why}"),
    };
    warn!(why, "the past is not read back; what is measured from now on is counted");
    standing.send_modify(|standing| standing.error = Some(why.into()));
}

fn note(standing: &watch::Sender<Standing>, round: &Round, told: &mut Instant) {
    let (from, to) = (round.span.start, round.span.end);
    if let Some(lacking) = &round.lacking {
        warn!(%from, %to, lacking, "the past is read back in part");
    }
    if told.elapsed() >= TOLD_EVERY {
        *told = Instant::now();
        info!(%to, samples = standing.borrow().samples, "reading back the past");
    } else {
        debug!(%to, samples = round.samples, "read back");
    }
    standing.send_modify(|standing| {
        standing.samples = standing.samples.saturating_add(round.samples as u64);
        standing.error = None;
    });
}
