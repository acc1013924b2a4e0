//! `cluster`: runs the test control plane until Ctrl-C or SIGTERM.
//!
//! stdout gets one line, the path of the administrator's kubeconfig, when everything is ready;
//! all talk goes to stderr.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use tests::control_plane::{ControlPlane, Options};
use tests::manifests::{SHAPES, gpu_node};
use tests::program::Program;
use tests::prometheus::{self, Prometheus};

const USAGE: &str = "\
usage: cluster [--nodes N] [--prometheus]

  --nodes N      create N GPU nodes played by kwok (default 0)
  --prometheus   start a Prometheus as well, without targets";

/// Between two looks whether every server still runs.
const LOOK_EVERY: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => run(&arguments).map_or_else(
            |error| {
                eprintln!("cluster: {}", tests::error_chain(&*error));
                ExitCode::FAILURE
            },
            |()| ExitCode::SUCCESS,
        ),
        Err(refusal) => {
            eprintln!("cluster: {refusal}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// What the user asked for.
struct Arguments {
    nodes: usize,
    prometheus: bool,
}

impl Arguments {
    fn parse(mut given: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut this = Self { nodes: 0, prometheus: false };
        while let Some(argument) = given.next() {
            match argument.as_str() {
                "--nodes" => {
                    let value = given.next().ok_or("`--nodes` needs a number")?;
                    this.nodes =
                        value.parse().map_err(|error| format!("`--nodes {value}`: {error}"))?;
                }
                "--prometheus" => this.prometheus = true,
                _ => return Err(format!("unknown argument `{argument}`")),
            }
        }
        Ok(this)
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let began = Instant::now();
    let mut control_plane = ControlPlane::start(&Options::default())?;
    let shapes = SHAPES.iter().cycle().take(arguments.nodes).enumerate();
    let nodes: Vec<_> = shapes
        .map(|(number, shape)| {
            let family = shape.instance_type.split('.').next().unwrap_or(shape.instance_type);
            gpu_node(&format!("{family}-{number}"), shape)
        })
        .collect();
    if !nodes.is_empty() {
        control_plane.create_nodes(&nodes)?;
    }
    let prometheus = arguments.prometheus.then(start_prometheus).transpose()?;

    eprintln!("ready after {:.1} s", began.elapsed().as_secs_f64());
    if let Some(prometheus) = &prometheus {
        eprintln!("prometheus: {}", prometheus.url());
    }
    eprintln!("kubectl: {}", Program::Kubectl.find()?.display());
    for (program, process) in control_plane.servers() {
        let mib = process.resident_bytes().map_or(0, |bytes| bytes >> 20);
        eprintln!("  {program}: pid {}, {mib} MiB resident", process.pid());
    }
    eprintln!("Ctrl-C ends it; its kubeconfig:");
    let signals = end_signals()?;
    println!("{}", control_plane.kubeconfig().display());
    io::stdout().flush()?;
    serve_until(signals, &mut control_plane)
}

fn start_prometheus() -> Result<Prometheus, prometheus::PrometheusError> {
    let scrape_interval = Duration::from_secs(1);
    Prometheus::start(&prometheus::Options {
        scrape_interval,
        honor_labels: false,
        targets: Vec::new(),
    })
}

/// A stream that gets a byte when SIGINT or SIGTERM arrives.
///
/// Before this, both end the process at once, and the kernel ends the servers with it.
fn end_signals() -> io::Result<UnixStream> {
    let (signalled, signal) = UnixStream::pair()?;
    signalled.set_read_timeout(Some(LOOK_EVERY))?;
    signal_hook::low_level::pipe::register(SIGINT, signal.try_clone()?)?;
    signal_hook::low_level::pipe::register(SIGTERM, signal)?;
    Ok(signalled)
}

/// Returns at the first signal, or with an error when a server ends by itself.
fn serve_until(
    mut signals: UnixStream,
    control_plane: &mut ControlPlane,
) -> Result<(), Box<dyn std::error::Error>> {
    loop {
        match signals.read(&mut [0]) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                control_plane.check_alive()?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}
