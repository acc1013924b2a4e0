//! What the volumes of a pod demand of its node, from claims, volumes and what provides them.
//!
//! In: storage objects and the pods that use claims, change by change. Out: a pod's constraints
//! with its claims looked up: terms on nodes, a fault for which no node will do, or the path of
//! what is not covered exactly. A claim that is not found is not covered either: kube-scheduler
//! may know it already. Nor is any while no CSINode is known: every kubelet makes one, so that
//! whoever told of claims left out what limits them.
//!
//! Source: kube-scheduler 1.36, plugins VolumeBinding (`FindPodVolumes`), VolumeZone,
//! VolumeRestrictions (`ReadWriteOncePod`) and NodeVolumeLimits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gpu_autoscaler_model::{
    CLAIM_SHARED, CLAIM_UNKNOWN, CLASS_PROVISIONER, Change, ClaimFault, ClaimFaultReason,
    ClaimName, Constraints, DRIVER_CAPACITY, DRIVER_INSTALLED, DRIVER_LIMIT, NodeSelectorTerm,
    ObjectKey, Operator, Pod, Requirement, StorageClass, StorageDriver, StorageKind, StorageObject,
    Uid, Volume, VolumeClaim,
};

use crate::catalog::Catalog;
use crate::claims::ClaimUsers;

/// Labels of a node that name its zone or region, the older of each first.
const TOPOLOGY: [&str; 4] = [BETA_ZONE, BETA_REGION, ZONE, REGION];
const BETA_ZONE: &str = "failure-domain.beta.kubernetes.io/zone";
const BETA_REGION: &str = "failure-domain.beta.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";
const REGION: &str = "topology.kubernetes.io/region";

/// Provisioners that live in the tree, and the one that makes nothing.
const IN_TREE: &str = "kubernetes.io/";

/// Claims, volumes and what provides them.
#[derive(Clone, Debug, Default)]
pub struct Storage {
    objects: Catalog<StorageKind, StorageObject>,
    /// Volumes of each class that the scheduler may choose.
    free_volumes: BTreeMap<Arc<str>, u32>,
    /// CSINodes.
    nodes: u32,
    /// Nodes that limit each driver.
    limits: BTreeMap<Arc<str>, u32>,
    /// Active pods of each claim.
    users: ClaimUsers,
}

/// What one claim demands.
enum Demand {
    Terms(Vec<Vec<NodeSelectorTerm>>),
    Fault(ClaimFaultReason),
    Uncovered(&'static str),
}

impl Storage {
    /// Takes in an object that came, changed or went.
    pub fn note(&mut self, change: &Change<StorageObject, Uid>) {
        let uid = match change {
            Change::Upsert(object) => object.uid(),
            Change::Delete(uid) => uid,
        };
        if let Some(before) = self.objects.remove(uid, name) {
            self.count(&before, false);
        }
        if let Change::Upsert(object) = change {
            self.count(object, true);
            self.objects.insert(uid.clone(), name(object), object.clone());
        }
    }

    /// Takes in a pod that came, changed or went.
    pub fn note_pod(&mut self, before: Option<&Pod>, after: Option<&Pod>) {
        self.users.note(before, after, |constraints| &constraints.claims);
    }

    /// The constraints of `pod` with its claims looked up.
    pub fn constraints(&self, pod: &Pod) -> Arc<Constraints> {
        if pod.constraints.claims.is_empty() {
            return pod.constraints.clone();
        }
        let mut constraints = Constraints::clone(&pod.constraints);
        // Pods of one template that demand the same are one kind, whatever their claims are called.
        let claims = std::mem::take(&mut constraints.claims);
        let mut paths: BTreeSet<&'static str> = BTreeSet::new();
        for claim in &claims {
            match self.demand(pod, claim) {
                Demand::Terms(terms) => constraints.volume_terms.extend(terms),
                Demand::Fault(reason) => {
                    let claim = claim_key(pod, claim);
                    constraints.claim_fault.get_or_insert(ClaimFault { claim, reason });
                }
                Demand::Uncovered(path) => drop(paths.insert(path)),
            }
        }
        constraints.volume_terms.sort();
        constraints.volume_terms.dedup();
        constraints.uncovered.extend(paths.into_iter().map(Arc::from));
        constraints.uncovered.sort();
        Arc::new(constraints)
    }

