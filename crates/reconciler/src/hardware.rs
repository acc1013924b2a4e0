//! Judges the hardware of every device, whoever holds it.

use std::collections::BTreeMap;

use gpu_autoscaler_analysis as analysis;
use gpu_autoscaler_model::{Device, GpuUuid, HardwareFinding, NodeName, Timestamp};

use crate::Policy;
use crate::announce::{Identity, Subject};
use crate::state::{DeviceEntry, State};

/// Faults of all devices, by node and device, and what identifies their announcements.
///
/// GPU instances of one device are one device here: its hardware is the same for all of them.
pub(crate) fn judge_all(
    now: Timestamp,
    state: &State,
    policy: &Policy,
    standing: &mut BTreeMap<Subject, Identity>,
) -> Vec<HardwareFinding> {
    let mut findings = Vec::new();
    for (name, devices) in &state.devices {
        let Some(node) = state.nodes.get(name) else { continue };
        // Instances of one device lie beside each other.
        let devices: Vec<(&Device, &DeviceEntry)> = devices.iter().collect();
        for parts in devices.chunk_by(|a, b| a.0.uuid == b.0.uuid) {
            let fresh =
                parts.iter().filter(|(_, entry)| now.since(entry.last.at) <= policy.waste.gap_max);
            let Some((device, entry)) = fresh.max_by_key(|(_, entry)| entry.last.at) else {
                continue;
            };
            let last = &entry.last.hardware;
            let faults = analysis::hardware_faults(&entry.throttle, last, now, &policy.waste);
            let mut kinds = Vec::new();
            for fault in faults {
                // Of several faults of one kind the worst stands for all.
                if kinds.contains(&fault.kind()) {
                    continue;
                }
                kinds.push(fault.kind());
                let subject = Subject::Device(name.clone(), device.uuid.clone(), fault.kind());
                let identity = state.announcements.known(&subject).cloned().unwrap_or_else(|| {
                    Identity::of_device(name, &node.uid, &device.uuid, fault.kind())
                });
                let since = state
                    .announcements
                    .announced_at(&identity)
                    .or_else(|| found_before(state, name, &device.uuid, fault.kind()))
                    .unwrap_or(now);
                standing.insert(subject, identity);
                findings.push(HardwareFinding {
                    node: name.clone(),
                    device: Device { uuid: device.uuid.clone(), instance: None },
                    model: entry.last.model.clone(),
                    holders: holders(state, parts),
                    fault,
                    since,
                });
            }
        }
    }
    findings
}

fn found_before(
    state: &State,
    node: &NodeName,
    gpu: &GpuUuid,
    kind: gpu_autoscaler_model::FindingKind,
) -> Option<Timestamp> {
    let same =
        |f: &&HardwareFinding| f.node == *node && f.device.uuid == *gpu && f.fault.kind() == kind;
    state.view.hardware.iter().find(same).map(|found| found.since)
}

/// Every pod that holds a part of the device, by name.
fn holders(
    state: &State,
    parts: &[(&Device, &DeviceEntry)],
) -> Vec<gpu_autoscaler_model::ObjectKey> {
    let uids = parts.iter().flat_map(|(_, entry)| entry.holders.keys());
    let mut holders: Vec<_> =
        uids.filter_map(|uid| Some(state.pods.get(uid)?.pod.key.clone())).collect();
    holders.sort();
    holders.dedup();
    holders
}
