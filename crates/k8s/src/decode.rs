//! Kubernetes objects into `model`.
//!
//! Strict about what a decision depends on, blind to the rest. A malformed object is an
//! [`ObjectError`] that names the object, the field and the value; it concerns no other object.

mod constraints;
mod containers;
mod devices;
mod storage;

use std::fmt;
use std::sync::Arc;

use gpu_autoscaler_model::{
    AnnouncedEvent, Condition, ConditionKind, Constraints, ContainerState, DeviceKind,
    DisruptionBudget, InstanceType, Labels, Node, NodeName, ObjectKey, Owner, Pod, PodPhase,
    PolicyKind, PolicyObject, ResourceVersion, StorageKind, Taint, TaintEffect, Timestamp, Uid,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::intern::Interner;
use crate::requests::{self, Amounts};
use crate::{node_labels, sense, wire};

/// Prefix of the annotations that are kept.
const OUR_PREFIX: &str = "gpu-autoscaler.io/";

/// Longest scheduler's message that is kept, in bytes: it lists every node's reason in words.
const UNSCHEDULABLE_MAX: usize = 512;

/// Kinds of object that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `v1` Node.
    Node,
    /// `v1` Pod.
    Pod,
    /// `policy/v1` PodDisruptionBudget.
    PodDisruptionBudget,
    /// `v1` Event.
    Event,
    /// What says where volumes are or may be.
    Storage(StorageKind),
    /// Claims on devices, and what offers them.
    Device(DeviceKind),
    /// One of our own.
    Policy(PolicyKind),
}

impl Kind {
    /// As Kubernetes spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Node => "Node",
            Self::Pod => "Pod",
            Self::PodDisruptionBudget => "PodDisruptionBudget",
            Self::Event => "Event",
            Self::Storage(kind) => kind.as_str(),
            Self::Device(kind) => kind.as_str(),
            Self::Policy(kind) => kind.as_str(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One object that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} `{key}`: field `{field}`: {fault}")]
pub struct ObjectError {
    /// What it was meant to be.
    pub kind: Kind,
    /// Its name; `?` where not even that can be read.
    pub key: ObjectKey,
    /// Which field, as a path from the object's root.
    pub field: String,
    /// The value, and what is wrong with it.
    pub fault: String,
}

/// An object as it came.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// JSON text.
    Json(&'a str),
    /// A parsed document.
    Value(&'a Value),
}

impl Source<'_> {
    /// Reads it as `T`.
    ///
    /// # Errors
    /// The path of the field, and the fault in words.
    fn read<T: DeserializeOwned>(self) -> Result<T, (String, String)> {
        let mut track = serde_path_to_error::Track::new();
        let result = match self {
            Self::Json(text) => {
                let mut from = serde_json::Deserializer::from_str(text);
                T::deserialize(serde_path_to_error::Deserializer::new(&mut from, &mut track))
            }
            Self::Value(value) => {
                T::deserialize(serde_path_to_error::Deserializer::new(value, &mut track))
            }
        };
        result.map_err(|error| (track.path().to_string(), clip(&error.to_string(), 256)))
    }
}

/// What identifies an object, read where the rest of it may be malformed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Namespace and name; `?` for what cannot be read.
    pub key: ObjectKey,
    /// Its uid, if any.
    pub uid: Option<Uid>,
    /// Its version, if any.
    pub resource_version: Option<ResourceVersion>,
}

impl Identity {
    /// Of the object in `from`.
    pub fn of(from: Source<'_>) -> Self {
        let read = |value: &Value| value.as_str().map(|text| clip(text, 253));
        let meta = from.read::<wire::Nameable>().map(|object| object.metadata).unwrap_or_default();
        Self {
            key: ObjectKey::new(
                read(&meta.namespace).unwrap_or_default(),
                read(&meta.name).unwrap_or_else(|| "?".to_owned()),
            ),
            uid: read(&meta.uid).map(Uid::from),
            resource_version: read(&meta.resource_version).map(ResourceVersion::from),
        }
    }
}

/// The first `max` bytes of `text`, cut where a character ends.
pub(crate) fn clip(text: &str, max: usize) -> String {
    text[..text.floor_char_boundary(max)].to_owned()
}

