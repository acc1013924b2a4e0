//! Nouns and units shared by every room.
