//! What is found of pods and devices, and what is recommended.

use super::*;

/// One node of four A10G, a pod on it, and its samples.
fn lone(pod: Pod, samples: Vec<GpuSample>) -> Delta {
    Delta {
        nodes: vec![node("n1", 4)],
        pods: vec![Change::Upsert(pod)],
        samples,
        ..Delta::default()
    }
}

fn findings(outcome: &Outcome) -> Vec<String> {
    let line = |f: &Finding| {
        let saving = f.recommendation.saving.map_or("?".into(), |rate| format!("{rate:?}"));
        format!("{} {}: {}: {saving}", f.kind, f.pod.name, f.recommendation.advice)
    };
    outcome.view.findings.iter().map(line).collect()
}

fn found(secs: u64, seen: &Delta) -> Vec<String> {
    findings(&tick(secs, &mut State::new(), seen))
}

#[test]
fn memory_held_without_compute_is_found_and_a_duty_cycle_of_five_percent_too() {
    let mut held = steady("n1", "GPU-a", Some("p"), 0.0);
    held.iter_mut().for_each(|s| s.fb_used = Bytes::from_mib(21_600));
    let pod = || pod("p", "u1", Some("n1"), 1);
    assert_eq!(found(600, &lone(pod(), held)), ["MemoryHeld p: stop it: 1.418 USD/h"]);

    // Every twentieth reading is of full load.
    let duty = (0..=60)
        .map(|i| sample(i * 10, "n1", "GPU-a", Some("p"), if i % 20 == 10 { 1.0 } else { 0.0 }));
    assert_eq!(
        found(600, &lone(pod(), duty.collect())),
        ["Underutilized p: share the GPU: 1 of 8 replicas: 1.24075 USD/h"]
    );
    let full = steady("n1", "GPU-a", Some("p"), 1.0);
    assert_eq!(found(600, &lone(pod(), full)), [""; 0]);
}

#[test]
fn a_young_pod_is_left_alone_however_well_it_was_observed() {
    let mut policy = Policy::published();
    policy.waste.pod_age_min = Duration::from_secs(601);
    let seen = lone(pod("p", "u1", Some("n1"), 1), steady("n1", "GPU-a", Some("p"), 0.0));
    let kinds = |secs| {
        let outcome = reconcile(at(secs), &mut State::new(), &seen, &policy);
        findings(&outcome).len()
    };
    assert_eq!((kinds(600), kinds(601)), (0, 1));
}

#[test]
fn an_earlier_holder_keeps_nothing_when_the_exporter_names_another() {
    let mut state = State::new();
    let mut seen = lone(pod("p", "u1", Some("n1"), 1), steady("n1", "GPU-a", Some("p"), 0.0));
    seen.pods.push(Change::Upsert(pod("q", "u2", Some("n1"), 1)));
    assert_eq!(findings(&tick(600, &mut state, &seen)), ["Idle p: stop it: 1.418 USD/h"]);
    let seen =
        Delta { samples: vec![sample(605, "n1", "GPU-a", Some("q"), 0.9)], ..Delta::default() };
    // Its last reading of its own is 30 s old, which would be believed.
    let outcome = tick(630, &mut state, &seen);
    assert_eq!(findings(&outcome), [""; 0]);
    let unknown = outcome.view.unknown.iter().find(|u| u.pod == Some(ObjectKey::new("ml", "p")));
    assert_eq!(unknown.expect("listed").why, UnknownReason::NeverMeasured);
}

#[test]
fn spare_gpus_are_named_and_given_back() {
    let mut samples = steady("n1", "GPU-a", Some("p"), 0.95);
    samples.extend(steady("n1", "GPU-b", Some("p"), 0.0));
    samples.extend(steady("n1", "GPU-c", Some("p"), 0.95));
    let outcome = tick(600, &mut State::new(), &lone(pod("p", "u1", Some("n1"), 3), samples));
    assert_eq!(
        findings(&outcome),
        ["OverRequested p: request 2 GPUs instead of 3: 1.418 USD/h"],
        "one of the three A10G, although their mean is above 50 %"
    );
    let untouched: Vec<String> =
        outcome.view.findings[0].untouched.iter().map(ToString::to_string).collect();
    assert_eq!(untouched, ["GPU-b"]);
}

