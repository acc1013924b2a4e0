//! `docs/labels.md` against the code: what it says is read is, and what is said to wait is not.

use std::fs;

use crate::tidy::{crate_folders, root, sources};

/// The text between backticks.
fn ticked(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// The cells of the tables under the headings that `wanted` names.
fn rows<'a>(page: &'a str, wanted: &[&str]) -> Vec<Vec<&'a str>> {
    let mut under = false;
    let mut rows = Vec::new();
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            under = wanted.contains(&heading);
        } else if under && line.starts_with("| ") && !line.starts_with("| key ") {
            rows.push(line.trim_matches('|').split('|').map(str::trim).collect());
        }
    }
    rows
}

/// The code of all rooms, without what only tests see.
fn code() -> String {
    let files = crate_folders().into_iter().flat_map(|folder| sources(&folder.join("src")));
    let text = |path| -> String {
        let text = fs::read_to_string(path).expect("readable");
        text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned()
    };
    files.map(text).collect()
}

#[test]
fn a_label_is_read_or_it_is_said_what_it_waits_for() {
    let page = fs::read_to_string(root().join("docs/labels.md")).expect("the page");
    let code = code();
    let named = |key: &str| code.contains(&format!("\"{key}\""));
    let read = rows(&page, &["Of pods", "Of namespaces", "Of nodes"]);
    assert!(read.len() > 15, "{read:?}");
    for key in read.iter().flat_map(|row| ticked(row[0])) {
        assert!(named(key), "docs/labels.md says that `{key}` is read, and nothing names it");
    }
    let pending = root().join("charts/gpu-autoscaler/files/pending.yaml");
    let pending = fs::read_to_string(pending).expect("the list of values");
    let waiting = rows(&page, &["Not read yet"]);
    assert!(waiting.len() > 5, "{waiting:?}");
    for row in &waiting {
        for section in ticked(row[2]) {
            let waits = pending.lines().any(|line| line.starts_with(&format!("{section}:")));
            assert!(waits, "`{section}` is not pending: is {} read now?", row[0]);
        }
        // Words such as `team` have other uses.
        for key in ticked(row[0]).filter(|key| key.contains('/')) {
            assert!(!named(key), "docs/labels.md says that `{key}` is not read, and it is named");
        }
    }
}
