//! A view in which everything that can be known is known, for tests: made by the loop itself from
//! what an API server and an exporter write.

use std::sync::Arc;
use std::time::Duration;

use gpu_autoscaler_k8s::dump;
use gpu_autoscaler_model::{Timestamp, View};
use gpu_autoscaler_reconciler::{Policy, State, reconcile};
use gpu_autoscaler_telemetry::dcgm::Origin;
use gpu_autoscaler_telemetry::scrape::read_text;
use serde_json::{Value, json};

/// A view with a pod that is idle, one that is busy, one that is dark and one that waits.
pub(crate) fn full() -> View {
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
        node("n1", 2),
        node("n2", 4),
        pod("idle", Some("n1"), 1),
        pod("busy", Some("n1"), 1),
        pod("dark", Some("n2"), 1),
        pod("waits", None, 8),
    ]});
    let read = dump::parse(objects.to_string().as_bytes()).expect("a list of objects");
    assert!(read.faults.is_empty(), "{:?}", read.faults);
    let mut seen = read.delta;
    for at in (0..=20).map(|i| at(i * 30)) {
        let origin = Origin { at, node: Some("n1".into()), exporter: Arc::default() };
        seen.samples.extend(read_text(exposition().as_bytes(), &origin).0);
    }
    reconcile(at(600), &mut State::new(), &seen, &Policy::published()).view
}

/// A view of one GPU with a pod, of which two exporters write these texts, seven seconds apart.
pub(crate) fn of_two_exporters(texts: [&str; 2]) -> View {
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
        node("n1", 1), pod("idle", Some("n1"), 1),
    ]});
    let mut seen = dump::parse(objects.to_string().as_bytes()).expect("a list of objects").delta;
    for secs in (0..=600).step_by(30) {
        for (text, (exporter, late)) in texts.iter().zip([("10.0.0.1:9400", 0), ("n1:9500", 7)]) {
            let origin = Origin { at: at(secs + late), node: None, exporter: exporter.into() };
            let (samples, counts) = read_text(text.as_bytes(), &origin);
            assert_eq!((samples.len(), counts.dropped), (1, 0));
            seen.samples.extend(samples);
        }
    }
    reconcile(at(607), &mut State::new(), &seen, &Policy::published()).view
}

fn at(secs: u64) -> Timestamp {
    Timestamp::EPOCH.after(Duration::from_secs(secs))
}

fn node(name: &str, gpus: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": name, "uid": name, "creationTimestamp": "1970-01-01T00:00:00Z",
            "labels": {
                "node.kubernetes.io/instance-type": "g5.12xlarge",
                "topology.kubernetes.io/region": "us-east-1",
                "nvidia.com/gpu.product": "NVIDIA-A10G",
                "nvidia.com/gpu.count": gpus.to_string(),
            },
        },
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "allocatable": {"nvidia.com/gpu": gpus.to_string()},
        },
    })
}

fn pod(name: &str, node: Option<&str>, gpus: u32) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "ml", "uid": name, "resourceVersion": "1",
            "creationTimestamp": "1970-01-01T00:00:00Z",
        },
        "spec": {"containers": [
            {"name": "main", "image": "x", "resources": {"limits": {"nvidia.com/gpu": gpus}}},
        ]},
        "status": {"phase": "Pending"},
    });
    if let Some(node) = node {
        pod["spec"]["nodeName"] = node.into();
        pod["status"] = json!({"phase": "Running", "startTime": "1970-01-01T00:00:00Z"});
    }
    pod
}

/// Two GPUs, one busy.
fn exposition() -> String {
    let gpu = |index: u32, pod: &str, utilization: u32| {
        let labels = format!(
            "gpu=\"{index}\",UUID=\"GPU-{index}\",Hostname=\"n1\",namespace=\"ml\",\
             pod=\"{pod}\",container=\"main\""
        );
        format!(
            "DCGM_FI_DEV_GPU_UTIL{{{labels}}} {utilization}\n\
             DCGM_FI_DEV_FB_USED{{{labels}}} 2400\n\
             DCGM_FI_DEV_FB_FREE{{{labels}}} 21600\n\
             DCGM_FI_DEV_GPU_TEMP{{{labels}}} 40\n"
        )
    };
    gpu(0, "idle", 0) + &gpu(1, "busy", 90)
}
