//! What a pod asks for, as packing sees it.

use std::fmt;
use std::sync::Arc;

use gpu_autoscaler_model::{CLAIM_UNKNOWN, Constraints, DEVICE_CLAIM_UNKNOWN, Labels};

use crate::fleet::{GPUS_PER_NODE_MAX, Identity, Isolation, WHOLE_GPU_MILLI};
use crate::sharing::MPS_CLIENTS_MAX;

/// A pod that waits for a node.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its namespace and name, for reports.
    pub name: Arc<str>,
    /// Its priority; higher is placed first.
    pub priority: i32,
    /// What it asks of its node. Pods of equal kind are interchangeable.
    pub kind: PodKind,
    /// The gang that it belongs to: placed whole or not at all.
    pub gang: Option<Arc<str>>,
}

/// What a pod asks of its node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodKind {
    /// The resources.
    pub request: Request,
    /// What it demands of its node and its neighbors beyond resources.
    pub constraints: Arc<Constraints>,
    /// Who it is to others.
    pub identity: Arc<Identity>,
}

impl PodKind {
    /// A pod that asks for `request` and demands nothing else.
    pub fn plain(request: Request) -> Self {
        let identity = Identity { namespace: "default".into(), labels: Labels::default() };
        Self { request, constraints: Arc::default(), identity: Arc::new(identity) }
    }

    /// What keeps packing from placing it at all: demands that are not covered exactly, by their
    /// paths, and claims that nobody has looked up.
    pub fn uncovered(&self) -> Vec<Arc<str>> {
        let mut paths = self.constraints.uncovered.clone();
        paths.extend((!self.constraints.claims.is_empty()).then(|| CLAIM_UNKNOWN.into()));
        let devices = !self.constraints.device_claims.is_empty();
        paths.extend(devices.then(|| DEVICE_CLAIM_UNKNOWN.into()));
        paths
    }
}

/// The resources that a pod asks for: the effective request of all its containers, so the larger
/// of the greatest init container and the sum of containers and sidecars.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    /// Processor, in thousandths of a core.
    pub cpu_milli: u64,
    /// Host memory, in bytes.
    pub memory_bytes: u64,
    /// GPUs.
    pub gpu: GpuRequest,
    /// The GPU models that will do, sorted; empty when any will.
    pub models: Vec<Arc<str>>,
    /// The weakest isolation that will do.
    pub isolation: Isolation,
    /// How its GPUs must be joined.
    pub links: Links,
    /// Every other extended resource by name, sorted: MIG instances and replicas of the device
    /// plugin, network adapters and so on. Only their counts are compared.
    pub extended: Vec<(Arc<str>, u64)>,
}

/// How the GPUs of a pod must be joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Links {
    /// In any way.
    #[default]
    Any,
    /// By NVLink, all of them: they are of one [clique](crate::fleet::Gpu::clique).
    NvLink,
}

/// The GPUs that a pod asks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GpuRequest {
    /// None.
    None,
    /// Whole GPUs of one node.
    Whole {
        /// How many.
        count: u16,
    },
    /// A share of one GPU.
    Share {
        /// Compute, in thousandths of a GPU.
        compute_milli: u16,
        /// Framebuffer, in MiB.
        memory_mib: u32,
    },
    /// Replicas of shared GPUs.
    Replicas {
        /// How many.
        count: u16,
    },
    /// A place for client processes at the MPS server of one GPU.
    Clients {
        /// How many processes: a pod may start several, and each is a client.
        processes: u16,
        /// The user that they run as: a server serves one user at a time.
        user: u32,
    },
    /// One MIG instance.
    Mig {
        /// NVIDIA's name of the profile, such as `1g.5gb`.
        profile: Arc<str>,
    },
    /// One MIG instance of the smallest profile that holds this.
    MigAtLeast {
        /// Compute slices.
        compute_slices: u8,
        /// Framebuffer, in MiB.
        memory_mib: u32,
    },
}

/// Why a request makes no sense on any fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvalidRequest {
    /// A count or size of zero that would take nothing.
    Zero {
        /// Which field.
        field: &'static str,
    },
    /// A count or size that no machine has.
    TooLarge {
        /// Which field.
        field: &'static str,
        /// What was asked.
        value: u64,
        /// The most that can be asked.
        limit: u64,
    },
}

impl fmt::Display for InvalidRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zero { field } => write!(f, "{field} is 0, but must be at least 1"),
            Self::TooLarge { field, value, limit } => {
                write!(f, "{field} is {value}, but at most {limit} can be asked of one node")
            }
        }
    }
}

impl Request {
    /// Whether it makes sense on any fleet at all.
    ///
    /// # Errors
    /// [`InvalidRequest`] names the field.
    pub fn validate(&self) -> Result<(), InvalidRequest> {
        let at_most = |field, value: u64, limit: u64| {
            if value > limit {
                Err(InvalidRequest::TooLarge { field, value, limit })
            } else {
                Ok(())
            }
        };
        match self.gpu {
            GpuRequest::None | GpuRequest::Mig { .. } => Ok(()),
            GpuRequest::Whole { count: 0 } | GpuRequest::Replicas { count: 0 } => {
                Err(InvalidRequest::Zero { field: "GPU count" })
            }
            GpuRequest::Clients { processes: 0, .. } => {
                Err(InvalidRequest::Zero { field: "client processes" })
            }
            GpuRequest::Clients { processes, .. } => {
                at_most("client processes", processes.into(), MPS_CLIENTS_MAX.into())
            }
            GpuRequest::Whole { count } => {
                at_most("GPU count", count.into(), GPUS_PER_NODE_MAX as u64)
            }
            GpuRequest::Replicas { .. } => Ok(()),
            GpuRequest::Share { compute_milli: 0, memory_mib: 0 }
            | GpuRequest::MigAtLeast { compute_slices: 0, memory_mib: 0 } => {
                Err(InvalidRequest::Zero { field: "GPU share" })
            }
            GpuRequest::Share { compute_milli, .. } => at_most(
                "GPU compute share in thousandths",
                compute_milli.into(),
                WHOLE_GPU_MILLI.into(),
            ),
            GpuRequest::MigAtLeast { compute_slices, .. } => {
                at_most("MIG compute slices", compute_slices.into(), 7)
            }
        }
    }

    /// Thousandths of GPU that it takes where memory is not the scarcer share.
    pub fn gpu_milli(&self) -> u32 {
        self.gpu_milli_of(0)
    }

    /// Thousandths of a GPU of `memory_mib` MiB that it takes: by compute or by memory, whichever
    /// is more. Where the memory is not known (0), by compute.
    pub fn gpu_milli_of(&self, memory_mib: u32) -> u32 {
        let whole = u32::from(WHOLE_GPU_MILLI);
        match self.gpu {
            GpuRequest::Whole { count } => u32::from(count) * whole,
            GpuRequest::Share { compute_milli, memory_mib: 0 } => compute_milli.into(),
            GpuRequest::Share { compute_milli, memory_mib: asked } if memory_mib > 0 => {
                let part = u64::from(asked) * u64::from(whole);
                let by_memory = part.div_ceil(memory_mib.into()).min(whole.into());
                // At most 1000.
                u32::from(compute_milli).max(by_memory as u32)
            }
            GpuRequest::Share { compute_milli, .. } => compute_milli.into(),
            _ => 0,
        }
    }
}
