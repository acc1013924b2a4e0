//! What a pod demands of its node and of its neighbors, in Kubernetes' terms.
//!
//! Source of the semantics: kube-scheduler 1.36, plugins NodeAffinity, TaintToleration,
//! InterPodAffinity, PodTopologySpread and NodePorts.

use std::sync::Arc;

use crate::{ObjectKey, Taint, TaintEffect};

/// Everything a pod demands or prefers beyond resources.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Constraints {
    /// `spec.nodeSelector`.
    pub node_selector: Vec<(Arc<str>, Arc<str>)>,
    /// `requiredDuringScheduling` node affinity: one of the terms must match; `None` when the pod
    /// has none. An empty list matches no node, as in Kubernetes.
    pub node_terms: Option<Vec<NodeSelectorTerm>>,
    /// The claims of its volumes.
    pub claims: Vec<ClaimName>,
    /// Its claims on devices; an ephemeral one was made for it from a template.
    pub device_claims: Vec<ClaimName>,
    /// What its volumes and allocated devices demand of the node: of each list one term must
    /// match. Known once its claims are looked up.
    pub volume_terms: Vec<Vec<NodeSelectorTerm>>,
    /// A claim for which no node will do, whatever else is there. Known once its claims are looked
    /// up.
    pub claim_fault: Option<ClaimFault>,
    /// `spec.tolerations`.
    pub tolerations: Vec<Toleration>,
    /// Required pod affinity.
    pub pod_affinity: Vec<PodTerm>,
    /// Required pod anti-affinity.
    pub pod_anti_affinity: Vec<PodTerm>,
    /// Topology spread with `DoNotSchedule`.
    pub spread: Vec<SpreadConstraint>,
    /// Ports of the host.
    pub host_ports: Vec<HostPort>,
    /// `preferredDuringScheduling` node affinity, each with its weight of 1 to 100.
    pub preferred_nodes: Vec<(i32, NodeSelectorTerm)>,
    /// `preferredDuringScheduling` pod affinity, each with its weight of 1 to 100, and of
    /// anti-affinity, with the weight negated.
    pub preferred_pods: Vec<(i32, PodTerm)>,
    /// Demands that are not covered exactly, by their path in the pod's spec.
    pub uncovered: Vec<Arc<str>>,
}

/// What a pod may demand that packing does not cover exactly: the path in its spec or in what its
/// claims lead to, and why. A pod that has one of these is left to kube-scheduler, and whoever
/// reads a pod or looks up its claims lists the path in [`Constraints::uncovered`].
pub const NOT_COVERED: [(&str, &str); 28] = [
    (DEVICE_CLAIM_UNKNOWN, "the claim or a class that it names is not known (yet)"),
    (DEVICE_CLAIM_SHARED, "the first of several pods decides where its devices are"),
    (DEVICE_REQUEST, "only counts of devices by comparisons joined by `&&` are covered"),
    (DEVICES_NOT_COUNTED, "other devices or requests decide who may have a device"),
    (DEVICE_EXTENDED, "its devices or those of a device plugin may serve the pod"),
    ("spec.schedulerName", "another scheduler has other rules"),
    ("spec.schedulingGates", "a gate of somebody else's is not ours to wait for"),
    ("spec.schedulingGroup", "the scheduler's own gangs are placed by it"),
    ("spec.workloadRef", "the name of spec.schedulingGroup before 1.36"),
    (CLAIM_UNKNOWN, "the claim, its volume or its class is not known (yet)"),
    (CLAIM_SHARED, "the first of several pods decides: the claim is unbound or for one pod"),
    (VOLUME_SOURCE, "disks in the tree move to CSI, and what they demand moves with them"),
    (VOLUME_NODES, "an operator or field that is not known; others are covered"),
    (CLASS_PROVISIONER, "its volumes exist already, or its driver is in the tree"),
    (DRIVER_CAPACITY, "CSIStorageCapacity objects are not read"),
    (DRIVER_INSTALLED, "which nodes have the driver is not read"),
    (DRIVER_LIMIT, "attachments are not counted; drivers without a limit are covered"),
    ("spec.volumes[].awsElasticBlockStore", "a disk has limits of nodes and other users"),
    ("spec.volumes[].azureDisk", "a disk has limits of nodes and other users"),
    ("spec.volumes[].gcePersistentDisk", "a disk has limits of nodes and other users"),
    ("spec.volumes[].iscsi", "a disk has other users"),
    ("spec.volumes[].rbd", "a disk has other users"),
    ("spec.affinity.nodeAffinity", "an operator or field that is not known; others are covered"),
    (
        "spec.topologySpreadConstraints[].labelSelector",
        "an operator that is not known; others are covered",
    ),
    ("spec.affinity.*.namespaceSelector", "labels of namespaces are not read; empty is covered"),
    ("spec.tolerations[].operator", "`Lt` and `Gt` are alpha in 1.36; others are covered"),
    ("spec.containers[].restartPolicyRules", "only nodes that declare the feature will do"),
    ("spec.hostUsers", "with the host's network, only nodes that declare the feature will do"),
];

