//! What readers see.

use gpu_autoscaler_analysis as analysis;
use gpu_autoscaler_model::{
    DeviceView, GpuShare, NodeView, Pod, PodView, Rate, Refusal, Timestamp, Totals, View,
};

use crate::state::{PodEntry, State};
use crate::{Policy, namespaces, nodes, placement, pricing, waste};

/// Renews the view after a judgement.
pub(crate) fn rebuild(now: Timestamp, state: &mut State, policy: &Policy, refusals: &[Refusal]) {
    let mut findings: Vec<_> = state.findings.values().cloned().collect();
    // Worst first: by saving, then by score, then by name so that ties are the same everywhere.
    findings.sort_by(|a, b| {
        let amount = |f: &gpu_autoscaler_model::Finding| f.recommendation.saving.map(Rate::hourly);
        amount(b)
            .cmp(&amount(a))
            .then_with(|| b.score.total().total_cmp(&a.score.total()))
            .then_with(|| a.pod.cmp(&b.pod))
    });
    let nodes = nodes::nodes(now, state, policy);
    let pods = pods(state, policy);
    let namespaces = namespaces::namespaces(&pods, state.findings.values());
    let totals = totals(now, state, policy, &nodes, &pods);
    state.view = View {
        generation: state.view.generation + 1,
        judged: Some(now),
        devices: devices(now, state, policy).into(),
        pods: pods.into(),
        namespaces: namespaces.into(),
        hardware: state.hardware.clone().into(),
        unknown: state.unknown.clone().into(),
        refusals: refusals.into(),
        waiting: state.view.waiting.clone(),
        totals,
        nodes: nodes.into(),
        findings: findings.into(),
        acting: state.policies.values().any(|p| p.enabled && !p.dry_run && p.faults.is_empty()),
    };
}

fn devices(now: Timestamp, state: &State, policy: &Policy) -> Vec<DeviceView> {
    let all = state.devices.iter().flat_map(|(node, devices)| {
        devices.iter().map(move |(device, entry)| (node, device, entry))
    });
    all.map(|(node, device, entry)| DeviceView {
        node: node.clone(),
        device: device.clone(),
        model: entry.last.model.clone(),
        holders: entry
            .holders
            .keys()
            .filter_map(|uid| Some(state.pods.get(uid)?.pod.key.clone()))
            .collect(),
        activity: nodes::activity_of(entry, now, policy),
        fb: entry.last.fb_used.zip(entry.last.fb_total).and_then(|(used, all)| used.of(all)),
        fb_free: entry.last.fb_free,
        fb_total: entry.last.fb_total,
        hardware: entry.last.hardware,
        at: entry.last.at,
    })
    .collect()
}

fn pods(state: &State, policy: &Policy) -> Vec<PodView> {
    let rate = |pod: &Pod| {
        let node = state.nodes.get(pod.node.as_ref()?)?;
        pricing::part_rate(node, pod, GpuShare::ALL, policy)
    };
    let usage = |entry: &PodEntry| state.usages.get(&entry.pod.uid)?.as_ref().ok();
    let entries = state.gpu_pods.values().filter_map(|uid| state.pods.get(uid));
    entries
        .map(|entry| PodView {
            uid: entry.pod.uid.clone(),
            pod: entry.pod.key.clone(),
            node: entry.pod.node.clone(),
            gpus: waste::requested(&entry.pod),
            devices: entry.windows.keys().cloned().collect(),
            model: entry.pod.node.as_ref().and_then(|n| state.nodes.get(n)?.gpu_model.clone()),
            usage: usage(entry).cloned(),
            rate: rate(&entry.pod),
            score: usage(entry).map(|u| analysis::waste_score(u.activity_mean, u.fb_mean)),
        })
        .collect()
}

fn totals(
    now: Timestamp,
    state: &State,
    policy: &Policy,
    nodes: &[NodeView],
    pods: &[PodView],
) -> Totals {
    let rates: Vec<Option<Rate>> = nodes.iter().map(|node| node.rate).collect();
    let savings: Vec<Option<Rate>> =
        state.findings.values().map(|f| f.recommendation.saving).collect();
    let gpus = sum(nodes.iter().filter_map(|node| node.gpus));
    let requests = state.gpu_pods.values().filter_map(|uid| state.pods.get(uid));
    Totals {
        gpu_nodes: count(nodes.iter()),
        gpus,
        gpus_measured: gpus.saturating_sub(sum(state.unknown.iter().map(|u| u.count))),
        gpus_requested: sum(requests
            .map(|entry| waste::requested(&entry.pod))
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
