//! Behavior of placement and its check on small fleets.

mod devices;
mod neighbors;
mod random;

use std::sync::Arc;

use gpu_autoscaler_model::{
    self as model, A100_40GB, ClaimName, Constraints, LabelSelector, NamespaceScope,
    NodeSelectorTerm, Operator, PodTerm, Requirement, Taint, TaintEffect,
};

use crate::check::{FaultKind, check};
use crate::demand::Demand;
use crate::fit::Obstacle;
use crate::fleet::*;
use crate::place::place;
use crate::refusal::{Refusal, Remedy};
use crate::request::*;
use crate::strategy::Strategy;

pub(crate) fn node(name: &str, gpus: Vec<Gpu>) -> Node {
    let allocatable = Amounts { cpu_milli: 64_000, memory_bytes: 256 << 30, pods: 110 };
    Node {
        name: name.into(),
        schedulable: true,
        labels: Default::default(),
        taints: Vec::new(),
        gpu_model: "A100".into(),
        allocatable,
        free: allocatable,
        gpus,
        picker: GpuPicker::Plan,
        tenants: Vec::new(),
        extended_free: Default::default(),
    }
}

fn whole(count: usize) -> Vec<Gpu> {
    vec![Gpu::new(Sharing::Exclusive, 40_960); count]
}

fn fleet(nodes: Vec<Node>) -> Fleet {
    Fleet::new(nodes)
}

fn pod(name: &str, gpu: GpuRequest) -> Pod {
    Pod {
        name: name.into(),
        priority: 0,
        kind: PodKind::plain(Request {
            cpu_milli: 1_000,
            memory_bytes: 1 << 30,
            gpu,
            models: Vec::new(),
            isolation: Isolation::None,
            links: Links::Any,
            extended: Vec::new(),
        }),
        gang: None,
    }
}

/// A pod of team `team` as it is seen in a cluster.
pub(crate) fn seen_pod(name: &str, node: Option<&str>, constraints: Constraints) -> model::Pod {
    model::Pod {
        uid: name.into(),
        key: model::ObjectKey::new("team", name),
        resource_version: "1".into(),
        created: model::Timestamp::EPOCH,
        started: None,
        node: node.map(Into::into),
        phase: model::PodPhase::Pending,
        deleting: false,
        deletion_due: None,
        containers: Default::default(),
        requests: Default::default(),
        labels: Default::default(),
        annotations: Default::default(),
        owner: None,
        priority: 0,
        gates: Vec::new(),
        constraints: Arc::new(constraints),
        unschedulable: None,
    }
}

fn gpus(count: u16) -> GpuRequest {
    GpuRequest::Whole { count }
}

/// What the pod demands, to be changed.
fn demands(pod: &mut Pod) -> &mut Constraints {
    Arc::make_mut(&mut pod.kind.constraints)
}

fn zoned() -> Fleet {
    let mut nodes: Vec<Node> = (0..4).map(|i| node(&format!("n{i}"), whole(2))).collect();
    for (index, node) in nodes.iter_mut().enumerate() {
        node.labels = [("zone", ["a", "a", "b", "c"][index])].into_iter().collect();
    }
    fleet(nodes)
}

fn of_app(name: &str, app: &str) -> Pod {
    let mut pod = pod(name, gpus(1));
    let labels = [("app", app)].into_iter().collect();
    pod.kind.identity = Arc::new(Identity { namespace: "default".into(), labels });
    pod
}

fn app_in_zone(app: &str) -> PodTerm {
    let operator = Operator::In(vec![app.into()]);
    PodTerm {
        selector: Some(LabelSelector {
            requirements: vec![Requirement { key: "app".into(), operator }],
        }),
        namespaces: NamespaceScope::These(vec!["default".into()]),
        topology_key: "zone".into(),
    }
}

/// The zones of all pods, in the order given.
fn zones_of(pods: &[Pod], fleet: &Fleet) -> Vec<Option<String>> {
    let zone = |name: &Arc<str>| {
        let node = fleet.nodes.iter().find(|node| node.name == *name).expect("in the fleet");
        node.labels.get("zone").expect("every node has one").to_owned()
    };
    nodes_of(pods, fleet, Strategy::Default).iter().map(|name| name.as_ref().map(zone)).collect()
}

/// Numbers from a seed: SplitMix64.
pub(crate) struct Draws(pub(crate) u64);

impl Draws {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        crate::strategy::mix(self.0) % limit
    }
}

const STRATEGIES: [Strategy; 6] = [
    Strategy::Default,
    Strategy::BestFit,
    Strategy::FirstFit,
    Strategy::WorstFit,
    Strategy::Fgd,
    Strategy::Random { seed: 7 },
];

