//! The book: every live lease, ticket and reservation of the machine, and the events that change
//! it.
//!
//! The book is only ever changed by applying an [`Event`], and every event is first written to the
//! journal, so that the state after a crash is the state of the events that were written.
//! [`Book::apply`] checks each event against the book: a journal that no sequence of correct steps
//! can have written is refused, never repaired by guessing.
//!
//! # Invariants
//! * Nothing here reads a clock, a file or the environment.
//! * An id is used once: `serial` only grows.

use std::collections::BTreeMap;
use std::sync::Arc;

use gpu_autoscaler_model::Timestamp;
use serde::{Deserialize, Serialize};

use crate::index::Stored;
use crate::lease::{
    EndReason, Lease, LeaseId, Phase, ProcessId, Reservation, ReservationId, Ticket,
};
use crate::quantity::{Boottime, Span};
use crate::queue::Queue;

/// Half-life of the usage that fair share compares: what was used a day ago counts half.
pub const USAGE_HALF_LIFE: Span = Span::from_secs(86_400);

/// One change of the book.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// First record of a journal: which boot and which format it belongs to.
    Opened {
        /// Boot id of the kernel.
        boot: String,
        /// Format of the records that follow.
        format: u32,
        /// Serial number of the next id.
        serial: u64,
    },
    /// A lease was granted; this record is its commit point.
    Granted(Box<Lease>),
    /// A request waits.
    Queued(Box<Ticket>),
    /// A ticket left the queue without a lease.
    Left {
        /// The ticket.
        id: LeaseId,
    },
    /// The deadline was moved.
    Extended {
        /// The lease.
        id: LeaseId,
        /// Its new deadline.
        deadline: Boottime,
    },
    /// A process was attached by hand.
    Attached {
        /// The lease.
        id: LeaseId,
        /// The process.
        process: ProcessId,
    },
    /// The lease is over; its processes are about to be ended.
    Ending {
        /// The lease.
        id: LeaseId,
        /// Why.
        reason: EndReason,
        /// When whatever is left is killed.
        kill_at: Boottime,
    },
    /// Every process of an ending lease has been sent SIGTERM.
    Told {
        /// The lease.
        id: LeaseId,
    },
    /// The processes of the lease are stopped.
    Suspended {
        /// The lease.
        id: LeaseId,
        /// Whether its memory is still on the GPU.
        holds: bool,
        /// When it is ended for good.
        until: Boottime,
        /// What was left of its time.
        left: Span,
    },
    /// A suspended lease runs again.
    Resumed {
        /// The lease.
        id: LeaseId,
        /// Its new deadline.
        deadline: Boottime,
        /// The process that lets its processes run.
        #[serde(default)]
        by: Option<ProcessId>,
        /// When.
        #[serde(default)]
        at: Boottime,
    },
    /// A process is about to stop or start the processes of the lease.
    Moving {
        /// The lease.
        id: LeaseId,
        /// Which process.
        by: ProcessId,
    },
    /// The processes of the lease run.
    Moved {
        /// The lease.
        id: LeaseId,
    },
    /// The processes of the lease were told that its deadline is near.
    Warned {
        /// The lease.
        id: LeaseId,
    },
    /// Nothing of the lease is left.
    Ended {
        /// The lease.
        id: LeaseId,
        /// When.
        at: Boottime,
    },
    /// A window of the calendar is kept.
    Reserved(Box<Reservation>),
    /// A window was given back or is over.
    Unreserved {
        /// The reservation.
        id: ReservationId,
    },
    /// Usage carried over from the durable history or by a rewrite of the journal.
    Used {
        /// The user.
        uid: u32,
        /// GPU-seconds, decayed to `at`.
        gpu_secs: f64,
        /// When they were summed.
        at: Boottime,
    },
}

/// The journal holds an event that cannot follow the ones before it.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[error("journal: `{event}` does not follow from what is written before it: {why}")]
pub struct Contradiction {
    /// The event, as it was written.
    pub event: String,
    /// What it contradicts.
    pub why: &'static str,
}

/// What is left of `gpu_secs` after `age_secs`.
pub fn decayed(gpu_secs: f64, age_secs: f64) -> f64 {
    gpu_secs * (-age_secs / USAGE_HALF_LIFE.as_secs_f64()).exp2()
}

