//! The timers of a service manager, killed and left alone in turn.

use std::process::Stdio;
use std::time::Instant;

use chronos::lease::LeaseId;
use serde_json::json;

use crate::guards::LATE_MILLIS;
use crate::sandbox::{Killed, Sandbox, await_some, gone, is_root, kill, numbers, stubborn};

/// With no process of ours alive, the timer of a service manager ends the lease.
#[test]
fn a_timer_ends_a_lease_when_every_process_of_ours_is_killed() {
    let mut sandbox = Sandbox::new("count=1");
    let runtime = sandbox.root().join("xdg");
    std::fs::create_dir_all(&runtime).unwrap();
    let Some(manager) = start_manager(&runtime) else {
        println!("skipped: no service manager can be started here");
        return;
    };
    sandbox.set("XDG_RUNTIME_DIR", &runtime.display().to_string());
    sandbox.set("CHRONOS_SYSTEMD_USER", "1");
    let file = sandbox.root().join("tree");
    let mut run = sandbox.command(&["run", "--for", "3s", "--grace", "300ms", "--"]);
    let run = run.args(["sh", "-c", &stubborn(&file)]).stdout(Stdio::null()).stderr(Stdio::null());
    let supervisor = Killed(run.spawn().unwrap());
    let id = sandbox.first_lease();
    let tree = numbers(&file, 2);
    let lease = sandbox.book().lease(&LeaseId(id.clone())).unwrap().clone();
    await_some("the timer", || {
        let units = manager.units();
        units.contains(&format!("chronos-reap-{id}.timer")).then_some(())
    });
    // A manager that replaces itself carries its timers over.
    manager.tell(&["daemon-reexec"]);
    assert!(manager.units().contains(&format!("chronos-reap-{id}.timer")));
    kill(supervisor.0.id());
    kill(await_some("the guardian", || sandbox.guardian()));
    await_some("the end of the guardian", || sandbox.guardian().is_none().then_some(()));
    await_some("the end of the tree", || tree.iter().all(|pid| gone(*pid)).then_some(()));
    let end = lease.deadline.as_nanos() + 300_000_000;
    let late =
        (i128::from(chronos::os::clock::boottime().as_nanos()) - i128::from(end)) / 1_000_000;
    println!("guards: supervisor and guardian killed: the timer ended the tree {late} ms late");
    assert!((-5..=i128::from(LATE_MILLIS)).contains(&late), "{late} ms late");
    crate::sandbox::record("timer", &json!({ "late_ms": late as i64 }));
    with_the_timer_killed(&sandbox, &manager);
}

/// The other way round: the timer is stopped, the guardian is left.
fn with_the_timer_killed(sandbox: &Sandbox, manager: &Manager) {
    let file = sandbox.root().join("other");
    let mut run = sandbox.command(&["run", "--for", "3s", "--grace", "300ms", "--"]);
    let run = run.args(["sh", "-c", &stubborn(&file)]).stdout(Stdio::null()).stderr(Stdio::null());
    let supervisor = Killed(run.spawn().unwrap());
    let id = sandbox.first_lease();
    let tree = numbers(&file, 2);
    let lease = sandbox.book().lease(&LeaseId(id.clone())).unwrap().clone();
    let timer = format!("chronos-reap-{id}.timer");
    await_some("the timer", || manager.units().contains(&timer).then_some(()));
    kill(supervisor.0.id());
    manager.tell(&["stop", &timer]);
    await_some("the end of the tree", || tree.iter().all(|pid| gone(*pid)).then_some(()));
    let end = lease.deadline.as_nanos() + 300_000_000;
    let late =
        (i128::from(chronos::os::clock::boottime().as_nanos()) - i128::from(end)) / 1_000_000;
    println!("guards: timer and supervisor killed: the guardian ended the tree {late} ms late");
    assert!((-5..=i128::from(LATE_MILLIS)).contains(&late), "{late} ms late");
    crate::sandbox::record("timer_killed", &json!({ "late_ms": late as i64 }));
}

struct Manager {
    process: Killed,
    runtime: std::path::PathBuf,
}

impl Manager {
    fn tell(&self, what: &[&str]) {
        let mut command = std::process::Command::new("systemctl");
        command.arg("--user").args(what).env("XDG_RUNTIME_DIR", &self.runtime);
        assert!(command.status().unwrap().success());
    }

    fn units(&self) -> String {
        let mut command = std::process::Command::new("systemctl");
        command.args(["--user", "list-units", "--all", "--no-legend", "--plain"]);
        let output = command.env("XDG_RUNTIME_DIR", &self.runtime).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// A service manager of a user's session, which needs neither init nor a bus.
fn start_manager(runtime: &std::path::Path) -> Option<Manager> {
    if !std::path::Path::new("/lib/systemd/systemd").exists() || !is_root() {
        return None;
    }
    // It starts only where it believes that the machine was booted by its kind, which it does
    // inside a mount namespace of its own.
    let script = "mount -t tmpfs tmpfs /run/systemd && mkdir /run/systemd/system && \
                  exec /lib/systemd/systemd --user";
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).env("XDG_RUNTIME_DIR", runtime);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let manager = Manager { process: Killed(command.spawn().ok()?), runtime: runtime.to_owned() };
    let began = Instant::now();
    while began.elapsed().as_secs() < 10 {
        if manager.units().contains(".target") {
            return Some(manager);
        }
        if gone(manager.process.0.id()) {
            return None;
        }
    }
    None
}
