//! Windows 10 and later.

use std::fs::{Metadata, OpenOptions};
use std::io;
use std::os::windows::ffi::OsStrExt;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::path::{Component, Path};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use windows_sys::Win32::Foundation::{ERROR_INVALID_PARAMETER, FILETIME, WAIT_TIMEOUT};
use windows_sys::Win32::Storage::FileSystem::{GetDriveTypeW, SYNCHRONIZE};
use windows_sys::Win32::System::Console::SetConsoleCtrlHandler;
use windows_sys::Win32::System::SystemInformation::GetTickCount64;
use windows_sys::Win32::System::Threading::{
    GetProcessTimes, OpenProcess, PROCESS_QUERY_LIMITED_INFORMATION, PROCESS_TERMINATE,
    TerminateProcess, WaitForSingleObject,
};
use windows_sys::Win32::System::WindowsProgramming::DRIVE_REMOTE;

use crate::lease::ProcessId;
use crate::os::fault::Fault;
use crate::os::portable::process::Order;
use crate::os::supervise::Means;
use crate::quantity::Boottime;

/// Whether a process can be asked to end, and be stopped.
pub const HAS_SIGNALS: bool = false;

/// Exit code of a process that was ended: what shells elsewhere say of SIGKILL.
const KILLED: u32 = 137;

/// Times that a rename is tried again which is refused because somebody reads the file.
const RENAMES: u32 = 200;

/// Reads the clock that counts suspend, in milliseconds; it goes on with each tick of the timer,
/// which is 16 ms or less.
pub fn boottime() -> Boottime {
    // SAFETY: nothing is passed.
    let millis = unsafe { GetTickCount64() };
    Boottime::from_nanos(millis.saturating_mul(1_000_000))
}

/// The number of this boot, which the loader counts.
///
/// Source: `KUSER_SHARED_DATA` in `ntddk.h`, at `0x7ffe0000` in each process; `BootId` at `0x2c4`.
///
/// # Errors
/// None.
pub fn boot_id() -> io::Result<String> {
    const BOOT_ID: *const u32 = 0x7ffe_02c4 as *const u32;
    // SAFETY: the page is there in each process, to read.
    Ok(format!("boot{}", unsafe { BOOT_ID.read_volatile() }))
}

/// A handle, which goes on meaning one process; `None` when there is none of this number.
fn open(pid: u32, rights: u32) -> io::Result<Option<OwnedHandle>> {
    // SAFETY: no pointer is passed.
    let handle = unsafe { OpenProcess(rights, 0, pid) };
    if handle.is_null() {
        let error = io::Error::last_os_error();
        let gone = error.raw_os_error() == Some(ERROR_INVALID_PARAMETER as i32);
        return if gone { Ok(None) } else { Err(error) };
    }
    // SAFETY: the call has just returned it, and nobody else knows it.
    Ok(Some(unsafe { OwnedHandle::from_raw_handle(handle) }))
}

/// When the process of a handle was started; `None` when it is over.
fn start(process: &OwnedHandle) -> io::Result<Option<u64>> {
    let zero = FILETIME { dwLowDateTime: 0, dwHighDateTime: 0 };
    let (mut created, mut exited, mut kernel, mut user) = (zero, zero, zero, zero);
    // SAFETY: the handle is open and the four times are valid for the calls.
    let (lives, told) = unsafe {
        (
            WaitForSingleObject(process.as_raw_handle(), 0) == WAIT_TIMEOUT,
            GetProcessTimes(
                process.as_raw_handle(),
                &raw mut created,
                &raw mut exited,
                &raw mut kernel,
                &raw mut user,
            ) != 0,
        )
    };
    if !told {
        return Err(io::Error::last_os_error());
    }
    let start = u64::from(created.dwHighDateTime) << 32 | u64::from(created.dwLowDateTime);
    Ok(lives.then_some(start))
}

/// When a process was started, in 100 ns of the date it was then; `None` when there is none of this
/// number.
///
/// # Errors
/// The system's, most of all that a process of another user may not be asked.
pub fn start_of(pid: u32) -> io::Result<Option<u64>> {
    match open(pid, PROCESS_QUERY_LIMITED_INFORMATION | SYNCHRONIZE)? {
        Some(process) => start(&process),
        None => Ok(None),
    }
}

