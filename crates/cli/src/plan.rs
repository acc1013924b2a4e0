//! `plan`: what the loop decides for a dump of a cluster.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Args;
use gpu_autoscaler_controller::api::{Finding, Totals, Unknown, Usage, Waiting};
use gpu_autoscaler_k8s::dump;
use gpu_autoscaler_model::{Action, Delta, Effect, GpuSample, PriceBook, Timestamp};
use gpu_autoscaler_reconciler::{Outcome, Policy, State, reconcile};
use gpu_autoscaler_telemetry::dcgm::Origin;
use gpu_autoscaler_telemetry::scrape;
use schemars::JsonSchema;
use serde::Serialize;

use crate::exit::Exit;
use crate::fleet_table;
use crate::input::{self, shown};
use crate::output::{self, Format, OutputArgs, Rows};

/// Arguments of `plan`.
#[derive(Args)]
#[command(after_help = "\
A dump is what this prints:
  kubectl get nodes,pods,pdb -A -o yaml
Metrics are what a DCGM exporter prints at /metrics. Text without timestamps is one instant: it
is taken to have lasted for the whole window, and the plan says so (basis: snapshot).")]
pub struct PlanArgs {
    /// A dump of the cluster, YAML or JSON; `-` is standard input. Several are read as one.
    #[arg(short = 'f', long = "filename", required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Exposition text of a DCGM exporter.
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
    /// Objects of the dump that could not be read.
    pub unreadable: Vec<String>,
}

/// On what usage is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Basis {
    /// No metrics were given.
    None,
    /// One instant, taken to have lasted for the whole window.
    Snapshot,
    /// Samples with their times.
    Series,
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

/// A pod for which nothing is decided.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Why.
    pub reason: String,
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
    let now = match args.at {
        Some(at) => at,
        None => wall_clock()?,
    };
    let mut seen = Delta::default();
    let mut unreadable = Vec::new();
    for file in &args.files {
        let read =
            dump::read(input::open(file)?).with_context(|| format!("read {}", shown(file)))?;
        unreadable.extend(read.faults.iter().map(ToString::to_string));
        append(&mut seen, read.delta);
    }
    let mut policy = Policy::published();
    if let Some(file) = &args.prices {
        let text = input::read_utf8(file)?;
        let book = PriceBook::with_sheet(&text).with_context(|| format!("read {}", shown(file)))?;
        policy.prices = Arc::new(book);
    }
    let mut samples = Vec::new();
    for file in &args.metrics {
        samples.extend(metrics(file, now)?);
    }
    let basis = spread(&mut samples, now, &policy);
    seen.samples = samples;
    let outcome = reconcile(now, &mut State::new(), &seen, &policy);
    for fault in &unreadable {
        eprintln!("warning: left out: {fault}");
    }
    let exit = if unreadable.is_empty() { Exit::Done } else { Exit::Partly };
    let report = report(now, basis, &outcome, unreadable);
    let text = match args.output.format {
        Format::Json => output::json(&report)?,
        Format::Yaml => output::yaml(&report)?,
        Format::Csv => rows(&report).csv()?,
        Format::Table => text(&report, false),
        Format::Wide => text(&report, true),
    };
    output::print(&text)?;
    Ok(exit)
}

fn wall_clock() -> Result<Timestamp> {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .context("read the clock: it is before 1970")?;
    Ok(Timestamp::EPOCH.after(since))
}

fn append(all: &mut Delta, more: Delta) {
    all.nodes.extend(more.nodes);
    all.pods.extend(more.pods);
    all.budgets.extend(more.budgets);
    all.policies.extend(more.policies);
    all.events.extend(more.events);
}

fn metrics(file: &Path, now: Timestamp) -> Result<Vec<GpuSample>> {
    let text = input::read_bytes(file)?;
    let (samples, counts) = scrape::read_text(&text, &Origin { at: now, node: None });
    if samples.is_empty() {
        bail!(
            "{} has no series of a DCGM exporter such as `DCGM_FI_DEV_GPU_UTIL` ({} lines dropped)",
            shown(file),
            counts.dropped
        );
    }
    if counts.dropped > 0 {
        eprintln!("warning: {}: {} lines or values dropped", shown(file), counts.dropped);
    }
    Ok(samples)
}

