//! The nouns: GPU, request, lease, ticket, reservation, process.
//!
//! No field is skipped when it is written: the index has no names of fields ([`crate::index`]).

use std::collections::BTreeSet;
use std::fmt;

use gpu_autoscaler_model::{Bytes, Timestamp};
use serde::{Deserialize, Serialize};

use crate::quantity::{Boottime, Ppm, Span};

/// Largest number of GPUs on one machine; an NVIDIA HGX has 8, a chassis of two has 16.
pub const GPUS_MAX: usize = 64;

/// Stable name of a GPU: the vendor's UUID or, where there is none, its PCI address.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GpuId(pub String);

impl fmt::Display for GpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who makes the GPU, which decides how its memory is measured and what can be enforced.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Vendor {
    /// NVIDIA, read through NVML.
    Nvidia,
    /// AMD, read through the kernel's amdgpu files.
    Amd,
    /// Intel, read through the kernel's xe and i915 files.
    Intel,
    /// Described by the user; no hardware is asked.
    Declared,
}

impl fmt::Display for Vendor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nvidia => "NVIDIA",
            Self::Amd => "AMD",
            Self::Intel => "Intel",
            Self::Declared => "declared",
        })
    }
}

/// One GPU as the planner sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Gpu {
    /// Its stable name.
    pub id: GpuId,
    /// The number users say; dense from 0 in PCI order.
    pub index: u32,
    /// Marketing name.
    pub name: String,
    /// Its maker.
    pub vendor: Vendor,
    /// Memory that partitions may share.
    pub memory: Bytes,
    /// Memory held by processes outside every lease; `None` where nobody can say.
    pub foreign: Option<Bytes>,
    /// Why no lease may be granted here, when that is so (lost from the bus, pending reset).
    pub fault: Option<String>,
    /// Distance to the GPU of the same position in the list; 0 to itself, less is nearer.
    ///
    /// Empty where the topology is unknown: then every pair is equally far.
    pub links: Vec<u32>,
    /// Device nodes that a holder has to open.
    pub nodes: Vec<DeviceNode>,
}

/// A character device, by number: what a device program in the kernel compares.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct DeviceNode {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// Priority of a request; the first of the order is served first.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Before all others.
    High,
    /// The default.
    #[default]
    Normal,
    /// When nobody else wants the GPU; ageing lifts it, so that it is served in the end.
    Low,
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        })
    }
}

/// What happens to the processes of a lease at its deadline.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnExpire {
    /// SIGTERM, the grace, then SIGKILL to the whole tree.
    #[default]
    Term,
    /// Suspend them so that they can be resumed; where that fails, as `Term`.
    Suspend,
    /// Leave them running: the share is free for others, and they are foreign from then on.
    Notify,
}

/// Memory asked for on each GPU.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemoryAsk {
    /// Part of the GPU's memory.
    Part(Ppm),
    /// A size.
    Size(Bytes),
}

impl MemoryAsk {
    /// Bytes of a GPU that has `total`.
    pub fn of(self, total: Bytes) -> Bytes {
        match self {
            Self::Part(part) => Bytes::new(part.of(total.as_u64())),
            Self::Size(size) => size,
        }
    }
}

/// Which GPUs a request may have.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// Exactly these, all or none.
    These(Vec<GpuId>),
    /// This many of any, all or none, the near ones first.
    Any {
        /// How many.
        count: u32,
        /// Taken first where they fit.
        #[serde(default)]
        prefer: Vec<GpuId>,
    },
}

impl Choice {
    /// Number of GPUs it asks for.
    pub fn count(&self) -> usize {
        match self {
            Self::These(gpus) => gpus.len(),
            Self::Any { count, .. } => *count as usize,
        }
    }
}

/// What a lease is asked to be.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Which GPUs.
    pub choice: Choice,
    /// Memory on each.
    pub memory: MemoryAsk,
    /// Share of the compute on each; `None` shares it with whoever is there.
    #[serde(default)]
    pub compute: Option<Ppm>,
    /// How long.
    pub duration: Span,
    /// Its place in the queue.
    #[serde(default)]
    pub priority: Priority,
    /// What happens at the deadline.
    #[serde(default)]
    pub on_expire: OnExpire,
    /// From SIGTERM to SIGKILL.
    pub grace: Span,
    /// How long before the deadline the holder is warned; `None` is not at all.
    #[serde(default)]
    pub warn: Option<Span>,
    /// The signal that its processes get with the warning; `None` is no signal.
    #[serde(default)]
    pub warn_signal: Option<WarnSignal>,
    /// A word of the user's.
    #[serde(default)]
    pub name: Option<String>,
    /// The calendar reservation it is taken from.
    #[serde(default)]
    pub reservation: Option<ReservationId>,
}

