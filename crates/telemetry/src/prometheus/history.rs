//! DCGM exporter's series asked of Prometheus, a part of the exporters at a time.
//!
//! A query for a whole fleet would be more than a server gives at once, and one slow or broken
//! part would cost all others. Exporters run one a node, so the label `instance` cuts a fleet up by
//! node, whatever the label of the node's name is.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use gpu_autoscaler_model::{GpuSample, Interval, NodeName, ScrapeCounts, Timestamp};
use thiserror::Error;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::debug;

use super::answer::{self, Matrix, Reply};
use super::{Answer, Line, Prometheus, one_of, quoted};
use crate::dcgm::{self, METRICS, Origin};
use crate::exposition::Series;
use crate::http::ReadError;
use crate::scrape::read_failure;

/// Exporters asked for in one query: 800 GPUs, about 10,000 series.
const EXPORTERS_A_QUERY: usize = 100;

/// Queries under way at once. Prometheus itself runs 20 by default, and others ask it too.
const QUERIES_AT_ONCE: usize = 4;

/// Of one reading, over all its queries.
const READING_TIME_MAX: Duration = Duration::from_secs(120);

/// How long a list of exporters is used before it is made anew.
const LISTED_FOR: Duration = Duration::from_secs(60);

/// How long an exporter that fell silent is remembered.
const REMEMBERED_FOR: Duration = Duration::from_secs(3600);

/// Reads what exporters reported, again and again.
#[derive(Debug)]
pub struct History {
    prometheus: Prometheus,
    listing: Listing,
}

/// The exporters that Prometheus knows, by the label `instance`.
#[derive(Debug, Default)]
struct Listing {
    /// When it was made.
    at: Option<Timestamp>,
    /// Each with the time of the last list that it was on.
    seen: BTreeMap<String, Timestamp>,
    /// On the present list, but not on the one before.
    new: BTreeSet<String>,
    /// When the list before was made.
    before: Option<Timestamp>,
    warnings: Vec<String>,
}

/// What one reading brought.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// In the order of time.
    pub samples: Vec<GpuSample>,
    /// What was kept and what dropped.
    pub counts: ScrapeCounts,
    /// Exporters that were asked for.
    pub exporters: usize,
    /// What is not in it; empty where all that the server has was read.
    pub missing: Vec<Missing>,
    /// Exporters that the server scraped within the hour, but not in the last five minutes: their
    /// nodes are gone, or cannot be reached.
    pub silent: Vec<String>,
}

/// A part that was not read, or not in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// How many exporters it is about.
    pub exporters: usize,
    /// One of them, by its label `instance`.
    pub first: String,
    /// Why.
    pub why: String,
}

/// Exporters asked for together.
#[derive(Clone, Debug)]
struct Part {
    exporters: Vec<String>,
    interval: Interval,
    values: Values,
}

/// Which values are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Values {
    /// All, of all counters, as they were scraped.
    Scraped,
    /// The last of each step, of the counters that the history is made of.
    Stepped(Duration),
}

impl History {
    /// Of the exporters that `prometheus` scrapes.
    pub fn new(prometheus: Prometheus) -> Self {
        Self { prometheus, listing: Listing::default() }
    }

    /// The server that is asked.
    pub fn prometheus(&self) -> &Prometheus {
        &self.prometheus
    }

    /// All values within `interval`, each with the time at which it was scraped.
    ///
    /// # Errors
    /// Nothing could be read. Where a part could, [`Found::missing`] names the rest.
    pub async fn read(&mut self, interval: Interval) -> Result<Found, ReadError> {
        self.list(interval.end).await?;
        let listing = &self.listing;
        let mut found = Found { exporters: listing.present().count(), ..Found::default() };
        found.missing.extend(listing.warnings.iter().map(|why| Missing {
            exporters: found.exporters,
            first: listing.present().next().unwrap_or_default().to_owned(),
            why: why.clone(),
        }));
        found.silent = listing.silent().map(str::to_owned).collect();
        let first_error = self.read_parts(self.listing.parts(interval), &mut found).await;
        found.or(first_error)
    }

