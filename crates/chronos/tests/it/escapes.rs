//! Processes that try to outlive their lease, and kernels that do not let go of them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[cfg(not(feature = "portable"))]
use chronos::os::cgroup;

use crate::sandbox::{Killed, Sandbox, await_some, gone, is_root, numbers};

/// A folder of a control group hierarchy that is removed when the test is over.
struct Group(PathBuf);

impl Group {
    fn new(parent: &Path, name: &str) -> Option<Self> {
        let path = parent.join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).ok()?;
        path.join("cgroup.procs").exists().then(|| Self(path))
    }

    fn take(&self, pid: u32) {
        std::fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let below = std::fs::read_dir(&self.0).into_iter().flatten().flatten();
        let folders = below.map(|entry| entry.path()).filter(|path| path.is_dir());
        for folder in folders.collect::<Vec<_>>() {
            drop(Group(folder));
        }
        let _ = std::fs::remove_dir(&self.0);
    }
}

fn fenced(sandbox: &Sandbox) -> bool {
    let lease = sandbox.json(&["create", "0", "0.01", "600"]);
    let fenced = lease["enforcement"]["tree"] == "cgroup";
    sandbox.ok(&["release", lease["id"].as_str().unwrap()]);
    if !fenced {
        println!("skipped: no control groups of version 2 here");
    }
    fenced
}

/// It forks twice, leaves its session, throws its environment away and ignores SIGTERM.
#[test]
fn a_daemon_without_environment_ends_with_its_lease() {
    let sandbox = Sandbox::new("count=1").without_guardian();
    if !fenced(&sandbox) {
        return;
    }
    let file = sandbox.root().join("daemon");
    let body = format!(
        "trap \"\" TERM; echo $$ >> {}; while :; do read x < /dev/zero || :; done",
        file.display()
    );
    let script =
        format!("(env -i setsid sh -c '{body}' &) ; while ! [ -s {} ]; do :; done", file.display());
    let done = sandbox.run(&["run", "--for", "60s", "--grace", "100ms", "--", "sh", "-c", &script]);
    assert!(done.status.success(), "{done:?}");
    let daemon = numbers(&file, 1)[0];
    await_some("the end of the daemon", || gone(daemon).then_some(()));
    assert_eq!(sandbox.book().leases().len(), 0);
}

/// What was stopped cannot act on SIGTERM: it is continued, and killed after its grace.
#[test]
fn a_job_that_is_stopped_ends_at_its_deadline() {
    let sandbox = Sandbox::new("count=1");
    let file = sandbox.root().join("job");
    let script = format!("echo $$ > {0}; kill -STOP $$; while :; do :; done", file.display());
    let mut run = sandbox.command(&["run", "--for", "1s", "--grace", "200ms", "--", "sh", "-c"]);
    run.arg(script).stdout(Stdio::null()).stderr(Stdio::null());
    let mut run = Killed(run.spawn().unwrap());
    let job = numbers(&file, 1)[0];
    let stopped = || std::fs::read_to_string(format!("/proc/{job}/stat")).unwrap_or_default();
    await_some("the stop", || stopped().contains(") T ").then_some(()));
    await_some("the end of the job", || gone(job).then_some(()));
    let code = run.0.wait().unwrap().code();
    assert!(matches!(code, Some(124 | 137)), "{code:?}");
}

/// A process that sleeps in a driver cannot be killed. Frozen by the first version of control
/// groups, it is as deaf: its lease stays, says so, and its memory is not given to anybody.
#[test]
fn a_gpu_is_not_granted_again_before_the_kernel_lets_go_of_its_process() {
    let sandbox = Sandbox::new("count=1").without_guardian();
    let freezer = Path::new("/sys/fs/cgroup/freezer");
    let group = is_root().then(|| Group::new(freezer, "chronos-it")).flatten();
    let Some(group) = group.filter(|group| group.0.join("freezer.state").exists()) else {
        println!("skipped: it needs root and the freezer of control groups version 1");
        return;
    };
    let id = sandbox.create(&["--mem", "80%", "--for", "600s", "--grace", "0"]);
    let mut command = Command::new("sleep");
    command.arg("1000").env("CHRONOS_LEASE", &id).stdin(Stdio::null());
    let member = Killed(command.spawn().unwrap());
    group.take(member.0.id());
    let freeze = |word: &str| {
        std::fs::write(group.0.join("freezer.state"), word).unwrap();
        let state = || std::fs::read_to_string(group.0.join("freezer.state")).unwrap();
        await_some("the freezer", || (state().trim() == word).then_some(()));
    };
    freeze("FROZEN");
    let released = sandbox.run(&["release", &id]);
    let errors = String::from_utf8_lossy(&released.stderr).into_owned();
    assert_eq!(released.status.code(), Some(75), "{errors}");
    assert!(errors.contains("has not let go of some of its processes"), "{errors}");
    assert_eq!(sandbox.leases()[0]["phase"], "ending");
    sandbox.refused(73, &["create", "0", "0.5", "60"]);
    assert!(!gone(member.0.id()));
    freeze("THAWED");
    sandbox.ok(&["reap"]);
    assert!(sandbox.leases().is_empty(), "the kill was delivered");
    sandbox.create(&["0", "0.5", "60"]);
}

