//! NVIDIA GPUs through NVML, loaded at run time.
//!
//! Only the calls that are used are declared, from `nvml.h` of CUDA 12.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::path::Path;

use gpu_autoscaler_model::Bytes;
use libloading::Library;

use super::Usage;
use crate::lease::{DeviceNode, Gpu, GpuId, Vendor};
use crate::os::device;
use crate::os::fault::Fault;

type Device = *mut c_void;
type Status = c_int;
/// A device by its number, or why it has no handle.
type Numbered = (u32, Result<Device, Status>);

const SUCCESS: Status = 0;
const INSUFFICIENT_SIZE: Status = 7;
const GPU_IS_LOST: Status = 15;

/// The driver's library, as each system names it.
const LIBRARY: &str = if cfg!(windows) { "nvml.dll" } else { "libnvidia-ml.so.1" };

/// Room for a name or a UUID. Source: `NVML_DEVICE_UUID_V2_BUFFER_SIZE`, 96.
const TEXT: usize = 96;

/// Processes on one GPU that are listed.
const PROCESSES_MAX: usize = 1_024;

/// Memory that a process holds is not known under some drivers. Source: `NVML_VALUE_NOT_AVAILABLE`.
const NOT_AVAILABLE: u64 = u64::MAX;

#[repr(C)]
#[derive(Default)]
struct Memory {
    total: u64,
    free: u64,
    used: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct ProcessInfo {
    pid: c_uint,
    used_memory: u64,
    gpu_instance: c_uint,
    compute_instance: c_uint,
}

/// Whether this build can load the driver's libraries.
///
/// A static one holds a C library of its own. musl's loads nothing; glibc's ends the process where
/// the machine's is of another version, so that it must not be tried.
pub const LOADABLE: bool = !cfg!(all(unix, target_feature = "crt-static"));

/// Whether the driver shows that it runs; without it there is no GPU, and nothing need be loaded.
pub fn driver_runs() -> bool {
    // Windows has no such file: there the library is asked, where it is.
    cfg!(windows) || Path::new("/dev/nvidiactl").exists()
}

/// The library, initialized.
#[derive(Debug)]
pub struct Nvml {
    library: Library,
}

impl Nvml {
    /// Loads and initializes the library.
    ///
    /// # Errors
    /// [`Fault::Backend`] when there is none, it does not start, or this build is not [`LOADABLE`].
    pub fn load() -> Result<Self, Fault> {
        if !LOADABLE {
            let why = "this build is static and cannot load the driver's library".to_owned();
            return Err(Fault::Backend { backend: "nvidia", why });
        }
        let name = std::env::var_os("CHRONOS_NVML").unwrap_or_else(|| LIBRARY.into());
        // SAFETY: NVML's initializers run no code of ours and are meant to be loaded this way.
        let library = unsafe { Library::new(&name) }.map_err(|error| Fault::Backend {
            backend: "nvidia",
            why: format!("cannot load `{}`: {error}", name.to_string_lossy()),
        })?;
        let nvml = Self { library };
        let init: extern "C" fn() -> Status = nvml.function(b"nvmlInit_v2\0")?;
        nvml.check(init(), "nvmlInit_v2")?;
        Ok(nvml)
    }

    /// The function of a name. `F` has to be the type that the header gives it.
    fn function<F: Copy>(&self, name: &'static [u8]) -> Result<F, Fault> {
        // SAFETY: every use names a function of `nvml.h` with its type; the library outlives it.
        let symbol = unsafe { self.library.get::<F>(name) };
        symbol.map(|symbol| *symbol).map_err(|error| Fault::Backend {
            backend: "nvidia",
            why: format!("the driver is too old: {error}"),
        })
    }

    fn check(&self, status: Status, call: &str) -> Result<(), Fault> {
        if status == SUCCESS {
            return Ok(());
        }
        let word: Result<extern "C" fn(Status) -> *const c_char, Fault> =
            self.function(b"nvmlErrorString\0");
        let word = word.map_or_else(
            |_| String::new(),
            // SAFETY: NVML returns a static string for every status.
            |word| unsafe { CStr::from_ptr(word(status)) }.to_string_lossy().into_owned(),
        );
        Err(Fault::Backend { backend: "nvidia", why: format!("{call}: {word} ({status})") })
    }

    fn devices(&self) -> Result<Vec<Numbered>, Fault> {
        let count: extern "C" fn(*mut c_uint) -> Status =
            self.function(b"nvmlDeviceGetCount_v2\0")?;
        let handle: extern "C" fn(c_uint, *mut Device) -> Status =
            self.function(b"nvmlDeviceGetHandleByIndex_v2\0")?;
        let mut devices = 0;
        self.check(count(&raw mut devices), "nvmlDeviceGetCount_v2")?;
        let device = |index| {
            let mut device: Device = std::ptr::null_mut();
            let status = handle(index, &raw mut device);
            (index, if status == SUCCESS { Ok(device) } else { Err(status) })
        };
        Ok((0..devices).map(device).collect())
    }

