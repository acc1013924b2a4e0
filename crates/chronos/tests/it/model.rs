//! A machine in memory on which the engine is killed at random steps.
//!
//! Every call of [`World`] is a step. The process that makes it may be killed before its effect,
//! after it, or in the middle of a write; while a caller waits for the lock or for a process,
//! another caller may run. Four properties are checked after every operation, and at the end the
//! machine is left alone with one guard until nothing is due.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use chronos::audit;
use chronos::book::{Book, Epitaph};
use chronos::chance::Chance;
use chronos::engine::{Answer, Engine, Error, Wish};
use chronos::expiry::Diligence;
use chronos::index;
use chronos::journal;
use chronos::lease::{
    Binding, Choice, EndReason, Gpu, GpuId, Lease, LeaseId, MemoryAsk, OnExpire, Owner, Phase,
    Priority, ProcessId, Request, Reservation, Vendor, WarnSignal,
};
use chronos::policy::{Caller, Policy};
use chronos::quantity::{Boottime, Now, Ppm, Span};
use chronos::world::{Mark, Room, Signal, Suspension, Tail, Unsuspendable, World};
use gpu_autoscaler_model::{Bytes, Timestamp};

mod day;

/// What ends an operation early.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
enum Fault {
    #[error("killed")]
    Killed,
    #[error("no space left")]
    Full,
}

#[derive(Clone, Debug)]
struct Process {
    id: ProcessId,
    /// The lease whose tree it belongs to, which is the truth that signals are held to.
    tree: Option<LeaseId>,
    ignores_term: bool,
    stopped: bool,
}

/// What the kernel and the disk hold.
struct Machine {
    boot_nanos: u64,
    wall_offset: i64,
    boot: u64,
    journal: Option<(u64, Vec<u8>)>,
    index: Option<Vec<u8>>,
    /// Whether it is restarted now and then.
    reboots: bool,
    /// Lines after which an index is made.
    index_after: usize,
    /// What the whole lines of the journal make, and how many bytes they are. Kept up with every
    /// write, because the properties are checked after every operation.
    truth: (Book, usize),
    files: u64,
    locked: bool,
    processes: BTreeMap<u32, Process>,
    /// Callers that live, by their start.
    actors: BTreeSet<u64>,
    starts: u64,
    fences: BTreeSet<LeaseId>,
    fenced: bool,
    checkpoints: bool,
    history: BTreeMap<LeaseId, Epitaph>,
    calendar: Vec<Reservation>,
    gpus: Vec<Gpu>,
    chance: Chance,
    foreign_signals: Vec<String>,
    /// A process that outlived its lease.
    escaped: Option<String>,
    depth: u32,
    kills: u64,
    steps: u64,
}

type Shared = Rc<RefCell<Machine>>;

/// One process that uses the engine.
struct Actor {
    machine: Shared,
    own: ProcessId,
    /// Steps left until it is killed.
    fuse: Option<u64>,
    dead: bool,
    holds_lock: bool,
}

const PIDS: u64 = 40;

/// Numbers of callers are above those of other processes.
const ACTORS: u32 = 1_000;

impl Machine {
    fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let gpu = |index: u32| Gpu {
            id: GpuId(format!("GPU-{index}")),
            index,
            name: "model".into(),
            vendor: Vendor::Declared,
            memory: Bytes::new(1_000),
            foreign: None,
            fault: None,
            links: Vec::new(),
            nodes: Vec::new(),
        };
        let count = 1 + chance.below(3) as u32;
        Self {
            boot_nanos: 1_000_000_000,
            wall_offset: 1_800_000_000_000,
            boot: 1,
            journal: None,
            index: None,
            reboots: true,
            index_after: 1 + chance.below(12) as usize,
            truth: (Book::default(), 0),
            files: 0,
            locked: false,
            processes: BTreeMap::new(),
            actors: BTreeSet::new(),
            starts: 0,
            fences: BTreeSet::new(),
            fenced: chance.once_in(2),
            checkpoints: chance.once_in(2),
            history: BTreeMap::new(),
            calendar: Vec::new(),
            gpus: (0..count).map(gpu).collect(),
            chance,
            foreign_signals: Vec::new(),
            escaped: None,
            depth: 0,
            kills: 0,
            steps: 0,
        }
    }

    /// A new process under a number that may have belonged to another one.
    fn spawn(&mut self, tree: Option<LeaseId>) -> ProcessId {
        loop {
            let pid = 1 + self.chance.below(PIDS) as u32;
            if self.processes.contains_key(&pid) && self.processes.len() < PIDS as usize {
                continue;
            }
            self.starts += 1;
            let id = ProcessId { pid, start: self.starts, namespace: 1 };
            let ignores_term = self.chance.once_in(2);
            let process = Process { id: id.clone(), tree, ignores_term, stopped: false };
            self.processes.insert(pid, process);
            return id;
        }
    }

    fn exit_one(&mut self) {
        let pids: Vec<u32> = self.processes.keys().copied().collect();
        if let Some(pid) = pids.get(self.chance.below(pids.len() as u64) as usize) {
            self.processes.remove(pid);
        }
    }

    /// Reads what was written beyond the lines that are known.
    fn follow(&mut self) {
        let (book, length) = &mut self.truth;
        let (_, bytes) = self.journal.as_ref().expect("something was written");
        *length += journal::read(&bytes[*length..], book)
            .expect("the journal is whole but for its last line");
    }

    /// The book that the journal makes; of another boot it is void.
    fn book(&self) -> &Book {
        static NONE: std::sync::LazyLock<Book> = std::sync::LazyLock::new(Book::default);
        let (book, _) = &self.truth;
        if book.boot() == self.boot.to_string() { book } else { &NONE }
    }
}

