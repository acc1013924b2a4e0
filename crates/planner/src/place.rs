//! Places pods jointly.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::board::{Board, KindIndex};
use crate::demand::Demand;
use crate::fleet::{Assignment, Fleet};
use crate::refusal::{Refusal, no_room};
use crate::request::{Pod, PodKind};
use crate::strategy::{Scorer, Strategy};

/// Orders in which a batch with refused pods is tried again.
///
/// On all tiny clusters (`packshow optimum`) more than a handful finds nothing more.
const ROUNDS_MAX: usize = 8;

/// Placements that trying again may cost, over all rounds.
const RETRIED_PODS_MAX: usize = 4_096;

/// Domains that a gang whose members want to be together is tried in.
const DOMAINS_MAX: usize = 64;

/// Times that pods which wait for a neighbor are tried after all others.
const SECOND_CHANCES_MAX: usize = 2;

/// Nodes whose costs are read, as they are kept, in the time in which one is computed.
const READ_PER_EXAMINED: u64 = 32;

/// Pods that wait together, and what they wait for.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// The pods.
    pub pods: &'a [Pod],
    /// The fleet, with what is free now.
    pub fleet: &'a Fleet,
    /// The distribution of requests to prepare for; empty, the pods themselves stand for it.
    pub demand: &'a Demand,
    /// The strategy.
    pub strategy: Strategy,
    /// The most nodes to examine before a pod is [postponed](Refusal::Postponed): one for each
    /// node and kind of pod, and one for each 32 that a decision reads.
    pub examined_max: u64,
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// For each pod, in the order of the batch, its place or why it has none.
    pub results: Vec<Result<Assignment, Refusal>>,
    /// How many nodes were examined; see [`Batch::examined_max`].
    pub examined: u64,
}

/// Places all of `pods` on what `fleet` has free; see [`place_batch`].
pub fn place(
    pods: &[Pod],
    fleet: &Fleet,
    demand: &Demand,
    strategy: Strategy,
) -> Vec<Result<Assignment, Refusal>> {
    place_batch(Batch { pods, fleet, demand, strategy, examined_max: u64::MAX }).results
}

/// Places the pods of a batch.
///
/// Pods of higher priority are placed first, then those of more GPU, then of more processor, then
/// in the order given. A gang takes the turn of its first member and is placed whole or not at
/// all. Those that wait for a neighbor of the batch are tried again after it. Where some find no
/// room, they are tried first among those of their priority, a bounded number of times, and the
/// best outcome is taken.
///
/// A kubelet may pick any of equal devices, so on nodes where it does ([`GpuPicker::Kubelet`])
/// the devices of an assignment are an example of what is counted, not a promise.
///
/// [`GpuPicker::Kubelet`]: crate::fleet::GpuPicker::Kubelet
pub fn place_batch(batch: Batch<'_>) -> Placed {
    let Batch { pods, fleet, demand, strategy, .. } = batch;
    let learned;
    let demand = if demand.is_empty() {
        learned = demand_of(pods);
        &learned
    } else {
        demand
    };
    let mut placing = Placing {
        batch,
        board: Board::new(Scorer::new(strategy, demand, fleet), fleet),
        fleet: fleet.clone(),
        kinds: BTreeMap::new(),
        bound: Vec::new(),
        examined: 0,
    };
    let mut turns = turns(pods, fleet.share_memory_mib());
    let mut best = placing.place_turns(&turns);
    let mut last_refused = best.refused_turns.clone();
    let rounds = ROUNDS_MAX.min(RETRIED_PODS_MAX / pods.len().max(1));
    for _ in 0..rounds {
        if last_refused.is_empty() || placing.is_spent() {
            break;
        }
        turns = promoted(pods, &turns, &last_refused);
        placing.start_again();
        let next = placing.place_turns(&turns);
        last_refused = next.refused_turns.clone();
        if next.value > best.value {
            best = next;
        }
    }
    placing.explain(best)
}

/// What became of a pod.
#[derive(Clone, Debug)]
enum Fate {
    Placed(KindIndex, Assignment),
    Refused(Refusal),
    /// It found no room; why is said when all are placed.
    NoRoom(KindIndex),
}

/// The outcome of one order.
struct Attempt {
    fates: Vec<Option<Fate>>,
    /// Positions of the turns that found no room though they might in another order.
    refused_turns: Vec<usize>,
    /// For each priority, highest first: thousandths of GPU and pods that were placed.
    value: Vec<(i32, u64, u32)>,
}

/// The turns with those refused moved before the others of their priority.
fn promoted(pods: &[Pod], turns: &[Vec<usize>], refused: &[usize]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..turns.len()).collect();
    order.sort_by_key(|&turn| {
        (Reverse(pods[turns[turn][0]].priority), refused.binary_search(&turn).is_err())
    });
    order.into_iter().map(|turn| turns[turn].clone()).collect()
}

