//! What to do about what was found.

use gpu_autoscaler_model::{
    Action, Announcement, Condition, ConditionKind, Effect, EffectId, Finding, FindingKind,
    PolicyObject, Timestamp,
};

use crate::Policy;
use crate::state::{State, UnderWay};
use crate::waste;

/// Everything that is wanted, not observed, and not under way; marks it as under way.
pub(crate) fn decide(now: Timestamp, state: &mut State, policy: &Policy) -> Vec<Effect> {
    let deadline = now.after(policy.effect_deadline);
    let mut wanted: Vec<(EffectId, Action)> = Vec::new();
    for finding in state.findings.values() {
        wanted.extend(announcement(state, finding));
    }
    if state.judged.is_some() {
        for object in state.policies.values() {
            wanted.extend(conditions(state, object));
        }
    }
    // What is wanted no more, or was observed, needs no memory of its attempts.
    let ids: std::collections::BTreeSet<EffectId> = wanted.iter().map(|(id, _)| *id).collect();
    state.under_way.retain(|id, under_way| ids.contains(id) || now < under_way.not_before);
    let mut effects = Vec::new();
    for (id, action) in wanted {
        let before = state.under_way.get(&id).copied();
        if before.is_some_and(|before| now < before.not_before) {
            continue;
        }
        let attempts = before.map_or(0, |before| before.attempts).saturating_add(1);
        state.under_way.insert(id, UnderWay { not_before: deadline, attempts });
        effects.push(Effect { id, action, deadline });
    }
    effects
}

/// An Event on the pod, unless it is there already.
fn announcement(state: &State, finding: &Finding) -> Option<(EffectId, Action)> {
    let pod = &state.pods.get(&finding.pod_uid)?.pod;
    let event = waste::event_key(pod, finding.kind);
    if state.announced.contains_key(&event) {
        return None;
    }
    let id = waste::announcement_id(&finding.pod_uid, finding.kind);
    let announcement = Announcement {
        name: event.name,
        pod: finding.pod.clone(),
        pod_uid: finding.pod_uid.clone(),
        reason: finding.kind.into(),
        message: message(finding).into(),
        at: finding.since,
    };
    Some((id, Action::Announce(announcement)))
}

/// What was found, in one sentence with its numbers and where they come from, and what to do.
fn message(finding: &Finding) -> String {
    let devices = match finding.devices.len() {
        0 => "GPUs".to_owned(),
        1 => "GPU".to_owned(),
        count => format!("{count} GPUs"),
    };
    let what = match (finding.kind, &finding.stuck) {
        (FindingKind::OverRequested, _) => {
            format!("{} of {devices} untouched", finding.untouched.len())
        }
        (_, Some(stuck)) => format!("{devices} held, but {stuck}"),
        (FindingKind::Underutilized, None) => format!("{devices} computed too little"),
        (_, None) => format!("{devices} computed nothing"),
    };
    let measured = finding.usage.as_ref().map_or(String::new(), |usage| {
        let memory = match usage.fb_mean {
            Some(mean) => format!("framebuffer {mean}"),
            None => "framebuffer not measured".to_owned(),
        };
        let allocated = if usage.preallocated { " (preallocated)" } else { "" };
        format!(
            " for {} s: mean {} {} (p95 {}), {memory}{allocated}",
            usage.observed_secs, usage.activity_source, usage.activity_mean, usage.activity_p95,
        )
    });
    let saving = match finding.recommendation.saving {
        Some(rate) => format!("saves {rate}"),
        None => "price not known".to_owned(),
    };
    format!(
        "{what}{measured}; waste score {:.0} of 100; {}: {saving}",
        finding.score.total(),
        finding.recommendation.advice,
    )
}

