//! `optimize`: what would be done about every waste, why, and what it saves. Nothing is done.

use anyhow::Result;
use clap::Args;
use gpu_autoscaler_controller::api::{Amount, Finding, Hardware, Totals, Usage};
use gpu_autoscaler_reconciler::Policy;
use schemars::JsonSchema;
use serde::Serialize;

use crate::exit::Exit;
use crate::fleet::Fleet;
use crate::fleet_table::{self, money, monthly, percent, yearly};
use crate::output::{self, Format, OutputArgs, Rows, name, number, prose, word};
use crate::source::{self, Source, SourceArgs};
use crate::{advice, gather};

/// Arguments of `optimize`.
#[derive(Args)]
#[command(after_help = source::HELP)]
pub struct OptimizeArgs {
    /// Only pods of this namespace; sums stay those of the fleet.
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    /// How far back use is looked at, in minutes; a controller has its own.
    #[arg(long, value_name = "MINUTES", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(6..=1440))]
    lookback: u64,
    /// Waste score, 0 to 100, above which a pod is named.
    #[arg(long, value_name = "SCORE", default_value_t = 50.0, value_parser = score)]
    min_waste_score: f64,
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    output: OutputArgs,
}

fn score(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(score) if (0.0..=100.0).contains(&score) => Ok(score),
        _ => Err("no number from 0 to 100".to_owned()),
    }
}

/// What is recommended, as JSON.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Optimization {
    /// The form of this object: `gpu-autoscaler.io/optimize/v1`.
    pub schema: &'static str,
    /// When it was judged, RFC 3339; `null` before the first time.
    pub at: Option<String>,
    /// From where, in words.
    pub source: String,
    /// On what usage is known.
    pub basis: gather::Basis,
    /// What could not be read, each with its reason: the rest is partial.
    pub gaps: Vec<String>,
    /// Nothing was done: always true in this release.
    pub dry_run: bool,
    /// What to do, the largest saving first.
    pub recommendations: Vec<Recommended>,
    /// Devices whose hardware needs a look.
    pub hardware: Vec<Hardware>,
    /// Sums over the fleet, whatever was selected.
    pub totals: Totals,
}

/// What to do about one pod.
#[derive(Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Recommended {
    /// What was found, and what to do about it.
    #[serde(flatten)]
    pub finding: Finding,
    /// What the pod's GPUs cost.
    pub cost_per_hour: Option<Amount>,
    /// The same for a month of 720 hours.
    pub cost_per_month: Option<Amount>,
    /// What following it saves in a month of 720 hours.
    pub saving_per_month: Option<Amount>,
    /// Command that does it; `null` where none does.
    pub apply: Option<String>,
}

/// Reads, selects, prints.
pub fn run(args: &OptimizeArgs) -> Result<Exit> {
    let mut policy = Policy::published();
    policy.waste.window = std::time::Duration::from_secs(args.lookback * 60);
    policy.waste.score_above = args.min_waste_score;
    let mut fleet = Fleet::read(&args.source, policy)?;
    if let Source::Server(_) = args.source.source() {
        of_server(args, &mut fleet);
    }
    if let Some(namespace) = &args.namespace {
        fleet.keep_namespace(namespace);
    }
    let exit = fleet.exit();
    let heading = fleet.heading();
    let optimization = Optimization::of(fleet);
    let text = match args.output.format {
        Format::Json => output::json(&optimization)?,
        Format::Yaml => output::yaml(&optimization)?,
        Format::Csv => optimization.rows(Format::Wide).csv()?,
        format => optimization.text(&heading, format),
    };
    output::print(&text)?;
    Ok(exit)
}

