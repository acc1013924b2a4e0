//! Closing the GPUs to every process that is in no lease.
//!
//! A device program that refuses always is put on every control group at the top of the hierarchy
//! but those of leases, of the system's services and of init. All programs on the way from the
//! top to a process have to allow an open, so the slice of leases has to stay outside. Processes
//! that are in no such group cannot be closed out; they are named.

use std::fs;
use std::path::PathBuf;

use super::cgroup;
use super::ebpf;
use crate::lease::DeviceNode;
use crate::os::fault::Fault;
use crate::os::gpu::Backend;
use crate::os::settings::Settings;
use crate::quantity::Boottime;

/// Groups that stay open: leases, services such as the driver's own, and init.
const OPEN: [&str; 3] = ["chronos.slice", "system.slice", "init.scope"];

/// Closes or opens; returns the groups that it was done to.
///
/// # Errors
/// [`Fault::Setting`] where there is nothing to close or no way to close it, [`Fault::Os`].
pub fn set(settings: &Settings, closed: bool) -> Result<Vec<String>, Fault> {
    let fail = |why: &str| Fault::Setting { origin: "lockdown".into(), why: why.into() };
    let root = settings.cgroup_root.clone().or_else(cgroup::mounted);
    let root = root.ok_or_else(|| fail("there is no control group hierarchy of version 2"))?;
    let nodes: Vec<DeviceNode> =
        Backend::choose(settings)?.gpus()?.into_iter().flat_map(|gpu| gpu.nodes).collect();
    if nodes.is_empty() {
        return Err(fail("no GPU here has a device node that could be closed"));
    }
    let groups = groups(&root).map_err(|e| Fault::os("read", root.display(), e))?;
    if groups.is_empty() {
        return Err(fail("every process is in the top group, which cannot be closed"));
    }
    let mut done = Vec::new();
    for group in groups {
        if closed {
            // The deadline has always passed.
            ebpf::arm(&group, Boottime::default(), &nodes)?;
        } else {
            ebpf::disarm(&group)?;
        }
        let name = group.file_name().unwrap_or_default();
        done.push(name.to_string_lossy().into_owned());
    }
    Ok(done)
}

fn groups(root: &std::path::Path) -> std::io::Result<Vec<PathBuf>> {
    let mut groups = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name();
        let open = OPEN.iter().any(|open| name == *open);
        if entry.file_type()?.is_dir() && !open {
            groups.push(entry.path());
        }
    }
    groups.sort();
    Ok(groups)
}
