//! Both clocks and the boot they belong to.

use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use gpu_autoscaler_model::Timestamp;
use rustix::io::Errno;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, clock_gettime,
    timerfd_create, timerfd_settime,
};

use super::fault::Fault;
use super::process::timespec;
use crate::quantity::{Boottime, NANOS, Now};

/// Reads the clock that counts suspend.
pub fn boottime() -> Boottime {
    let time = clock_gettime(ClockId::Boottime);
    // Neither part is negative: the clock starts at 0 with the kernel.
    Boottime::from_nanos(time.tv_sec as u64 * NANOS + time.tv_nsec as u64)
}

/// Variable with seconds that are added to the date this process reads, so that a date which is
/// set back a year can be tried without setting it. No deadline depends on the date.
pub const DATE_OFFSET: &str = "CHRONOS_DATE_OFFSET";

fn date_offset_secs() -> i64 {
    static SECS: OnceLock<i64> = OnceLock::new();
    *SECS.get_or_init(|| {
        let text = std::env::var(DATE_OFFSET).unwrap_or_default();
        text.parse().unwrap_or(0)
    })
}

/// Reads both clocks.
pub fn now() -> Now {
    let wall = clock_gettime(ClockId::Realtime);
    let secs = wall.tv_sec.saturating_add(date_offset_secs());
    let millis = secs.saturating_mul(1_000).saturating_add(wall.tv_nsec / 1_000_000);
    // A date outside the calendar is shown as its start; nothing is decided by it but windows.
    let wall = Timestamp::from_millis(millis).unwrap_or(Timestamp::EPOCH);
    Now { boot: boottime(), wall }
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