/// A controller judged by its own window and score: fewer can be shown, not more.
fn of_server(args: &OptimizeArgs, fleet: &mut Fleet) {
    let published = Policy::published().waste;
    // Below, all that it names stays: some kinds are found whatever their score.
    if args.min_waste_score > published.score_above {
        fleet.status.findings.retain(|finding| finding.score.total > args.min_waste_score);
    }
    if args.lookback * 60 != published.window.as_secs() {
        let gap = "--lookback has no effect on a controller: it looks back by its --waste-lookback";
        fleet.note(gap.to_owned());
    }
    if args.min_waste_score < published.score_above {
        let above = published.score_above;
        fleet.note(format!("a controller names no waste of a score of {above} or less"));
    }
}

impl Optimization {
    /// Of what was found.
    pub fn of(fleet: Fleet) -> Self {
        let status = fleet.status;
        let recommended = status.findings.iter().map(|finding| {
            let pod = status.pods.iter().find(|pod| pod.uid == finding.uid);
            let cost = pod.and_then(|pod| pod.cost_per_hour.clone());
            Recommended {
                cost_per_month: cost.as_ref().and_then(Amount::monthly),
                cost_per_hour: cost,
                saving_per_month: finding.saving_per_hour.as_ref().and_then(Amount::monthly),
                apply: advice::command(finding),
                finding: finding.clone(),
            }
        });
        Self {
            schema: "gpu-autoscaler.io/optimize/v1",
            at: status.at.clone(),
            source: fleet.source,
            basis: fleet.basis,
            gaps: fleet.gaps,
            dry_run: true,
            recommendations: recommended.collect(),
            hardware: status.hardware,
            totals: status.totals,
        }
    }

    /// One row a recommendation.
    fn rows(&self, format: Format) -> Rows {
        let wide = format == Format::Wide;
        let mut columns = vec![name("NAMESPACE"), name("POD")];
        columns.extend(["SCORE", "GPU UTIL", "MEM UTIL", "MONTHLY COST", "SAVES"].map(number));
        if wide {
            let more = [word("KIND"), name("NODE"), word("MODEL"), number("GPUS")];
            columns.extend(more.into_iter().chain([prose("RECOMMENDATION"), prose("APPLY")]));
        }
        let row = |one: &Recommended| {
            let finding = &one.finding;
            let usage = finding.usage.as_ref();
            let mut row = vec![
                finding.namespace.clone(),
                finding.pod.clone(),
                format!("{:.0}", finding.score.total),
                percent(usage.map(|usage| usage.activity_mean)),
                percent(usage.and_then(|usage| usage.fb_mean)),
                monthly(one.cost_per_hour.as_ref()),
                monthly(finding.saving_per_hour.as_ref()),
            ];
            if wide {
                row.extend([
                    finding.kind.clone(),
                    finding.node.clone(),
                    finding.model.clone().unwrap_or_else(|| "-".to_owned()),
                    finding.devices.len().to_string(),
                    finding.recommendation.text.clone(),
                    one.apply.clone().unwrap_or_else(|| "-".to_owned()),
                ]);
            }
            row
        };
        Rows { columns, rows: self.recommendations.iter().map(row).collect() }
    }

    fn text(&self, heading: &str, format: Format) -> String {
        let mut text = format!("=== GPU Optimization ===\n{heading}");
        if self.recommendations.is_empty() {
            text.push_str(match self.basis {
                gather::Basis::None => "\nNo waste can be found without metrics.\n",
                _ => "\nNo waste found.\n",
            });
        } else if format != Format::Summary {
            text.push_str(&format!("\n{}", self.rows(Format::Table).text(format)));
            text.push_str("\n=== What to do ===\n");
            for (at, one) in self.recommendations.iter().enumerate() {
                text.push_str(&block(at + 1, one));
            }
        }
        for hardware in &self.hardware {
            text.push_str(&format!(
                "{}: {} on {}: {}\n",
                hardware.kind, hardware.device, hardware.node, hardware.message
            ));
        }
        text.push_str("\n=== Summary ===\n");
        text.push_str(&savings(&self.totals));
        text.push_str(
            "\nNothing was changed: this release recommends and does not act.\nNext steps:\n  \
             gpu-autoscaler explain NAMESPACE/POD   every number, where it is from, and why\n  \
             gpu-autoscaler report                  by namespace, and what is not known\n  \
             gpu-autoscaler optimize -o json        the same for programs\n",
        );
        text
    }
}

