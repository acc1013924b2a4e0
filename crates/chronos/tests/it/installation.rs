//! `chronos setup`, as root in a mount namespace of its own, and the helper as a service manager
//! starts it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Output, Stdio};

use crate::sandbox::{Killed, Sandbox, await_some, is_root};

fn there(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Runs `script` where `/etc` is a copy that nobody else sees.
fn with_own_etc(sandbox: &Sandbox, script: &str) -> Option<Output> {
    if !is_root() {
        println!("skipped: a mount namespace needs root");
        return None;
    }
    // An overlay cannot lie on a path that is itself one: its folders are on a tmpfs.
    let place = sandbox.root().join("etc");
    std::fs::create_dir_all(&place).unwrap();
    let mount = format!(
        "mount -t tmpfs tmpfs {0} && mkdir {0}/upper {0}/work && \
         mount -t overlay overlay -o lowerdir=/etc,upperdir={0}/upper,workdir={0}/work /etc",
        place.display()
    );
    let unshared = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-euc", script]).stdin(Stdio::null());
        sandbox.dress(&mut command);
        command.env("TOOL", Sandbox::tool()).output().unwrap()
    };
    if !unshared(&mount).status.success() {
        println!("skipped: an overlay cannot be mounted here");
        return None;
    }
    Some(unshared(&format!("{mount}\n{script}")))
}

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

#[test]
fn setup_writes_what_is_not_there_and_keeps_what_is() {
    let mut sandbox = Sandbox::new("count=1").without_guardian();
    sandbox.set("CHRONOS_POLICY", "/etc/chronos/policy.yaml");
    let script = "mount -t tmpfs tmpfs /run/systemd 2> /dev/null || :
        \"$TOOL\" setup; \"$TOOL\" config check
        printf 'default: {maxGpus: 1}\\n' > /etc/chronos/policy.yaml
        \"$TOOL\" setup; cat /etc/chronos/policy.yaml";
    let Some(done) = with_own_etc(&sandbox, script) else { return };
    let text = text(&done);
    assert!(done.status.success(), "{text}");
    for line in [
        "[OK] Wrote /etc/chronos/policy.yaml",
        "[OK] No service manager here: have your init run `chronos helper` as root",
        "policy /etc/chronos/policy.yaml: no error",
        "[OK] Kept /etc/chronos/policy.yaml",
        "\ndefault: {maxGpus: 1}\n",
    ] {
        assert!(text.contains(line), "`{line}` is missing:\n{text}");
    }
}

/// Without a system manager that could be asked, a stand-in writes down what it is told; the units
/// are examined by systemd's own checker.
#[test]
fn setup_installs_units_that_systemd_accepts() {
    let sandbox = Sandbox::new("count=1").without_guardian();
    let programs = sandbox.root().join("bin");
    std::fs::create_dir_all(&programs).unwrap();
    let told = sandbox.root().join("told");
    let stand_in = format!("#!/bin/sh\necho \"$*\" >> {}\n", told.display());
    std::fs::write(programs.join("systemctl"), stand_in).unwrap();
    let script = format!(
        "chmod +x {0}/systemctl; mount -t tmpfs tmpfs /run/systemd; mkdir /run/systemd/system
         PATH={0}:$PATH CHRONOS_PROGRAM=$TOOL \"$TOOL\" setup
         if command -v systemd-analyze > /dev/null; then
             systemd-analyze verify /etc/systemd/system/chronos-helper.socket \
                 /etc/systemd/system/chronos-helper.service
         fi
         cat /etc/systemd/system/chronos-helper.socket",
        programs.display()
    );
    let Some(done) = with_own_etc(&sandbox, &script) else { return };
    let text = text(&done);
    assert!(done.status.success(), "{text}");
    assert!(text.contains("[OK] Started chronos-helper.socket"), "{text}");
    assert!(text.contains("ListenStream=/run/chronos/helper.sock\nSocketMode=0666"), "{text}");
    let told = std::fs::read_to_string(&told).unwrap();
    assert_eq!(told, "daemon-reload\nenable --now chronos-helper.socket\n");
}

#[test]
fn setup_needs_root_and_can_be_read_before() {
    let sandbox = Sandbox::new("count=1").without_guardian();
    let printed = sandbox.ok(&["setup", "--print"]);
    for part in ["# /etc/systemd/system/chronos-helper.socket", "ExecStart=", "# /etc/chronos/"] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    if is_root() {
        std::fs::copy(Sandbox::tool(), sandbox.root().join("chronos")).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "daemon", "--regid", "1", "--clear-groups"]);
        command.arg(sandbox.root().join("chronos")).arg("setup");
        sandbox.dress(&mut command);
        command.env("CHRONOS_RUNTIME_DIR", sandbox.root().join("other"));
        assert_eq!(command.output().unwrap().status.code(), Some(77));
    }
}

/// The service manager listens, the helper is started by the first caller and leaves when nobody
/// asks; the lease it granted stays.
#[test]
fn the_helper_is_started_by_its_first_caller_and_leaves() {
    if !is_root() || !there("systemd-socket-activate") {
        println!("skipped: it needs root and systemd-socket-activate");
        return;
    }
    let sandbox = Sandbox::new("count=1").without_guardian();
    std::fs::create_dir_all(sandbox.runtime()).unwrap();
    let socket = sandbox.runtime().join("helper.sock");
    let mut command = Command::new("systemd-socket-activate");
    command.arg("--listen").arg(&socket);
    // It passes on only the variables that it is told of.
    let mut dressed = Command::new("true");
    sandbox.dress(&mut dressed);
    for (name, value) in dressed.get_envs() {
        if let Some(value) = value {
            let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
            command.arg(format!("--setenv={name}={value}"));
        }
    }
    command.arg(Sandbox::tool()).args(["helper", "--idle", "300ms"]);
    let mut manager = Killed(command.stderr(Stdio::null()).spawn().unwrap());
    let mut stream = await_some("the socket", || UnixStream::connect(&socket).ok());
    let request = r#"{"choice":{"any":{"count":1,"prefer":[]}},"memory":{"part":500000},"duration":60000000000,"grace":0}"#;
    writeln!(stream, r#"{{"order":"create","request":{request},"binding":"deadline","wait":null,"holder":null,"user":null}}"#).unwrap();
    let mut reply = String::new();
    BufReader::new(stream).read_line(&mut reply).unwrap();
    assert!(reply.starts_with(r#"{"reply":"lease""#), "{reply}");
    assert!(manager.0.wait().unwrap().success(), "it left by itself");
    assert_eq!(sandbox.book().leases().len(), 1);
}
