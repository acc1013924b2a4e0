//! FreeBSD 13 and later.

use std::io;

use rustix::time::{ClockId, clock_gettime};

use super::sysctl;
use crate::quantity::{Boottime, NANOS};

/// Reads the clock that is not set with the date. The kernel has none that counts suspend.
pub fn boottime() -> Boottime {
    let time = clock_gettime(ClockId::Monotonic);
    // Neither part is negative: the clock starts at 0 with the kernel.
    Boottime::from_nanos(time.tv_sec as u64 * NANOS + time.tv_nsec as u64)
}

/// The kernel's id of this boot, sixteen bytes by chance. The time of the boot would not do: it is
/// moved when the date is set.
///
/// # Errors
/// The kernel's.
pub fn boot_id() -> io::Result<String> {
    let mut bytes = [0; 16];
    let length = sysctl(c"kern.boot_id", &mut bytes)?;
    Ok(bytes[..length].iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What the kernel says of a process; `None` when there is none of this number.
fn look(pid: u32) -> io::Result<Option<libc::kinfo_proc>> {
    let Ok(number) = libc::c_int::try_from(pid) else { return Ok(None) };
    let name = [libc::CTL_KERN, libc::KERN_PROC, libc::KERN_PROC_PID, number];
    // SAFETY: plain memory of which every bit pattern is valid.
    let mut found: libc::kinfo_proc = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::kinfo_proc>();
    // SAFETY: `found` is valid for `length` bytes; nothing is set.
    let status = unsafe {
        libc::sysctl(
            name.as_ptr(),
            name.len() as libc::c_uint,
            (&raw mut found).cast(),
            &raw mut length,
            std::ptr::null(),
            0,
        )
    };
    if status == 0 {
        return Ok((length > 0).then_some(found));
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ESRCH) { Ok(None) } else { Err(error) }
}

/// When a process was started, in microseconds since the boot; `None` when there is none of this
/// number. The kernel adds the time of the boot to what it keeps, so that is taken off again:
/// otherwise a date that is set would make another process of each.
///
/// # Errors
/// The kernel's.
pub fn start_of(pid: u32) -> io::Result<Option<u64>> {
    let Some(found) = look(pid)?.filter(|found| found.ki_stat != libc::SZOMB) else {
        return Ok(None);
    };
    let micros = |time: libc::timeval| time.tv_sec * 1_000_000 + time.tv_usec;
    Ok(u64::try_from(micros(found.ki_start) - micros(boot_time()?)).ok())
}

/// Whether a process stands still.
pub fn is_stopped(pid: u32) -> bool {
    look(pid).ok().flatten().is_some_and(|found| found.ki_stat == libc::SSTOP)
}

fn boot_time() -> io::Result<libc::timeval> {
    let mut bytes = [0; size_of::<libc::timeval>()];
    let length = sysctl(c"kern.boottime", &mut bytes)?;
    if length != bytes.len() {
        return Err(io::Error::other("kern.boottime has another size"));
    }
    // SAFETY: the kernel filled the whole of a value of which every bit pattern is valid.
    Ok(unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) })
}
