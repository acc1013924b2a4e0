use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use gpu_autoscaler_k8s::election::Leadership;
use gpu_autoscaler_k8s::watch::{Resource, WatchHealth};
use gpu_autoscaler_model::{Action, EffectId, ObjectKey, PolicyKind, Receipt};

use super::*;
use crate::health::{TelemetryHealth, WriteHealth};
use crate::sample_view;

/// Names that earlier releases published, with their labels, of what this release does.
const PUBLISHED: [(&str, &[&str]); 13] = [
    ("controller_reconcile_duration", &[]),
    ("controller_reconcile_errors", &[]),
    ("dcgm_up", &["node"]),
    ("gpu_autoscaler_cluster_utilization", &[]),
    ("gpu_autoscaler_estimated_monthly_cost_usd", &["capacity_type"]),
    ("gpu_autoscaler_estimated_monthly_savings_usd", &[]),
    ("gpu_autoscaler_last_reconcile_timestamp", &[]),
    ("gpu_autoscaler_node_count", &["capacity_type"]),
    ("gpu_autoscaler_pending_pods", &[]),
    ("gpu_autoscaler_pod_waste_score", &["namespace", "pod"]),
    ("gpu_autoscaler_reconcile_duration_seconds", &[]),
    ("gpu_autoscaler_reconcile_errors_total", &[]),
    ("gpu_autoscaler_underutilized_nodes", &[]),
];

/// Published names of what this release does not do yet.
const LATER: [(&str, &[&str]); 6] = [
    (
        "adding and removing nodes",
        &[
            "gpu_autoscaler_capacity_type_preference",
            "gpu_autoscaler_desired_node_count",
            "gpu_autoscaler_multi_tier_scaling_enabled",
            "gpu_autoscaler_scale_down_cooldown_remaining_seconds",
            "gpu_autoscaler_scale_up_cooldown_remaining_seconds",
            "gpu_autoscaler_scaling_actions_total",
            "gpu_autoscaler_scaling_duration_seconds",
        ],
    ),
    (
        "spot instances",
        &[
            "gpu_autoscaler_spot_interruptions_total",
            "gpu_autoscaler_spot_savings_percentage",
            "gpu_autoscaler_spot_termination_warnings",
        ],
    ),
    (
        "prediction",
        &[
            "gpu_autoscaler_predicted_utilization",
            "gpu_autoscaler_prediction_confidence",
            "gpu_autoscaler_predictive_scaling_enabled",
        ],
    ),
    (
        "cost attribution and budgets",
        &[
            "gpu_autoscaler_budget_percentage",
            "gpu_autoscaler_hourly_cost_rate_usd",
            "gpu_autoscaler_pod_cost_usd",
            "gpu_autoscaler_total_cost_usd",
            "gpu_autoscaler_total_savings_usd",
        ],
    ),
    (
        "measured savings",
        &[
            "gpu_autoscaler_autoscaling_savings_usd",
            "gpu_autoscaler_sharing_savings_usd",
            "gpu_autoscaler_spot_savings_usd",
            "gpu_autoscaler_waste_savings_usd",
        ],
    ),
    (
        "sharing and packing",
        &[
            "gpu_autoscaler_cluster_fragmentation",
            "gpu_autoscaler_consolidation_opportunities",
            "gpu_autoscaler_mig_eligible_pods",
            "gpu_autoscaler_mig_savings_pct",
            "gpu_autoscaler_mps_active_clients",
            "gpu_autoscaler_mps_eligible_pods",
            "gpu_autoscaler_timeslicing_savings_pct",
            "gpu_autoscaler_timeslicing_virtual_gpus",
        ],
    ),
];

/// A family as it is exposed.
#[derive(Debug, Default)]
struct Exposed {
    kind: String,
    help: String,
    labels: BTreeSet<String>,
    samples: usize,
}

/// Families by the name under which they are queried.
fn families(text: &str) -> BTreeMap<String, Exposed> {
    let mut families: BTreeMap<String, Exposed> = BTreeMap::new();
    let mut name = "";
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (begun, help) = rest.split_once(' ').expect("a name and a text");
            name = begun;
            help.clone_into(&mut families.entry(name.to_owned()).or_default().help);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (begun, kind) = rest.split_once(' ').expect("a name and a type");
            assert_eq!(begun, name, "HELP comes before TYPE");
            kind.clone_into(&mut families.entry(name.to_owned()).or_default().kind);
        } else if !line.starts_with('#') {
            let family = families.get_mut(name).expect("described");
            assert!(line.starts_with(name), "{line} is of {name}");
            family.samples += 1;
            if let Some((labels, _)) = line.split_once('{').and_then(|(_, it)| it.split_once('}')) {
                let pairs = labels.split("\",");
                let names = pairs.filter_map(|pair| pair.split_once('=')).map(|(name, _)| name);
                family.labels.extend(names.filter(|name| *name != "le").map(str::to_owned));
            }
        }
    }
    let counters = families.into_iter().map(|(name, family)| match family.kind.as_str() {
        "counter" => (format!("{name}_total"), family),
        _ => (name, family),
    });
    counters.collect()
}

