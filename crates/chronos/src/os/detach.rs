//! Going on alone: a process that outlives whoever started it.

use std::os::unix::process::CommandExt;
use std::process::Command;

use super::fault::Fault;

/// Starts a program that is going to [`detach`].
///
/// # Errors
/// The kernel's, or that the program failed.
pub fn start(command: &mut Command) -> std::io::Result<()> {
    // Its own group: a child of it is free to lead a session.
    let status = command.process_group(0).status()?;
    if status.success() { Ok(()) } else { Err(std::io::Error::other(status.to_string())) }
}

/// Goes on as a child of init in a session of its own, so that neither a hangup of the terminal nor
/// the end of the caller reaches it. Returns whether this is the child.
///
/// # Errors
/// [`Fault::Os`] when there can be no child.
pub fn detach() -> Result<bool, Fault> {
    let fail = |e: std::io::Error| Fault::os("start", "the guardian", e);
    // SAFETY: the tool has one thread when it does this, so that the child lacks nothing; it goes on
    // like any process. A second `exec` would cost the first grant as much as everything else.
    match unsafe { libc::fork() } {
        -1 => Err(fail(std::io::Error::last_os_error())),
        0 => {
            // The parent leads the group that `start` made.
            rustix::process::setsid().map_err(|e| fail(e.into()))?;
            Ok(true)
        }
        _ => Ok(false),
    }
}
