//! What all Unixes share.

use std::fs::{DirBuilder, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process};

use super::start_of;
use crate::lease::{ProcessId, WarnSignal};
use crate::os::fault::Fault;
use crate::os::portable::process::Order;
use crate::os::supervise::Means;

/// Whether a process can be asked to end, and be stopped.
pub const HAS_SIGNALS: bool = true;

/// Sends an order to a process, if it is still the one that is meant.
///
/// # Errors
/// The kernel's.
pub fn send(process: &ProcessId, order: Order) -> io::Result<()> {
    let signal = match order {
        Order::Term => Signal::TERM,
        Order::Kill => Signal::KILL,
        Order::Stop => Signal::STOP,
        Order::Continue => Signal::CONT,
        Order::Warn(WarnSignal::Usr1) => Signal::USR1,
        Order::Warn(WarnSignal::Usr2) => Signal::USR2,
        Order::Warn(WarnSignal::Hup) => Signal::HUP,
        Order::Warn(WarnSignal::Int) => Signal::INT,
    };
    if start_of(process.pid)? != Some(process.start) {
        return Ok(());
    }
    kill(process.pid, signal)
}

fn kill(pid: u32, signal: Signal) -> io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
    Ok(kill_process(pid, signal)?)
}

/// The number of a user.
pub fn user_number(user: &sysinfo::Uid) -> Option<u32> {
    Some(**user)
}

/// Makes a folder and those above it, with permission bits `mode`.
///
/// # Errors
/// The kernel's.
pub fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().mode(mode).recursive(true).create(path)
}

/// Why a folder is not `owner`'s alone to write into; `None` when it is.
pub fn foreign(metadata: &Metadata, owner: u32) -> Option<String> {
    if metadata.uid() != owner {
        Some(format!("it belongs to user {}, not to user {owner}", metadata.uid()))
    } else if metadata.mode() & 0o022 != 0 {
        Some(format!("others can write into it (mode {:o})", metadata.mode() & 0o7777))
    } else {
        None
    }
}

/// Whether a file belongs to a user.
pub fn is_of(metadata: &Metadata, uid: u32) -> bool {
    metadata.uid() == uid
}

/// Options that open no link, and make a file with permission bits `mode`.
pub fn without_links(options: &mut OpenOptions, mode: u32) -> &mut OpenOptions {
    options.mode(mode).custom_flags(libc::O_NOFOLLOW)
}

/// Whether a file has another name than the one it was opened by.
pub fn has_other_names(metadata: &Metadata) -> bool {
    metadata.nlink() > 1
}

/// Puts a file in the place of another.
///
/// # Errors
/// The kernel's.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to)
}

/// Becomes a program; returns only where it cannot.
pub fn become_it(program: &mut Command) -> io::Error {
    program.exec()
}

/// What ended a process that did not end by itself, as far as it is of those that end a lease.
pub fn ended_by(status: ExitStatus) -> Option<Means> {
    match status.signal()? {
        libc::SIGTERM => Some(Means::Term),
        libc::SIGKILL => Some(Means::Kill),
        _ => None,
    }
}

/// The exit code of a process as shells tell it: 128 and the signal where one ended it.
pub fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    u8::try_from(code.unwrap_or(125)).unwrap_or(125)
}

/// Signals that came, one bit each.
static CAUGHT: AtomicU32 = AtomicU32::new(0);

extern "C" fn note(signal: libc::c_int) {
    CAUGHT.fetch_or(1 << signal, Ordering::AcqRel);
}

/// Signals are noted instead of ending this process.
#[derive(Debug)]
pub struct Caught(());

/// Notes signals from now on. A program that this process becomes or starts has none noted.
///
/// # Errors
/// The kernel's.
pub fn catch() -> io::Result<Caught> {
    for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
        let handler = note as extern "C" fn(libc::c_int);
        // SAFETY: the handler does one atomic operation, which any signal may interrupt.
        if unsafe { libc::signal(signal, handler as libc::sighandler_t) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(Caught(()))
}

impl Caught {
    /// Whether one came that has not been passed on.
    pub fn pending(&self) -> bool {
        CAUGHT.load(Ordering::Acquire) != 0
    }

    /// Passes on what came. What a terminal sends reaches the job by itself.
    ///
    /// # Errors
    /// [`Fault::Os`].
    pub fn pass_on(&self, pid: u32) -> Result<(), Fault> {
        let caught = CAUGHT.swap(0, Ordering::AcqRel);
        for signal in [Signal::TERM, Signal::HUP] {
            if caught & (1 << signal.as_raw()) != 0 {
                kill(pid, signal).map_err(|e| Fault::os("signal process", pid, e))?;
            }
        }
        Ok(())
    }
}
