//! What the cluster holds, as far as a decision can depend on it.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    Bytes, CapacityType, Constraints, GpuCount, GpuModel, GpuResource, InstanceType, MilliCpu,
    NodeName, ObjectKey, ResourceVersion, Timestamp, Uid,
};

/// Labels or annotations, sorted by key. Cloning copies a pointer.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Labels(Arc<[(Arc<str>, Arc<str>)]>);

impl Labels {
    /// From pairs in any order; of equal keys the last one counts.
    pub fn new(pairs: impl IntoIterator<Item = (Arc<str>, Arc<str>)>) -> Self {
        let mut pairs: Vec<_> = pairs.into_iter().collect();
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        pairs.reverse();
        pairs.dedup_by(|a, b| a.0 == b.0);
        pairs.reverse();
        Self(pairs.into())
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.get_shared(key).map(AsRef::as_ref)
    }

    /// The value of `key`, to be kept without a copy.
    pub fn get_shared(&self, key: &str) -> Option<&Arc<str>> {
        let at = self.0.binary_search_by(|(k, _)| k.as_ref().cmp(key)).ok()?;
        Some(&self.0[at].1)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All pairs, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_ref(), v.as_ref()))
    }
}

impl<K: Into<Arc<str>>, V: Into<Arc<str>>> FromIterator<(K, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self::new(pairs.into_iter().map(|(key, value)| (key.into(), value.into())))
    }
}

/// What a node offers or a pod requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Processor.
    pub cpu: MilliCpu,
    /// Host memory.
    pub memory: Bytes,
    /// NVIDIA's GPU resources, sorted, each at most once, none of count zero.
    pub gpus: Vec<GpuCount>,
    /// Everything else that the scheduler counts by name, sorted: other extended resources,
    /// `ephemeral-storage` and huge pages, the last two in bytes.
    pub extended: Vec<(Arc<str>, u64)>,
}

impl Resources {
    /// How many of `resource`.
    pub fn gpu_count(&self, resource: &GpuResource) -> u32 {
        self.gpus.iter().find(|g| g.resource == *resource).map_or(0, |g| g.count)
    }

    /// Whether any GPU resource is named.
    pub fn has_gpu(&self) -> bool {
        !self.gpus.is_empty()
    }
}

/// A node.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Its uid: a node that comes back under its old name is another node.
    pub uid: Uid,
    /// Since when it exists.
    pub created: Timestamp,
    /// All its labels.
    pub labels: Labels,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// Condition `Ready` is `True`.
    pub ready: bool,
    /// `spec.unschedulable`: cordoned.
    pub unschedulable: bool,
    /// What pods may have of it.
    pub allocatable: Resources,
    /// The most pods that its kubelet runs; `None` when it does not say.
    pub pods_max: Option<u32>,
    /// Instance type, from the well-known label.
    pub instance_type: Option<InstanceType>,
    /// Region, from the well-known label.
    pub region: Option<Arc<str>>,
    /// Zone, from the well-known label.
    pub zone: Option<Arc<str>>,
    /// Spot, on-demand or reserved, from whichever autoscaler's or cloud's label names it.
    pub capacity_type: Option<CapacityType>,
    /// GPU model, from feature discovery.
    pub gpu_model: Option<GpuModel>,
    /// Physical GPUs; `None` when neither a label nor the whole-GPU resource tells.
    pub gpus: Option<u32>,
    /// How its GPUs are shared, from feature discovery; `None` when exclusive or not said.
    pub sharing: Option<NodeSharing>,
}

/// A node-wide sharing configuration of the device plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeSharing {
    /// By which means.
    pub strategy: SharingStrategy,
    /// Equal replicas of each GPU.
    pub replicas: u32,
}

/// How several pods use one GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SharingStrategy {
    /// Hardware partitions.
    #[serde(rename = "mig")]
    Mig,
    /// One MPS server, a client process each.
    #[serde(rename = "mps")]
    Mps,
    /// The driver's time slices.
    #[serde(rename = "timeslicing")]
    TimeSlicing,
    /// Not at all.
    #[serde(rename = "exclusive")]
    Exclusive,
}

impl SharingStrategy {
    /// From the word that users write.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "mig" => Some(Self::Mig),
            "mps" => Some(Self::Mps),
            "timeslicing" => Some(Self::TimeSlicing),
            "exclusive" => Some(Self::Exclusive),
            _ => None,
        }
    }
}

/// A taint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taint {
    /// Its key.
    pub key: Arc<str>,
    /// Its value; empty when it has none.
    pub value: Arc<str>,
    /// What it does to pods without a toleration.
    pub effect: TaintEffect,
}

/// What a taint does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TaintEffect {
    /// Keeps new pods away.
    NoSchedule,
    /// Keeps new pods away where another node will do.
    PreferNoSchedule,
    /// Keeps new pods away and evicts running ones.
    NoExecute,
}

/// A pod, as far as a decision can depend on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    /// Its uid.
    pub uid: Uid,
    /// Its namespace and name.
    pub key: ObjectKey,
    /// The version that this is a copy of.
    pub resource_version: ResourceVersion,
    /// Since when it exists.
    pub created: Timestamp,
    /// When the kubelet accepted it.
    pub started: Option<Timestamp>,
    /// The node that it is bound to.
    pub node: Option<NodeName>,
    /// Where it is in its life.
    pub phase: PodPhase,
    /// It is being deleted.
    pub deleting: bool,
    /// When it is to be gone at the latest: the end of its grace period.
    #[doc(alias = "metadata.deletionTimestamp")]
    pub deletion_due: Option<Timestamp>,
    /// What its containers do. Kept for pods that request GPUs only.
    pub containers: ContainerState,
    /// What it requests: the larger of its init containers' and the sum of its containers'.
    pub requests: Resources,
    /// Its labels.
    pub labels: Labels,
    /// Its annotations of the prefix `gpu-autoscaler.io/`; no other is kept.
    pub annotations: Labels,
    /// The controller that owns it.
    pub owner: Option<Owner>,
    /// Its priority.
    pub priority: i32,
    /// Names of its scheduling gates.
    pub gates: Vec<Arc<str>>,
    /// What it demands of its node beyond resources; equal ones are one copy.
    pub constraints: Arc<Constraints>,
    /// Why the scheduler could not place it, in the scheduler's words.
    pub unschedulable: Option<Arc<str>>,
}