/// A signal that a job can be warned with: one that a program expects to be sent by others.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WarnSignal {
    /// SIGUSR1
    Usr1,
    /// SIGUSR2
    Usr2,
    /// SIGHUP
    Hup,
    /// SIGINT
    Int,
}

/// A user, by number; the name is for display.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Owner {
    /// Numeric user id, which decides.
    pub uid: u32,
    /// Login name, or the number where there is no name.
    pub user: String,
}

/// A process that cannot be mistaken for a later one with the same number.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ProcessId {
    /// Process id in the PID namespace `namespace`.
    pub pid: u32,
    /// Start time in clock ticks since boot, field 22 of `/proc/PID/stat`.
    pub start: u64,
    /// Inode of the PID namespace it was seen from.
    pub namespace: u64,
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id!(
    /// Name of a lease and of the partition it grants: `partition_PID_MILLIS_SERIAL`.
    ///
    /// It is at most 63 bytes, which is what the C ABI's `partition_id[64]` holds, and contains no
    /// byte that would need quoting in a shell or a path.
    LeaseId
);
text_id!(
    /// Name of a calendar reservation: `reservation_MILLIS_SERIAL`.
    ReservationId
);

impl LeaseId {
    /// The id of the `serial`th lease of this boot, asked for by process `pid` at `wall`.
    pub fn mint(pid: u32, wall: Timestamp, serial: u64) -> Self {
        Self(format!("partition_{pid}_{}_{serial:04}", wall.as_millis()))
    }

    /// Whether the text can be a lease id at all, so that it may become part of a path.
    pub fn plausible(text: &str) -> bool {
        text.len() < 64
            && !text.is_empty()
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    }
}

/// The share of one GPU that a lease holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Part {
    /// The GPU.
    pub gpu: GpuId,
    /// Its number when the lease was granted, for display and for `CUDA_VISIBLE_DEVICES`.
    pub index: u32,
    /// Memory, in bytes.
    pub memory: Bytes,
    /// What `memory` is of the GPU's whole.
    pub fraction: Ppm,
    /// Share of the compute, where one was asked for.
    #[serde(default)]
    pub compute: Option<Ppm>,
}

/// Where a lease stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Granted; its holder may run until the deadline.
    Active,
    /// Over; its processes are being ended.
    Ending {
        /// Why.
        reason: EndReason,
        /// When whatever is left is killed.
        kill_at: Boottime,
        /// Whether the processes have been sent SIGTERM.
        told: bool,
        /// Whether its memory is still on the GPU; not so when it was checkpointed before.
        holds: bool,
    },
    /// Its processes are stopped and can be resumed.
    Suspended {
        /// Whether its memory is still on the GPU, so that nobody else can have it.
        holds: bool,
        /// When it is ended for good: while it holds its memory, when it was to be free anyway.
        until: Boottime,
        /// What was left of its time; it runs on while the lease holds its memory.
        left: Span,
    },
}

/// Why a lease ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// Its deadline passed.
    Expired,
    /// Its owner, or root, gave it back.
    Released,
    /// The job that it was granted for is over.
    Finished,
    /// It was suspended for longer than a suspended lease may last.
    SuspendedTooLong,
    /// The machine was restarted.
    Rebooted,
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "expired",
            Self::Released => "released",
            Self::Finished => "finished",
            Self::SuspendedTooLong => "suspended too long",
            Self::Rebooted => "rebooted",
        })
    }
}

