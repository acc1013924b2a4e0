//! Judges every GPU pod, and names what is not known.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gpu_autoscaler_analysis as analysis;
use gpu_autoscaler_model::{
    Advice, Device, Finding, FindingKind, GpuCount, GpuModel, GpuResource, GpuShare, MigGeometry,
    Node, NodeName, Pod, PodPhase, PodUsage, Ratio, Recommendation, Refusal, RefusalReason,
    SharingStrategy, StuckReason, Timestamp, UnknownGpus, UnknownReason, consent,
};

use crate::announce::{Identity, Subject};
use crate::state::{DeviceEntry, PodEntry, State, Totalled};
use crate::{Policy, Report, hardware, pricing, reports};

/// Judges all GPU pods; fills in findings, usages and unknowns of the state.
pub(crate) fn judge_all(now: Timestamp, state: &mut State, policy: &Policy, report: &mut Report) {
    let mut findings = BTreeMap::new();
    let mut standing = BTreeMap::new();
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
        // It is measured all the same: it has a price, and its like may learn from it.
        let judgement = match consent::left_alone(&entry.pod.annotations) {
            Some(key) => Err(RefusalReason::OptedOut { key }),
            None => judge(now, state, entry, node, usage.as_ref().ok(), policy),
        };
        let found = match judgement {
            Ok(finding) => finding,
            Err(why) => {
                report.refusals.push(Refusal { pod: entry.pod.key.clone(), why });
                None
            }
        };
        let stuck = found.as_ref().is_some_and(|finding| finding.kind == FindingKind::Stuck);
        // What a pod that cannot run holds is known to serve nothing.
        if let Err(why) = usage.as_ref()
            && !stuck
        {
            unknown.push(UnknownGpus {
                node: node.name.clone(),
                count: gpus,
                pod: Some(entry.pod.key.clone()),
                why: why.clone(),
            });
        }
        findings.extend(found.map(|finding| (uid.clone(), finding)));
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
        unknown.extend(disputed(now, state, node, policy));
    }
    unknown.sort();
    for (uid, finding) in &findings {
        if let Some(entry) = state.pods.get(uid) {
            let subject = Subject::Pod(uid.clone(), finding.kind);
            standing.insert(subject, identity(state, &entry.pod, finding.kind));
        }
    }
    let hardware = hardware::judge_all(now, state, policy, &mut standing);
    state.announcements.renew(standing);
    state.totalled = Totalled::of(&findings, &unknown);
    state.findings = findings;
    state.hardware = hardware;
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
    if let Some(between) = disagreement(now, state, entry, node, policy) {
        return Err(UnknownReason::Disagreement { between });
    }
    analysis::usage(held(state, entry, node), now, &policy.waste)
}

/// The exporters that contradict each other about a device of the pod.
pub(crate) fn disagreement(
    now: Timestamp,
    state: &State,
    entry: &PodEntry,
    node: &Node,
    policy: &Policy,
) -> Option<Vec<Arc<str>>> {
    let devices = entry.windows.keys().filter_map(|device| device_entry(state, node, device));
    devices.map(|device| reports::disagreement(device, now, policy)).find(|b| !b.is_empty())
}

/// The devices that a pod was measured on, and what part of each it holds.
pub(crate) fn held<'s>(
    state: &'s State,
    entry: &'s PodEntry,
    node: &'s Node,
) -> impl Iterator<Item = analysis::Held<'s>> {
    let seen = u32::try_from(entry.windows.len()).unwrap_or(u32::MAX);
    let share = held_share(&entry.pod, node, seen);
    entry.windows.iter().map(move |(device, window)| analysis::Held {
        window,
        share,
        fb_total: device_entry(state, node, device).and_then(|entry| entry.last.fb_total),
    })
}

fn device_entry<'s>(state: &'s State, node: &Node, device: &Device) -> Option<&'s DeviceEntry> {
    state.devices.get(&node.name)?.get(device)
}

/// The part that a pod holds of each of the `seen` devices that it was measured on.
fn held_share(pod: &Pod, node: &Node, seen: u32) -> GpuShare {
    let Some(sharing) = node.sharing else { return GpuShare::ALL };
    // Several replicas of one pod may be of one device or of several; equal parts of those seen.
    let of = sharing.replicas.saturating_mul(seen.max(1));
    GpuShare::new(requested(pod).min(of), of).unwrap_or(GpuShare::ALL)
}

