//! Puts the parts together.

use std::fs;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use gpu_autoscaler_analysis::Thresholds;
use gpu_autoscaler_k8s::connect::Cluster;
use gpu_autoscaler_k8s::effects::{Performer, WriteRate};
use gpu_autoscaler_k8s::election::{Elector, Leadership, LeaseName, Timing};
use gpu_autoscaler_k8s::watch::{Resource, WatchSettings, Watcher};
use gpu_autoscaler_model::{Delta, PriceBook, View};
use gpu_autoscaler_reconciler::Policy;
use gpu_autoscaler_store::{Limits, Writer};
use gpu_autoscaler_telemetry::http as telemetry_http;
use gpu_autoscaler_telemetry::prometheus::history::History;
use gpu_autoscaler_telemetry::scrape::Target;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::arguments::{Arguments, Bind};
use crate::health::{Health, TelemetryHealth, WriteHealth};
use crate::metrics::Metrics;
use crate::telemetry::Sources;
use crate::ticker::{Inputs, Outputs, Ticker};
use crate::{backfill, connect, http, page, performer, routes, telemetry};

/// Parts of watches that wait to be taken in.
const PARTS_MAX: usize = 4096;

/// How long the end waits for the disk of the history.
const HISTORY_CLOSES_WITHIN: Duration = Duration::from_secs(5);

/// Readings that wait to be taken in. Those of a large fleet are large.
const READINGS_MAX: usize = 1;

/// Parts of the past that wait to be taken in.
const PAST_MAX: usize = 4;

/// Runs a controller until `stop`, then lets go of the lease and returns.
///
/// # Errors
/// What keeps it from starting: an argument, a file, an address. Once started it does not fail;
/// what is missing is told by `/readyz`.
pub async fn run(arguments: Arguments, stop: impl Future<Output = ()>) -> Result<()> {
    let policy = policy(&arguments)?;
    let sources = sources(&arguments)?;
    let timing = timing(&arguments)?;
    let served = open(&arguments.metrics_bind_address).await?;
    let probes = open(&arguments.health_probe_bind_address).await?;
    let cluster = Cluster::connect(arguments.kubeconfig.as_deref(), None).await;
    let api = cluster.context("find a cluster")?.api;
    let identity = connect::identity();
    for (flag, why) in arguments.without_effect() {
        warn!(flag, why, "flag without effect");
    }
    info!(%identity, version = env!("CARGO_PKG_VERSION"), "start");

    let (stopping, stopped) = watch::channel(false);
    let (elector, leadership) = if arguments.leader_elect {
        let lease = LeaseName {
            namespace: connect::namespace(arguments.leader_election_namespace.as_deref()),
            name: arguments.leader_election_id.clone(),
        };
        let (elector, leadership) = Elector::new(api.clone(), lease, identity.clone(), timing);
        (Some(elector), leadership)
    } else {
        (None, Leadership::alone(identity.clone()))
    };

    let (part_out, parts) = mpsc::channel(PARTS_MAX);
    let mut watches = Vec::new();
    for resource in Resource::ALL {
        let settings = WatchSettings::DEFAULT;
        let (watcher, health) = Watcher::new(api.clone(), resource, settings, part_out.clone());
        tokio::spawn(watcher.run());
        watches.push((resource, health));
    }
    drop(part_out);

    let prometheus = sources.prometheus.as_ref().map(|history| history.prometheus().clone());
    let (reading_out, readings) = mpsc::channel(READINGS_MAX);
    let (telemetry_health, telemetry_seen) = watch::channel(TelemetryHealth::default());
    let (interval, lookback) = (arguments.scrape_interval, arguments.waste_lookback);
    tokio::spawn(telemetry::run(sources, interval, lookback, reading_out, telemetry_health));

    let (view_out, view) = watch::channel(Arc::new(View::default()));
    let metrics = Arc::new(Metrics::new(view.clone()));
    let (write_health, writes_seen) = watch::channel(WriteHealth::default());
    let health = Health::new(watches, telemetry_seen, writes_seen, leadership.clone());
    let health = Arc::new(health);
    let routes = routes::router(view, policy.waste).merge(page::router());
    let routes = routes.merge(http::metrics_routes(Arc::clone(&metrics), Arc::clone(&health)));
    let served = serve(served, routes, &stopped);
    let probes = serve(probes, http::probe_routes(Arc::clone(&health)), &stopped);

    let (effect_out, effects) = mpsc::channel(performer::QUEUE_MAX);
    let (receipt_out, receipts) = mpsc::channel(performer::QUEUE_MAX);
    let rate = WriteRate::new(arguments.write_rate, arguments.write_burst);
    let performer = Performer::new(api, leadership, identity, rate);
    let performer = with_fail_at(performer, &arguments);
    let performing =
        performer::run(performer, effects, receipt_out, Arc::clone(&metrics), write_health);
    let performing = tokio::spawn(performing);
    // The lease is given back when the last write is answered, not before.
    let (written, last_write) = watch::channel(false);
    let electing: Option<JoinHandle<()>> =
        elector.map(|elector| tokio::spawn(elector.run(until(last_write))));

    let (past_out, past) = mpsc::channel(PAST_MAX);
    let history = history(&arguments, past_out.clone())?;
    if let Some(history) = &history {
        health.keep_history(Arc::clone(history));
    }
    let kept = history.clone();
    let mut reading_back = None;
    if let Some(prometheus) = prometheus.filter(|_| !arguments.history_backfill.is_zero()) {
        let (objects_out, objects) = oneshot::channel();
        let (standing, seen) = watch::channel(backfill::Standing::default());
        health.watch_backfill(seen);
        let limits = backfill::Limits::of_controller(arguments.history_backfill);
        let ways = backfill::Ways { objects, kept: kept.clone(), out: past_out, standing };
        tokio::spawn(backfill::run(prometheus, policy.clone(), limits, ways));
        reading_back = Some(objects_out);
    }
    let ticker = Ticker::new(policy, health, metrics, reading_back);
    let inputs = Inputs { parts, readings, receipts, past };
    ticker.run(inputs, Outputs { effects: effect_out, view: view_out, history }, stop).await;

    info!("stop");
    let _ = stopping.send(true);
    if let Some(history) = kept {
        let closing = tokio::task::spawn_blocking(move || history.close());
        if tokio::time::timeout(HISTORY_CLOSES_WITHIN, closing).await.is_err() {
            warn!("the disk of the history does not answer; what was not acknowledged is lost");
        }
    }
    if let Err(error) = performing.await {
        warn!(%error, "the performer did not end");
    }
    let _ = written.send(true);
    if let Some(electing) = electing
        && let Err(error) = electing.await
    {
        warn!(%error, "the elector did not end");
    }
    // The probes answer for as long as anything else does.
    for server in [served, probes].into_iter().flatten() {
        if let Err(error) = server.await {
            warn!(%error, "a server did not end");
        }
    }
    Ok(())
}

