//! The steps of every operation, in the order that survives a crash after any of them.
//!
//! An operation takes the lock, reads what was written since it last looked, decides by the pure
//! planner, and commits by one append. What has to exist before a lease does (its fence) is made
//! before the append; what a dead caller left behind without an append is found by the next one
//! and taken down. Nothing waits for a process while the lock is held.
//!
//! # Invariants
//! * An operation that returned its lease has written it; one that has not may still have.
//! * Signals go to members of a lease that is ending, never to a number read from a file.

use std::collections::BTreeMap;

use crate::book::{Book, Event, decayed};
use crate::expiry::Diligence;
use crate::index;
use crate::journal::{self, JournalError};
use crate::lease::{Binding, Gpu, Lease, LeaseId, Phase, Priority, ProcessId, Request, Ticket};
use crate::planner::{self, Planned, Verdict};
use crate::policy::{self, Caller, Limits, Policy};
use crate::preemption::Preemption;
use crate::quantity::{Now, Span};
use crate::refusal::Refusal;
use crate::world::{Mark, Room, World};

/// Live leases, tickets and windows of one machine; the planner is measured at ten thousand.
pub const BOOK_MAX: usize = 20_000;

/// The journal is rewritten when it holds this many times the lines that are needed.
const REWRITE_FACTOR: usize = 4;

/// The journal is left alone up to this many lines.
const REWRITE_LINES: usize = 64;

/// How often a reader without the lock looks again when a writer was in its way.
const PEEKS: usize = 3;

/// Why an operation has no result.
#[derive(Debug, thiserror::Error)]
pub enum Error<F: std::error::Error + 'static> {
    /// It was refused; nothing changed.
    #[error(transparent)]
    Refused(Box<Refusal>),
    /// The journal is not what this version writes.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The machine failed.
    #[error(transparent)]
    World(F),
}

impl<F: std::error::Error + 'static> From<Refusal> for Error<F> {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

/// The result of an operation in world `W`.
pub type Done<T, W> = Result<T, Error<<W as World>::Fault>>;

/// What became of a request.
#[derive(Clone, PartialEq, Debug)]
pub enum Answer {
    /// Granted.
    Granted(Box<Lease>),
    /// In the queue, with the earliest start it is promised.
    Waiting(Box<Ticket>, Option<Span>),
}

/// What would become of a request.
#[derive(Clone, PartialEq, Debug)]
pub struct Suggestion {
    /// Without suspending anybody.
    pub verdict: Verdict,
    /// What is sooner, by suspending others.
    pub preemption: Option<Preemption>,
}

/// What is asked for, by whom it is kept, and how long it may wait.
#[derive(Clone, PartialEq, Debug)]
pub struct Wish {
    /// What.
    pub request: Request,
    /// What the lease outlives.
    pub binding: Binding,
    /// How long to wait in the queue; `None` is not at all.
    pub wait: Option<Span>,
    /// The process that the lease or ticket depends on; the caller unless a supervisor is meant.
    pub holder: ProcessId,
}

/// The operations on the leases of one machine.
#[derive(Debug)]
pub struct Engine<W: World> {
    pub(crate) world: W,
    pub(crate) book: Book,
    pub(crate) mark: Mark,
    notes: Vec<String>,
    lines: usize,
    /// Of those, the lines before the index that was read or written last.
    indexed: usize,
}

impl<W: World> Engine<W> {
    /// An engine that has read nothing yet.
    pub fn new(world: W) -> Self {
        let (book, mark) = (Book::default(), Mark::default());
        Self { world, book, mark, notes: Vec::new(), lines: 0, indexed: 0 }
    }

    /// The book as it was last read.
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// What the caller should know of how its operations came about, since the last time.
    pub fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    pub(crate) fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// The machine.
    pub fn world(&mut self) -> &mut W {
        &mut self.world
    }

    /// Reads what was written since the last look, without the lock. A line that is being written
    /// at this moment is not seen yet.
    ///
    /// # Errors
    /// [`Error::World`] and [`Error::Journal`].
    pub fn peek(&mut self) -> Done<(), W> {
        let mut tries = 0;
        loop {
            match self.catch_up() {
                // A writer may have cut a torn line off while it was being read.
                Err(Error::Journal(_)) if tries < PEEKS => {
                    tries += 1;
                    self.forget();
                }
                Err(error) => return Err(error),
                Ok(()) => break,
            }
        }
        let boot = self.world.boot().map_err(Error::World)?;
        if self.book.boot() != boot {
            // Nothing has been granted since this boot; what is written is void.
            self.book = Book::default();
            self.forget();
        }
        Ok(())
    }

