//! The time of one decision, on one thread, in processor time.

use std::collections::BTreeMap;
use std::sync::Arc;

use benches::trace::Random;
use gpu_autoscaler_model::{
    Constraints, HostPort, LabelSelector, NamespaceScope, NodeSelectorTerm, Operator, PodTerm,
    Requirement, SpreadConstraint, Taint, TaintEffect, Toleration,
};
use gpu_autoscaler_planner::board::{Board, KindIndex};
use gpu_autoscaler_planner::demand::Demand;
use gpu_autoscaler_planner::fleet::{
    Amounts, Fleet, Gpu, GpuPicker, Identity, Isolation, Node, Sharing,
};
use gpu_autoscaler_planner::request::{GpuRequest, Links, PodKind, Request};
use gpu_autoscaler_planner::strategy::{Scorer, Strategy};

use crate::Printed;

/// Nodes, and the microseconds that a decision may take on average.
const SIZES: [(usize, f64); 2] = [(1_213, 10.0), (10_000, 60.0)];
const MODELS: [&str; 4] = ["A100", "H100", "L4", "T4"];
const ZONES: u64 = 3;
const TEAMS: u64 = 8;
const APPS: usize = 40;
const KINDS: usize = 150;

fn fleet(nodes: usize) -> Fleet {
    let node = |index: usize| {
        let number = index as u64;
        // 5 GPUs a node on average, as in 10,000 nodes with 50,000 GPUs.
        let gpus = [8, 2, 8, 2][index % 4];
        let allocatable =
            Amounts { cpu_milli: gpus as u64 * 12_000, memory_bytes: 1 << 40, pods: 110 };
        let dedicated = Taint {
            key: "team".into(),
            value: format!("t{}", number % TEAMS).into(),
            effect: TaintEffect::NoSchedule,
        };
        Node {
            name: format!("node-{index:05}").into(),
            schedulable: true,
            labels: [
                ("kubernetes.io/hostname", format!("node-{index:05}")),
                ("zone", format!("z{}", number / 7 % ZONES)),
                ("disk", ["ssd", "hdd"][index / 3 % 2].to_owned()),
            ]
            .into_iter()
            .collect(),
            taints: if index.is_multiple_of(5) { vec![dedicated] } else { Vec::new() },
            gpu_model: MODELS[index % 4].into(),
            allocatable,
            free: allocatable,
            gpus: vec![Gpu::new(Sharing::Fraction, 40_960); gpus],
            picker: GpuPicker::Plan,
            tenants: Vec::new(),
            extended_free: Default::default(),
        }
    };
    Fleet::new((0..nodes).map(node).collect())
}

fn kinds(random: &mut Random) -> Vec<PodKind> {
    let kind = |random: &mut Random| {
        let gpu = match random.below(10) {
            0..4 => GpuRequest::Whole { count: 1 },
            4 => GpuRequest::Whole { count: [2, 4, 8][random.below(3)] },
            _ => GpuRequest::Share {
                compute_milli: (1 + random.below(19)) as u16 * 50,
                memory_mib: (1 + random.below(30)) as u32 * 1_024,
            },
        };
        let models =
            if random.below(4) == 0 { vec![MODELS[random.below(4)].into()] } else { vec![] };
        let isolation = match gpu {
            GpuRequest::Share { .. } if random.below(4) == 0 => Isolation::Cooperative,
            _ => Isolation::None,
        };
        let mut kind = PodKind::plain(Request {
            cpu_milli: (1 + random.below(16)) as u64 * 1_000,
            memory_bytes: (1 + random.below(16)) as u64 * (1 << 30),
            gpu,
            models,
            isolation,
            links: Links::Any,
            extended: Vec::new(),
        });
        let app = format!("app-{}", random.below(APPS));
        let labels = [("app", app.as_str())].into_iter().collect();
        kind.identity = Arc::new(Identity { namespace: "default".into(), labels });
        demand_everything(Arc::make_mut(&mut kind.constraints), &app, random);
        kind
    };
    (0..KINDS).map(|_| kind(random)).collect()
}

