//! The supervisor of `chronos run`: starts a job inside a lease and stays until it is over.
//!
//! The job is started by way of `chronos join`, which enters the lease and then becomes the job,
//! so that no instruction of the job runs outside. When the supervisor dies the job runs on: its
//! deadline is kept by the other guards.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};

use super::fault::Fault;
use super::job::{self, Signals};
use super::notice::Notice;
use super::session::Session;
use super::{LEASE_VARIABLE, clock, guard, history, process};
use crate::api::Order;
use crate::lease::{EndReason, Lease, LeaseId, Phase, ProcessId, Vendor};
use crate::quantity::{Boottime, Span};

/// How long the supervisor goes without looking, whatever it was told.
const LOOK_EVERY: Span = Span::from_secs(5);

/// How a supervised job ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It ended by itself, with this code (128 and the signal when one ended it).
    Exited(u8),
    /// It was ended by its lease.
    Ended {
        /// Why.
        reason: EndReason,
        /// What it took.
        by: Means,
    },
}

/// What ended a job whose lease was over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Means {
    /// SIGTERM.
    Term,
    /// SIGKILL.
    Kill,
    /// Nothing it could act on: it was suspended.
    Suspended,
}

/// The environment of a job in a lease.
pub fn environment(lease: &Lease, vendor: Option<Vendor>) -> Vec<(String, String)> {
    let ids: Vec<&str> = lease.parts.iter().map(|part| part.gpu.0.as_str()).collect();
    let numbers: Vec<String> = lease.parts.iter().map(|part| part.index.to_string()).collect();
    let numbers = numbers.join(",");
    let memory: Vec<String> =
        lease.parts.iter().map(|part| part.memory.as_u64().to_string()).collect();
    let mut variables = vec![
        (LEASE_VARIABLE.to_owned(), lease.id.0.clone()),
        ("CHRONOS_GPUS".to_owned(), numbers.clone()),
        ("CHRONOS_MEMORY_BYTES".to_owned(), memory.join(",")),
        ("CHRONOS_DEADLINE_BOOTTIME_NS".to_owned(), lease.deadline.as_nanos().to_string()),
    ];
    let mut visible = |name: &str, value: &str| variables.push((name.to_owned(), value.to_owned()));
    match vendor {
        Some(Vendor::Amd) => visible("ROCR_VISIBLE_DEVICES", &numbers),
        Some(Vendor::Intel) => visible("ZE_AFFINITY_MASK", &numbers),
        Some(Vendor::Nvidia) => {
            visible("CUDA_DEVICE_ORDER", "PCI_BUS_ID");
            visible("CUDA_VISIBLE_DEVICES", &ids.join(","));
        }
        Some(Vendor::Declared) | None => {
            visible("CUDA_DEVICE_ORDER", "PCI_BUS_ID");
            visible("CUDA_VISIBLE_DEVICES", &numbers);
        }
    }
    variables
}

/// Starts `command` inside `lease` and waits for the end of both.
///
/// # Errors
/// [`Fault`] when the job cannot be started or waited for.
pub fn run(
    session: &mut Session,
    lease: &Lease,
    command: &[OsString],
    mut say: impl FnMut(&str),
) -> Result<Outcome, Fault> {
    let notice = Notice::of(session.host().runtime())?;
    let signals = Signals::block()?;
    let mut child = start(lease, command)?;
    let leader = process::identify(child.id()).ok();
    let mut watch = Watch { warned: false, suspended: false, reason: None, killed: false };
    loop {
        if let Some(status) = child.try_wait().map_err(|e| Fault::os("wait for", "the job", e))? {
            return finish(session, lease, status, &watch);
        }
        let now = clock::boottime();
        let wake = watch.look(session, lease, now, &mut say)?;
        // It has ended since it was looked at.
        let Some(handles) = process::handles(leader.as_slice()) else { continue };
        signals.wait(&notice, &handles, wake.min(now.after(LOOK_EVERY)))?;
        if let Some(leader) = &leader {
            signals.pass_on(leader)?;
        }
    }
}

/// What the supervisor knows of its lease.
struct Watch {
    warned: bool,
    suspended: bool,
    reason: Option<EndReason>,
    killed: bool,
}

