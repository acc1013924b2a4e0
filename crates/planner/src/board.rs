//! The cost of every node for every kind of request, kept up to date change by change.

use std::cmp::Reverse;

use crate::fit::{Obstacle, standing_obstacle};
use crate::fleet::{Assignment, Devices, Fleet, GPUS_PER_NODE_MAX, NodeIndex};
use crate::neighbors::{Neighbors, Watcher};
use crate::request::{GpuRequest, PodKind, Request};
use crate::strategy::outlook::prices::{NodeSurvey, Prices, Survey};
use crate::strategy::{Scorer, mix};

/// Position of a kind of request on a [`Board`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KindIndex(usize);

/// A node that the request does not fit on.
const UNFIT: i64 = i64::MAX;

/// Prices are set anew when this part of the requests to saturation was placed.
const REPRICE_PART: f64 = 0.01;

/// The cost of every node for every kind of request, kept up to date change by change.
///
/// A decision reads one number for each node; a number is computed again only when its node has
/// changed since the kind was last asked for. What depends on the whole fleet is a price for
/// each class of nodes, added as the numbers are read.
///
/// A board lives as long as one plan: it keeps a note of every change that it was told of.
#[derive(Clone, Debug)]
pub struct Board {
    scorer: Scorer,
    kinds: Vec<Kind>,
    /// Every node that changed, in order.
    changes: Vec<NodeIndex>,
    decisions: u64,
    market: Market,
    neighbors: Neighbors,
    /// Raised when every number has to be computed again.
    epoch: u64,
}

/// What the fleet has left, and what that makes scarce.
#[derive(Clone, Debug, Default)]
struct Market {
    nodes: Vec<NodeSurvey>,
    survey: Survey,
    prices: Prices,
    /// Raised when the prices change.
    version: u64,
    /// How many of the changes the survey reflects.
    seen: usize,
    /// The number of changes at which prices are due.
    due: usize,
}

#[derive(Clone, Debug)]
struct Kind {
    request: Request,
    /// For each node, the lowest cost of its choices.
    costs: Vec<i64>,
    /// For each node, its class; see [`class_of`].
    classes: Vec<u16>,
    /// The price of each class.
    prices: Vec<i64>,
    prices_version: u64,
    /// Nodes that can never serve the kind, whatever is free.
    barred: Vec<bool>,
    /// How many of the changes the costs reflect.
    seen: usize,
    epoch: u64,
}

/// GPUs that a class tells apart: none free to all free.
const FREE_STEPS: usize = GPUS_PER_NODE_MAX + 1;

/// The class of a node for a kind: its shape, its free GPUs, and whether free ones are taken.
fn class_of(node: NodeSurvey, takes_free_gpus: bool) -> u16 {
    let class = (usize::from(node.shape) * FREE_STEPS + usize::from(node.gpus_free)) * 2;
    // At most 64 shapes, 33 steps and 2.
    (class + usize::from(takes_free_gpus)) as u16
}

impl Board {
    /// An empty board for `fleet`.
    pub fn new(scorer: Scorer, fleet: &Fleet) -> Self {
        let mut board = Self {
            scorer,
            kinds: Vec::new(),
            changes: Vec::new(),
            decisions: 0,
            market: Market::default(),
            neighbors: Neighbors::of(fleet),
            epoch: 0,
        };
        board.open_market(fleet);
        board
    }

    /// Replaces the scorer, for instance when more is known of the demand.
    pub fn set_scorer(&mut self, scorer: Scorer, fleet: &Fleet) {
        self.scorer = scorer;
        self.epoch += 1;
        self.open_market(fleet);
    }

    /// Begins anew with `fleet`, from which every pod that was [bound](Board::bound) is gone.
    pub fn restart(&mut self, fleet: &Fleet) {
        self.decisions = 0;
        self.open_market(fleet);
    }

