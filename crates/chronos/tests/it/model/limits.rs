//! What nobody gets around: policy, promises to others, and numbers that mean nothing, on the
//! machine in memory without any kill.

use super::*;
use chronos::lease::{Gpu, GpuId};
use chronos::refusal::Refusal;

const ANN: u32 = 1_000;
const BOB: u32 = 2_000;

/// A machine with GPUs of these sizes, where nothing fails.
fn machine(sizes: &[u64], checkpoints: bool) -> Run {
    let run = Run::new(1);
    let mut machine = run.machine.borrow_mut();
    let like = machine.gpus[0].clone();
    let gpu = |(index, size): (usize, &u64)| Gpu {
        id: GpuId(format!("GPU-{index}")),
        index: index as u32,
        memory: chronos::Bytes::new(*size),
        ..like.clone()
    };
    machine.gpus = sizes.iter().enumerate().map(gpu).collect();
    (machine.checkpoints, machine.flawless) = (checkpoints, true);
    drop(machine);
    run
}

fn engine(run: &Run) -> Engine<Actor> {
    Engine::new(Actor::new(&run.machine, None))
}

fn request(gpus: &[usize], percent: u32, secs: u64) -> Request {
    Request {
        choice: Choice::These(gpus.iter().map(|gpu| GpuId(format!("GPU-{gpu}"))).collect()),
        memory: MemoryAsk::Part(Ppm::new(percent * 10_000).unwrap()),
        compute: None,
        duration: Span::from_secs(secs),
        priority: Priority::Normal,
        on_expire: OnExpire::Term,
        grace: Span::ZERO,
        warn: None,
        warn_signal: None,
        name: None,
        reservation: None,
    }
}

fn wish(request: Request, caller: &Caller, wait: Option<u64>) -> Wish {
    let (binding, holder) = (Binding::Deadline, caller.process.clone());
    Wish { request, binding, wait: wait.map(Span::from_secs), holder }
}

fn create(run: &Run, uid: u32, rules: &Policy, request: Request) -> Result<Lease, Refusal> {
    let caller = run.caller(uid);
    match engine(run).create(&caller, rules, &wish(request, &caller, None)) {
        Ok(Answer::Granted(lease)) => Ok(*lease),
        Err(Error::Refused(refusal)) => Err(*refusal),
        other => panic!("{other:?}"),
    }
}

/// A lease whose job is suspended.
fn suspended(run: &Run, rules: &Policy, request: Request) -> Lease {
    let lease = create(run, ANN, rules, request).unwrap();
    let caller = run.caller(ANN);
    engine(run).attach(&caller, &lease.id, &caller.process, ANN).unwrap();
    engine(run).suspend(&run.caller(ANN), &lease.id).unwrap();
    run.machine.borrow().book().lease(&lease.id).unwrap().clone()
}

fn resume(run: &Run, rules: &Policy, lease: &Lease, secs: Option<u64>) -> Result<Lease, Refusal> {
    let again = Resumption { duration: secs.map(Span::from_secs), wait: None };
    match engine(run).resume(&run.caller(ANN), rules, &lease.id, &again) {
        Ok(Answer::Granted(lease)) => Ok(*lease),
        Err(Error::Refused(refusal)) => Err(*refusal),
        other => panic!("{other:?}"),
    }
}

fn extend(run: &Run, rules: &Policy, lease: &Lease, secs: u64) -> Result<Lease, Refusal> {
    let extended = engine(run).extend(&run.caller(ANN), rules, &lease.id, Span::from_secs(secs));
    extended.map_err(|error| match error {
        Error::Refused(refusal) => *refusal,
        other => panic!("{other}"),
    })
}

fn reserve(run: &Run, rules: &Policy, request: &Request, in_secs: i64) -> Result<(), Refusal> {
    let mut engine = engine(run);
    let start = engine.world().now().wall.as_millis() + in_secs * 1_000;
    let start = Timestamp::from_millis(start).unwrap();
    match engine.reserve(&run.caller(ANN), rules, request, start) {
        Ok(_) => Ok(()),
        Err(Error::Refused(refusal)) => Err(*refusal),
        Err(other) => panic!("{other}"),
    }
}

