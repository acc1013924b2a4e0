//! Who gets which GPU when: admission, queue, backfill, gangs and reservations in one pure
//! function.
//!
//! Every lease has a deadline, so the future of each GPU is known, and backfill is exact: each
//! ticket, in the order of service, is given the earliest start at which its whole gang fits for
//! its whole duration, and what it is given is taken from all that come after it. A ticket can
//! therefore never be delayed by one behind it (conservative backfill, Mu'alem and Feitelson,
//! IEEE TPDS 12(6), 2001).
//!
//! # Invariants
//! * No over-commit: [`crate::audit::check`] sums every promise by independent code.
//! * The same book, GPUs and instant give the same plan.

use gpu_autoscaler_model::Bytes;
use serde::{Deserialize, Serialize};

use crate::book::Book;
use crate::lease::{Choice, GPUS_MAX, Gpu, GpuId, LeaseId, Part, Request, Reservation, Ticket};
use crate::profile::{Profile, Take};
use crate::quantity::{Boottime, Now, Ppm, Span};

/// Tickets that are promised a start in one plan; those behind them wait for the next one.
///
/// A bound on the work under the lock, as Slurm's `bf_max_job_test`.
pub const DEPTH: usize = 128;

/// How long something that is over but still there is taken to stay: it is looked at again then.
const OVERDUE: Span = Span::from_secs(1);

/// Sets of GPUs that are compared for a gang before the search takes the near ones greedily:
/// enough for any 8 of 16.
const GANGS_MAX: usize = 13_000;

/// Why a request cannot be granted at all, however long it waits.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Never {
    /// A GPU that the machine does not have.
    #[error("GPU `{gpu}` does not exist: this machine has {known}")]
    NoSuchGpu {
        /// What was asked for.
        gpu: String,
        /// What there is.
        known: String,
    },
    /// The GPU cannot be used.
    #[error("GPU `{gpu}` cannot be used: {fault}")]
    Faulty {
        /// The GPU.
        gpu: GpuId,
        /// What is wrong with it.
        fault: String,
    },
    /// More GPUs than there are.
    #[error("{asked} GPUs were asked for: {usable} of {total} can be used")]
    TooManyGpus {
        /// Asked for.
        asked: usize,
        /// Without a fault.
        usable: usize,
        /// On the machine.
        total: usize,
    },
    /// More memory than as many GPUs have.
    #[error(
        "{asked} on each of {count} GPU(s) were asked for: no more than {most} are there on so many"
    )]
    TooMuchMemory {
        /// Asked for on each.
        asked: Bytes,
        /// How many GPUs.
        count: usize,
        /// The most that so many of the GPUs that qualify have each.
        most: Bytes,
    },
    /// The same GPU twice in one gang.
    #[error("GPU `{gpu}` was named twice")]
    NamedTwice {
        /// The GPU.
        gpu: GpuId,
    },
    /// Foreign processes and leases without an end hold too much for ever.
    #[error("processes outside every lease hold {held} of the {total} of GPU `{gpu}`")]
    HeldByForeign {
        /// The GPU that the request lacks: with the emptier ones it has one too few.
        gpu: GpuId,
        /// Foreign memory on it.
        held: Bytes,
        /// What it has.
        total: Bytes,
    },
    /// The reservation that was named is not there.
    #[error("reservation `{id}` does not exist or belongs to another user")]
    NoSuchReservation {
        /// What was named.
        id: String,
    },
}

/// What the planner has to say about one request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It fits now, on these.
    Now(Vec<Part>),
    /// It will fit at `start`, on these, if nothing ends early.
    Later {
        /// The earliest start.
        start: Boottime,
        /// Where.
        parts: Vec<Part>,
    },
    /// It will never fit.
    Never(Never),
}

/// The plan for one ticket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Planned {
    /// The ticket.
    pub id: LeaseId,
    /// What becomes of it.
    pub verdict: Verdict,
}

/// The plan for every ticket of the book that is within [`DEPTH`], and for `asked`, which takes
/// its turn among them; in the order of service.
pub fn plan(book: &Book, gpus: &[Gpu], now: Now, asked: Option<&Ticket>) -> Vec<Planned> {
    let mut promises = Promises::new(book, gpus, now, None);
    let used = book.usages(now.boot);
    let waiting = book.tickets().first(asked, &used, now.boot, DEPTH);
    let plan_of =
        |ticket: &Ticket| Planned { id: ticket.id.clone(), verdict: promises.place(ticket) };
    waiting.into_iter().map(plan_of).collect()
}

