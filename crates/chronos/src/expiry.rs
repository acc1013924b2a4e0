//! How a lease ends: by its deadline, by its owner, or with the process it is bound to.
//!
//! Ending is a sequence of steps that any process may take up where another left off: the lease is
//! marked as ending with the instant of the kill, its processes are sent SIGTERM, what is left at
//! that instant is killed, and when nothing is left the durable line is written, the fence taken
//! down and the lease removed. [`Engine::settle`] does whatever is due, and returns when something
//! will be; every guard is a loop around it.

use crate::book::{Epitaph, Event};
use crate::engine::{Done, Engine, Error};
use crate::lease::{Binding, EndReason, Lease, LeaseId, OnExpire, Phase, ProcessId, Reservation};
use crate::planner::{self, Verdict};
use crate::policy::Caller;
use crate::quantity::{Boottime, Now, Span};
use crate::world::{Signal, World};

/// How long after its start a reservation that nobody takes up is kept.
pub const NO_SHOW: Span = Span::from_secs(15 * 60);

/// How long one round waits for killed processes to be gone. A process that the kernel cannot
/// kill yet (it sleeps in a driver) is looked at again in the next round.
const KILL_WAIT: Span = Span::from_millis(200);

/// How much a caller looks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Diligence {
    /// Only what is due by the clock: a caller on its way to something else.
    Due,
    /// Also leases whose processes are gone and tickets that nobody waits for: a guard.
    Full,
}

/// What a guard waits for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Watch {
    /// The next instant at which something is due.
    pub due: Option<Boottime>,
    /// Processes whose end changes something.
    pub processes: Vec<ProcessId>,
}

/// What became of a lease that was released.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Release {
    /// Nothing of it is left.
    Gone,
    /// The kernel has not let go of some of its processes yet; guards go on.
    Pending,
}

impl<W: World> Engine<W> {
    /// Does whatever is due.
    ///
    /// # Errors
    /// [`Error::World`] and [`Error::Journal`]; what is due stays due.
    pub fn settle(&mut self, diligence: Diligence) -> Done<Watch, W> {
        self.peek()?;
        let now = self.world.now();
        let due = self.next_due(now).is_some_and(|due| due <= now.boot);
        let ending = self.book.leases().any(|lease| matches!(lease.phase, Phase::Ending { .. }));
        if !due && !ending && diligence == Diligence::Due {
            return Ok(Watch { due: self.next_due(now), processes: Vec::new() });
        }
        self.warn_due(now)?;
        self.suspend_overdue(now)?;
        if diligence == Diligence::Full {
            self.take_over()?;
        }
        let strays = if diligence == Diligence::Full { self.strays()? } else { Vec::new() };
        if diligence == Diligence::Due || !self.is_settled(&strays)? {
            self.mark_endings(&strays, diligence)?;
        }
        let mut processes = self.end_marked()?;
        if diligence == Diligence::Full {
            let bound = self.book.leases().filter(|l| l.binding == Binding::Creator);
            processes.extend(bound.map(|lease| lease.creator.clone()));
            processes.extend(self.book.leases().filter_map(|lease| lease.mover.clone()));
            processes.extend(self.served_first(now).into_iter().map(|(_, waiter)| waiter));
        }
        let now = self.world.now();
        Ok(Watch { due: self.next_due(now), processes })
    }

    fn next_due(&self, now: Now) -> Option<Boottime> {
        let bounds = self.book.reservations().flat_map(|reservation| {
            let (start, end) = planner::span_of(reservation, now);
            let gone = start.after(NO_SHOW).min(end);
            // The start matters to the ticket that waits for it.
            [(start > now.boot).then_some(start), Some(gone)]
        });
        bounds.flatten().chain(self.book.next_due()).min()
    }

    /// Leases bound to a creator that is gone and without any member.
    fn strays(&mut self) -> Done<Vec<LeaseId>, W> {
        let bound: Vec<Lease> = self
            .book
            .leases()
            .filter(|l| l.binding == Binding::Creator && l.phase == Phase::Active)
            .cloned()
            .collect();
        let mut strays = Vec::new();
        for lease in bound {
            if !self.world.alive(&lease.creator)
                && self.world.members(&lease).map_err(Error::World)?.is_empty()
            {
                strays.push(lease.id);
            }
        }
        Ok(strays)
    }

