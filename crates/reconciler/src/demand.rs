//! What each pool of nodes is asked for, by the hour.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use gpu_autoscaler_model::{
    Delta, DemandHour, Device, GpuMillis, GpuSample, HistoryRecord, Node, NodeName, ObjectKey,
    Timestamp,
};

use crate::history::History;
use crate::state::State;
use crate::{Policy, nodes, placement, waste};

/// GPUs, slices or replicas that are requested, by pool.
pub(crate) type Requested = BTreeMap<Arc<str>, u32>;

/// The longest time between two looks in which demand is taken to have been what it is at its end;
/// of a longer one, nobody knows.
const GAP_MAX: Duration = Duration::from_secs(300);

/// Labels that name a node's pool, ours first.
///
/// Source: the label references of Karpenter, EKS, GKE and AKS.
const POOL_LABELS: [&str; 6] = [
    "gpu-autoscaler.io/node-pool",
    "gpu-autoscaler.io/pool",
    "karpenter.sh/nodepool",
    "eks.amazonaws.com/nodegroup",
    "cloud.google.com/gke-nodepool",
    "kubernetes.azure.com/agentpool",
];

pub(crate) fn pool_of(node: &Node) -> Arc<str> {
    let labeled = POOL_LABELS.iter().find_map(|key| node.labels.get(key));
    labeled.or_else(|| node.instance_type.as_ref().map(|t| t.as_str())).unwrap_or_default().into()
}

/// What is asked for now.
pub(crate) fn requested_now(state: &State, history: &History) -> Requested {
    // By node first: there are fewer of them than of pods, and a pool's name is looked for in six
    // labels.
    let mut by_node: BTreeMap<Option<&NodeName>, u32> = placement::claimed(state);
    for uid in state.gpu_pods.values() {
        let Some(entry) = state.pods.get(uid) else { continue };
        let sum = by_node.entry(entry.pod.node.as_ref()).or_default();
        *sum = sum.saturating_add(waste::requested(&entry.pod));
    }
    let mut requested = Requested::new();
    for (node, gpus) in by_node {
        let node = node.and_then(|node| state.nodes.get(node));
        add(&mut requested, node.map(pool_of).unwrap_or_default(), gpus);
    }
    // A pool that is asked for nothing any more is asked for zero, which is known.
    for pool in history.demand.keys() {
        requested.entry(pool.clone()).or_insert(0);
    }
    requested
}

/// What was asked for at the end of the stretch that `seen` holds the samples of: what pods that
/// still exist request, and of others each device that an exporter gave to them.
///
/// Pods that waited then are not known, nor what was asked of a pool of which a node was not
/// measured; where something was measured on a node that is gone, no pool is known.
pub(crate) fn requested_then(
    until: Timestamp,
    state: &State,
    seen: &Delta,
    policy: &Policy,
) -> Requested {
    let measured: BTreeSet<&NodeName> = seen.samples.iter().map(|sample| &sample.node).collect();
    if measured.iter().any(|name| !state.nodes.contains_key(*name)) {
        return Requested::new();
    }
    let mut requested = Requested::new();
    let mut dark = BTreeSet::new();
    for node in state.nodes.values().filter(|node| nodes::has_gpus(node) && node.created < until) {
        if measured.contains(&node.name) {
            requested.entry(pool_of(node)).or_insert(0);
        } else {
            dark.insert(pool_of(node));
        }
    }
    for uid in state.gpu_pods.values() {
        let Some(entry) = state.pods.get(uid) else { continue };
        let ran = entry.pod.started.is_some_and(|started| started < until);
        if let Some(node) = entry.pod.node.as_ref().and_then(|node| state.nodes.get(node))
            && ran
        {
            add(&mut requested, pool_of(node), waste::requested(&entry.pod));
        }
    }
    let late = until.before(policy.waste.gap_max);
    let gone: BTreeSet<(&NodeName, &Device, &ObjectKey)> = seen
        .samples
        .iter()
        .filter(|sample| sample.at >= late && !is_of_known_pod(state, sample))
        .filter_map(|sample| Some((&sample.node, &sample.device, &sample.holder.as_ref()?.pod)))
        .collect();
    for (node, ..) in gone {
        add(&mut requested, state.nodes.get(node).map(pool_of).unwrap_or_default(), 1);
    }
    requested.retain(|pool, _| !dark.contains(pool));
    requested
}

fn is_of_known_pod(state: &State, sample: &GpuSample) -> bool {
    let pod = sample.holder.as_ref().and_then(|named| state.gpu_pods.get(&named.pod));
    let pod = pod.and_then(|uid| state.pods.get(uid)).map(|entry| &entry.pod);
    // An earlier pod of the same name is gone.
    pod.is_some_and(|pod| sample.at >= pod.started.unwrap_or(pod.created))
}

fn add(requested: &mut Requested, pool: Arc<str>, gpus: u32) {
    let sum = requested.entry(pool).or_default();
    *sum = sum.saturating_add(gpus);
}

/// Adds what was `requested` until `now` to the hour that runs, of every pool; returns the records
/// that changed. A pool that was not looked at before was at `before`, if anything was.
pub(crate) fn account(
    now: Timestamp,
    requested: &Requested,
    before: Option<Timestamp>,
    history: &mut History,
) -> Vec<HistoryRecord> {
    let mut changed = Vec::with_capacity(requested.len());
    for (pool, &gpus) in requested {
        let known = history.demand.get(pool);
        let since = known.map(|known| known.through).or(before).filter(|since| *since < now);
        // A look at the end of an hour is about what came before it.
        let within = since.map_or(now, |_| now.before(Duration::from_millis(1)));
        let hour = within.hour();
        let since = since.map(|since| since.max(now.before(GAP_MAX)).max(hour));
        // At most five minutes each time.
        let millis = since.map_or(0, |since| now.since(since).as_millis());
        let current = known.filter(|known| known.hour == hour);
        let mut demand = current.cloned().unwrap_or_else(|| DemandHour {
            pool: pool.clone(),
            hour,
            requested: GpuMillis::new(0),
            requested_max: 0,
            observed_millis: 0,
            through: hour,
        });
        demand.requested += GpuMillis::new(millis * u128::from(gpus));
        demand.requested_max = demand.requested_max.max(gpus);
        demand.observed_millis += u64::try_from(millis).unwrap_or(0);
        demand.through = now;
        changed.push(HistoryRecord::Demand(demand.clone()));
        history.demand.insert(pool.clone(), demand);
    }
    changed
}
