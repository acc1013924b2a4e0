//! Arrivals and departures on a shrunken fleet: the pods of the openb trace with their own run
//! times, at a rate that fills the fleet. At the trace's own rate 65 GPUs are the most in use.
//! One row repacks every hour.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use anyhow::Result;
use benches::trace::{self, Life, Random};
use gpu_autoscaler_planner::board::{Board, KindIndex};
use gpu_autoscaler_planner::demand::Demand;
use gpu_autoscaler_planner::fleet::{Assignment, Fleet};
use gpu_autoscaler_planner::repack::{Limits, Running, repack};
use gpu_autoscaler_planner::request::PodKind;
use gpu_autoscaler_planner::strategy::{Scorer, Strategy};

use crate::Printed;

/// The part of the fleet that is kept.
const FLEET_PART: f64 = 0.25;
/// Mean demand as a part of the GPUs. More than all of them has no steady state.
const LOADS: [f64; 2] = [0.7, 0.9];
/// Arrivals of a run; the first half warms up.
const ARRIVALS: usize = 20_000;
/// Runs that are averaged, each with its own arrivals and order of nodes.
const RUNS: u64 = 3;

const STRATEGIES: [(&str, Strategy, usize); 4] = [
    ("default", Strategy::Default, 0),
    ("default, repacked", Strategy::Default, MOVES_PER_HOUR),
    ("fgd", Strategy::Fgd, 0),
    ("bestFit", Strategy::BestFit, 0),
];

/// Pods that may be moved in an hour.
const MOVES_PER_HOUR: usize = 20;
/// How often it is looked for what can be emptied, in milliseconds.
const REPACK_EVERY_MILLIS: u64 = 3_600_000;
/// For how long a node that is emptied is expected to stay so, in seconds.
const HORIZON_SECS: u64 = 3_600;
/// What a move loses, in seconds of the pod's GPUs: half of the time between two checkpoints of
/// half an hour, and five minutes to load. The trace tells nothing of either.
const MOVE_LOSS_SECS: u64 = 1_200;

/// Averages over a run.
#[derive(Default)]
struct Sums {
    /// Thousandths of GPU allocated, averaged over time.
    allocated: f64,
    /// Empty nodes, averaged over time.
    empty_nodes: f64,
    /// Thousandths of GPU that waited, averaged over time.
    waiting: f64,
    /// Pods that were moved, in an hour.
    moves: f64,
}

fn milli(kind: &PodKind) -> f64 {
    f64::from(kind.request.gpu_milli())
}

/// Nodes of the fleet in random order until they have the capacity.
fn shrunk(fleet: &Fleet, capacity_milli: f64, seed: u64) -> Fleet {
    let mut nodes = fleet.nodes.clone();
    Random(seed).shuffle(&mut nodes);
    let mut sum = 0.0;
    nodes.retain(|node| {
        let before = sum;
        sum += f64::from(node.gpu_free_milli());
        before < capacity_milli
    });
    Fleet { nodes }
}

/// A pod of a run.
struct Arrival {
    /// Milliseconds from the start.
    at: u64,
    /// Position in the list of lives.
    life: usize,
    /// For how long it runs, in milliseconds.
    millis: u64,
}

