//! This computer, with what every system has.

use std::fs::File;
use std::io::Read;

use gpu_autoscaler_model::Timestamp;

use super::directory::{Directory, Replacement};
use super::journal::Journal;
use super::process::{self, Order};
use super::{absent, kernel};
use crate::book::Epitaph;
use crate::lease::{Gpu, Lease, LeaseId, ProcessId, Reservation};
use crate::os::fault::{Fault, Purpose};
use crate::os::gpu::Backend;
use crate::os::history::Archive;
use crate::os::settings::Settings;
use crate::os::{clock, lock, users};
use crate::quantity::{Boottime, Now, Span};
use crate::world::{Mark, Room, Signal, Tail, Unsuspendable, World};

/// How long processes may take to stop. The journal is locked meanwhile.
const STOP_WAIT: Span = Span::from_secs(3);

/// This computer.
#[derive(Debug)]
pub struct Host {
    runtime: Directory,
    archive: Archive,
    settings: Settings,
    backend: Backend,
    lock: Option<(u32, File)>,
    journal: Journal,
    boot: String,
    mode: u32,
}

impl Host {
    /// Opens the state of this user.
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
        if settings.config.lock_compat {
            return Err(absent("lock_compat", "lock files of the earlier implementation"));
        }
        let runtime = Directory::open(Purpose::Runtime, &settings.runtime, modes().0)?;
        let host = Self::around(runtime, settings)?;
        host.journal.remove_others(&host.runtime);
        Ok(host)
    }

    /// Opens the machine's state to read from it.
    ///
    /// # Errors
    /// As [`Host::open`].
    pub fn open_to_read(settings: &Settings) -> Result<Self, Fault> {
        Self::around(Directory::open_to_read(&settings.runtime, 0)?, settings)
    }

    fn around(runtime: Directory, settings: &Settings) -> Result<Self, Fault> {
        let (boot, mode) = (clock::boot_id()?, modes().1);
        Ok(Self {
            runtime,
            archive: Archive::default(),
            settings: settings.clone(),
            backend: Backend::choose(settings)?,
            lock: None,
            journal: Journal::of(&boot, mode),
            boot,
            mode,
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

    /// Leaves nothing: there is no fence that this process could have been born in.
    pub fn leave_any_fence(&self) {}

    /// The settings it was opened with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}

/// Permission bits of folders and files.
fn modes() -> (u32, u32) {
    if users::effective_uid() == 0 { (0o755, 0o644) } else { (0o700, 0o600) }
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
        self.journal.read(&self.runtime, from)
    }

    fn append(&mut self, at: Mark, bytes: &[u8], room: Room) -> Result<(), Fault> {
        self.journal.append(&self.runtime, at, bytes, room)
    }

    fn replace(&mut self, bytes: &[u8]) -> Result<Mark, Fault> {
        self.journal.replace(&self.runtime, bytes)
    }

    fn index(&mut self) -> Result<Option<(u64, Vec<u8>)>, Fault> {
        let journal = self.journal.current(&self.runtime)?;
        if journal == 0 {
            return Ok(None);
        }
        let name = self.journal.index();
        let Some(mut file) = self.runtime.file_to_read(&name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)
            .map_err(|e| Fault::os("read", self.runtime.path_of(&name).display(), e))?;
        Ok(Some((journal, bytes)))
    }

    fn keep_index(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let plan = Replacement { mode: self.mode, reserve: 0, durable: false };
        self.runtime.replace(&self.journal.index(), "index.new", bytes, plan)
    }

    fn remove_index(&mut self) -> Result<(), Fault> {
        self.runtime.remove(&self.journal.index())
    }

    fn gpus(&mut self) -> Result<Vec<Gpu>, Fault> {
        self.backend.gpus()
    }

    fn fence(&mut self, _lease: &Lease) -> Result<bool, Fault> {
        Ok(false)
    }

    fn refence(&mut self, _lease: &Lease) -> Result<(), Fault> {
        Ok(())
    }

    fn unfence(&mut self, _id: &LeaseId) -> Result<(), Fault> {
        Ok(())
    }

    fn fences(&mut self) -> Result<Vec<LeaseId>, Fault> {
        Ok(Vec::new())
    }

    fn enclose(&mut self, _lease: &Lease, _process: &ProcessId) -> Result<(), Fault> {
        Ok(())
    }

    fn members(&mut self, lease: &Lease) -> Result<Vec<ProcessId>, Fault> {
        let members = process::members(&lease.id, lease.owner.uid, &lease.attached)?;
        Ok(members.into_iter().collect())
    }

    fn signal(
        &mut self,
        _lease: &Lease,
        members: &[ProcessId],
        signal: Signal,
    ) -> Result<(), Fault> {
        let order = match signal {
            Signal::Term => Order::Term,
            Signal::Kill => Order::Kill,
            Signal::Warn(warning) => Order::Warn(warning),
        };
        let signalled = process::signal(members, order);
        if signal == Signal::Term && kernel::HAS_SIGNALS {
            // Stopped processes could not act on it.
            process::signal(members, Order::Continue)?;
        }
        signalled
    }

    fn own(&mut self) -> Result<ProcessId, Fault> {
        process::own()
    }

    fn checkpoints(&mut self) -> bool {
        kernel::HAS_SIGNALS && self.backend.checkpoints()
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
        Ok(self.checkpoints() && self.backend.checkpoint(members).is_ok())
    }

    fn stop(
        &mut self,
        _lease: &Lease,
        members: &[ProcessId],
    ) -> Result<Result<(), Unsuspendable>, Fault> {
        if !kernel::HAS_SIGNALS {
            let why = format!("{} stops no process from outside", std::env::consts::OS);
            return Ok(Err(Unsuspendable(why)));
        }
        // Nor may one be stopped that holds this lock.
        let _held = self.archive.hold()?;
        process::signal(members, Order::Stop)?;
        // One that does not stand still yet may still finish a call of the kernel that it was in.
        let until = clock::boottime().after(STOP_WAIT);
        let moves = |member: &&ProcessId| process::alive(member) && !kernel::is_stopped(member.pid);
        while let Some(member) = members.iter().find(moves) {
            if clock::boottime() >= until {
                let why = format!("process {} did not stop within {STOP_WAIT}", member.pid);
                return Ok(Err(Unsuspendable(why)));
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        Ok(Ok(()))
    }

    fn resume(&mut self, _lease: &Lease, members: &[ProcessId]) -> Result<(), Fault> {
        process::signal(members, Order::Continue)?;
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
