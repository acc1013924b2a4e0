//! The programs of the test control plane: which there are, and where they lie.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::{env, fmt, fs};

/// A program that tests run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Program {
    /// The store of the API server; Debian package `etcd-server`.
    Etcd,
    /// The Kubernetes API server.
    KubeApiserver,
    /// Kubernetes' own controllers.
    KubeControllerManager,
    /// The scheduler that binds pods to nodes.
    KubeScheduler,
    /// kwok, which plays nodes and kubelets.
    Kwok,
    /// The command line client of Kubernetes.
    Kubectl,
    /// The package manager of charts.
    Helm,
    /// The kubelet's server of pod-resources; its source is in `tests/cluster/kubernetes`.
    Podresources,
    /// The metrics store; Debian package `prometheus`.
    Prometheus,
}

/// A program that is not on this machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no `{program}` in {searched}\nhint: {hint}")]
pub struct ProgramMissing {
    program: Program,
    searched: String,
    hint: &'static str,
}

impl Program {
    /// The file name of the program.
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::KubeApiserver => "kube-apiserver",
            Self::KubeControllerManager => "kube-controller-manager",
            Self::KubeScheduler => "kube-scheduler",
            Self::Kwok => "kwok",
            Self::Kubectl => "kubectl",
            Self::Helm => "helm",
            Self::Podresources => "podresources",
            Self::Prometheus => "prometheus",
        }
    }

    /// Where the program lies: Debian's in `PATH`, all others in the cache of `build.sh`.
    ///
    /// # Errors
    /// [`ProgramMissing`], with the command that installs or builds it.
    pub fn find(self) -> Result<PathBuf, ProgramMissing> {
        let from_debian = matches!(self, Self::Etcd | Self::Prometheus);
        let folders = if from_debian {
            env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect()
        } else {
            BUILT.iter().cloned().collect::<Vec<_>>()
        };
        let found = folders.iter().map(|folder| folder.join(self.name())).find(|it| is_file(it));
        found.ok_or_else(|| ProgramMissing {
            program: self,
            searched: folders
                .iter()
                .map(|folder| format!("`{}`", folder.display()))
                .collect::<Vec<_>>()
                .join(", "),
            hint: if from_debian {
                "tests/cluster/install-deps.sh"
            } else {
                "tests/cluster/build.sh"
            },
        })
    }
}

impl fmt::Display for Program {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

fn is_file(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file())
}

/// The folder that `build.sh` builds into; it alone knows the hash in the name.
static BUILT: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    let script = cluster_folder().join("build.sh");
    let output = Command::new(script).arg("--dir").output().ok()?;
    let folder = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(folder.trim_end()))
});

/// The folder `tests/cluster` of the source tree.
pub fn cluster_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_names_where_it_was_sought_and_the_next_step() {
        let missing = ProgramMissing {
            program: Program::KubeApiserver,
            searched: "`/cache/bin`".to_owned(),
            hint: "tests/cluster/build.sh",
        };
        let expected = "no `kube-apiserver` in `/cache/bin`\nhint: tests/cluster/build.sh";
        assert_eq!(missing.to_string(), expected);
    }

    #[test]
    fn the_build_script_names_its_folder_without_building() {
        let folder = BUILT.as_deref().expect("build.sh --dir answers");
        assert!(folder.is_absolute() && folder.ends_with("bin"), "{}", folder.display());
    }
}
