//! macOS.

use std::io;

use super::sysctl;
use crate::quantity::{Boottime, NANOS};

/// Reads the clock that counts suspend and is not set with the date. Source: clock_gettime(3).
pub fn boottime() -> Boottime {
    // SAFETY: plain memory of which every bit pattern is valid.
    let mut time: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: `time` is valid; the clock is there since macOS 10.12, so that nothing can fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_RAW, &raw mut time) };
    Boottime::from_nanos(time.tv_sec as u64 * NANOS + time.tv_nsec as u64)
}

/// The kernel's id of this boot, a UUID.
///
/// # Errors
/// The kernel's.
pub fn boot_id() -> io::Result<String> {
    let mut text = [0; 64];
    let length = sysctl(c"kern.bootsessionuuid", &mut text)?;
    let text = String::from_utf8_lossy(&text[..length]);
    Ok(text.trim_end_matches('\0').to_owned())
}

/// What the kernel says of a process; `None` when there is none of this number.
fn look(pid: u32) -> io::Result<Option<libc::proc_bsdinfo>> {
    let Ok(number) = libc::c_int::try_from(pid) else { return Ok(None) };
    // SAFETY: plain memory of which every bit pattern is valid.
    let mut found: libc::proc_bsdinfo = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::proc_bsdinfo>() as libc::c_int;
    // SAFETY: `found` is valid for `size` bytes.
    let filled = unsafe {
        libc::proc_pidinfo(number, libc::PROC_PIDTBSDINFO, 0, (&raw mut found).cast(), size)
    };
    if filled == size {
        return Ok(Some(found));
    }
    let error = io::Error::last_os_error();
    // The kernel says so of a zombie too.
    if error.raw_os_error() == Some(libc::ESRCH) { Ok(None) } else { Err(error) }
}

/// When a process was started, in microseconds of the date it was then; `None` when there is none
/// of this number.
///
/// # Errors
/// The kernel's, most of all that a process of another user may not be asked.
pub fn start_of(pid: u32) -> io::Result<Option<u64>> {
    let found = look(pid)?.filter(|found| found.pbi_status != libc::SZOMB);
    Ok(found.map(|found| found.pbi_start_tvsec * 1_000_000 + found.pbi_start_tvusec))
}

/// Whether a process stands still.
pub fn is_stopped(pid: u32) -> bool {
    look(pid).ok().flatten().is_some_and(|found| found.pbi_status == libc::SSTOP)
}
