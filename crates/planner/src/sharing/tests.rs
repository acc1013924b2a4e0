use gpu_autoscaler_model::consent::{
    MPS_ENABLED, OPTIMIZE, TIME_SLICING_ENABLED, WORKLOAD_TYPE, WORKLOAD_TYPE_BARE,
};

use super::*;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::new(pairs.iter().map(|&(key, value)| (key.into(), value.into())))
}

fn policy(name: &str, priority: i32, allow_override: bool, share: Share) -> SharingPolicy {
    SharingPolicy { name: name.into(), priority, allow_override, prescribes: Some(share) }
}

const QUIET: History =
    History { finished_pods: 3, sampled_secs: 0, compute_p95_milli: 499, memory_p99_mib: 4_000 };

fn with(
    annotations: &[(&str, &str)],
    policies: &[SharingPolicy],
    history: Option<History>,
) -> Choice {
    choose(&Workload {
        gpus: 1,
        annotations: &labels(annotations),
        labels: &Labels::default(),
        namespace_labels: &Labels::default(),
        policies,
        history,
    })
}

#[test]
fn opting_out_stands_above_everything() {
    let forced = [policy("p", 9, false, Share::Mps { clients: 4 })];
    for out in [(OPTIMIZE, "false"), (SHARING, "disabled")] {
        let choice = with(&[out, (SHARING_MODE, "mps")], &forced, Some(QUIET));
        assert_eq!(choice, Choice::Leave(Reason::PodOptedOut(out.0)));
    }
    let choice = choose(&Workload {
        gpus: 1,
        annotations: &labels(&[(SHARING_MODE, "mps")]),
        labels: &Labels::default(),
        namespace_labels: &labels(&[(NAMESPACE_SHARING, "false")]),
        policies: &forced,
        history: None,
    });
    assert_eq!(choice, Choice::Leave(Reason::NamespaceOptedOut));
}

#[test]
fn training_is_never_shared() {
    let annotations = [(WORKLOAD_TYPE, "training"), (SHARING_MODE, "timeslicing")];
    assert_eq!(with(&annotations, &[], Some(QUIET)), Choice::Leave(Reason::Training));
}

#[test]
fn annotations_then_the_highest_policy_then_history() {
    let mps = || Share::Mps { clients: 8 };
    let slices = || Share::TimeSlicing { replicas: 2 };
    let policies = [policy("low", 1, true, slices()), policy("high", 2, true, mps())];
    let mode = [(SHARING_MODE, "timeslicing")];
    assert_eq!(
        with(&mode, &policies, Some(QUIET)),
        Choice::Share(Share::TimeSlicing { replicas: 4 }, Basis::Annotation(SHARING_MODE))
    );
    let by_high = Choice::Share(mps(), Basis::Policy("high".into()));
    assert_eq!(with(&[], &policies, Some(QUIET)), by_high);
    let fixed = [policy("high", 2, false, mps())];
    assert_eq!(with(&mode, &fixed, None), by_high);
    assert_eq!(
        with(&[], &[], Some(QUIET)),
        Choice::Share(Share::MigAtLeast { memory_mib: 4_800 }, Basis::History(QUIET))
    );
    assert_eq!(with(&[], &[], None), Choice::Leave(Reason::Nothing));
}

#[test]
fn the_profile_alone_says_mig_and_a_wrong_value_changes_nothing() {
    assert_eq!(
        with(&[(MIG_PROFILE, "1g.5gb")], &[], None),
        Choice::Share(Share::MigProfile("1g.5gb".into()), Basis::Annotation(MIG_PROFILE))
    );
    let wrong = with(&[(SHARING_MODE, "mps"), (MPS_CLIENTS, "0")], &[], Some(QUIET));
    let Choice::Leave(reason) = wrong else { panic!("{wrong:?}") };
    assert_eq!(
        reason.to_string(),
        "its annotation `gpu-autoscaler.io/mps-clients` has the value `0`, which means nothing"
    );
}

