//! The forms in which data is printed.

use std::io::{self, IsTerminal, Write};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use comfy_table::{CellAlignment, ContentArrangement, Table};
use serde::Serialize;

/// `-o`, and `--format` as the same flag.
#[derive(Args, Clone, Copy, Debug)]
pub struct OutputArgs {
    /// How to print: `table` for people, `wide` with more columns, the rest for programs.
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
    /// Columns that fit 80 characters.
    Table,
    /// All columns.
    Wide,
    /// One JSON object.
    Json,
    /// The same in YAML.
    Yaml,
    /// The rows of the main table.
    Csv,
}

/// Rows under headings, as text.
pub struct Rows {
    /// Headings in capitals.
    pub headings: Vec<&'static str>,
    /// As many cells a row as there are headings.
    pub rows: Vec<Vec<String>>,
    /// Columns of numbers, aligned to the right.
    pub numbers: Vec<usize>,
}

impl Rows {
    /// For people: columns separated by two spaces, cut to the terminal where there is one.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        table.set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(&self.headings);
        for row in &self.rows {
            table.add_row(row);
        }
        let last = self.headings.len().saturating_sub(1);
        for (at, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, if at == last { 0 } else { 2 }));
            if self.numbers.contains(&at) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let width = terminal_width();
        let lines = table.lines().map(|line| {
            let line = line.trim_end();
            match width {
                Some(width) if line.chars().count() > width => {
                    let kept: String = line.chars().take(width.saturating_sub(1)).collect();
                    format!("{kept}…\n")
                }
                _ => format!("{line}\n"),
            }
        });
        lines.collect()
    }

    /// For programs, by RFC 4180.
    pub fn csv(&self) -> Result<String> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(&self.headings).context("write CSV")?;
        for row in &self.rows {
            writer.write_record(row).context("write CSV")?;
        }
        let bytes = writer.into_inner().context("write CSV")?;
        String::from_utf8(bytes).context("write CSV")
    }
}

/// Columns of the terminal; `None` where the output goes elsewhere, and is then not cut.
fn terminal_width() -> Option<usize> {
    if !io::stdout().is_terminal() {
        return None;
    }
    let columns = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    columns.or_else(|| Table::new().width().map(usize::from))
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
