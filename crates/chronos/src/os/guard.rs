//! The guardian: a process of its own session that ends leases on time and leaves with the last.
//!
//! It holds the file `guard` locked for as long as it lives, so that whoever grants a lease sees
//! whether there is one. It leaves while it holds the journal's lock: a lease that is granted
//! before is seen by it, one that is granted after finds the file free and starts another.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

use super::directory::{Directory, try_lock, unlock};
use super::fault::Fault;
use super::host::Host;
use super::process::{self, LEASE_VARIABLE, timespec};
use super::{Settings, clock, systemd};
use crate::engine::{Engine, Error};
use crate::expiry::{Diligence, Watch};
use crate::lease::{LeaseId, Phase};
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

/// A watch on the journal: readable when it was changed.
#[derive(Debug)]
pub struct Notice(OwnedFd);

impl Notice {
    /// Watches the folder of the journal.
    ///
    /// # Errors
    /// [`Fault::Os`].
    pub fn of(directory: &Directory) -> Result<Self, Fault> {
        let fail = |e: Errno| Fault::os("watch", directory.path().display(), e);
        let flags = CreateFlags::CLOEXEC | CreateFlags::NONBLOCK;
        let notice = inotify::init(flags).map_err(fail)?;
        let what = WatchFlags::MODIFY | WatchFlags::MOVED_TO | WatchFlags::DELETE;
        inotify::add_watch(&notice, directory.path(), what).map_err(fail)?;
        Ok(Self(notice))
    }

    /// Forgets what was noticed so far.
    pub fn drain(&self) {
        let mut buffer = [0_u8; 4_096];
        while rustix::io::read(&self.0, &mut buffer).is_ok_and(|length| length > 0) {}
    }

    /// Waits until the journal is changed, one of `handles` is ready, or `until`.
    ///
    /// # Errors
    /// [`Fault::Os`].
    pub fn wait(&self, handles: &[OwnedFd], until: Boottime) -> Result<(), Fault> {
        let watched = handles.iter().map(AsFd::as_fd).chain([self.0.as_fd()]);
        wait_for_any(watched, until)?;
        self.drain();
        Ok(())
    }
}

fn wait_for_any<'a>(
    handles: impl Iterator<Item = BorrowedFd<'a>>,
    until: Boottime,
) -> Result<(), Fault> {
    let left = until.since(clock::boottime());
    let mut watched: Vec<PollFd<'_>> =
        handles.map(|handle| PollFd::from_borrowed_fd(handle, PollFlags::IN)).collect();
    match poll(&mut watched, Some(&timespec(left.as_nanos()))) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(Fault::os("wait for", "the journal", error)),
    }
}

impl AsFd for Notice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Starts a guardian unless there is one. Returns whether one was started.
///
/// # Errors
/// [`Fault::Os`] when it cannot be started.
pub fn ensure(host: &Host) -> Result<bool, Fault> {
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
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    let status = command.status().map_err(|e| Fault::os("start", program.display(), e))?;
    if status.success() {
        return Ok(true);
    }
    Err(Fault::os("start", program.display(), std::io::Error::other(status.to_string())))
}

/// Whether a guardian lives.
///
/// # Errors
/// [`Fault::Os`].
pub fn present(host: &Host) -> Result<bool, Fault> {
    let path = host.runtime().path_of(c"guard");
    let file = host.runtime().file(c"guard", 0o600)?;
    let free = try_lock(&file, &path)?;
    if free {
        unlock(&file);
    }
    Ok(!free)
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
    if own.file_name().is_some_and(|name| name == "chronos") {
        return Ok(own);
    }
    // A program that uses the library: the tool is beside the library or on the path.
    Ok(PathBuf::from("chronos"))
}

/// Goes on as a child of init in a session of its own, so that neither a hangup of the terminal nor
/// the end of the caller reaches the guardian. Returns whether this is the child.
///
/// # Errors
/// [`Fault::Os`] when there can be no child.
pub fn detach() -> Result<bool, Fault> {
    let fail = |e: std::io::Error| Fault::os("start", "the guardian", e);
    // SAFETY: the tool has one thread when it does this, so that the child lacks nothing; it goes on
    // like any process. A second `exec` would cost the first grant as much as everything else.
    match unsafe { libc::fork() } {
        -1 => Err(fail(std::io::Error::last_os_error())),
        0 => {
            // The parent leads the group that `ensure` made; its child is free to lead a session.
            rustix::process::setsid().map_err(|e| fail(e.into()))?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// Guards until no lease and no ticket is left.
///
/// # Errors
/// [`Fault`] when the state cannot be opened at all; a round that fails is tried again.
pub fn run(settings: &Settings) -> Result<(), Fault> {
    let host = Host::open_to_guard(settings)?;
    let file = host.runtime().file(c"guard", 0o600)?;
    if !try_lock(&file, &host.runtime().path_of(c"guard"))? {
        return Ok(());
    }
    leave_any_fence(&host);
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
        let (handles, due) = (process::handles(&watch.processes), until(&watch));
        let rested = clock::boottime().after(REST);
        wait_for_any(handles.iter().map(AsFd::as_fd), due.min(rested))?;
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

/// The timers of the service manager that stand behind the guardian.
#[derive(Debug, Default)]
struct Timers(BTreeMap<LeaseId, Boottime>);

impl Timers {
    /// One timer for each active lease, at its deadline.
    fn follow(&mut self, engine: &Engine<Host>) {
        if !systemd::present() {
            return;
        }
        let now = clock::boottime();
        for lease in engine.book().leases().filter(|lease| lease.phase == Phase::Active) {
            if self.0.get(&lease.id) != Some(&lease.deadline)
                && systemd::arm(&lease.id, lease.deadline.since(now)).is_ok()
            {
                self.0.insert(lease.id.clone(), lease.deadline);
            }
        }
        let ended = |id: &LeaseId| engine.book().lease(id).is_none();
        let gone: Vec<LeaseId> = self.0.keys().filter(|id| ended(id)).cloned().collect();
        for id in gone {
            systemd::disarm(&id);
            self.0.remove(&id);
        }
    }
}

fn until(watch: &Watch) -> Boottime {
    let now = clock::boottime();
    let due = watch.due.unwrap_or(Boottime::from_nanos(u64::MAX));
    // What is due and still there could not be done: it is tried again, not at once.
    if due <= now { now.after(RETRY) } else { due.min(now.after(LOOK_EVERY)) }
}

/// A guardian that was started by a member of a lease must not be inside the lease's fence.
fn leave_any_fence(host: &Host) {
    if let Some(fences) = host.fences() {
        fences.leave();
    }
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
