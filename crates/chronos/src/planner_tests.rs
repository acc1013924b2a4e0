//! The planner against its definition, instant by instant, on all kinds of tiny machines.

use std::collections::BTreeSet;

use super::*;
use crate::book::Event;
use crate::chance::Chance;
use crate::lease::{
    Binding, Lease, MemoryAsk, OnExpire, Owner, Phase, Priority, ProcessId, Vendor,
};

const TICKS: u64 = 40;

fn gpu(index: u32, links: Vec<u32>) -> Gpu {
    Gpu {
        id: GpuId(format!("G{index}")),
        index,
        name: "tiny".into(),
        vendor: Vendor::Declared,
        memory: Bytes::new(4),
        foreign: None,
        fault: None,
        links,
        nodes: Vec::new(),
    }
}

fn process() -> ProcessId {
    ProcessId { pid: 1, start: 1, namespace: 1 }
}

fn owner(uid: u32) -> Owner {
    Owner { uid, user: format!("u{uid}") }
}

fn now(tick: u64) -> Now {
    Now { boot: Boottime::from_nanos(tick), wall: gpu_autoscaler_model::Timestamp::EPOCH }
}

fn request(choice: Choice, memory: u64, ticks: u64) -> Request {
    Request {
        choice,
        memory: MemoryAsk::Size(Bytes::new(memory)),
        compute: None,
        duration: Span::from_nanos(ticks),
        priority: Priority::Normal,
        on_expire: OnExpire::Notify,
        grace: Span::ZERO,
        warn: None,
        warn_signal: None,
        name: None,
        reservation: None,
    }
}

fn ticket(number: u64, request: Request) -> Ticket {
    Ticket {
        id: LeaseId(format!("t_{number:04}")),
        owner: owner(number as u32),
        waiter: process(),
        request,
        since: Boottime::from_nanos(number),
        until: Boottime::from_nanos(u64::MAX),
        resumes: false,
        binding: Binding::Deadline,
    }
}

fn lease(number: u64, on: &Gpu, memory: u64, deadline: u64) -> Lease {
    let choice = Choice::These(vec![on.id.clone()]);
    Lease {
        id: LeaseId(format!("l_{number:04}")),
        owner: owner(99),
        creator: process(),
        parts: vec![Part {
            gpu: on.id.clone(),
            index: on.index,
            memory: Bytes::new(memory),
            fraction: Ppm::ZERO,
            compute: None,
        }],
        granted: Boottime::from_nanos(0),
        granted_wall: gpu_autoscaler_model::Timestamp::EPOCH,
        deadline: Boottime::from_nanos(deadline),
        request: request(choice, memory, deadline),
        phase: Phase::Active,
        attached: BTreeSet::new(),
        fenced: false,
        binding: Binding::Deadline,
        mover: None,
        warned: false,
        running_since: Boottime::default(),
        idle: Span::ZERO,
    }
}

fn book(events: Vec<Event>) -> Book {
    let opened = Event::Opened { boot: "b".into(), format: Book::FORMAT, serial: 0 };
    let mut book = Book::default();
    for event in std::iter::once(opened).chain(events) {
        book.apply(&event).unwrap();
    }
    book
}

/// One tick. A lease near its deadline is taken to stay for [`OVERDUE`] at least, so that a tick
/// is no shorter than that.
const TICK: u64 = OVERDUE.as_nanos();

/// Memory taken on each GPU at each tick.
struct Grid(Vec<Vec<u64>>);

impl Grid {
    fn fits(&self, gpu: usize, from: u64, ticks: u64, memory: u64) -> bool {
        (from..from + ticks).all(|tick| self.0[gpu][tick.min(TICKS * 4 - 1) as usize] + memory <= 4)
    }

    fn take(&mut self, gpu: usize, from: u64, ticks: u64, memory: u64) {
        for tick in from..(from + ticks).min(TICKS * 4) {
            self.0[gpu][tick as usize] += memory;
        }
    }

    /// The earliest tick at which `count` of `candidates` fit, by trying all.
    fn earliest(&self, candidates: &[usize], count: usize, ticks: u64, memory: u64) -> Option<u64> {
        (0..TICKS * 3).find(|from| {
            candidates.iter().filter(|gpu| self.fits(**gpu, *from, ticks, memory)).count() >= count
        })
    }
}

