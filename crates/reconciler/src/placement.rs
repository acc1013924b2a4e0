//! Where each waiting GPU pod would fit, or why it fits nowhere.
//!
//! What packing sees of the cluster is kept node by node: a node that changed, or whose pods did,
//! is made anew from what was observed, so that a rebuilt state sees the same. Pods without GPUs
//! that wait are not placed: kube-scheduler binds them within moments.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gpu_autoscaler_model::{
    Change, DeviceObject, Fit, NoFit, NoFitReason, Node, NodeName, ObjectKey, Pod, StorageObject,
    Timestamp, Uid, WaitingView,
};
use gpu_autoscaler_planner::demand::Demand;
use gpu_autoscaler_planner::devices::Devices;
use gpu_autoscaler_planner::fleet::Fleet;
use gpu_autoscaler_planner::observe;
use gpu_autoscaler_planner::place::{Batch, Placed, place_batch};
use gpu_autoscaler_planner::refusal::Refusal;
use gpu_autoscaler_planner::storage::Storage;
use gpu_autoscaler_planner::strategy::Strategy;

use crate::state::State;
use crate::{Policy, waste};

/// Nodes that may be examined for each millisecond in which nothing is placed afterwards: about
/// half of what a core examines in one, so that placing never takes most of its time.
const EXAMINED_PER_MILLI: u64 = 1_000;

/// What is remembered of the cluster for placing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Placement {
    fleet: Fleet,
    /// Pods by the node whose resources they have; see [`observe::home`].
    at_home: BTreeMap<NodeName, BTreeSet<Uid>>,
    /// Nodes that `fleet` does not show as they are.
    stale: BTreeSet<NodeName>,
    /// Where volumes are or may be.
    storage: Storage,
    /// Which devices are offered and claimed.
    devices: Devices,
    /// Pods that wait for any node, and for GPUs or devices.
    waiting: BTreeSet<Uid>,
    /// Active pods with device claims.
    claimants: BTreeSet<Uid>,
    /// Requests of all active GPU pods: what the fleet is used for.
    demand: Demand,
    /// Whether something changed since pods were placed.
    changed: bool,
    /// Not to be placed again before this.
    not_before: Option<Timestamp>,
}

fn waits(pod: &Pod) -> bool {
    let asks = pod.requests.has_gpu() || !pod.constraints.device_claims.is_empty();
    pod.is_waiting() && asks && observe::home(pod).is_none()
}

impl Placement {
    /// Notes that a node came, changed or went.
    pub(crate) fn note_node(&mut self, before: Option<&Node>, after: Option<&Node>) {
        if before != after
            && let Some(node) = after.or(before)
        {
            self.stale.insert(node.name.clone());
            self.changed = true;
        }
    }

    /// Notes that a pod came, changed or went.
    pub(crate) fn note_pod(&mut self, before: Option<&Pod>, after: Option<&Pod>) {
        if before.is_some_and(|before| after.is_some_and(|after| same_for_placing(before, after))) {
            return;
        }
        self.changed = true;
        self.storage.note_pod(before, after);
        self.devices.note_pod(before, after);
        if let Some(before) = before {
            if before.is_active() && before.requests.has_gpu() {
                self.demand.forget(&observe::request(before));
            }
            self.waiting.remove(&before.uid);
            self.claimants.remove(&before.uid);
            if let Some(home) = observe::home(before).map(NodeName::new) {
                if let Some(pods) = self.at_home.get_mut(&home) {
                    pods.remove(&before.uid);
                    if pods.is_empty() {
                        self.at_home.remove(&home);
                    }
                }
                self.stale.insert(home);
            }
        }
        if let Some(after) = after {
            if after.is_active() && after.requests.has_gpu() {
                self.demand.observe(&observe::request(after));
            }
            if waits(after) {
                self.waiting.insert(after.uid.clone());
            }
            if after.is_active() && !after.constraints.device_claims.is_empty() {
                self.claimants.insert(after.uid.clone());
            }
            if let Some(home) = observe::home(after).map(NodeName::new) {
                self.at_home.entry(home.clone()).or_default().insert(after.uid.clone());
                self.stale.insert(home);
            }
        }
    }

    /// Notes that a claim, a volume or what provides it came, changed or went.
    pub(crate) fn note_storage(&mut self, change: &Change<StorageObject, Uid>) {
        self.storage.note(change);
        self.changed = true;
    }

    /// Notes that a device claim, or what offers devices, came, changed or went.
    pub(crate) fn note_devices(&mut self, change: &Change<DeviceObject, Uid>) {
        self.devices.note(change);
        self.changed = true;
    }

    /// When pods are to be placed next; `None` when nothing has changed.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        let due = self.changed.then(|| self.not_before.unwrap_or(Timestamp::EPOCH));
        // What nobody waits for is brought up to date when somebody does.
        due.filter(|_| !self.waiting.is_empty())
    }
}

/// Whether nothing changed that packing or those who read of it look at.
fn same_for_placing(before: &Pod, after: &Pod) -> bool {
    before.node == after.node
        && before.is_active() == after.is_active()
        && before.deleting == after.deleting
        && before.requests == after.requests
        && before.constraints == after.constraints
        && before.labels == after.labels
        && before.annotations == after.annotations
        && before.owner == after.owner
        && before.priority == after.priority
        && before.unschedulable == after.unschedulable
}

