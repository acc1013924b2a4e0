//! The few calls of each system that the rest of this half is made of.
//!
//! | call | Linux (for tests) | macOS | FreeBSD | Windows |
//! |---|---|---|---|---|
//! | `boottime` | `CLOCK_BOOTTIME` | `CLOCK_MONOTONIC_RAW` | `CLOCK_MONOTONIC`, stops in suspend | `GetTickCount64` |
//! | `boot_id` | `random/boot_id` | `kern.bootsessionuuid` | `kern.boot_id` | `BootId` of the shared page |
//! | `start_of` | ticks since boot | µs, `proc_pidinfo` | µs since boot, `kern.proc.pid` | 100 ns, `GetProcessTimes` |
//! | `send` | `kill` | `kill` | `kill` | `TerminateProcess` |

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub use unix::*;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub use linux::*;

#[cfg(target_vendor = "apple")]
mod apple;
#[cfg(target_vendor = "apple")]
pub use apple::*;

#[cfg(target_os = "freebsd")]
mod freebsd;
#[cfg(target_os = "freebsd")]
pub use freebsd::*;

#[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
mod bsd;
#[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
pub use bsd::*;

#[cfg(windows)]
mod windows;
#[cfg(windows)]
pub use windows::*;
