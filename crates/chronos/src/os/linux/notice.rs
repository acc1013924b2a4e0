//! Waiting for the journal to change.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

use super::directory::Directory;
use super::process::{Handle, timespec};
use crate::os::clock;
use crate::os::fault::Fault;
use crate::quantity::Boottime;

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

    /// Waits until the journal is changed, a process ends, or `until`.
    ///
    /// # Errors
    /// [`Fault::Os`].
    pub fn wait(&self, processes: &[Handle], until: Boottime) -> Result<(), Fault> {
        let watched = processes.iter().map(AsFd::as_fd).chain([self.0.as_fd()]);
        wait_for_any(watched, until)?;
        self.drain();
        Ok(())
    }
}

impl AsFd for Notice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits until a process ends or `until`, whatever happens to the journal.
///
/// # Errors
/// [`Fault::Os`].
pub fn wait_for_exit(processes: &[Handle], until: Boottime) -> Result<(), Fault> {
    wait_for_any(processes.iter().map(AsFd::as_fd), until)
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
