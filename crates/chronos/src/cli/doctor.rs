//! What is enforced on this machine, what is missing, and why.

use std::process::ExitCode;

use serde_json::json;

use super::exit::Failure;
use super::print::{GREEN, Output, RED, YELLOW};
use super::views;
use crate::lease::Lease;
use crate::os::directory::{Directory, Purpose};
use crate::os::gpu::nvml;
use crate::os::settings::Access;
use crate::os::{Host, Session, Settings, cgroup, ebpf, guard, systemd};

/// One thing that was looked at.
struct Check {
    name: &'static str,
    state: State,
    text: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Ok,
    Warning,
    Error,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// The guards that are armed for a lease, as one word.
///
/// The kernel is named only where a device program is on the lease's control group: a GPU without
/// a device node has nothing that could be refused.
pub fn guards(host: &mut Host, lease: &Lease) -> String {
    let mut guards = vec!["guardian"];
    if systemd::present() {
        guards.push("systemd");
    }
    let nodes = host.backend().nodes_of(lease);
    if lease.fenced && !nodes.is_empty() && ebpf::available() {
        guards.push("kernel");
    }
    guards.push("next-caller");
    guards.join("+")
}

/// Examines the machine. It succeeds when nothing is an error.
pub fn doctor(out: Output) -> Result<ExitCode, Failure> {
    let mut checks = Vec::new();
    let mut check = |name, state, text: String| checks.push(Check { name, state, text });
    match Settings::read() {
        Err(fault) => check("configuration", State::Error, crate::os::session::chain(&fault)),
        Ok(settings) => {
            let file = settings.config_file.as_ref().map_or_else(
                || "none; defaults are in force".to_owned(),
                |path| path.display().to_string(),
            );
            check("configuration", State::Ok, file);
            examine(&settings, &mut check);
        }
    }
    let failed = checks.iter().any(|check| check.state == State::Error);
    if out.json {
        let item = |c: &Check| json!({"name": c.name, "state": c.state.word(), "text": c.text});
        let items = checks.iter().map(item).collect();
        out.object(&views::list("CheckList", items));
    } else {
        for check in &checks {
            let colour = match check.state {
                State::Ok => GREEN,
                State::Warning => YELLOW,
                State::Error => RED,
            };
            let word = check.state.word();
            let head = format!("{word:<8} ");
            let text = out.paragraph(&head, &format!("{}: {}", check.name, check.text));
            out.line(&text.replacen(word, &out.paint(word, colour), 1));
        }
    }
    Ok(ExitCode::from(u8::from(failed)))
}

fn examine(settings: &Settings, check: &mut impl FnMut(&'static str, State, String)) {
    match settings.policy() {
        Ok(_) => {
            let text = if settings.has_policy() {
                settings.policy_file.display().to_string()
            } else {
                "no file: everyone may ask for everything".to_owned()
            };
            check("policy", State::Ok, text);
        }
        Err(fault) => check("policy", State::Error, crate::os::session::chain(&fault)),
    }
    examine_build(check);
    let mut session = match Session::open(settings) {
        Ok(session) => session,
        Err(fault) => {
            return check("state", State::Error, crate::os::session::chain(&fault));
        }
    };
    let place = settings.runtime.display();
    match &settings.access {
        Access::Helper(socket) => {
            check(
                "state",
                State::Ok,
                format!("{place}, by way of the helper at {}", socket.display()),
            );
        }
        Access::Own if rustix::process::geteuid().is_root() => {
            check("state", State::Ok, format!("{place}, for the whole machine"));
        }
        Access::Own => {
            let text = format!(
                "{place}, for this user alone: other users are not seen; root can run \
                 `chronos setup`"
            );
            check("state", State::Warning, text);
        }
    }
    if settings.access == Access::Own {
        match Directory::open(Purpose::State, &settings.state, 0o700) {
            Ok(folder) => check("history", State::Ok, folder.path().display().to_string()),
            Err(fault) => {
                let why = crate::os::session::chain(&fault);
                let text = format!("neither history nor calendar is kept: {why}");
                check("history", State::Warning, text);
            }
        }
    }
    match session.book() {
        Ok(book) => {
            let (leases, tickets) = (book.leases().len(), book.tickets().len());
            check("journal", State::Ok, format!("{leases} partition(s), {tickets} waiting"));
        }
        Err(fault) => check("journal", State::Error, crate::os::session::chain(&fault)),
    }
    examine_gpus(&mut session, check);
    examine_guards(&mut session, check);
    let text = "no memory limit is enforced inside processes by this version: partitions are kept \
                by admission, and at the deadline by signals";
    check("memory", State::Warning, text.to_owned());
}

/// Nothing is said of a build that can load the driver's libraries: `gpus` shows what came of it.
fn examine_build(check: &mut impl FnMut(&'static str, State, String)) {
    if nvml::LOADABLE {
        return;
    }
    let text = format!(
        "this build is static and cannot load `libnvidia-ml.so.1`, so it sees no NVIDIA GPU; the \
         one in chronos-linux-{}.tar.gz of a release and in the Python wheel can",
        std::env::consts::ARCH
    );
    let state = if nvml::driver_runs() { State::Error } else { State::Warning };
    check("driver", state, text);
}

fn examine_gpus(session: &mut Session, check: &mut impl FnMut(&'static str, State, String)) {
    let name = session.host().backend().name();
    match session.host().backend().gpus() {
        Ok(gpus) if gpus.is_empty() => {
            let text = "none was found; CHRONOS_BACKEND names a backend, the configuration file \
                        may describe GPUs under `gpus`";
            check("gpus", State::Error, text.to_owned());
        }
        Ok(gpus) => {
            check("gpus", State::Ok, format!("{} by backend {name}", gpus.len()));
            for gpu in gpus.iter().filter(|gpu| gpu.fault.is_some()) {
                let fault = gpu.fault.clone().unwrap_or_default();
                check("gpu", State::Error, format!("GPU {}: {fault}", gpu.index));
            }
        }
        Err(fault) => check("gpus", State::Error, crate::os::session::chain(&fault)),
    }
    let text = match name {
        "nvidia" => {
            "the driver's checkpoint interface is used where it is; it has been run by \
                     nobody yet, so treat it as an experiment"
        }
        "fake" => "as the fake GPUs are described",
        _ => "processes are stopped, their memory stays on the GPU",
    };
    check("suspend", State::Ok, text.to_owned());
}

fn examine_guards(session: &mut Session, check: &mut impl FnMut(&'static str, State, String)) {
    let host = session.host();
    match host.fences() {
        Some(_) => check("tree", State::Ok, "each partition has a control group".to_owned()),
        None => {
            let why = match cgroup::mounted() {
                None => "there is no control group hierarchy of version 2".to_owned(),
                Some(path) => format!("{} may not be written by this user", path.display()),
            };
            let text = format!("members are found by their environment, because {why}");
            check("tree", State::Warning, text);
        }
    }
    let guardian = match guard::present(host) {
        Ok(true) => "runs".to_owned(),
        Ok(false) => "none runs; one is started with the next partition".to_owned(),
        Err(_) => "cannot be asked by this user".to_owned(),
    };
    check("guardian", State::Ok, guardian);
    if systemd::present() {
        check("systemd", State::Ok, "a timer is armed for each deadline".to_owned());
    } else {
        check("systemd", State::Warning, "does not run here: no timers".to_owned());
    }
    match (host.fences(), ebpf::probe()) {
        (Some(_), Ok(())) => {
            check("kernel", State::Ok, "refuses to open the GPUs after a deadline".to_owned());
        }
        (None, _) => {
            let text = "no device programs without control groups".to_owned();
            check("kernel", State::Warning, text);
        }
        (_, Err(fault)) => {
            check("kernel", State::Warning, crate::os::session::chain(&fault));
        }
    }
}
