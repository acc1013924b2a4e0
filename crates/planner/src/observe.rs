//! From what is seen of a cluster to what packing decides on.
//!
//! Every node here is one on which a kubelet with a device plugin picks the GPU, since that is
//! what nodes and pods alone tell: whole GPUs are told apart only by their number, and replicas
//! and MIG instances that exist are counted by the name of their resource. Nodes whose GPUs the
//! plan picks are built by those who know the devices (a ResourceSlice, a node agent).

use std::collections::BTreeMap;
use std::sync::Arc;

use gpu_autoscaler_model::{
    self as model, GpuModel, GpuResource, Operator, Requirement, Taint, TaintEffect,
};

use crate::fleet::{
    Amounts, Fleet, GPUS_PER_NODE_MAX, Gpu, GpuPicker, Identity, Isolation, Node, Sharing, Tenant,
};
use crate::request::{GpuRequest, Links, Pod, PodKind, Request};
use crate::storage::Storage;

/// The taint that stands for `spec.unschedulable`, which a pod may tolerate.
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// The label of the GPU's product, by which pods choose a model.
const PRODUCT: &str = "nvidia.com/gpu.product";

/// What names the gang of a pod: our annotation, else the label of the coscheduling plugin.
const GANG_ANNOTATION: &str = "gpu-autoscaler.io/gang";
const GANG_LABEL: &str = "scheduling.x-k8s.io/pod-group";

/// The fleet of `nodes` with what `pods` leave of it, sorted by name.
pub fn fleet<'a>(
    nodes: impl IntoIterator<Item = &'a model::Node>,
    pods: impl IntoIterator<Item = &'a model::Pod>,
) -> Fleet {
    let mut at_home: BTreeMap<&str, Vec<&model::Pod>> = BTreeMap::new();
    for pod in pods {
        if let Some(name) = home(pod) {
            at_home.entry(name).or_default().push(pod);
        }
    }
    let mut nodes: Vec<Node> = nodes
        .into_iter()
        .map(|of| node(of, at_home.get(of.name.as_str()).into_iter().flatten().copied()))
        .collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    Fleet::new(nodes)
}

/// The name of the node whose resources the pod has or will have: the one that it is bound to, or
/// the only one that a DaemonSet made it for.
pub fn home(pod: &model::Pod) -> Option<&str> {
    if !pod.is_active() {
        return None;
    }
    if let Some(node) = &pod.node {
        return Some(node.as_str());
    }
    pod.owner.as_ref().filter(|owner| &*owner.kind == "DaemonSet")?;
    let [term] = pod.constraints.node_terms.as_deref()? else { return None };
    let [Requirement { operator: Operator::In(names), .. }] = &term.name[..] else { return None };
    let [name] = &names[..] else { return None };
    Some(name)
}

/// A pod that waits, with its claims looked up in `storage`.
pub fn pod(pod: &model::Pod, storage: &Storage) -> Pod {
    let gang = pod.annotations.get(GANG_ANNOTATION).or_else(|| pod.labels.get(GANG_LABEL));
    Pod {
        name: pod.key.to_string().into(),
        priority: pod.priority,
        kind: PodKind {
            request: request(pod),
            constraints: storage.constraints(pod),
            identity: identity(pod),
        },
        gang: gang.map(|name| format!("{}/{name}", pod.key.namespace).into()),
    }
}

