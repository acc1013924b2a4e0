//! Who may be whose neighbor: affinity, spread, ports, preferences, and what the check says.

use gpu_autoscaler_model::{HostPort, SpreadConstraint};

use super::*;

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
