//! What is printed: tables for people, JSON for programs.

use std::fmt;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::str::FromStr;

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use indicatif::ProgressStyle;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::words::printable;

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// For people, as wide as the terminal.
    Table,
    /// One JSON value, indented.
    Json,
    /// A JSON value in each line.
    Jsonl,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Table => "table",
            Self::Json => "json",
            Self::Jsonl => "jsonl",
        })
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        ValueEnum::from_str(text, true).map_err(|_| "this is none of table, json and jsonl".into())
    }
}

/// How wide a table is that nobody sees on a terminal.
const WIDTH: u16 = 160;
/// On a narrower terminal there are no tables.
const NARROW: u16 = 80;

/// Where data goes, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    pub(crate) format: Format,
}

impl Output {
    /// Prints things: as rows of a table with these columns, or as JSON. `empty` is said where there are none, to whoever
    /// reads tables.
    pub(crate) fn list<T: Serialize>(
        self,
        items: &[T],
        columns: &[&str],
        empty: &str,
        row: impl Fn(&T) -> Vec<String>,
    ) -> Result<(), Failure> {
        let mut out = stdout();
        match self.format {
            Format::Table if items.is_empty() => say(empty),
            Format::Table => {
                let rows: Vec<Vec<String>> = items.iter().map(row).collect();
                write!(out, "{}", laid_out(columns, &rows))?;
            }
            Format::Json => {
                serde_json::to_writer_pretty(&mut out, items)?;
                writeln!(out)?;
            }
            Format::Jsonl => {
                for item in items {
                    serde_json::to_writer(&mut out, item)?;
                    writeln!(out)?;
                }
            }
        }
        Ok(out.flush()?)
    }

    /// Prints one thing: as lines of a name and a value each, or as JSON.
    pub(crate) fn one<T: Serialize>(self, item: &T, lines: &[(&str, String)]) -> Result<(), Failure> {
        let mut out = stdout();
        match self.format {
            Format::Table => {
                let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
                for (name, value) in lines {
                    let indented = printable(value.trim_end()).replace('\n', &format!("\n{:width$}  ", ""));
                    writeln!(out, "{name:width$}  {indented}")?;
                }
            }
            Format::Json => {
                serde_json::to_writer_pretty(&mut out, item)?;
                writeln!(out)?;
            }
            Format::Jsonl => {
                serde_json::to_writer(&mut out, item)?;
                writeln!(out)?;
            }
        }
        Ok(out.flush()?)
    }

    /// Prints a line of text, or a JSON value.
    pub(crate) fn line<T: Serialize>(self, item: &T, text: &str) -> Result<(), Failure> {
        let mut out = stdout();
        match self.format {
            Format::Table => writeln!(out, "{}", printable(text))?,
            Format::Json | Format::Jsonl => {
                serde_json::to_writer(&mut out, item)?;
                writeln!(out)?;
            }
        }
        Ok(out.flush()?)
    }
}

/// A table that is as wide as the terminal; where that is too narrow for one, a paragraph for each row.
fn laid_out(columns: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if !io::stdout().is_terminal() {
        table.set_width(width_asked().unwrap_or(WIDTH));
    }
    if table.width().is_some_and(|width| width < NARROW) {
        return paragraphs(columns, rows);
    }
    table.set_header(columns.iter().map(|column| column.to_uppercase()));
    for row in rows {
        table.add_row(row.iter().map(|cell| printable(cell)));
    }
    if let Some(first) = table.column_mut(0) {
        first.set_padding((0, 1));
    }
    trimmed(&table)
}

fn paragraphs(columns: &[&str], rows: &[Vec<String>]) -> String {
    let width = columns.iter().map(|column| column.len()).max().unwrap_or(0);
    let line = |(column, cell): (&&str, &String)| format!("{column:width$}  {}\n", printable(cell));
    let paragraph = |row: &Vec<String>| {
        let said = columns.iter().zip(row).filter(|(_, cell)| !cell.is_empty());
        said.map(line).collect::<String>()
    };
    rows.iter().map(paragraph).collect::<Vec<_>>().join("\n")
}

/// What is set for whoever prints to no terminal.
fn width_asked() -> Option<u16> {
    std::env::var("COLUMNS").ok()?.parse().ok()
}

/// A table without the blanks at the ends of its lines.
fn trimmed(table: &Table) -> String {
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

pub(crate) fn stdout() -> BufWriter<StdoutLock<'static>> {
    BufWriter::new(io::stdout().lock())
}

/// How progress is drawn. A template that cannot be read is a slip of ours that is worth no failure.
pub(crate) fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Says something of the work to who runs it; it is no data.
pub(crate) fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
