use serde_json::{Value, json};

use super::*;

fn read(kind: StorageKind, object: Value) -> StorageObject {
    let mut object = object;
    object["metadata"]["uid"] = "u".into();
    Decoder::default().storage(kind, Source::Value(&object)).expect("well formed")
}

fn volume(spec: Value, labels: Value) -> Volume {
    let object = json!({
        "metadata": {"name": "v", "labels": labels}, "spec": spec, "status": {"phase": "Bound"},
    });
    match read(StorageKind::Volume, object) {
        StorageObject::Volume(volume) => volume,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_claim_is_read_with_what_keeps_its_pod_from_nodes() {
    let object = json!({
        "metadata": {"name": "c", "namespace": "team", "deletionTimestamp": "2026-11-22T05:00:00Z",
            "annotations": {CLASS: "old", BIND_COMPLETED: "yes", SELECTED_NODE: "n"},
            "ownerReferences": [{"kind": "Pod", "name": "p", "uid": "pod", "controller": true}]},
        "spec": {"storageClassName": "new", "volumeName": "v",
            "accessModes": ["ReadWriteOncePod"]},
        "status": {"phase": "Lost"},
    });
    let claim = VolumeClaim {
        uid: "u".into(),
        key: ObjectKey::new("team", "c"),
        class: "old".into(),
        volume: Some("v".into()),
        bound: true,
        lost: true,
        deleting: true,
        one_pod: true,
        selected_node: Some("n".into()),
        owner: Some("pod".into()),
    };
    assert_eq!(read(StorageKind::Claim, object), StorageObject::Claim(claim));
}

#[test]
fn a_volume_of_the_tree_or_with_unknown_affinity_is_not_covered() {
    let plain = json!({"nfs": {"server": "s", "path": "/"}});
    assert_eq!(volume(plain, json!({})).uncovered, None);
    let csi = volume(json!({"csi": {"driver": "d", "volumeHandle": "h"}}), json!({}));
    assert_eq!((csi.driver.as_deref(), csi.uncovered, csi.is_free), (Some("d"), None, true));
    let disk = json!({"awsElasticBlockStore": {"volumeID": "v"}, "claimRef": {"name": "c"}});
    let disk = volume(disk, json!({}));
    assert_eq!((disk.uncovered, disk.is_free), (Some(VOLUME_SOURCE), false));
    let terms = [
        json!({"matchExpressions": [{"key": "k", "operator": "Near", "values": ["v"]}]}),
        json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}),
    ];
    for term in terms {
        let affinity = json!({"required": {"nodeSelectorTerms": [term]}});
        let odd = volume(json!({"local": {"path": "/"}, "nodeAffinity": affinity}), json!({}));
        assert_eq!(odd.uncovered, Some(VOLUME_NODES), "{affinity}");
    }
}

#[test]
fn zones_of_a_volume_are_split_and_a_list_with_an_empty_one_is_left_out() {
    let labels = json!({
        "topology.kubernetes.io/zone": "a__ b",
        "topology.kubernetes.io/region": "r__",
        "failure-domain.beta.kubernetes.io/region": "r",
        "zone": "c",
    });
    let zones = volume(json!({"nfs": {}}), labels).zones;
    let expected: [(Arc<str>, Vec<Arc<str>>); 2] = [
        ("failure-domain.beta.kubernetes.io/region".into(), vec!["r".into()]),
        ("topology.kubernetes.io/zone".into(), vec!["a".into(), "b".into()]),
    ];
    assert_eq!(zones, expected);
}

#[test]
fn classes_drivers_and_limits_are_read() {
    let object = json!({
        "metadata": {"name": "fast"}, "provisioner": "d",
        "volumeBindingMode": "WaitForFirstConsumer",
        "allowedTopologies": [{"matchLabelExpressions": [{"key": "z", "values": ["a", "b"]}]}, {}],
    });
    let StorageObject::Class(class) = read(StorageKind::Class, object) else { panic!("a class") };
    assert!(class.waits_for_pod);
    assert_eq!(class.topologies[0].labels[0].operator, Operator::In(vec!["a".into(), "b".into()]));
    assert_eq!(class.topologies[1], NodeSelectorTerm::default(), "it matches nothing");
    let object = json!({"metadata": {"name": "d"}, "spec": {"storageCapacity": true}});
    let StorageObject::Driver(driver) = read(StorageKind::Driver, object) else { panic!("one") };
    assert!(driver.tracks_capacity && !driver.must_be_installed);
    let object = json!({"metadata": {"name": "n"}, "spec": {"drivers": [
        {"name": "d", "nodeID": "i", "allocatable": {"count": 25}},
        {"name": "e", "nodeID": "i"}, {"name": "f", "nodeID": "i", "allocatable": {}},
    ]}});
    let StorageObject::Node(node) = read(StorageKind::Node, object) else { panic!("one") };
    assert_eq!(node.limited, ["d".into()]);
}
