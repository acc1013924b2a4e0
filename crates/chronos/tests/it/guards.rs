//! Every guard killed in turn: the lease still ends in time.

use std::process::Stdio;
use std::time::Instant;

use chronos::lease::LeaseId;
use serde_json::json;

use crate::sandbox::{Killed, Sandbox, await_some, gone, kill, numbers, stubborn};

const LENGTH_MILLIS: u64 = 1_500;
const GRACE_MILLIS: u64 = 300;

/// How late the end of a tree may be on a machine that is busy with other tests.
pub const LATE_MILLIS: u64 = 1_500;

/// What is killed while the job runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Nobody,
    Supervisor,
    Guardian,
    SupervisorAndGuardian,
}

/// Runs a job that ignores SIGTERM, kills `victim`, and returns by how many milliseconds the end
/// of its tree missed deadline and grace.
fn ends_in_time(victim: Victim) -> i128 {
    let mut sandbox = Sandbox::new("count=1");
    if victim == Victim::SupervisorAndGuardian {
        // Nobody is to take the guardian's place.
        sandbox = sandbox.without_guardian();
    }
    let file = sandbox.root().join("tree");
    let length = format!("{LENGTH_MILLIS}ms");
    let grace = format!("{GRACE_MILLIS}ms");
    let mut run = sandbox.command(&["run", "--for", &length, "--grace", &grace, "--"]);
    let run = run.args(["sh", "-c", &stubborn(&file)]).stdout(Stdio::null()).stderr(Stdio::null());
    let began = Instant::now();
    let mut supervisor = Killed(run.spawn().unwrap());
    let id = sandbox.first_lease();
    let tree = numbers(&file, 2);
    match victim {
        Victim::Nobody => {}
        Victim::Supervisor => kill(supervisor.0.id()),
        Victim::Guardian => kill(await_some("the guardian", || sandbox.guardian())),
        Victim::SupervisorAndGuardian => kill(supervisor.0.id()),
    }
    let lease = sandbox.book().lease(&LeaseId(id)).unwrap().clone();
    if victim == Victim::SupervisorAndGuardian {
        // The next caller, once the deadline and the grace are over.
        await_some("the end of the tree", || {
            sandbox.run(&["list"]);
            tree.iter().all(|pid| gone(*pid)).then_some(())
        });
    } else {
        await_some("the end of the tree", || tree.iter().all(|pid| gone(*pid)).then_some(()));
    }
    let now = chronos::os::clock::boottime();
    let end = lease.deadline.as_nanos() + GRACE_MILLIS * 1_000_000;
    let late = (i128::from(now.as_nanos()) - i128::from(end)) / 1_000_000;
    if victim == Victim::Nobody {
        let status = supervisor.0.wait().unwrap();
        assert_eq!(status.code(), Some(137), "the job was killed at its deadline");
    }
    await_some("the end of the lease", || {
        if victim == Victim::SupervisorAndGuardian {
            sandbox.run(&["list"]);
        }
        (sandbox.book().leases().len() == 0).then_some(())
    });
    let waited = began.elapsed().as_millis();
    println!(
        "guards: {victim:?} killed: tree ended {late} ms after deadline and grace ({waited} ms)"
    );
    late
}

#[test]
fn a_lease_ends_in_time_whoever_is_killed() {
    let victims =
        [Victim::Nobody, Victim::Supervisor, Victim::Guardian, Victim::SupervisorAndGuardian];
    let mut table = Vec::new();
    for victim in victims {
        let late = ends_in_time(victim);
        assert!(late >= -5, "{victim:?}: the tree was killed {late} ms before its grace was over");
        assert!(late <= i128::from(LATE_MILLIS), "{victim:?}: {late} ms late");
        table.push(json!({ "killed": format!("{victim:?}"), "late_ms": late as i64 }));
    }
    crate::sandbox::record("guards", &json!(table));
}

/// However the last lease ends, its guardian ends with it.
#[test]
fn a_guardian_leaves_with_the_last_lease() {
    let leaves = |sandbox: &Sandbox, end: &dyn Fn(&Sandbox)| {
        let guardian = await_some("the guardian", || sandbox.guardian());
        end(sandbox);
        await_some("the end of the guardian", || gone(guardian).then_some(()));
        assert_eq!(sandbox.book().leases().len() + sandbox.book().tickets().len(), 0);
    };
    let sandbox = Sandbox::new("count=1,checkpoint=yes");
    let quiet = |mut command: std::process::Command| {
        Killed(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    };
    sandbox.create(&["--for", "300ms", "--grace", "0"]);
    leaves(&sandbox, &|_| {});
    let id = sandbox.create(&["0", "1", "600"]);
    leaves(&sandbox, &|sandbox| drop(sandbox.ok(&["release", &id])));
    // A job and its supervisor are killed: the lease is bound to both.
    let file = sandbox.root().join("job");
    let script = format!("echo $$ > {}; exec sleep 1000", file.display());
    let run = quiet(sandbox.command(&["run", "--", "sh", "-c", &script]));
    let job = numbers(&file, 1)[0];
    leaves(&sandbox, &|_| {
        kill(run.0.id());
        kill(job);
    });
    // Who waits is killed as well, and only then is the lease before it given back.
    let id = sandbox.create(&["0", "1", "600"]);
    let waiter = quiet(sandbox.command(&["create", "0", "1", "600", "--wait"]));
    await_some("the ticket", || (!sandbox.book().tickets().is_empty()).then_some(()));
    leaves(&sandbox, &|sandbox| {
        kill(waiter.0.id());
        sandbox.ok(&["release", &id]);
    });
    // A lease that is released while it is suspended.
    let run = quiet(sandbox.command(&["run", "--", "sleep", "1000"]));
    let id = sandbox.first_lease();
    await_some("the job", || sandbox.run(&["suspend", &id]).status.success().then_some(()));
    leaves(&sandbox, &|sandbox| drop(sandbox.ok(&["release", &id])));
    drop(run);
}