#[test]
fn every_promise_is_the_earliest_and_delays_nobody_before_it() {
    let mut chance = Chance::new(11);
    for round in 0..1_500 {
        let count = 1 + chance.below(4) as u32;
        let gpus: Vec<Gpu> = (0..count).map(|index| gpu(index, Vec::new())).collect();
        let mut events = Vec::new();
        let mut grid = Grid(vec![vec![0; (TICKS * 4) as usize]; gpus.len()]);
        for number in 0..chance.below(4) {
            let (on, memory) = (chance.below(gpus.len() as u64) as usize, 1 + chance.below(2));
            let ticks = 1 + chance.below(10);
            events.push(Event::Granted(Box::new(lease(number, &gpus[on], memory, ticks * TICK))));
            grid.take(on, 0, ticks, memory);
        }
        let mut asked = Vec::new();
        for number in 0..chance.below(6) {
            let (memory, ticks) = (1 + chance.below(4), 1 + chance.below(8));
            let choice = if chance.once_in(2) {
                let gang = 1 + chance.below(gpus.len() as u64) as u32;
                Choice::Any { count: gang, prefer: Vec::new() }
            } else {
                Choice::These(vec![gpus[chance.below(gpus.len() as u64) as usize].id.clone()])
            };
            let ticket = ticket(number, request(choice, memory, ticks * TICK));
            events.push(Event::Queued(Box::new(ticket.clone())));
            asked.push((ticket, memory, ticks));
        }
        // More leases than a GPU holds cannot have been granted.
        if grid.0.iter().flatten().any(|taken| *taken > 4) {
            continue;
        }
        let plan = plan(&book(events), &gpus, now(0), None);
        assert_eq!(plan.len(), asked.len());
        for (planned, (ticket, memory, ticks)) in plan.iter().zip(&asked) {
            assert_eq!(planned.id, ticket.id, "first come, first served");
            let candidates: Vec<usize> = match &ticket.request.choice {
                Choice::These(ids) => {
                    ids.iter().map(|id| gpus.iter().position(|g| g.id == *id).unwrap()).collect()
                }
                Choice::Any { .. } => (0..gpus.len()).collect(),
            };
            let wanted = ticket.request.choice.count();
            let brute = grid.earliest(&candidates, wanted, *ticks, *memory).unwrap();
            let (start, parts) = match &planned.verdict {
                Verdict::Now(parts) => (0, parts),
                Verdict::Later { start, parts } => (start.as_nanos() / TICK, parts),
                Verdict::Never(never) => panic!("round {round}: {never}"),
            };
            assert_eq!(start, brute, "round {round}: {}", ticket.id);
            assert_eq!(parts.len(), wanted);
            for part in parts {
                let gpu = part.index as usize;
                assert!(grid.fits(gpu, start, *ticks, *memory), "round {round}: over-commit");
                grid.take(gpu, start, *ticks, *memory);
            }
        }
    }
}

#[test]
fn a_gang_is_the_nearest_set_then_the_least_loaded() {
    let mut chance = Chance::new(3);
    for _ in 0..300 {
        let count = 2 + chance.below(5) as usize;
        let mut distance = vec![vec![0; count]; count];
        for pair in 0..count * count {
            let (a, b) = (pair / count, pair % count);
            if a < b {
                let far = chance.below(4) as u32;
                (distance[a][b], distance[b][a]) = (far, far);
            }
        }
        let gpus: Vec<Gpu> =
            (0..count).map(|index| gpu(index as u32, distance[index].clone())).collect();
        let wanted = 1 + chance.below(count as u64) as u32;
        let choice = Choice::Any { count: wanted, prefer: Vec::new() };
        let asked = ticket(0, request(choice, 1, 5));
        let plan = plan(&book(Vec::new()), &gpus, now(0), Some(&asked));
        let Verdict::Now(parts) = &plan[0].verdict else { panic!("an empty machine has room") };
        let cost = |set: &[usize]| -> u32 {
            let pairs = set.iter().flat_map(|a| set.iter().map(move |b| (*a, *b)));
            pairs.filter(|(a, b)| a < b).map(|(a, b)| distance[a][b]).sum()
        };
        let chosen: Vec<usize> = parts.iter().map(|part| part.index as usize).collect();
        let all = 0_u32..1 << count;
        let sets = all.filter(|set| set.count_ones() == wanted);
        let best = sets
            .map(|set| cost(&(0..count).filter(|i| set >> i & 1 == 1).collect::<Vec<_>>()))
            .min();
        assert_eq!(Some(cost(&chosen)), best, "{distance:?} {chosen:?}");
    }
}

