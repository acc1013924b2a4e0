//! The real tool, killed at its system calls while it creates, extends, releases, expires and
//! reaps: afterwards the state is whole, nothing that was acknowledged is lost, nothing is
//! promised twice, nothing is left behind, and no other process was touched.
//!
//! `TIMES` is the number of kill points for each operation; 0 is every one of them, where an
//! operation that scans `/proc` with thousands of calls that only look is killed at every call that
//! does more, and at [`LOOKS`] of the others.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};

use chronos::audit;
use chronos::lease::LeaseId;
use serde_json::json;

use crate::sandbox::{Killed, Sandbox, await_some, gone};
use crate::trace::{Traced, name, only_looks, trace};

const GPUS: &str = "count=2,memory=10GiB";

/// One operation: what there is before, what is run, what may have become of the lease.
struct Operation {
    name: &'static str,
    /// Length of the lease that is there before; `None` is no lease.
    lease: Option<&'static str>,
    arguments: fn(&str) -> Vec<String>,
    /// Whether the lease that was there before may be gone afterwards.
    may_end: bool,
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

const OPERATIONS: [Operation; 5] = [
    Operation {
        name: "create",
        lease: Some("1h"),
        arguments: |_| words("create 1 0.5 3600"),
        may_end: false,
    },
    Operation {
        name: "extend",
        lease: Some("1h"),
        arguments: |id| words(&format!("extend {id} --for 1h")),
        may_end: false,
    },
    Operation {
        name: "release",
        lease: Some("1h"),
        arguments: |id| words(&format!("release {id}")),
        may_end: true,
    },
    Operation { name: "expire", lease: Some("1ms"), arguments: |_| words("list"), may_end: true },
    Operation { name: "reap", lease: Some("1ms"), arguments: |_| words("reap"), may_end: true },
];

struct Stage {
    sandbox: Sandbox,
    id: String,
    member: Killed,
    stranger: Killed,
}

fn sleeper(sandbox: &Sandbox, lease: Option<&str>) -> Killed {
    let mut command = Command::new("sleep");
    command.arg("1000").stdin(Stdio::null());
    sandbox.dress(&mut command);
    if let Some(id) = lease {
        command.env("CHRONOS_LEASE", id);
    }
    Killed(command.spawn().unwrap())
}

/// A lease with one member, and a process that has nothing to do with it.
fn stage(operation: &Operation) -> Stage {
    let sandbox = Sandbox::new(GPUS).without_guardian();
    let length = operation.lease.unwrap();
    let id = sandbox.create(&["--gpu", "0", "--mem", "60%", "--for", length, "--grace", "0"]);
    let member = sleeper(&sandbox, Some(&id));
    let stranger = sleeper(&sandbox, None);
    Stage { sandbox, id, member, stranger }
}

fn traced_command(stage: &Stage, operation: &Operation) -> Command {
    let arguments = (operation.arguments)(&stage.id);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut command = stage.sandbox.command(&arguments);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn alive(child: &mut Child) -> bool {
    child.try_wait().unwrap().is_none()
}

/// The four properties, after a kill.
fn check(stage: &mut Stage, operation: &Operation, kill_at: u64) {
    let place = format!("{} killed at stop {kill_at}", operation.name);
    // Property 4: whatever happened, the stranger lives.
    assert!(alive(&mut stage.stranger.0), "{place}: a foreign process was signalled");
    // Property 3: what was acknowledged is there unless it was to end.
    let known = stage.sandbox.book().lease(&LeaseId(stage.id.clone())).is_some();
    assert!(known || operation.may_end, "{place}: the lease is lost");
    // Property 1, for what is written now and after the next caller.
    let gpus = chronos::os::gpu::fake::Fake::new(GPUS).gpus().unwrap();
    let over = audit::check(stage.sandbox.book().leases(), &gpus);
    assert!(over.is_empty(), "{place}: {}", over[0]);
    // The GPU that was not leased before takes another half at most twice.
    let mut granted = 0;
    while stage.sandbox.run(&["create", "1", "0.5", "3600"]).status.success() {
        granted += 1;
        assert!(granted <= 2, "{place}: GPU 1 is over-committed");
    }
    let on_gpu_1: u64 = stage
        .sandbox
        .book()
        .leases()
        .flat_map(|lease| lease.parts.iter().filter(|part| part.index == 1))
        .map(|part| part.memory.as_u64())
        .sum();
    assert!(on_gpu_1 <= 10 << 30, "{place}: {on_gpu_1} bytes of GPU 1 are leased");
    // Property 2: every lease ends, and nothing of it is left.
    for lease in stage.sandbox.book().leases() {
        stage.sandbox.ok(&["release", "--force", &lease.id.0]);
    }
    stage.sandbox.ok(&["reap"]);
    assert!(stage.sandbox.leases().is_empty(), "{place}: a lease is left");
    let pid = stage.member.0.id();
    await_some("the end of the member", || gone(pid).then_some(()));
    assert!(alive(&mut stage.stranger.0), "{place}: a foreign process was signalled");
}

/// Calls of a scan at which an operation is killed.
const LOOKS: usize = 60;

/// Both stops of every call, but of those that only look no more than [`LOOKS`].
fn every(run: &Traced) -> Vec<u64> {
    let looks = run.sequence.iter().filter(|call| only_looks(**call)).count();
    let each = looks.div_ceil(LOOKS).max(1);
    let mut seen = 0;
    let mut points = Vec::new();
    for (number, call) in run.sequence.iter().enumerate() {
        let looks = only_looks(*call);
        seen += usize::from(looks);
        if !looks || seen % each == 0 {
            let entry = 2 * number as u64 + 1;
            points.extend([entry, entry + 1]);
        }
    }
    points
}

#[test]
fn the_tool_survives_a_kill_at_its_system_calls() {
    let (seed, times) = (crate::seed(1), crate::times(4));
    let mut chance = chronos::chance::Chance::new(seed);
    let mut calls: BTreeMap<i64, u64> = BTreeMap::new();
    let mut table = Vec::new();
    for operation in &OPERATIONS {
        let mut whole = stage(operation);
        let run = trace(&mut traced_command(&whole, operation), None);
        check(&mut whole, operation, 0);
        drop(whole);
        for (call, count) in &run.calls {
            *calls.entry(*call).or_default() += count;
        }
        let points = match times {
            0 => every(&run),
            times => (0..times).map(|_| 1 + chance.below(run.stops)).collect(),
        };
        let mut kills = 0;
        for kill_at in &points {
            let mut stage = stage(operation);
            let traced = trace(&mut traced_command(&stage, operation), Some(*kill_at));
            kills += u64::from(traced.killed);
            check(&mut stage, operation, *kill_at);
        }
        println!(
            "kill points: {:8} stops={} tried={} killed={kills} seed={seed}",
            operation.name,
            run.stops,
            points.len()
        );
        table.push(json!({
            "operation": operation.name, "stops": run.stops, "tried": points.len(), "killed": kills,
        }));
    }
    let names: Vec<String> =
        calls.iter().map(|(call, count)| format!("{}({count})", name(*call))).collect();
    println!("system calls covered: {}", names.join(" "));
    crate::sandbox::record("kill_points", &json!({ "operations": table, "calls": names }));
}
