//! The real systems that the tests run against: a Kubernetes control plane with kwok in the place
//! of kubelets, and Prometheus, each started on free loopback ports and torn down by process id.
//!
//! In: programs built by `tests/cluster/build.sh` and Debian packages. Out: a kubeconfig, a URL.
//! The behaviour tests of the workspace are the one integration binary `it` of this package.
//!
//! # Invariants
//!
//! - Every instance has its own folder, ports and credentials, so that any number may run at once.
//! - No process outlives the one that started it, however that one ends (see [`process`]).
//! - Readiness is observed, with a deadline; nothing waits for a guessed time.
//! - Deliberately absent: a Kubernetes client library and an async runtime. What is under test may
//!   not also be the measure.

pub mod certificates;
pub mod command_line;
pub mod conflicts;
pub mod control_plane;
pub mod controller;
pub mod exporter;
pub mod http;
pub mod manifests;
pub mod port;
pub mod process;
pub mod program;
pub mod prometheus;
pub mod scratch;
pub mod skip;
pub mod wait;

pub use skip::{skip_or_fail, skip_without_gpu};

/// An error and its sources on one line, each after a colon.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |error| error.source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}
