//! Which findings are announced, and which are to be.
//!
//! Names of Events are worked out once for each finding, not once a tick: a hundred thousand pods
//! have tens of thousands of findings that stand for hours, and nearly all ticks change none.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use gpu_autoscaler_model::{
    EffectId, FindingKind, GpuUuid, NodeName, ObjectKey, Pod, Timestamp, Uid,
};

/// What is announced. The order is that in which it is done.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// Waste of a pod.
    Pod(Uid, FindingKind),
    /// A fault of a device.
    Device(NodeName, GpuUuid, FindingKind),
}

/// What identifies an announcement: the Event's key, and the effect that creates it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub event: ObjectKey,
    pub effect: EffectId,
}

impl Identity {
    pub fn of_pod(pod: &Pod, kind: FindingKind) -> Self {
        let effect = EffectId::of(&["announce", pod.uid.as_str(), kind.as_str()]);
        Self { event: event_key(&pod.key.namespace, &pod.key.name, effect), effect }
    }

    pub fn of_device(node: &NodeName, node_uid: &Uid, gpu: &GpuUuid, kind: FindingKind) -> Self {
        let effect = EffectId::of(&["announce", node_uid.as_str(), gpu.as_str(), kind.as_str()]);
        // Kubernetes keeps Events of objects without a namespace in this one.
        Self { event: event_key("default", node.as_str(), effect), effect }
    }
}

/// The object's name for people, then the identity.
fn event_key(namespace: &str, name: &str, effect: impl Display) -> ObjectKey {
    // An object's name has at most 253 characters; the identity takes 17 of them.
    let name: String = name.chars().take(236).collect();
    ObjectKey::new(namespace, format!("{name}.{effect}"))
}

/// What stands, and which Events of it were observed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Announcements {
    /// Of everything that stands.
    identities: BTreeMap<Subject, Identity>,
    by_event: BTreeMap<ObjectKey, Subject>,
    /// What stands and has no Event.
    missing: BTreeSet<Subject>,
    /// Our Events by key, and the time that each gives.
    events: BTreeMap<ObjectKey, Option<Timestamp>>,
}

impl Announcements {
    /// An Event was observed.
    pub fn event_came(&mut self, event: ObjectKey, at: Option<Timestamp>) {
        if let Some(subject) = self.by_event.get(&event) {
            self.missing.remove(subject);
        }
        self.events.insert(event, at);
    }

    /// An Event is gone: what it announced is to be announced again while it stands.
    pub fn event_went(&mut self, event: &ObjectKey) {
        if self.events.remove(event).is_some()
            && let Some(subject) = self.by_event.get(event)
        {
            self.missing.insert(subject.clone());
        }
    }

    /// The time that the Event of `identity` gives; `None` when there is none, or it gives none.
    pub fn announced_at(&self, identity: &Identity) -> Option<Timestamp> {
        self.events.get(&identity.event).copied().flatten()
    }

    /// The identity that was worked out for what stood at the last judgement.
    pub fn known(&self, subject: &Subject) -> Option<&Identity> {
        self.identities.get(subject)
    }

    /// From now on this stands, and nothing else.
    pub fn renew(&mut self, standing: BTreeMap<Subject, Identity>) {
        self.missing = standing
            .iter()
            .filter(|(_, identity)| !self.events.contains_key(&identity.event))
            .map(|(subject, _)| subject.clone())
            .collect();
        let keys = standing.iter().map(|(subject, one)| (one.event.clone(), subject.clone()));
        self.by_event = keys.collect();
        self.identities = standing;
    }

    /// What is to be announced.
    pub fn missing(&self) -> impl Iterator<Item = (&Subject, &Identity)> {
        self.missing.iter().filter_map(|subject| Some((subject, self.identities.get(subject)?)))
    }
}
