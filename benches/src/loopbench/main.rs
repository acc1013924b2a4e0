//! `loopbench`: what a tick of `reconcile` costs on a large fleet.
//!
//! Prints a table, or JSON with `--json`. Times on a shared machine are noise: medians over
//! `--ticks` ticks are given, and the resident memory that the state takes.

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use clap::Parser;
use gpu_autoscaler_model::*;
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
    /// Taking in all objects and a full window, and the first judgement.
    cold_ms: f64,
    /// One pod changed; nothing is judged, the pods that wait are placed anew.
    one_change_ms: f64,
    /// Pods that wait and would fit, in the last of those ticks.
    fitting: usize,
    /// A scrape of every GPU; nothing is judged.
    scrape_ms: f64,
    /// A judgement of everything.
    judge_ms: f64,
    /// Resident memory that the state takes, in MiB.
    state_mib: f64,
}

const GPUS: u32 = 8;
const SCRAPE_SECS: u64 = 30;

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
    let fleet = fleet(args);
    let before = resident_mib();
    let mut state = State::new();
    let started = Instant::now();
    let _ = reconcile(at(0), &mut state, &fleet, &policy);
    for scrape in 1..=20 {
        let seen = scraped(args, scrape * SCRAPE_SECS);
        let _ = reconcile(at(scrape * SCRAPE_SECS), &mut state, &seen, &policy);
    }
    let cold_ms = millis(started.elapsed());
    let mut secs = 20 * SCRAPE_SECS;
    let mut kinds: [Vec<Duration>; 3] = Default::default();
    let mut last = None;
    for tick in 0..args.ticks {
        let leaving = Pod { deleting: true, ..pod(args, tick) };
        let one = Delta { pods: vec![Change::Upsert(leaving)], ..Delta::default() };
        // Ten seconds are the longest pause between two placements.
        kinds[0].push(timed(|| last = Some(reconcile(at(secs + 10), &mut state, &one, &policy))));
        let seen = scraped(args, secs + 15);
        kinds[1].push(timed(|| drop(reconcile(at(secs + 15), &mut state, &seen, &policy))));
        secs += SCRAPE_SECS;
        let nothing = Delta::default();
        kinds[2].push(timed(|| last = Some(reconcile(at(secs), &mut state, &nothing, &policy))));
    }
    let state_mib = resident_mib() - before;
    let view = last.expect("at least one tick").view;
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
    }
}

fn at(secs: u64) -> Timestamp {
    Timestamp::EPOCH.after(Duration::from_secs(10_000 + secs))
}

fn timed(run: impl FnOnce()) -> Duration {
    let started = Instant::now();
    run();
    started.elapsed()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn median_ms(mut times: Vec<Duration>) -> f64 {
    times.sort();
    millis(times[times.len() / 2])
}

/// `VmRSS` of this process.
fn resident_mib() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").trim().parse::<f64>().ok());
    kib.map_or(f64::NAN, |kib| kib / 1024.0)
}

fn fleet(args: &Args) -> Delta {
    Delta {
        nodes: (0..args.nodes).map(|n| Change::Upsert(node(n))).collect(),
        pods: (0..args.gpu_pods + args.other_pods)
            .map(|n| pod(args, n))
            .chain((0..args.waiting_pods).map(|n| waiting_pod(args, n)))
            .map(Change::Upsert)
            .collect(),
        ..Delta::default()
    }
}

fn node(n: u32) -> Node {
    let whole = GpuCount { resource: GpuResource::Whole, count: GPUS };
    Node {
        name: format!("node-{n:05}").into(),
        uid: format!("uid-node-{n:05}").into(),
        created: Timestamp::EPOCH,
        labels: [
            ("kubernetes.io/hostname", format!("node-{n:05}")),
            ("zone", format!("z{}", n % 3)),
        ]
        .into_iter()
        .collect(),
        taints: vec![],
        ready: true,
        unschedulable: false,
        allocatable: Resources {
            cpu: MilliCpu::new(96_000),
            gpus: vec![whole],
            ..Resources::default()
        },
        pods_max: Some(110),
        instance_type: Some("p4d.24xlarge".into()),
        region: Some("us-east-1".into()),
        zone: None,
        capacity_type: Some(CapacityType::OnDemand),
        gpu_model: GpuModel::parse("NVIDIA A100-SXM4-40GB"),
        gpus: Some(GPUS),
        sharing: None,
    }
}