/// Places the pods that wait, when it is time, and tells those who read.
pub(crate) fn place_waiting(now: Timestamp, state: &mut State, policy: &Policy) {
    if state.placement.waiting.is_empty() {
        if !state.view.waiting.is_empty() {
            state.view.waiting = Default::default();
            state.view.generation += 1;
        }
        return;
    }
    // A clock that was set back does not stop it.
    let horizon = now.after(policy.placing_pause_max);
    if state.placement.due().is_none_or(|due| due > now && due <= horizon) {
        return;
    }
    refresh(state);
    let waiting: Vec<&Pod> = state
        .placement
        .waiting
        .iter()
        .filter_map(|uid| state.pods.get(uid))
        .map(|entry| &entry.pod)
        .collect();
    let mut pods: Vec<_> =
        waiting.iter().map(|pod| observe::pod(pod, &state.placement.storage)).collect();
    let mut fleet = state.placement.fleet.clone();
    state.placement.devices.look_up(&waiting, &mut pods, &mut fleet);
    let Placed { results, examined } = place_batch(Batch {
        pods: &pods,
        fleet: &fleet,
        demand: &state.placement.demand,
        strategy: Strategy::Default,
        examined_max: policy.placing_examined_max,
    });
    let mut seen: Vec<WaitingView> = waiting
        .iter()
        .zip(&results)
        .map(|(pod, result)| WaitingView {
            uid: pod.uid.clone(),
            pod: pod.key.clone(),
            gpus: gpus_wanted(pod, &state.placement.devices),
            device_claims: claims_of(pod)
                .map(|claim| state.placement.devices.asked_by(&claim).into())
                .collect(),
            scheduler_says: pod.unschedulable.clone(),
            fit: match result {
                Ok(place) => {
                    let node = state.placement.fleet.node(place.node);
                    Fit::On { node: NodeName::new(node.name.clone()) }
                }
                Err(refusal) => Fit::Nowhere(no_fit(refusal)),
            },
        })
        .collect();
    seen.sort_by(|a, b| a.pod.cmp(&b.pod));
    state.placement.changed = false;
    let pause = Duration::from_millis(examined / EXAMINED_PER_MILLI);
    let pause = pause.clamp(policy.placing_pause_min, policy.placing_pause_max);
    state.placement.not_before = Some(now.after(pause));
    if *seen != *state.view.waiting {
        state.view.waiting = seen.into();
        state.view.generation += 1;
    }
}

/// The device claims of a pod.
fn claims_of(pod: &Pod) -> impl Iterator<Item = ObjectKey> + '_ {
    let claims = pod.constraints.device_claims.iter();
    claims.map(|claim| ObjectKey::new(pod.key.namespace.clone(), claim.name.clone()))
}

/// GPUs that a pod requests, by name and by claims; `None` where a claim does not tell.
fn gpus_wanted(pod: &Pod, devices: &Devices) -> Option<u32> {
    claims_of(pod).try_fold(waste::requested(pod), |sum, claim| {
        Some(sum.saturating_add(devices.gpus_of(&claim)?))
    })
}

/// GPUs that claims of active pods have or ask for, by the node of the pod, as far as that is
/// known. A claim of several pods counts once.
pub(crate) fn claimed(state: &State) -> BTreeMap<Option<&NodeName>, u32> {
    let mut counted = BTreeSet::new();
    let mut claimed: BTreeMap<Option<&NodeName>, u32> = BTreeMap::new();
    let claimants = state.placement.claimants.iter().filter_map(|uid| state.pods.get(uid));
    for entry in claimants {
        for claim in claims_of(&entry.pod) {
            let gpus = state.placement.devices.gpus_of(&claim).unwrap_or(0);
            if gpus > 0 && counted.insert(claim) {
                let sum = claimed.entry(entry.pod.node.as_ref()).or_default();
                *sum = sum.saturating_add(gpus);
            }
        }
    }
    claimed
}

/// Makes the nodes that changed anew from what was observed.
fn refresh(state: &mut State) {
    let placement = &mut state.placement;
    for name in std::mem::take(&mut placement.stale) {
        match state.nodes.get(&name) {
            None => placement.fleet.remove(name.as_str()),
            Some(node) => {
                let pods = placement.at_home.get(&name).into_iter().flatten();
                let pods = pods.filter_map(|uid| state.pods.get(uid)).map(|entry| &entry.pod);
                placement.fleet.upsert(observe::node(node, pods));
            }
        }
    }
}

fn no_fit(refusal: &Refusal) -> NoFit {
    let reason = match refusal {
        Refusal::Invalid(_) => NoFitReason::Invalid,
        Refusal::Uncovered { .. } => NoFitReason::LeftToScheduler,
        Refusal::Claim(_) => NoFitReason::VolumeClaim,
        Refusal::EmptyFleet => NoFitReason::NoNode,
        Refusal::Postponed { .. } => NoFitReason::Postponed,
        Refusal::NoRoom { .. } => NoFitReason::NoRoom,
        Refusal::Gang { .. } => NoFitReason::Gang,
    };
    let hint = refusal.remedy().map(|remedy| remedy.to_string().into());
    NoFit { reason, message: refusal.to_string().into(), hint }
}

#[cfg(test)]
mod tests;
