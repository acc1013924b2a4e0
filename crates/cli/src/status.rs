//! `status`.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use gpu_autoscaler_controller::api::Status;
use gpu_autoscaler_telemetry::http::{self, Limits, Shown};

use crate::exit::{Exit, Hint};
use crate::fleet_table;
use crate::output::{self, Format, OutputArgs};

/// Arguments of `status`.
#[derive(Args)]
pub struct StatusArgs {
    /// The controller's HTTP address.
    #[arg(
        long,
        env = "GPU_AUTOSCALER_SERVER",
        default_value = "http://127.0.0.1:8080",
        value_name = "URL"
    )]
    server: String,
    /// Only pods of this namespace.
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Longest answer that is waited for.
const LIMITS: Limits = Limits { time: Duration::from_secs(30), body_bytes: 1 << 30 };

/// Shows what a running controller sees.
pub fn run(args: &StatusArgs) -> Result<Exit> {
    let mut status = fetch(&args.server)?;
    if let Some(namespace) = &args.namespace {
        status.pods.retain(|pod| pod.namespace == *namespace);
        status.waiting.retain(|waiting| waiting.namespace == *namespace);
        status.findings.retain(|finding| finding.namespace == *namespace);
        status.unknown.retain(|u| u.namespace.as_ref() == Some(namespace));
    }
    let text = match args.output.format {
        Format::Json => output::json(&status)?,
        Format::Yaml => output::yaml(&status)?,
        Format::Csv => fleet_table::pods(&status, true).csv()?,
        Format::Table => text(&status, false),
        Format::Wide => text(&status, true),
    };
    output::print(&text)?;
    Ok(Exit::Done)
}

fn fetch(server: &str) -> Result<Status> {
    let mut url = http::address(server).context("read `--server`")?;
    url.set_path(&format!("{}/api/v1/status", url.path().trim_end_matches('/')));
    let shown = Shown::of(&url);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    let body = runtime
        .block_on(async { http::read(http::client()?.get(url), &shown, LIMITS).await })
        .context(Hint {
            hint: "is the controller running, and is its port forwarded? \
                   kubectl -n gpu-autoscaler-system port-forward deploy/gpu-autoscaler-controller 8080"
                .to_owned(),
        })?;
    serde_json::from_slice(&body).with_context(|| format!("read the answer of {shown}"))
}

fn text(status: &Status, wide: bool) -> String {
    let mut text = String::from("=== GPU Cluster Status ===\n");
    let Some(at) = &status.at else {
        text.push_str("nothing was judged yet: the controller has just started\n");
        return text;
    };
    text.push_str(&format!("Judged at {at}\n\n"));
    text.push_str(&fleet_table::pods(status, wide).table());
    if !status.findings.is_empty() {
        text.push_str("\n=== Waste ===\n");
        text.push_str(&fleet_table::findings(&status.findings, wide).table());
    }
    if !status.waiting.is_empty() {
        text.push_str("\n=== Waiting ===\n");
        text.push_str(&fleet_table::waiting(&status.waiting).table());
    }
    if !status.unknown.is_empty() {
        text.push_str("\n=== Unknown ===\n");
        text.push_str(&fleet_table::unknown(&status.unknown).table());
    }
    text.push_str("\n=== Summary ===\n");
    text.push_str(&fleet_table::totals(&status.totals));
    text
}
