//! What measurements of before the first tick add to the history.

use std::collections::BTreeMap;

use super::*;
use crate::{learn, stretch};

type Kept = BTreeMap<HistoryKey, HistoryRecord>;

fn keep(kept: &mut Kept, records: Vec<HistoryRecord>) {
    kept.extend(records.into_iter().map(|record| (record.key(), record)));
}

/// A node, a pod of one of its GPUs, and one of another that ends after half an hour.
fn objects() -> Delta {
    let pods = [pod("stays", "u1", Some("n1"), 1), pod("ends", "u2", Some("n1"), 1)];
    Delta {
        nodes: vec![node("n1", 2)],
        pods: pods.into_iter().map(Change::Upsert).collect(),
        ..Delta::default()
    }
}

const ENDS: u64 = 1_800;

fn measured(secs: u64) -> Vec<GpuSample> {
    let ends = (secs < ENDS).then_some("ends");
    let activity = secs as f64 / 20_000.0;
    vec![
        sample(secs, "n1", "GPU-a", Some("stays"), activity),
        sample(secs, "n1", "GPU-b", ends, activity),
    ]
}

/// What a controller keeps that was there from the beginning.
fn lived(state: &mut State, from: u64, to: u64) -> Kept {
    let mut kept = Kept::new();
    for secs in (from..=to).step_by(30) {
        let mut seen = Delta { samples: measured(secs), ..Delta::default() };
        if secs == 0 {
            seen.append(objects());
        }
        if secs == ENDS {
            seen.pods.push(Change::Delete("u2".into()));
        }
        keep(&mut kept, tick(secs, state, &seen).history);
    }
    kept
}

/// What one makes of the same samples afterwards, knowing what exists at `to`, and `before`.
fn read_back(before: Kept, to: u64) -> (State, Kept) {
    let policy = Policy::published();
    let mut now = objects();
    now.pods.pop();
    now.history = before.values().cloned().collect();
    let mut state = State::rebuild(at(to), &now, &policy);
    let mut kept = before;
    while let Some(next) = state.unlearned(at(to), at(0), 1, &policy) {
        let secs = |at: Timestamp| at.since(Timestamp::EPOCH).as_secs();
        // From one reading before, so that the first has one before it.
        let span = (secs(next.start).saturating_sub(30)..secs(next.end)).step_by(30);
        let seen = Delta { samples: span.flat_map(measured).collect(), ..Delta::default() };
        keep(&mut kept, learn(next.end, &mut state, &seen, &policy));
    }
    (state, kept)
}

fn usage_of(kept: &Kept, name: &str) -> Option<UsageProfile> {
    let owner = format!("Pod/{name}");
    kept.values().find_map(|record| match record {
        HistoryRecord::Usage(profile) if *profile.key.owner == *owner => Some(profile.clone()),
        _ => None,
    })
}

fn demand_of(kept: &Kept) -> Vec<String> {
    let line = |record: &HistoryRecord| match record {
        HistoryRecord::Demand(d) => Some(format!(
            "{}: {} GPU s, {} at most, in {} s",
            d.hour,
            d.requested.as_u128() / 1000,
            d.requested_max,
            d.observed_millis / 1000
        )),
        HistoryRecord::Usage(_) => None,
    };
    kept.values().filter_map(line).collect()
}

#[test]
fn read_back_it_is_what_was_learned_as_it_happened() {
    let live = lived(&mut State::new(), 0, 7_290);
    let (_, past) = read_back(Kept::new(), 7_290);
    assert_eq!(usage_of(&past, "stays"), usage_of(&live, "stays"));
    assert!(usage_of(&live, "ends").is_some());
    assert_eq!(usage_of(&past, "ends"), None, "nothing tells what it was of");
    // Two GPUs for half an hour, then one; of a stretch what is asked for at its end.
    assert_eq!(
        demand_of(&past),
        [
            "1970-01-01T00:00:00Z: 5400 GPU s, 2 at most, in 3600 s",
            "1970-01-01T01:00:00Z: 3600 GPU s, 1 at most, in 3600 s",
        ]
    );
    let hours = demand_of(&live);
    assert_eq!(hours[0], "1970-01-01T00:00:00Z: 5370 GPU s, 2 at most, in 3600 s");
}

#[test]
fn what_was_counted_is_not_counted_again() {
    let mut state = State::new();
    let before = lived(&mut state, 0, 3_690);
    let (_, whole) = read_back(Kept::new(), 7_290);
    // Away for an hour, then what is missing is read back; and once more.
    let (state, after) = read_back(before, 7_290);
    assert_eq!(usage_of(&after, "stays"), usage_of(&whole, "stays"));
    assert_eq!(state.unlearned(at(7_290), at(0), 1, &Policy::published()), None);
    let (_, again) = read_back(after.clone(), 7_290);
    assert_eq!(again, after);
}

#[test]
fn while_the_past_is_read_back_the_loop_counts_nothing_and_then_goes_on_without_a_gap() {
    let mut state = State::new();
    let mut now = objects();
    now.pods.pop();
    now.backfill = Some(Backfill::UnderWay);
    // The first look is as far back as windows reach.
    now.samples = (6_600..=7_200).step_by(30).flat_map(measured).collect();
    let first = tick(7_200, &mut state, &now);
    assert_eq!(first.history, []);
    let mut kept = Kept::new();
    for secs in (7_230..=8_400).step_by(30) {
        let mut seen = Delta { samples: measured(secs), ..Delta::default() };
        if secs == 7_500 {
            let (_, past) = read_back(Kept::new(), secs);
            seen.history = past.values().cloned().collect();
            seen.backfill = Some(Backfill::Ended);
            kept = past;
        }
        let outcome = tick(secs, &mut state, &seen);
        assert!(secs >= 7_500 || outcome.history.is_empty());
        keep(&mut kept, outcome.history);
    }
    let (_, whole) = read_back(Kept::new(), 8_400);
    assert_eq!(usage_of(&kept, "stays"), usage_of(&whole, "stays"));
}

#[test]
fn demand_is_not_known_of_a_time_at_which_a_node_was_not_measured() {
    let policy = Policy::published();
    let demand = |nodes: Vec<Change<Node, NodeName>>, samples: Vec<GpuSample>| {
        let seen = Delta { nodes, ..objects() };
        let mut state = State::rebuild(at(600), &seen, &policy);
        let seen = Delta { samples, ..Delta::default() };
        let mut kept = Kept::new();
        keep(&mut kept, learn(at(300), &mut state, &seen, &policy));
        demand_of(&kept).len()
    };
    let all = || (0..300).step_by(30).flat_map(measured).collect::<Vec<_>>();
    assert_eq!(demand(vec![node("n1", 2)], all()), 1);
    assert_eq!(demand(vec![node("n1", 2)], vec![]), 0, "nothing was measured at all");
    // Both are of one pool: what n2 was asked for is not known.
    assert_eq!(demand(vec![node("n1", 2), node("n2", 2)], all()), 0);
    let mut gone = all();
    gone.push(sample(270, "gone", "GPU-x", Some("other"), 0.5));
    assert_eq!(demand(vec![node("n1", 2)], gone), 0, "of which pool that node was is not known");
    assert_eq!(stretch(&policy), Duration::from_secs(300));
}
