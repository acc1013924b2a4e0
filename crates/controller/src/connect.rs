//! What this replica calls itself, and where its Lease is.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher as _, Hasher as _};

/// Where a pod finds its own namespace.
const POD_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// Namespace of an installation, where nothing else says so.
const PUBLISHED_NAMESPACE: &str = "gpu-autoscaler-system";

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
