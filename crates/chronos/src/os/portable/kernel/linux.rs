//! Linux, for the tests of this half.

use std::io;
use std::path::Path;

use rustix::time::{ClockId, clock_gettime};

use crate::os::stat::Stat;
use crate::quantity::{Boottime, NANOS};

/// Reads the clock that counts suspend.
pub fn boottime() -> Boottime {
    let time = clock_gettime(ClockId::Boottime);
    // Neither part is negative: the clock starts at 0 with the kernel.
    Boottime::from_nanos(time.tv_sec as u64 * NANOS + time.tv_nsec as u64)
}

/// The kernel's id of this boot.
///
/// # Errors
/// The kernel's, where `/proc` is not mounted.
pub fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// When a process was started; `None` when there is none of this number.
///
/// # Errors
/// The kernel's, where `/proc` is not mounted.
pub fn start_of(pid: u32) -> io::Result<Option<u64>> {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(text) => Ok(Stat::parse(&text).filter(|stat| !stat.zombie).map(|stat| stat.start)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // It ended while its file was read.
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a process stands still.
pub fn is_stopped(pid: u32) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    Stat::parse(&text).is_some_and(|stat| stat.stopped)
}

/// The network file system that a folder is on: the other half knows those of Linux.
///
/// # Errors
/// None.
pub fn network(_folder: &Path) -> io::Result<Option<&'static str>> {
    Ok(None)
}
