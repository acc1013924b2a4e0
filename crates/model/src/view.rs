//! What a tick leaves for those who read: admission, the API, a person.

use std::sync::Arc;

use crate::{
    Activity, Bytes, Device, Finding, GpuModel, HardwareFinding, HardwareReading, NodeName,
    ObjectKey, PodUsage, Rate, Ratio, Timestamp, Uid, UnknownGpus,
};

/// The immutable product of a tick. Cloning copies pointers. The default is that of no tick.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// Counts ticks that changed it.
    pub generation: u64,
    /// The time of the last tick in which findings were judged; `None` before the first.
    pub judged: Option<Timestamp>,
    /// GPUs and GPU instances that are measured, by node.
    pub devices: Arc<[DeviceView]>,
    /// GPU pods that are active, by namespace and name.
    pub pods: Arc<[PodView]>,
    /// What stands, worst first.
    pub findings: Arc<[Finding]>,
    /// Devices whose hardware needs a look, by node and device.
    pub hardware: Arc<[HardwareFinding]>,
    /// What is not known, by node.
    pub unknown: Arc<[UnknownGpus]>,
    /// Totals.
    pub totals: Totals,
    /// Whether some policy consents to act.
    pub acting: bool,
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
    /// GPU resources that active pods request.
    pub gpus_requested: u32,
    /// What the GPU nodes with a known price cost per hour; `None` when none is known or the
    /// currencies differ.
    pub cost: Option<Rate>,
    /// GPU nodes without a known price.
    pub nodes_unpriced: u32,
    /// What following the recommendations of all standing findings would save per hour; `None`
    /// when none is known.
    pub saving: Option<Rate>,
    /// Findings whose saving is not known, because what they hold has no price.
    pub findings_unpriced: u32,
}
