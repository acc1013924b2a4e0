//! The driver's checkpoint interface: GPU memory of a process to host memory and back.
//!
//! Source: CUDA driver API, `cuCheckpointProcessLock`, `Checkpoint`, `Restore`, `Unlock`, driver
//! 570 and later, x86-64 Linux, without MIG, MPS and managed memory. It has been run against no
//! GPU yet; `doctor` says so.

use std::ffi::{c_int, c_void};

use libloading::Library;

use crate::lease::ProcessId;
use crate::os::fault::Fault;

type Call = extern "C" fn(c_int, *mut c_void) -> c_int;

/// How long the driver may wait for work that is under way, in milliseconds.
const LOCK_MILLIS: u32 = 10_000;

/// `CUcheckpointLockArgs`: a timeout and seven reserved words.
#[repr(C)]
struct LockArguments {
    timeout_millis: u32,
    reserved: [u32; 15],
}

fn library() -> Result<Library, Fault> {
    // SAFETY: loading the driver's library runs its own initializers only.
    unsafe { Library::new("libcuda.so.1") }.map_err(|error| failed(format!("no driver: {error}")))
}

fn call(library: &Library, name: &'static [u8]) -> Result<Call, Fault> {
    // SAFETY: the four functions have this type in `cuda.h`; the library outlives the calls.
    let symbol = unsafe { library.get::<Call>(name) };
    symbol.map(|symbol| *symbol).map_err(|_| failed("the driver is older than 570".to_owned()))
}

fn failed(why: String) -> Fault {
    Fault::Backend { backend: "nvidia checkpoint", why }
}

/// Whether the driver has the interface.
pub fn available() -> bool {
    library().is_ok_and(|library| call(&library, b"cuCheckpointProcessLock\0").is_ok())
}

/// Moves the GPU memory of all of `processes` to host memory; when one cannot be moved, those
/// that were are moved back.
///
/// # Errors
/// [`Fault::Backend`].
pub fn checkpoint(processes: &[ProcessId]) -> Result<(), Fault> {
    let library = library()?;
    let lock = call(&library, b"cuCheckpointProcessLock\0")?;
    let checkpoint = call(&library, b"cuCheckpointProcessCheckpoint\0")?;
    let unlock = call(&library, b"cuCheckpointProcessUnlock\0")?;
    let mut done = Vec::new();
    for process in processes {
        let mut arguments = LockArguments { timeout_millis: LOCK_MILLIS, reserved: [0; 15] };
        let pid = c_int::try_from(process.pid).map_err(|e| failed(e.to_string()))?;
        let status = lock(pid, (&raw mut arguments).cast());
        if status == 0 && checkpoint(pid, std::ptr::null_mut()) == 0 {
            done.push(process.clone());
            continue;
        }
        if status == 0 {
            unlock(pid, std::ptr::null_mut());
        }
        restore(&done)?;
        return Err(failed(format!("process {pid} was refused ({status})")));
    }
    Ok(())
}

/// Moves the GPU memory of `processes` back and lets them use the GPU.
///
/// # Errors
/// [`Fault::Backend`].
pub fn restore(processes: &[ProcessId]) -> Result<(), Fault> {
    if processes.is_empty() {
        return Ok(());
    }
    let Ok(library) = library() else { return Ok(()) };
    let Ok(restore) = call(&library, b"cuCheckpointProcessRestore\0") else { return Ok(()) };
    let unlock = call(&library, b"cuCheckpointProcessUnlock\0")?;
    for process in processes {
        let pid = c_int::try_from(process.pid).map_err(|e| failed(e.to_string()))?;
        // A process that was not checkpointed refuses, which is what it should do.
        if restore(pid, std::ptr::null_mut()) == 0 {
            unlock(pid, std::ptr::null_mut());
        }
    }
    Ok(())
}
