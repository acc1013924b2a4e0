//! What macOS and FreeBSD share.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `MNT_LOCAL` of `sys/mount.h`, which the two declare with different widths.
const LOCAL: i64 = 0x1000;

/// The network file system that a folder is on; `None` when it is on this machine.
///
/// Source: statfs(2) of both: `MNT_LOCAL` is set for what is stored locally.
///
/// # Errors
/// The kernel's.
pub fn network(folder: &Path) -> io::Result<Option<&'static str>> {
    let path = CString::new(folder.as_os_str().as_bytes())?;
    // SAFETY: plain memory of which every bit pattern is valid.
    let mut found: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid for the call.
    if unsafe { libc::statfs(path.as_ptr(), &raw mut found) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let local = found.f_flags as i64 & LOCAL != 0;
    Ok((!local).then_some("not local"))
}

/// Reads a value of the kernel into `buffer`; returns how much of it was filled.
///
/// # Errors
/// The kernel's.
pub fn sysctl(name: &std::ffi::CStr, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = buffer.len();
    // SAFETY: `buffer` is valid for `length` bytes; nothing is set.
    let status = unsafe {
        libc::sysctlbyname(
            name.as_ptr(),
            buffer.as_mut_ptr().cast(),
            &raw mut length,
            std::ptr::null_mut(),
            0,
        )
    };
    if status == 0 { Ok(length) } else { Err(io::Error::last_os_error()) }
}
