//! `lint`: what is wrong with our resources.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use gpu_autoscaler_k8s::lint::{self, Problem};
use serde::Serialize;

use crate::exit::Exit;
use crate::input;
use crate::output::{self, Format, OutputArgs, Rows, word};

/// Arguments of `lint`.
#[derive(Args)]
pub struct LintArgs {
    /// Manifests, YAML or JSON; `-` is standard input.
    #[arg(short = 'f', long = "filename", required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

/// A problem, as JSON.
#[derive(Serialize)]
struct Shown {
    file: String,
    object: String,
    field: String,
    value: String,
    why: String,
    hint: Option<String>,
}

impl Shown {
    fn of(file: &str, problem: Problem) -> Self {
        let Problem { object, field, value, why, hint } = problem;
        Self { file: file.to_owned(), object, field, value, why, hint }
    }
}

/// Prints every problem; ends with status 1 when there is one.
pub fn run(args: &LintArgs) -> Result<Exit> {
    let mut problems = Vec::new();
    let mut lines = String::new();
    for file in &args.files {
        let name = input::shown(file);
        let text = input::read_utf8(file)?;
        let linted = lint::lint(&text).with_context(|| format!("read {name}"))?;
        if linted.ours == 0 {
            let others = linted.others;
            eprintln!("warning: {name} holds no object of gpu-autoscaler.io, {others} of others");
        }
        for problem in linted.problems {
            lines.push_str(&format!("{name}: {problem}\n"));
            if let Some(hint) = &problem.hint {
                lines.push_str(&format!("  hint: {hint}\n"));
            }
            problems.push(Shown::of(&name, problem));
        }
    }
    let text = match args.output.format {
        Format::Table | Format::Wide | Format::Summary => lines,
        Format::Json => output::json(&problems)?,
        Format::Yaml => output::yaml(&problems)?,
        Format::Csv => rows(&problems).csv()?,
    };
    output::print(&text)?;
    Ok(if problems.is_empty() { Exit::Done } else { Exit::Failed })
}

fn rows(problems: &[Shown]) -> Rows {
    let row = |p: &Shown| {
        let hint = p.hint.as_deref().unwrap_or_default();
        [&p.file, &p.object, &p.field, &p.value, &p.why, hint].map(str::to_owned).to_vec()
    };
    let columns = ["file", "object", "field", "value", "why", "hint"].map(word).to_vec();
    Rows { columns, rows: problems.iter().map(row).collect() }
}
