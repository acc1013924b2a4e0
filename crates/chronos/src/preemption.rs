//! A request of high priority may have low ones suspended, where that frees their memory.
//!
//! The urgent request is in the queue before anybody is stopped, so that what is freed for it goes
//! to nobody else; who is stopped is in the queue as well and goes on by itself. A lease that has
//! run for less than the machine's exempt time is spared until then, so that two jobs do not spend
//! their time in suspending each other; who waits with an urgent request tries again then. Where
//! the driver has no checkpoint, or a process cannot be stopped, nobody is ended instead: the
//! request waits as it would have, and is told why.

use std::collections::BTreeSet;

use crate::book::{Book, Event};
use crate::engine::{Answer, Done, Engine, Error, Wish, after, may_touch, names};
use crate::lease::{Gpu, Lease, LeaseId, Part, Phase, Priority, Ticket};
use crate::planner::{self, Verdict};
use crate::policy::{Caller, Policy};
use crate::quantity::{Boottime, Now, Span};
use crate::refusal::Refusal;
use crate::suspension::{Purpose, SUSPENDED_MAX};
use crate::world::World;

/// How long a lease runs before it may be suspended for another where the configuration does not
/// say: about as long as moving the memory of a large GPU away and back takes.
#[doc(alias = "PreemptExemptTime")]
pub const EXEMPT_TIME: Span = Span::from_secs(60);

/// How long an urgent request that was not to wait does wait for those that it has suspended.
const PATIENCE: Span = Span::from_secs(60);

/// Leases that are considered for one request.
const CANDIDATES_MAX: usize = 64;

/// Ends of an exempt time that are looked at for one suggestion.
const INSTANTS_MAX: usize = 16;

/// What suspending others would give a request.
#[derive(Clone, PartialEq, Debug)]
pub struct Preemption {
    /// When at the earliest.
    pub at: Boottime,
    /// Who is suspended for it.
    pub victims: Vec<LeaseId>,
    /// What it gets.
    pub parts: Vec<Part>,
}

/// When one more low lease may be suspended, after `earlier`; `None` when none will be.
pub fn next_chance(book: &Book, exempt: Span, earlier: Boottime) -> Option<Boottime> {
    let chances = book.leases().filter_map(|lease| preemptible_from(lease, exempt));
    chances.filter(|chance| *chance > earlier).min()
}

impl<W: World> Engine<W> {
    /// [`Engine::create`] for a request that may have others suspended.
    pub(crate) fn create_urgent(
        &mut self,
        caller: &Caller,
        rules: &Policy,
        wish: &Wish,
    ) -> Done<Answer, W> {
        if !self.world.checkpoints() {
            let answer = self.ask(caller, rules, wish);
            let granted = matches!(answer, Ok(Answer::Granted(_)));
            let low = self.book.leases().any(|l| preemptible_from(l, Span::ZERO).is_some());
            if !granted && low {
                self.note("nobody is preempted: suspending frees no GPU memory here".to_owned());
            }
            return answer;
        }
        let patience = wish.wait.unwrap_or_default().max(PATIENCE);
        let patient = Wish { wait: Some(patience), ..wish.clone() };
        let (mut ticket, start) = match self.ask(caller, rules, &patient)? {
            Answer::Waiting(ticket, start) => (ticket, start),
            granted @ Answer::Granted(_) => return Ok(granted),
        };
        self.make_room(&ticket)?;
        self.peek()?;
        if let Some(lease) = self.book.lease(&ticket.id) {
            return Ok(Answer::Granted(Box::new(lease.clone())));
        }
        let now = self.world.now().boot;
        if let Some(chance) = self.preemption(&ticket, start)?.filter(|chance| chance.at > now) {
            let (in_, victims) = (chance.at.since(now), self.of_users(&chance.victims));
            self.note(format!("it fits in {in_} by suspending {victims}"));
        }
        let Some(wait) = wish.wait else { return self.decline(caller, &ticket) };
        ticket.until = ticket.since.after(wait);
        Ok(Answer::Waiting(ticket, start))
    }

