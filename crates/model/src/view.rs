//! What a tick leaves for those who read: admission, the API, a person.

use std::sync::Arc;

use crate::{
    Device, Finding, GpuModel, NodeName, ObjectKey, PodUsage, Rate, Timestamp, Uid, UnknownGpus,
};

/// The immutable product of a tick. Cloning copies pointers.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// Counts ticks that changed it.
    pub generation: u64,
    /// The time of the last tick in which findings were judged; `None` before the first.
    pub judged: Option<Timestamp>,
    /// GPU pods that are active, by namespace and name.
    pub pods: Arc<[PodView]>,
    /// What stands, worst first.
    pub findings: Arc<[Finding]>,
    /// What is not known, by node.
    pub unknown: Arc<[UnknownGpus]>,
    /// Totals.
    pub totals: Totals,
    /// Whether some policy consents to act.
    pub acting: bool,
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
    /// Last power draw and temperature of its devices, as display needs them.
    pub sensors: Sensors,
}

/// Last readings of a pod's devices.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sensors {
    /// Power, in watts, summed over distinct devices.
    pub watts: Option<f64>,
    /// Highest temperature, in degrees Celsius.
    pub celsius: Option<i16>,
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
    /// What standing findings would save per hour; `None` when none is known.
    pub saving: Option<Rate>,
    /// Findings without a known price.
    pub findings_unpriced: u32,
}