/// The waste of a pod, or why that is not decided; `usage` is nothing where it is not known.
fn judge(
    now: Timestamp,
    state: &State,
    entry: &PodEntry,
    node: &Node,
    usage: Option<&PodUsage>,
    policy: &Policy,
) -> Result<Option<Finding>, RefusalReason> {
    if let Some(stuck) = stuck(now, &entry.pod, policy) {
        return Ok(Some(judge_stuck(now, state, entry, node, stuck, usage, policy)));
    }
    let found = usage.and_then(|usage| judge_use(now, state, entry, node, usage, policy));
    let shareable = |finding: &Finding| finding.kind == FindingKind::Underutilized;
    match (found.as_ref().is_some_and(shareable), ruled_out(&entry.pod)) {
        (true, [Some(key), Some(_), Some(_)]) => Err(RefusalReason::Unshared { key }),
        _ => Ok(found),
    }
}

/// The annotations by which the pod rules out GPU instances, MPS and time slices.
fn ruled_out(pod: &Pod) -> [Option<&'static str>; 3] {
    [SharingStrategy::Mig, SharingStrategy::Mps, SharingStrategy::TimeSlicing]
        .map(|strategy| consent::rules_out(&pod.annotations, strategy))
}

/// In which ways the pod may be told to hold less, by its own word.
fn ways(pod: &Pod) -> analysis::Ways {
    if consent::declares_training(&pod.labels, &pod.annotations) {
        return analysis::Ways::Training;
    }
    let [slices, mps, time_slices] = ruled_out(pod).map(|key| key.is_none());
    analysis::Ways::These { slices, replicas: mps || time_slices }
}

fn judge_use(
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
    let devices = u32::try_from(entry.windows.len()).unwrap_or(u32::MAX);
    // The past takes findings away and adds none: it is looked up for those that there may be.
    analysis::judge(usage, devices, None, &policy.waste)?;
    let history = state.history.of(pod);
    let verdict = analysis::judge(usage, devices, history, &policy.waste)?;
    let model = model_of(state, entry, node);
    let (advice, need, freed) = {
        let holding = holding(pod, node, model.as_ref());
        analysis::advise(verdict.kind, usage, history, &holding, &policy.waste)
    };
    let untouched = if verdict.kind == FindingKind::OverRequested {
        let idle = |window: &analysis::Window| window.activity_max() <= policy.waste.idle_up_to;
        entry.windows.iter().filter(|(_, w)| idle(w)).map(|(device, _)| device.clone()).collect()
    } else {
        Vec::new()
    };
    Some(Finding {
        pod_uid: pod.uid.clone(),
        pod: pod.key.clone(),
        node: node.name.clone(),
        owner: pod.owner.clone(),
        kind: verdict.kind,
        devices: entry.windows.keys().cloned().collect(),
        untouched,
        model,
        usage: Some(usage.clone()),
        stuck: None,
        score: verdict.score,
        reclaimable: verdict.reclaimable,
        since: since(now, state, pod, verdict.kind),
        recommendation: Recommendation {
            advice,
            need: Some(need),
            freed,
            saving: pricing::part_rate(node, pod, freed, policy),
        },
    })
}

/// Why a pod that holds GPUs does not run or end, if that has lasted for long enough.
fn stuck(now: Timestamp, pod: &Pod, policy: &Policy) -> Option<StuckReason> {
    let lasting = |since: Timestamp| now.since(since) >= policy.waste.pod_age_min;
    if let Some(due) = pod.deletion_due {
        return lasting(due).then_some(StuckReason::Terminating { due });
    }
    if !lasting(pod.started?) {
        return None;
    }
    let containers = &pod.containers;
    let says = containers.waiting.as_ref();
    // Between two ends the container runs for a while; the kubelet, too, counts it as one series
    // until it has run for ten minutes.
    let ended_lately = containers.last_end.is_some_and(|end| now.since(end) < CRASH_SERIES);
    let backs_off = says.is_some_and(|says| &**says == "CrashLoopBackOff");
    if containers.restarts >= CRASHES_MIN && (ended_lately || backs_off) {
        return Some(StuckReason::CrashLoop { restarts: containers.restarts });
    }
    match says.map(AsRef::as_ref)? {
        "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => {
            Some(StuckReason::ImagePull { says: says?.clone() })
        }
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
            Some(StuckReason::Creation { says: says?.clone() })
        }
        _ => None,
    }
}

