//! NVIDIA GPUs through libraries with NVIDIA's functions, which are compiled here from `doubles/`.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::sandbox::{Killed, Sandbox, await_some};

/// A machine with two NVIDIA GPUs; `None` where there is no C compiler.
fn machine() -> Option<Sandbox> {
    let mut sandbox = Sandbox::new("").without_guardian();
    let doubles = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/doubles");
    for (source, library) in [("nvml.c", "libnvidia-ml.so.1"), ("cuda.c", "libcuda.so.1")] {
        let made = sandbox.root().join(library);
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&made);
        match compiler.arg(doubles.join(source)).status() {
            Ok(status) => assert!(status.success(), "{source} does not compile"),
            Err(error) => {
                println!("skipped: no C compiler: {error}");
                return None;
            }
        }
    }
    let root = sandbox.root().display().to_string();
    sandbox.set("CHRONOS_BACKEND", "nvidia");
    sandbox.set("CHRONOS_NVML", &format!("{root}/libnvidia-ml.so.1"));
    sandbox.set("LD_LIBRARY_PATH", &root);
    sandbox.set("DOUBLE_CALLS", &format!("{root}/calls"));
    Some(sandbox)
}

#[test]
fn nvml_tells_gpus_their_processes_and_what_is_lost() {
    let Some(mut sandbox) = machine() else { return };
    let gpus: serde_json::Value = serde_json::from_str(&sandbox.ok(&["stats", "--json"])).unwrap();
    assert_eq!(gpus["backend"], "nvidia");
    assert_eq!(gpus["items"][1]["name"], "NVIDIA H100 80GB HBM3");
    assert_eq!(sandbox.ok(&["available", "0"]).trim(), "100.0%");

    // A process outside every lease is shown; admission does not know of it.
    let stranger = Killed(Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap());
    sandbox.set("DOUBLE_PROCESS", &stranger.0.id().to_string());
    let top = sandbox.ok(&["top", "--frames", "1"]);
    assert!(top.contains(&format!("process {}  5 GiB  foreign", stranger.0.id())), "{top}");

    sandbox.set("DOUBLE_LOST", "1");
    let doctor = sandbox.run(&["doctor"]);
    let text = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert_eq!(doctor.status.code(), Some(1));
    assert!(text.contains("GPU 1: NVML cannot reach it (status 15)"), "{text}");
    let refused = sandbox.run(&["create", "1", "0.5", "60"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && text.contains("cannot be used"), "{text}");
}

#[test]
fn a_library_that_is_not_nvml_is_named() {
    let Some(mut sandbox) = machine() else { return };
    sandbox.set("CHRONOS_NVML", "/nowhere/libnvidia-ml.so.1");
    let errors = sandbox.refused(74, &["stats"]);
    assert!(errors.contains("cannot load `/nowhere/libnvidia-ml.so.1`"), "{errors}");
    let other = sandbox.root().join("libcuda.so.1").display().to_string();
    sandbox.set("CHRONOS_NVML", &other);
    let errors = sandbox.refused(74, &["stats"]);
    assert!(errors.contains("the driver is too old"), "{errors}");
}

/// The calls of the driver that were made, in order, without the process they were made for.
fn calls(sandbox: &Sandbox) -> Vec<String> {
    let text = std::fs::read_to_string(sandbox.root().join("calls")).unwrap_or_default();
    let names = text.lines().filter_map(|line| line.split(' ').next());
    names.map(str::to_owned).collect()
}

fn job(sandbox: &Sandbox) -> (Killed, String) {
    let mut command =
        sandbox.command(&["run", "--mem", "50%", "--for", "1h", "--", "sleep", "1000"]);
    let job = Killed(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let id = sandbox.first_lease();
    // The lease is there before its job is.
    await_some("the job", || {
        let suspended = sandbox.run(&["suspend", &id]);
        suspended.status.success().then_some(())
    });
    (job, id)
}

#[test]
fn a_job_is_checkpointed_by_the_driver_and_restored() {
    let Some(sandbox) = machine() else { return };
    let (_job, id) = job(&sandbox);
    assert_eq!(calls(&sandbox), ["lock", "checkpoint"]);
    assert_eq!(sandbox.ok(&["available", "0"]).trim(), "100.0%", "its memory is free");
    sandbox.ok(&["resume", &id]);
    assert_eq!(calls(&sandbox), ["lock", "checkpoint", "restore", "unlock"]);
    assert_eq!(sandbox.ok(&["available", "0"]).trim(), "50.0%");
    sandbox.ok(&["release", "--force", &id]);
}

#[test]
fn a_job_that_the_driver_refuses_to_checkpoint_keeps_its_memory() {
    let Some(mut sandbox) = machine() else { return };
    sandbox.set("DOUBLE_REFUSES", "checkpoint");
    let (_job, id) = job(&sandbox);
    assert_eq!(calls(&sandbox), ["lock", "checkpoint", "unlock"], "it may use the GPU again");
    assert_eq!(sandbox.ok(&["available", "0"]).trim(), "50.0%");
    sandbox.ok(&["release", "--force", &id]);
}