    fn open_market(&mut self, fleet: &Fleet) {
        let Scorer::Default(outlook) = &self.scorer else { return };
        let nodes: Vec<NodeSurvey> = fleet
            .nodes
            .iter()
            .map(|node| outlook.survey(node, outlook.scarce.shape_of(node)))
            .collect();
        let mut survey = Survey::new(outlook.scarce.shapes());
        nodes.iter().for_each(|&node| survey.add(node));
        self.market = Market {
            prices: outlook.scarce.prices(&survey),
            nodes,
            survey,
            version: self.market.version + 1,
            seen: self.changes.len(),
            due: self.changes.len() + 1,
        };
    }

    /// Adds a kind of request. `fleet` is as it is now.
    pub fn add_kind(&mut self, fleet: &Fleet, pod: &PodKind) -> KindIndex {
        let barred: Vec<bool> =
            fleet.nodes.iter().map(|node| standing_obstacle(node, pod).is_some()).collect();
        self.kinds.push(Kind {
            request: pod.request.clone(),
            costs: vec![UNFIT; fleet.nodes.len()],
            classes: vec![0; fleet.nodes.len()],
            prices: Vec::new(),
            prices_version: 0,
            barred,
            seen: 0,
            // Not the board's epoch, so that all costs are computed at the first decision.
            epoch: u64::MAX,
        });
        self.neighbors.add_kind(fleet, pod);
        KindIndex(self.kinds.len() - 1)
    }

    /// Notes that `node` has changed, but for pods of a kind that came or went.
    pub fn changed(&mut self, node: NodeIndex) {
        self.changes.push(node);
    }

    /// Notes that a pod of the kind was bound to `node`.
    pub fn bound(&mut self, kind: KindIndex, node: NodeIndex) {
        self.changes.push(node);
        self.neighbors.note(kind.0, node, true);
    }

    /// Notes that a pod of the kind that was bound to `node` is gone.
    pub fn unbound(&mut self, kind: KindIndex, node: NodeIndex) {
        self.changes.push(node);
        self.neighbors.note(kind.0, node, false);
    }

    /// The obstacle that the pods on the node at this position are to the kind.
    pub fn neighbor_obstacle(&mut self, kind: KindIndex, node: usize) -> Option<Obstacle> {
        self.neighbors.obstacle(kind.0, node)
    }

    /// The assignment of the kind on the nodes that it prefers most, of those the cheapest;
    /// `None` when it fits nowhere.
    pub fn best(&mut self, fleet: &Fleet, kind: KindIndex) -> Option<Assignment> {
        self.decisions += 1;
        self.follow_market(fleet);
        let watcher = self.neighbors.to(kind.0);
        let kind = &mut self.kinds[kind.0];
        kind.catch_up(&self.scorer, &self.market, fleet, &self.changes, self.epoch);
        let index = match self.scorer {
            Scorer::Random { seed } => {
                let decision = mix(seed ^ mix(self.decisions));
                let fitting = kind.costs.iter().enumerate().filter(|&(index, &cost)| {
                    cost != UNFIT && watcher.is_none_or(|w| w.shut()[index] == 0)
                });
                fitting.map(|(i, _)| (mix(decision ^ i as u64), i)).min()?.1
            }
            _ => kind.cheapest(watcher)?,
        };
        // A position in the list of nodes, which is indexed by 32 bits.
        let node = NodeIndex(index as u32);
        let (_, devices) = self.scorer.best_on(fleet.node(node), &kind.request)?;
        Some(Assignment { node, devices })
    }

    fn follow_market(&mut self, fleet: &Fleet) {
        let Scorer::Default(outlook) = &self.scorer else { return };
        let market = &mut self.market;
        if outlook.scarce.is_empty() {
            return;
        }
        for change in &self.changes[market.seen..] {
            let before = &mut market.nodes[change.0 as usize];
            let now = outlook.survey(fleet.node(*change), before.shape);
            market.survey.remove(*before);
            market.survey.add(now);
            *before = now;
        }
        market.seen = self.changes.len();
        if market.seen >= market.due {
            market.prices = outlook.scarce.prices(&market.survey);
            market.version += 1;
            let expected = outlook.scarce.requests_to_saturation(&market.survey);
            market.due = market.seen + 1 + (REPRICE_PART * expected) as usize;
        }
    }
}

