//! What can go wrong with the machine itself.

use std::io::ErrorKind;
use std::path::PathBuf;

/// What a folder of ours is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Live state: leases, locks, the queue.
    Runtime,
    /// What outlives a reboot: history and calendar.
    State,
}

impl Purpose {
    /// In words.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Runtime => "runtime directory",
            Self::State => "state directory",
        }
    }
}

/// A failed call, with what it was done to.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// A call of the operating system failed.
    #[error("cannot {verb} `{object}`")]
    Os {
        /// What was done.
        verb: &'static str,
        /// To what.
        object: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The lock was not free in time.
    #[error("lock `{path}` was not free within {secs} s: process {holder} holds it")]
    LockBusy {
        /// The lock file.
        path: PathBuf,
        /// How long was waited, in seconds.
        secs: u64,
        /// The process that holds it, as the kernel lists it.
        holder: String,
    },
    /// State on a network file system has no working locks.
    #[error("{} `{path}` is on a network file system ({kind})", .purpose.noun())]
    NetworkFileSystem {
        /// What it is for.
        purpose: Purpose,
        /// The directory.
        path: PathBuf,
        /// Name of the file system.
        kind: &'static str,
    },
    /// Something that is not ours lies where our state belongs.
    #[error("`{path}` is not used: {why}")]
    NotOurs {
        /// What it was to be used for.
        purpose: Purpose,
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A vendor's library or file says something that cannot be used.
    #[error("{backend}: {why}")]
    Backend {
        /// Which backend.
        backend: &'static str,
        /// What it said.
        why: String,
    },
    /// A setting cannot be used.
    #[error("{origin}: {why}")]
    Setting {
        /// The file or variable it is from.
        origin: String,
        /// What is wrong.
        why: String,
    },
    /// The helper answered something else than was agreed.
    #[error("helper `{path}`: {why}")]
    Helper {
        /// Its socket.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

impl Fault {
    /// A failed call on `object`.
    pub fn os(verb: &'static str, object: impl ToString, error: impl Into<std::io::Error>) -> Self {
        Self::Os { verb, object: object.to_string(), source: error.into() }
    }

    /// The next step.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Os { source, .. } if source.kind() == ErrorKind::StorageFull => {
                Some("free some space; leases that are granted end all the same")
            }
            Self::Os { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                Some("run it as the user whom that belongs to, or as root")
            }
            Self::Helper { .. } => Some(
                "root: `systemctl status chronos-helper.socket`, or keep `chronos helper` running",
            ),
            Self::NetworkFileSystem { purpose, .. } => Some(match purpose {
                Purpose::Runtime => {
                    "set CHRONOS_RUNTIME_DIR to a directory on tmpfs or a local disk"
                }
                Purpose::State => "set CHRONOS_STATE_DIR to a directory on a local disk",
            }),
            Self::NotOurs { purpose, .. } => Some(match purpose {
                Purpose::Runtime => "remove it, or set CHRONOS_RUNTIME_DIR to another directory",
                Purpose::State => "remove it, or set CHRONOS_STATE_DIR to another directory",
            }),
            Self::LockBusy { .. } => Some("end that process, or try again"),
            Self::Backend { .. } => {
                Some("`chronos doctor` says more; CHRONOS_BACKEND names another")
            }
            Self::Setting { .. } => Some("correct it; `chronos config check` examines the files"),
            _ => None,
        }
    }
}
