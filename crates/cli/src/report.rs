//! `report`: executive summary, utilization, cost, opportunities, and what is not known.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::Args;
use gpu_autoscaler_controller::api::{Amount, Finding, Hardware, Namespace, Pod, Totals, Unknown};
use gpu_autoscaler_model::Rate;
use gpu_autoscaler_reconciler::Policy;
use schemars::JsonSchema;
use serde::Serialize;

use crate::exit::Exit;
use crate::fleet::Fleet;
use crate::fleet_table::{self, money, monthly, percent};
use crate::gather::Basis;
use crate::optimize;
use crate::output::{self, Format, OutputArgs, Rows, name, number, word};
use crate::source::{self, SourceArgs};

/// Pods that are named as top consumers, and recommendations in the executive summary.
const NAMED_MAX: usize = 10;

/// Arguments of `report`.
#[derive(Args)]
#[command(after_help = source::HELP)]
pub struct ReportArgs {
    /// Only of this namespace; sums of the executive summary stay those of the fleet.
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// The report, as JSON.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The form of this object: `gpu-autoscaler.io/report/v1`.
    pub schema: &'static str,
    /// When it was judged, RFC 3339; `null` before the first time.
    pub at: Option<String>,
    /// From where, in words.
    pub source: String,
    /// On what usage is known.
    pub basis: Basis,
    /// What could not be read, each with its reason: the rest is partial.
    pub gaps: Vec<String>,
    /// The fleet in a few numbers.
    pub executive_summary: Executive,
    /// Who uses what.
    pub utilization: Utilization,
    /// What it costs.
    pub cost: Cost,
    /// What would save money.
    pub opportunities: Opportunities,
}

/// The fleet in a few numbers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Executive {
    /// Sums over the fleet.
    pub totals: Totals,
    /// What the fleet costs in a month of 720 hours.
    pub cost_per_month: Option<Amount>,
    /// What following every recommendation saves in a month of 720 hours.
    pub saving_per_month: Option<Amount>,
    /// The same in twelve such months.
    pub saving_per_year: Option<Amount>,
    /// The largest savings, in words.
    pub key_recommendations: Vec<String>,
}

/// Who uses what.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Utilization {
    /// By namespace, the most expensive first.
    pub namespaces: Vec<Namespace>,
    /// Pods that hold most, by cost and then by GPUs.
    pub top_consumers: Vec<Pod>,
    /// Pods that waste GPUs, the largest saving first.
    pub underutilized: Vec<Finding>,
    /// GPUs whose use is not known.
    pub unknown: Vec<Unknown>,
}

/// What it costs.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cost {
    /// What GPUs that no pod holds cost; `null` unless every node and pod has a price.
    pub not_held_per_hour: Option<Amount>,
    /// Instance types without a price, by name; nothing is guessed for them.
    pub unpriced: Vec<Unpriced>,
    /// How costs have changed; always `null` in this release, which keeps no ledger.
    pub trend: Option<Amount>,
}

/// Nodes of which the price is not known.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Unpriced {
    /// Their instance type; `null` where no label says so.
    pub instance_type: Option<String>,
    /// How they are paid for.
    pub capacity_type: Option<String>,
    /// How many.
    pub nodes: u32,
}

/// What would save money.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Opportunities {
    /// By kind of advice; their savings add up to that of the fleet.
    pub by_advice: Vec<Opportunity>,
    /// Devices whose hardware needs a look.
    pub hardware: Vec<Hardware>,
}

/// All recommendations of one kind.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Opportunity {
    /// `MigProfile`, `Share`, `FewerGpus`, `Stop`, `MeasureMemory`, `NothingSmaller` or
    /// `RaiseLoad`.
    pub advice: String,
    /// Pods.
    pub pods: u32,
    /// What following them saves.
    pub saving_per_hour: Option<Amount>,
    /// Those of which that is not known.
    pub unpriced: u32,
}

/// Reads, sums up, prints.
pub fn run(args: &ReportArgs) -> Result<Exit> {
    let mut fleet = Fleet::read(&args.source, Policy::published())?;
    if let Some(namespace) = &args.namespace {
        fleet.keep_namespace(namespace);
    }
    let exit = fleet.exit();
    let heading = fleet.heading();
    let report = Report::of(fleet);
    let text = match args.output.format {
        Format::Json => output::json(&report)?,
        Format::Yaml => output::yaml(&report)?,
        Format::Csv => report.long().csv()?,
        format => report.text(&heading, format),
    };
    output::print(&text)?;
    Ok(exit)
}

