//! What labels of nodes say, in the dialects of clouds, autoscalers and feature discovery.

use gpu_autoscaler_model::{CapacityType, Labels, NodeSharing, SharingStrategy};

/// Our own statement about how a node was bought; it outranks every other.
const OWN_CAPACITY_TYPE: &str = "gpu-autoscaler.io/capacity-type";

/// Labels whose value names the capacity type.
///
/// Source: Karpenter's and EKS' label reference, GKE's `gke-provisioning`, AKS' scale set
/// priority; `node-lifecycle` is written by many launch templates as `spot` or `on-demand`.
const NAMED_CAPACITY_TYPE: [&str; 6] = [
    "karpenter.sh/capacity-type",
    "eks.amazonaws.com/capacityType",
    "cloud.google.com/gke-provisioning",
    "kubernetes.azure.com/scalesetpriority",
    "node-lifecycle",
    "node.kubernetes.io/lifecycle",
];

/// Labels that are `"true"` on nodes which the cloud may take back.
const SPOT_FLAGS: [&str; 2] = ["cloud.google.com/gke-spot", "cloud.google.com/gke-preemptible"];

/// Labels of clouds that mark every spot node, so that an unmarked node of theirs is on-demand.
///
/// Source: GKE writes `gke-spot` or `gke-preemptible`, AKS writes `scalesetpriority: spot`, on
/// every such node of a pool that carries one of these.
const MARKING_CLOUDS: [&str; 2] =
    ["cloud.google.com/gke-nodepool", "kubernetes.azure.com/agentpool"];

/// How the node was bought; `None` when no label says so or two labels contradict each other.
pub(crate) fn capacity_type(labels: &Labels) -> Option<CapacityType> {
    if let Some(own) = labels.get(OWN_CAPACITY_TYPE) {
        return own.parse().ok();
    }
    let named = NAMED_CAPACITY_TYPE.iter().filter_map(|key| labels.get(key)?.parse().ok());
    let flagged =
        SPOT_FLAGS.iter().filter(|key| labels.get(key) == Some("true")).map(|_| CapacityType::Spot);
    let mut said: Vec<CapacityType> = named.chain(flagged).collect();
    said.sort_unstable();
    said.dedup();
    match said.as_slice() {
        [one] => Some(*one),
        [] if MARKING_CLOUDS.iter().any(|key| labels.get(key).is_some()) => {
            Some(CapacityType::OnDemand)
        }
        _ => None,
    }
}

/// The first of `keys` that is set: labels were renamed over the years.
pub(crate) fn first<'a>(labels: &'a Labels, keys: &[&str]) -> Option<&'a str> {
    keys.iter().find_map(|key| labels.get(key)).filter(|value| !value.is_empty())
}

/// How GPUs of the node are shared, from GPU feature discovery.
pub(crate) fn sharing(labels: &Labels) -> Option<NodeSharing> {
    let replicas: u32 = labels.get("nvidia.com/gpu.replicas")?.parse().ok()?;
    if replicas < 2 {
        return None;
    }
    let strategy = match labels.get("nvidia.com/gpu.sharing-strategy") {
        Some("mps") => SharingStrategy::Mps,
        // Before it knew MPS, feature discovery wrote replicas without a strategy.
        Some("time-slicing") | None => SharingStrategy::TimeSlicing,
        Some(_) => return None,
    };
    Some(NodeSharing { strategy, replicas })
}

/// Physical GPUs, from GPU feature discovery; `None` where it counts something else.
pub(crate) fn gpu_count(labels: &Labels) -> Option<u32> {
    // With the strategy `single` the label counts GPU instances, as the product name shows.
    if labels.get("nvidia.com/gpu.product").is_some_and(|product| product.contains("-MIG-")) {
        return None;
    }
    labels.get("nvidia.com/gpu.count")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::new(pairs.iter().map(|(k, v)| (Arc::from(*k), Arc::from(*v))))
    }

    #[test]
    fn every_dialect_of_capacity_type_is_read() {
        use CapacityType::{OnDemand, Reserved, Spot};
        for (key, value, expected) in [
            ("karpenter.sh/capacity-type", "spot", Some(Spot)),
            ("karpenter.sh/capacity-type", "on-demand", Some(OnDemand)),
            ("karpenter.sh/capacity-type", "reserved", Some(Reserved)),
            ("eks.amazonaws.com/capacityType", "ON_DEMAND", Some(OnDemand)),
            ("eks.amazonaws.com/capacityType", "SPOT", Some(Spot)),
            ("cloud.google.com/gke-spot", "true", Some(Spot)),
            ("cloud.google.com/gke-preemptible", "true", Some(Spot)),
            ("cloud.google.com/gke-spot", "false", None),
            ("cloud.google.com/gke-provisioning", "standard", Some(OnDemand)),
            ("cloud.google.com/gke-nodepool", "a100", Some(OnDemand)),
            ("kubernetes.azure.com/scalesetpriority", "spot", Some(Spot)),
            ("kubernetes.azure.com/agentpool", "gpu", Some(OnDemand)),
            ("node-lifecycle", "spot", Some(Spot)),
            ("gpu-autoscaler.io/capacity-type", "reserved", Some(Reserved)),
            ("gpu-autoscaler.io/capacity-type", "cheap", None),
            ("instance", "spot", None),
        ] {
            assert_eq!(capacity_type(&labels(&[(key, value)])), expected, "{key}={value}");
        }
    }

    #[test]
    fn a_contradiction_is_unknown_unless_our_own_label_decides() {
        let two = [("karpenter.sh/capacity-type", "spot"), ("node-lifecycle", "on-demand")];
        assert_eq!(capacity_type(&labels(&two)), None);
        let own = [two[0], two[1], ("gpu-autoscaler.io/capacity-type", "spot")];
        assert_eq!(capacity_type(&labels(&own)), Some(CapacityType::Spot));
    }

    #[test]
    fn sharing_needs_at_least_two_replicas() {
        let with = |replicas, strategy| {
            sharing(&labels(&[
                ("nvidia.com/gpu.replicas", replicas),
                ("nvidia.com/gpu.sharing-strategy", strategy),
            ]))
        };
        let mps = NodeSharing { strategy: SharingStrategy::Mps, replicas: 4 };
        assert_eq!(with("4", "mps"), Some(mps));
        assert_eq!(with("1", "none"), None);
        assert_eq!(with("many", "mps"), None);
        let old = sharing(&labels(&[("nvidia.com/gpu.replicas", "2")])).expect("shared");
        assert_eq!(old.strategy, SharingStrategy::TimeSlicing);
    }

    #[test]
    fn a_count_of_gpu_instances_is_no_count_of_gpus() {
        let product = ("nvidia.com/gpu.product", "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb");
        assert_eq!(gpu_count(&labels(&[product, ("nvidia.com/gpu.count", "14")])), None);
        assert_eq!(gpu_count(&labels(&[("nvidia.com/gpu.count", "8")])), Some(8));
    }
}
