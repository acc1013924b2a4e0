//! Packing quality on the openb trace: how much of the GPUs is allocated at each load.

mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use benches::replay::{Case, Knowledge, capacity_milli, mean};
use benches::trace;
use clap::Parser;
use gpu_autoscaler_planner::strategy::Strategy;

/// Replays arrivals on a fleet and prints the allocation at each load.
#[derive(Parser)]
struct Options {
    /// Node list (CSV: sn, cpu_milli, memory_mib, gpu, model).
    #[arg(long, required_unless_present = "traces")]
    nodes: Option<PathBuf>,
    /// Pod list (CSV: name, cpu_milli, memory_mib, num_gpu, gpu_milli and optionally gpu_spec).
    #[arg(long, required_unless_present = "traces")]
    pods: Option<PathBuf>,
    /// Arrival sequences, one line per seed; all are run and averaged.
    #[arg(long)]
    sequence: Option<PathBuf>,
    /// Seed of an arrival order of our own, where no sequence is given.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Packing strategy: default, fgd, bestFit, firstFit, worstFit or random.
    #[arg(long, default_value = "default")]
    policy: Strategy,
    /// Learn the distribution of requests from the arrivals, instead of being given it.
    #[arg(long)]
    learned: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Print the table of all traces of this folder, and fail where it does not hold.
    #[arg(long, conflicts_with_all = ["nodes", "pods", "sequence"])]
    traces: Option<PathBuf>,
    /// Only these traces of the folder.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these columns of the table.
    #[arg(long, value_delimiter = ',')]
    columns: Vec<String>,
    /// Write the table as JSON to this file.
    #[arg(long)]
    out: Option<PathBuf>,
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    if let Some(traces) = &options.traces {
        let sources = table::Sources {
            traces,
            only: &options.only,
            columns: &options.columns,
            seed: options.seed,
        };
        let (json, broken) = table::table(&sources)?;
        if let Some(out) = &options.out {
            std::fs::write(out, serde_json::to_string_pretty(&json)?)
                .with_context(|| format!("write {}", out.display()))?;
        }
        for line in &broken {
            println!("does not hold: {line}");
        }
        return Ok(if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let nodes = options.nodes.context("--nodes is missing")?;
    let fleet = trace::read_nodes(&nodes)?;
    let pods = trace::read_pods(&options.pods.context("--pods is missing")?)?;
    let arrivals = match &options.sequence {
        Some(path) => trace::read_sequence(path, pods.len())?,
        None => vec![trace::shuffled(options.seed, &pods, capacity_milli(&fleet), 1.3)],
    };
    let knowledge = if options.learned { Knowledge::Learned } else { Knowledge::Given };
    let case = Case { fleet: &fleet, pods: &pods, strategy: options.policy, knowledge };
    let mean = mean(&case, &arrivals);
    if options.json {
        let by_load: serde_json::Map<String, serde_json::Value> =
            (50..=130).map(|load| (load.to_string(), serde_json::json!(mean[load]))).collect();
        println!("{}", serde_json::json!({ "allocation_percent": by_load }));
    } else {
        for load in [50, 80, 90, 95, 100, 110, 130] {
            println!("{load:>3} %: {:.2}", mean[load]);
        }
    }
    Ok(ExitCode::SUCCESS)
}