/// The grant of a partition for a time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lease {
    /// Its name.
    pub id: LeaseId,
    /// Whose it is.
    pub owner: Owner,
    /// The process that asked for it.
    pub creator: ProcessId,
    /// The shares, in the order of the request.
    pub parts: Vec<Part>,
    /// When it was granted.
    pub granted: Boottime,
    /// The date at which it was granted, for display.
    pub granted_wall: Timestamp,
    /// When it ends.
    pub deadline: Boottime,
    /// What it was asked to be; `duration` is the first grant, without extensions.
    pub request: Request,
    /// Where it stands.
    pub phase: Phase,
    /// Processes that were attached by hand and their descendants belong to it.
    #[serde(default)]
    pub attached: BTreeSet<ProcessId>,
    /// Whether it has a control group of its own, which holds every process of its tree.
    #[serde(default)]
    pub fenced: bool,
    /// What it outlives.
    #[serde(default)]
    pub binding: Binding,
    /// The process that is stopping or starting its processes.
    #[serde(default)]
    pub mover: Option<ProcessId>,
    /// Whether the warning before this deadline was given.
    #[serde(default)]
    pub warned: bool,
    /// Since when it runs: its grant, or the last time that it was resumed.
    #[serde(default)]
    pub running_since: Boottime,
    /// How long it was suspended without memory on the GPU, up to `running_since`: no usage.
    #[serde(default)]
    pub idle: Span,
}

/// What a lease outlives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Binding {
    /// Nothing but its deadline ends it: a lease that was made at the command line.
    #[default]
    Deadline,
    /// It also ends when the process that asked for it and all its members are gone: a job's
    /// supervisor, or a program that uses the library.
    Creator,
}

impl Lease {
    /// How long it runs in all, from its grant to its deadline; the time for which its memory was
    /// not on the GPU does not count.
    pub fn length(&self) -> Span {
        let whole = self.deadline.since(self.granted);
        Span::from_nanos(whole.as_nanos().saturating_sub(self.idle.as_nanos()))
    }

    /// Time left at `now`; none once it is ending.
    pub fn remaining(&self, now: Boottime) -> Span {
        match self.phase {
            Phase::Active | Phase::Suspended { holds: true, .. } => self.deadline.since(now),
            Phase::Ending { .. } => Span::ZERO,
            Phase::Suspended { holds: false, left, .. } => left,
        }
    }

    /// The instant at which a guard has to act next, whoever it is.
    pub fn due(&self) -> Boottime {
        match self.phase {
            Phase::Active => self.warn_at().map_or(self.deadline, |at| at.min(self.deadline)),
            Phase::Ending { kill_at, told: true, .. } => kill_at,
            // Telling is due at once.
            Phase::Ending { .. } => Boottime::default(),
            Phase::Suspended { until, .. } => until,
        }
    }

    /// When its processes are to be warned; `None` when they were, or are not to be.
    pub fn warn_at(&self) -> Option<Boottime> {
        let wanted = self.phase == Phase::Active && !self.warned;
        self.request.warn.filter(|_| wanted).map(|warn| self.deadline.before(warn))
    }

    /// When its memory is free at the latest if nothing changes; `None` when its
    /// memory is in host memory.
    pub fn holds_until(&self) -> Option<Boottime> {
        match self.phase {
            Phase::Active => Some(self.deadline.after(self.grace())),
            Phase::Ending { kill_at, holds, .. } => holds.then_some(kill_at),
            Phase::Suspended { holds, until, .. } => holds.then_some(until),
        }
    }

    /// The grace that a deadline adds: none where the processes are left alone.
    pub fn grace(&self) -> Span {
        match self.request.on_expire {
            OnExpire::Notify => Span::ZERO,
            OnExpire::Term | OnExpire::Suspend => self.request.grace,
        }
    }
}

/// A place in the queue.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ticket {
    /// The id its lease will have.
    pub id: LeaseId,
    /// Whose it is.
    pub owner: Owner,
    /// The process that waits; the ticket is void when it is gone.
    pub waiter: ProcessId,
    /// What is waited for.
    pub request: Request,
    /// Since when.
    pub since: Boottime,
    /// Until when, at most.
    pub until: Boottime,
    /// Whether it resumes the suspended lease of its id instead of asking for a new one.
    #[serde(default)]
    pub resumes: bool,
    /// What its lease will outlive.
    #[serde(default)]
    pub binding: Binding,
}

/// A window of the calendar that is kept for a user.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reservation {
    /// Its name.
    pub id: ReservationId,
    /// Whose it is.
    pub owner: Owner,
    /// The shares that are kept.
    pub parts: Vec<Part>,
    /// Start of the window, by the date.
    pub start: Timestamp,
    /// Length of the window.
    pub duration: Span,
}
