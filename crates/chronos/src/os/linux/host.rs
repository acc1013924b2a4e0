//! This computer, as the engine sees it.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

use gpu_autoscaler_model::Timestamp;
use rustix::process::Signal as UnixSignal;

use super::cgroup::{FREEZE_WAIT, Fences};
use super::directory::{self, Directory, RESERVE, Replacement};
use super::{ebpf, process};
use crate::book::Epitaph;
use crate::lease::{Gpu, Lease, LeaseId, ProcessId, Reservation, WarnSignal};
use crate::os::clock;
use crate::os::fault::{Fault, Purpose};
use crate::os::gpu::Backend;
use crate::os::history::Archive;
use crate::os::lock;
use crate::os::settings::Settings;
use crate::quantity::{Boottime, Now, Span};
use crate::world::{Mark, Room, Signal, Tail, Unsuspendable, World};

/// This computer.
#[derive(Debug)]
pub struct Host {
    runtime: Directory,
    archive: Archive,
    settings: Settings,
    backend: Backend,
    fences: Option<Fences>,
    lock: Option<(u32, File)>,
    journal: Option<File>,
    boot: String,
    mode: u32,
}

impl Host {
    /// Opens the state of this machine, or of this user where there is no machine-wide one.
    ///
    /// # Errors
    /// [`Fault`] of any kind: nothing is granted on state that cannot be trusted.
    pub fn open(settings: &Settings) -> Result<Self, Fault> {
        let (folder, mode) = modes();
        let host = Self::open_runtime(settings)?;
        Ok(Self { archive: Archive::open(&settings.state, folder, mode)?, ..host })
    }

    /// As [`Host::open`], for a guard: it ends leases although their history cannot be kept.
    ///
    /// # Errors
    /// [`Fault`] of any kind, of the runtime directory.
    pub fn open_to_guard(settings: &Settings) -> Result<Self, Fault> {
        let (folder, mode) = modes();
        let host = Self::open_runtime(settings)?;
        let archive = Archive::open(&settings.state, folder, mode);
        Ok(Self { archive: archive.unwrap_or_default(), ..host })
    }

    fn open_runtime(settings: &Settings) -> Result<Self, Fault> {
        let (folder, mode) = modes();
        let runtime = Directory::open(Purpose::Runtime, &settings.runtime, folder)?;
        Ok(Self { mode, ..Self::around(runtime, settings)? })
    }

    /// Opens the machine's state to read from it.
    ///
    /// # Errors
    /// As [`Host::open`].
    pub fn open_to_read(settings: &Settings) -> Result<Self, Fault> {
        Self::around(Directory::open_to_read(&settings.runtime, 0)?, settings)
    }

    fn around(runtime: Directory, settings: &Settings) -> Result<Self, Fault> {
        Ok(Self {
            runtime,
            archive: Archive::default(),
            settings: settings.clone(),
            backend: Backend::choose(settings)?,
            fences: Fences::find(settings.cgroup_root.as_deref(), &settings.runtime),
            lock: None,
            journal: None,
            boot: clock::boot_id()?,
            mode: 0o600,
        })
    }

    /// The folder of live state.
    pub fn runtime(&self) -> &Directory {
        &self.runtime
    }

    /// How GPUs are asked.
    pub fn backend(&mut self) -> &mut Backend {
        &mut self.backend
    }

    /// Whether leases get a control group of their own here.
    pub fn fences(&self) -> Option<&Fences> {
        self.fences.as_ref()
    }

    /// Leaves the fence that this process was born in, if any: a guardian that was started by a
    /// member of a lease must not end with it.
    pub fn leave_any_fence(&self) {
        if let Some(fences) = &self.fences {
            fences.leave();
        }
    }

    /// The settings it was opened with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    fn journal(&mut self) -> Result<Option<u64>, Fault> {
        let now = self.runtime.inode("journal")?;
        let held = self.journal.as_ref().and_then(|file| file.metadata().ok()).map(|m| m.ino());
        if now != held {
            // The old file stays open until here, so that its inode cannot have been reused.
            self.journal = match now {
                Some(_) => self.runtime.file_to_read("journal")?,
                None => None,
            };
        }
        Ok(self.journal.as_ref().and_then(|file| file.metadata().ok()).map(|m| m.ino()))
    }

    fn members_of(&self, lease: &Lease) -> Result<BTreeSet<ProcessId>, Fault> {
        let mut members = process::members(&lease.id, lease.owner.uid, &lease.attached)?;
        if let Some(fences) = self.fences.as_ref().filter(|_| lease.fenced) {
            members.extend(fences.members(&lease.id));
        }
        Ok(members)
    }

    fn fail(&self, verb: &'static str, error: std::io::Error) -> Fault {
        Fault::os(verb, self.runtime.path_of("journal").display(), error)
    }
}

impl World for Host {
    type Fault = Fault;