/// A node of one A10G in four replicas; the device's own lines and those of one pod.
fn replicas(whole: f64, part: Option<f64>) -> Delta {
    let Change::Upsert(mut node) = node("n1", 4) else { panic!("a node") };
    node.gpus = Some(1);
    node.sharing = Some(NodeSharing { strategy: SharingStrategy::TimeSlicing, replicas: 4 });
    node.allocatable.gpus = vec![GpuCount { resource: GpuResource::Shared, count: 4 }];
    let mut pod = pod("p", "u1", Some("n1"), 1);
    pod.requests.gpus = vec![GpuCount { resource: GpuResource::Shared, count: 1 }];
    let mut samples = steady("n1", "GPU-a", None, whole);
    samples.iter_mut().for_each(|s| s.scope = SampleScope::SharedDevice);
    let mut parts = steady("n1", "GPU-a", Some("p"), part.unwrap_or(0.0));
    for sample in &mut parts {
        sample.scope = SampleScope::SharedPart;
        sample.activity = sample.activity.filter(|_| part.is_some());
        (sample.fb_used, sample.fb_total) = (Bytes::from_mib(1_200), None);
    }
    samples.extend(parts);
    Delta {
        nodes: vec![Change::Upsert(node)],
        pods: vec![Change::Upsert(pod)],
        samples,
        ..Delta::default()
    }
}

#[test]
fn a_replica_is_judged_by_the_share_that_it_holds() {
    // A quarter of the device is all that one of four replicas is promised.
    assert_eq!(found(600, &replicas(0.9, Some(0.25))), [""; 0]);
    assert_eq!(found(600, &replicas(0.9, Some(0.13))), [""; 0]);
    assert_eq!(
        found(600, &replicas(0.9, Some(0.10))),
        ["Underutilized p: share the GPU: 1 of 8 replicas: 0.709 USD/h"],
        "40 % of its quarter; an eighth of the device would do, which saves half of a quarter"
    );
    assert_eq!(
        found(600, &replicas(0.9, Some(0.0))),
        ["Idle p: stop it: 1.418 USD/h"],
        "a quarter of the price of the node, whose only GPU it is of"
    );
}

#[test]
fn a_replica_without_numbers_of_its_own_is_unknown_not_idle() {
    let outcome = tick(600, &mut State::new(), &replicas(0.0, None));
    assert_eq!(findings(&outcome), [""; 0]);
    assert_eq!(outcome.view.unknown[0].why, UnknownReason::SharedWithoutProcesses);
}

#[test]
fn a_mig_slice_costs_its_memory_slices() {
    let Change::Upsert(mut node) = node("n1", 8) else { panic!("a node") };
    let profile: MigProfile = "2g.10gb".parse().expect("a profile");
    node.instance_type = Some("p4d.24xlarge".into());
    node.gpu_model = GpuModel::parse("NVIDIA-A100-SXM4-40GB");
    node.allocatable.gpus =
        vec![GpuCount { resource: GpuResource::Mig(profile.clone()), count: 8 }];
    let mut pod = pod("p", "u1", Some("n1"), 1);
    pod.requests.gpus = vec![GpuCount { resource: GpuResource::Mig(profile.clone()), count: 1 }];
    let mut samples = steady("n1", "GPU-a", Some("p"), 0.0);
    for sample in &mut samples {
        sample.device.instance = Some(GpuInstance { id: 3, profile: profile.clone() });
        sample.fb_total = Bytes::from_mib(9_856);
    }
    let seen = Delta {
        nodes: vec![Change::Upsert(node.clone())],
        pods: vec![Change::Upsert(pod)],
        samples,
        ..Delta::default()
    };
    let whole = Policy::published()
        .prices
        .lookup(&"p4d.24xlarge".into(), Some("us-east-1"), CapacityType::OnDemand)
        .expect("listed")
        .rate;
    let saving = tick(600, &mut State::new(), &seen).view.findings[0].recommendation.saving;
    // Two of the eight memory slices of one of eight GPUs.
    assert_eq!(saving, whole.share(2, 64));
}

