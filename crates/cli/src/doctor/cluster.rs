//! Checks of the cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use gpu_autoscaler_k8s::api::{Api, ApiError, chain};
use gpu_autoscaler_k8s::connect::Cluster;
use gpu_autoscaler_k8s::snapshot::{Snapshot, snapshot};
use gpu_autoscaler_model::{Change, Node, PolicyKind, Timestamp};
use gpu_autoscaler_reconciler::Policy;
use serde::Deserialize;
use serde_json::Value;

use super::Check;
use crate::gather;
use crate::source::{SourceArgs, wall_clock};

/// The oldest server on which everything installs.
const MINOR_MIN: u32 = 25;

/// Clocks that differ by more make samples look as if they were from the future or stale.
const SKEW_MAX: Duration = Duration::from_secs(10);

/// Time for listing a cluster.
const LIST_TIME_MAX: Duration = Duration::from_secs(60);

/// The definitions of a chart, for who has none.
const DEFINE: &str = "kubectl apply --server-side -f charts/gpu-autoscaler/crds/, or install the \
                      chart; `status`, `optimize` and `report` work without";

/// Checks the way to the cluster and what it holds; gives what was listed.
pub(super) async fn checks(args: &SourceArgs, policy: &Policy) -> (Vec<Check>, Option<Snapshot>) {
    let mut checks = Vec::new();
    let cluster = match Cluster::connect(args.kubeconfig.as_deref(), args.context.as_deref()).await
    {
        Ok(cluster) => cluster,
        Err(error) => {
            let evidence = chain(&error);
            let next = "name one with --kubeconfig FILE and --context NAME";
            checks.push(Check::failed("kubeconfig", evidence, next));
            checks.extend(skipped("there is no way to a cluster"));
            return (checks, None);
        }
    };
    checks.push(Check::ok("kubeconfig", gather::called(&cluster)));
    let version = match cluster.api.get::<Version>("/version").await {
        Ok(version) => version,
        Err(error) => {
            checks.push(unreachable(&cluster, &error));
            checks.extend(skipped("the API server does not answer").skip(1));
            return (checks, None);
        }
    };
    checks.push(Check::ok("API server", format!("answers as Kubernetes {}", version.git_version)));
    checks.push(server_version(&version));
    checks.push(clock(&cluster.api).await);
    checks.push(release(&cluster.api).await);
    checks.push(definitions(&cluster.api).await);
    checks.push(rights(&cluster.api).await);
    let found = snapshot(&cluster.api, LIST_TIME_MAX).await;
    checks.push(objects(&found));
    checks.push(nodes(&found));
    checks.push(prices(&found, policy));
    (checks, Some(found))
}

fn skipped(because: &'static str) -> impl Iterator<Item = Check> {
    const REST: [&str; 9] = [
        "API server",
        "server version",
        "clock",
        "release",
        "definitions",
        "rights",
        "objects",
        "GPU nodes",
        "prices",
    ];
    REST.into_iter().map(|check| Check::skipped(check, because))
}

fn unreachable(cluster: &Cluster, error: &ApiError) -> Check {
    let next = match error.code() {
        Some(401) => "log in again: the server knows the address but not you",
        Some(403) => "ask for the right to read `/version`, or use another context",
        Some(_) => "the fault is the server's: see the log of kube-apiserver, or ask who runs it",
        None => "is the address right, and is the VPN or the tunnel up?",
    };
    Check::failed("API server", format!("{}: {}", cluster.address, error.chain()), next)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    #[serde(default)]
    minor: String,
    #[serde(default)]
    git_version: String,
}

fn server_version(version: &Version) -> Check {
    // Some clouds write `27+`.
    let digits = version.minor.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    match digits.parse::<u32>() {
        Ok(minor) if minor >= MINOR_MIN => {
            Check::ok("server version", format!("1.{minor}, at least 1.{MINOR_MIN}"))
        }
        Ok(minor) => Check::failed(
            "server version",
            format!("1.{minor} is older than 1.{MINOR_MIN}"),
            "definitions of our resources may be refused: upgrade the cluster",
        ),
        Err(_) => Check::warning(
            "server version",
            format!("minor version `{}` is no number", version.minor),
            format!("see that it is at least 1.{MINOR_MIN}"),
        ),
    }
}

async fn clock(api: &Api) -> Check {
    let (Ok(before), date) = (wall_clock(), api.date().await) else {
        return Check::failed("clock", "this machine's clock is before 1970", "set the clock");
    };
    let parsed = |text: &str| {
        let zoned = jiff::fmt::rfc2822::parse(text).ok()?;
        Timestamp::from_millis(zoned.timestamp().as_millisecond())
    };
    let server = match date {
        Ok(Some(text)) => parsed(&text),
        Ok(None) => None,
        Err(error) => {
            return Check::warning("clock", error.chain(), "compare the clocks by hand");
        }
    };
    let Some(server) = server else {
        let evidence = "the answer of the server has no date";
        return Check::warning("clock", evidence, "compare the clocks by hand");
    };
    let skew = server.since(before).max(before.since(server));
    let evidence =
        format!("this machine and the API server differ by {} s at most", skew.as_secs() + 1);
    if skew <= SKEW_MAX {
        Check::ok("clock", evidence)
    } else {
        let next = "set the clock of whichever is wrong (NTP): ages and windows are by the clock";
        Check::failed("clock", evidence, next)
    }
}

