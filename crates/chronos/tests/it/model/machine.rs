//! The machine of the model: what its kernel and its disk hold, and a process that uses the engine on
//! it, whose every call may be its last.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use chronos::book::{Book, Epitaph};
use chronos::chance::Chance;
use chronos::engine::{Engine, Error};
use chronos::expiry::Diligence;
use chronos::journal;
use chronos::lease::{
    EndReason, Gpu, GpuId, Lease, LeaseId, OnExpire, Phase, ProcessId, Reservation, Vendor,
};
use chronos::quantity::{Boottime, Now, Span};
use chronos::world::{Mark, Room, Signal, Tail, Unsuspendable, World};
use gpu_autoscaler_model::{Bytes, Timestamp};

/// What ends an operation early.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("killed")]
    Killed,
    #[error("no space left")]
    Full,
}

#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) id: ProcessId,
    /// The lease whose tree it belongs to, which is the truth that signals are held to.
    pub(super) tree: Option<LeaseId>,
    pub(super) ignores_term: bool,
    pub(super) stopped: bool,
}

/// What the kernel and the disk hold.
pub(super) struct Machine {
    pub(super) boot_nanos: u64,
    pub(super) wall_offset: i64,
    pub(super) boot: u64,
    pub(super) journal: Option<(u64, Vec<u8>)>,
    pub(super) index: Option<Vec<u8>>,
    /// Whether it is restarted now and then.
    pub(super) reboots: bool,
    /// Lines after which an index is made.
    pub(super) index_after: usize,
    /// What the whole lines of the journal make, and how many bytes they are. Kept up with every
    /// write, because the properties are checked after every operation.
    pub(super) truth: (Book, usize),
    pub(super) files: u64,
    pub(super) locked: bool,
    pub(super) processes: BTreeMap<u32, Process>,
    /// Callers that live, by their start.
    pub(super) actors: BTreeSet<u64>,
    pub(super) starts: u64,
    pub(super) fences: BTreeSet<LeaseId>,
    pub(super) fenced: bool,
    pub(super) checkpoints: bool,
    /// Whether nothing happens to it but what a test does.
    pub(super) flawless: bool,
    /// How long a lease is spared from preemption.
    pub(super) exempt: Span,
    pub(super) history: BTreeMap<LeaseId, Epitaph>,
    pub(super) calendar: Vec<Reservation>,
    pub(super) gpus: Vec<Gpu>,
    pub(super) chance: Chance,
    pub(super) foreign_signals: Vec<String>,
    /// A process that outlived its lease.
    pub(super) escaped: Option<String>,
    pub(super) depth: u32,
    pub(super) kills: u64,
    pub(super) steps: u64,
}

pub(super) type Shared = Rc<RefCell<Machine>>;

/// One process that uses the engine.
pub(super) struct Actor {
    pub(super) machine: Shared,
    pub(super) own: ProcessId,
    /// Steps left until it is killed.
    pub(super) fuse: Option<u64>,
    pub(super) dead: bool,
    pub(super) holds_lock: bool,
}

pub(super) const PIDS: u64 = 40;

/// Numbers of callers are above those of other processes.
pub(super) const ACTORS: u32 = 1_000;

impl Machine {
    pub(super) fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        // No draw, so that a seed goes on meaning what it meant.
        let size = |index: u32| if seed % 5 == 3 { 1_000 - 300 * u64::from(index) } else { 1_000 };
        let gpu = |index: u32| Gpu {
            id: GpuId(format!("GPU-{index}")),
            index,
            name: "model".into(),
            vendor: Vendor::Declared,
            memory: Bytes::new(size(index)),
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
            flawless: false,
            exempt: Span::from_secs(seed % 3 * 10),
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
    pub(super) fn spawn(&mut self, tree: Option<LeaseId>) -> ProcessId {
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

    /// Whether something goes wrong, once in `n`.
    fn mishap(&mut self, n: u64) -> bool {
        !self.flawless && self.chance.once_in(n)
    }

    pub(super) fn exit_one(&mut self) {
        let pids: Vec<u32> = self.processes.keys().copied().collect();
        if let Some(pid) = pids.get(self.chance.below(pids.len() as u64) as usize) {
            self.processes.remove(pid);
        }
    }

    /// Reads what was written beyond the lines that are known.
    pub(super) fn follow(&mut self) {
        let (book, length) = &mut self.truth;
        let (_, bytes) = self.journal.as_ref().expect("something was written");
        *length += journal::read(&bytes[*length..], book)
            .expect("the journal is whole but for its last line");
    }

    /// The book that the journal makes; of another boot it is void.
    pub(super) fn book(&self) -> &Book {
        static NONE: std::sync::LazyLock<Book> = std::sync::LazyLock::new(Book::default);
        let (book, _) = &self.truth;
        if book.boot() == self.boot.to_string() { book } else { &NONE }
    }
}

impl Actor {
    pub(super) fn new(machine: &Shared, fuse: Option<u64>) -> Self {
        let mut kernel = machine.borrow_mut();
        kernel.starts += 1;
        let start = kernel.starts;
        kernel.actors.insert(start);
        let own = ProcessId { pid: ACTORS + start as u32, start, namespace: 1 };
        Self { machine: Rc::clone(machine), own, fuse, dead: false, holds_lock: false }
    }

    /// One step: the world may move, and the caller may die before it.
    pub(super) fn step(&mut self) -> Result<(), Fault> {
        if self.dead {
            return Err(Fault::Killed);
        }
        let mut machine = self.machine.borrow_mut();
        machine.steps += 1;
        machine.boot_nanos += machine.chance.below(2_000_000);
        if machine.mishap(200) {
            machine.exit_one();
        }
        if machine.mishap(100) {
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

    pub(super) fn die(&mut self) -> Result<(), Fault> {
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
    pub(super) fn yield_to_others(&mut self) {
        let mut machine = self.machine.borrow_mut();
        if machine.locked || machine.depth >= 2 || !machine.mishap(6) {
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

pub(super) fn expect_fault(result: Result<(), Error<Fault>>) {
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
        let full = torn.is_none() && room == Room::Keep && self.machine.borrow_mut().mishap(400);
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

    fn preempt_exempt_time(&self) -> Span {
        self.machine.borrow().exempt
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

    fn unload(&mut self, _members: &[ProcessId]) -> Result<bool, Fault> {
        assert!(!self.holds_lock, "GPU memory is moved with the lock held");
        self.step()?;
        Ok(self.machine.borrow().checkpoints)
    }

    fn stop(
        &mut self,
        _lease: &Lease,
        members: &[ProcessId],
    ) -> Result<Result<(), Unsuspendable>, Fault> {
        assert!(self.holds_lock, "a process is stopped that may hold the lock");
        self.step()?;
        let mut machine = self.machine.borrow_mut();
        if machine.mishap(4) {
            return Ok(Err(Unsuspendable("they do not stop".into())));
        }
        for member in members {
            if let Some(found) = machine.processes.get_mut(&member.pid).filter(|p| p.id == *member)
            {
                found.stopped = true;
            }
        }
        Ok(Ok(()))
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
