//! What the engine asks of the machine: one call of [`World`] is one step that a crash can follow.
//!
//! `os::Host` is this computer. The model test has a world of its own, in memory, that kills the
//! caller at any step and tears any write.

use gpu_autoscaler_model::Timestamp;

use crate::book::Epitaph;
use crate::lease::{Gpu, Lease, LeaseId, ProcessId, Reservation, WarnSignal};
use crate::quantity::{Boottime, Now, Span};

/// A place in the journal: which file and how far it was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mark {
    /// Changes when the journal is rewritten; 0 is no file at all.
    pub file: u64,
    /// Bytes of whole lines.
    pub length: u64,
}

/// What the journal holds beyond a mark.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tail {
    /// The file the bytes are from; when it is not the mark's, they start at its beginning.
    pub file: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// What an append may do with the space that is kept for ending leases on a full disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    /// It must leave it untouched: what would be granted could not be ended otherwise.
    Keep,
    /// It may use it.
    Use,
}

/// A signal to the processes of a lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// SIGTERM: please end.
    Term,
    /// SIGKILL, to the control group as a whole where there is one.
    Kill,
    /// The deadline is near.
    Warn(WarnSignal),
}

/// What suspending a lease achieved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Suspension {
    /// The processes are stopped and their GPU memory is in host memory.
    Checkpointed,
    /// The processes are stopped; their GPU memory is where it was.
    Frozen,
}

/// Why a world could not do as it was asked, beyond a fault of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unsuspendable(pub String);

/// The machine, as the engine needs it.
pub trait World {
    /// What can go wrong with the machine itself.
    type Fault: std::error::Error + Send + Sync + 'static;

    /// Reads both clocks.
    fn now(&mut self) -> Now;

    /// Which boot this is.
    fn boot(&mut self) -> Result<String, Self::Fault>;

    /// Waits for the journal's lock. It is released by [`World::unlock`] and by death.
    fn lock(&mut self) -> Result<(), Self::Fault>;

    /// Releases the journal's lock.
    fn unlock(&mut self);

    /// Reads the journal beyond `from`, or the whole of it when the file is another one.
    fn read(&mut self, from: Mark) -> Result<Tail, Self::Fault>;

    /// Cuts the journal to `at` and writes `bytes` behind it. Only with the lock.
    fn append(&mut self, at: Mark, bytes: &[u8], room: Room) -> Result<(), Self::Fault>;

    /// Puts a new journal in place of the old one, whole or not at all. Only with the lock.
    fn replace(&mut self, bytes: &[u8]) -> Result<Mark, Self::Fault>;

    /// Reads the index ([`crate::index`]), with the number of the journal that was in place before
    /// it was read. That number is given to no other file before [`World::read`] has looked.
    fn index(&mut self) -> Result<Option<(u64, Vec<u8>)>, Self::Fault>;

    /// Lines after the index at which a new one is made.
    fn index_after(&self) -> usize {
        crate::index::LINES
    }

    /// Puts an index beside the journal, whole or not at all. Only with the lock.
    fn keep_index(&mut self, bytes: &[u8]) -> Result<(), Self::Fault>;

    /// Removes the index. Only with the lock.
    fn remove_index(&mut self) -> Result<(), Self::Fault>;

    /// The GPUs of the machine.
    fn gpus(&mut self) -> Result<Vec<Gpu>, Self::Fault>;

    /// Makes what fences a lease in before it is granted; whether there is one now.
    fn fence(&mut self, lease: &Lease) -> Result<bool, Self::Fault>;

    /// Moves the deadline that the fence knows.
    fn refence(&mut self, lease: &Lease) -> Result<(), Self::Fault>;

    /// Takes the fence down. Processes that are still inside are left running outside of it.
    fn unfence(&mut self, id: &LeaseId) -> Result<(), Self::Fault>;

    /// The fences that are up, whether their lease lives or not.
    fn fences(&mut self) -> Result<Vec<LeaseId>, Self::Fault>;

    /// Puts a process into the fence of a lease, where it has one.
    fn enclose(&mut self, lease: &Lease, process: &ProcessId) -> Result<(), Self::Fault>;

    /// Every process of the lease's tree that is alive.
    fn members(&mut self, lease: &Lease) -> Result<Vec<ProcessId>, Self::Fault>;

    /// Signals members, each by a handle that cannot mean another process.
    fn signal(
        &mut self,
        lease: &Lease,
        members: &[ProcessId],
        signal: Signal,
    ) -> Result<(), Self::Fault>;

    /// The process that asks.
    fn own(&mut self) -> Result<ProcessId, Self::Fault>;

    /// Whether suspending a lease frees its memory here, as far as can be said before it is tried.
    fn checkpoints(&mut self) -> bool;

    /// How long a lease runs before it may be suspended for another.
    fn preempt_exempt_time(&self) -> Span;

    /// Whether a process is alive.
    fn alive(&mut self, process: &ProcessId) -> bool;

    /// Waits until all of `processes` are gone, at most until `until`.
    fn await_exit(&mut self, processes: &[ProcessId], until: Boottime) -> Result<(), Self::Fault>;

    /// Moves the GPU memory of processes to host memory, which may take tens of seconds; whether it
    /// was moved. They run on.
    fn unload(&mut self, members: &[ProcessId]) -> Result<bool, Self::Fault>;

    /// Stops the processes of a lease. Only with the lock: a process that is stopped while it holds
    /// a lock of ours, such as a tool in a job, would hold it for as long as it stands still.
    fn stop(
        &mut self,
        lease: &Lease,
        members: &[ProcessId],
    ) -> Result<Result<(), Unsuspendable>, Self::Fault>;

    /// Lets the processes of a lease run again, with their GPU memory restored.
    fn resume(&mut self, lease: &Lease, members: &[ProcessId]) -> Result<(), Self::Fault>;

    /// Writes the durable line of a lease that is over. The same lease may be written twice.
    fn bury(&mut self, epitaph: &Epitaph) -> Result<(), Self::Fault>;

    /// What leases that are over have used: user, GPU-seconds, and the date at which each ended.
    fn used(&mut self) -> Result<Vec<(u32, f64, Timestamp)>, Self::Fault>;

    /// Windows of the calendar that were kept across a reboot.
    fn calendar(&mut self) -> Result<Vec<Reservation>, Self::Fault>;

    /// Keeps the calendar across a reboot.
    fn keep_calendar(&mut self, reservations: &[Reservation]) -> Result<(), Self::Fault>;
}
