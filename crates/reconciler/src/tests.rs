mod exporters;
mod faults;
mod history;
mod judgement;
mod past;

use std::sync::Arc;
use std::time::Duration;

use expect_test::{Expect, expect};
use gpu_autoscaler_model::*;

use crate::{Outcome, Policy, State, admit, reconcile};

fn at(secs: u64) -> Timestamp {
    Timestamp::EPOCH.after(Duration::from_secs(secs))
}

fn node(name: &str, gpus: u32) -> Change<Node, NodeName> {
    let whole = GpuCount { resource: GpuResource::Whole, count: gpus };
    Change::Upsert(Node {
        name: name.into(),
        uid: format!("uid-{name}").into(),
        created: at(0),
        labels: Labels::default(),
        taints: vec![],
        ready: true,
        unschedulable: false,
        allocatable: Resources { gpus: vec![whole], ..Resources::default() },
        pods_max: None,
        instance_type: Some("g5.12xlarge".into()),
        region: Some("us-east-1".into()),
        zone: None,
        capacity_type: None,
        gpu_model: GpuModel::parse("NVIDIA A10G"),
        gpus: Some(gpus),
        sharing: None,
    })
}

fn pod(name: &str, uid: &str, node: Option<&str>, gpus: u32) -> Pod {
    Pod {
        uid: uid.into(),
        key: ObjectKey::new("ml", name),
        resource_version: "1".into(),
        created: at(0),
        started: node.map(|_| at(0)),
        node: node.map(NodeName::from),
        phase: if node.is_some() { PodPhase::Running } else { PodPhase::Pending },
        deleting: false,
        deletion_due: None,
        containers: ContainerState::default(),
        requests: Resources {
            gpus: vec![GpuCount { resource: GpuResource::Whole, count: gpus }],
            ..Resources::default()
        },
        labels: Labels::default(),
        annotations: Labels::default(),
        owner: None,
        priority: 0,
        gates: vec![],
        constraints: Default::default(),
        unschedulable: None,
    }
}

fn sample(secs: u64, node: &str, gpu: &str, pod: Option<&str>, activity: f64) -> GpuSample {
    GpuSample {
        at: at(secs),
        exporter: Default::default(),
        node: node.into(),
        device: Device { uuid: gpu.into(), instance: None },
        model: None,
        holder: pod.map(|pod| Holder {
            pod: ObjectKey::new("ml", pod),
            uid: None,
            container: "main".into(),
        }),
        scope: SampleScope::Exclusive,
        activity: Ratio::new(activity)
            .map(|ratio| Activity { ratio, source: ActivitySource::SmActive }),
        fb_used: Bytes::from_mib(2400),
        fb_total: Bytes::from_mib(24000),
        fb_free: None,
        fb_reserved: None,
        hardware: HardwareReading::default(),
    }
}

/// Ten minutes of samples, one in thirty seconds.
fn steady(node: &str, gpu: &str, pod: Option<&str>, activity: f64) -> Vec<GpuSample> {
    (0..=20).map(|i| sample(i * 30, node, gpu, pod, activity)).collect()
}

fn world() -> Delta {
    let pods = [
        pod("idle", "u1", Some("n1"), 1),
        pod("busy", "u2", Some("n1"), 2),
        pod("dark", "u3", Some("n2"), 1),
        pod("waits", "u4", None, 8),
    ];
    let samples = [
        steady("n1", "GPU-a", Some("idle"), 0.0),
        steady("n1", "GPU-b", Some("busy"), 0.9),
        steady("n1", "GPU-c", Some("busy"), 0.8),
        steady("n1", "GPU-d", None, 0.0),
    ];
    Delta {
        nodes: vec![node("n1", 4), node("n2", 4)],
        pods: pods.into_iter().map(Change::Upsert).collect(),
        samples: samples.concat(),
        ..Delta::default()
    }
}

fn tick(secs: u64, state: &mut State, seen: &Delta) -> Outcome {
    reconcile(at(secs), state, seen, &Policy::published())
}