/// A claim that is not known, or whose volume or class is not.
pub const CLAIM_UNKNOWN: &str = "spec.volumes[].persistentVolumeClaim";
/// A claim that several pods wait to be the first to use.
pub const CLAIM_SHARED: &str = "PersistentVolumeClaim.spec.accessModes";
/// A volume that is neither of a CSI driver nor of a source without rules of its own.
pub const VOLUME_SOURCE: &str = "PersistentVolume.spec";
/// A node affinity that cannot be read.
pub const VOLUME_NODES: &str = "PersistentVolume.spec.nodeAffinity";
/// A class whose volumes are not simply made where the pod goes.
pub const CLASS_PROVISIONER: &str = "StorageClass.provisioner";
/// A driver that reports the room which it has.
pub const DRIVER_CAPACITY: &str = "CSIDriver.spec.storageCapacity";
/// A driver that not every node may have.
pub const DRIVER_INSTALLED: &str = "CSIDriver.spec.preventPodSchedulingIfMissing";
/// A driver that attaches a limited number of volumes to some node.
pub const DRIVER_LIMIT: &str = "CSINode.spec.drivers[].allocatable";

/// A claim on devices that is not known, or whose class is not.
pub const DEVICE_CLAIM_UNKNOWN: &str = "spec.resourceClaims";
/// A claim without devices that several pods wait to be the first to use.
pub const DEVICE_CLAIM_SHARED: &str = "ResourceClaim.status.reservedFor";
/// A claim for more than a count of devices that are compared, or with an allocation that is more
/// than devices on some nodes.
pub const DEVICE_REQUEST: &str = "ResourceClaim.spec.devices";
/// Devices that cannot be counted: they share counters, are tainted, of several nodes or requests.
pub const DEVICES_NOT_COUNTED: &str = "ResourceSlice.spec.devices";
/// A class that serves an extended resource which the pod requests.
pub const DEVICE_EXTENDED: &str = "DeviceClass.spec.extendedResourceName";

/// A claim, in the namespace of its pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClaimName {
    /// Its name.
    pub name: Arc<str>,
    /// It is made for the pod alone, and goes with it.
    pub ephemeral: bool,
}

/// Why no node will do for a claim, until somebody changes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClaimFault {
    /// The claim.
    pub claim: ObjectKey,
    /// Why.
    pub reason: ClaimFaultReason,
}

/// Why no node will do for a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClaimFaultReason {
    /// Its volume is gone.
    Lost,
    /// It is being deleted.
    Deleting,
    /// It has no volume, and its class makes none for a pod that waits.
    Unbound,
    /// It is for one pod, and another one has it.
    InUse,
}

/// A term of a node selector: all of its requirements must hold. One without any matches nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeSelectorTerm {
    /// On the labels.
    pub labels: Vec<Requirement>,
    /// On `metadata.name`, the only field there is.
    pub name: Vec<Requirement>,
}

/// A requirement on the value of a label or field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Requirement {
    /// The key of the label; `metadata.name` for the field.
    pub key: Arc<str>,
    /// What is required of its value.
    pub operator: Operator,
}

/// What is required of a value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operator {
    /// It is there and among these.
    In(Vec<Arc<str>>),
    /// It is not there, or not among these.
    NotIn(Vec<Arc<str>>),
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
    /// It is an integer greater than this.
    Gt(i64),
    /// It is an integer less than this.
    Lt(i64),
}

impl Operator {
    /// Whether `value` (`None`: the key is not there) satisfies it.
    pub fn holds(&self, value: Option<&str>) -> bool {
        let among = |list: &[Arc<str>]| {
            value.is_some_and(|value| list.iter().any(|item| item.as_ref() == value))
        };
        let integer = || value.and_then(|value| value.parse::<i64>().ok());
        match self {
            Self::In(list) => among(list),
            Self::NotIn(list) => !among(list),
            Self::Exists => value.is_some(),
            Self::DoesNotExist => value.is_none(),
            Self::Gt(limit) => integer().is_some_and(|value| value > *limit),
            Self::Lt(limit) => integer().is_some_and(|value| value < *limit),
        }
    }
}

