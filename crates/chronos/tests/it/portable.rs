//! What only the portable half of `os` does.

use crate::sandbox::Sandbox;

#[test]
fn what_an_earlier_boot_left_is_void_and_removed() {
    let sandbox = Sandbox::new("count=1").without_guardian();
    sandbox.create(&["0", "1", "600"]);
    let left = sandbox.runtime().join("journal-an_earlier_boot-7");
    std::fs::rename(sandbox.journal(), &left).unwrap();
    // The power went while it was written.
    let index = sandbox.runtime().join("index-an_earlier_boot");
    std::fs::write(&index, [0; 512]).unwrap();
    assert!(sandbox.leases().is_empty());
    sandbox.create(&["0", "1", "600"]);
    assert!(!left.exists() && !index.exists());
}

#[test]
fn the_last_of_two_journals_counts() {
    let sandbox = Sandbox::new("count=1").without_guardian();
    let first = sandbox.create(&["0", "0.5", "600"]);
    let before = sandbox.journal();
    let old = std::fs::read(&before).unwrap();
    // Enough lines that the next writers rewrite it.
    for _ in 0..70 {
        sandbox.ok(&["extend", &first, "--for", "1s"]);
    }
    let after = sandbox.journal();
    assert_ne!(before, after, "it was not rewritten");
    assert!(!before.exists());
    // Killed between putting the new one in place and removing the old one.
    std::fs::write(&before, old).unwrap();
    let second = sandbox.create(&["0", "0.5", "600"]);
    let mut found: Vec<String> = sandbox.book().leases().map(|lease| lease.id.0.clone()).collect();
    found.sort();
    let mut wanted = vec![first, second];
    wanted.sort();
    assert_eq!(found, wanted);
    sandbox.refused(73, &["create", "0", "0.1", "60"]);
}

#[test]
fn what_only_linux_has_is_refused_by_name() {
    let mut sandbox = Sandbox::new("count=1").without_guardian();
    for command in [&["setup", "--print"][..], &["helper"]] {
        let errors = sandbox.refused(78, command);
        assert!(errors.contains("linux has no helper"), "{errors}");
    }
    let config = sandbox.root().join("chronos.yaml");
    std::fs::write(&config, "lock_compat: true\n").unwrap();
    sandbox.set("CHRONOS_CONFIG", &config.display().to_string());
    let errors = sandbox.refused(78, &["create", "0", "0.5", "60"]);
    assert!(errors.contains("lock_compat: linux has no lock files"), "{errors}");
}
