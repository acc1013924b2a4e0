//! `plan`: what the loop decides for a dump of a cluster.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use gpu_autoscaler_controller::api::{Finding, Totals, Unknown, Usage, Waiting};
use gpu_autoscaler_model::{Action, Effect, Timestamp};
use gpu_autoscaler_reconciler::{Outcome, Policy};
use schemars::JsonSchema;
use serde::Serialize;

use crate::exit::Exit;
use crate::fleet::{self, Fleet, Refused};
use crate::fleet_table;
use crate::gather::{self, Basis};
use crate::output::{self, Format, OutputArgs, Rows, name, number, prose, word};
use crate::source::SourceArgs;

/// Arguments of `plan`.
#[derive(Args)]
#[command(after_help = "\
A dump is what this prints:
  kubectl get nodes,pods,pdb -A -o yaml
Waiting pods with claims are left to the scheduler unless it has these as well:
  pvc,pv,storageclasses,csidrivers,csinodes,resourceclaims,resourceslices,deviceclasses
Metrics are what a DCGM exporter prints at /metrics, or a saved answer of Prometheus. Text without
timestamps is one instant: it is taken to have lasted for the whole window, and the plan says so
(basis: snapshot).")]
pub struct PlanArgs {
    /// A dump of the cluster, YAML or JSON; `-` is standard input. Several are read as one.
    #[arg(short = 'f', long = "filename", required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Metrics: exposition text of a DCGM exporter, or a saved answer of Prometheus.
    #[arg(short = 'm', long, value_name = "FILE")]
    metrics: Vec<PathBuf>,
    /// A price sheet: CSV with instance_type,region,capacity_type,price_per_hour,currency.
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// The time of the dump, RFC 3339; the default is now.
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
    #[command(flatten)]
    output: OutputArgs,
}

/// The plan, as JSON. Every GPU pod occurs exactly once under `placed`, `found` or `refused`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanReport {
    /// The form of this object: `gpu-autoscaler.io/plan/v1`.
    pub schema: &'static str,
    /// The time that it was made for, RFC 3339.
    pub at: String,
    /// On what usage is known.
    pub basis: Basis,
    /// Sums over the fleet.
    pub totals: Totals,
    /// Pods on a node that waste nothing, or whose use is not known.
    pub placed: Vec<Placed>,
    /// Pods that waste GPUs, worst first.
    pub found: Vec<Finding>,
    /// Pods for which nothing is decided.
    pub refused: Vec<Refused>,
    /// Of those refused, the pods that wait for a node: where each would fit, or why nowhere.
    pub waiting: Vec<Waiting>,
    /// GPUs whose use is not known.
    pub unknown: Vec<Unknown>,
    /// What the controller would do.
    pub effects: Vec<Planned>,
    /// What could not be read, each with its reason.
    pub unreadable: Vec<String>,
}

/// A pod on a node.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Placed {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Its node.
    pub node: String,
    /// GPUs, slices or replicas that it requests.
    pub gpus: u32,
    /// What it makes of them.
    pub usage: Option<Usage>,
}

/// Something that the controller would do.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Planned {
    /// `Event` or `Condition`.
    pub kind: &'static str,
    /// On which object.
    pub object: String,
    /// One word.
    pub reason: String,
    /// One sentence.
    pub message: String,
}

/// Reads, decides, prints.
pub fn run(args: &PlanArgs) -> Result<Exit> {
    let source = SourceArgs {
        files: args.files.clone(),
        metrics: args.metrics.clone(),
        prices: args.prices.clone(),
        at: args.at,
        ..SourceArgs::default()
    };
    let policy = fleet::priced(Policy::published(), &source)?;
    let gathered = gather::dump(&source, &policy)?;
    let at = gathered.now;
    let (fleet, outcome) = Fleet::judged(gathered, &policy);
    fleet.warn();
    let exit = fleet.exit();
    let report = report(at, fleet, &outcome);
    let text = match args.output.format {
        Format::Json => output::json(&report)?,
        Format::Yaml => output::yaml(&report)?,
        Format::Csv => rows(&report).csv()?,
        format => text(&report, format),
    };
    output::print(&text)?;
    Ok(exit)
}

fn report(now: Timestamp, fleet: Fleet, outcome: &Outcome) -> PlanReport {
    let view = &outcome.view;
    let found = |uid| view.findings.iter().any(|finding| finding.pod_uid == uid);
    let refused = |pod: &_| outcome.report.refusals.iter().any(|refusal| refusal.pod == *pod);
    let placed = view.pods.iter().filter(|p| !found(p.uid.clone()) && !refused(&p.pod));
    PlanReport {
        schema: "gpu-autoscaler.io/plan/v1",
        at: now.to_string(),
        basis: fleet.basis,
        totals: fleet.status.totals,
        placed: placed
            .map(|pod| Placed {
                namespace: pod.pod.namespace.to_string(),
                pod: pod.pod.name.to_string(),
                node: pod.node.as_ref().map(ToString::to_string).unwrap_or_default(),
                gpus: pod.gpus,
                usage: pod.usage.as_ref().map(Usage::from),
            })
            .collect(),
        found: fleet.status.findings,
        refused: fleet.refused,
        waiting: fleet.status.waiting,
        unknown: fleet.status.unknown,
        effects: outcome.effects.iter().flat_map(planned).collect(),
        unreadable: fleet.gaps,
    }
}

