//! A real Kubernetes control plane on loopback: etcd, API server, controller manager, scheduler,
//! and kwok in the place of kubelets.
//!
//! In: the programs of [`crate::program`], and [`Options`]. Out: a kubeconfig, and faults.
//! RBAC is in force; the kubeconfig of [`ControlPlane::kubeconfig`] belongs to `system:masters`.
//! Webhooks are reached by `clientConfig.url: https://127.0.0.1:PORT/...`; no Service is needed.

mod kubeconfig;
mod kubectl;
mod programs;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;
use std::{io, thread};

use serde_json::Value;

use self::kubeconfig::{Identity, Kubeconfigs};
pub use self::kubectl::KubectlError;
use self::programs::Paths;
use crate::error_chain;
use crate::manifests::list;
use crate::port::LoopbackPort;
use crate::process::{Process, ProcessError, log_tail};
use crate::program::{Program, ProgramMissing};
use crate::scratch::ScratchDir;
use crate::skip::skip_or_fail;
use crate::wait::poll;

/// Time that a server may take until it is ready. It takes 1 to 5 s on an idle machine of two
/// cores; the limit is for one that compiles meanwhile.
const READY_WITHIN: Duration = Duration::from_secs(180);

/// Time for one look at the readiness of the API server.
const LOOK_WITHIN: Duration = Duration::from_secs(10);

/// The servers, in the order in which they are started. They are killed in the reverse order: an
/// API server whose etcd is gone waits for it.
const SERVERS: [Program; 5] = [
    Program::Etcd,
    Program::KubeApiserver,
    Program::KubeControllerManager,
    Program::KubeScheduler,
    Program::Kwok,
];

/// What a test wants beside the plain control plane.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Users with a static token each; see [`ControlPlane::kubeconfig_of_user`].
    pub users: Vec<User>,
    /// Arguments appended to those of a server, such as
    /// `(Program::KubeControllerManager, "--node-monitor-grace-period=20s".into())`.
    pub arguments: Vec<(Program, String)>,
}

/// A user known to the API server, without any right until RBAC grants one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Name, as in the `subjects` of a role binding.
    pub name: String,
    /// Groups, beside `system:authenticated`.
    pub groups: Vec<String>,
}

