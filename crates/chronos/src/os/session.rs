//! One user's way to the book: its own engine, or the helper.

use super::directory::Directory;
use super::fault::{Fault, Purpose};
use super::host::Host;
use super::notice::Notice;
use super::settings::{Access, Settings};
use super::{clock, guard, helper, process, users};
use crate::api::{Order, Reply, Victim};
use crate::book::Book;
use crate::engine::{Answer, Engine, Error, Suggestion, Wish};
use crate::expiry::{Diligence, Release};
use crate::lease::{EndReason, Lease, LeaseId, Owner, Priority, Ticket};
use crate::planner::Verdict;
use crate::policy::Caller;
use crate::preemption::{self, Preemption};
use crate::quantity::{Boottime, Span};
use crate::refusal::Refusal;
use crate::suspension::Resumption;
use crate::world::{Suspension, World};

/// How long a waiter goes without looking, whatever it was told.
const LOOK_EVERY: Span = Span::from_secs(5);

/// One user's way to the book.
#[derive(Debug)]
pub struct Session {
    settings: Settings,
    engine: Engine<Host>,
    notes: Vec<String>,
}

impl Session {
    /// Opens the book as the settings say.
    ///
    /// # Errors
    /// [`Fault`] of any kind.
    pub fn open(settings: &Settings) -> Result<Self, Fault> {
        let host = match settings.access {
            Access::Own => Host::open(settings)?,
            Access::Helper(_) => Host::open_to_read(settings)?,
        };
        Ok(Self { settings: settings.clone(), engine: Engine::new(host), notes: Vec::new() })
    }

    /// The settings it was opened with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The machine.
    pub fn host(&mut self) -> &mut Host {
        self.engine.world()
    }

    /// The book as it is now. What is due is done first where that costs nothing extra.
    ///
    /// # Errors
    /// [`Fault`] of any kind.
    pub fn book(&mut self) -> Result<&Book, Fault> {
        self.engine.peek().map_err(into_fault)?;
        let due = self.engine.book().next_due();
        if due.is_some_and(|due| due <= clock::boottime()) {
            // A guard is on it, or it is our turn; a view is no reason to fail.
            let _ = self.ask(&Order::Settle);
            self.engine.peek().map_err(into_fault)?;
        }
        Ok(self.engine.book())
    }

    /// Has an order done.
    ///
    /// # Errors
    /// [`Fault::Helper`] when the helper cannot be reached; everything else is in the reply.
    pub fn ask(&mut self, order: &Order) -> Result<Reply, Fault> {
        let reply = match &self.settings.access {
            Access::Own => {
                let caller = own_caller()?;
                perform(&mut self.engine, &self.settings, &caller, order)
            }
            Access::Helper(socket) => helper::ask(socket, order)?,
        };
        Ok(match reply {
            Reply::Noted { notes, answer } => {
                self.notes.extend(notes);
                *answer
            }
            reply => reply,
        })
    }

    /// What to know of how the last orders came about; told once.
    pub fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// Waits until a ticket became a lease or its time is over; `progress` is called when its
    /// promised start may have changed.
    ///
    /// # Errors
    /// [`Fault`] of any kind.
    pub fn wait_for(
        &mut self,
        ticket: &Ticket,
        mut progress: impl FnMut(&Book),
    ) -> Result<Result<Lease, Refusal>, Fault> {
        let directory = match self.settings.access {
            Access::Own => Directory::open(Purpose::Runtime, &self.settings.runtime, 0o700)?,
            Access::Helper(_) => Directory::open_to_read(&self.settings.runtime, 0)?,
        };
        let notice = Notice::of(&directory)?;
        let may_preempt = ticket.request.priority == Priority::High
            && !ticket.resumes
            && self.engine.world().checkpoints();
        // It was tried when the ticket was made.
        let mut tried = ticket.since;
        loop {
            self.engine.peek().map_err(into_fault)?;
            let book = self.engine.book();
            let lease = book.lease(&ticket.id).filter(|l| l.phase == crate::lease::Phase::Active);
            if let Some(lease) = lease {
                return Ok(Ok(lease.clone()));
            }
            let now = clock::boottime();
            if now >= ticket.until || book.ticket(&ticket.id).is_none() {
                self.ask(&Order::Leave { id: ticket.id.clone() })?;
                return self.last_look(ticket, now);
            }
            progress(book);
            let due = self.engine.book().next_due().unwrap_or(ticket.until);
            if due <= now {
                self.ask(&Order::Settle)?;
            }
            let mut wake = due.max(now.after(Span::from_millis(20))).min(now.after(LOOK_EVERY));
            let exempt = self.settings.preempt_exempt_time();
            let chance = preemption::next_chance(self.engine.book(), exempt, tried);
            if let Some(chance) = chance.filter(|_| may_preempt) {
                if chance <= now {
                    tried = now;
                    self.ask(&Order::Preempt { id: ticket.id.clone() })?;
                    continue;
                }
                wake = wake.min(chance);
            }
            notice.wait(&[], wake)?;
        }
    }

