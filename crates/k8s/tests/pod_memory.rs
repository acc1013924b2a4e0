//! What a pod takes once it is decoded. A process of its own, so that nothing else is measured.

use std::fs;

use gpu_autoscaler_k8s::decode::{Decoder, Source};
use gpu_autoscaler_model::Pod;
use serde_json::{Value, json};

const PODS: usize = 5_000;

/// The limit that the project has set itself.
const BYTES_MAX: usize = 1536;

/// A pod as an API server sends it: managed fields, volumes, statuses and all.
fn pod(at: usize) -> Value {
    let set = at / 50;
    let job = format!("train-resnet-{set:05}");
    let container = |name: &str| {
        json!({
            "name": name, "image": format!("registry.example/team/train:{set}"),
            "command": ["python", "-m", "train", "--epochs", "90"],
            "env": (0..12).map(|n| json!({"name": format!("VARIABLE_{n}"), "value": "x".repeat(40)}))
                .collect::<Vec<_>>(),
            "resources": {
                "requests": {"cpu": "7500m", "memory": "60Gi", "nvidia.com/gpu": "1"},
                "limits": {"memory": "60Gi", "nvidia.com/gpu": "1"},
            },
            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        })
    };
    json!({
        "metadata": {
            "name": format!("{job}-{:05}-x7k2p", at % 50),
            "namespace": format!("team-{}", set % 40),
            "uid": format!("7d0c9a52-6a3e-4a51-9a54-{at:012}"),
            "resourceVersion": format!("{}", 100_000_000 + at),
            "creationTimestamp": "2026-11-22T05:00:00Z",
            "labels": {
                "app.kubernetes.io/name": "train", "app.kubernetes.io/instance": job,
                "batch.kubernetes.io/job-name": job, "job-name": job,
                "batch.kubernetes.io/job-completion-index": format!("{}", at % 50),
                "controller-uid": format!("11111111-2222-3333-4444-{set:012}"),
                "team": format!("team-{}", set % 40), "cost-center": "4711",
                "gpu-autoscaler.io/workload-type": "training", "pod-template-hash": "5d4f8c7b9",
            },
            "annotations": {
                "gpu-autoscaler.io/eviction-priority": "high",
                "kubectl.kubernetes.io/last-applied-configuration": "x".repeat(2000),
            },
            "ownerReferences": [{
                "kind": "Job", "name": job, "controller": true,
                "uid": format!("11111111-2222-3333-4444-{set:012}"),
            }],
            "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:x": "y".repeat(1500)}}],
        },
        "spec": {
            "nodeName": format!("ip-10-0-{}-{}.ec2.internal", at / 8 % 256, at / 2048),
            "priority": 1000,
            "containers": [container("main"), container("sidecar")],
        },
        "status": {
            "phase": "Running", "startTime": "2026-11-22T05:00:07Z",
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it is there");
    let kib: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib << 10
}

#[test]
fn a_pod_takes_less_than_a_kibibyte_and_a_half() {
    let mut decoder = Decoder::default();
    let mut pods: Vec<Pod> = Vec::with_capacity(PODS);
    let mut text = String::new();
    let mut decode = |at: usize, pods: &mut Vec<Pod>| {
        text.clear();
        text.push_str(&pod(at).to_string());
        pods.push(decoder.pod(Source::Json(&text)).expect("well formed"));
        text.len()
    };
    // The first ones warm up what decoding itself needs.
    for at in 0..500 {
        decode(at, &mut pods);
    }
    let before = resident();
    let mut json_bytes = 0;
    for at in 500..PODS {
        json_bytes += decode(at, &mut pods);
    }
    let grown = resident().saturating_sub(before);
    let each = grown / (PODS - 500);
    println!("{each} bytes a pod, of {} bytes of JSON", json_bytes / (PODS - 500));
    assert!(each < BYTES_MAX, "{each} bytes a pod");
    assert_eq!(pods.len(), PODS);
}