/// Whether `parts` are free from `start` for `duration`, whatever the queue was promised: for
/// calendar reservations and for extensions. `besides` is a lease whose own share does not count.
///
/// Returns the earliest instant from `start` on at which they are.
pub fn window(
    book: &Book,
    gpus: &[Gpu],
    now: Now,
    window: &Window<'_>,
) -> Result<Option<Boottime>, Never> {
    let promises = Promises::new(book, gpus, now, window.besides);
    let wanted = promises.wanted(window.share)?;
    let nanos = window.duration.as_nanos();
    Ok(promises.earliest(&wanted, window.start, nanos).map(|(start, _)| start))
}

/// What of the machine is asked for.
#[derive(Clone, Copy, Debug)]
pub enum Share<'a> {
    /// What a request says; its duration is not looked at.
    Of(&'a Request),
    /// Exactly these: what a lease has. GPUs of one lease may differ in size, so that no request
    /// says it.
    Parts(&'a [Part]),
}

/// A stretch of time that is asked for on its own, outside the queue.
#[derive(Clone, Copy, Debug)]
pub struct Window<'a> {
    /// What is asked for.
    pub share: Share<'a>,
    /// From when.
    pub start: Boottime,
    /// For how long.
    pub duration: Span,
    /// A lease whose own share does not count.
    pub besides: Option<&'a LeaseId>,
}

/// Memory of each GPU that is free now, leases and foreign processes deducted.
pub fn free(book: &Book, gpus: &[Gpu], now: Now) -> Vec<Bytes> {
    let promises = Promises::new(book, gpus, now, None);
    promises.profiles.iter().map(|profile| profile.free(now.boot)).collect()
}

/// The parts a request would have on the first GPUs that qualify: for calendar reservations,
/// whose GPUs are chosen when the window is made.
pub fn place_at(
    book: &Book,
    gpus: &[Gpu],
    now: Now,
    window: &Window<'_>,
) -> Result<(Boottime, Vec<Part>), Never> {
    let promises = Promises::new(book, gpus, now, window.besides);
    let wanted = promises.wanted(window.share)?;
    let found = promises.earliest(&wanted, window.start, window.duration.as_nanos());
    let (start, chosen) = found.ok_or_else(|| promises.held_by_foreign(&wanted))?;
    Ok((start, promises.parts(&chosen, &wanted)))
}

/// What one request wants of the machine.
struct Wanted {
    /// Positions of the GPUs that qualify.
    candidates: Vec<usize>,
    /// What is taken of each candidate, by the same position.
    takes: Vec<Take>,
    /// How many.
    count: usize,
    /// Positions that are taken first.
    prefer: Vec<usize>,
}

/// The future of every GPU with all that is promised so far.
struct Promises<'a> {
    book: &'a Book,
    gpus: &'a [Gpu],
    now: Now,
    profiles: Vec<Profile>,
}

impl<'a> Promises<'a> {
    fn new(book: &'a Book, gpus: &'a [Gpu], now: Now, besides: Option<&LeaseId>) -> Self {
        let foreign = |gpu: &Gpu| gpu.foreign.unwrap_or_default().min(gpu.memory);
        let profiles =
            gpus.iter().map(|gpu| Profile::new(now.boot, gpu.memory, foreign(gpu))).collect();
        let mut promises = Self { book, gpus, now, profiles };
        for lease in book.leases().filter(|lease| Some(&lease.id) != besides) {
            if let Some(until) = lease.holds_until() {
                promises.take(&lease.parts, now.boot, until.max(now.boot.after(OVERDUE)));
            }
        }
        for reservation in book.reservations() {
            let (start, end) = span_of(reservation, now);
            promises.take(&reservation.parts, start, end);
        }
        promises
    }

    fn take(&mut self, parts: &[Part], start: Boottime, end: Boottime) {
        self.take_or_give(parts, start, end, Profile::take);
    }

