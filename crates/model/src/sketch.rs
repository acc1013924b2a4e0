//! Quantiles of many values in little memory.

use std::fmt;

use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};

/// Sub-buckets of each power of two, as a power of two: a value is told apart from one that is
/// 1/32 larger.
const PRECISION_BITS: u32 = 5;

/// The bucket of the largest value: 58 powers of two above the exact ones, the last one full.
const BUCKET_MAX: u16 = ((u64::BITS - 1 - PRECISION_BITS) << PRECISION_BITS) as u16
    + (1 << (PRECISION_BITS + 1)) as u16
    - 1;

/// A histogram of integers whose quantiles are at most 1/32 (3.1 %) too high and never too low.
///
/// Its buckets are those of every other sketch, so that any two can be added. It holds at most
/// one bucket for each 32nd of a power of two below the largest value: 672 for values below 2^26,
/// of 16 bytes each.
///
/// Source: the bucket layout of HdrHistogram (<https://hdrhistogram.github.io/HdrHistogram/>),
/// without its fixed range.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct QuantileSketch {
    /// Bucket and weight, by bucket; no weight is zero.
    buckets: Vec<(u16, u64)>,
}

/// Why buckets and weights are no sketch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SketchFault {
    /// A bucket beyond that of the largest value.
    Bucket {
        /// Which.
        bucket: u16,
    },
    /// A bucket that is not above the one before it.
    Order {
        /// Which.
        bucket: u16,
    },
    /// A bucket that nothing was counted in.
    Empty {
        /// Which.
        bucket: u16,
    },
    /// More weight than can be counted.
    Weight,
}

impl fmt::Display for SketchFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bucket { bucket } => write!(f, "bucket {bucket} is above {BUCKET_MAX}"),
            Self::Order { bucket } => write!(f, "bucket {bucket} is not above the one before it"),
            Self::Empty { bucket } => write!(f, "bucket {bucket} has no weight"),
            Self::Weight => write!(f, "weights add up to more than {}", u64::MAX),
        }
    }
}

impl TryFrom<Vec<(u16, u64)>> for QuantileSketch {
    type Error = SketchFault;

    fn try_from(buckets: Vec<(u16, u64)>) -> Result<Self, SketchFault> {
        let (mut before, mut sum) = (None, 0u64);
        for &(bucket, weight) in &buckets {
            if bucket > BUCKET_MAX {
                return Err(SketchFault::Bucket { bucket });
            }
            if before >= Some(bucket) {
                return Err(SketchFault::Order { bucket });
            }
            if weight == 0 {
                return Err(SketchFault::Empty { bucket });
            }
            sum = sum.checked_add(weight).ok_or(SketchFault::Weight)?;
            before = Some(bucket);
        }
        Ok(Self { buckets })
    }
}

/// What was written may have been damaged since: quantiles of buckets out of order would be wrong
/// without a word.
impl<'de> Deserialize<'de> for QuantileSketch {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::try_from(Vec::deserialize(from)?).map_err(D::Error::custom)
    }
}

impl QuantileSketch {
    /// Whether every value that was counted is at most `value`, as far as buckets tell.
    pub fn is_at_most(&self, value: u64) -> bool {
        self.buckets.last().is_none_or(|&(bucket, _)| bucket <= bucket_of(value))
    }

    /// Counts `value` with a weight, such as the seconds for which it held.
    pub fn add(&mut self, value: u64, weight: u64) {
        if weight > 0 {
            self.add_bucket(bucket_of(value), weight);
        }
    }

    /// Counts all that `other` counts.
    pub fn merge(&mut self, other: &Self) {
        for &(bucket, weight) in &other.buckets {
            self.add_bucket(bucket, weight);
        }
    }

    fn add_bucket(&mut self, bucket: u16, weight: u64) {
        match self.buckets.binary_search_by_key(&bucket, |entry| entry.0) {
            // Seconds of pods: 64 bits hold more than the age of all pods on earth.
            Ok(at) => self.buckets[at].1 = self.buckets[at].1.saturating_add(weight),
            Err(at) => self.buckets.insert(at, (bucket, weight)),
        }
    }

    /// Halves every weight, so that what comes counts twice as much as what was.
    pub fn halve(&mut self) {
        for entry in &mut self.buckets {
            entry.1 /= 2;
        }
        self.buckets.retain(|entry| entry.1 > 0);
    }

