//! What to do about waste, with the numbers that led to it.

use std::fmt;

use crate::{Bytes, GpuShare, MigProfile, Rate, Ratio};

/// What to do about a finding.
#[derive(Clone, Debug, PartialEq)]
pub struct Recommendation {
    /// What.
    pub advice: Advice,
    /// What the pod was measured to need; `None` where nothing was measured, as of a pod that
    /// never ran.
    pub need: Option<Need>,
    /// The part of what the pod holds now that following the advice gives back.
    pub freed: GpuShare,
    /// What that part costs per hour; `None` when the price is not known. Zero where nothing can
    /// be given back.
    pub saving: Option<Rate>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Request GPU instances of this profile in place of whole GPUs or larger instances.
    MigProfile {
        /// The smallest that holds what is needed.
        profile: MigProfile,
        /// Its usable framebuffer.
        memory: Bytes,
        /// The part of its GPU that it is.
        share: GpuShare,
    },
    /// Share each GPU with others, as one of so many equal replicas.
    Share {
        /// Replicas of one GPU.
        replicas: u32,
    },
    /// Request fewer GPUs.
    FewerGpus {
        /// GPUs requested now.
        from: u32,
        /// GPUs that were ever touched; at least 1.
        to: u32,
    },
    /// Stop it.
    Stop,
    /// Look at the hardware.
    LookAtHardware,
    /// Have the exporter report framebuffer: without it nobody knows what would be enough.
    MeasureMemory,
    /// Nothing smaller than what it holds would do: raise its load, or lower what it allocates in
    /// advance.
    NothingSmaller,
    /// It declares itself training, which is never shared: raise its load.
    RaiseLoad,
}

impl Advice {
    /// As text, in one word.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::MigProfile { .. } => "MigProfile",
            Self::Share { .. } => "Share",
            Self::FewerGpus { .. } => "FewerGpus",
            Self::Stop => "Stop",
            Self::LookAtHardware => "LookAtHardware",
            Self::MeasureMemory => "MeasureMemory",
            Self::NothingSmaller => "NothingSmaller",
            Self::RaiseLoad => "RaiseLoad",
        }
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MigProfile { profile, memory, share } => {
                write!(f, "request MIG profile {profile} ({memory}, {share} of a GPU)")
            }
            Self::Share { replicas } => write!(f, "share the GPU: 1 of {replicas} replicas"),
            Self::FewerGpus { from, to } => write!(f, "request {to} GPUs instead of {from}"),
            Self::Stop => f.write_str("stop it"),
            Self::LookAtHardware => f.write_str("look at the hardware"),
            Self::MeasureMemory => f.write_str("have the exporter report framebuffer"),
            Self::NothingSmaller => f.write_str("nothing smaller fits: raise its load"),
            Self::RaiseLoad => f.write_str("raise its load: training is not shared"),
        }
    }
}

/// What a pod was measured to need of each of its devices, at the 99th percentile of the window
/// and of the history of its like, whichever is more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// Compute, as a share of one device that it holds.
    pub activity: Ratio,
    /// Framebuffer of one device, without margin; `None` where it is not measured.
    pub memory: Option<Bytes>,
    /// The same with margin.
    pub memory_with_margin: Option<Bytes>,
    /// Its framebuffer was constant from the start: allocated in advance, so that what it holds
    /// may be more than it needs.
    pub preallocated: bool,
    /// How long its like was observed before, in seconds of pods; zero without history.
    pub history_secs: u64,
}
