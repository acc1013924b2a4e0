//! Objects for the test control plane: kwok nodes with GPUs, and pods that ask for them.
//!
//! The manifests are JSON, which `kubectl` reads as the YAML that it is.

use serde_json::{Value, json};

/// A GPU node as its cloud and NVIDIA's GPU feature discovery describe it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeShape {
    /// `node.kubernetes.io/instance-type`.
    pub instance_type: &'static str,
    /// `nvidia.com/gpu.product`.
    pub gpu_product: &'static str,
    /// Number of GPUs.
    pub gpus: u32,
    /// `nvidia.com/gpu.memory`: framebuffer of one GPU in MiB.
    pub gpu_memory_mib: u32,
    /// Number of virtual CPUs.
    pub cpus: u32,
    /// Host memory in GiB.
    pub memory_gib: u32,
}

/// Shapes of Amazon EC2.
///
/// Source: <https://aws.amazon.com/ec2/instance-types/>, section Accelerated Computing.
pub const SHAPES: [NodeShape; 4] = [
    NodeShape {
        instance_type: "p4d.24xlarge",
        gpu_product: "NVIDIA-A100-SXM4-40GB",
        gpus: 8,
        gpu_memory_mib: 40_960,
        cpus: 96,
        memory_gib: 1_152,
    },
    NodeShape {
        instance_type: "p5.48xlarge",
        gpu_product: "NVIDIA-H100-80GB-HBM3",
        gpus: 8,
        gpu_memory_mib: 81_559,
        cpus: 192,
        memory_gib: 2_048,
    },
    NodeShape {
        instance_type: "g6.12xlarge",
        gpu_product: "NVIDIA-L4",
        gpus: 4,
        gpu_memory_mib: 23_034,
        cpus: 48,
        memory_gib: 192,
    },
    NodeShape {
        instance_type: "g4dn.12xlarge",
        gpu_product: "Tesla-T4",
        gpus: 4,
        gpu_memory_mib: 15_360,
        cpus: 48,
        memory_gib: 192,
    },
];

/// A node that kwok plays, on demand in zone `us-east-1a`; what differs is the caller's to change.
pub fn gpu_node(name: &str, shape: &NodeShape) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": { "kwok.x-k8s.io/node": "fake" },
            "labels": {
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
                "node.kubernetes.io/instance-type": shape.instance_type,
                "topology.kubernetes.io/region": "us-east-1",
                "topology.kubernetes.io/zone": "us-east-1a",
                "karpenter.sh/capacity-type": "on-demand",
                "nvidia.com/gpu.present": "true",
                "nvidia.com/gpu.product": shape.gpu_product,
                "nvidia.com/gpu.count": shape.gpus.to_string(),
                "nvidia.com/gpu.memory": shape.gpu_memory_mib.to_string(),
            },
        },
        "spec": { "providerID": format!("aws:///us-east-1a/{name}") },
        "status": { "capacity": {
            "cpu": shape.cpus.to_string(),
            "memory": format!("{}Gi", shape.memory_gib),
            "pods": "110",
            "nvidia.com/gpu": shape.gpus.to_string(),
        } },
    })
}

/// A pod of one container that asks for `gpus` whole GPUs and runs until it is deleted.
pub fn gpu_pod(namespace: &str, name: &str, gpus: u32) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "namespace": namespace, "name": name },
        "spec": {
            "restartPolicy": "Never",
            "containers": [{
                "name": "main",
                "image": "registry.example/train:1",
                "resources": { "limits": { "nvidia.com/gpu": gpus.to_string() } },
            }],
        },
    })
}

/// The text of many objects for one `kubectl create -f -`.
pub fn list(items: impl IntoIterator<Item = Value>) -> String {
    let items: Vec<Value> = items.into_iter().collect();
    json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string()
}
