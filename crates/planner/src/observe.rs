//! From what is seen of a cluster to what packing decides on.
//!
//! Every node here is one on which a kubelet with a device plugin picks the GPU, since that is
//! what nodes and pods alone tell: whole GPUs are told apart only by their number, and replicas
//! and MIG instances that exist are counted by the name of their resource. Nodes whose GPUs the
//! plan picks are built by those who know the devices (a ResourceSlice, a node agent).

use std::collections::BTreeMap;
use std::sync::Arc;

use gpu_autoscaler_model::{self as model, Constraints, GpuResource, Taint, TaintEffect};

use crate::fleet::{
    Amounts, Fleet, GPUS_PER_NODE_MAX, Gpu, GpuPicker, Identity, Isolation, Node, Sharing, Tenant,
};
use crate::request::{GpuRequest, Pod, PodKind, Request};

/// The taint that stands for `spec.unschedulable`, which a pod may tolerate.
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// A pod, and what it demands; `None` where that was not read, and then it is not placed.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The pod.
    pub pod: &'a model::Pod,
    /// Its constraints.
    pub constraints: Option<&'a Constraints>,
}

/// The fleet of `nodes` with what `bound` pods leave of it, in the order of `nodes`.
///
/// Pods on other nodes, and those that have ended, are left out. A node that has less than its
/// pods hold, as after a failed GPU, has nothing free of it.
pub fn fleet(nodes: &[model::Node], bound: &[Seen<'_>]) -> Fleet {
    let mut fleet = Fleet { nodes: nodes.iter().map(node).collect() };
    let by_name: BTreeMap<&str, usize> =
        nodes.iter().enumerate().map(|(index, node)| (node.name.as_str(), index)).collect();
    for seen in bound.iter().filter(|seen| seen.pod.is_active()) {
        let at = seen.pod.node.as_ref().and_then(|name| by_name.get(name.as_str()));
        if let Some(&at) = at {
            let kind = kind(*seen);
            occupy(&mut fleet.nodes[at], &kind);
        }
    }
    fleet
}

/// A pod that waits.
pub fn pod(seen: Seen<'_>) -> Pod {
    Pod {
        name: seen.pod.key.to_string().into(),
        priority: seen.pod.priority,
        kind: kind(seen),
        gang: None,
    }
}

fn owned(labels: &model::Labels) -> BTreeMap<Arc<str>, Arc<str>> {
    labels.iter().map(|(key, value)| (key.into(), value.into())).collect()
}

fn node(node: &model::Node) -> Node {
    let allocatable = Amounts {
        cpu_milli: node.allocatable.cpu.as_u64(),
        memory_bytes: node.allocatable.memory.as_u64(),
        // As in kube-scheduler, a node that names no limit takes no pod.
        pods: node.pods_max.unwrap_or(0),
    };
    let mut taints = node.taints.clone();
    if node.unschedulable {
        taints.push(Taint {
            key: UNSCHEDULABLE.into(),
            value: "".into(),
            effect: TaintEffect::NoSchedule,
        });
    }
    let (whole, extended) = split(&node.allocatable);
    // Replicas under the name of whole GPUs are not whole GPUs: nothing is planned on them.
    let whole = if node.sharing.is_some() { 0 } else { whole as usize };
    Node {
        name: node.name.as_str().into(),
        schedulable: node.ready,
        labels: owned(&node.labels),
        taints,
        gpu_model: node.gpu_model.as_ref().map_or("", |model| model.as_str()).into(),
        allocatable,
        free: allocatable,
        // The framebuffer is of no use where the kubelet picks.
        gpus: vec![Gpu::new(Sharing::Exclusive, 0); whole.min(GPUS_PER_NODE_MAX)],
        picker: GpuPicker::Kubelet,
        extended_free: extended.into_iter().collect(),
        tenants: Vec::new(),
    }
}

/// Whole GPUs, and everything else that is counted by name.
fn split(resources: &model::Resources) -> (u32, Vec<(Arc<str>, u64)>) {
    let mut extended: Vec<(Arc<str>, u64)> = resources.extended.clone();
    let mut whole = 0;
    for gpu in &resources.gpus {
        match gpu.resource {
            GpuResource::Whole => whole += gpu.count,
            _ => extended.push((gpu.resource.to_string().into(), gpu.count.into())),
        }
    }
    extended.sort();
    (whole, extended)
}

fn kind(seen: Seen<'_>) -> PodKind {
    let (whole, extended) = split(&seen.pod.requests);
    let unread = || Constraints { uncovered: vec!["spec".into()], ..Constraints::default() };
    PodKind {
        request: Request {
            cpu_milli: seen.pod.requests.cpu.as_u64(),
            memory_bytes: seen.pod.requests.memory.as_u64(),
            gpu: match u16::try_from(whole) {
                Ok(0) => GpuRequest::None,
                // More than any node has; the request is refused as too large.
                count => GpuRequest::Whole { count: count.unwrap_or(u16::MAX) },
            },
            models: Vec::new(),
            isolation: Isolation::None,
            extended,
        },
        constraints: seen.constraints.cloned().unwrap_or_else(unread),
        identity: Arc::new(Identity {
            namespace: seen.pod.key.namespace.clone(),
            labels: owned(&seen.pod.labels),
        }),
    }
}

/// Takes what a bound pod holds, and no more than there is.
fn occupy(node: &mut Node, kind: &PodKind) {
    let request = &kind.request;
    node.free.cpu_milli = node.free.cpu_milli.saturating_sub(request.cpu_milli);
    node.free.memory_bytes = node.free.memory_bytes.saturating_sub(request.memory_bytes);
    node.free.pods = node.free.pods.saturating_sub(1);
    for (name, count) in &request.extended {
        if let Some(free) = node.extended_free.get_mut(name) {
            *free = free.saturating_sub(*count);
        }
    }
    if let GpuRequest::Whole { count } = request.gpu {
        let free = node.gpus.iter_mut().filter(|gpu| gpu.is_free());
        free.take(count.into()).for_each(|gpu| gpu.compute_free_milli = 0);
    }
    node.tenants.push(Tenant::of(&kind.identity, &kind.constraints));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demand::Demand;
    use crate::place::place;
    use crate::strategy::Strategy;
    use model::{
        Bytes, GpuCount, Labels, MilliCpu, NodeName, NodeSharing, ObjectKey, PodPhase,
        ResourceVersion, Resources, SharingStrategy, Timestamp, Uid,
    };

    fn resources(gpus: Vec<(GpuResource, u32)>) -> Resources {
        Resources {
            cpu: MilliCpu::new(8_000),
            memory: Bytes::new(1 << 34),
            gpus: gpus.into_iter().map(|(resource, count)| GpuCount { resource, count }).collect(),
            extended: Vec::new(),
        }
    }

    fn node(name: &str, gpus: Vec<(GpuResource, u32)>) -> model::Node {
        model::Node {
            name: NodeName::new(name),
            uid: Uid::new(name),
            created: Timestamp::EPOCH,
            labels: Labels::default(),
            taints: Vec::new(),
            ready: true,
            unschedulable: false,
            allocatable: Resources { cpu: MilliCpu::new(64_000), ..resources(gpus) },
            pods_max: Some(110),
            instance_type: None,
            region: None,
            zone: None,
            capacity_type: None,
            gpu_model: None,
            gpus: None,
            sharing: None,
        }
    }

    fn pod_on(name: &str, node: Option<&str>, gpus: Vec<(GpuResource, u32)>) -> model::Pod {
        model::Pod {
            uid: Uid::new(name),
            key: ObjectKey::new("default", name),
            resource_version: ResourceVersion::new("1"),
            created: Timestamp::EPOCH,
            started: None,
            node: node.map(NodeName::new),
            phase: PodPhase::Running,
            deleting: false,
            deletion_due: None,
            containers: model::ContainerState::default(),
            requests: Resources {
                cpu: MilliCpu::new(100),
                memory: Bytes::new(1),
                ..resources(gpus)
            },
            labels: Labels::default(),
            annotations: Labels::default(),
            owner: None,
            priority: 0,
            gates: Vec::new(),
            constraints: Default::default(),
            unschedulable: None,
        }
    }

    fn places(nodes: &[model::Node], bound: &[model::Pod], waiting: &model::Pod) -> bool {
        let constraints = Constraints::default();
        let seen = |pod| Seen { pod, constraints: Some(&constraints) };
        let bound: Vec<Seen<'_>> = bound.iter().map(seen).collect();
        let fleet = fleet(nodes, &bound);
        place(&[pod(seen(waiting))], &fleet, &Demand::default(), Strategy::Default)[0].is_ok()
    }

    #[test]
    fn bound_pods_hold_what_they_requested_until_they_end() {
        let nodes = [node("a", vec![(GpuResource::Whole, 2)])];
        let waiting = pod_on("w", None, vec![(GpuResource::Whole, 2)]);
        let mut bound = pod_on("b", Some("a"), vec![(GpuResource::Whole, 1)]);
        assert!(places(&nodes, &[], &waiting));
        assert!(!places(&nodes, std::slice::from_ref(&bound), &waiting));
        bound.phase = PodPhase::Succeeded;
        assert!(places(&nodes, &[bound], &waiting));
    }

    #[test]
    fn instances_that_exist_are_counted_by_name() {
        let profile = || GpuResource::Mig("1g.5gb".parse().expect("a profile"));
        let nodes = [node("a", vec![(profile(), 2)])];
        let waiting = pod_on("w", None, vec![(profile(), 1)]);
        let bound = pod_on("b", Some("a"), vec![(profile(), 1)]);
        assert!(places(&nodes, std::slice::from_ref(&bound), &waiting));
        assert!(!places(&nodes, &[bound.clone(), bound], &waiting));
    }

    #[test]
    fn replicas_under_the_name_of_whole_gpus_are_not_planned_on() {
        let mut shared = node("a", vec![(GpuResource::Whole, 8)]);
        shared.sharing = Some(NodeSharing { strategy: SharingStrategy::TimeSlicing, replicas: 4 });
        let waiting = pod_on("w", None, vec![(GpuResource::Whole, 1)]);
        assert!(!places(&[shared], &[], &waiting));
    }

    #[test]
    fn a_pod_whose_constraints_were_not_read_is_not_placed() {
        let nodes = [node("a", vec![(GpuResource::Whole, 2)])];
        let waiting = pod_on("w", None, vec![(GpuResource::Whole, 1)]);
        let seen = Seen { pod: &waiting, constraints: None };
        let fleet = fleet(&nodes, &[]);
        let results = place(&[pod(seen)], &fleet, &Demand::default(), Strategy::Default);
        let text = results[0].as_ref().expect_err("not read").to_string();
        assert!(text.contains("does not cover `spec`"), "{text}");
    }
}
