use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gpu_autoscaler_model::{Change, Delta, GpuSample, PodPhase, SampleScope, Timestamp, Uid};
use gpu_autoscaler_sim::{Faults, Rule, TrueUse, Workload, World, WorldSpec, mixed_cluster};
use gpu_autoscaler_telemetry::dcgm::{self, Origin};
use gpu_autoscaler_telemetry::exposition;

fn start() -> Timestamp {
    "2026-01-05T08:00:00Z".parse().expect("a time")
}

fn spec(seed: u64, gpus: u32, faults: Faults) -> WorldSpec {
    WorldSpec {
        seed,
        start: start(),
        nodes: mixed_cluster(seed, gpus),
        workload: Workload::Generated { occupancy: 0.85 },
        faults,
    }
}

/// Lets `span` pass in steps of 30 s and hands every delta to `seen`.
fn watch(world: &mut World, span: Duration, mut seen: impl FnMut(&World, Delta)) {
    let end = world.now().after(span);
    while world.now() < end {
        let next = world.now().after(Duration::from_secs(30));
        world.advance(next);
        let delta = world.observe();
        seen(world, delta);
    }
}

#[test]
fn equal_seeds_make_equal_worlds_and_others_do_not() {
    let digest = |seed| {
        let mut world = World::new(&spec(seed, 60, Faults::drawn(seed)));
        let mut text = String::new();
        watch(&mut world, Duration::from_secs(1_800), |_, delta| {
            text.push_str(&format!("{delta:?}"));
        });
        text
    };
    assert_eq!(digest(7), digest(7));
    assert_ne!(digest(7), digest(8));
}

#[test]
fn no_slot_is_held_twice_and_every_running_pod_holds_what_it_requests() {
    for seed in 0..4 {
        let mut world = World::new(&spec(seed, 80, Faults::ORDINARY));
        let mut shared = BTreeSet::new();
        for change in world.snapshot().nodes {
            if let Change::Upsert(node) = change {
                shared.extend(node.sharing.is_some().then_some(node.name));
            }
        }
        watch(&mut world, Duration::from_secs(3 * 3_600), |world, _| {
            let mut held = BTreeSet::new();
            for pod in world.truth(&Rule::PUBLISHED).pods {
                let alone = pod.node.is_some_and(|node| !shared.contains(&node));
                for device in pod.devices {
                    assert!(held.insert(device.clone()) || !alone, "seed={seed}: {device} twice");
                }
            }
        });
        let truth = world.truth(&Rule::PUBLISHED);
        let running = truth.pods.iter().filter(|pod| pod.use_ != TrueUse::Pending);
        assert!(running.count() > 30, "seed={seed}: the cluster is in use");
    }
}

#[test]
fn watches_tell_exactly_what_a_fresh_list_shows() {
    let mut world = World::new(&spec(3, 60, Faults::drawn(3)));
    let mut known: BTreeMap<Uid, PodPhase> = BTreeMap::new();
    let mut learn = |delta: Delta| {
        for change in delta.pods {
            match change {
                Change::Upsert(pod) => known.insert(pod.uid, pod.phase),
                Change::Delete(uid) => known.remove(&uid),
            };
        }
    };
    watch(&mut world, Duration::from_secs(4 * 3_600), |_, delta| learn(delta));
    world.heal();
    watch(&mut world, Duration::from_secs(120), |_, delta| learn(delta));
    let mut listed = BTreeMap::new();
    for change in world.snapshot().pods {
        if let Change::Upsert(pod) = change {
            listed.insert(pod.uid, pod.phase);
        }
    }
    let late: Vec<_> = listed.iter().filter(|(uid, phase)| known.get(uid) != Some(phase)).collect();
    assert!(late.len() <= 2, "only what changed in the last milliseconds may differ: {late:?}");
    assert!(known.len().abs_diff(listed.len()) <= 2);
}