fn pass(run: &Run, secs: u64) {
    run.machine.borrow_mut().boot_nanos += secs * chronos::quantity::NANOS;
}

fn policy(text: &str) -> Policy {
    serde_json::from_str(&format!("{{\"default\": {{{text}}}}}")).unwrap()
}

/// What policy says no to, as `what asked limit`.
fn exceeded<T: std::fmt::Debug>(answer: Result<T, Refusal>) -> String {
    match answer {
        Err(Refusal::Policy { exceeded: e }) => format!("{} {} > {}", e.what, e.asked, e.limit),
        other => panic!("policy has nothing against it: {other:?}"),
    }
}

#[test]
fn no_lease_runs_for_longer_than_policy_says_in_whichever_way() {
    let rules = policy("\"maxDuration\": \"100s\", \"maxGrace\": \"10s\"");
    let run = machine(&[1_000], true);
    assert_eq!(
        exceeded(create(&run, ANN, &rules, request(&[0], 50, 101))),
        "duration 1m 41s > 1m 40s"
    );
    let patient = Request { grace: Span::from_secs(11), ..request(&[0], 50, 10) };
    assert_eq!(exceeded(create(&run, ANN, &rules, patient)), "grace 11s > 10s");
    let too_long = |said: String| {
        assert!(said.starts_with("duration 1m 4") && said.ends_with(" > 1m 40s"), "{said}");
    };
    let lease = suspended(&run, &rules, request(&[0], 50, 90));
    pass(&run, 3_600);
    too_long(exceeded(resume(&run, &rules, &lease, Some(101))));
    let lease = resume(&run, &rules, &lease, None).unwrap();
    pass(&run, 60);
    too_long(exceeded(extend(&run, &rules, &lease, 11)));
    // The hour for which it was suspended is not counted.
    extend(&run, &rules, &lease, 9).unwrap();
}

#[test]
fn who_has_used_up_a_share_gets_no_more_by_extending() {
    let run = machine(&[1_000], true);
    let lease = create(&run, ANN, &Policy::default(), request(&[0], 100, 7_200)).unwrap();
    pass(&run, 3_700);
    let rules = policy("\"gpuHours\": 1");
    assert_eq!(exceeded(extend(&run, &rules, &lease, 60)), "usage in GPU-hours 1.0 > 1.0");
    assert_eq!(
        exceeded(create(&run, ANN, &rules, request(&[0], 1, 60))),
        "usage in GPU-hours 1.0 > 1.0"
    );
}

#[test]
fn windows_of_the_calendar_count_and_are_taken_up_as_they_were_kept() {
    let rules = policy("\"maxLeases\": 2, \"maxMemory\": \"50%\", \"maxReserveAhead\": \"1h\"");
    let run = machine(&[1_000, 1_000], true);
    assert_eq!(
        exceeded(reserve(&run, &rules, &request(&[0], 50, 60), 7_200)),
        "time ahead 2h > 1h"
    );
    reserve(&run, &rules, &request(&[0], 50, 60), 600).unwrap();
    reserve(&run, &rules, &request(&[1], 50, 60), 0).unwrap();
    let third = reserve(&run, &rules, &request(&[0], 50, 60), 60);
    assert_eq!(exceeded(third), "number of leases 3 > 2");
    assert_eq!(exceeded(create(&run, ANN, &rules, request(&[0], 1, 60))), "number of leases 3 > 2");
    // Without a share of its own a request says all of a GPU, and means what was kept.
    let book = run.machine.borrow().book().clone();
    let kept = book.reservations().find(|r| r.parts[0].index == 1).unwrap().id.clone();
    let claim = Request { reservation: Some(kept), ..request(&[0], 100, 60) };
    let lease = create(&run, ANN, &rules, claim).unwrap();
    assert_eq!((lease.parts[0].index, lease.parts[0].memory.as_u64()), (1, 500));
}

