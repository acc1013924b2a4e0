//! Several users of one machine: real accounts, the helper, and a policy.

use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::sandbox::{Killed, Sandbox, await_some, gone, is_root, kill, numbers, stubborn};

/// Two accounts that every Linux has, as user and group numbers.
const ANN: (&str, &str) = ("daemon", "1");
const BOB: (&str, &str) = ("games", "60");

fn as_user(sandbox: &Sandbox, user: (&str, &str), arguments: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", user.0, "--regid", user.1, "--clear-groups"]);
    command.arg(tool(sandbox)).args(arguments).stdin(Stdio::null()).current_dir("/");
    sandbox.dress(&mut command);
    command
}

fn tool(sandbox: &Sandbox) -> std::path::PathBuf {
    sandbox.root().join("chronos")
}

fn run_as(sandbox: &Sandbox, user: (&str, &str), arguments: &[&str]) -> Output {
    as_user(sandbox, user, arguments).output().unwrap()
}

/// A sandbox that both users can read, with the helper running.
fn shared() -> Option<(Sandbox, Killed)> {
    if !is_root() {
        println!("skipped: several users need root");
        return None;
    }
    let sandbox = Sandbox::new("count=2,memory=10GiB");
    // Where the build lies may be closed to other users.
    std::fs::copy(Sandbox::tool(), tool(&sandbox)).unwrap();
    let helper = helper(&sandbox);
    Some((sandbox, helper))
}

fn helper(sandbox: &Sandbox) -> Killed {
    let mut command = sandbox.command(&["helper"]);
    let helper = Killed(command.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap());
    let socket = sandbox.runtime().join("helper.sock");
    await_some("the helper", || std::os::unix::net::UnixStream::connect(&socket).ok());
    helper
}

fn id(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} {errors}", output.status);
    let lease: Value = serde_json::from_slice(&output.stdout).unwrap();
    lease["id"].as_str().unwrap().to_owned()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

