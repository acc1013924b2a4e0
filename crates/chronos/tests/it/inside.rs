//! The tool, called by a job about the partition it is in.

use std::process::Stdio;

use crate::sandbox::{Killed, Sandbox, await_some, numbers};

/// How often the job is stopped at a moment that chance chooses.
const STOPS: u64 = 60;

/// A job that calls the tool all the time is stopped at some moment of such a call: that must not
/// be one in which it holds a lock.
#[test]
fn a_job_that_is_stopped_while_it_calls_the_tool_holds_nobody_up() {
    let sandbox = Sandbox::new("count=2,checkpoint=yes");
    let file = sandbox.root().join("job");
    let script = format!(
        "echo $$ > {}; while :; do {tool} extend $CHRONOS_LEASE --for 1ms; \
         {tool} release $({tool} create 1 0.1 60 --json | sed 's/.*\"id\":\"\\([^\"]*\\).*/\\1/'); done",
        file.display(),
        tool = Sandbox::tool()
    );
    let words = ["run", "--gpu", "0", "--for", "600s", "--name", "job", "--", "sh", "-c", &script];
    let mut run = sandbox.command(&words);
    let _run = Killed(run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    numbers(&file, 1);
    let leases = sandbox.leases();
    let job = leases.iter().find(|lease| lease["name"] == "job").unwrap();
    let id = job["id"].as_str().unwrap();
    let mut chance = crate::seed(1);
    for _ in 0..crate::times(STOPS) {
        // A moment of the loop: the tool takes a few milliseconds.
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let until = std::time::Instant::now() + std::time::Duration::from_micros(chance >> 50);
        while std::time::Instant::now() < until {
            std::hint::spin_loop();
        }
        sandbox.ok(&["suspend", id]);
        // Both take the lock, and fail where they wait for it for longer than ten seconds.
        let other = sandbox.create(&["0", "0.1", "60"]);
        sandbox.ok(&["release", &other]);
        sandbox.ok(&["resume", id]);
    }
    sandbox.ok(&["release", "--force", id]);
}

#[test]
fn a_job_suspends_its_own_partition() {
    let sandbox = Sandbox::new("count=1,checkpoint=yes");
    let (file, after) = (sandbox.root().join("job"), sandbox.root().join("after"));
    let script = format!(
        "echo $$ > {}; {} suspend $CHRONOS_LEASE; echo $$ > {}; exec sleep 1000",
        file.display(),
        Sandbox::tool(),
        after.display()
    );
    let mut run = sandbox.command(&["run", "--for", "600s", "--", "sh", "-c", &script]);
    let _run = Killed(run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    numbers(&file, 1);
    let phase = || sandbox.leases().first().map(|lease| lease["phase"].clone());
    await_some("the suspension", || phase().filter(|phase| phase == "suspended"));
    assert!(!after.exists(), "it goes on although it is suspended");
    let id = sandbox.first_lease();
    sandbox.ok(&["resume", &id]);
    numbers(&after, 1);
    sandbox.ok(&["release", "--force", &id]);
}