#[test]
fn a_size_is_a_part_of_the_smallest_gpu_that_it_may_come_from() {
    let rules = policy("\"maxMemory\": \"50%\"");
    let run = machine(&[1_000, 400], true);
    let sized = |gpus: &[usize], size: u64| Request {
        memory: MemoryAsk::Size(chronos::Bytes::new(size)),
        ..request(gpus, 1, 60)
    };
    create(&run, ANN, &rules, sized(&[0], 500)).unwrap();
    assert_eq!(
        exceeded(create(&run, ANN, &rules, sized(&[1], 300))),
        "part of the memory 75% > 50%"
    );
    let any = Request { choice: Choice::Any { count: 1, prefer: vec![] }, ..sized(&[0], 300) };
    assert_eq!(exceeded(create(&run, ANN, &rules, any)), "part of the memory 75% > 50%");
}

/// A caller of the helper writes the request itself.
#[test]
fn a_request_that_no_tool_would_write_is_refused() {
    let part = |json: &str| serde_json::from_str::<MemoryAsk>(json).unwrap();
    let ppm = |json: &str| serde_json::from_str::<Ppm>(json).unwrap();
    let sane = request(&[0], 10, 60);
    let long = Some("x".repeat(129));
    let name = |text: &str| Request { name: Some(text.to_owned()), ..sane.clone() };
    let wrong = [
        Request { memory: part("{\"part\": 4294967295}"), ..sane.clone() },
        Request { memory: part("{\"part\": 0}"), ..sane.clone() },
        Request { memory: part("{\"size\": 0}"), ..sane.clone() },
        Request { compute: Some(ppm("0")), ..sane.clone() },
        Request { compute: Some(ppm("1000001")), ..sane.clone() },
        Request { duration: Span::ZERO, ..sane.clone() },
        Request { duration: Span::from_nanos(u64::MAX), ..sane.clone() },
        Request { grace: Span::from_nanos(u64::MAX), ..sane.clone() },
        Request { grace: Span::from_secs(3_601), ..sane.clone() },
        Request { warn: Some(Span::from_nanos(u64::MAX)), ..sane.clone() },
        Request { choice: Choice::These(Vec::new()), ..sane.clone() },
        Request { choice: Choice::Any { count: 0, prefer: Vec::new() }, ..sane.clone() },
        Request { name: long, ..sane.clone() },
        name("\u{1b}[31mred"),
        name("two\nlines"),
    ];
    let run = machine(&[1_000], true);
    for request in wrong {
        let refused = create(&run, ANN, &Policy::default(), request.clone()).unwrap_err();
        assert_eq!(refused.code(), "bad_input", "{request:?}: {refused}");
        assert!(!refused.to_string().contains(['\u{1b}', '\n']), "{refused}");
        let caller = run.caller(ANN);
        let suggested = engine(&run).suggest(
            &caller,
            &Policy::default(),
            &wish(request.clone(), &caller, None),
        );
        assert!(matches!(suggested, Err(Error::Refused(_))), "{request:?}");
        assert!(reserve(&run, &Policy::default(), &request, 60).is_err(), "{request:?}");
    }
    let lease = create(&run, ANN, &Policy::default(), name("night run ✓")).unwrap();
    for nanos in [0, u64::MAX] {
        let by = Span::from_nanos(nanos);
        let extended = engine(&run).extend(&run.caller(ANN), &Policy::default(), &lease.id, by);
        assert!(matches!(extended, Err(Error::Refused(r)) if r.code() == "bad_input"), "{nanos}");
    }
    // However often it is extended, its end is in sight.
    let year = 366 * 86_400;
    extend(&run, &Policy::default(), &lease, year - 100).unwrap();
    let refused = extend(&run, &Policy::default(), &lease, 100).unwrap_err();
    assert_eq!(refused.code(), "bad_input", "{refused}");
}