#[test]
fn neither_user_can_touch_the_others_lease_and_root_can() {
    let Some((sandbox, _helper)) = shared() else { return };
    let lease = id(&run_as(&sandbox, ANN, &["create", "0", "0.5", "600", "--json"]));
    let tries: [&[&str]; 5] = [
        &["release", &lease],
        &["release", "--force", &lease],
        &["extend", &lease, "--for", "1h"],
        &["suspend", &lease],
        &["attach", &lease, "--pid", "1"],
    ];
    let mut table = Vec::new();
    for arguments in tries {
        let refused = run_as(&sandbox, BOB, arguments);
        let errors = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(code(&refused), 77, "{arguments:?}: {errors}");
        assert!(errors.contains("belongs to user `daemon`"), "{errors}");
        println!("users: bob {} -> 77", arguments[0]);
        table.push(json!({ "who": "another user", "what": arguments[0], "exit": 77 }));
    }
    // A process of somebody else cannot be pulled into one's own lease, to be killed by it.
    let foreign = std::process::id().to_string();
    assert_eq!(code(&run_as(&sandbox, ANN, &["attach", &lease, "--pid", &foreign])), 77);
    // Nobody but root creates for another.
    let for_ann = ["create", "0", "0.1", "60", "--user", "daemon"];
    assert_eq!(code(&run_as(&sandbox, BOB, &for_ann)), 77);
    assert_eq!(sandbox.leases().len(), 1, "nothing was created");
    // Both see both, and root may do everything.
    let listed = run_as(&sandbox, BOB, &["list"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains(&lease));
    sandbox.ok(&["extend", &lease, "--for", "1h"]);
    sandbox.ok(&["release", &lease]);
    let made = sandbox.json(&["create", "0", "0.1", "60", "--user", "daemon"]);
    assert_eq!(made["user"], "daemon");
    let own = run_as(&sandbox, ANN, &["release", made["id"].as_str().unwrap()]);
    assert_eq!(code(&own), 0, "what root made for her is hers");
    table.push(json!({ "who": "root", "what": "extend, release, create --user", "exit": 0 }));
    crate::sandbox::record("users", &json!(table));
}

#[test]
fn policy_holds_for_users_and_not_for_root() {
    let Some((sandbox, _helper)) = shared() else { return };
    let policy = "default: {maxGpus: 1, maxMemory: 50%, maxDuration: 1h, maxPriority: normal, \
                  maxLeases: 2}\nusers:\n  games: {maxDuration: 10m}\n";
    std::fs::write(sandbox.root().join("policy.yaml"), policy).unwrap();
    let refused: [&[&str]; 5] = [
        &["create", "--count", "2", "0.1", "60"],
        &["create", "0", "0.6", "60"],
        &["create", "0", "0.1", "2h"],
        &["create", "0", "0.1", "60", "--priority", "high"],
        &["suggest", "0", "0.6", "60"],
    ];
    for arguments in refused {
        let output = run_as(&sandbox, ANN, arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(code(&output), 77, "{arguments:?}: {errors}");
        println!("policy: {arguments:?} -> {}", errors.lines().next().unwrap());
        assert!(errors.contains("exceeds the policy's"), "{errors}");
        sandbox.ok(&[&["create"], &arguments[1..]].concat());
        let made = sandbox.book().leases().next().map(|lease| lease.id.0.clone());
        sandbox.ok(&["release", &made.unwrap()]);
    }
    let first = id(&run_as(&sandbox, ANN, &["create", "0", "0.1", "60", "--json"]));
    id(&run_as(&sandbox, ANN, &["create", "0", "0.1", "60", "--json"]));
    assert_eq!(code(&run_as(&sandbox, ANN, &["create", "0", "0.1", "60"])), 77, "two at most");
    assert_eq!(code(&run_as(&sandbox, ANN, &["extend", &first, "--for", "2h"])), 77);
    // An entry of one's own replaces the default wholly.
    assert_eq!(code(&run_as(&sandbox, BOB, &["create", "0", "0.1", "20m"])), 77);
    assert_eq!(code(&run_as(&sandbox, BOB, &["create", "0", "0.7", "5m"])), 0);
    // Whoever cannot reach the helper is told what to do.
    let mut unreached = as_user(&sandbox, BOB, &["create", "0", "0.1", "60"]);
    let away = sandbox.root().join("away");
    std::fs::create_dir(&away).unwrap();
    drop(std::os::unix::net::UnixListener::bind(away.join("helper.sock")).unwrap());
    let output = unreached.env("CHRONOS_RUNTIME_DIR", &away).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(code(&output), 74, "{errors}");
    assert!(errors.contains("hint: root: `systemctl status chronos-helper.socket`"), "{errors}");
    // A file with an error grants nothing, and says where.
    std::fs::write(sandbox.root().join("policy.yaml"), "default: {maxGpu: 1}\n").unwrap();
    let output = run_as(&sandbox, BOB, &["create", "1", "0.1", "5m"]);
    assert_eq!(code(&output), 78, "{}", String::from_utf8_lossy(&output.stderr));
    sandbox.ok(&["create", "1", "0.1", "5m"]);
}

#[test]
fn a_users_job_ends_in_time_although_the_helper_is_killed() {
    let Some((sandbox, mut helper)) = shared() else { return };
    let file = sandbox.root().join("tree");
    std::fs::write(&file, "").unwrap();
    std::os::unix::fs::chown(&file, Some(1), Some(1)).unwrap();
    let job = stubborn(&file);
    let arguments = ["run", "--for", "2s", "--grace", "300ms", "--", "sh", "-c", &job];
    let mut command = as_user(&sandbox, ANN, &arguments);
    let mut supervisor = Killed(command.stderr(Stdio::null()).spawn().unwrap());
    let id = sandbox.first_lease();
    let tree = numbers(&file, 2);
    let lease = sandbox.book().lease(&chronos::lease::LeaseId(id)).unwrap().clone();
    assert_eq!(lease.owner.user, "daemon");
    kill(helper.0.id());
    helper.0.wait().unwrap();
    kill(supervisor.0.id());
    supervisor.0.wait().unwrap();
    await_some("the end of the tree", || tree.iter().all(|pid| gone(*pid)).then_some(()));
    let end = lease.deadline.as_nanos() + 300_000_000;
    let late =
        (i128::from(chronos::os::clock::boottime().as_nanos()) - i128::from(end)) / 1_000_000;
    println!("guards: helper and supervisor killed: tree ended {late} ms after deadline and grace");
    assert!((-5..=1_500).contains(&late), "{late} ms late");
    crate::sandbox::record("helper", &json!({ "late_ms": late as i64 }));
}
