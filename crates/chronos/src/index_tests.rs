//! The index against the journal, and the queue's order against its definition.

use std::collections::BTreeMap;

use gpu_autoscaler_model::Timestamp;

use super::*;
use crate::book::Event;
use crate::chance::Chance;
use crate::lease::{
    Binding, Choice, EndReason, GpuId, LeaseId, MemoryAsk, OnExpire, Owner, Part, Phase, Priority,
    ProcessId, Request, ReservationId, Ticket,
};
use crate::quantity::{Ppm, Span};
use crate::queue::AGEING_STEP;

fn process(pid: u32) -> ProcessId {
    ProcessId { pid, start: 7, namespace: 4_026_531_836 }
}

fn at(secs: u64) -> Boottime {
    Boottime::from_nanos(secs * crate::quantity::NANOS)
}

/// A request in which every field that may be absent is there, or none is.
fn request(full: bool, priority: Priority) -> Request {
    let gpus = vec![GpuId("GPU-1".into())];
    Request {
        choice: if full { Choice::Any { count: 2, prefer: gpus } } else { Choice::These(gpus) },
        memory: MemoryAsk::Part(Ppm::WHOLE),
        compute: full.then_some(Ppm::WHOLE),
        duration: Span::from_secs(600),
        priority,
        on_expire: if full { OnExpire::Suspend } else { OnExpire::Term },
        grace: Span::from_secs(10),
        warn: full.then_some(Span::from_secs(60)),
        warn_signal: full.then_some(crate::lease::WarnSignal::Usr1),
        name: full.then(|| "train".to_owned()),
        reservation: full.then(|| ReservationId("reservation_1_0001".into())),
    }
}

fn ticket(number: u64, uid: u32, priority: Priority, since: u64) -> Ticket {
    Ticket {
        id: LeaseId::mint(9, Timestamp::EPOCH, number),
        owner: Owner { uid, user: format!("u{uid}") },
        waiter: process(9),
        request: request(number.is_multiple_of(2), priority),
        since: at(since),
        until: at(since + 50_000 + number % 7),
        resumes: false,
        binding: Binding::Creator,
    }
}

fn lease(number: u64, full: bool) -> Lease {
    let part = Part {
        gpu: GpuId("GPU-1".into()),
        index: 1,
        memory: gpu_autoscaler_model::Bytes::new(5 << 30),
        fraction: Ppm::WHOLE,
        compute: full.then_some(Ppm::WHOLE),
    };
    Lease {
        id: LeaseId::mint(8, Timestamp::EPOCH, number),
        owner: Owner { uid: 1_000, user: "ann".into() },
        creator: process(8),
        parts: vec![part],
        granted: at(5),
        granted_wall: Timestamp::EPOCH,
        deadline: at(605),
        request: request(full, Priority::Normal),
        phase: if full {
            let (reason, kill_at) = (EndReason::Expired, at(615));
            Phase::Ending { reason, kill_at, told: true, holds: true }
        } else {
            Phase::Active
        },
        attached: if full { [process(3)].into() } else { [].into() },
        fenced: full,
        binding: Binding::Deadline,
        mover: full.then(|| process(8)),
        running_since: Boottime::from_nanos(6),
        idle: Span::ZERO,
        warned: full,
    }
}

fn book(events: impl IntoIterator<Item = Event>) -> Book {
    let mut book = Book::default();
    let opened = Event::Opened { boot: "b".into(), format: Book::FORMAT, serial: 3 };
    for event in std::iter::once(opened).chain(events) {
        book.apply(&event).unwrap();
    }
    book
}

fn small() -> Book {
    book([
        Event::Used { uid: 1_000, gpu_secs: 12.5, at: at(4) },
        Event::Granted(Box::new(lease(0, false))),
        Event::Granted(Box::new(lease(1, true))),
        Event::Queued(Box::new(ticket(2, 1_000, Priority::Low, 9))),
        Event::Queued(Box::new(ticket(3, 1_001, Priority::High, 8))),
    ])
}

const MARK: Mark = Mark { file: 77, length: 4_321 };

#[test]
fn an_index_gives_the_book_and_its_place_back() {
    let index = read(write(&small(), MARK, 6)).unwrap();
    assert_eq!((index.mark, index.lines), (MARK, 6));
    assert_eq!(index.book, small());
    // Again, now that its tickets are packed.
    assert_eq!(read(write(&index.book, MARK, 6)).unwrap().book, small());
}

