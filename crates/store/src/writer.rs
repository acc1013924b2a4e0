//! The one thread that writes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use gpu_autoscaler_model::{HistoryKey, HistoryRecord};
use tracing::{info, warn};

use crate::file::{File, now_millis};
use crate::{Limits, StoreError};

/// Records that wait at most; of an own key each. About 100 MiB.
const WAITING_MAX: usize = 100_000;

/// Pause after a first failure; it doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_secs(1);

/// Longest pause between two attempts.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// How often old records are looked for.
const PRUNE_EVERY: Duration = Duration::from_secs(3600);

/// Takes records, and has one thread write them.
#[derive(Debug)]
pub struct Writer {
    desk: Arc<Desk>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// How keeping records is going.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Records that were handed over, counted from the start of this process.
    pub taken: u64,
    /// Of these, in the order in which they were handed over, how many are on the disk, or were
    /// replaced by a later one that is.
    pub acknowledged: u64,
    /// Records that wait to be written, one a key.
    pub waiting: usize,
    /// Records that were refused because too many waited; they count as not handed over.
    pub refused: u64,
    /// Records of the file that cannot be and were left out.
    pub unreadable: usize,
    /// Whether the file was opened, or opening it has failed at least once.
    pub tried: bool,
    /// Why the last attempt to open or write the file failed; nothing when it did not.
    pub error: Option<Arc<str>>,
}

/// What is shared with the thread. It is held for as long as a map operation takes.
#[derive(Debug, Default)]
struct Desk {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: BTreeMap<HistoryKey, HistoryRecord>,
    standing: Standing,
    closing: bool,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it holds the lock; if it did, the map is still whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    pub(crate) fn start(file: File, unreadable: usize) -> Result<Self, StoreError> {
        let path = file.path().to_owned();
        Self::spawn(&path, move |desk| {
            let mut inner = desk.lock();
            (inner.standing.tried, inner.standing.unreadable) = (true, unreadable);
            drop(inner);
            write_until_closed(file, desk);
        })
    }

    pub(crate) fn start_later(
        path: PathBuf,
        limits: Limits,
        deliver: impl FnOnce(Vec<HistoryRecord>) + Send + 'static,
    ) -> Result<Self, StoreError> {
        let named = path.clone();
        Self::spawn(&named, move |desk| {
            if let Some((file, records)) = open_until_closed(&path, limits, desk) {
                deliver(records);
                write_until_closed(file, desk);
            }
        })
    }

    fn spawn(path: &Path, run: impl FnOnce(&Desk) + Send + 'static) -> Result<Self, StoreError> {
        let desk = Arc::new(Desk::default());
        let shared = Arc::clone(&desk);
        let thread = thread::Builder::new()
            .name("history".to_owned())
            .spawn(move || run(&shared))
            .map_err(|source| StoreError::Thread { path: path.to_owned(), source })?;
        Ok(Self { desk, thread: Mutex::new(Some(thread)) })
    }

    /// Hands records over; each replaces what is kept under its key. Never waits for the disk.
    ///
    /// Returns the count of records handed over so far: they are safe once
    /// [`Standing::acknowledged`] has reached it.
    pub fn put(&self, records: impl IntoIterator<Item = HistoryRecord>) -> u64 {
        let mut inner = self.desk.lock();
        for record in records {
            let key = record.key();
            if inner.waiting.len() >= WAITING_MAX && !inner.waiting.contains_key(&key) {
                inner.standing.refused += 1;
                continue;
            }
            inner.waiting.insert(key, record);
            inner.standing.taken += 1;
        }
        self.desk.changed.notify_all();
        inner.standing.taken
    }

    /// How it is going.
    pub fn standing(&self) -> Standing {
        let inner = self.desk.lock();
        Standing { waiting: inner.waiting.len(), ..inner.standing.clone() }
    }

