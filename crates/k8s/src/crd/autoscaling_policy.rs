//! When and where GPU nodes are added and removed.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::parts::{Conditions, Fraction, defaults};

/// When and where GPU nodes are added and removed.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gpu-autoscaler.io",
    version = "v1alpha1",
    kind = "AutoscalingPolicy",
    plural = "autoscalingpolicies",
    shortname = "asp",
    category = "gpu-autoscaler",
    doc = "When and where GPU nodes are added and removed.",
    status = "AutoscalingPolicyStatus",
    derive = "PartialEq",
    printcolumn(name = "Provider", type_ = "string", json_path = ".spec.provider"),
    printcolumn(name = "Enabled", type_ = "boolean", json_path = ".spec.enabled"),
    printcolumn(name = "Current", type_ = "integer", json_path = ".status.currentNodes"),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".status.desiredNodes"),
    printcolumn(name = "Min", type_ = "integer", json_path = ".spec.minNodes"),
    printcolumn(name = "Max", type_ = "integer", json_path = ".spec.maxNodes"),
    printcolumn(
        name = "Utilization",
        type_ = "number",
        json_path = ".status.averageGPUUtilization"
    ),
    printcolumn(
        name = "Spot %",
        type_ = "number",
        json_path = ".spec.spotInstancePercentage",
        priority = "1"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct AutoscalingPolicySpec {
    /// The consent to act. Unless it is true, the policy is observed and reported only.
    #[serde(default)]
    pub enabled: bool,
    /// With `enabled`: decide and report, but change nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Whose machines the nodes are.
    pub provider: Provider,
    /// Mean GPU utilization above which nodes are added.
    #[serde(default = "scale_up_threshold")]
    pub scale_up_threshold: Fraction,
    /// GPU utilization of a node below which it may be removed.
    #[serde(default = "scale_down_threshold")]
    pub scale_down_threshold: Fraction,
    /// Pause after adding nodes, in seconds.
    #[serde(default = "scale_up_cooldown")]
    #[schemars(range(min = 0))]
    pub scale_up_cooldown_seconds: i32,
    /// Pause after removing nodes, in seconds.
    #[serde(default = "scale_down_cooldown")]
    #[schemars(range(min = 0))]
    pub scale_down_cooldown_seconds: i32,
    /// How long a GPU pod may wait for a node before one is added, in seconds.
    #[serde(default = "pending_timeout")]
    #[schemars(range(min = 0))]
    pub pending_pod_timeout_seconds: i32,
    /// The fewest nodes, over all pools.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub min_nodes: i32,
    /// The most nodes, over all pools.
    #[serde(default = "hundred")]
    #[schemars(range(min = 1))]
    pub max_nodes: i32,
    /// Share of nodes that may be spot instances.
    #[serde(default = "spot_share")]
    pub spot_instance_percentage: Fraction,
    /// Whether spot instances may be used at all.
    #[serde(default = "yes")]
    pub enable_spot_instances: bool,
    /// Whether reserved, spot and on-demand capacity are mixed by price.
    #[serde(default = "yes")]
    pub enable_multi_tier_scaling: bool,
    /// Whether nodes are added ahead of forecast demand.
    #[serde(default)]
    pub enable_predictive_scaling: bool,
    /// The pools that nodes are added to.
    #[serde(default)]
    #[schemars(
        length(max = 64),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub node_pools: Vec<NodePool>,
    /// The nodes that this policy is about; all GPU nodes when empty.
    #[serde(default)]
    pub node_selector: BTreeMap<String, String>,
}

defaults! {
    scale_up_threshold: Fraction = Fraction(0.8);
    scale_down_threshold: Fraction = Fraction(0.2);
    spot_share: Fraction = Fraction(0.6);
    scale_up_cooldown: i32 = 180;
    scale_down_cooldown: i32 = 600;
    pending_timeout: i32 = 120;
    hundred: i32 = 100;
    yes: bool = true;
}

/// Whose machines the nodes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// Amazon Web Services.
    Aws,
    /// Google Cloud.
    Gcp,
    /// Microsoft Azure.
    Azure,
    /// Somebody else's, or one's own.
    Custom,
}

