//! `gpu-autoscaler-controller`: reads its arguments, sets up the log, and runs until SIGTERM.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use gpu_autoscaler_controller::arguments::{Arguments, LogForm, LogLevel};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::LevelFilter;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    set_up_log(&arguments);
    match start(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "cannot run");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: Arguments) -> Result<()> {
    // Both TLS clients of the process use it; a second installation is the same one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
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

fn set_up_log(arguments: &Arguments) {
    let level = match arguments.zap_log_level {
        _ if arguments.zap_devel => LevelFilter::DEBUG,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    };
    let log = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr);
    if arguments.zap_devel || arguments.zap_encoder == LogForm::Console {
        log.with_ansi(false).init();
    } else {
        log.json().flatten_event(true).init();
    }
}