    /// The sum of all weights.
    pub fn weight(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, entry| sum.saturating_add(entry.1))
    }

    /// The smallest value that at least `per_mille` thousandths of the weight do not exceed,
    /// rounded up to the end of its bucket; `None` when nothing was counted. 1000 is the maximum.
    pub fn quantile(&self, per_mille: u16) -> Option<u64> {
        let weight = u128::from(self.weight());
        let needed = (weight * u128::from(per_mille.min(1000))).div_ceil(1000).max(1);
        let mut sum = 0u128;
        self.buckets.iter().find_map(|&(bucket, weight)| {
            sum += u128::from(weight);
            (sum >= needed).then(|| last_of(bucket))
        })
    }
}

fn bucket_of(value: u64) -> u16 {
    let bits = u64::BITS - value.leading_zeros();
    if bits <= PRECISION_BITS {
        // Below 32.
        return value as u16;
    }
    let shift = bits - 1 - PRECISION_BITS;
    // At most 58 * 32 + 63.
    ((shift << PRECISION_BITS) + (value >> shift) as u32) as u16
}

/// The largest value of a bucket.
fn last_of(bucket: u16) -> u64 {
    let bucket = u64::from(bucket);
    let shift = (bucket >> PRECISION_BITS).saturating_sub(1);
    let first = bucket - (shift << PRECISION_BITS);
    // The very last bucket ends at the end of the range.
    let end = u128::from(first + 1) << shift;
    u64::try_from(end - 1).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_has_no_quantile() {
        assert_eq!(QuantileSketch::default().quantile(990), None);
        let mut sketch = QuantileSketch::default();
        sketch.add(5, 0);
        assert_eq!(sketch.quantile(500), None);
    }

    #[test]
    fn what_no_sketch_can_hold_is_refused() {
        let fault = |buckets: &[(u16, u64)]| QuantileSketch::try_from(buckets.to_vec()).err();
        assert_eq!(bucket_of(u64::MAX), BUCKET_MAX);
        assert_eq!(fault(&[(0, 1), (BUCKET_MAX, u64::MAX - 1)]), None);
        let above = BUCKET_MAX + 1;
        assert_eq!(fault(&[(above, 1)]), Some(SketchFault::Bucket { bucket: above }));
        assert_eq!(fault(&[(5, 1), (4, 1)]), Some(SketchFault::Order { bucket: 4 }));
        assert_eq!(fault(&[(5, 1), (5, 1)]), Some(SketchFault::Order { bucket: 5 }));
        assert_eq!(fault(&[(5, 0)]), Some(SketchFault::Empty { bucket: 5 }));
        assert_eq!(fault(&[(5, 1), (6, u64::MAX)]), Some(SketchFault::Weight));
    }

    #[test]
    fn buckets_cover_all_values_without_a_gap() {
        for value in (0..5000)
            .chain((5..64).flat_map(|bit| {
                let power = 1u64 << bit;
                [power - 1, power, power + 1]
            }))
            .chain([u64::MAX])
        {
            let bucket = bucket_of(value);
            assert!(last_of(bucket) >= value, "{value}");
            assert!(bucket == 0 || last_of(bucket - 1) < value, "{value}");
        }
    }

    proptest! {
        #[test]
        fn quantiles_are_never_too_low_and_at_most_a_32nd_too_high(
            mut values in prop::collection::vec(0u64..1 << 40, 1..300),
            per_mille in 0u16..=1000,
        ) {
            let mut sketch = QuantileSketch::default();
            for value in &values {
                sketch.add(*value, 1);
            }
            values.sort_unstable();
            let rank = (values.len() * usize::from(per_mille)).div_ceil(1000).max(1);
            let exact = values[rank - 1];
            let found = sketch.quantile(per_mille).expect("not empty");
            prop_assert!(found >= exact && found - exact <= exact / 32, "{} of {}", found, exact);
        }

        #[test]
        fn merging_is_the_same_as_counting_together(
            one in prop::collection::vec((0u64..1 << 30, 1u64..100), 0..50),
            two in prop::collection::vec((0u64..1 << 30, 1u64..100), 0..50),
        ) {
            let sketch = |pairs: &[(u64, u64)]| {
                let mut sketch = QuantileSketch::default();
                pairs.iter().for_each(|(value, weight)| sketch.add(*value, *weight));
                sketch
            };
            let mut merged = sketch(&one);
            merged.merge(&sketch(&two));
            let both: Vec<_> = one.into_iter().chain(two).collect();
            prop_assert_eq!(merged, sketch(&both));
        }
    }
}