/// GPUs of one lease may have different sizes: half of each is not the same memory on each.
#[test]
fn a_lease_on_unequal_gpus_is_extended_and_resumed_with_what_it_has() {
    for (gpus, kept) in [([0, 1], 0), ([1, 0], 0), ([0, 1], 1), ([1, 0], 1)] {
        let (run, rules) = (machine(&[1_000, 500], true), Policy::default());
        let lease = create(&run, ANN, &rules, request(&gpus, 60, 100)).unwrap();
        let sizes: Vec<u64> = lease.parts.iter().map(|part| part.memory.as_u64()).collect();
        assert_eq!(sizes.iter().sum::<u64>(), 900);
        // 600 of 1,000 and 300 of 500 are taken: 40 % of each is left, and no more of neither.
        reserve(&run, &rules, &request(&[kept], 40, 100), 150).unwrap();
        let lease = extend(&run, &rules, &lease, 100).unwrap();
        reserve(&run, &rules, &request(&[kept], 50, 100), 350).unwrap();
        let refused = extend(&run, &rules, &lease, 200).unwrap_err();
        assert_eq!(refused.code(), "promised", "{gpus:?} {kept}: {refused}");
        // The same for one that gave its memory up meanwhile.
        let caller = run.caller(ANN);
        engine(&run).attach(&caller, &lease.id, &caller.process, ANN).unwrap();
        engine(&run).suspend(&run.caller(ANN), &lease.id).unwrap();
        let other = create(&run, BOB, &rules, request(&[kept], 45, 30)).unwrap();
        let refused = resume(&run, &rules, &lease, Some(60)).unwrap_err();
        assert_eq!(refused.code(), "no_capacity", "{gpus:?} {kept}: {refused}");
        let bob = run.caller(BOB);
        engine(&run).release(&bob, &other.id, EndReason::Released, None).unwrap();
        let again = resume(&run, &rules, &lease, Some(60)).unwrap();
        assert_eq!(again.parts, lease.parts);
        assert!(
            audit::check(run.machine.borrow().book().leases(), &run.machine.borrow().gpus)
                .is_empty()
        );
    }
}

/// A job that is stopped with its memory on the GPU takes the time of those who were promised it.
#[test]
fn time_runs_on_for_a_job_that_is_stopped_with_its_memory() {
    let (run, rules) = (machine(&[1_000], false), Policy::default());
    let grace = Span::from_secs(5);
    let lease = suspended(&run, &rules, Request { grace, ..request(&[0], 80, 100) });
    let Phase::Suspended { holds: true, until, .. } = lease.phase else { panic!("{lease:?}") };
    assert_eq!(until, lease.deadline.after(grace), "when its memory was to be free anyway");
    let bob = run.caller(BOB);
    let waits = engine(&run).create(&bob, &rules, &wish(request(&[0], 80, 60), &bob, Some(1_000)));
    let Ok(Answer::Waiting(ticket, Some(start))) = waits else { panic!("{waits:?}") };
    assert_eq!(start, until.since(ticket.since));
    pass(&run, 40);
    let refused = resume(&run, &rules, &lease, Some(61)).unwrap_err();
    assert_eq!(refused.code(), "promised", "{refused}");
    let again = resume(&run, &rules, &lease, None).unwrap();
    assert_eq!(again.deadline, lease.deadline, "what is left of its time is what was left before");
    engine(&run).suspend(&run.caller(ANN), &lease.id).unwrap();
    pass(&run, 65);
    engine(&run).settle(Diligence::Full).unwrap();
    let book = run.machine.borrow().book().clone();
    assert!(book.lease(&lease.id).is_none(), "it is over");
    assert!(book.lease(&ticket.id).is_some(), "who was promised its place has it");
}