/// Ends a process, if it is still the one that is meant; there is no other order here.
///
/// # Errors
/// The system's.
pub fn send(process: &ProcessId, order: Order) -> io::Result<()> {
    if order != Order::Kill {
        return Ok(());
    }
    let rights = PROCESS_QUERY_LIMITED_INFORMATION | SYNCHRONIZE | PROCESS_TERMINATE;
    let Some(handle) = open(process.pid, rights)? else { return Ok(()) };
    if start(&handle)? != Some(process.start) {
        return Ok(());
    }
    // SAFETY: the handle is open.
    if unsafe { TerminateProcess(handle.as_raw_handle(), KILLED) } == 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Whether a process stands still: nothing here can stop one.
pub fn is_stopped(_pid: u32) -> bool {
    false
}

/// The number of a user in its domain: the last part of the security identifier.
pub fn user_number(user: &sysinfo::Uid) -> Option<u32> {
    user.to_string().rsplit('-').next()?.parse().ok()
}

/// Makes a folder and those above it; what lies in a user's profile is that user's alone.
///
/// # Errors
/// The system's.
pub fn make_folder(path: &Path, _mode: u32) -> io::Result<()> {
    std::fs::create_dir_all(path)
}

/// Why a folder is not `owner`'s alone to write into: not told by what is at hand.
pub fn foreign(_metadata: &Metadata, _owner: u32) -> Option<String> {
    None
}

/// Whether a file belongs to a user: not told by what is at hand.
pub fn is_of(_metadata: &Metadata, _uid: u32) -> bool {
    true
}

/// Options as they are: whoever may make links here may do everything.
pub fn without_links(options: &mut OpenOptions, _mode: u32) -> &mut OpenOptions {
    options
}

/// Whether a file has another name than the one it was opened by: not told by what is at hand.
pub fn has_other_names(_metadata: &Metadata) -> bool {
    false
}

/// Puts a file in the place of another, also while somebody reads that for a moment.
///
/// # Errors
/// The system's.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    for _ in 0..RENAMES {
        match std::fs::rename(from, to) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                std::thread::sleep(Duration::from_millis(5));
            }
            renamed => return renamed,
        }
    }
    std::fs::rename(from, to)
}

/// The network file system that a folder is on; `None` when it is on this machine.
///
/// # Errors
/// The system's.
pub fn network(folder: &Path) -> io::Result<Option<&'static str>> {
    let folder = std::path::absolute(folder)?;
    let Some(Component::Prefix(drive)) = folder.components().next() else { return Ok(None) };
    let root: Vec<u16> = drive.as_os_str().encode_wide().chain([u16::from(b'\\'), 0]).collect();
    // SAFETY: the text ends with a zero.
    let kind = unsafe { GetDriveTypeW(root.as_ptr()) };
    Ok((kind == DRIVE_REMOTE).then_some("a network drive"))
}

/// Starts a program and ends as it does; returns only where it cannot be started.
pub fn become_it(program: &mut Command) -> io::Error {
    let _caught = catch();
    match program.spawn().and_then(|mut child| child.wait()) {
        Ok(status) => std::process::exit(status.code().unwrap_or(125)),
        Err(error) => error,
    }
}

/// What ended a process that did not end by itself.
pub fn ended_by(status: ExitStatus) -> Option<Means> {
    (status.code() == Some(KILLED as i32)).then_some(Means::Kill)
}

/// The exit code of a process; one that means nothing in 8 bits is 125.
pub fn code(status: ExitStatus) -> u8 {
    u8::try_from(status.code().unwrap_or(125)).unwrap_or(125)
}

/// Ctrl-C and Ctrl-Break end the job, which gets them too, and not this process.
#[derive(Debug)]
pub struct Caught(());

unsafe extern "system" fn keep(_event: u32) -> i32 {
    1
}

/// Keeps Ctrl-C from ending this process from now on.
///
/// # Errors
/// The system's.
pub fn catch() -> io::Result<Caught> {
    // SAFETY: the handler touches nothing.
    if unsafe { SetConsoleCtrlHandler(Some(keep), 1) } == 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Caught(()))
}

impl Caught {
    /// Whether something came that has to be passed on: what comes reaches the job by itself.
    pub fn pending(&self) -> bool {
        false
    }

    /// Passes nothing on.
    ///
    /// # Errors
    /// None.
    pub fn pass_on(&self, _pid: u32) -> Result<(), Fault> {
        Ok(())
    }
}
