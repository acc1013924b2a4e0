//! A view in which everything that can be known is known, for tests: made by the loop itself.

use std::time::Duration;

use gpu_autoscaler_model::{
    Activity, ActivitySource, Bytes, Change, Delta, Device, GpuCount, GpuModel, GpuResource,
    GpuSample, Holder, Labels, Node, NodeName, ObjectKey, Pod, PodPhase, Ratio, Resources,
    SampleScope, Timestamp, View,
};
use gpu_autoscaler_reconciler::{Policy, State, reconcile};

/// A view with a pod that is idle, one that is busy, one that is dark and one that waits.
pub(crate) fn full() -> View {
    let pods = [
        pod("idle", Some("n1"), 1),
        pod("busy", Some("n1"), 1),
        pod("dark", Some("n2"), 1),
        pod("waits", None, 8),
    ];
    let samples = [("GPU-a", "idle", 0.0), ("GPU-b", "busy", 0.9)];
    let times = (0..=20).map(|i| at(i * 30));
    let seen = Delta {
        nodes: vec![Change::Upsert(node("n1", 2)), Change::Upsert(node("n2", 4))],
        pods: pods.into_iter().map(Change::Upsert).collect(),
        samples: times.flat_map(|at| samples.map(|of| sample(at, of))).collect(),
        ..Delta::default()
    };
    reconcile(at(600), &mut State::new(), &seen, &Policy::published()).view
}

fn at(secs: u64) -> Timestamp {
    Timestamp::EPOCH.after(Duration::from_secs(secs))
}

fn node(name: &str, gpus: u32) -> Node {
    let whole = GpuCount { resource: GpuResource::Whole, count: gpus };
    Node {
        name: name.into(),
        uid: name.into(),
        created: at(0),
        labels: Labels::default(),
        taints: vec![],
        ready: true,
        unschedulable: false,
        allocatable: Resources { gpus: vec![whole], ..Resources::default() },
        pods_max: None,
        instance_type: Some("g5.12xlarge".into()),
        region: Some("us-east-1".into()),
        zone: None,
        capacity_type: None,
        gpu_model: GpuModel::parse("NVIDIA A10G"),
        gpus: Some(gpus),
        sharing: None,
    }
}

fn pod(name: &str, node: Option<&str>, gpus: u32) -> Pod {
    let whole = GpuCount { resource: GpuResource::Whole, count: gpus };
    Pod {
        uid: name.into(),
        key: ObjectKey::new("ml", name),
        resource_version: "1".into(),
        created: at(0),
        started: node.map(|_| at(0)),
        node: node.map(NodeName::from),
        phase: if node.is_some() { PodPhase::Running } else { PodPhase::Pending },
        deleting: false,
        requests: Resources { gpus: vec![whole], ..Resources::default() },
        labels: Labels::default(),
        annotations: Labels::default(),
        owner: None,
        priority: 0,
        gates: vec![],
        unschedulable: None,
    }
}

fn sample(at: Timestamp, (gpu, pod, activity): (&str, &str, f64)) -> GpuSample {
    let source = ActivitySource::SmActive;
    let pod = ObjectKey::new("ml", pod);
    GpuSample {
        at,
        node: "n1".into(),
        device: Device { uuid: gpu.into(), instance: None },
        model: None,
        holder: Some(Holder { pod, uid: None, container: "main".into() }),
        scope: SampleScope::Exclusive,
        activity: Ratio::new(activity).map(|ratio| Activity { ratio, source }),
        fb_used: Bytes::from_mib(2400),
        fb_total: Bytes::from_mib(24000),
        power: None,
        temperature_celsius: Some(40),
        xid: None,
    }
}