    fn now(&mut self) -> Now {
        clock::now()
    }

    fn boot(&mut self) -> Result<String, Fault> {
        Ok(self.boot.clone())
    }

    fn lock(&mut self) -> Result<(), Fault> {
        // A child of fork shares its parent's open file, and with it the lock: it opens its own.
        let own = std::process::id();
        if self.lock.as_ref().is_none_or(|(opener, _)| *opener != own) {
            self.lock = Some((own, self.runtime.file("lock", self.mode)?));
        }
        let (_, file) = self.lock.as_ref().expect("opened above");
        lock::lock(file, &self.runtime.path_of("lock"))
    }

    fn unlock(&mut self) {
        if let Some((_, file)) = &self.lock {
            lock::unlock(file);
        }
    }

    fn read(&mut self, from: Mark) -> Result<Tail, Fault> {
        let file = self.journal()?.unwrap_or(0);
        let Some(journal) = &self.journal else { return Ok(Tail { file, bytes: Vec::new() }) };
        let start = if file == from.file { from.length } else { 0 };
        let length = journal.metadata().map_err(|e| self.fail("examine", e))?.len();
        let mut bytes = vec![0; usize::try_from(length.saturating_sub(start)).unwrap_or(0)];
        let mut filled = 0;
        // Not `read_exact`: a writer may cut a torn line off while it is read.
        while filled < bytes.len() {
            let at = start + filled as u64;
            match journal.read_at(&mut bytes[filled..], at).map_err(|e| self.fail("read", e))? {
                0 => break,
                more => filled += more,
            }
        }
        bytes.truncate(filled);
        Ok(Tail { file, bytes })
    }

    fn append(&mut self, at: Mark, bytes: &[u8], room: Room) -> Result<(), Fault> {
        let journal = self.runtime.file("journal", self.mode)?;
        let write = |e| self.fail("write", e);
        if journal.metadata().map_err(write)?.len() > at.length {
            journal.set_len(at.length).map_err(write)?;
        }
        if room == Room::Keep {
            directory::keep_room(&journal, at.length, bytes.len() as u64 + RESERVE)
                .map_err(write)?;
        }
        journal.write_all_at(bytes, at.length).map_err(write)
    }

    fn replace(&mut self, bytes: &[u8]) -> Result<Mark, Fault> {
        let plan = Replacement { mode: self.mode, reserve: RESERVE, durable: false };
        let file = self.runtime.replace("journal", "journal.new", bytes, plan)?;
        let inode = file.metadata().map_err(|e| self.fail("examine", e))?.ino();
        self.journal = Some(file);
        Ok(Mark { file: inode, length: bytes.len() as u64 })
    }

    fn index(&mut self) -> Result<Option<(u64, Vec<u8>)>, Fault> {
        // The journal stays open, so that its inode cannot have been given to another file.
        let Some(journal) = self.journal()? else { return Ok(None) };
        let Some(file) = self.runtime.file_to_read("index")? else { return Ok(None) };
        let fail = |e| Fault::os("read", self.runtime.path_of("index").display(), e);
        let length = file.metadata().map_err(fail)?.len();
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        file.read_exact_at(&mut bytes, 0).map_err(fail)?;
        Ok(Some((journal, bytes)))
    }

    fn keep_index(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let plan = Replacement { mode: self.mode, reserve: 0, durable: false };
        self.runtime.replace("index", "index.new", bytes, plan).map(drop)
    }

    fn remove_index(&mut self) -> Result<(), Fault> {
        self.runtime.remove("index")
    }

    fn gpus(&mut self) -> Result<Vec<Gpu>, Fault> {
        let mut gpus = self.backend.gpus()?;
        super::old_locks::add_foreign(&self.settings.old_locks(), &mut gpus);
        Ok(gpus)
    }

    fn fence(&mut self, lease: &Lease) -> Result<bool, Fault> {
        if self.settings.config.lock_compat {
            super::old_locks::write(&self.settings.old_locks(), lease)?;
        }
        let Some(fences) = &self.fences else { return Ok(false) };
        let path = fences.make(&lease.id)?;
        let nodes = self.backend.nodes_of(lease);
        // New opens after the deadline are refused by the kernel where it can; the other guards do
        // not depend on it.
        let _ = ebpf::arm(&path, lease.deadline, &nodes);
        Ok(true)
    }

    fn refence(&mut self, lease: &Lease) -> Result<(), Fault> {
        if let Some(fences) = self.fences.as_ref().filter(|_| lease.fenced) {
            let nodes = self.backend.nodes_of(lease);
            let _ = ebpf::arm(&fences.path(&lease.id), lease.deadline, &nodes);
        }
        Ok(())
    }

    fn unfence(&mut self, id: &LeaseId) -> Result<(), Fault> {
        if self.settings.config.lock_compat {
            super::old_locks::remove(&self.settings.old_locks(), id);
        }
        self.fences.as_ref().map_or(Ok(()), |fences| fences.remove(id))
    }

