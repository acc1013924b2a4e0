//! Tickets as the index keeps them: one record after another, unpacked when somebody asks.

use std::ops::Range;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::lease::Ticket;
use crate::quantity::Boottime;
use crate::queue::{Line, line_of};

/// What is known of a packed ticket without unpacking it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Its user.
    pub uid: u32,
    /// Its priority.
    pub priority: crate::lease::Priority,
    /// Since when it waits.
    pub since: Boottime,
    /// Until when it waits, at most.
    pub until: Boottime,
    /// Whether it resumes a lease.
    pub resumes: bool,
    /// Bytes of its record.
    pub length: u32,
}

impl Entry {
    fn of(ticket: &Ticket, length: usize) -> Self {
        let (uid, priority) = line_of(ticket);
        Self {
            uid,
            priority,
            since: ticket.since,
            until: ticket.until,
            resumes: ticket.resumes,
            // A ticket has some hundred bytes: its texts are bounded where they are read.
            length: u32::try_from(length).expect("a ticket is smaller than 4 GiB"),
        }
    }
}

/// The packed tickets of an index.
#[derive(Debug, Default)]
pub(crate) struct Packed {
    /// In the order of lines, within a line by age, then by name.
    entries: Vec<Entry>,
    /// Where the record of each entry starts, and where the last one ends.
    starts: Vec<usize>,
    /// The index as it was read; the records are at its end.
    bytes: Vec<u8>,
    /// Positions in the order of names.
    by_name: Vec<u32>,
    lines: Vec<(Line, Range<u32>)>,
    unpacked: Vec<OnceLock<Box<Ticket>>>,
}

/// What the index keeps of [`Packed`]; the rest follows from it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Directory {
    entries: Vec<Entry>,
    by_name: Vec<u32>,
}

impl Packed {
    /// Packs the tickets at `kept` of `old`, and `new` ones.
    pub fn pack(old: &Self, kept: &[u32], new: &[&Ticket]) -> (Directory, Vec<u8>) {
        let encode = |ticket: &&Ticket| {
            let record = postcard::to_allocvec(ticket).expect("a ticket has an encoding");
            (Entry::of(ticket, record.len()), record)
        };
        let fresh: Vec<(Entry, Vec<u8>)> = new.iter().map(encode).collect();
        let mut all: Vec<(Entry, &[u8])> =
            fresh.iter().map(|(entry, record)| (*entry, record.as_slice())).collect();
        all.extend(kept.iter().map(|at| (*old.entry(*at), old.record(*at))));
        all.sort_unstable_by_key(|(entry, record)| {
            (entry.uid, entry.priority, entry.since, name(record))
        });
        let mut by_name: Vec<u32> = (0..).take(all.len()).collect();
        by_name.sort_unstable_by_key(|at| name(all[*at as usize].1));
        let records = all.iter().flat_map(|(_, record)| record.iter().copied()).collect();
        let entries = all.iter().map(|(entry, _)| *entry).collect();
        (Directory { entries, by_name }, records)
    }

    /// Joins a directory with its records, which are in `bytes` from `start` on; `None` when they do
    /// not belong together.
    pub fn join(directory: Directory, bytes: Vec<u8>, mut start: usize) -> Option<Self> {
        let Directory { entries, by_name } = directory;
        let mut starts = Vec::with_capacity(entries.len() + 1);
        let mut lines: Vec<(Line, Range<u32>)> = Vec::new();
        for (position, entry) in (0..).zip(&entries) {
            starts.push(start);
            start += entry.length as usize;
            let line = (entry.uid, entry.priority);
            match lines.last_mut() {
                Some((last, positions)) if *last == line => positions.end = position + 1,
                _ => lines.push((line, position..position + 1)),
            }
        }
        starts.push(start);
        if start != bytes.len() || by_name.len() != entries.len() {
            return None;
        }
        let unpacked = std::iter::repeat_with(OnceLock::new).take(entries.len()).collect();
        Some(Self { entries, starts, bytes, by_name, lines, unpacked })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Every position.
    pub fn positions(&self) -> Range<u32> {
        // `pack` numbered them by u32.
        0..self.entries.len() as u32
    }

    /// What is known of the ticket at a position without unpacking it.
    pub fn entry(&self, position: u32) -> &Entry {
        &self.entries[position as usize]
    }

    fn record(&self, position: u32) -> &[u8] {
        let at = position as usize;
        &self.bytes[self.starts[at]..self.starts[at + 1]]
    }

    /// The name of the ticket at a position.
    pub fn id(&self, position: u32) -> &str {
        name(self.record(position))
    }

    /// The position of a name.
    pub fn position(&self, id: &str) -> Option<u32> {
        let found = self.by_name.binary_search_by(|at| self.id(*at).cmp(id));
        found.ok().map(|at| self.by_name[at])
    }

    /// The lines, with the positions of their tickets.
    pub fn lines(&self) -> &[(Line, Range<u32>)] {
        &self.lines
    }

    /// The ticket at a position.
    pub fn ticket(&self, position: u32) -> &Ticket {
        self.unpacked[position as usize].get_or_init(|| {
            let ticket = postcard::from_bytes(self.record(position));
            Box::new(ticket.expect("the index was summed when it was read"))
        })
    }
}

/// The name that a record begins with.
fn name(record: &[u8]) -> &str {
    let (name, _) = postcard::take_from_bytes(record).expect("a record begins with its name");
    name
}
