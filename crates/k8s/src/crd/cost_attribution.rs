//! Whose GPU cost is accounted together.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::parts::{Conditions, LabelSelector, defaults};

/// Whose GPU cost is accounted together.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gpu-autoscaler.io",
    version = "v1alpha1",
    kind = "CostAttribution",
    plural = "costattributions",
    shortname = "ca",
    category = "gpu-autoscaler",
    doc = "Whose GPU cost is accounted together.",
    status = "CostAttributionStatus",
    derive = "PartialEq",
    printcolumn(name = "Namespace", type_ = "string", json_path = ".spec.namespace"),
    printcolumn(name = "Daily Cost", type_ = "number", json_path = ".status.dailyCost"),
    printcolumn(name = "Monthly Cost", type_ = "number", json_path = ".status.monthlyCost"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct CostAttributionSpec {
    /// Whether the account is kept. Accounting changes nothing in the cluster.
    #[serde(default)]
    pub enabled: bool,
    /// With `enabled`: keep the account, but write no more than its status.
    #[serde(default)]
    pub dry_run: bool,
    /// A namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Labels that the pods' namespaces must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Labels that pods must have.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The label `experiment-id` that pods must have.
    #[serde(default, rename = "experimentID", skip_serializing_if = "Option::is_none")]
    pub experiment_id: Option<String>,
    /// The label `team` that pods must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub team: Option<String>,
    /// The label `project` that pods must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// The label `cost-center` that pods must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_center: Option<String>,
    /// Carried into reports as they are.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Labels by which the account is split further: `namespace`, or `label:` and a label.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub track_by: Vec<String>,
    /// How long history is kept, in days.
    #[serde(default = "retention")]
    #[schemars(range(min = 1, max = 365))]
    pub retention_days: i32,
}

defaults! {
    retention: i32 = 90;
}

/// What it cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CostAttributionStatus {
    /// Since the account was opened.
    pub total_cost: Option<f64>,
    /// In the last 24 hours.
    pub daily_cost: Option<f64>,
    /// In the last 30 days.
    pub monthly_cost: Option<f64>,
    /// Per hour, now.
    pub hourly_cost: Option<f64>,
    /// Pods now.
    pub active_pods: Option<i32>,
    /// GPUs now.
    #[serde(rename = "activeGPUs")]
    pub active_gpus: Option<f64>,
    /// GPU-hours since the account was opened.
    pub gpu_hours: Option<f64>,
    /// Cost of a GPU-hour.
    #[serde(rename = "costPerGPUHour")]
    pub cost_per_gpu_hour: Option<f64>,
    /// When this status was written.
    #[schemars(extend("format" = "date-time"))]
    pub last_updated: Option<String>,
    /// The same in detail.
    pub detailed_breakdown: Option<AttributionBreakdown>,
    /// How it went.
    pub historical_data: Option<Vec<HistoricalCost>>,
    /// What was saved.
    pub savings: Option<AttributedSavings>,
    /// The generation that this status speaks of.
    pub observed_generation: Option<i64>,
    /// Conditions.
    pub conditions: Conditions,
}

/// Cost in detail.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AttributionBreakdown {
    /// By pod.
    pub by_pod: Option<Vec<PodCost>>,
    /// By GPU model.
    #[serde(rename = "byGPUType")]
    pub by_gpu_type: Option<BTreeMap<String, f64>>,
    /// By capacity type.
    pub by_capacity_type: Option<BTreeMap<String, f64>>,
    /// By node.
    pub by_node: Option<BTreeMap<String, f64>>,
    /// By hour, for 24 hours.
    pub by_hour: Option<Vec<HourCost>>,
    /// By day, for 30 days.
    pub by_day: Option<Vec<DayCost>>,
}

/// Cost of a pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PodCost {
    /// Its name.
    pub pod_name: Option<String>,
    /// GPU model.
    pub gpu_type: Option<String>,
    /// GPUs.
    pub gpu_count: Option<f64>,
    /// Since when.
    #[schemars(extend("format" = "date-time"))]
    pub start_time: Option<String>,
    /// Cost so far.
    pub cost: Option<f64>,
    /// Cost per hour.
    pub hourly_rate: Option<f64>,
    /// How its node is bought.
    pub capacity_type: Option<String>,
    /// How its GPUs are shared.
    pub sharing_mode: Option<String>,
    /// Its node.
    pub node: Option<String>,
}

/// Cost of an hour.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HourCost {
    /// Its start.
    #[schemars(extend("format" = "date-time"))]
    pub timestamp: Option<String>,
    /// Cost.
    pub cost: Option<f64>,
    /// GPU-hours.
    pub gpu_hours: Option<f64>,
}

/// Cost of a day.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DayCost {
    /// `YYYY-MM-DD`.
    pub date: Option<String>,
    /// Cost.
    pub cost: Option<f64>,
    /// GPU-hours.
    pub gpu_hours: Option<f64>,
    /// Most GPUs at once.
    #[serde(rename = "peakGPUs")]
    pub peak_gpus: Option<f64>,
}

/// One point of the history.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HistoricalCost {
    /// When.
    #[schemars(extend("format" = "date-time"))]
    pub timestamp: Option<String>,
    /// Cost so far.
    pub cost: Option<f64>,
    /// Cost per hour.
    pub rate: Option<f64>,
    /// GPUs.
    pub gpus: Option<f64>,
    /// Pods.
    pub pods: Option<i32>,
}

/// What was saved, measured against the baseline.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AttributedSavings {
    /// In all.
    pub total_savings: Option<f64>,
    /// By spot instances.
    pub spot_savings: Option<f64>,
    /// By sharing.
    pub sharing_savings: Option<f64>,
    /// By fewer nodes.
    pub autoscaling_savings: Option<f64>,
    /// By ending waste.
    pub waste_eliminated: Option<f64>,
    /// Of the baseline, in percent.
    pub savings_percentage: Option<f64>,
    /// What it would have cost.
    pub baseline_cost: Option<f64>,
}
