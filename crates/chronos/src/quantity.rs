//! The quantities of a lease: part of a GPU, span of time, instant since boot.
//!
//! All of them are integers, so that ten leases of one tenth fill a GPU exactly and a deadline is
//! the same number on every guard that reads it.

use std::fmt;

use gpu_autoscaler_model::Timestamp;
use serde::{Deserialize, Serialize};

/// Nanoseconds in a second.
pub const NANOS: u64 = 1_000_000_000;

/// Part of a whole, in parts per million; 1 to 1,000,000 where it is asked for.
///
/// A fraction read as text or as a C `float` is rounded to the nearest millionth, so that
/// `0.1f32` and `0.1` are the same tenth.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Ppm(u32);

/// The text or number is no part of a whole.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum QuantityError {
    /// Not a number between 0 (exclusive) and 1, nor a percentage between 0 and 100.
    #[error("fraction `{0}` is outside (0, 1]")]
    Fraction(String),
    /// Not a span of time.
    #[error("duration `{0}` is not a number of seconds or a text such as `90s`, `30m`, `1h30m`")]
    Span(String),
    /// Not a size of memory.
    #[error("memory `{0}` is not a size such as `20GiB` or a part such as `50%`")]
    Memory(String),
}

impl QuantityError {
    /// What to write instead.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Fraction(_) => "write half a GPU as 0.5 or 50%",
            Self::Span(_) => "write two hours as 7200, 2h or 120m; more than 0, at most 366d",
            Self::Memory(_) => "sizes end in KiB, MiB, GiB, TiB, kB, MB, GB or TB",
        }
    }
}

impl Ppm {
    /// The whole.
    pub const WHOLE: Self = Self(1_000_000);
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// Parts per million; `None` above the whole.
    pub const fn new(ppm: u32) -> Option<Self> {
        if ppm <= 1_000_000 { Some(Self(ppm)) } else { None }
    }

    /// The nearest millionth of `fraction`.
    ///
    /// # Errors
    /// [`QuantityError::Fraction`] for NaN, zero, negative numbers and numbers above one.
    pub fn from_fraction(fraction: f64) -> Result<Self, QuantityError> {
        let refused = || QuantityError::Fraction(fraction.to_string());
        if !(fraction > 0.0 && fraction <= 1.0) {
            return Err(refused());
        }
        // In range by the test above: the product is at most 1e6.
        let ppm = (fraction * 1e6).round() as u32;
        if ppm == 0 { Err(refused()) } else { Ok(Self(ppm)) }
    }

    /// Reads `0.5` or `50%`.
    ///
    /// # Errors
    /// [`QuantityError::Fraction`] when the whole text is not such a number.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let refused = || QuantityError::Fraction(text.to_owned());
        let (number, scale) = match text.strip_suffix('%') {
            Some(percent) => (percent, 100.0),
            None => (text, 1.0),
        };
        let plain = number.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b'e');
        if number.is_empty() || !plain {
            return Err(refused());
        }
        let value: f64 = number.parse().map_err(|_| refused())?;
        Self::from_fraction(value / scale).map_err(|_| refused())
    }

    /// Parts per million.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// This part of `whole`, rounded down, so that parts which sum to one fit.
    pub fn of(self, whole: u64) -> u64 {
        // The product of two u64 fits u128, and a part is no more than the whole.
        (u128::from(whole) * u128::from(self.0) / 1_000_000) as u64
    }

    /// As a number between 0 and 1, for display and for the C ABI.
    pub fn as_f64(self) -> f64 {
        f64::from(self.0) / 1e6
    }

    /// `part / whole` to the nearest millionth, at most the whole; `None` for an empty whole.
    pub fn ratio(part: u64, whole: u64) -> Option<Self> {
        let (part, whole) = (u128::from(part), u128::from(whole));
        let ppm = (part * 1_000_000 + whole / 2).checked_div(whole)?;
        // At most a million after `min`.
        Some(Self(ppm.min(1_000_000) as u32))
    }
}

impl fmt::Display for Ppm {
    /// Percent with as many decimals as it needs: `50%`, `12.5%`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 10_000, self.0 % 10_000);
        if rest == 0 {
            return write!(f, "{whole}%");
        }
        let decimals = format!("{rest:04}");
        write!(f, "{whole}.{}%", decimals.trim_end_matches('0'))
    }
}

/// Span of time in nanoseconds.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Span(u64);

impl Span {
    /// No time.
    pub const ZERO: Self = Self(0);
    /// The longest span that is accepted anywhere: 366 days.
    pub const MAX: Self = Self::from_secs(366 * 86_400);