/// What an effect would do, one object at a time.
pub fn planned(effect: &Effect) -> Vec<Planned> {
    match &effect.action {
        Action::Announce(announcement) => vec![Planned {
            kind: "Event",
            object: announcement.about.key.to_string(),
            reason: announcement.reason.to_string(),
            message: announcement.message.to_string(),
        }],
        Action::SetConditions { kind, key, conditions, .. } => conditions
            .iter()
            .map(|condition| Planned {
                kind: "Condition",
                object: format!("{}/{key}", kind.as_str()),
                reason: condition.reason.to_string(),
                message: condition.message.to_string(),
            })
            .collect(),
    }
}

/// One row a pod.
fn rows(report: &PlanReport) -> Rows {
    let mut rows = Vec::new();
    for f in &report.found {
        let saving = f.saving_per_hour.as_ref().map_or("", |amount| &amount.amount);
        let cells = ["found", &f.namespace, &f.pod, &f.node, &f.kind, saving];
        rows.push(cells.map(str::to_owned).to_vec());
    }
    for p in &report.placed {
        let use_known = if p.usage.is_some() { "used" } else { "unknown" };
        let cells = ["placed", &p.namespace, &p.pod, &p.node, use_known, ""];
        rows.push(cells.map(str::to_owned).to_vec());
    }
    for r in &report.refused {
        let cells = ["refused", &r.namespace, &r.pod, "", &r.reason, ""];
        rows.push(cells.map(str::to_owned).to_vec());
    }
    let columns = ["result", "namespace", "pod", "node", "reason", "saving_per_hour"];
    Rows { columns: columns.map(word).to_vec(), rows }
}

fn text(report: &PlanReport, format: Format) -> String {
    let mut text = String::new();
    if format != Format::Summary {
        if report.found.is_empty() {
            text.push_str(match report.basis {
                Basis::None => "No waste can be found without metrics: give them with --metrics.\n",
                Basis::Snapshot | Basis::Series => "No waste found.\n",
            });
        } else {
            text.push_str("=== Waste ===\n");
            text.push_str(&fleet_table::findings(&report.found, format).text(format));
        }
        let mut sections = vec![
            ("Not decided", refused_rows(report)),
            ("Waiting", fleet_table::waiting(&report.waiting)),
            ("Unknown", fleet_table::unknown(&report.unknown)),
        ];
        if format == Format::Wide {
            sections.insert(0, ("Placed", placed_rows(report)));
        }
        for (title, rows) in sections.iter().filter(|(_, rows)| !rows.rows.is_empty()) {
            text.push_str(&format!("\n=== {title} ===\n{}", rows.text(format)));
        }
        text.push('\n');
    }
    text.push_str("=== Summary ===\n");
    text.push_str(&fleet_table::totals(&report.totals));
    text.push_str(&format!(
        "Pods:             {} with waste, {} without, {} not decided\n",
        report.found.len(),
        report.placed.len(),
        report.refused.len()
    ));
    if report.basis == Basis::Snapshot {
        text.push_str("Basis:            one snapshot, taken to have lasted for 10 minutes\n");
    }
    text
}

fn refused_rows(report: &PlanReport) -> Rows {
    let row = |r: &Refused| vec![r.namespace.clone(), r.pod.clone(), r.reason.clone()];
    Rows {
        columns: vec![name("NAMESPACE"), name("POD"), prose("WHY")],
        rows: report.refused.iter().map(row).collect(),
    }
}

fn placed_rows(report: &PlanReport) -> Rows {
    let row = |p: &Placed| {
        let usage = p.usage.as_ref();
        vec![
            p.namespace.clone(),
            p.pod.clone(),
            p.node.clone(),
            p.gpus.to_string(),
            fleet_table::percent(usage.map(|u| u.activity_mean)),
            fleet_table::percent(usage.and_then(|u| u.fb_mean)),
        ]
    };
    let columns = [name("NAMESPACE"), name("POD"), name("NODE"), number("GPUS")];
    let columns = columns.into_iter().chain([number("COMPUTE"), number("MEMORY")]);
    Rows { columns: columns.collect(), rows: report.placed.iter().map(row).collect() }
}

#[cfg(test)]
mod tests {
    use expect_test::expect_file;

    use super::*;

    #[test]
    fn the_schema_of_its_json_is_the_committed_one() {
        let schema = schemars::schema_for!(PlanReport);
        let text = output::json(&schema).expect("a schema is JSON");
        expect_file!["../../../docs/schema/plan.v1.json"].assert_eq(&text);
    }
}
