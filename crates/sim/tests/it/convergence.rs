//! Faults first, then healing, then what was found must be what is so.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gpu_autoscaler_model::{
    Change, Delta, Finding, FindingKind, HistoryRecord, Reason, Recommendation, Timestamp, Uid,
    UnknownGpus,
};
use gpu_autoscaler_reconciler::{Policy, State, reconcile};
use gpu_autoscaler_sim::{
    Driver, Faults, Planting, Rule, TrueUse, Workload, World, WorldSpec, compare, mixed_cluster,
    planted,
};

fn world(seed: u64, gpus: u32, faults: Faults) -> World {
    World::new(&WorldSpec {
        seed,
        start: "2026-01-05T08:00:00Z".parse().expect("a time"),
        nodes: mixed_cluster(seed, gpus),
        workload: Workload::Generated { occupancy: 0.8 },
        faults,
    })
}

/// Seeds to run: that of `SEED`, else as many as `TIMES` says, else `count`.
#[expect(clippy::disallowed_methods, reason = "whoever runs a test names its seed there")]
fn seeds(count: u64) -> Vec<u64> {
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().unwrap_or_else(|_| panic!("`{name}={text}` is no number")))
    };
    match (number("SEED"), number("TIMES")) {
        (Some(seed), _) => vec![seed],
        (None, times) => (0..times.unwrap_or(count)).collect(),
    }
}

#[test]
fn after_faults_and_healing_the_findings_are_the_truth() {
    for seed in seeds(24) {
        let mut driver = Driver::new(world(seed, 64, Faults::drawn(seed)), Policy::published());
        let faulty = driver.world.start().after(Duration::from_secs(3_600 + 97 * seed));
        driver.run(faulty);
        driver.world.heal();
        driver.run(faulty.after(Duration::from_secs(20 * 60)));
        let result = compare(&driver.world.truth(&Rule::PUBLISHED), driver.view());
        let mistakes: Vec<String> = result.mistakes.iter().map(ToString::to_string).collect();
        assert!(mistakes.is_empty(), "SEED={seed}:\n{}", mistakes.join("\n"));
        assert!(result.wasteful > 5, "SEED={seed}: {result:?}");
        assert!(result.innocent > 5, "SEED={seed}: {result:?}");
    }
}

#[test]
fn under_faults_nothing_busy_is_ever_accused() {
    for seed in seeds(8) {
        let mut driver = Driver::new(world(seed, 64, Faults::drawn(seed)), Policy::published());
        let mut at = driver.world.start();
        for _ in 0..90 {
            at = at.after(Duration::from_secs(60));
            driver.run(at);
            let truth = driver.world.truth(&Rule::PUBLISHED);
            let innocent = [TrueUse::Busy, TrueUse::Unknown, TrueUse::Young];
            for pod in truth.pods.iter().filter(|pod| innocent.contains(&pod.use_)) {
                let finding = driver.view().findings.iter().find(|f| f.pod_uid == pod.uid);
                assert_eq!(finding, None, "SEED={seed}: {pod:?}");
            }
        }
    }
}

#[test]
fn every_finding_is_announced_once_while_its_event_lives() {
    for seed in seeds(8) {
        let mut driver = Driver::new(world(seed, 64, Faults::drawn(seed)), Policy::published());
        // Shorter than an Event lives, so that none is written anew.
        let end = driver.world.start().after(Duration::from_secs(3_000));
        driver.run(end.before(Duration::from_secs(1_200)));
        driver.world.heal();
        driver.run(end);
        let created = driver.world.events_created();
        assert!(!created.is_empty(), "SEED={seed}");
        for (name, times) in created {
            assert_eq!(*times, 1, "SEED={seed}: {name}");
        }
        let announced: BTreeSet<&Uid> =
            driver.world.events().map(|event| &event.announcement.about.uid).collect();
        // What was found in the last seconds may still be on its way.
        let settled = end.before(Duration::from_secs(90));
        for finding in driver.view().findings.iter().filter(|finding| finding.since < settled) {
            assert!(announced.contains(&finding.pod_uid), "SEED={seed}: {finding:?}");
        }
        assert!(driver.world.policies()[0].conditions.len() >= 2, "SEED={seed}");
    }
}

#[test]
fn in_a_perfect_world_nothing_is_asked_for_twice() {
    let mut driver = Driver::new(world(4, 48, Faults::NONE), Policy::published());
    // Shorter than an Event lives, so that none is written anew.
    driver.run(driver.world.start().after(Duration::from_secs(3_000)));
    let (tally, receipts) = (driver.tally(), driver.tally().receipts);
    let created = driver.world.events_created().len() as u64;
    assert_eq!(tally.announcements.values().sum::<u64>(), created);
    assert_eq!((receipts.already, receipts.conflicts, receipts.unanswered), (0, 0, 0));
    assert!(created > 10, "{created} events");
}

/// What an observer knows: the objects as it was told of them, the samples of a window, and what a
/// store was told to keep.
#[derive(Default)]
struct Mirror {
    objects: Delta,
    kept: BTreeMap<String, HistoryRecord>,
    samples: Vec<(Timestamp, gpu_autoscaler_model::GpuSample)>,
}

