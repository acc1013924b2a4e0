//! One SQLite file: opening, checking, writing, making room.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gpu_autoscaler_model::HistoryRecord;
use rusqlite::{Connection, TransactionBehavior};
use tracing::{info, warn};

use crate::error::Doing;
use crate::record;
use crate::schema::{self, APPLICATION_ID, VERSION};
use crate::{Limits, StoreError};

/// How long a file that another process holds is waited for: a replica that ends lets go.
const BUSY_FOR: Duration = Duration::from_secs(2);

/// Records that cannot be, of which the log tells one by one.
const UNREADABLE_LOGGED_MAX: usize = 10;

/// The write-ahead log is cut down to this size, in bytes.
const LOG_BYTES: i64 = 4 << 20;

/// An open file that no other process has open.
#[derive(Debug)]
pub(crate) struct File {
    connection: Connection,
    path: PathBuf,
    limits: Limits,
}

impl File {
    pub fn open(path: &Path, limits: Limits) -> Result<Self, StoreError> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)
                .map_err(|source| StoreError::Folder { path: path.to_owned(), source })?;
        }
        let failed = |source| StoreError::of(path, Doing::Open, source);
        let connection = Connection::open(path).map_err(failed)?;
        let mut file = Self { connection, path: path.to_owned(), limits };
        file.lock().map_err(failed)?;
        file.check()?;
        file.set_up().map_err(failed)?;
        let version = schema::version(&file.connection).map_err(failed)?;
        if version < VERSION {
            schema::migrate(&mut file.connection, version).map_err(failed)?;
            info!(path = %path.display(), from = version, to = VERSION, "history has a new schema");
        }
        file.prune(now_millis()).map_err(failed)?;
        Ok(file)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sees to it that a second process fails. Before the log is opened: then no shared memory is
    /// needed either.
    fn lock(&self) -> rusqlite::Result<()> {
        self.connection.busy_timeout(BUSY_FOR)?;
        self.connection.pragma_update_and_check(None, "locking_mode", "EXCLUSIVE", |_| Ok(()))
    }

    /// Source: <https://www.sqlite.org/wal.html>, <https://www.sqlite.org/pragma.html>.
    fn set_up(&self) -> rusqlite::Result<()> {
        let connection = &self.connection;
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        // A commit returns when it is on the disk.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update_and_check(None, "journal_size_limit", LOG_BYTES, |_| Ok(()))?;
        let page_bytes: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
        let bytes_max = i64::try_from(self.limits.bytes_max).unwrap_or(i64::MAX);
        let pages = (bytes_max / page_bytes.max(1)).max(16);
        connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
    }

    /// Whether it is ours, whole, and of a schema that is known.
    fn check(&self) -> Result<(), StoreError> {
        let path = || self.path.clone();
        let failed = |source| StoreError::of(&self.path, Doing::Open, source);
        let text =
            |name| self.connection.pragma_query_value(None, name, |row| row.get::<_, String>(0));
        let number = |name| self.connection.pragma_query_value(None, name, |row| row.get(0));
        if self.connection.is_readonly("main").map_err(failed)? {
            return Err(StoreError::ReadOnly { path: path() });
        }
        let whole = text("quick_check").map_err(failed)?;
        if whole != "ok" {
            return Err(StoreError::Damaged { path: path(), what: whole });
        }
        let found: i32 = number("application_id").map_err(failed)?;
        let version = schema::version(&self.connection).map_err(failed)?;
        let tables: i32 = number("schema_version").map_err(failed)?;
        // A file without any table is new, or one whose first transaction did not happen.
        let new = tables == 0 && version == 0 && found == 0;
        if found != APPLICATION_ID && !new {
            return Err(StoreError::Foreign { path: path(), found });
        }
        if version > VERSION {
            return Err(StoreError::Newer { path: path(), found: version });
        }
        Ok(())
    }

    /// All records, by key, and what is wrong with those that cannot be: they are left out, and
    /// replaced when something is learned under their key. The first few are logged.
    pub fn read_all(&mut self) -> Result<(Vec<HistoryRecord>, Vec<String>), StoreError> {
        let failed = |source| StoreError::of(&self.path, Doing::Read, source);
        let (records, unreadable) = record::read_all(&self.connection).map_err(failed)?;
        for why in unreadable.iter().take(UNREADABLE_LOGGED_MAX) {
            warn!(path = %self.path.display(), why, "a record of the history is left out");
        }
        Ok((records, unreadable))
    }

    /// Writes records, all or none. When this returns they are on the disk.
    ///
    /// Where the file has reached its limit, the oldest records give way.
    pub fn write<'r>(
        &mut self,
        records: impl Iterator<Item = &'r HistoryRecord> + Clone,
    ) -> Result<(), StoreError> {
        let mut result = self.try_write(records.clone());
        // Each round makes an eighth free; after eight there is next to nothing left to remove.
        for _ in 0..8 {
            match &result {
                Err(error) if is_full(error) && self.at_limit() => {
                    if !self.make_room().map_err(|e| StoreError::of(&self.path, Doing::Write, e))? {
                        break;
                    }
                    result = self.try_write(records.clone());
                }
                _ => break,
            }
        }
        result.map_err(|source| StoreError::of(&self.path, Doing::Write, source))
    }

    fn try_write<'r>(
        &mut self,
        records: impl Iterator<Item = &'r HistoryRecord>,
    ) -> rusqlite::Result<()> {
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for record in records {
            record::replace(&transaction, record)?;
        }
        transaction.commit()
    }

    /// Whether it is the limit of the file that was reached, and not the end of the disk.
    fn at_limit(&self) -> bool {
        let number = |name| -> rusqlite::Result<i64> {
            self.connection.pragma_query_value(None, name, |row| row.get(0))
        };
        let (pages, free) = (number("page_count"), number("freelist_count"));
        match (pages, free, number("max_page_count")) {
            // A few pages: a table may need a new one at several levels.
            (Ok(pages), Ok(free), Ok(most)) => pages - free + 8 >= most,
            _ => false,
        }
    }

    /// Removes the eighth of all records that is oldest; whether there was any.
    fn make_room(&mut self) -> rusqlite::Result<bool> {
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut removed = 0;
        for table in ["usage", "demand"] {
            removed += transaction.execute(
                &format!(
                    "DELETE FROM {table} WHERE through <= (SELECT through FROM {table}
                        ORDER BY through LIMIT 1 OFFSET (SELECT count(*) / 8 FROM {table}))"
                ),
                [],
            )?;
        }
        transaction.commit()?;
        warn!(path = %self.path.display(), removed, "history is at its limit: oldest records removed");
        Ok(removed > 0)
    }

    /// Removes what is older than it is kept.
    pub fn prune(&mut self, now_millis: i64) -> rusqlite::Result<()> {
        let kept = i64::try_from(self.limits.kept_for.as_millis()).unwrap_or(i64::MAX);
        let before = now_millis.saturating_sub(kept);
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut removed = 0;
        for table in ["usage", "demand"] {
            removed += transaction
                .execute(&format!("DELETE FROM {table} WHERE through < ?1"), [before])?;
        }
        transaction.commit()?;
        if removed > 0 {
            info!(path = %self.path.display(), removed, "history is older than it is kept: removed");
        }
        Ok(())
    }
}

fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ffi::ErrorCode::DiskFull)
}

/// A clock set before 1970 prunes nothing.
pub(crate) fn now_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(0)
}