/// Turns objects into `model`, sharing the texts that they have in common.
#[derive(Debug, Default)]
pub struct Decoder {
    texts: Interner<str>,
    constraints: Interner<Constraints>,
}

impl Decoder {
    /// A node.
    ///
    /// # Errors
    /// [`ObjectError`] for a field that is missing or malformed.
    pub fn node(&mut self, from: Source<'_>) -> Result<Node, ObjectError> {
        let at = Fault { kind: Kind::Node, from };
        let object: wire::Node = at.read()?;
        let labels = self.labels(object.metadata.labels);
        let amounts = |field: &str, map| {
            Amounts::read(map).map_err(|(name, why)| at.fault(format!("{field}.{name}"), why))
        };
        let allocatable = amounts("status.allocatable", object.status.allocatable)?;
        let capacity = amounts("status.capacity", object.status.capacity)?;
        let sharing = node_labels::sharing(&labels);
        let text = |texts: &mut Interner<str>, keys: &[&str]| {
            node_labels::first(&labels, keys).map(|value| texts.get(value))
        };
        let zone = ["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"];
        let region = ["topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"];
        let instance = [
            "node.kubernetes.io/instance-type",
            "beta.kubernetes.io/instance-type",
            // Where no cloud names one, a node pool of an earlier release may have.
            "gpu-autoscaler.io/instance-type",
        ];
        Ok(Node {
            name: NodeName::new(self.texts.get(&object.metadata.name)),
            uid: at.uid(&object.metadata.uid)?,
            created: at.created(&object.metadata.creation_timestamp)?,
            taints: self.taints(object.spec.taints.unwrap_or_default(), at)?,
            ready: object
                .status
                .conditions
                .iter()
                .flatten()
                .any(|c| c.kind == "Ready" && c.status == "True"),
            unschedulable: object.spec.unschedulable.unwrap_or(false),
            pods_max: allocatable.count("pods").and_then(|pods| u32::try_from(pods).ok()),
            instance_type: text(&mut self.texts, &instance).map(InstanceType::new),
            region: text(&mut self.texts, &region),
            zone: text(&mut self.texts, &zone),
            capacity_type: node_labels::capacity_type(&labels),
            gpu_model: labels
                .get("nvidia.com/gpu.product")
                .and_then(gpu_autoscaler_model::GpuModel::parse),
            gpus: node_labels::gpu_count(&labels).or_else(|| capacity.whole_gpus(sharing)),
            sharing,
            allocatable: allocatable
                .into_resources(&mut self.texts)
                .map_err(|(name, why)| at.fault(format!("status.allocatable.{name}"), why))?,
            labels,
        })
    }

    /// A pod.
    ///
    /// # Errors
    /// [`ObjectError`] for a field that is missing or malformed.
    pub fn pod(&mut self, from: Source<'_>) -> Result<Pod, ObjectError> {
        let at = Fault { kind: Kind::Pod, from };
        let mut object: wire::Pod = at.read()?;
        let labels = self.labels(object.metadata.labels.take());
        let namespace = self.texts.get(object.metadata.namespace.as_deref().unwrap_or(""));
        let constraints = constraints::of_pod(&object, &namespace, &labels, &mut self.texts);
        let requests = requests::of_pod(&object.spec, &mut self.texts)
            .map_err(|(field, why)| at.fault(field, why))?;
        let owner = object.metadata.controller().map(|owner| Owner {
            kind: self.texts.get(&owner.kind),
            name: self.texts.get(&owner.name),
            uid: Uid::new(self.texts.get(&owner.uid)),
        });
        let unschedulable = object
            .status
            .conditions
            .iter()
            .flatten()
            .find(|c| c.kind == "PodScheduled" && c.reason.as_deref() == Some("Unschedulable"))
            .map(|c| self.texts.get(&clip(c.message.as_deref().unwrap_or(""), UNSCHEDULABLE_MAX)));
        let started = match &object.status.start_time {
            Some(text) => Some(at.time("status.startTime", text)?),
            None => None,
        };
        let annotations = object.metadata.annotations.map(|mut annotations| {
            annotations.retain(|key, _| key.starts_with(OUR_PREFIX));
            annotations
        });
        let deletion_due = match &object.metadata.deletion_timestamp {
            Some(text) => Some(at.time("metadata.deletionTimestamp", text)?),
            None => None,
        };
        let containers = if requests.has_gpu() {
            containers::state(&object.spec, &object.status, &mut self.texts)
                .map_err(|(field, text)| at.fault(field, format!("`{text}` is no time")))?
        } else {
            ContainerState::default()
        };
        Ok(Pod {
            uid: at.uid(&object.metadata.uid)?,
            resource_version: at.resource_version(object.metadata.resource_version)?,
            created: at.created(&object.metadata.creation_timestamp)?,
            key: ObjectKey::new(namespace, Arc::from(object.metadata.name)),
            started,
            node: object
                .spec
                .node_name
                .filter(|name| !name.is_empty())
                .map(|name| NodeName::new(self.texts.get(&name))),
            phase: at.phase(object.status.phase.as_deref())?,
            deleting: deletion_due.is_some(),
            deletion_due,
            containers,
            requests,
            labels,
            annotations: self.labels(annotations),
            owner,
            priority: object.spec.priority.unwrap_or(0),
            constraints: self.constraints.share(constraints),
            gates: object
                .spec
                .scheduling_gates
                .into_iter()
                .flatten()
                .map(|gate| self.texts.get(&gate.name))
                .collect(),
            unschedulable,
        })
    }

