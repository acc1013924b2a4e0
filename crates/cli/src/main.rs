//! The command line of GPU Autoscaler: all text that a person reads.
//!
//! Standard output is data, standard error is talk. Nothing is decided here: `plan` calls the
//! same functions as the controller.

mod advice;
mod completions;
mod convert;
mod cost;
mod demo;
mod doctor;
mod exit;
mod explain;
mod fleet;
mod fleet_table;
mod gather;
mod input;
mod lint;
mod optimize;
mod output;
mod plan;
mod progress;
#[cfg(test)]
mod reference;
mod replay;
mod report;
mod source;
mod status;
mod version;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// See what every GPU of a fleet is used for, what it costs, and what would save money.
#[derive(Parser)]
#[command(
    name = "gpu-autoscaler",
    version,
    about,
    disable_help_subcommand = true,
    max_term_width = 100,
    after_help = exit::HELP
)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a simulated cluster and show what is found in it; no cluster is needed.
    Demo(demo::DemoArgs),
    /// Judge a dump of a cluster without touching the cluster.
    Plan(plan::PlanArgs),
    /// Show what every GPU is used for.
    Status(status::StatusArgs),
    /// Say what would be done about every waste, why, and what it saves; nothing is done.
    Optimize(optimize::OptimizeArgs),
    /// Executive summary, utilization, cost and opportunities.
    Report(report::ReportArgs),
    /// Show every number of one pod or node, where it is from, and why this was decided.
    Explain(explain::ExplainArgs),
    /// Show what the fleet costs now; what was spent is not known in this release.
    Cost(Box<cost::CostArgs>),
    /// Let a recording run through the loop, and show what it would have found and done, and when.
    Replay(replay::ReplayArgs),
    /// Check what is needed for a number: cluster, rights, labels, prices, metrics, clocks.
    Doctor(doctor::DoctorArgs),
    /// Say what is wrong with our resources before an API server sees them.
    Lint(lint::LintArgs),
    /// Rewrite our resources from the spellings of earlier releases.
    Convert(convert::ConvertArgs),
    /// Print what a shell needs to complete commands and flags.
    Completions(completions::CompletionsArgs),
    /// Print the version.
    Version(version::VersionArgs),
}

fn main() -> ExitCode {
    let result = match Args::parse().command {
        Command::Demo(args) => demo::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Optimize(args) => optimize::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Cost(args) => cost::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Lint(args) => lint::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Version(args) => version::run(&args),
    };
    match result {
        Ok(exit) => exit.into(),
        Err(error) => exit::report(&error).into(),
    }
}