    fn forget(&mut self) {
        self.mark = Mark::default();
        (self.lines, self.indexed) = (0, 0);
    }

    /// Takes the book from the index, where there is one of the journal that is in place.
    fn open_index(&mut self) -> Done<(), W> {
        let Some((file, bytes)) = self.world.index().map_err(Error::World)? else { return Ok(()) };
        if let Some(index) = index::read(bytes).filter(|index| index.mark.file == file) {
            (self.book, self.mark) = (index.book, index.mark);
            (self.lines, self.indexed) = (index.lines, index.lines);
        }
        Ok(())
    }

    fn catch_up(&mut self) -> Done<(), W> {
        if self.mark == Mark::default() {
            self.open_index()?;
        }
        match self.read_on() {
            // An index that the lines after it do not follow from is not used.
            Err(Error::Journal(_)) if self.indexed > 0 => {
                self.forget();
                self.read_on()
            }
            read => read,
        }
    }

    fn read_on(&mut self) -> Done<(), W> {
        let tail = self.world.read(self.mark).map_err(Error::World)?;
        if tail.file != self.mark.file {
            self.forget();
            self.mark.file = tail.file;
            self.book = Book::default();
        }
        match journal::read(&tail.bytes, &mut self.book) {
            Ok(length) => {
                self.mark.length += length as u64;
                self.lines += tail.bytes[..length].iter().filter(|b| **b == b'\n').count();
                Ok(())
            }
            Err(error) => {
                // Half of the lines may be in the book.
                self.mark = Mark::default();
                Err(error.into())
            }
        }
    }

    /// Takes the lock, brings the book up to date, runs `change`, commits its events.
    pub(crate) fn transact<T>(
        &mut self,
        change: impl FnOnce(&mut Self, Now) -> Done<(Vec<Event>, T), W>,
    ) -> Done<T, W> {
        self.world.lock().map_err(Error::World)?;
        let done = self.transact_locked(change);
        self.world.unlock();
        let (value, events) = done?;
        for event in &events {
            if let Event::Resumed { id, .. } = event {
                self.thaw(id)?;
            }
        }
        Ok(value)
    }

    fn transact_locked<T>(
        &mut self,
        change: impl FnOnce(&mut Self, Now) -> Done<(Vec<Event>, T), W>,
    ) -> Done<(T, Vec<Event>), W> {
        self.catch_up()?;
        let boot = self.world.boot().map_err(Error::World)?;
        if self.book.boot() != boot {
            self.begin(boot)?;
        }
        let now = self.world.now();
        let (events, value) = change(self, now)?;
        self.commit(&events)?;
        Ok((value, events))
    }

    /// Starts the book of this boot. Leases of an earlier boot are over: their processes are.
    fn begin(&mut self, boot: String) -> Done<(), W> {
        let now = self.world.now();
        for lease in self.book.leases() {
            let mut epitaph =
                crate::book::Epitaph::of(lease, now, crate::lease::EndReason::Rebooted);
            // The clock of that boot is gone: the time since the grant by the date is an upper
            // bound, the granted duration another.
            let by_date = now.wall.since(lease.granted_wall).as_millis();
            let most = u128::from(lease.deadline.since(lease.granted).as_nanos() / 1_000_000);
            epitaph.held_millis = u64::try_from(by_date.min(most)).unwrap_or(u64::MAX);
            self.world.bury(&epitaph).map_err(Error::World)?;
        }
        let mut fresh = Book::default();
        let opened = Event::Opened { boot, format: Book::FORMAT, serial: self.book.serial() };
        let mut events = vec![opened];
        events.extend(self.carried_over(now)?);
        let calendar = self.world.calendar().map_err(Error::World)?;
        events.extend(calendar.into_iter().map(|r| Event::Reserved(Box::new(r))));
        for event in &events {
            fresh.apply(event).map_err(JournalError::from)?;
        }
        self.rewrite(fresh)
    }

