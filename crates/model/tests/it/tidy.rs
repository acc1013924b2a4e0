//! The dependency table of `ARCHITECTURE.md`, and the purity of the pure rooms.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Which of our packages each of our packages may depend on.
///
/// A new edge is a change of architecture: `ARCHITECTURE.md` says why in the same commit.
const MAY_DEPEND_ON: &[(&str, &[&str])] = &[
    ("gpu-autoscaler-model", &[]),
    ("gpu-autoscaler-analysis", &["gpu-autoscaler-model"]),
    ("gpu-autoscaler-planner", &["gpu-autoscaler-model"]),
    ("gpu-autoscaler-ledger", &["gpu-autoscaler-model"]),
    (
        "gpu-autoscaler-reconciler",
        &[
            "gpu-autoscaler-model",
            "gpu-autoscaler-analysis",
            "gpu-autoscaler-planner",
            "gpu-autoscaler-ledger",
        ],
    ),
    ("gpu-autoscaler-telemetry", &["gpu-autoscaler-model"]),
    ("gpu-autoscaler-k8s", &["gpu-autoscaler-model"]),
    ("gpu-autoscaler-cloud", &["gpu-autoscaler-model"]),
    ("gpu-autoscaler-store", &["gpu-autoscaler-model"]),
    ("chronos", &["gpu-autoscaler-model"]),
    ("chronos-c", &["chronos"]),
    ("chronos-cuda-shim", &[]),
    (
        "gpu-autoscaler-sim",
        &[
            "gpu-autoscaler-model",
            "gpu-autoscaler-analysis",
            "gpu-autoscaler-planner",
            "gpu-autoscaler-ledger",
            "gpu-autoscaler-reconciler",
            "chronos",
        ],
    ),
    ("gpu-autoscaler-controller", ALL_BUT_SHELLS),
    ("gpu-autoscaler", WITH_CONTROLLER),
    ("benches", WITH_CONTROLLER),
    ("tests", WITH_CONTROLLER),
];

const ALL_BUT_SHELLS: &[&str] = &[
    "gpu-autoscaler-model",
    "gpu-autoscaler-analysis",
    "gpu-autoscaler-planner",
    "gpu-autoscaler-ledger",
    "gpu-autoscaler-reconciler",
    "gpu-autoscaler-telemetry",
    "gpu-autoscaler-k8s",
    "gpu-autoscaler-cloud",
    "gpu-autoscaler-store",
    "gpu-autoscaler-sim",
    "chronos",
];

const WITH_CONTROLLER: &[&str] = &[
    "gpu-autoscaler-model",
    "gpu-autoscaler-analysis",
    "gpu-autoscaler-planner",
    "gpu-autoscaler-ledger",
    "gpu-autoscaler-reconciler",
    "gpu-autoscaler-telemetry",
    "gpu-autoscaler-k8s",
    "gpu-autoscaler-cloud",
    "gpu-autoscaler-store",
    "gpu-autoscaler-sim",
    "gpu-autoscaler-controller",
    "chronos",
];

/// Rooms without clock, randomness, IO or an order that differs between runs.
const PURE: &[&str] = &["model", "analysis", "planner", "ledger", "reconciler"];

/// Packages of others that a pure room may depend on.
const PURE_MAY_USE: &[&str] = &["serde", "jiff", "augurs"];

#[test]
fn every_edge_is_in_the_table() {
    for manifest in manifests() {
        let name = manifest.name.as_str();
        let Some((_, allowed)) = MAY_DEPEND_ON.iter().find(|(package, _)| *package == name) else {
            panic!("package `{name}` is not in the table of tidy.rs");
        };
        for dependency in &manifest.dependencies {
            let ours = MAY_DEPEND_ON.iter().any(|(package, _)| package == dependency);
            assert!(
                !ours || allowed.contains(&dependency.as_str()),
                "package `{name}` may not depend on `{dependency}`"
            );
        }
    }
}

