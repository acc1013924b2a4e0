//! What reaches us wrong: labels, exporters, clocks, devices that move.

use super::*;

fn kinds(outcome: &Outcome) -> Vec<String> {
    let of = |f: &Finding| format!("{} {}", f.kind, f.pod.name);
    outcome.view.findings.iter().map(of).collect()
}

fn unknown(outcome: &Outcome) -> Vec<String> {
    let of = |u: &UnknownGpus| format!("{} x{}: {}", u.node, u.count, u.why.as_str());
    outcome.view.unknown.iter().map(of).collect()
}

#[test]
fn a_gpu_that_the_label_counts_and_nothing_offers_is_unknown() {
    let Change::Upsert(mut node) = node("n1", 4) else { panic!("a node") };
    // One fell off the bus: the label of the last boot still counts it.
    node.allocatable.gpus[0].count = 3;
    let samples = ["GPU-a", "GPU-b", "GPU-c"].map(|gpu| steady("n1", gpu, None, 0.0)).concat();
    let seen = Delta { nodes: vec![Change::Upsert(node)], samples, ..Delta::default() };
    assert_eq!(unknown(&tick(600, &mut State::new(), &seen)), ["n1 x1: NeverMeasured"]);
}

#[test]
fn parts_of_a_node_never_cost_more_than_the_node_whatever_its_label_says() {
    let Change::Upsert(mut node) = node("n1", 4) else { panic!("a node") };
    node.gpus = Some(2);
    let gpus = ["GPU-a", "GPU-b", "GPU-c", "GPU-d"];
    let pods = (0..4).map(|i| pod(&format!("p{i}"), &format!("u{i}"), Some("n1"), 1));
    let samples =
        (0..4).flat_map(|i| steady("n1", gpus[i], Some(["p0", "p1", "p2", "p3"][i]), 0.0));
    let seen = Delta {
        nodes: vec![Change::Upsert(node)],
        pods: pods.map(Change::Upsert).collect(),
        samples: samples.collect(),
        ..Delta::default()
    };
    let outcome = tick(600, &mut State::new(), &seen);
    assert_eq!(outcome.view.findings.len(), 4);
    assert_eq!(outcome.view.totals.saving, outcome.view.totals.cost);
}

#[test]
fn a_second_exporter_that_knows_no_pods_takes_nothing_away() {
    let mut samples = steady("n1", "GPU-a", Some("p"), 0.0);
    samples.extend((0..=20).map(|i| sample(i * 30 + 7, "n1", "GPU-a", None, 0.0)));
    samples.sort_by_key(|s| s.at);
    let seen = Delta {
        nodes: vec![node("n1", 1)],
        pods: vec![Change::Upsert(pod("p", "u1", Some("n1"), 1))],
        samples,
        ..Delta::default()
    };
    assert_eq!(kinds(&tick(607, &mut State::new(), &seen)), ["Idle p"]);
}

#[test]
fn an_exporter_whose_clock_is_behind_makes_its_gpus_unknown_not_idle() {
    let seen = Delta {
        nodes: vec![node("n1", 1)],
        pods: vec![Change::Upsert(pod("p", "u1", Some("n1"), 1))],
        // Ten minutes of readings, all stamped two minutes late.
        samples: steady("n1", "GPU-a", Some("p"), 0.0),
        ..Delta::default()
    };
    let outcome = tick(720, &mut State::new(), &seen);
    assert_eq!((kinds(&outcome), unknown(&outcome)), (vec![], vec!["n1 x1: Stale".to_owned()]));
}

#[test]
fn a_gpu_that_moves_to_another_node_is_in_one_place() {
    let mut state = State::new();
    let seen = Delta {
        nodes: vec![node("n1", 1), node("n2", 1)],
        samples: steady("n1", "GPU-a", None, 0.5),
        ..Delta::default()
    };
    let homes = |outcome: &Outcome| -> Vec<String> {
        outcome.view.devices.iter().map(|d| format!("{} {}", d.node, d.device)).collect()
    };
    assert_eq!(homes(&tick(600, &mut state, &seen)), ["n1 GPU-a"]);
    let moved = Delta {
        samples: vec![
            sample(620, "n2", "GPU-a", None, 0.5),
            // Late, from where it was.
            sample(610, "n1", "GPU-a", None, 0.5),
        ],
        ..Delta::default()
    };
    let outcome = tick(630, &mut state, &moved);
    assert_eq!(homes(&outcome), ["n2 GPU-a"]);
    assert_eq!(unknown(&outcome), ["n1 x1: NeverMeasured"]);
}

fn slice(secs: u64, id: u32, profile: &str, pod: &str) -> GpuSample {
    let profile = profile.parse().expect("a profile");
    let mut sample = sample(secs, "n1", "GPU-a", Some(pod), 0.0);
    sample.device.instance = Some(GpuInstance { id, profile });
    sample
}

