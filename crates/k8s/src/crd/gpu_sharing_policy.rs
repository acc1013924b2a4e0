//! Which pods share GPUs, and how.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::parts::{Conditions, Fraction, LabelSelector, defaults};

/// Which pods share GPUs, and how.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gpu-autoscaler.io",
    version = "v1alpha1",
    kind = "GPUSharingPolicy",
    root = "GpuSharingPolicy",
    plural = "gpusharingpolicies",
    shortname = "gsp",
    category = "gpu-autoscaler",
    doc = "Which pods share GPUs, and how.",
    status = "GpuSharingPolicyStatus",
    derive = "PartialEq",
    printcolumn(name = "Strategy", type_ = "string", json_path = ".spec.strategy"),
    printcolumn(name = "Enabled", type_ = "boolean", json_path = ".spec.enabled"),
    printcolumn(name = "Priority", type_ = "integer", json_path = ".spec.priority"),
    printcolumn(name = "AppliedPods", type_ = "integer", json_path = ".status.appliedPods"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct GpuSharingPolicySpec {
    /// The consent to act. Unless it is true, the policy is observed and reported only.
    #[serde(default)]
    pub enabled: bool,
    /// With `enabled`: decide and report, but change nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// By which means.
    pub strategy: SharingStrategyName,
    /// Nodes that may be shared; all GPU nodes when empty.
    #[serde(default)]
    pub node_selector: BTreeMap<String, String>,
    /// Namespaces whose pods may share; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Pods that may share; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// Of several policies for one pod the highest wins.
    #[serde(default)]
    pub priority: i32,
    /// Utilization that sharing aims for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_utilization: Option<Fraction>,
    /// For `mig` and `auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mig_config: Option<MigConfig>,
    /// For `mps` and `auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mps_config: Option<MpsConfig>,
    /// For `timeslicing` and `auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_slicing_config: Option<TimeSlicingConfig>,
}

/// By which means GPUs are shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SharingStrategyName {
    /// Hardware partitions.
    Mig,
    /// One MPS server, a client process each.
    Mps,
    /// The driver's time slices.
    TimeSlicing,
    /// Not at all.
    Exclusive,
    /// Whichever suits the pod.
    Auto,
}

/// Hardware partitions.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MigConfig {
    /// The profile, such as `1g.10gb`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub profile: Option<String>,
    /// Whether the smallest profile that fits is chosen where none is named.
    #[serde(default = "yes")]
    pub auto_select_profile: bool,
}

/// Sharing by MPS.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MpsConfig {
    /// The most client processes on one GPU; NVIDIA's documentation of MPS allows 48.
    #[serde(default = "mps_clients")]
    #[schemars(range(min = 1, max = 48))]
    pub max_clients: i32,
    /// Share of threads that a client may use, in percent.
    #[serde(default = "mps_threads")]
    #[schemars(range(min = 1, max = 100))]
    pub default_active_threads: i32,
    /// Memory that a client may use, in MiB.
    #[serde(default, rename = "memoryLimitMB", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub memory_limit_mb: Option<i32>,
}

/// Sharing by time slices.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TimeSlicingConfig {
    /// Replicas of each GPU.
    #[serde(default = "replicas", rename = "replicasPerGPU")]
    #[schemars(range(min = 1, max = 16))]
    pub replicas_per_gpu: i32,
    /// Length of a slice, in milliseconds.
    #[serde(default = "slice")]
    #[schemars(range(min = 1))]
    pub slice_ms: i32,
    /// Who comes next.
    #[serde(default = "round_robin")]
    pub fairness_mode: FairnessMode,
}

/// Who comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FairnessMode {
    /// One after another.
    RoundRobin,
    /// The pod of highest priority.
    Priority,
    /// By weight.
    Weighted,
}

defaults! {
    yes: bool = true;
    mps_clients: i32 = 16;
    mps_threads: i32 = 100;
    replicas: i32 = 4;
    slice: i32 = 100;
    round_robin: FairnessMode = FairnessMode::RoundRobin;
}

/// What the policy has done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GpuSharingPolicyStatus {
    /// Pods that share because of it.
    pub applied_pods: Option<i32>,
    /// When this status was written.
    #[schemars(extend("format" = "date-time"))]
    pub last_update_time: Option<String>,
    /// The generation that this status speaks of.
    pub observed_generation: Option<i64>,
    /// Conditions.
    pub conditions: Conditions,
}