impl Mirror {
    fn learn(&mut self, now: Timestamp, seen: &Delta) {
        learn(&mut self.objects.nodes, &seen.nodes, |node| node.name.clone());
        learn(&mut self.objects.pods, &seen.pods, |pod| pod.uid.clone());
        learn(&mut self.objects.policies, &seen.policies, |policy| policy.uid.clone());
        learn(&mut self.objects.events, &seen.events, |event| event.uid.clone());
        self.samples.extend(seen.samples.iter().cloned().map(|sample| (now, sample)));
        let window = now.before(Duration::from_secs(660));
        self.samples.retain(|(at, _)| *at >= window);
    }

    /// Each record replaces the one of its key.
    fn keep(&mut self, records: &[HistoryRecord]) {
        for record in records {
            let key = match record {
                HistoryRecord::Usage(profile) => format!("{:?}", profile.key),
                HistoryRecord::Demand(demand) => format!("{} {}", demand.pool, demand.hour),
            };
            self.kept.insert(key, record.clone());
        }
    }

    fn snapshot(&self) -> Delta {
        let samples = self.samples.iter().map(|(_, sample)| sample.clone()).collect();
        let history = self.kept.values().cloned().collect();
        Delta { samples, history, ..self.objects.clone() }
    }
}

fn learn<T: Clone, K: PartialEq + Clone>(
    known: &mut Vec<Change<T, K>>,
    changes: &[Change<T, K>],
    key: impl Fn(&T) -> K,
) {
    for change in changes {
        let changed = match change {
            Change::Upsert(object) => key(object),
            Change::Delete(gone) => gone.clone(),
        };
        known.retain(|one| match one {
            Change::Upsert(object) => key(object) != changed,
            Change::Delete(_) => false,
        });
        if let Change::Upsert(_) = change {
            known.push(change.clone());
        }
    }
}

#[test]
fn a_rebuilt_state_decides_what_the_old_one_decides() {
    for seed in seeds(3) {
        let mut driver = Driver::new(world(seed, 48, Faults::ORDINARY), Policy::published());
        let mut mirror = Mirror::default();
        let mut compared = 0;
        let end = driver.world.start().after(Duration::from_secs(2 * 3_600));
        driver.run_with(end, |world, policy, seen, outcome| {
            let now = world.now();
            mirror.learn(now, seen);
            if outcome.view.judged != Some(now) {
                return;
            }
            // What was kept before this tick, and what this tick gave to keep, must lead to the same.
            mirror.keep(&outcome.history);
            let mut rebuilt = State::rebuild(now, &mirror.snapshot(), policy);
            let again = reconcile(now, &mut rebuilt, &Delta::default(), policy);
            let verdicts = |findings: &[Finding]| -> Vec<(Uid, FindingKind, Recommendation)> {
                let of = |f: &Finding| (f.pod_uid.clone(), f.kind, f.recommendation.clone());
                findings.iter().map(of).collect()
            };
            assert_eq!(
                verdicts(&outcome.view.findings),
                verdicts(&again.view.findings),
                "SEED={seed} at {now}"
            );
            // The time of a sample that is older than the window is not in the snapshot.
            let names = |unknown: &[UnknownGpus]| -> Vec<_> {
                unknown.iter().map(|u| (u.node.clone(), u.count, u.pod.clone())).collect()
            };
            assert_eq!(
                names(&outcome.view.unknown),
                names(&again.view.unknown),
                "SEED={seed} at {now}"
            );
            compared += 1;
        });
        assert!(compared > 200, "SEED={seed}: {compared} ticks compared");
    }
}

#[test]
fn a_run_repeats_to_the_byte_and_another_seed_does_not() {
    let digest = |seed| {
        let mut driver = Driver::new(world(seed, 48, Faults::drawn(seed)), Policy::published());
        driver.run(driver.world.start().after(Duration::from_secs(3 * 3_600)));
        (driver.tally().digest, driver.tally().ticks)
    };
    assert_eq!(digest(7), digest(7));
    assert_ne!(digest(7).0, digest(8).0);
}

#[test]
fn cutting_a_run_into_pieces_changes_nothing() {
    let run = |pieces: u64| {
        let mut driver = Driver::new(world(5, 48, Faults::ORDINARY), Policy::published());
        let start = driver.world.start();
        for piece in 1..=pieces {
            driver.run(start.after(Duration::from_secs(3_600 * piece / pieces)));
        }
        driver.tally().clone()
    };
    assert_eq!(run(1), run(60));
}

#[test]
fn every_kind_of_waste_that_is_planted_is_found_and_nothing_else() {
    let mut kinds = BTreeSet::new();
    for seed in seeds(8) {
        let planting = Planting {
            seed,
            start: Timestamp::EPOCH,
            nodes: 40,
            pods: 160,
            late: Duration::from_secs(1_100),
        };
        let mut driver = Driver::new(World::new(&planted(&planting)), Policy::published());
        driver.run(planting.start.after(Duration::from_secs(1_200)));
        let truth = driver.world.truth(&Rule::PUBLISHED);
        let result = compare(&truth, driver.view());
        let mistakes: Vec<String> = result.mistakes.iter().map(ToString::to_string).collect();
        assert!(mistakes.is_empty(), "SEED={seed}:\n{}", mistakes.join("\n"));
        kinds.extend(driver.view().findings.iter().map(|finding| finding.kind));
        kinds.extend(driver.view().hardware.iter().map(|finding| finding.fault.kind()));
        // Each Event names its finding; a node's is there for every ailing device and kind.
        let events: BTreeSet<_> =
            driver.world.events().map(|event| event.announcement.reason).collect();
        assert!(events.contains(&Reason::GpuSick) && events.contains(&Reason::GpuThrottled));
    }
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), FindingKind::ALL);
}
