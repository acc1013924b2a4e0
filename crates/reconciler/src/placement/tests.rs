use std::collections::BTreeMap;
use std::sync::Arc;

use gpu_autoscaler_model::*;

use super::*;
use crate::{Outcome, reconcile};

const SECS: Duration = Duration::from_secs(1);

fn at(secs: u64) -> Timestamp {
    Timestamp::EPOCH.after(SECS * secs as u32)
}

fn gpus(count: u32) -> Resources {
    let whole = GpuCount { resource: GpuResource::Whole, count };
    let gpus = if count > 0 { vec![whole] } else { vec![] };
    Resources { cpu: MilliCpu::new(1_000), memory: Bytes::new(1), gpus, extended: vec![] }
}

fn node(name: &str, count: u32) -> Node {
    Node {
        name: name.into(),
        uid: name.into(),
        created: at(0),
        labels: [("zone", &name[..1])].into_iter().collect(),
        taints: vec![],
        ready: true,
        unschedulable: false,
        allocatable: Resources { cpu: MilliCpu::new(64_000), ..gpus(count) },
        pods_max: Some(110),
        instance_type: None,
        region: None,
        zone: None,
        capacity_type: None,
        gpu_model: None,
        gpus: Some(count),
        sharing: None,
    }
}

fn pod(name: &str, node: Option<&str>, count: u32) -> Pod {
    Pod {
        uid: name.into(),
        key: ObjectKey::new("ml", name),
        resource_version: "1".into(),
        created: at(0),
        started: None,
        node: node.map(NodeName::from),
        phase: if node.is_some() { PodPhase::Running } else { PodPhase::Pending },
        deleting: false,
        deletion_due: None,
        containers: ContainerState::default(),
        requests: Resources { memory: Bytes::new(0), ..gpus(count) },
        labels: [("app", "web")].into_iter().collect(),
        annotations: Labels::default(),
        owner: None,
        priority: 0,
        gates: vec![],
        constraints: Arc::default(),
        unschedulable: None,
    }
}

fn seen(nodes: Vec<Node>, pods: Vec<Pod>) -> Delta {
    Delta {
        nodes: nodes.into_iter().map(Change::Upsert).collect(),
        pods: pods.into_iter().map(Change::Upsert).collect(),
        ..Delta::default()
    }
}

fn tick(secs: u64, state: &mut State, seen: &Delta) -> Outcome {
    reconcile(at(secs), state, seen, &Policy::published())
}

/// `pod: node`, or `pod: why`.
fn fits(outcome: &Outcome) -> Vec<String> {
    let line = |waiting: &WaitingView| match &waiting.fit {
        Fit::On { node } => format!("{}: {node}", waiting.pod.name),
        Fit::Nowhere(no_fit) => {
            format!("{}: {} {}", waiting.pod.name, no_fit.reason.as_str(), no_fit.message)
        }
    };
    outcome.view.waiting.iter().map(line).collect()
}

#[test]
fn pods_that_wait_are_placed_together_and_a_refusal_says_what_would_make_it_fit() {
    let mut second = pod("second", None, 8);
    second.unschedulable = Some("0/2 nodes are available".into());
    let pods = vec![pod("bound", Some("a"), 3), pod("first", None, 4), second, pod("cpu", None, 0)];
    let outcome = tick(1, &mut State::new(), &seen(vec![node("a", 4), node("b", 4)], pods));
    let expected = [
        "first: b",
        "second: NoRoom 0 of 2 nodes fit: 2 GPUs not shared in the way that is asked, or too few; \
         it would fit on a node of 8 GPUs, where no suitable one has more than 4",
    ];
    assert_eq!(fits(&outcome), expected);
    let says = outcome.view.waiting[1].scheduler_says.as_deref();
    assert_eq!(says, Some("0/2 nodes are available"));
}

#[test]
fn a_pod_with_a_foreign_gate_or_scheduler_is_left_to_the_scheduler() {
    let uncovered = vec!["spec.schedulerName".into()];
    let mut foreign = pod("foreign", None, 1);
    foreign.constraints = Arc::new(Constraints { uncovered, ..Constraints::default() });
    let outcome = tick(1, &mut State::new(), &seen(vec![node("a", 4)], vec![foreign]));
    let expected = "foreign: LeftToScheduler left to kube-scheduler, since packing does not cover \
                    `spec.schedulerName`";
    assert_eq!(fits(&outcome), [expected]);
}

