use serde_json::{Value, json};

use super::*;

fn read(kind: DeviceKind, object: Value) -> DeviceObject {
    let mut object = object;
    object["metadata"]["uid"] = "u".into();
    Decoder::default().device(kind, Source::Value(&object)).expect("well formed")
}

fn cel(text: &str) -> Option<DeviceSelector> {
    expression(text, &mut Interner::<str>::default())
}

fn text(value: &str) -> AttributeValue {
    AttributeValue::Text(value.into())
}

#[test]
fn comparisons_joined_by_and_are_read_and_nothing_else() {
    let class = cel("device.driver == 'gpu.nvidia.com' && \
         device.attributes['gpu.nvidia.com'].type == 'mig'");
    let attribute = |name: &str, value| DeviceTest::Attribute { name: name.into(), value };
    let expected = vec![
        DeviceTest::Driver("gpu.nvidia.com".into()),
        attribute("gpu.nvidia.com/type", text("mig")),
    ];
    assert_eq!(class, Some(DeviceSelector(expected)));
    let number = cel("device.attributes[\"d\"].index == 3");
    assert_eq!(
        number,
        Some(DeviceSelector(vec![attribute("d/index", AttributeValue::Integer(3))]))
    );
    assert!(cel("device.attributes['d'].ecc == true").is_some());
    for other in [
        "",
        "true",
        "device.driver != 'd'",
        "device.driver == 'd' || device.driver == 'e'",
        "device.driver == 'd' && true",
        "device.driver == 'a && b'",
        "device.driver == 'it''s'",
        "device.driver == 'd' == true",
        "!(device.driver == 'd')",
        "device.attributes['d'].a == device.attributes['d'].b",
        "device.attributes['d'].name.lowerAscii() == 'x'",
        "device.attributes['d'].index == 03",
        "device.attributes['d'].index == 1.0",
        "device.capacity['d'].memory.compareTo(quantity('40Gi')) >= 0",
    ] {
        assert_eq!(cel(other), None, "{other}");
    }
}

#[test]
fn a_claim_is_read_with_what_it_asks_and_what_it_has() {
    let exactly = |more: Value| {
        let mut exactly = json!({"deviceClassName": "gpu", "allocationMode": "ExactCount",
            "count": 2, "selectors": [{"cel": {"expression": "device.driver == 'd'"}}]});
        for (key, value) in more.as_object().expect("an object") {
            exactly[key] = value.clone();
        }
        json!({"requests": [{"name": "r", "exactly": exactly}]})
    };
    let claim = |devices: Value, status: Value| {
        let object = json!({"metadata": {"name": "c", "namespace": "team"},
            "spec": {"devices": devices}, "status": status});
        match read(DeviceKind::Claim, object) {
            DeviceObject::Claim(claim) => claim,
            other => panic!("{other:?}"),
        }
    };
    let plain = claim(exactly(json!({})), json!({}));
    let requests = plain.requests.expect("covered");
    assert_eq!(
        (&*requests[0].class, requests[0].count, requests[0].selectors.len()),
        ("gpu", 2, 1)
    );
    for more in [
        json!({"allocationMode": "All"}),
        json!({"adminAccess": true}),
        json!({"tolerations": [{"operator": "Exists"}]}),
        json!({"capacity": {"requests": {"memory": "1Gi"}}}),
        json!({"selectors": [{"cel": {"expression": "true"}}]}),
    ] {
        assert_eq!(claim(exactly(more.clone()), json!({})).requests, None, "{more}");
    }
    let either = json!({"requests": [{"name": "r", "firstAvailable": [{"name": "a"}]}]});
    assert_eq!(claim(either, json!({})).requests, None);
    let mut bound_together = exactly(json!({}));
    bound_together["constraints"] = json!([{"matchAttribute": "d/parent"}]);
    assert_eq!(claim(bound_together, json!({})).requests, None);

    let result = json!({"request": "r", "driver": "d", "pool": "n", "device": "gpu-0"});
    let on_node = json!({"nodeSelectorTerms": [{"matchFields": [
        {"key": "metadata.name", "operator": "In", "values": ["n"]}]}]});
    let status = json!({"allocation": {"devices": {"results": [result]}, "nodeSelector": on_node}});
    let has = claim(exactly(json!({})), status).allocation.expect("allocated");
    assert!(has.exact && has.nodes.is_some_and(|terms| terms[0].name.len() == 1));
    assert_eq!(&*has.devices[0].device, "gpu-0");
    let mut waits = result_with(&json!(["ready"]));
    waits["nodeSelector"] = Value::Null;
    assert!(!claim(json!({}), json!({"allocation": waits})).allocation.expect("one").exact);
}

fn result_with(conditions: &Value) -> Value {
    json!({"devices": {"results": [{"request": "r", "driver": "d", "pool": "n",
        "device": "gpu-0", "bindingConditions": conditions}]}})
}

#[test]
fn a_slice_is_read_with_which_devices_only_their_claim_decides_about() {
    let device = |name: &str, more: Value| {
        let mut device = json!({"name": name});
        for (key, value) in more.as_object().expect("an object") {
            device[key] = value.clone();
        }
        device
    };
    let object = json!({"metadata": {"name": "s"}, "spec": {
        "driver": "d", "nodeName": "n",
        "pool": {"name": "p", "generation": 3, "resourceSliceCount": 1},
        "devices": [
            device("plain", json!({"attributes": {
                "type": {"string": "gpu"}, "other/index": {"int": 2}, "ecc": {"bool": true},
                "driverVersion": {"version": "1.0.0"}}})),
            device("counts", json!({"consumesCounters": [{"counterSet": "c"}]})),
            device("tainted", json!({"taints": [{"key": "k", "effect": "NoSchedule"}]})),
            device("shared", json!({"allowMultipleAllocations": true})),
            device("elsewhere", json!({"nodeName": "m"})),
        ],
    }});
    let DeviceObject::Slice(slice) = read(DeviceKind::Slice, object) else { panic!("a slice") };
    assert_eq!((&*slice.pool, slice.pool_slices), ("p", 1));
    let plain: Vec<&str> =
        slice.devices.iter().filter(|device| device.plain).map(|device| &*device.name).collect();
    assert_eq!(plain, ["plain"]);
    let attributes: [(Arc<str>, AttributeValue); 4] = [
        ("d/driverVersion".into(), AttributeValue::Other),
        ("d/ecc".into(), AttributeValue::Bool(true)),
        ("d/type".into(), text("gpu")),
        ("other/index".into(), AttributeValue::Integer(2)),
    ];
    assert_eq!(slice.devices[0].attributes, attributes);
}

#[test]
fn a_class_is_read_with_the_resource_that_it_serves() {
    let object = json!({"metadata": {"name": "gpu"}, "spec": {
        "selectors": [{"cel": {"expression": "device.driver == 'd'"}}],
        "extendedResourceName": "nvidia.com/gpu"}});
    let DeviceObject::Class(class) = read(DeviceKind::Class, object) else { panic!("a class") };
    assert_eq!(class.selectors.map(|all| all.len()), Some(1));
    assert_eq!(class.extended_resource.as_deref(), Some("nvidia.com/gpu"));
}
