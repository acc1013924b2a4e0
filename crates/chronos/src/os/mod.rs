//! Everything that touches the machine.
//!
//! What every system shares lies here; what differs lies in one of two halves with the same
//! modules: [`linux`] has control groups, device programs, timers of the service manager and a
//! helper for many users, `portable` has files and processes only and serves macOS, FreeBSD and
//! Windows. The feature `portable` chooses it on Linux too, where it can be tested.
//!
//! # Invariants
//! * No other module of the crate makes a call of the operating system but to print.
//! * `unsafe` is here and nowhere else.
//! * Nothing outside this folder asks which system it is compiled for.

pub mod check;
pub mod clock;
pub mod fault;
pub mod gpu;
pub mod guard;
pub mod history;
pub mod lock;
pub mod session;
pub mod settings;
pub mod supervise;
pub mod terminal;

#[cfg(unix)]
pub mod detach;
#[cfg(unix)]
mod key;
#[cfg(unix)]
mod places;
#[cfg(unix)]
pub mod users;

#[cfg(windows)]
mod windows;
#[cfg(windows)]
pub use windows::{detach, users};
#[cfg(windows)]
use windows::{key, places};

#[cfg(target_os = "linux")]
mod stat;

#[cfg(all(target_os = "linux", not(feature = "portable")))]
mod linux;
#[cfg(all(target_os = "linux", not(feature = "portable")))]
pub use linux::*;

#[cfg(any(not(target_os = "linux"), feature = "portable"))]
mod portable;
#[cfg(any(not(target_os = "linux"), feature = "portable"))]
pub use portable::*;

pub use fault::Fault;
pub use host::Host;
pub use session::Session;
pub use settings::Settings;

/// The variable that marks the processes of a lease; it is inherited by their children.
pub const LEASE_VARIABLE: &str = "CHRONOS_LEASE";