/// A label selector; one without requirements matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LabelSelector {
    /// `matchLabels` and `matchExpressions` alike.
    pub requirements: Vec<Requirement>,
}

impl LabelSelector {
    /// Whether labels with these values are selected.
    pub fn selects<'a>(&self, value: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|r| r.operator.holds(value(&r.key)))
    }
}

/// A toleration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Toleration {
    /// The key that it is for; empty tolerates every key, and then `value` must be `None`.
    pub key: Arc<str>,
    /// The value that it is for; `None` tolerates every value (`operator: Exists`).
    pub value: Option<Arc<str>>,
    /// The effect that it is for; `None` tolerates every effect.
    pub effect: Option<TaintEffect>,
}

impl Toleration {
    /// Whether it tolerates `taint`.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.effect.is_none_or(|effect| effect == taint.effect)
            && (self.key.is_empty() || self.key == taint.key)
            && self.value.as_ref().is_none_or(|value| *value == taint.value)
    }
}

/// Which namespaces a pod term looks at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NamespaceScope {
    /// Only these. The pod's own one is listed where the term names none.
    These(Vec<Arc<str>>),
    /// All: an empty `namespaceSelector`.
    All,
}

impl NamespaceScope {
    /// Whether `namespace` is in it.
    pub fn contains(&self, namespace: &str) -> bool {
        match self {
            Self::These(list) => list.iter().any(|item| item.as_ref() == namespace),
            Self::All => true,
        }
    }
}

/// A term of pod affinity or anti-affinity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodTerm {
    /// Which pods; `None` selects none.
    pub selector: Option<LabelSelector>,
    /// In which namespaces.
    pub namespaces: NamespaceScope,
    /// The node label whose value makes nodes one domain.
    pub topology_key: Arc<str>,
}

/// A topology spread constraint with `whenUnsatisfiable: DoNotSchedule`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpreadConstraint {
    /// By how many pods a domain may exceed the emptiest.
    pub max_skew: u32,
    /// The node label whose value makes nodes one domain.
    pub topology_key: Arc<str>,
    /// Which pods of the same namespace are counted, `matchLabelKeys` resolved; `None` selects
    /// none.
    pub selector: Option<LabelSelector>,
    /// With fewer domains than this, the emptiest counts as empty.
    pub min_domains: Option<u32>,
    /// `nodeAffinityPolicy: Honor`: nodes that the pod's node selector excludes do not count.
    pub honor_node_affinity: bool,
    /// `nodeTaintsPolicy: Honor`: nodes whose taints are not tolerated do not count.
    pub honor_taints: bool,
}

/// A port of the host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// The address; empty or `0.0.0.0` for all of them.
    pub ip: Arc<str>,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Arc<str>,
    /// The number.
    pub port: u16,
}

impl HostPort {
    /// Whether both cannot be had on one node.
    pub fn conflicts_with(&self, other: &Self) -> bool {
        let any = |ip: &str| ip.is_empty() || ip == "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (any(&self.ip) || any(&other.ip) || self.ip == other.ip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_treat_a_missing_key_as_kubernetes_does() {
        let list = || vec![Arc::from("a")];
        assert!(!Operator::In(list()).holds(None));
        assert!(Operator::NotIn(list()).holds(None));
        assert!(!Operator::Exists.holds(None));
        assert!(Operator::DoesNotExist.holds(None));
        assert!(!Operator::Gt(1).holds(None));
        assert!(!Operator::Lt(1).holds(Some("a")));
        assert!(Operator::Gt(1).holds(Some("2")));
    }

    #[test]
    fn ports_conflict_where_an_address_is_shared() {
        let port = |ip: &str| HostPort { ip: ip.into(), protocol: "TCP".into(), port: 80 };
        assert!(port("").conflicts_with(&port("10.0.0.1")));
        assert!(port("0.0.0.0").conflicts_with(&port("")));
        assert!(!port("10.0.0.2").conflicts_with(&port("10.0.0.1")));
        let udp = HostPort { protocol: "UDP".into(), ..port("") };
        assert!(!udp.conflicts_with(&port("")));
    }
}