#[test]
fn a_pod_goes_where_its_volume_is_once_its_claim_is_bound() {
    let mut waiting = pod("w", None, 1);
    let claims = vec![ClaimName { name: "data".into(), ephemeral: false }];
    waiting.constraints = Arc::new(Constraints { claims, ..Constraints::default() });
    let claim = |bound| VolumeClaim {
        uid: "claim".into(),
        key: ObjectKey::new("ml", "data"),
        class: "".into(),
        volume: Some("v".into()),
        bound,
        lost: false,
        deleting: false,
        one_pod: false,
        selected_node: None,
        owner: None,
    };
    let requirement = Requirement { key: "zone".into(), operator: Operator::In(vec!["b".into()]) };
    let term = NodeSelectorTerm { labels: vec![requirement], name: vec![] };
    let volume = Volume {
        uid: "v".into(),
        name: "v".into(),
        class: "".into(),
        is_free: false,
        driver: None,
        nodes: Some(vec![term]),
        zones: vec![],
        uncovered: None,
    };
    let storage = |objects: Vec<StorageObject>| Delta {
        storage: objects.into_iter().map(Change::Upsert).collect(),
        ..Delta::default()
    };
    let mut state = State::new();
    let first = tick(10, &mut state, &seen(vec![node("a", 4), node("b", 4)], vec![waiting]));
    let unknown = "w: LeftToScheduler left to kube-scheduler, since packing does not cover \
                   `spec.volumes[].persistentVolumeClaim`";
    assert_eq!(fits(&first), [unknown]);
    let csi_node = StorageNode { uid: "a".into(), limited: vec![] };
    let known = storage(vec![
        StorageObject::Node(csi_node),
        StorageObject::Volume(volume),
        StorageObject::Claim(claim(false)),
    ]);
    let unbound = "w: VolumeClaim claim `ml/data` has no volume, and its class makes none for a \
                   pod that waits; it would fit once the claim is bound";
    assert_eq!(fits(&tick(20, &mut state, &known)), [unbound]);
    let bound = storage(vec![StorageObject::Claim(claim(true))]);
    assert_eq!(fits(&tick(30, &mut state, &bound)), ["w: b"]);
}

#[test]
fn gpus_that_a_claim_asks_for_are_shown_and_counted_once() {
    let class = DeviceClass {
        uid: "class".into(),
        name: "gpu.nvidia.com".into(),
        selectors: Some(vec![DeviceSelector(vec![DeviceTest::Driver("gpu.nvidia.com".into())])]),
        extended_resource: None,
    };
    let request = DeviceRequest { class: "gpu.nvidia.com".into(), selectors: vec![], count: 2 };
    let claim = |name: &str, requests| DeviceClaim {
        uid: format!("claim-{name}").into(),
        key: ObjectKey::new("ml", name),
        owner: None,
        deleting: false,
        requests,
        allocation: None,
    };
    let asking = |name: &str, claims: &[&str], node, count| {
        let mut pod = pod(name, node, count);
        let claims = claims.iter().map(|c| ClaimName { name: (*c).into(), ephemeral: false });
        let device_claims = claims.collect();
        pod.constraints = Arc::new(Constraints { device_claims, ..Constraints::default() });
        pod
    };
    let mut seen = seen(
        vec![node("a", 4)],
        vec![
            asking("both", &["two"], None, 1),
            asking("claims", &["two", "more"], None, 0),
            asking("runs", &["two"], Some("a"), 0),
            asking("vague", &["vague"], None, 1),
        ],
    );
    seen.devices = vec![
        Change::Upsert(DeviceObject::Class(class)),
        Change::Upsert(DeviceObject::Claim(claim("two", Some(vec![request.clone()])))),
        Change::Upsert(DeviceObject::Claim(claim("more", Some(vec![request])))),
        Change::Upsert(DeviceObject::Claim(claim("vague", None))),
    ];
    let outcome = tick(1, &mut State::new(), &seen);
    let waiting = outcome.view.waiting.iter();
    let told: Vec<String> = waiting
        .map(|w| format!("{} {:?}: {}", w.pod.name, w.gpus, w.device_claims.join(", ")))
        .collect();
    let two = "claim `ml/two`: 2 gpu.nvidia.com";
    let expected = [
        format!("both Some(3): {two}"),
        format!("claims Some(4): {two}, claim `ml/more`: 2 gpu.nvidia.com"),
        "vague None: claim `ml/vague`: more than counts of devices".to_owned(),
    ];
    assert_eq!(told, expected);
    // Two GPUs by name, two claims of two.
    assert_eq!(outcome.view.totals.gpus_requested, 6);
}