/// GPU-seconds of one user, decayed.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Usage {
    /// Decayed GPU-seconds at `at`.
    pub gpu_secs: f64,
    /// When they were summed.
    pub at: Boottime,
}

impl Usage {
    /// The usage as it counts at `now`.
    pub fn at(self, now: Boottime) -> f64 {
        decayed(self.gpu_secs, now.since(self.at).as_secs_f64())
    }

    /// To the thousandth of a second: a number that its text gives back exactly, so that the book
    /// which is read is the book which was written.
    fn of(gpu_secs: f64, at: Boottime) -> Self {
        Self { gpu_secs: (gpu_secs * 1e3).round() / 1e3, at }
    }

    fn add(&mut self, gpu_secs: f64, now: Boottime) {
        *self = Self::of(self.at(now) + gpu_secs, now.max(self.at));
    }
}

/// Every live lease, ticket and reservation of the machine.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Book {
    boot: String,
    serial: u64,
    /// Shared, so that a copy of a book with a thousand leases costs little.
    leases: BTreeMap<LeaseId, Arc<Lease>>,
    tickets: Queue,
    reservations: BTreeMap<ReservationId, Reservation>,
    usage: BTreeMap<u32, Usage>,
}

impl Book {
    /// Format of the records this version writes and reads.
    pub const FORMAT: u32 = 1;

    /// The boot that its leases belong to.
    pub fn boot(&self) -> &str {
        &self.boot
    }

    /// Serial number of the next id.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// Live leases in the order of their ids.
    pub fn leases(&self) -> impl ExactSizeIterator<Item = &Lease> {
        self.leases.values().map(|lease| &**lease)
    }

    /// The live lease of that name.
    pub fn lease(&self, id: &LeaseId) -> Option<&Lease> {
        self.leases.get(id).map(|lease| &**lease)
    }

    /// Who waits.
    pub fn tickets(&self) -> &Queue {
        &self.tickets
    }

    /// The ticket of that name.
    pub fn ticket(&self, id: &LeaseId) -> Option<&Ticket> {
        self.tickets.get(id)
    }

    /// Windows of the calendar.
    pub fn reservations(&self) -> impl ExactSizeIterator<Item = &Reservation> {
        self.reservations.values()
    }

    /// The window of that name.
    pub fn reservation(&self, id: &ReservationId) -> Option<&Reservation> {
        self.reservations.get(id)
    }

    /// Usage of `uid` at `now`, the running leases included, in decayed GPU-seconds.
    pub fn usage(&self, uid: u32, now: Boottime) -> f64 {
        let ended = self.usage.get(&uid).copied().unwrap_or_default().at(now);
        let running = self.leases().filter(|l| l.owner.uid == uid);
        running.fold(ended, |sum, lease| sum + gpu_secs(lease, now))
    }

    /// [`Book::usage`] of every user who has used anything.
    pub fn usages(&self, now: Boottime) -> BTreeMap<u32, f64> {
        let ended = self.usage.iter().map(|(uid, usage)| (*uid, usage.at(now)));
        let mut usages: BTreeMap<u32, f64> = ended.collect();
        for lease in self.leases() {
            *usages.entry(lease.owner.uid).or_default() += gpu_secs(lease, now);
        }
        usages
    }

    /// When a guard has to act next: the earliest deadline of any lease or ticket.
    pub fn next_due(&self) -> Option<Boottime> {
        self.leases().map(Lease::due).chain(self.tickets.next_until()).min()
    }

