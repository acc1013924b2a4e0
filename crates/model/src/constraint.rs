//! What a pod demands of its node and of its neighbors, in Kubernetes' terms.
//!
//! Source of the semantics: kube-scheduler 1.36, plugins NodeAffinity, TaintToleration,
//! InterPodAffinity, PodTopologySpread, NodePorts, VolumeZone and VolumeBinding.

use std::sync::Arc;

use crate::{Taint, TaintEffect};

/// Everything a pod demands or prefers beyond resources.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Constraints {
    /// `spec.nodeSelector`.
    pub node_selector: Vec<(Arc<str>, Arc<str>)>,
    /// `requiredDuringScheduling` node affinity: one of the terms must match; `None` when the pod
    /// has none. An empty list matches no node, as in Kubernetes.
    pub node_terms: Option<Vec<NodeSelectorTerm>>,
    /// The node affinity of each bound volume: each must have a term that matches.
    pub volume_terms: Vec<Vec<NodeSelectorTerm>>,
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

/// What a pod may demand that packing does not cover exactly: the path in its spec, and why. A
/// pod that has one of these is left to kube-scheduler, and whoever reads a pod lists the path in
/// [`Constraints::uncovered`].
pub const NOT_COVERED: [(&str, &str); 18] = [
    ("spec.resourceClaims", "devices are allocated from ResourceSlices by the scheduler"),
    ("spec.schedulerName", "another scheduler has other rules"),
    ("spec.schedulingGates", "a gate of somebody else's is not ours to wait for"),
    ("spec.schedulingGroup", "the scheduler's own gangs are placed by it"),
    ("spec.workloadRef", "the name of spec.schedulingGroup before 1.36"),
    ("spec.volumes[].persistentVolumeClaim", "claims and volumes are not read"),
    ("spec.volumes[].ephemeral", "its claim and volume are not read"),
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
