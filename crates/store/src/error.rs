//! What goes wrong with a file, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ffi::ErrorCode;
use thiserror::Error;

use crate::schema::VERSION;

/// Why the history cannot be kept or read. Each text names the file and the next step.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The folder of the file cannot be made.
    #[error(
        "history `{}`: its folder cannot be made\nhint: mount a writable volume there, \
         or name another folder by --history-dir", path.display()
    )]
    Folder {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file cannot be opened, for want of permission say.
    #[error(
        "history `{}` cannot be opened\nhint: the controller's user must be able to write the \
         file and its folder", path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// The file system or the file takes no writes.
    #[error(
        "history `{}` is read-only\nhint: mount its volume writable; until then what is learned \
         is kept in memory only", path.display()
    )]
    ReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// The disk is full.
    #[error(
        "history `{}`: no space is left on its disk\nhint: free space or enlarge the volume; what \
         waits is written then", path.display()
    )]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// The file is none of SQLite's, or is damaged.
    #[error(
        "history `{}` is damaged: {what}\nhint: move it and its `-wal` away, or restore it from a \
         backup; a new one is made within a minute", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite found.
        what: String,
    },
    /// Another program's database.
    #[error(
        "history `{}` belongs to another program (application id {found:#x})\nhint: name another \
         folder by --history-dir", path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its application id.
        found: i32,
    },
    /// Written by a later release.
    #[error(
        "history `{}` has schema {found}, this release knows up to {VERSION}\nhint: run the \
         release that wrote it, or move it away", path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u32,
    },
    /// Another process has it open.
    #[error(
        "history `{}` is in use by another process\nhint: give every replica a folder of its own",
        path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The disk fails, or something that should not be.
    #[error("history `{}` cannot be {}", path.display(), doing.as_str())]
    Failed {
        /// The file.
        path: PathBuf,
        /// What was tried.
        doing: Doing,
        /// Why it did not work.
        #[source]
        source: rusqlite::Error,
    },
    /// No thread for it.
    #[error("history `{}`: its thread cannot be started", path.display())]
    Thread {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What is done with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Opening it.
    Open,
    /// Reading all of it.
    Read,
    /// Writing records.
    Write,
}

impl Doing {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "opened",
            Self::Read => "read",
            Self::Write => "written",
        }
    }
}

impl StoreError {
    /// What SQLite's error means for `path`.
    pub(crate) fn of(path: &Path, doing: Doing, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::ReadOnly) => Self::ReadOnly { path },
            Some(ErrorCode::DiskFull) => Self::Full { path },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged { path, what: source.to_string() }
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::InUse { path },
            Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
                Self::Open { path, source }
            }
            _ => Self::Failed { path, doing, source },
        }
    }
}