    /// One value a `step` of the counters that the history is made of, within `interval`; a value
    /// has the time at which its step ends.
    ///
    /// # Errors
    /// As [`History::read`].
    pub async fn read_stepped(
        &self,
        interval: Interval,
        step: Duration,
    ) -> Result<Found, ReadError> {
        let length = interval.millis().max(1);
        let query =
            format!("group by (instance) (last_over_time({}[{length}ms]))", learned_selector(""));
        let answer = self.prometheus.instant(interval.end, &query).await?;
        let exporters = instances(answer.found);
        let mut found = Found { exporters: exporters.len(), ..Found::default() };
        found.missing.extend(answer.warnings.into_iter().map(|why| Missing {
            exporters: exporters.len(),
            first: exporters.first().cloned().unwrap_or_default(),
            why,
        }));
        let exporters: Vec<String> = exporters.into_iter().collect();
        let part = |some: &[String]| Part {
            exporters: some.to_vec(),
            interval,
            values: Values::Stepped(step),
        };
        let parts = exporters.chunks(EXPORTERS_A_QUERY).map(part).collect();
        let first_error = self.read_parts(parts, &mut found).await;
        found.or(first_error)
    }

    /// How many series there are of the counters that the history is made of.
    ///
    /// # Errors
    /// Those of reading.
    pub async fn learned_series(&self, at: Timestamp) -> Result<u64, ReadError> {
        let query = format!("count({})", learned_selector(""));
        let answer = self.prometheus.instant(at, &query).await?;
        let count = answer.found.first().and_then(|line| line.points.first());
        // A count of series is a whole number far below 2^53.
        Ok(count.map_or(0, |(_, count)| *count as u64))
    }

    /// Reads all parts into `found`; the first failure, if any.
    async fn read_parts(&self, parts: Vec<Part>, found: &mut Found) -> Option<ReadError> {
        let deadline = Instant::now() + READING_TIME_MAX;
        let mut waiting = VecDeque::from(parts);
        let mut under_way = JoinSet::new();
        let mut first_error = None;
        loop {
            while under_way.len() < QUERIES_AT_ONCE {
                let Some(part) = waiting.pop_front() else { break };
                if Instant::now() >= deadline {
                    let why = format!("not asked within {} s", READING_TIME_MAX.as_secs());
                    found.missing.push(part.missing(why));
                    continue;
                }
                let prometheus = self.prometheus.clone();
                under_way.spawn(async move { (part.read(&prometheus).await, part) });
            }
            match under_way.join_next().await {
                None => return first_error,
                Some(Ok((Ok(answer), part))) => take_in(answer, part, found),
                Some(Ok((Err(error), part))) => match part.halves(&error) {
                    Some(halves) => waiting.extend(halves),
                    None => {
                        found.missing.push(part.missing(read_failure(&error).why.to_string()));
                        first_error.get_or_insert(error);
                    }
                },
                // Nothing in a part panics; were it to, its samples would be missing.
                Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
            }
        }
    }

    /// Makes the list of exporters anew where it is due.
    async fn list(&mut self, now: Timestamp) -> Result<(), ReadError> {
        let listing = &mut self.listing;
        let fresh = listing.at.is_some_and(|at| now < at.after(LISTED_FOR) && at <= now);
        if fresh && listing.present().next().is_some() {
            listing.new.clear();
            return Ok(());
        }
        // One value a series, not older than five minutes: the server's own limit for an instant.
        let query = format!("group by (instance) ({})", selector(""));
        let answer = self.prometheus.instant(now, &query).await?;
        listing.update(now, instances(answer.found), answer.warnings);
        Ok(())
    }
}

/// The values of the label `instance`.
fn instances(lines: Vec<Line>) -> BTreeSet<String> {
    let names = lines.into_iter().map(|line| {
        let mut labels = line.labels;
        labels.remove("instance").unwrap_or_default()
    });
    names.collect()
}