/// Places, checks, and gives the names of the nodes.
fn nodes_of(pods: &[Pod], fleet: &Fleet, strategy: Strategy) -> Vec<Option<Arc<str>>> {
    let results = place(pods, fleet, &Demand::default(), strategy);
    let placed: Vec<Option<Assignment>> =
        results.iter().map(|result| result.as_ref().ok().copied()).collect();
    assert_eq!(check(pods, fleet, &placed), vec![], "{strategy:?}");
    placed.iter().map(|p| p.map(|p| fleet.node(p.node).name.clone())).collect()
}

#[test]
fn of_nodes_that_are_equal_otherwise_the_fuller_is_taken() {
    let mut used = node("b", whole(4));
    for gpu in &mut used.gpus[..2] {
        (gpu.compute_free_milli, gpu.memory_free_mib) = (0, 0);
    }
    let fleet = fleet(vec![node("a", whole(4)), used, node("c", whole(4))]);
    let on = |gpu| nodes_of(&[pod("p", gpu)], &fleet, Strategy::Default)[0].clone();
    assert_eq!(on(gpus(1)).as_deref(), Some("b"));
    assert_eq!(on(gpus(2)).as_deref(), Some("b"));
    assert_eq!(on(gpus(3)).as_deref(), Some("a"), "it has too few");
    assert_eq!(on(GpuRequest::None).as_deref(), Some("b"), "also without GPUs");
}

#[test]
fn best_fit_takes_the_node_with_the_least_left_and_worst_fit_the_most() {
    let fleet =
        fleet(vec![node("six", whole(6)), node("three", whole(3)), node("eight", whole(8))]);
    let pods = [pod("p", gpus(2))];
    assert_eq!(nodes_of(&pods, &fleet, Strategy::BestFit)[0].as_deref(), Some("three"));
    assert_eq!(nodes_of(&pods, &fleet, Strategy::WorstFit)[0].as_deref(), Some("eight"));
    assert_eq!(nodes_of(&pods, &fleet, Strategy::FirstFit)[0].as_deref(), Some("six"));
}

#[test]
fn best_fit_among_four_two_and_one_free() {
    let fleet = fleet(vec![node("four", whole(4)), node("two", whole(2)), node("one", whole(1))]);
    let on = |count| nodes_of(&[pod("p", gpus(count))], &fleet, Strategy::BestFit)[0].clone();
    assert_eq!(on(1).as_deref(), Some("one"));
    assert_eq!(on(2).as_deref(), Some("two"));
    assert_eq!(on(5), None);
}

#[test]
fn a_gang_is_placed_whole_or_not_at_all() {
    let fleet = fleet(vec![node("a", whole(4)), node("b", whole(2))]);
    let gang = |name: &str, size: u16| Pod { gang: Some("g".into()), ..pod(name, gpus(size)) };
    for strategy in STRATEGIES {
        let fits = [gang("x", 4), gang("y", 2)];
        assert!(nodes_of(&fits, &fleet, strategy).iter().all(Option::is_some));
        // The lone pod takes what the refused gang left.
        let split = [gang("x", 4), gang("y", 2), gang("z", 1), pod("lone", gpus(4))];
        let placed = nodes_of(&split, &fleet, strategy);
        assert_eq!(placed[..3], [None, None, None], "{strategy:?}");
        assert_eq!(placed[3].as_deref(), Some("a"), "{strategy:?}");
    }
}

#[test]
fn refusals_name_the_reason_the_value_and_the_limit() {
    let mut tainted = node("tainted", whole(8));
    let (key, value) = ("dedicated".into(), "".into());
    tainted.taints.push(Taint { key, value, effect: TaintEffect::NoSchedule });
    let mut cordoned = node("cordoned", whole(8));
    cordoned.schedulable = false;
    let fleet = fleet(vec![node("a", whole(2)), tainted, cordoned]);
    let refusal = |pod: Pod| {
        place(&[pod], &fleet, &Demand::default(), Strategy::Default).remove(0).expect_err("refused")
    };
    let text = |pod| refusal(pod).to_string();
    assert_eq!(text(pod("p", gpus(0))), "GPU count is 0, but must be at least 1");
    assert_eq!(
        text(pod("p", gpus(33))),
        "GPU count is 33, but at most 32 can be asked of one node"
    );
    let mut large = pod("p", gpus(1));
    large.kind.request.cpu_milli = u64::MAX;
    assert_eq!(
        refusal(large),
        Refusal::NoRoom {
            nodes: vec![(Obstacle::Unschedulable, 1), (Obstacle::Taint, 1), (Obstacle::Cpu, 1)],
            remedy: Remedy::LargerNode {
                resource: Obstacle::Cpu,
                unit: " thousandths of a core",
                asked: u64::MAX,
                allocatable_max: 64_000
            },
        }
    );
    let mut picky = pod("p", gpus(1));
    picky.kind.request.models = vec!["H100".into()];
    assert!(text(picky).ends_with("it would fit on a node without: other GPU model"));
    let slice = pod("p", GpuRequest::Mig { profile: "1g.5gb".into() });
    assert!(text(slice).contains("1 GPUs not shared in the way that is asked"));
    let mut spread = pod("p", gpus(1));
    demands(&mut spread).uncovered = vec!["spec.resourceClaims".into()];
    assert!(text(spread).contains("does not cover `spec.resourceClaims`"));
    let none = place(&[pod("p", gpus(1))], &Fleet::default(), &Demand::default(), Strategy::Fgd);
    assert_eq!(none, vec![Err(Refusal::EmptyFleet)]);
}

