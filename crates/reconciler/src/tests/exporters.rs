//! Several exporters of one GPU.

use super::*;

/// What `exporter` reports of a GPU, from a second on and every 30 s.
fn of(
    exporter: &str,
    span: (u64, u64),
    pod: Option<&str>,
    activity: impl Fn(u64) -> f64,
) -> Vec<GpuSample> {
    let secs = (span.0..=span.1).step_by(30);
    let one = |secs| GpuSample {
        exporter: exporter.into(),
        ..sample(secs, "n1", "GPU-a", pod, activity(secs))
    };
    secs.map(one).collect()
}

fn seen(parts: &[Vec<GpuSample>]) -> Delta {
    let mut samples = parts.concat();
    samples.sort_by_key(|sample| sample.at);
    Delta {
        nodes: vec![node("n1", 1)],
        pods: vec![Change::Upsert(pod("p", "u1", Some("n1"), 1))],
        samples,
        ..Delta::default()
    }
}

fn kinds(outcome: &Outcome) -> Vec<FindingKind> {
    outcome.view.findings.iter().map(|f| f.kind).collect()
}

fn unknown(outcome: &Outcome) -> Vec<String> {
    outcome.view.unknown.iter().map(|u| u.why.to_string()).collect()
}

fn judged(secs: u64, parts: &[Vec<GpuSample>]) -> (Vec<FindingKind>, Vec<String>) {
    let outcome = tick(secs, &mut State::new(), &seen(parts));
    (kinds(&outcome), unknown(&outcome))
}

#[test]
fn what_two_exporters_say_alike_counts_once() {
    let one = || of("a:9400", (0, 600), Some("p"), |_| 0.05);
    let two = of("b:9400", (7, 607), Some("p"), |_| 0.05);
    let alone = tick(607, &mut State::new(), &seen(&[one()]));
    let both = tick(607, &mut State::new(), &seen(&[one(), two]));
    let usage = |outcome: &Outcome| outcome.view.findings[0].usage.clone().expect("measured");
    assert_eq!(usage(&both), usage(&alone), "the same readings, not twice as many");
    // The first of 21 is older than the window.
    assert_eq!(usage(&both).samples, 20);
    assert_eq!(unknown(&both), [""; 0]);
}

#[test]
fn what_they_say_differently_is_unknown_until_one_falls_silent() {
    let idle = || of("a:9400", (0, 600), Some("p"), |_| 0.0);
    let busy = |to| of("b:9400", (7, to), Some("p"), |_| 0.9);
    let both = "exporters disagree: a:9400, b:9400";
    let disagree = (vec![], vec![both.to_owned()]);
    assert_eq!(judged(607, &[idle(), busy(607)]), disagree);
    assert_eq!(judged(607, &[idle(), busy(517)]), disagree, "90 s ago is still believed");
    assert_eq!(judged(608, &[idle(), busy(487)]), (vec![FindingKind::Idle], vec![]), "b is silent");

    // The one that counted falls silent: the other starts from nothing.
    let mut state = State::new();
    assert_eq!(unknown(&tick(607, &mut state, &seen(&[idle(), busy(607)]))), [both]);
    let go_on = Delta { samples: of("b:9400", (637, 907), Some("p"), |_| 0.9), ..Delta::default() };
    let why = unknown(&tick(907, &mut state, &go_on));
    assert!(why[0].starts_with("observed for "), "{why:?}");
    let go_on =
        Delta { samples: of("b:9400", (937, 1_207), Some("p"), |_| 0.9), ..Delta::default() };
    let outcome = tick(1_207, &mut state, &go_on);
    assert_eq!((kinds(&outcome), unknown(&outcome)), (vec![], vec![]), "it is busy");
}

#[test]
fn an_exporter_that_knows_no_pods_takes_part_in_the_dispute_whichever_comes_first() {
    for (first, second) in [(0, 7), (7, 0)] {
        let idle = of("a:9400", (first, first + 600), Some("p"), |_| 0.0);
        let blind = |activity: f64| of("b:9400", (second, second + 600), None, move |_| activity);
        assert_eq!(judged(607, &[idle.clone(), blind(0.0)]), (vec![FindingKind::Idle], vec![]));
        let (found, why) = judged(607, &[idle, blind(0.9)]);
        assert_eq!((found, why), (vec![], vec!["exporters disagree: a:9400, b:9400".to_owned()]));
    }
}

#[test]
fn an_exporter_that_restarts_under_another_address_leaves_no_gap() {
    let before = of("a:9400", (0, 300), Some("p"), |_| 0.0);
    for until in (310..=900).step_by(10) {
        let mut after = of("c:9400", (310, 900), Some("p"), |_| 0.0);
        after.retain(|sample| sample.at <= at(until));
        let (_, why) = judged(until, &[before.clone(), after]);
        assert!(!why.iter().any(|why| why.starts_with("last sample")), "{until}: {why:?}");
        assert!(!why.iter().any(|why| why.contains("disagree")), "{until}: {why:?}");
    }
}

#[test]
fn a_free_gpu_that_exporters_disagree_about_is_unknown_and_has_no_activity() {
    let idle = of("a:9400", (0, 600), None, |_| 0.0);
    let busy = of("b:9400", (7, 607), None, |_| 0.9);
    let mut delta = seen(&[idle.clone(), busy]);
    delta.pods.clear();
    let outcome = tick(607, &mut State::new(), &delta);
    assert_eq!(unknown(&outcome), ["exporters disagree: a:9400, b:9400"]);
    assert_eq!(outcome.view.devices[0].activity, None);
    assert_eq!(outcome.view.nodes[0].activity, None);
    assert_eq!(outcome.view.totals.utilization, None);
    let mut delta = seen(&[idle]);
    delta.pods.clear();
    let alone = tick(607, &mut State::new(), &delta);
    assert_eq!(alone.view.totals.utilization, Some(Ratio::ZERO));
}

#[test]
fn what_is_disputed_is_not_learned() {
    let learned = |activity: f64| {
        let mut state = State::new();
        let two = of("b:9400", (7, 607), Some("p"), |_| activity);
        let delta = seen(&[of("a:9400", (0, 600), Some("p"), |_| 0.0), two]);
        let records = tick(607, &mut state, &delta).history;
        records.iter().any(|record| matches!(record, HistoryRecord::Usage(_)))
    };
    assert_eq!((learned(0.0), learned(0.9)), (true, false));
}
