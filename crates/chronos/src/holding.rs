//! What an owner changes about a lease or a ticket that is there: its deadline, its processes, its
//! place in the queue.

use crate::book::{Book, Event};
use crate::engine::{Done, Engine, Error, after, may_touch, wrong_phase};
use crate::lease::{Gpu, Lease, LeaseId, Phase, Priority, ProcessId, Request};
use crate::planner::{self, Verdict, Window};
use crate::policy::{self, Caller, Policy};
use crate::quantity::{Now, Span};
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
        let lease = self.transact(|engine, now| {
            let lease = engine.owned(caller, id)?.clone();
            if lease.phase != Phase::Active || lease.deadline <= now.boot {
                return Err(wrong_phase(&lease, "extended").into());
            }
            let whole = lease.deadline.since(lease.granted).as_nanos() + by.as_nanos();
            let longest = limits.as_ref().and_then(|l| l.max_duration).unwrap_or(Span::MAX);
            if whole > longest.as_nanos() {
                let exceeded = policy::Exceeded {
                    user: caller.owner.user.clone(),
                    what: "duration".into(),
                    asked: Span::from_nanos(whole).to_string(),
                    limit: longest.to_string(),
                };
                return Err(Refusal::from(exceeded).into());
            }
            if !engine.extendable(&gpus, now, &lease, by)? {
                return Err(Refusal::Promised { id: id.clone(), by }.into());
            }
            let deadline = lease.deadline.after(by);
            let lease = Lease { deadline, ..lease };
            // The fence first: a deadline that the kernel enforces later than the book does is
            // harmless, one that it enforces earlier would break a promise.
            engine.world.refence(&lease).map_err(Error::World)?;
            let event = Event::Extended { id: id.clone(), deadline };
            Ok((vec![event], lease))
        })?;
        Ok(lease)
    }

    /// Whether the longer lease delays nobody: no reservation, and no ticket that is promised a
    /// start now.
    fn extendable(&self, gpus: &[Gpu], now: Now, lease: &Lease, by: Span) -> Done<bool, W> {
        let request = Request {
            choice: crate::lease::Choice::These(
                lease.parts.iter().map(|p| p.gpu.clone()).collect(),
            ),
            memory: crate::lease::MemoryAsk::Size(
                lease.parts.first().map(|p| p.memory).unwrap_or_default(),
            ),
            ..lease.request.clone()
        };
        let window = Window {
            request: &request,
            start: lease.deadline,
            duration: Span::from_nanos(by.as_nanos() + lease.grace().as_nanos()),
            besides: Some(&lease.id),
        };
        match planner::window(&self.book, gpus, now, &window) {
            Ok(Some(start)) if start <= lease.deadline => {}
            Ok(_) | Err(_) => return Ok(false),
        }
        let extended = Event::Extended { id: lease.id.clone(), deadline: lease.deadline.after(by) };
        let book = after(&self.book, &[extended])?;
        let urgent =
            |id: &LeaseId| self.book.ticket(id).is_some_and(|t| t.request.priority < Priority::Low);
        let starts = |book: &Book| -> Vec<(LeaseId, Option<u64>)> {
            let plan = planner::plan(book, gpus, now, None);
            plan.into_iter().filter(|p| urgent(&p.id)).map(|p| (p.id, start(&p.verdict))).collect()
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
    /// [`Refusal::NoSuchLease`] when the ticket is not waiting.
    pub fn leave(&mut self, caller: &Caller, id: &LeaseId) -> Done<(), W> {
        self.transact(|engine, _| {
            let ticket = engine.book.ticket(id);
            let ticket = ticket.ok_or_else(|| Refusal::NoSuchLease { id: id.0.clone() })?;
            may_touch(caller, &ticket.owner, &id.0)?;
            Ok((vec![Event::Left { id: id.clone() }], ()))
        })
    }
}

fn start(verdict: &Verdict) -> Option<u64> {
    match verdict {
        Verdict::Now(_) => Some(0),
        Verdict::Later { start, .. } => Some(start.as_nanos()),
        Verdict::Never(_) => None,
    }
}
