//! Closing the GPUs takes device programs on control groups.

use super::absent;
use crate::os::fault::Fault;
use crate::os::settings::Settings;

/// Refuses: nothing here closes a GPU.
///
/// # Errors
/// [`Fault::Setting`], always.
pub fn set(_settings: &Settings, _closed: bool) -> Result<Vec<String>, Fault> {
    Err(absent("lockdown", "way to close a GPU to a process"))
}