    fn take_or_give(
        &mut self,
        parts: &[Part],
        start: Boottime,
        end: Boottime,
        change: fn(&mut Profile, Boottime, Boottime, Take),
    ) {
        for part in parts {
            if let Some(position) = self.gpus.iter().position(|gpu| gpu.id == part.gpu) {
                change(&mut self.profiles[position], start, end, take_of(part));
            }
        }
    }

    /// Gives `ticket` its earliest start and takes it from all that come after.
    fn place(&mut self, ticket: &Ticket) -> Verdict {
        let request = &ticket.request;
        let length = request.duration.as_nanos() + grace_of(request).as_nanos();
        if let Some(id) = &request.reservation {
            return self.place_reserved(ticket, id, length);
        }
        let resumed = if ticket.resumes { self.book.lease(&ticket.id) } else { None };
        let share = resumed.map_or(Share::Of(request), |lease| Share::Parts(&lease.parts));
        let wanted = match self.wanted(share) {
            Ok(wanted) => wanted,
            Err(never) => return Verdict::Never(never),
        };
        let Some((start, chosen)) = self.earliest(&wanted, self.now.boot, length) else {
            return Verdict::Never(self.held_by_foreign(&wanted));
        };
        let parts = self.parts(&chosen, &wanted);
        self.take(&parts, start, start.after(Span::from_nanos(length)));
        if start <= self.now.boot { Verdict::Now(parts) } else { Verdict::Later { start, parts } }
    }

    /// A request on a calendar reservation has its share already, from its start to its end.
    fn place_reserved(
        &mut self,
        ticket: &Ticket,
        id: &crate::lease::ReservationId,
        length: u64,
    ) -> Verdict {
        let mine = self.book.reservation(id).filter(|r| r.owner.uid == ticket.owner.uid);
        let Some(reservation) = mine else {
            return Verdict::Never(Never::NoSuchReservation { id: id.0.clone() });
        };
        let (start, end) = span_of(reservation, self.now);
        let start = start.max(self.now.boot);
        let parts = reservation.parts.clone();
        if start > self.now.boot {
            return Verdict::Later { start, parts };
        }
        // The window is only as good as the date: after a correction it may overlap a lease. So
        // the share is given back, asked for like any other, and kept if it is not free.
        self.take_or_give(&parts, start, end, Profile::give);
        let nanos = length.max(1);
        let earliest = |part: &Part| {
            let position = self.gpus.iter().position(|gpu| gpu.id == part.gpu)?;
            self.profiles[position].earliest(self.now.boot, nanos, take_of(part))
        };
        let latest = parts.iter().map(earliest).collect::<Option<Vec<Boottime>>>();
        let latest = latest.and_then(|starts| starts.into_iter().max());
        if latest == Some(self.now.boot) {
            self.take(&parts, self.now.boot, self.now.boot.after(Span::from_nanos(length)));
            return Verdict::Now(parts);
        }
        self.take(&parts, start, end);
        let retry = self.now.boot.after(OVERDUE);
        Verdict::Later { start: latest.unwrap_or(retry).max(retry), parts }
    }

    fn wanted(&self, share: Share<'_>) -> Result<Wanted, Never> {
        match share {
            Share::Of(request) => self.wanted_by(request),
            Share::Parts(parts) => {
                let ids: Vec<GpuId> = parts.iter().map(|part| part.gpu.clone()).collect();
                let candidates = self.named(&ids)?;
                let nothing = Take { memory: Bytes::default(), compute: Ppm::ZERO };
                let mut takes = vec![nothing; self.gpus.len()];
                for (position, part) in candidates.iter().zip(parts) {
                    takes[*position] = take_of(part);
                }
                Ok(Wanted { candidates, takes, count: parts.len(), prefer: Vec::new() })
            }
        }
    }