fn policy(arguments: &Arguments) -> Result<Policy> {
    let mut policy = Policy::published();
    policy.judge_every = arguments.reconcile_interval;
    policy.waste = Thresholds {
        window: arguments.waste_lookback,
        observed_min: arguments.waste_observed_min,
        pod_age_min: arguments.waste_pod_age_min,
        gap_max: arguments.waste_sample_gap_max,
        ..policy.waste
    };
    if let Some(path) = &arguments.price_sheet {
        let text = fs::read_to_string(path)
            .with_context(|| format!("read price sheet `{}`", path.display()))?;
        let prices = PriceBook::with_sheet(&text)
            .with_context(|| format!("read price sheet `{}`", path.display()))?;
        policy.prices = Arc::new(prices);
    }
    Ok(policy)
}

fn sources(arguments: &Arguments) -> Result<Sources> {
    let client = telemetry_http::client().context("make a client of telemetry")?;
    let prometheus = arguments.prometheus.server()?.map(History::new);
    let mut targets = Vec::new();
    for exporter in &arguments.exporters {
        let url = telemetry_http::address(&exporter.url).context("read `--exporter`")?;
        targets.push(Target { url, node: exporter.node.clone() });
    }
    Ok(Sources { prometheus, targets, client })
}

/// The file of what was learned; what it holds arrives by `past`.
fn history(arguments: &Arguments, past: mpsc::Sender<Delta>) -> Result<Option<Arc<Writer>>> {
    let Some(folder) = &arguments.history_dir else { return Ok(None) };
    let path = gpu_autoscaler_store::file_in(folder);
    let deliver = move |history| {
        // Nobody takes it where the loop has ended.
        let _ = past.blocking_send(Delta { history, ..Delta::default() });
    };
    let writer = gpu_autoscaler_store::open_later(path, Limits::DEFAULT, deliver);
    Ok(Some(Arc::new(writer.context("keep the history")?)))
}

fn timing(arguments: &Arguments) -> Result<Timing> {
    let timing = Timing {
        lease_duration: arguments.leader_election_lease_duration,
        renew_deadline: arguments.leader_election_renew_deadline,
        retry_period: arguments.leader_election_retry_period,
    };
    timing.check().map_err(|why| anyhow!(why)).context("read `--leader-election-*`")
}

async fn open(bind: &Bind) -> Result<Option<TcpListener>> {
    let Some(address) = bind.0 else { return Ok(None) };
    let listener = http::listen(address).await.with_context(|| format!("listen on {address}"))?;
    // A port of 0 is chosen by the system: whoever started us reads it here.
    let address = listener.local_addr().context("read the own address")?;
    info!(%address, "listen");
    Ok(Some(listener))
}

fn serve(
    listener: Option<TcpListener>,
    routes: axum::Router,
    stopped: &watch::Receiver<bool>,
) -> Option<JoinHandle<()>> {
    Some(tokio::spawn(http::serve(listener?, routes, until(stopped.clone()))))
}

async fn until(mut flag: watch::Receiver<bool>) {
    // A sender that is gone will never say so: that is a stop as well.
    let _ = flag.wait_for(|set| *set).await;
}

#[cfg(debug_assertions)]
fn with_fail_at(performer: Performer, arguments: &Arguments) -> Performer {
    use std::sync::OnceLock;

    use gpu_autoscaler_k8s::effects::Step;

    use crate::arguments::FailAt;

    static FAIL_AT: OnceLock<FailAt> = OnceLock::new();
    let Some(fail_at) = arguments.fail_at else { return performer };
    let _ = FAIL_AT.set(fail_at);
    performer.with_steps(|step| {
        let reached = match step {
            Step::BeforeWrite => FailAt::BeforeWrite,
            Step::AfterWrite => FailAt::AfterWrite,
            Step::BeforeReceipt => FailAt::BeforeReceipt,
        };
        if FAIL_AT.get() == Some(&reached) {
            // As a kill would: no destructor, no release of the lease.
            std::process::abort();
        }
    })
}

#[cfg(not(debug_assertions))]
fn with_fail_at(performer: Performer, _: &Arguments) -> Performer {
    performer
}
