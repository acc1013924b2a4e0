//! A real Prometheus on loopback.
//!
//! In: scrape targets, which may change while it runs. Out: a URL, and answers to queries.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, thread};

use serde_json::{Value, json};

use crate::error_chain;
use crate::port::LoopbackPort;
use crate::process::{CommandLine, Process, ProcessError, log_tail};
use crate::program::{Program, ProgramMissing};
use crate::scratch::ScratchDir;
use crate::skip::skip_or_fail;
use crate::wait::poll;

/// Time until Prometheus must be ready; it takes well below 1 s on an idle machine.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Time for one HTTP exchange.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// The targets, relative to the configuration file.
const TARGETS: &str = "targets.json";

/// What is scraped, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Time between two scrapes of a target; at least 1 ms.
    pub scrape_interval: Duration,
    /// Whether a label of the exporter wins over one of the target. The Prometheus Operator's
    /// default is `false`: the exporter's `pod` then arrives as `exported_pod`.
    pub honor_labels: bool,
    /// The first targets; see [`Prometheus::set_targets`].
    pub targets: Vec<Target>,
}

/// What few tests want beside [`Options`].
#[derive(Debug, Clone, Default)]
pub struct Extras {
    /// Files of recording and alerting rules.
    pub rules: Vec<PathBuf>,
    /// Further flags, such as `--query.max-samples=1000`.
    pub arguments: Vec<String>,
    /// The file `web.config`: certificates and users. Who may not ask is refused then, [`Prometheus`]
    /// itself included, which knows from the log alone that the server is ready.
    pub web: Option<Value>,
    /// A store that is asked beside its own.
    pub remote_read: Option<String>,
    /// Samples of the past that it has from the start: OpenMetrics text with times.
    pub history: Option<String>,
}

/// An exporter, scraped at `http://address/metrics`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Where it listens.
    pub address: SocketAddr,
    /// Labels given to each of its series, beside `instance`; `job` is `exporters` unless named.
    pub labels: BTreeMap<String, String>,
}

