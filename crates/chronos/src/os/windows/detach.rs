//! Going on alone: a process that outlives whoever started it.

use std::io;
use std::os::windows::process::CommandExt;
use std::process::Command;

use windows_sys::Win32::Foundation::{HANDLE_FLAG_INHERIT, SetHandleInformation};
use windows_sys::Win32::System::Console::{
    GetStdHandle, STD_ERROR_HANDLE, STD_INPUT_HANDLE, STD_OUTPUT_HANDLE,
};
use windows_sys::Win32::System::Threading::{CREATE_NEW_PROCESS_GROUP, DETACHED_PROCESS};

use crate::os::fault::Fault;

/// Starts a program without our console, so that the end of neither reaches it.
///
/// # Errors
/// The system's.
pub fn start(command: &mut Command) -> io::Result<()> {
    // Handles are inherited all or none: with our standard output it would hold open a pipe whose
    // reader waits for its end.
    for number in [STD_INPUT_HANDLE, STD_OUTPUT_HANDLE, STD_ERROR_HANDLE] {
        // SAFETY: a handle that is absent or closed is refused, which changes nothing.
        unsafe { SetHandleInformation(GetStdHandle(number), HANDLE_FLAG_INHERIT, 0) };
    }
    command.creation_flags(DETACHED_PROCESS | CREATE_NEW_PROCESS_GROUP).spawn().map(drop)
}

/// Nothing is left to do: [`start`] did it. This is the one that goes on.
///
/// # Errors
/// None.
pub fn detach() -> Result<bool, Fault> {
    Ok(true)
}