    fn fences(&mut self) -> Result<Vec<LeaseId>, Fault> {
        self.fences.as_ref().map_or_else(|| Ok(Vec::new()), Fences::all)
    }

    fn enclose(&mut self, lease: &Lease, process: &ProcessId) -> Result<(), Fault> {
        match self.fences.as_ref().filter(|_| lease.fenced) {
            Some(fences) => fences.enclose(&lease.id, process),
            None => Ok(()),
        }
    }

    fn members(&mut self, lease: &Lease) -> Result<Vec<ProcessId>, Fault> {
        Ok(self.members_of(lease)?.into_iter().collect())
    }

    fn signal(
        &mut self,
        lease: &Lease,
        members: &[ProcessId],
        signal: Signal,
    ) -> Result<(), Fault> {
        let unix = match signal {
            Signal::Term => UnixSignal::TERM,
            Signal::Kill => UnixSignal::KILL,
            Signal::Warn(warning) => {
                let warning = match warning {
                    WarnSignal::Usr1 => UnixSignal::USR1,
                    WarnSignal::Usr2 => UnixSignal::USR2,
                    WarnSignal::Hup => UnixSignal::HUP,
                    WarnSignal::Int => UnixSignal::INT,
                };
                return process::signal(members, warning);
            }
        };
        if let Some(fences) = self.fences.as_ref().filter(|_| lease.fenced) {
            // Stopped processes could not act on SIGTERM.
            fences.thaw(&lease.id)?;
            if signal == Signal::Kill && !fences.holds_self(&lease.id) {
                fences.kill(&lease.id)?;
            }
        }
        let signalled = process::signal(members, unix);
        if signal == Signal::Term {
            process::signal(members, UnixSignal::CONT)?;
        }
        signalled
    }

    fn own(&mut self) -> Result<ProcessId, Fault> {
        process::own()
    }

    fn checkpoints(&mut self) -> bool {
        self.backend.checkpoints()
    }

    fn preempt_exempt_time(&self) -> Span {
        self.settings.preempt_exempt_time()
    }

    fn alive(&mut self, process: &ProcessId) -> bool {
        process::alive(process)
    }

    fn await_exit(&mut self, processes: &[ProcessId], until: Boottime) -> Result<(), Fault> {
        process::await_exit(processes, until)
    }

    fn unload(&mut self, members: &[ProcessId]) -> Result<bool, Fault> {
        Ok(self.backend.checkpoint(members).is_ok())
    }

    fn stop(
        &mut self,
        lease: &Lease,
        members: &[ProcessId],
    ) -> Result<Result<(), Unsuspendable>, Fault> {
        // Nor may one be stopped that holds this lock.
        let _held = self.archive.hold()?;
        let fences = self.fences.as_ref().filter(|_| lease.fenced);
        let inside = match fences {
            Some(fences) => {
                // A tool in a job that suspends the lease it is in goes on outside.
                if fences.holds_self(&lease.id) {
                    fences.leave();
                }
                if !fences.freeze(&lease.id)? {
                    return Ok(Err(still_running()));
                }
                fences.members(&lease.id)
            }
            None => BTreeSet::new(),
        };
        let outside = members.iter().filter(|member| !inside.contains(member));
        let outside: Vec<ProcessId> = outside.cloned().collect();
        let until = clock::boottime().after(FREEZE_WAIT);
        Ok(if process::stop(&outside, until)? { Ok(()) } else { Err(still_running()) })
    }

    fn resume(&mut self, lease: &Lease, members: &[ProcessId]) -> Result<(), Fault> {
        if let Some(fences) = self.fences.as_ref().filter(|_| lease.fenced) {
            fences.thaw(&lease.id)?;
        }
        process::signal(members, UnixSignal::CONT)?;
        self.backend.restore(members)
    }

    fn bury(&mut self, epitaph: &Epitaph) -> Result<(), Fault> {
        self.archive.bury(epitaph);
        Ok(())
    }

    fn used(&mut self) -> Result<Vec<(u32, f64, Timestamp)>, Fault> {
        self.archive.used()
    }

    fn calendar(&mut self) -> Result<Vec<Reservation>, Fault> {
        self.archive.calendar()
    }

    fn keep_calendar(&mut self, reservations: &[Reservation]) -> Result<(), Fault> {
        self.archive.keep_calendar(reservations)
    }
}

fn still_running() -> Unsuspendable {
    Unsuspendable(format!("its processes did not stop within {FREEZE_WAIT}"))
}

/// Permission bits of folders and files. What root keeps, everyone may read, so that `list` needs no
/// helper.
fn modes() -> (u32, u32) {
    if rustix::process::geteuid().is_root() { (0o755, 0o644) } else { (0o700, 0o600) }
}
