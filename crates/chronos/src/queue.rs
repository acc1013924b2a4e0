//! The queue: who waits, and in which order they are served.
//!
//! Tickets wait in lines, one for each user and priority, oldest first. Time moves whole lines
//! against each other (usage decays, a priority ages) and never changes the order within one, so
//! that the order of service is the merge of the heads of the lines: the first hundred of ten
//! thousand are found by looking at the lines and at a hundred tickets, not by sorting all.
//!
//! Tickets that come from the index ([`crate::index`]) stay packed until somebody asks for them.
//!
//! # Invariants
//! * A ticket waits in one line, packed or not.
//! * What is packed is never changed; a packed ticket that waits no more is named in `gone`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, btree_map};
use std::ops::Range;
use std::sync::Arc;

use crate::lease::{LeaseId, Priority, Ticket};
use crate::packed::Packed;
use crate::quantity::{Boottime, Span};

/// How long a ticket waits until it counts as one class more urgent.
///
/// With three classes, a low ticket is ahead of every new high one after six hours.
pub const AGEING_STEP: Span = Span::from_secs(2 * 3_600);

/// The tickets of one user and priority wait in one line.
pub(crate) type Line = (u32, Priority);

/// The line that a ticket waits in.
pub(crate) fn line_of(ticket: &Ticket) -> Line {
    (ticket.owner.uid, ticket.request.priority)
}

/// Every waiting ticket.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    packed: Arc<Packed>,
    /// Positions of packed tickets that wait no more.
    gone: BTreeSet<u32>,
    lines: BTreeMap<Line, BTreeMap<(Boottime, LeaseId), Arc<Ticket>>>,
    /// Where each ticket that is not packed waits.
    places: BTreeMap<LeaseId, (Line, Boottime)>,
}

impl Queue {
    /// The queue of an index.
    pub(crate) fn of(packed: Packed) -> Self {
        Self { packed: Arc::new(packed), ..Self::default() }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.packed.len() - self.gone.len() + self.places.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The ticket of that name.
    pub fn get(&self, id: &LeaseId) -> Option<&Ticket> {
        if let Some((line, since)) = self.places.get(id) {
            return self.lines.get(line)?.get(&(*since, id.clone())).map(|ticket| &**ticket);
        }
        self.packed_place(id).map(|position| self.packed.ticket(position))
    }

    fn packed_place(&self, id: &LeaseId) -> Option<u32> {
        self.packed.position(&id.0).filter(|position| !self.gone.contains(position))
    }

    /// Puts a ticket at the place of its age in its line; its name must not be waiting yet.
    pub(crate) fn insert(&mut self, ticket: Ticket) {
        let (line, since, id) = (line_of(&ticket), ticket.since, ticket.id.clone());
        self.places.insert(id.clone(), (line, since));
        self.lines.entry(line).or_default().insert((since, id), Arc::new(ticket));
    }

    /// Takes a ticket out of its line; returns whether it was waiting.
    pub(crate) fn remove(&mut self, id: &LeaseId) -> bool {
        let Some((line, since)) = self.places.remove(id) else {
            return self.packed_place(id).is_some_and(|position| self.gone.insert(position));
        };
        if let btree_map::Entry::Occupied(mut waiting) = self.lines.entry(line) {
            waiting.get_mut().remove(&(since, id.clone()));
            if waiting.get().is_empty() {
                waiting.remove();
            }
        }
        true
    }

    /// Every ticket, in no order that means anything. Packed ones are unpacked: with thousands of
    /// them, ask for what is needed instead.
    pub fn iter(&self) -> impl Iterator<Item = &Ticket> {
        let packed = self.still_packed().map(|position| self.packed.ticket(position));
        packed.chain(self.lines.values().flat_map(BTreeMap::values).map(|ticket| &**ticket))
    }

    fn still_packed(&self) -> impl Iterator<Item = u32> {
        self.packed.positions().filter(|position| !self.gone.contains(position))
    }

    /// Tickets of one user, without those that resume a lease.
    pub fn asked_by(&self, uid: u32) -> usize {
        let entries = self.still_packed().map(|position| self.packed.entry(position));
        let packed = entries.filter(|entry| entry.line.0 == uid && !entry.resumes).count();
        let lines = self.lines.range((uid, Priority::High)..=(uid, Priority::Low));
        let waiting = lines.flat_map(|(_, line)| line.values());
        packed + waiting.filter(|ticket| !ticket.resumes).count()
    }

    /// When the first ticket gives up.
    pub fn next_until(&self) -> Option<Boottime> {
        let packed = self.still_packed().map(|position| self.packed.entry(position).until);
        packed.chain(self.lines.values().flat_map(BTreeMap::values).map(|t| t.until)).min()
    }

    /// The tickets that have waited for as long as they were to.
    pub fn given_up(&self, now: Boottime) -> Vec<LeaseId> {
        let late = self.still_packed().filter(|p| self.packed.entry(*p).until <= now);
        let packed = late.map(|position| LeaseId(self.packed.id(position).to_owned()));
        let waiting = self.lines.values().flat_map(BTreeMap::values);
        packed.chain(waiting.filter(|t| t.until <= now).map(|t| t.id.clone())).collect()
    }

    /// The first `count` tickets in the order of service; `asked`, which is not in the queue, has
    /// its turn among them and is last when its turn comes later.
    ///
    /// `used` is the decayed usage of users in GPU-seconds; who is not in it has used nothing.
    pub fn first<'a>(
        &'a self,
        asked: Option<&'a Ticket>,
        used: &BTreeMap<u32, f64>,
        now: Boottime,
        count: usize,
    ) -> Vec<&'a Ticket> {
        // Whole GPU-seconds: a fraction would order users by noise.
        let used = |uid: u32| used.get(&uid).map_or(0, |gpu_secs| *gpu_secs as u64);
        let mut runs = self.runs(asked);
        let mut heads: Vec<Option<Head<'a>>> = runs.iter_mut().map(|(_, run)| run.next()).collect();
        let turn = |number: usize, line: Line, head: Option<Head<'a>>| {
            head.map(|head| Reverse((head.turn(line, used(line.0), now), number)))
        };
        let numbered = runs.iter().zip(&heads).enumerate();
        let mut turns: BinaryHeap<_> =
            numbered.filter_map(|(number, ((line, _), head))| turn(number, *line, *head)).collect();
        let mut first = Vec::with_capacity(count.min(self.len() + 1));
        while first.len() < count
            && let Some(Reverse((_, number))) = turns.pop()
        {
            first.extend(heads[number].map(Head::ticket));
            let (line, run) = &mut runs[number];
            heads[number] = run.next();
            turns.extend(turn(number, *line, heads[number]));
        }
        let served = |asked: &Ticket| first.iter().any(|ticket| std::ptr::eq(*ticket, asked));
        if let Some(asked) = asked.filter(|asked| !served(asked)) {
            first.push(asked);
        }
        first
    }

    /// Stretches of tickets that are in their order already.
    fn runs<'a>(&'a self, asked: Option<&'a Ticket>) -> Vec<(Line, Run<'a>)> {
        let mut runs = Vec::new();
        for (line, positions) in self.packed.lines() {
            let (packed, gone) = (&*self.packed, &self.gone);
            runs.push((*line, Run::Packed { packed, gone, positions: positions.clone() }));
        }
        runs.extend(self.lines.iter().map(|(line, tickets)| (*line, Run::Here(tickets.values()))));
        runs.extend(asked.map(|ticket| (line_of(ticket), Run::Asked(Some(ticket)))));
        runs
    }

    /// What an index has to hold: the packed records that still wait, and the other tickets.
    pub(crate) fn parts(&self) -> (&Packed, Vec<u32>, Vec<&Ticket>) {
        let here = self.lines.values().flat_map(BTreeMap::values).map(|ticket| &**ticket);
        (&self.packed, self.still_packed().collect(), here.collect())
    }
}