    fn text(&self, name: &'static [u8], device: Device) -> Result<String, Fault> {
        let get: extern "C" fn(Device, *mut c_char, c_uint) -> Status = self.function(name)?;
        let mut text = [0 as c_char; TEXT];
        self.check(get(device, text.as_mut_ptr(), TEXT as c_uint), &String::from_utf8_lossy(name))?;
        // SAFETY: NVML ends what it writes with a zero within the room it was given.
        Ok(unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned())
    }

    /// The GPUs. One that is lost is listed with its fault.
    ///
    /// # Errors
    /// [`Fault::Backend`].
    pub fn gpus(&self) -> Result<Vec<Gpu>, Fault> {
        let devices = self.devices()?;
        let mut gpus = Vec::with_capacity(devices.len());
        for (index, device) in &devices {
            gpus.push(match device {
                Ok(device) => self.gpu(*index, *device)?,
                Err(status) => lost(*index, *status),
            });
        }
        let handles: Vec<Option<Device>> = devices.iter().map(|(_, d)| d.ok()).collect();
        for (gpu, device) in gpus.iter_mut().zip(&handles) {
            gpu.links = handles.iter().map(|other| self.distance(*device, *other)).collect();
        }
        Ok(gpus)
    }

    fn gpu(&self, index: u32, device: Device) -> Result<Gpu, Fault> {
        let memory: extern "C" fn(Device, *mut Memory) -> Status =
            self.function(b"nvmlDeviceGetMemoryInfo\0")?;
        let mut sizes = Memory::default();
        let status = memory(device, &raw mut sizes);
        if status == GPU_IS_LOST {
            return Ok(lost(index, status));
        }
        self.check(status, "nvmlDeviceGetMemoryInfo")?;
        let minor: extern "C" fn(Device, *mut c_uint) -> Status =
            self.function(b"nvmlDeviceGetMinorNumber\0")?;
        let mut number = 0;
        let known = minor(device, &raw mut number) == SUCCESS;
        Ok(Gpu {
            id: GpuId(self.text(b"nvmlDeviceGetUUID\0", device)?),
            index,
            name: self.text(b"nvmlDeviceGetName\0", device)?,
            vendor: Vendor::Nvidia,
            memory: Bytes::new(sizes.total),
            foreign: None,
            fault: None,
            links: Vec::new(),
            nodes: known.then(|| node(number)).flatten().into_iter().collect(),
        })
    }

    /// Distance by the nearest common part of the topology: 10 on the same board up to 50 across
    /// processors. Source: `nvmlGpuTopologyLevel_t`.
    fn distance(&self, a: Option<Device>, b: Option<Device>) -> u32 {
        const UNKNOWN: u32 = 50;
        let (Some(a), Some(b)) = (a, b) else { return UNKNOWN };
        if a == b {
            return 0;
        }
        let level: Result<extern "C" fn(Device, Device, *mut c_uint) -> Status, Fault> =
            self.function(b"nvmlDeviceGetTopologyCommonAncestor\0");
        let mut distance = UNKNOWN;
        match level {
            Ok(level) if level(a, b, &raw mut distance) == SUCCESS => distance.max(1),
            _ => UNKNOWN,
        }
    }

    /// GPU memory of each process that computes.
    ///
    /// # Errors
    /// [`Fault::Backend`].
    pub fn processes(&self) -> Result<Vec<Usage>, Fault> {
        let list: extern "C" fn(Device, *mut c_uint, *mut ProcessInfo) -> Status =
            self.function(b"nvmlDeviceGetComputeRunningProcesses_v3\0")?;
        let mut usages = Vec::new();
        for device in self.devices()?.into_iter().filter_map(|(_, device)| device.ok()) {
            let gpu = GpuId(self.text(b"nvmlDeviceGetUUID\0", device)?);
            let mut found = vec![ProcessInfo::default(); PROCESSES_MAX];
            let mut count = PROCESSES_MAX as c_uint;
            let status = list(device, &raw mut count, found.as_mut_ptr());
            if status != INSUFFICIENT_SIZE {
                self.check(status, "nvmlDeviceGetComputeRunningProcesses_v3")?;
            }
            found.truncate(count as usize);
            usages.extend(found.into_iter().map(|process| Usage {
                pid: process.pid,
                gpu: gpu.clone(),
                memory:
                    (process.used_memory != NOT_AVAILABLE).then(|| Bytes::new(process.used_memory)),
            }));
        }
        Ok(usages)
    }
}

impl Drop for Nvml {
    fn drop(&mut self) {
        let end: Result<extern "C" fn() -> Status, Fault> = self.function(b"nvmlShutdown\0");
        if let Ok(end) = end {
            end();
        }
    }
}

fn lost(index: u32, status: Status) -> Gpu {
    Gpu {
        id: GpuId(format!("nvidia-lost-{index}")),
        index,
        name: "NVIDIA GPU".into(),
        vendor: Vendor::Nvidia,
        memory: Bytes::ZERO,
        foreign: None,
        fault: Some(format!("NVML cannot reach it (status {status})")),
        links: Vec::new(),
        nodes: Vec::new(),
    }
}

fn node(minor: u32) -> Option<DeviceNode> {
    device::node(Path::new(&format!("/dev/nvidia{minor}")))
}
