//! Takes in what was seen.

use std::collections::BTreeMap;

use gpu_autoscaler_analysis::{Reading, Window};
use gpu_autoscaler_model::{
    Change, Delta, GpuSample, GpuUuid, NodeName, Pod, Receipt, ReceiptResult, SampleScope,
    Timestamp, Uid, UnknownReason,
};

use crate::reports::{self, Part};
use crate::state::{DeviceEntry, DeviceReading, PodEntry, State};
use crate::{Policy, Report};

/// Objects first, so that samples find the pods that they speak of.
pub(crate) fn take_in(
    now: Timestamp,
    state: &mut State,
    seen: &Delta,
    policy: &Policy,
    report: &mut Report,
) {
    take_objects(state, seen);
    for record in &seen.history {
        state.history.take(record);
    }
    for sample in &seen.samples {
        take_sample(now, state, sample, policy, report);
    }
    for receipt in &seen.receipts {
        take_receipt(state, receipt, policy, report);
    }
    if let Some(faults) = &seen.faults {
        state.faults.clone_from(faults);
    }
    if let Some(backfill) = seen.backfill {
        state.backfill = backfill;
    }
}

fn take_objects(state: &mut State, seen: &Delta) {
    for change in &seen.nodes {
        match change {
            Change::Upsert(node) => {
                let before = state.nodes.insert(node.name.clone(), node.clone());
                state.placement.note_node(before.as_ref(), Some(node));
                // A node that came back under its old name has other devices.
                if before.is_some_and(|before| before.uid != node.uid) {
                    state.forget_devices(&node.name);
                }
            }
            Change::Delete(name) => {
                let before = state.nodes.remove(name);
                state.placement.note_node(before.as_ref(), None);
                state.forget_devices(name);
            }
        }
    }
    for change in &seen.pods {
        match change {
            Change::Upsert(pod) => take_pod(state, pod),
            Change::Delete(uid) => forget_pod(state, uid),
        }
    }
    for change in &seen.budgets {
        match change {
            Change::Upsert(budget) => {
                drop(state.budgets.insert(budget.uid.clone(), budget.clone()))
            }
            Change::Delete(uid) => drop(state.budgets.remove(uid)),
        }
    }
    for change in &seen.storage {
        state.placement.note_storage(change);
    }
    for change in &seen.devices {
        state.placement.note_devices(change);
    }
    for change in &seen.policies {
        match change {
            Change::Upsert(it) => drop(state.policies.insert(it.uid.clone(), it.clone())),
            Change::Delete(uid) => drop(state.policies.remove(uid)),
        }
    }
    for change in &seen.events {
        match change {
            Change::Upsert(event) => {
                state.announcements.event_came(event.key.clone(), event.at);
                state.events.insert(event.uid.clone(), event.clone());
            }
            Change::Delete(uid) => {
                if let Some(event) = state.events.remove(uid) {
                    state.announcements.event_went(&event.key);
                }
            }
        }
    }
}

fn take_pod(state: &mut State, pod: &Pod) {
    if pod.requests.has_gpu() && pod.is_active() {
        state.gpu_pods.insert(pod.key.clone(), pod.uid.clone());
    } else if state.gpu_pods.get(&pod.key) == Some(&pod.uid) {
        state.gpu_pods.remove(&pod.key);
    }
    match state.pods.get_mut(&pod.uid) {
        Some(entry) => {
            state.placement.note_pod(Some(&entry.pod), Some(pod));
            entry.pod = pod.clone();
        }
        None => {
            state.placement.note_pod(None, Some(pod));
            let entry = PodEntry { pod: pod.clone(), windows: Default::default(), unusable: None };
            state.pods.insert(pod.uid.clone(), Box::new(entry));
        }
    }
    if !pod.is_active() {
        release_devices(state, &pod.uid);
    }
}

fn forget_pod(state: &mut State, uid: &Uid) {
    release_devices(state, uid);
    let Some(entry) = state.pods.remove(uid) else { return };
    state.placement.note_pod(Some(&entry.pod), None);
    if state.gpu_pods.get(&entry.pod.key) == Some(uid) {
        state.gpu_pods.remove(&entry.pod.key);
    }
}

