//! Timers of the service manager: a guard that survives every process of ours.
//!
//! A transient timer runs `chronos reap` at the deadline. It counts the clock that stops in
//! suspend, so on a laptop it may be late; the guardian is not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::host::Host;
use crate::engine::Engine;
use crate::lease::{LeaseId, Phase};
use crate::os::clock;
use crate::os::fault::Fault;
use crate::os::guard;
use crate::quantity::{Boottime, Span};

/// The variables that a timer's command needs to find the same state.
const PASSED: [&str; 7] = [
    "CHRONOS_RUNTIME_DIR",
    "CHRONOS_STATE_DIR",
    "CHRONOS_CGROUP_ROOT",
    "CHRONOS_BACKEND",
    "CHRONOS_FAKE_GPUS",
    "CHRONOS_CONFIG",
    "CHRONOS_POLICY",
];

/// Whether a service manager runs that this user may ask.
pub fn present() -> bool {
    // Source for root: sd_booted(3).
    let booted = || Path::new("/run/systemd/system").is_dir();
    user_manager().is_some() || (rustix::process::geteuid().is_root() && booted())
}

/// The socket of the user's own manager. Root uses it only where it says so, in tests.
fn user_manager() -> Option<PathBuf> {
    let root = rustix::process::geteuid().is_root();
    if root && std::env::var_os("CHRONOS_SYSTEMD_USER").is_none() {
        return None;
    }
    let directory = std::env::var_os("XDG_RUNTIME_DIR")?;
    let socket = PathBuf::from(directory).join("systemd/private");
    socket.exists().then_some(socket)
}

fn manager(program: &str) -> Command {
    let mut command = Command::new(program);
    if user_manager().is_some() {
        command.arg("--user");
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn unit(id: &LeaseId) -> String {
    format!("chronos-reap-{id}")
}

/// Arms a timer that ends the lease in `left`; an earlier one for the same lease is replaced.
///
/// # Errors
/// [`Fault::Os`] when the manager refuses.
pub fn arm(id: &LeaseId, left: Span) -> Result<(), Fault> {
    disarm(id);
    let mut command = manager("systemd-run");
    command
        .arg(format!("--unit={}", unit(id)))
        .arg(format!("--on-active={}ms", left.as_nanos().div_ceil(1_000_000) + 1))
        .args(["--timer-property=AccuracySec=50ms", "--collect", "--quiet"]);
    for name in PASSED {
        if let Some(value) = std::env::var_os(name) {
            let mut setting = std::ffi::OsString::from(format!("--setenv={name}="));
            setting.push(value);
            command.arg(setting);
        }
    }
    command.arg(guard::program()?).arg("reap");
    let fail = |e| Fault::os("arm a timer for", id, e);
    let status = command.status().map_err(fail)?;
    if status.success() {
        return Ok(());
    }
    Err(fail(std::io::Error::other(status.to_string())))
}

/// Takes the timer of a lease away; one that has run is gone already.
pub fn disarm(id: &LeaseId) {
    let timer = format!("{}.timer", unit(id));
    let _ = manager("systemctl").args(["stop", &timer]).status();
}

/// The timers of the service manager that stand behind the guardian.
#[derive(Debug, Default)]
pub struct Timers(BTreeMap<LeaseId, Boottime>);

impl Timers {
    /// One timer for each active lease, at its deadline.
    pub fn follow(&mut self, engine: &Engine<Host>) {
        if !present() {
            return;
        }
        let now = clock::boottime();
        for lease in engine.book().leases().filter(|lease| lease.phase == Phase::Active) {
            if self.0.get(&lease.id) != Some(&lease.deadline)
                && arm(&lease.id, lease.deadline.since(now)).is_ok()
            {
                self.0.insert(lease.id.clone(), lease.deadline);
            }
        }
        let ended = |id: &LeaseId| engine.book().lease(id).is_none();
        let gone: Vec<LeaseId> = self.0.keys().filter(|id| ended(id)).cloned().collect();
        for id in gone {
            disarm(&id);
            self.0.remove(&id);
        }
    }
}
