//! Reads back what Prometheus holds of the time before the first tick, so that a controller without
//! a past recommends what one with a long past does.
//!
//! Rounds go from the oldest stretch to the newest and chase the present; what a round brings goes
//! to [`learn`], which counts as a tick at that time would have. Nothing is counted twice: the loop
//! counts nothing meanwhile, and a stretch that the store has is not read.

use std::collections::BTreeMap;
use std::fmt;
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

/// The longest time between two stretches that are read of a past that is too large to be read
/// whole: each hour of the day is seen, and none of them stands for another.
const SPACING_MAX: Duration = Duration::from_secs(3600);

/// Times at which a server is asked whether it holds anything: of a week they find where it begins
/// to ten minutes.
const PROBES: u32 = 10;

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
    /// Values in all. Of a larger past one stretch in so many is read, one an hour at least; where
    /// that is too much as well, it is read back less far.
    pub values_max: u64,
    /// For how long, attempts that fail included.
    pub time_max: Duration,
}

impl Limits {
    /// Of a controller: 64 million values are 24 stretches of 10,000 nodes of 8 GPUs with three
    /// counters each, one stretch an hour of a day; a week of 120 nodes in whole.
    pub const fn of_controller(reach: Duration) -> Self {
        Self { reach, values_max: 64_000_000, time_max: Duration::from_secs(600) }
    }

    /// Of a command that somebody waits for.
    pub const COMMAND: Self = Self {
        reach: Duration::from_secs(86_400),
        values_max: 2_000_000,
        time_max: Duration::from_secs(15),
    };
}

/// Which stretches of the past are read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// From when on it is looked for.
    pub from: Timestamp,
    /// From when on the server is known to hold something; `None` where it holds nothing.
    pub held: Option<Timestamp>,
    /// The length of a stretch.
    pub stretch: Duration,
    /// One stretch in so many is read.
    pub every: u32,
    /// How many are read in one round.
    count: u32,
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, held, stretch, every, .. } = self;
        match held {
            Some(held) => write!(f, "from {} on", (*from).max(*held))?,
            None => return f.write_str("from nowhere: Prometheus holds nothing of it"),
        }
        if *every > 1 {
            let (secs, apart) = (stretch.as_secs(), (*stretch * *every).as_secs());
            write!(f, ", {secs} s of every {apart} s: all of it would be too much")?;
        }
        Ok(())
    }
}

/// What a server holds.
struct Held {
    /// For how long it holds something.
    holds: Duration,
    /// From how long ago on it is known to hold nothing; `holds` where it holds all of it.
    lacks: Duration,
    /// The most series that were seen at once; at least one.
    series: u64,
}

/// How reading back is going.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// What is read back; nothing before that is known.
    pub extent: Option<Extent>,
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
    /// Known once Prometheus has answered.
    extent: Option<Extent>,
    partial_attempts: u32,
}

impl ReadBack {
    /// Of the nodes and pods of `objects`, on top of the history in it.
    pub fn new(prometheus: Prometheus, objects: &Delta, policy: Policy, limits: Limits) -> Self {
        let state = State::rebuild(clock::now(), objects, &policy);
        let (history, partial_attempts) = (History::new(prometheus), 0);
        Self { history, policy, limits, state, extent: None, partial_attempts }
    }

    /// What is read back.
    ///
    /// # Errors
    /// Prometheus does not say what it has.
    pub async fn extent(&mut self) -> Result<Extent, ReadError> {
        if let Some(extent) = self.extent {
            return Ok(extent);
        }
        let now = clock::now();
        let Held { holds, lacks, series } = self.held(now).await?;
        let mut extent = extent(now, series, self.limits, &self.policy);
        if extent.every > 1 {
            // What is not there takes no part of the values.
            let limits = Limits { reach: lacks.max(extent.stretch), ..self.limits };
            extent = self::extent(now, series, limits, &self.policy);
        }
        extent.held = (holds > Duration::ZERO).then(|| now.before(holds));
        info!(from = %extent.from, every = extent.every, series, "read back the past");
        Ok(*self.extent.insert(extent))
    }

    /// How far back the server holds something, as far as that is asked for. Where it held nothing
    /// for a while, it may hold more.
    async fn held(&self, now: Timestamp) -> Result<Held, ReadError> {
        let (mut holds, mut lacks) = (Duration::ZERO, self.limits.reach);
        // The most at any time: a fleet whose exporters are silent just now is as large as before.
        let at_end = self.history.learned_series(now).await?;
        let at_begin = self.history.learned_series(now.before(lacks)).await?;
        let mut series = at_end.max(at_begin).max(1);
        if at_begin > 0 {
            return Ok(Held { holds: lacks, lacks, series });
        }
        for _ in 0..PROBES {
            let middle = (holds + lacks) / 2;
            let found = self.history.learned_series(now.before(middle)).await?;
            series = series.max(found);
            if found > 0 {
                holds = middle;
            } else {
                lacks = middle;
            }
        }
        Ok(Held { holds, lacks, series })
    }