impl PartialEq for Queue {
    /// The same tickets wait; how they are kept does not matter.
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().all(|t| other.get(&t.id) == Some(t))
    }
}

/// Tickets of one line in the order of their age.
enum Run<'a> {
    Packed { packed: &'a Packed, gone: &'a BTreeSet<u32>, positions: Range<u32> },
    Here(btree_map::Values<'a, (Boottime, LeaseId), Arc<Ticket>>),
    Asked(Option<&'a Ticket>),
}

impl<'a> Iterator for Run<'a> {
    type Item = Head<'a>;

    fn next(&mut self) -> Option<Head<'a>> {
        match self {
            Self::Packed { packed, gone, positions } => {
                let waits = |position: &u32| !gone.contains(position);
                positions.find(waits).map(|position| Head::Packed(packed, position))
            }
            Self::Here(tickets) => tickets.next().map(|ticket| Head::Here(ticket)),
            Self::Asked(asked) => asked.take().map(Head::Here),
        }
    }
}

/// The ticket at the head of a run.
#[derive(Clone, Copy)]
enum Head<'a> {
    Packed(&'a Packed, u32),
    Here(&'a Ticket),
}

impl<'a> Head<'a> {
    fn ticket(self) -> &'a Ticket {
        match self {
            Self::Packed(packed, position) => packed.ticket(position),
            Self::Here(ticket) => ticket,
        }
    }

    fn turn(self, (_, priority): Line, usage: u64, now: Boottime) -> Turn<'a> {
        let (since, id) = match self {
            Self::Packed(packed, position) => (packed.entry(position).since, packed.id(position)),
            Self::Here(ticket) => (ticket.since, ticket.id.0.as_str()),
        };
        let class = match priority {
            Priority::High => 0,
            Priority::Normal => 1,
            Priority::Low => 2,
        };
        let aged = now.since(since).as_nanos() / AGEING_STEP.as_nanos();
        let class = class - i64::try_from(aged).unwrap_or(i64::MAX / 2);
        Turn { class, usage, since, id }
    }
}

/// A ticket's turn; the lowest is served first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Turn<'a> {
    /// 0 high, 1 normal, 2 low, less one for each [`AGEING_STEP`] waited.
    class: i64,
    /// Decayed GPU-seconds of the owner: who used less is served first.
    usage: u64,
    since: Boottime,
    id: &'a str,
}
