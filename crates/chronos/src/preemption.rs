//! A request of high priority may have low ones suspended, where that frees their memory.
//!
//! The urgent request is in the queue before anybody is stopped, so that what is freed for it goes
//! to nobody else; who is stopped is in the queue as well and goes on by itself. Where the driver
//! has no checkpoint, or a process cannot be stopped, nobody is ended instead: the request waits
//! as it would have, and is told why.

use std::collections::BTreeSet;

use crate::book::{Book, Event};
use crate::engine::{Answer, Done, Engine, Error, Wish, names};
use crate::journal::JournalError;
use crate::lease::{Gpu, Lease, LeaseId, Phase, Priority, Ticket};
use crate::planner::{self, Verdict};
use crate::policy::{Caller, Policy};
use crate::quantity::{Now, Span};
use crate::refusal::Refusal;
use crate::suspension::{Purpose, SUSPENDED_MAX};
use crate::world::World;

/// How long an urgent request that was not to wait does wait for those that it has suspended.
const PATIENCE: Span = Span::from_secs(60);

/// Leases that are considered for one request.
const CANDIDATES_MAX: usize = 64;

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
            if !granted && self.book.leases().any(preemptible) {
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
        let Some(wait) = wish.wait else { return self.decline(caller, &ticket) };
        ticket.until = ticket.since.after(wait);
        Ok(Answer::Waiting(ticket, start))
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
        let mut spared: BTreeSet<LeaseId> = BTreeSet::new();
        // Each round suspends or spares a lease, so that it ends.
        for _ in 0..CANDIDATES_MAX {
            self.peek()?;
            if self.book.ticket(&ticket.id).is_none() {
                return Ok(());
            }
            let now = self.world.now();
            let chosen =
                victims(&self.book, &gpus, now, ticket, &spared).map_err(Error::Journal)?;
            let Some(lease) = chosen.first().and_then(|id| self.book.lease(id)).cloned() else {
                return Ok(());
            };
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

/// The fewest leases of low priority whose suspension lets `ticket` start now: one that suffices
/// alone where there is one, the smallest first; else the youngest, as many as it takes. Empty
/// where all of them together would not do.
fn victims(
    book: &Book,
    gpus: &[Gpu],
    now: Now,
    ticket: &Ticket,
    spared: &BTreeSet<LeaseId>,
) -> Result<Vec<LeaseId>, JournalError> {
    let candidates = book.leases().filter(|lease| preemptible(lease));
    let mut candidates: Vec<&Lease> = candidates.filter(|l| !spared.contains(&l.id)).collect();
    candidates.sort_by_key(|lease| {
        (lease.parts.iter().map(|part| part.memory.as_u64()).sum::<u64>(), lease.id.clone())
    });
    candidates.truncate(CANDIDATES_MAX);
    let suffice = |suspended: &[&Lease]| -> Result<bool, JournalError> {
        let events: Vec<Event> = suspended.iter().map(|lease| gone(lease, now)).collect();
        let book = after_events(book, &events)?;
        let plan = planner::plan(&book, gpus, now, None);
        Ok(plan.iter().any(|p| p.id == ticket.id && matches!(p.verdict, Verdict::Now(_))))
    };
    for lease in &candidates {
        if suffice(&[lease])? {
            return Ok(vec![lease.id.clone()]);
        }
    }
    candidates.sort_by_key(|lease| (std::cmp::Reverse(lease.granted), lease.id.clone()));
    for count in 2..=candidates.len() {
        if suffice(&candidates[..count])? {
            return Ok(candidates[..count].iter().map(|lease| lease.id.clone()).collect());
        }
    }
    Ok(Vec::new())
}

fn preemptible(lease: &Lease) -> bool {
    lease.phase == Phase::Active && lease.request.priority == Priority::Low
}

fn gone(lease: &Lease, now: Now) -> Event {
    let (until, left) = (now.boot.after(SUSPENDED_MAX), lease.remaining(now.boot));
    Event::Suspended { id: lease.id.clone(), holds: false, until, left }
}

fn after_events(book: &Book, events: &[Event]) -> Result<Book, JournalError> {
    let mut book = book.clone();
    for event in events {
        book.apply(event)?;
    }
    Ok(book)
}
