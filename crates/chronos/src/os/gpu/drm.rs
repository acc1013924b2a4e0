//! AMD and Intel GPUs through the kernel's files.
//!
//! Sources: the kernel's `Documentation/gpu/amdgpu/driver-misc.rst` (`mem_info_vram_total`) and
//! `Documentation/gpu/drm-usage-stats.rst` (`drm-memory-<region>`, `drm-total-<region>`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use gpu_autoscaler_model::Bytes;

use super::Usage;
use crate::lease::{DeviceNode, Gpu, GpuId, Vendor};
use crate::os::fault::Fault;

/// The kernel's view of its graphics devices.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Drm {
    sys: PathBuf,
    proc: PathBuf,
}

impl Drm {
    /// This machine's.
    pub fn here() -> Self {
        Self { sys: PathBuf::from("/sys/class/drm"), proc: PathBuf::from("/proc") }
    }

    /// The same files in other folders: a dump of another machine.
    pub fn at(sys: &Path, proc: &Path) -> Self {
        Self { sys: sys.to_owned(), proc: proc.to_owned() }
    }

    /// The GPUs of one vendor, in the order of their PCI addresses.
    ///
    /// A device whose memory the kernel does not tell has a fault instead of a size of zero.
    ///
    /// # Errors
    /// None today; a machine without such files has no such GPU.
    pub fn gpus(&self, vendor: Vendor) -> Result<Vec<Gpu>, Fault> {
        let wanted = match vendor {
            Vendor::Amd => "0x1002",
            Vendor::Intel => "0x8086",
            Vendor::Nvidia | Vendor::Declared => return Ok(Vec::new()),
        };
        let mut devices: BTreeMap<String, PathBuf> = BTreeMap::new();
        for entry in fs::read_dir(&self.sys).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let number = name.strip_prefix("renderD").and_then(|n| n.parse::<u32>().ok());
            let device = entry.path().join("device");
            if number.is_some() && text(&device.join("vendor")).as_deref() == Some(wanted) {
                devices.insert(address(&device).unwrap_or(name), entry.path());
            }
        }
        let gpu = |(index, (address, node)): (usize, (String, PathBuf))| {
            let device = node.join("device");
            let memory = memory(&device, vendor);
            Gpu {
                id: GpuId(address),
                index: index as u32,
                name: text(&device.join("product_name")).unwrap_or_else(|| format!("{vendor} GPU")),
                vendor,
                memory: memory.unwrap_or_default(),
                foreign: None,
                fault: memory.is_none().then(|| {
                    "the kernel does not tell its memory; describe it under `gpus`".to_owned()
                }),
                links: Vec::new(),
                nodes: render_node(&node).into_iter().collect(),
            }
        };
        Ok(devices.into_iter().enumerate().map(gpu).collect())
    }

    /// GPU memory of each process that has one of the vendor's devices open.
    ///
    /// # Errors
    /// None today; processes that may not be looked at are left out.
    pub fn processes(&self, vendor: Vendor) -> Result<Vec<Usage>, Fault> {
        let gpus = self.gpus(vendor)?;
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.proc).into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else {
                continue;
            };
            // Several descriptors may lead to one client: each client counts once.
            let mut clients: BTreeMap<(GpuId, String), Option<Bytes>> = BTreeMap::new();
            for descriptor in
                fs::read_dir(entry.path().join("fdinfo")).into_iter().flatten().flatten()
            {
                let Some(stats) = text(&descriptor.path()) else { continue };
                if let Some((address, client, memory)) = parse_stats(&stats)
                    && let Some(gpu) = gpus.iter().find(|gpu| gpu.id.0 == address)
                {
                    clients.insert((gpu.id.clone(), client), memory);
                }
            }
            let mut sums: BTreeMap<GpuId, Option<u64>> = BTreeMap::new();
            for ((gpu, _), memory) in clients {
                let sum = sums.entry(gpu).or_insert(Some(0));
                *sum = sum.zip(memory).map(|(sum, memory)| sum.saturating_add(memory.as_u64()));
            }
            let usage =
                |(gpu, sum): (GpuId, Option<u64>)| Usage { pid, gpu, memory: sum.map(Bytes::new) };
            found.extend(sums.into_iter().map(usage));
        }
        Ok(found)
    }
}

