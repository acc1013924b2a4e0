//! Which faults are worth telling: a blip is not, and the same in other words is not at once.

use std::time::Duration;

use gpu_autoscaler_model::Fault;
use tokio::time::Instant;

use crate::health::BEAT;

/// Pause between two tellings of the same parts in other words: a condition is a write.
const RETELL: Duration = Duration::from_secs(60);

/// What was seen and what was told.
pub(crate) struct Faults {
    /// When to look again.
    next: Instant,
    seen: Vec<Fault>,
    told: Option<(Instant, Vec<Fault>)>,
}

impl Faults {
    /// Nothing seen, nothing told.
    pub(crate) fn new(now: Instant) -> Self {
        Self { next: now, seen: Vec::new(), told: None }
    }

    /// Looks when it is time; returns everything that stands when that is news. What stands has
    /// been there at two looks in a row, [`BEAT`] apart.
    pub(crate) fn look(
        &mut self,
        now: Instant,
        all: impl FnOnce() -> Vec<Fault>,
    ) -> Option<Vec<Fault>> {
        if now < self.next {
            return None;
        }
        self.next = now + BEAT;
        let before = std::mem::replace(&mut self.seen, all());
        let stood = |fault: &&Fault| before.iter().any(|earlier| earlier.part == fault.part);
        let standing: Vec<Fault> = self.seen.iter().filter(stood).cloned().collect();
        let (at, told) = match &self.told {
            Some((at, told)) => (Some(*at), told.as_slice()),
            None => (None, &[][..]),
        };
        let same_parts = told.iter().map(|f| &f.part).eq(standing.iter().map(|f| &f.part));
        let too_early = at.is_none_or(|at| now - at < RETELL);
        if told == standing || (same_parts && too_early) {
            return None;
        }
        self.told = Some((now, standing.clone()));
        Some(standing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(part: &str, why: &str) -> Fault {
        Fault { part: part.into(), why: why.into() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_blip_is_not_told_and_other_words_are_told_after_a_minute() {
        let began = Instant::now();
        let mut faults = Faults::new(began);
        let mut look = |secs: u64, all: &[Fault]| {
            faults.look(began + Duration::from_secs(secs), || all.to_vec())
        };
        let refused = || vec![fault("telemetry", "refused")];
        assert_eq!(look(0, &refused()), None, "seen once");
        assert_eq!(look(1, &refused()), None, "not looked at");
        assert_eq!(look(5, &[]), None, "a blip");
        assert_eq!(look(10, &refused()), None);
        assert_eq!(look(15, &refused()), Some(refused()));
        let timeout = || vec![fault("telemetry", "timeout")];
        assert_eq!(look(20, &timeout()), None, "the same part");
        assert_eq!(look(75, &timeout()), Some(timeout()));
        let both = || vec![fault("lease", "gone"), fault("telemetry", "timeout")];
        assert_eq!(look(80, &both()), None);
        assert_eq!(look(85, &both()), Some(both()), "another part is told at once");
        assert_eq!(look(90, &[]), Some(vec![]), "and so is its end");
        assert_eq!(look(95, &[]), None);
    }
}