    /// What users used before this boot, so that fair share does not forget it.
    fn carried_over(&mut self, now: Now) -> Done<Vec<Event>, W> {
        let mut users: BTreeMap<u32, f64> = BTreeMap::new();
        for (uid, gpu_secs, ended) in self.world.used().map_err(Error::World)? {
            let age = now.wall.since(ended).as_secs_f64();
            *users.entry(uid).or_default() += decayed(gpu_secs, age);
        }
        let at = now.boot;
        // Less than a GPU-second tells nobody apart.
        let used = users.into_iter().filter(|(_, gpu_secs)| *gpu_secs >= 1.0);
        Ok(used.map(|(uid, gpu_secs)| Event::Used { uid, gpu_secs, at }).collect())
    }

    fn rewrite(&mut self, book: Book) -> Done<(), W> {
        let events = book.snapshot();
        // First, so that there is never an index of another journal.
        self.world.remove_index().map_err(Error::World)?;
        self.indexed = 0;
        self.mark = self.world.replace(&journal::lines(&events)).map_err(Error::World)?;
        self.lines = events.len();
        self.book = book;
        Ok(())
    }

    fn commit(&mut self, events: &[Event]) -> Done<(), W> {
        if events.is_empty() {
            return Ok(());
        }
        for event in events {
            if let Err(contradiction) = self.book.apply(event) {
                self.forget();
                return Err(JournalError::from(contradiction).into());
            }
        }
        let bytes = journal::lines(events);
        if let Err(fault) = self.world.append(self.mark, &bytes, room(events)) {
            // What the file holds now is unknown: read it anew.
            self.forget();
            return Err(Error::World(fault));
        }
        self.mark.length += bytes.len() as u64;
        self.lines += events.len();
        let needed = self.book.leases().len() + self.book.tickets().len();
        if self.lines > REWRITE_LINES.max(REWRITE_FACTOR * needed) {
            let book = self.book.clone();
            // The events are written; a rewrite that fails is tried again at the next one.
            if self.rewrite(book).is_err() {
                self.forget();
            }
        } else if self.lines - self.indexed >= self.world.index_after() {
            self.indexed = self.lines;
            // A cache: without it the next process reads more lines.
            let bytes = index::write(&self.book, self.mark, self.lines);
            let _ = self.world.keep_index(&bytes);
        }
        Ok(())
    }

    /// Asks for a lease. One of high priority may have low ones suspended ([`crate::preemption`]).
    ///
    /// # Errors
    /// [`Error::Refused`] when it is neither granted nor queued.
    pub fn create(&mut self, caller: &Caller, rules: &Policy, wish: &Wish) -> Done<Answer, W> {
        self.settle(Diligence::Due)?;
        if wish.request.priority == Priority::High {
            return self.create_urgent(caller, rules, wish);
        }
        self.ask(caller, rules, wish)
    }

    /// Grants a request, or puts it into the queue, or refuses it.
    pub(crate) fn ask(&mut self, caller: &Caller, rules: &Policy, wish: &Wish) -> Done<Answer, W> {
        let gpus = self.world.gpus().map_err(Error::World)?;
        let limits = rules.limits(caller);
        self.transact(|engine, now| {
            engine.has_room()?;
            engine.allowed(caller, limits.as_ref(), &wish.request, &gpus, now)?;
            let ticket = engine.ticket(caller, wish, now);
            let mut events = engine.schedule(&gpus, now, &[], Some(&ticket))?;
            let granted = events.iter().find_map(|event| match event {
                Event::Granted(lease) if lease.id == ticket.id => Some(lease.clone()),
                _ => None,
            });
            if let Some(lease) = granted {
                return Ok((events, Answer::Granted(lease)));
            }
            let verdict = engine.foresee(&gpus, now, &events, &ticket)?;
            let start = match verdict {
                Verdict::Never(never) => return Err(Refusal::from(never).into()),
                Verdict::Later { start, parts } if wish.wait.is_none() => {
                    let where_ = names(&parts);
                    return Err(Refusal::NoCapacity { in_: start.since(now.boot), where_ }.into());
                }
                Verdict::Later { start, .. } => Some(start.since(now.boot)),
                Verdict::Now(_) => None,
            };
            events.push(Event::Queued(Box::new(ticket.clone())));
            Ok((events, Answer::Waiting(Box::new(ticket), start)))
        })
    }