    /// Changes the book by one event.
    ///
    /// # Errors
    /// [`Contradiction`] when the event cannot have happened; the book is unchanged then.
    pub fn apply(&mut self, event: &Event) -> Result<(), Contradiction> {
        let refuse =
            |why| Contradiction { event: serde_json::to_string(event).unwrap_or_default(), why };
        match event {
            Event::Opened { boot, format, serial } => {
                if *format != Self::FORMAT {
                    return Err(refuse("its format is not the one of this version"));
                }
                *self = Self { boot: boot.clone(), serial: *serial, ..Self::default() };
            }
            Event::Granted(lease) => {
                if self.leases.contains_key(&lease.id) {
                    return Err(refuse("the lease exists"));
                }
                self.tickets.remove(&lease.id);
                if let Some(taken_up) = &lease.request.reservation {
                    // Gone in any snapshot that was written after the grant.
                    self.reservations.remove(taken_up);
                }
                self.serial = self.serial.max(serial_after(&lease.id));
                self.leases.insert(lease.id.clone(), Arc::new((**lease).clone()));
            }
            Event::Queued(ticket) => {
                if self.tickets.get(&ticket.id).is_some() {
                    return Err(refuse("the ticket exists"));
                }
                if ticket.resumes != self.leases.contains_key(&ticket.id) {
                    return Err(refuse("a ticket has a lease exactly when it resumes one"));
                }
                self.serial = self.serial.max(serial_after(&ticket.id));
                self.tickets.insert((**ticket).clone());
            }
            Event::Left { id } => {
                if !self.tickets.remove(id) {
                    return Err(refuse("there is no such ticket"));
                }
            }
            Event::Reserved(reservation) => {
                if self.reservations.contains_key(&reservation.id) {
                    return Err(refuse("the reservation exists"));
                }
                self.serial += 1;
                self.reservations.insert(reservation.id.clone(), (**reservation).clone());
            }
            Event::Unreserved { id } => {
                let gone = self.reservations.remove(id);
                gone.ok_or_else(|| refuse("there is no such reservation"))?;
            }
            Event::Used { uid, gpu_secs, at } => {
                self.usage.insert(*uid, Usage::of(*gpu_secs, *at));
            }
            Event::Ended { id, at } => {
                let lease = self.leases.remove(id).ok_or_else(|| refuse("no such lease"))?;
                self.tickets.remove(id);
                self.usage.entry(lease.owner.uid).or_default().add(gpu_secs(&lease, *at), *at);
            }
            _ => return self.change(event).map_err(refuse),
        }
        Ok(())
    }

    /// The events that change a lease in place.
    fn change(&mut self, event: &Event) -> Result<(), &'static str> {
        let id = match event {
            Event::Extended { id, .. }
            | Event::Attached { id, .. }
            | Event::Ending { id, .. }
            | Event::Told { id }
            | Event::Suspended { id, .. }
            | Event::Resumed { id, .. }
            | Event::Moving { id, .. }
            | Event::Moved { id }
            | Event::Warned { id } => id,
            _ => unreachable!("`apply` handles every event that has no lease"),
        };
        let lease = Arc::make_mut(self.leases.get_mut(id).ok_or("there is no such lease")?);
        match (event, &mut lease.phase) {
            (Event::Extended { deadline, .. }, Phase::Active) => {
                lease.deadline = *deadline;
                lease.warned = false;
            }
            (Event::Moving { by, .. }, Phase::Active) => lease.mover = Some(by.clone()),
            (Event::Moved { .. }, Phase::Active) => lease.mover = None,
            (Event::Warned { .. }, Phase::Active) => lease.warned = true,
            (Event::Attached { process, .. }, Phase::Active) => {
                lease.attached.insert(process.clone());
            }
            (Event::Ending { reason, kill_at, .. }, Phase::Active | Phase::Suspended { .. }) => {
                let (reason, kill_at, holds) = (*reason, *kill_at, lease.holds_until().is_some());
                if let (Phase::Suspended { left, .. }, false) = (&lease.phase, holds) {
                    // What was left of its time is not used any more.
                    lease.deadline = lease.deadline.before(*left);
                }
                lease.phase = Phase::Ending { reason, kill_at, told: false, holds };
                self.tickets.remove(id);
            }
            // A second caller may shorten what is already ending, never lengthen it.
            (Event::Ending { kill_at: sooner, .. }, Phase::Ending { kill_at, .. }) => {
                *kill_at = (*kill_at).min(*sooner);
            }
            (Event::Told { .. }, Phase::Ending { told, .. }) => *told = true,
            (Event::Suspended { holds, until, left, .. }, Phase::Active) => {
                lease.mover = None;
                lease.phase = Phase::Suspended { holds: *holds, until: *until, left: *left };
            }
            (Event::Resumed { deadline, by, at, .. }, Phase::Suspended { holds, left, .. }) => {
                if !*holds {
                    let suspended = lease.deadline.before(*left);
                    lease.idle = lease.idle.plus(at.since(suspended));
                }
                lease.phase = Phase::Active;
                lease.running_since = *at;
                lease.mover = by.clone();
                lease.warned = false;
                lease.deadline = *deadline;
                self.tickets.remove(id);
            }
            _ => return Err("the lease is in another phase"),
        }
        Ok(())
    }

    /// The shortest list of events that makes this book: what a rewrite of the journal holds.
    pub fn snapshot(&self) -> Vec<Event> {
        let opened = Event::Opened {
            boot: self.boot.clone(),
            format: Self::FORMAT,
            serial: self.serial.saturating_sub(self.reservations.len() as u64),
        };
        let used =
            |(uid, u): (&u32, &Usage)| Event::Used { uid: *uid, gpu_secs: u.gpu_secs, at: u.at };
        std::iter::once(opened)
            .chain(self.usage.iter().map(used))
            .chain(self.reservations.values().cloned().map(|r| Event::Reserved(Box::new(r))))
            .chain(self.leases().cloned().map(|l| Event::Granted(Box::new(l))))
            .chain(self.tickets.iter().cloned().map(|t| Event::Queued(Box::new(t))))
            .collect()
    }

    /// What an index keeps of this book beside its tickets and its place in the journal.
    pub(crate) fn stored(&self) -> Stored {
        Stored {
            boot: self.boot.clone(),
            serial: self.serial,
            usage: self.usage.iter().map(|(uid, u)| (*uid, u.gpu_secs, u.at)).collect(),
            reservations: self.reservations.values().cloned().collect(),
            leases: self.leases().cloned().collect(),
            ..Stored::default()
        }
    }

    /// The book of an index.
    pub(crate) fn restored(stored: Stored, tickets: Queue) -> Self {
        let usage = stored.usage.into_iter();
        Self {
            boot: stored.boot,
            serial: stored.serial,
            leases: stored.leases.into_iter().map(|l| (l.id.clone(), Arc::new(l))).collect(),
            tickets,
            reservations: stored.reservations.into_iter().map(|r| (r.id.clone(), r)).collect(),
            usage: usage.map(|(uid, gpu_secs, at)| (uid, Usage { gpu_secs, at })).collect(),
        }
    }
}

