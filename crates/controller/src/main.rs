//! `gpu-autoscaler-controller`: reads its arguments, sets up the log, and runs until SIGTERM.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use gpu_autoscaler_controller::arguments::Arguments;
use gpu_autoscaler_controller::log;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Both TLS clients of the process use it; a second installation is the same one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let traces = match log::set_up(&arguments) {
        Ok(traces) => traces,
        Err(error) => {
            eprintln!("cannot run: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let ended = start(arguments);
    if let Err(error) = &ended {
        tracing::error!(error = format!("{error:#}"), "cannot run");
    }
    traces.flush();
    if ended.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn start(arguments: Arguments) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        gpu_autoscaler_controller::run(arguments, stop).await
    })
}
