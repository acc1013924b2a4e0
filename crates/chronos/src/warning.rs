//! The warning before a deadline: a signal to the processes of a lease, sent by whichever guard
//! comes first.
//!
//! It is sent at least once: a guard that is killed between the signal and its record leaves it to
//! be sent again, because a job that is not told in time loses its work.

use crate::book::Event;
use crate::engine::{Done, Engine, Error};
use crate::lease::{Lease, Phase};
use crate::quantity::Now;
use crate::world::{Signal, World};

impl<W: World> Engine<W> {
    /// Warns the leases whose deadline is near and that were to be warned.
    pub(crate) fn warn_due(&mut self, now: Now) -> Done<(), W> {
        let near = |lease: &&Lease| lease.warn_at().is_some_and(|at| at <= now.boot);
        let leases: Vec<Lease> = self.book.leases().filter(near).cloned().collect();
        for lease in leases {
            if let Some(signal) = lease.request.warn_signal {
                let members = self.world.members(&lease).map_err(Error::World)?;
                self.world.signal(&lease, &members, Signal::Warn(signal)).map_err(Error::World)?;
            }
            self.transact(|engine, _| {
                let still = engine.book.lease(&lease.id);
                let warned = still.is_none_or(|l| l.warned || l.phase != Phase::Active);
                let event = Event::Warned { id: lease.id.clone() };
                Ok((if warned { Vec::new() } else { vec![event] }, ()))
            })?;
        }
        Ok(())
    }
}