    /// Whether the book may grow.
    pub(crate) fn has_room(&self) -> Result<(), Refusal> {
        let book = &self.book;
        let all = book.leases().len() + book.tickets().len() + book.reservations().len();
        if all < BOOK_MAX {
            return Ok(());
        }
        let what = "partitions, requests and reservations of this machine".to_owned();
        Err(Refusal::TooMany { what, limit: BOOK_MAX as u64 })
    }

    pub(crate) fn allowed(
        &self,
        caller: &Caller,
        limits: Option<&Limits>,
        request: &Request,
        gpus: &[Gpu],
        now: Now,
    ) -> Done<(), W> {
        policy::sound(request)?;
        let Some(limits) = limits else { return Ok(()) };
        let held = policy::Held { book: &self.book, now: now.boot, gpus };
        policy::allow(limits, caller, request, held)
            .map_err(|exceeded| Refusal::from(exceeded).into())
    }

    fn ticket(&self, caller: &Caller, wish: &Wish, now: Now) -> Ticket {
        Ticket {
            id: LeaseId::mint(wish.holder.pid, now.wall, self.book.serial()),
            owner: caller.owner.clone(),
            waiter: wish.holder.clone(),
            request: wish.request.clone(),
            since: now.boot,
            until: now.boot.after(wish.wait.unwrap_or_default()),
            resumes: false,
            binding: wish.binding,
        }
    }

    /// The verdict on `ticket` after `events`.
    fn foresee(
        &self,
        gpus: &[Gpu],
        now: Now,
        events: &[Event],
        ticket: &Ticket,
    ) -> Done<Verdict, W> {
        // A book of ten thousand tickets is not copied for nothing.
        let changed = if events.is_empty() { None } else { Some(after(&self.book, events)?) };
        let book = changed.as_ref().unwrap_or(&self.book);
        let plan = planner::plan(book, gpus, now, Some(ticket));
        let planned = plan.into_iter().find(|planned| planned.id == ticket.id);
        Ok(planned.expect("the planner answers what was asked").verdict)
    }

    /// Grants every ticket that fits now, `asked` among them, and drops those that nobody waits
    /// for. The fence of each lease is made here, before its grant is written.
    pub(crate) fn schedule(
        &mut self,
        gpus: &[Gpu],
        now: Now,
        before: &[Event],
        asked: Option<&Ticket>,
    ) -> Done<Vec<Event>, W> {
        let mut events = Vec::new();
        if asked.is_none() && self.book.tickets().is_empty() {
            return Ok(events);
        }
        // Copied when it has to change only: it may hold ten thousand tickets.
        let mut changed = if before.is_empty() { None } else { Some(after(&self.book, before)?) };
        // Each round grants or drops a ticket, so that it ends.
        loop {
            let book = changed.as_ref().unwrap_or(&self.book);
            let plan = planner::plan(book, gpus, now, asked);
            let next = plan.into_iter().find_map(|planned| match planned {
                Planned { id, verdict: Verdict::Now(parts) }
                    if book.lease(&id).is_none_or(paused) =>
                {
                    Some((id, parts))
                }
                _ => None,
            });
            let Some((id, parts)) = next else { return Ok(events) };
            let in_queue = book.ticket(&id).cloned();
            let Some(ticket) = in_queue.or_else(|| asked.filter(|a| a.id == id).cloned()) else {
                return Ok(events);
            };
            let waits =
                asked.is_some_and(|asked| asked.id == id) || self.world.alive(&ticket.waiter);
            let event = if !waits {
                Event::Left { id }
            } else if ticket.resumes {
                self.resume_fenced(&ticket, now)?
            } else {
                Event::Granted(Box::new(self.grant(&ticket, parts, now)?))
            };
            let done = asked.is_some_and(
                |asked| matches!(&event, Event::Granted(lease) if lease.id == asked.id),
            );
            if !done {
                let book = changed.get_or_insert_with(|| self.book.clone());
                book.apply(&event).map_err(JournalError::from)?;
            }
            events.push(event);
            if done {
                // What is behind the asked ticket is granted by whoever waits for it.
                return Ok(events);
            }
        }
    }

