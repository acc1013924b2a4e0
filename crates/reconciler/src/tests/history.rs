//! What is kept of the past, and what a restart makes of it.

use super::*;

fn owned(name: &str, uid: &str) -> Pod {
    let mut pod = pod(name, uid, Some("n1"), 1);
    pod.owner =
        Some(Owner { kind: "ReplicaSet".into(), name: "web-5d8f".into(), uid: "o1".into() });
    pod.labels = Labels::new([("pod-template-hash".into(), "5d8f".into())]);
    pod.containers.image = Some("registry.example/web:1".into());
    pod
}

fn h100() -> Change<Node, NodeName> {
    let Change::Upsert(mut node) = node("n1", 8) else { panic!("a node") };
    node.instance_type = Some("p5.48xlarge".into());
    node.gpu_model = GpuModel::parse("NVIDIA-H100-80GB-HBM3");
    Change::Upsert(node)
}

/// Samples of one in 30 s, with `fb_mib` in use of 80 GiB.
fn samples(from: u64, to: u64, activity: f64, fb_mib: u64) -> Vec<GpuSample> {
    let of = |secs| GpuSample {
        fb_used: Bytes::from_mib(fb_mib),
        fb_total: Bytes::from_mib(81_920),
        ..sample(secs, "n1", "GPU-a", Some("web"), activity)
    };
    (from..=to).step_by(30).map(of).collect()
}

/// Ticks once in 30 s; returns the last outcome, and what is kept by key.
fn live(
    state: &mut State,
    first: Delta,
    from: u64,
    to: u64,
    of: impl Fn(u64) -> Vec<GpuSample>,
) -> (Outcome, Vec<HistoryRecord>) {
    let mut kept: Vec<HistoryRecord> = Vec::new();
    let mut last = tick(from, state, &first);
    for secs in (from + 30..=to).step_by(30) {
        last = tick(secs, state, &Delta { samples: of(secs), ..Delta::default() });
        for record in &last.history {
            kept.retain(|known| known.key() != record.key());
            kept.push(record.clone());
        }
    }
    (last, kept)
}

fn advice(outcome: &Outcome) -> String {
    outcome.view.findings[0].recommendation.advice.to_string()
}

#[test]
fn a_restart_with_an_emptied_prometheus_recommends_the_same() {
    let mut state = State::new();
    let objects = || Delta {
        nodes: vec![h100()],
        pods: vec![Change::Upsert(owned("web", "u1"))],
        ..Delta::default()
    };
    // Half an hour with 30 GiB in use, then 5 GiB: the need is what was measured in all.
    let of = |secs: u64| samples(secs, secs, 0.1, if secs < 1_800 { 30_000 } else { 5_000 });
    let (last, kept) = live(&mut state, objects(), 0, 3_600, of);
    assert_eq!(advice(&last), "request MIG profile 3g.40gb (40 GiB, 4/8 of a GPU)");

    let mut again =
        State::rebuild(at(3_600), &Delta { history: kept, ..objects() }, &Policy::published());
    let empty = tick(3_601, &mut again, &Delta::default());
    assert!(empty.view.findings.is_empty(), "nothing is measured yet");
    let (restarted, _) = live(&mut again, Delta::default(), 3_630, 4_200, of);
    let mut forgetful = State::new();
    let (forgot, _) = live(&mut forgetful, objects(), 3_630, 4_200, of);
    assert_eq!(advice(&restarted), advice(&last));
    assert_eq!(
        restarted.view.findings[0].recommendation.saving,
        last.view.findings[0].recommendation.saving
    );
    assert_eq!(advice(&forgot), "request MIG profile 1g.10gb (10 GiB, 1/8 of a GPU)");
}

#[test]
fn every_second_counts_once_however_often_it_is_judged() {
    let mut state = State::new();
    let objects = Delta {
        nodes: vec![h100()],
        pods: vec![Change::Upsert(owned("web", "u1"))],
        ..Delta::default()
    };
    let (_, kept) = live(&mut state, objects, 0, 3_600, |secs| samples(secs, secs, 0.1, 5_000));
    let profiles: Vec<&UsageProfile> = kept
        .iter()
        .filter_map(|record| match record {
            HistoryRecord::Usage(profile) => Some(profile),
            HistoryRecord::Demand(_) => None,
        })
        .collect();
    let [profile] = profiles.as_slice() else { panic!("one owner and image: {profiles:?}") };
    assert_eq!(&*profile.key.owner, "Deployment/web");
    assert_eq!(&*profile.key.image, "registry.example/web:1");
    // Stretches of 300 s, of which the last has not ended for 90 s; the first reading has none
    // before it, and the one at the end of a stretch belongs to the next.
    assert_eq!(profile.through, at(3_300));
    assert_eq!(profile.observed_secs, 3_240);
    assert_eq!(profile.activity_ppm.weight(), 3_240);
}

