//! What keeps deadlines on this machine, and what is missing.

use super::host::Host;
use super::{cgroup, ebpf, systemd};
use crate::lease::Lease;
use crate::os::check::{Check, State};
use crate::os::guard;
use crate::os::session::chain;
use crate::os::users;

/// The guards that are armed for a lease.
///
/// The kernel is named only where a device program is on the lease's control group: a GPU without
/// a device node has nothing that could be refused.
pub fn armed(host: &mut Host, lease: &Lease) -> Vec<&'static str> {
    let mut guards = vec!["guardian"];
    if systemd::present() {
        guards.push("systemd");
    }
    let nodes = host.backend().nodes_of(lease);
    if lease.fenced && !nodes.is_empty() && ebpf::available() {
        guards.push("kernel");
    }
    guards.push("next-caller");
    guards
}

/// Whose partitions are in state that this process owns.
pub fn whose() -> (State, &'static str) {
    if users::effective_uid() == 0 {
        return (State::Ok, "for the whole machine");
    }
    let alone = "for this user alone: other users are not seen; root can run `chronos setup`";
    (State::Warning, alone)
}

/// Examines each of them.
pub fn examine(host: &mut Host) -> Vec<Check> {
    let tree = match host.fences() {
        Some(_) => Check::new("tree", State::Ok, "each partition has a control group"),
        None => {
            let why = match cgroup::mounted() {
                None => "there is no control group hierarchy of version 2".to_owned(),
                Some(path) => format!("{} may not be written by this user", path.display()),
            };
            let text = format!("members are found by their environment, because {why}");
            Check::new("tree", State::Warning, text)
        }
    };
    let timers = if systemd::present() {
        Check::new("systemd", State::Ok, "a timer is armed for each deadline")
    } else {
        Check::new("systemd", State::Warning, "does not run here: no timers")
    };
    let kernel = match (host.fences(), ebpf::probe()) {
        (Some(_), Ok(())) => {
            Check::new("kernel", State::Ok, "refuses to open the GPUs after a deadline")
        }
        (None, _) => {
            Check::new("kernel", State::Warning, "no device programs without control groups")
        }
        (_, Err(fault)) => Check::new("kernel", State::Warning, chain(&fault)),
    };
    vec![tree, guard::examine(host), timers, kernel]
}
