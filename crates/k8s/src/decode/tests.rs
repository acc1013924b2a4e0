use expect_test::expect;
use serde_json::json;

use super::*;

fn meta(extra: Value) -> Value {
    let mut meta = json!({
        "name": "x", "namespace": "team", "uid": "u-1", "resourceVersion": "7",
        "creationTimestamp": "2026-11-22T05:00:00Z",
    });
    for (key, value) in extra.as_object().expect("an object") {
        meta[key] = value.clone();
    }
    meta
}

fn pod(extra: Value) -> Result<Pod, ObjectError> {
    let mut object = json!({"metadata": meta(json!({}))});
    for (key, value) in extra.as_object().expect("an object") {
        object[key] = value.clone();
    }
    let text = object.to_string();
    let from_text = Decoder::default().pod(Source::Json(&text));
    let from_value = Decoder::default().pod(Source::Value(&object));
    match (&from_text, &from_value) {
        (Ok(a), Ok(b)) => assert_eq!(a, b, "both ways of reading agree"),
        // The message of one of the two carries the line and column as well.
        (Err(a), Err(b)) => assert_eq!((&a.key, &a.field), (&b.key, &b.field)),
        _ => panic!("{from_text:?} is not {from_value:?}"),
    }
    from_value
}

#[test]
fn a_running_pod_is_read_and_foreign_annotations_are_dropped() {
    let read = pod(json!({
        "metadata": meta(json!({
            "labels": {"app": "train"},
            "annotations": {"gpu-autoscaler.io/sharing": "disabled", "other/x": "1"},
            "ownerReferences": [
                {"kind": "Other", "name": "o", "uid": "u-2"},
                {"kind": "Job", "name": "j", "uid": "u-3", "controller": true},
            ],
        })),
        "spec": {
            "nodeName": "gpu-0", "priority": 10,
            "containers": [{"name": "c", "resources": {"limits": {"nvidia.com/gpu": "2"}}}],
        },
        "status": {"phase": "Running", "startTime": "2026-11-22T05:00:07Z"},
    }))
    .expect("well formed");
    assert_eq!(read.key, ObjectKey::new("team", "x"));
    assert_eq!(read.requests.gpu_count(&gpu_autoscaler_model::GpuResource::Whole), 2);
    assert_eq!(read.annotations.iter().count(), 1);
    assert_eq!(read.owner.expect("owned").name.as_ref(), "j");
    assert_eq!(read.phase, PodPhase::Running);
    assert_eq!(read.started.expect("started").to_string(), "2026-11-22T05:00:07Z");
}

#[test]
fn null_counts_as_absent() {
    let read = pod(json!({
        "metadata": meta(json!({"labels": null, "annotations": null, "deletionTimestamp": null})),
        "spec": {"nodeName": null, "containers": null, "priority": null},
        "status": {"phase": null, "conditions": null, "startTime": null},
    }))
    .expect("well formed");
    assert_eq!((read.node, read.deleting, read.phase), (None, false, PodPhase::Pending));
}

#[test]
fn the_schedulers_reason_is_kept_and_bounded() {
    let message = "0/5000 nodes are available: ".repeat(100);
    let read = pod(json!({"status": {"conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message},
    ]}}))
    .expect("well formed");
    assert_eq!(read.unschedulable.expect("told").len(), UNSCHEDULABLE_MAX);
}

#[test]
fn our_own_instance_type_counts_where_no_cloud_names_one() {
    let named = |labels: serde_json::Value| {
        let meta = meta(json!({"namespace": null, "name": "gpu-0", "labels": labels}));
        let object = json!({"metadata": meta, "status": {}});
        let node = Decoder::default().node(Source::Value(&object)).expect("well formed");
        node.instance_type.map(|instance| instance.as_str().to_owned())
    };
    let ours = json!({"gpu-autoscaler.io/instance-type": "p5.48xlarge"});
    assert_eq!(named(ours).as_deref(), Some("p5.48xlarge"));
    let both = json!({
        "gpu-autoscaler.io/instance-type": "p5.48xlarge",
        "node.kubernetes.io/instance-type": "p4d.24xlarge",
    });
    assert_eq!(named(both).as_deref(), Some("p4d.24xlarge"));
}

