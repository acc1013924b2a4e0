//! Records as rows.

use std::sync::Arc;

use gpu_autoscaler_model::{
    DemandHour, GpuMillis, HistoryRecord, ProfileKey, QuantileSketch, Timestamp, UsageProfile,
};
use rusqlite::types::{FromSqlError, Type};
use rusqlite::{Connection, Row, Transaction, named_params};

/// What a record is kept under.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RecordKey {
    Usage(ProfileKey),
    Demand { pool: Arc<str>, hour: Timestamp },
}

impl RecordKey {
    pub fn of(record: &HistoryRecord) -> Self {
        match record {
            HistoryRecord::Usage(usage) => Self::Usage(usage.key.clone()),
            HistoryRecord::Demand(demand) => {
                Self::Demand { pool: Arc::clone(&demand.pool), hour: demand.hour }
            }
        }
    }
}

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
        // SQLite's integers are signed; the bits are what is kept.
        ":pods": usage.pods.cast_signed(),
        ":observed_secs": usage.observed_secs.cast_signed(),
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
        ":observed_millis": demand.observed_millis.cast_signed(),
        ":through": demand.through.as_millis(),
    })?;
    Ok(())
}

/// All rows, by key.
pub(crate) fn read_all(from: &Connection) -> rusqlite::Result<Vec<HistoryRecord>> {
    let mut records = Vec::new();
    let mut statement = from.prepare("SELECT * FROM usage ORDER BY namespace, owner, image")?;
    for usage in statement.query_map([], read_usage)? {
        records.push(HistoryRecord::Usage(usage?));
    }
    let mut statement = from.prepare("SELECT * FROM demand ORDER BY pool, hour")?;
    for demand in statement.query_map([], read_demand)? {
        records.push(HistoryRecord::Demand(demand?));
    }
    Ok(records)
}

fn read_usage(row: &Row<'_>) -> rusqlite::Result<UsageProfile> {
    Ok(UsageProfile {
        key: ProfileKey {
            namespace: row.get("namespace")?,
            owner: row.get("owner")?,
            image: row.get("image")?,
        },
        activity_ppm: sketch(row, "activity_ppm")?,
        fb_mib: sketch(row, "fb_mib")?,
        touched_max: row.get("touched_max")?,
        pods: row.get::<_, i64>("pods")?.cast_unsigned(),
        observed_secs: row.get::<_, i64>("observed_secs")?.cast_unsigned(),
        through: time(row, "through")?,
    })
}

fn read_demand(row: &Row<'_>) -> rusqlite::Result<DemandHour> {
    let requested: i64 = row.get("requested_gpu_millis")?;
    Ok(DemandHour {
        pool: row.get("pool")?,
        hour: time(row, "hour")?,
        requested: GpuMillis::new(requested.cast_unsigned().into()),
        requested_max: row.get("requested_max")?,
        observed_millis: row.get::<_, i64>("observed_millis")?.cast_unsigned(),
        through: time(row, "through")?,
    })
}

fn time(row: &Row<'_>, column: &str) -> rusqlite::Result<Timestamp> {
    let millis = row.get(column)?;
    Timestamp::from_millis(millis).ok_or(FromSqlError::OutOfRange(millis).into())
}

fn sketch_text(sketch: &QuantileSketch) -> String {
    serde_json::to_string(sketch).expect("integers can be written")
}

fn sketch(row: &Row<'_>, column: &str) -> rusqlite::Result<QuantileSketch> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|error| {
        let index = row.as_ref().column_index(column).unwrap_or_default();
        rusqlite::Error::FromSqlConversionFailure(index, Type::Text, error.into())
    })
}
