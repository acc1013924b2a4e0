//! `status`.

use anyhow::Result;
use clap::Args;
use gpu_autoscaler_reconciler::Policy;

use crate::exit::Exit;
use crate::fleet::Fleet;
use crate::fleet_table;
use crate::output::{self, Format, OutputArgs};
use crate::source::{self, SourceArgs};

/// Arguments of `status`.
#[derive(Args)]
#[command(after_help = source::HELP)]
pub struct StatusArgs {
    /// Only pods of this namespace; sums stay those of the fleet.
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Shows what every GPU is used for.
pub fn run(args: &StatusArgs) -> Result<Exit> {
    let mut fleet = Fleet::read(&args.source, Policy::published())?;
    if let Some(namespace) = &args.namespace {
        fleet.keep_namespace(namespace);
    }
    let text = match args.output.format {
        Format::Json => output::json(&fleet)?,
        Format::Yaml => output::yaml(&fleet)?,
        Format::Csv => fleet_table::pods(&fleet.status, Format::Wide).csv()?,
        format => text(&fleet, format),
    };
    output::print(&text)?;
    Ok(fleet.exit())
}

fn text(fleet: &Fleet, format: Format) -> String {
    let status = &fleet.status;
    let mut text = String::from("=== GPU Cluster Status ===\n");
    text.push_str(&fleet.heading());
    if status.at.is_none() {
        return text;
    }
    let held: u32 = status.pods.iter().filter(|pod| pod.node.is_some()).map(|pod| pod.gpus).sum();
    text.push_str(&format!("Total GPUs with workloads: {held}\n"));
    if format != Format::Summary {
        let sections = [
            ("", fleet_table::pods(status, format)),
            ("=== Waste ===\n", fleet_table::findings(&status.findings, format)),
            ("=== Waiting ===\n", fleet_table::waiting(&status.waiting)),
            ("=== Unknown ===\n", fleet_table::unknown(&status.unknown)),
        ];
        for (title, rows) in sections.iter().filter(|(_, rows)| !rows.rows.is_empty()) {
            text.push_str(&format!("\n{title}{}", rows.text(format)));
        }
    }
    text.push_str("\n=== Summary ===\n");
    text.push_str(&fleet_table::totals(&status.totals));
    if status.totals.activity.is_some_and(|mean| mean < 0.5) {
        text.push_str(
            "\nOn average less than half is used: `gpu-autoscaler optimize` says what to do.\n",
        );
    }
    text
}