impl Kind {
    /// The first node of the lowest cost and price, among those that the kind prefers most.
    fn cheapest(&self, watcher: Option<&Watcher>) -> Option<usize> {
        let mut lowest = UNFIT;
        let mut at = None;
        if let Some(watcher) = watcher {
            let mut best = (Reverse(i32::MIN), UNFIT);
            let neighbors = watcher.shut().iter().zip(watcher.preference());
            for (index, (&cost, (&shut, &preference))) in
                self.costs.iter().zip(neighbors).enumerate()
            {
                if cost == UNFIT || shut > 0 {
                    continue;
                }
                let price = self.prices.get(usize::from(self.classes[index])).copied();
                let key = (Reverse(preference), cost + price.unwrap_or(0));
                if key < best {
                    (best, at) = (key, Some(index));
                }
            }
            return at;
        }
        if self.prices.is_empty() {
            for (index, &cost) in self.costs.iter().enumerate() {
                if cost < lowest {
                    (lowest, at) = (cost, Some(index));
                }
            }
            return at;
        }
        for (index, (&cost, &class)) in self.costs.iter().zip(&self.classes).enumerate() {
            if cost == UNFIT {
                continue;
            }
            let cost = cost + self.prices[usize::from(class)];
            if cost < lowest {
                (lowest, at) = (cost, Some(index));
            }
        }
        at
    }

    fn refresh(&mut self, scorer: &Scorer, market: &Market, fleet: &Fleet, index: usize) {
        if self.barred[index] {
            return;
        }
        let node = &fleet.nodes[index];
        let fits = node.holds_all_but_gpus(&self.request);
        let best = if fits { scorer.best_on(node, &self.request) } else { None };
        self.costs[index] = best.map_or(UNFIT, |(cost, _)| cost);
        if let (Some((_, devices)), Some(&survey)) = (best, market.nodes.get(index)) {
            let takes_free_gpus = match devices {
                Devices::None => false,
                Devices::Whole { .. } => true,
                Devices::Share { gpu, .. }
                | Devices::Replicas { gpu, .. }
                | Devices::Clients { gpu, .. }
                | Devices::Mig { gpu, .. } => node.gpus[usize::from(gpu)].is_free(),
            };
            self.classes[index] = class_of(survey, takes_free_gpus);
        }
    }

    fn catch_up(
        &mut self,
        scorer: &Scorer,
        market: &Market,
        fleet: &Fleet,
        changes: &[NodeIndex],
        epoch: u64,
    ) {
        let new = &changes[self.seen.min(changes.len())..];
        self.seen = changes.len();
        if self.epoch != epoch || new.len() >= fleet.nodes.len() {
            self.epoch = epoch;
            (0..fleet.nodes.len()).for_each(|index| self.refresh(scorer, market, fleet, index));
        } else {
            let mut touched: Vec<u32> = new.iter().map(|node| node.0).collect();
            touched.sort_unstable();
            touched.dedup();
            for index in touched {
                self.refresh(scorer, market, fleet, index as usize);
            }
        }
        if self.prices_version != market.version && !market.prices.per_milli.is_empty() {
            self.prices_version = market.version;
            let memory_mib = match scorer {
                Scorer::Default(outlook) => outlook.share_memory_mib,
                _ => 0,
            };
            self.reprice(&market.prices, self.request.gpu_milli_of(memory_mib));
        }
    }

    /// The price of each class for this kind, which takes `milli` thousandths of a GPU.
    fn reprice(&mut self, prices: &Prices, milli: u32) {
        let gpus = match self.request.gpu {
            GpuRequest::None => {
                self.prices.clear();
                return;
            }
            GpuRequest::Whole { count } => usize::from(count),
            _ => 1,
        };
        self.prices.clear();
        for (shape, per_milli) in prices.per_milli.iter().enumerate() {
            let scarcity = per_milli * f64::from(milli);
            for free in 0..FREE_STEPS {
                // A node with fewer free GPUs than are taken is in no class that is read.
                let breaking = prices.of_breaking(shape, free, gpus.min(free));
                // At most 32 GPUs at the price of a few GPUs each.
                self.prices.extend([scarcity.round() as i64, (scarcity + breaking).round() as i64]);
            }
        }
    }
}
