//! `fleet`: the simulator's cluster on a real control plane.
//!
//! Writes what is true to a file, then starts the control plane with kwok nodes and pods, a DCGM
//! exporter for each node that follows the pods' curves in real time, and a Prometheus that
//! scrapes them. One line of JSON on stdout says where everything is; then it waits for SIGTERM.
//!
//! The truth is that of one instant, the end: it is written before anything is started, and
//! whoever compares waits until then.

mod exporters;
mod objects;
mod truth;

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gpu_autoscaler_model::{NodeName, Timestamp};
use gpu_autoscaler_sim::{Planting, World, planted};
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};
use tests::control_plane::{ControlPlane, Options};
use tests::program::Program;
use tests::prometheus::{self, Prometheus, Target};

use self::exporters::{Clock, Exporters};
use self::truth::Rule;

const USAGE: &str = "\
usage: fleet --truth FILE [--seed N] [--nodes N] [--pods N] [--window SECS] [--young SECS]

  --truth FILE    where what is true is written, before anything is started
  --seed N        seed of the world (default 1)
  --nodes N       GPU nodes (default 20)
  --pods N        GPU pods (default 80)
  --window SECS   how far back the observer looks (default 180)
  --young SECS    how old a pod must be to be judged (default 90)";

/// How far behind the truth an observer may be.
const LAG: Duration = Duration::from_secs(40);

/// When the exporter dies that dies.
const DIES_AFTER: Duration = Duration::from_secs(10);

