//! `parsebench`: what reading exposition text costs.
//!
//! `write` makes a file as DCGM exporter writes it; `parse` reads it again and again and prints the
//! median, as the parsers of other languages beside `benches/run` do for the same file; `scrape`
//! says what a scrape of every node of a fleet costs in processor time.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, Subcommand};
use gpu_autoscaler_model::Timestamp;
use gpu_autoscaler_telemetry::dcgm::{self, METRICS, Origin};
use gpu_autoscaler_telemetry::exposition;

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Writes exposition text.
    Write {
        /// GPUs in it.
        #[arg(long, default_value_t = 2_000)]
        gpus: u32,
        /// Where to.
        file: PathBuf,
    },
    /// Parses a file, `--times` times.
    Parse {
        /// How often.
        #[arg(long, default_value_t = 9)]
        times: usize,
        /// Which.
        file: PathBuf,
    },
    /// Turns one node's text into samples, `--times` times.
    Scrape {
        /// How often.
        #[arg(long, default_value_t = 999)]
        times: usize,
        /// GPUs of the node.
        #[arg(long, default_value_t = 8)]
        gpus: u32,
        /// Nodes of the fleet.
        #[arg(long, default_value_t = 10_000)]
        nodes: u32,
        /// Seconds between two scrapes of a node.
        #[arg(long, default_value_t = 10)]
        interval: u32,
    },
}

fn main() -> Result<()> {
    match Args::parse().command {
        Command::Write { gpus, file } => {
            fs::write(&file, text(gpus)).with_context(|| format!("write `{}`", file.display()))
        }
        Command::Parse { times, file } => {
            let text = fs::read(&file).with_context(|| format!("read `{}`", file.display()))?;
            parse(times, &text)
        }
        Command::Scrape { times, gpus, nodes, interval } => scrape(times, gpus, nodes, interval),
    }
}

fn parse(times: usize, text: &[u8]) -> Result<()> {
    let mut series = 0;
    let took = median(times, || {
        series = exposition::parse(text).filter(Result::is_ok).count();
    });
    ensure!(series > 0, "the file holds no series");
    // Both parsers print the same line, so that one reader reads both.
    println!(r#"{{"series": {series}, "bytes": {}, "seconds": {:.6}}}"#, text.len(), took);
    Ok(())
}

fn scrape(times: usize, gpus: u32, nodes: u32, interval: u32) -> Result<()> {
    let text = text(gpus);
    let origin = Origin { at: Timestamp::EPOCH, node: None, exporter: Default::default() };
    let mut samples = 0;
    let took = median(times, || {
        let series = exposition::parse(text.as_bytes()).filter_map(Result::ok);
        samples = dcgm::samples(series, &origin).0.len();
    });
    ensure!(samples == gpus as usize, "{samples} samples of {gpus} GPUs");
    let share = took * f64::from(nodes) / f64::from(interval);
    println!(
        r#"{{"bytes": {}, "micros": {:.1}, "nodes": {nodes}, "interval": {interval}, "cores": {share:.4}}}"#,
        text.len(),
        took * 1e6
    );
    Ok(())
}

/// The median time of a run, in seconds.
fn median(times: usize, mut run: impl FnMut()) -> f64 {
    let mut took: Vec<Duration> = (0..times.max(1))
        .map(|_| {
            let began = Instant::now();
            run();
            began.elapsed()
        })
        .collect();
    took.sort();
    took[took.len() / 2].as_secs_f64()
}

/// What an exporter writes of so many GPUs, eight a node, each held by a pod.
fn text(gpus: u32) -> String {
    let mut text = String::new();
    for (at, metric) in METRICS.iter().enumerate() {
        let _ = writeln!(text, "# HELP {metric} As DCGM has it.\n# TYPE {metric} gauge");
        for gpu in 0..gpus {
            let (node, index) = (gpu / 8, gpu % 8);
            // Within the range of every counter.
            let value = f64::from((gpu * 7 + at as u32) % 97) / 100.0;
            let _ = writeln!(
                text,
                "{metric}{{gpu=\"{index}\",UUID=\"GPU-{gpu:08x}-9c1d-4a51-8f27-000000000000\",\
                 device=\"nvidia{index}\",modelName=\"NVIDIA H100 80GB HBM3\",\
                 Hostname=\"gpu-node-{node:05}\",DCGM_FI_DRIVER_VERSION=\"550.90.07\",\
                 container=\"main\",namespace=\"team-{}\",pod=\"train-{gpu:06}-0\"}} {value}",
                gpu % 50
            );
        }
    }
    text
}