fn demand_of(pods: &[Pod]) -> Demand {
    let mut demand = Demand::default();
    for pod in pods {
        demand.observe(&pod.kind.request);
    }
    demand
}

/// The pods in the order of placement, members of a gang together; a share by memory counts as
/// its part of a GPU of `memory_mib`.
fn turns(pods: &[Pod], memory_mib: u32) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..pods.len()).collect();
    order.sort_by_key(|&index| {
        let pod = &pods[index];
        let request = &pod.kind.request;
        let milli = request.gpu_milli_of(memory_mib);
        (Reverse(pod.priority), Reverse(milli), Reverse(request.cpu_milli), index)
    });
    let mut turns: Vec<Vec<usize>> = Vec::new();
    let mut turn_of: BTreeMap<Arc<str>, usize> = BTreeMap::new();
    for index in order {
        match &pods[index].gang {
            Some(gang) => {
                let turn = *turn_of.entry(gang.clone()).or_insert_with(|| {
                    turns.push(Vec::new());
                    turns.len() - 1
                });
                turns[turn].push(index);
            }
            None => turns.push(vec![index]),
        }
    }
    turns
}

/// Whether pods that are placed later may make room for the pod.
fn waits_for_neighbors(pod: &Pod) -> bool {
    let constraints = &pod.kind.constraints;
    !(constraints.pod_affinity.is_empty() && constraints.spread.is_empty())
}

struct Placing<'a> {
    batch: Batch<'a>,
    board: Board,
    fleet: Fleet,
    kinds: BTreeMap<PodKind, KindIndex>,
    /// The pods that are bound now, in order.
    bound: Vec<(usize, KindIndex, Assignment)>,
    examined: u64,
}