/// From scrape to scrape.
const SCRAPE_INTERVAL: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => run(&arguments).map_or_else(
            |error| {
                eprintln!("fleet: {}", tests::error_chain(&*error));
                ExitCode::FAILURE
            },
            |()| ExitCode::SUCCESS,
        ),
        Err(refusal) => {
            eprintln!("fleet: {refusal}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

struct Arguments {
    truth: PathBuf,
    seed: u64,
    nodes: usize,
    pods: usize,
    rule: Rule,
}

impl Arguments {
    fn parse(mut given: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut values: BTreeMap<String, String> = BTreeMap::new();
        while let Some(name) = given.next() {
            let known = ["--truth", "--seed", "--nodes", "--pods", "--window", "--young"];
            if !known.contains(&name.as_str()) {
                return Err(format!("unknown argument `{name}`"));
            }
            let value = given.next().ok_or(format!("`{name}` needs a value"))?;
            values.insert(name, value);
        }
        let number = |name: &str, default: u64| match values.get(name) {
            Some(text) => text.parse::<u64>().map_err(|error| format!("`{name} {text}`: {error}")),
            None => Ok(default),
        };
        // Counts of objects: what does not fit in an address space does not fit in a cluster.
        Ok(Self {
            truth: values.get("--truth").ok_or("`--truth` is missing")?.into(),
            seed: number("--seed", 1)?,
            nodes: number("--nodes", 20)? as usize,
            pods: number("--pods", 80)? as usize,
            rule: Rule {
                window: Duration::from_secs(number("--window", 180)?),
                young: Duration::from_secs(number("--young", 90)?),
                lag: LAG,
            },
        })
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let rule = &arguments.rule;
    // By then the window of all but the late pods has been filled since everything stands, and
    // the exporter that dies has been dead for longer than it reaches.
    let end = DIES_AFTER + rule.window + rule.lag * 2;
    let planting = Planting {
        seed: arguments.seed,
        start: Timestamp::EPOCH,
        nodes: arguments.nodes,
        pods: arguments.pods,
        // Half as old as a pod must be, when all is compared.
        late: end.saturating_sub(rule.young / 2),
    };
    let spec = planted(&planting);
    let dies = dying_exporter(&World::new(&spec));
    let truth = truth::truth(&spec, dies.as_ref(), DIES_AFTER, end, rule);
    std::fs::write(&arguments.truth, serde_json::to_string_pretty(&truth)?)?;

    let signals = end_signals()?;
    let mut control_plane = ControlPlane::start(&Options::default())?;
    let mut world = World::new(&spec);
    world.advance(planting.start.after(planting.late));
    control_plane.create_nodes(&objects::nodes(&world))?;
    let (early, late) = objects::pods(&world, planting.start);
    control_plane.create(&tests::manifests::list(objects::namespaces(&world)))?;

    // The world begins when its pods do.
    let mut world = World::new(&spec);
    control_plane.create(&tests::manifests::list(early))?;
    adopt_uids(&control_plane, &mut world)?;
    let clock = Clock { began: Instant::now(), start: planting.start };
    let world = Arc::new(Mutex::new(world));
    let exporters = Exporters::start(&world, clock, dies.map(|node| (node, DIES_AFTER)))?;
    let prometheus = Prometheus::start(&prometheus::Options {
        scrape_interval: SCRAPE_INTERVAL,
        honor_labels: false,
        targets: targets(&exporters),
    })?;
    let ready = json!({
        "kubeconfig": control_plane.kubeconfig(),
        "kubectl": Program::Kubectl.find()?,
        "prometheus": prometheus.url(),
        "lateAfterSecs": planting.late.as_secs_f64(),
        "compareAfterSecs": end.as_secs_f64(),
    });
    println!("{ready}");
    io::stdout().flush()?;
    let mut late = Some(late);
    let mut signals = signals;
    loop {
        if signalled(&mut signals)? {
            return Ok(());
        }
        control_plane.check_alive()?;
        if clock.began.elapsed() >= planting.late
            && let Some(pods) = late.take()
        {
            control_plane.create(&tests::manifests::list(pods))?;
            let mut world = world.lock().map_err(|_| "an exporter has panicked")?;
            clock.advance(&mut world);
            adopt_uids(&control_plane, &mut world)?;
        }
    }
}

/// The exporter that dies: the third of those that are measured and hold whole GPUs.
fn dying_exporter(world: &World) -> Option<NodeName> {
    let measured = world.exporters().filter(|(_, exporter)| exporter.is_some());
    let names: Vec<&NodeName> = measured.map(|(name, _)| name).collect();
    names.get(2).map(|name| (*name).clone())
}

/// As the Prometheus Operator does it: the scraped pod's own labels, which clash with those that
/// the exporter writes about the holders of its GPUs.
fn targets(exporters: &Exporters) -> Vec<Target> {
    let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    exporters
        .addresses()
        .map(|(node, address)| Target {
            address,
            labels: BTreeMap::from([
                label("namespace", "gpu-operator"),
                label("pod", &format!("nvidia-dcgm-exporter-{node}")),
                label("container", "nvidia-dcgm-exporter"),
            ]),
        })
        .collect()
}

/// Exporters that name pods by uid name those of the real objects.
fn adopt_uids(control_plane: &ControlPlane, world: &mut World) -> Result<(), Box<dyn Error>> {
    let pods = control_plane.kubectl_json(&["get", "pods", "--all-namespaces"])?;
    for pod in pods["items"].as_array().into_iter().flatten() {
        let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default();
        let key = gpu_autoscaler_model::ObjectKey::new(text("namespace"), text("name"));
        world.give_uid(&key, text("uid").into());
    }
    Ok(())
}

/// A stream that gets a byte when SIGINT or SIGTERM arrives.
fn end_signals() -> io::Result<UnixStream> {
    let (signalled, signal) = UnixStream::pair()?;
    signalled.set_read_timeout(Some(Duration::from_millis(500)))?;
    signal_hook::low_level::pipe::register(SIGINT, signal.try_clone()?)?;
    signal_hook::low_level::pipe::register(SIGTERM, signal)?;
    Ok(signalled)
}

/// Waits for a signal for half a second at most.
fn signalled(signals: &mut UnixStream) -> io::Result<bool> {
    match io::Read::read(signals, &mut [0]) {
        Ok(_) => Ok(true),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(false),
            _ => Err(error),
        },
    }
}

type Json = serde_json::Value;
