//! What a watch has reported so far: as much as is needed to report changes exactly.

use std::collections::BTreeMap;
use std::sync::Arc;

use gpu_autoscaler_model::{Change, Delta, NodeName, ResourceVersion, Uid};
use tracing::warn;

use super::Resource;
use crate::decode::{Decoder, Identity, ObjectError, Source};

/// Most malformed objects that are remembered by name.
const MALFORMED_MAX: usize = 1000;

/// Objects by what identifies them to the reader: nodes by name, all others by uid.
pub(super) struct Known {
    resource: Resource,
    decoder: Decoder,
    objects: BTreeMap<Arc<str>, Seen>,
    malformed: BTreeMap<Arc<str>, Arc<str>>,
    /// Counts lists, so that what the last one did not hold can be told.
    list: u64,
}

struct Seen {
    version: Option<ResourceVersion>,
    list: u64,
    /// Whether the reader was told of it: a malformed object may never have been.
    reported: bool,
}

impl Known {
    pub fn new(resource: Resource) -> Self {
        Self {
            resource,
            decoder: Decoder::default(),
            objects: BTreeMap::new(),
            malformed: BTreeMap::new(),
            list: 0,
        }
    }

    pub fn objects(&self) -> usize {
        self.objects.len()
    }

    pub fn malformed(&self) -> usize {
        self.malformed.len()
    }

    pub fn malformed_first(&self) -> Option<Arc<str>> {
        self.malformed.values().next().cloned()
    }

    /// What is not taken in from now on until [`Self::end_list`] is gone.
    pub fn begin_list(&mut self) {
        self.list += 1;
    }

    /// Deletes what the list did not hold.
    pub fn end_list(&mut self) -> Delta {
        let mut gone = Delta::default();
        let (list, resource) = (self.list, self.resource);
        let malformed = &mut self.malformed;
        self.objects.retain(|key, seen| {
            if seen.list == list {
                return true;
            }
            malformed.remove(key);
            if seen.reported {
                delete(resource, key, &mut gone);
            }
            false
        });
        gone
    }

    /// Takes in one object; returns what to report and the object's version.
    pub fn take(&mut self, deleted: bool, object: &str) -> (Option<Delta>, Option<String>) {
        let from = Source::Json(object);
        let identity = Identity::of(from);
        let version = identity.resource_version.as_ref().map(|v| v.as_str().to_owned());
        let Some(key) = self.key(&identity) else {
            // Not even its identity can be read: it can be neither reported nor remembered.
            let name: Arc<str> = identity.key.to_string().into();
            self.note_malformed(name, "its identity cannot be read".into());
            return (None, version);
        };
        if deleted {
            let mut gone = Delta::default();
            self.malformed.remove(&key);
            if self.objects.remove(&key).is_some_and(|seen| seen.reported) {
                delete(self.resource, &key, &mut gone);
            }
            return (Some(gone), version);
        }
        let before = self.objects.get_mut(&key);
        let reported = before.as_ref().is_some_and(|seen| seen.reported);
        if let Some(seen) = before
            && seen.version.is_some()
            && seen.version == identity.resource_version
        {
            seen.list = self.list;
            return (None, version);
        }
        let mut delta = Delta::default();
        let decoded = self.decode(from, &mut delta);
        // Of a malformed object the last well-formed state stands: unknown is not gone.
        let reported = reported || decoded.is_ok();
        let seen = Seen { version: identity.resource_version, list: self.list, reported };
        self.objects.insert(Arc::clone(&key), seen);
        match decoded {
            Ok(()) => {
                self.malformed.remove(&key);
                (Some(delta), version)
            }
            Err(error) => {
                self.note_malformed(key, error.to_string().into());
                (None, version)
            }
        }
    }

    fn key(&self, identity: &Identity) -> Option<Arc<str>> {
        match self.resource {
            Resource::Nodes if &*identity.key.name != "?" => Some(identity.key.name.clone()),
            Resource::Nodes => None,
            _ => identity.uid.as_ref().map(|uid| Arc::from(uid.as_str())),
        }
    }

    fn note_malformed(&mut self, key: Arc<str>, error: Arc<str>) {
        if self.malformed.get(&key) == Some(&error) {
            return;
        }
        warn!(kind = %self.resource, %error, "skip malformed object");
        if self.malformed.len() < MALFORMED_MAX {
            self.malformed.insert(key, error);
        }
    }

    fn decode(&mut self, from: Source<'_>, delta: &mut Delta) -> Result<(), ObjectError> {
        let decoder = &mut self.decoder;
        match self.resource {
            Resource::Nodes => delta.nodes.push(Change::Upsert(decoder.node(from)?)),
            Resource::ActivePods => delta.pods.push(Change::Upsert(decoder.pod(from)?)),
            Resource::DisruptionBudgets => {
                delta.budgets.push(Change::Upsert(decoder.budget(from)?));
            }
            Resource::OwnEvents => delta.events.push(Change::Upsert(decoder.event(from)?)),
            Resource::Storage(kind) => {
                delta.storage.push(Change::Upsert(decoder.storage(kind, from)?));
            }
            Resource::Devices(kind) => {
                delta.devices.push(Change::Upsert(decoder.device(kind, from)?));
            }
            Resource::Policies(kind) => {
                delta.policies.push(Change::Upsert(decoder.policy(kind, from)?));
            }
        }
        Ok(())
    }
}

fn delete(resource: Resource, key: &Arc<str>, delta: &mut Delta) {
    let uid = || Uid::new(Arc::clone(key));
    match resource {
        Resource::Nodes => delta.nodes.push(Change::Delete(NodeName::new(Arc::clone(key)))),
        Resource::ActivePods => delta.pods.push(Change::Delete(uid())),
        Resource::DisruptionBudgets => delta.budgets.push(Change::Delete(uid())),
        Resource::OwnEvents => delta.events.push(Change::Delete(uid())),
        Resource::Storage(_) => delta.storage.push(Change::Delete(uid())),
        Resource::Devices(_) => delta.devices.push(Change::Delete(uid())),
        Resource::Policies(_) => delta.policies.push(Change::Delete(uid())),
    }
}