impl Placing<'_> {
    fn is_spent(&self) -> bool {
        self.examined >= self.batch.examined_max
    }

    fn place_turns(&mut self, turns: &[Vec<usize>]) -> Attempt {
        let pods = self.batch.pods;
        let mut fates: Vec<Option<Fate>> = vec![None; pods.len()];
        let mut refused_turns: Vec<usize> =
            (0..turns.len()).filter(|&turn| !self.place_turn(&turns[turn], &mut fates)).collect();
        for _ in 0..SECOND_CHANCES_MAX {
            let before = refused_turns.len();
            refused_turns.retain(|&turn| {
                let hopes = turns[turn].iter().any(|&pod| waits_for_neighbors(&pods[pod]));
                !(hopes && self.place_turn(&turns[turn], &mut fates))
            });
            if refused_turns.len() == before {
                break;
            }
        }
        let found_no_room = |&turn: &usize| match &fates[turns[turn][0]] {
            Some(Fate::NoRoom(_)) => true,
            Some(Fate::Refused(Refusal::Gang { because, .. })) => {
                matches!(**because, Refusal::NoRoom { .. })
            }
            _ => false,
        };
        refused_turns.retain(found_no_room);
        let memory_mib = self.batch.fleet.share_memory_mib();
        let mut value: BTreeMap<Reverse<i32>, (u64, u32)> = BTreeMap::new();
        for &(index, ..) in &self.bound {
            let (milli, count) = value.entry(Reverse(pods[index].priority)).or_default();
            *milli += u64::from(pods[index].kind.request.gpu_milli_of(memory_mib));
            *count += 1;
        }
        let value = value
            .into_iter()
            .map(|(Reverse(priority), (milli, count))| (priority, milli, count))
            .collect();
        Attempt { fates, refused_turns, value }
    }

    /// Places all of `turn` or none, and notes the fate of each.
    fn place_turn(&mut self, turn: &[usize], fates: &mut [Option<Fate>]) -> bool {
        let first = self.bound.len();
        for &index in turn {
            let fate = self.place_one(index, None);
            if !matches!(fate, Fate::Placed(..)) {
                let pod = &self.batch.pods[index];
                let Some(gang) = &pod.gang else {
                    fates[index] = Some(fate);
                    return false;
                };
                let because = match fate {
                    Fate::Refused(refusal) => refusal,
                    Fate::NoRoom(kind) | Fate::Placed(kind, _) => self.no_room(index, kind),
                };
                let refusal = Refusal::Gang {
                    gang: gang.clone(),
                    // At most as many as there are pods, which are counted in 32 bits.
                    members: turn.len() as u32,
                    found_room: (self.bound.len() - first) as u32,
                    first_refused: pod.name.clone(),
                    because: Box::new(because),
                };
                self.take_back(first);
                if let Some(placed) = self.place_in_one_domain(turn) {
                    turn.iter().zip(placed).for_each(|(&pod, fate)| fates[pod] = Some(fate));
                    return true;
                }
                for &index in turn {
                    fates[index] = Some(Fate::Refused(refusal.clone()));
                }
                return false;
            }
            fates[index] = Some(fate);
        }
        true
    }

    /// Places a gang whose members want to be together in one domain after another, until one
    /// holds all of them: the domain that the first member likes best may be too small.
    fn place_in_one_domain(&mut self, turn: &[usize]) -> Option<Vec<Fate>> {
        let pods = self.batch.pods;
        let wishes = turn.iter().flat_map(|&pod| &pods[pod].kind.constraints.pod_affinity);
        let keys: BTreeSet<&Arc<str>> = wishes.map(|term| &term.topology_key).collect();
        let nodes = &self.batch.fleet.nodes;
        let domains: BTreeSet<(Arc<str>, Arc<str>)> = keys
            .into_iter()
            .flat_map(|key| nodes.iter().map(move |node| (key, node.labels.get_shared(key))))
            .filter_map(|(key, value)| Some((key.clone(), value?.clone())))
            .collect();
        let first = self.bound.len();
        for domain in domains.iter().take(DOMAINS_MAX) {
            let fates: Vec<Fate> =
                turn.iter().map(|&index| self.place_one(index, Some(domain))).collect();
            if fates.iter().all(|fate| matches!(fate, Fate::Placed(..))) {
                return Some(fates);
            }
            self.take_back(first);
        }
        None
    }

    /// Places a pod, on a node with this label where one is given.
    fn place_one(&mut self, index: usize, domain: Option<&(Arc<str>, Arc<str>)>) -> Fate {
        let pod = &self.batch.pods[index];
        let constraints = pod.kind.uncovered();
        if !constraints.is_empty() {
            return Fate::Refused(Refusal::Uncovered { constraints });
        }
        if let Some(fault) = &pod.kind.constraints.claim_fault {
            return Fate::Refused(Refusal::Claim(fault.clone()));
        }
        if let Err(invalid) = pod.kind.request.validate() {
            return Fate::Refused(Refusal::Invalid(invalid));
        }
        if self.is_spent() {
            let (examined, examined_max) = (self.examined, self.batch.examined_max);
            return Fate::Refused(Refusal::Postponed { examined, examined_max });
        }
        let nodes = self.fleet.nodes.len() as u64;
        self.examined += nodes.div_ceil(READ_PER_EXAMINED);
        let within;
        let wanted = match domain {
            None => &pod.kind,
            Some(domain) => {
                let mut kind = pod.kind.clone();
                Arc::make_mut(&mut kind.constraints).node_selector.push(domain.clone());
                within = kind;
                &within
            }
        };
        let kind = match self.kinds.get(wanted) {
            Some(&kind) => kind,
            None => {
                self.examined += nodes;
                let kind = self.board.add_kind(&self.fleet, wanted);
                self.kinds.insert(wanted.clone(), kind);
                kind
            }
        };
        let Some(assignment) = self.board.best(&self.fleet, kind) else {
            return Fate::NoRoom(kind);
        };
        self.bind(index, kind, assignment);
        Fate::Placed(kind, assignment)
    }

    fn bind(&mut self, index: usize, kind: KindIndex, assignment: Assignment) {
        self.fleet.bind(&self.batch.pods[index].kind, assignment);
        self.board.bound(kind, assignment.node);
        self.bound.push((index, kind, assignment));
    }

    /// Takes back all but the first `kept` that were bound.
    fn take_back(&mut self, kept: usize) {
        for (index, kind, assignment) in self.bound.drain(kept..).rev() {
            self.fleet.unbind(&self.batch.pods[index].kind, assignment);
            self.board.unbound(kind, assignment.node);
        }
    }

    fn start_again(&mut self) {
        self.take_back(0);
        self.fleet = self.batch.fleet.clone();
        self.board.restart(&self.fleet);
    }

    fn no_room(&mut self, index: usize, kind: KindIndex) -> Refusal {
        self.examined += self.fleet.nodes.len() as u64;
        let board = &mut self.board;
        let by_neighbors = |node| board.neighbor_obstacle(kind, node);
        no_room(&self.fleet, &self.batch.pods[index].kind, by_neighbors)
    }

    /// The results of `attempt`, where those without room are told what is left after it.
    fn explain(mut self, attempt: Attempt) -> Placed {
        self.start_again();
        for (index, fate) in attempt.fates.iter().enumerate() {
            if let Some(Fate::Placed(kind, assignment)) = fate {
                self.bind(index, *kind, *assignment);
            }
        }
        let mut refusals: BTreeMap<KindIndex, Refusal> = BTreeMap::new();
        let mut results = Vec::with_capacity(attempt.fates.len());
        for (index, fate) in attempt.fates.into_iter().enumerate() {
            results.push(match fate.expect("every pod is in one turn") {
                Fate::Placed(_, assignment) => Ok(assignment),
                Fate::Refused(refusal) => Err(refusal),
                Fate::NoRoom(kind) => Err(match refusals.get(&kind) {
                    Some(refusal) => refusal.clone(),
                    None => {
                        let refusal = self.no_room(index, kind);
                        refusals.insert(kind, refusal.clone());
                        refusal
                    }
                }),
            });
        }
        Placed { results, examined: self.examined }
    }
}
