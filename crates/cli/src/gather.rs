//! Reads everything that a source holds, once, into what `reconcile` takes.

use std::iter;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use gpu_autoscaler_controller::backfill::{self, Limits, ReadBack};
use gpu_autoscaler_k8s::connect::Cluster;
use gpu_autoscaler_k8s::dump;
use gpu_autoscaler_k8s::snapshot::{Snapshot, snapshot};
use gpu_autoscaler_k8s::watch::Resource;
use gpu_autoscaler_model::{Delta, GpuSample, Interval, Scrape, ScrapeFailure, Timestamp};
use gpu_autoscaler_reconciler::Policy;
use gpu_autoscaler_telemetry::connection::{Connection, Credentials};
use gpu_autoscaler_telemetry::dcgm::Origin;
use gpu_autoscaler_telemetry::http;
use gpu_autoscaler_telemetry::prometheus::Prometheus;
use gpu_autoscaler_telemetry::prometheus::history::{History, read_answer};
use gpu_autoscaler_telemetry::scrape::{self, Target};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::exit::Hint;
use crate::input::{self, Kind, shown};
use crate::progress::Step;
use crate::source::{self, PROMETHEUS_PUBLISHED, SourceArgs, wall_clock};

/// Time for listing a cluster.
const LIST_TIME_MAX: Duration = Duration::from_secs(60);

/// On what usage is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Basis {
    /// No metrics were given.
    None,
    /// One instant, taken to have lasted for the whole window.
    Snapshot,
    /// Samples with their times.
    Series,
}

/// What was read.
pub struct Gathered {
    /// When.
    pub now: Timestamp,
    /// From where, in words.
    pub source: String,
    /// What there is.
    pub seen: Delta,
    /// On what usage is known.
    pub basis: Basis,
    /// What could not be read, each with its reason: what is printed is partial.
    pub gaps: Vec<String>,
}

/// Reads the files that `args` name.
pub fn dump(args: &SourceArgs, policy: &Policy) -> Result<Gathered> {
    let now = match args.at {
        Some(at) => at,
        None => wall_clock()?,
    };
    let mut seen = Delta::default();
    let mut gaps = Vec::new();
    for file in &args.files {
        let read =
            dump::read(input::open(file)?).with_context(|| format!("read {}", shown(file)))?;
        gaps.extend(read.faults.iter().map(|fault| format!("left out: {fault}")));
        seen.append(read.delta);
    }
    (seen.samples, seen.scrapes) = source::runtime()?.block_on(samples(args, now, policy))?;
    let basis = spread(&mut seen.samples, now, policy);
    let source = args.files.iter().map(|file| shown(file)).collect::<Vec<_>>().join(", ");
    let mut this = Gathered { now, source, seen, basis, gaps };
    this.note_scrapes();
    Ok(this)
}

/// Reads the cluster of the kubeconfig, and its metrics.
pub async fn cluster(args: &SourceArgs, policy: &Policy) -> Result<Gathered> {
    let cluster = connect(args).await?;
    let listing = Step::begin(&format!("listing {}", cluster.address));
    let found = snapshot(&cluster.api, LIST_TIME_MAX).await;
    drop(listing);
    check_reached(&cluster, &found)?;
    let now = wall_clock()?;
    let gaps = gaps(&found);
    let mut seen = found.delta;
    (seen.samples, seen.scrapes) = samples(args, now, policy).await?;
    let basis = spread(&mut seen.samples, now, policy);
    let mut this = Gathered { now, source: called(&cluster), seen, basis, gaps };
    this.note_scrapes();
    this.note_missing_metrics(args);
    if basis == Basis::Series
        && let Some(url) = args.prometheus()
    {
        this.read_back(&url, policy).await?;
    }
    Ok(this)
}

