//! Users, by the last part of their security identifiers.

use crate::lease::Owner;
use crate::os::process;

/// The number of the user that this process runs as; `u32::MAX` where the system does not tell.
pub fn effective_uid() -> u32 {
    process::user_of(std::process::id()).unwrap_or(u32::MAX)
}

/// The user of this process.
pub fn effective() -> Owner {
    owner(effective_uid())
}

/// The user of a number; any but this process's own is called by its number.
pub fn owner(uid: u32) -> Owner {
    let name = std::env::var("USERNAME").ok().filter(|name| !name.is_empty());
    let own = name.filter(|_| uid == effective_uid());
    Owner { uid, user: own.unwrap_or_else(|| uid.to_string()) }
}

/// The user of a login name: this process's own or nobody.
pub fn named(user: &str) -> Option<Owner> {
    Some(effective()).filter(|own| own.user.eq_ignore_ascii_case(user))
}

/// Names of the groups that a user is in: a policy's groups are those of Unix.
pub fn groups_of(_uid: u32) -> Vec<String> {
    Vec::new()
}