    /// A PodDisruptionBudget.
    ///
    /// # Errors
    /// [`ObjectError`] for a field that is missing or malformed.
    pub fn budget(&mut self, from: Source<'_>) -> Result<DisruptionBudget, ObjectError> {
        let at = Fault { kind: Kind::PodDisruptionBudget, from };
        let object: wire::DisruptionBudget = at.read()?;
        // As the eviction API does: what was computed for an older spec allows nothing.
        let current =
            object.status.observed_generation >= Some(object.metadata.generation.unwrap_or(1));
        let disruptions_allowed = match object.status.disruptions_allowed.filter(|_| current) {
            Some(allowed) => Some(u32::try_from(allowed).map_err(|_| {
                at.fault("status.disruptionsAllowed", format!("`{allowed}` is no count of pods"))
            })?),
            None => None,
        };
        Ok(DisruptionBudget {
            uid: at.uid(&object.metadata.uid)?,
            key: self.key(&object.metadata),
            disruptions_allowed,
        })
    }

    /// One of our own Events.
    ///
    /// # Errors
    /// [`ObjectError`] for a field that is missing or malformed.
    pub fn event(&mut self, from: Source<'_>) -> Result<AnnouncedEvent, ObjectError> {
        let at = Fault { kind: Kind::Event, from };
        let object: wire::Event = at.read()?;
        let told = match &object.event_time {
            Some(text) => Some(at.time("eventTime", text)?),
            None => None,
        };
        Ok(AnnouncedEvent {
            uid: at.uid(&object.metadata.uid)?,
            key: self.key(&object.metadata),
            at: told,
        })
    }

