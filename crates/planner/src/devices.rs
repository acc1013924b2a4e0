//! What the device claims of a pod demand of its node (dynamic resource allocation).
//!
//! In: claims, slices and classes, change by change. Out: a pod's constraints and request with its
//! device claims looked up. An allocated claim names the nodes where it can be used. One that is
//! not asks for so many devices that pass its selectors; since kube-scheduler takes any of them,
//! such devices are one more counted resource of each node, under the selectors as its name.
//!
//! Counting is exact while no device can serve two kinds of request and nothing but its claim
//! decides about a device. Where that does not hold, the pod is left to kube-scheduler: devices
//! that share counters, that are tainted or used by several claims, slices of several nodes, pools
//! of several slices, expressions other than comparisons joined by `&&`.
//!
//! Source: kube-scheduler 1.36, plugin DynamicResources.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gpu_autoscaler_model::{
    Change, ClaimFault, ClaimFaultReason, ClaimName, Constraints, DEVICE_CLAIM_SHARED,
    DEVICE_CLAIM_UNKNOWN, DEVICE_EXTENDED, DEVICE_REQUEST, DEVICES_NOT_COUNTED, DeviceClaim,
    DeviceClass, DeviceId, DeviceKind, DeviceObject, DeviceRequest, DeviceSelector, DeviceSlice,
    DeviceTest, ObjectKey, OfferedDevice, Pod, Uid,
};

use crate::catalog::Catalog;
use crate::claims::ClaimUsers;
use crate::fleet::Fleet;
use crate::request::{PodKind, Request};

/// The most devices that one claim may have (`AllocationResultsMaxSize`).
const CLAIM_DEVICES_MAX: u64 = 32;

/// The extended resource by which every class can be asked for.
const IMPLICIT_RESOURCE: &str = "deviceclass.resource.kubernetes.io/";

/// The driver whose devices are GPUs and GPU instances.
///
/// Source: NVIDIA's DRA driver for GPUs, `DriverName`; its class for GPU instances has the same.
const GPU_DRIVER: &str = "gpu.nvidia.com";

/// Claims, slices and classes.
#[derive(Clone, Debug, Default)]
pub struct Devices {
    objects: Catalog<DeviceKind, DeviceObject>,
    /// Slices of each pool.
    pools: BTreeMap<(Arc<str>, Arc<str>), u64>,
    /// The claims that have each device.
    taken: BTreeMap<DeviceId, u32>,
    /// Active pods of each claim.
    users: ClaimUsers,
}

/// The devices that pass these selectors, those of a class before those of a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceSet(Vec<DeviceSelector>);

impl DeviceSet {
    /// The name under which they are counted.
    fn resource(&self) -> Arc<str> {
        let tests: Vec<String> =
            self.0.iter().flat_map(|one| &one.0).map(|test| test.to_string()).collect();
        format!("devices with {}", if tests.is_empty() { "any".into() } else { tests.join(", ") })
            .into()
    }
}

/// What the device claims of one pod demand.
#[derive(Debug)]
struct Demand {
    constraints: Constraints,
    asked: BTreeMap<DeviceSet, u64>,
}

impl Devices {
    /// Takes in an object that came, changed or went.
    pub fn note(&mut self, change: &Change<DeviceObject, Uid>) {
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
        self.users.note(before, after, |constraints| &constraints.device_claims);
    }

    fn count(&mut self, object: &DeviceObject, comes: bool) {
        match object {
            DeviceObject::Claim(claim) => {
                let devices = claim.allocation.iter().flat_map(|one| &one.devices);
                devices.for_each(|device| add(&mut self.taken, device.clone(), comes));
            }
            DeviceObject::Slice(slice) => {
                let pool = (slice.driver.clone(), slice.pool.clone());
                let slices = self.pools.entry(pool.clone()).or_default();
                *slices = if comes { *slices + 1 } else { *slices - 1 };
                if *slices == 0 {
                    self.pools.remove(&pool);
                }
            }
            DeviceObject::Class(_) => {}
        }
    }

    /// Adds to each of `pods` what the device claims of the one in `seen` demand, and to `fleet`,
    /// which is sorted by name, how many devices are free of each kind that is asked for.
    pub fn look_up(&self, seen: &[&Pod], pods: &mut [crate::request::Pod], fleet: &mut Fleet) {
        let demands: Vec<Option<Demand>> =
            seen.iter().zip(&*pods).map(|(of, pod)| self.demand(of, &pod.kind)).collect();
        let asked: BTreeSet<DeviceSet> =
            demands.iter().flatten().flat_map(|demand| demand.asked.keys().cloned()).collect();
        let uncountable = self.offer(&asked, fleet);
        for (pod, demand) in pods.iter_mut().zip(demands) {
            let Some(mut demand) = demand else { continue };
            if demand.asked.keys().any(|set| uncountable.contains(set)) {
                demand.constraints.uncovered.push(DEVICES_NOT_COUNTED.into());
                demand.constraints.uncovered.sort();
            }
            let extended = &mut pod.kind.request.extended;
            extended.extend(demand.asked.iter().map(|(set, count)| (set.resource(), *count)));
            extended.sort();
            pod.kind.constraints = Arc::new(demand.constraints);
        }
    }