    fn demand(&self, pod: &Pod, name: &ClaimName) -> Demand {
        let key = claim_key(pod, name);
        let claim = self.claim(&key).filter(|_| self.nodes > 0);
        let Some(claim) = claim else { return Demand::Uncovered(CLAIM_UNKNOWN) };
        if name.ephemeral && claim.owner.as_ref() != Some(&pod.uid) {
            return Demand::Uncovered(CLAIM_UNKNOWN);
        }
        if claim.lost {
            return Demand::Fault(ClaimFaultReason::Lost);
        }
        if claim.deleting {
            return Demand::Fault(ClaimFaultReason::Deleting);
        }
        let others = || self.users.others(&key, &pod.uid);
        if claim.one_pod && !name.ephemeral {
            if others().any(|has_node| has_node) {
                return Demand::Fault(ClaimFaultReason::InUse);
            }
            if others().next().is_some() {
                return Demand::Uncovered(CLAIM_SHARED);
            }
        }
        match &claim.volume {
            Some(volume) if claim.bound => self.bound(volume, name),
            Some(_) => Demand::Fault(ClaimFaultReason::Unbound),
            None => self.unbound(claim, others().next().is_some()),
        }
    }

    /// A claim that has its volume.
    fn bound(&self, volume: &Arc<str>, name: &ClaimName) -> Demand {
        let Some(volume) = self.volume(volume) else { return Demand::Uncovered(CLAIM_UNKNOWN) };
        if let Some(path) = volume.uncovered {
            return Demand::Uncovered(path);
        }
        if let Some(path) = volume.driver.as_ref().and_then(|driver| self.driver_uncovered(driver))
        {
            return Demand::Uncovered(path);
        }
        let mut terms: Vec<_> = volume.nodes.iter().cloned().collect();
        // VolumeZone does not look at ephemeral volumes.
        if !name.ephemeral {
            terms.extend(volume.zones.iter().map(|(key, values)| zone_terms(key, values)));
        }
        Demand::Terms(terms)
    }

    /// A claim whose volume is made, or found, where its pod goes.
    fn unbound(&self, claim: &VolumeClaim, has_others: bool) -> Demand {
        if claim.class.is_empty() {
            return Demand::Fault(ClaimFaultReason::Unbound);
        }
        let Some(class) = self.class(&claim.class) else {
            return Demand::Uncovered(CLAIM_UNKNOWN);
        };
        if !class.waits_for_pod {
            return Demand::Fault(ClaimFaultReason::Unbound);
        }
        let driver = &class.provisioner;
        let free_volumes = self.free_volumes.get(&class.name).copied().unwrap_or(0);
        if driver.is_empty() || driver.starts_with(IN_TREE) || free_volumes > 0 {
            return Demand::Uncovered(CLASS_PROVISIONER);
        }
        if self.driver(driver).is_some_and(|driver| driver.tracks_capacity) {
            return Demand::Uncovered(DRIVER_CAPACITY);
        }
        if let Some(path) = self.driver_uncovered(driver) {
            return Demand::Uncovered(path);
        }
        let mut terms = Vec::new();
        if !class.topologies.is_empty() {
            terms.push(class.topologies.clone());
        }
        match &claim.selected_node {
            Some(node) => {
                let operator = Operator::In(vec![node.as_str().into()]);
                let requirement = Requirement { key: "metadata.name".into(), operator };
                terms.push(vec![NodeSelectorTerm { labels: Vec::new(), name: vec![requirement] }]);
            }
            None if has_others => return Demand::Uncovered(CLAIM_SHARED),
            None => {}
        }
        Demand::Terms(terms)
    }

