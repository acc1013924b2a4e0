//! Processes by identities that cannot be reused: number, start time and PID namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};

use crate::lease::{LeaseId, ProcessId};
use crate::os::LEASE_VARIABLE;
use crate::os::clock;
use crate::os::fault::Fault;
use crate::os::stat::Stat;
use crate::quantity::{Boottime, NANOS};

/// Handles that are waited for in one call; what is beyond is looked at in the next round.
const HANDLES_MAX: usize = 512;

/// Keeps meaning one process, also when its number is given to another.
pub type Handle = OwnedFd;

/// This process.
///
/// # Errors
/// [`Fault::Os`] when `/proc` is not mounted.
pub fn own() -> Result<ProcessId, Fault> {
    identify(std::process::id())
}

/// The identity of the process that has the number `pid` now.
///
/// # Errors
/// [`Fault::Os`] when there is none.
pub fn identify(pid: u32) -> Result<ProcessId, Fault> {
    let path = format!("/proc/{pid}/stat");
    let gone = || Fault::os("find process", pid, Errno::SRCH);
    let text = std::fs::read_to_string(&path).map_err(|e| Fault::os("read", &path, e))?;
    let stat = Stat::parse(&text).filter(|stat| !stat.zombie).ok_or_else(gone)?;
    Ok(ProcessId { pid, start: stat.start, namespace: namespace()? })
}

/// The user that a process runs as (its effective user).
///
/// # Errors
/// [`Fault::Os`] when it is gone.
pub fn user_of(pid: u32) -> Result<u32, Fault> {
    let path = format!("/proc/{pid}");
    let metadata = std::fs::metadata(&path).map_err(|e| Fault::os("find process", pid, e))?;
    Ok(metadata.uid())
}

fn namespace() -> Result<u64, Fault> {
    let path = "/proc/self/ns/pid";
    Ok(std::fs::metadata(path).map_err(|e| Fault::os("read", path, e))?.ino())
}

/// Whether the process is alive. One of another PID namespace is taken to be: it cannot be asked,
/// and a lease that is ended too late is better than one that is ended too early.
pub fn alive(process: &ProcessId) -> bool {
    match identify(process.pid) {
        Ok(found) if found.namespace != process.namespace => true,
        Ok(found) => found == *process,
        Err(_) => namespace().is_ok_and(|own| own != process.namespace),
    }
}

/// A handle of exactly that process; `None` when it is gone.
fn handle(process: &ProcessId) -> Option<Handle> {
    let pid = Pid::from_raw(i32::try_from(process.pid).ok()?)?;
    let handle = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    // The number may have been reused before the handle was opened, not after.
    identify(process.pid).is_ok_and(|found| found == *process).then_some(handle)
}

/// Signals exactly these processes; one that is gone is skipped.
///
/// # Errors
/// [`Fault::Os`] when the kernel refuses a signal to one that is there.
pub fn signal(to: &[ProcessId], signal: rustix::process::Signal) -> Result<(), Fault> {
    let mut refused = None;
    for process in to {
        let Some(handle) = handle(process) else { continue };
        match pidfd_send_signal(&handle, signal) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => refused = Some(Fault::os("signal process", process.pid, error)),
        }
    }
    refused.map_or(Ok(()), Err)
}

/// Stops processes; returns whether all of them stood still, or were gone, by `until`. Until then one
/// may still finish a call of the kernel that it was in.
///
/// # Errors
/// [`Fault::Os`] when the kernel refuses the signal.
pub fn stop(processes: &[ProcessId], until: Boottime) -> Result<bool, Fault> {
    signal(processes, rustix::process::Signal::STOP)?;
    let moves = |process: &ProcessId| {
        let stat = read_stat(Path::new(&format!("/proc/{}", process.pid)));
        stat.is_some_and(|s| s.start == process.start && !s.stopped && !s.zombie)
    };
    while processes.iter().any(moves) {
        if clock::boottime() >= until {
            return Ok(false);
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    Ok(true)
}

/// Waits until all are gone, at most until `until`.
///
/// # Errors
/// [`Fault::Os`] when the kernel cannot wait.
pub fn await_exit(processes: &[ProcessId], until: Boottime) -> Result<(), Fault> {
    let mut handles: Vec<Handle> = processes.iter().filter_map(handle).take(HANDLES_MAX).collect();
    while !handles.is_empty() {
        let left = until.since(clock::boottime()).as_nanos();
        if left == 0 {
            return Ok(());
        }
        let mut watched: Vec<PollFd<'_>> =
            handles.iter().map(|handle| PollFd::new(handle, PollFlags::IN)).collect();
        match poll(&mut watched, Some(&timespec(left))) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Fault::os("wait for", "processes", error)),
        }
        let gone: Vec<bool> = watched.iter().map(|w| !w.revents().is_empty()).collect();
        let mut gone = gone.into_iter();
        handles.retain(|_| !gone.next().unwrap_or(false));
    }
    Ok(())
}

