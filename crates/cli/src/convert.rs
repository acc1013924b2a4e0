//! `convert`: older spellings into the one that is served.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use gpu_autoscaler_k8s::convert;

use crate::exit::Exit;
use crate::input;
use crate::output::{self, Format, OutputArgs};

/// Arguments of `convert`.
#[derive(Args)]
#[command(after_help = "\
Standard output is the manifest: YAML, or JSON with -o json. What was changed, and what a person
should still look at, is on standard error. Comments of the original are not kept.")]
pub struct ConvertArgs {
    /// A manifest, YAML or JSON; `-` is standard input.
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    output: OutputArgs,
}

/// Prints the manifest rewritten.
pub fn run(args: &ConvertArgs) -> Result<Exit> {
    let text = input::read_utf8(&args.file)?;
    let converted =
        convert::convert(&text).with_context(|| format!("read {}", input::shown(&args.file)))?;
    for note in &converted.notes {
        eprintln!("note: {note}");
    }
    let text = match args.output.format {
        Format::Table | Format::Wide | Format::Summary | Format::Yaml => converted.to_yaml(),
        Format::Json => {
            let list = serde_json::json!({
                "apiVersion": "v1", "kind": "List", "items": converted.objects,
            });
            output::json(&list)?
        }
        Format::Csv => bail!("a manifest has no CSV form; use `-o yaml` or `-o json`"),
    };
    output::print(&text)?;
    Ok(Exit::Done)
}