#[test]
fn nothing_is_placed_again_until_something_changes_and_the_pause_is_over() {
    let mut state = State::new();
    let nodes = || vec![node("a", 4)];
    let first = tick(10, &mut state, &seen(nodes(), vec![pod("w", None, 4)]));
    assert_eq!(fits(&first), ["w: a"]);
    assert_eq!(state.placement.due(), None);
    // The same objects once more are no change.
    let same = tick(20, &mut state, &seen(nodes(), vec![pod("w", None, 4)]));
    assert_eq!(same.view.generation, first.view.generation);
    assert_eq!(state.placement.due(), None);
    let bound = seen(vec![], vec![pod("other", Some("a"), 1)]);
    let now = at(20).after(Duration::from_millis(1));
    state.placement.not_before = Some(now.after(SECS));
    let early = reconcile(now, &mut state, &bound, &Policy::published());
    assert_eq!(fits(&early), ["w: a"]);
    assert_eq!(early.wake, now.after(SECS), "it is called when the pause is over");
    let late = tick(22, &mut state, &Delta::default());
    assert!(fits(&late)[0].starts_with("w: NoRoom"), "{:?}", fits(&late));
    let gone = Delta { pods: vec![Change::Delete("w".into())], ..Delta::default() };
    assert_eq!(fits(&tick(23, &mut state, &gone)), [""; 0]);
}

#[test]
fn what_is_looked_at_in_one_go_is_bounded_and_the_rest_is_told() {
    let mut policy = Policy::published();
    policy.placing_examined_max = 3;
    let pods = (1..=4).map(|count| pod(&format!("p{count}"), None, count)).collect();
    let seen = seen(vec![node("a", 8), node("b", 8)], pods);
    let outcome = reconcile(at(1), &mut State::new(), &seen, &policy);
    let lines = fits(&outcome);
    assert!(lines[0].starts_with("p1: Postponed"), "{lines:?}");
    assert_eq!(lines[3], "p4: a");
}

#[test]
fn a_clock_that_is_set_back_does_not_stop_placing() {
    let mut state = State::new();
    let _ = tick(1_000_000, &mut state, &seen(vec![node("a", 4)], vec![pod("w", None, 1)]));
    let outcome = tick(10, &mut state, &seen(vec![], vec![pod("x", None, 1)]));
    assert_eq!(fits(&outcome), ["w: a", "x: a"]);
}

/// Numbers from a seed: SplitMix64.
struct Draws(u64);

impl Draws {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % limit
    }
}

fn random_pod(draws: &mut Draws) -> Pod {
    let name = format!("p{}", draws.below(20));
    let home = ["a1", "a2", "b1", "b2"][draws.below(4) as usize];
    let mut pod = pod(&name, (draws.below(2) == 0).then_some(home), draws.below(4) as u32);
    pod.priority = draws.below(2) as i32;
    pod.deleting = draws.below(8) == 0;
    if draws.below(6) == 0 {
        pod.phase = PodPhase::Succeeded;
    }
    let term = PodTerm {
        selector: Some(LabelSelector::default()),
        namespaces: NamespaceScope::All,
        topology_key: "zone".into(),
    };
    let mut constraints = Constraints::default();
    match draws.below(5) {
        0 => constraints.pod_affinity.push(term),
        1 => constraints.pod_anti_affinity.push(term),
        _ => {}
    }
    pod.constraints = Arc::new(constraints);
    pod
}

#[test]
fn a_rebuilt_state_places_as_one_that_saw_every_change() {
    for seed in 0..40 {
        let mut draws = Draws(seed);
        let mut state = State::new();
        let mut nodes: BTreeMap<NodeName, Node> = BTreeMap::new();
        let mut pods: BTreeMap<Uid, Pod> = BTreeMap::new();
        for step in 0..30 {
            let mut delta = Delta::default();
            for _ in 0..draws.below(4) {
                let pod = random_pod(&mut draws);
                if draws.below(4) == 0 {
                    pods.remove(&pod.uid);
                    delta.pods.push(Change::Delete(pod.uid));
                } else {
                    pods.insert(pod.uid.clone(), pod.clone());
                    delta.pods.push(Change::Upsert(pod));
                }
            }
            let mut node = node(["b2", "a1", "b1", "a2"][draws.below(4) as usize], 4);
            if draws.below(5) == 0 {
                nodes.remove(&node.name);
                delta.nodes.push(Change::Delete(node.name));
            } else {
                node.unschedulable = draws.below(3) == 0;
                nodes.insert(node.name.clone(), node.clone());
                delta.nodes.push(Change::Upsert(node));
            }
            let now = 20 * (step + 1);
            let live = tick(now, &mut state, &delta);
            let all = seen(nodes.values().cloned().collect(), pods.values().cloned().collect());
            let policy = Policy::published();
            let mut rebuilt = State::rebuild(at(now), &all, &policy);
            let again = tick(now, &mut rebuilt, &Delta::default());
            assert_eq!(live.view.waiting, again.view.waiting, "seed={seed} step={step}");
        }
    }
}
