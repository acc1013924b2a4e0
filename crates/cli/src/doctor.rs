//! `doctor`: what works on the way from the GPUs to a number, and what to do where it does not.

mod cluster;
mod metrics;

use anyhow::{Context, Result};
use clap::Args;
use gpu_autoscaler_reconciler::Policy;
use serde::Serialize;

use crate::exit::Exit;
use crate::output::{self, Format, OutputArgs, Rows, name, prose, word};
use crate::source::{self, SourceArgs};

/// Arguments of `doctor`.
#[derive(Args)]
#[command(after_help = "\
Checks, in this order: kubeconfig, API server, versions, clocks, definitions of our resources,
rights, GPU nodes and their labels and prices, metrics and their labels. A check that needs one
that failed is skipped. Nothing is written to the cluster.")]
pub struct DoctorArgs {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub check: &'static str,
    /// How it is.
    pub result: Verdict,
    /// What was seen.
    pub evidence: String,
    /// What to do next; `None` where nothing is to be done.
    pub next: Option<String>,
}

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Works, with a restriction that the evidence names.
    Warning,
    /// Does not work.
    Failed,
    /// Not looked at: something that it needs failed.
    Skipped,
}

impl Verdict {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

impl Check {
    fn ok(check: &'static str, evidence: impl Into<String>) -> Self {
        Self { check, result: Verdict::Ok, evidence: evidence.into(), next: None }
    }

    fn warning(check: &'static str, evidence: impl Into<String>, next: impl Into<String>) -> Self {
        let (evidence, next) = (evidence.into(), Some(next.into()));
        Self { check, result: Verdict::Warning, evidence, next }
    }

    fn failed(check: &'static str, evidence: impl Into<String>, next: impl Into<String>) -> Self {
        let (evidence, next) = (evidence.into(), Some(next.into()));
        Self { check, result: Verdict::Failed, evidence, next }
    }

    fn skipped(check: &'static str, because: &str) -> Self {
        let evidence = format!("not looked at: {because}");
        Self { check, result: Verdict::Skipped, evidence, next: None }
    }
}

/// Checks, prints; ends with status 1 when a check failed.
pub fn run(args: &DoctorArgs) -> Result<Exit> {
    let checks = source::runtime()?.block_on(checks(&args.source));
    let text = match args.output.format {
        Format::Json => output::json(&checks)?,
        Format::Yaml => output::yaml(&checks)?,
        Format::Csv => rows(&checks).csv().context("write CSV")?,
        Format::Summary => summary(&checks),
        Format::Table | Format::Wide => text(&checks),
    };
    output::print(&text)?;
    let failed = checks.iter().any(|check| check.result == Verdict::Failed);
    Ok(if failed { Exit::Failed } else { Exit::Done })
}

async fn checks(args: &SourceArgs) -> Vec<Check> {
    let policy = Policy::published();
    let (mut checks, found) = cluster::checks(args, &policy).await;
    checks.extend(metrics::checks(args, &policy, found).await);
    checks
}

fn summary(checks: &[Check]) -> String {
    let count = |result| checks.iter().filter(|check| check.result == result).count();
    let (failed, warnings) = (count(Verdict::Failed), count(Verdict::Warning));
    let skipped = count(Verdict::Skipped);
    let ok = count(Verdict::Ok);
    format!(
        "{} checks: {ok} ok, {warnings} warnings, {failed} failed, {skipped} skipped\n",
        checks.len()
    )
}

/// One block a check: evidence and next step are sentences, which a table would cut.
fn text(checks: &[Check]) -> String {
    let mut text = String::new();
    let width = output::width().unwrap_or(100).max(40);
    for check in checks {
        let head = format!("{:<8} {:<22} ", check.result.as_str(), check.check);
        text.push_str(&output::wrapped(&head, &check.evidence, width));
        if let Some(next) = &check.next {
            text.push_str(&output::wrapped(&format!("{:<31} ", "       next:"), next, width));
        }
    }
    text.push('\n');
    text.push_str(&summary(checks));
    text
}

fn rows(checks: &[Check]) -> Rows {
    let row = |check: &Check| {
        vec![
            check.check.to_owned(),
            check.result.as_str().to_owned(),
            check.evidence.clone(),
            check.next.clone().unwrap_or_default(),
        ]
    };
    Rows {
        columns: vec![name("check"), word("result"), prose("evidence"), prose("next")],
        rows: checks.iter().map(row).collect(),
    }
}