/// Handles of processes, to be waited for together with other things; `None` where one of them is
/// gone already, so that no handle would tell of its end. One that cannot be asked has none.
pub fn handles(processes: &[ProcessId]) -> Option<Vec<Handle>> {
    let mut handles = Vec::new();
    for process in processes.iter().take(HANDLES_MAX) {
        match handle(process) {
            Some(handle) => handles.push(handle),
            None if alive(process) => {}
            None => return None,
        }
    }
    Some(handles)
}

/// Nanoseconds as the kernel wants them.
pub fn timespec(nanos: u64) -> Timespec {
    Timespec { tv_sec: (nanos / NANOS) as i64, tv_nsec: (nanos % NANOS) as i64 }
}

/// The processes that carry the mark of the lease and run as `uid`, and the attached ones with
/// all their descendants.
///
/// `/proc` is not a snapshot: a child that is born while it is read may be missed. It is read
/// until it shows nobody new.
///
/// # Errors
/// [`Fault::Os`] when `/proc` cannot be read.
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
    let namespace = namespace()?;
    let own = std::process::id();
    let entries = std::fs::read_dir("/proc").map_err(|e| Fault::os("read", "/proc", e))?;
    let mut parents: BTreeMap<u32, Stat> = BTreeMap::new();
    let mut found = BTreeSet::new();
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let path = entry.path();
        let same_user = std::fs::metadata(&path).is_ok_and(|m| m.uid() == uid);
        if pid == own || (!same_user && attached.is_empty()) {
            continue;
        }
        let Some(stat) = read_stat(&path).filter(|stat| !stat.zombie) else { continue };
        if !attached.is_empty() {
            parents.insert(pid, stat);
        }
        if same_user && has_mark(&path, mark.as_bytes()) {
            found.insert(ProcessId { pid, start: stat.start, namespace });
        }
    }
    add_descendants(&mut found, &parents, attached, namespace);
    Ok(found)
}

fn read_stat(directory: &Path) -> Option<Stat> {
    Stat::parse(&std::fs::read_to_string(directory.join("stat")).ok()?)
}

fn has_mark(directory: &Path, mark: &[u8]) -> bool {
    let environment = std::fs::read(directory.join("environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|variable| variable == mark)
}

/// The lease that a process carries the mark of; `None` where it has none or may not be asked.
pub fn mark_of(pid: u32) -> Option<String> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let prefix = format!("{LEASE_VARIABLE}=");
    let mut variables = environment.split(|byte| *byte == 0);
    let mark = variables.find_map(|variable| variable.strip_prefix(prefix.as_bytes()))?;
    String::from_utf8(mark.to_vec()).ok()
}

/// Adds what is attached and still alive, and every process below it.
fn add_descendants(
    found: &mut BTreeSet<ProcessId>,
    parents: &BTreeMap<u32, Stat>,
    attached: &BTreeSet<ProcessId>,
    namespace: u64,
) {
    let alive = |p: &&ProcessId| parents.get(&p.pid).is_some_and(|stat| stat.start == p.start);
    let mut tree: BTreeSet<u32> = attached.iter().filter(alive).map(|p| p.pid).collect();
    loop {
        let below: Vec<u32> = parents
            .iter()
            .filter(|(pid, stat)| tree.contains(&stat.parent) && !tree.contains(*pid))
            .map(|(pid, _)| *pid)
            .collect();
        if below.is_empty() {
            break;
        }
        tree.extend(below);
    }
    found.extend(tree.into_iter().filter_map(|pid| {
        parents.get(&pid).map(|stat| ProcessId { pid, start: stat.start, namespace })
    }));
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
        assert!(handle(&earlier).is_none());
    }
}
