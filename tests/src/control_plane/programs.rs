//! The command lines and configuration files of the servers.

use std::io;
use std::path::PathBuf;

use super::ControlPlane;
use super::kubeconfig::{self, Kubeconfigs};
use crate::process::CommandLine;
use crate::program::{Program, ProgramMissing, cluster_folder};
use crate::scratch::ScratchDir;

const SCHEDULER_CONFIG: &str = "kube-scheduler.yaml";

/// Requests per second that a client may make; 20 to 50 by default, which would make a test of
/// 500 pods one of the client's patience.
const QPS: u32 = 500;
const BURST: u32 = 1000;

/// Where the programs lie.
#[derive(Debug)]
pub(super) struct Paths {
    etcd: PathBuf,
    api_server: PathBuf,
    controller_manager: PathBuf,
    scheduler: PathBuf,
    kwok: PathBuf,
    pub(super) kubectl: PathBuf,
}

impl Paths {
    pub(super) fn find() -> Result<Self, ProgramMissing> {
        Ok(Self {
            etcd: Program::Etcd.find()?,
            api_server: Program::KubeApiserver.find()?,
            controller_manager: Program::KubeControllerManager.find()?,
            scheduler: Program::KubeScheduler.find()?,
            kwok: Program::Kwok.find()?,
            kubectl: Program::Kubectl.find()?,
        })
    }
}

/// Writes the configuration files that are not kubeconfigs.
pub(super) fn write_files(scratch: &ScratchDir, kubeconfigs: &Kubeconfigs) -> io::Result<()> {
    let config = serde_json::json!({
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "leaderElection": { "leaderElect": false },
        "clientConnection": { "kubeconfig": kubeconfigs.admin(), "qps": QPS, "burst": BURST },
    });
    scratch.write(SCHEDULER_CONFIG, &config.to_string()).map(drop)
}

impl ControlPlane {
    /// The command line of a server of this instance.
    pub(super) fn command_line(&self, program: Program, paths: &Paths) -> CommandLine {
        let (program, arguments) = match program {
            Program::Etcd => (&paths.etcd, self.etcd_arguments()),
            Program::KubeApiserver => (&paths.api_server, self.api_server_arguments()),
            Program::KubeControllerManager => {
                (&paths.controller_manager, self.controller_manager_arguments())
            }
            Program::KubeScheduler => (&paths.scheduler, self.scheduler_arguments()),
            Program::Kwok => (&paths.kwok, self.kwok_arguments()),
            Program::Kubectl | Program::Helm | Program::Podresources | Program::Prometheus => {
                unreachable!("`{program}` is no server of the control plane")
            }
        };
        CommandLine::new(program, arguments).with_environment("HOME", self.scratch.path())
    }

    fn etcd_arguments(&self) -> Vec<String> {
        let [client, peer] = self.etcd_urls();
        vec![
            format!("--data-dir={}", self.scratch.join("etcd").display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=default={peer}"),
            // Without progress requests (see the API server below) the watch cache of a kind that
            // nobody changes learns the current revision by these notices alone. At etcd's default
            // of 10 minutes, lists answer `Too large resource version`.
            "--experimental-watch-progress-notify-interval=1s".to_owned(),
        ]
    }

    fn api_server_arguments(&self) -> Vec<String> {
        let path = |name: &str| self.scratch.join(name).display().to_string();
        let [etcd, _] = self.etcd_urls();
        vec![
            format!("--etcd-servers={etcd}"),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            // No Endpoints of the `kubernetes` Service: a loopback address is refused there.
            "--endpoint-reconciler-type=none".to_owned(),
            format!("--secure-port={}", self.api_server.number()),
            format!("--tls-cert-file={}", path(kubeconfig::SERVER_CERTIFICATE)),
            format!("--tls-private-key-file={}", path(kubeconfig::SERVER_KEY)),
            format!("--token-auth-file={}", path(kubeconfig::TOKENS)),
            "--authorization-mode=RBAC".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", path(kubeconfig::TOKEN_PUBLIC_KEY)),
            format!("--service-account-signing-key-file={}", path(kubeconfig::TOKEN_KEY)),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            // The DaemonSets of GPU operators are privileged.
            "--allow-privileged=true".to_owned(),
            "--profiling=false".to_owned(),
            // The API server asks etcd for progress from 3.4.31 and 3.5.13 on; Debian 12 has
            // 3.4.23. With this gate on, its default, a plain watch from resource version 0 is
            // then answered by an error event, and kwok starts it anew for ever. With it off, a
            // client that asks for a streamed list is refused and falls back to paging.
            "--feature-gates=WatchList=false".to_owned(),
        ]
    }

    fn controller_manager_arguments(&self) -> Vec<String> {
        let path = |name: &str| self.scratch.join(name).display().to_string();
        vec![
            format!("--kubeconfig={}", self.kubeconfigs.admin().display()),
            format!("--root-ca-file={}", path(kubeconfig::AUTHORITY)),
            format!("--service-account-private-key-file={}", path(kubeconfig::TOKEN_KEY)),
            "--leader-elect=false".to_owned(),
            format!("--kube-api-qps={QPS}"),
            format!("--kube-api-burst={BURST}"),
            "--secure-port=0".to_owned(),
        ]
    }

    fn scheduler_arguments(&self) -> Vec<String> {
        let config = self.scratch.join(SCHEDULER_CONFIG);
        vec![format!("--config={}", config.display()), "--secure-port=0".to_owned()]
    }

    fn kwok_arguments(&self) -> Vec<String> {
        vec![
            format!("--kubeconfig={}", self.kubeconfigs.admin().display()),
            format!("--config={}", cluster_folder().join("stages.yaml").display()),
            "--manage-all-nodes=false".to_owned(),
            "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake".to_owned(),
            "--node-lease-duration-seconds=40".to_owned(),
        ]
    }

    /// Where etcd serves clients and its (absent) peers.
    fn etcd_urls(&self) -> [String; 2] {
        self.etcd.each_ref().map(|port| format!("http://{}", port.address()))
    }
}
