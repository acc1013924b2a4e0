//! Processes by their number and start time.
//!
//! A number may be given to another process between the look at it and the signal to it. Windows
//! has handles that cannot; under macOS and FreeBSD the two follow each other at once, and that is
//! all that can be had.

use std::collections::{BTreeMap, BTreeSet};

use sysinfo::{Pid, Process, ProcessRefreshKind, ProcessesToUpdate, System, UpdateKind};

use super::kernel;
use super::notice;
use crate::lease::{LeaseId, ProcessId};
use crate::os::LEASE_VARIABLE;
use crate::os::fault::Fault;
use crate::quantity::Boottime;

/// Means one process.
pub type Handle = ProcessId;

/// A signal to a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Please end.
    Term,
    /// End.
    Kill,
    /// Stand still.
    Stop,
    /// Go on.
    Continue,
    /// The deadline is near.
    Warn(crate::lease::WarnSignal),
}

/// This process.
///
/// # Errors
/// [`Fault::Os`] when the system does not tell.
pub fn own() -> Result<ProcessId, Fault> {
    identify(std::process::id())
}

/// The identity of the process that has the number `pid` now.
///
/// # Errors
/// [`Fault::Os`] when there is none or it may not be asked.
pub fn identify(pid: u32) -> Result<ProcessId, Fault> {
    let start = kernel::start_of(pid).map_err(|e| Fault::os("examine process", pid, e))?;
    let gone = || Fault::os("find process", pid, std::io::ErrorKind::NotFound);
    Ok(ProcessId { pid, start: start.ok_or_else(gone)?, namespace: 0 })
}

/// The user that a process runs as.
///
/// # Errors
/// [`Fault::Os`] when it is gone or may not be asked.
pub fn user_of(pid: u32) -> Result<u32, Fault> {
    let found = look(ProcessesToUpdate::Some(&[Pid::from_u32(pid)]))?;
    let user = found.process(Pid::from_u32(pid)).and_then(user);
    user.ok_or_else(|| Fault::os("find process", pid, std::io::ErrorKind::NotFound))
}

/// Whether the process is alive. One that may not be asked is taken to be: a lease that is ended too
/// late is better than one that is ended too early.
pub fn alive(process: &ProcessId) -> bool {
    kernel::start_of(process.pid).map_or(true, |start| start == Some(process.start))
}

/// Sends exactly these processes an order; one that is gone is skipped.
///
/// # Errors
/// [`Fault::Os`] when the system refuses it for one that is there.
pub fn signal(to: &[ProcessId], order: Order) -> Result<(), Fault> {
    let mut refused = None;
    for process in to {
        if let Err(error) = kernel::send(process, order)
            && alive(process)
        {
            refused = Some(Fault::os("signal process", process.pid, error));
        }
    }
    refused.map_or(Ok(()), Err)
}

/// Waits until all are gone, at most until `until`.
///
/// # Errors
/// None today.
pub fn await_exit(processes: &[ProcessId], until: Boottime) -> Result<(), Fault> {
    for process in processes {
        notice::wait_for_exit(std::slice::from_ref(process), until)?;
    }
    Ok(())
}

/// The processes, to be waited for together with other things; `None` where one of them is gone
/// already.
pub fn handles(processes: &[ProcessId]) -> Option<Vec<Handle>> {
    processes.iter().all(alive).then(|| processes.to_vec())
}

/// The processes that carry the mark of the lease and run as `uid`, and the attached ones with
/// all their descendants.
///
/// A list of processes is not a snapshot: a child that is born while it is made may be missed. It
/// is made until it shows nobody new.
///
/// # Errors
/// [`Fault::Os`] when processes cannot be listed.
pub fn members(
    id: &LeaseId,
    uid: u32,
    attached: &BTreeSet<ProcessId>,
) -> Result<BTreeSet<ProcessId>, Fault> {
    const ROUNDS_MAX: usize = 8;
    let mut found = scan(id, uid, attached)?;
    for _ in 0..ROUNDS_MAX {
        let again = scan(id, uid, attached)?;
        let same = again == found;
        found = again;
        if same {
            break;
        }
    }
    Ok(found)
}

fn scan(
    id: &LeaseId,
    uid: u32,
    attached: &BTreeSet<ProcessId>,
) -> Result<BTreeSet<ProcessId>, Fault> {
    let mark = format!("{LEASE_VARIABLE}={id}");
    let system = look(ProcessesToUpdate::All)?;
    let own = std::process::id();
    let marked = |process: &&Process| user(process) == Some(uid) && has_mark(process, &mark);
    let marked: Vec<Pid> = system.processes().values().filter(marked).map(Process::pid).collect();
    // The number may have been given to another process since the list was made: only one that is
    // the same before and after a second look at its mark is a member.
    let before: Vec<ProcessId> =
        marked.iter().filter_map(|pid| identify(pid.as_u32()).ok()).collect();
    let again = look(ProcessesToUpdate::Some(&marked))?;
    let still = |process: &ProcessId| {
        let found = again.process(Pid::from_u32(process.pid));
        found.is_some_and(|found| has_mark(found, &mark)) && alive(process)
    };
    let mut found: BTreeSet<ProcessId> = before.into_iter().filter(still).collect();
    add_descendants(&mut found, &system, attached);
    found.retain(|process| process.pid != own);
    Ok(found)
}

/// Adds what is attached and still alive, and every process below it. A child is younger than its
/// parent: else its parent's number was given to another.
fn add_descendants(
    found: &mut BTreeSet<ProcessId>,
    system: &System,
    attached: &BTreeSet<ProcessId>,
) {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for process in system.processes().values() {
        if let Some(parent) = process.parent() {
            children.entry(parent.as_u32()).or_default().push(process.pid().as_u32());
        }
    }
    let mut below: Vec<ProcessId> =
        attached.iter().filter(|process| alive(process)).cloned().collect();
    while let Some(parent) = below.pop() {
        for pid in children.get(&parent.pid).into_iter().flatten() {
            let child = identify(*pid).ok().filter(|child| child.start >= parent.start);
            below.extend(child.filter(|child| !found.contains(child)));
        }
        found.insert(parent);
    }
}

/// The lease that a process carries the mark of; `None` where it has none or may not be asked.
pub fn mark_of(pid: u32) -> Option<String> {
    let found = look(ProcessesToUpdate::Some(&[Pid::from_u32(pid)])).ok()?;
    let prefix = format!("{LEASE_VARIABLE}=");
    let mut variables = found.process(Pid::from_u32(pid))?.environ().iter();
    variables.find_map(|variable| variable.to_str()?.strip_prefix(&prefix).map(str::to_owned))
}

fn look(which: ProcessesToUpdate<'_>) -> Result<System, Fault> {
    let unsupported =
        |e: sysinfo::Error| Fault::os("list", "processes", std::io::Error::other(e.to_string()));
    let mut system = System::new().map_err(unsupported)?;
    let what = ProcessRefreshKind::nothing()
        .with_environ(UpdateKind::Always)
        .with_user(UpdateKind::Always)
        .without_tasks();
    system.refresh_processes_specifics(which, true, what);
    Ok(system)
}

fn has_mark(process: &Process, mark: &str) -> bool {
    process.environ().iter().any(|variable| variable.to_str() == Some(mark))
}

fn user(process: &Process) -> Option<u32> {
    process.effective_user_id().or(process.user_id()).and_then(kernel::user_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_process_with_the_same_number_is_another_one() {
        let own = own().unwrap();
        assert!(alive(&own));
        let earlier = ProcessId { start: own.start - 1, ..own };
        assert!(!alive(&earlier));
    }
}
