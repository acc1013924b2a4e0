//! Claims, volumes and what provides them, as far as they keep a pod from nodes.
//!
//! Source of the semantics: kube-scheduler 1.36, plugins VolumeBinding, VolumeZone,
//! VolumeRestrictions and NodeVolumeLimits.

use std::sync::Arc;

use crate::{NodeName, NodeSelectorTerm, ObjectKey, Uid};

/// An object that says where volumes are or may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageObject {
    /// A PersistentVolumeClaim.
    Claim(VolumeClaim),
    /// A PersistentVolume.
    Volume(Volume),
    /// A StorageClass.
    Class(StorageClass),
    /// A CSIDriver.
    Driver(StorageDriver),
    /// A CSINode.
    Node(StorageNode),
}

/// Kinds of [`StorageObject`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StorageKind {
    /// `v1` PersistentVolumeClaim.
    Claim,
    /// `v1` PersistentVolume.
    Volume,
    /// `storage.k8s.io/v1` StorageClass.
    Class,
    /// `storage.k8s.io/v1` CSIDriver.
    Driver,
    /// `storage.k8s.io/v1` CSINode.
    Node,
}

impl StorageKind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Claim, Self::Volume, Self::Class, Self::Driver, Self::Node];

    /// As Kubernetes spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Claim => "PersistentVolumeClaim",
            Self::Volume => "PersistentVolume",
            Self::Class => "StorageClass",
            Self::Driver => "CSIDriver",
            Self::Node => "CSINode",
        }
    }
}

/// A PersistentVolumeClaim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeClaim {
    /// Its uid.
    pub uid: Uid,
    /// Its namespace and name.
    pub key: ObjectKey,
    /// Its class; empty when it has none.
    pub class: Arc<str>,
    /// `spec.volumeName`: the volume that it has or is to have.
    pub volume: Option<Arc<str>>,
    /// Binding to that volume is complete (annotation `pv.kubernetes.io/bind-completed`).
    pub bound: bool,
    /// Its volume is gone (phase `Lost`).
    pub lost: bool,
    /// It is being deleted.
    pub deleting: bool,
    /// `ReadWriteOncePod` is among its access modes: one pod of the cluster may use it.
    pub one_pod: bool,
    /// The node that the scheduler chose its volume to be made for.
    pub selected_node: Option<NodeName>,
    /// The controller that owns it: the pod of an ephemeral volume.
    pub owner: Option<Uid>,
}

/// A PersistentVolume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Its uid.
    pub uid: Uid,
    /// Its name.
    pub name: Arc<str>,
    /// Its class; empty when it has none.
    pub class: Arc<str>,
    /// It is neither bound nor used up: the scheduler may choose it for a claim.
    pub is_free: bool,
    /// The CSI driver that attaches it; `None` for a volume of another source.
    pub driver: Option<Arc<str>>,
    /// `spec.nodeAffinity.required`; `None` when it may be used everywhere.
    pub nodes: Option<Vec<NodeSelectorTerm>>,
    /// Its zone and region labels, by key, each with the values that will do. Nodes without any
    /// such label will do as well.
    pub zones: Vec<(Arc<str>, Vec<Arc<str>>)>,
    /// What of it packing does not cover exactly, by its path.
    pub uncovered: Option<&'static str>,
}

/// A StorageClass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageClass {
    /// Its uid.
    pub uid: Uid,
    /// Its name.
    pub name: Arc<str>,
    /// What makes its volumes.
    pub provisioner: Arc<str>,
    /// `volumeBindingMode: WaitForFirstConsumer`: a volume is made where its first pod goes.
    pub waits_for_pod: bool,
    /// `allowedTopologies`: one of these must match the node; empty when every node will do.
    pub topologies: Vec<NodeSelectorTerm>,
}

/// A CSIDriver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageDriver {
    /// Its uid.
    pub uid: Uid,
    /// Its name.
    pub name: Arc<str>,
    /// `spec.storageCapacity`: the scheduler asks CSIStorageCapacity objects for room.
    pub tracks_capacity: bool,
    /// `spec.preventPodSchedulingIfMissing`: only nodes that have it will do.
    pub must_be_installed: bool,
}

/// A CSINode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageNode {
    /// Its uid.
    pub uid: Uid,
    /// The drivers whose volumes can be attached to this node a limited number of times
    /// (`spec.drivers[].allocatable.count`).
    pub limited: Vec<Arc<str>>,
}

impl StorageObject {
    /// Its uid.
    pub const fn uid(&self) -> &Uid {
        match self {
            Self::Claim(claim) => &claim.uid,
            Self::Volume(volume) => &volume.uid,
            Self::Class(class) => &class.uid,
            Self::Driver(driver) => &driver.uid,
            Self::Node(node) => &node.uid,
        }
    }
}