/// What is installed, and whether it is of this version.
async fn release(api: &Api) -> Check {
    const PATH: &str = "/apis/apps/v1/deployments?labelSelector=app.kubernetes.io%2Fpart-of%3D\
                        gpu-autoscaler%2Capp.kubernetes.io%2Fcomponent%3Dcontroller";
    let ours = env!("CARGO_PKG_VERSION");
    let found: Value = match api.get(PATH).await {
        Ok(found) => found,
        Err(error) if error.code() == Some(403) => {
            let next = "without the right to list deployments, compare with `helm list -A`";
            return Check::warning("release", "not known: deployments may not be listed", next);
        }
        Err(error) => return Check::warning("release", error.chain(), "see `helm list -A`"),
    };
    let Some(deployment) = found["items"].get(0) else {
        let evidence = "no controller is installed in this cluster";
        let next = "nothing has to be: findings are announced and kept only by a controller";
        return Check::warning("release", evidence, next);
    };
    let metadata = &deployment["metadata"];
    let version = metadata["labels"]["app.kubernetes.io/version"].as_str().unwrap_or("?");
    let name = format!(
        "{}/{}",
        metadata["namespace"].as_str().unwrap_or("?"),
        metadata["name"].as_str().unwrap_or("?")
    );
    let ready = deployment["status"]["readyReplicas"].as_u64().unwrap_or(0);
    let wanted = deployment["spec"]["replicas"].as_u64().unwrap_or(1);
    let evidence =
        format!("`{name}` is {version}, {ready} of {wanted} replicas ready; this is {ours}");
    if minor(version) != minor(ours) {
        let next = "use the command line of the same release: `install.sh` takes --version";
        Check::warning("release", evidence, next)
    } else if ready == 0 && wanted > 0 {
        let next =
            format!("kubectl -n {} describe deploy,pods", name.split('/').next().unwrap_or(""));
        Check::failed("release", evidence, next)
    } else {
        Check::ok("release", evidence)
    }
}

/// Major and minor number.
fn minor(version: &str) -> Vec<&str> {
    version.trim_start_matches('v').split('.').take(2).collect()
}

async fn definitions(api: &Api) -> Check {
    let found: Value = match api.get("/apis/gpu-autoscaler.io/v1alpha1").await {
        Ok(found) => found,
        Err(error) if error.code() == Some(404) => {
            return Check::warning("definitions", "none of gpu-autoscaler.io/v1alpha1", DEFINE);
        }
        Err(error) => return Check::warning("definitions", error.chain(), DEFINE),
    };
    let served: Vec<&str> = found["resources"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|resource| resource["kind"].as_str())
        .collect();
    let absent: Vec<&str> = PolicyKind::ALL
        .map(PolicyKind::as_str)
        .into_iter()
        .filter(|k| !served.contains(k))
        .collect();
    if absent.is_empty() {
        Check::ok("definitions", format!("all {} kinds are served", PolicyKind::ALL.len()))
    } else {
        Check::warning("definitions", format!("not served: {}", absent.join(", ")), DEFINE)
    }
}

/// What this command line lists: group and resource.
const READ: [(&str, &str); 17] = [
    ("", "nodes"),
    ("", "pods"),
    ("", "events"),
    ("policy", "poddisruptionbudgets"),
    ("", "persistentvolumeclaims"),
    ("", "persistentvolumes"),
    ("storage.k8s.io", "storageclasses"),
    ("storage.k8s.io", "csidrivers"),
    ("storage.k8s.io", "csinodes"),
    ("resource.k8s.io", "resourceclaims"),
    ("resource.k8s.io", "resourceslices"),
    ("resource.k8s.io", "deviceclasses"),
    ("gpu-autoscaler.io", "autoscalingpolicies"),
    ("gpu-autoscaler.io", "gpusharingpolicies"),
    ("gpu-autoscaler.io", "gpunodeconfigs"),
    ("gpu-autoscaler.io", "costbudgets"),
    ("gpu-autoscaler.io", "costattributions"),
];

async fn rights(api: &Api) -> Check {
    let mut refused = Vec::new();
    for (group, resource) in READ {
        match api.may("list", group, resource).await {
            Ok(true) => {}
            Ok(false) => refused.push(resource),
            Err(error) => {
                let next = format!("kubectl auth can-i list {resource} -A");
                return Check::warning("rights", error.chain(), next);
            }
        }
    }
    let count = READ.len();
    if refused.is_empty() {
        return Check::ok("rights", format!("may list all {count} kinds in all namespaces"));
    }
    let evidence = format!("may not list {} in all namespaces", refused.join(", "));
    let next = "ask for a ClusterRole with `get` and `list` of them; docs/cli.md has one";
    if refused.contains(&"nodes") || refused.contains(&"pods") {
        Check::failed("rights", evidence, next)
    } else {
        Check::warning("rights", evidence, next)
    }
}