    /// Waits until `taken` records are acknowledged, an attempt fails, or `limit` has passed.
    pub fn wait_for(&self, taken: u64, limit: Duration) -> Standing {
        let until = Instant::now() + limit;
        let mut inner = self.desk.lock();
        while inner.standing.acknowledged < taken && inner.standing.error.is_none() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            inner = match self.desk.changed.wait_timeout(inner, left) {
                Ok((inner, _)) => inner,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        Standing { waiting: inner.waiting.len(), ..inner.standing.clone() }
    }
}

impl Writer {
    /// Writes what waits, once, and closes the file. Takes as long as the disk does; what is handed
    /// over from now on is dropped.
    pub fn close(&self) {
        self.desk.lock().closing = true;
        self.desk.changed.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            warn!("the thread of the history has panicked");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

/// The file and all that it holds; nothing where the writer is closed before it can be opened.
fn open_until_closed(
    path: &Path,
    limits: Limits,
    desk: &Desk,
) -> Option<(File, Vec<HistoryRecord>)> {
    let mut retry = RETRY_MIN;
    loop {
        let opened = File::open(path, limits).and_then(|mut file| Ok((file.read_all()?, file)));
        let mut inner = desk.lock();
        inner.standing.tried = true;
        match opened {
            Ok(((records, unreadable), file)) => {
                inner.standing.unreadable = unreadable.len();
                for record in &records {
                    inner.waiting.remove(&record.key());
                }
                inner.standing.error = None;
                info!(path = %path.display(), records = records.len(), "history is open");
                return Some((file, records));
            }
            Err(error) => note(&mut inner, path, &error),
        }
        drop(inner);
        pause(desk, retry);
        retry = (retry * 2).min(RETRY_MAX);
        if desk.lock().closing {
            return None;
        }
    }
}

fn write_until_closed(mut file: File, desk: &Desk) {
    let mut retry = RETRY_MIN;
    let mut pruned = Instant::now();
    loop {
        let (batch, taken, closing) = next_batch(desk, pruned + PRUNE_EVERY);
        if !batch.is_empty() {
            match file.write(batch.values()) {
                Ok(()) => {
                    retry = RETRY_MIN;
                    acknowledge(desk, &file, taken);
                }
                Err(error) => {
                    put_back(desk, &file, batch, &error);
                    if !closing {
                        pause(desk, retry);
                        retry = (retry * 2).min(RETRY_MAX);
                    }
                }
            }
        }
        if closing {
            return;
        }
        if pruned.elapsed() >= PRUNE_EVERY {
            pruned = Instant::now();
            if let Err(error) = file.prune(now_millis()) {
                warn!(path = %file.path().display(), %error, "old history cannot be removed");
            }
        }
    }
}

/// Waits for records, the time to prune, or the end.
fn next_batch(desk: &Desk, until: Instant) -> (BTreeMap<HistoryKey, HistoryRecord>, u64, bool) {
    let mut inner = desk.lock();
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if !inner.waiting.is_empty() || inner.closing || left.is_zero() {
            let batch = std::mem::take(&mut inner.waiting);
            return (batch, inner.standing.taken, inner.closing);
        }
        inner = match desk.changed.wait_timeout(inner, left) {
            Ok((inner, _)) => inner,
            Err(poisoned) => poisoned.into_inner().0,
        };
    }
}

fn acknowledge(desk: &Desk, file: &File, taken: u64) {
    let mut inner = desk.lock();
    inner.standing.acknowledged = taken;
    if inner.standing.error.take().is_some() {
        info!(path = %file.path().display(), "history can be written again");
    }
    desk.changed.notify_all();
}

/// What came meanwhile under the same key is newer and stays.
fn put_back(
    desk: &Desk,
    file: &File,
    batch: BTreeMap<HistoryKey, HistoryRecord>,
    error: &StoreError,
) {
    let mut inner = desk.lock();
    for (key, record) in batch {
        inner.waiting.entry(key).or_insert(record);
    }
    note(&mut inner, file.path(), error);
    desk.changed.notify_all();
}

/// Remembers what failed; the log tells it once.
fn note(inner: &mut Inner, path: &Path, error: &StoreError) {
    let mut text = error.to_string();
    if let Some(source) = std::error::Error::source(error) {
        text = format!("{text}: {source}");
    }
    if inner.standing.error.as_deref() != Some(&text) {
        warn!(path = %path.display(), error = text, "history is not kept now");
    }
    inner.standing.error = Some(text.into());
}

/// Waits, but not beyond the end.
fn pause(desk: &Desk, length: Duration) {
    let until = Instant::now() + length;
    let mut inner = desk.lock();
    while !inner.closing {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        inner = match desk.changed.wait_timeout(inner, left) {
            Ok((inner, _)) => inner,
            Err(poisoned) => poisoned.into_inner().0,
        };
    }
}
