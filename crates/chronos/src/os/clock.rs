//! Both clocks: the one that deadlines are kept on, and the date.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use gpu_autoscaler_model::Timestamp;

pub use super::boot::*;
use crate::quantity::Now;

/// Variable with seconds that are added to the date this process reads, so that a date which is
/// set back a year can be tried without setting it. No deadline depends on the date.
pub const DATE_OFFSET: &str = "CHRONOS_DATE_OFFSET";

fn date_offset_secs() -> i64 {
    static SECS: OnceLock<i64> = OnceLock::new();
    *SECS.get_or_init(|| {
        let text = std::env::var(DATE_OFFSET).unwrap_or_default();
        text.parse().unwrap_or(0)
    })
}

/// Reads both clocks.
pub fn now() -> Now {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
    let millis = millis.saturating_add(date_offset_secs().saturating_mul(1_000));
    // A date outside the calendar is shown as its start; nothing is decided by it but windows.
    let wall = Timestamp::from_millis(millis).unwrap_or(Timestamp::EPOCH);
    Now { boot: boottime(), wall }
}
