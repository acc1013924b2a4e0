//! Leader election on a coordination Lease.
//!
//! Semantics of client-go: whoever holds the Lease renews it; another may take it once it has not
//! changed for its duration. That duration is judged only by the time between two observations on
//! the observer's own monotonic clock, never by the times written in the Lease: clocks of machines
//! differ.
//!
//! A Lease is no fence: a leader that was paused may believe in itself until it looks at its
//! clock. [`Leadership::may_write`] looks right before each write, and the preconditions of
//! effects do the rest.

mod lease;
mod standing;

use std::time::Duration;

use tokio::time::Instant;

pub use lease::{Elector, LeaseName};
pub use standing::{Leadership, Standing};

use crate::backoff::jittered;

/// How long things take in an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long a Lease that does not change is respected.
    pub lease_duration: Duration,
    /// How long a leader that cannot renew still writes. Shorter than the lease duration.
    pub renew_deadline: Duration,
    /// Pause between two looks at the Lease.
    pub retry_period: Duration,
}

impl Timing {
    /// A dead leader is replaced within 6 s of its last renewal, and at most one look: below the
    /// published 10 s.
    pub const DEFAULT: Self = Self {
        lease_duration: Duration::from_secs(6),
        renew_deadline: Duration::from_secs(4),
        retry_period: Duration::from_secs(1),
    };

    /// Whether the three fit together, as client-go demands.
    ///
    /// # Errors
    /// What does not fit, in words.
    pub fn check(self) -> Result<Self, String> {
        if self.lease_duration <= self.renew_deadline {
            return Err(format!(
                "lease duration {:?} is not above renew deadline {:?}",
                self.lease_duration, self.renew_deadline
            ));
        }
        if self.renew_deadline <= self.retry_period.mul_f64(JITTER) {
            return Err(format!(
                "renew deadline {:?} is not above {JITTER} x retry period {:?}",
                self.renew_deadline, self.retry_period
            ));
        }
        if self.lease_duration < Duration::from_secs(1) || self.retry_period.is_zero() {
            return Err("lease duration is below 1 s, or retry period is zero".to_owned());
        }
        Ok(self)
    }
}

/// Longest pause between two looks, in retry periods.
const JITTER: f64 = 1.2;

/// The Lease as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Who holds it; empty for nobody.
    pub holder: String,
    /// How long it is respected.
    pub duration: Duration,
    /// How often it changed hands.
    pub transitions: u32,
    /// When it was acquired, as the holder's clock has it; for people only.
    pub acquired: String,
    /// When it was renewed, as the holder's clock has it: a change of it is a sign of life.
    pub renewed: String,
    /// Its version.
    pub resource_version: String,
}

/// What to write to the Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The version that it must still have; `None` to create it.
    pub over: Option<String>,
    /// How often it has changed hands then.
    pub transitions: u32,
    /// Kept when it is renewed; `None` when it is acquired now.
    pub acquired: Option<String>,
}

/// One replica's side of an election. Holds no connection and reads no clock.
#[derive(Clone, Debug)]
pub struct Election {
    identity: String,
    timing: Timing,
    /// The Lease, and when it was first seen like this.
    observed: Option<(Record, Instant)>,
    /// When the request was sent that last renewed it for us.
    renewed: Option<Instant>,
}

impl Election {
    /// For the replica that calls itself `identity`, which no other does.
    pub fn new(identity: String, timing: Timing) -> Self {
        Self { identity, timing, observed: None, renewed: None }
    }

    /// Takes in the Lease as it is; `None` when there is none.
    pub fn observe(&mut self, now: Instant, record: Option<Record>) {
        if record.as_ref().is_none_or(|record| record.holder != self.identity) {
            self.renewed = None;
        }
        self.observed = match (record, self.observed.take()) {
            (None, _) => None,
            // Unchanged: the clock of its expiry runs on.
            (Some(new), Some((old, since))) if new == old => Some((old, since)),
            (Some(new), _) => Some((new, now)),
        };
    }

    /// What to write now; `None` while another holds the Lease.
    pub fn claim(&self, now: Instant) -> Option<Claim> {
        let Some((record, since)) = &self.observed else {
            return Some(Claim { over: None, transitions: 0, acquired: None });
        };
        let over = Some(record.resource_version.clone());
        if record.holder == self.identity {
            let acquired = Some(record.acquired.clone());
            return Some(Claim { over, transitions: record.transitions, acquired });
        }
        if !record.holder.is_empty() && now < *since + record.duration {
            return None;
        }
        let transitions = record.transitions.saturating_add(1);
        Some(Claim { over, transitions, acquired: None })
    }

    /// Takes in that a claim, sent at `sent`, made the Lease look like `record`.
    pub fn claimed(&mut self, sent: Instant, record: Record) {
        self.observed = Some((record, sent));
        self.renewed = Some(sent);
    }

    /// Until when this replica may write; `None` when it does not lead.
    ///
    /// Counts from when the renewal was sent: nobody can have seen it earlier, so that nobody
    /// takes the Lease before this passes.
    pub fn valid_until(&self) -> Option<Instant> {
        self.renewed.map(|renewed| renewed + self.timing.renew_deadline)
    }

    /// Who holds the Lease, as last seen.
    pub fn holder(&self) -> Option<&str> {
        self.observed.as_ref().map(|(record, _)| record.holder.as_str()).filter(|h| !h.is_empty())
    }

    /// The Lease as last seen.
    pub fn record(&self) -> Option<&Record> {
        self.observed.as_ref().map(|(record, _)| record)
    }

    /// How long to wait until the next look.
    pub fn pause(&self, now: Instant) -> Duration {
        let retry = self.timing.retry_period;
        let pause = jittered(retry, retry.mul_f64(JITTER));
        match &self.observed {
            // Somebody else's: come at its expiry, not up to a retry period after it.
            Some((record, since)) if record.holder != self.identity => {
                let left = (*since + record.duration).saturating_duration_since(now);
                if left.is_zero() { pause } else { pause.min(left) }
            }
            _ => retry,
        }
    }
}

#[cfg(test)]
mod tests;
