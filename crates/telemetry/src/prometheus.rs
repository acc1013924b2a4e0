//! Prometheus' HTTP API: instant and range queries, and which series there are.
//!
//! Source: <https://prometheus.io/docs/prometheus/latest/querying/api/>; Thanos, Mimir,
//! VictoriaMetrics and the clouds' stores answer the same.

mod answer;
pub mod history;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gpu_autoscaler_model::{Interval, Timestamp};
use reqwest::Url;
use serde::de::DeserializeOwned;
use tracing::warn;

use crate::connection::Connection;
use crate::http::{self, Limits, ReadError, Shown};
use answer::{Matrix, Reply, Vector};

/// Longest form that is sent as part of the address, in bytes. Proxies that let only `GET` pass
/// are served as far as an address may be long; what is longer is posted.
const ADDRESS_BYTES_MAX: usize = 2000;

/// Names and values that tell a series from others.
pub type Labels = BTreeMap<String, String>;

/// A Prometheus server, or anything that speaks its query API.
#[derive(Clone, Debug)]
pub struct Prometheus {
    connection: Arc<Connection>,
    base: Url,
}

/// What was answered, and what the server says is lacking.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer<T> {
    /// What was found. With warnings it may be a part only.
    pub found: T,
    /// In the server's words. Servers that ask others, such as Thanos, answer in part where one of
    /// those does not.
    pub warnings: Vec<String>,
}

/// One series of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Which series.
    pub labels: Labels,
    /// Its values in the order of time; a value is not looked at and may be NaN or infinite.
    pub points: Vec<(Timestamp, f64)>,
}

impl Prometheus {
    /// At `base`, such as `http://prometheus:9090` or an address with a path prefix.
    pub fn new(connection: Connection, mut base: Url) -> Self {
        if connection.authorizes() {
            // Else what the address holds would be sent as a second header of the same name.
            let _ = base.set_username("");
            let _ = base.set_password(None);
        }
        Self { connection: Arc::new(connection), base }
    }

    /// Its address without credentials.
    pub fn shown(&self) -> Shown {
        Shown::of(&self.base)
    }

    /// The value of each series that `query` finds at `at`.
    ///
    /// The server takes values up to five minutes old for values of `at`; where that matters,
    /// `query` holds a range selector.
    ///
    /// # Errors
    /// Those of reading; [`ReadError::Body`] also where the query gives no vector.
    pub async fn instant(
        &self,
        at: Timestamp,
        query: &str,
    ) -> Result<Answer<Vec<Line>>, ReadError> {
        let form = [("query", query.to_owned()), ("time", seconds(at)), timeout()];
        let answer: Answer<Vector> = self.ask("query", &form).await?;
        Ok(Answer { found: answer.found.lines(), warnings: answer.warnings })
    }

    /// The values that `query` has every `step` within `interval`, both ends included.
    ///
    /// # Errors
    /// As [`Prometheus::instant`]; the server refuses more than 11,000 steps.
    pub async fn range(
        &self,
        interval: Interval,
        step: Duration,
        query: &str,
    ) -> Result<Answer<Vec<Line>>, ReadError> {
        let answer = self.stepped(interval, step, query).await?;
        Ok(Answer { found: answer.found.lines(), warnings: answer.warnings })
    }

    async fn stepped(
        &self,
        interval: Interval,
        step: Duration,
        query: &str,
    ) -> Result<Answer<Matrix>, ReadError> {
        let form = [
            ("query", query.to_owned()),
            ("start", seconds(interval.start)),
            ("end", seconds(interval.end)),
            ("step", format!("{}", step.as_secs_f64())),
            timeout(),
        ];
        self.ask("query_range", &form).await
    }

    /// The series that `selector` finds and that had a value within `interval`.
    ///
    /// # Errors
    /// Those of reading.
    pub async fn series(
        &self,
        interval: Interval,
        selector: &str,
    ) -> Result<Answer<Vec<Labels>>, ReadError> {
        let form = [
            ("match[]", selector.to_owned()),
            ("start", seconds(interval.start)),
            ("end", seconds(interval.end)),
        ];
        self.ask("series", &form).await
    }

    /// The values as they were scraped in the `length` before `at`.
    async fn scraped(
        &self,
        at: Timestamp,
        length: Duration,
        selector: &str,
    ) -> Result<Answer<Matrix>, ReadError> {
        // A range selector gives scrape times; an instant one would give the time of the query to
        // values up to five minutes old and make a dead exporter look alive.
        let query = format!("{selector}[{}ms]", length.as_millis().max(1));
        self.ask("query", &[("query", query), ("time", seconds(at)), timeout()]).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        endpoint: &str,
        form: &[(&str, String)],
    ) -> Result<Answer<T>, ReadError> {
        let mut url = self.base.clone();
        url.set_path(&format!("{}/api/v1/{endpoint}", url.path().trim_end_matches('/')));
        let shown = Shown::of(&url);
        let mut long = url.clone();
        long.query_pairs_mut().extend_pairs(form);
        let request = self.connection.request(|client| {
            if long.as_str().len() <= ADDRESS_BYTES_MAX {
                client.get(long)
            } else {
                client.post(url).form(form)
            }
        });
        let body = http::read(request.await?, &shown, Limits::QUERY).await;
        let body = body.map_err(answer::in_words)?;
        let refuse = |found: String| ReadError::Body {
            address: shown.clone(),
            expected: "Prometheus reply",
            found,
        };
        let reply: Reply<T> = serde_json::from_slice(&body).map_err(|e| refuse(e.to_string()))?;
        for warning in &reply.warnings {
            warn!(address = %shown, warning, "prometheus answers in part");
        }
        match (reply.data, reply.error) {
            (Some(found), None) => Ok(Answer { found, warnings: reply.warnings }),
            (_, error) => Err(refuse(error.unwrap_or_else(|| "no data".into()))),
        }
    }
}

/// After this time the server itself gives a query up, a little before we do.
fn timeout() -> (&'static str, String) {
    ("timeout", format!("{}s", Limits::QUERY.time.as_secs().saturating_sub(1)))
}

fn seconds(at: Timestamp) -> String {
    let millis = at.as_millis();
    format!("{}.{:03}", millis.div_euclid(1000), millis.rem_euclid(1000))
}

/// `text` as a string of PromQL.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// A regular expression that matches exactly one of `texts`. Source: RE2, `QuoteMeta`.
fn one_of<'t>(texts: impl IntoIterator<Item = &'t str>) -> String {
    let mut expression = String::new();
    for (at, text) in texts.into_iter().enumerate() {
        if at > 0 {
            expression.push('|');
        }
        for char in text.chars() {
            if r"\.+*?()|[]{}^$".contains(char) {
                expression.push('\\');
            }
            expression.push(char);
        }
    }
    expression
}

#[cfg(test)]
mod tests;
