use gpu_autoscaler_model::{NOT_COVERED, PodPhase, StorageNode};

use super::*;
use crate::tests::seen_pod;

const DRIVER: &str = "disk.csi.example";

fn claim(name: &str) -> VolumeClaim {
    VolumeClaim {
        uid: Uid::new(format!("claim-{name}")),
        key: ObjectKey::new("team", name),
        class: "fast".into(),
        volume: Some("v".into()),
        bound: true,
        lost: false,
        deleting: false,
        one_pod: false,
        selected_node: None,
        owner: None,
    }
}

fn volume() -> Volume {
    Volume {
        uid: "volume".into(),
        name: "v".into(),
        class: "fast".into(),
        is_free: false,
        driver: Some(DRIVER.into()),
        nodes: None,
        zones: Vec::new(),
        uncovered: None,
    }
}

fn class() -> StorageClass {
    StorageClass {
        uid: "class".into(),
        name: "fast".into(),
        provisioner: DRIVER.into(),
        waits_for_pod: true,
        topologies: Vec::new(),
    }
}

fn driver() -> StorageDriver {
    let (uid, name) = ("driver".into(), DRIVER.into());
    StorageDriver { uid, name, tracks_capacity: false, must_be_installed: false }
}

fn pod(name: &str, node: Option<&str>, ephemeral: bool) -> Pod {
    let claims = vec![ClaimName { name: "c".into(), ephemeral }];
    seen_pod(name, node, Constraints { claims, ..Constraints::default() })
}

/// What a cluster has; tests change a part of it.
struct Objects {
    claim: VolumeClaim,
    volume: Volume,
    class: StorageClass,
    driver: StorageDriver,
    node: StorageNode,
    pod: Pod,
    others: Vec<Pod>,
}

fn objects() -> Objects {
    Objects {
        claim: claim("c"),
        volume: volume(),
        class: class(),
        driver: driver(),
        node: StorageNode { uid: "node".into(), limited: vec!["other.csi.example".into()] },
        pod: pod("p", None, false),
        others: Vec::new(),
    }
}

fn looked_up(change: impl FnOnce(&mut Objects)) -> Arc<Constraints> {
    let mut objects = objects();
    change(&mut objects);
    let Objects { claim, volume, class, driver, node, pod, others } = objects;
    let mut storage = Storage::default();
    for object in [
        StorageObject::Claim(claim),
        StorageObject::Volume(volume),
        StorageObject::Class(class),
        StorageObject::Driver(driver),
        StorageObject::Node(node),
    ] {
        storage.note(&Change::Upsert(object));
    }
    others.iter().chain([&pod]).for_each(|pod| storage.note_pod(None, Some(pod)));
    storage.constraints(&pod)
}

fn uncovered(change: impl FnOnce(&mut Objects)) -> Vec<String> {
    looked_up(change).uncovered.iter().map(|path| path.to_string()).collect()
}

fn fault(change: impl FnOnce(&mut Objects)) -> Option<ClaimFaultReason> {
    looked_up(change).claim_fault.as_ref().map(|fault| fault.reason)
}

fn unbound(objects: &mut Objects) {
    (objects.claim.volume, objects.claim.bound) = (None, false);
}

fn label(key: &str, value: &str) -> NodeSelectorTerm {
    let operator = Operator::In(vec![value.into()]);
    NodeSelectorTerm { labels: vec![Requirement { key: key.into(), operator }], name: Vec::new() }
}

#[test]
fn a_bound_claim_demands_what_its_volume_does_and_pods_of_other_claims_are_one_kind() {
    let read = looked_up(|all| all.volume.nodes = Some(vec![label("rack", "1")]));
    assert_eq!(read.volume_terms, [vec![label("rack", "1")]]);
    assert!(read.claims.is_empty() && read.uncovered.is_empty() && read.claim_fault.is_none());
    assert_eq!(looked_up(|_| ()).volume_terms, [] as [Vec<NodeSelectorTerm>; 0]);
}

#[test]
fn zone_labels_bind_where_nodes_name_a_zone_and_never_an_ephemeral_volume() {
    let zones = || vec![(BETA_ZONE.into(), vec!["a".into()])];
    let read = looked_up(|all| all.volume.zones = zones());
    let will_do = |labels: &[(&str, &str)]| {
        let value = |key: &str| labels.iter().find(|(k, _)| *k == key).map(|(_, v)| *v);
        let holds =
            |term: &NodeSelectorTerm| term.labels.iter().all(|r| r.operator.holds(value(&r.key)));
        read.volume_terms[0].iter().any(holds)
    };
    assert!(will_do(&[("zone", "b")]), "it names no zone");
    assert!(will_do(&[(BETA_ZONE, "a")]));
    assert!(will_do(&[(ZONE, "a")]), "the newer label will do");
    assert!(!will_do(&[(BETA_ZONE, "b"), (ZONE, "a")]), "the older one comes first");
    assert!(!will_do(&[(REGION, "a")]), "it names a region but no zone");
    let ephemeral = looked_up(|all| {
        all.volume.zones = zones();
        all.claim.owner = Some("p".into());
        all.pod = pod("p", None, true);
    });
    assert!(ephemeral.volume_terms.is_empty() && ephemeral.uncovered.is_empty());
}

#[test]
fn an_unbound_claim_goes_where_its_class_may_make_a_volume() {
    let read = looked_up(|all| {
        unbound(all);
        all.class.topologies = vec![label("z", "a"), label("z", "b")];
    });
    assert_eq!(read.volume_terms, [vec![label("z", "a"), label("z", "b")]]);
    let read = looked_up(|all| {
        unbound(all);
        all.claim.selected_node = Some("n".into());
        all.others = vec![pod("q", None, false)];
    });
    assert_eq!(read.volume_terms[0][0].name[0].operator, Operator::In(vec!["n".into()]));
}