#[test]
fn order_is_priority_then_usage_then_age_and_low_is_served_in_the_end() {
    let with = |number: u64, priority: Priority, since: u64| {
        let mut made = ticket(number, request(Choice::Any { count: 1, prefer: vec![] }, 1, 1));
        made.request.priority = priority;
        made.since = Boottime::from_nanos(since);
        made
    };
    let hours = |hours: u64| Span::from_secs(hours * 3_600).as_nanos();
    let waiting = [
        with(1, Priority::Low, hours(7)),
        with(2, Priority::High, hours(7)),
        with(3, Priority::Normal, hours(6)),
        with(4, Priority::Normal, hours(7)),
        // Seven hours old: three classes more urgent than it was.
        with(5, Priority::Low, 0),
    ];
    let queued = waiting.into_iter().map(|t| Event::Queued(Box::new(t)));
    let used = Event::Used { uid: 3, gpu_secs: 1e6, at: Boottime::from_nanos(hours(7)) };
    let book = book(queued.chain([used]).collect());
    let at = Boottime::from_nanos(hours(7));
    let order = book.tickets().first(None, &book.usages(at), at, usize::MAX);
    let order: Vec<u32> = order.iter().map(|ticket| ticket.owner.uid).collect();
    assert_eq!(order, [5, 2, 4, 3, 1], "user 3 used a million GPU-seconds");
}