/// Text without timestamps is one instant, `now`: it is repeated over the whole window.
fn spread(samples: &mut Vec<GpuSample>, now: Timestamp, policy: &Policy) -> Basis {
    if samples.is_empty() {
        return Basis::None;
    }
    if samples.iter().any(|sample| sample.at != now) {
        return Basis::Series;
    }
    let instant = std::mem::take(samples);
    let step = policy.waste.gap_max;
    let mut back = std::time::Duration::ZERO;
    while back <= policy.waste.window {
        samples.extend(instant.iter().map(|s| GpuSample { at: now.before(back), ..s.clone() }));
        back += step;
    }
    Basis::Snapshot
}

fn report(now: Timestamp, basis: Basis, outcome: &Outcome, unreadable: Vec<String>) -> PlanReport {
    let view = &outcome.view;
    let found = |uid| view.findings.iter().any(|finding| finding.pod_uid == uid);
    let refused = |pod: &_| outcome.report.refusals.iter().any(|refusal| refusal.pod == *pod);
    let placed = view.pods.iter().filter(|p| !found(p.uid.clone()) && !refused(&p.pod));
    PlanReport {
        schema: "gpu-autoscaler.io/plan/v1",
        at: now.to_string(),
        basis,
        totals: (&view.totals).into(),
        placed: placed
            .map(|pod| Placed {
                namespace: pod.pod.namespace.to_string(),
                pod: pod.pod.name.to_string(),
                node: pod.node.as_ref().map(ToString::to_string).unwrap_or_default(),
                gpus: pod.gpus,
                usage: pod.usage.as_ref().map(Usage::from),
            })
            .collect(),
        found: view.findings.iter().map(Finding::from).collect(),
        refused: outcome
            .report
            .refusals
            .iter()
            .map(|refusal| Refused {
                namespace: refusal.pod.namespace.to_string(),
                pod: refusal.pod.name.to_string(),
                reason: refusal.why.to_string(),
            })
            .collect(),
        waiting: view.waiting.iter().map(Waiting::from).collect(),
        unknown: view.unknown.iter().map(Unknown::from).collect(),
        effects: outcome.effects.iter().flat_map(planned).collect(),
        unreadable,
    }
}

fn planned(effect: &Effect) -> Vec<Planned> {
    match &effect.action {
        Action::Announce(announcement) => vec![Planned {
            kind: "Event",
            object: announcement.pod.to_string(),
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
    let headings = vec!["result", "namespace", "pod", "node", "reason", "saving_per_hour"];
    Rows { headings, rows, numbers: vec![] }
}

fn text(report: &PlanReport, wide: bool) -> String {
    let mut text = String::new();
    if report.found.is_empty() {
        text.push_str(match report.basis {
            Basis::None => "No waste can be found without metrics: give them with --metrics.\n",
            Basis::Snapshot | Basis::Series => "No waste found.\n",
        });
    } else {
        text.push_str("=== Waste ===\n");
        text.push_str(&fleet_table::findings(&report.found, wide).table());
    }
    if wide && !report.placed.is_empty() {
        text.push_str("\n=== Placed ===\n");
        text.push_str(&placed_rows(report).table());
    }
    if !report.refused.is_empty() {
        text.push_str("\n=== Not decided ===\n");
        let row = |r: &Refused| vec![r.namespace.clone(), r.pod.clone(), r.reason.clone()];
        let rows = report.refused.iter().map(row).collect();
        let headings = vec!["NAMESPACE", "POD", "WHY"];
        text.push_str(&Rows { headings, rows, numbers: vec![] }.table());
    }
    if !report.waiting.is_empty() {
        text.push_str("\n=== Waiting ===\n");
        text.push_str(&fleet_table::waiting(&report.waiting).table());
    }
    if !report.unknown.is_empty() {
        text.push_str("\n=== Unknown ===\n");
        text.push_str(&fleet_table::unknown(&report.unknown).table());
    }
    text.push_str("\n=== Summary ===\n");
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
    Rows {
        headings: vec!["NAMESPACE", "POD", "NODE", "GPUS", "COMPUTE", "MEMORY"],
        rows: report.placed.iter().map(row).collect(),
        numbers: vec![3, 4, 5],
    }
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
