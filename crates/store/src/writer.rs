//! The one thread that writes.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use gpu_autoscaler_model::HistoryRecord;
use tracing::{info, warn};

use crate::StoreError;
use crate::file::{File, now_millis};
use crate::record::RecordKey;

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
    thread: Option<JoinHandle<()>>,
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
    /// Why the last attempt to write failed; nothing when it did not.
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
    waiting: BTreeMap<RecordKey, HistoryRecord>,
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
    pub(crate) fn start(file: File) -> Result<Self, StoreError> {
        let desk = Arc::new(Desk::default());
        let (path, shared) = (file.path().to_owned(), Arc::clone(&desk));
        let thread = thread::Builder::new()
            .name("history".to_owned())
            .spawn(move || write_until_closed(file, &shared))
            .map_err(|source| StoreError::Thread { path, source })?;
        Ok(Self { desk, thread: Some(thread) })
    }

    /// Hands records over; each replaces what is kept under its key. Never waits for the disk.
    ///
    /// Returns the count of records handed over so far: they are safe once
    /// [`Standing::acknowledged`] has reached it.
    pub fn put(&self, records: impl IntoIterator<Item = HistoryRecord>) -> u64 {
        let mut inner = self.desk.lock();
        for record in records {
            let key = RecordKey::of(&record);
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

impl Drop for Writer {
    /// Writes what waits, once, and closes the file. Takes as long as the disk does.
    fn drop(&mut self) {
        self.desk.lock().closing = true;
        self.desk.changed.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            warn!("the thread of the history has panicked");
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
fn next_batch(desk: &Desk, until: Instant) -> (BTreeMap<RecordKey, HistoryRecord>, u64, bool) {
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
    batch: BTreeMap<RecordKey, HistoryRecord>,
    error: &StoreError,
) {
    let mut text = error.to_string();
    if let Some(source) = std::error::Error::source(error) {
        text = format!("{text}: {source}");
    }
    let mut inner = desk.lock();
    for (key, record) in batch {
        inner.waiting.entry(key).or_insert(record);
    }
    if inner.standing.error.as_deref() != Some(&text) {
        warn!(path = %file.path().display(), error = text, "history cannot be written");
    }
    inner.standing.error = Some(text.into());
    desk.changed.notify_all();
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
