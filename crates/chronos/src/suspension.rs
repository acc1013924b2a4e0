//! Stopping the processes of a lease so that they can go on, and letting them go on.
//!
//! Between the record and the processes lies a moment in which neither says where the other
//! stands. So who stops or starts them is written down first, as the lease's `mover`; when that
//! process is gone, the next guard lets the processes run, which is what the record says.
//!
//! # Invariants
//! * Only one process at a time stops or starts the processes of a lease.
//! * Processes are stopped with the journal's lock held, so that none of them holds it.
//! * A lease that is active and has no mover has no process that was stopped by us.

use crate::book::Event;
use crate::engine::{Answer, Done, Engine, Error, after, names, wrong_phase};
use crate::expiry::Diligence;
use crate::lease::{Choice, Lease, LeaseId, OnExpire, Phase, ProcessId, Request, Ticket};
use crate::planner::{self, Verdict};
use crate::policy::{self, Caller, Policy};
use crate::quantity::{Now, Span};
use crate::refusal::Refusal;
use crate::world::{Suspension, World};

/// How long a lease may be suspended without memory on the GPU before it is ended for good.
pub const SUSPENDED_MAX: Span = Span::from_secs(86_400);

/// How long after a deadline a lease is left to whoever is suspending it: a checkpoint of a large
/// GPU takes tens of seconds.
const MOVE_MAX: Span = Span::from_secs(60);

/// What a lease is suspended for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// Its owner wants it: it stays until somebody resumes it.
    Pause,
    /// Its time is over. It is refused where its memory would stay on the GPU, which nobody else
    /// could use then.
    Expire,
    /// A more urgent lease needs its memory: it goes on by itself when there is room again. It is
    /// refused where its memory would stay on the GPU.
    MakeRoom,
}

/// What came of stopping a lease.
enum Stopped {
    /// Its processes stand still, and it is written down.
    Recorded,
    /// It is active no more, and nothing was stopped.
    Ending,
    /// Its processes cannot be stopped.
    Unsuspendable(String),
}

/// How a suspended lease is to go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resumption {
    /// For how long; `None` is for what was left of its time.
    pub duration: Option<Span>,
    /// How long to wait for its place; `None` is not at all.
    pub wait: Option<Span>,
}

