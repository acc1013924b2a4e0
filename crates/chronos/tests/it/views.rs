//! What the commands that look at the machine say.

use std::process::Stdio;

use crate::sandbox::{Killed, Sandbox, await_some, is_root};

/// Two GPUs of 10 GiB, half of the first leased for an hour.
fn machine() -> (Sandbox, String) {
    let sandbox = Sandbox::new("count=2,memory=10GiB").without_guardian();
    let lease =
        ["--gpu", "0", "--mem", "50%", "--compute", "25%", "--for", "1h", "--name", "train"];
    let id = sandbox.create(&lease);
    (sandbox, id)
}

/// Fails unless `text` has every one of `wanted`.
fn has(text: &str, wanted: &[&str]) {
    for part in wanted {
        assert!(text.contains(part), "no `{part}` in:\n{text}");
    }
}

#[test]
fn a_partition_is_described_and_its_environment_is_for_every_shell() {
    let (sandbox, id) = machine();
    let wanted = [
        "name: train",
        "gpus: GPU 0",
        "memory: 50% (5 GiB) on each",
        "compute: 25% (by agreement)",
        "phase: active",
        "enforcement: memory=none",
    ];
    has(&sandbox.ok(&["get", &id]), &wanted);
    has(&sandbox.ok(&["env", &id]), &[&format!("export CHRONOS_LEASE='{id}'")]);
    has(&sandbox.ok(&["env", &id, "--shell", "fish"]), &["set -gx CHRONOS_GPUS '0'"]);
    has(&sandbox.ok(&["env", &id, "--shell", "csh"]), &["setenv CHRONOS_GPUS '0'"]);
    has(&sandbox.ok(&["list", "--gpu", "0"]), &[&id, "● ACTIVE", "Total: 1 partition(s)"]);
    has(&sandbox.ok(&["list", "--gpu", "1"]), &["No active partitions"]);
    has(&sandbox.ok(&["list", "--user", "nobody-here"]), &["No active partitions"]);
    sandbox.refused(65, &["env", "partition_1_1_0001"]);
    sandbox.refused(65, &["get", "../../etc/passwd"]);
}

#[test]
fn numbers_come_as_table_csv_and_for_prometheus() {
    let (sandbox, id) = machine();
    let table = sandbox.ok(&["stats", "--detailed"]);
    has(&table, &["GPU 0: Fake GPU", "Usage: 50.0%", "Active partitions: 1", &id]);
    let csv = sandbox.ok(&["stats", "--format", "csv"]);
    has(&csv, &["gpu,index,name,memory_bytes,free_bytes,leases", "10737418240,5368709120,1"]);
    let prometheus = sandbox.ok(&["stats", "--format", "prom"]);
    let free = "chronos_gpu_memory_free_bytes{gpu=\"FAKE-0\",index=\"0\"} 5368709120";
    has(&prometheus, &["# TYPE chronos_gpu_memory_bytes gauge", free]);
    sandbox.ok(&["release", "--force", &id]);
    let ended = sandbox.ok(&["stats", "--since", "1h"]);
    has(&ended, &[&id, "GPU-hours", "released"]);
    let ended = sandbox.ok(&["stats", "--since", "1h", "--format", "json"]);
    has(&ended, &["\"ended\":[{", &id]);
    // A line that something damaged is left out and counted.
    let history = sandbox.root().join("state/history");
    let text = std::fs::read_to_string(&history).unwrap();
    std::fs::write(&history, format!("{text}0badc0de {{}}\n")).unwrap();
    let output = sandbox.run(&["stats", "--since", "1h"]);
    has(&String::from_utf8_lossy(&output.stderr), &["1 damaged line(s) of the history left out"]);
    sandbox.refused(2, &["stats", "--since", "yesterday"]);
    let errors = sandbox.refused(2, &["stats", "--since", "1h", "--format", "csv"]);
    has(&errors, &["no part of csv and prom", "leave --since out"]);
}

