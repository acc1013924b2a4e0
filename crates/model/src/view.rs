//! What a tick leaves for those who read: admission, the API, a person.

use std::sync::Arc;

use crate::{
    Activity, Bytes, CapacityType, Device, Finding, GpuModel, HardwareFinding, HardwareReading,
    InstanceType, NodeName, ObjectKey, PodUsage, Rate, Ratio, Refusal, Timestamp, Uid, UnknownGpus,
    WasteScore,
};

/// The immutable product of a tick. Cloning copies pointers. The default is that of no tick.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// Counts ticks that changed it.
    pub generation: u64,
    /// The time of the last tick in which findings were judged; `None` before the first.
    pub judged: Option<Timestamp>,
    /// Nodes with GPUs, by name.
    pub nodes: Arc<[NodeView]>,
    /// GPUs and GPU instances that are measured, by node.
    pub devices: Arc<[DeviceView]>,
    /// GPU pods that are active, by namespace and name.
    pub pods: Arc<[PodView]>,
    /// Namespaces with pods that hold GPUs, by name.
    pub namespaces: Arc<[NamespaceView]>,
    /// What stands, worst first.
    pub findings: Arc<[Finding]>,
    /// Devices whose hardware needs a look, by node and device.
    pub hardware: Arc<[HardwareFinding]>,
    /// What is not known, by node.
    pub unknown: Arc<[UnknownGpus]>,
    /// GPU pods for which nothing was decided at that judgement.
    pub refusals: Arc<[Refusal]>,
    /// GPU pods that wait for a node, by namespace and name.
    pub waiting: Arc<[WaitingView]>,
    /// Totals.
    pub totals: Totals,
    /// Whether some policy consents to act.
    pub acting: bool,
}

/// A GPU pod that waits for a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingView {
    /// Its uid.
    pub uid: Uid,
    /// Its namespace and name.
    pub pod: ObjectKey,
    /// GPUs, slices or replicas that it requests, those included that its device claims ask for;
    /// `None` where what a claim asks for is not known.
    pub gpus: Option<u32>,
    /// What each of its device claims asks for, in words.
    pub device_claims: Vec<Arc<str>>,
    /// Why the scheduler could not place it, in the scheduler's words.
    pub scheduler_says: Option<Arc<str>>,
    /// What packing says.
    pub fit: Fit,
}

/// Where a waiting pod would fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fit {
    /// On this node, when all that wait are placed together.
    On {
        /// Which.
        node: NodeName,
    },
    /// Nowhere, or packing does not say.
    Nowhere(NoFit),
}

/// Why packing names no node for a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoFit {
    /// In one word.
    pub reason: NoFitReason,
    /// In one sentence, with the value and the limit.
    pub message: Arc<str>,
    /// What would make it fit, where that is known.
    pub hint: Option<Arc<str>>,
}

/// Why packing names no node for a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NoFitReason {
    /// What it requests makes no sense on any fleet.
    Invalid,
    /// It has a constraint that packing does not cover exactly.
    LeftToScheduler,
    /// No node will do for a claim of it.
    VolumeClaim,
    /// There is no node.
    NoNode,
    /// Others were looked at first.
    Postponed,
    /// No node has room.
    NoRoom,
    /// A member of its gang fits nowhere.
    Gang,
}

impl NoFitReason {
    /// The word that users and programs read.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "Invalid",
            Self::LeftToScheduler => "LeftToScheduler",
            Self::VolumeClaim => "VolumeClaim",
            Self::NoNode => "NoNode",
            Self::Postponed => "Postponed",
            Self::NoRoom => "NoRoom",
            Self::Gang => "Gang",
        }
    }
}

/// A node with GPUs.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeView {
    /// Its name.
    pub name: NodeName,
    /// The model of its GPUs, where known.
    pub model: Option<GpuModel>,
    /// Its instance type, where known.
    pub instance_type: Option<InstanceType>,
    /// How it is paid for: what its labels say, else what the policy takes for granted.
    pub capacity_type: Option<CapacityType>,
    /// Physical GPUs; `None` when the node does not tell.
    pub gpus: Option<u32>,
    /// The time of the last sample of any of its devices.
    pub measured: Option<Timestamp>,
    /// Whether that sample is recent enough to be believed: its exporter is alive.
    pub exporter_up: bool,
    /// Mean activity of all its devices, over the window of the pod where one pod holds a device;
    /// `None` unless every device is measured. A GPU instance weighs the part that it is of its GPU.
    pub activity: Option<Ratio>,
    /// Whether `activity` is below the policy's threshold; `None` when it is not known.
    pub underutilized: Option<bool>,
    /// Its price; `None` when it has none.
    pub rate: Option<Rate>,
}