impl Found {
    /// Itself, in the order of time, or `error` where that kept everything from being read.
    fn or(mut self, error: Option<ReadError>) -> Result<Self, ReadError> {
        let nothing = self.missing.iter().map(|part| part.exporters).sum::<usize>();
        match error {
            Some(error) if nothing >= self.exporters && self.samples.is_empty() => Err(error),
            _ => {
                self.samples.sort_by(|a, b| a.at.cmp(&b.at).then_with(|| a.device.cmp(&b.device)));
                Ok(self)
            }
        }
    }

    /// What is lacking, in words; nothing where it is whole.
    pub fn lacking(&self) -> Option<String> {
        if let Some(part) = self.missing.first() {
            let missing: usize = self.missing.iter().map(|part| part.exporters).sum();
            let (missing, all) = (missing.min(self.exporters), self.exporters);
            let (first, why) = (&part.first, &part.why);
            return Some(format!(
                "not in full from {missing} of {all} exporters, `{first}` first: {why}"
            ));
        }
        let first = self.silent.first()?;
        let (silent, all) = (self.silent.len(), self.silent.len() + self.exporters);
        Some(format!(
            "{silent} of {all} exporters of the last hour are silent now, `{first}` first"
        ))
    }
}

impl Listing {
    fn update(&mut self, now: Timestamp, names: BTreeSet<String>, warnings: Vec<String>) {
        let present: BTreeSet<String> = self.present().map(str::to_owned).collect();
        self.new = names.difference(&present).cloned().collect();
        self.before = self.at.filter(|at| *at <= now);
        self.seen.extend(names.into_iter().map(|name| (name, now)));
        let forgotten = now.before(REMEMBERED_FOR);
        self.seen.retain(|_, at| *at >= forgotten && *at <= now);
        self.at = Some(now);
        self.warnings = warnings;
    }

    fn present(&self) -> impl Iterator<Item = &str> {
        self.seen.iter().filter(|(_, at)| Some(**at) == self.at).map(|(name, _)| name.as_str())
    }

    fn silent(&self) -> impl Iterator<Item = &str> {
        self.seen.iter().filter(|(_, at)| Some(**at) != self.at).map(|(name, _)| name.as_str())
    }

    /// What is to be asked for. An exporter that is new on the list is read from when the list
    /// before it was made, so that its first samples are not lost.
    fn parts(&self, interval: Interval) -> Vec<Part> {
        let (new, old): (Vec<&str>, Vec<&str>) =
            self.present().partition(|name| self.new.contains(*name));
        let start = self.before.map_or(interval.start, |at| at.min(interval.start));
        let since = Interval { start, end: interval.end };
        let cut = |names: Vec<&str>, interval: Interval| -> Vec<Part> {
            names
                .chunks(EXPORTERS_A_QUERY)
                .map(|some| Part {
                    exporters: some.iter().map(|name| (*name).to_owned()).collect(),
                    interval,
                    values: Values::Scraped,
                })
                .collect()
        };
        let mut parts = cut(old, interval);
        parts.extend(cut(new, since));
        parts
    }
}

impl Part {
    async fn read(&self, prometheus: &Prometheus) -> Result<Answer<Matrix>, ReadError> {
        let instances = one_of(self.exporters.iter().map(String::as_str));
        let narrowed = format!(",instance=~{}", quoted(&instances));
        match self.values {
            Values::Scraped => {
                let length = Duration::from_millis(self.interval.millis());
                prometheus.scraped(self.interval.end, length, &selector(&narrowed)).await
            }
            Values::Stepped(step) => {
                // Not an instant selector: that would carry a value on for five minutes.
                let range = step.as_millis().max(1);
                let query = format!("last_over_time({}[{range}ms])", learned_selector(&narrowed));
                prometheus.stepped(self.interval, step, &query).await
            }
        }
    }

    fn missing(&self, why: String) -> Missing {
        let first = self.exporters.first().cloned().unwrap_or_default();
        Missing { exporters: self.exporters.len(), first, why }
    }