#[test]
fn samples_of_a_perfect_exporter_average_to_the_true_mean() {
    let mut world = World::new(&spec(11, 120, Faults::NONE));
    let mut sums: BTreeMap<Uid, (f64, u32)> = BTreeMap::new();
    watch(&mut world, Duration::from_secs(3_600), |_, _| {});
    watch(&mut world, Duration::from_secs(600), |world, delta| {
        let now = world.now();
        for sample in delta.samples {
            let held = sample.holder.zip(sample.activity);
            let Some((holder, activity)) = held.filter(|_| sample.scope == SampleScope::Exclusive)
            else {
                continue;
            };
            assert!(sample.at <= now);
            let truth_uid = Uid::new(holder.pod.to_string());
            let sum = sums.entry(truth_uid).or_default();
            *sum = (sum.0 + activity.ratio.as_f64(), sum.1 + 1);
        }
    });
    let mut compared = 0;
    for pod in world.truth(&Rule::PUBLISHED).pods {
        // Others are seen by a counter that does not average, or not at all, or changed.
        let judged = matches!(pod.use_, TrueUse::Idle | TrueUse::Busy | TrueUse::Underutilized);
        let Some((sum, count)) = sums.get(&Uid::new(pod.pod.to_string())).filter(|_| judged) else {
            continue;
        };
        let (seen, mean) = (sum / f64::from(*count), pod.activity_mean.expect("bound"));
        assert!((seen - mean).abs() < 0.2, "{}: {seen} seen, {mean} true", pod.pod);
        if pod.use_ == TrueUse::Idle {
            assert_eq!(seen, 0.0, "{}: an idle pod shows nothing at all", pod.pod);
        }
        compared += 1;
    }
    assert!(compared > 40, "{compared} pods compared");
}

#[test]
fn every_kind_of_truth_occurs() {
    let mut seen = BTreeSet::new();
    for seed in 0..6 {
        let mut world = World::new(&spec(seed, 150, Faults::ORDINARY));
        watch(&mut world, Duration::from_secs(4 * 3_600), |_, _| {});
        seen.extend(world.truth(&Rule::PUBLISHED).pods.iter().map(|pod| pod.use_));
    }
    let kinds = [
        TrueUse::Unknown,
        TrueUse::Young,
        TrueUse::Idle,
        TrueUse::Underutilized,
        TrueUse::Busy,
        TrueUse::Borderline,
    ];
    for kind in kinds {
        assert!(seen.contains(&kind), "{kind:?} never occurred: {seen:?}");
    }
}

#[test]
fn an_exposition_repeats_and_names_what_the_exporter_names() {
    let mut world = World::new(&spec(2, 150, Faults::NONE));
    watch(&mut world, Duration::from_secs(1_200), |_, _| {});
    let mut kinds = BTreeSet::new();
    for change in world.snapshot().nodes {
        let Change::Upsert(node) = change else { continue };
        let Some(text) = world.exposition(&node.name) else {
            kinds.insert("none");
            continue;
        };
        assert_eq!(Some(&text), world.exposition(&node.name).as_ref());
        let mark = |needle: &str, kind| text.contains(needle).then_some(kind);
        kinds.extend(mark(",Hostname=", "old host label"));
        kinds.extend(mark(",hostname=", "new host label"));
        kinds.extend(mark("GPU_I_PROFILE=\"1g.5gb\"", "mig"));
        kinds.extend(mark(",vgpu=", "virtual gpu"));
        kinds.extend(mark(" 9223372036854775794\n", "unsupported"));
        kinds.extend(mark("DCGM_FI_PROF_SM_ACTIVE{", "sm active"));
        if text.contains("GPU_I_ID") {
            assert!(!text.contains("DCGM_FI_DEV_GPU_UTIL{"), "absent under MIG");
        }
    }
    assert_eq!(kinds.len(), 7, "{kinds:?}");
}

#[test]
fn telemetry_reads_the_exposition_as_the_samples_that_it_stands_for() {
    let mut compared = BTreeMap::new();
    for seed in 0..3 {
        let mut world = World::new(&spec(seed, 150, Faults::NONE));
        watch(&mut world, Duration::from_secs(2_400), |_, _| {});
        for change in world.snapshot().nodes {
            let Change::Upsert(node) = change else { continue };
            let Some(text) = world.exposition(&node.name) else { continue };
            let origin = Origin {
                at: world.now(),
                node: Some(node.name.clone()),
                exporter: Default::default(),
            };
            let series = exposition::parse(text.as_bytes()).map(|line| line.expect("well-formed"));
            let (mut read, dropped) = dcgm::samples(series, &origin);
            assert!(dropped.is_empty(), "seed={seed}, {}: {dropped:?}", node.name);
            let mut meant = world.samples(&node.name).expect("it has an exposition");
            let key = |sample: &GpuSample| {
                (sample.device.clone(), sample.holder.as_ref().map(|holder| holder.pod.clone()))
            };
            read.sort_by_key(key);
            meant.sort_by_key(key);
            for (read, meant) in read.iter().zip(&meant) {
                assert_eq!(read, meant, "seed={seed}, {}", node.name);
                *compared.entry(meant.scope).or_insert(0) += 1;
            }
            assert_eq!(read.len(), meant.len(), "seed={seed}, {}", node.name);
        }
    }
    assert!(compared.len() == 3, "every scope occurs: {compared:?}");
}
