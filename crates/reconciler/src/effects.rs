//! What to do about what was found.

use std::collections::{BTreeMap, BTreeSet};

use gpu_autoscaler_model::{
    Action, Advice, Announcement, Condition, ConditionKind, Effect, EffectId, Finding, FindingKind,
    HardwareFinding, Involved, InvolvedKind, Node, ObjectKey, PolicyObject, Timestamp,
};

use crate::Policy;
use crate::announce::{Identity, Subject};
use crate::state::{State, Totalled, UnderWay};

/// Everything that is wanted, not observed, and not under way; marks it as under way.
pub(crate) fn decide(now: Timestamp, state: &mut State, policy: &Policy) -> Vec<Effect> {
    let deadline = now.after(policy.effect_deadline);
    let mut ids = BTreeSet::new();
    let mut effects = Vec::new();
    let may_try = |under_way: &BTreeMap<EffectId, UnderWay>, id: EffectId| {
        under_way.get(&id).is_none_or(|before| now >= before.not_before)
    };
    for (subject, identity) in state.announcements.missing() {
        // Found a while ago: the pod may have gone since.
        let Some(found) = Found::of(state, subject) else { continue };
        ids.insert(identity.effect);
        if may_try(&state.under_way, identity.effect) {
            let action = Action::Announce(found.announcement(identity));
            effects.push(Effect { id: identity.effect, action, deadline });
        }
    }
    if state.judged.is_some() {
        for object in state.policies.values() {
            let Some((id, action)) = conditions(state, object) else { continue };
            ids.insert(id);
            if may_try(&state.under_way, id) {
                effects.push(Effect { id, action, deadline });
            }
        }
    }
    // What is wanted no more, or was observed, needs no memory of its attempts.
    state.under_way.retain(|id, under_way| ids.contains(id) || now < under_way.not_before);
    for effect in &effects {
        let before = state.under_way.get(&effect.id).map_or(0, |before| before.attempts);
        let attempts = before.saturating_add(1);
        state.under_way.insert(effect.id, UnderWay { not_before: deadline, attempts });
    }
    effects
}

/// Something that stands and is to be announced.
enum Found<'s> {
    Waste(&'s Finding),
    Fault(&'s HardwareFinding, &'s Node),
}

impl<'s> Found<'s> {
    fn of(state: &'s State, subject: &Subject) -> Option<Self> {
        match subject {
            Subject::Pod(uid, _) => {
                state.pods.get(uid)?;
                Some(Self::Waste(state.finding(uid)?))
            }
            Subject::Device(node, gpu, kind) => {
                let fault = state.view.hardware.iter().find(|fault| {
                    fault.node == *node && fault.device.uuid == *gpu && fault.fault.kind() == *kind
                })?;
                Some(Self::Fault(fault, state.nodes.get(node)?))
            }
        }
    }

    fn announcement(&self, identity: &Identity) -> Announcement {
        let event = identity.event.clone();
        match self {
            Self::Waste(finding) => Announcement {
                event,
                about: Involved {
                    kind: InvolvedKind::Pod,
                    key: finding.pod.clone(),
                    uid: finding.pod_uid.clone(),
                },
                reason: finding.kind.into(),
                message: message(finding).into(),
                at: finding.since,
            },
            Self::Fault(fault, node) => Announcement {
                event,
                about: Involved {
                    kind: InvolvedKind::Node,
                    key: ObjectKey::new("", fault.node.as_str()),
                    uid: node.uid.clone(),
                },
                reason: fault.fault.kind().into(),
                message: fault_message(fault).into(),
                at: fault.since,
            },
        }
    }
}

/// Which device, what is wrong with it, and who is affected.
fn fault_message(finding: &HardwareFinding) -> String {
    let holders: Vec<String> = finding.holders.iter().map(ToString::to_string).collect();
    let held = if holders.is_empty() {
        "held by no pod".to_owned()
    } else {
        format!("held by {}", holders.join(", "))
    };
    format!("{}: {}; {held}; {}", finding.device, finding.fault, Advice::LookAtHardware)
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
    let Totalled { unknown, nodes_unknown, first_unknown, .. } = &state.totalled;
    let (reason, message) = match (nodes_unknown, first_unknown) {
        (1, Some(node)) => ("GpusUnknown", format!("{unknown} not measured on node `{node}`")),
        (nodes, Some(first)) => {
            ("GpusUnknown", format!("{unknown} not measured on {nodes} nodes, `{first}` first"))
        }
        (_, None) => ("Measured", "every GPU is measured".to_owned()),
    };
    Condition {
        kind: ConditionKind::TelemetryComplete,
        holds: Some(first_unknown.is_none()),
        reason: reason.into(),
        message: message.into(),
        observed_generation: object.generation,
    }
}

fn waste_found(state: &State, object: &PolicyObject) -> Condition {
    let counts: Vec<String> =
        state.totalled.pods.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
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
