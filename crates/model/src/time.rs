//! Instants and intervals.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// An instant in UTC, in milliseconds since 1970-01-01T00:00:00Z.
///
/// Its text form is RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp(i64);

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);

    /// From milliseconds since the epoch; `None` outside the years -9999 to 9999, which have no
    /// RFC 3339 form.
    pub fn from_millis(millis: i64) -> Option<Self> {
        jiff::Timestamp::from_millisecond(millis).ok().map(|_| Self(millis))
    }

    /// In milliseconds since the epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// This instant later by `span`, at the last representable instant at most: a deadline that
    /// lies beyond the calendar is never reached, which is what its owner asked for.
    pub fn after(self, span: Duration) -> Self {
        let last = jiff::Timestamp::MAX.as_second() * 1000;
        let span = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(span).min(last))
    }

    /// This instant earlier by `span`, at the first representable instant at least.
    pub fn before(self, span: Duration) -> Self {
        let first = jiff::Timestamp::MIN.as_second() * 1000;
        let span = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(span).max(first))
    }

    /// How long after `earlier` this is; zero when it is not after it, as happens when clocks of
    /// two machines disagree.
    pub fn since(self, earlier: Self) -> Duration {
        let millis = self.0.saturating_sub(earlier.0);
        Duration::from_millis(u64::try_from(millis).unwrap_or(0))
    }

    /// The start of the hour that holds this instant.
    pub const fn hour(self) -> Self {
        Self(self.0 - self.0.rem_euclid(3_600_000))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(at) => write!(f, "{at}"),
            // Not reachable through the constructors; a number is still better than a panic.
            Err(_) => write!(f, "{} ms since 1970", self.0),
        }
    }
}

/// Text that is no RFC 3339 instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseTimestampError {
    /// What was read, at most 64 characters of it.
    pub text: String,
}

impl fmt::Display for ParseTimestampError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no RFC 3339 time such as `2026-11-22T05:00:00Z`", self.text)
    }
}

impl std::error::Error for ParseTimestampError {}

impl FromStr for Timestamp {
    type Err = ParseTimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<jiff::Timestamp>()
            .map(|at| Self(at.as_millisecond()))
            .map_err(|_| ParseTimestampError { text: text.chars().take(64).collect() })
    }
}

impl TryFrom<String> for Timestamp {
    type Error = ParseTimestampError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Timestamp> for String {
    fn from(at: Timestamp) -> Self {
        at.to_string()
    }
}

/// A half-open span of time, `[start, end)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Interval {
    /// The first instant within.
    pub start: Timestamp,
    /// The first instant after.
    pub end: Timestamp,
}

impl Interval {
    /// `None` when `end` lies before `start`.
    pub fn new(start: Timestamp, end: Timestamp) -> Option<Self> {
        (start <= end).then_some(Self { start, end })
    }

    /// In milliseconds.
    pub fn millis(self) -> u64 {
        u64::try_from(self.end.since(self.start).as_millis()).unwrap_or(u64::MAX)
    }

    /// What both cover; `None` when they do not touch.
    pub fn overlap(self, other: Self) -> Option<Self> {
        let (start, end) = (self.start.max(other.start), self.end.min(other.end));
        (start < end).then_some(Self { start, end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_is_rfc_3339_and_round_trips() {
        let at: Timestamp = "2026-11-22T05:10:00.25Z".parse().expect("valid");
        assert_eq!(at.to_string(), "2026-11-22T05:10:00.25Z");
        assert_eq!(at.hour().to_string(), "2026-11-22T05:00:00Z");
        assert!("yesterday".parse::<Timestamp>().is_err());
    }

    #[test]
    fn arithmetic_stays_on_the_calendar() {
        let at = Timestamp::EPOCH;
        assert!(at.after(Duration::MAX) > at);
        assert_eq!(at.after(Duration::MAX).to_string(), "9999-12-30T22:00:00Z");
        assert_eq!(at.since(at.after(Duration::from_secs(1))), Duration::ZERO);
        assert_eq!(Timestamp::from_millis(i64::MAX), None);
    }
}