/// Why there is no control plane, or not the wanted one.
#[derive(Debug, thiserror::Error)]
pub enum ControlPlaneError {
    /// A program is not on this machine.
    #[error(transparent)]
    Missing(#[from] ProgramMissing),
    /// A folder, file or port could not be had.
    #[error("prepare the control plane")]
    Prepare(#[from] io::Error),
    /// A certificate or key could not be made.
    #[error("make certificates")]
    Certificates(#[from] rcgen::Error),
    /// A server could not be started.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A server does not run.
    #[error("`{program}` has ended: {status}\n{log}")]
    Ended {
        /// Which one.
        program: Program,
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// A server runs, but did not become ready.
    #[error("`{program}` was not ready after {} s: {last}\n{log}", READY_WITHIN.as_secs())]
    NotReady {
        /// Which one.
        program: Program,
        /// What the last look saw.
        last: String,
        /// The end of its log.
        log: String,
    },
    /// Nodes were created, but kwok did not make them Ready.
    #[error("nodes not Ready after {} s: {}\n{log}", READY_WITHIN.as_secs(), names.join(", "))]
    NodesNotReady {
        /// Their names.
        names: Vec<String>,
        /// The end of kwok's log.
        log: String,
    },
    /// A `kubectl` command failed.
    #[error(transparent)]
    Kubectl(#[from] KubectlError),
}

/// A running control plane; all its processes and files are gone when it is dropped.
#[derive(Debug)]
pub struct ControlPlane {
    /// In the order of [`SERVERS`].
    servers: Vec<(Program, Process)>,
    kubectl: PathBuf,
    kubeconfigs: Kubeconfigs,
    api_server: LoopbackPort,
    etcd: [LoopbackPort; 2],
    // Last, so that the servers are gone when it is removed.
    scratch: ScratchDir,
}

impl ControlPlane {
    /// Starts a control plane and waits until it can be used: the API server is ready and the
    /// controllers have made the service account that every pod needs.
    ///
    /// # Errors
    /// [`ControlPlaneError::Missing`] names the program and how to get it; all others carry the
    /// end of the log of the server that failed. What was started is killed.
    pub fn start(options: &Options) -> Result<Self, ControlPlaneError> {
        let paths = Paths::find()?;
        let scratch = ScratchDir::create("control-plane")?;
        let etcd = [LoopbackPort::reserve()?, LoopbackPort::reserve()?];
        let api_server = LoopbackPort::reserve()?;
        let kubeconfigs = Kubeconfigs::write(&scratch, api_server.address(), &options.users)?;
        programs::write_files(&scratch, &kubeconfigs)?;

        let kubectl = paths.kubectl.clone();
        let mut this =
            Self { servers: Vec::new(), kubectl, kubeconfigs, api_server, etcd, scratch };
        for program in SERVERS {
            let mut command = this.command_line(program, &paths);
            let further = options.arguments.iter().filter(|(of, _)| *of == program);
            command.arguments.extend(further.map(|(_, argument)| argument.into()));
            let log = this.log(program);
            this.servers.push((program, Process::start(command, &log)?));
            // The others give up when they find no API server; etcd is waited for by that one.
            if program == Program::KubeApiserver {
                this.wait_until_served()?;
            }
        }
        this.wait_until_controlled()?;
        this.check_alive()?;
        Ok(this)
    }

    /// As [`ControlPlane::start`] for a test: skips it aloud where a program is missing.
    ///
    /// # Panics
    /// When the control plane does not start; and instead of skipping under `REQUIRE_ALL=1`.
    pub fn start_or_skip(options: &Options) -> Option<Self> {
        match Self::start(options) {
            Ok(this) => Some(this),
            Err(ControlPlaneError::Missing(missing)) => {
                skip_or_fail(&missing.to_string());
                None
            }
            Err(error) => panic!("start the control plane: {}", error_chain(&error)),
        }
    }

    /// The kubeconfig of an administrator: group `system:masters`.
    pub fn kubeconfig(&self) -> &Path {
        self.kubeconfigs.admin()
    }

    /// The kubeconfig of one of [`Options::users`], or nothing for another name.
    pub fn kubeconfig_of_user(&self, name: &str) -> Option<&Path> {
        self.kubeconfigs.of_user(name)
    }

    /// Writes a kubeconfig with a fresh token of a service account, which must exist: what a pod
    /// of that service account may do, its holder may do.
    ///
    /// # Errors
    /// [`ControlPlaneError::Kubectl`] when the service account does not exist, and
    /// [`ControlPlaneError::Prepare`] when the file cannot be written.
    pub fn kubeconfig_of_service_account(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<PathBuf, ControlPlaneError> {
        let token = self.kubectl(&["create", "token", name, "--namespace", namespace])?;
        let identity =
            Identity { name: format!("{namespace}-{name}"), token: token.trim().to_owned() };
        Ok(self.kubeconfigs.add(&self.scratch, &identity)?)
    }

    /// Creates nodes, such as those of [`crate::manifests::gpu_node`], and waits until kwok has
    /// made each of them Ready. Takes about 30 ms per node.
    ///
    /// # Errors
    /// [`ControlPlaneError::Kubectl`] when one exists already, and
    /// [`ControlPlaneError::NodesNotReady`] with the names of those that stay behind.
    pub fn create_nodes(&self, nodes: &[Value]) -> Result<(), ControlPlaneError> {
        self.create(&list(nodes.iter().cloned()))?;
        let mut waiting = Vec::new();
        let ready = poll(READY_WITHIN, || {
            let answer = self.kubectl_json(&["get", "nodes"])?;
            let ready: BTreeSet<&str> = ready_nodes(&answer).collect();
            let names = nodes.iter().filter_map(|node| node["metadata"]["name"].as_str());
            waiting = names.filter(|name| !ready.contains(name)).map(str::to_owned).collect();
            Ok::<_, ControlPlaneError>(waiting.is_empty().then_some(()))
        })?;
        let log = || log_tail(&self.log(Program::Kwok));
        ready.ok_or_else(|| ControlPlaneError::NodesNotReady { names: waiting, log: log() })
    }

    /// `https://127.0.0.1:PORT` of the API server.
    pub fn url(&self) -> String {
        format!("https://{}", self.api_server.address())
    }

    /// PEM file with the authority that signed the API server's certificate.
    pub fn certificate_authority(&self) -> PathBuf {
        self.scratch.join(kubeconfig::AUTHORITY)
    }

    /// The log of a server.
    pub fn log(&self, program: Program) -> PathBuf {
        self.scratch.join(format!("{program}.log"))
    }

    /// The servers, in starting order.
    pub fn servers(&self) -> impl Iterator<Item = (Program, &Process)> {
        self.servers.iter().map(|(program, process)| (*program, process))
    }

    /// One server, to pause or resume it.
    ///
    /// # Panics
    /// When the control plane has no such server.
    pub fn server(&mut self, program: Program) -> &mut Process {
        let found = self.servers.iter_mut().find(|(candidate, _)| *candidate == program);
        &mut found.unwrap_or_else(|| panic!("the control plane runs no `{program}`")).1
    }

    /// Ends a server as a crash does, by SIGKILL.
    ///
    /// # Panics
    /// When the control plane has no such server.
    pub fn kill(&mut self, program: Program) {
        self.server(program).kill();
    }

    /// Starts a killed server again, with the same port, files and state, and waits until it is
    /// ready.
    ///
    /// # Errors
    /// As [`ControlPlane::start`].
    ///
    /// # Panics
    /// When the control plane has no such server.
    pub fn start_again(&mut self, program: Program) -> Result<(), ControlPlaneError> {
        self.server(program).start_again()?;
        self.wait_until_served()
    }

    /// Whether all servers run.
    ///
    /// # Errors
    /// [`ControlPlaneError::Ended`] names the first that does not, with the end of its log.
    pub fn check_alive(&mut self) -> Result<(), ControlPlaneError> {
        SERVERS.into_iter().try_for_each(|program| self.check_server(program))
    }

    fn check_server(&mut self, program: Program) -> Result<(), ControlPlaneError> {
        let process = self.server(program);
        let Some(status) = process.exit_status() else { return Ok(()) };
        let log = log_tail(process.log());
        Err(ControlPlaneError::Ended { program, status, log })
    }

    fn wait_until_served(&mut self) -> Result<(), ControlPlaneError> {
        self.wait_for(Program::KubeApiserver, &["get", "--raw=/readyz"])
    }

    fn wait_until_controlled(&mut self) -> Result<(), ControlPlaneError> {
        let account = ["get", "serviceaccount", "default", "--namespace=default"];
        self.wait_for(Program::KubeControllerManager, &account)
    }

    /// Waits until a `kubectl` command succeeds, which shows that `program` is ready.
    ///
    /// Only that server must run: a test may have killed others on purpose.
    fn wait_for(&mut self, program: Program, look: &[&str]) -> Result<(), ControlPlaneError> {
        let mut last = String::new();
        let ready = poll(READY_WITHIN, || {
            self.check_server(program)?;
            match self.kubectl_within(look, "", LOOK_WITHIN) {
                Ok(_) => Ok(Some(())),
                Err(error) => {
                    last = error_chain(&error);
                    Ok::<_, ControlPlaneError>(None)
                }
            }
        })?;
        let log = || log_tail(&self.log(program));
        ready.ok_or_else(|| ControlPlaneError::NotReady { program, last, log: log() })
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        for (_, process) in self.servers.iter_mut().rev() {
            process.kill();
        }
        if thread::panicking() {
            let mut text = format!("logs are kept in {}\n", self.scratch.path().display());
            for (_, process) in &self.servers {
                text += &log_tail(process.log());
            }
            eprintln!("{text}");
        }
    }
}

/// The names of the nodes of a list that are Ready.
fn ready_nodes(list: &Value) -> impl Iterator<Item = &str> {
    let ready = |node: &&Value| {
        let conditions = node["status"]["conditions"].as_array();
        conditions.is_some_and(|conditions| {
            conditions.iter().any(|it| it["type"] == "Ready" && it["status"] == "True")
        })
    };
    let nodes = list["items"].as_array().into_iter().flatten();
    nodes.filter(ready).filter_map(|node| node["metadata"]["name"].as_str())
}