    /// It may have been granted between the last look and leaving.
    fn last_look(
        &mut self,
        ticket: &Ticket,
        now: Boottime,
    ) -> Result<Result<Lease, Refusal>, Fault> {
        self.engine.peek().map_err(into_fault)?;
        let lease = self.engine.book().lease(&ticket.id);
        let lease = lease.filter(|l| l.phase == crate::lease::Phase::Active);
        let waited = now.since(ticket.since);
        Ok(lease.cloned().ok_or(Refusal::WaitedInVain { waited }))
    }
}

/// This process as a caller.
///
/// # Errors
/// [`Fault::Os`] when `/proc` is not mounted.
pub fn own_caller() -> Result<Caller, Fault> {
    let owner = users::effective();
    // Nobody's groups limit root.
    let groups = if owner.uid == 0 { Vec::new() } else { users::groups_of(owner.uid) };
    Ok(Caller { groups, owner, process: process::own()? })
}

/// Does one order for `caller`.
pub fn perform(
    engine: &mut Engine<Host>,
    settings: &Settings,
    caller: &Caller,
    order: &Order,
) -> Reply {
    let done = attempt(engine, settings, caller, order).inspect(|reply| {
        if matches!(reply, Reply::Lease { .. } | Reply::Waiting { .. } | Reply::Suspended { .. }) {
            // The lease is granted whether or not a guardian can be started: the other guards are
            // there, and `doctor` names the one that is missing.
            let _ = guard::ensure(engine.world());
        }
    });
    let notes = engine.take_notes();
    let reply = match done {
        Ok(reply) => reply,
        Err(Error::Refused(refusal)) => Reply::Refused { refusal },
        Err(error) => {
            let hint = match &error {
                Error::World(fault) => fault.hint().map(str::to_owned),
                _ => Some("`chronos doctor` examines the state directory".to_owned()),
            };
            Reply::Failed { message: chain(&error), hint }
        }
    };
    if notes.is_empty() { reply } else { Reply::Noted { notes, answer: Box::new(reply) } }
}

fn attempt(
    engine: &mut Engine<Host>,
    settings: &Settings,
    caller: &Caller,
    order: &Order,
) -> Result<Reply, Error<Fault>> {
    let rules = || match settings.policy() {
        Ok(policy) => Ok(policy),
        Err(_) if caller.is_root() => Ok(crate::policy::Policy::default()),
        Err(fault) => {
            let error = chain(&fault);
            Err(Error::from(Refusal::PolicyUnreadable { error }))
        }
    };
    Ok(match order {
        Order::Create { request, binding, wait, holder, user } => {
            let mut wish = Wish {
                request: request.clone(),
                binding: *binding,
                wait: *wait,
                holder: caller.process.clone(),
            };
            if let Some(pid) = holder {
                wish.holder = holder_of(caller, *pid)?;
            }
            let rules = rules()?;
            let caller = for_user(caller, user.as_deref())?;
            answer(engine.create(&caller, &rules, &wish)?)
        }
        Order::Suggest { request } => {
            let wish = Wish {
                request: request.clone(),
                binding: crate::lease::Binding::Deadline,
                wait: None,
                holder: caller.process.clone(),
            };
            let suggestion = engine.suggest(caller, &rules()?, &wish)?;
            suggested(suggestion, engine.book())?
        }
        Order::Release { id, force, finished } => {
            let reason = if *finished { EndReason::Finished } else { EndReason::Released };
            let grace = force.then_some(Span::ZERO);
            let release = engine.release(caller, id, reason, grace)?;
            Reply::Released { pending: release == Release::Pending }
        }
        Order::Extend { id, by } => {
            Reply::Lease { lease: Box::new(engine.extend(caller, &rules()?, id, *by)?) }
        }
        Order::Attach { id, pid } => {
            let process = process::identify(*pid).map_err(|_| gone(*pid))?;
            let uid = process::user_of(*pid).map_err(|_| gone(*pid))?;
            Reply::Lease { lease: Box::new(engine.attach(caller, id, &process, uid)?) }
        }
        Order::Leave { id } => match engine.leave(caller, id) {
            // Granted or dropped meanwhile: either way it waits no more.
            Err(Error::Refused(refusal)) if matches!(*refusal, Refusal::NotWaiting { .. }) => {
                Reply::Done
            }
            left => left.map(|()| Reply::Done)?,
        },
        Order::Suspend { id } => {
            let suspension = engine.suspend(caller, id)?;
            Reply::Suspended { checkpointed: suspension == Suspension::Checkpointed }
        }
        Order::Resume { id, for_, wait } => {
            let again = Resumption { duration: *for_, wait: *wait };
            answer(engine.resume(caller, &rules()?, id, &again)?)
        }
        Order::Reserve { request, start } => {
            let reservation = engine.reserve(caller, &rules()?, request, *start)?;
            Reply::Reserved { reservation: Box::new(reservation) }
        }
        Order::Unreserve { id } => {
            engine.unreserve(caller, id)?;
            Reply::Done
        }
        Order::Preempt { id } => {
            engine.preempt_for(caller, id)?;
            Reply::Done
        }
        Order::Settle => {
            engine.settle(Diligence::Due)?;
            Reply::Done
        }
    })
}