/// Reads one `fdinfo`: the device, the client, and the memory on the device.
fn parse_stats(text: &str) -> Option<(String, String, Option<Bytes>)> {
    let field = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
    };
    let address = field("drm-pdev")?.to_owned();
    let client = field("drm-client-id").unwrap_or_default().to_owned();
    let keys = ["drm-memory-vram", "drm-total-vram0", "drm-total-vram", "drm-total-local0"];
    let memory = keys.iter().find_map(|key| field(key)).and_then(|value| {
        let (number, unit) = value.split_once(' ').unwrap_or((value, ""));
        let scale = match unit.trim() {
            "" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            _ => return None,
        };
        number.parse::<u64>().ok()?.checked_mul(scale).map(Bytes::new)
    });
    Some((address, client, memory))
}

fn memory(device: &Path, vendor: Vendor) -> Option<Bytes> {
    let files: &[&str] = match vendor {
        Vendor::Amd => &["mem_info_vram_total"],
        _ => &["lmem_total_bytes", "tile0/physical_vram_size_bytes"],
    };
    let size = files.iter().find_map(|file| text(&device.join(file)))?;
    let size = match size.strip_prefix("0x") {
        Some(hexadecimal) => u64::from_str_radix(hexadecimal, 16).ok()?,
        None => size.parse().ok()?,
    };
    (size > 0).then(|| Bytes::new(size))
}

fn address(device: &Path) -> Option<String> {
    let events = text(&device.join("uevent"))?;
    events.lines().find_map(|line| line.strip_prefix("PCI_SLOT_NAME=")).map(str::to_owned)
}

fn render_node(node: &Path) -> Option<DeviceNode> {
    let number = text(&node.join("dev"))?;
    let (major, minor) = number.split_once(':')?;
    Some(DeviceNode { major: major.parse().ok()?, minor: minor.parse().ok()? })
}

fn text(path: &Path) -> Option<String> {
    // Files of the kernel are small; a device or a pipe in their place is not read.
    fs::metadata(path).ok().filter(|m| m.is_file() && m.len() < 1 << 20)?;
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_a_client_is_read_in_its_unit() {
        let amd = "pos: 0\ndrm-driver: amdgpu\ndrm-pdev: 0000:03:00.0\ndrm-client-id: 9\n\
                   drm-memory-vram: 2048 KiB\n";
        let (address, client, memory) = parse_stats(amd).unwrap();
        assert_eq!((address.as_str(), client.as_str()), ("0000:03:00.0", "9"));
        assert_eq!(memory, Some(Bytes::new(2 << 20)));
        let unknown = amd.replace("KiB", "pages");
        assert_eq!(parse_stats(&unknown).unwrap().2, None, "unknown is not zero");
        assert_eq!(parse_stats("pos: 0\nflags: 02\n"), None);
    }

    #[test]
    fn a_device_of_unknown_size_is_faulty_and_not_empty() {
        let folder = std::env::temp_dir().join(format!("chronos-drm-{}", std::process::id()));
        for (node, vendor, size) in
            [("renderD128", "0x1002", Some("17163091968")), ("renderD129", "0x1002", None)]
        {
            let device = folder.join(node).join("device");
            fs::create_dir_all(&device).unwrap();
            fs::write(device.join("vendor"), vendor).unwrap();
            fs::write(device.join("uevent"), format!("PCI_SLOT_NAME=0000:0{}:00.0", &node[9..]))
                .unwrap();
            if let Some(size) = size {
                fs::write(device.join("mem_info_vram_total"), size).unwrap();
            }
        }
        let gpus = Drm::at(&folder, &folder).gpus(Vendor::Amd).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(gpus[0].memory, Bytes::new(17_163_091_968));
        assert_eq!((gpus.len(), gpus[0].fault.is_none(), gpus[1].fault.is_some()), (2, true, true));
    }
}
