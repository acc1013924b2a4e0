//! Waste that was found.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    ActivitySource, Bytes, GpuModel, NodeName, ObjectKey, Owner, Rate, Ratio, Timestamp, Uid,
};

/// A pod that holds more GPU than it uses.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The pod's uid.
    pub pod_uid: Uid,
    /// The pod's namespace and name.
    pub pod: ObjectKey,
    /// Its node.
    pub node: NodeName,
    /// Its controller.
    pub owner: Option<Owner>,
    /// What kind of waste.
    pub kind: FindingKind,
    /// The devices that it holds.
    pub devices: Vec<crate::Device>,
    /// Their model, where known.
    pub model: Option<GpuModel>,
    /// What was measured.
    pub usage: PodUsage,
    /// How bad it is.
    pub score: WasteScore,
    /// The share of the devices that neither compute nor memory needs at their 95th percentile;
    /// `None` where memory is not measured.
    pub reclaimable: Option<Ratio>,
    /// When waste of this kind was first announced for this pod; when it was found, where it was
    /// not announced yet.
    pub since: Timestamp,
    /// What the reclaimable share costs per hour; `None` when that share or the node's price is not
    /// known.
    pub saving: Option<Rate>,
}

/// Kinds of waste.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FindingKind {
    /// Nothing was computed in the whole window.
    Idle,
    /// Less than the threshold was computed on average.
    Underutilized,
}

impl FindingKind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Idle, Self::Underutilized];

    /// As text, in one word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "Idle",
            Self::Underutilized => "Underutilized",
        }
    }
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a pod made of its devices in a window.
#[derive(Clone, Debug, PartialEq)]
pub struct PodUsage {
    /// How long the window was observed in fact, in seconds: gaps do not count.
    pub observed_secs: u64,
    /// Samples in it, over all devices.
    pub samples: u32,
    /// Mean share of compute, over time and devices.
    pub activity_mean: Ratio,
    /// 95th percentile of the same.
    pub activity_p95: Ratio,
    /// Highest of the same.
    pub activity_max: Ratio,
    /// The counter that says so; the weakest one where devices differ.
    pub activity_source: ActivitySource,
    /// Mean share of framebuffer in use; `None` where it is not measured.
    pub fb_mean: Option<Ratio>,
    /// 95th percentile of the same.
    pub fb_p95: Option<Ratio>,
    /// Highest framebuffer in use on one device.
    pub fb_max: Option<Bytes>,
}

/// How much of what a pod holds is wasted, 0 to 100.
///
/// 60 % of it is compute that was not used, 40 % memory that was not used: the published weights.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct WasteScore {
    /// Out of 60.
    pub compute: f64,
    /// Out of 40; `None` when memory is not measured, which counts as fully used: an unknown
    /// never accuses.
    pub memory: Option<f64>,
}

impl WasteScore {
    /// Out of 100.
    pub fn total(self) -> f64 {
        self.compute + self.memory.unwrap_or(0.0)
    }
}

/// A GPU whose use is not known, and why. It is neither idle nor busy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnknownGpus {
    /// The node.
    pub node: NodeName,
    /// How many of its GPUs, or of its GPU resources where they are slices or replicas.
    pub count: u32,
    /// The pod that holds them, if one does.
    pub pod: Option<ObjectKey>,
    /// Why it is not known.
    pub why: UnknownReason,
}

/// Why use is not known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UnknownReason {
    /// No exporter ever reported them.
    NeverMeasured,
    /// The last sample is older than is believed.
    Stale {
        /// Its time.
        last: Timestamp,
    },
    /// Not observed for long enough yet.
    TooShort {
        /// Seconds observed so far.
        observed_secs: u64,
        /// Seconds needed.
        needed_secs: u64,
    },
    /// The exporter reports the device but no compute counter.
    NoActivityCounter,
    /// Several pods share the device and nothing tells their parts apart.
    SharedWithoutProcesses,
    /// The exporter names no pod, or another one, as the holder.
    NotAttributed,
    /// Two exporters report the same device differently.
    Disagreement {
        /// The nodes or addresses that do.
        between: Vec<Arc<str>>,
    },
}

impl UnknownReason {
    /// As text, in one word.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::NeverMeasured => "NeverMeasured",
            Self::Stale { .. } => "Stale",
            Self::TooShort { .. } => "TooShort",
            Self::NoActivityCounter => "NoActivityCounter",
            Self::SharedWithoutProcesses => "SharedWithoutProcesses",
            Self::NotAttributed => "NotAttributed",
            Self::Disagreement { .. } => "Disagreement",
        }
    }
}

impl fmt::Display for UnknownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverMeasured => f.write_str("no exporter reports it"),
            Self::Stale { last } => write!(f, "last sample at {last}"),
            Self::TooShort { observed_secs, needed_secs } => {
                write!(f, "observed for {observed_secs} s of {needed_secs} s")
            }
            Self::NoActivityCounter => f.write_str("the exporter has no compute counter"),
            Self::SharedWithoutProcesses => f.write_str("shared, and nothing tells pods apart"),
            Self::NotAttributed => f.write_str("the exporter does not name its pod"),
            Self::Disagreement { between } => {
                write!(f, "exporters disagree: {}", between.join(", "))
            }
        }
    }
}
