//! What others may know of an election.

use tokio::sync::watch;
use tokio::time::Instant;

/// Where a replica stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Until when it may write; `None` when it does not lead.
    pub valid_until: Option<Instant>,
    /// Who leads, as far as it knows.
    pub holder: Option<String>,
    /// How often it has become the leader.
    pub terms: u64,
    /// Why the Lease could not be read or written, if so.
    pub error: Option<String>,
}

/// The right to write, to be looked at right before each write.
#[derive(Clone, Debug)]
pub struct Leadership {
    standing: watch::Receiver<Standing>,
}

impl Leadership {
    /// Of the elector that sends to `standing`.
    pub fn new(standing: watch::Receiver<Standing>) -> Self {
        Self { standing }
    }

    /// Of a process that is alone by construction, as with leader election switched off.
    pub fn alone(holder: String) -> Self {
        // The sender may go: the last value stays.
        let far = Instant::now() + std::time::Duration::from_secs(100 * 365 * 86_400);
        let standing =
            Standing { valid_until: Some(far), holder: Some(holder), terms: 1, error: None };
        Self { standing: watch::channel(standing).1 }
    }

    /// Until when this replica may write, if it may now.
    pub fn may_write(&self) -> Option<Instant> {
        self.standing.borrow().valid_until.filter(|until| Instant::now() < *until)
    }

    /// Where this replica stands.
    pub fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Waits until the standing changes; false when it never will again.
    pub async fn changed(&mut self) -> bool {
        self.standing.changed().await.is_ok()
    }
}