/// Metrics of a controller that has done everything once.
fn exercised() -> Metrics {
    let (_, view) = watch::channel(Arc::new(sample_view::full()));
    let metrics = Metrics::new(view);
    metrics.tick(Timestamp::EPOCH, Duration::from_millis(30));
    metrics.samples(5);
    metrics.effect_dropped();
    let id = EffectId::of(&["x"]);
    let action = Action::SetConditions {
        kind: PolicyKind::AutoscalingPolicy,
        key: ObjectKey::new("", "x"),
        uid: "x".into(),
        if_version: "1".into(),
        conditions: vec![],
    };
    let result = ReceiptResult::Refused { why: "no".into() };
    let receipt = Receipt { effect: id, at: Timestamp::EPOCH, result };
    let effect = Effect { id, action, deadline: Timestamp::EPOCH };
    metrics.effect(&effect, &Performed { receipt, waited: Duration::from_secs(1) });
    let (_, nodes) = watch::channel(WatchHealth::default());
    let (_, telemetry) = watch::channel(TelemetryHealth::default());
    let (_, writes) = watch::channel(WriteHealth::default());
    let leadership = Leadership::alone("me".into());
    metrics.observe(&Health::new(vec![(Resource::Nodes, nodes)], telemetry, writes, leadership));
    metrics
}

#[test]
fn published_names_are_exposed_with_their_labels() {
    let families = families(&exercised().text());
    for (name, labels) in PUBLISHED {
        let family = families.get(name).unwrap_or_else(|| panic!("{name} is not exposed"));
        let expected: BTreeSet<String> = labels.iter().map(|label| (*label).to_owned()).collect();
        assert_eq!(family.labels, expected, "{name}");
        assert!(family.samples > 0, "{name} has no sample");
    }
    for (_, names) in LATER {
        let exposed: Vec<_> = names.iter().filter(|name| families.contains_key(**name)).collect();
        assert!(exposed.is_empty(), "{exposed:?} are exposed: move them to PUBLISHED");
    }
}

#[test]
fn values_are_those_of_the_view_and_what_is_unknown_is_absent() {
    let text = exercised().text();
    for line in [
        "gpu_autoscaler_reconcile_errors_total 1",
        "gpu_autoscaler_reconcile_duration_seconds_bucket{le=\"0.04\"} 1",
        "gpu_autoscaler_last_reconcile_timestamp 0.0",
        "gpu_autoscaler_pending_pods 1.0",
        "controller_reconcile_errors 1",
        "controller_reconcile_duration 0.03",
        "dcgm_up{node=\"n1\"} 1.0",
        "dcgm_up{node=\"n2\"} 0.0",
        "gpu_autoscaler_node_count{capacity_type=\"on-demand\"} 2.0",
        "gpu_autoscaler_node_count{capacity_type=\"spot\"} 0.0",
        "gpu_autoscaler_estimated_monthly_cost_usd{capacity_type=\"spot\"} 0.0",
        // Two g5.12xlarge at 5.672 USD in us-east-1.
        "gpu_autoscaler_estimated_monthly_cost_usd{capacity_type=\"on-demand\"} 8167.68",
        "gpu_autoscaler_waste_findings{kind=\"Idle\"} 1.0",
        "gpu_autoscaler_pod_waste_score{namespace=\"ml\",pod=\"idle\"} 96.0",
        "gpu_autoscaler_underutilized_nodes 0.0",
        "gpu_autoscaler_part_works{part=\"telemetry\"} 0",
    ] {
        assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("gpu_autoscaler_pod_waste_score{namespace=\"ml\",pod=\"dark\"}"));
    assert!(text.ends_with("# EOF\n"));

    let (_, view) = watch::channel(Arc::new(View::default()));
    let text = Metrics::new(view).text();
    assert!(!text.contains("gpu_autoscaler_gpus"), "nothing was judged yet:\n{text}");
}

#[test]
fn the_reference_of_metrics_is_fresh() {
    let families = families(&exercised().text());
    let mut page = "# Metrics\n\n\
        Served at `/metrics` of the port 8080, in the OpenMetrics text format.\n\
        A gauge whose value is not known is absent, never zero.\n\
        All replicas judge alike, so take the `max` over replicas; only writes are the leader's.\n\n\
        <!-- Printed from crates/controller/src/metrics.rs; \
        `UPDATE_EXPECT=1 cargo test -p gpu-autoscaler-controller metrics` rewrites it. -->\n\n\
        | metric | type | labels | name of earlier releases | meaning |\n|---|---|---|---|---|\n"
        .to_owned();
    for (name, family) in &families {
        let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        let published = PUBLISHED.iter().any(|(published, _)| published == name);
        let published = if published { "published" } else { "" };
        let (kind, help) = (&family.kind, family.help.trim_end_matches('.'));
        let _ =
            writeln!(page, "| `{name}` | {kind} | {} | {published} | {help}. |", labels.join(" "));
    }
    page.push_str("\n## Published names that nothing sets yet\n\n");
    page.push_str("They come with what they are of, and are absent until then.\n\n");
    page.push_str("| of | names |\n|---|---|\n");
    for (of, names) in LATER {
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        let _ = writeln!(page, "| {of} | {} |", names.join(" "));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    if env::var_os("UPDATE_EXPECT").is_some_and(|value| value == "1") {
        fs::write(&path, &page).expect("written");
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == page, "{} is stale: run with UPDATE_EXPECT=1", path.display());
}