    /// Two parts in place of one that is more than the server gives at once.
    fn halves(&self, error: &ReadError) -> Option<[Self; 2]> {
        let too_much = match error {
            // `query.max-samples`, or that of a store behind.
            ReadError::Status { status: 422, body, .. } => body.contains("too many"),
            ReadError::Status { status: 413, .. } | ReadError::Size { .. } => true,
            _ => false,
        };
        let at = self.exporters.len() / 2;
        (too_much && at > 0).then(|| {
            let (left, right) = self.exporters.split_at(at);
            [left, right].map(|some| Self { exporters: some.to_vec(), ..self.clone() })
        })
    }
}

/// Selects all counters that are read, further narrowed down.
fn selector(narrowed: &str) -> String {
    format!("{{__name__=~\"{}\"{narrowed}}}", METRICS.join("|"))
}

/// The same of the counters that the history is made of: compute, and framebuffer in use.
fn learned_selector(narrowed: &str) -> String {
    format!("{{__name__=~\"{}\"{narrowed}}}", METRICS[..4].join("|"))
}

fn take_in(answer: Answer<Matrix>, part: Part, found: &mut Found) {
    for warning in answer.warnings {
        found.missing.push(part.missing(warning));
    }
    let (mut samples, counts) = samples(&answer.found, part.interval.end);
    found.samples.append(&mut samples);
    found.counts.samples = found.counts.samples.saturating_add(counts.samples);
    found.counts.dropped = found.counts.dropped.saturating_add(counts.dropped);
}

/// Values of one exporter and instant belong together: they are one scrape.
fn samples(matrix: &Matrix, at: Timestamp) -> (Vec<GpuSample>, ScrapeCounts) {
    // One exporter after the other: all values of all of them with their labels would take several
    // times the room of the answer.
    let mut exporters: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for series in &matrix.result {
        let instance = series.metric.get("instance").map_or("", String::as_str);
        exporters.entry(instance).or_default().push(series);
    }
    let mut dropped = 0_u32;
    let mut all = Vec::new();
    let mut texts = dcgm::Texts::default();
    for (instance, lines) in exporters {
        let mut scrapes: BTreeMap<i64, Vec<Series<'_>>> = BTreeMap::new();
        for line in lines {
            let name = line.metric.get("__name__").map_or("", String::as_str);
            for (secs, value) in &line.values {
                let millis = answer::millis(*secs);
                let Some(value) = value.0 else {
                    debug!(name, "drop value: no number");
                    dropped = dropped.saturating_add(1);
                    continue;
                };
                let labels = line.metric.iter();
                let labels = labels.map(|(k, v)| (k.as_str(), Cow::Borrowed(v.as_str()))).collect();
                let timestamp_millis = Some(millis);
                let series = Series { name, labels, value, timestamp_millis };
                scrapes.entry(millis).or_default().push(series);
            }
        }
        let origin = Origin { at, node: None::<NodeName>, exporter: instance.into() };
        for series in scrapes.into_values() {
            let (mut samples, faults) = dcgm::samples_sharing(series, &origin, &mut texts);
            for fault in &faults {
                debug!(dropped = %fault, "drop series");
            }
            dropped = dropped.saturating_add(u32::try_from(faults.len()).unwrap_or(u32::MAX));
            all.append(&mut samples);
        }
    }
    let samples = u32::try_from(all.len()).unwrap_or(u32::MAX);
    (all, ScrapeCounts { samples, dropped })
}

/// Text that is no answer of Prometheus to a query with a range.
#[derive(Debug, Error)]
#[error(
    "no answer of Prometheus to a query with a range such as `DCGM_FI_DEV_GPU_UTIL[1h]`: {why}"
)]
pub struct AnswerError {
    /// Why.
    pub why: String,
}