/// Everything that the sources of metrics have of the window that ends now.
pub async fn samples(
    args: &SourceArgs,
    now: Timestamp,
    policy: &Policy,
) -> Result<(Vec<GpuSample>, Vec<Scrape>)> {
    let _reading = Step::begin("reading metrics");
    let (mut samples, mut scrapes) = (Vec::new(), Vec::new());
    for file in &args.metrics {
        samples.extend(metrics(file, now)?);
    }
    if let Some(url) = args.prometheus() {
        let (more, read) = prometheus(&url, now, policy.waste.window).await?;
        samples.extend(more);
        scrapes.extend(read);
    }
    for (more, scrape) in exporters(args, now).await? {
        samples.extend(more);
        scrapes.push(scrape);
    }
    Ok((samples, scrapes))
}

/// The cluster that `args` name.
pub async fn connect(args: &SourceArgs) -> Result<Cluster> {
    Cluster::connect(args.kubeconfig.as_deref(), args.context.as_deref()).await.context(Hint::new(
        "name a cluster with --kubeconfig FILE, judge a dump with -f FILE, or ask a controller \
         with --server URL; `gpu-autoscaler demo` needs none of them",
    ))
}

/// How a cluster is called in output.
pub fn called(cluster: &Cluster) -> String {
    match &cluster.context {
        Some(context) => format!("cluster `{context}` at {}", cluster.address),
        None => format!("cluster at {}", cluster.address),
    }
}

/// Nodes and pods are what everything is about: without them there is nothing to say.
fn check_reached(cluster: &Cluster, found: &Snapshot) -> Result<()> {
    for needed in [Resource::Nodes, Resource::ActivePods] {
        if let Some((resource, why)) = found.missing.iter().find(|(one, _)| *one == needed) {
            let hint = "`gpu-autoscaler doctor` says what is wrong with the way to the cluster";
            return Err(anyhow::anyhow!("{why}"))
                .with_context(|| format!("list {resource}s of {}", called(cluster)))
                .context(Hint::new(hint));
        }
    }
    Ok(())
}

fn gaps(found: &Snapshot) -> Vec<String> {
    let missing = found.missing.iter().map(|(kind, why)| format!("no {kind} was read: {why}"));
    let malformed = found.malformed.iter().map(|(kind, count, first)| match count {
        1 => format!("left out: {first}"),
        _ => format!("left out: {count} objects of kind {kind}, one of them: {first}"),
    });
    missing.chain(malformed).collect()
}

/// Asks a Prometheus for the window that ends now; what it lacks is a scrape that failed.
pub async fn prometheus(
    url: &str,
    now: Timestamp,
    window: Duration,
) -> Result<(Vec<GpuSample>, Vec<Scrape>)> {
    let mut history = History::new(server(url)?);
    let target: Arc<str> = history.prometheus().shown().to_string().into();
    let read = |result| Scrape { at: now, target: Arc::clone(&target), result };
    Ok(match history.read(Interval { start: now.before(window), end: now }).await {
        Ok(found) => {
            let lacking = found.lacking().map(|why| Err(ScrapeFailure { why: why.into() }));
            let results = iter::once(Ok(found.counts)).chain(lacking);
            (found.samples, results.map(read).collect())
        }
        Err(error) => (Vec::new(), vec![read(Err(scrape::read_failure(&error)))]),
    })
}

/// The Prometheus at an address, asked without credentials.
pub fn server(url: &str) -> Result<Prometheus> {
    let address = http::address(url).context("read the address of Prometheus")?;
    Ok(Prometheus::new(Connection::new(Credentials::default()), address))
}

async fn exporters(args: &SourceArgs, now: Timestamp) -> Result<Vec<(Vec<GpuSample>, Scrape)>> {
    let client = http::client()?;
    let mut under_way = JoinSet::new();
    for exporter in &args.exporters {
        let url = http::address(&exporter.url).context("read `--exporter`")?;
        let (target, client) = (Target { url, node: exporter.node.clone() }, client.clone());
        under_way.spawn(async move { scrape::scrape(&client, &target, now).await });
    }
    let mut read = under_way.join_all().await;
    // They answer in any order; what is printed has one.
    read.sort_by(|(_, a), (_, b)| a.target.cmp(&b.target));
    Ok(read)
}