/// Two of the three low leases have to go, and not the one on the other GPU.
#[test]
fn nobody_is_suspended_who_is_not_in_the_way() {
    let (run, rules) = (machine(&[1_000, 1_000], true), Policy::default());
    let low = |gpu: usize| {
        let asked = Request { priority: Priority::Low, ..request(&[gpu], 50, 1_000) };
        let lease = create(&run, ANN, &rules, asked).unwrap();
        let caller = run.caller(ANN);
        engine(&run).attach(&caller, &lease.id, &caller.process, ANN).unwrap();
        pass(&run, 1);
        lease.id
    };
    let (first, second, bystander) = (low(0), low(0), low(1));
    pass(&run, 3_600 / 60);
    let urgent = Request { priority: Priority::High, ..request(&[0], 100, 60) };
    let bob = run.caller(BOB);
    let asked = wish(urgent.clone(), &bob, None);
    let suggestion = engine(&run).suggest(&bob, &rules, &asked).unwrap();
    let mut victims = suggestion.preemption.expect("both can be suspended").victims;
    victims.sort();
    assert_eq!(victims, [first.clone(), second.clone()]);
    create(&run, BOB, &rules, urgent).unwrap();
    let book = run.machine.borrow().book().clone();
    assert_eq!(book.lease(&bystander).unwrap().phase, Phase::Active);
    for id in [first, second] {
        assert!(matches!(book.lease(&id).unwrap().phase, Phase::Suspended { holds: false, .. }));
    }
}

/// A low lease that gives way has a place in the queue that is not asked for by its owner.
#[test]
fn who_gives_way_may_ask_for_as_much_as_before() {
    let (run, rules) = (machine(&[1_000], true), policy("\"maxLeases\": 2"));
    let low = Request { priority: Priority::Low, ..request(&[0], 90, 1_000) };
    let lease = create(&run, ANN, &rules, low).unwrap();
    let caller = run.caller(ANN);
    engine(&run).attach(&caller, &lease.id, &caller.process, ANN).unwrap();
    pass(&run, 60);
    let urgent = Request { priority: Priority::High, ..request(&[0], 90, 60) };
    create(&run, BOB, &rules, urgent).unwrap();
    assert!(run.machine.borrow().book().ticket(&lease.id).is_some(), "it goes on by itself");
    create(&run, ANN, &rules, request(&[0], 5, 60)).unwrap();
    let third = create(&run, ANN, &rules, request(&[0], 5, 60));
    assert_eq!(exceeded(third), "number of leases 3 > 2");
}

#[test]
fn a_place_is_not_given_to_who_waits_no_more() {
    let (run, rules) = (machine(&[1_000], true), Policy::default());
    let lease = create(&run, ANN, &rules, request(&[0], 80, 600)).unwrap();
    let bob = run.caller(BOB);
    let waits = engine(&run).create(&bob, &rules, &wish(request(&[0], 80, 60), &bob, Some(600)));
    let Ok(Answer::Waiting(ticket, _)) = waits else { panic!("{waits:?}") };
    run.machine.borrow_mut().processes.remove(&bob.process.pid);
    let released =
        engine(&run).release(&run.caller(ANN), &lease.id, EndReason::Released, Some(Span::ZERO));
    assert_eq!(released.unwrap(), chronos::expiry::Release::Gone);
    let book = run.machine.borrow().book().clone();
    assert!(book.lease(&ticket.id).is_none() && book.ticket(&ticket.id).is_none());
}

/// Nobody can know how long it was held: not longer than it was granted for.
#[test]
fn a_lease_that_a_reboot_ended_is_billed_for_no_more_than_it_was_granted() {
    let (mut run, rules) = (machine(&[1_000], true), Policy::default());
    let short = create(&run, ANN, &rules, request(&[0], 50, 100)).unwrap();
    let long = create(&run, ANN, &rules, request(&[0], 50, 100_000)).unwrap();
    run.reboot();
    run.machine.borrow_mut().wall_offset += 3_600_000;
    create(&run, BOB, &rules, request(&[0], 50, 100)).unwrap();
    let machine = run.machine.borrow();
    let held = |lease: &Lease| machine.history[&lease.id].held_millis / 1_000;
    assert_eq!(held(&short), 100);
    assert!((3_500..=3_700).contains(&held(&long)), "{} s by the date", held(&long));
    assert_eq!(machine.history[&long.id].reason, EndReason::Rebooted);
}

