//! What reading the past of a fleet back from a Prometheus costs.
//!
//! The nodes are `node-N` with GPUs `GPU-NNNNN-G-aaaa-bbbb-cccccccccccc`, held by the pods
//! `team-T/train-N-G`, as `history.py` beside this file writes them.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use gpu_autoscaler_controller::backfill::{Limits, ReadBack};
use gpu_autoscaler_model::*;
use gpu_autoscaler_reconciler::Policy;
use gpu_autoscaler_telemetry::connection::{Connection, Credentials};
use gpu_autoscaler_telemetry::http;
use gpu_autoscaler_telemetry::prometheus::Prometheus;

#[derive(Parser)]
struct Args {
    /// The server.
    #[arg(long, value_name = "URL")]
    prometheus: String,
    /// Nodes of 8 GPUs that it knows.
    #[arg(long)]
    nodes: u32,
    /// How far to reach back, in hours.
    #[arg(long, default_value_t = 168)]
    hours: u64,
    /// Values in all; the controller's own limit unless given.
    #[arg(long)]
    values_max: Option<u64>,
    /// What `cargo bench` says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

const GPUS: u32 = 8;

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let url = http::address(&args.prometheus).context("read `--prometheus`")?;
    let prometheus = Prometheus::new(Connection::new(Credentials::default()), url);
    let mut limits = Limits::of_controller(Duration::from_secs(args.hours * 3_600));
    limits.values_max = args.values_max.unwrap_or(limits.values_max);
    let mut back = ReadBack::new(prometheus, &fleet(args.nodes), Policy::published(), limits);
    let began = Instant::now();
    let extent = back.extent().await.context("ask Prometheus what it has")?;
    println!("{} nodes: {extent}; found in {:.1} s", args.nodes, began.elapsed().as_secs_f64());
    let (mut rounds, mut samples, mut longest) = (0_u32, 0_usize, Duration::ZERO);
    let mut profiles = std::collections::BTreeSet::new();
    loop {
        let round_began = Instant::now();
        let Some(round) = back.round().await.context("read a round back")? else { break };
        rounds += 1;
        samples += round.samples;
        longest = longest.max(round_began.elapsed());
        profiles.extend(round.records.into_keys());
    }
    let secs = began.elapsed().as_secs_f64();
    println!(
        "{rounds} rounds, {samples} samples, {secs:.1} s, {:.0} samples/s; longest round {:.1} s; \
         {} records; {} of memory at most",
        samples as f64 / secs,
        longest.as_secs_f64(),
        profiles.len(),
        peak_memory().unwrap_or_else(|| "unknown".to_owned()),
    );
    Ok(())
}

/// `VmHWM` of this process.
fn peak_memory() -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().trim_end_matches(" kB").trim().parse().ok()?;
    Some(format!("{:.0} MiB", kib / 1024.0))
}

fn fleet(nodes: u32) -> Delta {
    let pods = (0..nodes * GPUS).map(|n| Change::Upsert(pod(n / GPUS, n % GPUS)));
    Delta {
        nodes: (0..nodes).map(|n| Change::Upsert(node(n))).collect(),
        pods: pods.collect(),
        ..Delta::default()
    }
}

fn node(n: u32) -> Node {
    let name = format!("node-{n}");
    let gpus = vec![GpuCount { resource: GpuResource::Whole, count: GPUS }];
    Node {
        uid: name.clone().into(),
        name: name.into(),
        created: Timestamp::EPOCH,
        labels: Labels::default(),
        taints: vec![],
        ready: true,
        unschedulable: false,
        allocatable: Resources { gpus, ..Resources::default() },
        pods_max: Some(110),
        instance_type: Some("p5.48xlarge".into()),
        region: None,
        zone: None,
        capacity_type: None,
        gpu_model: GpuModel::parse("NVIDIA-H100-80GB-HBM3"),
        gpus: Some(GPUS),
        sharing: None,
    }
}

fn pod(node: u32, gpu: u32) -> Pod {
    let gpus = vec![GpuCount { resource: GpuResource::Whole, count: 1 }];
    Pod {
        uid: format!("pod-{node}-{gpu}").into(),
        key: ObjectKey::new(format!("team-{}", node % 50), format!("train-{node}-{gpu}")),
        resource_version: "1".into(),
        created: Timestamp::EPOCH,
        started: Some(Timestamp::EPOCH),
        node: Some(format!("node-{node}").into()),
        phase: PodPhase::Running,
        deleting: false,
        deletion_due: None,
        containers: ContainerState::default(),
        requests: Resources { gpus, ..Resources::default() },
        labels: Labels::default(),
        annotations: Labels::default(),
        owner: None,
        priority: 0,
        gates: vec![],
        constraints: Default::default(),
        unschedulable: None,
    }
}
