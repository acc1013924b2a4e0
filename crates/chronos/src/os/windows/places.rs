//! Where files lie when nobody says where.
//!
//! Source: "Known folders": `ProgramData` is the machine's, `LocalAppData` the user's on it.

use std::path::{Path, PathBuf};

/// The machine's configuration file.
pub fn machine_config() -> PathBuf {
    machine().join("chronos.yaml")
}

/// The machine's policy file.
pub fn machine_policy() -> PathBuf {
    machine().join("policy.yaml")
}

/// The machine's runtime directory.
pub fn machine_runtime() -> PathBuf {
    machine().join("run")
}

/// The machine's durable state.
pub fn machine_state() -> PathBuf {
    machine().join("state")
}

/// This user's configuration file.
pub fn own_config() -> Option<PathBuf> {
    Some(variable("LOCALAPPDATA")?.join("chronos").join("chronos.yaml"))
}

/// The runtime directory of one user alone.
pub fn own_runtime(_uid: u32) -> PathBuf {
    let own = variable("LOCALAPPDATA").unwrap_or_else(std::env::temp_dir);
    own.join("chronos").join("run")
}

/// The durable state of one user alone.
pub fn own_state(runtime: &Path) -> PathBuf {
    let own = variable("LOCALAPPDATA").map(|own| own.join("chronos").join("state"));
    own.unwrap_or_else(|| runtime.join("state"))
}

fn machine() -> PathBuf {
    let folder = variable("PROGRAMDATA").unwrap_or_else(|| PathBuf::from(r"C:\ProgramData"));
    folder.join("chronos")
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}
