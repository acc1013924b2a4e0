//! What users of the command line have relied on since its first version, and what was promised.

use std::process::Stdio;

use chronos::lease::LeaseId;

use crate::sandbox::{Killed, Sandbox, await_some, gone, numbers};

fn available(sandbox: &Sandbox) -> f64 {
    let text = sandbox.ok(&["available", "0"]);
    text.trim().trim_end_matches('%').parse().unwrap()
}

#[test]
fn create_is_seen_by_list_and_ended_by_release() {
    let sandbox = Sandbox::new("count=2").without_guardian();
    let before = available(&sandbox);
    let text = sandbox.ok(&["create", "1", "0.25", "3600"]);
    assert!(text.starts_with("[OK] Created partition partition_"), "{text}");
    assert!(text.contains("eval \"$(chronos env partition_"), "{text}");
    let leases = sandbox.leases();
    assert_eq!(leases.len(), 1);
    let (lease, part) = (&leases[0], &leases[0]["parts"][0]);
    assert_eq!((&part["index"], &part["fraction"]), (&1.into(), &0.25.into()));
    assert_eq!((&lease["durationSeconds"], &lease["phase"]), (&3600.into(), &"active".into()));
    assert_eq!(available(&sandbox), before, "the other GPU is untouched");
    let id = lease["id"].as_str().unwrap();
    assert!(sandbox.ok(&["release", id]).contains(id));
    assert!(sandbox.ok(&["list"]).contains("No active partitions"));
    sandbox.refused(65, &["release", id]);
    sandbox.refused(65, &["release", "partition_0_0_0000"]);
}

#[test]
fn availability_follows_create_and_release() {
    let sandbox = Sandbox::new("count=1").without_guardian();
    assert_eq!(available(&sandbox), 100.0);
    let ids: Vec<String> = (0..3).map(|_| sandbox.create(&["0", "0.05", "600"])).collect();
    assert_eq!(available(&sandbox), 85.0);
    for id in ids.iter().rev() {
        sandbox.ok(&["release", id]);
    }
    assert_eq!(available(&sandbox), 100.0);
}

#[test]
fn ten_tenths_fit_and_an_eleventh_does_not() {
    let sandbox = Sandbox::new("count=1").without_guardian();
    for _ in 0..10 {
        sandbox.create(&["0", "0.1", "600"]);
    }
    assert_eq!(available(&sandbox), 0.0);
    let errors = sandbox.refused(73, &["create", "0", "0.1", "600"]);
    assert!(errors.contains("no capacity now: it fits in"), "{errors}");
}

#[test]
fn three_processes_at_once_get_three_partitions() {
    let sandbox = Sandbox::new("count=1").without_guardian();
    let mut creators: Vec<Killed> = (0..3)
        .map(|_| {
            Killed(
                sandbox
                    .command(&["create", "0", "0.3", "600"])
                    .stdout(Stdio::null())
                    .spawn()
                    .unwrap(),
            )
        })
        .collect();
    for creator in &mut creators {
        assert!(creator.0.wait().unwrap().success());
    }
    assert_eq!(sandbox.leases().len(), 3);
    sandbox.refused(73, &["create", "0", "0.3", "600"]);
}

#[test]
fn numbers_that_mean_nothing_are_refused() {
    let sandbox = Sandbox::new("count=1").without_guardian();
    for fraction in ["NaN", "-0.1", "0", "1.5", "1e300", "inf", "0.5x", ""] {
        let code = sandbox.run(&["create", "0", fraction, "60"]).status.code();
        assert_eq!(code, Some(2), "fraction `{fraction}`");
    }
    for seconds in ["0", "-1", "60abc", "NaN", "1e300", "99999999999999"] {
        let code = sandbox.run(&["create", "0", "0.5", seconds]).status.code();
        assert_eq!(code, Some(2), "seconds `{seconds}`");
    }
    for device in ["-1", "999", "x"] {
        sandbox.refused(73, &["create", device, "0.5", "60"]);
    }
    assert_eq!(sandbox.run(&[]).status.code(), Some(1), "no arguments: usage and 1");
    assert_eq!(sandbox.run(&["create", "0", "0.5", "60", "--unknown"]).status.code(), Some(2));
    sandbox.refused(69, &["create", "0", "0.5", "60", "--require", "memory=kernel"]);
    assert!(sandbox.leases().is_empty());
}