#[test]
fn a_claim_for_which_no_node_will_do_says_why() {
    assert_eq!(fault(|_| ()), None);
    assert_eq!(fault(|all| all.claim.lost = true), Some(ClaimFaultReason::Lost));
    assert_eq!(fault(|all| all.claim.deleting = true), Some(ClaimFaultReason::Deleting));
    assert_eq!(fault(|all| all.claim.bound = false), Some(ClaimFaultReason::Unbound));
    let immediate = |all: &mut Objects| {
        unbound(all);
        all.class.waits_for_pod = false;
    };
    assert_eq!(fault(immediate), Some(ClaimFaultReason::Unbound));
    let classless = |all: &mut Objects| {
        unbound(all);
        all.claim.class = "".into();
    };
    assert_eq!(fault(classless), Some(ClaimFaultReason::Unbound));
    let taken = |all: &mut Objects| {
        all.claim.one_pod = true;
        all.others = vec![pod("q", Some("n"), false)];
    };
    assert_eq!(fault(taken), Some(ClaimFaultReason::InUse));
    assert_eq!(fault(|all| all.claim.one_pod = true), None, "it is its own");
}

#[test]
fn what_is_not_exact_is_left_to_the_scheduler_under_its_path() {
    let is = |paths: Vec<String>, path: &str| {
        assert_eq!(paths, [path]);
        assert!(NOT_COVERED.iter().any(|(listed, _)| *listed == path), "{path} is not listed");
    };
    is(uncovered(|all| all.claim.key = ObjectKey::new("elsewhere", "c")), CLAIM_UNKNOWN);
    is(uncovered(|all| all.volume.name = "w".into()), CLAIM_UNKNOWN);
    is(uncovered(|all| all.pod = pod("p", None, true)), CLAIM_UNKNOWN);
    is(
        uncovered(|all| all.volume.uncovered = Some("PersistentVolume.spec")),
        "PersistentVolume.spec",
    );
    is(uncovered(|all| all.node.limited = vec![DRIVER.into()]), DRIVER_LIMIT);
    is(uncovered(|all| all.driver.must_be_installed = true), DRIVER_INSTALLED);
    is(
        uncovered(|all| {
            all.claim.one_pod = true;
            all.others = vec![pod("q", None, false)];
        }),
        CLAIM_SHARED,
    );
    // A volume that is made where the pod goes.
    let made = |change: fn(&mut Objects)| {
        uncovered(|all| {
            unbound(all);
            change(all);
        })
    };
    assert_eq!(made(|_| ()), [] as [String; 0]);
    is(made(|all| all.class.name = "slow".into()), CLAIM_UNKNOWN);
    is(made(|all| all.volume.is_free = true), CLASS_PROVISIONER);
    is(
        made(|all| all.class.provisioner = "kubernetes.io/no-provisioner".into()),
        CLASS_PROVISIONER,
    );
    is(made(|all| all.driver.tracks_capacity = true), DRIVER_CAPACITY);
    is(made(|all| all.others = vec![pod("q", Some("n"), false)]), CLAIM_SHARED);
}

#[test]
fn without_a_csi_node_nothing_is_known() {
    let mut storage = Storage::default();
    storage.note(&Change::Upsert(StorageObject::Claim(claim("c"))));
    storage.note(&Change::Upsert(StorageObject::Volume(volume())));
    let waiting = pod("p", None, false);
    assert_eq!(*storage.constraints(&waiting).uncovered, [Arc::from(CLAIM_UNKNOWN)]);
    let node = StorageNode { uid: "node".into(), limited: vec![DRIVER.into()] };
    storage.note(&Change::Upsert(StorageObject::Node(node.clone())));
    assert_eq!(*storage.constraints(&waiting).uncovered, [Arc::from(DRIVER_LIMIT)]);
    storage.note(&Change::Upsert(StorageObject::Node(StorageNode { limited: vec![], ..node })));
    assert!(storage.constraints(&waiting).uncovered.is_empty());
}

#[test]
fn what_went_is_forgotten_and_a_name_that_came_back_is_not() {
    let mut storage = Storage::default();
    let node = StorageNode { uid: "node".into(), limited: Vec::new() };
    let other = VolumeClaim { uid: "anew".into(), ..claim("c") };
    for object in [
        StorageObject::Node(node),
        StorageObject::Volume(volume()),
        StorageObject::Claim(claim("c")),
        StorageObject::Claim(other),
    ] {
        storage.note(&Change::Upsert(object));
    }
    let (waiting, mut bound) = (pod("p", None, false), pod("q", Some("n"), false));
    storage.note_pod(None, Some(&bound));
    storage.note(&Change::Delete(claim("c").uid));
    assert!(storage.constraints(&waiting).uncovered.is_empty(), "the new one stands");
    let one_pod = VolumeClaim { uid: "anew".into(), one_pod: true, ..claim("c") };
    storage.note(&Change::Upsert(StorageObject::Claim(one_pod)));
    assert!(storage.constraints(&waiting).claim_fault.is_some());
    let before = bound.clone();
    bound.phase = PodPhase::Succeeded;
    storage.note_pod(Some(&before), Some(&bound));
    assert!(storage.constraints(&waiting).claim_fault.is_none(), "its user has ended");
    storage.note(&Change::Delete("anew".into()));
    storage.note(&Change::Delete("volume".into()));
    storage.note(&Change::Delete("node".into()));
    assert!(storage.objects.is_empty() && storage.users.is_empty());
}
