//! The index: the book as it was at some line of the journal, in a form that is read at once.
//!
//! The journal is what counts. The index lies beside it so that a process which has just started
//! need not parse ten thousand lines: it takes the book from the index and the few lines after it
//! from the journal. It can be deleted at any time. One that is damaged, of another version, or of
//! another journal is not used.
//!
//! # Invariants
//! * The index names its journal, and is removed before another one is put in place, so that it
//!   never describes lines that are not there.
//! * A book from the index and the lines after it is the book from all lines.

use serde::{Deserialize, Serialize};

use crate::book::Book;
use crate::journal::crc32c;
use crate::lease::{Lease, Reservation};
use crate::packed::Packed;
use crate::quantity::Boottime;
use crate::queue::{Line, Queue};
use crate::world::Mark;

/// Lines after the index at which a writer makes a new one: reading them takes about as long as
/// starting the process.
pub const LINES: usize = 128;

/// Changes with the form of anything that is in an index; the test `the_layout_is_known` says when.
const LAYOUT: u32 = 4;

const MAGIC: [u8; 8] = *b"chronos\x01";

/// Magic, layout and sum.
const HEAD: usize = 16;

/// The book at a line of the journal.
#[derive(Debug)]
pub struct Index {
    /// The book.
    pub book: Book,
    /// The journal and the place in it.
    pub mark: Mark,
    /// Lines of the journal before that place.
    pub lines: usize,
}

/// All of a book but its tickets, which lie behind it.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Stored {
    pub boot: String,
    pub serial: u64,
    pub usage: Vec<(u32, f64, Boottime)>,
    pub reservations: Vec<Reservation>,
    pub leases: Vec<Lease>,
    /// How many tickets wait in each line.
    pub lines_of_tickets: Vec<(Line, u32)>,
    pub file: u64,
    pub length: u64,
    pub lines: u64,
}

/// The bytes of the index of `book` at `mark`, which is after `lines` lines.
pub fn write(book: &Book, mark: Mark, lines: usize) -> Vec<u8> {
    let (packed, kept, new) = book.tickets().parts();
    let mut tickets = Vec::new();
    let stored = Stored {
        lines_of_tickets: Packed::pack(packed, &kept, &new, &mut tickets),
        file: mark.file,
        length: mark.length,
        lines: lines as u64,
        ..book.stored()
    };
    let mut bytes = postcard::to_extend(&stored, vec![0; HEAD]).expect("a book has an encoding");
    bytes.append(&mut tickets);
    let sum = crc32c(&bytes[HEAD..]);
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&LAYOUT.to_le_bytes());
    bytes[12..HEAD].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// Reads an index; `None` when it is damaged or of another version.
pub fn read(bytes: Vec<u8>) -> Option<Index> {
    let head = bytes.get(..HEAD)?;
    let number = |at: usize| head[at..at + 4].try_into().map(u32::from_le_bytes).ok();
    if head[..8] != MAGIC || number(8)? != LAYOUT || number(12)? != crc32c(&bytes[HEAD..]) {
        return None;
    }
    let (stored, tickets) = postcard::take_from_bytes::<Stored>(&bytes[HEAD..]).ok()?;
    let entries = bytes.len() - tickets.len();
    let packed = Packed::open(bytes, entries, &stored.lines_of_tickets)?;
    let mark = Mark { file: stored.file, length: stored.length };
    let lines = usize::try_from(stored.lines).ok()?;
    Some(Index { book: Book::restored(stored, Queue::of(packed)), mark, lines })
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
