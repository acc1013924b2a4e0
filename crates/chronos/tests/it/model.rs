//! A machine in memory on which the engine is killed at random steps.
//!
//! Every call of [`World`] is a step. The process that makes it may be killed before its effect,
//! after it, or in the middle of a write; while a caller waits for the lock or for a process,
//! another caller may run. Four properties are checked after every operation, and at the end the
//! machine is left alone with one guard until nothing is due.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use chronos::audit;
use chronos::engine::{Answer, Engine, Error, Wish};
use chronos::expiry::Diligence;
use chronos::index;
use chronos::journal;
use chronos::lease::{
    Binding, Choice, EndReason, Lease, LeaseId, MemoryAsk, OnExpire, Owner, Phase, Priority,
    ProcessId, Request, Ticket, WarnSignal,
};
use chronos::policy::{Caller, Policy};
use chronos::quantity::{Boottime, Ppm, Span};
use chronos::suspension::Resumption;
use chronos::world::World;
use gpu_autoscaler_model::Timestamp;

mod day;
mod limits;
mod machine;

use machine::{Actor, Fault, Machine, Process, Shared, expect_fault};

/// A lease that its owner was told of.
struct Acknowledged {
    deadline: Boottime,
    creator: ProcessId,
    bound: bool,
    may_end: bool,
}

struct Run {
    machine: Shared,
    acknowledged: BTreeMap<LeaseId, Acknowledged>,
    serial_seen: u64,
}

impl Run {
    fn new(seed: u64) -> Self {
        let machine = Rc::new(RefCell::new(Machine::new(seed)));
        Self { machine, acknowledged: BTreeMap::new(), serial_seen: 0 }
    }

    fn below(&self, bound: u64) -> u64 {
        self.machine.borrow_mut().chance.below(bound)
    }

    fn caller(&self, uid: u32) -> Caller {
        let process = self.machine.borrow_mut().spawn(None);
        Caller { owner: Owner { uid, user: format!("u{uid}") }, groups: Vec::new(), process }
    }

    fn request(&self) -> Request {
        let gpus = self.machine.borrow().gpus.clone();
        let count = 1 + self.below(gpus.len() as u64);
        let choice = if self.below(2) == 0 {
            Choice::Any { count: count as u32, prefer: Vec::new() }
        } else {
            Choice::These(gpus.iter().take(count as usize).map(|gpu| gpu.id.clone()).collect())
        };
        let priority = [Priority::High, Priority::Normal, Priority::Low][self.below(3) as usize];
        let on_expire =
            [OnExpire::Term, OnExpire::Suspend, OnExpire::Notify][self.below(3) as usize];
        Request {
            choice,
            memory: MemoryAsk::Part(Ppm::new(1 + self.below(1_000_000) as u32).unwrap()),
            compute: (self.below(4) == 0).then(|| Ppm::new(self.below(1_000_000) as u32).unwrap()),
            duration: Span::from_secs(1 + self.below(100)),
            priority,
            on_expire,
            grace: Span::from_secs(self.below(5)),
            warn: (self.below(2) == 0).then(|| Span::from_secs(1 + self.below(20))),
            warn_signal: (self.below(2) == 0).then_some(WarnSignal::Usr1),
            name: None,
            reservation: None,
        }
    }

    fn some_lease(&self) -> Option<Lease> {
        let count = self.machine.borrow().book().leases().len() as u64;
        let chosen = self.below(count) as usize;
        self.machine.borrow().book().leases().nth(chosen).cloned()
    }

    fn urgent_ticket(&self) -> Option<Ticket> {
        let machine = self.machine.borrow();
        let urgent = |t: &&Ticket| t.request.priority == Priority::High;
        machine.book().tickets().iter().find(urgent).cloned()
    }

