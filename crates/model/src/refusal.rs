//! Why something was not done.

use std::fmt;
use std::sync::Arc;

use crate::{NodeName, ObjectKey, PodPhase};

/// A pod for which nothing was decided, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The pod.
    pub pod: ObjectKey,
    /// Why.
    pub why: RefusalReason,
}

/// Why nothing was decided for a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefusalReason {
    /// It waits for the scheduler, which gave this reason, if any.
    Unscheduled {
        /// In the scheduler's words.
        says: Option<Arc<str>>,
    },
    /// It waits for somebody to remove these scheduling gates.
    Gated {
        /// Their names.
        gates: Vec<Arc<str>>,
    },
    /// It ended, and holds nothing.
    Ended {
        /// How.
        phase: PodPhase,
    },
    /// It is bound to a node that is not there.
    NodeMissing {
        /// The node's name.
        node: NodeName,
    },
    /// Its annotation of this key, with `"false"`, asks that it be left alone.
    OptedOut {
        /// The key.
        key: &'static str,
    },
    /// It is underutilized, for which only sharing would be recommended, and its annotation of this
    /// key rules that out.
    Unshared {
        /// The key.
        key: &'static str,
    },
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unscheduled { says: Some(says) } => write!(f, "not scheduled: {says}"),
            Self::Unscheduled { says: None } => f.write_str("not scheduled yet"),
            Self::Gated { gates } => write!(f, "scheduling gates `{}`", gates.join("`, `")),
            Self::Ended { phase } => write!(f, "ended ({phase}): it holds nothing"),
            Self::NodeMissing { node } => write!(f, "its node `{node}` does not exist"),
            Self::OptedOut { key } => {
                write!(f, "its annotation `{key}: \"false\"` asks that it be left alone")
            }
            Self::Unshared { key } => write!(
                f,
                "underutilized, but its annotation `{key}` rules out sharing, which is all that \
                 would be recommended"
            ),
        }
    }
}
