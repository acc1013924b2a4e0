//! The real tool, killed at its system calls while it creates, extends, releases, suspends, resumes,
//! expires and reaps: afterwards the state is whole, nothing that was acknowledged is lost, nothing is
//! promised twice, nothing is left behind, and no other process was touched.
//!
//! `TIMES` is the number of kill points for each operation; 0 is every system call of each. As root
//! the test runs in a PID namespace of its own, where a scan of `/proc` shows only its own
//! processes; elsewhere an operation that scans is killed at every call that does more than look
//! and at [`LOOKS`] of the others.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use chronos::book::Event;
use chronos::engine::Engine;
use chronos::expiry::Diligence;
use chronos::lease::{Lease, LeaseId, Phase};
use chronos::os::settings::{Access, Config};
use chronos::os::{Host, Settings};
use chronos::quantity::Boottime;
use chronos::{Bytes, audit, index};
use serde_json::json;

use crate::fence;
use crate::sandbox::{INSIDE, Killed, Sandbox, await_some, gone, is_root, prefix_inside};
use crate::trace::{Traced, name, only_looks, trace};

const GPUS: &str = "count=2,memory=10GiB,checkpoint=yes";

/// One operation: what there is before, what is run, what may have become of the lease.
struct Operation {
    name: &'static str,
    /// Length of the lease that is there before.
    lease: &'static str,
    /// What is in the journal beside it.
    before: fn(&Lease) -> Vec<Event>,
    arguments: fn(&str) -> Vec<String>,
    /// Whether the lease that was there before may be gone afterwards.
    may_end: bool,
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// One line less than makes the next writer rewrite the journal.
fn long_journal(_: &Lease) -> Vec<Event> {
    let used = |number| Event::Used { uid: number, gpu_secs: 1.0, at: Boottime::default() };
    (1..=62).map(used).collect()
}

/// One line less than makes the next writer make an index, and too many leases for a rewrite.
fn many_leases(lease: &Lease) -> Vec<Event> {
    let copy = |number: usize| {
        let mut copy = Lease { id: LeaseId(format!("partition_1_1_{number:04}")), ..lease.clone() };
        copy.parts[0].memory = Bytes::new(1);
        copy.fenced = false;
        Event::Granted(Box::new(copy))
    };
    let used = |uid: usize| Event::Used {
        uid: u32::try_from(uid).unwrap(),
        gpu_secs: 1.0,
        at: Boottime::default(),
    };
    const LEASES: usize = 33;
    let own = 3; // The first line, the lease that is there, the one that is taken.
    (0..LEASES).map(copy).chain((0..index::LINES - LEASES - own).map(used)).collect()
}

const OPERATIONS: [Operation; 10] = [
    Operation {
        name: "create",
        lease: "1h",
        before: |_| Vec::new(),
        arguments: |_| words("create 1 0.5 3600"),
        may_end: false,
    },
    Operation {
        name: "rewrite",
        lease: "1h",
        before: long_journal,
        arguments: |_| words("create 1 0.5 3600"),
        may_end: false,
    },
    Operation {
        name: "index",
        lease: "1h",
        before: many_leases,
        arguments: |_| words("create 1 0.5 3600"),
        may_end: false,
    },
    Operation {
        name: "extend",
        lease: "1h",
        before: |_| Vec::new(),
        arguments: |id| words(&format!("extend {id} --for 1h")),
        may_end: false,
    },
    Operation {
        name: "release",
        lease: "1h",
        before: |_| Vec::new(),
        arguments: |id| words(&format!("release {id}")),
        may_end: true,
    },
    Operation {
        name: "suspend",
        lease: "1h",
        before: |_| Vec::new(),
        arguments: |id| words(&format!("suspend {id}")),
        may_end: false,
    },
    Operation {
        name: "resume",
        lease: "1h",
        before: |_| Vec::new(),
        arguments: |id| words(&format!("resume {id}")),
        may_end: false,
    },
    Operation {
        name: "expire",
        lease: "1ms",
        before: |_| Vec::new(),
        arguments: |_| words("list"),
        may_end: true,
    },
    Operation {
        name: "reap",
        lease: "1ms",
        before: |_| Vec::new(),
        arguments: |_| words("reap"),
        may_end: true,
    },
    Operation {
        name: "guard",
        lease: "1ms",
        before: |_| Vec::new(),
        arguments: |_| words("guard"),
        may_end: true,
    },
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

/// A lease with one member, which is in its fence where it has one, and a process that has nothing
/// to do with it.
fn stage(operation: &Operation) -> Stage {
    let sandbox = Sandbox::new(GPUS).without_guardian();
    let member = ["--gpu", "0", "--mem", "60%", "--for", operation.lease, "--grace", "0"];
    let id = sandbox.create(&member);
    let lease = sandbox.book().lease(&LeaseId(id.clone())).unwrap().clone();
    let journal = std::fs::File::options().append(true).open(sandbox.journal());
    let lines = chronos::journal::lines(&(operation.before)(&lease));
    journal.unwrap().write_all(&lines).unwrap();
    let member = sleeper(&sandbox, Some(&id));
    let stranger = sleeper(&sandbox, None);
    fence::enclose(&sandbox.runtime(), &LeaseId(id.clone()), member.0.id());
    if operation.name == "resume" {
        sandbox.ok(&["suspend", &id]);
    }
    Stage { sandbox, id, member, stranger }
}

/// A job runs when its lease is active and is stopped when it is suspended: at the latest once the
/// next guard has looked.
fn check_the_job(stage: &Stage, place: &str) {
    let settings = Settings {
        runtime: stage.sandbox.runtime(),
        state: stage.sandbox.root().join("state"),
        access: Access::Own,
        cgroup_root: None,
        backend: "fake".to_owned(),
        fake: GPUS.to_owned(),
        config: Config::default(),
        config_file: None,
        policy_file: stage.sandbox.root().join("policy.yaml"),
    };
    let mut guard = Engine::new(Host::open(&settings).unwrap());
    guard.settle(Diligence::Full).unwrap();
    let id = LeaseId(stage.id.clone());
    let lease = guard.book().lease(&id).unwrap().clone();
    assert_eq!(lease.mover, None, "{place}: nobody took it up");
    let active = lease.phase == Phase::Active;
    assert!(active || matches!(lease.phase, Phase::Suspended { .. }), "{place}: {:?}", lease.phase);
    let pid = stage.member.0.id();
    let runs = match fence::frozen(&stage.sandbox.runtime(), &id) {
        Some(frozen) => !frozen,
        None => !std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") T "),
    };
    assert_eq!(runs, active, "{place}: the lease is {:?}, the job runs: {runs}", lease.phase);
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
    let place = format!("{} killed before call {kill_at}", operation.name);
    // Property 4: whatever happened, the stranger lives.
    assert!(alive(&mut stage.stranger.0), "{place}: a foreign process was signalled");
    // Property 3: what was acknowledged is there unless it was to end.
    let known = stage.sandbox.book().lease(&LeaseId(stage.id.clone())).is_some();
    assert!(known || operation.may_end, "{place}: the lease is lost");
    // Property 1, for what is written now and after the next caller.
    let gpus = chronos::os::gpu::fake::Fake::new(GPUS).gpus().unwrap();
    let over = audit::check(stage.sandbox.book().leases(), &gpus);
    assert!(over.is_empty(), "{place}: {}", over[0]);
    if matches!(operation.name, "suspend" | "resume") {
        check_the_job(stage, &place);
    }
    // The GPU that was not leased before takes another half once or twice.
    let mut granted = 0;
    while stage.sandbox.run(&["create", "1", "0.5", "3600"]).status.success() {
        granted += 1;
        assert!(granted <= 2, "{place}: GPU 1 is over-committed");
        if operation.name != "create" {
            break;
        }
    }
    assert!(granted > 0, "{place}: the next caller gets nothing");
    let over = audit::check(stage.sandbox.book().leases(), &gpus);
    assert!(over.is_empty(), "{place}: {}", over[0]);
    // Property 2: every lease ends, and nothing of it is left.
    for lease in stage.sandbox.book().leases() {
        stage.sandbox.ok(&["release", "--force", &lease.id.0]);
    }
    stage.sandbox.ok(&["reap"]);
    assert_eq!(stage.sandbox.book().leases().len(), 0, "{place}: a lease is left");
    let pid = stage.member.0.id();
    await_some("the end of the member", || gone(pid).then_some(()));
    assert!(alive(&mut stage.stranger.0), "{place}: a foreign process was signalled");
}

/// Calls of a scan at which an operation is killed where other processes are seen.
const LOOKS: usize = 60;

/// Kills after which it is said how far an operation is.
const PROGRESS: u64 = 100;

/// Calls beyond the end of an operation that are tried: two runs do not make the same number.
const BEYOND: u64 = 4;

/// Every call, but of those that only look no more than [`LOOKS`].
fn most(run: &Traced) -> Vec<u64> {
    let looks = run.sequence.iter().filter(|call| only_looks(**call)).count();
    let each = looks.div_ceil(LOOKS).max(1);
    let mut seen = 0;
    let mut points = Vec::new();
    for (number, call) in (1..).zip(&run.sequence) {
        let looks = only_looks(*call);
        seen += usize::from(looks);
        if !looks || seen % each == 0 {
            points.push(number);
        }
    }
    points
}

/// Runs this test again where it sees only its own processes; whether that was possible.
fn ran_in_namespace() -> bool {
    if std::env::var_os(INSIDE).is_some() || !is_root() {
        return false;
    }
    let unshare = ["--pid", "--fork", "--kill-child", "--mount", "--mount-proc"];
    let possible = Command::new("unshare").args(unshare).arg("true").stderr(Stdio::null()).status();
    if !possible.is_ok_and(|status| status.success()) {
        return false;
    }
    let mut again = Command::new("unshare");
    // The shell waits for orphans, as an init does: in a scan each would be one process more.
    again.args(unshare).args(["sh", "-c", "\"$@\"; exit $?", "init"]);
    again.arg(std::env::current_exe().unwrap()).args(["--exact", "--nocapture"]);
    again
        .arg("kill_points::the_tool_survives_a_kill_at_its_system_calls")
        .env(INSIDE, prefix_inside());
    // SAFETY: `prctl` is safe between fork and exec.
    unsafe {
        again.pre_exec(|| {
            // The namespace ends with the test, whatever ends it.
            let kill = Some(rustix::process::Signal::KILL);
            Ok(rustix::process::set_parent_process_death_signal(kill)?)
        });
    }
    assert!(again.status().unwrap().success(), "see above");
    true
}

/// Kills `operation` at each of `points`, on every core; returns how many runs were killed.
///
/// With `open_ended` it goes on beyond the last point until runs end unkilled.
fn kill_at_each(operation: &Operation, points: &[u64], open_ended: bool) -> u64 {
    let (next, kills, beyond) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let failure = Mutex::new(None);
    let work = || {
        loop {
            let turn = next.fetch_add(1, Ordering::Relaxed);
            let kill_at = match points.get(turn as usize) {
                Some(point) => *point,
                None if open_ended && beyond.load(Ordering::Relaxed) < BEYOND => turn + 1,
                None => return,
            };
            let mut stage = stage(operation);
            let traced = trace(&mut traced_command(&stage, operation), Some(kill_at));
            let so_far =
                if traced.killed { &kills } else { &beyond }.fetch_add(1, Ordering::Relaxed) + 1;
            check(&mut stage, operation, kill_at);
            if traced.killed && so_far.is_multiple_of(PROGRESS) {
                eprintln!("{}: killed at {so_far} of {} calls", operation.name, points.len());
            }
        }
    };
    std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            if let Err(panic) = worker.join() {
                // The others end what they are at; the first failure is shown.
                next.fetch_add(u64::from(u32::MAX), Ordering::Relaxed);
                beyond.fetch_add(BEYOND, Ordering::Relaxed);
                failure.lock().unwrap().get_or_insert(panic);
            }
        }
    });
    if let Some(panic) = failure.into_inner().unwrap() {
        std::panic::resume_unwind(panic);
    }
    kills.into_inner()
}