    /// What of a CSI driver is not covered.
    fn driver_uncovered(&self, name: &Arc<str>) -> Option<&'static str> {
        if self.limits.contains_key(name) {
            return Some(DRIVER_LIMIT);
        }
        self.driver(name).is_some_and(|driver| driver.must_be_installed).then_some(DRIVER_INSTALLED)
    }

    fn count(&mut self, object: &StorageObject, comes: bool) {
        let (counts, keys) = match object {
            StorageObject::Volume(volume) if volume.is_free => {
                (&mut self.free_volumes, std::slice::from_ref(&volume.class))
            }
            StorageObject::Node(node) => {
                self.nodes = if comes { self.nodes + 1 } else { self.nodes - 1 };
                (&mut self.limits, &node.limited[..])
            }
            _ => return,
        };
        for key in keys {
            let count = counts.entry(key.clone()).or_default();
            *count = if comes { *count + 1 } else { *count - 1 };
            if *count == 0 {
                counts.remove(key);
            }
        }
    }

    fn claim(&self, key: &ObjectKey) -> Option<&VolumeClaim> {
        match self.objects.find(StorageKind::Claim, key.clone())? {
            StorageObject::Claim(claim) => Some(claim),
            _ => None,
        }
    }

    fn volume(&self, name: &Arc<str>) -> Option<&Volume> {
        match self.objects.find(StorageKind::Volume, ObjectKey::new("", name.clone()))? {
            StorageObject::Volume(volume) => Some(volume),
            _ => None,
        }
    }

    fn class(&self, name: &Arc<str>) -> Option<&StorageClass> {
        match self.objects.find(StorageKind::Class, ObjectKey::new("", name.clone()))? {
            StorageObject::Class(class) => Some(class),
            _ => None,
        }
    }

    fn driver(&self, name: &Arc<str>) -> Option<&StorageDriver> {
        match self.objects.find(StorageKind::Driver, ObjectKey::new("", name.clone()))? {
            StorageObject::Driver(driver) => Some(driver),
            _ => None,
        }
    }
}

fn name(object: &StorageObject) -> Option<(StorageKind, ObjectKey)> {
    let cluster_wide = |name: &Arc<str>| ObjectKey::new("", name.clone());
    match object {
        StorageObject::Claim(claim) => Some((StorageKind::Claim, claim.key.clone())),
        StorageObject::Volume(volume) => Some((StorageKind::Volume, cluster_wide(&volume.name))),
        StorageObject::Class(class) => Some((StorageKind::Class, cluster_wide(&class.name))),
        StorageObject::Driver(driver) => Some((StorageKind::Driver, cluster_wide(&driver.name))),
        StorageObject::Node(_) => None,
    }
}

fn claim_key(pod: &Pod, claim: &ClaimName) -> ObjectKey {
    ObjectKey::new(pod.key.namespace.clone(), claim.name.clone())
}

/// The nodes that will do for a volume with the zone or region label `key`: those whose label has
/// one of `values`, and those that name neither zone nor region.
fn zone_terms(key: &str, values: &[Arc<str>]) -> Vec<NodeSelectorTerm> {
    let term = |labels| NodeSelectorTerm { labels, name: Vec::new() };
    let on = |key: &str, operator| Requirement { key: key.into(), operator };
    let here = || Operator::In(values.to_vec());
    let mut terms = vec![
        term(TOPOLOGY.map(|label| on(label, Operator::DoesNotExist)).into()),
        term(vec![on(key, here())]),
    ];
    // A node without the older label is asked for the newer one.
    let newer = match key {
        BETA_ZONE => Some(ZONE),
        BETA_REGION => Some(REGION),
        _ => None,
    };
    if let Some(newer) = newer {
        terms.push(term(vec![on(key, Operator::DoesNotExist), on(newer, here())]));
    }
    terms
}

#[cfg(test)]
mod tests;
