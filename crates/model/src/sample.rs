//! What was measured.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Bytes, Device, GpuModel, HardwareReading, NodeName, ObjectKey, Ratio, Timestamp, Uid};

/// One reading of one device, GPU instance, or pod's part of a shared device.
#[derive(Clone, Debug, PartialEq)]
pub struct GpuSample {
    /// When it was read, by the clock of whoever read it.
    pub at: Timestamp,
    /// Which exporter says so: its host and port, by which its readings are told from those of
    /// another one of the same device. Empty where that is not known.
    pub exporter: Arc<str>,
    /// The node that holds the device.
    pub node: NodeName,
    /// The device or instance.
    pub device: Device,
    /// Its model, where the exporter says so.
    pub model: Option<GpuModel>,
    /// Who holds it, where the exporter says so.
    pub holder: Option<Holder>,
    /// What the numbers are about.
    pub scope: SampleScope,
    /// Share of the interval in which the device computed.
    pub activity: Option<Activity>,
    /// Framebuffer in use.
    #[doc(alias = "DCGM_FI_DEV_FB_USED")]
    pub fb_used: Option<Bytes>,
    /// Framebuffer that is free.
    #[doc(alias = "DCGM_FI_DEV_FB_FREE")]
    pub fb_free: Option<Bytes>,
    /// Framebuffer that the driver keeps for itself.
    #[doc(alias = "DCGM_FI_DEV_FB_RESERVED")]
    pub fb_reserved: Option<Bytes>,
    /// Framebuffer in all: used + free + reserved, since no exporter reports the total by
    /// default.
    #[doc(alias = "DCGM_FI_DEV_FB_TOTAL")]
    pub fb_total: Option<Bytes>,
    /// The condition of the whole device; nothing in it is about the holder alone.
    pub hardware: HardwareReading,
}

/// What a sample's numbers are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SampleScope {
    /// The device or instance alone: its holder, if any, has it for itself.
    Exclusive,
    /// A shared device as a whole.
    SharedDevice,
    /// One pod's part of a shared device. What the exporter repeats here of the whole device
    /// (power, temperature, memory) says nothing about the pod.
    SharedPart,
}

/// Who holds a device, in the words of the exporter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// The pod's namespace and name.
    pub pod: ObjectKey,
    /// The pod's uid, where the exporter writes it; without it a reused name is told apart by
    /// time alone.
    pub uid: Option<Uid>,
    /// The container.
    pub container: Arc<str>,
}

/// Share of time in which a device computed, and which counter says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activity {
    /// The share.
    pub ratio: Ratio,
    /// The counter.
    pub source: ActivitySource,
}

/// Counters of compute activity, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ActivitySource {
    /// Share of time, averaged over SMs, with at least one warp assigned.
    #[serde(rename = "SM_ACTIVE")]
    #[doc(alias = "DCGM_FI_PROF_SM_ACTIVE")]
    SmActive,
    /// Share of time in which the graphics or compute engine was busy.
    #[serde(rename = "GR_ENGINE_ACTIVE")]
    #[doc(alias = "DCGM_FI_PROF_GR_ENGINE_ACTIVE")]
    GrEngineActive,
    /// Share of time in which at least one kernel ran, however small.
    #[serde(rename = "GPU_UTIL")]
    #[doc(alias = "DCGM_FI_DEV_GPU_UTIL")]
    GpuUtil,
}

impl fmt::Display for ActivitySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SmActive => "SM_ACTIVE",
            Self::GrEngineActive => "GR_ENGINE_ACTIVE",
            Self::GpuUtil => "GPU_UTIL",
        })
    }
}

/// Whether telemetry of a node, or of all, could be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scrape {
    /// When it was tried.
    pub at: Timestamp,
    /// Where: an exporter's or Prometheus' address, without credentials.
    pub target: Arc<str>,
    /// How it went.
    pub result: Result<ScrapeCounts, ScrapeFailure>,
}

/// What one successful scrape brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrapeCounts {
    /// Samples kept.
    pub samples: u32,
    /// Lines or series that were dropped, each for a reason that was logged.
    pub dropped: u32,
}

/// Why a scrape brought nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScrapeFailure {
    /// In words, without credentials.
    pub why: Arc<str>,
}