    /// Whether a guard's round would mark and grant nothing. It is looked at without the lock, so
    /// that a guard that every grant wakes is in nobody's way.
    fn is_settled(&mut self, strays: &[LeaseId]) -> Done<bool, W> {
        let now = self.world.now();
        let over = self.next_due(now).is_some_and(|due| due <= now.boot)
            || self.book.leases().any(|lease| ending(lease, now, strays).is_some())
            || !self.over_tickets(now, Diligence::Full).is_empty();
        let fences = self.world.fences().map_err(Error::World)?;
        if over || fences.iter().any(|id| self.book.lease(id).is_none()) {
            return Ok(false);
        }
        if self.book.tickets().is_empty() {
            return Ok(true);
        }
        let gpus = self.world.gpus().map_err(Error::World)?;
        let plan = planner::plan(&self.book, &gpus, now, None);
        Ok(!plan.iter().any(|planned| matches!(planned.verdict, Verdict::Now(_))))
    }

    /// Tickets whose time is over and, for a guard, those that are served first and that nobody
    /// waits for any more.
    fn over_tickets(&mut self, now: Now, diligence: Diligence) -> Vec<LeaseId> {
        let mut over = self.book.tickets().given_up(now.boot);
        if diligence == Diligence::Full {
            for (id, waiter) in self.served_first(now) {
                if !self.world.alive(&waiter) && !over.contains(&id) {
                    over.push(id);
                }
            }
        }
        over
    }

    /// The tickets that are promised a start, and who waits for each.
    fn served_first(&self, now: Now) -> Vec<(LeaseId, ProcessId)> {
        let used = self.book.usages(now.boot);
        let first = self.book.tickets().first(None, &used, now.boot, planner::DEPTH);
        first.into_iter().map(|ticket| (ticket.id.clone(), ticket.waiter.clone())).collect()
    }

    /// Marks what is over as ending, and drops tickets and windows whose time is over.
    fn mark_endings(&mut self, strays: &[LeaseId], diligence: Diligence) -> Done<(), W> {
        let gpus = self.world.gpus().map_err(Error::World)?;
        self.transact(|engine, now| {
            let moved = engine.moved_by_others(now);
            let over = engine.book.leases().filter(|lease| !moved.contains(&lease.id));
            let mut events: Vec<Event> =
                over.filter_map(|lease| ending(lease, now, strays)).collect();
            for id in engine.over_tickets(now, diligence) {
                // An ending takes the ticket of its lease with it.
                let ends =
                    |e: &Event| matches!(e, Event::Ending { id: ending, .. } if *ending == id);
                if !events.iter().any(ends) {
                    events.push(Event::Left { id });
                }
            }
            events.extend(engine.close_windows(now)?);
            let granted = engine.schedule(&gpus, now, &events, None)?;
            events.extend(granted);
            if diligence == Diligence::Full {
                engine.remove_fences(&events)?;
            }
            Ok((events, ()))
        })
    }

    /// Fences whose lease was never granted: their maker died before it could write the grant.
    fn remove_fences(&mut self, granted: &[Event]) -> Done<(), W> {
        for id in self.world.fences().map_err(Error::World)? {
            let new = granted.iter().any(|e| matches!(e, Event::Granted(lease) if lease.id == id));
            if self.book.lease(&id).is_none() && !new {
                self.world.unfence(&id).map_err(Error::World)?;
            }
        }
        Ok(())
    }

    fn close_windows(&mut self, now: Now) -> Done<Vec<Event>, W> {
        let over = |reservation: &Reservation| {
            let (start, end) = planner::span_of(reservation, now);
            end.min(start.after(NO_SHOW)) <= now.boot
        };
        let (gone, kept): (Vec<Reservation>, Vec<Reservation>) =
            self.book.reservations().cloned().partition(over);
        if gone.is_empty() {
            return Ok(Vec::new());
        }
        self.world.keep_calendar(&kept).map_err(Error::World)?;
        Ok(gone.into_iter().map(|reservation| Event::Unreserved { id: reservation.id }).collect())
    }

    /// Takes every ending lease one step further; returns the processes that are waited for.
    fn end_marked(&mut self) -> Done<Vec<ProcessId>, W> {
        let leases: Vec<Lease> = self
            .book
            .leases()
            .filter(|lease| matches!(lease.phase, Phase::Ending { .. }))
            .cloned()
            .collect();
        let mut waited_for = Vec::new();
        for lease in leases {
            waited_for.extend(self.end_step(&lease)?);
        }
        Ok(waited_for)
    }