impl Report {
    /// Of what was found.
    pub fn of(fleet: Fleet) -> Self {
        let status = fleet.status;
        let unpriced = unpriced(&status.nodes);
        let rate = |amount: &Option<Amount>| amount.as_ref().and_then(Amount::rate);
        let mut namespaces = status.namespaces;
        namespaces.sort_by(|a, b| {
            let by_cost = rate(&b.cost_per_hour).cmp(&rate(&a.cost_per_hour));
            by_cost.then_with(|| b.gpus.cmp(&a.gpus)).then_with(|| a.namespace.cmp(&b.namespace))
        });
        let mut pods = status.pods;
        pods.retain(|pod| pod.node.is_some());
        pods.sort_by(|a, b| {
            let by_cost = rate(&b.cost_per_hour).cmp(&rate(&a.cost_per_hour));
            by_cost.then_with(|| b.gpus.cmp(&a.gpus)).then_with(|| a.pod.cmp(&b.pod))
        });
        pods.truncate(NAMED_MAX);
        let totals = status.totals;
        let saving = totals.saving_per_hour.as_ref();
        Self {
            schema: "gpu-autoscaler.io/report/v1",
            at: status.at,
            source: fleet.source,
            basis: fleet.basis,
            gaps: fleet.gaps,
            executive_summary: Executive {
                cost_per_month: totals.cost_per_hour.as_ref().and_then(Amount::monthly),
                saving_per_month: saving.and_then(Amount::monthly),
                saving_per_year: saving.and_then(Amount::yearly),
                key_recommendations: status.findings.iter().take(3).map(key).collect(),
                totals: totals.clone(),
            },
            cost: Cost { not_held_per_hour: totals.not_held_per_hour, unpriced, trend: None },
            opportunities: Opportunities {
                by_advice: by_advice(&status.findings),
                hardware: status.hardware,
            },
            utilization: Utilization {
                namespaces,
                top_consumers: pods,
                underutilized: status.findings,
                unknown: status.unknown,
            },
        }
    }

    fn text(&self, heading: &str, format: Format) -> String {
        let mut text = format!("=== GPU Report ===\n{heading}");
        text.push_str("\n=== 1 Executive Summary ===\n");
        text.push_str(&fleet_table::counts(&self.executive_summary.totals));
        text.push_str(&optimize::savings(&self.executive_summary.totals));
        text.push_str("Cost trend:         not known: this release keeps no ledger\n");
        if !self.executive_summary.key_recommendations.is_empty() {
            text.push_str("Key recommendations:\n");
        }
        let width = output::width().unwrap_or(100).max(60);
        for line in &self.executive_summary.key_recommendations {
            text.push_str(&output::wrapped("  - ", line, width));
        }
        if format == Format::Summary {
            return text;
        }
        text.push_str("\n=== 2 Utilization ===\n");
        self.write_utilization(&mut text, format);
        text.push_str("\n=== 3 Cost ===\n");
        text.push_str(&self.cost_text(format));
        text.push_str("\n=== 4 Opportunities ===\n");
        text.push_str(&self.opportunities_text(format));
        text
    }

    fn write_utilization(&self, text: &mut String, format: Format) {
        let utilization = &self.utilization;
        let sections = [
            ("By namespace", namespace_rows(&utilization.namespaces)),
            ("Top consumers", consumer_rows(&utilization.top_consumers)),
            ("Underutilized", fleet_table::findings(&utilization.underutilized, format)),
            ("Not known", fleet_table::unknown(&utilization.unknown)),
        ];
        for (at, (title, rows)) in sections.iter().enumerate() {
            text.push_str(if at == 0 { "" } else { "\n" });
            match rows.rows.is_empty() {
                true => text.push_str(&format!("{title}: none\n")),
                false => text.push_str(&format!("{title}:\n{}", rows.text(format))),
            }
        }
    }