/// Everything that a pod can demand or prefer, each with some probability.
fn demand_everything(demands: &mut Constraints, app: &str, random: &mut Random) {
    let team: Arc<str> = format!("t{}", random.below(TEAMS as usize)).into();
    demands.tolerations.push(Toleration { key: "team".into(), value: Some(team), effect: None });
    if random.below(3) == 0 {
        let zone = format!("z{}", random.below(ZONES as usize));
        demands.node_selector.push(("zone".into(), zone.into()));
    }
    let selector = |app: &str| LabelSelector {
        requirements: vec![Requirement {
            key: "app".into(),
            operator: Operator::In(vec![app.into()]),
        }],
    };
    let term = |app: &str, key: &str| PodTerm {
        selector: Some(selector(app)),
        namespaces: NamespaceScope::These(vec!["default".into()]),
        topology_key: key.into(),
    };
    let spread = |key: &str, max_skew| SpreadConstraint {
        max_skew,
        topology_key: key.into(),
        selector: Some(selector(app)),
        min_domains: None,
        honor_node_affinity: true,
        honor_taints: false,
    };
    let other = format!("app-{}", random.below(APPS));
    match random.below(10) {
        0 => demands.pod_affinity.push(term(app, "zone")),
        1 => demands.pod_anti_affinity.push(term(&other, "kubernetes.io/hostname")),
        2 => demands.spread.push(spread("zone", 1)),
        3 => demands.spread.push(spread("kubernetes.io/hostname", 2)),
        4 => demands.host_ports.push(HostPort {
            ip: "".into(),
            protocol: "TCP".into(),
            port: 8_000 + random.below(4) as u16,
        }),
        _ => {}
    }
    if random.below(6) == 0 {
        let operator = Operator::In(vec!["ssd".into()]);
        let labels = vec![Requirement { key: "disk".into(), operator }];
        demands.preferred_nodes.push((10, NodeSelectorTerm { labels, name: Vec::new() }));
    }
    if random.below(6) == 0 {
        demands.preferred_pods.push((-5, term(&other, "zone")));
    }
}

/// Processor time of this thread, in microseconds: other programs on the machine do not count.
fn cpu_micros() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

/// Fills the fleet to saturation and prints the time of a decision.
pub fn table(seed: u64) -> Printed {
    let mut broken = Vec::new();
    let mut rows = Vec::new();
    println!(
        "{KINDS} kinds of request with selectors, tolerations, models, isolation, pod affinity and \
         anti-affinity,\nspread over zones and nodes, host ports and preferences; default strategy"
    );
    println!(
        "{:>7} {:>7} {:>10} {:>10} {:>10} {:>10} {:>10}",
        "nodes", "GPUs", "decisions", "mean us", "p50 us", "p99 us", "limit us"
    );
    for (nodes, limit) in SIZES {
        let mut random = Random(seed);
        let mut fleet = fleet(nodes);
        let kinds = kinds(&mut random);
        let mut demand = Demand::default();
        kinds.iter().for_each(|kind| demand.observe(&kind.request));
        let mut board = Board::new(Scorer::new(Strategy::Default, &demand, &fleet), &fleet);
        let indices: BTreeMap<usize, KindIndex> =
            (0..kinds.len()).map(|i| (i, board.add_kind(&fleet, &kinds[i]))).collect();
        // Each kind's first decision computes every node's cost; it is not one of those measured.
        indices.values().for_each(|&kind| {
            board.best(&fleet, kind);
        });
        let gpus: usize = fleet.nodes.iter().map(|node| node.gpus.len()).sum();
        let mut times = Vec::new();
        for _ in 0..gpus * 3 / 2 {
            let pick = random.below(kinds.len());
            let start = cpu_micros();
            let found = board.best(&fleet, indices[&pick]);
            if let Some(assignment) = found {
                fleet.bind(&kinds[pick], assignment);
                board.bound(indices[&pick], assignment.node);
            }
            times.push(cpu_micros() - start);
        }
        let mean = times.iter().sum::<f64>() / times.len() as f64;
        times.sort_by(f64::total_cmp);
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
        println!(
            "{nodes:>7} {gpus:>7} {:>10} {mean:>10.1} {:>10.1} {:>10.1} {limit:>10.0}",
            times.len(),
            at(0.5),
            at(0.99)
        );
        if mean > limit {
            broken.push(format!("{nodes} nodes: {mean:.1} us a decision, at most {limit}"));
        }
        rows.push(serde_json::json!({
            "nodes": nodes, "gpus": gpus, "decisions": times.len(), "mean_us": mean,
            "p50_us": at(0.5), "p99_us": at(0.99), "limit_us": limit,
        }));
    }
    Printed { json: serde_json::json!({ "rows": rows, "broken": broken }), broken }
}