    fn grant(
        &mut self,
        ticket: &Ticket,
        parts: Vec<crate::lease::Part>,
        now: Now,
    ) -> Done<Lease, W> {
        let mut lease = Lease {
            id: ticket.id.clone(),
            owner: ticket.owner.clone(),
            creator: ticket.waiter.clone(),
            parts,
            granted: now.boot,
            granted_wall: now.wall,
            deadline: now.boot.after(ticket.request.duration),
            request: ticket.request.clone(),
            phase: Phase::Active,
            attached: std::collections::BTreeSet::new(),
            fenced: false,
            binding: ticket.binding,
            mover: None,
            warned: false,
            running_since: now.boot,
            idle: Span::ZERO,
        };
        lease.fenced = self.world.fence(&lease).map_err(Error::World)?;
        Ok(lease)
    }

    /// What would become of a request: the planner in dry run.
    ///
    /// # Errors
    /// [`Error::Refused`] when policy forbids it.
    pub fn suggest(&mut self, caller: &Caller, rules: &Policy, wish: &Wish) -> Done<Suggestion, W> {
        let gpus = self.world.gpus().map_err(Error::World)?;
        self.peek()?;
        let now = self.world.now();
        self.allowed(caller, rules.limits(caller).as_ref(), &wish.request, &gpus, now)?;
        let ticket = self.ticket(caller, wish, now);
        let verdict = self.foresee(&gpus, now, &[], &ticket)?;
        let preemption = match &verdict {
            Verdict::Later { start, .. } => {
                self.preemption(&ticket, Some(start.since(now.boot)))?
            }
            Verdict::Now(_) | Verdict::Never(_) => None,
        };
        Ok(Suggestion { verdict, preemption })
    }

    pub(crate) fn owned(&self, caller: &Caller, id: &LeaseId) -> Result<&Lease, Refusal> {
        let lease = self.book.lease(id);
        let lease = lease.ok_or_else(|| Refusal::NoSuchLease { id: id.0.clone() })?;
        may_touch(caller, &lease.owner, &id.0)?;
        Ok(lease)
    }
}

pub(crate) fn may_touch(
    caller: &Caller,
    owner: &crate::lease::Owner,
    id: &str,
) -> Result<(), Refusal> {
    if caller.may_touch(owner) {
        return Ok(());
    }
    Err(Refusal::NotYours { id: id.to_owned(), owner: owner.user.clone() })
}

/// The refusal of `verb` for a lease in another phase.
pub(crate) fn wrong_phase(lease: &Lease, verb: &str) -> Refusal {
    Refusal::WrongPhase {
        id: lease.id.clone(),
        phase: phase_word(&lease.phase).into(),
        verb: verb.into(),
    }
}

/// The phase in one word, as `list` prints it.
pub fn phase_word(phase: &Phase) -> &'static str {
    match phase {
        Phase::Active => "active",
        Phase::Ending { .. } => "ending",
        Phase::Suspended { .. } => "suspended",
    }
}

/// What promises something needs room of its own; what ends something may use what is kept.
fn room(events: &[Event]) -> Room {
    let promise = |event: &Event| {
        matches!(
            event,
            Event::Granted(_)
                | Event::Queued(_)
                | Event::Extended { .. }
                | Event::Attached { .. }
                | Event::Reserved(_)
        )
    };
    if events.iter().any(promise) { Room::Keep } else { Room::Use }
}

fn paused(lease: &Lease) -> bool {
    matches!(lease.phase, Phase::Suspended { .. })
}

/// The book as it will be after `events`.
pub(crate) fn after<F: std::error::Error>(book: &Book, events: &[Event]) -> Result<Book, Error<F>> {
    let mut book = book.clone();
    for event in events {
        book.apply(event).map_err(JournalError::from)?;
    }
    Ok(book)
}

/// `GPU 0`, or `GPUs 0, 2`.
pub fn names(parts: &[crate::lease::Part]) -> String {
    let numbers: Vec<String> = parts.iter().map(|part| part.index.to_string()).collect();
    let noun = if numbers.len() == 1 { "GPU" } else { "GPUs" };
    format!("{noun} {}", numbers.join(", "))
}
