//! The examples and documents, held to what they say.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::sandbox::Sandbox;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The example starts a container that is no child of it. The engine is a stand-in that keeps a
/// process where a daemon would: what is held to account is when the example stops it.
#[test]
fn a_container_is_stopped_at_the_deadline() {
    let sandbox = Sandbox::new("count=1");
    let programs = sandbox.root().join("bin");
    std::fs::create_dir_all(&programs).unwrap();
    let told = sandbox.root().join("told");
    let engine = format!(
        "#!/bin/sh\necho \"$*\" >> {0}\ncase $1 in run) echo c0ffee;; \
         wait) while ! grep -q ^stop {0}; do read x < /dev/zero || :; done;; esac\n",
        told.display()
    );
    for (name, text) in [
        ("docker", engine),
        // The example takes an hour; a test does not.
        (
            "chronos",
            format!(
                "#!/bin/sh\nshift 8\nexec {} run --any --mem 50% --for 1s --grace 5s \"$@\"\n",
                Sandbox::tool()
            ),
        ),
    ] {
        let path = programs.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let mut example = Command::new("sh");
    example.arg(root().join("examples/chronos/docker.sh")).args(["image", "train"]);
    sandbox.dress(&mut example);
    let path = std::env::var("PATH").unwrap();
    example.env("PATH", format!("{}:{path}", programs.display()));
    let status = example.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    let told = std::fs::read_to_string(&told).unwrap();
    assert!(matches!(status.code(), Some(124 | 137)), "{status}: {told}");
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[0].starts_with("run --detach --env CUDA_VISIBLE_DEVICES"), "{told}");
    assert!(lines[0].ends_with("--device nvidia.com/gpu=0 image train"), "{told}");
    assert!(lines.contains(&"stop --time 25 c0ffee"), "{told}");
}

#[test]
fn every_test_that_a_document_names_exists() {
    let mut named = 0;
    let page = std::fs::read_to_string(root().join("docs/chronos-faults.md")).unwrap();
    for word in page.split('`').filter(|word| word.contains("::")) {
        let (file, name) = word.split_once("::").unwrap();
        let source = root().join(format!("crates/chronos/tests/it/{file}.rs"));
        let source = std::fs::read_to_string(&source).unwrap_or_default();
        assert!(source.contains(&format!("fn {name}()")), "{word} does not exist");
        named += 1;
    }
    assert!(named > 20, "{named}");
}