    fn wanted_by(&self, request: &Request) -> Result<Wanted, Never> {
        let choice = &request.choice;
        let take = |gpu: &Gpu| Take {
            memory: request.memory.of(gpu.memory),
            compute: request.compute.unwrap_or_default(),
        };
        let takes: Vec<Take> = self.gpus.iter().map(take).collect();
        let (candidates, prefer) = match choice {
            Choice::These(ids) => (self.named(ids)?, Vec::new()),
            Choice::Any { prefer, .. } => {
                let usable =
                    |(position, gpu): (usize, &Gpu)| gpu.fault.is_none().then_some(position);
                (self.gpus.iter().enumerate().filter_map(usable).collect(), self.named(prefer)?)
            }
        };
        let count = choice.count();
        if count == 0 || count > candidates.len() {
            let (usable, total) = (candidates.len(), self.gpus.len());
            return Err(Never::TooManyGpus { asked: count, usable, total });
        }
        let all = candidates.clone();
        let fits = |position: &usize| takes[*position].memory <= self.gpus[*position].memory;
        let candidates: Vec<usize> = candidates.into_iter().filter(fits).collect();
        if candidates.len() < count {
            let mut sizes: Vec<Bytes> = all.iter().map(|p| self.gpus[*p].memory).collect();
            sizes.sort_unstable_by(|a, b| b.cmp(a));
            let asked = all.iter().map(|p| takes[*p].memory).max().unwrap_or_default();
            return Err(Never::TooMuchMemory { asked, count, most: sizes[count - 1] });
        }
        Ok(Wanted { candidates, takes, count, prefer })
    }

    fn named(&self, ids: &[GpuId]) -> Result<Vec<usize>, Never> {
        let mut positions = Vec::with_capacity(ids.len());
        for id in ids {
            let position = self.gpus.iter().position(|gpu| gpu.id == *id).ok_or_else(|| {
                let known = format!("{} GPUs", self.gpus.len());
                Never::NoSuchGpu { gpu: id.0.clone(), known }
            })?;
            if let Some(fault) = &self.gpus[position].fault {
                return Err(Never::Faulty { gpu: id.clone(), fault: fault.clone() });
            }
            if positions.contains(&position) {
                return Err(Never::NamedTwice { gpu: id.clone() });
            }
            positions.push(position);
        }
        Ok(positions)
    }

    /// The first instant at which the whole gang fits for the whole length, and the best set of
    /// GPUs at that instant.
    fn earliest(
        &self,
        wanted: &Wanted,
        after: Boottime,
        nanos: u64,
    ) -> Option<(Boottime, Vec<usize>)> {
        let mut after = after.max(self.now.boot);
        loop {
            let mut starts: Vec<(Boottime, usize)> = wanted
                .candidates
                .iter()
                .filter_map(|p| {
                    let start = self.profiles[*p].earliest(after, nanos, wanted.takes[*p])?;
                    Some((start, *p))
                })
                .collect();
            starts.sort_unstable();
            // No set of `count` can start before the start of its latest member, and the sets
            // that start first have the earliest members.
            let (start, _) = *starts.get(wanted.count.checked_sub(1)?)?;
            if start == after {
                let fit: Vec<usize> =
                    starts.iter().filter(|(s, _)| *s == after).map(|(_, p)| *p).collect();
                return Some((start, self.best(&fit, wanted, start)));
            }
            // Each round moves `after` to a step of some profile, so that it ends.
            after = start;
        }
    }

    /// The best `count` of `fit`: preferred ones first, then near each other, then the least
    /// loaded, then by number.
    fn best(&self, fit: &[usize], wanted: &Wanted, at: Boottime) -> Vec<usize> {
        if wanted.count == fit.len() {
            return fit.to_vec();
        }
        if choose(fit.len(), wanted.count) > GANGS_MAX {
            return self.nearest(fit, wanted, at);
        }
        let mut best: Option<GangScore> = None;
        for_each_subset(fit, wanted.count, &mut |set| {
            let score = self.score(set, wanted, at);
            if best.as_ref().is_none_or(|b| score < *b) {
                best = Some(score);
            }
        });
        best.map(|best| best.set).unwrap_or_default()
    }

    /// Grows a gang from each seed, nearest first: where there are too many sets to compare.
    fn nearest(&self, fit: &[usize], wanted: &Wanted, at: Boottime) -> Vec<usize> {
        let grow = |seed: usize| {
            let mut set = vec![seed];
            while set.len() < wanted.count {
                let cost = |p: usize| {
                    let disliked = !wanted.prefer.is_empty() && !wanted.prefer.contains(&p);
                    let distance: u64 = set.iter().map(|q| self.link(*q, p)).sum();
                    (disliked, distance, u64::MAX - self.profiles[p].free(at).as_u64(), p)
                };
                let next =
                    fit.iter().copied().filter(|p| !set.contains(p)).min_by_key(|p| cost(*p));
                set.extend(next);
            }
            set.sort_unstable();
            set
        };
        let sets = fit.iter().take(GPUS_MAX).map(|seed| grow(*seed));
        let scores = sets.map(|set| self.score(&set, wanted, at));
        scores.min().map(|best| best.set).unwrap_or_default()
    }