/// Draws arrivals at the rate that asks for `load` of the capacity on average. The run begins in
/// the middle of things: at its start come pods that have run for some part of their time, drawn
/// by how long they run, until they ask for the load.
fn arrivals(lives: &[Life], capacity_milli: f64, load: f64, random: &mut Random) -> Vec<Arrival> {
    // Between 0 and 1, from 53 uniform bits, and never 0.
    let uniform = |random: &mut Random| ((random.bits() >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
    let mut ends: Vec<f64> = Vec::new();
    for life in lives {
        ends.push(ends.last().copied().unwrap_or(0.0) + life.seconds as f64);
    }
    let total = ends.last().copied().unwrap_or(0.0);
    let mut all = Vec::new();
    let mut asked = 0.0;
    while asked < load * capacity_milli {
        let ticket = uniform(random) * total;
        let life = ends.partition_point(|&end| end < ticket).min(lives.len() - 1);
        asked += milli(&lives[life].pod.kind);
        let left = uniform(random) * lives[life].seconds as f64;
        all.push(Arrival { at: 0, life, millis: (left * 1e3) as u64 });
    }
    let work = lives.iter().map(|life| milli(&life.pod.kind) * life.seconds as f64).sum::<f64>();
    let gap = work / lives.len() as f64 / (load * capacity_milli);
    let mut now = 0.0;
    for _ in 0..ARRIVALS {
        now += -uniform(random).ln() * gap;
        let life = random.below(lives.len());
        let millis = lives[life].seconds * 1_000;
        all.push(Arrival { at: (now * 1e3) as u64, life, millis });
    }
    all
}

/// What runs, as repacking sees it, with the number of each arrival.
fn running_pods(
    lives: &[Life],
    order: &[Arrival],
    running: &BTreeMap<usize, Assignment>,
) -> (Vec<usize>, Vec<Running>) {
    let seen = |(&index, &place): (&usize, &Assignment)| {
        let pod = &lives[order[index].life].pod;
        let milli = u64::from(pod.kind.request.gpu_milli());
        let (name, kind) = (pod.name.clone(), pod.kind.clone());
        let move_loss = Some((milli * MOVE_LOSS_SECS).div_ceil(1_000));
        (index, Running { name, kind, place, gang: None, move_loss })
    };
    running.iter().map(seen).unzip()
}

fn run(
    fleet: &Fleet,
    lives: &[Life],
    order: &[Arrival],
    (strategy, moves_per_hour): (Strategy, usize),
) -> Sums {
    let mut fleet = fleet.clone();
    let mut demand = Demand::default();
    lives.iter().for_each(|life| demand.observe(&life.pod.kind.request));
    let mut board = Board::new(Scorer::new(strategy, &demand, &fleet), &fleet);
    let mut kinds: BTreeMap<&PodKind, KindIndex> = BTreeMap::new();
    let mut events: BTreeSet<(u64, bool, usize)> =
        order.iter().enumerate().map(|(index, arrival)| (arrival.at, true, index)).collect();
    let (from, to) = (order[order.len() - ARRIVALS / 2].at, order[order.len() - 1].at);
    let mut running: BTreeMap<usize, Assignment> = BTreeMap::new();
    let mut waiting: VecDeque<usize> = VecDeque::new();
    let mut sums = Sums::default();
    let (mut last, mut allocated, mut waits) = (0, 0.0, 0.0);
    let (mut moves, mut repack_at) = (0, REPACK_EVERY_MILLIS);
    while let Some((now, arrival, index)) = events.pop_first() {
        if last >= to {
            break;
        }
        let held = (now.clamp(from, to) - last.clamp(from, to)) as f64 / (to - from) as f64;
        let empty = fleet.nodes.iter().filter(|node| node.free == node.allocatable).count();
        sums.allocated += allocated * held;
        sums.empty_nodes += empty as f64 * held;
        sums.waiting += waits * held;
        last = now;
        if moves_per_hour > 0 && now >= repack_at {
            repack_at = now + REPACK_EVERY_MILLIS;
            let (numbers, pods) = running_pods(lives, order, &running);
            let limits = Limits { moves_max: moves_per_hour, horizon_secs: HORIZON_SECS };
            for step in repack(&fleet, &pods, &demand, limits).iter().flat_map(|e| &e.moves) {
                let (number, pod) = (numbers[step.pod], &pods[step.pod]);
                fleet.unbind(&pod.kind, pod.place);
                board.unbound(kinds[&pod.kind], pod.place.node);
                fleet.bind(&pod.kind, step.to);
                board.bound(kinds[&pod.kind], step.to.node);
                running.insert(number, step.to);
                moves += u32::from(now >= from);
            }
        }
        if arrival {
            waits += milli(&lives[order[index].life].pod.kind);
            waiting.push_back(index);
        } else if let Some(assignment) = running.remove(&index) {
            let kind = &lives[order[index].life].pod.kind;
            allocated -= milli(kind);
            fleet.unbind(kind, assignment);
            board.unbound(kinds[kind], assignment.node);
        }
        // First come, first served, but whoever does not fit lets the next one try.
        let mut refused: BTreeSet<&PodKind> = BTreeSet::new();
        waiting.retain(|&index| {
            let kind = &lives[order[index].life].pod.kind;
            if refused.contains(kind) {
                return true;
            }
            let number = *kinds.entry(kind).or_insert_with(|| board.add_kind(&fleet, kind));
            let Some(assignment) = board.best(&fleet, number) else {
                refused.insert(kind);
                return true;
            };
            fleet.bind(kind, assignment);
            board.bound(number, assignment.node);
            allocated += milli(kind);
            waits -= milli(kind);
            running.insert(index, assignment);
            events.insert((now + order[index].millis, false, index));
            false
        });
    }
    let hours = (to - from) as f64 / 3.6e6;
    Sums { moves: f64::from(moves) / hours, ..sums }
}

/// Prints time-averaged allocation, nodes that could be off, and GPUs that waited.
pub fn table(traces: &Path, seed: u64) -> Result<Printed> {
    if !traces.is_dir() {
        println!("skipped: {} absent", traces.display());
        return Ok(Printed { json: serde_json::json!({ "skipped": true }), broken: Vec::new() });
    }
    let whole = trace::read_nodes(&traces.join("csv/openb_node_list_gpu_node.csv"))?;
    let lives = trace::read_lives(&traces.join("csv/openb_pod_list_default.csv"))?;
    let lives: Vec<Life> = lives.into_iter().filter(|life| life.seconds > 0).collect();
    let all: f64 = whole.nodes.iter().map(|node| f64::from(node.gpu_free_milli())).sum();
    let mut rows = Vec::new();
    println!(
        "openb default, {} pods and their run times, a quarter of the fleet, {ARRIVALS} arrivals",
        lives.len()
    );
    println!(
        "{:>6} {:<18} {:>12} {:>14} {:>16} {:>10} {:>8}",
        "load", "strategy", "allocated", "nodes empty", "GPUs waiting", "moves/h", "nodes"
    );
    for load in LOADS {
        for (name, strategy, moves_per_hour) in STRATEGIES {
            let (mut allocated, mut empty, mut waiting, mut nodes) = (0.0, 0.0, 0.0, 0.0);
            let mut moves = 0.0;
            for number in 0..RUNS {
                let mut random = Random(seed * 1_000 + number);
                let fleet = shrunk(&whole, FLEET_PART * all, random.bits());
                let capacity: f64 = fleet.nodes.iter().map(|n| f64::from(n.gpu_free_milli())).sum();
                let order = arrivals(&lives, capacity, load, &mut random);
                let sums = run(&fleet, &lives, &order, (strategy, moves_per_hour));
                moves += sums.moves / RUNS as f64;
                allocated += 100.0 * sums.allocated / capacity / RUNS as f64;
                empty += sums.empty_nodes / RUNS as f64;
                waiting += sums.waiting / 1000.0 / RUNS as f64;
                nodes += fleet.nodes.len() as f64 / RUNS as f64;
            }
            println!(
                "{load:>6.2} {name:<18} {allocated:>10.2} % {empty:>14.1} {waiting:>16.1} \
                 {moves:>10.1} {nodes:>8.0}"
            );
            rows.push(serde_json::json!({
                "load": load, "strategy": name, "allocated_percent": allocated,
                "nodes_empty": empty, "gpus_waiting": waiting, "moves_per_hour": moves,
                "nodes": nodes,
            }));
        }
    }
    Ok(Printed { json: serde_json::json!({ "rows": rows, "broken": [] }), broken: Vec::new() })
}