    fn end_step(&mut self, lease: &Lease) -> Done<Vec<ProcessId>, W> {
        let Phase::Ending { reason, kill_at, told, .. } = lease.phase else {
            return Ok(Vec::new());
        };
        if spared(lease, reason) {
            self.end(lease, reason)?;
            return Ok(Vec::new());
        }
        let mut members = self.world.members(lease).map_err(Error::World)?;
        if !members.is_empty() && self.world.now().boot >= kill_at {
            self.world.signal(lease, &members, Signal::Kill).map_err(Error::World)?;
            let until = self.world.now().boot.after(KILL_WAIT);
            self.world.await_exit(&members, until).map_err(Error::World)?;
            members = self.world.members(lease).map_err(Error::World)?;
        } else if !members.is_empty() && !told {
            self.world.signal(lease, &members, Signal::Term).map_err(Error::World)?;
            let id = lease.id.clone();
            self.transact(|engine, _| {
                let still = engine.book.lease(&id).map(|l| &l.phase);
                let told = matches!(still, Some(Phase::Ending { told: false, .. }));
                Ok((if told { vec![Event::Told { id }] } else { Vec::new() }, ()))
            })?;
        }
        if members.is_empty() {
            self.end(lease, reason)?;
        }
        Ok(members)
    }

    /// Writes the durable line, takes the fence down, removes the lease, grants what fits then.
    fn end(&mut self, lease: &Lease, reason: EndReason) -> Done<(), W> {
        let now = self.world.now();
        self.world.bury(&Epitaph::of(lease, now, reason)).map_err(Error::World)?;
        let gpus = self.world.gpus().map_err(Error::World)?;
        self.transact(|engine, now| {
            let still = engine.book.lease(&lease.id).map(|l| &l.phase);
            if !matches!(still, Some(Phase::Ending { .. })) {
                return Ok((Vec::new(), ()));
            }
            engine.world.unfence(&lease.id).map_err(Error::World)?;
            let mut events = vec![Event::Ended { id: lease.id.clone(), at: now.boot }];
            let granted = engine.schedule(&gpus, now, &events, None)?;
            events.extend(granted);
            Ok((events, ()))
        })
    }

    /// Gives a lease back: its processes are sent SIGTERM and, after `grace`, killed. Returns when
    /// nothing of it is left, or when the kernel does not let go of it.
    ///
    /// # Errors
    /// [`Refusal::NoSuchLease`] and [`Refusal::NotYours`].
    pub fn release(
        &mut self,
        caller: &Caller,
        id: &LeaseId,
        reason: EndReason,
        grace: Option<Span>,
    ) -> Done<Release, W> {
        self.transact(|engine, now| {
            let lease = engine.owned(caller, id)?;
            let kill_at = now.boot.after(grace.unwrap_or(lease.request.grace));
            Ok((vec![Event::Ending { id: id.clone(), reason, kill_at }], ()))
        })?;
        self.finish(id)
    }

    /// Ends a lease that is marked as ending.
    ///
    /// # Errors
    /// [`Error::World`] and [`Error::Journal`]; guards go on.
    pub fn finish(&mut self, id: &LeaseId) -> Done<Release, W> {
        loop {
            self.peek()?;
            let Some(lease) = self.book.lease(id).cloned() else { return Ok(Release::Gone) };
            let Phase::Ending { kill_at, .. } = lease.phase else { return Ok(Release::Gone) };
            let left = self.end_step(&lease)?;
            if self.book.lease(id).is_none() {
                return Ok(Release::Gone);
            }
            let now = self.world.now().boot;
            if now >= kill_at.after(KILL_WAIT) {
                return Ok(Release::Pending);
            }
            if now < kill_at {
                self.world.await_exit(&left, kill_at).map_err(Error::World)?;
            }
        }
    }
}

/// The event that marks `lease` as ending, if it is over at `now`.
fn ending(lease: &Lease, now: Now, strays: &[LeaseId]) -> Option<Event> {
    let (reason, grace) = match lease.phase {
        Phase::Active if lease.deadline <= now.boot => (EndReason::Expired, lease.grace()),
        Phase::Active if strays.contains(&lease.id) => (EndReason::Finished, Span::ZERO),
        Phase::Suspended { until, .. } if until <= now.boot => {
            (EndReason::SuspendedTooLong, Span::ZERO)
        }
        _ => return None,
    };
    Some(Event::Ending { id: lease.id.clone(), reason, kill_at: now.boot.after(grace) })
}

/// Whether the processes of an ending lease are left alone.
fn spared(lease: &Lease, reason: EndReason) -> bool {
    lease.request.on_expire == OnExpire::Notify && reason == EndReason::Expired
}
