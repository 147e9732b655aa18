//! Turns results into a markdown table, with what is needed to judge and repeat them above it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::result::RunResult;

/// Rows of cells; the first is the head.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub(crate) fn new<const N: usize>(columns: [&str; N]) -> Self {
        let mut table = Self::default();
        table.row(columns.map(str::to_owned).to_vec());
        table
    }

    /// One more row.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// A table of what is wanted and what is.
    pub(crate) fn goals() -> Self {
        Self::new(["goal", "wanted", "result", "met"])
    }

    /// One more row of [`Self::goals`].
    pub(crate) fn goal(&mut self, name: &str, wanted: String, result: String, is_met: bool) {
        self.row(vec![name.to_owned(), wanted, result, yes_or_no(is_met)]);
    }

    /// The head and the rows.
    pub(crate) fn rows(&self) -> &[Vec<String>] {
        &self.rows
    }

    /// The text in the row that begins with `row`, in the column under `column`.
    pub(crate) fn cell(&self, row: &str, column: &str) -> Option<&str> {
        let at = self.rows.first()?.iter().position(|head| head == column)?;
        let row = self
            .rows
            .iter()
            .skip(1)
            .find(|cells| cells.first().is_some_and(|first| first == row))?;
        row.get(at).map(String::as_str)
    }

    pub(crate) fn markdown(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let cell = |row: &Vec<String>, at: usize| row.get(at).cloned().unwrap_or_default();
        let width = |at: usize| {
            let cells = self.rows.iter().map(|row| cell(row, at).chars().count());
            cells.max().unwrap_or(0).max(3)
        };
        let mut text = String::new();
        for (number, row) in self.rows.iter().enumerate() {
            for at in 0..columns {
                text.push_str(&format!("| {:<1$} ", cell(row, at), width(at)));
            }
            text.push_str("|\n");
            if number == 0 {
                for at in 0..columns {
                    text.push_str(&format!("|{:-<1$}", "", width(at) + 2));
                }
                text.push_str("|\n");
            }
        }
        text
    }
}

/// Prints the tables and, with `out`, writes them to a file with the command and the machine, and the
/// same as JSON beside it.
pub(crate) fn publish(
    title: &str,
    notes: &[String],
    tables: &[Table],
    out: Option<&Path>,
) -> Result<()> {
    let result = RunResult {
        title: title.to_owned(),
        command: command(),
        machine: machine(),
        notes: notes.to_vec(),
        tables: tables.to_vec(),
    };
    print(&result.markdown());
    if let Some(path) = out {
        result.write(path)?;
    }
    Ok(())
}

/// What was called, without the path of the program.
fn command() -> String {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    format!("cargo run -p bench --release -- {}", arguments.join(" "))
}

fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let values = |name: &str| -> Vec<String> {
        let lines = cpus.lines().filter(|line| line.starts_with(name));
        lines
            .filter_map(|line| Some(line.split_once(':')?.1.trim().to_owned()))
            .collect()
    };
    let models = values("model name");
    let memory = read("/proc/meminfo");
    let memory = memory.lines().next().unwrap_or_default();
    format!(
        "{} x {} (family {}, model {}), {}, Linux {}",
        models.len(),
        models.first().map_or("unknown", String::as_str),
        values("cpu family").first().map_or("?", String::as_str),
        values("model").first().map_or("?", String::as_str),
        memory.split_whitespace().collect::<Vec<_>>().join(" "),
        read("/proc/sys/kernel/osrelease").trim()
    )
}

/// A rate with as many digits as it deserves.
pub(crate) fn millions(value: f64) -> String {
    format!("{:.2} M", value / 1e6)
}

/// A time as milliseconds, with as many digits as it deserves.
pub(crate) fn millis(value: Duration) -> String {
    let millis = value.as_secs_f64() * 1e3;
    let digits = if millis < 10.0 { 2 } else { 1 };
    format!("{millis:.digits$} ms")
}

/// A ratio.
pub(crate) fn times(value: f64) -> String {
    format!("{value:.2} x")
}

/// A word for a truth.
pub(crate) fn yes_or_no(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}

/// Bytes as mebibytes.
pub(crate) fn mebibytes(value: f64) -> String {
    format!("{:.0} MiB", value / 1_048_576.0)
}

/// Writes to whoever runs the bench.
#[expect(clippy::print_stdout, reason = "a bench is run for what it prints")]
pub(crate) fn print(text: &str) {
    println!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_found_by_their_names() {
        let mut table = Table::goals();
        table.goal("speed", ">= 2 x".into(), "3 x".into(), true);
        assert_eq!(table.cell("speed", "result"), Some("3 x"));
        assert_eq!(table.cell("speed", "met"), Some("yes"));
        assert_eq!(table.cell("goal", "met"), None);
        assert_eq!(table.cell("speed", "no such"), None);
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["what", "n"]);
        table.row(vec!["a".into(), "1000".into()]);
        assert_eq!(
            table.markdown(),
            "| what | n    |\n|------|------|\n| a    | 1000 |\n"
        );
    }
}
