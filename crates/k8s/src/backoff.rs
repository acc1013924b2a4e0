//! Pauses between attempts.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

/// Doubling pauses with jitter, up to a limit.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    attempts: u32,
}

impl Backoff {
    /// From `first` up to `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, attempts: 0 }
    }

    /// The next pause: between half and all of the doubled one, so that replicas that lost the
    /// same server do not come back at the same moment.
    pub fn pause(&mut self) -> Duration {
        let doubled = self.first.saturating_mul(1 << self.attempts.min(16)).min(self.longest);
        self.attempts = self.attempts.saturating_add(1);
        jittered(doubled / 2, doubled)
    }

    /// After a success.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

/// A random span from `low` to `high`.
pub(crate) fn jittered(low: Duration, high: Duration) -> Duration {
    // The standard library seeds every `RandomState` differently; no more is needed of jitter.
    let random = RandomState::new().build_hasher().finish() >> 11;
    low + high.saturating_sub(low).mul_f64(random as f64 / (1_u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_within_bounds_and_start_over() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(second, 8 * second);
        for doubled in [1, 2, 4, 8, 8, 8] {
            let pause = backoff.pause();
            assert!(pause >= doubled * second / 2 && pause <= doubled * second, "{pause:?}");
        }
        backoff.reset();
        assert!(backoff.pause() <= second);
    }
}
