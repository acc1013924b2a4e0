//! A map of few entries: the devices of a node or pod, the holders of a device.

/// Entries sorted by key, in exactly the room that they take.
///
/// A `BTreeMap` has room for eleven entries from the first one on, which most of a hundred thousand
/// maps would never use; searching and shifting a few entries costs no more than its nodes.
#[derive(Clone, Debug)]
pub(crate) struct SmallMap<K, V>(Vec<(K, V)>);

impl<K, V> Default for SmallMap<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Ord, V> SmallMap<K, V> {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn get(&self, key: &K) -> Option<&V> {
        self.place(key).ok().map(|place| &self.0[place].1)
    }

    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.place(key).ok().map(|place| &mut self.0[place].1)
    }

    pub fn contains_key(&self, key: &K) -> bool {
        self.place(key).is_ok()
    }

    /// The value of `key`, which is made where there is none.
    pub fn get_or_insert_with(&mut self, key: &K, make: impl FnOnce() -> V) -> &mut V
    where
        K: Clone,
    {
        let place = self.place(key).unwrap_or_else(|place| {
            self.0.reserve_exact(1);
            self.0.insert(place, (key.clone(), make()));
            place
        });
        &mut self.0[place].1
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.place(key).ok().map(|place| self.0.remove(place).1)
    }

    pub fn retain(&mut self, mut keep: impl FnMut(&K, &V) -> bool) {
        self.0.retain(|(key, value)| keep(key, value));
    }

    pub fn iter(&self) -> Iter<'_, K, V> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.iter().map(|(key, _)| key)
    }

    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }

    pub fn into_keys(self) -> impl Iterator<Item = K> {
        self.0.into_iter().map(|(key, _)| key)
    }

    fn place(&self, key: &K) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| other.cmp(key))
    }
}

/// Over the entries, by key.
pub(crate) type Iter<'m, K, V> =
    std::iter::Map<std::slice::Iter<'m, (K, V)>, fn(&'m (K, V)) -> (&'m K, &'m V)>;

impl<'m, K: Ord, V> IntoIterator for &'m SmallMap<K, V> {
    type Item = (&'m K, &'m V);
    type IntoIter = Iter<'m, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_sorted_found_and_take_no_room_beyond_their_own() {
        let mut map = SmallMap::default();
        for key in [5, 1, 3, 1] {
            *map.get_or_insert_with(&key, || 0) += key;
        }
        assert_eq!(map.iter().collect::<Vec<_>>(), [(&1, &2), (&3, &3), (&5, &5)]);
        assert_eq!(map.0.capacity(), 3);
        assert_eq!((map.get(&3), map.get(&4)), (Some(&3), None));
        assert_eq!((map.remove(&3), map.remove(&3)), (Some(3), None));
        map.retain(|key, _| *key != 5);
        assert_eq!(map.into_keys().collect::<Vec<_>>(), [1]);
    }
}
