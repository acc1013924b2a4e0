//! `loopbench`: what a tick of `reconcile` costs on a large fleet.
//!
//! Prints a table, or JSON with `--json`. Times on a shared machine are noise: medians over
//! `--ticks` ticks are given, and the resident memory that the state takes.

mod fleet;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use benches::resident_mib;
use clap::Parser;
use fleet::Fleet;
use gpu_autoscaler_model::{Change, Delta, Fit, Pod, Timestamp};
use gpu_autoscaler_reconciler::{Policy, State, reconcile};
use serde::Serialize;

#[derive(Parser)]
struct Args {
    /// Nodes of 8 GPUs.
    #[arg(long, default_value_t = 1_000)]
    nodes: u32,
    /// Pods of one GPU; at most 8 a node.
    #[arg(long, default_value_t = 8_000)]
    gpu_pods: u32,
    /// Pods without GPUs.
    #[arg(long, default_value_t = 2_000)]
    other_pods: u32,
    /// GPU pods that wait for a node.
    #[arg(long, default_value_t = 0)]
    waiting_pods: u32,
    /// Different kinds of them.
    #[arg(long, default_value_t = 20)]
    waiting_kinds: u32,
    /// Ticks that are measured of each kind.
    #[arg(long, default_value_t = 15)]
    ticks: u32,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    nodes: u32,
    pods: u32,
    gpus_measured: u32,
    findings: usize,
    /// Ten minutes from nothing: all objects, a scrape every ten seconds, a judgement every 30.
    cold_ms: f64,
    /// One pod changed; nothing is judged, the pods that wait are placed anew.
    one_change_ms: f64,
    /// Pods that wait and would fit, in the last of those ticks.
    fitting: usize,
    /// A scrape of every GPU; nothing is judged.
    scrape_ms: f64,
    /// A judgement of everything.
    judge_ms: f64,
    /// Resident memory that the loop takes between ticks, in MiB: its state, and the view that
    /// readers hold.
    state_mib: f64,
    /// The most that was resident at any time, in MiB: that, and a scrape of every GPU, and the
    /// view that is being made beside the one before.
    peak_mib: f64,
}

/// The published pause between two scrapes.
const SCRAPE_SECS: u64 = 10;
/// The published pause between two judgements.
const JUDGE_SECS: u64 = 30;
/// The published window.
const WINDOW_SECS: u64 = 600;

fn main() {
    let args = Args::parse();
    let report = measure(&args);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report).expect("plain data"));
    } else {
        print!("{}", table(&report));
    }
}

fn measure(args: &Args) -> Report {
    let policy = Policy::published();
    let before = resident_mib("VmRSS:");
    let fleet = Fleet::new(args);
    let mut state = State::new();
    let objects = fleet.objects();
    let started = Instant::now();
    // Readers hold the last view until there is another one.
    let mut view = reconcile(at(0), &mut state, &objects, &policy).view;
    drop(objects);
    for scrape in 1..=WINDOW_SECS / SCRAPE_SECS {
        let seen = fleet.scrape(at(scrape * SCRAPE_SECS));
        view = reconcile(at(scrape * SCRAPE_SECS), &mut state, &seen, &policy).view;
    }
    let cold_ms = millis(started.elapsed());
    let mut kinds: [Vec<Duration>; 3] = Default::default();
    for tick in 0..args.ticks {
        let secs = WINDOW_SECS + u64::from(tick) * JUDGE_SECS;
        let leaving = Pod { deleting: true, ..fleet.pod(tick) };
        let one = Delta { pods: vec![Change::Upsert(leaving)], ..Delta::default() };
        let mut timed = |kind: usize, secs: u64, seen: Delta| {
            let started = Instant::now();
            view = reconcile(at(secs), &mut state, &seen, &policy).view;
            drop(seen);
            kinds[kind].push(started.elapsed());
        };
        // Ten seconds are the longest pause between two placements.
        timed(0, secs + 10, one);
        timed(1, secs + 11, fleet.scrape(at(secs + 10)));
        timed(1, secs + 21, fleet.scrape(at(secs + 20)));
        timed(2, secs + 30, Delta::default());
        timed(1, secs + 31, fleet.scrape(at(secs + 30)));
    }
    let state_mib = resident_mib("VmRSS:") - before;
    let peak_mib = resident_mib("VmHWM:") - before;
    let [one_change, scrape, judge] = kinds.map(median_ms);
    Report {
        nodes: args.nodes,
        pods: args.gpu_pods + args.other_pods,
        gpus_measured: view.totals.gpus_measured,
        findings: view.findings.len(),
        cold_ms,
        one_change_ms: one_change,
        fitting: view.waiting.iter().filter(|w| matches!(w.fit, Fit::On { .. })).count(),
        scrape_ms: scrape,
        judge_ms: judge,
        state_mib,
        peak_mib,
    }
}

fn at(secs: u64) -> Timestamp {
    Timestamp::EPOCH.after(Duration::from_secs(10_000 + secs))
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn median_ms(mut times: Vec<Duration>) -> f64 {
    times.sort();
    millis(times[times.len() / 2])
}

fn table(report: &Report) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<34}{value:>12}");
    };
    line("nodes", report.nodes.to_string());
    line("pods", report.pods.to_string());
    line("GPUs measured", report.gpus_measured.to_string());
    line("findings", report.findings.to_string());
    line("ten minutes from nothing", format!("{:.1} ms", report.cold_ms));
    line("tick after one change", format!("{:.2} ms", report.one_change_ms));
    line("waiting pods that would fit", report.fitting.to_string());
    line("tick with a scrape of all GPUs", format!("{:.1} ms", report.scrape_ms));
    line("tick with a judgement of all", format!("{:.1} ms", report.judge_ms));
    line("memory between ticks", format!("{:.0} MiB", report.state_mib));
    line("memory at most", format!("{:.0} MiB", report.peak_mib));
    text
}
