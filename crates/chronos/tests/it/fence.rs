//! The control group of a lease, in the half of `os` that has them.

use std::path::Path;

use chronos::lease::LeaseId;

/// Puts a process into the fence of a lease, where it has one.
#[cfg(not(feature = "portable"))]
pub fn enclose(runtime: &Path, id: &LeaseId, pid: u32) {
    if let Some(fences) = chronos::os::cgroup::Fences::find(None, runtime) {
        let process = chronos::os::process::identify(pid).unwrap();
        fences.enclose(id, &process).unwrap();
    }
}

#[cfg(feature = "portable")]
pub fn enclose(_runtime: &Path, _id: &LeaseId, _pid: u32) {}

/// Whether a fence is frozen; `None` where there is none.
#[cfg(not(feature = "portable"))]
pub fn frozen(runtime: &Path, id: &LeaseId) -> Option<bool> {
    let fences = chronos::os::cgroup::Fences::find(None, runtime)?;
    let events = std::fs::read_to_string(fences.path(id).join("cgroup.events")).unwrap();
    Some(!events.contains("frozen 0"))
}

#[cfg(feature = "portable")]
pub fn frozen(_runtime: &Path, _id: &LeaseId) -> Option<bool> {
    None
}

/// Removes the folder of all fences of a state, which are empty.
#[cfg(not(feature = "portable"))]
pub fn remove(runtime: &Path) {
    let whose = chronos::journal::crc32c(runtime.as_os_str().as_encoded_bytes());
    if let Some(hierarchy) = chronos::os::cgroup::mounted() {
        let folder = hierarchy.join(format!("chronos.slice/state-{whose:08x}"));
        let _ = std::fs::remove_dir(folder);
    }
}

#[cfg(feature = "portable")]
pub fn remove(_runtime: &Path) {}