    /// Tries again to suspend others for an urgent ticket: some are not spared any more.
    ///
    /// # Errors
    /// [`Refusal::NotYours`]; a ticket that is not urgent, or gone, is left as it is.
    pub fn preempt_for(&mut self, caller: &Caller, id: &LeaseId) -> Done<(), W> {
        self.peek()?;
        let urgent = |t: &&Ticket| t.request.priority == Priority::High && !t.resumes;
        let Some(ticket) = self.book.ticket(id).filter(urgent).cloned() else { return Ok(()) };
        may_touch(caller, &ticket.owner, &id.0)?;
        if !self.world.checkpoints() {
            return Ok(());
        }
        self.make_room(&ticket)
    }

    /// Whom suspending would let `ticket` start before `start`, and when; it need not be in the
    /// queue.
    pub(crate) fn preemption(
        &mut self,
        ticket: &Ticket,
        start: Option<Span>,
    ) -> Done<Option<Preemption>, W> {
        if ticket.request.priority != Priority::High || !self.world.checkpoints() {
            return Ok(None);
        }
        let gpus = self.world.gpus().map_err(Error::World)?;
        let (now, exempt) = (self.world.now(), self.world.preempt_exempt_time());
        let end = now.boot.after(start.unwrap_or(Span::MAX));
        let search = Search { book: &self.book, gpus: &gpus, ticket, exempt };
        let mut at = now.boot;
        for _ in 0..INSTANTS_MAX {
            let then = now.later(at.since(now.boot));
            if let Some(found) = search.preemption(then, &BTreeSet::new())? {
                return Ok(Some(found));
            }
            match next_chance(&self.book, exempt, at).filter(|chance| *chance < end) {
                Some(chance) => at = chance,
                None => break,
            }
        }
        Ok(None)
    }

    /// `partition ID of user NAME`, for each.
    fn of_users(&self, leases: &[LeaseId]) -> String {
        let leases = leases.iter().filter_map(|id| self.book.lease(id));
        let named = leases.map(|l| format!("partition {} of user {}", l.id, l.owner.user));
        named.collect::<Vec<_>>().join(", ")
    }

    /// Takes an urgent ticket that was not to wait out of the queue again.
    fn decline(&mut self, caller: &Caller, ticket: &Ticket) -> Done<Answer, W> {
        let gpus = self.world.gpus().map_err(Error::World)?;
        let now = self.world.now();
        let verdict = planner::plan(&self.book, &gpus, now, None);
        let verdict = verdict.into_iter().find(|p| p.id == ticket.id).map(|p| p.verdict);
        match self.leave(caller, &ticket.id) {
            // Granted at this very moment.
            Err(Error::Refused(_)) => {}
            left => left?,
        }
        if let Some(lease) = self.book.lease(&ticket.id) {
            return Ok(Answer::Granted(Box::new(lease.clone())));
        }
        let (start, where_) = match verdict {
            Some(Verdict::Later { start, parts }) => (start, names(&parts)),
            _ => (now.boot, "any GPU".to_owned()),
        };
        Err(Refusal::NoCapacity { in_: start.since(now.boot), where_ }.into())
    }

