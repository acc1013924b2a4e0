//! The order in which waiting tickets are served.

use std::collections::BTreeMap;

use crate::book::Book;
use crate::lease::{LeaseId, Priority, Ticket};
use crate::quantity::{Boottime, Span};

/// How long a ticket waits until it counts as one class more urgent.
///
/// With three classes, a low ticket is ahead of every new high one after six hours.
pub const AGEING_STEP: Span = Span::from_secs(2 * 3_600);

/// A ticket's turn; the lowest is served first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Turn<'a> {
    /// 0 high, 1 normal, 2 low, less one for each [`AGEING_STEP`] waited.
    class: i64,
    /// Decayed GPU-seconds of the owner: who used less is served first.
    usage: u64,
    since: Boottime,
    id: &'a LeaseId,
}

/// Waiting tickets of the book in their order of service.
pub fn order(book: &Book, now: Boottime) -> Vec<&Ticket> {
    order_of(book, book.tickets(), now)
}

/// The order of service of `tickets`, by the usage that the book knows.
pub fn order_of<'a>(
    book: &Book,
    tickets: impl Iterator<Item = &'a Ticket>,
    now: Boottime,
) -> Vec<&'a Ticket> {
    let mut usage: BTreeMap<u32, u64> = BTreeMap::new();
    let mut turns: Vec<(Turn<'a>, &Ticket)> = tickets
        .map(|ticket| {
            let uid = ticket.owner.uid;
            // Whole GPU-seconds: a float would order users by noise.
            let used = *usage.entry(uid).or_insert_with(|| book.usage(uid, now) as u64);
            (turn(ticket, used, now), ticket)
        })
        .collect();
    turns.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    turns.into_iter().map(|(_, ticket)| ticket).collect()
}

fn turn(ticket: &Ticket, usage: u64, now: Boottime) -> Turn<'_> {
    let class = match ticket.request.priority {
        Priority::High => 0,
        Priority::Normal => 1,
        Priority::Low => 2,
    };
    let aged = now.since(ticket.since).as_nanos() / AGEING_STEP.as_nanos();
    let class = class - i64::try_from(aged).unwrap_or(i64::MAX / 2);
    Turn { class, usage, since: ticket.since, id: &ticket.id }
}
