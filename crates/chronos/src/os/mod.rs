//! Everything that touches the machine.
//!
//! # Invariants
//! * No other module of the crate makes a call of the operating system but to print.
//! * `unsafe` is here and nowhere else.

pub mod cgroup;
pub mod clock;
pub mod directory;
pub mod ebpf;
pub mod fault;
pub mod gpu;
pub mod guard;
pub mod helper;
pub mod history;
pub mod host;
pub mod install;
pub mod lockdown;
pub mod process;
pub mod session;
pub mod settings;
pub mod supervise;
pub mod systemd;
pub mod terminal;
pub mod users;

pub use fault::Fault;
pub use host::Host;
pub use session::Session;
pub use settings::Settings;