#[test]
fn a_history_is_three_pods_or_an_hour_and_below_half_of_the_compute() {
    let short = History { finished_pods: 2, sampled_secs: 3_599, ..QUIET };
    assert!(matches!(
        with(&[], &[], Some(short)),
        Choice::Leave(Reason::ShortHistory { finished_pods: 2, sampled_secs: 3_599 })
    ));
    let hour = History { finished_pods: 0, sampled_secs: 3_600, ..QUIET };
    assert!(matches!(with(&[], &[], Some(hour)), Choice::Share(..)));
    let busy = History { compute_p95_milli: 500, ..QUIET };
    assert_eq!(with(&[], &[], Some(busy)), Choice::Leave(Reason::Busy { compute_p95_milli: 500 }));
}

/// Rules in their order; each is on or off, and the first that is on decides.
const RULES: [&str; 10] = [
    "optimize=false",
    "sharing=disabled",
    "namespace",
    "training",
    "several GPUs",
    "fixed policy",
    "annotation",
    "policy",
    "history",
    "consent",
];

fn decider(on: &dyn Fn(&str) -> bool) -> String {
    let mut annotations = Vec::new();
    if on("optimize=false") {
        annotations.push((OPTIMIZE, "false"));
    }
    if on("sharing=disabled") {
        annotations.push((SHARING, "disabled"));
    } else if on("consent") {
        annotations.push((SHARING, "enabled"));
    }
    if on("annotation") {
        annotations.push((SHARING_MODE, "timeslicing"));
    }
    let mut policies = Vec::new();
    if on("fixed policy") {
        policies.push(policy("fixed policy", 9, false, Share::Mps { clients: 2 }));
    }
    if on("policy") {
        policies.push(policy("policy", 5, true, Share::Mps { clients: 3 }));
        // A lower one never decides, whatever it forbids.
        policies.push(policy("lower", 1, false, Share::Exclusive));
    }
    let training = if on("training") { "training" } else { "inference" };
    let namespace = if on("namespace") { "false" } else { "true" };
    let choice = choose(&Workload {
        gpus: if on("several GPUs") { 2 } else { 1 },
        annotations: &labels(&annotations),
        labels: &labels(&[(WORKLOAD_TYPE, training)]),
        namespace_labels: &labels(&[(NAMESPACE_SHARING, namespace)]),
        policies: &policies,
        history: on("history").then_some(QUIET),
    });
    match choice {
        Choice::Leave(Reason::PodOptedOut(OPTIMIZE)) => "optimize=false".into(),
        Choice::Leave(Reason::PodOptedOut(SHARING)) => "sharing=disabled".into(),
        Choice::Leave(Reason::NamespaceOptedOut) => "namespace".into(),
        Choice::Leave(Reason::Training) => "training".into(),
        Choice::Leave(Reason::SeveralGpus { gpus: 2 }) => "several GPUs".into(),
        Choice::Leave(Reason::Nothing) => "nothing".into(),
        Choice::Share(_, Basis::Policy(name)) => name.to_string(),
        Choice::Share(_, Basis::Annotation(SHARING_MODE)) => "annotation".into(),
        Choice::Share(_, Basis::Annotation(SHARING)) => "consent".into(),
        Choice::Share(_, Basis::History(_)) => "history".into(),
        other => format!("{other:?}"),
    }
}

#[test]
fn of_all_combinations_of_rules_the_first_in_order_decides() {
    for set in 0..1_u32 << RULES.len() {
        let on = |rule: &str| {
            let at = RULES.iter().position(|known| *known == rule).expect("a rule");
            set >> at & 1 == 1
        };
        let first = RULES.into_iter().find(|rule| on(rule)).unwrap_or("nothing");
        assert_eq!(decider(&on), first, "set {set:b}");
    }
}

