use gpu_autoscaler_model::{
    AttributeValue, DeviceAllocation, NOT_COVERED, NodeSelectorTerm, Operator, Requirement,
};

use super::*;
use crate::demand;
use crate::observe;
use crate::place::place;
use crate::refusal::Refusal;
use crate::storage::Storage;
use crate::strategy::Strategy;
use crate::tests::{node, seen_pod};

const DRIVER: &str = "gpu.example";

fn is(attribute: &str, value: &str) -> DeviceTest {
    DeviceTest::Attribute {
        name: format!("{DRIVER}/{attribute}").into(),
        value: AttributeValue::Text(value.into()),
    }
}

fn selector(tests: &[DeviceTest]) -> DeviceSelector {
    DeviceSelector(tests.to_vec())
}

fn class(name: &str, kind: &str) -> DeviceClass {
    let tests = [DeviceTest::Driver(DRIVER.into()), is("type", kind)];
    DeviceClass {
        uid: format!("class-{name}").into(),
        name: name.into(),
        selectors: Some(vec![selector(&tests)]),
        extended_resource: None,
    }
}

fn device(name: &str, attributes: &[(&str, &str)]) -> OfferedDevice {
    let mut attributes: Vec<(Arc<str>, AttributeValue)> = attributes
        .iter()
        .map(|(key, value)| {
            (format!("{DRIVER}/{key}").into(), AttributeValue::Text((*value).into()))
        })
        .collect();
    attributes.sort();
    OfferedDevice { name: name.into(), attributes, plain: true }
}

/// Two GPUs and a slice of a third on node `name`.
fn slice(name: &str) -> DeviceSlice {
    DeviceSlice {
        uid: format!("slice-{name}").into(),
        driver: DRIVER.into(),
        pool: name.into(),
        pool_slices: 1,
        node: Some(name.into()),
        devices: vec![
            device("gpu-0", &[("type", "gpu"), ("product", "A100")]),
            device("gpu-1", &[("type", "gpu"), ("product", "A100")]),
            device("mig-0", &[("type", "mig"), ("profile", "1g.5gb")]),
        ],
    }
}

fn asks(class: &str, count: u64, tests: &[DeviceTest]) -> DeviceRequest {
    let selectors = if tests.is_empty() { vec![] } else { vec![selector(tests)] };
    DeviceRequest { class: class.into(), selectors, count }
}

fn claim(name: &str, requests: Vec<DeviceRequest>) -> DeviceClaim {
    DeviceClaim {
        uid: format!("claim-{name}").into(),
        key: ObjectKey::new("team", name),
        owner: None,
        deleting: false,
        requests: Some(requests),
        allocation: None,
    }
}

fn on(node: &str, devices: &[&str]) -> DeviceAllocation {
    let operator = Operator::In(vec![node.into()]);
    let name = vec![Requirement { key: "metadata.name".into(), operator }];
    let id = |device: &&str| DeviceId {
        driver: DRIVER.into(),
        pool: node.into(),
        device: (*device).into(),
    };
    DeviceAllocation {
        devices: devices.iter().map(id).collect(),
        nodes: Some(vec![NodeSelectorTerm { labels: Vec::new(), name }]),
        exact: true,
    }
}

fn pod(name: &str, claims: &[&str]) -> Pod {
    let device_claims =
        claims.iter().map(|&name| ClaimName { name: name.into(), ephemeral: false }).collect();
    seen_pod(name, None, Constraints { device_claims, ..Constraints::default() })
}

/// Nodes `a` with [`slice`] and `b` without devices, and both classes.
fn cluster() -> Devices {
    let mut devices = Devices::default();
    for object in [
        DeviceObject::Class(class("gpu", "gpu")),
        DeviceObject::Class(class("mig", "mig")),
        DeviceObject::Slice(slice("a")),
    ] {
        devices.note(&Change::Upsert(object));
    }
    devices
}

fn with(devices: &mut Devices, object: DeviceObject) {
    devices.note(&Change::Upsert(object));
}

/// For each pod its node, or why it has none.
fn places(devices: &Devices, seen: &[&Pod]) -> Vec<String> {
    let mut fleet = Fleet::new(vec![node("a", vec![]), node("b", vec![])]);
    let mut pods: Vec<_> = seen.iter().map(|pod| observe::pod(pod, &Storage::default())).collect();
    devices.look_up(seen, &mut pods, &mut fleet);
    let results = place(&pods, &fleet, &demand::Demand::default(), Strategy::Default);
    let told = |result: &Result<crate::fleet::Assignment, Refusal>| match result {
        Ok(place) => fleet.node(place.node).name.to_string(),
        Err(Refusal::Uncovered { constraints }) => constraints.join(" "),
        Err(refusal) => refusal.to_string(),
    };
    results.iter().map(told).collect()
}

