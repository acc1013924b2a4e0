//! What the command line needs to know of its terminal.

use std::io::IsTerminal;

/// Whether standard output is a terminal that wants colours.
///
/// Source: <https://no-color.org>.
pub fn wants_colour() -> bool {
    std::io::stdout().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Columns and lines of the terminal that standard output is, as `COLUMNS` and `LINES` say or the
/// terminal itself; `None` where it goes elsewhere, and nothing is shortened.
pub fn size() -> Option<(usize, usize)> {
    if !std::io::stdout().is_terminal() {
        return None;
    }
    let said = |name: &str| std::env::var(name).ok()?.parse().ok().filter(|n: &usize| *n > 0);
    let asked = terminal_size::terminal_size();
    let columns = said("COLUMNS").or(asked.map(|(width, _)| usize::from(width.0)));
    let lines = said("LINES").or(asked.map(|(_, height)| usize::from(height.0)));
    // A serial line does not know its size: what a terminal always had.
    Some((columns.filter(|n| *n > 0).unwrap_or(80), lines.filter(|n| *n > 0).unwrap_or(24)))
}

/// Whether somebody watches what is written to standard error.
pub fn watched() -> bool {
    std::io::stderr().is_terminal()
}

/// Waits for a key, at most that long; where standard input is no terminal there is no key.
pub fn key_within(patience: std::time::Duration) -> bool {
    use rustix::event::{PollFd, PollFlags, poll};
    let input = std::io::stdin();
    let mut watched = Vec::new();
    if input.is_terminal() {
        watched.push(PollFd::new(&input, PollFlags::IN));
    }
    let nanos = u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX);
    poll(&mut watched, Some(&super::process::timespec(nanos))).is_ok_and(|ready| ready > 0)
}
