//! What of a GPU is taken, over time.

use gpu_autoscaler_model::Bytes;

use crate::quantity::{Boottime, Ppm};

/// Memory and compute taken on one GPU from `from` until the next step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Step {
    from: Boottime,
    memory: u64,
    compute: u32,
}

/// What of one GPU is taken, as a step function of time that starts at `now`.
///
/// The last step lasts for ever.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Profile {
    total: u64,
    steps: Vec<Step>,
}

/// A share of one GPU's memory and compute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Take {
    /// Memory, in bytes.
    pub memory: Bytes,
    /// Compute; zero where none was asked for.
    pub compute: Ppm,
}

impl Profile {
    /// A GPU of `total` memory of which `taken` is gone for good.
    pub fn new(now: Boottime, total: Bytes, taken: Bytes) -> Self {
        let step = Step { from: now, memory: taken.as_u64(), compute: 0 };
        Self { total: total.as_u64(), steps: vec![step] }
    }

    /// Takes a share from `start` to `end`. Overlapping shares may exceed the whole: the profile
    /// records what is promised, [`Profile::earliest`] decides what may be.
    pub fn take(&mut self, start: Boottime, end: Boottime, take: Take) {
        // Saturation only errs to the safe side: a step that is over-full stays over-full.
        self.change(start, end, |step| {
            step.memory = step.memory.saturating_add(take.memory.as_u64());
            step.compute = step.compute.saturating_add(take.compute.get());
        });
    }

    /// Takes back what [`Profile::take`] took with the same arguments.
    pub fn give(&mut self, start: Boottime, end: Boottime, take: Take) {
        self.change(start, end, |step| {
            step.memory = step.memory.saturating_sub(take.memory.as_u64());
            step.compute = step.compute.saturating_sub(take.compute.get());
        });
    }

    fn change(&mut self, start: Boottime, end: Boottime, change: impl Fn(&mut Step)) {
        let first = self.steps[0].from;
        let (start, end) = (start.max(first), end.max(first));
        if start < end {
            let from = self.split(start);
            let to = self.split(end);
            self.steps[from..to].iter_mut().for_each(change);
        }
    }

    /// The index of the step that starts at `at`, made if there is none.
    fn split(&mut self, at: Boottime) -> usize {
        match self.steps.binary_search_by_key(&at, |step| step.from) {
            Ok(found) => found,
            Err(next) => {
                let before = self.steps[next - 1];
                self.steps.insert(next, Step { from: at, ..before });
                next
            }
        }
    }

    /// The first instant from `after` on at which `take` fits for `nanos`; `None` when it never
    /// does, because even the last step, which lasts for ever, has no room.
    pub fn earliest(&self, after: Boottime, nanos: u64, take: Take) -> Option<Boottime> {
        let fits = |step: &Step| {
            step.memory.checked_add(take.memory.as_u64()).is_some_and(|sum| sum <= self.total)
                && step.compute.saturating_add(take.compute.get()) <= Ppm::WHOLE.get()
        };
        let mut start = after.max(self.steps[0].from);
        let mut index = self.steps.partition_point(|step| step.from <= start) - 1;
        while let Some(step) = self.steps.get(index) {
            let long_enough = step.from.as_nanos().saturating_sub(start.as_nanos()) >= nanos;
            if step.from > start && long_enough {
                return Some(start);
            }
            if !fits(step) {
                start = self.steps.get(index + 1)?.from;
            }
            index += 1;
        }
        Some(start)
    }

    /// Memory that is free at `at`.
    pub fn free(&self, at: Boottime) -> Bytes {
        let index = self.steps.partition_point(|step| step.from <= at).max(1) - 1;
        Bytes::new(self.total.saturating_sub(self.steps[index].memory))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, instant by instant, on a clock that ticks ten times.
    #[test]
    fn earliest_agrees_with_the_definition() {
        let at = Boottime::from_nanos;
        let mut seed = crate::chance::Chance::new(7);
        for _ in 0..2_000 {
            let mut profile = Profile::new(at(0), Bytes::new(4), Bytes::new(seed.below(2)));
            let mut taken = [profile.steps[0].memory; 12];
            for _ in 0..seed.below(5) {
                let (start, length) = (seed.below(10), seed.below(4));
                let memory = seed.below(3);
                let take = Take { memory: Bytes::new(memory), compute: Ppm::ZERO };
                profile.take(at(start), at(start + length).min(at(10)), take);
                for tick in start..(start + length).min(10) {
                    taken[tick as usize] += memory;
                }
            }
            let (ask, nanos, after) = (1 + seed.below(4), 1 + seed.below(4), seed.below(10));
            let fits = |start: u64| {
                (start..start + nanos).all(|tick| taken[tick.min(11) as usize] + ask <= 4)
            };
            let brute = (after..12).find(|start| fits(*start));
            let take = Take { memory: Bytes::new(ask), compute: Ppm::ZERO };
            let found = profile.earliest(at(after), nanos, take).map(Boottime::as_nanos);
            assert_eq!(found, brute, "{profile:?} ask {ask} for {nanos} after {after}");
        }
    }
}
