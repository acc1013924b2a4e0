//! What the command line needs to know of its terminal.

use std::io::IsTerminal;

pub use super::key::key_within;

/// Whether standard output is a terminal that wants colours.
///
/// Source: <https://no-color.org>. Those of Windows know the escape sequences since Windows 10.
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