    /// One of our own resources.
    ///
    /// # Errors
    /// [`ObjectError`] for a field that is missing or malformed. A spec that is well formed but
    /// makes no sense is no error: it is told in `faults`.
    pub fn policy(
        &mut self,
        kind: PolicyKind,
        from: Source<'_>,
    ) -> Result<PolicyObject, ObjectError> {
        let at = Fault { kind: Kind::Policy(kind), from };
        let object: wire::Policy = at.read()?;
        let flag = |name: &str| match object.spec.get(name) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(set)) => Ok(*set),
            Some(other) => {
                Err(at.fault(format!("spec.{name}"), format!("`{other}` is not true or false")))
            }
        };
        let faults = sense::faults(kind, &object.spec);
        Ok(PolicyObject {
            enabled: flag("enabled")?,
            dry_run: flag("dryRun")?,
            uid: at.uid(&object.metadata.uid)?,
            kind,
            key: self.key(&object.metadata),
            resource_version: at.resource_version(object.metadata.resource_version)?,
            generation: object.metadata.generation.unwrap_or(0),
            faults: faults.iter().map(|fault| Arc::from(fault.to_string())).collect(),
            conditions: object
                .status
                .conditions
                .into_iter()
                .flatten()
                .filter_map(|condition| self.condition(&condition))
                .collect(),
        })
    }

    /// One of our own conditions; `None` for somebody else's.
    fn condition(&mut self, condition: &wire::Condition) -> Option<Condition> {
        Some(Condition {
            kind: ConditionKind::parse(&condition.kind)?,
            holds: match condition.status.as_str() {
                "True" => Some(true),
                "False" => Some(false),
                _ => None,
            },
            reason: self.texts.get(condition.reason.as_deref().unwrap_or("")),
            message: Arc::from(condition.message.as_deref().unwrap_or("")),
            observed_generation: condition.observed_generation.unwrap_or(0),
        })
    }

    fn key(&mut self, meta: &wire::Meta) -> ObjectKey {
        ObjectKey::new(
            self.texts.get(meta.namespace.as_deref().unwrap_or("")),
            Arc::from(meta.name.as_str()),
        )
    }

    fn labels(&mut self, map: Option<std::collections::BTreeMap<String, String>>) -> Labels {
        Labels::new(
            map.into_iter().flatten().map(|(k, v)| (self.texts.get(&k), self.texts.get(&v))),
        )
    }

    fn taints(
        &mut self,
        taints: Vec<wire::Taint>,
        at: Fault<'_>,
    ) -> Result<Vec<Taint>, ObjectError> {
        let mut read = Vec::with_capacity(taints.len());
        for (index, taint) in taints.into_iter().enumerate() {
            let effect = match taint.effect.as_str() {
                "NoSchedule" => TaintEffect::NoSchedule,
                "PreferNoSchedule" => TaintEffect::PreferNoSchedule,
                "NoExecute" => TaintEffect::NoExecute,
                other => {
                    let why = format!("`{}` is no taint effect", clip(other, 64));
                    return Err(at.fault(format!("spec.taints[{index}].effect"), why));
                }
            };
            read.push(Taint {
                key: self.texts.get(&taint.key),
                value: self.texts.get(taint.value.as_deref().unwrap_or("")),
                effect,
            });
        }
        Ok(read)
    }
}

/// Where faults of one object are raised.
#[derive(Clone, Copy)]
struct Fault<'a> {
    kind: Kind,
    from: Source<'a>,
}

impl Fault<'_> {
    fn read<T: DeserializeOwned>(self) -> Result<T, ObjectError> {
        self.from.read().map_err(|(field, why)| self.fault(field, why))
    }

    fn fault(self, field: impl Into<String>, why: impl Into<String>) -> ObjectError {
        ObjectError {
            kind: self.kind,
            key: Identity::of(self.from).key,
            field: field.into(),
            fault: why.into(),
        }
    }

    fn uid(self, uid: &Option<String>) -> Result<Uid, ObjectError> {
        match uid.as_deref() {
            Some(uid) if !uid.is_empty() => Ok(Uid::from(uid)),
            _ => Err(self.fault("metadata.uid", "missing")),
        }
    }

    fn resource_version(self, version: Option<String>) -> Result<ResourceVersion, ObjectError> {
        match version {
            Some(version) => Ok(ResourceVersion::from(version)),
            None => Err(self.fault("metadata.resourceVersion", "missing")),
        }
    }

    fn created(self, text: &Option<String>) -> Result<Timestamp, ObjectError> {
        const FIELD: &str = "metadata.creationTimestamp";
        match text {
            Some(text) => self.time(FIELD, text),
            None => Err(self.fault(FIELD, "missing")),
        }
    }

    fn time(self, field: &str, text: &str) -> Result<Timestamp, ObjectError> {
        text.parse().map_err(|error: gpu_autoscaler_model::ParseTimestampError| {
            self.fault(field, error.to_string())
        })
    }

    fn phase(self, phase: Option<&str>) -> Result<PodPhase, ObjectError> {
        match phase {
            // The API server writes the phase at creation; a manifest has none yet.
            None | Some("" | "Pending") => Ok(PodPhase::Pending),
            Some("Running") => Ok(PodPhase::Running),
            Some("Succeeded") => Ok(PodPhase::Succeeded),
            Some("Failed") => Ok(PodPhase::Failed),
            Some("Unknown") => Ok(PodPhase::Unknown),
            Some(other) => {
                let why = format!("`{}` is no phase of a pod", clip(other, 64));
                Err(self.fault("status.phase", why))
            }
        }
    }
}

#[cfg(test)]
mod tests;
