//! Command line of the controller.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use gpu_autoscaler_model::NodeName;

use crate::prometheus_flags::PrometheusFlags;

/// Observes the GPUs of a Kubernetes cluster and says which are wasted.
///
/// Flags of earlier releases keep their names and defaults.
#[derive(Clone, Debug, Parser)]
#[command(name = "gpu-autoscaler-controller", version)]
pub struct Arguments {
    /// Where metrics and the HTTP API are served; `:PORT` is every address, `0` is nowhere.
    #[arg(long, value_name = "ADDRESS", default_value = ":8080", value_parser = address)]
    pub metrics_bind_address: Bind,

    /// Where `/healthz` and `/readyz` are served.
    #[arg(long, value_name = "ADDRESS", default_value = ":8081", value_parser = address)]
    pub health_probe_bind_address: Bind,

    /// Act only as the leader of several replicas. Without it this process must be alone.
    #[arg(
        long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_value = "false", default_missing_value = "true"
    )]
    pub leader_elect: bool,

    /// Name of the coordination Lease.
    #[arg(long, value_name = "NAME", default_value = "gpu-autoscaler.io")]
    pub leader_election_id: String,

    /// Namespace of the coordination Lease; in a pod, that of the pod.
    #[arg(long, value_name = "NAMESPACE")]
    pub leader_election_namespace: Option<String>,

    /// How long a Lease that does not change is respected.
    #[arg(long, value_name = "DURATION", default_value = "6s", value_parser = duration)]
    pub leader_election_lease_duration: Duration,

    /// How long a leader that cannot renew still writes.
    #[arg(long, value_name = "DURATION", default_value = "4s", value_parser = duration)]
    pub leader_election_renew_deadline: Duration,

    /// Pause between two looks at the Lease.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    pub leader_election_retry_period: Duration,

    /// Kubeconfig file; else `KUBECONFIG`, the pod's service account, `~/.kube/config`.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Prometheus.
    #[command(flatten)]
    pub prometheus: PrometheusFlags,

    /// A DCGM exporter to scrape directly, as `URL` or `NODE=URL`; may be repeated.
    #[arg(long = "exporter", value_name = "NODE=URL", value_parser = exporter)]
    pub exporters: Vec<Exporter>,

    /// Pause between two readings of the telemetry.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub scrape_interval: Duration,

    /// Pause between two judgements of waste.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub reconcile_interval: Duration,

    /// How far back use is looked at.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    pub waste_lookback: Duration,

    /// How much of the lookback must have been observed.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    pub waste_observed_min: Duration,

    /// Pods that started more recently are left alone.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    pub waste_pod_age_min: Duration,

    /// Longest time between two samples that counts as observed.
    #[arg(long, value_name = "DURATION", default_value = "90s", value_parser = duration)]
    pub waste_sample_gap_max: Duration,

    /// Own prices, CSV with the header
    /// `instance_type,region,capacity_type,price_per_hour,currency`.
    #[arg(long, value_name = "FILE")]
    pub price_sheet: Option<PathBuf>,

    /// Folder in which what was learned of workloads is kept over a restart, one for each replica;
    /// without it, it is kept in memory alone.
    #[arg(long, value_name = "DIR")]
    pub history_dir: Option<PathBuf>,

    /// How far back Prometheus is read at start, for what the history does not hold yet; `0s` is
    /// not at all.
    #[arg(long, value_name = "DURATION", default_value = "168h", value_parser = reach)]
    pub history_backfill: Duration,

    /// Writes to the cluster per second, on average.
    #[arg(long, value_name = "NUMBER", default_value_t = 10.0)]
    pub write_rate: f64,

    /// Writes to the cluster at once.
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    pub write_burst: u32,

    /// Collector that spans are sent to by OTLP over HTTP, such as `http://otel:4318`; nothing is
    /// traced without it.
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,

    /// Least severe messages that are logged: `debug`, `info`, `warn`, `error`; a number above
    /// zero is `debug`.
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = log_level)]
    pub zap_log_level: LogLevel,

    /// Form of the log.
    #[arg(long, value_name = "FORM", value_enum, default_value = "json")]
    pub zap_encoder: LogForm,

    /// Log for a person: console form, debug level.
    #[arg(
        long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_value = "false", default_missing_value = "true"
    )]
    pub zap_devel: bool,

    /// Taken from earlier releases; without effect, which is logged.
    #[arg(long, value_name = "PORT", hide = true)]
    pub webhook_port: Option<u16>,

    /// Taken from earlier releases; without effect, which is logged.
    #[arg(long, value_name = "LEVEL", hide = true)]
    pub zap_stacktrace_level: Option<String>,

    /// How times are written in the log.
    #[arg(
        long,
        value_name = "FORM",
        value_enum,
        ignore_case = true,
        default_value = "rfc3339nano"
    )]
    pub zap_time_encoding: TimeForm,

    /// Ends the process at the first time that an effect reaches this step. Only in builds with
    /// debug assertions, for tests of crashes.
    #[cfg(debug_assertions)]
    #[arg(long, value_name = "STEP", value_enum, hide = true)]
    pub fail_at: Option<FailAt>,
}

