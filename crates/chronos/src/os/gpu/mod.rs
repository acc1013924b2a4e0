//! How the machine's GPUs are found and what can be done with their memory.

pub mod checkpoint;
pub mod drm;
pub mod fake;
pub mod nvml;

use std::collections::BTreeMap;

use gpu_autoscaler_model::Bytes;

use super::fault::Fault;
use super::settings::Settings;
use crate::lease::{DeviceNode, GPUS_MAX, Gpu, GpuId, Lease, ProcessId, Vendor};
use crate::size;

/// Names that `CHRONOS_BACKEND` may have, and what they choose.
///
/// The second half are the names of the implementation before this one.
pub const NAMES: [(&str, Kind); 16] = [
    ("auto", Kind::Auto),
    ("nvidia", Kind::Nvidia),
    ("amd", Kind::Amd),
    ("intel", Kind::Intel),
    ("portable", Kind::Portable),
    ("fake", Kind::Fake),
    ("none", Kind::None),
    ("mps", Kind::Nvidia),
    ("nvidia_mps", Kind::Nvidia),
    ("cuda", Kind::Nvidia),
    ("rocm", Kind::Amd),
    ("hip", Kind::Amd),
    ("opencl", Kind::Auto),
    ("cl", Kind::Auto),
    ("stub", Kind::Fake),
    ("test", Kind::Fake),
];

/// Which backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The first that finds a GPU: NVIDIA, then AMD and Intel, then what is declared.
    Auto,
    /// NVML.
    Nvidia,
    /// The kernel's amdgpu files.
    Amd,
    /// The kernel's xe and i915 files.
    Intel,
    /// What the configuration file describes; nothing is asked and nothing is measured.
    Portable,
    /// GPUs that exist in a variable only, for tests and for trying the tool.
    Fake,
    /// No GPU at all.
    None,
}

/// How GPUs are asked.
#[derive(Debug)]
pub enum Backend {
    /// NVML.
    Nvidia(Box<nvml::Nvml>),
    /// The kernel's files, for one vendor.
    Drm(drm::Drm, Vendor),
    /// The configuration file.
    Portable(Vec<Gpu>),
    /// A variable.
    Fake(fake::Fake),
    /// Nothing was found.
    None,
}

