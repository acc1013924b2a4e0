//! `cost`: the rates that are known now. What was spent needs a ledger, which this release lacks,
//! and that is said.

use std::time::Duration;

use anyhow::{Result, anyhow};
use clap::{Args, Subcommand};
use gpu_autoscaler_controller::api::{Amount, Namespace, Totals};
use gpu_autoscaler_reconciler::Policy;
use serde::Serialize;

use crate::exit::{Exit, Hint};
use crate::fleet::Fleet;
use crate::fleet_table::{money, monthly};
use crate::output::{self, Format, OutputArgs};
use crate::report::namespace_rows;
use crate::source::{self, SourceArgs};

/// Arguments of `cost`.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, after_help = source::HELP)]
pub struct CostArgs {
    #[command(subcommand)]
    part: Option<Part>,
    #[command(flatten)]
    of: CostOf,
}

#[derive(Subcommand)]
enum Part {
    /// The same as `cost`.
    Report(CostOf),
    /// What sharing and scaling have saved: needs a ledger, which this release lacks.
    Roi(CostOf),
}

#[derive(Args)]
struct CostOf {
    /// Only of this namespace.
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    /// Only of this team.
    #[arg(long, value_name = "NAME")]
    team: Option<String>,
    /// The span that spending is asked of, such as `24h`, `7d` or `1.5d`.
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = source::span)]
    last: Duration,
    /// Print return on investment.
    #[arg(long)]
    roi: bool,
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// What is known of costs, as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rates {
    /// The form of this object: `gpu-autoscaler.io/cost/v1`.
    schema: &'static str,
    at: Option<String>,
    source: String,
    gaps: Vec<String>,
    /// Seconds of the span that was asked of.
    last_secs: u64,
    /// What was spent in it: always `null` in this release, which keeps no ledger.
    spent: Option<Amount>,
    namespaces: Vec<Namespace>,
    totals: Totals,
}

/// Prints what is known; ends with status 3, because what was spent is not.
pub fn run(args: &CostArgs) -> Result<Exit> {
    match &args.part {
        Some(Part::Roi(_)) => Err(no_roi()),
        Some(Part::Report(of)) => rates(of),
        None => rates(&args.of),
    }
}

fn no_roi() -> anyhow::Error {
    anyhow!("return on investment compares bills before and after; this release keeps no ledger")
        .context(Hint::new(
            "`gpu-autoscaler optimize` says what could be saved from now on, by measured use",
        ))
}

fn rates(of: &CostOf) -> Result<Exit> {
    if of.roi {
        return Err(no_roi());
    }
    if let Some(team) = &of.team {
        let why = format!("team `{team}`: costs are attributed by namespace only in this release");
        return Err(anyhow!(why).context(Hint::new("use --namespace, or leave --team out")));
    }
    let mut fleet = Fleet::read(&of.source, Policy::published())?;
    if let Some(namespace) = &of.namespace {
        fleet.keep_namespace(namespace);
    }
    let hours = of.last.as_secs_f64() / 3_600.0;
    fleet.note(format!(
        "what was spent in the last {hours:.1} h is not known: this release keeps no ledger; the \
         rates are those of now"
    ));
    let exit = fleet.exit();
    let heading = fleet.heading();
    let rates = Rates {
        schema: "gpu-autoscaler.io/cost/v1",
        at: fleet.status.at,
        source: fleet.source,
        gaps: fleet.gaps,
        last_secs: of.last.as_secs(),
        spent: None,
        namespaces: fleet.status.namespaces,
        totals: fleet.status.totals,
    };
    let text = match of.output.format {
        Format::Json => output::json(&rates)?,
        Format::Yaml => output::yaml(&rates)?,
        Format::Csv => namespace_rows(&rates.namespaces).csv()?,
        format => text(&rates, &heading, format, of.namespace.as_deref()),
    };
    output::print(&text)?;
    Ok(exit)
}

fn text(rates: &Rates, heading: &str, format: Format, namespace: Option<&str>) -> String {
    let scope = namespace.map_or("all namespaces".to_owned(), |name| format!("namespace {name}"));
    let (of, cost) = match (namespace, rates.namespaces.first()) {
        (Some(_), Some(only)) => ("what its pods hold", only.cost_per_hour.as_ref()),
        (Some(_), None) => ("what its pods hold", None),
        (None, _) => ("all GPU nodes", rates.totals.cost_per_hour.as_ref()),
    };
    let mut text = format!(
        "=== GPU COST REPORT ===\n{heading}Scope:              {scope}\n\
         Spent:              not known: this release keeps no ledger\n\n\
         COST SUMMARY, of {of}\n  Current rate: {} per hour\n  Monthly:      {}\n",
        money(cost),
        monthly(cost),
    );
    if namespace.is_none() && rates.totals.nodes_unpriced > 0 {
        let unpriced = rates.totals.nodes_unpriced;
        text.push_str(&format!("  Not in it:    {unpriced} nodes without a price\n"));
    }
    if format != Format::Summary {
        text.push_str("\nCOST BREAKDOWN, of what pods hold\n");
        text.push_str(&namespace_rows(&rates.namespaces).text(format));
    }
    text
}
