//! What events make of a lease, one by one.

use super::*;
use crate::lease::{Binding, Choice, GpuId, MemoryAsk, OnExpire, Owner, Part, Priority, Request};
use crate::quantity::Ppm;

const MINUTE: u64 = 60;

fn at(secs: u64) -> Boottime {
    Boottime::from_nanos(Span::from_secs(secs).as_nanos())
}

/// A lease of a tenth of a GPU's memory and half of its compute, for a minute from second 0.
fn lease() -> Lease {
    let gpu = GpuId("G0".into());
    let memory = gpu_autoscaler_model::Bytes::new(10);
    Lease {
        id: LeaseId("partition_1_1_0000".into()),
        owner: Owner { uid: 7, user: "ann".into() },
        creator: ProcessId { pid: 1, start: 1, namespace: 1 },
        parts: vec![Part {
            gpu: gpu.clone(),
            index: 0,
            memory,
            fraction: Ppm::new(100_000).unwrap(),
            compute: Ppm::new(500_000),
        }],
        granted: at(0),
        granted_wall: Timestamp::EPOCH,
        deadline: at(MINUTE),
        request: Request {
            choice: Choice::These(vec![gpu]),
            memory: MemoryAsk::Size(memory),
            compute: Ppm::new(500_000),
            duration: Span::from_secs(MINUTE),
            priority: Priority::Normal,
            on_expire: OnExpire::Term,
            grace: Span::from_secs(5),
            warn: Some(Span::from_secs(10)),
            warn_signal: None,
            name: None,
            reservation: None,
        },
        phase: Phase::Active,
        attached: std::collections::BTreeSet::new(),
        fenced: false,
        binding: Binding::Deadline,
        mover: None,
        warned: false,
        running_since: at(0),
        idle: Span::ZERO,
    }
}

fn book(events: impl IntoIterator<Item = Event>) -> Book {
    let mut book = Book::default();
    let opened = Event::Opened { boot: "b".into(), format: Book::FORMAT, serial: 0 };
    for event in [opened, Event::Granted(Box::new(lease()))].into_iter().chain(events) {
        book.apply(&event).unwrap();
    }
    book
}

fn id() -> LeaseId {
    lease().id
}

#[test]
fn the_larger_of_two_shares_is_what_is_used() {
    assert!((gpu_secs(&lease(), at(40)) - 20.0).abs() < 1e-9, "half of the compute for 40 s");
    let memory_only = || {
        let mut lease = lease();
        lease.parts[0].compute = None;
        lease
    };
    assert!((gpu_secs(&memory_only(), at(40)) - 4.0).abs() < 1e-9);
    let ended = book([
        Event::Ending { id: id(), reason: EndReason::Released, kill_at: at(40) },
        Event::Ended { id: id(), at: at(40) },
    ]);
    assert!((ended.usage(7, at(40)) - 20.0).abs() < 1e-9);
    let day_later = at(40 + USAGE_HALF_LIFE.as_secs_up());
    assert!((ended.usage(7, day_later) - 10.0).abs() < 1e-3, "half of it is forgotten in a day");
}

#[test]
fn a_deadline_that_is_moved_is_warned_of_again() {
    let warned = Event::Warned { id: id() };
    let warned = book([warned.clone(), Event::Extended { id: id(), deadline: at(2 * MINUTE) }]);
    assert_eq!(warned.lease(&id()).unwrap().warn_at(), Some(at(2 * MINUTE - 10)));
}

#[test]
fn a_second_release_is_sooner_or_changes_nothing() {
    let ending = |secs| Event::Ending { id: id(), reason: EndReason::Released, kill_at: at(secs) };
    let kill_at = |events: Vec<Event>| match book(events).lease(&id()).unwrap().phase {
        Phase::Ending { kill_at, .. } => kill_at,
        ref other => panic!("{other:?}"),
    };
    assert_eq!(kill_at(vec![ending(20), ending(30)]), at(20));
    assert_eq!(kill_at(vec![ending(20), ending(10)]), at(10));
}

#[test]
fn time_without_memory_on_the_gpu_is_neither_used_nor_counted() {
    let suspended = Event::Suspended {
        id: id(),
        holds: false,
        until: at(100_000),
        left: Span::from_secs(MINUTE - 20),
    };
    let paused = book([suspended.clone()]);
    let lease = paused.lease(&id()).unwrap();
    assert!((gpu_secs(lease, at(1_000)) - 10.0).abs() < 1e-9, "20 s of it");
    assert_eq!(lease.remaining(at(1_000)), Span::from_secs(40));
    assert_eq!(lease.holds_until(), None);
    let resumed = Event::Resumed { id: id(), deadline: at(1_040), by: None, at: at(1_000) };
    let running = book([suspended, resumed]);
    let lease = running.lease(&id()).unwrap();
    assert!((gpu_secs(lease, at(1_040)) - 30.0).abs() < 1e-9, "20 s and 40 s");
    assert_eq!(lease.length(), Span::from_secs(MINUTE));
}
