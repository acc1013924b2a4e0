//! Arrivals and departures of the openb trace on a shrunken fleet.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Result;
use benches::trace::{self, Life, Random};
use gpu_autoscaler_planner::board::{Board, KindIndex};
use gpu_autoscaler_planner::demand::Demand;
use gpu_autoscaler_planner::fleet::{Assignment, Fleet};
use gpu_autoscaler_planner::request::PodKind;
use gpu_autoscaler_planner::strategy::{Scorer, Strategy};

use crate::Printed;

/// The fleet is shrunk to hold this part of the time-averaged demand.
const CAPACITY_OF_MEAN: f64 = 1.1;
/// Orders of the fleet's nodes that are averaged.
const ORDERS: u64 = 5;

const STRATEGIES: [(&str, Strategy); 4] = [
    ("default", Strategy::Default),
    ("fgd", Strategy::Fgd),
    ("bestFit", Strategy::BestFit),
    ("random", Strategy::Random { seed: 1 }),
];

/// Sums over the trace.
#[derive(Default)]
struct Sums {
    /// Thousandths of GPU allocated x seconds.
    allocated: f64,
    /// Empty nodes x seconds.
    empty_nodes: f64,
    /// Thousandths of GPU that waited x seconds.
    waiting: f64,
}

fn milli(kind: &PodKind) -> f64 {
    f64::from(kind.request.gpu_milli())
}

/// Every `n`th node of the fleet in random order, so that what is left has the capacity.
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

fn run(fleet: &Fleet, lives: &[Life], strategy: Strategy, from: u64, to: u64) -> Sums {
    let mut fleet = fleet.clone();
    let mut demand = Demand::default();
    lives.iter().for_each(|life| demand.observe(&life.pod.kind.request));
    let mut board = Board::new(Scorer::new(strategy, &demand, &fleet), &fleet);
    let mut kinds: BTreeMap<&PodKind, KindIndex> = BTreeMap::new();
    let mut events: BTreeSet<(u64, bool, usize)> =
        lives.iter().enumerate().map(|(index, life)| (life.created, true, index)).collect();
    let mut running: BTreeMap<usize, Assignment> = BTreeMap::new();
    let mut waiting: BTreeSet<usize> = BTreeSet::new();
    let mut sums = Sums::default();
    let (mut last, mut allocated) = (from, 0.0);
    let empty_at_start: Vec<_> = fleet.nodes.iter().map(|node| node.free).collect();
    while let Some((now, arrival, index)) = events.pop_first() {
        let now_counted = now.clamp(from, to);
        let held = (now_counted - last.min(now_counted)) as f64;
        let empty =
            fleet.nodes.iter().zip(&empty_at_start).filter(|(node, full)| node.free == **full);
        sums.allocated += allocated * held;
        sums.empty_nodes += empty.count() as f64 * held;
        sums.waiting += waiting.iter().map(|&w| milli(&lives[w].pod.kind)).sum::<f64>() * held;
        last = now_counted.max(last);
        if arrival {
            waiting.insert(index);
        } else if let Some(assignment) = running.remove(&index) {
            allocated -= milli(&lives[index].pod.kind);
            fleet.give_back(&lives[index].pod.kind.request, assignment);
            board.changed(assignment.node);
        }
        // First come, first served, but who does not fit lets the next one try.
        for index in waiting.clone() {
            let kind = &lives[index].pod.kind;
            let number = *kinds.entry(kind).or_insert_with(|| board.add_kind(&fleet, kind));
            if let Some(assignment) = board.best(&fleet, number, None) {
                fleet.take(&kind.request, assignment);
                board.changed(assignment.node);
                allocated += milli(kind);
                waiting.remove(&index);
                running.insert(index, assignment);
                events.insert((now + lives[index].seconds, false, index));
            }
        }
    }
    sums
}

/// Prints time-averaged allocation, nodes that could be off, and GPU that waited.
pub fn table(traces: &Path, seed: u64) -> Result<Printed> {
    if !traces.is_dir() {
        println!("skipped: {} absent", traces.display());
        return Ok(Printed { json: serde_json::json!({ "skipped": true }), broken: Vec::new() });
    }
    let fleet = trace::read_nodes(&traces.join("csv/openb_node_list_gpu_node.csv"))?;
    let lives = trace::read_lives(&traces.join("csv/openb_pod_list_default.csv"))?;
    let lives: Vec<Life> = lives.into_iter().filter(|life| life.seconds > 0).collect();
    // Most pods come in the last part of the trace: the middle 80 % of arrivals are measured.
    let mut created: Vec<u64> = lives.iter().map(|life| life.created).collect();
    created.sort_unstable();
    let (from, to) = (created[created.len() / 10], created[created.len() * 9 / 10]);
    let in_window = |life: &Life| {
        let end = (life.created + life.seconds).min(to);
        end.saturating_sub(life.created.max(from)) as f64 * milli(&life.pod.kind)
    };
    let mean = lives.iter().map(in_window).sum::<f64>() / (to - from) as f64;
    let mut rows = Vec::new();
    println!(
        "openb default, {} pods, {:.1} days; fleets of {CAPACITY_OF_MEAN} x the mean demand of \
         {:.0} GPUs",
        lives.len(),
        (to - from) as f64 / 86_400.0,
        mean / 1000.0
    );
    println!(
        "{:<10} {:>12} {:>14} {:>16} {:>12}",
        "strategy", "allocated", "nodes empty", "GPUs waiting", "nodes"
    );
    for (name, strategy) in STRATEGIES {
        let (mut allocated, mut empty, mut waiting, mut nodes) = (0.0, 0.0, 0.0, 0.0);
        for order in 0..ORDERS {
            let fleet = shrunk(&fleet, CAPACITY_OF_MEAN * mean, seed * 1_000 + order);
            let capacity: f64 = fleet.nodes.iter().map(|n| f64::from(n.gpu_free_milli())).sum();
            let sums = run(&fleet, &lives, strategy, from, to);
            let time = (to - from) as f64 * ORDERS as f64;
            allocated += 100.0 * sums.allocated / capacity / time;
            empty += sums.empty_nodes / time;
            waiting += sums.waiting / 1000.0 / time;
            nodes += fleet.nodes.len() as f64 / ORDERS as f64;
        }
        println!("{name:<10} {allocated:>10.2} % {empty:>14.2} {waiting:>16.2} {nodes:>12.1}");
        rows.push(serde_json::json!({
            "strategy": name, "allocated_percent": allocated, "nodes_empty": empty,
            "gpus_waiting": waiting, "nodes": nodes,
        }));
    }
    Ok(Printed { json: serde_json::json!({ "rows": rows, "broken": [] }), broken: Vec::new() })
}