    fn cost_text(&self, format: Format) -> String {
        let totals = &self.executive_summary.totals;
        let row = |one: &gpu_autoscaler_controller::api::CapacityTotals| {
            vec![
                one.capacity_type.clone().unwrap_or_else(|| "not known".to_owned()),
                one.nodes.to_string(),
                money(one.cost_per_hour.as_ref()),
                monthly(one.cost_per_hour.as_ref()),
            ]
        };
        let rows = Rows {
            columns: vec![
                word("CAPACITY"),
                number("NODES"),
                number("PER HOUR"),
                number("PER MONTH"),
            ],
            rows: totals.by_capacity_type.iter().map(row).collect(),
        };
        let mut text = rows.text(format);
        text.push_str(&match &self.cost.not_held_per_hour {
            Some(_) => format!(
                "GPUs that no pod holds cost {} per hour.\n",
                money(self.cost.not_held_per_hour.as_ref())
            ),
            None => {
                "What GPUs that no pod holds cost is not known: some have no price.\n".to_owned()
            }
        });
        for unpriced in &self.cost.unpriced {
            text.push_str(&format!(
                "No price: {} nodes of {}, {}; give one with --prices FILE.\n",
                unpriced.nodes,
                unpriced.instance_type.as_deref().unwrap_or("no instance type"),
                unpriced.capacity_type.as_deref().unwrap_or("no capacity type"),
            ));
        }
        text
    }

    fn opportunities_text(&self, format: Format) -> String {
        let row = |one: &Opportunity| {
            vec![
                one.advice.clone(),
                one.pods.to_string(),
                money(one.saving_per_hour.as_ref()),
                monthly(one.saving_per_hour.as_ref()),
                one.unpriced.to_string(),
            ]
        };
        let columns = ["PODS", "SAVES/H", "SAVES/MONTH", "UNPRICED"].map(number);
        let rows = Rows {
            columns: [word("ADVICE")].into_iter().chain(columns).collect(),
            rows: self.opportunities.by_advice.iter().map(row).collect(),
        };
        let mut text =
            if rows.rows.is_empty() { "No waste found.\n".to_owned() } else { rows.text(format) };
        for one in &self.opportunities.hardware {
            text.push_str(&format!(
                "{}: {} on {}: {}\n",
                one.kind, one.device, one.node, one.message
            ));
        }
        text.push_str("What to do about each pod: gpu-autoscaler optimize\n");
        text
    }

    /// One number a row, for spreadsheets.
    fn long(&self) -> Rows {
        let mut rows = Vec::new();
        let mut push = |section: &str, subject: &str, metric: &str, value: String, unit: &str| {
            rows.push([section, subject, metric, &value, unit].map(str::to_owned).to_vec());
        };
        let totals = &self.executive_summary.totals;
        for (metric, count) in [
            ("gpu_nodes", totals.gpu_nodes),
            ("gpus", totals.gpus),
            ("gpus_measured", totals.gpus_measured),
            ("gpus_requested", totals.gpus_requested),
            ("nodes_unpriced", totals.nodes_unpriced),
            ("findings_unpriced", totals.findings_unpriced),
        ] {
            push("summary", "fleet", metric, count.to_string(), "1");
        }
        push("summary", "fleet", "compute_mean", ratio(totals.activity), "ratio");
        push("summary", "fleet", "memory_mean", ratio(totals.fb), "ratio");
        for (metric, amount) in
            [("cost", &totals.cost_per_hour), ("saving", &totals.saving_per_hour)]
        {
            push("summary", "fleet", metric, plain(amount), &per_hour(amount));
        }
        for one in &self.utilization.namespaces {
            let subject = one.namespace.as_str();
            push("utilization", subject, "gpus", one.gpus.to_string(), "1");
            push("utilization", subject, "compute_mean", ratio(one.activity), "ratio");
            push("utilization", subject, "memory_mean", ratio(one.fb), "ratio");
            push("cost", subject, "cost", plain(&one.cost_per_hour), &per_hour(&one.cost_per_hour));
            let saving = &one.saving_per_hour;
            push("opportunities", subject, "saving", plain(saving), &per_hour(saving));
        }
        for one in &totals.by_capacity_type {
            let subject = one.capacity_type.as_deref().unwrap_or("unknown");
            push("cost", subject, "nodes", one.nodes.to_string(), "1");
            push("cost", subject, "cost", plain(&one.cost_per_hour), &per_hour(&one.cost_per_hour));
        }
        for one in &self.utilization.underutilized {
            let subject = format!("{}/{}", one.namespace, one.pod);
            let saving = &one.saving_per_hour;
            push(
                "opportunities",
                &subject,
                &one.recommendation.advice,
                plain(saving),
                &per_hour(saving),
            );
        }
        let columns = ["section", "subject", "metric", "value", "unit"].map(word).to_vec();
        Rows { columns, rows }
    }
}

fn ratio(share: Option<f64>) -> String {
    share.map(|share| format!("{share:.6}")).unwrap_or_default()
}

/// The exact decimal; empty where it is not known.
fn plain(amount: &Option<Amount>) -> String {
    amount.as_ref().map(|amount| amount.amount.clone()).unwrap_or_default()
}

