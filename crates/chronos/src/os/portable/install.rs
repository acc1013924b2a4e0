//! Nothing is installed for many users: there is no helper.

use std::path::PathBuf;

use super::absent;
use crate::os::fault::Fault;
use crate::os::settings::Settings;

/// Refuses: there is no such installation.
///
/// # Errors
/// [`Fault::Setting`], always.
pub fn files() -> Result<Vec<(PathBuf, String)>, Fault> {
    Err(absent("setup", "helper to set up: each user has partitions of their own"))
}

/// Refuses: there is no such installation.
///
/// # Errors
/// [`Fault::Setting`], always.
pub fn install(_settings: &Settings) -> Result<Vec<String>, Fault> {
    files().map(|_| Vec::new())
}
