//! One copy of each text that many objects repeat.

use std::collections::BTreeSet;
use std::sync::Arc;

/// Texts kept before unused ones are looked for.
const SWEEP_MIN: usize = 4096;

/// Hands out one shared copy of equal texts: label keys, namespaces, names of nodes and owners.
///
/// Bounded by what is in use: once it has doubled since the last sweep, texts that nobody else
/// holds are dropped.
#[derive(Debug, Default)]
pub struct Interner {
    texts: BTreeSet<Arc<str>>,
    kept: usize,
}

impl Interner {
    /// The shared copy of `text`.
    pub fn get(&mut self, text: &str) -> Arc<str> {
        if let Some(kept) = self.texts.get(text) {
            return Arc::clone(kept);
        }
        if self.texts.len() >= (2 * self.kept).max(SWEEP_MIN) {
            self.texts.retain(|kept| Arc::strong_count(kept) > 1);
            self.kept = self.texts.len();
        }
        let text: Arc<str> = Arc::from(text);
        self.texts.insert(Arc::clone(&text));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_share_one_copy_and_unused_ones_go() {
        let mut interner = Interner::default();
        let first = interner.get("app");
        assert!(Arc::ptr_eq(&first, &interner.get("app")));
        for at in 0..100_000 {
            interner.get(&format!("once-{at}"));
        }
        assert!(interner.texts.len() <= SWEEP_MIN, "{}", interner.texts.len());
        assert!(Arc::ptr_eq(&first, &interner.get("app")), "a text in use stays");
    }
}