    /// Reads and counts the next stretches; `None` when the present is reached.
    ///
    /// # Errors
    /// It cannot be read, or, for some attempts, only in part; the next call tries the same again.
    pub async fn round(&mut self) -> Result<Option<Round>> {
        let now = clock::now();
        let extent = self.extent().await?;
        let Some(span) = next(&self.state, now, extent, &self.policy) else {
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

    async fn read(&self, span: Interval) -> Result<Found, ReadError> {
        let step = step(&self.policy);
        // From a step before, so that the first reading has one before it; what is of the end
        // belongs to the next stretch.
        let end = span.end.before(Duration::from_millis(1));
        self.history.read_stepped(Interval { start: span.start.before(step), end }, step).await
    }
}

/// What is read of a past of so many series, so that neither all of it nor one round is more than
/// is allowed.
fn extent(now: Timestamp, series: u64, limits: Limits, policy: &Policy) -> Extent {
    let stretch = stretch(policy).max(Duration::from_millis(1));
    let ratio = |long: Duration, short: Duration| {
        u64::try_from(long.as_millis().div_ceil(short.as_millis().max(1))).unwrap_or(u64::MAX)
    };
    // One more than there are steps: a stretch is read from the step before it.
    let values = series.max(1).saturating_mul(ratio(stretch, step(policy)) + 1);
    let affordable = (limits.values_max / values).max(1);
    let wanted = ratio(limits.reach, stretch).max(1);
    let apart = (SPACING_MAX.as_millis() / stretch.as_millis()).max(1);
    let every = u128::from(wanted.div_ceil(affordable)).min(apart);
    let every = u32::try_from(every).unwrap_or(u32::MAX);
    let stretches = affordable.saturating_mul(every.into()).min(wanted);
    let stretches = u32::try_from(stretches).unwrap_or(u32::MAX);
    let reach = limits.reach.min(stretch.saturating_mul(stretches));
    let round_max = ratio(ROUND_MAX, stretch).max(1);
    let count = if every > 1 { 1 } else { (VALUES_A_ROUND / values).clamp(1, round_max) };
    let count = u32::try_from(count).unwrap_or(1);
    Extent { from: now.before(reach), held: None, stretch, every, count }
}

/// The stretches of the next round; `None` when the present is reached. Which of several are read
/// follows from the calendar, so that a restart reads no others.
fn next(state: &State, now: Timestamp, extent: Extent, policy: &Policy) -> Option<Interval> {
    let span = state.unlearned(now, extent.from, extent.count, policy)?;
    let millis = i64::try_from(extent.stretch.as_millis()).ok()?;
    let number = span.start.as_millis().div_euclid(millis);
    let past = u32::try_from(number.rem_euclid(i64::from(extent.every))).ok()?;
    if past == 0 {
        return Some(span);
    }
    let start = span.start.after(extent.stretch * (extent.every - past));
    state.unlearned(now, start, extent.count, policy)
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
    whatever_comes(read_back(prometheus, policy, limits, ways), &out, &standing).await;
}

/// Waits until `reading` has ended, in whichever way, and tells the loop.
async fn whatever_comes(
    reading: impl Future<Output = ()> + Send + 'static,
    out: &mpsc::Sender<Delta>,
    standing: &watch::Sender<Standing>,
) {
    // A task of its own: the loop counts again also where this ends in a way that it should not.
    if let Err(error) = tokio::spawn(reading).await {
        give_up(standing, &error.to_string());
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
        let extent = back.extent;
        standing
            .send_if_modified(|standing| std::mem::replace(&mut standing.extent, extent) != extent);
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

#[cfg(test)]
mod tests {
    use gpu_autoscaler_telemetry::connection::{Connection, Credentials};

    use super::*;

    #[test]
    fn it_is_told_how_far_back_the_past_reaches() {
        let day = |number: u32| Timestamp::EPOCH.after(DAY * number);
        let stretch = Duration::from_secs(300);
        let whole = Extent { from: day(1), held: Some(day(2)), stretch, every: 1, count: 12 };
        assert_eq!(whole.to_string(), "from 1970-01-03T00:00:00Z on");
        let part = Extent { from: day(3), every: 12, ..whole };
        let said =
            "from 1970-01-04T00:00:00Z on, 300 s of every 3600 s: all of it would be too much";
        assert_eq!(part.to_string(), said);
        let none = Extent { held: None, ..whole };
        assert_eq!(none.to_string(), "from nowhere: Prometheus holds nothing of it");
    }

    const DAY: Duration = Duration::from_secs(86_400);
    const WEEK: Duration = Duration::from_secs(7 * 86_400);

    /// Hours that are reached, one stretch in so many, and stretches a round.
    fn reached(nodes: u64) -> (u64, u32, u32) {
        let now = Timestamp::EPOCH.after(WEEK * 9);
        let limits = Limits::of_controller(WEEK);
        // Eight GPUs, three counters each.
        let extent = extent(now, nodes * 24, limits, &Policy::published());
        (now.since(extent.from).as_secs() / 3_600, extent.every, extent.count)
    }

    #[test]
    fn a_large_fleet_is_read_back_in_part_before_it_is_read_back_less_far() {
        assert_eq!(reached(10), (168, 1, 12), "a small fleet: all of it, an hour a round");
        assert_eq!(reached(100), (168, 1, 12));
        assert_eq!(reached(1_000), (168, 9, 1), "5 minutes of every 45");
        assert_eq!(reached(10_000), (24, 12, 1), "5 minutes of every hour");
        assert_eq!(reached(1_000_000), (1, 12, 1), "one stretch is always read");
    }

    #[test]
    fn of_a_past_that_is_read_in_part_the_stretches_are_the_same_after_a_restart() {
        let policy = Policy::published();
        let length = stretch(&policy);
        // A quarter of an hour past noon.
        let now = Timestamp::EPOCH.after(WEEK * 9 + DAY / 2 + length * 3);
        let from = now.before(DAY / 8);
        let extent = Extent { from, held: None, stretch: length, every: 12, count: 1 };
        let mut state = State::new();
        let mut starts = Vec::new();
        while let Some(span) = next(&state, now, extent, &policy) {
            assert_eq!(span.end.since(span.start), length);
            starts.push(span.start.as_millis() / 60_000 % (24 * 60));
            let seen = Delta::default();
            learn(span.end, &mut state, &seen, &policy);
            assert!(starts.len() < 9, "it comes to an end: {starts:?}");
        }
        assert_eq!(starts, [10 * 60, 11 * 60, 12 * 60]);
        let whole = Extent { every: 1, ..extent };
        let after = next(&state, now, whole, &policy).expect("what was passed over at the end");
        assert_eq!(after.start.as_millis() / 60_000 % (24 * 60), 12 * 60 + 5);
    }

    /// What the loop is told in the end, and what the probes are.
    async fn end_of(
        reading: impl Future<Output = ()> + Send + 'static,
    ) -> (Option<Backfill>, Option<String>) {
        let (out, mut told) = mpsc::channel(1);
        let (standing, seen) = watch::channel(Standing::default());
        whatever_comes(reading, &out, &standing).await;
        let error = seen.borrow().error.as_ref().map(ToString::to_string);
        (told.recv().await.and_then(|delta| delta.backfill), error)
    }

    #[tokio::test]
    async fn the_loop_counts_again_after_a_panic_and_the_probes_say_so() {
        let panics = async { panic!("a stretch of no length") };
        let (told, error) = end_of(panics).await;
        assert_eq!(told, Some(Backfill::Ended));
        let error = error.expect("given up");
        assert!(error.starts_with("given up: ") && error.contains("a stretch of no length"));
        assert_eq!(end_of(async {}).await, (Some(Backfill::Ended), None));
    }

    /// A way to read back from a Prometheus that is not there.
    async fn run_for(time_max: Duration, objects: Option<Delta>) -> (Delta, Option<String>) {
        let (tell, asked) = oneshot::channel();
        match objects {
            Some(objects) => tell.send(objects).expect("it waits"),
            None => drop(tell),
        }
        let (out, mut told) = mpsc::channel(1);
        let (standing, seen) = watch::channel(Standing::default());
        let ways = Ways { objects: asked, kept: None, out, standing };
        let limits = Limits { time_max, ..Limits::COMMAND };
        // Nothing listens on the port for discarding.
        let url = "http://127.0.0.1:9/".parse().expect("an address");
        let prometheus = Prometheus::new(Connection::new(Credentials::default()), url);
        run(prometheus, Policy::published(), limits, ways).await;
        let error = seen.borrow().error.as_ref().map(ToString::to_string);
        (told.recv().await.expect("told"), error)
    }

    #[tokio::test]
    async fn the_loop_counts_again_where_nothing_can_be_read() {
        let ended = Delta { backfill: Some(Backfill::Ended), ..Delta::default() };
        let (told, error) = run_for(Duration::ZERO, Some(Delta::default())).await;
        assert_eq!(told, ended);
        assert!(error.expect("given up").starts_with("given up: "));
        let (told, error) = run_for(Duration::ZERO, None).await;
        assert_eq!((told, error), (ended, None), "the loop ended before it told of anything");
    }
}
