//! The wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

use gpu_autoscaler_model::Timestamp;

/// Now. The epoch where the clock is set before it or beyond the calendar: nothing is judged by
/// such a clock, and nothing panics either.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = i64::try_from(since.as_millis()).unwrap_or(0);
    Timestamp::from_millis(millis).unwrap_or(Timestamp::EPOCH)
}