    /// Whole seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs * NANOS)
    }

    /// Milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis * 1_000_000)
    }

    /// Nanoseconds.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Whole seconds, rounded up: a lease that still has a millisecond has not ended.
    pub const fn as_secs_up(self) -> u64 {
        self.0.div_ceil(NANOS)
    }

    /// Both, one after the other. Saturates at 584 years.
    #[must_use]
    pub const fn plus(self, more: Self) -> Self {
        Self(self.0.saturating_add(more.0))
    }

    /// Seconds with their fraction, for statistics and display.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / NANOS as f64
    }

    /// Reads plain seconds (`3600`, `0.5`) or units (`90s`, `30m`, `1h30m`, `2d`, `250ms`).
    ///
    /// # Errors
    /// [`QuantityError::Span`] for anything else, for zero and for more than [`Span::MAX`].
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let refused = || QuantityError::Span(text.to_owned());
        let mut total = 0.0_f64;
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
            let value: f64 = rest[..digits].parse().map_err(|_| refused())?;
            rest = &rest[digits..];
            let unit = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
            let scale = match &rest[..unit] {
                "" if digits == text.len() => 1.0,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" | "min" => 60.0,
                "h" => 3_600.0,
                "d" => 86_400.0,
                "w" => 604_800.0,
                _ => return Err(refused()),
            };
            rest = &rest[unit..];
            total += value * scale;
        }
        if !(total > 0.0 && total <= Self::MAX.as_secs_f64()) {
            return Err(refused());
        }
        // In range by the test above.
        let nanos = (total * NANOS as f64).round() as u64;
        if nanos == 0 { Err(refused()) } else { Ok(Self(nanos)) }
    }

    /// As [`Span::parse`], where no time at all means something as well: `0` and `0s`.
    ///
    /// # Errors
    /// [`QuantityError::Span`].
    pub fn parse_or_zero(text: &str) -> Result<Self, QuantityError> {
        if matches!(text, "0" | "0s") { Ok(Self::ZERO) } else { Self::parse(text) }
    }
}

impl fmt::Display for Span {
    /// The two largest units, as users of `chronos list` know them: `45s`, `2m 5s`, `1h 3m`; as
    /// `{:#}` every unit that is not zero, so that a value and its limit never look the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = self.as_secs_up();
        if f.alternate() {
            let units = [(secs / 86_400, "d"), (secs % 86_400 / 3_600, "h")];
            let units = units.into_iter().chain([(secs % 3_600 / 60, "m"), (secs % 60, "s")]);
            let some = units.filter(|(count, _)| *count > 0).map(|(n, unit)| format!("{n}{unit}"));
            let text = some.collect::<Vec<_>>().join(" ");
            return f.write_str(if text.is_empty() { "0s" } else { &text });
        }
        match secs {
            0..60 => write!(f, "{secs}s"),
            60..3_600 => write!(f, "{}m {}s", secs / 60, secs % 60),
            3_600..86_400 => write!(f, "{}h {}m", secs / 3_600, secs % 3_600 / 60),
            _ => write!(f, "{}d {}h", secs / 86_400, secs % 86_400 / 3_600),
        }
    }
}

/// Instant on the clock that counts suspend, in nanoseconds since boot.
///
/// A deadline kept on this clock cannot be moved by setting the date.
///
/// Source: `CLOCK_BOOTTIME`, clock_gettime(2).
#[doc(alias = "CLOCK_BOOTTIME")]
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Boottime(u64);

impl Boottime {
    /// Nanoseconds since boot.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since boot.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// This instant and `span`. Saturates at the end of the clock, 584 years after boot.
    #[must_use]
    pub const fn after(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// This instant less `span`; saturates at boot, before which nothing was granted.
    #[must_use]
    pub const fn before(self, span: Span) -> Self {
        Self(self.0.saturating_sub(span.0))
    }

    /// Time from `earlier` to here; none when `earlier` is later.
    pub const fn since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

/// One reading of both clocks: `boot` decides, `wall` is for people and for the calendar.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// The clock that deadlines are kept on.
    pub boot: Boottime,
    /// The date, which anyone may set back a year.
    pub wall: Timestamp,
}

impl Now {
    /// What both clocks will read in `span`, if nobody sets the date.
    #[must_use]
    pub fn later(self, span: Span) -> Self {
        let wall = self.wall.after(std::time::Duration::from_nanos(span.as_nanos()));
        Self { boot: self.boot.after(span), wall }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_tenths_fill_the_whole() {
        let tenth = Ppm::from_fraction(f64::from(0.1_f32)).unwrap();
        assert_eq!(tenth.of(80 << 30) * 10, (80_u64 << 30));
        assert!(tenth.of(7) * 10 <= 7);
    }

    #[test]
    fn fractions_outside_the_whole_are_refused() {
        for text in ["NaN", "-0.1", "0", "0.0", "1.5", "1e300", "inf", "", "%", "0.5x", "60"] {
            assert!(Ppm::parse(text).is_err(), "{text} was accepted");
        }
        assert_eq!(Ppm::parse("12.5%").unwrap().to_string(), "12.5%");
        assert_eq!(Ppm::parse("1").unwrap(), Ppm::WHOLE);
        assert_eq!(Ppm::parse("0.000001").unwrap().get(), 1);
    }

    #[test]
    fn spans_read_seconds_and_units() {
        for (text, secs) in [("3600", 3_600), ("90s", 90), ("1h30m", 5_400), ("2d", 172_800)] {
            assert_eq!(Span::parse(text).unwrap(), Span::from_secs(secs), "{text}");
        }
        for text in ["", "0", "-1", "60abc", "NaN", "1e300", "1h30", "s", "99999999999999"] {
            assert!(Span::parse(text).is_err(), "{text} was accepted");
        }
        assert_eq!(Span::from_millis(1).to_string(), "1s");
        assert_eq!(Span::from_secs(3_780).to_string(), "1h 3m");
        let eight = Span::from_secs(28_800);
        assert_eq!(format!("{eight:#} {:#}", eight.plus(Span::from_millis(1))), "8h 8h 1s");
        assert_eq!(format!("{:#} {:#}", Span::ZERO, Span::MAX), "0s 366d");
    }
}
