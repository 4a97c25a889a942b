//! Listings: rows of fields as a table, as JSON or by a template, as Docker's `--format` has it.
//!
//! ```text
//! (nothing), table            the usual columns under their headings
//! table {{.ID}}\t{{.Tag}}     these columns, under their headings
//! json                        every field, one JSON object a line
//! {{.Repository}}:{{.Tag}}    the template, filled for each row (`go_template`)
//! ```
//!
//! A command names its fields once ([`Field`]: Docker's name, the heading, on which side it
//! aligns), fills a [`Listing`] row by row and prints it. `--json`, an array with numbers that are
//! numbers, is each command's own.

use std::io::IsTerminal;
use std::str::FromStr;

use anyhow::Context;
use serde_json::{Map, Value};

use super::output;
use go_template::{Template, TemplateError};

/// How rows are printed: `--format`.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) enum Format {
    /// The usual columns.
    #[default]
    Table,
    /// Columns by template.
    Columns(Template),
    /// An object a line.
    Json,
    /// A template for each row.
    Rows(Template),
}

/// A field of a listing's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field {
    /// What templates call it: `ID`.
    name: &'static str,
    /// What stands above it in a table: `IMAGE ID`.
    heading: &'static str,
    right: bool,
}

/// Rows to print.
pub(super) struct Listing<'a> {
    fields: &'a [Field],
    rows: Vec<Vec<Value>>,
}

impl FromStr for Format {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let is_gap = |c: char| c.is_whitespace();
        match text {
            "json" => Ok(Self::Json),
            "table" => Ok(Self::Table),
            _ => match text.strip_prefix("table") {
                Some(columns) if columns.trim().is_empty() => Ok(Self::Table),
                Some(columns) if columns.starts_with(is_gap) || columns.starts_with('{') => {
                    Ok(Self::Columns(Template::parse(columns.trim_start())?))
                }
                _ => Ok(Self::Rows(Template::parse(text)?)),
            },
        }
    }
}

impl Field {
    /// A field with text.
    pub(super) const fn text(name: &'static str, heading: &'static str) -> Self {
        Self {
            name,
            heading,
            right: false,
        }
    }

    /// A field with a number, which aligns right.
    pub(super) const fn number(name: &'static str, heading: &'static str) -> Self {
        Self {
            name,
            heading,
            right: true,
        }
    }
}

impl<'a> Listing<'a> {
    /// Without rows.
    pub(super) fn new(fields: &'a [Field]) -> Self {
        Self {
            fields,
            rows: Vec::new(),
        }
    }

    /// Adds a row: a value for each field, in their order. Text is what Docker has; lists and maps
    /// serve templates.
    pub(super) fn push<V: Into<Value>>(&mut self, values: impl IntoIterator<Item = V>) {
        let row: Vec<Value> = values.into_iter().map(Into::into).collect();
        debug_assert_eq!(row.len(), self.fields.len(), "a value for each field");
        self.rows.push(row);
    }

    /// Prints the rows; `columns` names the fields of the usual table.
    pub(super) fn print(&self, format: &Format, columns: &[&str]) -> anyhow::Result<()> {
        let is_terminal = std::io::stdout().is_terminal();
        output::bytes(self.text(format, columns, is_terminal)?.as_bytes())
    }

    /// What [`Self::print`] prints. On a terminal nothing in a value can move the cursor.
    fn text(&self, format: &Format, columns: &[&str], is_terminal: bool) -> anyhow::Result<String> {
        let mut text = String::new();
        match format {
            Format::Table => {
                let shown: Vec<(usize, &Field)> = (columns.iter())
                    .map(|name| {
                        let mut fields = self.fields.iter().enumerate();
                        fields.find(|(_, field)| field.name == *name)
                    })
                    .collect::<Option<_>>()
                    .context("internal: a column that is no field")?;
                let heading = shown.iter().map(|(_, field)| field.heading.to_owned());
                let mut lines: Vec<Vec<String>> = vec![heading.collect()];
                for row in &self.rows {
                    let cell = |(i, _): &(usize, _)| row.get(*i).map(cell_of).unwrap_or_default();
                    lines.push(shown.iter().map(cell).collect());
                }
                let right: Vec<bool> = shown.iter().map(|(_, field)| field.right).collect();
                text = aligned(&lines, &right);
            }
            Format::Columns(template) => {
                let headings = self.fields.iter().map(|field| Value::from(field.heading));
                let headings = template.run_on_headings(&self.object(headings))?;
                let mut lines = vec![cells_of(&headings)];
                for row in &self.rows {
                    let row = self.object(row.iter().map(|value| safe(value, true)));
                    lines.push(cells_of(&template.run(&row)?));
                }
                text = aligned(&lines, &[]);
            }
            Format::Json => {
                for row in &self.rows {
                    // JSON escapes what is no text.
                    text += &self.object(row.iter().cloned()).to_string();
                    text.push('\n');
                }
            }
            Format::Rows(template) => {
                for row in &self.rows {
                    let row = self.object(row.iter().map(|value| safe(value, is_terminal)));
                    text += &template.run(&row)?;
                    text.push('\n');
                }
            }
        }
        Ok(text)
    }

