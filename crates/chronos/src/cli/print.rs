//! Text on standard output: marks, tables, nothing else.

use std::io::{IsTerminal, Write};

use crate::os::terminal;

/// What a line reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mark {
    /// It is not done.
    Error,
    /// Something to know.
    Warning,
}

/// The mark in front of a line of standard error: a sign at a terminal, a word in a file.
pub fn mark(mark: Mark) -> &'static str {
    let (sign, word) = match mark {
        Mark::Error => ("✗", "[ERROR]"),
        Mark::Warning => ("⚠", "[WARNING]"),
    };
    if std::io::stderr().is_terminal() { sign } else { word }
}

/// Where results go, and in which form.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// One JSON object instead of text.
    pub json: bool,
    terminal: bool,
    colour: bool,
}

impl Output {
    /// Standard output as it is.
    pub fn new(json: bool) -> Self {
        let terminal = std::io::stdout().is_terminal();
        Self { json, terminal, colour: terminal::wants_colour() }
    }

    /// Whether somebody watches.
    pub fn watched(self) -> bool {
        self.terminal
    }

    /// One line. A reader that has gone away is no error of ours.
    pub fn line(self, text: &str) {
        let _ = writeln!(std::io::stdout(), "{text}");
    }

    /// One object.
    pub fn object(self, object: &serde_json::Value) {
        self.line(&object.to_string());
    }

    /// A line that says that something is done.
    pub fn done(self, text: &str) {
        let sign = if self.terminal { "✓" } else { "[OK]" };
        self.line(&format!("{} {text}", self.paint(sign, 32)));
    }

    /// The text in a colour of the terminal, where it wants one.
    pub fn paint(self, text: &str, colour: u8) -> String {
        if self.colour { format!("\u{1b}[{colour}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// A table whose columns are as wide as they need to be.
    pub fn table(self, head: &[&str], rows: &[Vec<String>]) {
        for line in table(head, rows) {
            self.line(&line);
        }
    }
}

/// The lines of a table.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells
            .zip(&widths)
            .map(|(cell, width)| format!("{cell}{}", " ".repeat(width - cell.chars().count())))
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(&mut head.iter().copied())];
    lines.push(line(
        &mut widths.iter().map(|w| "-".repeat(*w)).collect::<Vec<_>>().iter().map(String::as_str),
    ));
    lines.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![vec!["partition_1".into(), "50%".into()], vec!["p".into(), "100%".into()]];
        let lines = table(&["ID", "Memory"], &rows);
        assert_eq!(lines[0], "ID           Memory");
        assert_eq!(lines[3], "p            100%");
    }
}
