//! The job of a supervisor: what reaches it, and how it ended.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::Signal;

use super::notice::Notice;
use super::process::{self, Handle, timespec};
use crate::lease::ProcessId;
use crate::os::clock;
use crate::os::fault::Fault;
use crate::os::supervise::Means;
use crate::quantity::Boottime;

/// Becomes a program; returns only where it cannot.
pub fn become_it(program: &mut Command) -> std::io::Error {
    match Signals::unblock() {
        Ok(()) => program.exec(),
        Err(error) => error,
    }
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

/// Signals that are read instead of ending the supervisor.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
}

const HANDLED: [i32; 4] = [libc::SIGTERM, libc::SIGHUP, libc::SIGINT, libc::SIGQUIT];

impl Signals {
    /// Reads them from now on.
    ///
    /// # Errors
    /// [`Fault::Os`].
    pub fn block() -> Result<Self, Fault> {
        let fail = || Fault::os("handle", "signals", std::io::Error::last_os_error());
        // SAFETY: a signal set is plain memory that `sigemptyset` initializes.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: `set` is valid for all three calls; the old mask is not asked for.
        let fd = unsafe {
            libc::sigemptyset(&raw mut set);
            for signal in HANDLED {
                libc::sigaddset(&raw mut set, signal);
            }
            if libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) != 0 {
                return Err(fail());
            }
            libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if fd < 0 {
            return Err(fail());
        }
        // SAFETY: the kernel has just returned this descriptor, and nobody else knows it.
        Ok(Self { fd: unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) } })
    }

    /// A job starts with no signal blocked, whoever starts it.
    fn unblock() -> std::io::Result<()> {
        // SAFETY: as in `block`.
        let status = unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut())
        };
        if status == 0 {
            return Ok(());
        }
        Err(std::io::Error::from_raw_os_error(status))
    }

    /// Waits until a signal comes, the journal is changed, a process ends, or `until`.
    ///
    /// # Errors
    /// [`Fault::Os`].
    pub fn wait(
        &self,
        notice: &Notice,
        processes: &[Handle],
        until: Boottime,
    ) -> Result<(), Fault> {
        let left = until.since(clock::boottime());
        let mut watched =
            vec![PollFd::new(notice, PollFlags::IN), PollFd::new(&self.fd, PollFlags::IN)];
        let handle = |handle| PollFd::from_borrowed_fd(AsFd::as_fd(handle), PollFlags::IN);
        watched.extend(processes.iter().map(handle));
        match poll(&mut watched, Some(&timespec(left.as_nanos()))) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Fault::os("wait for", "the job", error)),
        }
        notice.drain();
        Ok(())
    }

    /// Sends the job what has come.
    ///
    /// # Errors
    /// [`Fault::Os`] when the kernel refuses it.
    pub fn pass_on(&self, job: &ProcessId) -> Result<(), Fault> {
        for signal in self.pending() {
            process::signal(std::slice::from_ref(job), signal)?;
        }
        Ok(())
    }

    /// Signals that somebody sent to the supervisor itself; what a terminal sends to the whole
    /// group has reached the job already.
    fn pending(&self) -> Vec<Signal> {
        let mut found = Vec::new();
        let size = std::mem::size_of::<libc::signalfd_siginfo>();
        loop {
            // SAFETY: plain memory of which every bit pattern is valid.
            let mut entry: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
            // SAFETY: `entry` is valid for `size` bytes.
            let length = unsafe { libc::read(self.fd.as_raw_fd(), (&raw mut entry).cast(), size) };
            if usize::try_from(length) != Ok(size) {
                return found;
            }
            let by_terminal = entry.ssi_code == libc::SI_KERNEL;
            let signal = i32::try_from(entry.ssi_signo).ok().and_then(Signal::from_named_raw);
            found.extend(signal.filter(|_| !by_terminal));
        }
    }
}
