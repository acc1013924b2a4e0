//! The fields of Kubernetes objects that are read, as they stand in JSON.
//!
//! Fields that are not named here are ignored. `null` counts as absent, as the API server does.

mod devices;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::quantity::QuantityText;
pub(crate) use devices::*;

type Map<T> = Option<BTreeMap<String, T>>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Meta {
    pub name: String,
    pub namespace: Option<String>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    pub generation: Option<i64>,
    pub creation_timestamp: Option<String>,
    pub deletion_timestamp: Option<String>,
    pub labels: Map<String>,
    pub annotations: Map<String>,
    pub owner_references: Option<Vec<OwnerReference>>,
}

impl Meta {
    /// The controller that owns the object.
    pub(crate) fn controller(&self) -> Option<&OwnerReference> {
        self.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
    }
}

#[derive(Deserialize)]
pub(crate) struct OwnerReference {
    pub kind: String,
    pub name: String,
    pub uid: String,
    pub controller: Option<bool>,
}

#[derive(Deserialize)]
pub(crate) struct Node {
    pub metadata: Meta,
    #[serde(default)]
    pub spec: NodeSpec,
    #[serde(default)]
    pub status: NodeStatus,
}

#[derive(Default, Deserialize)]
pub(crate) struct NodeSpec {
    pub unschedulable: Option<bool>,
    pub taints: Option<Vec<Taint>>,
}

#[derive(Deserialize)]
pub(crate) struct Taint {
    pub key: String,
    pub value: Option<String>,
    pub effect: String,
}

#[derive(Default, Deserialize)]
pub(crate) struct NodeStatus {
    pub capacity: Map<QuantityText>,
    pub allocatable: Map<QuantityText>,
    pub conditions: Option<Vec<Condition>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    pub reason: Option<String>,
    pub message: Option<String>,
    pub observed_generation: Option<i64>,
}

