//! Physical quantities.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Framebuffer or host memory, in bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Bytes(u64);

impl Bytes {
    /// No memory at all.
    pub const ZERO: Self = Self(0);

    /// From bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// From MiB (2^20 bytes); `None` when the product does not fit in 64 bits.
    pub const fn from_mib(mib: u64) -> Option<Self> {
        match mib.checked_mul(1 << 20) {
            Some(bytes) => Some(Self(bytes)),
            None => None,
        }
    }

    /// In bytes.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// In whole MiB, rounded down.
    pub const fn as_mib(self) -> u64 {
        self.0 >> 20
    }

    /// The sum, or `None` when it does not fit.
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(bytes) => Some(Self(bytes)),
            None => None,
        }
    }

    /// What is left of `self` after `other`, or `None` when `other` is larger.
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(bytes) => Some(Self(bytes)),
            None => None,
        }
    }

    /// The share that `self` is of `whole`; `None` when `whole` is zero or smaller than `self`.
    pub fn of(self, whole: Self) -> Option<Ratio> {
        if whole.0 == 0 {
            return None;
        }
        // Precision beyond 2^53 bytes is of no interest in a ratio that is only displayed
        // and compared with a threshold.
        Ratio::new(self.0 as f64 / whole.0 as f64)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
        for (unit, shift) in UNITS {
            if self.0 >> shift > 0 {
                let tenths = (u128::from(self.0) * 10) >> shift;
                return if tenths % 10 == 0 {
                    write!(f, "{} {unit}", tenths / 10)
                } else {
                    write!(f, "{}.{} {unit}", tenths / 10, tenths % 10)
                };
            }
        }
        write!(f, "{} B", self.0)
    }
}

/// A share of a whole: finite and within `0..=1`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Ratio(f64);

impl Ratio {
    /// None of the whole.
    pub const ZERO: Self = Self(0.0);
    /// All of the whole.
    pub const ONE: Self = Self(1.0);

    /// `None` unless `value` is finite and within `0..=1`.
    pub fn new(value: f64) -> Option<Self> {
        // The comparison is false for NaN.
        if (0.0..=1.0).contains(&value) {
            // Adding zero turns -0.0 into 0.0, so that equal ratios have equal bits.
            Some(Self(value + 0.0))
        } else {
            None
        }
    }

    /// From a percentage within `0..=100`.
    pub fn from_percent(percent: f64) -> Option<Self> {
        Self::new(percent / 100.0)
    }

    /// Within `0..=1`.
    pub const fn as_f64(self) -> f64 {
        self.0
    }

    /// Within `0..=100`.
    pub fn as_percent(self) -> f64 {
        self.0 * 100.0
    }

    /// What is left of the whole.
    pub fn rest(self) -> Self {
        Self(1.0 - self.0)
    }

    /// The larger of two shares.
    pub fn max(self, other: Self) -> Self {
        if other.0 > self.0 { other } else { self }
    }

    /// The smaller of two shares.
    pub fn min(self, other: Self) -> Self {
        if other.0 < self.0 { other } else { self }
    }

    /// In millionths, rounded to the nearest: the integer form in which a share multiplies money.
    pub fn as_ppm(self) -> u32 {
        // Within 0..=1_000_000 by construction.
        (self.0 * 1e6).round() as u32
    }
}

impl Eq for Ratio {}

impl PartialOrd for Ratio {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ratio {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // Finite and without -0.0 by construction, so that this agrees with `PartialEq`.
        self.0.total_cmp(&other.0)
    }
}

impl TryFrom<f64> for Ratio {
    type Error = OutOfRange;

    fn try_from(value: f64) -> Result<Self, OutOfRange> {
        Self::new(value).ok_or(OutOfRange { quantity: "ratio", range: "0..=1" })
    }
}

impl From<Ratio> for f64 {
    fn from(ratio: Ratio) -> Self {
        ratio.0
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} %", self.as_percent())
    }
}

/// A number that its quantity cannot hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfRange {
    /// The quantity that was read.
    pub quantity: &'static str,
    /// The range that it may have.
    pub range: &'static str,
}

impl fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is outside of {}", self.quantity, self.range)
    }
}

impl std::error::Error for OutOfRange {}

/// Processor time per time, in thousandths of a core.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct MilliCpu(u64);

impl MilliCpu {
    /// From thousandths of a core.
    pub const fn new(milli: u64) -> Self {
        Self(milli)
    }

    /// In thousandths of a core.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

/// Electric power, in milliwatts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Milliwatts(u64);

impl Milliwatts {
    /// From watts; `None` when `watts` is negative, not finite or above a gigawatt.
    pub fn from_watts(watts: f64) -> Option<Self> {
        // The bound keeps the conversion below exact; no device comes near it.
        (0.0..=1e9).contains(&watts).then(|| Self((watts * 1e3).round() as u64))
    }

    /// In watts, for display.
    pub fn as_watts(self) -> f64 {
        self.0 as f64 / 1e3
    }
}

/// GPUs held over time, in GPU-milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GpuMillis(u128);

impl GpuMillis {
    /// From GPU-milliseconds.
    pub const fn new(millis: u128) -> Self {
        Self(millis)
    }

    /// In GPU-milliseconds.
    pub const fn as_u128(self) -> u128 {
        self.0
    }

    /// In GPU-hours, for display.
    pub fn as_hours(self) -> f64 {
        self.0 as f64 / 3_600_000.0
    }
}

impl std::ops::AddAssign for GpuMillis {
    fn add_assign(&mut self, other: Self) {
        self.0 = self.0.checked_add(other.0).expect("u128 holds the age of every GPU on earth");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratio_refuses_what_is_no_share() {
        for value in [f64::NAN, f64::INFINITY, -0.01, 1.01, 60.0] {
            assert_eq!(Ratio::new(value), None, "{value}");
        }
        assert_eq!(Ratio::new(-0.0).map(|r| r.as_f64().to_bits()), Some(0.0f64.to_bits()));
    }

    #[test]
    fn bytes_print_in_the_largest_whole_unit() {
        assert_eq!(Bytes::new(512).to_string(), "512 B");
        assert_eq!(Bytes::from_mib(1536).expect("fits").to_string(), "1.5 GiB");
        assert_eq!(Bytes::from_mib(u64::MAX), None);
    }

    #[test]
    fn bytes_of_nothing_is_unknown() {
        assert_eq!(Bytes::new(1).of(Bytes::ZERO), None);
        assert_eq!(Bytes::new(2).of(Bytes::new(1)), None, "more than the whole is no share");
    }
}