/// A GPU or GPU instance as it was last measured.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceView {
    /// Its node.
    pub node: NodeName,
    /// Which.
    pub device: Device,
    /// Its model, where known.
    pub model: Option<GpuModel>,
    /// The pods that hold it.
    pub holders: Vec<ObjectKey>,
    /// Compute.
    pub activity: Option<Activity>,
    /// Framebuffer in use.
    pub fb: Option<Ratio>,
    /// Framebuffer that is free.
    pub fb_free: Option<Bytes>,
    /// Framebuffer in all.
    pub fb_total: Option<Bytes>,
    /// The condition of the whole device.
    pub hardware: HardwareReading,
    /// When that was.
    pub at: Timestamp,
}

/// An active GPU pod.
#[derive(Clone, Debug, PartialEq)]
pub struct PodView {
    /// Its uid.
    pub uid: Uid,
    /// Its namespace and name.
    pub pod: ObjectKey,
    /// Its node, once bound.
    pub node: Option<NodeName>,
    /// GPUs, slices or replicas that it requests.
    pub gpus: u32,
    /// The devices that it was seen to hold.
    pub devices: Vec<Device>,
    /// Their model, where known.
    pub model: Option<GpuModel>,
    /// What it makes of them; `None` where that is not known.
    pub usage: Option<PodUsage>,
    /// What they cost per hour; `None` before it is bound, and where no price is known.
    pub rate: Option<Rate>,
    /// How much of them is wasted, a finding or not; `None` where `usage` is.
    pub score: Option<WasteScore>,
}

/// What the pods of a namespace hold, and what they make of it.
#[derive(Clone, Debug, PartialEq)]
pub struct NamespaceView {
    /// Its name.
    pub namespace: Arc<str>,
    /// Pods that hold GPUs.
    pub pods: u32,
    /// Those of which the use is known.
    pub pods_measured: u32,
    /// GPUs, slices and replicas that they hold.
    pub gpus: u32,
    /// Mean share of compute of the measured pods, weighted by what they request.
    pub activity: Option<Ratio>,
    /// Mean share of framebuffer, likewise, of those of which it is measured.
    pub fb: Option<Ratio>,
    /// What they hold costs per hour; `None` when no price is known or the currencies differ.
    pub rate: Option<Rate>,
    /// Pods whose part has no price.
    pub pods_unpriced: u32,
    /// Findings that stand.
    pub findings: u32,
    /// What following their recommendations would save per hour; `None` when none is known.
    pub saving: Option<Rate>,
    /// Findings whose saving is not known.
    pub findings_unpriced: u32,
}

/// Sums over the cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    /// Nodes with GPUs.
    pub gpu_nodes: u32,
    /// Physical GPUs, where the node tells.
    pub gpus: u32,
    /// GPUs whose use is measured.
    pub gpus_measured: u32,
    /// GPU resources that active pods request, those included that device claims ask for, as far
    /// as that is known.
    pub gpus_requested: u32,
    /// What the GPU nodes with a known price cost per hour; `None` when none is known or the
    /// currencies differ.
    pub cost: Option<Rate>,
    /// GPU nodes without a known price.
    pub nodes_unpriced: u32,
    /// Mean share of compute of the measured pods, weighted by what they request.
    pub activity: Option<Ratio>,
    /// Mean share of compute of the measured devices, held or not; a GPU instance weighs the part
    /// that it is of its GPU. `None` when none is measured.
    pub utilization: Option<Ratio>,
    /// Mean share of framebuffer, likewise, of those of which it is measured.
    pub fb: Option<Ratio>,
    /// What GPUs that no pod holds cost per hour; `None` unless every node and every pod that
    /// holds GPUs has a price.
    pub not_held: Option<Rate>,
    /// GPU nodes by how they are paid for: all of [`CapacityType`], and `None` where not known.
    pub by_capacity_type: Vec<CapacityTotals>,
    /// GPU nodes that are underutilized; `None` when that is not known of any node.
    pub nodes_underutilized: Option<u32>,
    /// What following the recommendations of all standing findings would save per hour; `None`
    /// when none is known.
    pub saving: Option<Rate>,
    /// Findings whose saving is not known, because what they hold has no price.
    pub findings_unpriced: u32,
}

/// Sums over the GPU nodes of one capacity type.
#[derive(Clone, Debug, PartialEq)]
pub struct CapacityTotals {
    /// Which; `None` for nodes of which it is not known.
    pub capacity_type: Option<CapacityType>,
    /// Nodes.
    pub nodes: u32,
    /// What those with a known price cost per hour; `None` when none is known or the currencies
    /// differ.
    pub cost: Option<Rate>,
}