#[test]
fn pure_rooms_are_pure() {
    let reference = fs::read_to_string(root().join("crates/model/clippy.toml")).expect("committed");
    for room in PURE {
        let folder = root().join("crates").join(room);
        if !folder.exists() {
            continue;
        }
        let ban = fs::read_to_string(folder.join("clippy.toml")).unwrap_or_default();
        assert_eq!(ban, reference, "crates/{room}/clippy.toml differs from that of model");
        let manifest = read_manifest(&folder.join("Cargo.toml"));
        for dependency in manifest.dependencies {
            assert!(
                MAY_DEPEND_ON.iter().any(|(package, _)| *package == dependency)
                    || PURE_MAY_USE.contains(&dependency.as_str()),
                "crates/{room} is pure and may not depend on `{dependency}`"
            );
        }
        for source in sources(&folder.join("src")) {
            let text = fs::read_to_string(&source).expect("readable");
            for banned in ["async fn", ".await", "unsafe ", "HashMap", "HashSet", "tracing::"] {
                let at = text
                    .lines()
                    .position(|line| !line.trim_start().starts_with("//") && line.contains(banned));
                assert!(at.is_none(), "{}:{}: `{banned}`", source.display(), at.unwrap_or(0) + 1);
            }
        }
    }
}

#[test]
fn every_crate_states_its_invariants() {
    for folder in crate_folders() {
        let library = folder.join("src/lib.rs");
        if let Ok(text) = fs::read_to_string(&library) {
            assert!(text.contains("//! # Invariants"), "{} has no invariants", library.display());
        }
    }
}

/// Otherwise `make demo` and `make test` compile most of the workspace twice.
#[test]
fn a_build_and_its_tests_resolve_the_same_features() {
    let (built, tested) = (features("normal,build"), features("normal,build,dev"));
    let differing: Vec<_> = built.difference(&tested).collect();
    assert!(
        differing.is_empty(),
        "tests turn on more features of {differing:#?}\n\
         hint: `cargo tree --workspace -e features -i CRATE` says who does; name that in \
         [dependencies] of tests/Cargo.toml"
    );
}

/// A line for each crate and set of features that edges of these kinds lead to.
fn features(edges: &str) -> BTreeSet<String> {
    let output = std::process::Command::new(env!("CARGO"))
        .args(["tree", "--workspace", "--locked", "--offline", "--prefix", "none"])
        .args(["--edges", edges, "--format", "{p} [{f}]"])
        .current_dir(root())
        .output()
        .expect("cargo runs this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("cargo prints text");
    text.lines().map(|line| line.trim_end_matches(" (*)").to_owned()).collect()
}

struct Manifest {
    name: String,
    /// Those of the product, not those of its tests.
    dependencies: BTreeSet<String>,
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub(crate) fn crate_folders() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("crates")).expect("the workspace has crates");
    let folders = entries.map(|entry| entry.expect("readable").path());
    folders.filter(|folder| folder.join("Cargo.toml").exists()).collect()
}

fn manifests() -> Vec<Manifest> {
    let more = ["tests", "benches", "bindings/c"].map(|name| root().join(name));
    let folders = crate_folders().into_iter().chain(more);
    let paths = folders.map(|folder| folder.join("Cargo.toml")).filter(|path| path.exists());
    paths.map(|path| read_manifest(&path)).collect()
}

/// Reads what Cargo's format has on lines of its own here: the name, and the keys of sections
/// that end in `dependencies` but are not for tests or builds.
fn read_manifest(path: &Path) -> Manifest {
    let text = fs::read_to_string(path).expect("readable");
    let mut manifest = Manifest { name: String::new(), dependencies: BTreeSet::new() };
    let mut section = "";
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let Some((key, value)) = line.split_once('=') {
            let key = key.trim().trim_end_matches(".workspace");
            if section == "package" && key == "name" {
                manifest.name = value.trim().trim_matches('"').to_owned();
            } else if section.ends_with("dependencies")
                && !section.contains("dev-")
                && !section.contains("build-")
                && !key.starts_with('#')
            {
                manifest.dependencies.insert(key.to_owned());
            }
        }
    }
    manifest
}

pub(crate) fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a source folder") {
        let path = entry.expect("readable").path();
        let is_test = path.file_name().is_some_and(|name| name == "tests.rs" || name == "tests");
        if path.is_dir() {
            found.extend(sources(&path));
        } else if !is_test && path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found
}
