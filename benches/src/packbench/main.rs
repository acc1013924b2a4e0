//! Packing quality on the openb trace: how much of the GPUs is allocated at each load.

mod trace;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use gpu_autoscaler_planner::board::{Board, KindIndex};
use gpu_autoscaler_planner::demand::Demand;
use gpu_autoscaler_planner::fleet::Fleet;
use gpu_autoscaler_planner::request::{Pod, PodKind};
use gpu_autoscaler_planner::strategy::{Scorer, Strategy};
use trace::{Arrivals, Random};

/// Replays arrivals on a fleet and prints the allocation at each load.
#[derive(Parser)]
struct Options {
    /// Node list.
    #[arg(long)]
    nodes: PathBuf,
    /// Pod list.
    #[arg(long)]
    pods: PathBuf,
    /// Arrival sequences, one line per seed; all are run and averaged.
    #[arg(long)]
    sequence: Option<PathBuf>,
    /// Seed of an arrival order of our own, where no sequence is given.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Packing strategy.
    #[arg(long, default_value = "default")]
    policy: Strategy,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Allocation in percent of all GPUs, averaged over all arrivals that round to the load.
fn replay(fleet: &Fleet, pods: &[Pod], arrivals: &Arrivals, strategy: Strategy) -> Vec<f64> {
    let mut demand = Demand::default();
    for pod in pods {
        demand.observe(&pod.kind.request);
    }
    let mut fleet = fleet.clone();
    // The simulator gives nodes random prefixes, and the smallest name wins a tie.
    Random(arrivals.seed).shuffle(&mut fleet.nodes);
    let capacity: u64 = fleet.nodes.iter().map(|node| u64::from(node.gpu_free_milli())).sum();
    let strategy = match strategy {
        Strategy::Random { .. } => Strategy::Random { seed: arrivals.seed },
        other => other,
    };
    let mut board = Board::new(Scorer::new(strategy, &demand, &fleet));
    let mut kinds: BTreeMap<PodKind, KindIndex> = BTreeMap::new();
    let kind_of: Vec<KindIndex> = pods
        .iter()
        .map(|pod| {
            *kinds.entry(pod.kind.clone()).or_insert_with(|| board.add_kind(&fleet, &pod.kind))
        })
        .collect();
    let (mut arrived, mut used) = (0_u64, 0_u64);
    let mut sums = vec![(0.0, 0_u32); 131];
    for &index in &arrivals.order {
        let request = &pods[index].kind.request;
        let milli = u64::from(request.gpu_milli());
        arrived += milli;
        if let Some(assignment) = board.best(&fleet, kind_of[index]) {
            fleet.take(request, assignment);
            board.changed(assignment.node);
            used += milli;
        }
        let load = (100.0 * arrived as f64 / capacity as f64).round() as usize;
        if let Some((sum, count)) = sums.get_mut(load) {
            *sum += 100.0 * used as f64 / capacity as f64;
            *count += 1;
        }
    }
    let mut last = 0.0;
    sums.iter()
        .map(|&(sum, count)| {
            if count > 0 {
                last = sum / f64::from(count);
            }
            last
        })
        .collect()
}

fn main() -> Result<()> {
    let options = Options::parse();
    let fleet = trace::read_nodes(&options.nodes)?;
    let pods = trace::read_pods(&options.pods)?;
    let capacity: u64 = fleet.nodes.iter().map(|node| u64::from(node.gpu_free_milli())).sum();
    let arrivals = match &options.sequence {
        Some(path) => trace::read_sequence(path, pods.len())?,
        None => vec![trace::shuffled(options.seed, &pods, capacity, 1.3)],
    };
    let mut mean = vec![0.0; 131];
    for arrivals in &arrivals {
        for (mean, value) in mean.iter_mut().zip(replay(&fleet, &pods, arrivals, options.policy)) {
            *mean += value;
        }
    }
    mean.iter_mut().for_each(|m| *m /= arrivals.len() as f64);
    let by_load: serde_json::Map<String, serde_json::Value> =
        (50..=130).map(|load| (load.to_string(), serde_json::json!(mean[load]))).collect();
    if options.json {
        println!("{}", serde_json::json!({ "allocation_percent": by_load }));
    } else {
        for load in [80, 90, 95, 100, 110, 130] {
            print!("{load}: {:.2}  ", mean[load]);
        }
        println!();
    }
    Ok(())
}