    /// One operation by one process, which is killed at a random step in two of three.
    fn operate(&mut self) {
        let fuse = (self.below(3) > 0).then(|| self.below(28));
        let mut engine = Engine::new(Actor::new(&self.machine, fuse));
        let everything = Policy::default();
        let what = self.below(14);
        let target = self.some_lease();
        let urgent = self.urgent_ticket();
        let result = match (what, target) {
            (0..4, _) => {
                let caller = self.caller(1_000 + self.below(3) as u32);
                let bound = self.below(3) == 0;
                let wish = Wish {
                    request: self.request(),
                    binding: if bound { Binding::Creator } else { Binding::Deadline },
                    wait: (self.below(2) == 0).then(|| Span::from_secs(self.below(60))),
                    holder: caller.process.clone(),
                };
                let answer = engine.create(&caller, &everything, &wish);
                answer.map(|answer| self.acknowledge(&answer))
            }
            (4, Some(lease)) => {
                if let Some(known) = self.acknowledged.get_mut(&lease.id) {
                    known.may_end = true;
                }
                let caller = self.caller(lease.owner.uid);
                let grace = (self.below(2) == 0).then_some(Span::ZERO);
                engine.release(&caller, &lease.id, EndReason::Released, grace).map(|_| ())
            }
            (5, Some(lease)) => {
                let caller = self.caller(lease.owner.uid);
                let by = Span::from_secs(1 + self.below(30));
                engine.extend(&caller, &everything, &lease.id, by).map(|longer| {
                    if let Some(known) = self.acknowledged.get_mut(&longer.id) {
                        known.deadline = longer.deadline;
                    }
                })
            }
            (6 | 7, Some(lease)) => {
                let caller = self.caller(lease.owner.uid);
                let process = self.machine.borrow_mut().spawn(None);
                let uid = lease.owner.uid;
                engine.attach(&caller, &lease.id, &process, uid).map(|_| ())
            }
            (8, Some(lease)) => {
                let caller = self.caller(lease.owner.uid);
                engine.suspend(&caller, &lease.id).map(|_| ())
            }
            (9, Some(lease)) => {
                let caller = self.caller(lease.owner.uid);
                let wait = (self.below(2) == 0).then_some(Span::from_secs(20));
                let duration = lease.parts.first().is_some_and(|part| part.index > 0);
                // No draw, so that a seed goes on meaning what it meant.
                let duration = duration.then(|| Span::from_secs(1 + lease.granted.as_nanos() % 60));
                let now = engine.world().now().boot;
                let known = self.acknowledged.get_mut(&lease.id);
                if let (Some(known), Some(duration)) = (known, duration) {
                    // Its owner may make it shorter, also by an order that is killed.
                    known.deadline = known.deadline.min(now.after(duration));
                }
                let again = Resumption { duration, wait };
                engine.resume(&caller, &everything, &lease.id, &again).map(|_| ())
            }
            (10, _) => {
                let caller = self.caller(1_000);
                let start = engine.world().now().wall.as_millis() + self.below(120_000) as i64;
                let start = Timestamp::from_millis(start).unwrap();
                let request = self.request();
                engine.reserve(&caller, &everything, &request, start).map(|_| ())
            }
            (11, _) if self.below(40) == 0 && self.machine.borrow().reboots => {
                self.reboot();
                Ok(())
            }
            (12, _) => {
                // The date is set back a year, or forward.
                let offset = [-31_536_000_000, 31_536_000_000][self.below(2) as usize];
                self.machine.borrow_mut().wall_offset += offset;
                engine.settle(Diligence::Due).map(|_| ())
            }
            (13, _) if urgent.is_some() => {
                let ticket = urgent.expect("it is some");
                let caller = self.caller(ticket.owner.uid);
                engine.preempt_for(&caller, &ticket.id)
            }
            _ => engine.settle(Diligence::Full).map(|_| ()),
        };
        expect_fault(result);
        let pass = self.below(20_000_000_000);
        self.machine.borrow_mut().boot_nanos += if self.below(4) == 0 { pass } else { 0 };
    }

    fn acknowledge(&mut self, answer: &Answer) {
        if let Answer::Granted(lease) = answer {
            let known = Acknowledged {
                deadline: lease.deadline,
                creator: lease.creator.clone(),
                bound: lease.binding == Binding::Creator,
                may_end: false,
            };
            self.acknowledged.insert(lease.id.clone(), known);
        }
    }

    fn reboot(&mut self) {
        let mut machine = self.machine.borrow_mut();
        machine.boot += 1;
        machine.boot_nanos = 1_000_000_000;
        machine.processes.clear();
        machine.actors.clear();
        machine.fences.clear();
        machine.locked = false;
        drop(machine);
        // Leases of the boot before are void by definition.
        self.acknowledged.clear();
        self.serial_seen = 0;
    }

    /// The book from the index, if there is one, and the lines after it is the book from all lines.
    fn check_index(&self) -> Result<(), String> {
        let machine = self.machine.borrow();
        let Some(index) = &machine.index else { return Ok(()) };
        let mut read = index::read(index.clone()).ok_or("the index cannot be read")?;
        let (file, bytes) = machine.journal.as_ref().ok_or("an index without a journal")?;
        if read.mark.file != *file {
            return Err("an index of another journal".into());
        }
        let rest = &bytes[read.mark.length as usize..];
        journal::read(rest, &mut read.book).map_err(|e| format!("after the index: {e}"))?;
        if read.book == machine.truth.0 {
            Ok(())
        } else {
            Err("the index is of another book".into())
        }
    }

