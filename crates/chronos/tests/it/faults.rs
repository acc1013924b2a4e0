//! Bad input and a bad machine.

use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use crate::sandbox::{Sandbox, await_some, gone, is_root, remove};

#[test]
fn a_link_in_place_of_state_is_refused() {
    let sandbox = Sandbox::new("count=1").without_guardian();
    let target = sandbox.root().join("target");
    std::fs::create_dir_all(&target).unwrap();
    symlink(&target, sandbox.runtime()).unwrap();
    let errors = sandbox.refused(74, &["create", "0", "0.5", "60"]);
    assert!(errors.contains("symbolic link"), "{errors}");
    std::fs::remove_file(sandbox.runtime()).unwrap();
    std::fs::create_dir(sandbox.runtime()).unwrap();
    let state = sandbox.root().join("state");
    symlink(&target, &state).unwrap();
    let errors = sandbox.refused(74, &["create", "0", "0.5", "60"]);
    assert!(errors.contains("hint: remove it, or set CHRONOS_STATE_DIR"), "{errors}");
    std::fs::remove_file(state).unwrap();
    let victim = sandbox.root().join("victim");
    std::fs::write(&victim, "precious").unwrap();
    for path in [sandbox.journal(), sandbox.runtime().join("lock")] {
        symlink(&victim, &path).unwrap();
        let errors = sandbox.refused(74, &["create", "0", "0.5", "60"]);
        assert!(errors.contains("symbolic link"), "{}: {errors}", path.display());
        std::fs::remove_file(path).unwrap();
    }
    // The temporary file of a rewrite is made anew, whatever lies there.
    symlink(&victim, sandbox.runtime().join("journal.new")).unwrap();
    sandbox.create(&["0", "0.5", "60"]);
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
}

#[test]
fn a_directory_that_others_can_write_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = Sandbox::new("count=1").without_guardian();
    std::fs::create_dir(sandbox.runtime()).unwrap();
    std::fs::set_permissions(sandbox.runtime(), PermissionsExt::from_mode(0o777)).unwrap();
    let errors = sandbox.refused(74, &["create", "0", "0.5", "60"]);
    assert!(errors.contains("others can write into it"), "{errors}");
}

#[test]
fn a_damaged_journal_is_refused_and_a_torn_one_is_repaired() {
    let sandbox = Sandbox::new("count=1").without_guardian();
    let id = sandbox.create(&["0", "0.5", "600"]);
    let journal = sandbox.journal();
    let whole = std::fs::read(&journal).unwrap();
    let torn = [&whole[..], &b"0123abcd {\"granted\":{\"id"[..]].concat();
    std::fs::write(&journal, torn).unwrap();
    assert_eq!(sandbox.leases().len(), 1, "a torn line is not seen");
    sandbox.ok(&["extend", &id, "--for", "60s"]);
    assert_eq!(sandbox.leases().len(), 1, "and is cut off by the next writer");
    let mut damaged = std::fs::read(&journal).unwrap();
    damaged[20] ^= 1;
    std::fs::write(&journal, &damaged).unwrap();
    let errors = sandbox.refused(74, &["create", "0", "0.1", "60"]);
    assert!(errors.contains("damaged"), "{errors}");
    std::fs::write(&journal, &whole).unwrap();
}

#[test]
fn on_a_full_disk_nothing_is_granted_and_everything_ends() {
    if !is_root() {
        println!("skipped: mounting a small file system needs root");
        return;
    }
    let sandbox = Sandbox::new("count=1").without_guardian();
    std::fs::create_dir(sandbox.runtime()).unwrap();
    let mount = |arguments: &[&str]| {
        Command::new("mount").args(arguments).arg(sandbox.runtime()).status().unwrap().success()
    };
    if !mount(&["-t", "tmpfs", "-o", "size=256k,mode=755", "tmpfs"]) {
        println!("skipped: a file system cannot be mounted here");
        return;
    }
    let id = sandbox.create(&["0", "0.5", "600"]);
    let filler = sandbox.runtime().join("filler");
    let _ = std::fs::write(&filler, vec![0; 1 << 20]);
    let errors = String::from_utf8(sandbox.run(&["create", "0", "0.1", "60"]).stderr).unwrap();
    let refused_or_fits = errors.is_empty() || errors.contains("No space left");
    assert!(refused_or_fits, "{errors}");
    let mut granted = 0;
    while sandbox.run(&["create", "0", "0.001", "60"]).status.success() {
        granted += 1;
        assert!(granted < 400, "the disk is never full");
    }
    sandbox.ok(&["release", &id]);
    for lease in sandbox.book().leases() {
        sandbox.ok(&["release", &lease.id.0]);
    }
    assert!(sandbox.leases().is_empty());
    assert!(Command::new("umount").arg(sandbox.runtime()).status().unwrap().success());
}