/// GPU-seconds that a lease has used up to `now`: time held times the larger of its two shares.
///
/// A suspended lease that holds no memory uses nothing; its earlier time is not forgotten.
pub fn gpu_secs(lease: &Lease, now: Boottime) -> f64 {
    let until = match lease.phase {
        Phase::Suspended { holds: false, left, .. } => lease.deadline.before(left),
        Phase::Ending { holds: false, .. } => lease.deadline,
        _ => now,
    };
    let share: f64 =
        lease.parts.iter().map(|p| p.fraction.max(p.compute.unwrap_or_default()).as_f64()).sum();
    (until.since(lease.granted).as_secs_f64() - lease.idle.as_secs_f64()).max(0.0) * share
}

/// The serial that follows the one in an id; 0 for ids of another form.
fn serial_after(id: &LeaseId) -> u64 {
    let serial = id.0.rsplit('_').next().and_then(|s| s.parse::<u64>().ok());
    serial.and_then(|s| s.checked_add(1)).unwrap_or(0)
}

/// What remains of a lease once it is over: one line of the durable history.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Epitaph {
    /// The lease.
    pub id: LeaseId,
    /// User id.
    pub uid: u32,
    /// Login name.
    pub user: String,
    /// Stable names of its GPUs.
    pub gpus: Vec<String>,
    /// Memory on each GPU, in bytes.
    pub memory: Vec<u64>,
    /// The date at which it was granted.
    pub granted: Timestamp,
    /// The date at which it ended.
    pub ended: Timestamp,
    /// How long it was held, on the clock that counts suspend, in milliseconds.
    pub held_millis: u64,
    /// GPU-seconds: time held times share, summed over its GPUs.
    pub gpu_secs: f64,
    /// Why it ended.
    pub reason: EndReason,
    /// The user's word for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Epitaph {
    /// The line for `lease`, which ends now.
    pub fn of(lease: &Lease, now: crate::quantity::Now, reason: EndReason) -> Self {
        Self {
            id: lease.id.clone(),
            uid: lease.owner.uid,
            user: lease.owner.user.clone(),
            gpus: lease.parts.iter().map(|p| p.gpu.0.clone()).collect(),
            memory: lease.parts.iter().map(|p| p.memory.as_u64()).collect(),
            granted: lease.granted_wall,
            ended: now.wall,
            held_millis: now.boot.since(lease.granted).as_nanos() / 1_000_000,
            gpu_secs: gpu_secs(lease, now.boot),
            reason,
            name: lease.request.name.clone(),
        }
    }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
