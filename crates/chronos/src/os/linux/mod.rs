//! The half for Linux: what it takes to keep a deadline against a process that does not want to.

pub mod boot;
pub mod cgroup;
pub mod device;
pub mod directory;
pub mod ebpf;
pub mod guards;
pub mod helper;
pub mod host;
pub mod install;
pub mod job;
pub mod lockdown;
pub mod notice;
pub mod old_locks;
pub mod process;
pub mod systemd;

pub use systemd::Timers;