/// The soonest start of a request, by suspending others where that is sooner.
fn suggested(suggestion: Suggestion, book: &Book) -> Result<Reply, Refusal> {
    let in_ = |start: Boottime| start.since(clock::boottime());
    if let Some(Preemption { at, victims, parts }) = suggestion.preemption {
        let victims = victims.into_iter().filter_map(|id| {
            let user = book.lease(&id)?.owner.user.clone();
            Some(Victim { id, user })
        });
        return Ok(Reply::Suggested { start: in_(at), parts, preempts: victims.collect() });
    }
    let (start, parts) = match suggestion.verdict {
        Verdict::Now(parts) => (Span::ZERO, parts),
        Verdict::Later { start, parts } => (in_(start), parts),
        Verdict::Never(never) => return Err(never.into()),
    };
    Ok(Reply::Suggested { start, parts, preempts: Vec::new() })
}

fn answer(answer: Answer) -> Reply {
    match answer {
        Answer::Granted(lease) => Reply::Lease { lease },
        Answer::Waiting(ticket, start) => Reply::Waiting { ticket, start },
    }
}

/// The process that a lease is to depend on: it has to be the caller's own.
fn holder_of(caller: &Caller, pid: u32) -> Result<crate::lease::ProcessId, Error<Fault>> {
    let uid = process::user_of(pid).map_err(|_| gone(pid))?;
    if !caller.is_root() && uid != caller.owner.uid {
        let why = format!("it runs as user {uid}");
        return Err(Refusal::NotAttachable { pid, why }.into());
    }
    process::identify(pid).map_err(|_| gone(pid))
}

fn gone(pid: u32) -> Error<Fault> {
    Refusal::NotAttachable { pid, why: "it is gone".to_owned() }.into()
}

fn for_user(caller: &Caller, user: Option<&str>) -> Result<Caller, Error<Fault>> {
    let Some(user) = user.filter(|user| *user != caller.owner.user) else {
        return Ok(caller.clone());
    };
    if !caller.is_root() {
        let what = format!("create a partition for user `{user}`");
        return Err(Refusal::RootOnly { what }.into());
    }
    let owner: Owner = users::named(user).ok_or_else(|| Refusal::BadInput {
        message: format!("user `{user}` does not exist"),
        hint: "name a login of this machine".to_owned(),
    })?;
    Ok(Caller { groups: users::groups_of(owner.uid), owner, process: caller.process.clone() })
}

/// An error with its causes, as it is shown.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

fn into_fault(error: Error<Fault>) -> Fault {
    match error {
        Error::World(fault) => fault,
        other => Fault::Backend { backend: "state", why: other.to_string() },
    }
}

/// The id of a lease as a user wrote it.
///
/// # Errors
/// [`Refusal::NoSuchLease`] for a text that can be none.
pub fn lease_id(text: &str) -> Result<LeaseId, Refusal> {
    if LeaseId::plausible(text) {
        return Ok(LeaseId(text.to_owned()));
    }
    Err(Refusal::NoSuchLease { id: text.chars().take(64).collect() })
}
