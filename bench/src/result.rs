//! Turns what a command found into markdown and JSON files, and files back into tables.
//!
//! The JSON has the cells as they are printed and, where a cell is a quantity, its value in base units:
//! samples, bytes, seconds, shares of one. Without JSON, as in old runs, the markdown is read.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::table::Table;

/// What a cell ends with, and what its number is multiplied by.
const UNITS: [(&str, f64); 13] = [
    ("", 1.0),
    ("x", 1.0),
    ("M", 1e6),
    ("k", 1e3),
    ("%", 0.01),
    ("ns", 1e-9),
    ("us", 1e-6),
    ("ms", 1e-3),
    ("s", 1.0),
    ("B", 1.0),
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
];

/// What one command found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RunResult {
    /// What was measured.
    pub(crate) title: String,
    /// What repeats it.
    pub(crate) command: String,
    /// Where it was.
    pub(crate) machine: String,
    /// What must be known to judge it.
    pub(crate) notes: Vec<String>,
    /// The numbers.
    pub(crate) tables: Vec<Table>,
}

impl RunResult {
    /// The document a person reads.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("# {}\n\n", self.title);
        text.push_str(&format!(
            "- command: `{}`\n- machine: {}\n",
            self.command, self.machine
        ));
        for note in &self.notes {
            text.push_str(&format!("- {note}\n"));
        }
        for table in &self.tables {
            text.push('\n');
            text.push_str(&table.markdown());
        }
        text
    }

    /// Writes the markdown to `path` and the JSON beside it.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let beside = path.with_extension("json");
        let json = format!("{:#}\n", self.json());
        for (path, text) in [(path, self.markdown()), (&beside, json)] {
            fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }

    /// What a command named `name` left in `dir`; `None` if it did not.
    pub(crate) fn read(dir: &Path, name: &str) -> Result<Option<Self>> {
        let path = dir.join(name).with_extension("json");
        if path.try_exists()? {
            let text = fs::read_to_string(&path)?;
            let json = serde_json::from_str(&text).context("read JSON");
            let result = json.and_then(|json| Self::from_json(&json).context("not of a bench"));
            return Ok(Some(result.with_context(|| path.display().to_string())?));
        }
        let path = path.with_extension("md");
        if path.try_exists()? {
            return Ok(Some(Self::from_markdown(&fs::read_to_string(path)?)));
        }
        Ok(None)
    }

    /// The first cell of that row and column in the tables.
    pub(crate) fn cell(&self, row: &str, column: &str) -> Option<&str> {
        self.tables.iter().find_map(|table| table.cell(row, column))
    }

    fn json(&self) -> Value {
        let tables = self.tables.iter().map(|table| {
            let (head, rows) = table
                .rows()
                .split_first()
                .unwrap_or((const { &Vec::new() }, &[]));
            let values = rows.iter().map(|row| {
                let values = row.iter().map(|cell| json!(value_of(cell)));
                values.collect::<Value>()
            });
            json!({ "columns": head, "rows": rows, "values": values.collect::<Value>() })
        });
        json!({
            "title": self.title,
            "command": self.command,
            "machine": self.machine,
            "notes": self.notes,
            "tables": tables.collect::<Value>(),
        })
    }

    fn from_json(json: &Value) -> Option<Self> {
        let text = |name: &str| json.get(name)?.as_str().map(str::to_owned);
        let tables = json.get("tables")?.as_array()?.iter().map(|table| {
            let mut read = Table::default();
            read.row(strings(table.get("columns")?)?);
            for row in table.get("rows")?.as_array()? {
                read.row(strings(row)?);
            }
            Some(read)
        });
        Some(Self {
            title: text("title")?,
            command: text("command")?,
            machine: text("machine")?,
            notes: strings(json.get("notes")?)?,
            tables: tables.collect::<Option<_>>()?,
        })
    }

    fn from_markdown(text: &str) -> Self {
        let behind = |start: &str| {
            let mut lines = text.lines();
            let line = lines.find_map(|line| line.strip_prefix(start));
            line.unwrap_or_default().trim_matches('`').to_owned()
        };
        let mut tables = Vec::new();
        let mut is_inside = false;
        for line in text.lines() {
            let Some(line) = line.strip_prefix('|') else {
                is_inside = false;
                continue;
            };
            if !is_inside {
                tables.push(Table::default());
                is_inside = true;
            }
            let cells = line.trim_end().trim_end_matches('|').split('|');
            let cells: Vec<_> = cells.map(|cell| cell.trim().to_owned()).collect();
            let is_rule = cells.iter().all(|cell| cell.starts_with("---"));
            if let (Some(table), false) = (tables.last_mut(), is_rule) {
                table.row(cells);
            }
        }
        Self {
            title: behind("# "),
            command: behind("- command: "),
            machine: behind("- machine: "),
            notes: Vec::new(),
            tables,
        }
    }
}

fn strings(json: &Value) -> Option<Vec<String>> {
    let texts = json.as_array()?.iter();
    texts.map(|text| text.as_str().map(str::to_owned)).collect()
}

/// The quantity a cell tells, in base units; `None` if it tells something else.
pub(crate) fn value_of(cell: &str) -> Option<f64> {
    let cell = cell.trim();
    let (number, unit) = match cell.split_once(' ') {
        Some((number, unit)) => (number, unit),
        None => (cell, ""),
    };
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let number: f64 = number.parse().ok()?;
    number.is_finite().then_some(number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result() -> RunResult {
        let mut table = Table::new(["what", "result"]);
        table.row(vec!["rate".into(), "5.42 M".into()]);
        table.row(vec!["kept".into(), "yes".into()]);
        RunResult {
            title: "A title".into(),
            command: "cargo run".into(),
            machine: "two cores".into(),
            notes: vec!["a note".into()],
            tables: vec![table.clone(), table],
        }
    }

    #[test]
    fn quantities_have_values_in_base_units() {
        for (cell, value) in [
            ("5.42 M", 5.42e6),
            ("2.20 ms", 2.2e-3),
            ("34 MiB", 34.0 * 1_048_576.0),
            ("0.83 x", 0.83),
            ("85 %", 0.85),
            ("12", 12.0),
        ] {
            let read = value_of(cell).unwrap();
            assert!((read - value).abs() <= value * 1e-12, "{cell}: {read}");
        }
        for cell in ["", "-", "yes", "1 apple", "NaN", ">= 2 x"] {
            assert_eq!(value_of(cell), None, "{cell}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("one.md");
        result().write(&path).unwrap();
        let read = RunResult::read(dir.path(), "one").unwrap().unwrap();
        assert_eq!(read, result());
        assert_eq!(
            read.cell("rate", "result").and_then(value_of),
            Some(5_420_000.0)
        );
        fs::remove_file(path.with_extension("json")).unwrap();
        let read = RunResult::read(dir.path(), "one").unwrap().unwrap();
        assert_eq!((read.title, read.tables), (result().title, result().tables));
        assert_eq!(read.command, "cargo run");
        assert_eq!(RunResult::read(dir.path(), "two").unwrap(), None);
    }

    #[test]
    fn json_that_is_of_something_else_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.json"), "{}").unwrap();
        assert!(RunResult::read(dir.path(), "a").is_err());
    }
}