#[test]
fn a_gpu_that_vanishes_is_named_and_its_lease_ends() {
    let mut sandbox = Sandbox::new("").without_guardian();
    let description = sandbox.root().join("gpus");
    std::fs::write(&description, "count=2").unwrap();
    sandbox.set("CHRONOS_FAKE_GPUS", &description.display().to_string());
    let id = sandbox.create(&["1", "0.5", "600"]);
    std::fs::write(&description, "count=2,lost=1").unwrap();
    let errors = sandbox.refused(73, &["create", "1", "0.1", "60"]);
    assert!(errors.contains("it has fallen off the bus"), "{errors}");
    let any = sandbox.json(&["create", "--any", "0.1", "60"]);
    assert_eq!(any["parts"][0]["index"], 0);
    std::fs::write(&description, "count=1").unwrap();
    sandbox.ok(&["release", &id]);
}

#[test]
fn an_environment_is_no_reason_to_kill_another_users_process() {
    if !is_root() {
        println!("skipped: a process of another user needs root");
        return;
    }
    let sandbox = Sandbox::new("count=1").without_guardian();
    let id = sandbox.create(&["0", "0.5", "600"]);
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "daemon", "--regid", "1", "--clear-groups", "sleep", "1000"]);
    let mut foreign = crate::sandbox::Killed(
        command.env("CHRONOS_LEASE", &id).stdin(Stdio::null()).spawn().unwrap(),
    );
    let pid = foreign.0.id();
    let uid = || {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(format!("/proc/{pid}")).map_or(0, |m| m.uid())
    };
    await_some("the other user", || (uid() == 1).then_some(()));
    sandbox.ok(&["release", "--force", &id]);
    assert!(foreign.0.try_wait().unwrap().is_none(), "it carries the mark, but is not the owner's");
    assert!(!gone(pid));
}

#[cfg(not(feature = "portable"))]
#[test]
fn old_lock_files_are_counted_and_never_trusted() {
    let mut sandbox = Sandbox::new("count=1").without_guardian();
    let folder = sandbox.root().join("locks");
    std::fs::create_dir_all(&folder).unwrap();
    let config = sandbox.root().join("chronos.yaml");
    std::fs::write(&config, format!("lock_directory: {}\n", folder.display())).unwrap();
    sandbox.set("CHRONOS_CONFIG", &config.display().to_string());
    let lock = |pid: u32| {
        format!("pid: {pid}\nuser: x\nhost: h\ntime: t\ndevice: 0\nfraction: 0.9\npartition: p\n")
    };
    std::fs::write(folder.join("p.lock"), lock(std::process::id())).unwrap();
    let errors = sandbox.refused(73, &["create", "0", "0.5", "60"]);
    assert!(errors.contains("outside every lease"), "{errors}");
    let mut ended = Command::new("true").spawn().unwrap();
    ended.wait().unwrap();
    std::fs::write(folder.join("p.lock"), lock(ended.id())).unwrap();
    let id = sandbox.create(&["0", "0.5", "60"]);
    assert!(!folder.join(format!("{id}.lock")).exists(), "none is written unless it is asked for");
    let text = format!("lock_directory: {}\nlock_compat: true\n", folder.display());
    std::fs::write(&config, text).unwrap();
    let id = sandbox.create(&["0", "0.1", "60"]);
    let written = std::fs::read_to_string(folder.join(format!("{id}.lock"))).unwrap();
    assert!(written.contains("device: 0\nfraction: 0.1\n"), "{written}");
    sandbox.ok(&["release", &id]);
    assert!(!folder.join(format!("{id}.lock")).exists());
}

#[cfg(not(feature = "portable"))]
#[test]
fn the_kernel_refuses_to_open_a_gpu_after_the_deadline() {
    let node = "/dev/full";
    let sandbox = Sandbox::new(&format!("count=1,node={node}")).without_guardian();
    let fenced = sandbox.json(&["create", "0", "0.1", "600"])["enforcement"]["tree"] == "cgroup";
    if !fenced || chronos::os::ebpf::probe().is_err() {
        println!("skipped: no device programs or control groups here");
        return;
    }
    // It opens the node until it cannot, and says so; nobody kills it, because nobody looks.
    let out = sandbox.root().join("out");
    let script = format!(
        "(: < {node}) && echo open >> {0}; while (: < {node}) 2> /dev/null; do :; done; echo closed >> {0}",
        out.display()
    );
    let id =
        sandbox.create(&["--gpu", "0", "--mem", "10%", "--for", "500ms", "--on-expire", "notify"]);
    let mut join = sandbox.command(&["run", "--lease", &id, "--", "sh", "-c", &script]);
    let mut member = crate::sandbox::Killed(join.stderr(Stdio::null()).spawn().unwrap());
    let text = await_some("the refusal", || {
        std::fs::read_to_string(&out).ok().filter(|text| text.contains("closed"))
    });
    assert_eq!(text, "open\nclosed\n");
    member.0.wait().unwrap();
    assert!(std::fs::File::open(node).is_ok(), "who is outside is not affected");
}

