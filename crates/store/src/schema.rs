//! The tables, and how a file of an earlier release gets there.

use rusqlite::{Connection, TransactionBehavior};

/// Says whose file it is: "gpah". Source: <https://www.sqlite.org/pragma.html#pragma_application_id>.
pub(crate) const APPLICATION_ID: i32 = 0x6770_6168;

/// The schema that this release writes; kept in the file as its `user_version`.
pub(crate) const VERSION: u32 = MIGRATIONS.len() as u32;

/// What leads from each version to the next. Those that were released are never changed.
const MIGRATIONS: [&str; 1] = [
    // Sketches are JSON, `[[bucket, weight], ...]`, so that any tool with SQLite can read them.
    // Times are milliseconds since 1970.
    "CREATE TABLE usage (
        namespace TEXT NOT NULL,
        owner TEXT NOT NULL,
        image TEXT NOT NULL,
        activity_ppm TEXT NOT NULL,
        fb_mib TEXT NOT NULL,
        touched_max INTEGER NOT NULL,
        pods INTEGER NOT NULL,
        observed_secs INTEGER NOT NULL,
        through INTEGER NOT NULL,
        PRIMARY KEY (namespace, owner, image)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX usage_by_age ON usage (through);
    CREATE TABLE demand (
        pool TEXT NOT NULL,
        hour INTEGER NOT NULL,
        requested_gpu_millis INTEGER NOT NULL,
        requested_max INTEGER NOT NULL,
        observed_millis INTEGER NOT NULL,
        through INTEGER NOT NULL,
        PRIMARY KEY (pool, hour)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX demand_by_age ON demand (through);",
];

/// The version of a file.
pub(crate) fn version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Brings a file to [`VERSION`], in one transaction: a crash leaves the version that was.
pub(crate) fn migrate(connection: &mut Connection, from: u32) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // `from` is at most `VERSION`, which is a handful.
    for migration in &MIGRATIONS[from as usize..] {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}
