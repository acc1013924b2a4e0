//! What outlives a restart: records of the past, in one SQLite file.
//!
//! In: [`HistoryRecord`]s, each of which replaces the one of its key. Out: all of them, once, when
//! the file is opened; and how keeping them is going. The schema and why it is so:
//! `docs/designs/006-history-store.md`.
//!
//! # Invariants
//! - What was acknowledged survives the death of the process and of the machine: a record is
//!   acknowledged after its transaction is on the disk.
//! - One thread writes. Handing a record over takes no longer than putting it into a map, whatever
//!   the disk does; records that wait replace each other by key, so that they are bounded.
//! - The file is bounded, in bytes and in age; the oldest records give way.
//! - What cannot be written waits and is tried again; what cannot be read is left untouched.
//!   Either is an error that names the file and the next step.
//! - No aggregation: what a record says is decided in `reconciler`.

mod error;
mod file;
mod record;
mod schema;
mod writer;

use std::path::{Path, PathBuf};
use std::time::Duration;

use gpu_autoscaler_model::HistoryRecord;

pub use error::StoreError;
pub use writer::{Standing, Writer};

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long a record is kept after the time through which it counts.
    pub kept_for: Duration,
    /// Largest size of the file, in bytes; its write-ahead log comes on top, with 4 MiB at most
    /// after a quiet moment. At least 64 KiB.
    pub bytes_max: u64,
}

impl Limits {
    /// Ninety days, and 256 MiB: profiles of 20,000 owners and 400 pools' hours for a quarter.
    pub const DEFAULT: Self =
        Self { kept_for: Duration::from_secs(90 * 24 * 3600), bytes_max: 256 << 20 };
}

/// A store that is open: what it held, and where to put more.
#[derive(Debug)]
pub struct Store {
    /// All records, by key.
    pub records: Vec<HistoryRecord>,
    /// Takes more of them.
    pub writer: Writer,
}

impl Store {
    /// Opens the file at `path`, making it and its folder where they are missing, and reads all of
    /// it. Takes as long as the disk does.
    ///
    /// # Errors
    /// The file cannot be used; it is left as it is.
    pub fn open(path: &Path, limits: Limits) -> Result<Self, StoreError> {
        let mut file = file::File::open(path, limits)?;
        let (records, unreadable) = file.read_all()?;
        let writer = Writer::start(file, unreadable.len())?;
        Ok(Self { records, writer })
    }
}

/// Opens the file as [`Store::open`] does, but on the writer's own thread, again and again until
/// that works; what was read is then handed to `deliver`. Meanwhile the writer takes records, and
/// [`Standing::error`] says why the file cannot be opened.
///
/// What was handed over before the past was known is less than the past: where the file has a
/// record of the same key, that one stays.
///
/// # Errors
/// [`StoreError::Thread`].
pub fn open_later(
    path: PathBuf,
    limits: Limits,
    deliver: impl FnOnce(Vec<HistoryRecord>) + Send + 'static,
) -> Result<Writer, StoreError> {
    Writer::start_later(path, limits, deliver)
}

/// The name of the file in `folder`.
pub fn file_in(folder: &Path) -> PathBuf {
    folder.join("history.db")
}