#[test]
fn the_tool_survives_a_kill_at_its_system_calls() {
    if ran_in_namespace() {
        return;
    }
    let alone = std::env::var_os(INSIDE).is_some();
    let (seed, times) = (crate::seed(1), crate::times(4));
    let mut chance = chronos::chance::Chance::new(seed);
    let mut table = Vec::new();
    for operation in &OPERATIONS {
        let began = std::time::Instant::now();
        let mut whole = stage(operation);
        let run = trace(&mut traced_command(&whole, operation), None);
        check(&mut whole, operation, 0);
        drop(whole);
        let calls = run.sequence.len() as u64;
        let points: Vec<u64> = match times {
            0 if alone => (1..=calls).collect(),
            0 => most(&run),
            times => (0..times).map(|_| 1 + chance.below(calls)).collect(),
        };
        let killed = kill_at_each(operation, &points, times == 0 && alone);
        let by_name: BTreeMap<String, u64> =
            run.calls.iter().map(|(call, count)| (name(*call), *count)).collect();
        let covered: Vec<String> =
            by_name.iter().map(|(call, count)| format!("{call}({count})")).collect();
        let (name, secs) = (operation.name, began.elapsed().as_secs_f64());
        println!(
            "kill points: {name:8} calls={calls} killed={killed} secs={secs:.0} seed={seed}: {}",
            covered.join(" ")
        );
        table.push(json!({
            "operation": name, "calls": calls, "killed": killed, "by_name": by_name,
            "every": times == 0 && alone, "secs": secs.round(),
        }));
    }
    crate::sandbox::record("kill_points", &json!({ "operations": table }));
}