impl Gathered {
    /// A source of metrics that failed, or had nothing, is a gap.
    fn note_scrapes(&mut self) {
        for scrape in &self.seen.scrapes {
            match &scrape.result {
                Err(failure) => self.gaps.push(format!("no metrics: {}", failure.why)),
                Ok(counts) if counts.samples == 0 => self.gaps.push(format!(
                    "no metrics: {} has no series of a DCGM exporter within the window",
                    scrape.target
                )),
                Ok(_) => {}
            }
        }
    }

    /// Adds what Prometheus holds of the last day, which recommendations rest on as they do in a
    /// controller.
    async fn read_back(&mut self, url: &str, policy: &Policy) -> Result<()> {
        let _reading = Step::begin("reading the last day");
        let objects = backfill::objects(&self.seen);
        let (limits, policy) = (Limits::COMMAND, policy.clone());
        let mut back = ReadBack::new(server(url)?, &objects, policy, limits);
        let history = &mut self.seen.history;
        let reading = async {
            while let Some(round) = back.round().await? {
                history.extend(round.records.into_values());
            }
            anyhow::Ok(())
        };
        // Recommendations rest on a shorter past then, or on the window alone.
        match tokio::time::timeout(limits.time_max, reading).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.gaps.push(format!("the last day was not read: {error:#}")),
            Err(_) => self.gaps.push(format!(
                "the last day was not read to its end within {} s",
                limits.time_max.as_secs()
            )),
        }
        Ok(())
    }

    /// What to do where nothing was said about metrics and the published address has none.
    fn note_missing_metrics(&mut self, args: &SourceArgs) {
        let published = args.prometheus().is_some_and(|url| url == PROMETHEUS_PUBLISHED);
        if self.seen.samples.is_empty() && published {
            self.gaps.push(
                "give metrics with --prometheus-url URL or --exporter NODE=URL; from outside of \
                 the cluster: kubectl -n gpu-autoscaler-system port-forward \
                 svc/gpu-autoscaler-prometheus 9090, then --prometheus-url http://127.0.0.1:9090"
                    .to_owned(),
            );
        }
    }
}

/// Reads a file of metrics: exposition text, or a saved answer of Prometheus.
pub fn metrics(file: &Path, now: Timestamp) -> Result<Vec<GpuSample>> {
    read_metrics(file, &input::read_bytes(file)?, now)
}

/// The same of `text`, which `file` held; `now` is the time of what has none.
pub fn read_metrics(file: &Path, text: &[u8], now: Timestamp) -> Result<Vec<GpuSample>> {
    let (samples, counts) = match input::kind_of(text) {
        Kind::Answer => read_answer(text, now).with_context(|| format!("read {}", shown(file)))?,
        Kind::Metrics | Kind::Dump => {
            // Several files may hold successive readings of one exporter.
            let exporter = Arc::default();
            scrape::read_text(text, &Origin { at: now, node: None, exporter })
        }
    };
    if samples.is_empty() {
        bail!(
            "{} has no series of a DCGM exporter such as `DCGM_FI_DEV_GPU_UTIL` ({} lines dropped)",
            shown(file),
            counts.dropped
        );
    }
    if counts.dropped > 0 {
        eprintln!("warning: {}: {} lines or values dropped", shown(file), counts.dropped);
    }
    Ok(samples)
}

/// Text without timestamps is one instant, `now`: it is repeated over the whole window.
fn spread(samples: &mut Vec<GpuSample>, now: Timestamp, policy: &Policy) -> Basis {
    if samples.is_empty() {
        return Basis::None;
    }
    if samples.iter().any(|sample| sample.at != now) {
        return Basis::Series;
    }
    let instant = std::mem::take(samples);
    let step = policy.waste.gap_max;
    let mut back = Duration::ZERO;
    while back <= policy.waste.window {
        samples.extend(instant.iter().map(|s| GpuSample { at: now.before(back), ..s.clone() }));
        back += step;
    }
    Basis::Snapshot
}
