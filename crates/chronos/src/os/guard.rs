//! The guardian: a process of its own session that ends leases on time and leaves with the last.
//!
//! It holds the file `guard` locked for as long as it lives, so that whoever grants a lease sees
//! whether there is one. It leaves while it holds the journal's lock: a lease that is granted
//! before is seen by it, one that is granted after finds the file free and starts another.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::check::{Check, State};
use super::fault::Fault;
use super::host::Host;
use super::lock::{try_lock, unlock};
use super::notice::{self, Notice};
use super::{LEASE_VARIABLE, Settings, Timers, clock, detach, process};
use crate::engine::{Engine, Error};
use crate::expiry::{Diligence, Watch};
use crate::lease::Phase;
use crate::quantity::{Boottime, Span};
use crate::world::World;

/// How often a guard looks although nothing told it to: the bound on what a lost notice costs.
const LOOK_EVERY: Span = Span::from_secs(30);

/// Pause after a round, whatever the journal says meanwhile: a thousand grants in a second wake the
/// guardian a hundred times. What is due and processes that end do not wait for it, so that a lease
/// of less than this may end this much late.
const REST: Span = Span::from_millis(10);

/// Pause after a round that failed or that left processes the kernel does not let go of.
const RETRY: Span = Span::from_millis(100);

/// Starts a guardian unless there is one. Returns whether one was started.
///
/// # Errors
/// [`Fault::Os`] when it cannot be started.
pub fn ensure(host: &mut Host) -> Result<bool, Fault> {
    if present(host)? {
        return Ok(false);
    }
    let program = program()?;
    let mut command = Command::new(&program);
    command
        .args(["guard", "--detach"])
        .env("CHRONOS_RUNTIME_DIR", host.runtime().path())
        .env("CHRONOS_STATE_DIR", &host.settings().state)
        // It must not be a member of a lease that its maker belongs to.
        .env_remove(LEASE_VARIABLE)
        .current_dir(host.runtime().path().ancestors().last().unwrap_or(Path::new("/")))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    detach::start(&mut command).map_err(|e| Fault::os("start", program.display(), e))?;
    Ok(true)
}

/// Whether a guardian lives.
///
/// # Errors
/// [`Fault`] when the files cannot be locked.
pub fn present(host: &mut Host) -> Result<bool, Fault> {
    // With the journal's lock, under which processes are stopped: one that is stopped while it
    // looks would pass for a guardian.
    host.lock()?;
    let path = host.runtime().path_of("guard");
    let free = host.runtime().file("guard", 0o600).and_then(|file| try_lock(&file, &path));
    // The file is closed, and its lock has ended, before the journal's does.
    host.unlock();
    Ok(!free?)
}

/// How it is with the guardian.
pub fn examine(host: &mut Host) -> Check {
    let text = match present(host) {
        Ok(true) => "runs",
        Ok(false) => "none runs; one is started with the next partition",
        Err(_) => "cannot be asked by this user",
    };
    Check::new("guardian", State::Ok, text)
}

/// The `chronos` program: this one, or the one that the library was told of.
///
/// # Errors
/// [`Fault::Os`] when this program has no path.
pub fn program() -> Result<PathBuf, Fault> {
    if let Some(named) = std::env::var_os("CHRONOS_PROGRAM").filter(|v| !v.is_empty()) {
        return Ok(PathBuf::from(named));
    }
    let own = std::env::current_exe().map_err(|e| Fault::os("find", "this program", e))?;
    if own.file_stem().is_some_and(|name| name == "chronos") {
        return Ok(own);
    }
    // A program that uses the library: the tool is beside the library or on the path.
    Ok(PathBuf::from("chronos"))
}

/// Guards until no lease and no ticket is left.
///
/// # Errors
/// [`Fault`] when the state cannot be opened at all; a round that fails is tried again.
pub fn run(settings: &Settings) -> Result<(), Fault> {
    let host = Host::open_to_guard(settings)?;
    let file = host.runtime().file("guard", 0o600)?;
    if !try_lock(&file, &host.runtime().path_of("guard"))? {
        return Ok(());
    }
    host.leave_any_fence();
    let notice = Notice::of(host.runtime())?;
    let mut engine = Engine::new(host);
    let mut timers = Timers::default();
    loop {
        if engine.world().runtime().is_removed() {
            // Whoever removed the state has given up its leases; there is nothing to keep time for.
            return Ok(());
        }
        let watch = match engine.settle(Diligence::Full) {
            Ok(watch) => watch,
            Err(Error::Refused(_) | Error::Journal(_) | Error::World(_)) => {
                notice.wait(&[], clock::boottime().after(RETRY))?;
                continue;
            }
        };
        timers.follow(&engine);
        if unneeded(&engine) && leave(&mut engine, &file)? {
            return Ok(());
        }
        let Some(handles) = process::handles(&watch.processes) else {
            // One has ended since the round began: there is something to do again.
            notice::wait_for_exit(&[], clock::boottime().after(REST))?;
            continue;
        };
        let due = until(&watch);
        let rested = clock::boottime().after(REST);
        notice::wait_for_exit(&handles, due.min(rested))?;
        notice.wait(&handles, due)?;
    }
}

/// Does whatever is due and stays until every lease that is ending has ended: what a timer runs.
///
/// # Errors
/// [`Fault`] of any kind.
pub fn reap(settings: &Settings) -> Result<(), Fault> {
    let mut engine = Engine::new(Host::open_to_guard(settings)?);
    loop {
        let watch = match engine.settle(Diligence::Due) {
            Ok(watch) => watch,
            Err(Error::World(fault)) => return Err(fault),
            Err(error) => {
                return Err(Fault::Backend { backend: "state", why: error.to_string() });
            }
        };
        let ending = |lease: &crate::lease::Lease| matches!(lease.phase, Phase::Ending { .. });
        if !engine.book().leases().any(ending) {
            return Ok(());
        }
        process::await_exit(&watch.processes, until(&watch))?;
    }
}

fn until(watch: &Watch) -> Boottime {
    let now = clock::boottime();
    let due = watch.due.unwrap_or(Boottime::from_nanos(u64::MAX));
    // What is due and still there could not be done: it is tried again, not at once.
    if due <= now { now.after(RETRY) } else { due.min(now.after(LOOK_EVERY)) }
}

/// Whether nothing is live. A window of the calendar needs no guard: whoever takes it up starts one.
fn unneeded(engine: &Engine<Host>) -> bool {
    engine.book().leases().len() == 0 && engine.book().tickets().is_empty()
}

/// Gives up the guard while nothing can be granted, if there is nothing to guard.
fn leave(engine: &mut Engine<Host>, file: &File) -> Result<bool, Fault> {
    engine.world().lock()?;
    let idle = engine.peek().is_ok() && unneeded(engine);
    if idle {
        unlock(file);
    }
    engine.world().unlock();
    Ok(idle)
}
