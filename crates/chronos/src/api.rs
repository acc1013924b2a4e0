//! Orders and replies: what the command line, the libraries and the helper say to each other.
//!
//! The helper speaks one JSON object a line in each direction. A field that is not known is
//! ignored, so that either side may be newer.

use gpu_autoscaler_model::Timestamp;
use serde::{Deserialize, Serialize};

use crate::lease::{Binding, Lease, LeaseId, Part, Request, Reservation, ReservationId, Ticket};
use crate::quantity::Span;
use crate::refusal::Refusal;

/// What is to be done.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum Order {
    /// Grant or queue a lease.
    Create {
        /// What.
        request: Request,
        /// What it outlives.
        binding: Binding,
        /// How long to wait; `None` is not at all.
        wait: Option<Span>,
        /// The process it depends on; the one that asks where it is absent.
        holder: Option<u32>,
        /// The user it is for, by login name; only root may name another.
        user: Option<String>,
    },
    /// What would become of a request.
    Suggest {
        /// What.
        request: Request,
    },
    /// Give a lease back.
    Release {
        /// Which.
        id: LeaseId,
        /// Kill without a grace.
        force: bool,
        /// The job is over by itself.
        finished: bool,
    },
    /// Move a deadline.
    Extend {
        /// Which.
        id: LeaseId,
        /// By how much.
        by: Span,
    },
    /// Put a process and its later descendants into a lease.
    Attach {
        /// Which.
        id: LeaseId,
        /// The process.
        pid: u32,
    },
    /// Leave the queue.
    Leave {
        /// Which.
        id: LeaseId,
    },
    /// Stop the processes of a lease.
    Suspend {
        /// Which.
        id: LeaseId,
    },
    /// Let them run again.
    Resume {
        /// Which.
        id: LeaseId,
        /// For how long; what was left where it is absent.
        #[serde(rename = "for")]
        for_: Option<Span>,
        /// How long to wait for its place.
        wait: Option<Span>,
    },
    /// Keep a window of the calendar.
    Reserve {
        /// What.
        request: Request,
        /// When it starts.
        start: Timestamp,
    },
    /// Give a window back.
    Unreserve {
        /// Which.
        id: ReservationId,
    },
    /// Try again to suspend others for an urgent request that waits.
    Preempt {
        /// Which.
        id: LeaseId,
    },
    /// Do whatever is due.
    Settle,
}

/// A lease that would be suspended for another.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Victim {
    /// Which.
    pub id: LeaseId,
    /// Its owner's login name.
    pub user: String,
}

/// What became of it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// A lease was granted or changed.
    Lease {
        /// As it is now.
        lease: Box<Lease>,
    },
    /// The request waits.
    Waiting {
        /// Its place.
        ticket: Box<Ticket>,
        /// From now to the start it is promised.
        start: Option<Span>,
    },
    /// A lease was given back.
    Released {
        /// Whether the kernel has yet to let go of some of its processes.
        pending: bool,
    },
    /// The processes of a lease are stopped.
    Suspended {
        /// Whether their GPU memory is free.
        checkpointed: bool,
    },
    /// A window is kept.
    Reserved {
        /// The window.
        reservation: Box<Reservation>,
    },
    /// A request would be granted.
    Suggested {
        /// From now to its start; none is at once.
        start: Span,
        /// On what.
        parts: Vec<Part>,
        /// Who would be suspended for it.
        #[serde(default)]
        preempts: Vec<Victim>,
    },
    /// It is done, and there is nothing to say about it.
    Done,
    /// It was refused; nothing changed.
    Refused {
        /// Why.
        refusal: Box<Refusal>,
    },
    /// A reply, and what to know of how it came about.
    Noted {
        /// One sentence each.
        notes: Vec<String>,
        /// What became of the order.
        answer: Box<Reply>,
    },
    /// The machine failed.
    Failed {
        /// What failed, with its causes.
        message: String,
        /// The next step.
        hint: Option<String>,
    },
}