#[test]
fn a_new_rollout_of_a_deployment_inherits_its_past_and_another_image_does_not() {
    let mut state = State::new();
    let mut profile = UsageProfile::empty(
        ProfileKey {
            namespace: "ml".into(),
            owner: "Deployment/web".into(),
            image: "registry.example/web:1".into(),
        },
        at(0),
    );
    profile.fb_mib.add(30_000, 86_400);
    profile.observed_secs = 86_400;
    let mut next = owned("web", "u2");
    next.owner.as_mut().expect("owned").name = "web-77c9".into();
    next.labels = Labels::new([("pod-template-hash".into(), "77c9".into())]);
    let seen = |pod: Pod| Delta {
        nodes: vec![h100()],
        pods: vec![Change::Upsert(pod)],
        samples: samples(0, 600, 0.1, 5_000),
        history: vec![HistoryRecord::Usage(profile.clone())],
        ..Delta::default()
    };
    let inherits = tick(600, &mut state, &seen(next.clone()));
    assert_eq!(advice(&inherits), "request MIG profile 3g.40gb (40 GiB, 4/8 of a GPU)");
    next.containers.image = Some("registry.example/web:2".into());
    let anew = tick(600, &mut State::new(), &seen(next));
    assert_eq!(advice(&anew), "request MIG profile 1g.10gb (10 GiB, 1/8 of a GPU)");
}

#[test]
fn of_two_records_the_fuller_counts() {
    let key =
        ProfileKey { namespace: "ml".into(), owner: "Pod/p".into(), image: String::new().into() };
    let record = |secs, mib| {
        let mut profile = UsageProfile::empty(key.clone(), at(0));
        profile.observed_secs = secs;
        profile.fb_mib.add(mib, secs);
        HistoryRecord::Usage(profile)
    };
    let known = |records: Vec<HistoryRecord>| {
        let seen = Delta { history: records, ..Delta::default() };
        let state = State::rebuild(at(0), &seen, &Policy::published());
        state.history.of(&pod("p", "u1", None, 1)).expect("kept").observed_secs
    };
    assert_eq!(known(vec![record(100, 1), record(50, 2)]), 100);
    assert_eq!(known(vec![record(50, 2), record(100, 1)]), 100);
}

#[test]
fn our_own_label_names_the_pool_before_those_of_others() {
    let pool = |labels: &[&str]| {
        let Change::Upsert(mut node) = h100() else { panic!("a node") };
        node.labels = Labels::new(labels.iter().map(|key| ((*key).into(), (*key).into())));
        crate::demand::pool_of(&node).to_string()
    };
    let [ours, older] = ["gpu-autoscaler.io/node-pool", "gpu-autoscaler.io/pool"];
    let karpenter = "karpenter.sh/nodepool";
    assert_eq!(pool(&[karpenter, older, ours]), ours);
    assert_eq!(pool(&[karpenter, older]), older);
    assert_eq!(pool(&[karpenter, "cloud.google.com/gke-nodepool"]), karpenter);
    assert_eq!(pool(&[]), "p5.48xlarge", "its instance type stands for a pool");
}

#[test]
fn demand_is_counted_by_pool_and_hour() {
    let Change::Upsert(mut pooled) = h100() else { panic!("a node") };
    pooled.labels = Labels::new([("karpenter.sh/nodepool".into(), "training".into())]);
    let waits = pod("waits", "u2", None, 8);
    let first = Delta {
        nodes: vec![Change::Upsert(pooled)],
        pods: vec![Change::Upsert(owned("web", "u1")), Change::Upsert(waits)],
        ..Delta::default()
    };
    let (_, kept) = live(&mut State::new(), first, 3_000, 4_200, |_| vec![]);
    let mut demand: Vec<String> = kept
        .iter()
        .filter_map(|record| match record {
            HistoryRecord::Demand(d) => Some(format!(
                "`{}` {}: {} GPU s, {} at most, in {} s",
                d.pool,
                d.hour,
                d.requested.as_u128() / 1000,
                d.requested_max,
                d.observed_millis / 1000
            )),
            HistoryRecord::Usage(_) => None,
        })
        .collect();
    demand.sort();
    assert_eq!(
        demand,
        [
            // From the first look to the end of the hour, and from there on.
            "`` 1970-01-01T00:00:00Z: 4800 GPU s, 8 at most, in 600 s",
            "`` 1970-01-01T01:00:00Z: 4800 GPU s, 8 at most, in 600 s",
            "`training` 1970-01-01T00:00:00Z: 600 GPU s, 1 at most, in 600 s",
            "`training` 1970-01-01T01:00:00Z: 600 GPU s, 1 at most, in 600 s",
        ]
    );
}