impl Actor {
    fn new(machine: &Shared, fuse: Option<u64>) -> Self {
        let mut kernel = machine.borrow_mut();
        kernel.starts += 1;
        let start = kernel.starts;
        kernel.actors.insert(start);
        let own = ProcessId { pid: ACTORS + start as u32, start, namespace: 1 };
        Self { machine: Rc::clone(machine), own, fuse, dead: false, holds_lock: false }
    }

    /// One step: the world may move, and the caller may die before it.
    fn step(&mut self) -> Result<(), Fault> {
        if self.dead {
            return Err(Fault::Killed);
        }
        let mut machine = self.machine.borrow_mut();
        machine.steps += 1;
        machine.boot_nanos += machine.chance.below(2_000_000);
        if machine.chance.once_in(200) {
            machine.exit_one();
        }
        if machine.chance.once_in(100) {
            machine.spawn(None);
        }
        drop(machine);
        match &mut self.fuse {
            Some(0) => self.die(),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn die(&mut self) -> Result<(), Fault> {
        self.dead = true;
        let mut machine = self.machine.borrow_mut();
        machine.kills += 1;
        machine.actors.remove(&self.own.start);
        if self.holds_lock {
            machine.locked = false;
        }
        Err(Fault::Killed)
    }

    /// Lets another caller run while this one waits.
    fn yield_to_others(&mut self) {
        let mut machine = self.machine.borrow_mut();
        if machine.locked || machine.depth >= 2 || !machine.chance.once_in(6) {
            return;
        }
        machine.depth += 1;
        let fuse = machine.chance.once_in(3).then(|| machine.chance.below(30));
        drop(machine);
        let mut guard = Engine::new(Actor::new(&self.machine, fuse));
        let settled = guard.settle(Diligence::Full);
        expect_fault(settled.map(|_| ()));
        self.machine.borrow_mut().depth -= 1;
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        if let Ok(mut machine) = self.machine.try_borrow_mut() {
            machine.actors.remove(&self.own.start);
        }
    }
}

fn expect_fault(result: Result<(), Error<Fault>>) {
    match result {
        Ok(()) | Err(Error::World(_) | Error::Refused(_)) => {}
        Err(Error::Journal(error)) => panic!("{error}"),
    }
}

impl World for Actor {
    type Fault = Fault;

    fn now(&mut self) -> Now {
        let machine = self.machine.borrow();
        let wall = machine.wall_offset + (machine.boot_nanos / 1_000_000) as i64;
        Now {
            boot: Boottime::from_nanos(machine.boot_nanos),
            wall: Timestamp::from_millis(wall).expect("in range"),
        }
    }

    fn boot(&mut self) -> Result<String, Fault> {
        self.step()?;
        Ok(self.machine.borrow().boot.to_string())
    }

    fn lock(&mut self) -> Result<(), Fault> {
        self.yield_to_others();
        self.step()?;
        let mut machine = self.machine.borrow_mut();
        assert!(!machine.locked, "the engine waits for a lock that it holds itself");
        machine.locked = true;
        self.holds_lock = true;
        Ok(())
    }

    fn unlock(&mut self) {
        if self.holds_lock && !self.dead {
            self.machine.borrow_mut().locked = false;
        }
        self.holds_lock = false;
        if !self.dead {
            self.yield_to_others();
        }
    }

    fn read(&mut self, from: Mark) -> Result<Tail, Fault> {
        self.step()?;
        let machine = self.machine.borrow();
        let Some((file, bytes)) = &machine.journal else {
            return Ok(Tail { file: 0, bytes: Vec::new() });
        };
        let start = if *file == from.file { from.length as usize } else { 0 };
        Ok(Tail { file: *file, bytes: bytes.get(start..).unwrap_or_default().to_vec() })
    }

    fn append(&mut self, at: Mark, bytes: &[u8], room: Room) -> Result<(), Fault> {
        assert!(self.dead || self.holds_lock, "a write without the lock");
        let torn = self.step().err();
        let full =
            torn.is_none() && room == Room::Keep && self.machine.borrow_mut().chance.once_in(400);
        let mut machine = self.machine.borrow_mut();
        let cut = machine.chance.below(bytes.len() as u64 + 1) as usize;
        let written = if torn.is_some() || full { cut } else { bytes.len() };
        if torn.is_some() && machine.chance.once_in(2) {
            return Err(Fault::Killed);
        }
        let (_, journal) = machine.journal.as_mut().expect("begun before it is appended to");
        journal.truncate(at.length as usize);
        journal.extend_from_slice(&bytes[..written]);
        assert!(machine.truth.1 as u64 <= at.length, "a whole line was cut off");
        machine.follow();
        torn.or(full.then_some(Fault::Full)).map_or(Ok(()), Err)
    }

    fn replace(&mut self, bytes: &[u8]) -> Result<Mark, Fault> {
        assert!(self.dead || self.holds_lock, "a write without the lock");
        self.step()?;
        let mut machine = self.machine.borrow_mut();
        machine.files += 1;
        let file = machine.files;
        machine.journal = Some((file, bytes.to_vec()));
        machine.truth = (Book::default(), 0);
        machine.follow();
        Ok(Mark { file, length: bytes.len() as u64 })
    }

    fn index(&mut self) -> Result<Option<(u64, Vec<u8>)>, Fault> {
        self.step()?;
        let machine = self.machine.borrow();
        Ok(machine.journal.as_ref().and_then(|(file, _)| Some((*file, machine.index.clone()?))))
    }

    fn index_after(&self) -> usize {
        self.machine.borrow().index_after
    }

    fn keep_index(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        assert!(self.dead || self.holds_lock, "a write without the lock");
        self.step()?;
        self.machine.borrow_mut().index = Some(bytes.to_vec());
        Ok(())
    }

    fn remove_index(&mut self) -> Result<(), Fault> {
        assert!(self.dead || self.holds_lock, "a write without the lock");
        self.step()?;
        self.machine.borrow_mut().index = None;
        Ok(())
    }

    fn gpus(&mut self) -> Result<Vec<Gpu>, Fault> {
        self.step()?;
        Ok(self.machine.borrow().gpus.clone())
    }

    fn fence(&mut self, lease: &Lease) -> Result<bool, Fault> {
        self.step()?;
        let mut machine = self.machine.borrow_mut();
        if machine.fenced {
            machine.fences.insert(lease.id.clone());
        }
        Ok(machine.fenced)
    }

    fn refence(&mut self, _lease: &Lease) -> Result<(), Fault> {
        self.step()
    }

    fn unfence(&mut self, id: &LeaseId) -> Result<(), Fault> {
        self.step()?;
        let mut machine = self.machine.borrow_mut();
        let spared = machine.book().lease(id).is_some_and(|lease| {
            let expired = matches!(lease.phase, Phase::Ending { reason: EndReason::Expired, .. });
            lease.request.on_expire == OnExpire::Notify && expired
        });
        let mut inside = machine.processes.values().filter(|p| p.tree.as_ref() == Some(id));
        if let Some(left) = inside.next().filter(|_| !spared) {
            machine.escaped = Some(format!("{left:?} of {id}"));
        }
        machine.fences.remove(id);
        for process in machine.processes.values_mut().filter(|p| p.tree.as_ref() == Some(id)) {
            process.tree = None;
        }
        Ok(())
    }

    fn fences(&mut self) -> Result<Vec<LeaseId>, Fault> {
        self.step()?;
        Ok(self.machine.borrow().fences.iter().cloned().collect())
    }

    fn enclose(&mut self, lease: &Lease, process: &ProcessId) -> Result<(), Fault> {
        self.step()?;
        let mut machine = self.machine.borrow_mut();
        if let Some(process) = machine.processes.get_mut(&process.pid).filter(|p| p.id == *process)
        {
            process.tree = Some(lease.id.clone());
        }
        Ok(())
    }

    fn members(&mut self, lease: &Lease) -> Result<Vec<ProcessId>, Fault> {
        self.step()?;
        let machine = self.machine.borrow();
        let of_tree = machine.processes.values().filter(|p| p.tree.as_ref() == Some(&lease.id));
        Ok(of_tree.map(|p| p.id.clone()).collect())
    }

    fn signal(&mut self, lease: &Lease, to: &[ProcessId], signal: Signal) -> Result<(), Fault> {
        for process in to {
            self.step()?;
            let mut machine = self.machine.borrow_mut();
            let Some(found) = machine.processes.get(&process.pid).cloned() else { continue };
            // The handle is opened and compared before it is used.
            if found.id != *process {
                continue;
            }
            if found.tree.as_ref() != Some(&lease.id) {
                let what = format!("{signal:?} to {found:?} for {}", lease.id);
                machine.foreign_signals.push(what);
            }
            if matches!(signal, Signal::Warn(_)) {
                continue;
            }
            if signal == Signal::Kill || (!found.ignores_term && !found.stopped) {
                machine.processes.remove(&process.pid);
            }
        }
        Ok(())
    }

    fn own(&mut self) -> Result<ProcessId, Fault> {
        self.step()?;
        Ok(self.own.clone())
    }

    fn checkpoints(&mut self) -> bool {
        self.machine.borrow().checkpoints
    }

    fn alive(&mut self, process: &ProcessId) -> bool {
        let machine = self.machine.borrow();
        if process.pid > ACTORS {
            return machine.actors.contains(&process.start);
        }
        machine.processes.get(&process.pid).is_some_and(|found| found.id == *process)
    }

    fn await_exit(&mut self, _processes: &[ProcessId], until: Boottime) -> Result<(), Fault> {
        assert!(!self.holds_lock, "a wait with the lock held");
        self.yield_to_others();
        self.step()?;
        let mut machine = self.machine.borrow_mut();
        machine.boot_nanos = machine.boot_nanos.max(until.as_nanos());
        Ok(())
    }

    fn suspend(
        &mut self,
        _lease: &Lease,
        members: &[ProcessId],
    ) -> Result<Result<Suspension, Unsuspendable>, Fault> {
        self.step()?;
        let mut machine = self.machine.borrow_mut();
        if machine.chance.once_in(4) {
            return Ok(Err(Unsuspendable("the driver refuses".into())));
        }
        for member in members {
            if let Some(found) = machine.processes.get_mut(&member.pid).filter(|p| p.id == *member)
            {
                found.stopped = true;
            }
        }
        let how = if machine.checkpoints { Suspension::Checkpointed } else { Suspension::Frozen };
        Ok(Ok(how))
    }

    fn resume(&mut self, _lease: &Lease, members: &[ProcessId]) -> Result<(), Fault> {
        self.step()?;
        let mut machine = self.machine.borrow_mut();
        for member in members {
            if let Some(found) = machine.processes.get_mut(&member.pid).filter(|p| p.id == *member)
            {
                found.stopped = false;
            }
        }
        Ok(())
    }

    fn bury(&mut self, epitaph: &Epitaph) -> Result<(), Fault> {
        self.step()?;
        self.machine.borrow_mut().history.insert(epitaph.id.clone(), epitaph.clone());
        Ok(())
    }

    fn used(&mut self) -> Result<Vec<(u32, f64, Timestamp)>, Fault> {
        self.step()?;
        let machine = self.machine.borrow();
        Ok(machine.history.values().map(|line| (line.uid, line.gpu_secs, line.ended)).collect())
    }

    fn calendar(&mut self) -> Result<Vec<Reservation>, Fault> {
        self.step()?;
        Ok(self.machine.borrow().calendar.clone())
    }

    fn keep_calendar(&mut self, reservations: &[Reservation]) -> Result<(), Fault> {
        self.step()?;
        self.machine.borrow_mut().calendar = reservations.to_vec();
        Ok(())
    }
}

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

    /// One operation by one process, which is killed at a random step in two of three.
    fn operate(&mut self) {
        let fuse = (self.below(3) > 0).then(|| self.below(28));
        let mut engine = Engine::new(Actor::new(&self.machine, fuse));
        let everything = Policy::default();
        let what = self.below(14);
        let target = self.some_lease();
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
                engine.resume(&caller, &lease.id, None, wait).map(|_| ())
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
        for _ in 0..2_000 {
            match guard.settle(Diligence::Full) {
                Ok(watch) => {
                    let mut machine = self.machine.borrow_mut();
                    let book = machine.book();
                    if book.leases().len() + book.tickets().len() == 0 {
                        drop(machine);
                        return self.nothing_left();
                    }
                    let moving = |l: &Lease| l.phase == Phase::Active && l.mover.is_some();
                    if let Some(left) = book.leases().find(|l| moving(l)) {
                        return Err(format!("nobody lets the job of {} run", left.id));
                    }
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
    run(20_269_479).unwrap_or_else(|why| panic!("{why}"));
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
    let share = |thread: u64| {
        let (mut kills, mut steps, mut machines) = (0, 0, 0);
        while kills < times.div_ceil(threads) {
            let seed = first.wrapping_add(thread + machines * threads);
            let result =
                std::panic::catch_unwind(|| run(seed)).unwrap_or_else(|_| Err("panic".into()));
            let (k, s) = result.unwrap_or_else(|why| panic!("seed={seed}: {why}"));
            (kills, steps, machines) = (kills + k, steps + s, machines + 1);
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