#[test]
fn a_fixed_policy_of_strategy_auto_leaves_it_to_the_history_and_not_to_the_pod() {
    let auto = |allow_override| SharingPolicy {
        name: "auto".into(),
        priority: 1,
        allow_override,
        prescribes: None,
    };
    let mode = [(SHARING_MODE, "timeslicing")];
    let by_history = with(&mode, &[auto(false)], Some(QUIET));
    assert!(matches!(by_history, Choice::Share(_, Basis::History(_))), "{by_history:?}");
    assert_eq!(with(&mode, &[auto(false)], None), Choice::Leave(Reason::Nothing));
    let by_pod = with(&mode, &[auto(true)], Some(QUIET));
    assert!(matches!(by_pod, Choice::Share(_, Basis::Annotation(_))), "{by_pod:?}");
}

#[test]
fn a_pod_may_opt_out_of_one_strategy() {
    let fixed = [policy("p", 1, false, Share::Mps { clients: 4 })];
    assert_eq!(
        with(&[(MPS_ENABLED, "false")], &fixed, None),
        Choice::Leave(Reason::PodOptedOut(MPS_ENABLED))
    );
    let consent = [(SHARING, "enabled"), (MPS_ENABLED, "false")];
    assert_eq!(
        with(&consent, &[], None),
        Choice::Share(Share::TimeSlicing { replicas: 4 }, Basis::Annotation(SHARING))
    );
    let neither = [(SHARING, "enabled"), (MPS_ENABLED, "false"), (TIME_SLICING_ENABLED, "false")];
    assert_eq!(with(&neither, &[], None), Choice::Leave(Reason::PodOptedOut(TIME_SLICING_ENABLED)));
}

#[test]
fn the_type_of_workload_only_recommends_and_training_not_even_that() {
    let recommended = |kind: &str, memory_gib: u64| {
        let labels = labels(&[(WORKLOAD_TYPE, kind)]);
        let workload = Workload {
            gpus: 1,
            annotations: &Labels::default(),
            labels: &labels,
            namespace_labels: &Labels::default(),
            policies: &[],
            history: None,
        };
        if kind != "training" {
            assert_eq!(choose(&workload), Choice::Leave(Reason::Nothing), "{kind}");
        }
        recommend(&workload, memory_gib << 30)
    };
    assert_eq!(recommended("inference", 64), Some(Share::Mps { clients: 16 }));
    assert_eq!(recommended("batch", 64), Some(Share::TimeSlicing { replicas: 4 }));
    assert_eq!(recommended("inference", 8), Some(Share::MigAtLeast { memory_mib: 0 }));
    assert_eq!(recommended("training", 8), None);
    assert_eq!(recommended("painting", 64), None);
}

#[test]
fn training_is_heard_wherever_it_is_declared() {
    let (typed, bare) = ((WORKLOAD_TYPE, "Training"), (WORKLOAD_TYPE_BARE, "training"));
    let places = [
        (vec![typed], vec![]),
        (vec![], vec![(WORKLOAD_TYPE, "training")]),
        (vec![bare, (WORKLOAD_TYPE, "inference")], vec![]),
    ];
    for (own, annotations) in &places {
        let choice = choose(&Workload {
            gpus: 1,
            annotations: &labels(annotations),
            labels: &labels(own),
            namespace_labels: &Labels::default(),
            policies: &[policy("p", 9, false, Share::Mps { clients: 4 })],
            history: Some(QUIET),
        });
        assert_eq!(choice, Choice::Leave(Reason::Training), "{own:?}");
    }
}

#[test]
fn clients_are_capped_by_the_device() {
    assert_eq!(mps_clients(16, 8, 0), 16);
    assert_eq!(mps_clients(60, 9, 0), 48);
    assert_eq!(mps_clients(48, 7, 0), 16);
    assert_eq!(mps_clients(0, 7, 0), 1);
}

#[test]
fn mps_clients_are_bounded_by_compute_capability() {
    assert_eq!(mps_clients_max(7, 0), 16);
    assert_eq!(mps_clients_max(7, 5), 48);
    assert_eq!(mps_clients_max(9, 0), 48);
}
