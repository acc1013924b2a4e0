//! The clock that counts suspend, and the boot it belongs to.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, clock_gettime,
    timerfd_create, timerfd_settime,
};

use super::process::timespec;
use crate::os::fault::Fault;
use crate::quantity::{Boottime, NANOS};

/// Reads the clock that counts suspend.
pub fn boottime() -> Boottime {
    let time = clock_gettime(ClockId::Boottime);
    // Neither part is negative: the clock starts at 0 with the kernel.
    Boottime::from_nanos(time.tv_sec as u64 * NANOS + time.tv_nsec as u64)
}

/// A descriptor that becomes readable at `at`, for a program that waits for other things too.
///
/// # Errors
/// [`Fault::Os`] when the process has no descriptor left.
pub fn alarm(at: Boottime) -> Result<OwnedFd, Fault> {
    let fail = |e: Errno| Fault::os("arm", "a timer", e);
    let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
    let timer = timerfd_create(TimerfdClockId::Boottime, flags).map_err(fail)?;
    // Zero would disarm it; what has passed is readable at once.
    let it_value = timespec(at.as_nanos().max(1));
    let it_interval = timespec(0);
    let once = Itimerspec { it_interval, it_value };
    timerfd_settime(&timer, TimerfdTimerFlags::ABSTIME, &once).map_err(fail)?;
    Ok(timer)
}

/// The kernel's id of this boot.
///
/// # Errors
/// [`Fault::Os`] when `/proc` is not mounted.
pub fn boot_id() -> Result<String, Fault> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read_to_string(path).map_err(|e| Fault::os("read", path, e))?;
    Ok(text.trim().to_owned())
}