/// What the fleet costs and what following every recommendation saves: one wording for `optimize`
/// and `report`, of the sums that `status` shows.
pub fn savings(totals: &Totals) -> String {
    let (cost, saving) = (totals.cost_per_hour.as_ref(), totals.saving_per_hour.as_ref());
    let unpriced = |count: u32, what: &str| match count {
        0 => String::new(),
        count => format!("; {count} {what} without a price are left out"),
    };
    format!(
        "Total monthly cost: {} ({} per hour{})\n\
         Potential savings:  {} per month ({} per hour{})\n\
         Annual savings:     {}\n",
        monthly(cost),
        money(cost),
        unpriced(totals.nodes_unpriced, "nodes"),
        monthly(saving),
        money(saving),
        unpriced(totals.findings_unpriced, "findings"),
        yearly(saving),
    )
}

fn block(number: usize, one: &Recommended) -> String {
    let finding = &one.finding;
    let width = output::width().unwrap_or(100).max(40);
    let mut text = format!("{number}. {}/{} ({})\n", finding.namespace, finding.pod, finding.kind);
    let mut line = |what: &str, words: &str| {
        text.push_str(&output::wrapped(&format!("   {what:<7} "), words, width));
    };
    line("do", &finding.recommendation.text);
    line("why", &why(finding));
    line("saves", &saves(one));
    match &one.apply {
        // Never broken into lines: it is there to be pasted.
        Some(command) => text.push_str(&format!("   apply   {command}\n")),
        None => line("apply", "by hand, in the manifest: no one command changes its owner"),
    }
    text
}

/// The numbers that led to it, in one sentence.
pub fn why(finding: &Finding) -> String {
    if let Some(stuck) = &finding.stuck {
        return stuck.clone();
    }
    let Some(usage) = &finding.usage else { return "nothing was measured of it".to_owned() };
    let need = needed(finding);
    format!(
        "in {} s observed, {} {} on average ({} at p95), framebuffer {}{need}",
        usage.observed_secs,
        usage.activity_source,
        percent(Some(usage.activity_mean)),
        percent(Some(usage.activity_p95)),
        memory(usage),
    )
}

fn memory(usage: &Usage) -> String {
    let mean = usage.fb_mean.map_or("not measured".to_owned(), |mean| percent(Some(mean)));
    if usage.preallocated { format!("{mean} and constant") } else { mean }
}

fn needed(finding: &Finding) -> String {
    let recommendation = &finding.recommendation;
    let bytes = recommendation.needed_memory_bytes.map(fleet_table::mebibytes);
    match (recommendation.needed_activity, bytes) {
        (Some(activity), Some(bytes)) => {
            format!("; needs {} of one GPU and {bytes} at p99", percent(Some(activity)))
        }
        (Some(activity), None) => format!("; needs {} of one GPU at p99", percent(Some(activity))),
        (None, _) => String::new(),
    }
}

fn saves(one: &Recommended) -> String {
    let finding = &one.finding;
    let freed = percent(Some(finding.recommendation.freed));
    match (&finding.saving_per_hour, &one.cost_per_hour) {
        (Some(saving), Some(cost)) => format!(
            "{} a month ({} per hour): {freed} of the {} per hour that its GPUs cost",
            monthly(Some(saving)),
            money(Some(saving)),
            money(Some(cost)),
        ),
        (Some(saving), None) => {
            format!("{} a month ({} per hour)", monthly(Some(saving)), money(Some(saving)))
        }
        (None, _) => format!("{freed} of its GPUs; the amount is not known: its node has no price"),
    }
}