#[test]
fn what_can_never_be_granted_says_why() {
    let mut gpus = vec![gpu(0, Vec::new()), gpu(1, Vec::new())];
    gpus[1].fault = Some("lost".into());
    gpus[0].foreign = Some(Bytes::new(3));
    let verdict = |choice, memory| {
        let asked = ticket(0, request(choice, memory, 5));
        plan(&book(Vec::new()), &gpus, now(0), Some(&asked)).remove(0).verdict
    };
    let these = |ids: &[&str]| Choice::These(ids.iter().map(|id| GpuId((*id).into())).collect());
    let any = |count| Choice::Any { count, prefer: Vec::new() };
    let never = |verdict| match verdict {
        Verdict::Never(never) => never.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(never(verdict(these(&["G7"]), 1)).contains("`G7` does not exist"));
    assert!(never(verdict(these(&["G1"]), 1)).contains("cannot be used: lost"));
    assert!(never(verdict(these(&["G0", "G0"]), 1)).contains("named twice"));
    assert!(never(verdict(any(2), 1)).contains("1 of 2 can be used"));
    assert!(never(verdict(any(1), 5)).contains("no more than 4 B are there on so many"));
    assert!(
        never(verdict(any(1), 2)).contains("outside every lease hold 3 B of the 4 B of GPU `G0`")
    );
    assert!(matches!(verdict(any(1), 1), Verdict::Now(_)));
}

#[test]
fn a_corrected_date_moves_the_calendar_onto_no_lease() {
    let gpus = [gpu(0, Vec::new())];
    let wall = |secs: i64| gpu_autoscaler_model::Timestamp::from_millis(secs * 1_000).unwrap();
    let id = crate::lease::ReservationId("reservation_1".into());
    let reservation = Reservation {
        id: id.clone(),
        owner: owner(0),
        parts: lease(0, &gpus[0], 3, 0).parts,
        start: wall(100),
        duration: Span::from_secs(10),
    };
    let held = lease(1, &gpus[0], 2, Span::from_secs(50).as_nanos());
    let book = book(vec![Event::Granted(Box::new(held)), Event::Reserved(Box::new(reservation))]);
    let mut claim = ticket(0, request(Choice::Any { count: 1, prefer: vec![] }, 3, 5));
    claim.request.reservation = Some(id);
    let at = |boot: u64, date: i64| Now {
        boot: Boottime::from_nanos(Span::from_secs(boot).as_nanos()),
        wall: wall(date),
    };
    let verdict = |now| plan(&book, &gpus, now, Some(&claim)).remove(0).verdict;
    assert!(matches!(verdict(at(0, 0)), Verdict::Later { .. }), "its window has not come");
    // The date jumps into the window while the lease still holds half.
    assert!(matches!(verdict(at(10, 105)), Verdict::Later { .. }), "over-commit");
}

fn verdict(book: &Book, gpus: &[Gpu], asked: &Ticket) -> Verdict {
    let plan = plan(book, gpus, now(0), Some(asked));
    plan.into_iter().find(|planned| planned.id == asked.id).unwrap().verdict
}

/// A job may use its grace: whoever comes after it is promised the time after that.
#[test]
fn a_promise_includes_the_grace_of_whoever_is_before_it() {
    let gpus = [gpu(0, Vec::new())];
    let all = |ticks| request(Choice::These(vec![gpus[0].id.clone()]), 4, ticks * TICK);
    let mut first = ticket(1, all(5));
    first.request.on_expire = OnExpire::Term;
    first.request.grace = Span::from_nanos(3 * TICK);
    let held = lease(0, &gpus[0], 4, 2 * TICK);
    let book = book(vec![Event::Granted(Box::new(held)), Event::Queued(Box::new(first.clone()))]);
    let Verdict::Later { start, .. } = verdict(&book, &gpus, &ticket(2, all(1))) else {
        panic!("the GPU is full");
    };
    assert_eq!(start.as_nanos() / TICK, 2 + 5 + 3);
}

#[test]
fn a_window_is_taken_up_by_nobody_but_its_owner() {
    let gpus = [gpu(0, Vec::new())];
    let id = crate::lease::ReservationId("reservation_1".into());
    let reservation = Reservation {
        id: id.clone(),
        owner: owner(1),
        parts: lease(0, &gpus[0], 3, 0).parts,
        start: gpu_autoscaler_model::Timestamp::EPOCH,
        duration: Span::from_secs(100),
    };
    let book = book(vec![Event::Reserved(Box::new(reservation))]);
    let claim = |number: u64| {
        let mut claim = ticket(number, request(Choice::Any { count: 1, prefer: vec![] }, 1, 5));
        claim.request.reservation = Some(id.clone());
        verdict(&book, &gpus, &claim)
    };
    assert!(matches!(claim(1), Verdict::Now(_)));
    assert!(matches!(claim(2), Verdict::Never(Never::NoSuchReservation { .. })));
}

fn chosen(gpus: &[Gpu], count: u32, prefer: &[usize]) -> Vec<u32> {
    let prefer = prefer.iter().map(|index| gpus[*index].id.clone()).collect();
    let asked = ticket(0, request(Choice::Any { count, prefer }, 1, 5));
    let Verdict::Now(parts) = verdict(&book(Vec::new()), gpus, &asked) else {
        panic!("an empty machine has room");
    };
    parts.iter().map(|part| part.index).collect()
}

#[test]
fn what_is_preferred_is_taken_before_what_is_near() {
    let islands = |count: u32, island: u32| -> Vec<Gpu> {
        let near = |a: u32, b: u32| if a / island == b / island { u32::from(a != b) } else { 10 };
        (0..count).map(|a| gpu(a, (0..count).map(|b| near(a, b)).collect())).collect()
    };
    let few = islands(4, 2);
    assert_eq!(chosen(&few, 1, &[2]), [2]);
    assert_eq!(chosen(&few, 2, &[1, 2]), [1, 2], "although they are far from each other");
    assert_eq!(chosen(&few, 2, &[3]), [2, 3], "the one that is preferred and the one near it");
    // 20 choose 4 is compared, 24 choose 8 is not: there it is grown from each GPU.
    let many = islands(24, 8);
    let island = |first: u32| (first..first + 8).collect::<Vec<u32>>();
    assert_eq!(chosen(&many, 8, &[]), island(0));
    assert_eq!(chosen(&many, 8, &[17]), island(16));
    let mut far_first = many.clone();
    for gpu in &mut far_first[..8] {
        gpu.links = gpu.links.iter().map(|link| link * 3).collect();
    }
    assert_eq!(chosen(&far_first, 8, &[]), island(8), "not the first island, which is spread");
}

#[test]
fn who_runs_now_has_used_something_and_waits_behind_who_has_not() {
    let gpus = [gpu(0, Vec::new())];
    let mut running = lease(0, &gpus[0], 4, Span::from_secs(1_000).as_nanos());
    running.owner = owner(1);
    running.parts[0].fraction = Ppm::WHOLE;
    let waits = |number| ticket(number, request(Choice::Any { count: 1, prefer: vec![] }, 4, 5));
    let events = [waits(1), waits(2)].map(|t| Event::Queued(Box::new(t)));
    let book = book([Event::Granted(Box::new(running))].into_iter().chain(events).collect());
    let then = now(Span::from_secs(500).as_nanos());
    let order: Vec<LeaseId> = plan(&book, &gpus, then, None).into_iter().map(|p| p.id).collect();
    assert_eq!(order, [waits(2).id, waits(1).id]);
}

/// Each of GPUs 0, 1 and 2 has a neighbor nearer than the other two: who grows a gang from the
/// nearest ends with a neighbor and a far one.
#[test]
fn a_gang_is_compared_with_all_others_where_there_are_few() {
    let distance = |a: u32, b: u32| match (a, b) {
        _ if a == b => 0,
        (0..3, 0..3) => 2,
        _ if a % 3 == b % 3 => 1,
        _ => 10,
    };
    let gpus: Vec<Gpu> = (0..6).map(|a| gpu(a, (0..6).map(|b| distance(a, b)).collect())).collect();
    assert_eq!(chosen(&gpus, 3, &[]), [0, 1, 2]);
}
