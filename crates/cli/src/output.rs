//! The forms in which data is printed.

use std::io::{self, IsTerminal, Write};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use comfy_table::Table;
use serde::Serialize;

/// `-o`, and `--format` as the same flag.
#[derive(Args, Clone, Copy, Debug)]
pub struct OutputArgs {
    /// How to print: `table`, `wide` and `summary` for people, the rest for programs. `text` is
    /// `table`, `detailed` is `wide`.
    #[arg(
        short = 'o',
        long = "output",
        visible_alias = "format",
        value_enum,
        default_value_t = Format::Table,
        value_name = "FORMAT"
    )]
    pub format: Format,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns that fit the terminal; long names are shortened.
    #[value(alias = "text")]
    Table,
    /// All columns, nothing shortened.
    #[value(alias = "detailed")]
    Wide,
    /// The sums alone.
    Summary,
    /// One JSON object.
    Json,
    /// The same in YAML.
    Yaml,
    /// The rows of the main table.
    Csv,
}

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    heading: &'static str,
    holds: Holds,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    /// A short word or a number: never shortened, numbers aligned to the right.
    Number,
    Word,
    /// Both ends tell it from others: it loses its middle.
    Name,
    /// A sentence: it loses its end.
    Prose,
}

/// Numbers, aligned to the right and never shortened.
pub const fn number(heading: &'static str) -> Column {
    Column { heading, holds: Holds::Number }
}

/// Short words, never shortened.
pub const fn word(heading: &'static str) -> Column {
    Column { heading, holds: Holds::Word }
}

/// Names, which lose their middle where there is no room.
pub const fn name(heading: &'static str) -> Column {
    Column { heading, holds: Holds::Name }
}

/// Sentences, which lose their end where there is no room.
pub const fn prose(heading: &'static str) -> Column {
    Column { heading, holds: Holds::Prose }
}

/// Rows under headings, as text.
pub struct Rows {
    /// What stands above.
    pub columns: Vec<Column>,
    /// As many cells a row as there are columns.
    pub rows: Vec<Vec<String>>,
}

/// Fewest characters that a shortened cell keeps.
const CELL_MIN: usize = 8;

/// Between two columns.
const GAP: usize = 2;

impl Rows {
    /// For people: fitted to the terminal where there is one, numbers kept whole.
    pub fn table(&self) -> String {
        self.fitted(width())
    }

    /// For people: nothing is shortened.
    pub fn whole(&self) -> String {
        self.fitted(None)
    }

    /// For people, as `format` has it.
    pub fn text(&self, format: Format) -> String {
        if format == Format::Wide { self.whole() } else { self.table() }
    }

