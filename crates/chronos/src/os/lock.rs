//! Locks on files, which end with the process that holds them.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use super::fault::Fault;
use super::{clock, directory};
use crate::quantity::Span;

/// How long a caller waits for the lock, which is held for milliseconds.
const WAIT: Span = Span::from_secs(10);

/// Takes the lock of an open file; it ends with [`unlock`], with the file, or with the process.
///
/// # Errors
/// [`Fault::LockBusy`] after ten seconds, [`Fault::Os`].
pub fn lock(file: &File, path: &Path) -> Result<(), Fault> {
    let until = clock::boottime().after(WAIT);
    let mut pause = Duration::from_micros(50);
    while !try_lock(file, path)? {
        if clock::boottime() >= until {
            let holder = directory::holder(file).unwrap_or_else(|| "unknown".to_owned());
            let secs = WAIT.as_secs_up();
            return Err(Fault::LockBusy { path: path.to_owned(), secs, holder });
        }
        std::thread::sleep(pause);
        // Longer pauses would leave the lock idle: it is held for a fraction of this.
        pause = (pause * 2).min(Duration::from_millis(1));
    }
    Ok(())
}

/// Releases the lock, also from a child that a fork gave the open file to.
pub fn unlock(file: &File) {
    let _ = file.unlock();
}

/// Takes the lock if it is free.
///
/// # Errors
/// [`Fault::Os`].
pub fn try_lock(file: &File, path: &Path) -> Result<bool, Fault> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Interrupted => Ok(false),
        Err(TryLockError::Error(error)) => Err(Fault::os("lock", path.display(), error)),
    }
}