    fn score(&self, set: &[usize], wanted: &Wanted, at: Boottime) -> GangScore {
        let liked = set.iter().filter(|p| wanted.prefer.contains(p)).count();
        let free: u64 = set.iter().map(|p| self.profiles[*p].free(at).as_u64()).sum();
        GangScore {
            disliked: if wanted.prefer.is_empty() { 0 } else { set.len() - liked },
            distance: self.distance(set),
            loaded: u64::MAX - free,
            set: set.to_vec(),
        }
    }

    fn distance(&self, set: &[usize]) -> u64 {
        let pairs =
            set.iter().enumerate().flat_map(|(i, a)| set[i + 1..].iter().map(move |b| (a, b)));
        pairs.map(|(a, b)| self.link(*a, *b)).sum()
    }

    fn link(&self, a: usize, b: usize) -> u64 {
        self.gpus[a].links.get(b).copied().map_or(0, u64::from)
    }

    fn parts(&self, chosen: &[usize], wanted: &Wanted) -> Vec<Part> {
        let part = |position: &usize| {
            let (gpu, take) = (&self.gpus[*position], wanted.takes[*position]);
            let fraction = Ppm::ratio(take.memory.as_u64(), gpu.memory.as_u64());
            Part {
                gpu: gpu.id.clone(),
                index: gpu.index,
                memory: take.memory,
                fraction: fraction.unwrap_or_default(),
                compute: (take.compute > Ppm::ZERO).then_some(take.compute),
            }
        };
        chosen.iter().map(part).collect()
    }

    fn held_by_foreign(&self, wanted: &Wanted) -> Never {
        let mut held: Vec<(Bytes, usize)> = wanted
            .candidates
            .iter()
            .map(|p| (self.gpus[*p].foreign.unwrap_or_default(), *p))
            .collect();
        held.sort_unstable();
        // `wanted` has made sure that there are as many candidates as are asked for.
        let (held, position) = held[wanted.count - 1];
        let gpu = &self.gpus[position];
        Never::HeldByForeign { gpu: gpu.id.clone(), held, total: gpu.memory }
    }
}

fn take_of(part: &Part) -> Take {
    Take { memory: part.memory, compute: part.compute.unwrap_or_default() }
}

/// The order of gangs that fit; the lowest is taken.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct GangScore {
    disliked: usize,
    distance: u64,
    loaded: u64,
    set: Vec<usize>,
}

/// The window of a reservation on the clock that counts suspend, as the two clocks stand now.
///
/// It is derived anew for every plan, so that a date that is corrected moves the calendar and
/// nothing else.
pub fn span_of(reservation: &Reservation, now: Now) -> (Boottime, Boottime) {
    let millis = i128::from(reservation.start.as_millis()) - i128::from(now.wall.as_millis());
    let nanos = i128::from(now.boot.as_nanos()) + millis * 1_000_000;
    let clamp = |nanos: i128| Boottime::from_nanos(nanos.clamp(0, i128::from(u64::MAX)) as u64);
    (clamp(nanos), clamp(nanos + i128::from(reservation.duration.as_nanos())))
}

fn grace_of(request: &Request) -> Span {
    match request.on_expire {
        crate::lease::OnExpire::Notify => Span::ZERO,
        _ => request.grace,
    }
}

fn choose(n: usize, k: usize) -> usize {
    (0..k.min(n - k)).fold(1_usize, |c, i| c.saturating_mul(n - i) / (i + 1))
}

fn for_each_subset(of: &[usize], count: usize, visit: &mut impl FnMut(&[usize])) {
    fn step(of: &[usize], count: usize, set: &mut Vec<usize>, visit: &mut impl FnMut(&[usize])) {
        if count == 0 {
            return visit(set);
        }
        for (i, first) in of.iter().enumerate().take((of.len() + 1).saturating_sub(count)) {
            set.push(*first);
            step(&of[i + 1..], count - 1, set, visit);
            set.pop();
        }
    }
    step(of, count, &mut Vec::with_capacity(count), visit);
}

#[cfg(test)]
#[path = "planner_tests.rs"]
mod tests;