    /// The properties that hold at every instant.
    fn check(&mut self) -> Result<(), String> {
        self.check_index()?;
        let machine = self.machine.borrow();
        if let Some(signal) = machine.foreign_signals.first() {
            return Err(format!("a foreign process was signalled: {signal}"));
        }
        if let Some(escaped) = &machine.escaped {
            return Err(format!("a process outlived its lease: {escaped}"));
        }
        let book = machine.book();
        if let Some(over) = audit::check(book.leases(), &machine.gpus).first() {
            return Err(format!("over-commit: {over}"));
        }
        let now = machine.boot_nanos;
        let alive = |id: &ProcessId| machine.processes.get(&id.pid).is_some_and(|p| p.id == *id);
        let mut ended = Vec::new();
        for (id, known) in &self.acknowledged {
            if book.lease(id).is_some() {
                continue;
            }
            let over = known.deadline.as_nanos() <= now;
            let legitimate = known.may_end || over || (known.bound && !alive(&known.creator));
            if !legitimate {
                return Err(format!("lease {id} was acknowledged and is lost"));
            }
            if !machine.history.contains_key(id) {
                return Err(format!("lease {id} ended without a line in the history"));
            }
            ended.push(id.clone());
        }
        let lost_unfenced = machine.fenced
            && book.leases().any(|l| l.phase == Phase::Active && !machine.fences.contains(&l.id));
        if lost_unfenced {
            return Err("a live lease has no fence".into());
        }
        for lease in book.leases() {
            let mut tree =
                machine.processes.values().filter(|p| p.tree.as_ref() == Some(&lease.id));
            match lease.phase {
                Phase::Active if lease.mover.is_none() && tree.any(|p| p.stopped) => {
                    return Err(format!("lease {} is active and its job is stopped", lease.id));
                }
                Phase::Suspended { holds: false, .. } if tree.any(|p| !p.stopped) => {
                    return Err(format!("lease {} holds no memory and its job runs", lease.id));
                }
                _ => {}
            }
        }
        drop(machine);
        for id in ended {
            self.acknowledged.remove(&id);
        }
        Ok(())
    }

    /// Leaves the machine to one guard until nothing is due: then nothing may be left.
    fn end(&mut self) -> Result<(), String> {
        let mut guard = Engine::new(Actor::new(&self.machine, None));
        let mut seen: Vec<(LeaseId, ProcessId)> = Vec::new();
        for _ in 0..2_000 {
            match guard.settle(Diligence::Full) {
                Ok(watch) => {
                    let mut machine = self.machine.borrow_mut();
                    let book = machine.book();
                    if book.leases().len() + book.tickets().len() == 0 {
                        drop(machine);
                        return self.nothing_left();
                    }
                    // One that was killed since this guard looked is taken up when it looks again.
                    let moving = |l: &Lease| Some((l.id.clone(), l.mover.clone()?));
                    let active = book.leases().filter(|l| l.phase == Phase::Active);
                    let left: Vec<(LeaseId, ProcessId)> = active.filter_map(moving).collect();
                    if let Some((id, mover)) = left.iter().find(|moving| seen.contains(moving)) {
                        return Err(format!("{mover:?} is gone and nobody lets {id} run"));
                    }
                    seen = left;
                    let due = watch.due.ok_or("a lease lives and nothing is due")?;
                    machine.boot_nanos = machine.boot_nanos.max(due.as_nanos());
                }
                Err(Error::World(Fault::Full)) => {}
                Err(error) => return Err(format!("the guard failed: {error}")),
            }
        }
        let machine = self.machine.borrow();
        let book = machine.book();
        Err(format!("leases never end: {:?}", book.leases().map(|l| &l.phase).collect::<Vec<_>>()))
    }

    fn nothing_left(&self) -> Result<(), String> {
        let machine = self.machine.borrow();
        if let Some(escaped) = &machine.escaped {
            return Err(format!("a process outlived its lease: {escaped}"));
        }
        let left: Vec<&Process> = machine.processes.values().filter(|p| p.tree.is_some()).collect();
        if !left.is_empty() {
            return Err(format!("processes outlived their lease: {left:?}"));
        }
        if !machine.fences.is_empty() {
            return Err(format!("fences outlived their lease: {:?}", machine.fences));
        }
        Ok(())
    }
}