impl Pod {
    /// Whether it still holds, or waits for, resources.
    pub fn is_active(&self) -> bool {
        !matches!(self.phase, PodPhase::Succeeded | PodPhase::Failed)
    }

    /// Whether it waits for a node.
    pub fn is_waiting(&self) -> bool {
        self.node.is_none() && self.is_active() && !self.deleting
    }
}

/// What the containers of a pod do, as the kubelet says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerState {
    /// The image of the first container that requests GPUs, as it was asked for.
    pub image: Option<Arc<str>>,
    /// Why a container waits, in the kubelet's word, such as `ImagePullBackOff`.
    pub waiting: Option<Arc<str>>,
    /// Restarts of the container that was restarted most.
    pub restarts: u32,
    /// When a container that was restarted last ended.
    pub last_end: Option<Timestamp>,
}

/// Where a pod is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PodPhase {
    /// Not all containers were started yet.
    Pending,
    /// Bound, and at least one container runs or restarts.
    Running,
    /// All containers ended well.
    Succeeded,
    /// All containers ended, one of them badly.
    Failed,
    /// The node cannot be asked.
    Unknown,
}

impl fmt::Display for PodPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The controller that owns an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its kind, such as `ReplicaSet`.
    pub kind: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its uid.
    pub uid: Uid,
}

/// A PodDisruptionBudget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DisruptionBudget {
    /// Its uid.
    pub uid: Uid,
    /// Its namespace and name.
    pub key: ObjectKey,
    /// How many of its pods may be evicted now; `None` until its controller says.
    pub disruptions_allowed: Option<u32>,
}

/// One of our own Events, as far as it tells what was announced already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnouncedEvent {
    /// Its uid.
    pub uid: Uid,
    /// Its namespace and name.
    pub key: ObjectKey,
    /// The time that it gives for the fact; `None` when somebody took it out.
    pub at: Option<Timestamp>,
}

/// One of the custom resources that steer us, as far as its status is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyObject {
    /// Its uid.
    pub uid: Uid,
    /// Its kind.
    pub kind: PolicyKind,
    /// Its name.
    pub key: ObjectKey,
    /// The version that this is a copy of.
    pub resource_version: ResourceVersion,
    /// `metadata.generation`.
    pub generation: i64,
    /// `spec.enabled`: the consent to act.
    pub enabled: bool,
    /// `spec.dryRun`: report only.
    pub dry_run: bool,
    /// Why it makes no sense although the server took it; empty when it does.
    pub faults: Vec<Arc<str>>,
    /// The conditions of its status.
    pub conditions: Vec<Condition>,
}

/// Kinds of custom resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PolicyKind {
    /// `AutoscalingPolicy`.
    AutoscalingPolicy,
    /// `GPUSharingPolicy`.
    #[serde(rename = "GPUSharingPolicy")]
    GpuSharingPolicy,
    /// `GPUNodeConfig`.
    #[serde(rename = "GPUNodeConfig")]
    GpuNodeConfig,
    /// `CostBudget`.
    CostBudget,
    /// `CostAttribution`.
    CostAttribution,
}

impl PolicyKind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::AutoscalingPolicy,
        Self::GpuSharingPolicy,
        Self::GpuNodeConfig,
        Self::CostBudget,
        Self::CostAttribution,
    ];

    /// From Kubernetes' spelling.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// As Kubernetes spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AutoscalingPolicy => "AutoscalingPolicy",
            Self::GpuSharingPolicy => "GPUSharingPolicy",
            Self::GpuNodeConfig => "GPUNodeConfig",
            Self::CostBudget => "CostBudget",
            Self::CostAttribution => "CostAttribution",
        }
    }
}

/// A condition of a status, in the form that Kubernetes gives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Which.
    #[serde(rename = "type")]
    pub kind: ConditionKind,
    /// `Some(true)`, `Some(false)`, or `None` for `Unknown`.
    pub holds: Option<bool>,
    /// One word for programs.
    pub reason: Arc<str>,
    /// One sentence for people.
    pub message: Arc<str>,
    /// The generation of the object that it speaks of.
    pub observed_generation: i64,
}

/// The conditions that we write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ConditionKind {
    /// The object makes sense and is in force.
    Ready,
    /// Every GPU that is expected is measured.
    TelemetryComplete,
    /// Waste was found.
    WasteFound,
    /// Some part of the controller does not work; what it does is still done with what is known.
    Degraded,
}

impl ConditionKind {
    /// As it stands in the status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::TelemetryComplete => "TelemetryComplete",
            Self::WasteFound => "WasteFound",
            Self::Degraded => "Degraded",
        }
    }

    /// From its text; `None` for a condition of somebody else's.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Ready, Self::TelemetryComplete, Self::WasteFound, Self::Degraded]
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_label_keys_the_last_counts() {
        let pair = |k: &str, v: &str| (Arc::from(k), Arc::from(v));
        let labels = Labels::new([pair("b", "1"), pair("a", "1"), pair("b", "2")]);
        assert_eq!(labels.get("b"), Some("2"));
        assert_eq!(labels.get("c"), None);
        assert_eq!(labels.iter().count(), 2);
    }
}
