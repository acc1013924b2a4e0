//! Changes to the world, and what became of them.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Condition, FindingKind, ObjectKey, PolicyKind, ResourceVersion, Timestamp, Uid};

/// A change to be made to the world.
///
/// Performing it twice changes nothing more than performing it once: its precondition or its
/// deterministic name makes the second attempt a conflict.
#[derive(Clone, Debug, PartialEq)]
pub struct Effect {
    /// Its identity: equal for equal intent, also after a restart.
    pub id: EffectId,
    /// What to do.
    pub action: Action,
    /// Until when it is taken for done without being observed.
    pub deadline: Timestamp,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Create an Event. The name decides: an Event of this name that exists already is this one.
    Announce(Announcement),
    /// Set conditions in the status of one of our resources; those of other kinds stay.
    SetConditions {
        /// Which kind of resource.
        kind: PolicyKind,
        /// Its name.
        key: ObjectKey,
        /// Its uid.
        uid: Uid,
        /// Write only while the object has this version.
        if_version: ResourceVersion,
        /// What they shall say, each kind at most once.
        conditions: Vec<Condition>,
    },
}

impl Action {
    /// Its kind, in one word.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Announce(_) => "announce",
            Self::SetConditions { .. } => "set_conditions",
        }
    }
}

/// An Event on an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The Event's own key, deterministic. Its namespace is that of the object, and `default` for
    /// an object that has none, as Kubernetes has it.
    pub event: ObjectKey,
    /// What it speaks of.
    pub about: Involved,
    /// Why.
    pub reason: Reason,
    /// One sentence for people.
    pub message: Arc<str>,
    /// When the fact was established.
    pub at: Timestamp,
}

/// The object that an Event speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
#[doc(alias = "involvedObject")]
pub struct Involved {
    /// Its kind.
    pub kind: InvolvedKind,
    /// Its name; without a namespace for a node.
    pub key: ObjectKey,
    /// Its uid: an Event is never attached to a later object of the same name.
    pub uid: Uid,
}

/// Kinds of object that Events speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InvolvedKind {
    /// `v1` Pod.
    Pod,
    /// `v1` Node.
    Node,
}

impl InvolvedKind {
    /// As Kubernetes spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pod => "Pod",
            Self::Node => "Node",
        }
    }
}

/// Reasons of Events: a closed set, documented in the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// The pod's GPUs computed nothing.
    GpuIdle,
    /// The pod's GPUs computed less than the threshold.
    GpuUnderutilized,
    /// The pod holds memory of GPUs that compute nothing.
    GpuMemoryHeld,
    /// The pod never touched some of its GPUs.
    GpuOverRequested,
    /// The pod holds GPUs and cannot run, or will not end.
    GpuStuck,
    /// A GPU of the node computes at lower clocks than it could.
    GpuThrottled,
    /// A GPU of the node reports errors of its hardware.
    GpuSick,
}

impl From<FindingKind> for Reason {
    fn from(kind: FindingKind) -> Self {
        match kind {
            FindingKind::Idle => Self::GpuIdle,
            FindingKind::Underutilized => Self::GpuUnderutilized,
            FindingKind::MemoryHeld => Self::GpuMemoryHeld,
            FindingKind::OverRequested => Self::GpuOverRequested,
            FindingKind::Stuck => Self::GpuStuck,
            FindingKind::Throttled => Self::GpuThrottled,
            FindingKind::Sick => Self::GpuSick,
        }
    }
}

impl Reason {
    /// As it stands in the Event.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::GpuIdle => "GpuIdle",
            Self::GpuUnderutilized => "GpuUnderutilized",
            Self::GpuMemoryHeld => "GpuMemoryHeld",
            Self::GpuOverRequested => "GpuOverRequested",
            Self::GpuStuck => "GpuStuck",
            Self::GpuThrottled => "GpuThrottled",
            Self::GpuSick => "GpuSick",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Identity of an effect.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EffectId(u64);

impl EffectId {
    /// From the parts that make the intent, in order. The same parts give the same id in every
    /// version of this program, which Event names rely on.
    ///
    /// Source: FNV-1a, 64 bits (<http://www.isthe.com/chongo/tech/comp/fnv/>), each part followed
    /// by a zero byte so that `ab`,`c` and `a`,`bc` differ.
    pub fn of(parts: &[&str]) -> Self {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for part in parts {
            for byte in part.bytes().chain([0]) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
        Self(hash)
    }
}

impl fmt::Display for EffectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for EffectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What became of an effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Which effect.
    pub effect: EffectId,
    /// When the answer came.
    pub at: Timestamp,
    /// What it was.
    pub result: ReceiptResult,
}

/// Answers to an effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReceiptResult {
    /// Done now.
    Applied,
    /// Found done already: the precondition or the name shows an earlier attempt.
    AlreadyApplied,
    /// The object changed since it was seen; decide again on what is seen next.
    Conflict,
    /// The object is gone: nothing is left to do.
    Gone,
    /// The server will not have it; trying the same again will not help.
    Refused {
        /// Its words.
        why: Arc<str>,
    },
    /// Not tried: this replica does not lead any more.
    NotSent,
    /// No answer, or an answer that asks to come back later. It may or may not have been done.
    Unanswered {
        /// What went wrong.
        why: Arc<str>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effect_ids_are_the_same_for_ever() {
        // Event names on live clusters carry this value: it may not change.
        assert_eq!(EffectId::of(&["uid-1", "GpuIdle"]).to_string(), "3f294ae9e0ebb305");
        assert_ne!(EffectId::of(&["ab", "c"]), EffectId::of(&["a", "bc"]));
    }
}