/// One machine of 40 operations; returns the number of kills and of steps.
fn run(seed: u64) -> Result<(u64, u64), String> {
    let mut run = Run::new(seed);
    for _ in 0..40 {
        run.operate();
        run.check()?;
    }
    run.end()?;
    let machine = run.machine.borrow();
    Ok((machine.kills, machine.steps))
}

#[test]
fn what_a_user_used_is_remembered_across_a_reboot() {
    let mut run = Run::new(1);
    let mut engine = Engine::new(Actor::new(&run.machine, None));
    let (caller, rules) = (run.caller(1_000), Policy::default());
    let request = Request {
        memory: MemoryAsk::Part(Ppm::WHOLE),
        compute: None,
        duration: Span::from_secs(3_600),
        ..run.request()
    };
    let (binding, holder) = (Binding::Deadline, caller.process.clone());
    let wish = Wish { request, binding, wait: None, holder };
    let Answer::Granted(lease) = engine.create(&caller, &rules, &wish).unwrap() else {
        panic!("an empty machine has room");
    };
    run.machine.borrow_mut().boot_nanos += 1_000 * 1_000_000_000;
    engine.release(&caller, &lease.id, EndReason::Released, None).unwrap();
    let gpus = lease.parts.len() as f64;
    let used = |run: &Run| {
        let machine = run.machine.borrow();
        machine.book().usage(1_000, Boottime::from_nanos(machine.boot_nanos))
    };
    let before = used(&run);
    assert!((1_000.0 * gpus..1_020.0 * gpus).contains(&before), "{before} GPU-seconds");
    run.reboot();
    // Half a day by the date, half of the half-life.
    run.machine.borrow_mut().wall_offset += 43_200_000;
    let mut engine = Engine::new(Actor::new(&run.machine, None));
    // The first grant of a boot begins its book.
    let other = run.caller(2_000);
    engine.create(&other, &rules, &wish).unwrap();
    let after = used(&run) / before;
    assert!((0.69..0.72).contains(&after), "{after} of it are left after half a day");
}

/// Usage came back from its text with another last digit.
#[test]
fn the_book_that_is_read_is_the_book_that_was_written() {
    for seed in [604, 889, 20_261_312] {
        run(seed).unwrap_or_else(|why| panic!("seed={seed}: {why}"));
    }
}

/// A suspension that the full disk had no room for left the job stopped and its guard waiting for
/// itself.
#[test]
fn a_suspension_that_cannot_be_recorded_lets_the_job_run() {
    for seed in [20_262_051, 20_266_290, 20_269_479, 20_271_094] {
        run(seed).unwrap_or_else(|why| panic!("seed={seed}: {why}"));
    }
}

/// Asking twice to resume the same lease was an impossible journal.
#[test]
fn a_lease_may_be_asked_for_twice() {
    for seed in [1_231, 2_594] {
        run(seed).unwrap_or_else(|why| panic!("seed={seed}: {why}"));
    }
}

#[test]
fn four_properties_hold_at_random_kill_points() {
    let (first, times) = (crate::seed(1), crate::times(3_000));
    let began = std::time::Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
    let (all_kills, tenth) = (AtomicU64::new(0), times.div_ceil(10));
    let share = |thread: u64| {
        let (mut kills, mut steps, mut machines) = (0, 0, 0);
        while kills < times.div_ceil(threads) {
            let seed = first.wrapping_add(thread + machines * threads);
            let result =
                std::panic::catch_unwind(|| run(seed)).unwrap_or_else(|_| Err("panic".into()));
            let (k, s) = result.unwrap_or_else(|why| panic!("seed={seed}: {why}"));
            (kills, steps, machines) = (kills + k, steps + s, machines + 1);
            let before = all_kills.fetch_add(k, Ordering::Relaxed);
            if (before + k) / tenth > before / tenth {
                eprintln!("model: {} of {times} kills", before + k);
            }
        }
        (kills, steps, machines)
    };
    let sums = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|t| scope.spawn(move || share(t))).collect();
        workers.into_iter().map(|w| w.join().expect("the properties hold")).collect::<Vec<_>>()
    });
    let (kills, steps, machines) =
        sums.into_iter().fold((0, 0, 0), |a, b| (a.0 + b.0, a.1 + b.1, a.2 + b.2));
    println!(
        "model: seed={first} kills={kills} steps={steps} machines={machines} secs={:.1} violations=0",
        began.elapsed().as_secs_f64()
    );
}
