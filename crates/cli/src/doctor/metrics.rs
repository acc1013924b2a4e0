//! Checks of what the exporters say.

use std::collections::BTreeMap;
use std::time::Duration;

use gpu_autoscaler_controller::backfill::{Limits, ReadBack};
use gpu_autoscaler_k8s::snapshot::Snapshot;
use gpu_autoscaler_model::{Change, Delta, GpuSample, ObjectKey, Scrape, Timestamp};
use gpu_autoscaler_reconciler::Policy;

use super::Check;
use super::cluster::{gpu_nodes, named};
use crate::gather;
use crate::source::{SourceArgs, wall_clock};

/// What to configure, for whoever runs the exporters.
const LABELS: &str = "docs/installation.md, \"With a Prometheus of your own\": `honor_labels: \
                      true` and a label `node`; and give the exporter \
                      DCGM_EXPORTER_KUBERNETES=true";

/// Checks the metrics, and what they say of the nodes and pods that were listed.
pub(super) async fn checks(
    args: &SourceArgs,
    policy: &Policy,
    found: Option<Snapshot>,
) -> Vec<Check> {
    let Ok(now) = wall_clock() else {
        return vec![Check::skipped("metrics", "this machine's clock is before 1970")];
    };
    let (samples, scrapes) = match gather::samples(args, now, policy).await {
        Ok(read) => read,
        Err(error) => {
            let evidence = format!("{error:#}");
            return vec![Check::failed("metrics", evidence, "correct the address")];
        }
    };
    let mut checks = vec![reached(args, &scrapes)];
    if samples.is_empty() {
        const REST: [&str; 5] =
            ["counters", "nodes measured", "pods named", "sample clocks", "age"];
        checks.extend(REST.map(|check| Check::skipped(check, "there are no samples")));
        return checks;
    }
    checks.push(counters(&samples));
    if let Some(found) = &found {
        checks.push(nodes_measured(&samples, found));
        checks.push(pods_named(&samples, found));
    }
    if let Some(url) = args.prometheus() {
        checks.push(past(&url, policy).await);
    }
    checks.push(ahead(&samples, now, policy));
    checks.push(age(&samples, now, policy));
    checks
}

fn reached(args: &SourceArgs, scrapes: &[Scrape]) -> Check {
    let failed: Vec<&Scrape> = scrapes.iter().filter(|scrape| scrape.result.is_err()).collect();
    let next = "from outside of the cluster: kubectl -n gpu-autoscaler-system port-forward \
                svc/gpu-autoscaler-prometheus 9090, then --prometheus-url http://127.0.0.1:9090";
    if let Some(Scrape { result: Err(failure), .. }) = failed.first() {
        let evidence =
            format!("{} of {} sources fail: {}", failed.len(), scrapes.len(), failure.why);
        // The reason is text: whoever failed to read names the status that it was answered.
        let gated = ["answers 401", "answers 403"].iter().any(|code| failure.why.contains(code));
        let next = if gated {
            "it wants proof of who asks, which only the controller can give \
             (docs/configuration.md, \"Prometheus behind a gate\"): forward a port past the gate, \
             or ask a controller with --server"
        } else {
            next
        };
        return Check::failed("metrics", evidence, next);
    }
    let samples: u32 = scrapes
        .iter()
        .filter_map(|scrape| scrape.result.as_ref().ok())
        .map(|counts| counts.samples)
        .fold(0, u32::saturating_add);
    let from = named(scrapes.iter().map(|scrape| &*scrape.target)).unwrap_or_default();
    if samples == 0 {
        let asked = args.prometheus().is_some();
        let next = if asked {
            "does it scrape the DCGM exporters? ask it for `DCGM_FI_DEV_GPU_UTIL`"
        } else {
            next
        };
        return Check::failed("metrics", format!("{from}: no series of a DCGM exporter"), next);
    }
    Check::ok("metrics", format!("{samples} samples of {from}"))
}

/// How far back a controller that starts now would know what was used.
async fn past(url: &str, policy: &Policy) -> Check {
    const REACH: Duration = Duration::from_secs(7 * 86_400);
    let extent = async {
        let limits = Limits::of_controller(REACH);
        let server = gather::server(url)?;
        let mut back = ReadBack::new(server, &Delta::default(), policy.clone(), limits);
        anyhow::Ok(back.extent().await?)
    };
    match extent.await {
        Ok(extent) if extent.held.is_none() => Check::warning(
            "past",
            format!("a controller that starts now knows the past {extent}"),
            "recommendations rest on the last 10 minutes until there is more",
        ),
        Ok(extent) => Check::ok("past", format!("a controller that starts now knows it {extent}")),
        Err(error) => {
            Check::warning("past", format!("{error:#}"), "ask again when Prometheus answers")
        }
    }
}