#[test]
fn as_many_devices_are_claimed_as_pass_the_selectors_and_no_more() {
    let mut devices = cluster();
    for name in ["1", "2", "3"] {
        with(&mut devices, DeviceObject::Claim(claim(name, vec![asks("gpu", 1, &[])])));
    }
    with(&mut devices, DeviceObject::Claim(claim("slice", vec![asks("mig", 1, &[])])));
    let pods = [pod("p", &["1"]), pod("q", &["2", "slice"]), pod("r", &["3"])];
    let placed = places(&devices, &[&pods[0], &pods[1], &pods[2]]);
    assert_eq!(placed[..2], ["a", "a"]);
    let why = "0 of 2 nodes fit: 2 too little of an extended resource; it would fit with 1 free \
               on one node, where now at most 0 are";
    assert_eq!(placed[2], why);
    let other = asks("gpu", 1, &[is("product", "H100")]);
    with(&mut devices, DeviceObject::Claim(claim("3", vec![other])));
    assert_eq!(places(&devices, &[&pods[2]]), [why], "another product");
}

#[test]
fn an_allocated_claim_holds_its_devices_and_its_node() {
    let mut devices = cluster();
    let mut held = claim("held", vec![asks("gpu", 1, &[])]);
    held.allocation = Some(on("a", &["gpu-0"]));
    with(&mut devices, DeviceObject::Claim(held.clone()));
    with(&mut devices, DeviceObject::Claim(claim("two", vec![asks("gpu", 2, &[])])));
    let (user, other, two) = (pod("p", &["held"]), pod("q", &["held"]), pod("r", &["two"]));
    let placed = places(&devices, &[&user, &other, &two]);
    assert_eq!(placed[..2], ["a", "a"], "it is shared");
    assert!(placed[2].contains("too little of an extended resource"), "{}", placed[2]);
    held.allocation = Some(on("b", &[]));
    with(&mut devices, DeviceObject::Claim(held));
    assert_eq!(places(&devices, &[&user, &two]), ["b", "a"]);
    with(&mut devices, DeviceObject::Claim(DeviceClaim { deleting: true, ..claim("two", vec![]) }));
    let deleting = "claim `team/two` is being deleted; it would fit once it is made anew";
    assert_eq!(places(&devices, &[&two]), [deleting]);
}

/// What becomes of a pod with claim `c` for one GPU where `change` was made.
fn after(change: impl FnOnce(&mut Devices, &mut DeviceClaim)) -> String {
    let mut devices = cluster();
    let mut claim = claim("c", vec![asks("gpu", 1, &[])]);
    change(&mut devices, &mut claim);
    with(&mut devices, DeviceObject::Claim(claim));
    places(&devices, &[&pod("p", &["c"])]).remove(0)
}

fn with_slice(devices: &mut Devices, change: impl FnOnce(&mut DeviceSlice)) {
    let mut changed = slice("a");
    change(&mut changed);
    with(devices, DeviceObject::Slice(changed));
}

#[test]
fn what_counting_does_not_cover_is_left_to_the_scheduler_under_its_path() {
    assert_eq!(after(|_, _| ()), "a");
    let expected = |told: String, path: &str| {
        assert_eq!(told, path);
        assert!(NOT_COVERED.iter().any(|(listed, _)| *listed == path), "{path} is not listed");
    };
    let unknown = |devices: &mut Devices, _: &mut DeviceClaim| {
        devices.note(&Change::Delete("class-gpu".into()));
    };
    expected(after(unknown), DEVICE_CLAIM_UNKNOWN);
    let no_slice = |devices: &mut Devices, _: &mut DeviceClaim| {
        devices.note(&Change::Delete("slice-a".into()));
    };
    expected(after(no_slice), DEVICE_CLAIM_UNKNOWN);
    expected(after(|_, claim| claim.key = ObjectKey::new("team", "d")), DEVICE_CLAIM_UNKNOWN);
    expected(after(|_, claim| claim.requests = None), DEVICE_REQUEST);
    let many = |_: &mut Devices, claim: &mut DeviceClaim| {
        claim.requests = Some(vec![asks("gpu", 20, &[]), asks("mig", 13, &[])]);
    };
    expected(after(many), DEVICE_REQUEST);
    let odd_class = |devices: &mut Devices, _: &mut DeviceClaim| {
        let odd = DeviceClass { selectors: None, ..class("gpu", "gpu") };
        with(devices, DeviceObject::Class(odd));
    };
    expected(after(odd_class), DEVICE_REQUEST);
    let waits = |_: &mut Devices, claim: &mut DeviceClaim| {
        claim.allocation = Some(DeviceAllocation { exact: false, ..on("a", &[]) });
    };
    expected(after(waits), DEVICE_REQUEST);
    let others = |devices: &mut Devices, _: &mut DeviceClaim| {
        devices.note_pod(None, Some(&pod("q", &["c"])));
    };
    expected(after(others), DEVICE_CLAIM_SHARED);
}

