//! What a demo found and what it would save.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Result;
use gpu_autoscaler_controller::api::{Amount, Finding, Status, Totals, Unknown};
use gpu_autoscaler_model::{FindingKind, GpuMillis, GpuModel, Money};
use gpu_autoscaler_sim::{Comparison, Driver, Rule, WorldSpec, compare};
use serde::Serialize;

use super::world::Origin;
use crate::fleet_table;
use crate::output::{Format, Rows, name, number, prose, word};

/// The whole of it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    seed: u64,
    from: String,
    to: String,
    virtual_hours: f64,
    #[serde(flatten)]
    origin: Origin,
    cluster: Cluster,
    #[serde(rename = "loop")]
    loop_: Loop,
    /// Over the whole time.
    waste: Waste,
    /// What stands at the end.
    totals: Totals,
    findings: Vec<Finding>,
    unknown: Vec<Unknown>,
    /// The findings at the end, held against what is so.
    pub truth: Comparison,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Cluster {
    nodes: usize,
    gpus: u32,
    models: BTreeMap<String, u32>,
    pods_seen: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Loop {
    ticks: u64,
    samples: u64,
    scrapes_failed: u64,
    events_announced: u64,
    conditions_set: u64,
    receipts_applied: u64,
    receipts_already_applied: u64,
    receipts_conflict: u64,
    receipts_unanswered: u64,
    /// A hash over every decision, in order: two runs with the same value decided the same.
    digest: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Waste {
    /// What all GPU nodes with a known price cost.
    cost: Option<Amount>,
    /// What of it was for shares of GPUs that neither compute nor memory needed.
    reclaimable: Option<Amount>,
    /// The latter by the former, 0 to 1.
    share: Option<f64>,
    kinds: Vec<Kind>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    kind: String,
    /// Pods that were found so at some time.
    pods: usize,
    /// GPUs, slices and parts that they held meanwhile, in hours.
    gpu_hours: f64,
    reclaimable: Option<Amount>,
}

impl Report {
    pub(crate) fn new(seed: u64, origin: &Origin, spec: &WorldSpec, driver: &Driver) -> Self {
        let (world, tally) = (&driver.world, driver.tally());
        let status = Status::from(driver.view());
        let mut models: BTreeMap<String, u32> = BTreeMap::new();
        for node in &spec.nodes {
            let model = GpuModel::parse(node.shape.product);
            let model = model.map_or_else(|| node.shape.product.to_owned(), |m| m.to_string());
            *models.entry(model).or_insert(0) += node.shape.gpus;
        }
        Self {
            seed,
            from: world.start().to_string(),
            to: world.now().to_string(),
            virtual_hours: world.now().since(world.start()).as_secs_f64() / 3_600.0,
            origin: origin.clone(),
            cluster: Cluster {
                nodes: spec.nodes.len(),
                gpus: spec.nodes.iter().map(|node| node.shape.gpus).sum(),
                models,
                pods_seen: tally.pods.len(),
            },
            loop_: Loop {
                ticks: tally.ticks,
                samples: tally.samples,
                scrapes_failed: tally.scrapes_failed,
                events_announced: tally.announcements.values().sum(),
                conditions_set: tally.conditions,
                receipts_applied: tally.receipts.applied,
                receipts_already_applied: tally.receipts.already,
                receipts_conflict: tally.receipts.conflicts,
                receipts_unanswered: tally.receipts.unanswered,
                digest: tally.digest.to_string(),
            },
            waste: Waste::new(driver),
            totals: status.totals,
            findings: status.findings,
            unknown: status.unknown,
            truth: compare(&world.truth(&Rule::PUBLISHED), driver.view()),
        }
    }

    pub(crate) fn findings_csv(&self) -> Result<String> {
        fleet_table::findings(&self.findings, Format::Wide).csv()
    }

    /// For people; the wide format has more columns and does not cut lists short.
    pub(crate) fn text(&self, format: Format) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.write(&mut text, format);
        text
    }

    fn write(&self, out: &mut String, format: Format) -> std::fmt::Result {
        const SHOWN: usize = 12;
        let hours = self.virtual_hours;
        let span =
            if hours < 48.0 { format!("{hours:.1} h") } else { format!("{:.1} d", hours / 24.0) };
        writeln!(out, "=== Simulated cluster, seed {}, {span} until {} ===", self.seed, self.to)?;
        self.write_cluster(out)?;
        if format != Format::Summary {
            let most = if format == Format::Wide { usize::MAX } else { SHOWN };
            let shown = &self.findings[..self.findings.len().min(most)];
            writeln!(out, "\n=== Waste now ===")?;
            out.push_str(&fleet_table::findings(shown, format).text(format));
            write_rest(out, self.findings.len(), most, "findings")?;
        }
        writeln!(out, "\n=== Unknown now ===")?;
        let unknown = by_node(&self.unknown);
        out.push_str(&unknown.table());
        writeln!(out, "\n=== Totals now ===")?;
        out.push_str(&fleet_table::totals(&self.totals));
        writeln!(out, "\n=== Over the whole time ===")?;
        out.push_str(&self.waste.rows().table());
        match (&self.waste.cost, &self.waste.reclaimable) {
            (Some(cost), Some(saved)) => writeln!(
                out,
                "GPU nodes with a known price cost {}; {} of it ({}) was for shares of\n\
                 GPUs that neither compute nor memory needed.",
                fleet_table::money(Some(cost)),
                fleet_table::money(Some(saved)),
                fleet_table::percent(self.waste.share),
            ),
            (Some(cost), None) => {
                let cost = fleet_table::money(Some(cost));
                writeln!(out, "GPU nodes with a known price cost {cost}.")
            }
            (None, _) => writeln!(out, "No GPU node has a known price; none is guessed."),
        }?;
        self.write_truth(out)
    }

    fn write_cluster(&self, out: &mut String) -> std::fmt::Result {
        let models: Vec<String> =
            self.cluster.models.iter().map(|(model, gpus)| format!("{gpus} {model}")).collect();
        writeln!(out, "{} GPUs on {} nodes:", self.cluster.gpus, self.cluster.nodes)?;
        for line in wrap(&models, 76) {
            writeln!(out, "  {line}")?;
        }
        if let Origin::Trace { nodes, pods, pods_taken } = self.origin {
            writeln!(
                out,
                "Of the trace: a part of its {nodes} GPU nodes, {pods_taken} of its {pods} GPU pods."
            )?;
        }
        writeln!(
            out,
            "{} GPU pods seen; {} samples, {} failed scrapes; {} events written, {} conflicts.",
            self.cluster.pods_seen,
            self.loop_.samples,
            self.loop_.scrapes_failed,
            self.loop_.receipts_applied,
            self.loop_.receipts_conflict,
        )
    }

    fn write_truth(&self, out: &mut String) -> std::fmt::Result {
        let truth = &self.truth;
        writeln!(out, "\n=== Held against the truth of the simulation ===")?;
        writeln!(out, "Wasteful pods:      {}, found {}", truth.wasteful, truth.found)?;
        writeln!(out, "Innocent pods:      {}, accused {}", truth.innocent, truth.accused)?;
        writeln!(out, "Unmeasurable pods:  {}, listed {}", truth.unknowable, truth.listed)?;
        if truth.borderline > 0 {
            writeln!(
                out,
                "Borderline pods:    {} (near a limit, or not watched for long enough)",
                truth.borderline
            )?;
        }
        for mistake in &truth.mistakes {
            writeln!(out, "  {mistake}")?;
        }
        Ok(())
    }
}

impl Waste {
    fn new(driver: &Driver) -> Self {
        let tally = driver.tally();
        let kinds = FindingKind::ALL.map(|kind| {
            let standing =
                || tally.findings.iter().filter(move |((_, k), _)| *k == kind).map(|(_, one)| one);
            let mut held = GpuMillis::new(0);
            standing().for_each(|one| held += one.held);
            let mut savings = standing().filter_map(|one| one.saving);
            let saving =
                savings.next().and_then(|first| savings.try_fold(first, Money::checked_add));
            Kind {
                kind: kind.to_string(),
                pods: standing().count(),
                gpu_hours: held.as_hours(),
                reclaimable: saving.map(Amount::from),
            }
        });
        let share = tally.cost.zip(tally.saving).filter(|(cost, _)| cost.as_nanos() > 0);
        Self {
            cost: tally.cost.map(Amount::from),
            reclaimable: tally.saving.map(Amount::from),
            // For display: the amounts themselves are exact.
            share: share.map(|(cost, saving)| saving.as_nanos() as f64 / cost.as_nanos() as f64),
            kinds: kinds.into_iter().filter(|kind| kind.pods > 0).collect(),
        }
    }

    fn rows(&self) -> Rows {
        let row = |kind: &Kind| {
            vec![
                kind.kind.clone(),
                kind.pods.to_string(),
                format!("{:.0}", kind.gpu_hours),
                fleet_table::money(kind.reclaimable.as_ref()),
            ]
        };
        let numbers = ["PODS", "GPU-HOURS", "RECLAIMABLE"].map(number);
        let columns = [word("KIND")].into_iter().chain(numbers).collect();
        Rows { columns, rows: self.kinds.iter().map(row).collect() }
    }
}

/// Unknown GPUs of one node and one reason in one row.
fn by_node(unknown: &[Unknown]) -> Rows {
    let mut rows: BTreeMap<(&str, &str), (u32, usize, &str)> = BTreeMap::new();
    for one in unknown {
        let row = rows.entry((&one.node, &one.reason)).or_insert((0, 0, &one.message));
        row.0 += one.gpus;
        row.1 += usize::from(one.pod.is_some());
    }
    let rows = rows.into_iter().map(|((node, _), (gpus, pods, why))| {
        vec![node.to_owned(), gpus.to_string(), pods.to_string(), why.to_owned()]
    });
    Rows {
        columns: vec![name("NODE"), number("GPUS"), number("PODS"), prose("WHY")],
        rows: rows.collect(),
    }
}

fn write_rest(out: &mut String, all: usize, shown: usize, what: &str) -> std::fmt::Result {
    match all.saturating_sub(shown) {
        0 => Ok(()),
        rest => writeln!(out, "and {rest} more {what}; `-o wide` shows all"),
    }
}

/// Parts separated by commas, in lines of at most `width` characters.
fn wrap(parts: &[String], width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for part in parts {
        match lines.last_mut() {
            Some(line) if line.len() + part.len() + 3 <= width => {
                line.push_str(", ");
                line.push_str(part);
            }
            Some(line) => {
                line.push(',');
                lines.push(part.clone());
            }
            None => lines.push(part.clone()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_parts() {
        let parts = ["aaaa", "bbbb", "cccc"].map(str::to_owned);
        assert_eq!(wrap(&parts, 10), ["aaaa,", "bbbb,", "cccc"]);
        assert_eq!(wrap(&parts, 11), ["aaaa, bbbb,", "cccc"]);
    }
}