#[test]
fn gangs_are_granted_wholly_or_not_at_all() {
    let sandbox = Sandbox::new("count=4,links=2").without_guardian();
    sandbox.create(&["1", "0.8", "600"]);
    sandbox.refused(73, &["create", "--gpus", "0,1,2,3", "0.5", "600"]);
    assert_eq!(sandbox.leases().len(), 1, "nothing of the gang was granted");
    let pair = sandbox.json(&["create", "--count", "2", "0.5", "600"]);
    let numbers: Vec<u64> =
        pair["parts"].as_array().unwrap().iter().map(|p| p["index"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [2, 3], "the pair that is linked");
    let any = sandbox.json(&["create", "--any", "0.3", "600"]);
    assert_eq!(any["parts"][0]["index"], 0, "the least loaded GPU");
    sandbox.refused(73, &["create", "--gpus", "0,0", "0.1", "600"]);
}

#[test]
fn a_request_waits_for_its_turn() {
    let sandbox = Sandbox::new("count=1");
    let first = sandbox.create(&["0", "0.9", "600"]);
    let mut waiter = sandbox.command(&["create", "0", "0.9", "60", "--wait=60s", "--json"]);
    let waiter = waiter.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    await_some("the ticket", || (sandbox.book().tickets().len() == 1).then_some(()));
    assert!(sandbox.ok(&["queue"]).contains("normal"));
    sandbox.ok(&["release", &first]);
    let output = waiter.wait_with_output().unwrap();
    assert!(output.status.success());
    let lease: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(sandbox.book().lease(&LeaseId(lease["id"].as_str().unwrap().into())).is_some());
    let errors = sandbox.refused(75, &["create", "0", "0.9", "60", "--wait=100ms"]);
    assert!(errors.contains("waited"), "{errors}");
    assert_eq!(sandbox.book().tickets().len(), 0, "it left the queue");
}

#[test]
fn a_ticket_whose_waiter_is_killed_holds_nobody_up() {
    let sandbox = Sandbox::new("count=1");
    let first = sandbox.create(&["0", "0.9", "600"]);
    let mut command = sandbox.command(&["create", "0", "0.9", "600", "--wait"]);
    let mut waiter = Killed(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    await_some("the ticket", || (sandbox.book().tickets().len() == 1).then_some(()));
    waiter.0.kill().unwrap();
    waiter.0.wait().unwrap();
    await_some("the end of the ticket", || sandbox.book().tickets().is_empty().then_some(()));
    sandbox.ok(&["release", &first]);
    sandbox.create(&["0", "0.9", "600"]);
}

#[test]
fn a_job_gets_its_environment_and_gives_its_code_back() {
    let sandbox = Sandbox::new("count=2");
    let script = "echo $CUDA_VISIBLE_DEVICES $CHRONOS_MEMORY_BYTES; exit 7";
    let output = sandbox.run(&["run", "--gpu", "1", "--mem", "1GiB", "--", "sh", "-c", script]);
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1 1073741824\n");
    assert!(sandbox.leases().is_empty(), "the lease ends with its job");
    assert_eq!(sandbox.run(&["run", "--", "/nonexistent"]).status.code(), Some(127));
    assert_eq!(sandbox.run(&["run", "--", "/etc/passwd"]).status.code(), Some(126));
    let script = "trap 'exit 0' TERM; while :; do sleep 0.05; done";
    let expired = sandbox.run(&["run", "--for", "300ms", "--", "sh", "-c", script]);
    assert_eq!(expired.status.code(), Some(124), "expired, and SIGTERM was enough");
}

#[test]
fn a_suspended_job_stops_and_goes_on() {
    let sandbox = Sandbox::new("count=1,checkpoint=yes");
    let file = sandbox.root().join("ticks");
    let script = format!("echo $$ > {0}.pid; while :; do echo x >> {0}; done", file.display());
    let mut run =
        sandbox.command(&["run", "--mem", "90%", "--for", "600s", "--", "sh", "-c", &script]);
    let _run = Killed(run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let pid = numbers(&sandbox.root().join("ticks.pid"), 1)[0];
    let id = sandbox.first_lease();
    sandbox.ok(&["suspend", &id]);
    let size = || std::fs::metadata(&file).map_or(0, |m| m.len());
    let stopped = size();
    let other = sandbox.create(&["0", "0.9", "600"]);
    assert_eq!(size(), stopped, "a stopped job does not write");
    let errors = sandbox.refused(73, &["resume", &id]);
    assert!(errors.contains("no capacity now"), "{errors}");
    sandbox.ok(&["release", &other]);
    sandbox.ok(&["resume", &id]);
    await_some("the next tick", || (size() > stopped).then_some(()));
    sandbox.ok(&["release", "--force", &id]);
    await_some("the end of the job", || gone(pid).then_some(()));
}

#[test]
fn a_window_of_the_calendar_is_kept_for_its_owner() {
    let sandbox = Sandbox::new("count=1").without_guardian();
    let window = ["--gpu", "0", "--mem", "80%", "--for", "2h", "--start", "2020-01-01T00:00:00Z"];
    sandbox.refused(2, &[&["create"], &window[..]].concat());
    let start = (chronos::os::clock::now().wall).after(std::time::Duration::from_secs(1_800));
    let start = start.to_string();
    let window = ["create", "--gpu", "0", "--mem", "80%", "--for", "2h", "--start", &start];
    let kept = sandbox.json(&window);
    sandbox.refused(73, &["create", "0", "0.5", "3600"]);
    let short = sandbox.create(&["0", "0.5", "600"]);
    sandbox.refused(73, &["extend", &short, "--for", "1h"]);
    sandbox.refused(73, &window);
    let queue = sandbox.ok(&["queue"]);
    assert!(queue.contains("reservation_"), "{queue}");
    sandbox.ok(&["queue", "cancel", kept["id"].as_str().unwrap()]);
    sandbox.ok(&["extend", &short, "--for", "1h"]);
}

#[test]
fn usage_is_in_the_history_once() {
    let sandbox = Sandbox::new("count=1").without_guardian();
    let id = sandbox.create(&["0", "0.5", "600", "--name", "night run"]);
    sandbox.ok(&["release", &id]);
    let stats = sandbox.json(&["stats", "--since", "1h"]);
    let ended = stats["ended"].as_array().unwrap();
    assert_eq!(ended.len(), 1);
    assert_eq!((&ended[0]["id"], &ended[0]["reason"]), (&id.into(), &"released".into()));
    assert!(
        sandbox.ok(&["stats", "--format", "prom"]).contains("chronos_gpu_leases{gpu=\"FAKE-0\"")
    );
    assert!(sandbox.ok(&["stats", "--detailed"]).contains("Active partitions: 0"));
}

#[test]
fn the_slurm_prolog_takes_the_gpus_of_a_job() {
    let sandbox = Sandbox::new("count=2").without_guardian();
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/chronos/slurm_prolog.sh");
    let tool = std::path::Path::new(Sandbox::tool()).parent().unwrap().display().to_string();
    let mut prolog = std::process::Command::new("sh");
    prolog.arg(example).env("PATH", format!("{tool}:{}", std::env::var("PATH").unwrap()));
    sandbox.dress(&mut prolog);
    let user = chronos::os::users::effective().user;
    prolog.env("SLURM_JOB_GPUS", "0,1").env("SLURM_JOB_USER", &user).env("SLURM_JOB_ID", "42");
    assert!(prolog.stdout(Stdio::null()).status().unwrap().success());
    let lease = &sandbox.leases()[0];
    assert_eq!((&lease["name"], &lease["user"]), (&"slurm-42".into(), &user.into()));
    assert_eq!(lease["parts"].as_array().unwrap().len(), 2);
}