#[test]
fn devices_that_more_than_their_claim_decides_about_are_not_counted() {
    let told = |change: fn(&mut DeviceSlice)| after(|devices, _| with_slice(devices, change));
    assert_eq!(told(|slice| slice.devices[2].plain = false), "a", "nobody asks for that one");
    assert_eq!(told(|slice| slice.devices[1].plain = false), DEVICES_NOT_COUNTED);
    assert_eq!(told(|slice| slice.pool_slices = 2), DEVICES_NOT_COUNTED);
    assert_eq!(told(|slice| slice.node = None), DEVICES_NOT_COUNTED);
    // The class asks for a type: the expression fails on a device that has none.
    assert_eq!(told(|slice| slice.devices[0].attributes.clear()), DEVICES_NOT_COUNTED);
    let twice = |devices: &mut Devices, _: &mut DeviceClaim| {
        let again = DeviceSlice { uid: "again".into(), ..slice("a") };
        with(devices, DeviceObject::Slice(again));
    };
    assert_eq!(after(twice), DEVICES_NOT_COUNTED, "two slices say that they are all of the pool");
    // Two requests, one of which may take what the other needs.
    let overlapping = |_: &mut Devices, claim: &mut DeviceClaim| {
        let picky = asks("gpu", 1, &[is("product", "A100")]);
        claim.requests = Some(vec![asks("gpu", 1, &[]), picky]);
    };
    assert_eq!(after(overlapping), DEVICES_NOT_COUNTED);
}

#[test]
fn a_resource_that_devices_may_serve_is_left_to_the_scheduler() {
    let mut devices = cluster();
    let mut plain = pod("p", &[]);
    plain.requests.extended = vec![("example/fpga".into(), 1)];
    assert!(places(&devices, &[&plain])[0].starts_with("0 of 2 nodes fit"));
    let serves = Some("example/fpga".into());
    let class = DeviceClass { extended_resource: serves, ..class("fpga", "fpga") };
    with(&mut devices, DeviceObject::Class(class));
    assert_eq!(places(&devices, &[&plain]), [DEVICE_EXTENDED]);
    plain.requests.extended = vec![(format!("{IMPLICIT_RESOURCE}gpu").into(), 1)];
    assert_eq!(places(&devices, &[&plain]), [DEVICE_EXTENDED]);
}

#[test]
fn what_went_is_forgotten() {
    let mut devices = cluster();
    let mut held = claim("held", vec![]);
    held.allocation = Some(on("a", &["gpu-0"]));
    with(&mut devices, DeviceObject::Claim(held));
    let user = pod("p", &["held"]);
    devices.note_pod(None, Some(&user));
    devices.note_pod(Some(&user), None);
    let uids: Vec<Uid> = devices.objects.objects().map(|object| object.uid().clone()).collect();
    uids.into_iter().for_each(|uid| devices.note(&Change::Delete(uid)));
    assert!(devices.objects.is_empty() && devices.pools.is_empty() && devices.taken.is_empty());
    assert!(devices.users.is_empty());
}

#[test]
fn gpus_are_told_from_other_devices_by_the_driver_of_their_class() {
    let nvidia = |name: &str, tests: &[DeviceTest]| DeviceClass {
        uid: format!("class-{name}").into(),
        name: name.into(),
        selectors: Some(vec![selector(tests)]),
        extended_resource: None,
    };
    let driver = |name: &str| DeviceTest::Driver(name.into());
    let taken = |drivers: &[&str]| {
        let id = |driver: &&str| DeviceId {
            driver: (*driver).into(),
            pool: "a".into(),
            device: "0".into(),
        };
        DeviceAllocation { devices: drivers.iter().map(id).collect(), nodes: None, exact: true }
    };
    let mut devices = Devices::default();
    let mut note = |object| devices.note(&Change::Upsert(object));
    note(DeviceObject::Class(nvidia("gpu", &[driver(GPU_DRIVER), is("type", "gpu")])));
    note(DeviceObject::Class(nvidia("nic", &[driver("nic.example")])));
    note(DeviceObject::Class(nvidia("any", &[is("type", "gpu")])));
    let gpus_and_more = vec![asks("gpu", 2, &[]), asks("nic", 4, &[]), asks("gpu", 1, &[])];
    note(DeviceObject::Claim(claim("mixed", gpus_and_more)));
    note(DeviceObject::Claim(claim("nics", vec![asks("nic", 4, &[])])));
    note(DeviceObject::Claim(claim("vague", vec![asks("any", 1, &[])])));
    note(DeviceObject::Claim(claim("unknown", vec![asks("gone", 1, &[])])));
    note(DeviceObject::Claim(DeviceClaim { requests: None, ..claim("complex", vec![]) }));
    let drivers = [GPU_DRIVER, GPU_DRIVER, "nic.example"];
    let allocation = Some(taken(&drivers));
    note(DeviceObject::Claim(DeviceClaim { allocation, ..claim("taken", vec![]) }));
    let names = ["mixed", "nics", "taken", "vague", "unknown", "complex", "nowhere"];
    let key = |name: &str| ObjectKey::new("team", name);
    let counts = names.map(|name| devices.gpus_of(&key(name)));
    assert_eq!(counts, [Some(3), Some(0), Some(2), None, None, None, None]);
    assert_eq!(devices.asked_by(&key("mixed")), "claim `team/mixed`: 2 gpu, 4 nic, 1 gpu");
    assert_eq!(devices.asked_by(&key("nowhere")), "claim `team/nowhere`: not known");
}
