//! `kubectl` against the control plane.

use std::process::ExitStatus;
use std::time::Duration;

use super::ControlPlane;
use crate::process::{CommandLine, ProcessError};

/// Time for a command of a test: long enough for creating thousands of objects, short enough that
/// a hanging API server is a failed test and not a hanging one.
const COMMAND_WITHIN: Duration = Duration::from_secs(300);

/// A `kubectl` command that failed.
#[derive(Debug, thiserror::Error)]
pub enum KubectlError {
    /// The command could not be run, or took longer than 300 s.
    #[error("run `kubectl {arguments}`")]
    Run {
        /// The arguments, joined by spaces.
        arguments: String,
        /// What went wrong.
        source: ProcessError,
    },
    /// The command ended with a failure.
    #[error("`kubectl {arguments}`: {status}: {stderr}")]
    Failed {
        /// The arguments, joined by spaces.
        arguments: String,
        /// How it ended.
        status: ExitStatus,
        /// What it wrote to stderr.
        stderr: String,
    },
    /// The output is not what was asked for.
    #[error("`kubectl {arguments}` did not print JSON")]
    NotJson {
        /// The arguments, joined by spaces.
        arguments: String,
        /// Where the text stops being JSON.
        source: serde_json::Error,
    },
}

impl ControlPlane {
    /// Runs `kubectl` as administrator and returns what it printed.
    ///
    /// # Errors
    /// [`KubectlError::Run`] and [`KubectlError::Failed`].
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String, KubectlError> {
        self.kubectl_within(arguments, "", COMMAND_WITHIN)
    }

    /// Runs `kubectl ... -o json` as administrator and returns the parsed output.
    ///
    /// # Errors
    /// As [`ControlPlane::kubectl`], and [`KubectlError::NotJson`].
    pub fn kubectl_json(&self, arguments: &[&str]) -> Result<serde_json::Value, KubectlError> {
        let arguments = [arguments, &["-o", "json"]].concat();
        let text = self.kubectl(&arguments)?;
        serde_json::from_str(&text)
            .map_err(|source| KubectlError::NotJson { arguments: arguments.join(" "), source })
    }

    /// Creates the objects of a YAML or JSON text, all in one command; existing ones are an error.
    ///
    /// # Errors
    /// As [`ControlPlane::kubectl`].
    pub fn create(&self, manifests: &str) -> Result<String, KubectlError> {
        self.kubectl_within(&["create", "-f", "-"], manifests, COMMAND_WITHIN)
    }

    /// Creates or changes the objects of a YAML or JSON text by server-side apply.
    ///
    /// The API server drops `status` here, so nodes are made by [`ControlPlane::create`].
    ///
    /// # Errors
    /// As [`ControlPlane::kubectl`].
    pub fn apply(&self, manifests: &str) -> Result<String, KubectlError> {
        self.kubectl_within(&["apply", "--server-side", "-f", "-"], manifests, COMMAND_WITHIN)
    }

    pub(super) fn kubectl_within(
        &self,
        arguments: &[&str],
        input: &str,
        limit: Duration,
    ) -> Result<String, KubectlError> {
        let cache = self.scratch.join("kubectl-cache");
        let command = CommandLine::new(&self.kubectl, arguments)
            .with_environment("KUBECONFIG", self.kubeconfig())
            .with_environment("KUBECACHEDIR", cache)
            .with_environment("HOME", self.scratch.path());
        let joined = || arguments.join(" ");
        let output = command
            .output_within(input, limit)
            .map_err(|source| KubectlError::Run { arguments: joined(), source })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let stderr = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
        Err(KubectlError::Failed { arguments: joined(), status: output.status, stderr })
    }
}