fn per_hour(amount: &Option<Amount>) -> String {
    amount.as_ref().map(|amount| format!("{}/h", amount.currency)).unwrap_or_default()
}

/// A recommendation in one sentence.
fn key(finding: &Finding) -> String {
    let saving = finding.saving_per_hour.as_ref();
    format!(
        "{}/{}: {}; saves {} a month",
        finding.namespace,
        finding.pod,
        finding.recommendation.text,
        monthly(saving)
    )
}

/// Sums by advice, by the very function that sums the fleet's.
fn by_advice(findings: &[Finding]) -> Vec<Opportunity> {
    let mut kinds: BTreeMap<&str, Vec<&Finding>> = BTreeMap::new();
    for finding in findings {
        kinds.entry(&finding.recommendation.advice).or_default().push(finding);
    }
    let mut all: Vec<Opportunity> = kinds
        .into_iter()
        .map(|(advice, findings)| {
            let rates: Vec<Option<Rate>> = findings
                .iter()
                .map(|finding| finding.saving_per_hour.as_ref().and_then(Amount::rate))
                .collect();
            let count = |of: usize| u32::try_from(of).unwrap_or(u32::MAX);
            Opportunity {
                advice: advice.to_owned(),
                pods: count(findings.len()),
                saving_per_hour: Rate::sum_of_known(rates.iter().flatten()).map(Amount::from),
                unpriced: count(rates.iter().filter(|rate| rate.is_none()).count()),
            }
        })
        .collect();
    let rate = |one: &Opportunity| one.saving_per_hour.as_ref().and_then(Amount::rate);
    all.sort_by(|a, b| rate(b).cmp(&rate(a)).then_with(|| a.advice.cmp(&b.advice)));
    all
}

fn unpriced(nodes: &[gpu_autoscaler_controller::api::Node]) -> Vec<Unpriced> {
    let mut kinds: BTreeMap<(Option<&str>, Option<&str>), u32> = BTreeMap::new();
    for node in nodes.iter().filter(|node| node.cost_per_hour.is_none()) {
        let kind = (node.instance_type.as_deref(), node.capacity_type.as_deref());
        *kinds.entry(kind).or_insert(0) += 1;
    }
    let unpriced = kinds.into_iter().map(|((instance_type, capacity_type), nodes)| Unpriced {
        instance_type: instance_type.map(str::to_owned),
        capacity_type: capacity_type.map(str::to_owned),
        nodes,
    });
    unpriced.collect()
}

/// Namespaces, one a row.
pub fn namespace_rows(namespaces: &[Namespace]) -> Rows {
    let row = |one: &Namespace| {
        vec![
            one.namespace.clone(),
            one.pods.to_string(),
            one.gpus.to_string(),
            percent(one.activity),
            percent(one.fb),
            money(one.cost_per_hour.as_ref()),
            monthly(one.cost_per_hour.as_ref()),
            money(one.saving_per_hour.as_ref()),
        ]
    };
    let numbers =
        ["PODS", "GPUS", "COMPUTE", "MEMORY", "COST/H", "COST/MONTH", "SAVES/H"].map(number);
    Rows {
        columns: [name("NAMESPACE")].into_iter().chain(numbers).collect(),
        rows: namespaces.iter().map(row).collect(),
    }
}

fn consumer_rows(pods: &[Pod]) -> Rows {
    let row = |pod: &Pod| {
        let usage = pod.usage.as_ref();
        vec![
            pod.namespace.clone(),
            pod.pod.clone(),
            pod.gpus.to_string(),
            percent(usage.map(|usage| usage.activity_mean)),
            percent(usage.and_then(|usage| usage.fb_mean)),
            money(pod.cost_per_hour.as_ref()),
        ]
    };
    let numbers = ["GPUS", "COMPUTE", "MEMORY", "COST/H"].map(number);
    Rows {
        columns: [name("NAMESPACE"), name("POD")].into_iter().chain(numbers).collect(),
        rows: pods.iter().map(row).collect(),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect_file;

    use super::*;

    #[test]
    fn the_schemas_of_json_are_the_committed_ones() {
        let text = output::json(&schemars::schema_for!(Report)).expect("a schema is JSON");
        expect_file!["../../../docs/schema/report.v1.json"].assert_eq(&text);
        let schema = schemars::schema_for!(optimize::Optimization);
        let text = output::json(&schema).expect("a schema is JSON");
        expect_file!["../../../docs/schema/optimize.v1.json"].assert_eq(&text);
    }
}