/// Reads an answer that was saved, as by `curl -d query=… http://prometheus:9090/api/v1/query`.
/// `at` counts for nothing but values without a time, of which such an answer has none.
///
/// # Errors
/// [`AnswerError`] when it is none, or tells of an error.
pub fn read_answer(
    body: &[u8],
    at: Timestamp,
) -> Result<(Vec<GpuSample>, ScrapeCounts), AnswerError> {
    let reply: Result<Reply<Matrix>, _> = serde_json::from_slice(body);
    let reply = reply.map_err(|error| AnswerError { why: error.to_string() })?;
    match (reply.data, reply.error) {
        (Some(matrix), None) => Ok(samples(&matrix, at)),
        (_, error) => Err(AnswerError { why: error.unwrap_or_else(|| "no data".to_owned()) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Timestamp {
        Timestamp::EPOCH.after(Duration::from_secs(secs))
    }

    #[test]
    fn scrapes_are_told_apart_by_exporter_and_time() {
        let series = |metric: &str, values: &str| {
            format!(
                r#"{{"metric":{{"__name__":"{metric}","UUID":"GPU-1","node":"n1","instance":"a"}},
                    "values":{values}}}"#
            )
        };
        let text = format!(
            r#"{{"status":"success","data":{{"resultType":"matrix","result":[{},{}]}}}}"#,
            series("DCGM_FI_PROF_SM_ACTIVE", r#"[[10.5,"0.25"],[20.5,"0.75"],[30.5,"x"]]"#),
            series("DCGM_FI_DEV_FB_USED", r#"[[10.5,"100"]]"#),
        );
        let reply: Reply<Matrix> = serde_json::from_str(&text).expect("valid");
        let (samples, counts) = samples(&reply.data.expect("data"), Timestamp::EPOCH);
        assert_eq!(counts, ScrapeCounts { samples: 2, dropped: 1 });
        assert_eq!(samples[0].at.as_millis(), 10_500);
        assert!(samples[0].fb_used.is_some() && samples[1].fb_used.is_none());
        let uuid = |sample: &GpuSample| sample.device.uuid.as_str().as_ptr();
        assert_eq!(uuid(&samples[0]), uuid(&samples[1]), "one copy of what scrapes repeat");
    }

    #[test]
    fn a_new_exporter_is_read_from_before_it_was_listed_and_a_silent_one_is_remembered() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let mut listing = Listing::default();
        listing.update(at(100), names(&["a", "b"]), vec![]);
        let span = Interval { start: at(140), end: at(160) };
        assert_eq!(listing.parts(span).len(), 1, "all are new on the first list");
        listing.update(at(160), names(&["b", "c"]), vec![]);
        let parts = listing.parts(span);
        assert_eq!(
            (parts[0].exporters.as_slice(), parts[0].interval),
            (&["b".to_owned()][..], span)
        );
        assert_eq!(parts[1].exporters, ["c"]);
        assert_eq!(parts[1].interval, Interval { start: at(100), end: at(160) });
        assert_eq!(listing.silent().collect::<Vec<_>>(), ["a"]);
        listing.update(at(100 + 3601), names(&["b"]), vec![]);
        assert_eq!(listing.silent().collect::<Vec<_>>(), ["c"], "a was last seen over an hour ago");
    }

    #[test]
    fn a_fleet_is_cut_into_parts_and_what_is_too_much_is_halved() {
        let mut listing = Listing::default();
        listing.update(at(0), (0..250).map(|n| format!("10.0.0.{n}:9400")).collect(), vec![]);
        let parts = listing.parts(Interval { start: at(0), end: at(10) });
        assert_eq!(parts.iter().map(|p| p.exporters.len()).collect::<Vec<_>>(), [100, 100, 50]);
        let address = crate::http::Shown::of(&"http://p/".parse().expect("valid"));
        let status = |status, body: &str| ReadError::Status {
            address: address.clone(),
            status,
            body: body.to_owned(),
        };
        let too_many = status(422, "execution: query processing would load too many samples");
        let halves = parts[2].halves(&too_many).expect("halved");
        assert_eq!(halves.map(|half| half.exporters.len()), [25, 25]);
        assert!(parts[2].halves(&status(503, "too many requests")).is_none(), "no use in asking");
        let one = Part { exporters: vec!["a".into()], ..parts[0].clone() };
        assert!(one.halves(&too_many).is_none());
    }
}
