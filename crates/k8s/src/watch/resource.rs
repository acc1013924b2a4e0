//! What is watched.

use std::fmt;

use gpu_autoscaler_model::{DeviceKind, PolicyKind, StorageKind};

use crate::decode::Kind;

/// A kind of object that is watched, in all namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// Nodes.
    Nodes,
    /// Pods that have not ended: one that ends is reported as deleted.
    ActivePods,
    /// PodDisruptionBudgets.
    DisruptionBudgets,
    /// Our own Events.
    OwnEvents,
    /// What says where volumes are or may be.
    Storage(StorageKind),
    /// Claims on devices, and what offers them.
    Devices(DeviceKind),
    /// One of our own kinds.
    Policies(PolicyKind),
}

impl Resource {
    /// Everything that the loop wants to know.
    pub const ALL: [Self; 17] = [
        Self::Nodes,
        Self::ActivePods,
        Self::DisruptionBudgets,
        Self::OwnEvents,
        Self::Storage(StorageKind::Claim),
        Self::Storage(StorageKind::Volume),
        Self::Storage(StorageKind::Class),
        Self::Storage(StorageKind::Driver),
        Self::Storage(StorageKind::Node),
        Self::Devices(DeviceKind::Claim),
        Self::Devices(DeviceKind::Slice),
        Self::Devices(DeviceKind::Class),
        Self::Policies(PolicyKind::AutoscalingPolicy),
        Self::Policies(PolicyKind::GpuSharingPolicy),
        Self::Policies(PolicyKind::GpuNodeConfig),
        Self::Policies(PolicyKind::CostBudget),
        Self::Policies(PolicyKind::CostAttribution),
    ];

    /// The kind of its objects.
    pub const fn kind(self) -> Kind {
        match self {
            Self::Nodes => Kind::Node,
            Self::ActivePods => Kind::Pod,
            Self::DisruptionBudgets => Kind::PodDisruptionBudget,
            Self::OwnEvents => Kind::Event,
            Self::Storage(kind) => Kind::Storage(kind),
            Self::Devices(kind) => Kind::Device(kind),
            Self::Policies(kind) => Kind::Policy(kind),
        }
    }

    /// Where its collection is.
    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::Nodes => "/api/v1/nodes",
            Self::ActivePods => "/api/v1/pods",
            Self::DisruptionBudgets => "/apis/policy/v1/poddisruptionbudgets",
            Self::OwnEvents => "/api/v1/events",
            Self::Storage(kind) => storage_path(kind),
            Self::Devices(DeviceKind::Claim) => "/apis/resource.k8s.io/v1/resourceclaims",
            Self::Devices(DeviceKind::Slice) => "/apis/resource.k8s.io/v1/resourceslices",
            Self::Devices(DeviceKind::Class) => "/apis/resource.k8s.io/v1/deviceclasses",
            Self::Policies(kind) => collection_of(kind),
        }
    }

    /// What narrows it down on the server.
    pub(super) const fn selectors(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::ActivePods => {
                &[("fieldSelector", "status.phase!=Succeeded,status.phase!=Failed")]
            }
            Self::OwnEvents => {
                &[("fieldSelector", "reportingComponent=gpu-autoscaler.io/controller")]
            }
            _ => &[],
        }
    }
}

const fn storage_path(kind: StorageKind) -> &'static str {
    match kind {
        StorageKind::Claim => "/api/v1/persistentvolumeclaims",
        StorageKind::Volume => "/api/v1/persistentvolumes",
        StorageKind::Class => "/apis/storage.k8s.io/v1/storageclasses",
        StorageKind::Driver => "/apis/storage.k8s.io/v1/csidrivers",
        StorageKind::Node => "/apis/storage.k8s.io/v1/csinodes",
    }
}

/// The collection of one of our own kinds.
pub(crate) const fn collection_of(kind: PolicyKind) -> &'static str {
    match kind {
        PolicyKind::AutoscalingPolicy => "/apis/gpu-autoscaler.io/v1alpha1/autoscalingpolicies",
        PolicyKind::GpuSharingPolicy => "/apis/gpu-autoscaler.io/v1alpha1/gpusharingpolicies",
        PolicyKind::GpuNodeConfig => "/apis/gpu-autoscaler.io/v1alpha1/gpunodeconfigs",
        PolicyKind::CostBudget => "/apis/gpu-autoscaler.io/v1alpha1/costbudgets",
        PolicyKind::CostAttribution => "/apis/gpu-autoscaler.io/v1alpha1/costattributions",
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_definitions() {
        for kind in PolicyKind::ALL {
            let spec = crate::crd::definition(kind).spec;
            let version = &spec.versions[0].name;
            let path = format!("/apis/{}/{version}/{}", spec.group, spec.names.plural);
            assert_eq!(collection_of(kind), path);
        }
        let (_, selector) = Resource::OwnEvents.selectors()[0];
        assert_eq!(selector.split_once('=').expect("one").1, crate::REPORTING_COMPONENT);
    }
}