#[derive(Deserialize)]
pub(crate) struct Pod {
    pub metadata: Meta,
    #[serde(default)]
    pub spec: PodSpec,
    #[serde(default)]
    pub status: PodStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PodSpec {
    pub node_name: Option<String>,
    pub priority: Option<i32>,
    pub containers: Option<Vec<Container>>,
    pub init_containers: Option<Vec<Container>>,
    pub resources: Option<ContainerResources>,
    pub overhead: Map<QuantityText>,
    pub scheduling_gates: Option<Vec<SchedulingGate>>,
    pub scheduler_name: Option<String>,
    pub node_selector: Map<String>,
    pub affinity: Option<Affinity>,
    pub tolerations: Option<Vec<Toleration>>,
    pub topology_spread_constraints: Option<Vec<SpreadConstraint>>,
    pub volumes: Option<Vec<Volume>>,
    pub resource_claims: Option<Vec<PodDeviceClaim>>,
    pub scheduling_group: Option<IgnoredAny>,
    pub workload_ref: Option<IgnoredAny>,
    pub host_network: Option<bool>,
    pub host_users: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Affinity {
    pub node_affinity: Option<NodeAffinity>,
    pub pod_affinity: Option<PodAffinity>,
    pub pod_anti_affinity: Option<PodAffinity>,
}

#[derive(Deserialize)]
pub(crate) struct NodeAffinity {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    pub required: Option<NodeSelector>,
    #[serde(rename = "preferredDuringSchedulingIgnoredDuringExecution")]
    pub preferred: Option<Vec<PreferredNodeTerm>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeSelector {
    pub node_selector_terms: Option<Vec<NodeSelectorTerm>>,
}

#[derive(Deserialize)]
pub(crate) struct PreferredNodeTerm {
    pub weight: i32,
    pub preference: NodeSelectorTerm,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeSelectorTerm {
    pub match_expressions: Option<Vec<Expression>>,
    pub match_fields: Option<Vec<Expression>>,
}

#[derive(Deserialize)]
pub(crate) struct Expression {
    pub key: String,
    pub operator: String,
    pub values: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LabelSelector {
    pub match_labels: Map<String>,
    pub match_expressions: Option<Vec<Expression>>,
}

#[derive(Deserialize)]
pub(crate) struct PodAffinity {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    pub required: Option<Vec<PodTerm>>,
    #[serde(rename = "preferredDuringSchedulingIgnoredDuringExecution")]
    pub preferred: Option<Vec<WeightedPodTerm>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WeightedPodTerm {
    pub weight: i32,
    pub pod_affinity_term: PodTerm,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PodTerm {
    pub label_selector: Option<LabelSelector>,
    pub namespaces: Option<Vec<String>>,
    pub namespace_selector: Option<LabelSelector>,
    pub topology_key: String,
}

#[derive(Deserialize)]
pub(crate) struct Toleration {
    pub key: Option<String>,
    pub operator: Option<String>,
    pub value: Option<String>,
    pub effect: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SpreadConstraint {
    pub max_skew: i32,
    pub topology_key: String,
    pub when_unsatisfiable: String,
    pub label_selector: Option<LabelSelector>,
    pub min_domains: Option<i32>,
    pub node_affinity_policy: Option<String>,
    pub node_taints_policy: Option<String>,
    pub match_label_keys: Option<Vec<String>>,
}

/// A volume, as far as it keeps its pod from nodes.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Volume {
    pub name: Option<String>,
    pub persistent_volume_claim: Option<ClaimVolume>,
    pub ephemeral: Option<IgnoredAny>,
    pub aws_elastic_block_store: Option<IgnoredAny>,
    pub azure_disk: Option<IgnoredAny>,
    pub gce_persistent_disk: Option<IgnoredAny>,
    pub iscsi: Option<IgnoredAny>,
    pub rbd: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PodDeviceClaim {
    pub name: String,
    pub resource_claim_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClaimVolume {
    pub claim_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Port {
    pub host_port: Option<u16>,
    #[serde(rename = "hostIP")]
    pub host_ip: Option<String>,
    pub protocol: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct RestartRule {
    pub action: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Container {
    pub image: Option<String>,
    #[serde(default)]
    pub resources: ContainerResources,
    pub restart_policy: Option<String>,
    pub restart_policy_rules: Option<Vec<RestartRule>>,
    pub ports: Option<Vec<Port>>,
}

#[derive(Default, Deserialize)]
pub(crate) struct ContainerResources {
    pub requests: Map<QuantityText>,
    pub limits: Map<QuantityText>,
}

#[derive(Deserialize)]
pub(crate) struct SchedulingGate {
    pub name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PodStatus {
    pub phase: Option<String>,
    pub start_time: Option<String>,
    pub conditions: Option<Vec<Condition>>,
    pub container_statuses: Option<Vec<ContainerStatus>>,
    pub init_container_statuses: Option<Vec<ContainerStatus>>,
    pub resource_claim_statuses: Option<Vec<PodDeviceClaim>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ContainerStatus {
    pub restart_count: Option<i64>,
    #[serde(default)]
    pub state: ContainerStatusState,
    #[serde(default)]
    pub last_state: ContainerStatusState,
}

#[derive(Default, Deserialize)]
pub(crate) struct ContainerStatusState {
    pub waiting: Option<ContainerWaiting>,
    pub terminated: Option<ContainerTerminated>,
}

#[derive(Deserialize)]
pub(crate) struct ContainerWaiting {
    pub reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ContainerTerminated {
    pub finished_at: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct DisruptionBudget {
    pub metadata: Meta,
    #[serde(default)]
    pub status: DisruptionBudgetStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DisruptionBudgetStatus {
    pub disruptions_allowed: Option<i64>,
    pub observed_generation: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Event {
    pub metadata: Meta,
    pub event_time: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct VolumeClaim {
    pub metadata: Meta,
    #[serde(default)]
    pub spec: VolumeClaimSpec,
    #[serde(default)]
    pub status: Phase,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VolumeClaimSpec {
    pub storage_class_name: Option<String>,
    pub volume_name: Option<String>,
    pub access_modes: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
pub(crate) struct Phase {
    pub phase: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct PersistentVolume {
    pub metadata: Meta,
    #[serde(default)]
    pub spec: PersistentVolumeSpec,
    #[serde(default)]
    pub status: Phase,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PersistentVolumeSpec {
    pub storage_class_name: Option<String>,
    pub claim_ref: Option<IgnoredAny>,
    pub node_affinity: Option<VolumeNodeAffinity>,
    pub csi: Option<CsiSource>,
    pub host_path: Option<IgnoredAny>,
    pub local: Option<IgnoredAny>,
    pub nfs: Option<IgnoredAny>,
    pub iscsi: Option<IgnoredAny>,
    pub fc: Option<IgnoredAny>,
}

#[derive(Deserialize)]
pub(crate) struct VolumeNodeAffinity {
    pub required: Option<NodeSelector>,
}

#[derive(Deserialize)]
pub(crate) struct CsiSource {
    pub driver: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StorageClass {
    pub metadata: Meta,
    pub provisioner: String,
    pub volume_binding_mode: Option<String>,
    pub allowed_topologies: Option<Vec<TopologyTerm>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TopologyTerm {
    pub match_label_expressions: Option<Vec<TopologyExpression>>,
}

#[derive(Deserialize)]
pub(crate) struct TopologyExpression {
    pub key: String,
    pub values: Vec<String>,
}

#[derive(Deserialize)]
pub(crate) struct StorageDriver {
    pub metadata: Meta,
    #[serde(default)]
    pub spec: StorageDriverSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StorageDriverSpec {
    pub storage_capacity: Option<bool>,
    pub prevent_pod_scheduling_if_missing: Option<bool>,
}

#[derive(Deserialize)]
pub(crate) struct StorageNode {
    pub metadata: Meta,
    #[serde(default)]
    pub spec: StorageNodeSpec,
}

#[derive(Default, Deserialize)]
pub(crate) struct StorageNodeSpec {
    pub drivers: Option<Vec<NodeDriver>>,
}

#[derive(Deserialize)]
pub(crate) struct NodeDriver {
    pub name: String,
    pub allocatable: Option<NodeDriverLimit>,
}

#[derive(Deserialize)]
pub(crate) struct NodeDriverLimit {
    pub count: Option<IgnoredAny>,
}

/// One of our own resources; its spec is read by [`crate::sense`].
#[derive(Deserialize)]
pub(crate) struct Policy {
    pub metadata: Meta,
    #[serde(default)]
    pub spec: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    pub status: PolicyStatus,
}

#[derive(Default, Deserialize)]
pub(crate) struct PolicyStatus {
    pub conditions: Option<Vec<Condition>>,
}

/// What is needed to name an object whose other fields cannot be read.
#[derive(Deserialize)]
pub(crate) struct Nameable {
    #[serde(default)]
    pub metadata: NameableMeta,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct NameableMeta {
    pub name: serde_json::Value,
    pub namespace: serde_json::Value,
    pub uid: serde_json::Value,
    pub resource_version: serde_json::Value,
}
