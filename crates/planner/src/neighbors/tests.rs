use gpu_autoscaler_model::{
    Constraints, HostPort, LabelSelector, NamespaceScope, NodeSelectorTerm, Operator, Requirement,
    SpreadConstraint,
};

use super::*;
use crate::fleet::{Amounts, Assignment, Devices, GpuPicker, Isolation};
use crate::request::{GpuRequest, Links, Request};
use crate::tests::Draws;

const APPS: [&str; 3] = ["web", "db", "train"];

fn fleet(draws: &mut Draws) -> Fleet {
    let node = |index: u64, draws: &mut Draws| {
        let name = format!("n{index}");
        let mut labels = vec![("host", name.as_str())];
        if draws.below(5) > 0 {
            labels.push(("zone", ["a", "b", "c"][draws.below(3) as usize]));
        }
        let labels = labels.into_iter().collect();
        let allocatable = Amounts { cpu_milli: 1 << 40, memory_bytes: 1 << 40, pods: 1 << 20 };
        Node {
            name: name.into(),
            schedulable: true,
            labels,
            taints: Vec::new(),
            gpu_model: "".into(),
            allocatable,
            free: allocatable,
            gpus: Vec::new(),
            picker: GpuPicker::Kubelet,
            extended_free: Default::default(),
            tenants: Vec::new(),
        }
    };
    let nodes = 1 + draws.below(8);
    Fleet::new((0..nodes).map(|index| node(index, draws)).collect())
}

fn in_(key: &str, value: &str) -> Requirement {
    Requirement { key: key.into(), operator: Operator::In(vec![value.into()]) }
}

fn selector(draws: &mut Draws) -> LabelSelector {
    LabelSelector { requirements: vec![in_("app", APPS[draws.below(3) as usize])] }
}

fn term(draws: &mut Draws) -> PodTerm {
    PodTerm {
        selector: (draws.below(8) > 0).then(|| selector(draws)),
        namespaces: NamespaceScope::These(vec!["default".into()]),
        topology_key: ["zone", "host", "absent"][draws.below(3) as usize].into(),
    }
}

fn kind(draws: &mut Draws) -> PodKind {
    let mut demands = Constraints::default();
    for _ in 0..draws.below(3) {
        match draws.below(6) {
            0 => demands.pod_affinity.push(term(draws)),
            1 => demands.pod_anti_affinity.push(term(draws)),
            2 => demands.spread.push(SpreadConstraint {
                max_skew: 1 + draws.below(2) as u32,
                topology_key: ["zone", "host"][draws.below(2) as usize].into(),
                selector: Some(selector(draws)),
                min_domains: (draws.below(3) == 0).then_some(3),
                honor_node_affinity: draws.below(2) == 0,
                honor_taints: false,
            }),
            3 => demands.preferred_pods.push((draws.below(9) as i32 - 4, term(draws))),
            4 => {
                let port = 80 + draws.below(2) as u16;
                demands.host_ports.push(HostPort { ip: "".into(), protocol: "TCP".into(), port });
            }
            _ => {
                let labels = vec![in_("zone", "a")];
                demands.preferred_nodes.push((3, NodeSelectorTerm { labels, name: Vec::new() }));
            }
        }
    }
    let mut kind = PodKind::plain(Request {
        cpu_milli: 1,
        memory_bytes: 1,
        gpu: GpuRequest::None,
        models: Vec::new(),
        isolation: Isolation::None,
        links: Links::Any,
        extended: Vec::new(),
    });
    let labels = [("app", APPS[draws.below(3) as usize])].into_iter().collect();
    kind.identity = Arc::new(Identity { namespace: "default".into(), labels });
    kind.constraints = Arc::new(demands);
    kind
}

/// For each node, what the neighbors are to the kind and how much it prefers the node.
fn seen(neighbors: &mut Neighbors, kind: usize, nodes: usize) -> Vec<(Option<Obstacle>, i32)> {
    let preference =
        neighbors.to(kind).map_or_else(|| vec![0; nodes], |watcher| watcher.preference().to_vec());
    let obstacles = (0..nodes).map(|node| neighbors.obstacle(kind, node));
    obstacles.zip(preference).collect()
}

#[test]
fn counting_as_pods_come_and_go_is_counting_anew() {
    for seed in 0..300 {
        let mut draws = Draws(seed);
        let mut fleet = fleet(&mut draws);
        let nodes = fleet.nodes.len();
        let at = |node: u64| Assignment { node: NodeIndex(node as u32), devices: Devices::None };
        for _ in 0..draws.below(6) {
            fleet.bind(&kind(&mut draws), at(draws.below(nodes as u64)));
        }
        let mut neighbors = Neighbors::of(&fleet);
        let mut kinds: Vec<PodKind> = Vec::new();
        let mut bound: Vec<(usize, Assignment)> = Vec::new();
        for step in 0..40 {
            match draws.below(6) {
                0 => {
                    kinds.push(kind(&mut draws));
                    neighbors.add_kind(&fleet, kinds.last().expect("just added"));
                }
                1 if !bound.is_empty() => {
                    let (kind, place) = bound.remove(draws.below(bound.len() as u64) as usize);
                    fleet.unbind(&kinds[kind], place);
                    neighbors.note(kind, place.node, false);
                }
                _ if !kinds.is_empty() => {
                    let kind = draws.below(kinds.len() as u64) as usize;
                    let place = at(draws.below(nodes as u64));
                    fleet.bind(&kinds[kind], place);
                    neighbors.note(kind, place.node, true);
                    bound.push((kind, place));
                }
                _ => {}
            }
            for (number, kind) in kinds.iter().enumerate() {
                let mut anew = Neighbors::of(&fleet);
                anew.add_kind(&fleet, kind);
                assert_eq!(
                    seen(&mut neighbors, number, nodes),
                    seen(&mut anew, 0, nodes),
                    "seed={seed} step={step} {kind:?}"
                );
            }
        }
    }
}