impl Arguments {
    /// Flags of earlier releases that were given and have no effect, with the reason.
    pub fn without_effect(&self) -> Vec<(&'static str, &'static str)> {
        let given = [
            (self.webhook_port.is_some(), "--webhook-port", "there is no admission server yet"),
            (self.zap_stacktrace_level.is_some(), "--zap-stacktrace-level", "errors name causes"),
        ];
        given.into_iter().filter(|(given, ..)| *given).map(|(_, flag, why)| (flag, why)).collect()
    }
}

/// A step of an effect at which a test ends the process.
#[cfg(debug_assertions)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FailAt {
    /// Nothing was sent.
    BeforeWrite,
    /// The server has answered.
    AfterWrite,
    /// The answer was read.
    BeforeReceipt,
}

/// Severity of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// What was changed.
    Info,
    /// What was unexpected.
    Warn,
    /// What a person must see to.
    Error,
}

/// How times are written, in the words of earlier releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TimeForm {
    /// Seconds since 1970, with a fraction.
    Epoch,
    /// Milliseconds since 1970.
    Millis,
    /// Nanoseconds since 1970.
    #[value(name = "nano", alias = "nanos")]
    Nanos,
    /// Date and time to the millisecond.
    Iso8601,
    /// Date and time to the second.
    Rfc3339,
    /// Date and time to the nanosecond.
    #[value(name = "rfc3339nano")]
    Rfc3339Nano,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogForm {
    /// A JSON object per line.
    Json,
    /// Text.
    Console,
}

/// Where to listen; `None` is nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind(pub Option<SocketAddr>);

/// A DCGM exporter to scrape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exporter {
    /// Its node, where it is known.
    pub node: Option<NodeName>,
    /// Where its text is.
    pub url: String,
}

fn address(text: &str) -> Result<Bind, String> {
    if text == "0" {
        return Ok(Bind(None));
    }
    if let Some(port) = text.strip_prefix(':') {
        let port = port.parse().map_err(|_| format!("`{port}` is no port"))?;
        // Every address of both families, as Go has it.
        return Ok(Bind(Some((Ipv6Addr::UNSPECIFIED, port).into())));
    }
    let bind = text.parse().map_err(|_| "no address such as `:8080` or `127.0.0.1:8080`")?;
    Ok(Bind(Some(bind)))
}

fn exporter(text: &str) -> Result<Exporter, String> {
    let (node, url) = match text.split_once('=') {
        Some((node, url)) if !node.contains(':') => (Some(NodeName::from(node)), url),
        _ => (None, text),
    };
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return Err("no address such as `http://10.0.0.7:9400/metrics`".to_owned());
    }
    Ok(Exporter { node, url: url.to_owned() })
}

fn log_level(text: &str) -> Result<LogLevel, String> {
    match text.to_ascii_lowercase().as_str() {
        "debug" => Ok(LogLevel::Debug),
        "info" => Ok(LogLevel::Info),
        "warn" => Ok(LogLevel::Warn),
        // What panics in earlier releases is an error here.
        "error" | "panic" => Ok(LogLevel::Error),
        number if number.parse::<u8>().is_ok_and(|number| number > 0) => Ok(LogLevel::Debug),
        _ => Err("no level: debug, info, warn, error or a number above zero".to_owned()),
    }
}

