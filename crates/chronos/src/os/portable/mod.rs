//! The half for systems without Linux's means: files, locks and signals only, by agreement.
//!
//! Leases, queue, deadlines and history are the same. What is missing: control groups (a process
//! that leaves its parents and its environment leaves its lease), device programs, timers of a
//! service manager, the helper for many users, and lock files of the implementation before this.

pub mod boot;
pub mod device;
pub mod directory;
pub mod guards;
pub mod helper;
pub mod host;
pub mod install;
pub mod job;
mod journal;
mod kernel;
pub mod lockdown;
pub mod notice;
pub mod process;

pub use guards::Timers;

use super::fault::Fault;

/// What a command is told that needs more than this half has.
fn absent(command: &str, what: &str) -> Fault {
    let why = format!("{} has no {what}", std::env::consts::OS);
    Fault::Setting { origin: command.to_owned(), why }
}
