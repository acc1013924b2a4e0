//! The controller as its own process, against a [`ControlPlane`].

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;
use std::{env, io};

use serde_json::Value;

use crate::control_plane::ControlPlane;
use crate::http;
use crate::port::LoopbackPort;
use crate::process::{CommandLine, Process, ProcessError, log_tail};
use crate::wait::until;

/// Time until a controller must serve; a machine that compiles meanwhile is slow.
const SERVES_WITHIN: Duration = Duration::from_secs(60);

/// The binary, built from this tree once per process; up to date it takes a moment.
static BUILT: LazyLock<PathBuf> = LazyLock::new(|| {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // The whole workspace's features, so that nothing is built twice.
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--workspace", "--bin", "gpu-autoscaler-controller"])
        .status()
        .expect("cargo runs this test");
    assert!(built.success(), "cannot build gpu-autoscaler-controller");
    let test = env::current_exe().expect("a test has a path");
    let folder = test.ancestors().nth(2).expect("target/PROFILE/deps/TEST");
    folder.join("gpu-autoscaler-controller")
});

/// Flags that make a judgement in seconds of what takes minutes by default.
pub const HASTY: [&str; 6] = [
    "--scrape-interval=500ms",
    "--reconcile-interval=1s",
    "--waste-lookback=60s",
    "--waste-observed-min=2s",
    "--waste-pod-age-min=1s",
    "--waste-sample-gap-max=30s",
];

/// The binary of the controller, built from this tree.
pub fn binary() -> &'static Path {
    &BUILT
}

/// A running controller.
#[derive(Debug)]
pub struct Controller {
    process: Process,
    served: LoopbackPort,
    probes: LoopbackPort,
}

impl Controller {
    /// Starts one, hasty and without Prometheus, logging into `folder`, as the administrator of
    /// `cluster`; a flag of `further` takes the place of the one that would be given.
    ///
    /// # Errors
    /// No port could be had, or the process could not be started.
    pub fn start(
        cluster: &ControlPlane,
        folder: &Path,
        name: &str,
        further: &[String],
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let (served, probes) = (LoopbackPort::reserve()?, LoopbackPort::reserve()?);
        let mut arguments = vec![
            format!("--metrics-bind-address={}", served.address()),
            format!("--health-probe-bind-address={}", probes.address()),
            "--prometheus-url=".to_owned(),
            "--leader-election-namespace=default".to_owned(),
            format!("--kubeconfig={}", cluster.kubeconfig().display()),
        ];
        arguments.extend(HASTY.map(str::to_owned));
        let name_of = |flag: &str| flag.split('=').next().map(str::to_owned);
        arguments.retain(|flag| !further.iter().any(|f| name_of(f) == name_of(flag)));
        arguments.extend(further.iter().cloned());
        let command = CommandLine::new(&*BUILT, arguments);
        // The host's name is what an Event shows of the replica.
        let command = command.with_environment("HOSTNAME", name);
        let process = Process::start(command, &folder.join(format!("{name}.log")))?;
        Ok(Self { process, served, probes })
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Starts it again with the same arguments; a running one is killed.
    ///
    /// # Errors
    /// As [`Process::start_again`].
    pub fn start_again(&mut self) -> Result<(), ProcessError> {
        self.process.start_again()
    }

    /// Where it serves metrics and the API.
    pub fn address(&self) -> SocketAddr {
        self.served.address()
    }

    /// Status and body of a path of the API.
    ///
    /// # Errors
    /// It does not answer.
    pub fn get(&self, path: &str) -> io::Result<(u16, String)> {
        http::get(self.served.address(), path)
    }

    /// Status and body of a probe.
    ///
    /// # Errors
    /// It does not answer.
    pub fn probe(&self, path: &str) -> io::Result<(u16, String)> {
        http::get(self.probes.address(), path)
    }

    /// `/api/v1/status`; nothing while it does not answer.
    pub fn status(&self) -> Option<Value> {
        let (code, body) = self.get("/api/v1/status").ok()?;
        (code == 200).then(|| serde_json::from_str(&body).expect("the API answers JSON"))
    }

    /// The value of a series as it stands in `/metrics`; nothing where it is absent.
    pub fn metric(&self, series: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics").ok()?;
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        value.parse().ok()
    }

    /// Whether it leads, as it says itself.
    pub fn leads(&self) -> bool {
        self.metric("gpu_autoscaler_leader") == Some(1.0)
    }

    /// Waits until it serves.
    ///
    /// # Panics
    /// It does not within a minute.
    pub fn wait_until_it_serves(&self) {
        until("the controller serves", SERVES_WITHIN, || {
            Ok::<_, io::Error>(self.probe("/healthz").ok().filter(|(code, _)| *code == 200))
        });
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.process.kill();
        if std::thread::panicking() {
            eprintln!("{}", log_tail(self.process.log()));
        }
    }
}
