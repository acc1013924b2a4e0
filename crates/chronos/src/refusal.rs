//! Every "no" that a user can get, with its name, its exit code and the next step.

use serde::{Deserialize, Serialize};

use crate::lease::LeaseId;
use crate::planner::Never;
use crate::policy::Exceeded;
use crate::quantity::Span;

/// Why something that was asked for is not done. The state is unchanged.
#[derive(Clone, PartialEq, Debug, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "refusal", rename_all = "snake_case")]
pub enum Refusal {
    /// It can never be granted on this machine.
    #[error(transparent)]
    Never {
        /// Why.
        never: Never,
    },
    /// It does not fit now.
    #[error("no capacity now: it fits in {} on {where_}", .in_)]
    NoCapacity {
        /// From now to the earliest start.
        in_: Span,
        /// Which GPUs it would get then.
        where_: String,
    },
    /// A window of the calendar is not free.
    #[error(
        "the window from {start} for {for_:#} is taken: the next one is free in {in_} on {where_}"
    )]
    WindowTaken {
        /// Its start, by the date.
        start: gpu_autoscaler_model::Timestamp,
        /// Its length.
        for_: Span,
        /// From now to the earliest start from then on.
        in_: Span,
        /// Which GPUs it would get then.
        where_: String,
    },
    /// The time to wait is over.
    #[error("waited {waited} in the queue: no capacity came free")]
    WaitedInVain {
        /// How long.
        waited: Span,
    },
    /// Policy says no.
    #[error(transparent)]
    Policy {
        /// Which limit.
        exceeded: Exceeded,
    },
    /// The policy file cannot be read, so that nobody but root is granted anything.
    #[error("the policy file has an error, so that nothing is granted: {error}")]
    PolicyUnreadable {
        /// What is wrong with it.
        error: String,
    },
    /// It belongs to someone else.
    #[error("`{id}` belongs to user `{owner}`")]
    NotYours {
        /// What was named.
        id: String,
        /// Whose it is.
        owner: String,
    },
    /// Only root may do that.
    #[error("only root may {what}")]
    RootOnly {
        /// What was tried.
        what: String,
    },
    /// Nothing of that name is live.
    #[error("partition `{id}` does not exist or has ended")]
    NoSuchLease {
        /// What was named.
        id: String,
    },
    /// Nothing of that name is in the queue or in the calendar.
    #[error("request or reservation `{id}` does not exist or waits no more")]
    NotWaiting {
        /// What was named.
        id: String,
    },
    /// The lease is not in the phase for that.
    #[error("partition `{id}` is {phase}: it cannot be {verb}")]
    WrongPhase {
        /// The lease.
        id: LeaseId,
        /// Its phase in words.
        phase: String,
        /// What was tried.
        verb: String,
    },
    /// Someone is promised the time after the deadline.
    #[error("partition `{id}` cannot be extended by {by}: the time after its deadline is promised")]
    Promised {
        /// The lease.
        id: LeaseId,
        /// By how much.
        by: Span,
    },
    /// The enforcement that was required is not there.
    #[error("`{required}` was required: this machine has {available}")]
    TierUnavailable {
        /// As it was asked for.
        required: String,
        /// What there is.
        available: String,
    },
    /// The process that was named is gone or another user's.
    #[error("process {pid} cannot be attached: {why}")]
    NotAttachable {
        /// The process.
        pid: u32,
        /// Why.
        why: String,
    },
    /// Its processes cannot be suspended.
    #[error("partition `{id}` cannot be suspended: {why}")]
    NotSuspendable {
        /// The lease.
        id: LeaseId,
        /// Why.
        why: String,
    },
    /// A text or a number that means nothing.
    #[error("{message}")]
    BadInput {
        /// What is wrong with it.
        message: String,
        /// What to write instead.
        hint: String,
    },
    /// A number too many of something that is bounded.
    #[error("{what}: at most {limit}")]
    TooMany {
        /// What.
        what: String,
        /// The bound.
        limit: u64,
    },
}

impl From<Never> for Refusal {
    fn from(never: Never) -> Self {
        Self::Never { never }
    }
}

