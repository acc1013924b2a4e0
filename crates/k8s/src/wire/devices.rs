//! Objects of `resource.k8s.io/v1`.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Map, Meta, NodeSelector};

#[derive(Deserialize)]
pub(crate) struct DeviceClaim {
    pub metadata: Meta,
    #[serde(default)]
    pub spec: DeviceClaimSpec,
    #[serde(default)]
    pub status: DeviceClaimStatus,
}

#[derive(Default, Deserialize)]
pub(crate) struct DeviceClaimSpec {
    #[serde(default)]
    pub devices: DeviceClaimDevices,
}

#[derive(Default, Deserialize)]
pub(crate) struct DeviceClaimDevices {
    pub requests: Option<Vec<DeviceRequest>>,
    pub constraints: Option<Vec<IgnoredAny>>,
}

#[derive(Deserialize)]
pub(crate) struct DeviceRequest {
    pub exactly: Option<ExactDeviceRequest>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExactDeviceRequest {
    pub device_class_name: String,
    pub selectors: Option<Vec<DeviceSelector>>,
    pub allocation_mode: Option<String>,
    pub count: Option<u64>,
    pub admin_access: Option<bool>,
    pub tolerations: Option<Vec<IgnoredAny>>,
    pub capacity: Option<IgnoredAny>,
}

#[derive(Deserialize)]
pub(crate) struct DeviceSelector {
    pub cel: Option<CelSelector>,
}

#[derive(Deserialize)]
pub(crate) struct CelSelector {
    pub expression: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeviceClaimStatus {
    pub allocation: Option<DeviceAllocation>,
    pub reserved_for: Option<Vec<IgnoredAny>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeviceAllocation {
    #[serde(default)]
    pub devices: DeviceResults,
    pub node_selector: Option<NodeSelector>,
}

#[derive(Default, Deserialize)]
pub(crate) struct DeviceResults {
    pub results: Option<Vec<DeviceResult>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeviceResult {
    pub driver: String,
    pub pool: String,
    pub device: String,
    pub binding_conditions: Option<Vec<IgnoredAny>>,
}

#[derive(Deserialize)]
pub(crate) struct DeviceSlice {
    pub metadata: Meta,
    pub spec: DeviceSliceSpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeviceSliceSpec {
    pub driver: String,
    pub pool: DevicePool,
    pub node_name: Option<String>,
    pub devices: Option<Vec<OfferedDevice>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DevicePool {
    pub name: String,
    pub resource_slice_count: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OfferedDevice {
    pub name: String,
    pub attributes: Map<DeviceAttribute>,
    pub consumes_counters: Option<Vec<IgnoredAny>>,
    pub taints: Option<Vec<IgnoredAny>>,
    pub binding_conditions: Option<Vec<IgnoredAny>>,
    pub allow_multiple_allocations: Option<bool>,
    pub binds_to_node: Option<bool>,
    pub node_name: Option<IgnoredAny>,
    pub node_selector: Option<IgnoredAny>,
    pub all_nodes: Option<IgnoredAny>,
}

#[derive(Deserialize)]
pub(crate) struct DeviceAttribute {
    pub string: Option<String>,
    pub int: Option<i64>,
    pub bool: Option<bool>,
}

#[derive(Deserialize)]
pub(crate) struct DeviceClass {
    pub metadata: Meta,
    #[serde(default)]
    pub spec: DeviceClassSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeviceClassSpec {
    pub selectors: Option<Vec<DeviceSelector>>,
    pub extended_resource_name: Option<String>,
}