/// What a pod held is no longer its own.
fn release_devices(state: &mut State, uid: &Uid) {
    let Some(entry) = state.pods.get_mut(uid) else { return };
    let windows = std::mem::take(&mut entry.windows);
    let Some(devices) = entry.pod.node.as_ref().and_then(|node| state.devices.get_mut(node)) else {
        return;
    };
    for device in windows.keys() {
        if let Some(entry) = devices.get_mut(device) {
            entry.holders.remove(uid);
        }
    }
}

fn take_sample(
    now: Timestamp,
    state: &mut State,
    sample: &GpuSample,
    policy: &Policy,
    report: &mut Report,
) {
    if sample.at > now.after(policy.clock_ahead_max) {
        report.samples_ahead = report.samples_ahead.saturating_add(1);
        return;
    }
    let holder = holder(state, sample);
    let Some(node) = place(state, sample, holder.as_ref()) else {
        report.samples_unplaced = report.samples_unplaced.saturating_add(1);
        return;
    };
    // Without a line for each pod the exporter names any one of those that share the device.
    let shared = state.nodes.get(&node).is_some_and(|node| node.sharing.is_some());
    let holder = holder.filter(|_| !shared || sample.scope == SampleScope::SharedPart);
    let counts = note_device(state, &node, sample, holder.as_ref(), policy);
    if let Some(uid) = holder.filter(|_| counts)
        && let Some(entry) = state.pods.get_mut(&uid)
    {
        note_use(entry, sample, policy);
    }
}

/// The active GPU pod that the sample names, if it can be that one.
fn holder(state: &State, sample: &GpuSample) -> Option<Uid> {
    let named = sample.holder.as_ref()?;
    let uid = state.gpu_pods.get(&named.pod)?;
    if named.uid.as_ref().is_some_and(|named| named != uid) {
        return None;
    }
    let pod = &state.pods.get(uid)?.pod;
    // A late sample may speak of an earlier pod of the same name.
    (pod.node.is_some() && sample.at >= pod.started.unwrap_or(pod.created)).then(|| uid.clone())
}

/// The node that holds the device. An exporter that was not told its node's name gives its own
/// pod's; then the node of the pod that holds the device counts.
fn place(state: &State, sample: &GpuSample, holder: Option<&Uid>) -> Option<NodeName> {
    if state.nodes.contains_key(&sample.node) {
        return Some(sample.node.clone());
    }
    let node = state.pods.get(holder?)?.pod.node.clone()?;
    state.nodes.contains_key(&node).then_some(node)
}

/// Whether the sample counts: not one that is older than its device's move, nor one of a second
/// exporter, which is compared alone.
fn note_device(
    state: &mut State,
    node: &NodeName,
    sample: &GpuSample,
    holder: Option<&Uid>,
    policy: &Policy,
) -> bool {
    if !move_home(state, node, sample) {
        return false;
    }
    let devices = match state.devices.get_mut(node) {
        Some(devices) => devices,
        None => state.devices.entry(node.clone()).or_default(),
    };
    let entry = devices.get_or_insert_with(&sample.device, || DeviceEntry {
        last: DeviceReading::of(sample),
        reports: None,
        throttle: Default::default(),
        holders: Default::default(),
    });
    match reports::note(entry, sample, holder, policy) {
        Part::Leads | Part::TakesOver => {}
        Part::Seconds => return false,
        Part::Replaces => {
            // What its pods were measured at so far is what the one says that is gone.
            for uid in std::mem::take(&mut entry.holders).into_keys() {
                if let Some(pod) = state.pods.get_mut(&uid) {
                    pod.windows.remove(&sample.device);
                }
            }
        }
    }
    // A pod's part of a shared device says nothing about the device.
    if sample.scope != SampleScope::SharedPart {
        if sample.at >= entry.last.at {
            entry.last.renew(sample);
        }
        if let Some(reasons) = sample.hardware.throttle {
            entry.throttle.push(sample.at, reasons, &policy.waste);
        }
    }
    if sample.scope == SampleScope::Exclusive && holder.is_some() {
        // Only one pod holds it: what an earlier holder was measured at is not its own any more.
        let gone: Vec<Uid> = entry
            .holders
            .iter()
            .filter(|(uid, at)| Some(*uid) != holder && **at < sample.at)
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in gone {
            entry.holders.remove(&uid);
            if let Some(pod) = state.pods.get_mut(&uid) {
                pod.windows.remove(&sample.device);
            }
        }
    }
    if let Some(uid) = holder {
        let at = entry.holders.get_or_insert_with(uid, || sample.at);
        *at = sample.at.max(*at);
    }
    true
}

