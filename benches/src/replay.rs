//! Replays arrivals on a fleet, as the FGD simulator does: no departures, and a pod that does not
//! fit is dropped but counts as arrived.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use gpu_autoscaler_planner::board::{Board, KindIndex};
use gpu_autoscaler_planner::demand::Demand;
use gpu_autoscaler_planner::fleet::Fleet;
use gpu_autoscaler_planner::request::{Pod, PodKind};
use gpu_autoscaler_planner::strategy::{Scorer, Strategy};

use crate::trace::{Arrivals, Random};

/// Loads up to this percentage of the fleet's GPUs are recorded.
pub const LOAD_MAX: usize = 130;

/// The outlook is drawn up anew when this part of the demand is new.
const LEARN_EVERY_PART: u64 = 8;

/// From where a strategy knows the distribution of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knowledge {
    /// From the whole pod list, as the published policy does.
    Given,
    /// From the arrivals so far.
    Learned,
}

/// What a replay is of.
pub struct Case<'a> {
    /// The nodes, all free.
    pub fleet: &'a Fleet,
    /// The pod list.
    pub pods: &'a [Pod],
    /// The strategy.
    pub strategy: Strategy,
    /// What it knows.
    pub knowledge: Knowledge,
}

/// GPUs of a fleet, in thousandths.
pub fn capacity_milli(fleet: &Fleet) -> u64 {
    fleet.nodes.iter().map(|node| u64::from(node.gpu_free_milli())).sum()
}

/// Allocation in percent of all GPUs at each load from 0 to [`LOAD_MAX`]: the mean over all
/// arrivals after which the arrived GPUs round to that load.
pub fn replay(case: &Case<'_>, arrivals: &Arrivals) -> Vec<f64> {
    let mut fleet = case.fleet.clone();
    // The simulator gives nodes random prefixes, and the smallest name wins a tie.
    Random(arrivals.seed).shuffle(&mut fleet.nodes);
    let capacity = capacity_milli(&fleet);
    let strategy = match case.strategy {
        Strategy::Random { .. } => Strategy::Random { seed: arrivals.seed },
        other => other,
    };
    let mut demand = Demand::default();
    if case.knowledge == Knowledge::Given {
        case.pods.iter().for_each(|pod| demand.observe(&pod.kind.request));
    }
    let mut board = Board::new(Scorer::new(strategy, &demand, &fleet), &fleet);
    let mut learn_at = 1;
    let mut kinds: BTreeMap<&PodKind, KindIndex> = BTreeMap::new();
    let (mut arrived, mut used) = (0_u64, 0_u64);
    let mut at_load = vec![(0.0, 0_u32); LOAD_MAX + 1];
    for &index in &arrivals.order {
        let kind = &case.pods[index].kind;
        let milli = u64::from(kind.request.gpu_milli());
        arrived += milli;
        if case.knowledge == Knowledge::Learned {
            demand.observe(&kind.request);
            if demand.len() >= learn_at {
                learn_at = demand.len() + demand.len() / LEARN_EVERY_PART + 1;
                board.set_scorer(Scorer::new(strategy, &demand, &fleet), &fleet);
            }
        }
        let kind_index = *kinds.entry(kind).or_insert_with(|| board.add_kind(&fleet, kind));
        if let Some(assignment) = board.best(&fleet, kind_index) {
            fleet.bind(kind, assignment);
            board.bound(kind_index, assignment.node);
            used += milli;
        }
        let percent = |milli: u64| 100.0 * milli as f64 / capacity as f64;
        if let Some((sum, count)) = at_load.get_mut(percent(arrived).round() as usize) {
            *sum += percent(used);
            *count += 1;
        }
    }
    // A load that no arrival rounds to has the allocation of the load before it.
    let mut last = 0.0;
    let mean = |&(sum, count): &(f64, u32)| {
        if count > 0 {
            last = sum / f64::from(count);
        }
        last
    };
    at_load.iter().map(mean).collect()
}

/// The mean of [`replay`] over all orders of arrival.
pub fn mean(case: &Case<'_>, arrivals: &[Arrivals]) -> Vec<f64> {
    let next = AtomicUsize::new(0);
    let workers = thread::available_parallelism().map_or(1, |n| n.get()).min(arrivals.len());
    let mut runs: Vec<(usize, Vec<f64>)> = thread::scope(|scope| {
        let worker = || {
            let mut done = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(order) = arrivals.get(index) else { return done };
                done.push((index, replay(case, order)));
            }
        };
        let handles: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        handles.into_iter().flat_map(|handle| handle.join().expect("no replay panics")).collect()
    });
    // Summed in the order of the seeds, so that the sum does not depend on the threads.
    runs.sort_by_key(|&(index, _)| index);
    let mut mean = vec![0.0; LOAD_MAX + 1];
    for (_, run) in &runs {
        mean.iter_mut().zip(run).for_each(|(mean, value)| *mean += value);
    }
    mean.iter_mut().for_each(|mean| *mean /= runs.len() as f64);
    mean
}
