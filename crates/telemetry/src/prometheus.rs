//! DCGM exporter's series asked of Prometheus.
//!
//! Source: <https://prometheus.io/docs/prometheus/latest/querying/api/>.

use std::borrow::Cow;
use std::collections::BTreeMap;

use gpu_autoscaler_model::{GpuSample, Interval, NodeName, Scrape, ScrapeCounts, Timestamp};
use reqwest::{Client, Url};
use serde::Deserialize;
use tracing::{debug, warn};

use crate::dcgm::{self, METRICS, Origin};
use crate::exposition::Series;
use crate::http::{self, Limits, ReadError, Shown};
use crate::scrape::failure;

/// A Prometheus server, or anything that speaks its query API.
#[derive(Clone, Debug)]
pub struct Prometheus {
    client: Client,
    base: Url,
}

impl Prometheus {
    /// At `base`, such as `http://prometheus:9090` or an address with a path prefix.
    pub fn new(client: Client, base: Url) -> Self {
        Self { client, base }
    }

    /// Its address without credentials.
    pub fn shown(&self) -> Shown {
        Shown::of(&self.base)
    }

    /// All values within `interval`, each with the time at which it was scraped.
    pub async fn history(&self, interval: Interval) -> (Vec<GpuSample>, Scrape) {
        // A range selector gives scrape times; an instant one would give the time of the query to
        // values up to five minutes old and make a dead exporter look alive.
        let secs = interval.millis().div_ceil(1000).max(1);
        self.samples(interval.end, &format!("{}[{secs}s]", selector())).await
    }

    async fn samples(&self, at: Timestamp, query: &str) -> (Vec<GpuSample>, Scrape) {
        let target = self.shown().to_string().into();
        match self.query(at, query).await {
            Ok(found) => {
                let (samples, counts) = found.samples(at);
                (samples, Scrape { at, target, result: Ok(counts) })
            }
            Err(error) => (Vec::new(), Scrape { at, target, result: Err(failure(&error)) }),
        }
    }

    /// One instant query. Sent as a form, because a query may be longer than an address may be.
    async fn query(&self, at: Timestamp, query: &str) -> Result<Matrix, ReadError> {
        let mut url = self.base.clone();
        let path = format!("{}/api/v1/query", url.path().trim_end_matches('/'));
        url.set_path(&path);
        let shown = Shown::of(&url);
        let time = format!("{}.{:03}", at.as_millis() / 1000, at.as_millis().rem_euclid(1000));
        let form = [("query", query), ("time", &time)];
        let body = http::read(self.client.post(url).form(&form), &shown, Limits::QUERY).await?;
        let refuse = |found: String| ReadError::Body {
            address: shown.clone(),
            expected: "Prometheus reply",
            found,
        };
        let reply: Reply = serde_json::from_slice(&body).map_err(|e| refuse(e.to_string()))?;
        for warning in &reply.warnings {
            warn!(address = %shown, warning, "prometheus answers in part");
        }
        match (reply.data, reply.error) {
            (Some(matrix), None) => Ok(matrix),
            (_, error) => Err(refuse(error.unwrap_or_else(|| "no data".into()))),
        }
    }
}

/// Text that is no answer of Prometheus to a query with a range.
#[derive(Debug, thiserror::Error)]
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
    let reply: Result<Reply, _> = serde_json::from_slice(body);
    let reply = reply.map_err(|error| AnswerError { why: error.to_string() })?;
    match (reply.data, reply.error) {
        (Some(matrix), None) => Ok(matrix.samples(at)),
        (_, error) => Err(AnswerError { why: error.unwrap_or_else(|| "no data".to_owned()) }),
    }
}

/// Selects all counters that are read, in one query.
fn selector() -> String {
    format!("{{__name__=~\"{}\"}}", METRICS.join("|"))
}

#[derive(Deserialize)]
struct Reply {
    data: Option<Matrix>,
    error: Option<String>,
    #[serde(default)]
    warnings: Vec<String>,
}

#[derive(Deserialize)]
struct Matrix {
    result: Vec<MatrixSeries>,
}

#[derive(Deserialize)]
struct MatrixSeries {
    metric: BTreeMap<String, String>,
    #[serde(default)]
    values: Vec<(f64, String)>,
}

impl Matrix {
    /// Values of one exporter and instant belong together: they are one scrape.
    fn samples(&self, at: Timestamp) -> (Vec<GpuSample>, ScrapeCounts) {
        let mut scrapes: BTreeMap<(&str, i64), Vec<Series<'_>>> = BTreeMap::new();
        let mut dropped = 0_u32;
        for series in &self.result {
            let name = series.metric.get("__name__").map_or("", String::as_str);
            let instance = series.metric.get("instance").map_or("", String::as_str);
            for (secs, value) in &series.values {
                // Prometheus writes milliseconds as decimals; the product is within 2^53.
                let millis = (secs * 1000.0).round() as i64;
                let Ok(value) = value.parse() else {
                    debug!(name, value, "drop value");
                    dropped = dropped.saturating_add(1);
                    continue;
                };
                let labels = series.metric.iter();
                let labels = labels.map(|(k, v)| (k.as_str(), Cow::Borrowed(v.as_str()))).collect();
                let timestamp_millis = Some(millis);
                let series = Series { name, labels, value, timestamp_millis };
                scrapes.entry((instance, millis)).or_default().push(series);
            }
        }
        let mut all = Vec::new();
        for series in scrapes.into_values() {
            let origin = Origin { at, node: None::<NodeName> };
            let (mut samples, faults) = dcgm::samples(series, &origin);
            for fault in &faults {
                debug!(dropped = %fault, "drop series");
            }
            dropped = dropped.saturating_add(u32::try_from(faults.len()).unwrap_or(u32::MAX));
            all.append(&mut samples);
        }
        all.sort_by(|a, b| a.at.cmp(&b.at).then_with(|| a.device.cmp(&b.device)));
        let samples = u32::try_from(all.len()).unwrap_or(u32::MAX);
        (all, ScrapeCounts { samples, dropped })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let reply: Reply = serde_json::from_str(&text).expect("valid");
        let (samples, counts) = reply.data.expect("data").samples(Timestamp::EPOCH);
        assert_eq!(counts, ScrapeCounts { samples: 2, dropped: 1 });
        assert_eq!(samples[0].at.as_millis(), 10_500);
        assert!(samples[0].fb_used.is_some() && samples[1].fb_used.is_none());
    }
}
