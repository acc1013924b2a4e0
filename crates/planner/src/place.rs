//! Places pods jointly.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::board::{Board, KindIndex};
use crate::demand::Demand;
use crate::fleet::{Assignment, Fleet};
use crate::refusal::{Refusal, no_room};
use crate::request::{Pod, PodKind};
use crate::strategy::{Scorer, Strategy};

/// Places `pods` on what `fleet` has free; the results are in the order of `pods`.
///
/// Pods of higher priority are placed first, then those of more GPU, then in the order given. A
/// gang takes the turn of its first member and is placed whole or not at all. `demand` is the
/// distribution of requests to prepare for; empty, the pods themselves stand for it.
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
    let mut table = Placing {
        board: Board::new(Scorer::new(strategy, demand, fleet), fleet),
        fleet: fleet.clone(),
        kinds: BTreeMap::new(),
    };
    let mut results: Vec<Option<Result<Assignment, Refusal>>> = vec![None; pods.len()];
    for turn in turns(pods) {
        let placed = table.place_all(pods, &turn);
        match placed {
            Ok(assignments) => {
                for (&index, assignment) in turn.iter().zip(assignments) {
                    results[index] = Some(Ok(assignment));
                }
            }
            Err((found_room, refused, because)) => {
                for &index in &turn {
                    let refusal = match &pods[index].gang {
                        None => because.clone(),
                        Some(gang) => Refusal::Gang {
                            gang: gang.clone(),
                            members: turn.len() as u32,
                            found_room,
                            first_refused: pods[refused].name.clone(),
                            because: Box::new(because.clone()),
                        },
                    };
                    results[index] = Some(Err(refusal));
                }
            }
        }
    }
    results.into_iter().map(|result| result.expect("every pod is in one turn")).collect()
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
        (Reverse(pod.priority), Reverse(pod.kind.request.gpu_milli()), index)
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

struct Placing {
    board: Board,
    fleet: Fleet,
    kinds: BTreeMap<PodKind, KindIndex>,
}

impl Placing {
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
                        self.board.changed(assignment.node);
                    }
                    return Err((found_room, index, refusal));
                }
            }
        }
        Ok(done.into_iter().map(|(_, assignment)| assignment).collect())
    }

    fn place_one(&mut self, pod: &Pod) -> Result<Assignment, Refusal> {
        if !pod.uncovered.is_empty() {
            return Err(Refusal::Uncovered { constraints: pod.uncovered.clone() });
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
        let Some(assignment) = self.board.best(&self.fleet, kind) else {
            return Err(no_room(&self.fleet, &pod.kind));
        };
        self.fleet.take(&pod.kind.request, assignment);
        self.board.changed(assignment.node);
        Ok(assignment)
    }
}