/// The out-of-memory killer, let loose on a group of its own, takes the supervisor.
#[test]
fn a_lease_ends_in_time_although_its_supervisor_runs_out_of_memory() {
    let sandbox = Sandbox::new("count=1");
    let memory = Path::new("/sys/fs/cgroup/memory");
    let group = is_root().then(|| Group::new(memory, "chronos-it")).flatten();
    let Some(group) = group.filter(|group| group.0.join("memory.limit_in_bytes").exists()) else {
        println!("skipped: it needs root and the memory controller of control groups version 1");
        return;
    };
    std::fs::write(group.0.join("memory.limit_in_bytes"), "64M").unwrap();
    let file = sandbox.root().join("tree");
    let mut run = sandbox.command(&["run", "--for", "3s", "--grace", "200ms", "--", "sh", "-c"]);
    run.arg(crate::sandbox::stubborn(&file)).stdout(Stdio::null()).stderr(Stdio::null());
    let mut supervisor = Killed(run.spawn().unwrap());
    let tree = numbers(&file, 2);
    let pid = supervisor.0.id();
    group.take(pid);
    std::fs::write(format!("/proc/{pid}/oom_score_adj"), "1000").unwrap();
    // It keeps the whole of an endless line in memory.
    let script = format!("echo $$ > {}/cgroup.procs; exec tail /dev/zero", group.0.display());
    let mut hog = Killed(Command::new("sh").args(["-c", &script]).spawn().unwrap());
    let status = supervisor.0.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGKILL));
    let control = std::fs::read_to_string(group.0.join("memory.oom_control")).unwrap();
    assert!(!control.contains("oom_kill 0"), "{control}");
    assert!(tree.iter().all(|pid| !gone(*pid)), "the job runs on");
    await_some("the end of the tree", || tree.iter().all(|pid| gone(*pid)).then_some(()));
    await_some("the end of the lease", || (sandbox.book().leases().len() == 0).then_some(()));
    let _ = hog.0.kill();
    hog.0.wait().unwrap();
}

/// `systemd-run --user` and the container engine start processes outside the lease's group. In
/// lockdown those find the GPU closed, and so does a member that moves itself out.
#[cfg(not(feature = "portable"))]
#[test]
fn lockdown_closes_the_gpus_to_whoever_is_outside_a_lease() {
    let hierarchy = cgroup::mounted().filter(|_| is_root());
    let top = hierarchy.and_then(|hierarchy| Group::new(&hierarchy, "chronos-it-top"));
    let Some(top) = top.filter(|_| chronos::os::ebpf::probe().is_ok()) else {
        println!("skipped: it needs root, control groups of version 2 and device programs");
        return;
    };
    let node = "/dev/full";
    let mut sandbox = Sandbox::new(&format!("count=1,node={node}")).without_guardian();
    sandbox.set("CHRONOS_CGROUP_ROOT", &top.0.display().to_string());
    let outside = top.0.join("user.slice");
    std::fs::create_dir(&outside).unwrap();
    let id = sandbox.create(&["0", "0.1", "600"]);
    let opens = |from: &str, inside: bool| {
        let script = format!("{from} : < {node}");
        let words = ["run", "--lease", &id, "--", "sh", "-c", &script];
        let mut command = if inside {
            sandbox.command(&words)
        } else {
            let mut command = Command::new("sh");
            command.args(["-c", &script]);
            command
        };
        command.stderr(Stdio::null()).status().unwrap().success()
    };
    let leave = format!("echo $$ > {}/cgroup.procs;", outside.display());
    assert!(opens(&leave, false), "before the lockdown");
    let closed = sandbox.ok(&["lockdown", "on"]);
    assert!(closed.contains("GPUs are closed to user.slice"), "{closed}");
    assert!(!opens(&leave, false), "a process outside every lease");
    assert!(opens("", true), "a member of the lease");
    assert!(!opens(&leave, true), "a member that moved itself out");
    sandbox.ok(&["lockdown", "on"]);
    let open = sandbox.ok(&["lockdown", "off"]);
    assert!(open.contains("GPUs are open to user.slice"), "{open}");
    assert!(opens(&leave, false), "after the lockdown");
    sandbox.ok(&["release", "--force", &id]);
}

/// A machine without a device node has nothing that could be closed.
#[test]
fn lockdown_says_what_it_cannot_do() {
    let sandbox = Sandbox::new("count=1").without_guardian();
    if !is_root() {
        let errors = sandbox.refused(77, &["lockdown", "on"]);
        assert!(errors.contains("only root may lock the GPUs down"), "{errors}");
        return;
    }
    let errors = sandbox.refused(78, &["lockdown", "on"]);
    assert!(errors.contains("lockdown: "), "{errors}");
}