/// `90s`, `1m30s`, `500ms`, as Go writes durations.
fn duration(text: &str) -> Result<Duration, String> {
    let refuse = || format!("`{text}` is no duration such as `90s`, `1m30s` or `500ms`");
    let (mut total, mut rest) = (Duration::ZERO, text);
    while !rest.is_empty() {
        let digits = rest.bytes().position(|b| !b.is_ascii_digit()).ok_or_else(refuse)?;
        let number: u32 = rest[..digits].parse().map_err(|_| refuse())?;
        rest = &rest[digits..];
        let letters = rest.bytes().position(|b| b.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            _ => return Err(refuse()),
        };
        total = total.checked_add(unit.saturating_mul(number)).ok_or_else(refuse)?;
        rest = &rest[letters..];
    }
    if total.is_zero() { Err(refuse()) } else { Ok(total) }
}

/// A duration, or nothing.
fn reach(text: &str) -> Result<Duration, String> {
    if matches!(text, "0" | "0s") { Ok(Duration::ZERO) } else { duration(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Arguments, String> {
        let with_name = ["gpu-autoscaler-controller"].iter().chain(arguments);
        Arguments::try_parse_from(with_name).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_of_earlier_releases_are_taken_with_their_defaults() {
        let defaults = parse(&[]).expect("nothing is required");
        assert_eq!(defaults.metrics_bind_address.0.expect("on").port(), 8080);
        assert_eq!(defaults.health_probe_bind_address.0.expect("on").port(), 8081);
        assert!(!defaults.leader_elect);
        let given = parse(&[
            "--leader-elect",
            "--metrics-bind-address=127.0.0.1:0",
            "--health-probe-bind-address=0",
            "--zap-log-level=debug",
            "--zap-encoder=console",
            "--zap-devel=false",
            "--zap-stacktrace-level=error",
            "--zap-time-encoding=epoch",
            "--webhook-port=9443",
        ])
        .expect("published flags");
        assert_eq!(given.without_effect().len(), 2);
        assert_eq!(given.zap_time_encoding, TimeForm::Epoch);
        for (text, level) in [("2", LogLevel::Debug), ("ERROR", LogLevel::Error)] {
            let given = parse(&["--zap-log-level", text]).expect("as zap takes it");
            assert_eq!(given.zap_log_level, level);
        }
        assert!(parse(&["--zap-log-level=loud"]).is_err());
        for form in ["epoch", "millis", "nano", "iso8601", "rfc3339", "rfc3339nano"] {
            assert!(parse(&[&format!("--zap-time-encoding={form}")]).is_ok(), "{form}");
        }
        assert!(given.leader_elect && !given.zap_devel);
        assert_eq!(given.health_probe_bind_address, Bind(None));
        assert!(!parse(&["--leader-elect=false"]).expect("published").leader_elect);
    }

    #[test]
    fn an_exporter_may_name_its_node() {
        let given = parse(&["--exporter=gpu-0=http://10.0.0.7:9400/metrics"]).expect("valid");
        assert_eq!(given.exporters[0].node, Some("gpu-0".into()));
        let given = parse(&["--exporter", "http://h:9400/metrics?a=b"]).expect("valid");
        assert_eq!(given.exporters[0].node, None);
        assert!(parse(&["--exporter=gpu-0"]).is_err());
    }

    #[test]
    fn no_half_of_a_secret_and_no_two_ways_to_say_who_asks() {
        assert!(parse(&["--prometheus-username=u", "--prometheus-password-file=/p"]).is_ok());
        for bad in [
            &["--prometheus-username=u"][..],
            &["--prometheus-cert-file=/c"],
            &["--prometheus-key-file=/k"],
            &[
                "--prometheus-bearer-token-file=/t",
                "--prometheus-username=u",
                "--prometheus-password-file=/p",
            ],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn durations_are_those_of_go() {
        assert_eq!(reach("0s"), Ok(Duration::ZERO));
        assert_eq!(reach("168h"), Ok(Duration::from_secs(7 * 86_400)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        for bad in ["", "5", "s", "1x", "-1s", "0s", "99999999999s", "1.5h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
