//! Every exit code that the documents name, by a command that ends with it.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::process::{Child, Stdio};

use crate::sandbox::{Sandbox, await_some, stubborn};

/// The codes of the tables of `docs/chronos.md`.
fn documented() -> BTreeSet<i32> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/chronos.md");
    let page = std::fs::read_to_string(page).unwrap();
    let tables = page.split("| exit code | meaning |\n|---|---|\n").skip(1);
    let rows = tables.flat_map(|table| table.lines().take_while(|line| line.starts_with('|')));
    let first = |row: &str| row.split('|').nth(1).unwrap().trim().parse().unwrap();
    rows.map(first).collect()
}

#[test]
fn every_exit_code_is_what_the_documents_say() {
    let mut seen = commands();
    seen.extend(jobs());
    assert_eq!(seen, documented());
}

/// What commands other than `run` end with.
fn commands() -> BTreeSet<i32> {
    let mut sandbox = Sandbox::new("count=1").without_guardian();
    let id = sandbox.create(&["0", "0.6", "600"]);
    let none = "partition_1_1_0001";
    let planted = sandbox.root().join("planted");
    symlink(sandbox.root(), &planted).unwrap();
    let config = sandbox.root().join("chronos.yaml");
    std::fs::write(&config, "graze: 1s\n").unwrap();
    let cases: [(i32, &[&str], &str, String); 10] = [
        (0, &["list"], "", String::new()),
        (1, &[], "", String::new()),
        (2, &["create", "0", "NaN", "60"], "", String::new()),
        (65, &["get", none], "", String::new()),
        (69, &["create", "0", "0.1", "60", "--require", "memory=kernel"], "", String::new()),
        (73, &["create", "0", "0.6", "60"], "", String::new()),
        (74, &["list"], "CHRONOS_RUNTIME_DIR", planted.display().to_string()),
        (75, &["create", "0", "0.6", "60", "--wait=50ms"], "", String::new()),
        (77, &["attach", &id, "--pid", "4194304"], "", String::new()),
        (78, &["list"], "CHRONOS_CONFIG", config.display().to_string()),
    ];
    let mut seen = BTreeSet::new();
    for (code, arguments, variable, value) in cases {
        let mut command = sandbox.command(arguments);
        if !variable.is_empty() {
            command.env(variable, value);
        }
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
        seen.insert(code);
    }
    sandbox.set("CHRONOS_CONFIG", "");
    sandbox.ok(&["release", &id]);
    seen
}

fn start(sandbox: &Sandbox, arguments: &[&str]) -> Child {
    let mut command = sandbox.command(&[&["run"], arguments].concat());
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// What `run` ends with beside the code of its job.
fn jobs() -> BTreeSet<i32> {
    let sandbox = Sandbox::new("count=1,checkpoint=yes").without_guardian();
    let tree = stubborn(&sandbox.root().join("tree"));
    let plain = sandbox.root().join("plain");
    std::fs::write(&plain, "no program").unwrap();
    let plain = plain.display().to_string();
    let cases: [(i32, &[&str]); 6] = [
        (7, &["--", "sh", "-c", "exit 7"]),
        (128 + 15, &["--", "sh", "-c", "kill -TERM $$"]),
        (124, &["--for", "300ms", "--", "sleep", "1000"]),
        (126, &["--", &plain]),
        (127, &["--", "/no/such/program"]),
        (137, &["--for", "300ms", "--grace", "100ms", "--", "sh", "-c", &tree]),
    ];
    let mut seen = BTreeSet::new();
    for (code, arguments) in cases {
        let ended = start(&sandbox, arguments).wait().unwrap();
        assert_eq!(ended.code(), Some(code), "{arguments:?}");
        await_some("the end of its lease", || sandbox.leases().is_empty().then_some(()));
        seen.insert(code);
    }
    // These two are the job's own.
    seen.remove(&7);
    seen.remove(&(128 + 15));
    let said = sandbox.root().join("said");
    let mut suspended = sandbox.command(&["run", "--", "sleep", "1000"]);
    let mut suspended = suspended.stderr(std::fs::File::create(&said).unwrap()).spawn().unwrap();
    let id = sandbox.first_lease();
    await_some("the job", || sandbox.run(&["suspend", &id]).status.success().then_some(()));
    await_some("the supervisor's word", || {
        std::fs::read_to_string(&said).unwrap().contains("is suspended").then_some(())
    });
    let entered = start(&sandbox, &["--lease", &id, "--", "true"]).wait().unwrap();
    assert_eq!(entered.code(), Some(125), "nobody enters a partition that is suspended");
    sandbox.ok(&["release", &id]);
    assert_eq!(suspended.wait().unwrap().code(), Some(140), "it was suspended when it was over");
    let said = std::fs::read_to_string(&said).unwrap();
    assert!(said.ends_with(&format!("partition {id} released\n")), "{said}");
    seen.extend([125, 140]);
    seen
}
