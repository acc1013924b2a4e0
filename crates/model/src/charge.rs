//! What is owed.

use crate::{GpuMillis, Interval, Money, NodeName, Uid};

/// One sealed part of what a node cost in one hour.
///
/// For every node and hour the lines add up to exactly what the node cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChargeLine {
    /// The node.
    pub node: NodeName,
    /// The part of one hour that it covers.
    pub interval: Interval,
    /// To whom.
    pub account: Account,
    /// GPUs held over time; zero for an account that holds none.
    pub held: GpuMillis,
    /// How much.
    pub amount: Money,
}

/// Who owes a charge.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Account {
    /// The pod that had the GPUs reserved.
    Pod(Uid),
    /// Nobody had them reserved.
    Idle,
    /// The node has no GPU count to split by.
    Unattributed,
}
