//! One copy of what many objects repeat: texts, and what pods of one owner demand alike.

use std::collections::BTreeSet;
use std::sync::Arc;

/// Values kept before unused ones are looked for.
const SWEEP_MIN: usize = 4096;

/// Hands out one shared copy of equal values: label keys, names of nodes and owners, constraints.
///
/// Bounded by what is in use: once it has doubled since the last sweep, values that nobody else
/// holds are dropped.
#[derive(Debug)]
pub struct Interner<T: ?Sized + Ord> {
    values: BTreeSet<Arc<T>>,
    kept: usize,
}

impl<T: ?Sized + Ord> Default for Interner<T> {
    fn default() -> Self {
        Self { values: BTreeSet::new(), kept: 0 }
    }
}

impl Interner<str> {
    /// The shared copy of `text`.
    pub fn get(&mut self, text: &str) -> Arc<str> {
        match self.values.get(text) {
            Some(kept) => Arc::clone(kept),
            None => self.keep(Arc::from(text)),
        }
    }
}

impl<T: Ord> Interner<T> {
    /// The shared copy of what equals `value`.
    pub fn share(&mut self, value: T) -> Arc<T> {
        match self.values.get(&value) {
            Some(kept) => Arc::clone(kept),
            None => self.keep(Arc::new(value)),
        }
    }
}

impl<T: ?Sized + Ord> Interner<T> {
    fn keep(&mut self, value: Arc<T>) -> Arc<T> {
        if self.values.len() >= (2 * self.kept).max(SWEEP_MIN) {
            self.values.retain(|kept| Arc::strong_count(kept) > 1);
            self.kept = self.values.len();
        }
        self.values.insert(Arc::clone(&value));
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_share_one_copy_and_unused_ones_go() {
        let mut interner = Interner::<str>::default();
        let first = interner.get("app");
        assert!(Arc::ptr_eq(&first, &interner.get("app")));
        for at in 0..100_000 {
            interner.get(&format!("once-{at}"));
        }
        assert!(interner.values.len() <= SWEEP_MIN, "{}", interner.values.len());
        assert!(Arc::ptr_eq(&first, &interner.get("app")), "a text in use stays");
    }
}
