//! Waiting for a key.

use std::io::IsTerminal;

use rustix::event::{PollFd, PollFlags, poll};

/// Waits for a key, at most that long; where standard input is no terminal there is no key.
pub fn key_within(patience: std::time::Duration) -> bool {
    let input = std::io::stdin();
    let mut watched = Vec::new();
    if input.is_terminal() {
        watched.push(PollFd::new(&input, PollFlags::IN));
    }
    let patience = patience.try_into().ok();
    poll(&mut watched, patience.as_ref()).is_ok_and(|ready| ready > 0)
}
