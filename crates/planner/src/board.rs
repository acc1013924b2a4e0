//! The cost of every node for every kind of request, kept up to date change by change.

use crate::fit::standing_obstacle;
use crate::fleet::{Assignment, Fleet, NodeIndex};
use crate::request::{PodKind, Request};
use crate::strategy::{Scorer, mix};

/// Position of a kind of request on a [`Board`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KindIndex(usize);

/// A node that the request does not fit on.
const UNFIT: i64 = i64::MAX;

/// The cost of every node for every kind of request, kept up to date change by change.
///
/// A decision reads one number for each node; a number is computed again only when its node has
/// changed since the kind was last asked for.
#[derive(Clone, Debug)]
pub struct Board {
    scorer: Scorer,
    kinds: Vec<Kind>,
    /// Every node that changed, in order.
    changes: Vec<NodeIndex>,
    decisions: u64,
}

#[derive(Clone, Debug)]
struct Kind {
    request: Request,
    /// For each node, the lowest cost of its choices.
    costs: Vec<i64>,
    /// Nodes that can never serve the kind, whatever is free.
    barred: Vec<bool>,
    /// How many of the changes the costs reflect.
    seen: usize,
}

impl Board {
    /// An empty board.
    pub fn new(scorer: Scorer) -> Self {
        Self { scorer, kinds: Vec::new(), changes: Vec::new(), decisions: 0 }
    }

    /// Adds a kind of request: that of `pod`, with the pod's standing constraints.
    pub fn add_kind(&mut self, fleet: &Fleet, pod: &PodKind) -> KindIndex {
        let barred: Vec<bool> =
            fleet.nodes.iter().map(|node| standing_obstacle(node, pod).is_some()).collect();
        let mut kind = Kind {
            request: pod.request.clone(),
            costs: vec![UNFIT; fleet.nodes.len()],
            barred,
            seen: self.changes.len(),
        };
        for index in 0..fleet.nodes.len() {
            kind.refresh(&self.scorer, fleet, index);
        }
        self.kinds.push(kind);
        KindIndex(self.kinds.len() - 1)
    }

    /// Notes that `node` has changed.
    pub fn changed(&mut self, node: NodeIndex) {
        self.changes.push(node);
    }

    /// The cheapest assignment of the kind; `None` when it fits nowhere.
    pub fn best(&mut self, fleet: &Fleet, kind: KindIndex) -> Option<Assignment> {
        self.decisions += 1;
        let kind = &mut self.kinds[kind.0];
        kind.catch_up(&self.scorer, fleet, &self.changes);
        let index = match self.scorer {
            Scorer::Random { seed } => {
                let decision = mix(seed ^ mix(self.decisions));
                let fitting = kind.costs.iter().enumerate().filter(|(_, cost)| **cost != UNFIT);
                fitting.map(|(i, _)| (mix(decision ^ i as u64), i)).min()?.1
            }
            _ => {
                let mut lowest = UNFIT;
                let mut at = 0;
                for (index, &cost) in kind.costs.iter().enumerate() {
                    if cost < lowest {
                        (lowest, at) = (cost, index);
                    }
                }
                if lowest == UNFIT {
                    return None;
                }
                at
            }
        };
        // A position in the list of nodes, which is indexed by 32 bits.
        let node = NodeIndex(index as u32);
        let (_, devices) = self.scorer.best_on(fleet.node(node), &kind.request)?;
        Some(Assignment { node, devices })
    }
}

impl Kind {
    fn refresh(&mut self, scorer: &Scorer, fleet: &Fleet, index: usize) {
        if self.barred[index] {
            return;
        }
        let node = &fleet.nodes[index];
        let free = &node.free;
        let fits = free.pods > 0
            && free.cpu_milli >= self.request.cpu_milli
            && free.memory_bytes >= self.request.memory_bytes;
        let best = if fits { scorer.best_on(node, &self.request) } else { None };
        self.costs[index] = best.map_or(UNFIT, |(cost, _)| cost);
    }

    fn catch_up(&mut self, scorer: &Scorer, fleet: &Fleet, changes: &[NodeIndex]) {
        let new = &changes[self.seen..];
        self.seen = changes.len();
        if new.len() >= fleet.nodes.len() {
            for index in 0..fleet.nodes.len() {
                self.refresh(scorer, fleet, index);
            }
            return;
        }
        let mut touched: Vec<u32> = new.iter().map(|node| node.0).collect();
        touched.sort_unstable();
        touched.dedup();
        for index in touched {
            self.refresh(scorer, fleet, index as usize);
        }
    }
}