impl<W: World> Engine<W> {
    /// Suspends the leases that are over and were to be suspended; one that cannot be is ended.
    pub(crate) fn suspend_overdue(&mut self, now: Now) -> Done<(), W> {
        let overdue: Vec<Lease> = self
            .book
            .leases()
            .filter(|lease| {
                lease.phase == Phase::Active
                    && lease.deadline <= now.boot
                    && lease.request.on_expire == OnExpire::Suspend
            })
            .cloned()
            .collect();
        for lease in overdue {
            // On a refusal `mark_endings` finds it overdue and ends it.
            match self.stop(&lease, Purpose::Expire) {
                Ok(_) | Err(Error::Refused(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Suspends an active lease by hand.
    ///
    /// # Errors
    /// [`Refusal::NotSuspendable`] when its processes cannot be stopped; they run on.
    pub fn suspend(&mut self, caller: &Caller, id: &LeaseId) -> Done<Suspension, W> {
        self.settle(Diligence::Due)?;
        self.peek()?;
        let lease = self.owned(caller, id)?.clone();
        if lease.phase != Phase::Active {
            return Err(wrong_phase(&lease, "suspended").into());
        }
        self.stop(&lease, Purpose::Pause)
    }

    pub(crate) fn stop(&mut self, lease: &Lease, purpose: Purpose) -> Done<Suspension, W> {
        let refuse = |why: String| Refusal::NotSuspendable { id: lease.id.clone(), why };
        if self.world.members(lease).map_err(Error::World)?.is_empty() {
            return Err(refuse("no process has joined it".to_owned()).into());
        }
        self.begin_move(&lease.id, None)?;
        // Nobody joins from here on.
        let members = self.world.members(lease).map_err(Error::World)?;
        let unloaded = match self.world.unload(&members) {
            Ok(unloaded) => unloaded,
            Err(fault) => {
                // Whatever of it was moved goes back, as the record says.
                let _ = self.thaw(&lease.id);
                return Err(Error::World(fault));
            }
        };
        if !unloaded && purpose != Purpose::Pause {
            self.thaw(&lease.id)?;
            return Err(refuse("its memory would stay on the GPU".to_owned()).into());
        }
        match self.transact(|engine, now| engine.stop_and_record(lease, purpose, unloaded, now)) {
            Ok(Stopped::Recorded) => {}
            Ok(Stopped::Ending) => {
                // Its processes use their grace running.
                self.world.resume(lease, &members).map_err(Error::World)?;
                return Err(refuse("it has ended meanwhile".to_owned()).into());
            }
            Ok(Stopped::Unsuspendable(why)) => {
                self.thaw(&lease.id)?;
                return Err(refuse(why).into());
            }
            Err(error) => {
                // A full disk, say: the record says that it runs, so it does.
                let _ = self.peek().and_then(|()| self.thaw(&lease.id));
                return Err(error);
            }
        }
        // Apart, so that a grant which the disk has no room for does not undo the suspension.
        let gpus = self.world.gpus().map_err(Error::World)?;
        self.transact(|engine, now| Ok((engine.schedule(&gpus, now, &[], None)?, ())))?;
        Ok(if unloaded { Suspension::Checkpointed } else { Suspension::Frozen })
    }

    /// Stops the processes of a lease and writes it down, with the lock held over both.
    fn stop_and_record(
        &mut self,
        lease: &Lease,
        purpose: Purpose,
        unloaded: bool,
        now: Now,
    ) -> Done<(Vec<Event>, Stopped), W> {
        let current = self.book.lease(&lease.id).cloned();
        let Some(current) = current.filter(|l| l.phase == Phase::Active) else {
            return Ok((Vec::new(), Stopped::Ending));
        };
        // Again: moving the memory took time, in which children may have been born.
        let members = self.world.members(&current).map_err(Error::World)?;
        if let Err(why) = self.world.stop(&current, &members).map_err(Error::World)? {
            return Ok((Vec::new(), Stopped::Unsuspendable(why.0)));
        }
        let left = current.remaining(now.boot);
        let later = now.boot.after(SUSPENDED_MAX);
        // What stays on the GPU is free when it was promised to be: others wait for it.
        let until = if unloaded { later } else { current.holds_until().unwrap_or(later) };
        let id = lease.id.clone();
        let mut events = vec![Event::Suspended { id, holds: !unloaded, until, left }];
        if let (Purpose::MakeRoom, Some(waiter)) = (purpose, members.first()) {
            let mut ticket = resume_ticket(&current, waiter.clone(), now, left);
            ticket.until = later;
            events.push(Event::Queued(Box::new(ticket)));
        }
        Ok((events, Stopped::Recorded))
    }

    /// Writes down that this process is about to stop or start the processes of an active lease:
    /// one that nobody alive is at, or that it takes over `from` somebody.
    fn begin_move(&mut self, id: &LeaseId, from: Option<&ProcessId>) -> Done<(), W> {
        let by = self.world.own().map_err(Error::World)?;
        self.transact(|engine, _| {
            let lease = engine.book.lease(id).cloned();
            let lease = lease.ok_or_else(|| Refusal::NoSuchLease { id: id.0.clone() })?;
            if lease.phase != Phase::Active {
                return Err(wrong_phase(&lease, "suspended").into());
            }
            let other = lease.mover.as_ref().filter(|mover| Some(*mover) != from);
            // Who was stopped itself between the look and this finds the move over.
            let over = from.is_some() && lease.mover.is_none();
            if over || other.is_some_and(|mover| engine.world.alive(mover)) {
                let why = "it is being stopped or started already".to_owned();
                return Err(Refusal::NotSuspendable { id: id.clone(), why }.into());
            }
            Ok((vec![Event::Moving { id: id.clone(), by }], ()))
        })
    }

    /// Leases whose time is over and that somebody is suspending at this moment; for longer than
    /// [`MOVE_MAX`] nobody is believed to.
    pub(crate) fn moved_by_others(&mut self, now: Now) -> Vec<LeaseId> {
        let over = |lease: &&Lease| {
            lease.phase == Phase::Active
                && lease.request.on_expire == OnExpire::Suspend
                && lease.deadline <= now.boot
                && now.boot < lease.deadline.after(MOVE_MAX)
        };
        let over = self.book.leases().filter(over);
        let moved = over.filter_map(|lease| Some((lease.id.clone(), lease.mover.clone()?)));
        let moved: Vec<(LeaseId, ProcessId)> = moved.collect();
        moved.into_iter().filter(|(_, m)| self.world.alive(m)).map(|(id, _)| id).collect()
    }

    /// Takes up leases whose processes somebody was stopping or starting when it was killed, or
    /// this very guard when it failed.
    pub(crate) fn take_over(&mut self) -> Done<(), W> {
        let moving: Vec<(LeaseId, ProcessId)> = self
            .book
            .leases()
            .filter(|lease| lease.phase == Phase::Active)
            .filter_map(|lease| Some((lease.id.clone(), lease.mover.clone()?)))
            .collect();
        if moving.is_empty() {
            return Ok(());
        }
        let own = self.world.own().map_err(Error::World)?;
        for (id, mover) in moving {
            if mover != own && self.world.alive(&mover) {
                continue;
            }
            match self.begin_move(&id, Some(&mover)) {
                Ok(()) => self.thaw(&id)?,
                // Another guard was faster, or it has ended.
                Err(Error::Refused(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Lets a suspended lease run again, for as long as is said or for what was left of its time.
    ///
    /// # Errors
    /// [`Refusal::NoCapacity`] when its place is taken and it is not to wait,
    /// [`Refusal::Promised`] when it holds its memory and others are promised it,
    /// [`Refusal::Policy`] when it would run for longer than its owner may.
    pub fn resume(
        &mut self,
        caller: &Caller,
        rules: &Policy,
        id: &LeaseId,
        again: &Resumption,
    ) -> Done<Answer, W> {
        let Resumption { duration: asked, wait } = *again;
        let gpus = self.world.gpus().map_err(Error::World)?;
        let limits = rules.limits(caller);
        asked.map_or(Ok(()), policy::length)?;
        self.transact(|engine, now| {
            let lease = engine.owned(caller, id)?.clone();
            let Phase::Suspended { holds, .. } = lease.phase else {
                return Err(wrong_phase(&lease, "resumed").into());
            };
            let left = lease.remaining(now.boot);
            let duration = asked.unwrap_or(left);
            if let Some(asked) = asked {
                let before = lease.length().as_nanos().saturating_sub(left.as_nanos());
                let whole = Span::from_nanos(before).plus(asked);
                engine.may_run(caller, limits.as_ref(), &gpus, now, whole)?;
            }
            if duration == Span::ZERO {
                let message = format!("partition `{id}` has no time left");
                let hint = "say for how long: `chronos resume ID --for 1h`".to_owned();
                return Err(Refusal::BadInput { message, hint }.into());
            }
            let mut ticket = resume_ticket(&lease, caller.process.clone(), now, duration);
            ticket.until = now.boot.after(wait.unwrap_or_default());
            // Who asks again takes the place of who asked before: both wait for the same lease.
            let earlier = engine.book.ticket(id).map(|_| Event::Left { id: id.clone() });
            let mut events: Vec<Event> = earlier.into_iter().collect();
            let verdict = if holds {
                let deadline = now.boot.after(duration);
                let resumed = Event::Resumed { id: id.clone(), deadline, by: None, at: now.boot };
                if !engine.delays_nobody(&gpus, now, &lease, deadline, resumed)? {
                    let by = deadline.since(lease.deadline);
                    return Err(Refusal::Promised { id: id.clone(), by }.into());
                }
                Verdict::Now(lease.parts.clone())
            } else {
                let book = after(&engine.book, &events)?;
                let plan = planner::plan(&book, &gpus, now, Some(&ticket));
                plan.into_iter().find(|p| p.id == *id).expect("it was asked").verdict
            };
            match verdict {
                Verdict::Now(_) => {
                    let deadline = now.boot.after(duration);
                    let event = engine.resume_fenced(&ticket, now)?;
                    let lease = Lease { deadline, phase: Phase::Active, ..lease };
                    events.push(event);
                    Ok((events, Answer::Granted(Box::new(lease))))
                }
                Verdict::Never(never) => Err(Refusal::from(never).into()),
                Verdict::Later { start, parts } => {
                    let in_ = start.since(now.boot);
                    if wait.is_none() {
                        let where_ = names(&parts);
                        return Err(Refusal::NoCapacity { in_, where_ }.into());
                    }
                    events.push(Event::Queued(Box::new(ticket.clone())));
                    Ok((events, Answer::Waiting(Box::new(ticket), Some(in_))))
                }
            }
        })
    }

    /// The event that resumes a lease; its fence learns the new deadline first.
    pub(crate) fn resume_fenced(&mut self, ticket: &Ticket, now: Now) -> Done<Event, W> {
        let deadline = now.boot.after(ticket.request.duration);
        if let Some(lease) = self.book.lease(&ticket.id) {
            let lease = Lease { deadline, ..lease.clone() };
            self.world.refence(&lease).map_err(Error::World)?;
        }
        let by = Some(self.world.own().map_err(Error::World)?);
        Ok(Event::Resumed { id: ticket.id.clone(), deadline, by, at: now.boot })
    }

    /// Lets the processes of an active lease run, whose mover this process is.
    pub(crate) fn thaw(&mut self, id: &LeaseId) -> Done<(), W> {
        // A write that was said to have failed may be there: then it is suspended, as it should be.
        let suspended = |lease: &Lease| matches!(lease.phase, Phase::Suspended { .. });
        let lease = self.book.lease(id).filter(|lease| !suspended(lease)).cloned();
        let Some(lease) = lease else { return Ok(()) };
        let members = self.world.members(&lease).map_err(Error::World)?;
        self.world.resume(&lease, &members).map_err(Error::World)?;
        self.transact(|engine, _| {
            let moved = engine.book.lease(id).is_some_and(|l| l.mover == lease.mover);
            let active = engine.book.lease(id).is_some_and(|l| l.phase == Phase::Active);
            let event = Event::Moved { id: id.clone() };
            Ok((if moved && active { vec![event] } else { Vec::new() }, ()))
        })
    }
}

fn resume_ticket(lease: &Lease, waiter: ProcessId, now: Now, duration: Span) -> Ticket {
    Ticket {
        id: lease.id.clone(),
        owner: lease.owner.clone(),
        waiter,
        request: Request {
            // The planner takes the parts themselves; this says which GPUs to who looks.
            choice: Choice::These(lease.parts.iter().map(|part| part.gpu.clone()).collect()),
            duration,
            reservation: None,
            ..lease.request.clone()
        },
        since: now.boot,
        until: now.boot,
        resumes: true,
        binding: lease.binding,
    }
}
