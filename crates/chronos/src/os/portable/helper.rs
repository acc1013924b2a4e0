//! The helper needs a socket that tells who is at its other end.

use std::path::Path;

use super::absent;
use crate::api::{Order, Reply};
use crate::os::fault::Fault;
use crate::os::settings::Settings;
use crate::quantity::Span;

/// Refuses: there is no helper here.
///
/// # Errors
/// [`Fault::Setting`], always.
pub fn run(_settings: &Settings, _idle: Option<Span>) -> Result<(), Fault> {
    Err(absent("helper", "helper: each user has partitions of their own"))
}

/// Refuses: what looks like the helper's socket is none.
///
/// # Errors
/// [`Fault::Helper`], always.
pub fn ask(socket: &Path, _order: &Order) -> Result<Reply, Fault> {
    let why = format!("{} has no helper", std::env::consts::OS);
    Err(Fault::Helper { path: socket.to_owned(), why })
}
