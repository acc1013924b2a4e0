//! The world's nodes and pods as manifests.

use std::collections::BTreeSet;

use gpu_autoscaler_model::{Change, Node, Pod, Timestamp};
use gpu_autoscaler_sim::World;
use serde_json::{Map, json};

use crate::Json;

/// All nodes, to be played by kwok.
pub fn nodes(world: &World) -> Vec<Json> {
    existing(world.snapshot().nodes).map(|node| node_manifest(&node)).collect()
}

/// All pods, bound to their nodes: those that are there from the start, and those that come later.
///
/// The scheduler is left out, because what is true was written down before.
pub fn pods(world: &World, start: Timestamp) -> (Vec<Json>, Vec<Json>) {
    let (early, late): (Vec<Pod>, Vec<Pod>) =
        existing(world.snapshot().pods).partition(|pod| pod.created <= start);
    let manifests = |pods: Vec<Pod>| pods.iter().map(pod_manifest).collect();
    (manifests(early), manifests(late))
}

/// The namespaces of all pods.
pub fn namespaces(world: &World) -> Vec<Json> {
    let names: BTreeSet<String> =
        existing(world.snapshot().pods).map(|pod| pod.key.namespace.to_string()).collect();
    let manifest =
        |name| json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
    names.into_iter().map(manifest).collect()
}

fn existing<T, K>(changes: Vec<Change<T, K>>) -> impl Iterator<Item = T> {
    changes.into_iter().filter_map(|change| match change {
        Change::Upsert(object) => Some(object),
        Change::Delete(_) => None,
    })
}

fn node_manifest(node: &Node) -> Json {
    let mut capacity = Map::from_iter([
        ("cpu".to_owned(), json!(format!("{}m", node.allocatable.cpu.as_u64()))),
        ("memory".to_owned(), json!(format!("{}Mi", node.allocatable.memory.as_mib()))),
        ("pods".to_owned(), json!("110")),
    ]);
    let gpus = node.allocatable.gpus.iter();
    capacity.extend(gpus.map(|gpu| (gpu.resource.to_string(), json!(gpu.count.to_string()))));
    let labels: Map<String, Json> =
        node.labels.iter().map(|(key, value)| (key.to_owned(), json!(value))).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": node.name.as_str(),
            "annotations": { "kwok.x-k8s.io/node": "fake" },
            "labels": labels,
        },
        "spec": { "providerID": format!("aws:///us-east-1a/{}", node.name) },
        "status": { "capacity": capacity },
    })
}

fn pod_manifest(pod: &Pod) -> Json {
    let limits: Map<String, Json> = pod
        .requests
        .gpus
        .iter()
        .map(|gpu| (gpu.resource.to_string(), json!(gpu.count.to_string())))
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": &*pod.key.namespace,
            "name": &*pod.key.name,
            "annotations": pod.containers.waiting.as_ref().map(|says| {
                json!({ "tests.gpu-autoscaler.io/waits": &**says })
            }),
        },
        "spec": {
            "nodeName": pod.node.as_ref().map(|node| node.as_str()),
            "restartPolicy": "Never",
            "containers": [{
                "name": "main",
                "image": "registry.example/work:1",
                "resources": { "limits": limits },
            }],
        },
    })
}
