//! Claims, volumes and what provides them.

use std::collections::BTreeMap;
use std::sync::Arc;

use gpu_autoscaler_model::{
    NodeName, NodeSelectorTerm, ObjectKey, Operator, Requirement, StorageClass, StorageDriver,
    StorageKind, StorageNode, StorageObject, Uid, VOLUME_NODES, VOLUME_SOURCE, Volume, VolumeClaim,
};

use super::{Decoder, Fault, Kind, ObjectError, Source, constraints};
use crate::intern::Interner;
use crate::wire;

/// The annotation that named the class before the field did; it still comes first.
const CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// Labels of a volume that VolumeZone reads.
const TOPOLOGY: [&str; 4] = [
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
];

impl Decoder {
    /// A claim, a volume, or what provides them.
    ///
    /// # Errors
    /// [`ObjectError`] for a field that is missing or malformed.
    pub fn storage(
        &mut self,
        kind: StorageKind,
        from: Source<'_>,
    ) -> Result<StorageObject, ObjectError> {
        let at = Fault { kind: Kind::Storage(kind), from };
        let texts = &mut self.texts;
        Ok(match kind {
            StorageKind::Claim => {
                let object: wire::VolumeClaim = at.read()?;
                let uid = at.uid(&object.metadata.uid)?;
                StorageObject::Claim(claim(object, uid, texts))
            }
            StorageKind::Volume => {
                let object: wire::PersistentVolume = at.read()?;
                let uid = at.uid(&object.metadata.uid)?;
                StorageObject::Volume(volume(object, uid, texts))
            }
            StorageKind::Class => {
                let object: wire::StorageClass = at.read()?;
                StorageObject::Class(StorageClass {
                    uid: at.uid(&object.metadata.uid)?,
                    name: texts.get(&object.metadata.name),
                    provisioner: texts.get(&object.provisioner),
                    waits_for_pod: object.volume_binding_mode.as_deref()
                        == Some("WaitForFirstConsumer"),
                    topologies: topologies(&object, texts),
                })
            }
            StorageKind::Driver => {
                let object: wire::StorageDriver = at.read()?;
                StorageObject::Driver(StorageDriver {
                    uid: at.uid(&object.metadata.uid)?,
                    name: texts.get(&object.metadata.name),
                    tracks_capacity: object.spec.storage_capacity == Some(true),
                    must_be_installed: object.spec.prevent_pod_scheduling_if_missing == Some(true),
                })
            }
            StorageKind::Node => {
                let object: wire::StorageNode = at.read()?;
                let drivers = object.spec.drivers.into_iter().flatten();
                let limited = drivers.filter(|driver| {
                    driver.allocatable.as_ref().is_some_and(|most| most.count.is_some())
                });
                StorageObject::Node(StorageNode {
                    uid: at.uid(&object.metadata.uid)?,
                    limited: limited.map(|driver| texts.get(&driver.name)).collect(),
                })
            }
        })
    }
}

/// The class that an object names; empty when it names none.
fn class(meta: &wire::Meta, field: Option<&str>, texts: &mut Interner<str>) -> Arc<str> {
    let annotation = meta.annotations.iter().flatten().find(|(key, _)| *key == CLASS);
    texts.get(annotation.map_or(field.unwrap_or(""), |(_, name)| name))
}

fn claim(object: wire::VolumeClaim, uid: Uid, texts: &mut Interner<str>) -> VolumeClaim {
    let meta = &object.metadata;
    let annotation = |key: &str| meta.annotations.as_ref().and_then(|all| all.get(key));
    let owner = meta.controller();
    VolumeClaim {
        uid,
        key: ObjectKey::new(
            texts.get(meta.namespace.as_deref().unwrap_or("")),
            texts.get(&meta.name),
        ),
        class: class(meta, object.spec.storage_class_name.as_deref(), texts),
        volume: object
            .spec
            .volume_name
            .filter(|name| !name.is_empty())
            .map(|name| texts.get(&name)),
        bound: annotation(BIND_COMPLETED).is_some(),
        lost: object.status.phase.as_deref() == Some("Lost"),
        deleting: meta.deletion_timestamp.is_some(),
        one_pod: object.spec.access_modes.iter().flatten().any(|mode| mode == "ReadWriteOncePod"),
        selected_node: annotation(SELECTED_NODE).map(|node| NodeName::new(texts.get(node))),
        owner: owner.map(|owner| Uid::new(texts.get(&owner.uid))),
    }
}

fn volume(object: wire::PersistentVolume, uid: Uid, texts: &mut Interner<str>) -> Volume {
    let spec = object.spec;
    let is_plain = spec.host_path.is_some()
        || spec.local.is_some()
        || spec.nfs.is_some()
        || spec.iscsi.is_some()
        || spec.fc.is_some();
    let mut uncovered = (spec.csi.is_none() && !is_plain).then_some(VOLUME_SOURCE);
    let required = spec.node_affinity.and_then(|affinity| affinity.required);
    let nodes = required.map(|required| {
        let terms = required.node_selector_terms.unwrap_or_default();
        // VolumeBinding shows a node's labels alone, so that a term on its name never matches.
        let read = |term: &wire::NodeSelectorTerm| match &term.match_fields {
            Some(fields) if !fields.is_empty() => None,
            _ => constraints::node_term(term, texts),
        };
        let read: Option<Vec<NodeSelectorTerm>> = terms.iter().map(read).collect();
        if read.is_none() {
            uncovered = Some(VOLUME_NODES);
        }
        read.unwrap_or_default()
    });
    let is_taken = matches!(object.status.phase.as_deref(), Some("Bound" | "Released" | "Failed"));
    Volume {
        uid,
        class: class(&object.metadata, spec.storage_class_name.as_deref(), texts),
        is_free: spec.claim_ref.is_none() || !is_taken,
        driver: spec.csi.map(|csi| texts.get(&csi.driver)),
        nodes,
        zones: zones(&object.metadata.labels.unwrap_or_default(), texts),
        uncovered,
        name: texts.get(&object.metadata.name),
    }
}

/// The zone and region labels, each with its values. As VolumeZone does, a label with an empty
/// value among others is left out.
fn zones(
    labels: &BTreeMap<String, String>,
    texts: &mut Interner<str>,
) -> Vec<(Arc<str>, Vec<Arc<str>>)> {
    let mut zones = Vec::new();
    for key in TOPOLOGY {
        let Some(value) = labels.get(key) else { continue };
        let values: Vec<&str> = value.split("__").map(str::trim).collect();
        if values.iter().all(|value| !value.is_empty()) {
            let values = values.into_iter().map(|value| texts.get(value)).collect();
            zones.push((texts.get(key), values));
        }
    }
    zones
}

fn topologies(class: &wire::StorageClass, texts: &mut Interner<str>) -> Vec<NodeSelectorTerm> {
    let mut terms = Vec::new();
    for term in class.allowed_topologies.iter().flatten() {
        let mut labels = Vec::new();
        for one in term.match_label_expressions.iter().flatten() {
            let values = one.values.iter().map(|value| texts.get(value)).collect();
            labels.push(Requirement { key: texts.get(&one.key), operator: Operator::In(values) });
        }
        terms.push(NodeSelectorTerm { labels, name: Vec::new() });
    }
    terms
}

#[cfg(test)]
mod tests;
