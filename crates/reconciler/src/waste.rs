//! Judges every GPU pod, and names what is not known.

use std::collections::BTreeMap;

use gpu_autoscaler_analysis as analysis;
use gpu_autoscaler_model::{
    EffectId, Finding, FindingKind, Node, NodeName, ObjectKey, Pod, PodPhase, PodUsage, Refusal,
    RefusalReason, Timestamp, Uid, UnknownGpus, UnknownReason,
};

use crate::state::{PodEntry, State};
use crate::{Policy, Report, pricing};

/// Judges all GPU pods; fills in findings, usages and unknowns of the state.
pub(crate) fn judge_all(now: Timestamp, state: &mut State, policy: &Policy, report: &mut Report) {
    let mut findings = BTreeMap::new();
    let mut usages = BTreeMap::new();
    let mut unknown = Vec::new();
    let mut held: BTreeMap<&NodeName, u32> = BTreeMap::new();
    for uid in state.gpu_pods.values() {
        let Some(entry) = state.pods.get(uid) else { continue };
        let node = match bound_node(state, &entry.pod) {
            Ok(node) => node,
            Err(why) => {
                report.refusals.push(Refusal { pod: entry.pod.key.clone(), why });
                continue;
            }
        };
        let gpus = requested(&entry.pod);
        *held.entry(&node.name).or_default() += gpus;
        let usage = pod_usage(now, state, entry, node, policy);
        match &usage {
            Ok(usage) => {
                if let Some(finding) = judge(now, state, entry, node, usage, policy) {
                    findings.insert(uid.clone(), finding);
                }
            }
            Err(why) => unknown.push(UnknownGpus {
                node: node.name.clone(),
                count: gpus,
                pod: Some(entry.pod.key.clone()),
                why: why.clone(),
            }),
        }
        usages.insert(uid.clone(), usage);
    }
    let ended = state.pods.values().filter(|e| e.pod.requests.has_gpu() && !e.pod.is_active());
    report.refusals.extend(ended.map(|entry| Refusal {
        pod: entry.pod.key.clone(),
        why: RefusalReason::Ended { phase: entry.pod.phase },
    }));
    for node in state.nodes.values() {
        let held = held.get(&node.name).copied().unwrap_or(0);
        unknown.extend(unmeasured(now, state, node, held, policy));
    }
    unknown.sort();
    state.findings = findings;
    state.usages = usages;
    state.unknown = unknown;
    state.judged = Some(now);
}

/// GPUs, slices or replicas that a pod requests.
pub(crate) fn requested(pod: &Pod) -> u32 {
    pod.requests.gpus.iter().map(|g| g.count).fold(0, u32::saturating_add)
}

/// The node that a pod runs on, or why nothing is decided for it.
fn bound_node<'s>(state: &'s State, pod: &Pod) -> Result<&'s Node, RefusalReason> {
    let Some(name) = &pod.node else {
        return Err(if pod.gates.is_empty() {
            RefusalReason::Unscheduled { says: pod.unschedulable.clone() }
        } else {
            RefusalReason::Gated { gates: pod.gates.clone() }
        });
    };
    state.nodes.get(name).ok_or_else(|| RefusalReason::NodeMissing { node: name.clone() })
}

/// What a pod made of all devices that it requested, or why that is not known.
fn pod_usage(
    now: Timestamp,
    state: &State,
    entry: &PodEntry,
    node: &Node,
    policy: &Policy,
) -> Result<PodUsage, UnknownReason> {
    // Replicas of one request may be of one device; everything else is a device each.
    let expected = if node.sharing.is_some() { 1 } else { requested(&entry.pod) };
    let seen = u32::try_from(entry.windows.len()).unwrap_or(u32::MAX);
    if seen < expected {
        let measured = state.devices.contains_key(&node.name);
        let partly = match seen {
            0 if measured && node.sharing.is_some() => UnknownReason::SharedWithoutProcesses,
            0 => UnknownReason::NeverMeasured,
            _ => UnknownReason::NotAttributed,
        };
        return Err(entry.unusable.clone().unwrap_or(partly));
    }
    analysis::usage(entry.windows.values(), now, &policy.waste)
}

fn judge(
    now: Timestamp,
    state: &State,
    entry: &PodEntry,
    node: &Node,
    usage: &PodUsage,
    policy: &Policy,
) -> Option<Finding> {
    let pod = &entry.pod;
    let started = pod.started?;
    if pod.phase != PodPhase::Running || now.since(started) < policy.waste.pod_age_min {
        return None;
    }
    let verdict = analysis::judge(usage, &policy.waste)?;
    let event = event_key(pod, verdict.kind);
    let before = state.findings.get(&pod.uid).filter(|f| f.kind == verdict.kind);
    let first = state.announced.get(&event).copied().flatten();
    let saving = verdict.reclaimable.and_then(|share| {
        pricing::pod_rate(node, pod, policy)?.share(share.as_ppm().into(), 1_000_000)
    });
    let model = entry
        .windows
        .keys()
        .find_map(|device| state.devices.get(&node.name)?.get(device)?.model().cloned());
    Some(Finding {
        pod_uid: pod.uid.clone(),
        pod: pod.key.clone(),
        node: node.name.clone(),
        owner: pod.owner.clone(),
        kind: verdict.kind,
        devices: entry.windows.keys().cloned().collect(),
        model: model.or_else(|| node.gpu_model.clone()),
        usage: usage.clone(),
        score: verdict.score,
        reclaimable: verdict.reclaimable,
        since: first.or(before.map(|f| f.since)).unwrap_or(now),
        saving,
    })
}

/// Identity of the announcement of one kind of waste of one pod.
pub(crate) fn announcement_id(uid: &Uid, kind: FindingKind) -> EffectId {
    EffectId::of(&["announce", uid.as_str(), kind.as_str()])
}

/// The name of the Event that announces it: the pod's name for people, then the identity.
pub(crate) fn event_key(pod: &Pod, kind: FindingKind) -> ObjectKey {
    // An object's name has at most 253 characters; the identity takes 17 of them.
    let name: String = pod.key.name.chars().take(236).collect();
    let name = format!("{name}.{}", announcement_id(&pod.uid, kind));
    ObjectKey::new(pod.key.namespace.clone(), name)
}

/// GPUs of a node that no pod holds and no fresh sample speaks of.
fn unmeasured(
    now: Timestamp,
    state: &State,
    node: &Node,
    held: u32,
    policy: &Policy,
) -> Option<UnknownGpus> {
    let gpus = node.gpus?;
    // Slices and replicas are not GPUs: there only a node that is silent altogether is named.
    let whole = node.sharing.is_none()
        && node
            .allocatable
            .gpus
            .iter()
            .all(|g| g.resource == gpu_autoscaler_model::GpuResource::Whole);
    let devices = state.devices.get(&node.name);
    let lasts = || devices.into_iter().flatten().map(|(_, entry)| entry.last.at);
    let fresh = lasts().filter(|at| now.since(*at) <= policy.waste.gap_max).count();
    let fresh = u32::try_from(fresh).unwrap_or(u32::MAX);
    let unseen = if whole {
        // What pods hold is named with the pod.
        gpus.saturating_sub(held.max(fresh))
    } else if fresh == 0 && held == 0 {
        gpus
    } else {
        0
    };
    (unseen > 0).then(|| UnknownGpus {
        node: node.name.clone(),
        count: unseen,
        pod: None,
        why: match lasts().max() {
            Some(last) if fresh == 0 => UnknownReason::Stale { last },
            _ => UnknownReason::NeverMeasured,
        },
    })
}
