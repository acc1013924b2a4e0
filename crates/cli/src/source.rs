//! Where a command reads the fleet from.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use gpu_autoscaler_model::{NodeName, Timestamp};
use gpu_autoscaler_telemetry::http;

/// Prometheus of an installation in the cluster, as published. Outside of it the name is not
/// known: then this is a gap that is named, with what to do.
pub const PROMETHEUS_PUBLISHED: &str = "http://prometheus-operated.gpu-autoscaler-system.svc:9090";

/// Help that goes with every command that takes [`SourceArgs`].
pub const HELP: &str = "\
Sources, the first that is given:
  -f FILE        a dump: kubectl get nodes,pods,pdb -A -o yaml; metrics with -m
  --server URL   a running controller (also: GPU_AUTOSCALER_SERVER)
  else           the cluster of the kubeconfig (--kubeconfig, KUBECONFIG, ~/.kube/config, or the
                 service account of a pod), with metrics of --prometheus-url (also:
                 PROMETHEUS_URL), or of every --exporter
Nothing is written to the cluster.";

/// Where the fleet is read from.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Sources")]
pub struct SourceArgs {
    /// A running controller's HTTP address.
    #[arg(long, value_name = "URL", conflicts_with_all = ["files", "kubeconfig", "context"])]
    pub server: Option<String>,
    /// Kubeconfig file.
    #[arg(long, value_name = "FILE", conflicts_with = "files")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig.
    #[arg(long, value_name = "NAME", conflicts_with = "files")]
    pub context: Option<String>,
    /// Prometheus that scrapes the DCGM exporters.
    #[arg(long, value_name = "URL")]
    pub prometheus_url: Option<String>,
    /// A DCGM exporter to read in place of a Prometheus; its one reading is taken to have lasted
    /// for the whole window. May be repeated.
    #[arg(long = "exporter", value_name = "NODE=URL", value_parser = exporter)]
    pub exporters: Vec<Exporter>,
    /// A dump of the cluster, YAML or JSON; `-` is standard input. Several are read as one.
    #[arg(short = 'f', long = "filename", id = "files", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Metrics in a file: exposition text of a DCGM exporter, or a saved answer of Prometheus.
    #[arg(short = 'm', long, value_name = "FILE")]
    pub metrics: Vec<PathBuf>,
    /// A price sheet: CSV with instance_type,region,capacity_type,price_per_hour,currency.
    #[arg(long, value_name = "FILE", conflicts_with = "server")]
    pub prices: Option<PathBuf>,
    /// The time of the dump, RFC 3339; the default is now.
    #[arg(long, value_name = "TIME", requires = "files")]
    pub at: Option<Timestamp>,
}

/// An exporter, and its node where that is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exporter {
    /// Its node.
    pub node: Option<NodeName>,
    /// Where its text is.
    pub url: String,
}

fn exporter(text: &str) -> Result<Exporter, String> {
    let (node, url) = match text.split_once('=') {
        Some((node, url)) if !node.contains(':') => (Some(NodeName::from(node)), url),
        _ => (None, text),
    };
    http::address(url).map_err(|error| error.to_string())?;
    Ok(Exporter { node, url: url.to_owned() })
}

/// What is read, decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Files.
    Dump,
    /// A running controller.
    Server(String),
    /// A cluster by its API server.
    Cluster,
}

impl SourceArgs {
    /// Which source counts.
    pub fn source(&self) -> Source {
        if !self.files.is_empty() {
            return Source::Dump;
        }
        if let Some(server) = &self.server {
            return Source::Server(server.clone());
        }
        match environment("GPU_AUTOSCALER_SERVER") {
            Some(server) if self.kubeconfig.is_none() && self.context.is_none() => {
                Source::Server(server)
            }
            _ => Source::Cluster,
        }
    }

    /// The Prometheus to ask, if one is to be asked.
    pub fn prometheus(&self) -> Option<String> {
        if self.prometheus_url.is_some() {
            return self.prometheus_url.clone().filter(|url| !url.is_empty());
        }
        if !self.exporters.is_empty() || !self.metrics.is_empty() || !self.files.is_empty() {
            return None;
        }
        let published = || Some(PROMETHEUS_PUBLISHED.to_owned());
        environment("PROMETHEUS_URL").or_else(published)
    }
}

/// What asks over the network, one thing at a time.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    // Both TLS clients of the process use it; a second installation is the same one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("start the runtime")
}

/// A variable of the environment; an empty one is none.
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The time by the clock of this machine.
pub fn wall_clock() -> Result<Timestamp> {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .context("read the clock: it is before 1970")?;
    Ok(Timestamp::EPOCH.after(since))
}

/// The longest span: ten years.
const SPAN_MAX: Duration = Duration::from_secs(3_660 * 86_400);

/// A span such as `90s`, `1h30m`, `7d` or `1.5d`.
pub fn span(text: &str) -> Result<Duration, String> {
    let what = "no time such as `90s`, `10m`, `1h30m`, `7d` or `1.5d`";
    let exact = match text.strip_suffix('d').map(str::parse::<f64>) {
        Some(Ok(days)) if (0.0..100_000.0).contains(&days) => {
            Duration::from_secs_f64(days * 86_400.0)
        }
        _ => {
            let span: jiff::Span = text.parse().map_err(|_| what.to_owned())?;
            let days = jiff::SpanRelativeTo::days_are_24_hours();
            let exact = span.to_duration(days).map_err(|_| what.to_owned())?;
            Duration::try_from(exact).map_err(|_| what.to_owned())?
        }
    };
    match exact {
        span if span > Duration::ZERO && span <= SPAN_MAX => Ok(span),
        _ => Err("not between a second and ten years".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_people_write_them() {
        assert_eq!(span("7d"), Ok(Duration::from_secs(7 * 86_400)));
        assert_eq!(span("1.5d"), Ok(Duration::from_secs(129_600)));
        assert_eq!(span("1h30m"), Ok(Duration::from_secs(5_400)));
        assert_eq!(span("24h"), Ok(Duration::from_secs(86_400)));
        for bad in ["", "7", "-5m", "0s", "0d", "NaNd", "infd", "4000d", "soon", "1y"] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn files_come_before_a_server_and_that_before_the_cluster() {
        let server = Some("http://h:8080".to_owned());
        let mut args = SourceArgs { server, ..SourceArgs::default() };
        assert_eq!(args.source(), Source::Server("http://h:8080".to_owned()));
        args.files.push("dump.yaml".into());
        assert_eq!(args.source(), Source::Dump);
        assert_eq!(args.prometheus(), None, "a dump is of another time than a live Prometheus");
        args.prometheus_url = Some("http://p:9090".to_owned());
        assert_eq!(args.prometheus().as_deref(), Some("http://p:9090"));
    }
}
