//! What readers see of nodes.

use gpu_autoscaler_model::{
    CapacityTotals, CapacityType, Device, Node, NodeView, Rate, Ratio, Timestamp,
};

use crate::state::{DeviceEntry, State};
use crate::view::count;
use crate::{Policy, pricing};

/// Every node with GPUs, by name.
pub(crate) fn nodes(now: Timestamp, state: &State, policy: &Policy) -> Vec<NodeView> {
    state.nodes.values().filter(|n| has_gpus(n)).map(|n| view(now, state, n, policy)).collect()
}

/// Whether a node has GPUs, or had them when its labels were written.
pub(crate) fn has_gpus(node: &Node) -> bool {
    node.gpus.is_some() || node.allocatable.has_gpu()
}

fn view(now: Timestamp, state: &State, node: &Node, policy: &Policy) -> NodeView {
    let devices = || state.devices.get(&node.name).into_iter().flatten();
    let measured = devices().map(|(_, entry)| entry.last.at).max();
    let activity = activity(now, state, node, policy);
    NodeView {
        name: node.name.clone(),
        model: node.gpu_model.clone().or_else(|| devices().find_map(|(_, e)| e.model().cloned())),
        instance_type: node.instance_type.clone(),
        capacity_type: node.capacity_type.or(policy.capacity_type_unlabeled),
        gpus: node.gpus,
        measured,
        exporter_up: measured.is_some_and(|at| now.since(at) <= policy.waste.gap_max),
        activity,
        underutilized: activity.map(|ratio| ratio < policy.node_underutilized_below),
        rate: pricing::node_rate(node, policy),
    }
}

/// Mean over the devices of a node; nothing unless all of its GPUs are measured, because a GPU
/// that is not known may be the busy one.
fn activity(now: Timestamp, state: &State, node: &Node, policy: &Policy) -> Option<Ratio> {
    let devices = state.devices.get(&node.name)?;
    let fresh = |entry: &DeviceEntry| now.since(entry.last.at) <= policy.waste.gap_max;
    let known: Vec<_> = devices.iter().filter(|(_, entry)| fresh(entry)).collect();
    let mut gpus: Vec<_> = known.iter().map(|(device, _)| &device.uuid).collect();
    gpus.dedup();
    if count(gpus.iter()) < node.gpus? {
        return None;
    }
    let mut sum = 0.0;
    for (device, entry) in &known {
        sum += device_activity(state, device, entry)?.as_f64();
    }
    // A node has far fewer devices than a float can count.
    Ratio::new(sum / known.len() as f64)
}

/// What its only holder made of a device within the window; what it was last measured at where no
/// pod or several hold it.
fn device_activity(state: &State, device: &Device, entry: &DeviceEntry) -> Option<Ratio> {
    let mut holders = entry.holders.keys();
    match (holders.next(), holders.next()) {
        (Some(uid), None) if state.pods.get(uid)?.windows.contains_key(device) => {
            Some(state.usages.get(uid)?.as_ref().ok()?.activity_mean)
        }
        _ => Some(entry.last.activity?.ratio),
    }
}

/// Sums by capacity type, those without nodes too.
pub(crate) fn by_capacity_type(nodes: &[NodeView]) -> Vec<CapacityTotals> {
    let all = CapacityType::ALL.map(Some).into_iter().chain([None]);
    let sums = all.map(|capacity_type| {
        let of = || nodes.iter().filter(move |node| node.capacity_type == capacity_type);
        let rates: Vec<_> = of().filter_map(|node| node.rate).collect();
        CapacityTotals { capacity_type, nodes: count(of()), cost: Rate::sum_of_known(rates.iter()) }
    });
    sums.filter(|sum| sum.capacity_type.is_some() || sum.nodes > 0).collect()
}

/// How many are known to be underutilized; `None` when nothing is known of any.
pub(crate) fn underutilized(nodes: &[NodeView]) -> Option<u32> {
    let known = || nodes.iter().filter_map(|node| node.underutilized);
    (count(known()) > 0).then(|| count(known().filter(|under| *under)))
}
