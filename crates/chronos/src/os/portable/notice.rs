//! Waiting for the journal to change: it is looked at, since each system tells of it differently.

use std::cell::Cell;
use std::path::PathBuf;
use std::time::Duration;

use super::directory::Directory;
use super::journal;
use super::process::{self, Handle};
use crate::os::clock;
use crate::os::fault::Fault;
use crate::quantity::{Boottime, Span};

/// How often is looked: the bound on what a change or an exit is seen late by. A deadline is known
/// beforehand and does not wait for it.
const LOOK_EVERY: Span = Span::from_millis(25);

/// A watch on the journal.
#[derive(Debug)]
pub struct Notice {
    path: PathBuf,
    seen: Cell<u64>,
}

impl Notice {
    /// Watches the folder of the journal.
    ///
    /// # Errors
    /// [`Fault::Os`].
    pub fn of(directory: &Directory) -> Result<Self, Fault> {
        let path = directory.path().to_owned();
        let seen =
            journal::fingerprint(&path).map_err(|e| Fault::os("watch", path.display(), e))?;
        Ok(Self { path, seen: Cell::new(seen) })
    }

    /// Waits until the journal is changed, a process ends, or `until`.
    ///
    /// # Errors
    /// None today.
    pub fn wait(&self, processes: &[Handle], until: Boottime) -> Result<(), Fault> {
        while !self.changed() && pause(processes, until) {}
        Ok(())
    }

    /// Whether the journal was changed since the last time. A folder that is gone has.
    pub fn changed(&self) -> bool {
        let Ok(now) = journal::fingerprint(&self.path) else { return true };
        self.seen.replace(now) != now
    }
}

/// Waits until a process ends or `until`, whatever happens to the journal.
///
/// # Errors
/// None today.
pub fn wait_for_exit(processes: &[Handle], until: Boottime) -> Result<(), Fault> {
    while pause(processes, until) {}
    Ok(())
}

/// Sleeps a little; whether there is still something to wait for.
pub fn pause(processes: &[Handle], until: Boottime) -> bool {
    let left = until.since(clock::boottime());
    if left == Span::ZERO || processes.iter().any(|process| !process::alive(process)) {
        return false;
    }
    std::thread::sleep(Duration::from_nanos(left.min(LOOK_EVERY).as_nanos()));
    true
}