fn counters(samples: &[GpuSample]) -> Check {
    let mut counters: BTreeMap<String, u32> = BTreeMap::new();
    let mut without = 0_u32;
    for sample in samples {
        match sample.activity {
            Some(activity) => *counters.entry(activity.source.to_string()).or_insert(0) += 1,
            None => without += 1,
        }
    }
    let by: Vec<String> =
        counters.iter().map(|(counter, count)| format!("{counter} in {count}")).collect();
    let memory = samples.iter().filter(|sample| sample.fb_used.is_none()).count();
    let evidence = format!(
        "{}; none in {without}; no framebuffer in {memory} of {}",
        by.join(", "),
        samples.len()
    );
    if counters.is_empty() {
        let next =
            "enable DCGM_FI_PROF_SM_ACTIVE or DCGM_FI_DEV_GPU_UTIL in the exporter's counters";
        Check::failed("counters", evidence, next)
    } else if without > 0 || memory > 0 {
        let next = "what has no counter stays unknown; under MIG only the profiling counters exist";
        Check::warning("counters", evidence, next)
    } else if counters.contains_key("GPU_UTIL") {
        let next = "GPU_UTIL counts any kernel, however small, as full use: enable \
                    DCGM_FI_PROF_SM_ACTIVE for numbers that can be compared";
        Check::warning("counters", evidence, next)
    } else {
        Check::ok("counters", evidence)
    }
}

fn nodes_measured(samples: &[GpuSample], found: &Snapshot) -> Check {
    let nodes = gpu_nodes(found);
    let silent: Vec<&str> = nodes
        .iter()
        .filter(|node| !samples.iter().any(|sample| sample.node == node.name))
        .map(|node| node.name.as_str())
        .collect();
    let mut foreign: Vec<&str> = samples
        .iter()
        .filter(|sample| !nodes.iter().any(|node| node.name == sample.node))
        .map(|sample| sample.node.as_str())
        .collect();
    foreign.sort_unstable();
    foreign.dedup();
    let evidence = format!("{} of {} GPU nodes", nodes.len() - silent.len(), nodes.len());
    match (named(silent.into_iter()), named(foreign.into_iter())) {
        (None, None) => Check::ok("nodes measured", evidence),
        (None, Some(foreign)) => Check::warning(
            "nodes measured",
            format!("{evidence}; samples name hosts that are no node: {foreign}"),
            format!("they are used only where a pod tells the node. {LABELS}"),
        ),
        (Some(silent), None) => Check::failed(
            "nodes measured",
            format!("{evidence}; silent: {silent}"),
            "does an exporter run there? kubectl get pods -A -o wide | grep dcgm",
        ),
        (Some(silent), Some(foreign)) => Check::failed(
            "nodes measured",
            format!("{evidence}; silent: {silent}; samples name hosts that are no node: {foreign}"),
            LABELS,
        ),
    }
}

fn pods_named(samples: &[GpuSample], found: &Snapshot) -> Check {
    let pods: std::collections::BTreeSet<&ObjectKey> = found
        .delta
        .pods
        .iter()
        .filter_map(|change| match change {
            Change::Upsert(pod) if pod.requests.has_gpu() && pod.node.is_some() => Some(&pod.key),
            _ => None,
        })
        .collect();
    let seen: std::collections::BTreeSet<&ObjectKey> =
        samples.iter().filter_map(|sample| sample.holder.as_ref()).map(|h| &h.pod).collect();
    let missing: Vec<String> = pods.difference(&seen).map(|pod| pod.to_string()).collect();
    let evidence = format!("{} of {} GPU pods", pods.len() - missing.len(), pods.len());
    match named(missing.iter().map(String::as_str)) {
        None => Check::ok("pods named", evidence),
        Some(_) if seen.is_empty() => {
            Check::failed("pods named", format!("{evidence}: no sample names any pod"), LABELS)
        }
        Some(missing) => Check::warning(
            "pods named",
            format!("{evidence}; no sample names {missing}"),
            "young pods come with the next scrape; pods on shared GPUs need an exporter with \
             --kubernetes-virtual-gpus",
        ),
    }
}

fn ahead(samples: &[GpuSample], now: Timestamp, policy: &Policy) -> Check {
    let most = samples.iter().map(|sample| sample.at.since(now)).max().unwrap_or_default();
    if most <= policy.clock_ahead_max {
        return Check::ok(
            "sample clocks",
            format!("no sample is more than {} s ahead", most.as_secs()),
        );
    }
    let late = samples.iter().filter(|s| s.at.since(now) > policy.clock_ahead_max);
    let mut hosts: Vec<&str> = late.map(|sample| sample.node.as_str()).collect();
    hosts.sort_unstable();
    hosts.dedup();
    let evidence = format!(
        "samples are up to {} s ahead of this machine, at most {} s are used: {}",
        most.as_secs(),
        policy.clock_ahead_max.as_secs(),
        named(hosts.into_iter()).unwrap_or_default()
    );
    Check::failed("sample clocks", evidence, "set the clocks (NTP) of Prometheus and this machine")
}

fn age(samples: &[GpuSample], now: Timestamp, policy: &Policy) -> Check {
    let mut last: BTreeMap<&str, Timestamp> = BTreeMap::new();
    for sample in samples {
        let at = last.entry(sample.node.as_str()).or_insert(sample.at);
        *at = sample.at.max(*at);
    }
    let stale = last.iter().filter(|(_, at)| now.since(**at) > policy.waste.gap_max);
    let limit = policy.waste.gap_max.as_secs();
    match named(stale.map(|(node, _)| *node)) {
        None => Check::ok("age", format!("every host was measured within the last {limit} s")),
        Some(stale) => Check::warning(
            "age",
            format!("no sample within the last {limit} s of {stale}"),
            "its GPUs count as unknown: see the exporter's pod there",
        ),
    }
}
