//! What is enforced on this machine, what is missing, and why.

use std::process::ExitCode;

use serde_json::json;

use super::exit::Failure;
use super::print::{GREEN, Output, RED, YELLOW};
use super::views;
use crate::os::check::{Check, State};
use crate::os::directory::Directory;
use crate::os::fault::Purpose;
use crate::os::gpu::nvml;
use crate::os::settings::Access;
use crate::os::{Session, Settings, guards};

/// Examines the machine. It succeeds when nothing is an error.
pub fn doctor(out: Output) -> Result<ExitCode, Failure> {
    let mut checks = Vec::new();
    let mut check = |name, state, text: String| checks.push(Check::new(name, state, text));
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
        Access::Own => {
            let (state, whose) = guards::whose();
            check("state", state, format!("{place}, {whose}"));
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
    for found in guards::examine(session.host()) {
        check(found.name, found.state, found.text);
    }
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
