//! The Helm chart: what it renders, what it installs, and what its documents say.

pub(crate) mod helm;
mod install;
mod monitoring;
mod objects;
mod reference;
mod values;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// The chart's folder.
fn chart() -> PathBuf {
    root().join("charts/gpu-autoscaler")
}

/// The root of the source tree.
fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("inside the tree").to_owned()
}

/// A file of the source tree.
fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
}

/// The documents of a YAML text; empty ones are left out.
fn yaml(text: &str) -> Vec<Value> {
    let documents = serde_saphyr::from_multiple::<Value>(text);
    let documents = documents.unwrap_or_else(|error| panic!("{error}\n{text}"));
    documents.into_iter().filter(|document| !document.is_null()).collect()
}

/// The files of a folder of the source tree with this ending, sorted by name.
fn files(folder: impl AsRef<Path>, ending: &str) -> Vec<PathBuf> {
    let folder = root().join(folder);
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let paths = entries.map(|entry| entry.expect("readable").path());
    let mut paths: Vec<PathBuf> =
        paths.filter(|path| path.to_string_lossy().ends_with(ending)).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} has no {ending}", folder.display());
    paths
}