/// Why Prometheus does not run or answer.
#[derive(Debug, thiserror::Error)]
pub enum PrometheusError {
    /// Prometheus is not on this machine.
    #[error(transparent)]
    Missing(#[from] ProgramMissing),
    /// A folder, file or port could not be had.
    #[error("prepare prometheus")]
    Prepare(#[source] io::Error),
    /// The program could not be started.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The program ended, or did not become ready in time.
    #[error("prometheus is not ready after {} s: {last}\n{log}", READY_WITHIN.as_secs())]
    NotReady {
        /// What the last look saw.
        last: String,
        /// The end of its log.
        log: String,
    },
    /// The connection failed.
    #[error("get `{path}` from prometheus")]
    Http {
        /// Path and query of the request.
        path: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// Prometheus refused the request, for example a query that it cannot parse.
    #[error("get `{path}` from prometheus: {answer}")]
    Refused {
        /// Path and query of the request.
        path: String,
        /// Status line and body.
        answer: String,
    },
}

/// A running Prometheus; its process and files are gone when it is dropped.
#[derive(Debug)]
pub struct Prometheus {
    process: Process,
    port: LoopbackPort,
    scheme: &'static str,
    // Last, so that the process is gone when it is removed.
    scratch: ScratchDir,
}

impl Prometheus {
    /// Starts Prometheus and waits until it answers queries.
    ///
    /// # Errors
    /// [`PrometheusError::Missing`] names the package; all others say what failed.
    pub fn start(options: &Options) -> Result<Self, PrometheusError> {
        Self::start_with(options, &Extras::default())
    }

    /// As [`Prometheus::start`], with more.
    ///
    /// # Errors
    /// As [`Prometheus::start`]; a rule that cannot be parsed ends Prometheus.
    pub fn start_with(options: &Options, extras: &Extras) -> Result<Self, PrometheusError> {
        let program = Program::Prometheus.find()?;
        let scratch = ScratchDir::create("prometheus").map_err(PrometheusError::Prepare)?;
        let port = LoopbackPort::reserve().map_err(PrometheusError::Prepare)?;
        write_targets(scratch.path(), &options.targets).map_err(PrometheusError::Prepare)?;
        let config = scratch
            .write("prometheus.yml", &configuration(options, extras).to_string())
            .map_err(PrometheusError::Prepare)?;
        if let Some(text) = &extras.history {
            backfill(&program, &scratch, text).map_err(PrometheusError::Prepare)?;
        }
        let mut arguments = vec![
            format!("--config.file={}", config.display()),
            format!("--storage.tsdb.path={}", scratch.join("data").display()),
            format!("--web.listen-address={}", port.address()),
        ];
        if let Some(web) = &extras.web {
            let file = scratch.write("web.yml", &web.to_string());
            let file = file.map_err(PrometheusError::Prepare)?;
            arguments.push(format!("--web.config.file={}", file.display()));
        }
        arguments.extend(extras.arguments.iter().cloned());
        let command = CommandLine::new(program, arguments);
        let process = Process::start(command, &scratch.join("prometheus.log"))?;
        let scheme = if extras.web.is_some() { "https" } else { "http" };
        let mut this = Self { process, port, scheme, scratch };
        this.wait_until_ready()?;
        Ok(this)
    }

    /// As [`Prometheus::start`] for a test: skips it aloud where Prometheus is missing.
    ///
    /// # Panics
    /// When Prometheus does not start; and instead of skipping under `REQUIRE_ALL=1`.
    pub fn start_or_skip(options: &Options) -> Option<Self> {
        Self::start_with_or_skip(options, &Extras::default())
    }

    /// As [`Prometheus::start_with`] for a test, with these rules.
    ///
    /// # Panics
    /// As [`Prometheus::start_or_skip`].
    pub fn start_with_rules_or_skip(options: &Options, rules: &[PathBuf]) -> Option<Self> {
        let extras = Extras { rules: rules.to_vec(), ..Extras::default() };
        Self::start_with_or_skip(options, &extras)
    }

    /// As [`Prometheus::start_with`] for a test, as [`Prometheus::start_or_skip`].
    ///
    /// # Panics
    /// As [`Prometheus::start_or_skip`].
    pub fn start_with_or_skip(options: &Options, extras: &Extras) -> Option<Self> {
        match Self::start_with(options, extras) {
            Ok(this) => Some(this),
            Err(PrometheusError::Missing(missing)) => {
                skip_or_fail(&missing.to_string());
                None
            }
            Err(error) => panic!("start prometheus: {}", error_chain(&error)),
        }
    }

    /// `http://127.0.0.1:PORT`, `https` with [`Extras::web`].
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.port.address())
    }

    /// The process, to pause, resume or kill it.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Starts a killed Prometheus again with its data, and waits until it answers queries.
    ///
    /// # Errors
    /// As [`Prometheus::start`].
    pub fn start_again(&mut self) -> Result<(), PrometheusError> {
        self.process.start_again()?;
        self.wait_until_ready()
    }

    /// Replaces the targets. Prometheus watches their file and follows within seconds.
    ///
    /// # Errors
    /// [`PrometheusError::Prepare`] when the file cannot be written.
    pub fn set_targets(&self, targets: &[Target]) -> Result<(), PrometheusError> {
        write_targets(self.scratch.path(), targets).map_err(PrometheusError::Prepare)
    }

    /// The result of an instant query: `data.result` of the HTTP API's answer.
    ///
    /// Source: <https://prometheus.io/docs/prometheus/2.42/querying/api/#instant-queries>.
    ///
    /// # Errors
    /// [`PrometheusError::Http`] and [`PrometheusError::Refused`].
    pub fn query(&self, promql: &str) -> Result<Vec<Value>, PrometheusError> {
        let path = format!("/api/v1/query?query={}", percent_encoded(promql));
        let body = self.get(&path)?;
        let not_json = |error: serde_json::Error| PrometheusError::Refused {
            path: path.clone(),
            answer: format!("not JSON: {error}: {body}"),
        };
        let mut answer: Value = serde_json::from_str(&body).map_err(not_json)?;
        match answer.pointer_mut("/data/result").map(Value::take) {
            Some(Value::Array(samples)) => Ok(samples),
            _ => Err(PrometheusError::Refused { path, answer: body }),
        }
    }

    fn wait_until_ready(&mut self) -> Result<(), PrometheusError> {
        let mut last = String::new();
        let ready = poll(READY_WITHIN, || {
            if let Some(status) = self.process.exit_status() {
                return Err(format!("ended by itself: {status}"));
            }
            if self.scheme == "https" {
                let log = fs::read_to_string(self.process.log()).unwrap_or_default();
                return Ok(log.contains("Server is ready to receive web requests").then_some(()));
            }
            match self.get("/-/ready") {
                Ok(_) => Ok(Some(())),
                Err(error) => {
                    last = error_chain(&error);
                    Ok(None)
                }
            }
        });
        let failed = |last| PrometheusError::NotReady { last, log: log_tail(self.process.log()) };
        match ready {
            Ok(Some(())) => Ok(()),
            Ok(None) => Err(failed(last)),
            Err(ended) => Err(failed(ended)),
        }
    }

    /// The body of a successful answer.
    ///
    /// HTTP/1.0, so that the answer is neither chunked nor compressed and ends with the connection.
    fn get(&self, path: &str) -> Result<String, PrometheusError> {
        let exchange = || -> io::Result<String> {
            let mut stream = TcpStream::connect_timeout(&self.port.address(), ANSWER_WITHIN)?;
            stream.set_read_timeout(Some(ANSWER_WITHIN))?;
            write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.port.address())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer =
            exchange().map_err(|source| PrometheusError::Http { path: path.to_owned(), source })?;
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.split(' ').nth(1) == Some("200") => Ok(body.to_owned()),
            _ => Err(PrometheusError::Refused { path: path.to_owned(), answer }),
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.process.kill();
        if thread::panicking() {
            eprintln!("{}", log_tail(self.process.log()));
        }
    }
}

/// Writes samples of the past where `prometheus` will look for its own.
fn backfill(prometheus: &Path, scratch: &ScratchDir, text: &str) -> io::Result<()> {
    let history = scratch.write("history.om", text)?;
    // It comes with Prometheus.
    let made = std::process::Command::new(prometheus.with_file_name("promtool"))
        .args(["tsdb", "create-blocks-from", "openmetrics"])
        .args([&history, &scratch.join("data")])
        .output()?;
    let why = || io::Error::other(String::from_utf8_lossy(&made.stderr).into_owned());
    if made.status.success() { Ok(()) } else { Err(why()) }
}

/// The configuration; JSON is YAML.
fn configuration(options: &Options, extras: &Extras) -> Value {
    let remote_read = extras.remote_read.iter();
    let remote_read = remote_read.map(|url| json!({ "url": url, "read_recent": true }));
    let interval = format!("{}ms", options.scrape_interval.as_millis());
    json!({
        "global": { "scrape_interval": interval, "scrape_timeout": interval },
        "rule_files": extras.rules,
        "remote_read": remote_read.collect::<Vec<_>>(),
        "scrape_configs": [{
            "job_name": "exporters",
            "honor_labels": options.honor_labels,
            "file_sd_configs": [{ "files": [TARGETS], "refresh_interval": "5s" }],
        }],
    })
}

/// Writes the targets where Prometheus watches for them, whole or not at all.
fn write_targets(folder: &Path, targets: &[Target]) -> io::Result<()> {
    let groups: Vec<Value> = targets
        .iter()
        .map(|target| json!({ "targets": [target.address], "labels": target.labels }))
        .collect();
    let unfinished = folder.join("targets.new");
    fs::write(&unfinished, Value::from(groups).to_string())?;
    fs::rename(unfinished, folder.join(TARGETS))
}

/// Percent-encodes all but the unreserved characters of RFC 3986.
fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => write!(encoded, "%{byte:02X}").expect("a string takes every text"),
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_encoded_byte_by_byte() {
        assert_eq!(percent_encoded("up{job=\"é\"} + 1"), "up%7Bjob%3D%22%C3%A9%22%7D%20%2B%201");
    }
}