/// A node with what is left of it by `pods`, all of which are at [`home`] on it.
///
/// A node that has less than its pods hold, as after a failed GPU, has nothing free of it.
pub fn node<'a>(node: &model::Node, pods: impl IntoIterator<Item = &'a model::Pod>) -> Node {
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
    let mut seen = Node {
        name: node.name.as_str().into(),
        schedulable: node.ready,
        labels: node.labels.clone(),
        taints,
        gpu_model: node.gpu_model.as_ref().map_or("", |model| model.as_str()).into(),
        allocatable,
        free: allocatable,
        // The framebuffer is of no use where the kubelet picks.
        gpus: vec![Gpu::new(Sharing::Exclusive, 0); whole.min(GPUS_PER_NODE_MAX)],
        picker: GpuPicker::Kubelet,
        extended_free: extended.into_iter().collect(),
        tenants: Vec::new(),
    };
    pods.into_iter().for_each(|pod| occupy(&mut seen, pod));
    seen
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

/// What a pod requests.
pub fn request(pod: &model::Pod) -> Request {
    let (whole, extended) = split(&pod.requests);
    let mut selected = pod.constraints.node_selector.iter().filter(|(key, _)| &**key == PRODUCT);
    Request {
        cpu_milli: pod.requests.cpu.as_u64(),
        memory_bytes: pod.requests.memory.as_u64(),
        gpu: match u16::try_from(whole) {
            Ok(0) => GpuRequest::None,
            // More than any node has; the request is refused as too large.
            count => GpuRequest::Whole { count: count.unwrap_or(u16::MAX) },
        },
        models: selected
            .find_map(|(_, product)| GpuModel::parse(product))
            .map(|model| model.as_str().into())
            .into_iter()
            .collect(),
        isolation: Isolation::None,
        links: Links::Any,
        extended,
    }
}

fn identity(pod: &model::Pod) -> Arc<Identity> {
    Arc::new(Identity { namespace: pod.key.namespace.clone(), labels: pod.labels.clone() })
}

/// Takes what a bound pod holds, and no more than there is.
fn occupy(node: &mut Node, pod: &model::Pod) {
    let (whole, extended) = split(&pod.requests);
    node.free.cpu_milli = node.free.cpu_milli.saturating_sub(pod.requests.cpu.as_u64());
    node.free.memory_bytes = node.free.memory_bytes.saturating_sub(pod.requests.memory.as_u64());
    node.free.pods = node.free.pods.saturating_sub(1);
    for (name, count) in extended {
        if let Some(free) = node.extended_free.get_mut(&name) {
            *free = free.saturating_sub(count);
        }
    }
    let free = node.gpus.iter_mut().filter(|gpu| gpu.is_free());
    free.take(whole as usize).for_each(|gpu| gpu.compute_free_milli = 0);
    let constraints = pod.constraints.clone();
    node.tenants.push(Tenant { identity: identity(pod), constraints, leaving: pod.deleting });
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
        let fleet = fleet(nodes, bound);
        place(&[pod(waiting, &Storage::default())], &fleet, &Demand::default(), Strategy::Default)
            [0]
        .is_ok()
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
    fn a_pod_that_a_daemon_set_made_for_a_node_has_its_room_before_others() {
        let nodes = [node("a", vec![(GpuResource::Whole, 1)])];
        let waiting = pod_on("w", None, vec![(GpuResource::Whole, 1)]);
        let mut agent = pod_on("agent", None, vec![]);
        agent.requests.cpu = MilliCpu::new(63_950);
        assert!(places(&nodes, std::slice::from_ref(&agent), &waiting));
        let name =
            Requirement { key: "metadata.name".into(), operator: Operator::In(vec!["a".into()]) };
        let term = model::NodeSelectorTerm { labels: vec![], name: vec![name] };
        let constraints =
            model::Constraints { node_terms: Some(vec![term]), ..model::Constraints::default() };
        agent.constraints = Arc::new(constraints);
        let (kind, name, uid) = ("DaemonSet".into(), "agent".into(), Uid::new("d"));
        agent.owner = Some(model::Owner { kind, name, uid });
        assert!(!places(&nodes, &[agent], &waiting));
    }

    #[test]
    fn members_of_a_gang_are_known_by_annotation_or_label() {
        let mut member = pod_on("w", None, vec![]);
        assert_eq!(pod(&member, &Storage::default()).gang, None);
        member.labels = Labels::from_iter([(GANG_LABEL, "g")]);
        assert_eq!(pod(&member, &Storage::default()).gang.as_deref(), Some("default/g"));
        member.annotations = Labels::from_iter([(GANG_ANNOTATION, "h")]);
        assert_eq!(pod(&member, &Storage::default()).gang.as_deref(), Some("default/h"));
    }

    #[test]
    fn the_product_that_a_pod_selects_is_the_model_that_will_do() {
        let mut waiting = pod_on("w", None, vec![(GpuResource::Whole, 1)]);
        let node_selector = vec![(PRODUCT.into(), "Tesla-T4".into())];
        let constraints = model::Constraints { node_selector, ..model::Constraints::default() };
        waiting.constraints = Arc::new(constraints);
        let model = GpuModel::parse("Tesla-T4").expect("known");
        assert_eq!(request(&waiting).models, [Arc::from(model.as_str())]);
    }
}
