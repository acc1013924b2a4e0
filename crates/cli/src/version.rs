//! `version`.

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::exit::Exit;
use crate::output::{self, Format, OutputArgs, Rows, word};

/// Arguments of `version`.
#[derive(Args)]
pub struct VersionArgs {
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Serialize)]
struct Version {
    version: &'static str,
    /// `null` when it was built outside of a release.
    commit: Option<&'static str>,
    date: Option<&'static str>,
}

/// Prints the version, the commit and the date of the build.
pub fn run(args: &VersionArgs) -> Result<Exit> {
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
        commit: option_env!("GPU_AUTOSCALER_COMMIT"),
        date: option_env!("GPU_AUTOSCALER_DATE"),
    };
    let text = match args.output.format {
        Format::Json => output::json(&version)?,
        Format::Yaml => output::yaml(&version)?,
        Format::Csv => Rows {
            columns: ["version", "commit", "date"].map(word).to_vec(),
            rows: vec![
                [Some(version.version), version.commit, version.date]
                    .map(|cell| cell.unwrap_or_default().to_owned())
                    .to_vec(),
            ],
        }
        .csv()?,
        Format::Table | Format::Wide | Format::Summary => format!(
            "GPU Autoscaler CLI\n  Version: {}\n  Commit:  {}\n  Date:    {}\n",
            version.version,
            version.commit.unwrap_or("unknown"),
            version.date.unwrap_or("unknown"),
        ),
    };
    output::print(&text)?;
    Ok(Exit::Done)
}
