//! What readers see of nodes.

use gpu_autoscaler_model::{
    Activity, CapacityTotals, CapacityType, Device, MigGeometry, Node, NodeView, PodView, Rate,
    Ratio, Timestamp,
};

use crate::state::{DeviceEntry, State};
use crate::view::count;
use crate::{Policy, pricing, reports};

/// Every node with GPUs, by name; `pods` are what readers see of the active GPU pods.
pub(crate) fn nodes(
    now: Timestamp,
    state: &State,
    policy: &Policy,
    pods: &[PodView],
) -> Vec<NodeView> {
    let with_gpus = state.nodes.values().filter(|node| has_gpus(node));
    with_gpus.map(|node| view(now, state, node, policy, pods)).collect()
}

/// Whether a node has GPUs, or had them when its labels were written.
pub(crate) fn has_gpus(node: &Node) -> bool {
    node.gpus.is_some() || node.allocatable.has_gpu()
}

fn view(now: Timestamp, state: &State, node: &Node, policy: &Policy, pods: &[PodView]) -> NodeView {
    let devices = || state.devices.get(&node.name).into_iter().flatten();
    let measured = devices().map(|(_, entry)| entry.last.at).max();
    let activity = activity(now, state, node, policy, pods);
    NodeView {
        name: node.name.clone(),
        model: node.gpu_model.clone().or_else(|| devices().find_map(|(_, e)| e.last.model.clone())),
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
fn activity(
    now: Timestamp,
    state: &State,
    node: &Node,
    policy: &Policy,
    pods: &[PodView],
) -> Option<Ratio> {
    let devices = state.devices.get(&node.name)?;
    let fresh = |entry: &DeviceEntry| now.since(entry.last.at) <= policy.waste.gap_max;
    let known: Vec<_> = devices.iter().filter(|(_, entry)| fresh(entry)).collect();
    let mut gpus: Vec<_> = known.iter().map(|(device, _)| &device.uuid).collect();
    gpus.dedup();
    if count(gpus.iter()) < node.gpus? {
        return None;
    }
    let (mut sum, mut weights) = (0.0, 0.0);
    for (device, entry) in &known {
        if !reports::disagreement(entry, now, policy).is_empty() {
            return None;
        }
        let weight = weight(node, device, entry)?;
        sum += weight * device_activity(state, device, entry, pods)?.as_f64();
        weights += weight;
    }
    mean(sum, weights)
}

/// Mean of what all measured devices were last measured at.
pub(crate) fn utilization(now: Timestamp, state: &State, policy: &Policy) -> Option<Ratio> {
    let (mut sum, mut weights) = (0.0, 0.0);
    for (name, devices) in &state.devices {
        let Some(node) = state.nodes.get(name) else { continue };
        for (device, entry) in devices {
            let Some(activity) = activity_of(entry, now, policy) else { continue };
            let Some(weight) = weight(node, device, entry) else { continue };
            sum += weight * activity.ratio.as_f64();
            weights += weight;
        }
    }
    mean(sum, weights)
}

/// What a device was last measured at; `None` where exporters contradict each other.
pub(crate) fn activity_of(
    entry: &DeviceEntry,
    now: Timestamp,
    policy: &Policy,
) -> Option<Activity> {
    entry.last.activity.filter(|_| reports::disagreement(entry, now, policy).is_empty())
}

/// The part of its GPU that a device is; `None` for an instance of a profile that no table has.
fn weight(node: &Node, device: &Device, entry: &DeviceEntry) -> Option<f64> {
    let Some(instance) = &device.instance else { return Some(1.0) };
    let model = entry.last.model.as_ref().or(node.gpu_model.as_ref())?;
    let geometry = MigGeometry::for_product(model.as_str())?;
    let at = geometry.profile_named(&instance.profile.to_string())?;
    let share = geometry.share_of(&geometry.profiles[at]);
    Some(f64::from(share.part()) / f64::from(share.of()))
}

/// A mean of shares is a share, save for what rounding adds to ones.
fn mean(sum: f64, weights: f64) -> Option<Ratio> {
    if weights > 0.0 { Ratio::new((sum / weights).min(1.0)) } else { None }
}

/// What its only holder made of a device within the window; what it was last measured at where no
/// pod or several hold it.
fn device_activity(
    state: &State,
    device: &Device,
    entry: &DeviceEntry,
    pods: &[PodView],
) -> Option<Ratio> {
    let mut holders = entry.holders.keys();
    if let (Some(uid), None) = (holders.next(), holders.next()) {
        let holder = state.pods.get(uid)?;
        if holder.windows.contains_key(device) {
            let at = pods.binary_search_by(|view| view.pod.cmp(&holder.pod.key)).ok()?;
            // Another pod may have its name by now.
            let view = pods.get(at).filter(|view| view.uid == *uid)?;
            return Some(view.usage.as_ref()?.activity_mean);
        }
    }
    Some(entry.last.activity?.ratio)
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