fn pod(args: &Args, n: u32) -> Pod {
    let gpus = vec![GpuCount { resource: GpuResource::Whole, count: 1 }];
    let gpus = if n < args.gpu_pods { gpus } else { vec![] };
    Pod {
        uid: format!("8a1c7f3e-0000-4000-8000-{n:012}").into(),
        key: ObjectKey::new(format!("team-{}", n % 50), format!("pod-{n:06}")),
        resource_version: format!("{n}").into(),
        created: Timestamp::EPOCH,
        started: Some(Timestamp::EPOCH),
        node: Some(format!("node-{:05}", n / GPUS % args.nodes).into()),
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

/// Every other kind asks for a zone, every fourth keeps away from its like.
fn waiting_pod(args: &Args, n: u32) -> Pod {
    let kind = n % args.waiting_kinds;
    let mut pod = pod(args, args.gpu_pods + args.other_pods + n);
    pod.node = None;
    pod.phase = PodPhase::Pending;
    pod.requests.gpus =
        vec![GpuCount { resource: GpuResource::Whole, count: [1, 2, 4, 8][kind as usize % 4] }];
    pod.requests.cpu = MilliCpu::new(u64::from(1 + kind) * 100);
    pod.labels = [("app", format!("app-{kind}"))].into_iter().collect();
    let mut constraints = Constraints::default();
    if kind.is_multiple_of(2) {
        constraints.node_selector.push(("zone".into(), format!("z{}", kind % 3).into()));
    }
    if kind.is_multiple_of(4) {
        let operator = Operator::In(vec![format!("app-{kind}").into()]);
        let requirements = vec![Requirement { key: "app".into(), operator }];
        constraints.pod_anti_affinity.push(PodTerm {
            selector: Some(LabelSelector { requirements }),
            namespaces: NamespaceScope::All,
            topology_key: "kubernetes.io/hostname".into(),
        });
    }
    pod.constraints = constraints.into();
    pod
}

/// One sample of every GPU; every fourth pod is idle.
fn scraped(args: &Args, secs: u64) -> Delta {
    let samples = (0..args.nodes * GPUS).map(|n| {
        let busy = if n % 4 == 0 { 0.0 } else { 0.8 };
        GpuSample {
            at: at(secs),
            exporter: Default::default(),
            node: format!("node-{:05}", n / GPUS).into(),
            device: Device { uuid: format!("GPU-{n:032}").into(), instance: None },
            model: None,
            holder: (n < args.gpu_pods).then(|| Holder {
                pod: ObjectKey::new(format!("team-{}", n % 50), format!("pod-{n:06}")),
                uid: None,
                container: "main".into(),
            }),
            scope: SampleScope::Exclusive,
            activity: Ratio::new(busy)
                .map(|ratio| Activity { ratio, source: ActivitySource::SmActive }),
            fb_used: Bytes::from_mib(4_000),
            fb_total: Bytes::from_mib(40_000),
            fb_free: None,
            fb_reserved: None,
            hardware: HardwareReading::default(),
        }
    });
    Delta { samples: samples.collect(), ..Delta::default() }
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
    line("cold: objects, window, judgement", format!("{:.1} ms", report.cold_ms));
    line("tick after one change", format!("{:.2} ms", report.one_change_ms));
    line("waiting pods that would fit", report.fitting.to_string());
    line("tick with a scrape of all GPUs", format!("{:.1} ms", report.scrape_ms));
    line("tick with a judgement of all", format!("{:.1} ms", report.judge_ms));
    line("memory of the state", format!("{:.0} MiB", report.state_mib));
    text
}
