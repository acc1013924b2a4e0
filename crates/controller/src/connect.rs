//! The connection to the cluster, and what this replica calls itself.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher as _, Hasher as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use gpu_autoscaler_k8s::api::Api;
use kube::config::{KubeConfigOptions, Kubeconfig};

/// Where a pod finds its own namespace.
const POD_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// Namespace of an installation, where nothing else says so.
const PUBLISHED_NAMESPACE: &str = "gpu-autoscaler-system";

/// Connects as `kubeconfig` says, or as the environment does.
pub async fn api(kubeconfig: Option<&Path>) -> Result<Api> {
    let mut config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path)
                .with_context(|| format!("read kubeconfig `{}`", path.display()))?;
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("use kubeconfig `{}`", path.display()))?
        }
        None => kube::Config::infer()
            .await
            .context("find a cluster: no --kubeconfig, no KUBECONFIG, no service account")?,
    };
    // Whether a write may be repeated is decided by its precondition, not by its transport.
    config.default_retry = false;
    config.connect_timeout = Some(std::time::Duration::from_secs(5));
    let client = kube::Client::try_from(config).context("make a client of the API server")?;
    Ok(Api::new(client))
}

/// A name that no other process has: the host's, and a random part, because a pod that is
/// restarted in place keeps its host's name while its old lease may still stand.
pub fn identity() -> String {
    let host = std::env::var("HOSTNAME")
        .ok()
        .filter(|name| !name.is_empty())
        .or_else(|| fs::read_to_string("/proc/sys/kernel/hostname").ok())
        .unwrap_or_else(|| "controller".to_owned());
    format!("{}_{:016x}", host.trim(), RandomState::new().build_hasher().finish())
}

/// The namespace of the Lease.
pub fn namespace(given: Option<&str>) -> String {
    let of_pod = || fs::read_to_string(POD_NAMESPACE).ok().map(|text| text.trim().to_owned());
    given
        .map(str::to_owned)
        .or_else(of_pod)
        .filter(|namespace| !namespace.is_empty())
        .unwrap_or_else(|| PUBLISHED_NAMESPACE.to_owned())
}
