//! The job of a supervisor: what reaches it, and how it ended.

use super::kernel;
use super::notice::{Notice, pause};
use super::process::{Handle, alive};
use crate::lease::ProcessId;
use crate::os::fault::Fault;
use crate::quantity::Boottime;

pub use kernel::{become_it, code, ended_by};

/// Signals that are kept from ending the supervisor before its job.
#[derive(Debug)]
pub struct Signals(kernel::Caught);

impl Signals {
    /// Keeps them from now on.
    ///
    /// # Errors
    /// [`Fault::Os`].
    pub fn block() -> Result<Self, Fault> {
        kernel::catch().map(Self).map_err(|e| Fault::os("handle", "signals", e))
    }

    /// Waits until a signal comes, the journal is changed, a process ends, or `until`.
    ///
    /// # Errors
    /// None today.
    pub fn wait(
        &self,
        notice: &Notice,
        processes: &[Handle],
        until: Boottime,
    ) -> Result<(), Fault> {
        while !self.0.pending() && !notice.changed() && pause(processes, until) {}
        Ok(())
    }

    /// Sends the job what has come.
    ///
    /// # Errors
    /// [`Fault::Os`] when the system refuses it.
    pub fn pass_on(&self, job: &ProcessId) -> Result<(), Fault> {
        if alive(job) { self.0.pass_on(job.pid) } else { Ok(()) }
    }
}