#[test]
fn a_configuration_with_an_error_is_named_with_its_line_and_the_nearest_key() {
    let mut sandbox = Sandbox::new("count=1").without_guardian();
    let config = sandbox.root().join("chronos.yaml");
    sandbox.set("CHRONOS_CONFIG", &config.display().to_string());
    std::fs::write(&config, "grace: 5s\nlock_compatible: true\n").unwrap();
    for arguments in [&["create", "0", "0.5", "60"][..], &["list"], &["config", "check"]] {
        let errors = sandbox.refused(78, arguments);
        assert!(errors.contains("chronos.yaml: line 2 column 1: unknown field"), "{errors}");
        assert!(errors.contains("the nearest is `lock_compat`"), "{errors}");
    }
    std::fs::write(&config, "grace: 5s\n").unwrap();
    let policy = sandbox.root().join("policy.yaml");
    std::fs::write(&policy, "default:\n  maxGpus: 1\n  maxDurations: 1h\n").unwrap();
    let errors = sandbox.refused(78, &["config", "check"]);
    assert!(errors.contains("policy.yaml: line 3 column 3: unknown field"), "{errors}");
    assert!(errors.contains("the nearest is `maxDuration`"), "{errors}");
    let object = sandbox.refused(78, &["config", "check", "--json"]);
    let object: serde_json::Value = serde_json::from_str(&object).unwrap();
    assert_eq!((&object["kind"], &object["code"]), (&"Error".into(), &"setting".into()));
    std::fs::write(&policy, "default: {maxGpus: 1}\n").unwrap();
    assert!(sandbox.ok(&["config", "check"]).contains("no error"));
}

/// The date is set back a year for every process that looks at the lease from then on.
#[test]
fn a_date_that_is_set_back_a_year_moves_no_deadline() {
    let mut sandbox = Sandbox::new("count=1");
    let file = sandbox.root().join("tree");
    let mut run = sandbox.command(&["run", "--for", "2s", "--grace", "200ms", "--", "sh", "-c"]);
    run.arg(crate::sandbox::stubborn(&file)).stdout(Stdio::null()).stderr(Stdio::null());
    let _run = crate::sandbox::Killed(run.spawn().unwrap());
    let id = chronos::lease::LeaseId(sandbox.first_lease());
    let tree = crate::sandbox::numbers(&file, 2);
    let deadline = sandbox.book().lease(&id).unwrap().deadline;
    for offset in ["-31536000", "31536000"] {
        sandbox.set(chronos::os::clock::DATE_OFFSET, offset);
        let lease = sandbox.json(&["get", &id.0]);
        let left = lease["remainingSeconds"].as_f64().unwrap();
        assert!((0.0..=2.2).contains(&left), "offset {offset}: {left} s left");
        sandbox.ok(&["extend", &id.0, "--for", "100ms"]);
        let year = &lease["expiresAt"].as_str().unwrap()[..4];
        let granted = &lease["grantedAt"].as_str().unwrap()[..4];
        assert_ne!(year, granted, "the date that is shown is the one that is set");
    }
    let longer = deadline.after(chronos::quantity::Span::from_millis(200));
    assert_eq!(sandbox.book().lease(&id).unwrap().deadline, longer);
    await_some("the end of the tree", || tree.iter().all(|pid| gone(*pid)).then_some(()));
    let late = chronos::os::clock::boottime().since(longer);
    assert!(late >= chronos::quantity::Span::from_millis(150), "it had its grace");
    assert!(late <= chronos::quantity::Span::from_secs(2), "{late} late");
    // A window of the calendar is of the date, and moves with it.
    let now = chronos::os::clock::now().wall.after(std::time::Duration::from_secs(1_800));
    sandbox.set(chronos::os::clock::DATE_OFFSET, "0");
    sandbox.json(&["create", "--mem", "100%", "--for", "2h", "--start", &now.to_string()]);
    sandbox.refused(73, &["create", "0", "0.5", "3600"]);
    sandbox.set(chronos::os::clock::DATE_OFFSET, "-31536000");
    let early = sandbox.create(&["0", "0.5", "3600"]);
    sandbox.ok(&["release", &early]);
}

#[test]
fn a_guardian_leaves_when_its_state_is_removed() {
    let sandbox = Sandbox::new("count=1");
    sandbox.create(&["0", "0.5", "600"]);
    let guardian = await_some("the guardian", || sandbox.guardian());
    assert!(remove(&sandbox.runtime()));
    await_some("the end of the guardian", || gone(guardian).then_some(()));
}
