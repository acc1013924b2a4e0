//! Places pods jointly.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::board::{Board, KindIndex};
use crate::demand::Demand;
use crate::fleet::{Assignment, Fleet, Tenant};
use crate::neighborhood::Neighborhood;
use crate::refusal::{Refusal, no_room};
use crate::request::{Pod, PodKind};
use crate::strategy::{Scorer, Strategy};

/// Orders in which a batch with refused pods is tried again.
///
/// On all tiny clusters (`packshow optimum`) more than a handful finds nothing more.
const ROUNDS_MAX: usize = 8;

/// Placements that trying again may cost, over all rounds.
const RETRIED_PODS_MAX: usize = 4_096;

/// Places `pods` on what `fleet` has free; the results are in the order of `pods`.
///
/// Pods of higher priority are placed first, then those of more GPU, then of more processor, then
/// in the order given. A gang takes the turn of its first member and is placed whole or not at
/// all. Where some find no room, they are tried first among those of their priority, a bounded
/// number of times, and the best outcome is taken. `demand` is the distribution of requests to
/// prepare for; empty, the pods themselves stand for it.
///
/// A kubelet may pick any of equal devices, so on nodes where it does ([`GpuPicker::Kubelet`])
/// the devices of an assignment are an example of what is counted, not a promise.
///
/// [`GpuPicker::Kubelet`]: crate::fleet::GpuPicker::Kubelet
pub fn place(
    pods: &[Pod],
    fleet: &Fleet,
    demand: &Demand,
    strategy: Strategy,
) -> Vec<Result<Assignment, Refusal>> {
    let learned;
    let demand = if demand.is_empty() {
        learned = demand_of(pods);
        &learned
    } else {
        demand
    };
    let empty = Placing {
        board: Board::new(Scorer::new(strategy, demand, fleet), fleet),
        fleet: fleet.clone(),
        kinds: BTreeMap::new(),
    };
    let mut turns = turns(pods);
    let mut best = empty.clone().place_turns(pods, &turns);
    let mut last_refused = best.refused_turns.clone();
    let rounds = ROUNDS_MAX.min(RETRIED_PODS_MAX / pods.len().max(1));
    for _ in 0..rounds {
        if last_refused.is_empty() {
            break;
        }
        turns = promoted(pods, &turns, &last_refused);
        let next = empty.clone().place_turns(pods, &turns);
        last_refused = next.refused_turns.clone();
        if next.value > best.value {
            best = next;
        }
    }
    best.results.into_iter().map(|result| result.expect("every pod is in one turn")).collect()
}

/// The outcome of one order.
struct Attempt {
    results: Vec<Option<Result<Assignment, Refusal>>>,
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

/// The pods in the order of placement, members of a gang together.
fn turns(pods: &[Pod]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..pods.len()).collect();
    order.sort_by_key(|&index| {
        let pod = &pods[index];
        let request = &pod.kind.request;
        (Reverse(pod.priority), Reverse(request.gpu_milli()), Reverse(request.cpu_milli), index)
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

#[derive(Clone)]
struct Placing {
    board: Board,
    fleet: Fleet,
    kinds: BTreeMap<PodKind, KindIndex>,
}

impl Placing {
    fn place_turns(mut self, pods: &[Pod], turns: &[Vec<usize>]) -> Attempt {
        let mut results: Vec<Option<Result<Assignment, Refusal>>> = vec![None; pods.len()];
        let mut refused_turns = Vec::new();
        let mut value: BTreeMap<Reverse<i32>, (u64, u32)> = BTreeMap::new();
        for (number, turn) in turns.iter().enumerate() {
            match self.place_all(pods, turn) {
                Ok(assignments) => {
                    for (&index, assignment) in turn.iter().zip(assignments) {
                        let (milli, count) =
                            value.entry(Reverse(pods[index].priority)).or_default();
                        *milli += u64::from(pods[index].kind.request.gpu_milli());
                        *count += 1;
                        results[index] = Some(Ok(assignment));
                    }
                }
                Err((found_room, refused, because)) => {
                    if matches!(because, Refusal::NoRoom { .. }) {
                        refused_turns.push(number);
                    }
                    for &index in turn {
                        let refusal =
                            refusal_of(pods, index, turn, (found_room, refused, &because));
                        results[index] = Some(Err(refusal));
                    }
                }
            }
        }
        let value = value
            .into_iter()
            .map(|(Reverse(priority), (milli, count))| (priority, milli, count))
            .collect();
        Attempt { results, refused_turns, value }
    }

    /// Places all of `turn` or none. On refusal: how many found room, which did not, and why.
    fn place_all(
        &mut self,
        pods: &[Pod],
        turn: &[usize],
    ) -> Result<Vec<Assignment>, (u32, usize, Refusal)> {
        let mut done: Vec<(usize, Assignment)> = Vec::new();
        for &index in turn {
            match self.place_one(&pods[index]) {
                Ok(assignment) => done.push((index, assignment)),
                Err(refusal) => {
                    // At most as many as there are pods, which are counted in 32 bits.
                    let found_room = done.len() as u32;
                    for (index, assignment) in done.into_iter().rev() {
                        self.fleet.give_back(&pods[index].kind.request, assignment);
                        // The last to come is the first to go.
                        self.fleet.nodes[assignment.node.0 as usize].tenants.pop();
                        self.board.changed(assignment.node);
                    }
                    return Err((found_room, index, refusal));
                }
            }
        }
        Ok(done.into_iter().map(|(_, assignment)| assignment).collect())
    }

    fn place_one(&mut self, pod: &Pod) -> Result<Assignment, Refusal> {
        let uncovered = &pod.kind.constraints.uncovered;
        if !uncovered.is_empty() {
            return Err(Refusal::Uncovered { constraints: uncovered.clone() });
        }
        pod.kind.request.validate().map_err(Refusal::Invalid)?;
        let kind = match self.kinds.get(&pod.kind) {
            Some(&kind) => kind,
            None => {
                let kind = self.board.add_kind(&self.fleet, &pod.kind);
                self.kinds.insert(pod.kind.clone(), kind);
                kind
            }
        };
        let neighborhood = Neighborhood::of(&self.fleet, &pod.kind);
        let Some(assignment) = self.board.best(&self.fleet, kind, neighborhood.as_ref()) else {
            return Err(no_room(&self.fleet, &pod.kind, neighborhood.as_ref()));
        };
        self.fleet.take(&pod.kind.request, assignment);
        let tenant = Tenant::of(&pod.kind.identity, &pod.kind.constraints);
        self.fleet.nodes[assignment.node.0 as usize].tenants.push(tenant);
        self.board.changed(assignment.node);
        Ok(assignment)
    }
}

fn refusal_of(
    pods: &[Pod],
    index: usize,
    turn: &[usize],
    (found_room, refused, because): (u32, usize, &Refusal),
) -> Refusal {
    match &pods[index].gang {
        None => because.clone(),
        Some(gang) => Refusal::Gang {
            gang: gang.clone(),
            // At most as many as there are pods, which are counted in 32 bits.
            members: turn.len() as u32,
            found_room,
            first_refused: pods[refused].name.clone(),
            because: Box::new(because.clone()),
        },
    }
}
