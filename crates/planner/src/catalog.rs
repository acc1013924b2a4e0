//! Objects that are looked up by kind and name, and that come and go by uid.

use std::collections::BTreeMap;

use gpu_autoscaler_model::{ObjectKey, Uid};

/// Objects of several kinds; some have no name that anybody asks for.
#[derive(Clone, Debug)]
pub struct Catalog<K, T> {
    objects: BTreeMap<Uid, T>,
    names: BTreeMap<(K, ObjectKey), Uid>,
}

impl<K, T> Default for Catalog<K, T> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), names: BTreeMap::new() }
    }
}

impl<K: Ord, T> Catalog<K, T> {
    /// Adds the object `uid`, which is not in yet, under `name`.
    pub fn insert(&mut self, uid: Uid, name: Option<(K, ObjectKey)>, object: T) {
        if let Some(name) = name {
            self.names.insert(name, uid.clone());
        }
        self.objects.insert(uid, object);
    }

    /// Takes the object `uid` out; `name` is that of the object which is found.
    pub fn remove(&mut self, uid: &Uid, name: impl Fn(&T) -> Option<(K, ObjectKey)>) -> Option<T> {
        let object = self.objects.remove(uid)?;
        // One that came back under its name is another object.
        if let Some(name) = name(&object)
            && self.names.get(&name) == Some(uid)
        {
            self.names.remove(&name);
        }
        Some(object)
    }

    /// The object of this kind and name.
    pub fn find(&self, kind: K, key: ObjectKey) -> Option<&T> {
        self.objects.get(self.names.get(&(kind, key))?)
    }

    /// All objects of this kind that have a name.
    pub fn of_kind(&self, kind: K) -> impl Iterator<Item = &T> {
        let names = self.names.iter().filter(move |((other, _), _)| *other == kind);
        names.filter_map(|(_, uid)| self.objects.get(uid))
    }

    /// Whether nothing is left, not even a name.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.names.is_empty()
    }

    /// All objects.
    pub fn objects(&self) -> impl Iterator<Item = &T> {
        self.objects.values()
    }
}
