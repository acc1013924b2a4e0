//! Tables about packing that are not of the openb benchmark.

mod churn;
mod mig;
mod optimum;
mod speed;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

/// Prints one table, and fails where it does not hold.
#[derive(Parser)]
struct Options {
    /// Which.
    #[command(subcommand)]
    table: Table,
    /// Seed of everything random.
    #[arg(long, global = true, default_value_t = 1)]
    seed: u64,
    /// Folder of the openb trace.
    #[arg(long, global = true, default_value = "../shared/data/openb")]
    traces: PathBuf,
    /// Write the table as JSON to this file.
    #[arg(long, global = true)]
    out: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Table {
    /// Every reachable MIG occupancy of every model against brute force.
    MigMasks,
    /// MIG instances on a stream of requests: ours against first fit and order of names.
    Mig,
    /// Joint placement against the optimum on all tiny clusters.
    Optimum,
    /// Arrivals and departures of the openb trace on a shrunken fleet.
    Churn,
    /// The time of one decision.
    Speed,
}

/// A table that was printed.
pub struct Printed {
    /// The same as JSON.
    pub json: serde_json::Value,
    /// The lines that do not hold.
    pub broken: Vec<String>,
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let printed = match options.table {
        Table::MigMasks => mig::masks(),
        Table::Mig => mig::stream(options.seed),
        Table::Optimum => optimum::table(),
        Table::Churn => churn::table(&options.traces, options.seed)?,
        Table::Speed => speed::table(options.seed),
    };
    if let Some(out) = &options.out {
        std::fs::write(out, serde_json::to_string_pretty(&printed.json)?)
            .with_context(|| format!("write {}", out.display()))?;
    }
    for line in &printed.broken {
        println!("does not hold: {line}");
    }
    Ok(if printed.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