#[test]
fn a_damaged_index_is_not_used() {
    let whole = write(&small(), MARK, 6);
    for byte in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[byte] ^= 1 << (byte % 8);
        assert!(read(damaged).is_none(), "byte {byte}");
        assert!(read(whole[..byte].to_vec()).is_none(), "cut at {byte}");
    }
}

/// An index is read by the version that wrote it only. When this test fails, the form of a lease, a
/// ticket or the index itself has changed: count `LAYOUT` up and write the new sum here.
#[test]
fn the_layout_is_known() {
    let bytes = write(&small(), MARK, 6);
    assert_eq!((LAYOUT, crc32c(&bytes[HEAD..])), (4, 0x66a3_eaa9));
}

/// Tickets come and go; from time to time the queue is packed. It always holds the same tickets,
/// in the order of the definition, as one that never was.
#[test]
fn a_packed_queue_is_the_same_queue() {
    for seed in 0..60 {
        let mut chance = Chance::new(seed);
        let (mut packed, mut plain) = (book([]), book([]));
        let mut waiting: Vec<Ticket> = Vec::new();
        for number in 0..120 {
            if chance.below(3) > 0 || waiting.is_empty() {
                let uid = 1_000 + chance.below(3) as u32;
                let priority =
                    [Priority::High, Priority::Normal, Priority::Low][chance.below(3) as usize];
                let ticket = ticket(number, uid, priority, chance.below(40_000));
                let event = Event::Queued(Box::new(ticket.clone()));
                for book in [&mut packed, &mut plain] {
                    book.apply(&event).unwrap();
                }
                waiting.push(ticket);
            } else {
                let gone = waiting.swap_remove(chance.below(waiting.len() as u64) as usize);
                let event = Event::Left { id: gone.id };
                for book in [&mut packed, &mut plain] {
                    book.apply(&event).unwrap();
                }
                assert!(packed.apply(&event).is_err(), "it left already");
            }
            if chance.once_in(10) {
                packed = read(write(&packed, MARK, 1)).unwrap().book;
            }
            let asked = ticket(900, 1_000, Priority::Normal, 41_000);
            compare(&packed, &plain, &waiting, chance.below(130) as usize, &asked);
        }
    }
}

fn compare(packed: &Book, plain: &Book, waiting: &[Ticket], count: usize, asked: &Ticket) {
    assert_eq!(packed, plain);
    let now = at(41_000);
    let used = BTreeMap::from([(1_000, 5.0), (1_001, 5.9), (1_002, 7.0)]);
    for asked in [None, Some(asked)] {
        let expected = by_definition(waiting, asked, &used, now, count);
        for book in [packed, plain] {
            let first = book.tickets().first(asked, &used, now, count);
            let names: Vec<&str> = first.iter().map(|t| t.id.0.as_str()).collect();
            assert_eq!(names, expected);
        }
    }
    let until = at(80_000);
    let mut late = packed.tickets().given_up(until);
    late.sort();
    let mut expected: Vec<LeaseId> =
        waiting.iter().filter(|t| t.until <= until).map(|t| t.id.clone()).collect();
    expected.sort();
    assert_eq!(late, expected);
    assert_eq!(packed.tickets().next_until(), waiting.iter().map(|t| t.until).min());
    let of_user = waiting.iter().filter(|t| t.owner.uid == 1_001).count();
    assert_eq!(packed.tickets().asked_by(1_001), of_user);
}

/// Everybody sorted by class, usage, age and name; what was asked is last if it is not among the
/// first.
fn by_definition<'a>(
    waiting: &'a [Ticket],
    asked: Option<&'a Ticket>,
    used: &BTreeMap<u32, f64>,
    now: Boottime,
    count: usize,
) -> Vec<&'a str> {
    let mut all: Vec<&Ticket> = waiting.iter().chain(asked).collect();
    all.sort_by_key(|ticket| {
        let steps = now.since(ticket.since).as_nanos() / AGEING_STEP.as_nanos();
        let class = ticket.request.priority as i64 - steps as i64;
        (class, used[&ticket.owner.uid] as u64, ticket.since, &ticket.id)
    });
    let beyond = all.split_off(count.min(all.len()));
    all.extend(beyond.into_iter().filter(|ticket| asked.is_some_and(|a| a.id == ticket.id)));
    all.into_iter().map(|ticket| ticket.id.0.as_str()).collect()
}