/// Restarts from which on it is a loop: one or two happen to anybody.
const CRASHES_MIN: u32 = 3;

/// Source: the kubelet's `MaxContainerBackOff` of 5 min, reset after twice that.
const CRASH_SERIES: Duration = Duration::from_secs(600);

fn judge_stuck(
    now: Timestamp,
    state: &State,
    entry: &PodEntry,
    node: &Node,
    stuck: StuckReason,
    usage: Option<&PodUsage>,
    policy: &Policy,
) -> Finding {
    let pod = &entry.pod;
    let freed = GpuShare::ALL;
    Finding {
        pod_uid: pod.uid.clone(),
        pod: pod.key.clone(),
        node: node.name.clone(),
        owner: pod.owner.clone(),
        kind: FindingKind::Stuck,
        devices: entry.windows.keys().cloned().collect(),
        untouched: Vec::new(),
        model: model_of(state, entry, node),
        usage: usage.cloned(),
        stuck: Some(stuck),
        // What it holds serves nothing, whatever it was used for before.
        score: analysis::waste_score(Ratio::ZERO, Some(Ratio::ZERO)),
        reclaimable: Some(Ratio::ONE),
        since: since(now, state, pod, FindingKind::Stuck),
        recommendation: Recommendation {
            advice: Advice::Stop,
            need: None,
            freed,
            saving: pricing::part_rate(node, pod, freed, policy),
        },
    }
}

/// When waste of this kind was first announced for the pod, else first found.
fn since(now: Timestamp, state: &State, pod: &Pod, kind: FindingKind) -> Timestamp {
    let first = state.announcements.announced_at(&identity(state, pod, kind));
    let before = state.findings.get(&pod.uid).filter(|f| f.kind == kind);
    first.or(before.map(|f| f.since)).unwrap_or(now)
}

fn identity(state: &State, pod: &Pod, kind: FindingKind) -> Identity {
    let known = state.announcements.known(&Subject::Pod(pod.uid.clone(), kind));
    known.cloned().unwrap_or_else(|| Identity::of_pod(pod, kind))
}

/// The model of the devices that the pod holds, as their exporter says, else as the node does.
/// `None` where they are of several: what is true of one of them need not be of the others.
fn model_of(state: &State, entry: &PodEntry, node: &Node) -> Option<GpuModel> {
    let mut models = entry.windows.keys().map(|device| device_entry(state, node, device)?.model());
    let Some(Some(first)) = models.next() else { return node.gpu_model.clone() };
    models.all(|model| model == Some(first)).then(|| first.clone())
}

/// What a pod holds, for sizing. Pods with several kinds of GPU resource have no one size.
fn holding<'p>(pod: &'p Pod, node: &Node, model: Option<&GpuModel>) -> analysis::Holding<'p> {
    let replicas = node.sharing.map_or(1, |sharing| sharing.replicas);
    let geometry = model.and_then(|model| MigGeometry::for_product(model.as_str()));
    let (each, geometry) = match pod.requests.gpus.as_slice() {
        [GpuCount { resource: GpuResource::Mig(profile), .. }] => {
            (analysis::Part::Instance(profile), geometry)
        }
        [GpuCount { resource: GpuResource::Whole, .. }] if replicas == 1 => {
            (analysis::Part::Whole, geometry)
        }
        _ => (analysis::Part::Replica { of: replicas }, None),
    };
    analysis::Holding { count: requested(pod), each, geometry, ways: ways(pod) }
}

/// Devices of a node that no pod holds and exporters contradict each other about.
fn disputed<'s>(
    now: Timestamp,
    state: &'s State,
    node: &'s Node,
    policy: &'s Policy,
) -> impl Iterator<Item = UnknownGpus> + use<'s> {
    let devices = state.devices.get(&node.name).into_iter().flat_map(BTreeMap::values);
    let free = devices.filter(|entry| entry.holders.is_empty());
    let between = free.map(move |entry| reports::disagreement(entry, now, policy));
    between.filter(|between| !between.is_empty()).map(|between| UnknownGpus {
        node: node.name.clone(),
        count: 1,
        pod: None,
        why: UnknownReason::Disagreement { between },
    })
}

/// GPUs of a node that no pod holds and no fresh sample speaks of.
fn unmeasured(
    now: Timestamp,
    state: &State,
    node: &Node,
    held: u32,
    policy: &Policy,
) -> Option<UnknownGpus> {
    let gpus = pricing::gpus_of(node)?;
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