    fn object(&self, values: impl Iterator<Item = Value>) -> Value {
        let names = self.fields.iter().map(|field| field.name.to_owned());
        Value::Object(names.zip(values).collect::<Map<_, _>>())
    }
}

/// A value in a table.
fn cell_of(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(cell_of).collect();
            items.join(",")
        }
        other => other.to_string(),
    };
    output::printable(text.as_bytes())
}

/// The cells of a line that a template made.
fn cells_of(line: &str) -> Vec<String> {
    line.split('\t').map(str::to_owned).collect()
}

/// The same value, its control characters escaped if `escapes`.
fn safe(value: &Value, escapes: bool) -> Value {
    match value {
        Value::String(text) if escapes => output::printable(text.as_bytes()).into(),
        Value::Array(items) => items.iter().map(|item| safe(item, escapes)).collect(),
        Value::Object(fields) => {
            let fields = fields.iter();
            Value::Object(
                fields
                    .map(|(name, value)| (name.clone(), safe(value, escapes)))
                    .collect(),
            )
        }
        other => other.clone(),
    }
}

/// Lines whose cells stand below each other; the columns marked in `right` end there.
fn aligned(lines: &[Vec<String>], right: &[bool]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|i| {
            let cells = lines.iter().filter_map(|line| line.get(i));
            cells.map(|cell| output::width(cell)).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for line in lines {
        let mut out = String::new();
        for (i, (cell, width)) in line.iter().zip(&widths).enumerate() {
            let filling = " ".repeat(width.saturating_sub(output::width(cell)));
            if right.get(i) == Some(&true) {
                out = out + &filling + cell + "  ";
            } else {
                out = out + cell + &filling + "  ";
            }
        }
        text += out.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: &[Field] = &[
        Field::text("Repository", "REPOSITORY"),
        Field::text("ID", "IMAGE ID"),
        Field::number("Size", "SIZE"),
    ];

    fn listing() -> Listing<'static> {
        let mut listing = Listing::new(FIELDS);
        listing.push(["alpine", "abc", "3.0 MB"]);
        listing.push(["h/\u{4e00}\u{1b}", "def", "12 kB"]);
        listing
    }

    #[track_caller]
    fn check(format: &str, is_terminal: bool, expected: &str) {
        let text = listing().text(
            &format.parse().unwrap(),
            &["Repository", "Size"],
            is_terminal,
        );
        assert_eq!(text.unwrap(), expected, "{format}");
    }

    #[test]
    fn rows_in_every_form() {
        let table = "REPOSITORY    SIZE\nalpine      3.0 MB\nh/\u{4e00}\\u{1b}   12 kB\n";
        check("table", false, table);
        check("table  ", false, table);
        check(
            r"table {{.ID}}\t{{upper .Repository}}",
            false,
            "IMAGE ID  REPOSITORY\nabc       ALPINE\ndef       H/\u{4e00}\\U{1B}\n",
        );
        check("table {{.Size}}", false, "SIZE\n3.0 MB\n12 kB\n");
        check(
            "json",
            true,
            "{\"Repository\":\"alpine\",\"ID\":\"abc\",\"Size\":\"3.0 MB\"}\n\
             {\"Repository\":\"h/\u{4e00}\\u001b\",\"ID\":\"def\",\"Size\":\"12 kB\"}\n",
        );
        check("{{.ID}}:{{.Size}}", true, "abc:3.0 MB\ndef:12 kB\n");
        check("{{.Repository}}", true, "alpine\nh/\u{4e00}\\u{1b}\n");
        check("{{.Repository}}", false, "alpine\nh/\u{4e00}\u{1b}\n");
        check("tablet", false, "tablet\ntablet\n");
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert!("table {{.ID".parse::<Format>().is_err());
        let unknown = "table {{.Nope}}".parse().unwrap();
        // Without rows, too.
        let text = Listing::new(FIELDS).text(&unknown, &[], false);
        let err = text.unwrap_err().to_string();
        assert!(err.contains("there are Repository, ID, Size"), "{err}");
    }
}
