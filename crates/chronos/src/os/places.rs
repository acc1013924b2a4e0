//! Where files lie when nobody says where.

use std::path::{Path, PathBuf};

/// The machine's configuration file.
pub fn machine_config() -> PathBuf {
    PathBuf::from("/etc/chronos/chronos.yaml")
}

/// The machine's policy file.
pub fn machine_policy() -> PathBuf {
    PathBuf::from("/etc/chronos/policy.yaml")
}

/// The machine's runtime directory. Source: hier(7) of each system.
pub fn machine_runtime() -> PathBuf {
    PathBuf::from(if cfg!(target_os = "linux") { "/run/chronos" } else { "/var/run/chronos" })
}

/// The machine's durable state. Source: hier(7) of each system.
pub fn machine_state() -> PathBuf {
    PathBuf::from(if cfg!(target_os = "linux") { "/var/lib/chronos" } else { "/var/db/chronos" })
}

/// This user's configuration file.
pub fn own_config() -> Option<PathBuf> {
    Some(home()?.join(".config/chronos/chronos.yaml"))
}

/// The runtime directory of one user alone.
pub fn own_runtime(uid: u32) -> PathBuf {
    match variable("XDG_RUNTIME_DIR") {
        Some(directory) => directory.join("chronos"),
        None => PathBuf::from(format!("/tmp/chronos-{uid}")),
    }
}

/// The durable state of one user alone.
pub fn own_state(runtime: &Path) -> PathBuf {
    let directory = variable("XDG_STATE_HOME");
    let home = || home().map(|home| home.join(".local/state"));
    directory.or_else(home).map_or_else(|| runtime.join("state"), |d| d.join("chronos"))
}

fn home() -> Option<PathBuf> {
    variable("HOME")
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}