fn objects(found: &Snapshot) -> Check {
    let pods = found.delta.pods.len();
    let evidence = format!("{} nodes, {pods} active pods", found.delta.nodes.len());
    if let Some((kind, why)) = found.missing.first() {
        return Check::failed(
            "objects",
            format!("{evidence}; no {kind}: {why}"),
            "see the check `rights`",
        );
    }
    match found.malformed.first() {
        None => Check::ok("objects", evidence),
        Some((kind, count, first)) => Check::warning(
            "objects",
            format!("{evidence}; {count} of kind {kind} cannot be read, one of them: {first}"),
            "they are left out; correct them, or report this as a fault of ours",
        ),
    }
}

/// Nodes with GPUs.
pub(super) fn gpu_nodes(found: &Snapshot) -> Vec<&Node> {
    let nodes = found.delta.nodes.iter().filter_map(|change| match change {
        Change::Upsert(node) => Some(node),
        Change::Delete(_) => None,
    });
    nodes.filter(|node| node.gpus.is_some() || node.allocatable.has_gpu()).collect()
}

fn nodes(found: &Snapshot) -> Check {
    let nodes = gpu_nodes(found);
    if nodes.is_empty() {
        return Check::failed(
            "GPU nodes",
            "no node offers nvidia.com/gpu or nvidia.com/mig-*",
            "install NVIDIA's device plugin or the GPU Operator, and see \
             `kubectl get nodes -o jsonpath='{.items[*].status.allocatable}'`",
        );
    }
    let gpus: u32 = nodes.iter().filter_map(|node| node.gpus).fold(0, u32::saturating_add);
    let evidence = format!("{} nodes with {gpus} GPUs", nodes.len());
    let unlabeled = nodes.iter().filter(|node| node.gpu_model.is_none());
    match named(unlabeled.map(|node| node.name.as_str())) {
        None => Check::ok("GPU nodes", evidence),
        Some(which) => Check::warning(
            "GPU nodes",
            format!("{evidence}; no label nvidia.com/gpu.product on {which}"),
            "install NVIDIA's GPU feature discovery; without it the model is known only where an \
             exporter tells",
        ),
    }
}

fn prices(found: &Snapshot, policy: &Policy) -> Check {
    let mut unpriced: BTreeMap<String, u32> = BTreeMap::new();
    let nodes = gpu_nodes(found);
    for node in &nodes {
        let capacity = node.capacity_type.or(policy.capacity_type_unlabeled);
        let price = node.instance_type.as_ref().zip(capacity).and_then(|(kind, capacity)| {
            policy.prices.lookup(kind, node.region.as_deref(), capacity)
        });
        if price.is_none() {
            let kind = node.instance_type.as_ref().map_or("no instance type", |kind| kind.as_str());
            let region = node.region.as_deref().unwrap_or("no region");
            let capacity = capacity.map_or("no capacity type", |capacity| capacity.as_str());
            *unpriced.entry(format!("{kind} in {region}, {capacity}")).or_insert(0) += 1;
        }
    }
    if unpriced.is_empty() {
        return Check::ok("prices", format!("all {} GPU nodes have one", nodes.len()));
    }
    let count: u32 = unpriced.values().sum();
    let which = named(unpriced.keys().map(String::as_str)).unwrap_or_default();
    Check::warning(
        "prices",
        format!("{count} of {} GPU nodes have none: {which}", nodes.len()),
        "give them with --prices FILE (controller: --price-sheet); without one an amount is \
         left out, never guessed",
    )
}

/// The first names and how many more; `None` for none.
pub(super) fn named<'a>(names: impl Iterator<Item = &'a str>) -> Option<String> {
    const NAMED_MAX: usize = 3;
    let names: Vec<&str> = names.collect();
    let shown = names.iter().take(NAMED_MAX).map(|name| format!("`{name}`")).collect::<Vec<_>>();
    match names.len() {
        0 => None,
        count if count <= NAMED_MAX => Some(shown.join(", ")),
        count => Some(format!("{} and {} more", shown.join(", "), count - NAMED_MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn old_and_odd_server_versions_are_told() {
        let of = |minor: &str| {
            server_version(&Version { minor: minor.to_owned(), git_version: String::new() }).result
        };
        assert_eq!(of("36"), Verdict::Ok);
        assert_eq!(of("27+"), Verdict::Ok, "as EKS and GKE write it");
        assert_eq!(of("24"), Verdict::Failed);
        assert_eq!(of(""), Verdict::Warning);
    }

    #[test]
    fn releases_differ_by_their_minor_number() {
        assert_eq!(minor("v1.4.0"), minor("1.4.9"));
        assert_ne!(minor("1.4.0"), minor("1.5.0"));
    }
}
