//! Text on standard output: marks, tables, nothing else.

use std::io::{IsTerminal, Write};

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::os::terminal;

/// What a line reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mark {
    /// It is not done.
    Error,
    /// Something to know, and perhaps to act on.
    Warning,
    /// What is going on.
    Info,
}

/// The mark in front of a line of standard error: a sign at a terminal, a word in a file.
pub fn mark(mark: Mark) -> &'static str {
    let (sign, word) = match mark {
        Mark::Error => ("✗", "[ERROR]"),
        Mark::Warning => ("⚠", "[WARNING]"),
        Mark::Info => ("ℹ", "[INFO]"),
    };
    if std::io::stderr().is_terminal() { sign } else { word }
}

/// Where results go, and in which form.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// One JSON object instead of text.
    pub json: bool,
    /// Columns and lines, where somebody watches.
    screen: Option<(usize, usize)>,
    colour: bool,
}

impl Output {
    /// Standard output as it is.
    pub fn new(json: bool) -> Self {
        Self { json, screen: terminal::size(), colour: terminal::wants_colour() }
    }

    /// Whether somebody watches.
    pub fn watched(self) -> bool {
        self.screen.is_some()
    }

    /// Lines of the screen, where somebody watches.
    pub fn lines(self) -> Option<usize> {
        self.screen.map(|(_, lines)| lines)
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
        let sign = if self.watched() { "✓" } else { "[OK]" };
        self.line(&format!("{} {text}", self.paint(sign, GREEN)));
    }

    /// The text in a colour of the terminal, where it wants one.
    pub fn paint(self, text: &str, colour: u8) -> String {
        if self.colour { format!("\u{1b}[{colour}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// A text behind `head`, in lines that fit the screen and begin below the text.
    pub fn paragraph(self, head: &str, text: &str) -> String {
        self.screen.map_or_else(
            || format!("{head}{text}"),
            |(columns, _)| wrapped(head, text, columns.max(40)),
        )
    }

    /// The lines of a table whose columns are as wide as they need to be. On a screen that is
    /// narrower the cells of column `gives` are shortened, and the screen does the rest.
    pub fn table(self, head: &[&str], rows: &[Vec<String>], gives: usize) -> Vec<String> {
        table(head, rows, self.screen.map(|(columns, _)| (gives, columns)))
    }
}

/// Colour of what is as it should be, as in ECMA-48.
pub const GREEN: u8 = 32;
/// Colour of what somebody should know.
pub const YELLOW: u8 = 33;
/// Colour of what is over or broken.
pub const RED: u8 = 31;

/// The lines of a table; `fit` is the column that gives way, and how wide the table may be.
fn table(head: &[&str], rows: &[Vec<String>], fit: Option<(usize, usize)>) -> Vec<String> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.width());
        cells.chain([head[column].width()]).max().unwrap_or(0)
    };
    let mut widths: Vec<usize> = (0..head.len()).map(width).collect();
    if let Some((gives, columns)) = fit {
        let whole = widths.iter().sum::<usize>() + BETWEEN.len() * (head.len() - 1);
        let left = widths[gives].saturating_sub(whole.saturating_sub(columns));
        widths[gives] = left.max(head[gives].width()).min(widths[gives]);
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&widths).map(|(cell, width)| {
            let cell = shortened(cell, *width);
            let padding = " ".repeat(width.saturating_sub(cell.width()));
            format!("{cell}{padding}")
        });
        padded.collect::<Vec<_>>().join(BETWEEN).trim_end().to_owned()
    };
    let rules: Vec<String> = widths.iter().map(|w| "-".repeat(*w)).collect();
    let mut lines = vec![line(&mut head.iter().copied())];
    lines.push(line(&mut rules.iter().map(String::as_str)));
    lines.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    lines
}

/// What separates two columns.
const BETWEEN: &str = "  ";

/// The text without its middle where it is wider than `width`: names differ at their ends.
fn shortened(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(1);
    let head = taken(text.chars(), room.div_ceil(2));
    let tail: String = taken(text.chars().rev(), room / 2).chars().rev().collect();
    format!("{head}…{tail}")
}

/// As many of the characters as `width` columns hold.
fn taken(characters: impl Iterator<Item = char>, width: usize) -> String {
    let mut used = 0;
    let fits = |character: &char| {
        used += character.width().unwrap_or(0);
        used <= width
    };
    characters.take_while(fits).collect()
}

/// `head`, then the words of `text` in lines of at most `columns`, below each other.
fn wrapped(head: &str, text: &str, columns: usize) -> String {
    let indent = head.width();
    let (mut lines, mut used) = (head.to_owned(), indent);
    for (position, word) in text.split(' ').enumerate() {
        if position > 0 && used + 1 + word.width() > columns {
            lines.push('\n');
            lines.push_str(&" ".repeat(indent));
            used = indent;
        } else if position > 0 {
            lines.push(' ');
            used += 1;
        }
        lines.push_str(word);
        used += word.width();
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(names: &[&str]) -> Vec<Vec<String>> {
        let row =
            |name: &&str| vec!["partition_1".into(), "50%".into(), (*name).into(), "●".into()];
        names.iter().map(row).collect()
    }

    const HEAD: [&str; 4] = ["ID", "Memory", "Owner", "Status"];

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let lines = table(&HEAD, &rows(&["ann", "a.very.long.name"]), None);
        assert_eq!(lines[0], "ID           Memory  Owner             Status");
        assert_eq!(lines[3], "partition_1  50%     a.very.long.name  ●");
    }

    #[test]
    fn on_a_narrow_screen_names_lose_their_middle_and_nothing_else_is_lost() {
        let lines = table(&HEAD, &rows(&["ann", "a.very.long.name"]), Some((2, 40)));
        assert_eq!(lines[2], "partition_1  50%     ann          ●");
        assert_eq!(lines[3], "partition_1  50%     a.ver….name  ●");
        let narrow = table(&HEAD, &rows(&["a.very.long.name"]), Some((2, 10)));
        assert_eq!(narrow[2], "partition_1  50%     a.…me  ●", "no narrower than its heading");
    }

    #[test]
    fn names_of_any_script_are_aligned() {
        let lines = table(&HEAD, &rows(&["ann", "Zoë", "王小明", "ни́на"]), None);
        let column = |line: &String| line.split('●').next().unwrap().width();
        let starts: Vec<usize> = lines[2..].iter().map(column).collect();
        assert_eq!(starts, [29; 4]);
        assert_eq!(shortened("王小明先生", 6), "王…生", "a wide character is not cut in half");
    }

    #[test]
    fn a_paragraph_is_below_its_head() {
        let text = wrapped("warning  ", "memory: nothing is enforced", 24);
        assert_eq!(text, "warning  memory: nothing\n         is enforced");
    }
}