#[test]
fn a_journal_is_as_long_as_what_is_live_and_not_as_what_was() {
    let (run, rules) = (machine(&[1_000], true), Policy::default());
    for _ in 0..100 {
        let lease = create(&run, ANN, &rules, request(&[0], 50, 100)).unwrap();
        let caller = run.caller(ANN);
        engine(&run).release(&caller, &lease.id, EndReason::Released, None).unwrap();
    }
    let machine = run.machine.borrow();
    let (_, journal) = machine.journal.as_ref().unwrap();
    let lines = journal.iter().filter(|byte| **byte == b'\n').count();
    assert!(lines <= 70, "{lines} lines of 300 that were written");
}

#[test]
fn a_job_that_is_only_told_of_its_deadline_outlives_its_lease() {
    let (run, rules) = (machine(&[1_000], true), Policy::default());
    let asked = Request { on_expire: OnExpire::Notify, ..request(&[0], 100, 10) };
    let lease = create(&run, ANN, &rules, asked).unwrap();
    let caller = run.caller(ANN);
    engine(&run).attach(&caller, &lease.id, &caller.process, ANN).unwrap();
    pass(&run, 11);
    engine(&run).settle(Diligence::Full).unwrap();
    assert!(run.machine.borrow().book().lease(&lease.id).is_none());
    let left = run.machine.borrow().processes.get(&caller.process.pid).map(|p| p.id.clone());
    assert_eq!(left, Some(caller.process), "it runs on, and is foreign");
    create(&run, BOB, &rules, request(&[0], 100, 10)).unwrap();
}

#[test]
fn a_window_that_nobody_takes_up_is_open_to_others_after_a_quarter_of_an_hour() {
    let (run, rules) = (machine(&[1_000], true), Policy::default());
    reserve(&run, &rules, &request(&[0], 100, 7_200), 60).unwrap();
    let due = |run: &Run| engine(run).settle(Diligence::Due).unwrap().due;
    pass(&run, 61);
    let refused = create(&run, BOB, &rules, request(&[0], 100, 60)).unwrap_err();
    assert_eq!(refused.code(), "no_capacity");
    let now = engine(&run).world().now().boot;
    let closed = due(&run).expect("a guard has something to wait for").since(now);
    assert!((890..=900).contains(&closed.as_secs_up()), "{closed}");
    pass(&run, 900);
    engine(&run).settle(Diligence::Due).unwrap();
    create(&run, BOB, &rules, request(&[0], 100, 60)).unwrap();
    assert_eq!(run.machine.borrow().calendar.len(), 0, "also on the disk");
}

#[test]
fn a_window_outlives_a_reboot() {
    let (mut run, rules) = (machine(&[1_000], true), Policy::default());
    reserve(&run, &rules, &request(&[0], 100, 7_200), 3_600).unwrap();
    run.reboot();
    create(&run, BOB, &rules, request(&[0], 100, 600)).unwrap();
    let refused = create(&run, ANN, &rules, request(&[0], 100, 7_200)).unwrap_err();
    assert_eq!(refused.code(), "no_capacity");
    let book = run.machine.borrow().book().clone();
    assert_eq!(book.reservations().next().map(|kept| kept.owner.uid), Some(ANN));
}

#[test]
fn nobody_pulls_a_process_of_another_user_into_a_lease() {
    let (run, rules) = (machine(&[1_000], true), Policy::default());
    let lease = create(&run, ANN, &rules, request(&[0], 50, 100)).unwrap();
    let (ann, bob) = (run.caller(ANN), run.caller(BOB));
    let attach = |caller: &Caller, process: &ProcessId, uid: u32| match engine(&run)
        .attach(caller, &lease.id, process, uid)
    {
        Err(Error::Refused(refusal)) => refusal.code(),
        Ok(_) => "done",
        Err(other) => panic!("{other}"),
    };
    assert_eq!(attach(&ann, &bob.process, BOB), "not_attachable");
    assert_eq!(attach(&bob, &bob.process, BOB), "not_yours");
    assert_eq!(attach(&ann, &ann.process, ANN), "done");
    assert_eq!(attach(&run.caller(0), &bob.process, BOB), "done");
}
