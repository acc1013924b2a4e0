//! What an owner changes about a lease or a ticket that is there: its deadline, its processes, its
//! place in the queue.

use crate::book::{Book, Event};
use crate::engine::{Done, Engine, Error, after, may_touch, wrong_phase};
use crate::lease::{Gpu, Lease, LeaseId, Phase, Priority, ProcessId};
use crate::planner::{self, Share, Verdict, Window};
use crate::policy::{self, Caller, Limits, Policy};
use crate::quantity::{Boottime, Now, Span};
use crate::refusal::Refusal;
use crate::world::World;

impl<W: World> Engine<W> {
    /// Moves the deadline of an active lease by `by`.
    ///
    /// # Errors
    /// [`Refusal::Promised`] when the time after the deadline belongs to someone else.
    pub fn extend(
        &mut self,
        caller: &Caller,
        rules: &Policy,
        id: &LeaseId,
        by: Span,
    ) -> Done<Lease, W> {
        let gpus = self.world.gpus().map_err(Error::World)?;
        let limits = rules.limits(caller);
        policy::length(by)?;
        let lease = self.transact(|engine, now| {
            let lease = engine.owned(caller, id)?.clone();
            if lease.phase != Phase::Active || lease.deadline <= now.boot {
                return Err(wrong_phase(&lease, "extended").into());
            }
            engine.may_run(caller, limits.as_ref(), &gpus, now, lease.length().plus(by))?;
            policy::length(lease.remaining(now.boot).plus(by))?;
            let deadline = lease.deadline.after(by);
            let event = Event::Extended { id: id.clone(), deadline };
            if !engine.delays_nobody(&gpus, now, &lease, deadline, event.clone())? {
                return Err(Refusal::Promised { id: id.clone(), by }.into());
            }
            let lease = Lease { deadline, ..lease };
            // The fence first: a deadline that the kernel enforces later than the book does is
            // harmless, one that it enforces earlier would break a promise.
            engine.world.refence(&lease).map_err(Error::World)?;
            Ok((vec![event], lease))
        })?;
        Ok(lease)
    }

    /// Whether policy lets a lease of `caller` run for `whole` in all.
    pub(crate) fn may_run(
        &self,
        caller: &Caller,
        limits: Option<&Limits>,
        gpus: &[Gpu],
        now: Now,
        whole: Span,
    ) -> Result<(), Refusal> {
        let Some(limits) = limits else { return Ok(()) };
        let held = policy::Held { book: &self.book, now: now.boot, gpus };
        Ok(policy::allow_time(limits, caller, whole, held)?)
    }

    /// Whether the lease may last until `deadline`, which `event` gives it, without delaying
    /// anybody: no reservation, and no ticket of high or normal priority that is promised a start
    /// now. Who asked for low priority yields to it.
    pub(crate) fn delays_nobody(
        &self,
        gpus: &[Gpu],
        now: Now,
        lease: &Lease,
        deadline: Boottime,
        event: Event,
    ) -> Done<bool, W> {
        if deadline <= lease.deadline {
            return Ok(true);
        }
        let start = lease.deadline.max(now.boot);
        let window = Window {
            share: Share::Parts(&lease.parts),
            start,
            duration: deadline.after(lease.grace()).since(start),
            besides: Some(&lease.id),
        };
        match planner::window(&self.book, gpus, now, &window) {
            Ok(Some(found)) if found <= start => {}
            Ok(_) | Err(_) => return Ok(false),
        }
        let book = after(&self.book, &[event])?;
        let urgent =
            |id: &LeaseId| self.book.ticket(id).is_some_and(|t| t.request.priority < Priority::Low);
        let starts = |book: &Book| -> Vec<(LeaseId, Option<u64>)> {
            let plan = planner::plan(book, gpus, now, None);
            plan.into_iter()
                .filter(|p| urgent(&p.id))
                .map(|p| (p.id, promised(&p.verdict)))
                .collect()
        };
        let (before, then) = (starts(&self.book), starts(&book));
        // `None` is never, which is later than any start.
        let late = |start: Option<u64>| start.unwrap_or(u64::MAX);
        Ok(before
            .iter()
            .all(|(id, was)| then.iter().any(|(other, is)| other == id && late(*is) <= late(*was))))
    }

    /// Attaches a process, and with it its later descendants, to a lease.
    ///
    /// `uid` is the user that the process runs as, read by the caller from the kernel.
    ///
    /// # Errors
    /// [`Refusal::NotAttachable`] for a process that is gone or another user's.
    pub fn attach(
        &mut self,
        caller: &Caller,
        id: &LeaseId,
        process: &ProcessId,
        uid: u32,
    ) -> Done<Lease, W> {
        self.transact(|engine, now| {
            let lease = engine.owned(caller, id)?.clone();
            if lease.phase != Phase::Active || lease.deadline <= now.boot {
                return Err(wrong_phase(&lease, "joined").into());
            }
            let refuse = |why: String| Refusal::NotAttachable { pid: process.pid, why };
            if lease.mover.is_some() {
                // It would be neither stopped with the others nor missed by who stops them.
                return Err(refuse("the partition is being stopped or started".into()).into());
            }
            if !caller.is_root() && uid != caller.owner.uid {
                return Err(refuse(format!("it runs as user {uid}")).into());
            }
            if !engine.world.alive(process) {
                return Err(refuse("it is gone".into()).into());
            }
            engine.world.enclose(&lease, process).map_err(Error::World)?;
            let event = Event::Attached { id: id.clone(), process: process.clone() };
            // A fence holds its members itself; the book need not know them.
            Ok((if lease.fenced { Vec::new() } else { vec![event] }, lease))
        })
    }

    /// Leaves the queue.
    ///
    /// # Errors
    /// [`Refusal::NotWaiting`] when the ticket is not waiting.
    pub fn leave(&mut self, caller: &Caller, id: &LeaseId) -> Done<(), W> {
        self.transact(|engine, _| {
            let ticket = engine.book.ticket(id);
            let ticket = ticket.ok_or_else(|| Refusal::NotWaiting { id: id.0.clone() })?;
            may_touch(caller, &ticket.owner, &id.0)?;
            Ok((vec![Event::Left { id: id.clone() }], ()))
        })
    }
}

fn promised(verdict: &Verdict) -> Option<u64> {
    match verdict {
        Verdict::Now(_) => Some(0),
        Verdict::Later { start, .. } => Some(start.as_nanos()),
        Verdict::Never(_) => None,
    }
}