/// Takes a GPU that moved to another node out of the one before; `false` for a sample that is older
/// than its move.
fn move_home(state: &mut State, node: &NodeName, sample: &GpuSample) -> bool {
    let uuid = &sample.device.uuid;
    let Some(before) = state.homes.get(uuid).filter(|home| *home != node).cloned() else {
        if !state.homes.contains_key(uuid) {
            state.homes.insert(uuid.clone(), node.clone());
        }
        return true;
    };
    if let Some(devices) = state.devices.get_mut(&before) {
        let newest = devices.iter().filter(|(device, _)| device.uuid == *uuid);
        if newest.map(|(_, entry)| entry.last.at).max() > Some(sample.at) {
            return false;
        }
        devices.retain(|device, _| device.uuid != *uuid);
    }
    state.homes.insert(uuid.clone(), node.clone());
    true
}

/// Forgets GPU instances that a new layout replaced: those of which nothing has come for a window,
/// while others of the same GPU were measured since.
pub(crate) fn forget_old_layouts(state: &mut State, policy: &Policy) {
    for devices in state.devices.values_mut() {
        if devices.keys().all(|device| device.instance.is_none()) {
            continue;
        }
        let mut newest: BTreeMap<GpuUuid, Timestamp> = BTreeMap::new();
        for (device, entry) in devices.iter() {
            let last = newest.entry(device.uuid.clone()).or_insert(entry.last.at);
            *last = entry.last.at.max(*last);
        }
        devices.retain(|device, entry| {
            newest[&device.uuid].since(entry.last.at) <= policy.waste.window
        });
    }
}

fn note_use(entry: &mut PodEntry, sample: &GpuSample, policy: &Policy) {
    let Some(activity) = sample.activity else {
        entry.unusable = Some(match sample.scope {
            SampleScope::SharedPart => UnknownReason::SharedWithoutProcesses,
            _ => UnknownReason::NoActivityCounter,
        });
        return;
    };
    entry.unusable = None;
    let (fb_used, fb_total) = (sample.fb_used, sample.fb_total);
    let reading = Reading { at: sample.at, activity, fb_used, fb_total };
    let window = entry.windows.get_or_insert_with(&sample.device, Window::default);
    window.push(reading, &policy.waste);
}

fn take_receipt(state: &mut State, receipt: &Receipt, policy: &Policy, report: &mut Report) {
    let Some(under_way) = state.under_way.get_mut(&receipt.effect) else {
        report.receipts_unmatched = report.receipts_unmatched.saturating_add(1);
        return;
    };
    let backoff = std::time::Duration::from_secs(1 << under_way.attempts.min(16));
    under_way.not_before = match &receipt.result {
        // Taken for done until it is observed, or should have been.
        ReceiptResult::Applied | ReceiptResult::AlreadyApplied => {
            receipt.at.after(policy.effect_deadline)
        }
        // The watch brings the new version; deciding again is what resolves it.
        ReceiptResult::Conflict => receipt.at.after(backoff.min(policy.effect_deadline)),
        // Its deletion is on its way to us.
        ReceiptResult::Gone => receipt.at.after(policy.effect_deadline),
        // A permission that is missing is given by a person: no use in asking every second.
        ReceiptResult::Refused { .. } => {
            receipt.at.after(backoff.max(policy.refused_retry_min).min(policy.retry_max))
        }
        ReceiptResult::Unanswered { .. } | ReceiptResult::NotSent => {
            receipt.at.after(backoff.min(policy.retry_max))
        }
    };
}
