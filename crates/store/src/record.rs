//! Records as rows.

use gpu_autoscaler_model::{
    DemandHour, GpuMillis, HistoryRecord, ProfileKey, QuantileSketch, Timestamp, UsageProfile,
};
use rusqlite::types::FromSqlError;
use rusqlite::{Connection, Row, Transaction, named_params};
use thiserror::Error;

/// Replaces what is kept under the record's key.
pub(crate) fn replace(to: &Transaction<'_>, record: &HistoryRecord) -> rusqlite::Result<()> {
    match record {
        HistoryRecord::Usage(usage) => replace_usage(to, usage),
        HistoryRecord::Demand(demand) => replace_demand(to, demand),
    }
}

fn replace_usage(to: &Transaction<'_>, usage: &UsageProfile) -> rusqlite::Result<()> {
    let mut statement = to.prepare_cached(
        "INSERT OR REPLACE INTO usage VALUES (:namespace, :owner, :image, :activity_ppm, :fb_mib,
            :touched_max, :pods, :observed_secs, :through)",
    )?;
    statement.execute(named_params! {
        ":namespace": &*usage.key.namespace,
        ":owner": &*usage.key.owner,
        ":image": &*usage.key.image,
        ":activity_ppm": sketch_text(&usage.activity_ppm),
        ":fb_mib": sketch_text(&usage.fb_mib),
        ":touched_max": usage.touched_max,
        // SQLite's integers are signed; no count comes near 2^63.
        ":pods": signed(usage.pods),
        ":observed_secs": signed(usage.observed_secs),
        ":through": usage.through.as_millis(),
    })?;
    Ok(())
}

fn replace_demand(to: &Transaction<'_>, demand: &DemandHour) -> rusqlite::Result<()> {
    let mut statement = to.prepare_cached(
        "INSERT OR REPLACE INTO demand VALUES (:pool, :hour, :requested_gpu_millis,
            :requested_max, :observed_millis, :through)",
    )?;
    // An hour of every GPU on earth is below 2^63 GPU-milliseconds.
    let requested = i64::try_from(demand.requested.as_u128()).unwrap_or(i64::MAX);
    statement.execute(named_params! {
        ":pool": &*demand.pool,
        ":hour": demand.hour.as_millis(),
        ":requested_gpu_millis": requested,
        ":requested_max": demand.requested_max,
        ":observed_millis": signed(demand.observed_millis),
        ":through": demand.through.as_millis(),
    })?;
    Ok(())
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// All rows, by key, and what is wrong with those that are none of ours: the file is whole, but what
/// it says cannot be.
pub(crate) fn read_all(from: &Connection) -> rusqlite::Result<(Vec<HistoryRecord>, Vec<String>)> {
    let (mut records, mut unreadable) = (Vec::new(), Vec::new());
    let tables = [
        ("usage", "SELECT * FROM usage ORDER BY namespace, owner, image", read_usage as Reader),
        ("demand", "SELECT * FROM demand ORDER BY pool, hour", read_demand),
    ];
    for (table, query, read) in tables {
        let mut statement = from.prepare(query)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            match read(row) {
                Ok(record) => records.push(record),
                Err(why) => unreadable.push(format!("{table} of {}: {why}", key_text(row))),
            }
        }
    }
    Ok((records, unreadable))
}

type Reader = fn(&Row<'_>) -> Result<HistoryRecord, Unreadable>;

/// Why a row is no record.
#[derive(Debug, Error)]
enum Unreadable {
    /// A column has another type, or a value beyond it.
    #[error(transparent)]
    Column(#[from] rusqlite::Error),
    /// A number that only counts up is below zero.
    #[error("`{column}` is {value}")]
    Negative { column: &'static str, value: i64 },
    /// More text than any sketch takes.
    #[error("`{column}` has {bytes} bytes, more than {SKETCH_BYTES_MAX}")]
    Long { column: &'static str, bytes: usize },
    /// A sketch that is none.
    #[error("`{column}`: {source}")]
    Sketch { column: &'static str, source: serde_json::Error },
    /// Values that each can be, but not together.
    #[error("{0}")]
    Record(String),
}

/// 1,920 buckets of at most 27 characters each.
const SKETCH_BYTES_MAX: usize = 64 << 10;

/// What a row says of its own key, as far as that is text.
fn key_text(row: &Row<'_>) -> String {
    let text = |column: usize| row.get::<_, String>(column).unwrap_or_else(|_| "?".to_owned());
    format!("`{}` `{}`", text(0), text(1))
}

fn checked(record: HistoryRecord) -> Result<HistoryRecord, Unreadable> {
    record.check().map_err(Unreadable::Record)?;
    Ok(record)
}

fn read_usage(row: &Row<'_>) -> Result<HistoryRecord, Unreadable> {
    checked(HistoryRecord::Usage(UsageProfile {
        key: ProfileKey {
            namespace: row.get("namespace")?,
            owner: row.get("owner")?,
            image: row.get("image")?,
        },
        activity_ppm: sketch(row, "activity_ppm")?,
        fb_mib: sketch(row, "fb_mib")?,
        touched_max: row.get("touched_max")?,
        pods: count(row, "pods")?,
        observed_secs: count(row, "observed_secs")?,
        through: time(row, "through")?,
    }))
}

fn read_demand(row: &Row<'_>) -> Result<HistoryRecord, Unreadable> {
    checked(HistoryRecord::Demand(DemandHour {
        pool: row.get("pool")?,
        hour: time(row, "hour")?,
        requested: GpuMillis::new(count(row, "requested_gpu_millis")?.into()),
        requested_max: row.get("requested_max")?,
        observed_millis: count(row, "observed_millis")?,
        through: time(row, "through")?,
    }))
}

fn count(row: &Row<'_>, column: &'static str) -> Result<u64, Unreadable> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| Unreadable::Negative { column, value })
}

fn time(row: &Row<'_>, column: &'static str) -> Result<Timestamp, Unreadable> {
    let millis = row.get(column)?;
    let out_of_range = || rusqlite::Error::from(FromSqlError::OutOfRange(millis));
    Ok(Timestamp::from_millis(millis).ok_or_else(out_of_range)?)
}

fn sketch_text(sketch: &QuantileSketch) -> String {
    serde_json::to_string(sketch).expect("integers can be written")
}

fn sketch(row: &Row<'_>, column: &'static str) -> Result<QuantileSketch, Unreadable> {
    let text: String = row.get(column)?;
    if text.len() > SKETCH_BYTES_MAX {
        return Err(Unreadable::Long { column, bytes: text.len() });
    }
    serde_json::from_str(&text).map_err(|source| Unreadable::Sketch { column, source })
}
