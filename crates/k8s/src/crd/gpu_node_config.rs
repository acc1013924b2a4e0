//! How the GPUs of one node are shared.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::parts::{Conditions, defaults};

/// How the GPUs of one node are shared.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gpu-autoscaler.io",
    version = "v1alpha1",
    kind = "GPUNodeConfig",
    root = "GpuNodeConfig",
    plural = "gpunodeconfigs",
    shortname = "gnc",
    category = "gpu-autoscaler",
    doc = "How the GPUs of one node are shared.",
    status = "GpuNodeConfigStatus",
    derive = "PartialEq",
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.nodeName"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "MIG", type_ = "boolean", json_path = ".spec.migEnabled"),
    printcolumn(name = "MPS", type_ = "boolean", json_path = ".spec.mpsEnabled"),
    printcolumn(name = "TimeSlicing", type_ = "boolean", json_path = ".spec.timeSlicingEnabled"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct GpuNodeConfigSpec {
    /// The consent to act. Unless it is true, the configuration is checked and reported only.
    #[serde(default)]
    pub enabled: bool,
    /// With `enabled`: decide and report, but change nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// The node; it cannot be changed.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("nodeName cannot be changed"))]
    pub node_name: String,
    /// Whether its GPUs are partitioned.
    #[serde(default)]
    pub mig_enabled: bool,
    /// The profiles that each GPU is partitioned into, such as `1g.10gb`.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub mig_profiles: Vec<String>,
    /// Whether its GPUs are shared by MPS.
    #[serde(default)]
    pub mps_enabled: bool,
    /// The most client processes on one GPU.
    #[serde(default = "mps_clients")]
    #[schemars(range(min = 1, max = 48))]
    pub mps_max_clients: i32,
    /// Whether its GPUs are shared by time slices.
    #[serde(default)]
    pub time_slicing_enabled: bool,
    /// Replicas of each GPU.
    #[serde(default = "replicas")]
    #[schemars(range(min = 1, max = 16))]
    pub time_slicing_replicas: i32,
}

defaults! {
    mps_clients: i32 = 16;
    replicas: i32 = 4;
}

/// How far the configuration has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GpuNodeConfigStatus {
    /// Where it is.
    pub phase: Option<NodeConfigPhase>,
    /// In one sentence.
    pub message: Option<String>,
    /// When this status was written.
    #[schemars(extend("format" = "date-time"))]
    pub last_update_time: Option<String>,
    /// Partitions.
    pub mig_status: Option<MigStatus>,
    /// MPS.
    pub mps_status: Option<MpsStatus>,
    /// Time slices.
    pub time_slicing_status: Option<TimeSlicingStatus>,
    /// The generation that this status speaks of.
    pub observed_generation: Option<i64>,
    /// Conditions.
    pub conditions: Conditions,
}

/// Where the configuration of a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NodeConfigPhase {
    /// Not begun.
    Pending,
    /// Under way.
    Configuring,
    /// In force.
    Ready,
    /// Given up; the message says why.
    Failed,
}

/// Partitions of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MigStatus {
    /// Whether MIG is on.
    pub enabled: Option<bool>,
    /// Profiles in force.
    pub configured_profiles: Option<Vec<String>>,
    /// GPU instances that pods may have.
    pub available_devices: Option<i32>,
}

/// MPS on a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MpsStatus {
    /// Whether it is on.
    pub enabled: Option<bool>,
    /// Client processes now.
    pub active_clients: Option<i32>,
    /// The most that are let in.
    pub max_clients: Option<i32>,
}

/// Time slices on a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TimeSlicingStatus {
    /// Whether they are on.
    pub enabled: Option<bool>,
    /// Devices.
    #[serde(rename = "physicalGPUs")]
    pub physical_gpus: Option<i32>,
    /// Devices times replicas.
    #[serde(rename = "virtualGPUs")]
    pub virtual_gpus: Option<i32>,
    /// Replicas of each.
    #[serde(rename = "replicasPerGPU")]
    pub replicas_per_gpu: Option<i32>,
}