/// The conditions of an object that differ from what they should say.
fn conditions(state: &State, object: &PolicyObject) -> Option<(EffectId, Action)> {
    let mut wanted = vec![ready(object)];
    if object.kind == gpu_autoscaler_model::PolicyKind::AutoscalingPolicy {
        wanted.push(telemetry_complete(state, object));
        wanted.push(waste_found(state, object));
        wanted.push(degraded(state, object));
    }
    wanted.retain(|condition| !object.conditions.contains(condition));
    if wanted.is_empty() {
        return None;
    }
    let mut parts = vec!["conditions", object.uid.as_str(), object.resource_version.as_str()];
    for condition in &wanted {
        parts.extend([condition.kind.as_str(), &condition.reason, &condition.message]);
    }
    let id = EffectId::of(&parts);
    let action = Action::SetConditions {
        kind: object.kind,
        key: object.key.clone(),
        uid: object.uid.clone(),
        if_version: object.resource_version.clone(),
        conditions: wanted,
    };
    Some((id, action))
}

fn ready(object: &PolicyObject) -> Condition {
    let (reason, message) = match object.faults.as_slice() {
        [] if !object.enabled => ("Disabled", "spec.enabled is false: nothing is done".to_owned()),
        [] if object.dry_run => ("DryRun", "spec.dryRun is true: only reported".to_owned()),
        [] => ("Accepted", "in force".to_owned()),
        faults => ("Invalid", faults.join("; ")),
    };
    Condition {
        kind: ConditionKind::Ready,
        holds: Some(object.faults.is_empty()),
        reason: reason.into(),
        message: message.into(),
        observed_generation: object.generation,
    }
}

fn telemetry_complete(state: &State, object: &PolicyObject) -> Condition {
    let unknown: u32 = state.unknown.iter().map(|u| u.count).fold(0, u32::saturating_add);
    let mut nodes: Vec<&str> = state.unknown.iter().map(|u| u.node.as_str()).collect();
    nodes.dedup();
    let (reason, message) = match nodes.as_slice() {
        [] => ("Measured", "every GPU is measured".to_owned()),
        [node] => ("GpusUnknown", format!("{unknown} not measured on node `{node}`")),
        [first, ..] => (
            "GpusUnknown",
            format!("{unknown} not measured on {} nodes, `{first}` first", nodes.len()),
        ),
    };
    Condition {
        kind: ConditionKind::TelemetryComplete,
        holds: Some(nodes.is_empty()),
        reason: reason.into(),
        message: message.into(),
        observed_generation: object.generation,
    }
}

fn waste_found(state: &State, object: &PolicyObject) -> Condition {
    let count = |kind| state.findings.values().filter(|f| f.kind == kind).count();
    let counts: Vec<String> = FindingKind::ALL
        .into_iter()
        .map(|kind| (count(kind), kind))
        .filter(|(count, _)| *count > 0)
        .map(|(count, kind)| format!("{count} {kind}"))
        .collect();
    let (reason, message) = if counts.is_empty() {
        ("NothingFound", "no pod wastes its GPUs".to_owned())
    } else {
        ("WasteFound", format!("pods: {}", counts.join(", ")))
    };
    Condition {
        kind: ConditionKind::WasteFound,
        holds: Some(!counts.is_empty()),
        reason: reason.into(),
        message: message.into(),
        observed_generation: object.generation,
    }
}

/// Faults that a condition names; more are counted.
const FAULTS_NAMED_MAX: usize = 3;

/// What the controller cannot do, for whoever reads the policy and not the probes.
fn degraded(state: &State, object: &PolicyObject) -> Condition {
    let named = state.faults.iter().take(FAULTS_NAMED_MAX);
    let mut named: Vec<String> = named.map(|f| format!("{}: {}", f.part, f.why)).collect();
    if let more @ 1.. = state.faults.len().saturating_sub(FAULTS_NAMED_MAX) {
        named.push(format!("and {more} more"));
    }
    let (reason, message) = match named.as_slice() {
        [] => ("AllPartsWork", "every part of the controller works".to_owned()),
        named => ("PartsFail", named.join("; ")),
    };
    Condition {
        kind: ConditionKind::Degraded,
        holds: Some(!state.faults.is_empty()),
        reason: reason.into(),
        message: message.into(),
        observed_generation: object.generation,
    }
}