#[test]
fn a_suggestion_says_when_where_and_why() {
    let (sandbox, id) = machine();
    let now = sandbox.ok(&["suggest", "--any", "--mem", "80%"]);
    has(&now, &["GPU 1 now", "GPU 0: 5 GiB free, 8 GiB asked; next partition ends in"]);
    let later = sandbox.ok(&["suggest", "--gpu", "0", "--mem", "80%"]);
    has(&later, &["GPU 0 in 1h"]);
    assert!(!later.contains("GPU 1"), "it was not asked for:\n{later}");
    let gang = sandbox.ok(&["suggest", "--count", "2", "--mem", "10%", "--prefer", "1"]);
    has(&gang, &["GPUs 0, 1 now"]);
    let errors = sandbox.refused(73, &["create", "--gpu", "0", "--mem", "80%"]);
    has(&errors, &["no capacity now"]);
    sandbox.refused(69, &["suggest", "--any", "--mem", "1%", "--require", "memory=kernel"]);
    let mut command = sandbox.command(&["create", "--gpu", "0", "--mem", "80%", "--wait"]);
    let waiter = Killed(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let queue = await_some("the ticket", || {
        Some(sandbox.ok(&["queue"])).filter(|queue| queue.contains("normal"))
    });
    has(&queue, &["Place", "Starts in", "1h 0m"]);
    let why = sandbox.ok(&["suggest", "--gpu", "0", "--mem", "80%"]);
    has(&why, &["1 request(s) wait already; none of them is delayed"]);
    drop(waiter);
    sandbox.ok(&["release", "--force", &id]);
}

#[test]
fn a_window_of_the_calendar_is_shown_and_given_back() {
    let (sandbox, id) = machine();
    let day = std::time::Duration::from_secs(86_400);
    let start = chronos::os::clock::now().wall.after(day).to_string();
    let window = ["create", "--start", &start, "--gpu", "1", "--mem", "50%", "--for", "2h"];
    let kept = sandbox.ok(&window);
    has(&kept, &["Reserved reservation_", &format!("GPU 1 from {start} for 2h 0m")]);
    let queue = sandbox.ok(&["queue"]);
    let reservation = queue.split(':').next().unwrap().lines().last().unwrap().to_owned();
    has(&reservation, &["reservation_"]);
    sandbox.refused(2, &["create", "--start", "tomorrow", "--gpu", "1"]);
    let far = sandbox.refused(2, &["create", "--start", "2126-01-01T00:00:00Z", "--gpu", "1"]);
    has(&far, &["more than 366d ahead"]);
    sandbox.refused(2, &["create", "--start", "2001-01-01T00:00:00Z", "--gpu", "1"]);
    has(&sandbox.ok(&["queue", "cancel", &reservation]), &["Cancelled"]);
    has(&sandbox.ok(&["queue"]), &["The queue is empty"]);
    sandbox.refused(65, &["queue", "cancel", &reservation]);
    has(&sandbox.refused(65, &["queue", "cancel", &id]), &["waits no more", "`chronos queue`"]);
    // What a window does not keep is said when it is taken up, not swallowed.
    let soon = ["create", "--start", &start, "--gpu", "1"];
    for swallowed in ["--wait", "--name=x", "--priority=high", "--require=memory=kernel"] {
        sandbox.refused(2, &[&soon[..], &[swallowed]].concat());
    }
    sandbox.refused(2, &["run", "--start", &start, "--", "true"]);
    sandbox.refused(2, &["run", "--lease", &id, "--mem", "1GiB", "--", "true"]);
    sandbox.refused(2, &["create", "--reservation", &reservation, "--mem", "1GiB"]);
    // Taken up without a length it lasts for the rest of its window, its grace included.
    let now = chronos::os::clock::now().wall.to_string();
    let window = ["create", "--start", &now, "--gpu", "1", "--mem", "25%", "--for", "2h"];
    let kept = sandbox.json(&window)["id"].as_str().unwrap().to_owned();
    let lease = sandbox.json(&["create", "--reservation", &kept]);
    let secs = lease["durationSeconds"].as_u64().unwrap();
    assert!((7_100..=7_190).contains(&secs), "{secs} s of 7200 less 10 of grace");
    assert_eq!(lease["parts"][0]["fraction"], 0.25);
    sandbox.ok(&["release", lease["id"].as_str().unwrap()]);
    sandbox.ok(&soon);
    let errors = sandbox.refused(73, &soon);
    has(&errors, &["the window from", "for 1h is taken", "hint: name another --start"]);
}

/// Whoever reads an error is told what to do next.
#[test]
fn every_refusal_names_the_next_step() {
    let (sandbox, id) = machine();
    let refused: [(i32, &[&str]); 13] = [
        (2, &["create", "--count", "0", "0.5", "60"]),
        (2, &["create", "0", "0.5", "60", "--grace", "2h"]),
        (2, &["create", "0", "0.5", "60", "--name", "a\u{1b}[2J"]),
        (65, &["release", "partition_1_1_0001"]),
        (65, &["queue", "cancel", "partition_1_1_0001"]),
        (65, &["resume", &id]),
        (69, &["suspend", &id]),
        (69, &["create", "0", "0.1", "60", "--require", "memory=kernel"]),
        (73, &["create", "7", "0.5", "60"]),
        (73, &["create", "0", "0.6", "60"]),
        (73, &["create", "--gpus", "0,0", "0.1", "60"]),
        (73, &["create", "--count", "2", "--mem", "11GiB"]),
        (77, &["attach", &id, "--pid", "4194304"]),
    ];
    for (code, arguments) in refused {
        let errors = sandbox.refused(code, arguments);
        assert!(errors.contains("\nhint: "), "{arguments:?}:\n{errors}");
        assert!(!errors.contains('\u{1b}'), "{arguments:?}:\n{errors}");
    }
}

#[test]
fn doctor_names_what_is_there_and_what_is_missing() {
    let (mut sandbox, _) = machine();
    let text = sandbox.ok(&["doctor"]);
    let wanted = [
        "configuration: none; defaults are in force",
        "journal: 1 partition(s), 0 waiting",
        "gpus: 2 by backend fake",
        "guardian: none runs",
        "no memory limit is enforced inside processes",
    ];
    has(&text, &wanted);
    if is_root() && !cfg!(feature = "portable") {
        has(&text, &["for the whole machine"]);
    }
    std::fs::write(sandbox.root().join("policy.yaml"), "default: {maxGpus: many}\n").unwrap();
    let doctor = sandbox.run(&["doctor"]);
    assert_eq!(doctor.status.code(), Some(1));
    has(&String::from_utf8_lossy(&doctor.stdout), &["error    policy: ", "policy.yaml"]);
    sandbox.refused(78, &["config", "check"]);
    std::fs::write(sandbox.root().join("policy.yaml"), "default: {maxGpus: 1}\n").unwrap();
    has(&sandbox.ok(&["config", "check"]), &["policy.yaml: no error"]);
    let shown = sandbox.ok(&["config", "show"]);
    has(&shown, &["backend: fake", "access: own", "grace: 10s", "preempt_exempt_time: 1m"]);
    assert!(!shown.contains("null"), "{shown}");

    sandbox.set("CHRONOS_BACKEND", "none");
    let doctor = sandbox.run(&["doctor"]);
    has(&String::from_utf8_lossy(&doctor.stdout), &["error    gpus: none was found"]);
    sandbox.set("CHRONOS_BACKEND", "voodoo");
    let doctor = sandbox.run(&["doctor"]);
    has(&String::from_utf8_lossy(&doctor.stdout), &["`voodoo` is none of auto, nvidia"]);
    let config = sandbox.root().join("chronos.yaml");
    std::fs::write(&config, "graze: 10s\n").unwrap();
    sandbox.set("CHRONOS_CONFIG", &config.display().to_string());
    let doctor = sandbox.run(&["doctor", "--json"]);
    assert_eq!(doctor.status.code(), Some(1));
    has(&String::from_utf8_lossy(&doctor.stdout), &["\"state\":\"error\"", "graze"]);
}

#[test]
fn gpus_that_are_described_are_leased_like_any() {
    let mut sandbox = Sandbox::new("").without_guardian();
    let config = sandbox.root().join("chronos.yaml");
    let text = "gpus: [{name: Left, memory: 8GiB}, {name: Right, memory: 16GiB}]\ngrace: 3s\n";
    std::fs::write(&config, text).unwrap();
    sandbox.set("CHRONOS_CONFIG", &config.display().to_string());
    sandbox.set("CHRONOS_BACKEND", "portable");
    has(&sandbox.ok(&["stats"]), &["GPU 1: Right", "Total: 16384 MB"]);
    let id = sandbox.create(&["--any", "--mem", "12GiB", "--for", "1h"]);
    has(&sandbox.ok(&["get", &id]), &["gpus: GPU 1"]);
    let errors = sandbox.refused(73, &["create", "--any", "--mem", "17GiB"]);
    has(&errors, &["16 GiB"]);
    // For machines of other vendors, what is not there is none.
    for backend in ["amd", "intel", "nvidia"] {
        sandbox.set("CHRONOS_BACKEND", backend);
        sandbox.set("CHRONOS_NVML", "/nowhere.so");
        let stats = sandbox.run(&["stats"]);
        let said = [stats.stdout, stats.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains("GPU") || said.contains("cannot load"), "{backend}: {said}");
    }
    std::fs::write(&config, "gpus: [{name: Left, memory: plenty}]\n").unwrap();
    sandbox.set("CHRONOS_BACKEND", "portable");
    has(&sandbox.refused(78, &["stats"]), &["plenty"]);
}