impl Watch {
    /// Does what is due for the lease; returns when to look again.
    fn look(
        &mut self,
        session: &mut Session,
        lease: &Lease,
        now: Boottime,
        say: &mut impl FnMut(&str),
    ) -> Result<Boottime, Fault> {
        let book = session.book()?;
        let Some(current) = book.lease(&lease.id).cloned() else {
            // Ended by another guard, which has killed the job: its exit is about to be seen.
            self.reason = self.reason.or_else(|| Some(buried(session, &lease.id)));
            return Ok(now.after(Span::from_millis(100)));
        };
        match current.phase {
            Phase::Ending { reason, kill_at, .. } => {
                if self.reason.is_none() {
                    say(&format!("partition {} {reason}: its processes are ended", lease.id));
                }
                self.reason = Some(reason);
                self.suspended |= reason == EndReason::SuspendedTooLong;
                self.killed |= now >= kill_at;
                Ok(kill_at.max(now.after(Span::from_millis(20))))
            }
            Phase::Suspended { until, .. } => {
                if !self.suspended {
                    self.suspended = true;
                    let waits = session.book()?.ticket(&lease.id).is_some();
                    let then = if waits { ": it goes on when there is room" } else { "" };
                    say(&format!("partition {} is suspended{then}", lease.id));
                }
                Ok(until)
            }
            Phase::Active => {
                if std::mem::take(&mut self.suspended) {
                    say(&format!("partition {} goes on", lease.id));
                }
                let left = current.deadline.since(now);
                let warn = current.request.warn.filter(|_| !self.warned);
                if let Some(warn) = warn {
                    if left <= warn {
                        self.warned = true;
                        say(&format!("partition {} ends in {left}", lease.id));
                    } else {
                        return Ok(current.deadline.before(warn));
                    }
                }
                // A guardian that was killed is replaced for as long as somebody looks.
                if session.settings().access == super::settings::Access::Own {
                    let _ = guard::ensure(session.host());
                }
                Ok(current.deadline.max(now.after(Span::from_millis(1))))
            }
        }
    }
}

/// Why a lease that is over ended, by the history; without one, most leases expire.
fn buried(session: &Session, id: &LeaseId) -> EndReason {
    let lines = history::read(&session.settings().state).map_or_else(|_| Vec::new(), |(l, _)| l);
    let line = lines.iter().rev().find(|line| line.id == *id);
    line.map_or(EndReason::Expired, |line| line.reason)
}

fn finish(
    session: &mut Session,
    lease: &Lease,
    status: ExitStatus,
    watch: &Watch,
) -> Result<Outcome, Fault> {
    let over = match watch.reason {
        // Another guard may have ended the job between two looks.
        None if job::ended_by(status).is_some() => ended_by_others(session, lease)?,
        reason => reason,
    };
    // Children that the job left behind go with the lease.
    let finished = over.is_none();
    session.ask(&Order::Release { id: lease.id.clone(), force: false, finished })?;
    let killed = job::ended_by(status) == Some(Means::Kill);
    let by = match (watch.suspended, watch.killed || killed) {
        (true, _) => Means::Suspended,
        (false, true) => Means::Kill,
        (false, false) => Means::Term,
    };
    if let Some(reason) = over {
        return Ok(Outcome::Ended { reason, by });
    }
    Ok(Outcome::Exited(job::code(status)))
}

/// Why a lease is over that the supervisor has not seen ending; `None` when it is not.
fn ended_by_others(session: &mut Session, lease: &Lease) -> Result<Option<EndReason>, Fault> {
    let found = session.book()?.lease(&lease.id).map(|lease| (lease.phase.clone(), lease.deadline));
    Ok(match found {
        Some((Phase::Ending { reason, .. }, _)) => Some(reason),
        Some((_, deadline)) => (clock::boottime() >= deadline).then_some(EndReason::Expired),
        None => Some(buried(session, &lease.id)),
    })
}

fn start(lease: &Lease, command: &[OsString]) -> Result<Child, Fault> {
    let program = std::env::current_exe().map_err(|e| Fault::os("find", "this program", e))?;
    let mut join = Command::new(&program);
    // Without the mark of the lease: it is no member before it has entered, else it could be stopped
    // or refused for being half inside.
    join.arg("join").arg(&lease.id.0).arg("--").args(command);
    join.spawn().map_err(|e| Fault::os("start", program.display(), e))
}

/// Becomes `command` once this process is inside the lease.
///
/// # Errors
/// [`Fault`] when it cannot enter or the command cannot be started; the last has the error of the
/// exec in it, which decides between exit codes 126 and 127.
pub fn become_member(
    session: &mut Session,
    lease: &Lease,
    command: &[OsString],
) -> Result<std::convert::Infallible, Fault> {
    let vendor = session.host().backend().gpus()?.first().map(|gpu| gpu.vendor);
    let empty = OsString::new();
    let name = command.first().unwrap_or(&empty);
    let mut job = Command::new(name);
    job.args(command.iter().skip(1)).envs(environment(lease, vendor));
    let error = job::become_it(&mut job);
    Err(Fault::os("execute", PathBuf::from(name as &OsStr).display(), error))
}

/// The process that this one is, for a lease that depends on it.
///
/// # Errors
/// [`Fault::Os`] when `/proc` is not mounted.
pub fn own() -> Result<ProcessId, Fault> {
    process::own()
}
