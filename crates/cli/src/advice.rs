//! The command that follows a recommendation. It is printed, never run.

use gpu_autoscaler_controller::api::Finding;

/// Kubernetes makes the suffixes of generated names of these.
///
/// Source: `k8s.io/apimachinery/pkg/util/rand`, `alphanums`.
const SUFFIX_LETTERS: &str = "bcdfghjklmnpqrstvwxz2456789";

/// What to run; `None` where no command does it. What no one but the owner knows is in capitals.
pub fn command(finding: &Finding) -> Option<String> {
    let namespace = &finding.namespace;
    let advice = &finding.recommendation;
    let set = |limits: &str| match owner(finding) {
        Some(owner) if owner.starts_with("job/") => None,
        Some(owner) => Some(format!(
            "kubectl -n {namespace} set resources {owner} -c CONTAINER --limits={limits}"
        )),
        None => None,
    };
    if let Some(profile) = &advice.mig_profile {
        return set(&format!("nvidia.com/gpu=0,nvidia.com/mig-{profile}=1"));
    }
    if advice.replicas.is_some() {
        return set("nvidia.com/gpu=0,nvidia.com/gpu.shared=1");
    }
    if let Some(gpus) = advice.gpus {
        return set(&format!("nvidia.com/gpu={gpus}"));
    }
    match (advice.advice.as_str(), owner(finding)) {
        ("Stop", Some(owner)) if owner.starts_with("job/") => Some(format!(
            "kubectl -n {namespace} patch {owner} --type=merge -p '{{\"spec\":{{\"suspend\":true}}}}'"
        )),
        ("Stop", Some(owner)) if !owner.starts_with("daemonset/") => {
            Some(format!("kubectl -n {namespace} scale {owner} --replicas=0"))
        }
        ("Stop", None) => Some(format!("kubectl -n {namespace} delete pod {}", finding.pod)),
        _ => None,
    }
}

/// What to change so that the pod's successors are different, as `kubectl` names it. `None` for a
/// bare pod, and for a kind whose commands are not known.
fn owner(finding: &Finding) -> Option<String> {
    let (kind, name) = finding.owner.as_ref()?.split_once('/')?;
    match kind {
        // A Deployment's ReplicaSet is named after it and the hash of the pod template.
        "ReplicaSet" => Some(match name.rsplit_once('-') {
            Some((deployment, hash)) if is_hash(hash) => format!("deployment/{deployment}"),
            _ => format!("replicaset/{name}"),
        }),
        "StatefulSet" | "Deployment" | "DaemonSet" | "Job" | "ReplicationController" => {
            Some(format!("{}/{name}", kind.to_ascii_lowercase()))
        }
        _ => None,
    }
}

fn is_hash(text: &str) -> bool {
    (8..=10).contains(&text.len()) && text.chars().all(|letter| SUFFIX_LETTERS.contains(letter))
}