    /// What the device claims of `pod` demand; `None` when it has nothing to do with devices.
    fn demand(&self, pod: &Pod, kind: &PodKind) -> Option<Demand> {
        let constraints = Constraints::clone(&kind.constraints);
        let mut demand = Demand { constraints, asked: BTreeMap::new() };
        let mut paths: BTreeSet<&'static str> = BTreeSet::new();
        if self.serves_extended(pod, &kind.request) {
            paths.insert(DEVICE_EXTENDED);
        }
        for name in std::mem::take(&mut demand.constraints.device_claims) {
            if let Err(path) = self.add_claim(pod, &name, &mut demand) {
                paths.insert(path);
            }
        }
        if paths.is_empty() && pod.constraints.device_claims.is_empty() {
            return None;
        }
        demand.constraints.uncovered.extend(paths.into_iter().map(Arc::from));
        demand.constraints.uncovered.sort();
        Some(demand)
    }

    /// Whether devices stand for an extended resource that the pod requests.
    fn serves_extended(&self, pod: &Pod, request: &Request) -> bool {
        let implicit = request.extended.iter().any(|(name, _)| name.starts_with(IMPLICIT_RESOURCE));
        let asked = |name: &Arc<str>| {
            request.extended.iter().any(|(asked, _)| asked == name)
                || pod.requests.gpus.iter().any(|gpu| *gpu.resource.to_string() == **name)
        };
        implicit
            || self.objects.of_kind(DeviceKind::Class).any(|object| match object {
                DeviceObject::Class(class) => class.extended_resource.iter().any(asked),
                _ => false,
            })
    }