#[test]
fn ten_thousand_equal_pods_fill_the_fleet_exactly() {
    let fleet = fleet((0..10).map(|i| node(&format!("n{i}"), whole(4))).collect());
    let pods: Vec<Pod> = (0..10_000).map(|i| pod(&format!("p{i}"), gpus(1))).collect();
    for strategy in STRATEGIES {
        let placed = nodes_of(&pods, &fleet, strategy);
        assert_eq!(placed.iter().flatten().count(), 40, "{strategy:?}");
    }
}

#[test]
fn the_check_finds_each_fault() {
    let mut cordoned = node("cordoned", whole(8));
    cordoned.schedulable = false;
    let mig = node("mig", vec![Gpu::new(Sharing::Mig(MigTable::Listed(&A100_40GB)), 40_960)]);
    let fleet = fleet(vec![node("a", whole(2)), cordoned, mig]);
    let at = |node, devices| Some(Assignment { node: NodeIndex(node), devices });
    let one = |bits| Devices::Whole { gpus: bits };
    let kinds = |pods: &[Pod], placed: &[Option<Assignment>]| {
        check(pods, &fleet, placed).into_iter().map(|fault| fault.kind).collect::<Vec<_>>()
    };
    let two = [pod("x", gpus(1)), pod("y", gpus(1))];
    assert_eq!(kinds(&two, &[at(0, one(1)), at(0, one(2))]), []);
    assert_eq!(
        kinds(&two, &[at(0, one(1)), at(0, one(1))]),
        [FaultKind::Overcommitted { resource: "a whole GPU", granted: 2, free: 1 }]
    );
    assert_eq!(kinds(&two[..1], &[at(0, one(4))]), [FaultKind::Devices]);
    assert_eq!(kinds(&two[..1], &[at(0, one(3))]), [FaultKind::Devices]);
    assert_eq!(kinds(&two[..1], &[at(1, one(1))]), [FaultKind::Unschedulable]);
    assert_eq!(kinds(&two[..1], &[at(9, one(1))]), [FaultKind::NoSuchNode]);
    let gang = two.clone().map(|pod| Pod { gang: Some("g".into()), ..pod });
    assert_eq!(
        kinds(&gang, &[at(0, one(1)), None]),
        [FaultKind::GangSplit { placed: 1, members: 2 }]
    );
    let slice = pod("s", GpuRequest::Mig { profile: "2g.10gb".into() });
    let on = |start| Devices::Mig { gpu: 0, profile: 3, start };
    assert_eq!(kinds(std::slice::from_ref(&slice), &[at(2, on(1))]), [FaultKind::IllegalMigLayout]);
    assert_eq!(
        kinds(&[slice.clone(), slice], &[at(2, on(2)), at(2, on(2))]),
        [FaultKind::IllegalMigLayout]
    );
}

/// What a batch that makes no sense is told, pod by pod.
fn told(pods: &[Pod], fleet: &Fleet) -> Vec<String> {
    let results = place(pods, fleet, &Demand::default(), Strategy::Default);
    results.iter().map(|result| result.as_ref().expect_err("refused").to_string()).collect()
}