impl Backend {
    /// The backend that the settings name.
    ///
    /// # Errors
    /// [`Fault::Setting`] for a name that means nothing, [`Fault::Backend`] when the one that was
    /// named is not there.
    pub fn choose(settings: &Settings) -> Result<Self, Fault> {
        let name = settings.backend.to_ascii_lowercase();
        let kind = NAMES.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind);
        let Some(kind) = kind else {
            let known: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
            return Err(Fault::Setting {
                origin: "CHRONOS_BACKEND".into(),
                why: format!("`{name}` is none of {}", known.join(", ")),
            });
        };
        Ok(match kind {
            Kind::Auto => Self::found(settings)?,
            Kind::Nvidia => Self::Nvidia(Box::new(nvml::Nvml::load()?)),
            Kind::Amd => Self::Drm(drm::Drm::here(), Vendor::Amd),
            Kind::Intel => Self::Drm(drm::Drm::here(), Vendor::Intel),
            Kind::Portable => Self::Portable(declared(settings)?),
            Kind::Fake => Self::Fake(fake::Fake::new(&settings.fake)),
            Kind::None => Self::None,
        })
    }

    fn found(settings: &Settings) -> Result<Self, Fault> {
        if !settings.config.gpus.is_empty() {
            return Ok(Self::Portable(declared(settings)?));
        }
        if nvml::driver_runs()
            && let Ok(nvml) = nvml::Nvml::load()
        {
            return Ok(Self::Nvidia(Box::new(nvml)));
        }
        let drm = drm::Drm::here();
        for vendor in [Vendor::Amd, Vendor::Intel] {
            if !drm.gpus(vendor)?.is_empty() {
                return Ok(Self::Drm(drm, vendor));
            }
        }
        Ok(Self::None)
    }

    /// Its name, as `stats` and the C ABI show it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Nvidia(_) => "nvidia",
            Self::Drm(_, Vendor::Amd) => "amd",
            Self::Drm(..) => "intel",
            Self::Portable(_) => "portable",
            Self::Fake(_) => "fake",
            Self::None => "none",
        }
    }

    /// The GPUs, in the order of their numbers.
    ///
    /// # Errors
    /// [`Fault::Backend`] when they cannot be asked, which is not the same as none.
    pub fn gpus(&mut self) -> Result<Vec<Gpu>, Fault> {
        let mut gpus = match self {
            Self::Nvidia(nvml) => nvml.gpus()?,
            Self::Drm(drm, vendor) => drm.gpus(*vendor)?,
            Self::Portable(gpus) => gpus.clone(),
            Self::Fake(fake) => fake.gpus()?,
            Self::None => Vec::new(),
        };
        gpus.truncate(GPUS_MAX);
        Ok(gpus)
    }

    /// GPU memory of each process, by GPU; empty where nobody can say.
    ///
    /// # Errors
    /// [`Fault::Backend`].
    pub fn processes(&mut self) -> Result<Vec<Usage>, Fault> {
        match self {
            Self::Nvidia(nvml) => nvml.processes(),
            Self::Drm(drm, vendor) => drm.processes(*vendor),
            Self::Fake(fake) => fake.processes(),
            Self::Portable(_) | Self::None => Ok(Vec::new()),
        }
    }

    /// The device nodes of the GPUs of a lease.
    pub fn nodes_of(&mut self, lease: &Lease) -> Vec<DeviceNode> {
        let gpus = self.gpus().unwrap_or_default();
        let by_id: BTreeMap<&GpuId, &Gpu> = gpus.iter().map(|gpu| (&gpu.id, gpu)).collect();
        let of_lease = lease.parts.iter().filter_map(|part| by_id.get(&part.gpu));
        of_lease.flat_map(|gpu| gpu.nodes.iter().copied()).collect()
    }

    /// Whether [`Backend::checkpoint`] may succeed at all.
    pub fn checkpoints(&self) -> bool {
        match self {
            Self::Nvidia(_) => checkpoint::available(),
            Self::Fake(fake) => fake.checkpoint().is_ok(),
            Self::Drm(..) | Self::Portable(_) | Self::None => false,
        }
    }

    /// Moves the GPU memory of these processes to host memory.
    ///
    /// # Errors
    /// [`Fault::Backend`] when the driver cannot; the processes run on.
    pub fn checkpoint(&mut self, processes: &[ProcessId]) -> Result<(), Fault> {
        match self {
            Self::Nvidia(_) => checkpoint::checkpoint(processes),
            Self::Fake(fake) => fake.checkpoint(),
            Self::Drm(..) | Self::Portable(_) | Self::None => Err(Fault::Backend {
                backend: self.name(),
                why: "its driver has no checkpoint interface".into(),
            }),
        }
    }

    /// Moves it back. Processes that were not checkpointed are left as they are.
    ///
    /// # Errors
    /// [`Fault::Backend`] when the driver cannot.
    pub fn restore(&mut self, processes: &[ProcessId]) -> Result<(), Fault> {
        match self {
            Self::Nvidia(_) => checkpoint::restore(processes),
            _ => Ok(()),
        }
    }
}

/// GPU memory that one process holds on one GPU.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Usage {
    /// Its number.
    pub pid: u32,
    /// The GPU.
    pub gpu: GpuId,
    /// Memory; `None` where the driver does not say.
    pub memory: Option<Bytes>,
}

fn declared(settings: &Settings) -> Result<Vec<Gpu>, Fault> {
    let origin = || {
        let file = settings.config_file.as_ref().map(|path| path.display().to_string());
        file.unwrap_or_else(|| "configuration file".to_owned())
    };
    if settings.config.gpus.is_empty() {
        let why = "the `portable` backend needs a list `gpus` of name and memory".to_owned();
        return Err(Fault::Setting { origin: origin(), why });
    }
    let gpu = |(index, gpu): (usize, &super::settings::DeclaredGpu)| {
        let memory = size::parse(&gpu.memory)
            .map_err(|e| Fault::Setting { origin: origin(), why: e.to_string() })?;
        Ok(Gpu {
            id: GpuId(format!("declared-{index}")),
            index: index as u32,
            name: gpu.name.clone(),
            vendor: Vendor::Declared,
            memory,
            foreign: None,
            fault: None,
            links: Vec::new(),
            nodes: Vec::new(),
        })
    };
    settings.config.gpus.iter().enumerate().map(gpu).collect()
}
