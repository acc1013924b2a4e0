//! Behavior of placement and its check on small fleets.

use std::sync::Arc;

use gpu_autoscaler_model::{
    A100_40GB, Constraints, HostPort, LabelSelector, NamespaceScope, NodeSelectorTerm, Operator,
    PodTerm, Requirement, SpreadConstraint, Taint, TaintEffect,
};

use crate::check::{FaultKind, check};
use crate::demand::Demand;
use crate::fit::Obstacle;
use crate::fleet::*;
use crate::place::place;
use crate::refusal::{Refusal, Remedy};
use crate::request::*;
use crate::strategy::Strategy;

fn node(name: &str, gpus: Vec<Gpu>) -> Node {
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

fn gpus(count: u16) -> GpuRequest {
    GpuRequest::Whole { count }
}

/// What the pod demands, to be changed.
fn demands(pod: &mut Pod) -> &mut Constraints {
    Arc::make_mut(&mut pod.kind.constraints)
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
fn shares_need_a_node_where_the_plan_picks_the_gpu() {
    let share = pod("p", GpuRequest::Share { compute_milli: 500, memory_mib: 10_000 });
    let gpus = vec![Gpu::new(Sharing::Fraction, 40_960)];
    let mut by_kubelet = node("kubelet", gpus.clone());
    by_kubelet.picker = GpuPicker::Kubelet;
    let fleet = fleet(vec![by_kubelet, node("plan", gpus)]);
    let pods = [share.clone(), share.clone(), share];
    for strategy in STRATEGIES {
        let placed = nodes_of(&pods, &fleet, strategy);
        assert_eq!(placed.iter().flatten().filter(|n| ***n == *"plan").count(), 2);
        assert_eq!(placed.iter().flatten().count(), 2);
    }
}

#[test]
fn mig_instances_fill_a_gpu_without_overlap() {
    let gpu = Gpu::new(Sharing::Mig(MigTable::Listed(&A100_40GB)), 40_960);
    let fleet = fleet(vec![node("mig", vec![gpu])]);
    let slice = |profile: &str| pod(profile, GpuRequest::Mig { profile: profile.into() });
    let pods = [slice("3g.20gb"), slice("2g.10gb"), slice("1g.5gb"), slice("1g.5gb")];
    let placed = nodes_of(&pods, &fleet, Strategy::BestFit);
    assert!(placed.iter().all(Option::is_some));
    let two = [slice("4g.20gb"), slice("4g.20gb")];
    assert_eq!(nodes_of(&two, &fleet, Strategy::BestFit).iter().flatten().count(), 1);
}

#[test]
fn a_time_slice_gives_no_isolation() {
    let gpu = |sharing| vec![Gpu::new(sharing, 40_960)];
    let fleet = fleet(vec![
        node("slices", gpu(Sharing::TimeSlicing { replicas: 4 })),
        node("mps", gpu(Sharing::Mps { replicas: 4 })),
    ]);
    let mut pod = pod("p", GpuRequest::Replicas { count: 1 });
    pod.kind.request.isolation = Isolation::Driver;
    assert_eq!(
        nodes_of(std::slice::from_ref(&pod), &fleet, Strategy::FirstFit)[0].as_deref(),
        Some("mps")
    );
    pod.kind.request.isolation = Isolation::Hardware;
    assert_eq!(nodes_of(&[pod], &fleet, Strategy::FirstFit)[0], None);
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

#[test]
fn a_server_of_mps_clients_counts_processes_and_serves_one_user() {
    let gpu = Gpu::new(Sharing::Mps { replicas: 16 }, 40_960);
    let clients = |name: &str, processes, user| pod(name, GpuRequest::Clients { processes, user });
    let one = fleet(vec![node("mps", vec![gpu.clone()])]);
    let pods = [clients("a", 10, 1000), clients("b", 6, 1000), clients("c", 1, 1000)];
    for strategy in STRATEGIES {
        let placed = nodes_of(&pods, &one, strategy);
        assert_eq!(placed.iter().flatten().count(), 2, "16 processes, not 3 pods: {strategy:?}");
        let mixed = [clients("a", 1, 1000), clients("b", 1, 2000)];
        assert_eq!(nodes_of(&mixed, &one, strategy).iter().flatten().count(), 1, "{strategy:?}");
    }
    let two = fleet(vec![node("mps", vec![gpu.clone(), gpu.clone()])]);
    let mixed = [clients("a", 1, 1000), clients("b", 1, 2000)];
    assert_eq!(nodes_of(&mixed, &two, Strategy::Default).iter().flatten().count(), 2);
    let mut by_kubelet = node("kubelet", vec![gpu.clone()]);
    by_kubelet.picker = GpuPicker::Kubelet;
    let none = place(&mixed, &fleet(vec![by_kubelet]), &Demand::default(), Strategy::Default);
    assert!(none.iter().all(Result::is_err), "the kubelet would mix users");
    let refused = place(&[clients("a", 49, 0)], &one, &Demand::default(), Strategy::Default);
    let text = refused[0].as_ref().expect_err("no server has as many").to_string();
    assert_eq!(text, "client processes is 49, but at most 48 can be asked of one node");
    // The check has its own opinion.
    let at = |user| {
        let devices = Devices::Clients { gpu: 0, processes: 1, user };
        Some(Assignment { node: NodeIndex(0), devices })
    };
    let faults = check(&mixed, &one, &[at(1000), at(2000)]);
    assert_eq!(faults[0].kind, FaultKind::MixedUsers);
}

#[test]
fn the_user_of_a_server_is_free_again_when_the_last_process_is_gone() {
    let gpu = Gpu::new(Sharing::Mps { replicas: 4 }, 0);
    let mut fleet = fleet(vec![node("mps", vec![gpu])]);
    let clients = |user| pod("p", GpuRequest::Clients { processes: 2, user }).kind;
    let at = |user| Assignment {
        node: NodeIndex(0),
        devices: Devices::Clients { gpu: 0, processes: 2, user },
    };
    fleet.bind(&clients(1), at(1));
    fleet.bind(&clients(1), at(1));
    fleet.unbind(&clients(1), at(1));
    assert_eq!(fleet.nodes[0].gpus[0].mps_user, Some(1));
    fleet.unbind(&clients(1), at(1));
    assert_eq!(fleet.nodes[0].gpus[0].mps_user, None);
    assert!(fleet.nodes[0].gpus[0].is_free());
}

#[test]
fn gpus_that_must_be_joined_are_of_one_clique_whatever_the_kubelet_picks() {
    let pairs = |picker| {
        let mut node = node("pairs", whole(4));
        for (position, gpu) in node.gpus.iter_mut().enumerate() {
            gpu.clique = Some(position as u8 / 2);
        }
        node.gpus[0].compute_free_milli = 0;
        node.picker = picker;
        fleet(vec![node])
    };
    let mut joined = pod("joined", gpus(2));
    joined.kind.request.links = Links::NvLink;
    let fleet = pairs(GpuPicker::Plan);
    for strategy in STRATEGIES {
        let results = place(std::slice::from_ref(&joined), &fleet, &Demand::default(), strategy);
        let place = results[0].as_ref().expect("the second pair is free");
        assert_eq!(place.devices, Devices::Whole { gpus: 0b1100 }, "{strategy:?}");
    }
    let apart = Assignment { node: NodeIndex(0), devices: Devices::Whole { gpus: 0b0110 } };
    let faults = check(std::slice::from_ref(&joined), &fleet, &[Some(apart)]);
    assert_eq!(faults[0].kind, FaultKind::Links);
    let by_kubelet = pairs(GpuPicker::Kubelet);
    assert_eq!(nodes_of(std::slice::from_ref(&joined), &by_kubelet, Strategy::Default), [None]);
    let unknown = self::fleet(vec![node("unknown", whole(4))]);
    assert_eq!(nodes_of(&[joined], &unknown, Strategy::Default), [None], "unknown is not joined");
}

#[test]
fn placements_that_a_node_reports_stand_above_the_table() {
    let mut reported = A100_40GB.clone();
    let profiles = reported.profiles.to_mut();
    let three = profiles.iter_mut().find(|p| p.name == "3g.20gb").expect("in the table");
    three.starts = vec![4].into();
    let table = MigTable::of("NVIDIA-A100-SXM4-40GB", Some(Arc::new(reported))).expect("a table");
    let listed = MigTable::of("NVIDIA-A100-SXM4-40GB", None).expect("a table");
    assert!(table != listed && MigTable::of("Tesla-T4", None).is_none());
    let slice = |name: &str| pod(name, GpuRequest::Mig { profile: "3g.20gb".into() });
    for (table, fit) in [(table, 1), (listed, 2)] {
        let fleet = fleet(vec![node("mig", vec![Gpu::new(Sharing::Mig(table), 40_960)])]);
        for strategy in STRATEGIES {
            let placed = nodes_of(&[slice("a"), slice("b")], &fleet, strategy);
            assert_eq!(placed.iter().flatten().count(), fit, "{strategy:?}");
        }
    }
}

#[test]
fn a_share_by_memory_alone_counts_as_what_it_takes_of_the_gpu() {
    let by_memory = |memory_mib| pod("p", GpuRequest::Share { compute_milli: 0, memory_mib });
    let request = by_memory(30_720).kind.request;
    assert_eq!((request.gpu_milli(), request.gpu_milli_of(40_960)), (0, 750));
    let gpus = vec![Gpu::new(Sharing::Fraction, 40_960); 2];
    let fleet = fleet(vec![node("a", gpus)]);
    // The largest come first, though none asks for compute.
    let pods = [10_240, 10_240, 30_720, 30_720].map(by_memory);
    for strategy in STRATEGIES {
        assert!(nodes_of(&pods, &fleet, strategy).iter().all(Option::is_some), "{strategy:?}");
    }
    let large = place(&[by_memory(50_000)], &fleet, &Demand::default(), Strategy::Default);
    assert!(large[0].is_err());
}

#[test]
fn of_nodes_that_will_do_those_that_the_pod_prefers_are_taken() {
    let fleet = zoned();
    let in_zone = |zone: &str| NodeSelectorTerm {
        labels: vec![Requirement { key: "zone".into(), operator: Operator::In(vec![zone.into()]) }],
        name: Vec::new(),
    };
    let mut picky = of_app("picky", "web");
    demands(&mut picky).preferred_nodes = vec![(1, in_zone("c")), (1, in_zone("b"))];
    demands(&mut picky).preferred_nodes.push((1, in_zone("b")));
    let pods: Vec<Pod> = vec![picky; 5];
    let zones: Vec<String> = zones_of(&pods, &fleet).into_iter().flatten().collect();
    assert_eq!(zones, ["b", "b", "c", "c", "a"], "and it is no demand");
    let mut apart = of_app("apart", "web");
    demands(&mut apart).preferred_pods = vec![(-1, app_in_zone("web"))];
    let zones: Vec<String> = zones_of(&vec![apart; 3], &fleet).into_iter().flatten().collect();
    assert_eq!(zones, ["a", "b", "c"]);
}

#[test]
fn a_gang_that_wants_to_be_together_finds_the_domain_that_holds_all_of_it() {
    // The first zone has room for two, and so has the last; the second has it for four.
    let mut nodes: Vec<Node> = (0..4).map(|i| node(&format!("n{i}"), whole(2))).collect();
    for (node, zone) in nodes.iter_mut().zip(["a", "b", "b", "c"]) {
        node.labels = [("zone", zone)].into_iter().collect();
    }
    let fleet = fleet(nodes);
    let member = |name: &str| {
        let mut pod = Pod { gang: Some("g".into()), ..of_app(name, "train") };
        demands(&mut pod).pod_affinity.push(app_in_zone("train"));
        pod
    };
    let four = ["1", "2", "3", "4"].map(member);
    for strategy in STRATEGIES {
        let placed = nodes_of(&four, &fleet, strategy);
        let on: Vec<_> = placed.iter().flatten().map(AsRef::as_ref).collect();
        assert!(on.len() == 4 && on.iter().all(|n| ["n1", "n2"].contains(n)), "{on:?}");
    }
    let five = ["1", "2", "3", "4", "5"].map(member);
    assert!(nodes_of(&five, &fleet, Strategy::Default).iter().all(Option::is_none));
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

#[test]
fn anti_affinity_keeps_one_in_each_zone_and_holds_for_those_that_lack_it() {
    let fleet = zoned();
    let alone = |name| {
        let mut pod = of_app(name, "web");
        demands(&mut pod).pod_anti_affinity.push(app_in_zone("web"));
        pod
    };
    let pods = [alone("1"), alone("2"), alone("3"), alone("4"), of_app("5", "web")];
    let zones = zones_of(&pods, &fleet);
    assert_eq!(zones.iter().flatten().count(), 3, "{zones:?}");
    let mut placed: Vec<_> = zones.into_iter().flatten().collect();
    placed.sort();
    placed.dedup();
    assert_eq!(placed, ["a", "b", "c"]);
}

#[test]
fn affinity_starts_a_group_only_where_no_pod_matches_yet() {
    let together = |name, app, with| {
        let mut pod = of_app(name, app);
        demands(&mut pod).pod_affinity.push(app_in_zone(with));
        pod
    };
    let zones = zones_of(&[together("1", "db", "db"), together("2", "db", "db")], &zoned());
    assert!(zones[0].is_some() && zones[0] == zones[1], "{zones:?}");
    assert_eq!(zones_of(&[together("1", "web", "db")], &zoned()), [None]);
    let pods = [of_app("1", "db"), together("2", "web", "db")];
    let zones = zones_of(&pods, &zoned());
    assert!(zones[1].is_some() && zones[0] == zones[1], "{zones:?}");
}

#[test]
fn spread_counts_the_emptiest_zone() {
    let spread = |name: &str| {
        let mut pod = of_app(name, "web");
        demands(&mut pod).spread.push(SpreadConstraint {
            max_skew: 1,
            topology_key: "zone".into(),
            selector: app_in_zone("web").selector,
            min_domains: None,
            honor_node_affinity: true,
            honor_taints: false,
        });
        pod
    };
    let pods: Vec<Pod> = (0..8).map(|i| spread(&i.to_string())).collect();
    let zones = zones_of(&pods, &zoned());
    let count = |zone| zones.iter().flatten().filter(|z| *z == zone).count();
    // Zones b and c have two GPUs each, so that zone a may have three of its four.
    assert_eq!((count("a"), count("b"), count("c")), (3, 2, 2));
    let mut picky = spread("picky");
    demands(&mut picky).spread[0].min_domains = Some(4);
    demands(&mut picky).spread[0].max_skew = 1;
    assert!(zones_of(std::slice::from_ref(&picky), &zoned())[0].is_some());
    assert_eq!(zones_of(&[picky.clone(), picky.clone(), picky.clone(), picky], &zoned())[3], None);
}

#[test]
fn host_ports_and_node_terms_hold() {
    let fleet = zoned();
    let with_port = |name| {
        let mut pod = of_app(name, "web");
        let port = HostPort { ip: "".into(), protocol: "TCP".into(), port: 8080 };
        demands(&mut pod).host_ports.push(port);
        let operator = Operator::In(vec!["a".into()]);
        demands(&mut pod).node_terms = Some(vec![NodeSelectorTerm {
            labels: vec![Requirement { key: "zone".into(), operator }],
            name: Vec::new(),
        }]);
        pod
    };
    let pods = [with_port("1"), with_port("2"), with_port("3")];
    let placed = nodes_of(&pods, &fleet, Strategy::Default);
    assert_eq!(placed.iter().flatten().count(), 2);
    let refusal = place(&pods, &fleet, &Demand::default(), Strategy::Default).remove(2);
    let text = refusal.expect_err("two nodes in the zone").to_string();
    assert!(text.contains("2 host port taken"), "{text}");
    let mut contradictory = with_port("4");
    demands(&mut contradictory).node_selector.push(("zone".into(), "b".into()));
    let refusal = place(&[contradictory], &fleet, &Demand::default(), Strategy::Default).remove(0);
    let text = refusal.expect_err("contradictory").to_string();
    assert!(text.contains("4 node selector or affinity does not match"), "{text}");
}

#[test]
fn the_check_finds_neighbors_that_may_not_be() {
    let fleet = zoned();
    let at =
        |node, gpus| Some(Assignment { node: NodeIndex(node), devices: Devices::Whole { gpus } });
    let kinds = |pods: &[Pod], placed: &[Option<Assignment>]| {
        check(pods, &fleet, placed).into_iter().map(|fault| fault.kind).collect::<Vec<_>>()
    };
    let mut alone = of_app("alone", "web");
    demands(&mut alone).pod_anti_affinity.push(app_in_zone("web"));
    let pair = [alone, of_app("other", "web")];
    // Nodes 0 and 1 are in one zone, node 2 in another.
    let forbidden = FaultKind::AntiAffinity { neighbor: "other".into() };
    assert_eq!(kinds(&pair, &[at(0, 1), at(1, 1)]), [forbidden]);
    assert_eq!(kinds(&pair, &[at(0, 1), at(2, 1)]), []);
    let mut together = of_app("together", "web");
    demands(&mut together).pod_affinity.push(app_in_zone("db"));
    let pair = [together, of_app("db", "db")];
    assert_eq!(kinds(&pair, &[at(0, 1), at(2, 1)]), [FaultKind::Affinity]);
    assert_eq!(kinds(&pair, &[at(0, 1), at(1, 1)]), []);
    let with_port = |name| {
        let mut pod = of_app(name, "web");
        let port = HostPort { ip: "".into(), protocol: "TCP".into(), port: 80 };
        demands(&mut pod).host_ports.push(port);
        pod
    };
    let pair = [with_port("1"), with_port("2")];
    let taken = || FaultKind::HostPort { port: 80 };
    assert_eq!(kinds(&pair, &[at(0, 1), at(0, 2)]), [taken(), taken()]);
    assert_eq!(kinds(&pair, &[at(0, 1), at(1, 1)]), []);
}

/// Numbers from a seed: SplitMix64.
pub(crate) struct Draws(pub(crate) u64);

impl Draws {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        crate::strategy::mix(self.0) % limit
    }
}

fn random_fleet(draws: &mut Draws) -> Fleet {
    let node_of = |index: u64, draws: &mut Draws| {
        let sharing = match draws.below(5) {
            0 => Sharing::Exclusive,
            1 => Sharing::TimeSlicing { replicas: 3 },
            2 => Sharing::Mps { replicas: 2 },
            3 => Sharing::Mig(MigTable::Listed(&A100_40GB)),
            _ => Sharing::Fraction,
        };
        let gpus = vec![Gpu::new(sharing, 40_960); draws.below(4) as usize];
        let mut node = node(&format!("n{index}"), gpus);
        node.free.cpu_milli = draws.below(12) * 1_000;
        node.free.pods = draws.below(6) as u32;
        node.gpu_model = ["A100", "T4"][draws.below(2) as usize].into();
        node.schedulable = draws.below(6) > 0;
        node.labels = [("zone", ["a", "b"][draws.below(2) as usize])].into_iter().collect();
        node
    };
    let nodes = draws.below(6);
    fleet((0..nodes).map(|index| node_of(index, draws)).collect())
}

fn random_pod(index: u64, draws: &mut Draws) -> Pod {
    let profiles = ["1g.5gb", "1g.10gb", "2g.10gb", "3g.20gb", "7g.40gb", "9g.1gb"];
    let gpu = match draws.below(7) {
        0 => GpuRequest::None,
        1 => GpuRequest::Whole { count: draws.below(5) as u16 },
        2 => GpuRequest::Replicas { count: draws.below(4) as u16 },
        3 => GpuRequest::Mig { profile: profiles[draws.below(6) as usize].into() },
        4 => GpuRequest::MigAtLeast {
            compute_slices: draws.below(9) as u8,
            memory_mib: draws.below(50_000) as u32,
        },
        _ => GpuRequest::Share {
            compute_milli: draws.below(1_100) as u16,
            memory_mib: draws.below(50_000) as u32,
        },
    };
    let mut pod = Pod { priority: draws.below(2) as i32, ..of_app(&format!("p{index}"), "web") };
    pod.kind.request.gpu = gpu;
    pod.kind.request.cpu_milli = draws.below(5) * 700;
    if draws.below(4) == 0 {
        pod.kind.request.models = vec![["A100", "H100", "T4"][draws.below(3) as usize].into()];
    }
    pod.kind.request.isolation = [Isolation::None, Isolation::Driver][draws.below(2) as usize];
    match draws.below(8) {
        0 => demands(&mut pod).pod_anti_affinity.push(app_in_zone("web")),
        1 => demands(&mut pod).pod_affinity.push(app_in_zone("web")),
        _ => {}
    }
    if draws.below(4) == 0 {
        pod.gang = Some(["g", "h"][draws.below(2) as usize].into());
    }
    pod
}

#[test]
fn every_plan_of_every_strategy_passes_the_check() {
    // Read when the test is compiled: the environment is closed to a pure room.
    let seeds = match std::option_env!("SEED") {
        Some(seed) => {
            let seed: u64 = seed.parse().expect("a number");
            seed..seed + 1
        }
        None => 0..200,
    };
    let mut placed = 0;
    for seed in seeds {
        let mut draws = Draws(seed);
        let fleet = random_fleet(&mut draws);
        let count = draws.below(16);
        let pods: Vec<Pod> = (0..count).map(|index| random_pod(index, &mut draws)).collect();
        for strategy in STRATEGIES {
            let results = place(&pods, &fleet, &Demand::default(), strategy);
            let plan: Vec<Option<Assignment>> =
                results.iter().map(|result| result.as_ref().ok().copied()).collect();
            assert_eq!(check(&pods, &fleet, &plan), [], "seed={seed} {strategy:?}");
            placed += plan.iter().flatten().count();
            for refusal in results.iter().filter_map(|result| result.as_ref().err()) {
                assert!(!refusal.to_string().is_empty());
            }
            assert_eq!(results, place(&pods, &fleet, &Demand::default(), strategy), "seed={seed}");
        }
    }
    assert!(placed > 0);
}
