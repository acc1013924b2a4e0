//! What keeps deadlines here, and what is missing.

use super::host::Host;
use super::kernel;
use crate::engine::Engine;
use crate::lease::Lease;
use crate::os::check::{Check, State};
use crate::os::guard;

/// The guards that are armed for a lease.
pub fn armed(_host: &mut Host, _lease: &Lease) -> Vec<&'static str> {
    vec!["guardian", "next-caller"]
}

/// Whose partitions are in state that this process owns.
pub fn whose() -> (State, &'static str) {
    (State::Warning, "for this user alone: other users are not seen")
}

/// Examines each of them.
pub fn examine(host: &mut Host) -> Vec<Check> {
    let tree = "members are found by their environment and their parents: a process that drops \
                both leaves its partition";
    let signals = if kernel::HAS_SIGNALS {
        Check::new("signals", State::Ok, "SIGTERM, then SIGKILL after the grace")
    } else {
        let text = "none here: processes are ended after the grace, without being asked before";
        Check::new("signals", State::Warning, text)
    };
    let none = format!("{} refuses no process a GPU", std::env::consts::OS);
    vec![
        Check::new("tree", State::Warning, tree),
        guard::examine(host),
        signals,
        Check::new("kernel", State::Warning, none),
    ]
}

/// Timers of a service manager: there are none.
#[derive(Debug, Default)]
pub struct Timers {}

impl Timers {
    /// Does nothing: the guardian is alone.
    pub fn follow(&mut self, _engine: &Engine<Host>) {}
}
