//! How fast the cluster is written to.

use std::time::Duration;

use tokio::time::Instant;

/// A token bucket: `per_second` on average, `burst` at once.
#[derive(Clone, Debug)]
pub struct WriteRate {
    every: Duration,
    burst: u32,
    /// When the bucket was, or will be, full; each token taken moves it one interval on.
    full_at: Instant,
}

impl WriteRate {
    /// `per_second` is held within 0.01 to 1000, `burst` is at least 1.
    pub fn new(per_second: f64, burst: u32) -> Self {
        let every = Duration::from_secs_f64(1.0 / per_second.clamp(0.01, 1000.0));
        Self { every, burst: burst.max(1), full_at: Instant::now() }
    }

    /// Waits for a turn; returns for how long.
    pub(super) async fn turn(&mut self) -> Duration {
        let wait = self.take(Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        wait
    }

    /// Takes a token at `now`; returns how long to wait for it.
    fn take(&mut self, now: Instant) -> Duration {
        let full_at = self.full_at.max(now) + self.every;
        self.full_at = full_at;
        full_at.saturating_duration_since(now).saturating_sub(self.every * self.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_the_rest_waits_its_turn() {
        let mut rate = WriteRate::new(10.0, 3);
        let now = rate.full_at;
        let waits: Vec<u128> = (0..6).map(|_| rate.take(now).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 100, 200, 300]);
        let later = now + Duration::from_secs(60);
        assert_eq!(rate.take(later), Duration::ZERO, "an idle bucket fills, up to the burst");
        let waits: Vec<u128> = (0..3).map(|_| rate.take(later).as_millis()).collect();
        assert_eq!(waits, [0, 0, 100]);
    }
}