/// A group of like nodes.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodePool {
    /// Its name, unique in the policy.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// The fewest nodes.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub min_size: i32,
    /// The most nodes.
    #[serde(default = "hundred")]
    #[schemars(range(min = 0))]
    pub max_size: i32,
    /// GPU model of its nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_type: Option<String>,
    /// Instance types that it may use, best first.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub instance_types: Vec<String>,
    /// How its nodes are bought.
    pub capacity_type: PoolCapacityType,
    /// Share of its nodes that are spot instances, where the pool mixes.
    #[serde(default = "spot_share")]
    pub spot_percentage: Fraction,
    /// The most that a spot instance may cost per hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub spot_max_price: Option<String>,
    /// Higher is tried first.
    #[serde(default)]
    pub priority: i32,
    /// Labels of its nodes.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Taints of its nodes.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub taints: Vec<PoolTaint>,
    /// Zones that it may use; all when empty.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub availability_zones: Vec<String>,
}

/// How the nodes of a pool are bought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PoolCapacityType {
    /// May be taken back at any time.
    Spot,
    /// At list price, kept as long as wanted.
    OnDemand,
    /// Paid for already.
    Reserved,
}

/// A taint of a pool's nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PoolTaint {
    /// Its key.
    pub key: String,
    /// Its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// What it does to pods without a toleration.
    pub effect: PoolTaintEffect,
}

/// What a taint does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PoolTaintEffect {
    /// Keeps new pods away.
    NoSchedule,
    /// Keeps new pods away where another node will do.
    PreferNoSchedule,
    /// Keeps new pods away and evicts running ones.
    NoExecute,
}

/// What the policy has done, and what it sees.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AutoscalingPolicyStatus {
    /// Nodes now.
    pub current_nodes: Option<i32>,
    /// Nodes wanted.
    pub desired_nodes: Option<i32>,
    /// Of these, spot.
    pub spot_nodes: Option<i32>,
    /// Of these, on-demand.
    pub on_demand_nodes: Option<i32>,
    /// Of these, reserved.
    pub reserved_nodes: Option<i32>,
    /// Mean GPU utilization, 0 to 1; absent while not known.
    #[serde(rename = "averageGPUUtilization")]
    pub average_gpu_utilization: Option<f64>,
    /// GPU pods that wait for a node.
    pub pending_pods: Option<i32>,
    /// When nodes were last added.
    #[schemars(extend("format" = "date-time"))]
    pub last_scale_up_time: Option<String>,
    /// When nodes were last removed.
    #[schemars(extend("format" = "date-time"))]
    pub last_scale_down_time: Option<String>,
    /// What was last done.
    pub last_scaling_action: Option<String>,
    /// Why.
    pub last_scaling_reason: Option<String>,
    /// Spot interruptions in the last 24 hours.
    pub spot_interruptions: Option<i32>,
    /// What the nodes cost per month of 720 hours.
    pub estimated_monthly_cost: Option<f64>,
    /// What they would cost more at list price.
    pub estimated_monthly_savings: Option<f64>,
    /// The forecast.
    pub predictive_scaling: Option<PredictiveScalingStatus>,
    /// The generation that this status speaks of.
    pub observed_generation: Option<i64>,
    /// Conditions.
    pub conditions: Conditions,
}

/// The forecast behind predictive scaling.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PredictiveScalingStatus {
    /// Whether it is acted upon.
    pub enabled: Option<bool>,
    /// Utilization at the horizon, 0 to 1.
    pub predicted_utilization: Option<f64>,
    /// Nodes that it would take.
    pub recommended_nodes: Option<i32>,
    /// How sure the forecast is, 0 to 1.
    pub confidence: Option<f64>,
    /// When the next busy period begins.
    pub next_busy_period: Option<String>,
}