impl From<Exceeded> for Refusal {
    fn from(exceeded: Exceeded) -> Self {
        Self::Policy { exceeded }
    }
}

impl From<crate::quantity::QuantityError> for Refusal {
    fn from(error: crate::quantity::QuantityError) -> Self {
        Self::BadInput { message: error.to_string(), hint: error.hint().to_owned() }
    }
}

impl Refusal {
    /// The stable name of the refusal, as in `--json`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Never { .. } => "never",
            Self::NoCapacity { .. } => "no_capacity",
            Self::WindowTaken { .. } => "window_taken",
            Self::WaitedInVain { .. } => "waited_in_vain",
            Self::Policy { .. } => "policy",
            Self::PolicyUnreadable { .. } => "policy_unreadable",
            Self::NotYours { .. } => "not_yours",
            Self::RootOnly { .. } => "root_only",
            Self::NoSuchLease { .. } => "no_such_lease",
            Self::NotWaiting { .. } => "not_waiting",
            Self::WrongPhase { .. } => "wrong_phase",
            Self::Promised { .. } => "promised",
            Self::TierUnavailable { .. } => "tier_unavailable",
            Self::NotAttachable { .. } => "not_attachable",
            Self::NotSuspendable { .. } => "not_suspendable",
            Self::BadInput { .. } => "bad_input",
            Self::TooMany { .. } => "too_many",
        }
    }

    /// The exit code of the command line. Source: sysexits(3) where it has a meaning.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::BadInput { .. } => 2,
            Self::NoSuchLease { .. } | Self::NotWaiting { .. } | Self::WrongPhase { .. } => 65,
            Self::TierUnavailable { .. } | Self::NotSuspendable { .. } => 69,
            Self::Never { .. }
            | Self::NoCapacity { .. }
            | Self::WindowTaken { .. }
            | Self::Promised { .. }
            | Self::TooMany { .. } => 73,
            Self::WaitedInVain { .. } => 75,
            Self::Policy { .. }
            | Self::NotYours { .. }
            | Self::RootOnly { .. }
            | Self::NotAttachable { .. } => 77,
            Self::PolicyUnreadable { .. } => 78,
        }
    }

    /// The next step.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Never { never } => match never {
                Never::NoSuchGpu { .. } => "`chronos stats --all` lists the GPUs",
                Never::Faulty { .. } => "`chronos doctor` says more; name another GPU or use --any",
                Never::TooMuchMemory { .. } => "ask for less memory, or for part of it as 0.5",
                Never::HeldByForeign { .. } => "`chronos top` shows the processes that hold it",
                Never::TooManyGpus { .. } => "ask for fewer GPUs",
                Never::NamedTwice { .. } => "name each GPU once",
                Never::NoSuchReservation { .. } => "`chronos queue` lists reservations",
            },
            Self::NoCapacity { .. } => "wait for it with --wait, or see `chronos suggest`",
            Self::WindowTaken { .. } => "name another --start; `chronos queue` lists reservations",
            Self::WaitedInVain { .. } => "`chronos suggest` says when it would fit",
            Self::Policy { .. } => "`chronos config show` prints the policy that applies to you",
            Self::PolicyUnreadable { .. } => "root: `chronos config check` names the line",
            Self::NotYours { .. } => "ask its owner or root",
            Self::RootOnly { .. } => "run it as root, with sudo for example",
            Self::NoSuchLease { .. } => "`chronos list` shows what is live",
            Self::NotWaiting { .. } => "`chronos queue` shows who waits, and reservations",
            Self::WrongPhase { .. } => "`chronos get ID` shows where it stands",
            Self::Promised { .. } => "extend by less, or ask for a new lease with --wait",
            Self::TierUnavailable { .. } => "`chronos doctor` says what is missing",
            Self::NotAttachable { .. } => "name a running process of yours",
            Self::NotSuspendable { .. } => "it runs on; `chronos release ID` ends it",
            Self::TooMany { .. } => "come again when some of them have ended",
            Self::BadInput { hint, .. } => return Some(hint.clone()),
        };
        Some(text.to_owned())
    }
}