#[test]
fn pods_that_hold_gpus_and_cannot_run_are_found() {
    let waiting =
        |says: &str| ContainerState { waiting: Some(says.into()), ..ContainerState::default() };
    let looping = ContainerState { restarts: 4, last_end: Some(at(500)), ..Default::default() };
    let twice = ContainerState { restarts: 2, last_end: Some(at(500)), ..Default::default() };
    let healed = ContainerState { restarts: 9, last_end: Some(at(0)), ..Default::default() };
    let cases = [
        (waiting("ImagePullBackOff"), None, Some("an image cannot be pulled (ImagePullBackOff)")),
        (waiting("CreateContainerConfigError"), None, Some("containers cannot be created")),
        (waiting("ContainerCreating"), None, None),
        (looping, None, Some("a container ends again and again (4 restarts)")),
        (twice, None, None),
        (healed, None, None),
        (ContainerState::default(), Some(300), Some("it was to be gone by 1970-01-01T00:05:00Z")),
        (ContainerState::default(), Some(301), None),
    ];
    for (containers, due, expected) in cases {
        let mut pod = pod("p", "u1", Some("n1"), 2);
        (pod.containers, pod.deletion_due) = (containers.clone(), due.map(at));
        let outcome = tick(600, &mut State::new(), &lone(pod, vec![]));
        let stuck = outcome.view.findings.first().and_then(|f| f.stuck.as_ref());
        let stuck = stuck.map(ToString::to_string);
        assert_eq!(
            stuck.as_deref().map(|says| says.starts_with(expected.unwrap_or("nothing"))),
            expected.map(|_| true),
            "{containers:?} {due:?}: {stuck:?}"
        );
        if expected.is_some() {
            assert_eq!(findings(&outcome), ["Stuck p: stop it: 2.836 USD/h"]);
            assert_eq!(outcome.view.findings[0].score.total(), 100.0);
            // What it holds is known to serve nothing: only the two free GPUs are not known.
            assert_eq!(outcome.view.unknown.iter().map(|u| u.count).sum::<u32>(), 2);
        }
    }
}

#[test]
fn a_pod_that_was_bound_just_now_may_still_pull() {
    let mut pod = pod("p", "u1", Some("n1"), 1);
    pod.started = Some(at(301));
    pod.containers.waiting = Some("ImagePullBackOff".into());
    assert_eq!(found(600, &lone(pod, vec![])), [""; 0]);
}

#[test]
fn a_hot_gpu_is_announced_on_its_node_once() {
    let mut samples = steady("n1", "GPU-a", Some("p"), 0.9);
    samples.iter_mut().for_each(|s| s.hardware.throttle = Some(ThrottleReasons::HW_THERMAL));
    let mut sick = steady("n1", "GPU-b", None, 0.0);
    sick.iter_mut().for_each(|s| s.hardware.xid = Some(79));
    samples.extend(sick);
    let mut state = State::new();
    let outcome = tick(600, &mut state, &lone(pod("p", "u1", Some("n1"), 1), samples));
    let told: Vec<_> = outcome
        .effects
        .iter()
        .map(|effect| match &effect.action {
            Action::Announce(told) => told.clone(),
            Action::SetConditions { .. } => panic!("there is no policy"),
        })
        .collect();
    let lines: Vec<String> = told
        .iter()
        .map(|t| format!("{:?} {} {} {}", t.about.kind, t.about.key, t.reason, t.message))
        .collect();
    assert_eq!(
        lines,
        [
            "Node n1 GpuThrottled GPU-a: clocks held down in 100.0 % of the window: hardware \
             thermal slowdown; held by ml/p; look at the hardware",
            "Node n1 GpuSick GPU-b: XID 79; held by no pod; look at the hardware",
        ]
    );
    assert!(told.iter().all(|t| &*t.event.namespace == "default"));
    let events = told.iter().enumerate().map(|(number, told)| {
        Change::Upsert(AnnouncedEvent {
            uid: format!("e{number}").into(),
            key: told.event.clone(),
            at: Some(told.at),
        })
    });
    let seen = Delta { events: events.collect(), ..Delta::default() };
    assert_eq!(tick(700, &mut state, &seen).effects, []);
}