#[test]
fn a_malformed_object_is_named_with_its_field_and_value() {
    let errors = [
        json!({"spec": {"containers": [{"resources": {"requests": {"cpu": "12x"}}}]}}),
        json!({"spec": {"containers": [{"resources": {"requests": {"cpu": true}}}]}}),
        json!({"spec": {"priority": "high"}}),
        json!({"status": {"phase": "Sleeping"}}),
        json!({"status": {"startTime": "now"}}),
        json!({"metadata": {"name": "x", "namespace": "team", "uid": "u", "resourceVersion": "1"}}),
        json!({"metadata": {"name": 5, "namespace": "team"}}),
        json!({"metadata": []}),
    ]
    .map(|object| format!("{}\n", pod(object).expect_err("malformed")))
    .concat();
    expect![[r#"
        Pod `team/x`: field `spec.containers[0].resources.requests.cpu`: `12x` is no quantity such as `500m`, `1.5Gi` or `2e3`
        Pod `team/x`: field `spec.containers[0].resources.requests.cpu`: invalid type: boolean `true`, expected a quantity such as `500m` or `1.5Gi`
        Pod `team/x`: field `spec.priority`: invalid type: string "high", expected i32
        Pod `team/x`: field `status.phase`: `Sleeping` is no phase of a pod
        Pod `team/x`: field `status.startTime`: `now` is no RFC 3339 time such as `2026-11-22T05:00:00Z`
        Pod `team/x`: field `metadata.creationTimestamp`: missing
        Pod `team/?`: field `metadata.name`: invalid type: integer `5`, expected a string
        Pod `?`: field `metadata`: invalid length 0, expected struct Meta with 10 elements
    "#]]
    .assert_eq(&errors);
}

#[test]
fn a_gpu_node_is_read_with_its_labels() {
    let object = json!({
        "metadata": meta(json!({"namespace": null, "name": "gpu-0", "labels": {
            "nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB-SHARED",
            "nvidia.com/gpu.count": "8",
            "nvidia.com/gpu.replicas": "4",
            "nvidia.com/gpu.sharing-strategy": "time-slicing",
            "node.kubernetes.io/instance-type": "p4d.24xlarge",
            "topology.kubernetes.io/region": "us-east-1",
            "topology.kubernetes.io/zone": "us-east-1a",
            "karpenter.sh/capacity-type": "spot",
        }})),
        "spec": {"taints": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]},
        "status": {
            "capacity": {"nvidia.com/gpu": "32"},
            "allocatable": {
                "cpu": "95690m", "memory": "1146165540Ki", "nvidia.com/gpu": "32", "pods": "110",
            },
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    let node = Decoder::default().node(Source::Value(&object)).expect("well formed");
    assert_eq!((node.gpus, node.pods_max, node.ready), (Some(8), Some(110), true));
    assert_eq!(node.gpu_model.expect("known").as_str(), "A100-SXM4-40GB");
    assert_eq!(node.sharing.expect("shared").replicas, 4);
    assert_eq!(node.capacity_type, Some(gpu_autoscaler_model::CapacityType::Spot));
    assert_eq!(node.region.as_deref(), Some("us-east-1"));
    assert_eq!(node.allocatable.memory.as_u64(), 1_146_165_540 << 10);
    assert_eq!(node.taints[0].effect, TaintEffect::NoSchedule);
}

#[test]
fn a_budget_allows_nothing_known_until_its_controller_has_seen_its_spec() {
    let read = |generation: i64, status: Value| {
        let object = json!({"metadata": meta(json!({"generation": generation})), "status": status});
        Decoder::default().budget(Source::Value(&object)).map(|budget| budget.disruptions_allowed)
    };
    let seen = json!({"disruptionsAllowed": 2, "observedGeneration": 3});
    assert_eq!(read(3, seen.clone()), Ok(Some(2)));
    assert_eq!(read(4, seen), Ok(None), "computed for an older spec");
    assert_eq!(read(1, json!({})), Ok(None));
    let negative = json!({"disruptionsAllowed": -1, "observedGeneration": 1});
    assert!(read(1, negative).is_err());
}

#[test]
fn a_policy_consents_only_in_so_many_words() {
    let read = |spec: Value| {
        let object = json!({"metadata": meta(json!({"generation": 2})), "spec": spec, "status": {
            "conditions": [
                {"type": "Ready", "status": "False", "reason": "R", "observedGeneration": 1},
                {"type": "Foreign", "status": "True"},
            ],
        }});
        Decoder::default().policy(PolicyKind::AutoscalingPolicy, Source::Value(&object))
    };
    let silent = read(json!({"provider": "aws"})).expect("well formed");
    assert!(!silent.enabled && !silent.dry_run && silent.faults.is_empty());
    assert_eq!((silent.generation, silent.conditions.len()), (2, 1));
    assert_eq!(silent.conditions[0].holds, Some(false));
    assert!(read(json!({"enabled": true})).expect("well formed").enabled);
    assert_eq!(read(json!({"minNodes": 5, "maxNodes": 1})).expect("well formed").faults.len(), 1);
    let error = read(json!({"enabled": "yes"})).expect_err("consent is true or false");
    assert_eq!(error.field, "spec.enabled");
}

#[test]
fn pods_of_one_owner_share_what_they_demand() {
    let mut decoder = Decoder::default();
    let mut read = |name: &str| {
        let object = json!({
            "metadata": meta(json!({"name": name})),
            "spec": {"nodeSelector": {"nvidia.com/gpu.product": "Tesla-T4"}, "affinity": {
                "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
                    {"topologyKey": "kubernetes.io/hostname", "labelSelector": {}},
                ]},
            }},
        });
        decoder.pod(Source::Value(&object)).expect("well formed").constraints
    };
    assert!(Arc::ptr_eq(&read("a"), &read("b")));
    assert!(size_of::<Pod>() <= 512, "{} bytes", size_of::<Pod>());
}
