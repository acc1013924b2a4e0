//! The custom resources: group `gpu-autoscaler.io`, version `v1alpha1`, all cluster-scoped.
//!
//! The YAML under `charts/gpu-autoscaler/crds` is printed from these types. Field names are those
//! of the published documents. What one field alone can get wrong is refused by the schema and
//! its CEL rules; what only several fields together can, is told by [`crate::sense`].

// Each print column of a kind is an attribute of the same name.
#![allow(clippy::duplicated_attributes)]

mod autoscaling_policy;
mod cost_attribution;
mod cost_budget;
mod gpu_node_config;
mod gpu_sharing_policy;
mod parts;

use gpu_autoscaler_model::PolicyKind;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::core::CustomResourceExt as _;

pub use autoscaling_policy::*;
pub use cost_attribution::*;
pub use cost_budget::*;
pub use gpu_node_config::*;
pub use gpu_sharing_policy::*;
pub use parts::*;

/// The definition of `kind`.
pub fn definition(kind: PolicyKind) -> CustomResourceDefinition {
    match kind {
        PolicyKind::AutoscalingPolicy => AutoscalingPolicy::crd(),
        PolicyKind::GpuSharingPolicy => GpuSharingPolicy::crd(),
        PolicyKind::GpuNodeConfig => GpuNodeConfig::crd(),
        PolicyKind::CostBudget => CostBudget::crd(),
        PolicyKind::CostAttribution => CostAttribution::crd(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_chart_holds_what_the_types_say() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/gpu-autoscaler/crds");
        let rewrite = std::env::var_os("UPDATE_EXPECT").is_some_and(|value| value == "1");
        let mut files = Vec::new();
        for kind in PolicyKind::ALL {
            let definition = definition(kind);
            let name = format!("{}.yaml", definition.spec.names.plural);
            let yaml = serde_saphyr::to_string(&definition).expect("plain data");
            let text = format!(
                "# Printed from crates/k8s/src/crd; `UPDATE_EXPECT=1 cargo test -p \
                 gpu-autoscaler-k8s crd` rewrites it.\n{yaml}"
            );
            let path = folder.join(&name);
            if rewrite {
                fs::create_dir_all(&folder).expect("a folder for the chart");
                fs::write(&path, &text).expect("write the definition");
            }
            let committed = fs::read_to_string(&path).unwrap_or_default();
            assert!(committed == text, "{name} is stale: run with UPDATE_EXPECT=1");
            files.push(name);
        }
        let found = fs::read_dir(&folder).expect("the chart's folder").count();
        assert_eq!(found, files.len(), "no definition but these: {files:?}");
    }
}