    /// Suspends what stands in the way of `ticket` until it is granted or nothing more can be done.
    fn make_room(&mut self, ticket: &Ticket) -> Done<(), W> {
        let gpus = self.world.gpus().map_err(Error::World)?;
        let exempt = self.world.preempt_exempt_time();
        let mut spared: BTreeSet<LeaseId> = BTreeSet::new();
        // Each round suspends or spares a lease, so that it ends.
        for _ in 0..CANDIDATES_MAX {
            self.peek()?;
            if self.book.ticket(&ticket.id).is_none() {
                return Ok(());
            }
            let now = self.world.now();
            let search = Search { book: &self.book, gpus: &gpus, ticket, exempt };
            let Some(found) = search.preemption(now, &spared)? else { return Ok(()) };
            let Some(lease) = self.book.lease(&found.victims[0]).cloned() else { return Ok(()) };
            let owner = &lease.owner.user;
            match self.stop(&lease, Purpose::MakeRoom) {
                Ok(_) => self.note(format!("partition {} of user {owner} is suspended", lease.id)),
                Err(Error::Refused(refusal)) => {
                    self.note(format!("not preempted: {refusal}"));
                    spared.insert(lease.id);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// For whom room is looked for, and where.
struct Search<'a> {
    book: &'a Book,
    gpus: &'a [Gpu],
    ticket: &'a Ticket,
    exempt: Span,
}

impl Search<'_> {
    /// Low leases whose suspension at `now` lets the ticket start then, none of them `spared` and
    /// none that could be left out: one that suffices alone where there is one, the smallest first;
    /// else the youngest, as many as it takes. `None` where all of them together would not do.
    fn preemption<F: std::error::Error>(
        &self,
        now: Now,
        spared: &BTreeSet<LeaseId>,
    ) -> Result<Option<Preemption>, Error<F>> {
        let ripe = |lease: &&Lease| {
            preemptible_from(lease, self.exempt).is_some_and(|from| from <= now.boot)
                && !spared.contains(&lease.id)
        };
        let mut candidates: Vec<&Lease> = self.book.leases().filter(ripe).collect();
        candidates.sort_by_key(|lease| {
            (lease.parts.iter().map(|part| part.memory.as_u64()).sum::<u64>(), lease.id.clone())
        });
        candidates.truncate(CANDIDATES_MAX);
        for lease in &candidates {
            if let Some(found) = self.suspending(&[lease], now)? {
                return Ok(Some(found));
            }
        }
        candidates.sort_by_key(|lease| (std::cmp::Reverse(lease.granted), lease.id.clone()));
        for count in 2..=candidates.len() {
            if let Some(found) = self.suspending(&candidates[..count], now)? {
                return self.without_bystanders(candidates[..count].to_vec(), found, now).map(Some);
            }
        }
        Ok(None)
    }

    /// The same with fewer victims: the youngest may lie on another GPU than the one that is
    /// wanted. Who has run longest is left out first.
    fn without_bystanders<F: std::error::Error>(
        &self,
        mut victims: Vec<&Lease>,
        mut found: Preemption,
        now: Now,
    ) -> Result<Preemption, Error<F>> {
        for position in (0..victims.len()).rev() {
            let left_out = victims.remove(position);
            match self.suspending(&victims, now)? {
                Some(fewer) => found = fewer,
                None => victims.insert(position, left_out),
            }
        }
        Ok(found)
    }

    /// What the ticket gets at `now` if `leases` are suspended.
    fn suspending<F: std::error::Error>(
        &self,
        leases: &[&Lease],
        now: Now,
    ) -> Result<Option<Preemption>, Error<F>> {
        let events: Vec<Event> = leases.iter().map(|lease| gone(lease, now)).collect();
        let asked = self.book.ticket(&self.ticket.id).is_none().then_some(self.ticket);
        let plan = planner::plan(&after(self.book, &events)?, self.gpus, now, asked);
        let victims = || leases.iter().map(|lease| lease.id.clone()).collect();
        Ok(plan.into_iter().find_map(|planned| match planned.verdict {
            Verdict::Now(parts) if planned.id == self.ticket.id => {
                Some(Preemption { at: now.boot, victims: victims(), parts })
            }
            _ => None,
        }))
    }
}

/// From when on `lease` may be suspended for another; `None` when it may not be.
fn preemptible_from(lease: &Lease, exempt: Span) -> Option<Boottime> {
    let low = lease.phase == Phase::Active && lease.request.priority == Priority::Low;
    low.then(|| lease.running_since.after(exempt))
}

fn gone(lease: &Lease, now: Now) -> Event {
    let (until, left) = (now.boot.after(SUSPENDED_MAX), lease.remaining(now.boot));
    Event::Suspended { id: lease.id.clone(), holds: false, until, left }
}
