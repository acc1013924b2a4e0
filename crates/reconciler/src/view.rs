//! What readers see.

use std::sync::Arc;

use gpu_autoscaler_analysis as analysis;
use gpu_autoscaler_model::{
    Device, DeviceView, Finding, GpuShare, NodeName, NodeView, PodUsage, PodView, Rate, Timestamp,
    Totals, UnknownGpus, View,
};

use crate::state::{DeviceEntry, PodEntry, State};
use crate::waste::Judged;
use crate::{Policy, namespaces, nodes, placement, pricing, waste};

/// Renews the view after a judgement.
pub(crate) fn rebuild(now: Timestamp, state: &mut State, policy: &Policy, judged: Judged) {
    let Judged { mut findings, usages, hardware, unknown, refusals } = judged;
    // Worst first: by saving, then by score, then by name so that ties are the same everywhere.
    findings.sort_by(|a, b| {
        let amount = |f: &Finding| f.recommendation.saving.map(Rate::hourly);
        amount(b)
            .cmp(&amount(a))
            .then_with(|| b.score.total().total_cmp(&a.score.total()))
            .then_with(|| a.pod.cmp(&b.pod))
    });
    let pods = pods(state, policy, usages);
    let nodes = nodes::nodes(now, state, policy, &pods);
    let namespaces = namespaces::namespaces(&pods, &findings);
    let totals = totals(
        now,
        state,
        policy,
        Seen { nodes: &nodes, pods: &pods, findings: &findings, unknown: &unknown },
    );
    // A list is as long as memory is: far below 2^32.
    state.findings = findings.iter().map(|f| f.pod_uid.clone()).zip(0..).collect();
    state.view = View {
        generation: state.view.generation + 1,
        judged: Some(now),
        devices: devices(now, state, policy),
        pods,
        namespaces: namespaces.into(),
        hardware: hardware.into(),
        unknown: unknown.into(),
        refusals: refusals.into(),
        waiting: state.view.waiting.clone(),
        totals,
        nodes: nodes.into(),
        findings: findings.into(),
        acting: state.policies.values().any(|p| p.enabled && !p.dry_run && p.faults.is_empty()),
    };
}

// Both lists are as long as the fleet is large. What they are made of is listed first, so that their
// length is known and each is written once, in its place.

fn devices(now: Timestamp, state: &State, policy: &Policy) -> Arc<[DeviceView]> {
    let all: Vec<(&NodeName, &Device, &DeviceEntry)> = state
        .devices
        .iter()
        .flat_map(|(node, devices)| {
            devices.iter().map(move |(device, entry)| (node, device, entry))
        })
        .collect();
    let view = |(node, device, entry): (&NodeName, &Device, &DeviceEntry)| DeviceView {
        node: node.clone(),
        device: device.clone(),
        model: entry.last.model.clone(),
        holders: entry
            .holders
            .keys()
            .filter_map(|uid| state.pods.get(uid))
            .map(|holder| holder.pod.key.clone())
            .collect(),
        activity: nodes::activity_of(entry, now, policy),
        fb: entry.last.fb_used.zip(entry.last.fb_total).and_then(|(used, all)| used.of(all)),
        fb_free: entry.last.fb_free,
        fb_total: entry.last.fb_total,
        hardware: entry.last.hardware,
        at: entry.last.at,
    };
    all.into_iter().map(view).collect()
}

fn pods(state: &State, policy: &Policy, usages: Vec<Option<PodUsage>>) -> Arc<[PodView]> {
    let entries: Vec<&PodEntry> = state.active_gpu_pods().collect();
    let view = |(entry, usage): (&PodEntry, Option<PodUsage>)| {
        let pod = &entry.pod;
        let node = pod.node.as_ref().and_then(|node| state.nodes.get(node));
        PodView {
            uid: pod.uid.clone(),
            pod: pod.key.clone(),
            node: pod.node.clone(),
            gpus: waste::requested(pod),
            devices: entry.windows.keys().cloned().collect(),
            model: node.and_then(|node| node.gpu_model.clone()),
            rate: node.and_then(|node| pricing::part_rate(node, pod, GpuShare::ALL, policy)),
            score: usage.as_ref().map(|u| analysis::waste_score(u.activity_mean, u.fb_mean)),
            usage,
        }
    };
    entries.into_iter().zip(usages).map(view).collect()
}

/// What totals are over.
struct Seen<'s> {
    nodes: &'s [NodeView],
    pods: &'s [PodView],
    findings: &'s [Finding],
    unknown: &'s [UnknownGpus],
}

fn totals(now: Timestamp, state: &State, policy: &Policy, seen: Seen<'_>) -> Totals {
    let Seen { nodes, pods, findings, unknown } = seen;
    let rates: Vec<Option<Rate>> = nodes.iter().map(|node| node.rate).collect();
    let savings: Vec<Option<Rate>> = findings.iter().map(|f| f.recommendation.saving).collect();
    let gpus = sum(nodes.iter().filter_map(|node| node.gpus));
    Totals {
        gpu_nodes: count(nodes.iter()),
        gpus,
        gpus_measured: gpus.saturating_sub(sum(unknown.iter().map(|u| u.count))),
        gpus_requested: sum(pods
            .iter()
            .map(|pod| pod.gpus)
            .chain(placement::claimed(state).into_values())),
        cost: Rate::sum_of_known(rates.iter().flatten()),
        nodes_unpriced: count(rates.iter().filter(|rate| rate.is_none())),
        activity: namespaces::activity(pods.iter()),
        utilization: nodes::utilization(now, state, policy),
        fb: namespaces::fb(pods.iter()),
        not_held: not_held(&rates, pods),
        by_capacity_type: nodes::by_capacity_type(nodes),
        nodes_underutilized: nodes::underutilized(nodes),
        saving: Rate::sum_of_known(savings.iter().flatten()),
        findings_unpriced: count(savings.iter().filter(|rate| rate.is_none())),
    }
}

/// What is paid for and held by nobody; `None` unless all of it has a price.
fn not_held(nodes: &[Option<Rate>], pods: &[PodView]) -> Option<Rate> {
    let nodes: Vec<Rate> = nodes.iter().copied().collect::<Option<_>>()?;
    let bound = pods.iter().filter(|pod| pod.node.is_some());
    let pods: Vec<Rate> = bound.map(|pod| pod.rate).collect::<Option<_>>()?;
    let paid = Rate::sum_of_known(nodes.iter())?;
    let rest = match Rate::sum_of_known(pods.iter()) {
        Some(held) => paid.checked_sub(held)?,
        None if pods.is_empty() => paid,
        None => return None,
    };
    // Less than nothing: a node tells of fewer GPUs than its pods hold.
    (rest.hourly().as_nanos() >= 0).then_some(rest)
}

fn sum(counts: impl Iterator<Item = u32>) -> u32 {
    counts.fold(0, u32::saturating_add)
}

pub(crate) fn count<T>(of: impl Iterator<Item = T>) -> u32 {
    u32::try_from(of.count()).unwrap_or(u32::MAX)
}
