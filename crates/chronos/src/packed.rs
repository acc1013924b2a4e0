//! Tickets as the index keeps them: read where they lie, unpacked when somebody asks.
//!
//! The index of ten thousand tickets is one megabyte. What is compared to find a ticket lies in
//! entries of one size, so that opening the index costs nothing for each of them.

use std::ops::Range;
use std::sync::OnceLock;

use crate::lease::{Priority, Ticket};
use crate::quantity::Boottime;
use crate::queue::{Line, line_of};

/// Bytes of an entry.
const ENTRY: usize = 32;

/// Bytes of a position in the order of names.
const POSITION: usize = 4;

/// Tickets that get their room together once one of them is unpacked.
const CHUNK: usize = 64;

/// What is known of a packed ticket without unpacking it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    /// Its user and priority.
    pub line: Line,
    /// Since when it waits.
    pub since: Boottime,
    /// Until when it waits, at most.
    pub until: Boottime,
    /// Whether it resumes a lease.
    pub resumes: bool,
    /// Where its record starts among the records.
    start: u32,
    /// Bytes of its record.
    length: u32,
}

impl Entry {
    fn to_bytes(self) -> [u8; ENTRY] {
        let mut bytes = [0; ENTRY];
        bytes[..8].copy_from_slice(&self.since.as_nanos().to_le_bytes());
        bytes[8..16].copy_from_slice(&self.until.as_nanos().to_le_bytes());
        bytes[16..20].copy_from_slice(&self.start.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.length.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.line.0.to_le_bytes());
        bytes[28] = match self.line.1 {
            Priority::High => 0,
            Priority::Normal => 1,
            Priority::Low => 2,
        };
        bytes[29] = u8::from(self.resumes);
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        let long = |at: usize| u64::from_le_bytes(array(&bytes[at..at + 8]));
        let short = |at: usize| u32::from_le_bytes(array(&bytes[at..at + 4]));
        let priority = match bytes[28] {
            0 => Priority::High,
            1 => Priority::Normal,
            _ => Priority::Low,
        };
        Self {
            line: (short(24), priority),
            since: Boottime::from_nanos(long(0)),
            until: Boottime::from_nanos(long(8)),
            resumes: bytes[29] == 1,
            start: short(16),
            length: short(20),
        }
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("the caller cut it to its length")
}

/// The packed tickets of an index.
#[derive(Debug, Default)]
pub(crate) struct Packed {
    /// The index as it was read. At its end lie the entries in the order of lines, within a line by
    /// age, then by name; then their positions in the order of names; then the records.
    bytes: Vec<u8>,
    /// Where the entries start.
    entries: usize,
    count: usize,
    lines: Vec<(Line, Range<u32>)>,
    unpacked: Vec<OnceLock<Box<[OnceLock<Ticket>]>>>,
}

impl Packed {
    /// Packs the tickets at `kept` of `old`, and `new` ones, behind `bytes`; returns how many
    /// tickets each line has, in the order of lines.
    pub fn pack(
        old: &Self,
        kept: &[u32],
        new: &[&Ticket],
        bytes: &mut Vec<u8>,
    ) -> Vec<(Line, u32)> {
        let encode = |ticket: &&Ticket| {
            let record = postcard::to_allocvec(ticket).expect("a ticket has an encoding");
            let (line, since, until) = (line_of(ticket), ticket.since, ticket.until);
            (Entry { line, since, until, resumes: ticket.resumes, start: 0, length: 0 }, record)
        };
        let fresh: Vec<(Entry, Vec<u8>)> = new.iter().map(encode).collect();
        let mut all: Vec<(Entry, &[u8])> =
            fresh.iter().map(|(entry, record)| (*entry, record.as_slice())).collect();
        all.extend(kept.iter().map(|at| (old.entry(*at), old.record(*at))));
        all.sort_unstable_by_key(|(entry, record)| (entry.line, entry.since, name(record)));
        let mut lines: Vec<(Line, u32)> = Vec::new();
        let mut start = 0;
        for (entry, record) in &mut all {
            // Twenty thousand tickets of some hundred bytes: their texts are bounded where they
            // are read.
            let length = u32::try_from(record.len()).expect("a ticket is smaller than 4 GiB");
            (entry.start, entry.length) = (start, length);
            start += length;
            bytes.extend_from_slice(&entry.to_bytes());
            match lines.last_mut() {
                Some((last, count)) if *last == entry.line => *count += 1,
                _ => lines.push((entry.line, 1)),
            }
        }
        let mut by_name: Vec<u32> = (0..).take(all.len()).collect();
        by_name.sort_unstable_by_key(|at| name(all[*at as usize].1));
        bytes.extend(by_name.iter().flat_map(|position| position.to_le_bytes()));
        for (_, record) in all {
            bytes.extend_from_slice(record);
        }
        lines
    }

    /// The tickets of `lines`, which [`Packed::pack`] put into `bytes` from `entries` on.
    pub fn open(bytes: Vec<u8>, entries: usize, lines: &[(Line, u32)]) -> Option<Self> {
        let mut end = 0;
        let places = lines.iter().map(|(line, count)| {
            let start = end;
            end += count;
            (*line, start..end)
        });
        let lines = places.collect();
        let count = end as usize;
        let chunks = std::iter::repeat_with(OnceLock::new).take(count.div_ceil(CHUNK)).collect();
        let packed = Self { bytes, entries, count, lines, unpacked: chunks };
        let last = end.checked_sub(1).map(|last| packed.entry(last));
        let length = last.map_or(0, |last| last.start as usize + last.length as usize);
        (packed.records() + length == packed.bytes.len()).then_some(packed)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Every position.
    pub fn positions(&self) -> Range<u32> {
        // `open` summed them up as u32.
        0..self.count as u32
    }

    fn names(&self) -> usize {
        self.entries + self.count * ENTRY
    }

    fn records(&self) -> usize {
        self.names() + self.count * POSITION
    }

    /// What is known of the ticket at a position without unpacking it.
    pub fn entry(&self, position: u32) -> Entry {
        let at = self.entries + position as usize * ENTRY;
        Entry::from_bytes(&self.bytes[at..at + ENTRY])
    }

    fn record(&self, position: u32) -> &[u8] {
        let entry = self.entry(position);
        let at = self.records() + entry.start as usize;
        &self.bytes[at..at + entry.length as usize]
    }

    /// The name of the ticket at a position.
    pub fn id(&self, position: u32) -> &str {
        name(self.record(position))
    }

    /// The position of a name.
    pub fn position(&self, id: &str) -> Option<u32> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            let at = self.names() + middle * POSITION;
            let position = u32::from_le_bytes(array(&self.bytes[at..at + POSITION]));
            match self.id(position).cmp(id) {
                std::cmp::Ordering::Equal => return Some(position),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// The lines, with the positions of their tickets.
    pub fn lines(&self) -> &[(Line, Range<u32>)] {
        &self.lines
    }

    /// The ticket at a position.
    pub fn ticket(&self, position: u32) -> &Ticket {
        let at = position as usize;
        let chunk = self.unpacked[at / CHUNK]
            .get_or_init(|| std::iter::repeat_with(OnceLock::new).take(CHUNK).collect());
        chunk[at % CHUNK].get_or_init(|| {
            let ticket = postcard::from_bytes(self.record(position));
            ticket.expect("the index was summed when it was read")
        })
    }
}

/// The name that a record begins with.
fn name(record: &[u8]) -> &str {
    let (name, _) = postcard::take_from_bytes(record).expect("a record begins with its name");
    name
}