#[test]
fn an_event_that_is_gone_is_written_again_while_its_finding_stands() {
    let mut state = State::new();
    let seen = lone(pod("p", "u1", Some("n1"), 1), steady("n1", "GPU-a", Some("p"), 0.0));
    let outcome = tick(600, &mut state, &seen);
    let Action::Announce(told) = &outcome.effects[0].action else { panic!("an announcement") };
    let event = AnnouncedEvent { uid: "e".into(), key: told.event.clone(), at: Some(at(600)) };
    let came = Delta { events: vec![Change::Upsert(event)], ..Delta::default() };
    assert_eq!(tick(661, &mut state, &came).effects, []);
    let went = Delta { events: vec![Change::Delete("e".into())], ..Delta::default() };
    assert_eq!(tick(662, &mut state, &went).effects.len(), 1, "between two judgements");
}

/// A pod with annotations that holds a GPU which computes that share of the time.
fn annotated(busy: f64, annotations: &[(&str, &str)]) -> Delta {
    let mut pod = pod("p", "u1", Some("n1"), 1);
    pod.annotations = Labels::new(
        annotations
            .iter()
            .map(|(key, value)| (format!("gpu-autoscaler.io/{key}").into(), (*value).into())),
    );
    lone(pod, steady("n1", "GPU-a", Some("p"), busy))
}

/// What is found, and what is said of a pod of which nothing is decided.
fn outcome_of(seen: &Delta) -> String {
    let outcome = tick(600, &mut State::new(), seen);
    let refused = outcome.view.refusals.iter().map(|refusal| refusal.why.to_string());
    let told: Vec<String> = findings(&outcome).into_iter().chain(refused).collect();
    told.join("; ")
}

#[test]
fn a_pod_that_asks_to_be_left_alone_is_measured_and_not_judged() {
    let left = "its annotation `gpu-autoscaler.io/optimize: \"false\"` asks that it be left alone";
    for busy in [0.0, 0.3, 0.9] {
        assert_eq!(outcome_of(&annotated(busy, &[("optimize", "false")])), left);
    }
    let outcome = tick(600, &mut State::new(), &annotated(0.3, &[("optimize", "false")]));
    assert!(outcome.view.pods[0].usage.is_some(), "who looks still sees what it uses");
    assert_eq!(outcome.effects, []);
    assert_eq!(
        outcome_of(&annotated(0.0, &[("optimize", "true")])),
        "Idle p: stop it: 1.418 USD/h"
    );

    let mut stuck = annotated(0.0, &[("optimize", "false")]);
    let Change::Upsert(pod) = &mut stuck.pods[0] else { panic!("a pod") };
    pod.containers.waiting = Some("ImagePullBackOff".into());
    assert_eq!(outcome_of(&stuck), left);
}

#[test]
fn a_pod_that_rules_sharing_out_is_not_told_to_share() {
    let ruled = |key: &str| {
        format!(
            "underutilized, but its annotation `gpu-autoscaler.io/{key}` rules out sharing, which \
             is all that would be recommended"
        )
    };
    let share = "Underutilized p: share the GPU: 1 of 8 replicas: 1.24075 USD/h";
    let nothing = "Underutilized p: nothing smaller fits: raise its load: 0 USD/h";
    let none: [(&str, &str); 0] = [];
    let (mps, slices) = (("mps-enabled", "false"), ("time-slicing-enabled", "false"));
    for (annotations, expected) in [
        (&none[..], share.to_owned()),
        (&[("sharing", "enabled")], share.to_owned()),
        (&[("sharing", "disabled")], ruled("sharing")),
        (&[("sharing-mode", "exclusive")], ruled("sharing-mode")),
        // One way to share is open yet.
        (&[mps], share.to_owned()),
        (&[("sharing-mode", "mps"), slices], share.to_owned()),
        // An A10G has no GPU instances.
        (&[mps, slices], nothing.to_owned()),
        (&[("sharing-mode", "mig")], nothing.to_owned()),
        (
            &[("workload-type", "training")],
            nothing.replace(
                "nothing smaller fits: raise its load",
                "raise its load: training is not shared",
            ),
        ),
    ] {
        assert_eq!(outcome_of(&annotated(0.1, annotations)), expected, "{annotations:?}");
    }
    // Stopping it shares nothing, and a busy pod is no waste in the first place.
    let disabled = [("sharing", "disabled")];
    assert_eq!(outcome_of(&annotated(0.0, &disabled)), "Idle p: stop it: 1.418 USD/h");
    assert_eq!(outcome_of(&annotated(0.9, &disabled)), "");
}
