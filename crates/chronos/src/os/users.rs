//! Names of users and groups, as the machine's name service knows them.

use std::ffi::{CStr, CString};

use crate::lease::Owner;

/// Room for one entry; longer ones (thousands of group members) are treated as nameless.
const ENTRY_MAX: usize = 16 << 10;

/// Groups that one user is looked up in.
const GROUPS_MAX: usize = 1_024;

/// The number of the user that this process runs as.
pub fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The effective user of this process.
pub fn effective() -> Owner {
    owner(effective_uid())
}

/// The user of a number; one without a name is called by its number.
pub fn owner(uid: u32) -> Owner {
    Owner { uid, user: name_of(uid).map_or_else(|| uid.to_string(), |(name, _)| name) }
}

fn name_of(uid: u32) -> Option<(String, u32)> {
    let mut buffer = vec![0; ENTRY_MAX];
    let mut entry = std::mem::MaybeUninit::<libc::passwd>::uninit();
    let mut found = std::ptr::null_mut();
    // SAFETY: all pointers are to memory that outlives the call, with its true length.
    let status = unsafe {
        libc::getpwuid_r(uid, entry.as_mut_ptr(), buffer.as_mut_ptr(), buffer.len(), &raw mut found)
    };
    if status != 0 || found.is_null() {
        return None;
    }
    // SAFETY: the call filled the entry; its name is a string in `buffer`, which still lives.
    let (name, group) = unsafe { (CStr::from_ptr((*found).pw_name), (*found).pw_gid) };
    Some((name.to_string_lossy().into_owned(), group))
}

/// The user of a login name; `None` when there is no such user.
pub fn named(user: &str) -> Option<Owner> {
    let name = CString::new(user).ok()?;
    let mut buffer = vec![0; ENTRY_MAX];
    let mut entry = std::mem::MaybeUninit::<libc::passwd>::uninit();
    let mut found = std::ptr::null_mut();
    // SAFETY: all pointers are to memory that outlives the call, with its true length.
    let status = unsafe {
        libc::getpwnam_r(
            name.as_ptr(),
            entry.as_mut_ptr(),
            buffer.as_mut_ptr(),
            buffer.len(),
            &raw mut found,
        )
    };
    if status != 0 || found.is_null() {
        return None;
    }
    // SAFETY: the call filled the entry.
    Some(Owner { uid: unsafe { (*found).pw_uid }, user: user.to_owned() })
}

/// Names of the groups that a user is in.
pub fn groups_of(uid: u32) -> Vec<String> {
    let Some((user, primary)) = name_of(uid) else { return Vec::new() };
    let Ok(user) = CString::new(user) else { return Vec::new() };
    let mut numbers: Vec<libc::gid_t> = vec![0; GROUPS_MAX];
    let mut count = GROUPS_MAX as libc::c_int;
    let (name, into) = (user.as_ptr(), numbers.as_mut_ptr().cast());
    // SAFETY: `numbers` has room for `count` entries, and `count` is updated to what was written.
    // macOS takes numbers of groups as signed ones; they are the same bits.
    let status = unsafe { libc::getgrouplist(name, primary as _, into, &raw mut count) };
    if status < 0 {
        return Vec::new();
    }
    numbers.truncate(usize::try_from(count).unwrap_or(0));
    numbers.into_iter().filter_map(group_name).collect()
}

fn group_name(gid: u32) -> Option<String> {
    let mut buffer = vec![0; ENTRY_MAX];
    let mut entry = std::mem::MaybeUninit::<libc::group>::uninit();
    let mut found = std::ptr::null_mut();
    // SAFETY: all pointers are to memory that outlives the call, with its true length.
    let status = unsafe {
        libc::getgrgid_r(gid, entry.as_mut_ptr(), buffer.as_mut_ptr(), buffer.len(), &raw mut found)
    };
    if status != 0 || found.is_null() {
        return None;
    }
    // SAFETY: the call filled the entry; its name is a string in `buffer`, which still lives.
    let name = unsafe { CStr::from_ptr((*found).gr_name) };
    Some(name.to_string_lossy().into_owned())
}