    /// Adds what one claim demands.
    ///
    /// # Errors
    /// The path of what is not covered.
    fn add_claim(
        &self,
        pod: &Pod,
        name: &ClaimName,
        demand: &mut Demand,
    ) -> Result<(), &'static str> {
        let key = ObjectKey::new(pod.key.namespace.clone(), name.name.clone());
        // Without any slice nobody told of devices: that is unknown, not none.
        let claim = self.claim(&key).filter(|_| !self.pools.is_empty());
        let claim = claim.ok_or(DEVICE_CLAIM_UNKNOWN)?;
        if name.ephemeral && claim.owner.as_ref() != Some(&pod.uid) {
            return Err(DEVICE_CLAIM_UNKNOWN);
        }
        if claim.deleting {
            let fault = ClaimFault { claim: key, reason: ClaimFaultReason::Deleting };
            demand.constraints.claim_fault.get_or_insert(fault);
            return Ok(());
        }
        if let Some(allocation) = &claim.allocation {
            if !allocation.exact {
                return Err(DEVICE_REQUEST);
            }
            demand.constraints.volume_terms.extend(allocation.nodes.clone());
            return Ok(());
        }
        if self.users.others(&key, &pod.uid).next().is_some() {
            return Err(DEVICE_CLAIM_SHARED);
        }
        let requests = claim.requests.as_deref().filter(|all| !all.is_empty());
        let requests = requests.ok_or(DEVICE_REQUEST)?;
        let total = requests.iter().fold(0, |sum: u64, one| sum.saturating_add(one.count));
        if total > CLAIM_DEVICES_MAX {
            return Err(DEVICE_REQUEST);
        }
        for request in requests {
            let asked = demand.asked.entry(self.set(request)?).or_default();
            *asked = asked.saturating_add(request.count);
        }
        Ok(())
    }

    fn set(&self, request: &DeviceRequest) -> Result<DeviceSet, &'static str> {
        let class = self.class(&request.class).ok_or(DEVICE_CLAIM_UNKNOWN)?;
        let mut selectors = class.selectors.clone().ok_or(DEVICE_REQUEST)?;
        selectors.extend(request.selectors.iter().cloned());
        Ok(DeviceSet(selectors))
    }

    /// Counts on each node the free devices of each of `sets`; returns the sets that cannot be
    /// counted exactly.
    fn offer(&self, sets: &BTreeSet<DeviceSet>, fleet: &mut Fleet) -> BTreeSet<DeviceSet> {
        let mut uncountable = BTreeSet::new();
        // Most batches ask for no devices; then nothing is looked at.
        let slices = self.slices().filter(|_| !sets.is_empty());
        for slice in slices {
            let pool = (slice.driver.clone(), slice.pool.clone());
            let is_whole = slice.pool_slices == 1 && self.pools.get(&pool) == Some(&1);
            let node = slice.node.as_ref();
            let at = node.and_then(|name| {
                fleet.nodes.binary_search_by(|node| (*node.name).cmp(name.as_str())).ok()
            });
            for device in &slice.devices {
                let might: Vec<(&DeviceSet, bool)> = sets
                    .iter()
                    .filter_map(|set| Some((set, passes(set, &slice.driver, device)?)))
                    .collect();
                let exact = is_whole && node.is_some() && device.plain && might.len() == 1;
                for (set, surely) in &might {
                    if !exact || !surely {
                        uncountable.insert((*set).clone());
                    }
                }
                let id = DeviceId {
                    driver: slice.driver.clone(),
                    pool: slice.pool.clone(),
                    device: device.name.clone(),
                };
                if let ([(set, true)], Some(at), false) =
                    (&might[..], at, self.taken.contains_key(&id))
                {
                    let node = Arc::make_mut(&mut fleet.nodes[at]);
                    *node.extended_free.entry(set.resource()).or_default() += 1;
                }
            }
        }
        uncountable
    }

    /// GPUs and GPU instances that this claim has, or asks for; `None` where that is not known: the
    /// claim or its class is not, or it asks for more than a count of devices of one driver.
    pub fn gpus_of(&self, claim: &ObjectKey) -> Option<u32> {
        let claim = self.claim(claim)?;
        let count = match &claim.allocation {
            Some(allocation) => {
                allocation.devices.iter().filter(|one| &*one.driver == GPU_DRIVER).count() as u64
            }
            None => claim.requests.as_ref()?.iter().try_fold(0_u64, |sum, request| {
                let counts = if self.asks_for_gpus(request)? { request.count } else { 0 };
                Some(sum.saturating_add(counts))
            })?,
        };
        Some(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// Whether a request is for devices of [`GPU_DRIVER`]; `None` where no selector says of whose.
    fn asks_for_gpus(&self, request: &DeviceRequest) -> Option<bool> {
        let set = self.set(request).ok()?;
        let tests = set.0.iter().flat_map(|selector| &selector.0);
        let mut drivers = tests.filter_map(|test| match test {
            DeviceTest::Driver(name) => Some(&**name == GPU_DRIVER),
            DeviceTest::Attribute { .. } => None,
        });
        drivers.next()
    }

    /// What this claim asks for, in words: counts of devices by class.
    pub fn asked_by(&self, claim: &ObjectKey) -> String {
        let Some(known) = self.claim(claim) else { return format!("claim `{claim}`: not known") };
        let asked = match (&known.allocation, &known.requests) {
            (Some(allocation), _) => format!("has {} devices", allocation.devices.len()),
            (None, None) => "more than counts of devices".to_owned(),
            (None, Some(requests)) => {
                let each = requests.iter().map(|one| format!("{} {}", one.count, one.class));
                each.collect::<Vec<_>>().join(", ")
            }
        };
        format!("claim `{claim}`: {asked}")
    }

    fn slices(&self) -> impl Iterator<Item = &DeviceSlice> {
        self.objects.objects().filter_map(|object| match object {
            DeviceObject::Slice(slice) => Some(slice),
            _ => None,
        })
    }

    fn claim(&self, key: &ObjectKey) -> Option<&DeviceClaim> {
        match self.objects.find(DeviceKind::Claim, key.clone())? {
            DeviceObject::Claim(claim) => Some(claim),
            _ => None,
        }
    }

    fn class(&self, name: &Arc<str>) -> Option<&DeviceClass> {
        let key = ObjectKey::new("", name.clone());
        match self.objects.find(DeviceKind::Class, key)? {
            DeviceObject::Class(class) => Some(class),
            _ => None,
        }
    }
}

/// Whether a device passes all selectors: `None` when it does not, `Some(false)` when one fails
/// before that is told, so that kube-scheduler gives up.
fn passes(set: &DeviceSet, driver: &str, device: &OfferedDevice) -> Option<bool> {
    for selector in &set.0 {
        match selector.holds(driver, device) {
            Some(true) => {}
            Some(false) => return None,
            None => return Some(false),
        }
    }
    Some(true)
}

fn add(counts: &mut BTreeMap<DeviceId, u32>, key: DeviceId, comes: bool) {
    let count = counts.entry(key.clone()).or_default();
    *count = if comes { *count + 1 } else { *count - 1 };
    if *count == 0 {
        counts.remove(&key);
    }
}

fn name(object: &DeviceObject) -> Option<(DeviceKind, ObjectKey)> {
    match object {
        DeviceObject::Claim(claim) => Some((DeviceKind::Claim, claim.key.clone())),
        DeviceObject::Class(class) => {
            Some((DeviceKind::Class, ObjectKey::new("", class.name.clone())))
        }
        DeviceObject::Slice(_) => None,
    }
}

#[cfg(test)]
mod tests;
