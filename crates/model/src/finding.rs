//! Waste and faults that were found.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    ActivitySource, Bytes, Device, GpuModel, NodeName, ObjectKey, Owner, Ratio, Recommendation,
    ThrottleReasons, Timestamp, Uid,
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
    /// What kind of waste; never [`FindingKind::Throttled`] or [`FindingKind::Sick`], which are of
    /// devices: see [`HardwareFinding`].
    pub kind: FindingKind,
    /// The devices that it holds, as far as they are known.
    pub devices: Vec<Device>,
    /// Those of them that it never touched. Filled for [`FindingKind::OverRequested`].
    pub untouched: Vec<Device>,
    /// Their model, where known.
    pub model: Option<GpuModel>,
    /// What was measured; `None` for a pod that never ran.
    pub usage: Option<PodUsage>,
    /// Why it does not run. Filled for [`FindingKind::Stuck`].
    pub stuck: Option<StuckReason>,
    /// How bad it is.
    pub score: WasteScore,
    /// The share of the devices that neither compute nor memory needs at their 95th percentile;
    /// `None` where memory is not measured.
    pub reclaimable: Option<Ratio>,
    /// When waste of this kind was first announced for this pod; when it was found, where it was
    /// not announced yet.
    pub since: Timestamp,
    /// What to do about it, and what that saves.
    pub recommendation: Recommendation,
}

/// Kinds of finding. A pod has at most one of those that are about its use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FindingKind {
    /// Nothing was computed in the whole window, and little memory is held.
    Idle,
    /// Less than the threshold was computed on average.
    Underutilized,
    /// Nothing was computed in the whole window, and half of the memory or more is held.
    MemoryHeld,
    /// Several GPUs are held, of which some are used and some were never touched.
    OverRequested,
    /// GPUs are held by a pod that cannot run, or will not end.
    Stuck,
    /// A device computes at lower clocks than it could.
    Throttled,
    /// A device reports errors of its hardware.
    Sick,
}

impl FindingKind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Idle,
        Self::Underutilized,
        Self::MemoryHeld,
        Self::OverRequested,
        Self::Stuck,
        Self::Throttled,
        Self::Sick,
    ];

    /// As text, in one word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "Idle",
            Self::Underutilized => "Underutilized",
            Self::MemoryHeld => "MemoryHeld",
            Self::OverRequested => "OverRequested",
            Self::Stuck => "Stuck",
            Self::Throttled => "Throttled",
            Self::Sick => "Sick",
        }
    }
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a pod that holds GPUs does not run, or does not end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StuckReason {
    /// An image cannot be pulled.
    ImagePull {
        /// The kubelet's word, such as `ImagePullBackOff`.
        says: Arc<str>,
    },
    /// A container ends again and again.
    CrashLoop {
        /// How often it was restarted.
        restarts: u32,
    },
    /// Its containers cannot be created.
    Creation {
        /// The kubelet's word, such as `CreateContainerConfigError`.
        says: Arc<str>,
    },
    /// It was to be gone by this time.
    Terminating {
        /// The end of its grace period.
        due: Timestamp,
    },
}

impl StuckReason {
    /// As text, in one word.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::ImagePull { .. } => "ImagePull",
            Self::CrashLoop { .. } => "CrashLoop",
            Self::Creation { .. } => "Creation",
            Self::Terminating { .. } => "Terminating",
        }
    }
}

impl fmt::Display for StuckReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ImagePull { says } => write!(f, "an image cannot be pulled ({says})"),
            Self::CrashLoop { restarts } => {
                write!(f, "a container ends again and again ({restarts} restarts)")
            }
            Self::Creation { says } => write!(f, "containers cannot be created ({says})"),
            Self::Terminating { due } => write!(f, "it was to be gone by {due}"),
        }
    }
}

/// A device whose hardware needs a look. Whoever holds it is not to blame.
#[derive(Clone, Debug, PartialEq)]
pub struct HardwareFinding {
    /// Its node.
    pub node: NodeName,
    /// Which.
    pub device: Device,
    /// Its model, where known.
    pub model: Option<GpuModel>,
    /// The pods that hold it.
    pub holders: Vec<ObjectKey>,
    /// What is wrong.
    pub fault: HardwareFault,
    /// When this was first announced for this device; when it was found, where it was not
    /// announced yet.
    pub since: Timestamp,
}

/// What is wrong with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HardwareFault {
    /// It computes at lower clocks than it could, and not because nothing runs, because somebody
    /// asked for it, or because full load reaches the power limit.
    Throttled {
        /// Why, over the window.
        reasons: ThrottleReasons,
        /// Share of the window's readings.
        share: Ratio,
    },
    /// An XID error that stands for hardware.
    Xid {
        /// NVIDIA's number.
        code: u32,
    },
    /// Memory errors that could not be corrected.
    UncorrectedEcc {
        /// How many since the driver was loaded.
        count: u64,
    },
    /// Spare memory rows ran out.
    RowRemapFailed,
}

impl HardwareFault {
    /// The kind of finding that it is.
    pub const fn kind(self) -> FindingKind {
        match self {
            Self::Throttled { .. } => FindingKind::Throttled,
            Self::Xid { .. } | Self::UncorrectedEcc { .. } | Self::RowRemapFailed => {
                FindingKind::Sick
            }
        }
    }
}

impl fmt::Display for HardwareFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Throttled { reasons, share } => {
                write!(f, "clocks held down in {share} of the window: {reasons}")
            }
            Self::Xid { code } => write!(f, "XID {code}"),
            Self::UncorrectedEcc { count } => {
                write!(f, "{count} memory errors that could not be corrected")
            }
            Self::RowRemapFailed => f.write_str("spare memory rows ran out"),
        }
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
    /// 99th percentile of the same.
    pub activity_p99: Ratio,
    /// Highest of the same.
    pub activity_max: Ratio,
    /// The counter that says so; the weakest one where devices differ.
    pub activity_source: ActivitySource,
    /// Mean share of framebuffer in use; `None` where it is not measured.
    pub fb_mean: Option<Ratio>,
    /// 95th percentile of the same.
    pub fb_p95: Option<Ratio>,
    /// 99th percentile of framebuffer in use on the device that holds most.
    pub fb_p99: Option<Bytes>,
    /// Highest framebuffer in use on one device.
    pub fb_max: Option<Bytes>,
    /// Framebuffer of the smallest of the devices; `None` where no exporter says.
    pub fb_total: Option<Bytes>,
    /// Mean share of framebuffer in use on the devices that computed nothing; `None` where it is
    /// not measured or there is no such device.
    pub fb_untouched_mean: Option<Ratio>,
    /// Framebuffer was constant on every device from the first reading: allocated in advance, so
    /// that it says nothing about what is needed.
    pub preallocated: bool,
    /// Devices that computed anything in the window.
    pub touched: u32,
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
        /// Their hosts and ports, the one that would count first.
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
