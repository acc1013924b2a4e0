//! Nouns and units shared by every room.

mod mig;

pub use mig::*;