#[test]
fn bad_input_is_refused_with_the_reason_and_what_would_make_it_fit() {
    let mig = Gpu::new(Sharing::Mig(MigTable::Listed(&A100_40GB)), 40_960);
    let fleet = fleet(vec![node("a", whole(4)), node("mig", vec![mig])]);
    let told = |pods: &[Pod]| told(pods, &fleet);
    // Nothing, and more than anything.
    assert_eq!(told(&[pod("p", gpus(0))]), ["GPU count is 0, but must be at least 1"]);
    assert_eq!(
        told(&[pod("p", GpuRequest::Share { compute_milli: 0, memory_mib: 0 })]),
        ["GPU share is 0, but must be at least 1"]
    );
    assert_eq!(
        told(&[pod("p", gpus(u16::MAX))]),
        ["GPU count is 65535, but at most 32 can be asked of one node"]
    );
    assert_eq!(
        told(&[pod("p", gpus(9))]),
        ["0 of 2 nodes fit: 2 GPUs not shared in the way that is asked, or too few; it would fit \
          on a node of 9 GPUs, where no suitable one has more than 4"]
    );
    let mut large = pod("p", gpus(1));
    large.kind.request.memory_bytes = u64::MAX;
    assert!(told(&[large])[0].ends_with(
        "it would fit on a node of 18446744073709551615 bytes of memory, where no suitable one \
         has more than 274877906944"
    ));
    // A profile that no GPU has.
    let told_of_profile = told(&[pod("p", GpuRequest::Mig { profile: "9g.1gb".into() })]).remove(0);
    let hint = "it would fit on a GPU with the MIG profile `9g.1gb`, or with one of these: 1g.10gb";
    assert!(told_of_profile.contains(hint), "{told_of_profile}");
    // A selector and an affinity that contradict each other.
    let mut torn = pod("p", gpus(1));
    demands(&mut torn).node_selector.push(("zone".into(), "a".into()));
    let elsewhere = Requirement { key: "zone".into(), operator: Operator::NotIn(vec!["a".into()]) };
    demands(&mut torn).node_terms =
        Some(vec![NodeSelectorTerm { labels: vec![elsewhere], name: Vec::new() }]);
    assert_eq!(
        told(&[torn]),
        ["0 of 2 nodes fit: 2 node selector or affinity does not match; it would fit on a node \
          without: node selector or affinity does not match"]
    );
    // A gang larger than the fleet.
    let gang: Vec<Pod> =
        (0..9).map(|i| Pod { gang: Some("g".into()), ..pod(&format!("p{i}"), gpus(1)) }).collect();
    let expected = "gang `g` is placed whole or not at all: 4 of 9 members found room, `p4` did \
                    not: 0 of 2 nodes fit: 1 GPUs not shared in the way that is asked, or too \
                    few, 1 too little GPU; it would fit with 1 GPUs free on one node, where now \
                    at most 0 are";
    assert_eq!(told(&gang), vec![expected; 9]);
    // More equal pods than there are GPUs: the fleet is filled, and the rest is told why.
    let many: Vec<Pod> = (0..10_000).map(|i| pod(&format!("p{i}"), gpus(1))).collect();
    let results = place(&many, &fleet, &Demand::default(), Strategy::Default);
    let refused: Vec<String> =
        results.iter().filter_map(|result| Some(result.as_ref().err()?.to_string())).collect();
    assert_eq!(refused.len(), 9_996);
    assert!(refused.iter().all(|text| {
        text.ends_with("it would fit with 1 GPUs free on one node, where now at most 0 are")
    }));
}

#[test]
fn of_an_empty_fleet_every_pod_is_told_that_there_is_no_node() {
    let none = told(&[pod("p", gpus(1)), pod("q", gpus(0))], &Fleet::default());
    let expected = [
        "there is no node; it would fit on one that is added",
        "GPU count is 0, but must be at least 1",
    ];
    assert_eq!(none, expected);
}

#[test]
fn a_pod_whose_claims_nobody_looked_up_is_not_placed() {
    let fleet = fleet(vec![node("a", whole(4))]);
    let claim = || vec![ClaimName { name: "c".into(), ephemeral: false }];
    let (mut volume, mut device) = (pod("p", gpus(1)), pod("q", gpus(1)));
    demands(&mut volume).claims = claim();
    demands(&mut device).device_claims = claim();
    let pods = [volume, device];
    let told = told(&pods, &fleet);
    assert!(told[0].contains("`spec.volumes[].persistentVolumeClaim`"), "{}", told[0]);
    assert!(told[1].contains("`spec.resourceClaims`"), "{}", told[1]);
    let at = |gpus| Some(Assignment { node: NodeIndex(0), devices: Devices::Whole { gpus } });
    let kinds: Vec<FaultKind> =
        check(&pods, &fleet, &[at(1), at(2)]).into_iter().map(|fault| fault.kind).collect();
    assert_eq!(kinds, [FaultKind::Uncovered, FaultKind::Uncovered]);
}