    fn fitted(&self, width: Option<usize>) -> String {
        let widths = self.widths(width);
        let headings = self.columns.iter().map(|column| column.heading.to_owned()).collect();
        let mut text = String::new();
        for row in std::iter::once(&headings).chain(&self.rows) {
            let mut line = String::new();
            for ((cell, column), width) in row.iter().zip(&self.columns).zip(&widths) {
                let cell = match column.holds {
                    Holds::Prose => clip_end(cell, *width),
                    _ => clip_middle(cell, *width),
                };
                let padding = " ".repeat(width - cell.chars().count());
                match column.holds {
                    Holds::Number => line.extend([&padding, &cell, "  "]),
                    _ => line.extend([&cell, &padding, "  "]),
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// Characters of each column: what it needs, unless all together need more than `width`; then
    /// the widest names and sentences give way first.
    fn widths(&self, width: Option<usize>) -> Vec<usize> {
        let needs = |at: usize, column: &Column| {
            let cells = self.rows.iter().map(|row| row[at].chars().count());
            cells.chain([column.heading.chars().count()]).max().unwrap_or(0)
        };
        let mut widths: Vec<usize> =
            self.columns.iter().enumerate().map(|(at, column)| needs(at, column)).collect();
        let Some(width) = width else { return widths };
        let gaps = GAP * self.columns.len().saturating_sub(1);
        let least = |column: &Column| match column.holds {
            Holds::Number | Holds::Word => usize::MAX,
            Holds::Name | Holds::Prose => column.heading.chars().count().max(CELL_MIN),
        };
        while widths.iter().sum::<usize>() + gaps > width {
            let gives = (0..widths.len()).filter(|at| widths[*at] > least(&self.columns[*at]));
            // The terminal wraps what has no room even so: a number cut short would be another.
            let Some(at) = gives.max_by_key(|at| widths[*at]) else { break };
            widths[at] -= 1;
        }
        widths
    }

    /// For programs, by RFC 4180.
    pub fn csv(&self) -> Result<String> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let headings = self.columns.iter().map(|column| column.heading);
        writer.write_record(headings).context("write CSV")?;
        for row in &self.rows {
            writer.write_record(row).context("write CSV")?;
        }
        let bytes = writer.into_inner().context("write CSV")?;
        String::from_utf8(bytes).context("write CSV")
    }
}

/// At most `most` characters; what is too long loses its middle, because both ends of a pod's name
/// tell it from others.
pub fn clip_middle(text: &str, most: usize) -> String {
    let length = text.chars().count();
    if length <= most {
        return text.to_owned();
    }
    let tail = most / 3;
    let head: String = text.chars().take(most.saturating_sub(tail + 1)).collect();
    let end: String = text.chars().skip(length - tail).collect();
    format!("{head}…{end}")
}

/// At most `most` characters; what is too long loses its end.
fn clip_end(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let head: String = text.chars().take(most.saturating_sub(1)).collect();
    format!("{}…", head.trim_end())
}

/// `head`, then words of `text` in lines of at most `width` characters, below each other.
pub fn wrapped(head: &str, text: &str, width: usize) -> String {
    let indent = head.chars().count();
    let mut lines = head.to_owned();
    let mut used = indent;
    for (at, word) in text.split_whitespace().enumerate() {
        let length = word.chars().count();
        if at > 0 && used + 1 + length > width {
            lines.push('\n');
            lines.push_str(&" ".repeat(indent));
            used = indent;
        } else if at > 0 {
            lines.push(' ');
            used += 1;
        }
        lines.push_str(word);
        used += length;
    }
    let mut text: String = lines.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    text.push('\n');
    text
}

/// Columns to fill: what `COLUMNS` says, else the terminal's; `None` where the output goes
/// elsewhere, and nothing is shortened.
pub fn width() -> Option<usize> {
    let columns = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    let terminal = || io::stdout().is_terminal().then(|| Table::new().width().map(usize::from));
    columns.or_else(|| terminal().flatten()).filter(|width| *width > 0)
}

/// One JSON object, indented, with a line end.
pub fn json(data: &impl Serialize) -> Result<String> {
    let mut text = serde_json::to_string_pretty(data).context("write JSON")?;
    text.push('\n');
    Ok(text)
}

/// The same in YAML.
pub fn yaml(data: &impl Serialize) -> Result<String> {
    serde_saphyr::to_string(data).context("write YAML")
}

/// Writes to standard output, all or an error: a full disk is not success.
pub fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("write to standard output")
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn rows() -> Rows {
        let row = |kind: &str, pod: &str, rate: &str, why: &str| {
            [kind, pod, rate, why].map(str::to_owned).to_vec()
        };
        Rows {
            columns: vec![word("KIND"), name("POD"), number("SAVES/H"), prose("WHY")],
            rows: vec![
                row("Idle", "whisper-api-498a1d81-2830f-xyz", "$1,234.56", "nothing was computed"),
                row("Underutilized", "short", "-", "less than half"),
            ],
        }
    }

    #[test]
    fn names_lose_their_middle_sentences_their_end_and_numbers_nothing() {
        expect![[r#"
            KIND           POD                 SAVES/H  WHY
            Idle           whisper-ap…f-xyz  $1,234.56  nothing was com…
            Underutilized  short                     -  less than half
        "#]]
        .assert_eq(&rows().fitted(Some(60)));
        let least = rows().fitted(Some(10));
        assert!(least.lines().all(|line| line.contains("SAVES/H") || line.contains(['$', '-'])));
        let whole = rows().whole();
        assert!(whole.contains("whisper-api-498a1d81-2830f-xyz"));
    }

    #[test]
    fn no_line_is_wider_than_it_may_be() {
        for width in 45..120 {
            let text = rows().fitted(Some(width));
            let widest = text.lines().map(|line| line.chars().count()).max();
            assert!(widest.is_some_and(|widest| widest <= width), "{width}:\n{text}");
        }
    }

    #[test]
    fn names_are_told_apart_by_both_ends() {
        assert_eq!(clip_middle("ml/pod", 33), "ml/pod");
        let long = clip_middle("ml-serve/whisper-api-498a1d81-2830f-xyz", 33);
        assert_eq!(
            (long.as_str(), long.chars().count()),
            ("ml-serve/whisper-api-…1-2830f-xyz", 33)
        );
    }
}