#[test]
fn a_new_mig_layout_begins_new_windows_and_the_old_one_is_forgotten() {
    let sliced = |name: &str, uid: &str, profile: &str| {
        let mut pod = pod(name, uid, Some("n1"), 1);
        let profile = profile.parse().expect("a profile");
        pod.requests.gpus = vec![GpuCount { resource: GpuResource::Mig(profile), count: 1 }];
        pod
    };
    let mut state = State::new();
    let seen = Delta {
        nodes: vec![node("n1", 1)],
        pods: vec![Change::Upsert(sliced("p", "u1", "1g.5gb"))],
        samples: (0..=20).map(|i| slice(i * 30, 7, "1g.5gb", "p")).collect(),
        ..Delta::default()
    };
    assert_eq!(kinds(&tick(600, &mut state, &seen)), ["Idle p"]);
    // The same instance id is another profile now, and another pod's.
    let mut q = sliced("q", "u2", "3g.20gb");
    (q.created, q.started) = (at(610), Some(at(610)));
    let seen = Delta {
        pods: vec![Change::Delete("u1".into()), Change::Upsert(q)],
        samples: vec![slice(620, 7, "3g.20gb", "q")],
        ..Delta::default()
    };
    let outcome = tick(630, &mut state, &seen);
    assert_eq!((kinds(&outcome), unknown(&outcome)), (vec![], vec!["n1 x1: TooShort".to_owned()]));
    let late = Delta { samples: vec![slice(1_230, 7, "3g.20gb", "q")], ..Delta::default() };
    let devices = tick(1_230, &mut state, &late).view.devices;
    let names: Vec<String> = devices.iter().map(|d| d.device.to_string()).collect();
    assert_eq!(names, ["GPU-a/7 (3g.20gb)"]);
}

#[test]
fn on_a_node_of_two_models_each_pod_is_sized_by_its_own() {
    // The label names the model of the first; eight of sixteen are of the other.
    let Change::Upsert(mut node) = node("n1", 16) else { panic!("a node") };
    node.gpu_model = GpuModel::parse("NVIDIA-A10G");
    let of = |gpu: &str, pod: &str, model: &str| -> Vec<GpuSample> {
        let mut samples = steady("n1", gpu, Some(pod), 0.05);
        samples.iter_mut().for_each(|s| s.model = GpuModel::parse(model));
        samples
    };
    let samples = [
        of("GPU-a", "ten", "NVIDIA A10G"),
        of("GPU-b", "hundred", "NVIDIA A100-SXM4-40GB"),
        of("GPU-c", "both", "NVIDIA A10G"),
        of("GPU-d", "both", "NVIDIA A100-SXM4-40GB"),
    ];
    let pods = [
        pod("ten", "u1", Some("n1"), 1),
        pod("hundred", "u2", Some("n1"), 1),
        pod("both", "u3", Some("n1"), 2),
    ];
    let seen = Delta {
        nodes: vec![Change::Upsert(node)],
        pods: pods.into_iter().map(Change::Upsert).collect(),
        samples: samples.concat(),
        ..Delta::default()
    };
    let outcome = tick(600, &mut State::new(), &seen);
    let mut advised: Vec<String> = outcome
        .view
        .findings
        .iter()
        .map(|f| format!("{}: {}", f.pod.name, f.recommendation.advice.as_str()))
        .collect();
    advised.sort();
    assert_eq!(advised, ["both: Share", "hundred: MigProfile", "ten: Share"]);
}

#[test]
fn a_gpu_instance_weighs_the_part_that_it_is_of_its_gpu() {
    let Change::Upsert(mut node) = node("n1", 1) else { panic!("a node") };
    node.gpu_model = GpuModel::parse("NVIDIA-A100-SXM4-40GB");
    let half = |secs| slice(secs, 1, "4g.20gb", "p");
    let eighth = |secs| {
        let mut sample = slice(secs, 7, "1g.5gb", "q");
        sample.activity = Some(Activity { ratio: Ratio::ONE, source: ActivitySource::SmActive });
        sample
    };
    let of = |node: Node, instance: fn(u64) -> GpuSample| {
        let samples = (0..=20).flat_map(|i| [half(i * 30), instance(i * 30)]).collect();
        let seen = Delta { nodes: vec![Change::Upsert(node)], samples, ..Delta::default() };
        let view = tick(600, &mut State::new(), &seen).view;
        (view.totals.utilization.map(Ratio::as_f64), view.nodes[0].activity.map(Ratio::as_f64))
    };
    // An eighth of the GPU is busy and a half is not: 1/8 of 5/8, not one of two.
    assert_eq!(of(node.clone(), eighth), (Some(0.2), Some(0.2)));
    node.gpu_model = None;
    assert_eq!(of(node, eighth), (None, None), "of which GPU, nobody says");
}