fn render(outcome: &Outcome) -> String {
    let mut out = String::new();
    for f in outcome.view.findings.iter() {
        let saving = f.recommendation.saving.map_or("?".into(), |rate| format!("{rate:?}"));
        out.push_str(&format!("{} {} {:.0} saves {saving}\n", f.kind, f.pod, f.score.total()));
    }
    for u in outcome.view.unknown.iter() {
        let pod = u.pod.as_ref().map_or("-".into(), |p| p.to_string());
        out.push_str(&format!("unknown {} x{} {pod}: {}\n", u.node, u.count, u.why));
    }
    for refusal in &outcome.report.refusals {
        out.push_str(&format!("refused {}: {}\n", refusal.pod, refusal.why));
    }
    for effect in &outcome.effects {
        match &effect.action {
            Action::Announce(a) => {
                out.push_str(&format!("announce {}: {}\n", a.event.name, a.message))
            }
            Action::SetConditions { conditions, .. } => {
                for c in conditions {
                    out.push_str(&format!(
                        "{:?}={:?} {}: {}\n",
                        c.kind, c.holds, c.reason, c.message
                    ));
                }
            }
        }
    }
    out
}

fn check(outcome: &Outcome, expected: Expect) {
    expected.assert_eq(&render(outcome));
}

#[test]
fn the_idle_pod_is_found_the_busy_one_is_not_and_the_dark_one_is_unknown() {
    check(
        &tick(600, &mut State::new(), &world()),
        expect![[r#"
            Idle ml/idle 96 saves 1.418 USD/h
            unknown n2 x1 ml/dark: no exporter reports it
            unknown n2 x3 -: no exporter reports it
            refused ml/waits: not scheduled yet
            announce idle.89416f6a2271fe56: GPU computed nothing for 600 s: mean SM_ACTIVE 0.0 % (p95 0.0 %), framebuffer 10.0 % (preallocated); waste score 96 of 100; stop it: saves $1.42/h
        "#]],
    );
}

#[test]
fn an_effect_is_asked_for_once_while_it_is_under_way() {
    let mut state = State::new();
    assert_eq!(tick(600, &mut state, &world()).effects.len(), 1);
    assert_eq!(tick(601, &mut state, &Delta::default()).effects.len(), 0);
    let later = tick(660, &mut state, &Delta::default()).effects;
    assert_eq!(later.len(), 1, "no receipt and no event by its deadline: asked for again");
}

#[test]
fn an_announced_finding_is_not_announced_again_after_a_restart() {
    let first = tick(600, &mut State::new(), &world());
    let Action::Announce(made) = &first.effects[0].action else { panic!("an announcement") };
    let event = AnnouncedEvent {
        uid: "e1".into(),
        key: ObjectKey::new("ml", made.event.name.clone()),
        at: Some(at(600)),
    };
    let mut snapshot = world();
    snapshot.events.push(Change::Upsert(event));
    let mut rebuilt = State::rebuild(at(610), &snapshot, &Policy::published());
    let outcome = tick(610, &mut rebuilt, &Delta::default());
    assert_eq!(outcome.effects, []);
    assert_eq!(outcome.view.findings[0].since, at(600));
}

#[test]
fn an_expired_event_is_announced_anew() {
    let mut state = State::new();
    let first = tick(600, &mut state, &world());
    let Action::Announce(made) = &first.effects[0].action else { panic!("an announcement") };
    let key = ObjectKey::new("ml", made.event.name.clone());
    let event = AnnouncedEvent { uid: "e1".into(), key, at: Some(at(600)) };
    let seen = Delta { events: vec![Change::Upsert(event)], ..Delta::default() };
    assert_eq!(tick(605, &mut state, &seen).effects, []);
    let gone = Delta { events: vec![Change::Delete("e1".into())], ..Delta::default() };
    assert_eq!(tick(670, &mut state, &gone).effects.len(), 1);
}

#[test]
fn a_pod_of_a_reused_name_starts_with_nothing() {
    let mut state = State::new();
    let _ = tick(600, &mut state, &world());
    let mut again = pod("idle", "u9", Some("n1"), 1);
    again.created = at(610);
    again.started = Some(at(610));
    let seen = Delta {
        pods: vec![Change::Delete("u1".into()), Change::Upsert(again)],
        samples: vec![
            sample(605, "n1", "GPU-a", Some("idle"), 0.0),
            sample(630, "n1", "GPU-a", Some("idle"), 0.0),
        ],
        ..Delta::default()
    };
    let outcome = tick(640, &mut state, &seen);
    assert_eq!(outcome.view.findings.len(), 0);
    let unknown = outcome.view.unknown.iter().find(|u| u.node.as_str() == "n1").expect("young");
    assert_eq!(unknown.why, UnknownReason::TooShort { observed_secs: 0, needed_secs: 300 });
}

#[test]
fn conditions_say_what_was_found_and_are_not_repeated() {
    let mut policy = PolicyObject {
        uid: "p1".into(),
        kind: PolicyKind::AutoscalingPolicy,
        key: ObjectKey::new("", "fleet"),
        resource_version: "7".into(),
        generation: 2,
        enabled: true,
        dry_run: true,
        faults: vec![],
        conditions: vec![],
    };
    let mut seen = world();
    seen.policies.push(Change::Upsert(policy.clone()));
    let mut state = State::new();
    let outcome = tick(600, &mut state, &seen);
    check(
        &outcome,
        expect![[r#"
            Idle ml/idle 96 saves 1.418 USD/h
            unknown n2 x1 ml/dark: no exporter reports it
            unknown n2 x3 -: no exporter reports it
            refused ml/waits: not scheduled yet
            announce idle.89416f6a2271fe56: GPU computed nothing for 600 s: mean SM_ACTIVE 0.0 % (p95 0.0 %), framebuffer 10.0 % (preallocated); waste score 96 of 100; stop it: saves $1.42/h
            Ready=Some(true) DryRun: spec.dryRun is true: only reported
            TelemetryComplete=Some(false) GpusUnknown: 4 not measured on node `n2`
            WasteFound=Some(true) WasteFound: pods: 1 Idle
            Degraded=Some(false) AllPartsWork: every part of the controller works
        "#]],
    );
    let Some(Action::SetConditions { conditions, .. }) = outcome.effects.last().map(|e| &e.action)
    else {
        panic!("conditions")
    };
    policy.conditions.clone_from(conditions);
    policy.resource_version = "8".into();
    let seen = Delta { policies: vec![Change::Upsert(policy)], ..Delta::default() };
    assert_eq!(tick(630, &mut state, &seen).effects, []);
}

#[test]
fn conflicts_silence_and_refusals_are_tried_again_later() {
    let receipt = |effect, secs, result| Delta {
        receipts: vec![Receipt { effect, at: at(secs), result }],
        ..Delta::default()
    };
    let why: Arc<str> = "why".into();
    let cases = [
        (ReceiptResult::Conflict, 2),
        (ReceiptResult::Unanswered { why: why.clone() }, 2),
        (ReceiptResult::Applied, 60),
        (ReceiptResult::Refused { why }, 4),
    ];
    for (result, pause) in cases {
        let mut state = State::new();
        let id = tick(600, &mut state, &world()).effects[0].id;
        let mut seen = receipt(id, 600, result.clone());
        // Keeps the exporters alive for as long as the test looks ahead.
        for secs in (620..=900).step_by(20) {
            seen.samples.push(sample(secs, "n1", "GPU-a", Some("idle"), 0.0));
        }
        let ahead = Policy { clock_ahead_max: Duration::from_secs(600), ..Policy::published() };
        let _ = reconcile(at(600), &mut state, &seen, &ahead);
        let at_pause =
            |secs: u64| reconcile(at(600 + secs), &mut state.clone(), &Delta::default(), &ahead);
        assert_eq!(at_pause(pause - 1).effects.len(), 0, "{result:?}");
        assert_eq!(at_pause(pause).effects.len(), 1, "{result:?}");
    }
}

#[test]
fn a_write_that_stays_refused_is_tried_ever_less_often_and_at_least_once_a_minute() {
    let mut state = State::new();
    let mut effect = tick(600, &mut state, &world()).effects[0].id;
    let (mut refused, mut pauses) = (600, Vec::new());
    for secs in 601..=800 {
        let result = ReceiptResult::Refused { why: "403".into() };
        let receipts = vec![Receipt { effect, at: at(refused), result }];
        let seen = if secs == refused + 1 {
            Delta { receipts, ..Delta::default() }
        } else {
            // Its exporter stays alive.
            let samples = vec![sample(secs, "n1", "GPU-a", Some("idle"), 0.0)];
            Delta { samples, ..Delta::default() }
        };
        if let Some(again) = tick(secs, &mut state, &seen).effects.first() {
            pauses.push(secs - refused);
            (effect, refused) = (again.id, secs);
        }
    }
    assert_eq!(pauses, [4, 4, 8, 16, 32, 60, 60]);
}

#[test]
fn samples_from_the_future_or_of_no_node_are_counted_and_not_used() {
    let seen = Delta {
        nodes: vec![node("n1", 1)],
        samples: vec![
            sample(9999, "n1", "GPU-a", None, 0.0),
            sample(10, "elsewhere", "GPU-b", None, 0.0),
        ],
        ..Delta::default()
    };
    let outcome = tick(10, &mut State::new(), &seen);
    assert_eq!((outcome.report.samples_ahead, outcome.report.samples_unplaced), (1, 1));
    assert!(outcome.view.devices.is_empty());
}

#[test]
fn an_exporter_that_calls_the_node_by_its_own_name_is_placed_by_its_pods() {
    let seen = Delta {
        nodes: vec![node("n1", 1)],
        pods: vec![Change::Upsert(pod("idle", "u1", Some("n1"), 1))],
        samples: steady("dcgm-exporter-x7k2p", "GPU-a", Some("idle"), 0.0),
        ..Delta::default()
    };
    let outcome = tick(600, &mut State::new(), &seen);
    assert_eq!(outcome.view.findings.len(), 1);
}

#[test]
fn admission_lets_everything_through_and_says_why() {
    let view = tick(0, &mut State::new(), &Delta::default()).view;
    let mut request = PodRequest {
        key: ObjectKey::new("ml", "x-"),
        requests: Resources::default(),
        labels: Labels::default(),
        annotations: Labels::default(),
        scheduler: "default-scheduler".into(),
    };
    assert_eq!(admit(&request, &view), Verdict::Unchanged(LeftAlone::NoGpu));
    request.requests = pod("x", "u", None, 1).requests;
    assert_eq!(admit(&request, &view), Verdict::Unchanged(LeftAlone::NoPolicy));
    request.annotations = Labels::new([("gpu-autoscaler.io/optimize".into(), "false".into())]);
    assert_eq!(admit(&request, &view), Verdict::Unchanged(LeftAlone::OptedOut));
}

#[test]
fn the_loop_asks_to_be_called_again_and_never_at_once() {
    let mut state = State::new();
    let outcome = tick(600, &mut state, &world());
    assert_eq!(outcome.wake, at(630), "the next judgement");
    assert!(tick(630, &mut state, &Delta::default()).wake > at(630));
}

#[test]
fn a_shared_gpu_without_a_line_per_pod_accuses_none_of_those_that_share_it() {
    let Change::Upsert(mut shared) = node("n1", 1) else { unreachable!("it is there") };
    shared.sharing = Some(NodeSharing { strategy: SharingStrategy::TimeSlicing, replicas: 4 });
    let pods = [pod("named", "u1", Some("n1"), 1), pod("unnamed", "u2", Some("n1"), 1)];
    let mut state = State::new();
    let seen = Delta {
        nodes: vec![Change::Upsert(shared)],
        pods: pods.into_iter().map(Change::Upsert).collect(),
        // The exporter names the last holder that it came across.
        samples: steady("n1", "GPU-a", Some("named"), 0.0),
        ..Delta::default()
    };
    let outcome = tick(600, &mut state, &seen);
    assert!(outcome.view.findings.is_empty(), "{:?}", outcome.view.findings);
    let why: Vec<_> = outcome.view.unknown.iter().map(|unknown| &unknown.why).collect();
    assert_eq!(why, [&UnknownReason::SharedWithoutProcesses; 2]);
}

#[test]
fn a_node_is_underutilized_only_when_every_gpu_of_it_is_known_to_be() {
    let mut seen = world();
    let outcome = tick(600, &mut State::new(), &seen);
    let brief = |outcome: &Outcome| -> Vec<(String, bool, Option<f64>, Option<bool>)> {
        let nodes = outcome.view.nodes.iter();
        let brief = nodes.map(|node| {
            let activity = node.activity.map(Ratio::as_f64);
            (node.name.to_string(), node.exporter_up, activity, node.underutilized)
        });
        brief.collect()
    };
    // Two busy GPUs, of 0.9 and 0.8 but measured as one pod, an idle and a free one.
    let n1 = ("n1".to_owned(), true, Some(0.425), Some(false));
    let n2 = ("n2".to_owned(), false, None, None);
    assert_eq!(brief(&outcome), [n1, n2]);
    assert_eq!(outcome.view.totals.nodes_underutilized, Some(0));

    // The same node with the busy pod's GPUs silent: the idle half says nothing about the node.
    seen.samples.retain(|sample| ["GPU-a", "GPU-d"].contains(&sample.device.uuid.as_str()));
    let outcome = tick(600, &mut State::new(), &seen);
    assert_eq!(brief(&outcome)[0], ("n1".to_owned(), true, None, None));
    assert_eq!(outcome.view.totals.nodes_underutilized, None, "nothing is known of any");

    let idle = ["GPU-a", "GPU-b", "GPU-c", "GPU-d"].map(|gpu| steady("n1", gpu, None, 0.1));
    seen.samples = idle.concat();
    let outcome = tick(600, &mut State::new(), &seen);
    assert_eq!(brief(&outcome)[0].3, Some(true));
    assert_eq!(outcome.view.totals.nodes_underutilized, Some(1));
}

#[test]
fn nodes_are_counted_by_how_they_are_paid_for_and_a_missing_price_is_not_zero() {
    let labeled = |name: &str, capacity_type| {
        let Change::Upsert(mut node) = node(name, 4) else { unreachable!("it is there") };
        node.capacity_type = Some(capacity_type);
        Change::Upsert(node)
    };
    let mut seen = world();
    seen.nodes.push(labeled("r1", CapacityType::Reserved));
    seen.nodes.push(labeled("s1", CapacityType::Spot));
    let outcome = tick(600, &mut State::new(), &seen);
    let sums = outcome.view.totals.by_capacity_type.iter();
    let brief: Vec<_> =
        sums.map(|sum| (sum.capacity_type, sum.nodes, sum.cost.is_some())).collect();
    let expected = [
        // Reserved capacity has no list price.
        (Some(CapacityType::Reserved), 1, false),
        (Some(CapacityType::Spot), 1, false),
        (Some(CapacityType::OnDemand), 2, true),
    ];
    assert_eq!(brief, expected);
}

#[test]
fn what_does_not_work_stands_in_the_condition_until_it_works() {
    let policy = PolicyObject {
        uid: "p1".into(),
        kind: PolicyKind::AutoscalingPolicy,
        key: ObjectKey::new("", "fleet"),
        resource_version: "7".into(),
        generation: 2,
        enabled: false,
        dry_run: false,
        faults: vec![],
        conditions: vec![],
    };
    let fault = |part: &str| Fault { part: part.into(), why: "refused".into() };
    let degraded = |outcome: &Outcome| {
        let conditions = outcome.effects.iter().filter_map(|effect| match &effect.action {
            Action::SetConditions { conditions, .. } => Some(conditions),
            Action::Announce(_) => None,
        });
        let mut all = conditions.flatten();
        all.find(|c| c.kind == ConditionKind::Degraded).map(|c| (c.holds, c.message.to_string()))
    };
    let mut state = State::new();
    let parts = ["lease", "telemetry", "watch of Node", "watch of Pod"];
    let faults = Some(parts.map(fault).to_vec());
    let seen = Delta { policies: vec![Change::Upsert(policy)], faults, ..Delta::default() };
    let said = "lease: refused; telemetry: refused; watch of Node: refused; and 1 more";
    assert_eq!(degraded(&tick(0, &mut state, &seen)), Some((Some(true), said.to_owned())));
    let healed = Delta { faults: Some(vec![]), ..Delta::default() };
    let said = "every part of the controller works";
    assert_eq!(degraded(&tick(30, &mut state, &healed)), Some((Some(false), said.to_owned())));
}
