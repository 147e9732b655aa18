//! Turns the results of a run into drawings, and into the tables of the document that explains them.
//!
//! In the document the tables of a result stand between `<!-- result: NAME -->` and `<!-- end -->`; what
//! stands there is replaced. Of several names those that the run has are shown.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::result::{RunResult, value_of};
use crate::svg::{Bar, Bars, Line, Lines};
use crate::table::{Table, millions, millis, print};

const BEGIN: &str = "<!-- result: ";
const END: &str = "<!-- end -->";
const SUBJECTS: [&str; 3] = ["penstock", "vmagent", "prometheus agent"];
/// Answer times above are cut off where the number of series grows until they are too long.
const ACK_SECONDS_MAX: f64 = 0.2;

/// The arguments of `plot`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Where the results are.
    dir: PathBuf,
    /// The document whose tables are refreshed; the drawings go to `plots` beside it.
    #[arg(long, value_name = "FILE", default_value = "docs/benchmarks.md")]
    document: PathBuf,
}

/// What can be drawn of a result.
type Draw = fn(&RunResult, &str) -> Option<String>;

/// A drawing.
struct Plot {
    name: &'static str,
    /// The result it is of.
    result: &'static str,
    title: &'static str,
    draw: Draw,
}

const fn plot(name: &'static str, result: &'static str, title: &'static str, draw: Draw) -> Plot {
    Plot {
        name,
        result,
        title,
        draw,
    }
}

const PLOTS: [Plot; 8] = [
    plot(
        "compare",
        "compare",
        "Ingest and ship: samples per core-second, more is better",
        compare,
    ),
    plot(
        "ingest",
        "ingest",
        "Durable ingest: samples per core-second, and the goal of each",
        ingest,
    ),
    plot("ship", "ship", "Shipping: samples per core-second", ship),
    plot(
        "memory",
        "memory",
        "Anonymous memory per series, less is better",
        memory,
    ),
    plot(
        "cores",
        "cores",
        "Durable ingest: samples per CPU second of so many cores",
        cores,
    ),
    plot(
        "ack-latency",
        "latency",
        "Time until a durable ack, below saturation",
        ack_latency,
    ),
    plot(
        "age",
        "latency",
        "From sender to backend at 10,000 samples per second, less is better",
        age,
    ),
    plot(
        "series-per-core",
        "series-per-core",
        "Ack p99 by number of series on one core (cut off at 200 ms)",
        series_per_core,
    ),
];

/// Writes all that the run has.
pub(crate) fn run(options: &Options) -> Result<()> {
    let plots = options.document.with_file_name("plots");
    fs::create_dir_all(&plots).with_context(|| format!("make {}", plots.display()))?;
    for plot in PLOTS {
        let read = RunResult::read(&options.dir, plot.result)?;
        let Some(svg) = read
            .as_ref()
            .and_then(|result| (plot.draw)(result, plot.title))
        else {
            let Plot { name, result, .. } = plot;
            print(&format!("{name}: the run has no {result} to draw"));
            continue;
        };
        let path = plots.join(plot.name).with_extension("svg");
        fs::write(&path, svg).with_context(|| format!("write {}", path.display()))?;
        print(&path.display().to_string());
    }
    let path = &options.document;
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    fs::write(path, with_results(&text, &options.dir)?)?;
    print(&path.display().to_string());
    Ok(())
}

/// The document with the tables of this run.
fn with_results(text: &str, dir: &Path) -> Result<String> {
    let mut new = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once(BEGIN) {
        let (names, behind) = behind
            .split_once(" -->\n")
            .context("a result without names")?;
        let Some((old, behind)) = behind.split_once(END) else {
            bail!("the result {names} has no end");
        };
        if old.contains(BEGIN) {
            bail!("the result {names} has no end");
        }
        new.push_str(&format!(
            "{before}{BEGIN}{names} -->\n{}{END}",
            section(names, dir)?
        ));
        rest = behind;
    }
    new.push_str(rest);
    Ok(new)
}

/// The tables of some results; what to do if there are none.
fn section(names: &str, dir: &Path) -> Result<String> {
    let mut section = String::new();
    for name in names.split_whitespace() {
        let Some(result) = RunResult::read(dir, name)? else {
            continue;
        };
        for plot in PLOTS.iter().filter(|plot| plot.result == name) {
            if (plot.draw)(&result, plot.title).is_some() {
                section.push_str(&format!("![{}](plots/{}.svg)\n\n", plot.title, plot.name));
            }
        }
        section.push_str(&format!("{} (`{}`)\n", result.title, result.command));
        for table in &result.tables {
            section.push_str(&format!("\n{}", table.markdown()));
        }
        section.push('\n');
    }
    if section.is_empty() {
        section.push_str("Not measured yet.\n");
    }
    Ok(section)
}

fn bar(name: &str, cell: &str, colour: usize) -> Option<Bar> {
    Some(Bar {
        name: name.to_owned(),
        value: value_of(cell)?,
        text: cell.to_owned(),
        goal: None,
        colour,
    })
}

/// Bars of these rows in a column; the first stands out.
fn bars_of(result: &RunResult, rows: &[&str], column: &str) -> Vec<Bar> {
    let cells = rows.iter().enumerate();
    cells
        .filter_map(|(at, row)| bar(row, result.cell(row, column)?, usize::from(at > 0)))
        .collect()
}

fn drawn(title: &str, bars: Vec<Bar>) -> Option<String> {
    let title = title.to_owned();
    (!bars.is_empty()).then(|| Bars { title, bars }.svg())
}

fn compare(result: &RunResult, title: &str) -> Option<String> {
    let bars = bars_of(result, &SUBJECTS, "samples per core-second");
    drawn(title, bars)
}

fn memory(result: &RunResult, title: &str) -> Option<String> {
    let bars = bars_of(result, &SUBJECTS, "anonymous per series");
    drawn(title, bars)
}

/// Rows below the head of the table that has a column.
fn rows_of<'r>(result: &'r RunResult, column: &str) -> Option<(&'r Table, Vec<&'r str>)> {
    let has = |table: &&Table| {
        table
            .rows()
            .first()
            .is_some_and(|head| head.iter().any(|it| it == column))
    };
    let table = result.tables.iter().find(has)?;
    let names = table.rows().iter().skip(1).filter_map(|row| row.first());
    Some((table, names.map(String::as_str).collect()))
}

fn ingest(result: &RunResult, title: &str) -> Option<String> {
    let (table, rows) = rows_of(result, "limit, in order")?;
    let mut bars = Vec::new();
    for row in rows {
        let limit = value_of(table.cell(row, "limit, in order")?)?;
        let mut one = bar(row, table.cell(row, "samples/core-s")?, 0)?;
        let wanted = table.cell(row, "wanted")?.trim_start_matches(">= ");
        one.goal = value_of(wanted).map(|share| share * limit);
        bars.push(one);
    }
    drawn(title, bars)
}

fn ship(result: &RunResult, title: &str) -> Option<String> {
    let (table, rows) = rows_of(result, "wire B/sample")?;
    let bars = rows.iter().filter_map(|row| {
        let is_whole = usize::from(!row.starts_with("ingest and ship"));
        bar(row, table.cell(row, "samples/core-s")?, is_whole)
    });
    drawn(title, bars.collect())
}

fn age(result: &RunResult, title: &str) -> Option<String> {
    let (table, rows) = rows_of(result, "age of samples")?;
    let mut bars = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        for share in ["p50", "p99"] {
            let cell = table.cell(row, share)?;
            bars.push(bar(&format!("{row}, {share}"), cell, usize::from(at > 0))?);
        }
    }
    drawn(title, bars)
}

fn seconds(value: f64) -> String {
    millis(Duration::from_secs_f64(value))
}

fn cores(result: &RunResult, title: &str) -> Option<String> {
    let (table, rows) = rows_of(result, "connections on each thread")?;
    let rate = |row: &str| value_of(table.cell(row, "samples/core-s")?);
    let one = rate(rows.first()?)?;
    let two = rate(rows.get(1)?)?;
    let line = |name: &str, points: &[(f64, f64)]| Line {
        name: name.to_owned(),
        points: points.to_vec(),
    };
    let lines = Lines {
        title: title.to_owned(),
        x_ticks: vec![(1.0, "1".to_owned()), (2.0, "2".to_owned())],
        x_name: "cores".to_owned(),
        y_max: None,
        y_text: millions,
        lines: vec![
            line("penstock", &[(1.0, one), (2.0, two * 2.0)]),
            line("twice one core", &[(1.0, one), (2.0, one * 2.0)]),
        ],
    };
    Some(lines.svg())
}

fn ack_latency(result: &RunResult, title: &str) -> Option<String> {
    let (table, rows) = rows_of(result, "from when sent p99")?;
    let mut x_ticks = Vec::new();
    let mut lines: Vec<_> = ["p50", "p99", "p99.9"]
        .map(|name| Line {
            name: name.to_owned(),
            points: Vec::new(),
        })
        .into();
    let mut device = Line {
        name: "device p99".to_owned(),
        points: Vec::new(),
    };
    let rows = rows
        .iter()
        .filter_map(|row| Some((row, row.strip_suffix(" connections")?)));
    for ((row, count), x) in rows.zip((0_u32..).map(f64::from)) {
        x_ticks.push((x, count.to_owned()));
        for line in &mut lines {
            line.points
                .push((x, value_of(table.cell(row, &line.name)?)?));
        }
        device
            .points
            .push((x, value_of(table.cell("device", "p99")?)?));
    }
    lines.push(device);
    let lines = Lines {
        title: title.to_owned(),
        x_ticks,
        x_name: "connections".to_owned(),
        y_max: None,
        y_text: seconds,
        lines,
    };
    Some(lines.svg())
}

fn series_per_core(result: &RunResult, title: &str) -> Option<String> {
    let (table, _) = rows_of(result, "step")?;
    let column = |name: &str| table.rows().first()?.iter().position(|head| head == name);
    let (interval, series, p99) = (column("interval")?, column("series")?, column("ack p99")?);
    let mut lines: Vec<Line> = Vec::new();
    for row in table.rows().iter().skip(1) {
        let name = format!("every {}", row.get(interval)?);
        let point = (value_of(row.get(series)?)?, value_of(row.get(p99)?)?);
        match lines.iter_mut().find(|line| line.name == name) {
            Some(line) => line.points.push(point),
            None => lines.push(Line {
                name,
                points: vec![point],
            }),
        }
    }
    for line in &mut lines {
        line.points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    let most = lines
        .iter()
        .flat_map(|line| &line.points)
        .map(|point| point.0);
    let most = most.fold(0.0, f64::max);
    let ticks = [0.0, 0.25, 0.5, 0.75, 1.0].map(|share| share * most);
    let lines = Lines {
        title: title.to_owned(),
        x_ticks: ticks.map(|tick| (tick, millions(tick))).to_vec(),
        x_name: "series".to_owned(),
        y_max: Some(ACK_SECONDS_MAX),
        y_text: seconds,
        lines,
    };
    Some(lines.svg())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(tables: Vec<Table>) -> RunResult {
        RunResult {
            title: "Title".into(),
            command: "bench x".into(),
            machine: String::new(),
            notes: vec![],
            tables,
        }
    }

    fn table(rows: &[&[&str]]) -> Table {
        let mut table = Table::default();
        for row in rows {
            table.row(row.iter().map(|cell| (*cell).to_owned()).collect());
        }
        table
    }

    #[test]
    fn a_comparison_is_drawn_with_what_there_is() {
        let head = ["penstock against", "samples per core-second", "ratio"];
        let only = table(&[
            &head,
            &["penstock", "4.92 M", "1.0 x"],
            &["vmagent", "1.42 M", "3.5 x"],
        ]);
        let svg = compare(&result(vec![only]), "T").unwrap();
        assert_eq!(svg.matches("<rect class=\"c0\"").count(), 1);
        assert_eq!(svg.matches("<rect class=\"c1\"").count(), 1);
        assert!(svg.contains("4.92 M") && !svg.contains("prometheus"));
        assert_eq!(compare(&result(vec![]), "T"), None);
    }

    #[test]
    fn acks_are_drawn_by_connections() {
        let acks = table(&[
            &["ack", "p50", "p99", "p99.9", "from when sent p99"],
            &["device", "0.30 ms", "1.00 ms", "2.00 ms", "-"],
            &["1 connections", "1.00 ms", "2.00 ms", "4.00 ms", "2.00 ms"],
            &["8 connections", "1.00 ms", "3.00 ms", "5.00 ms", "2.00 ms"],
        ]);
        let svg = ack_latency(&result(vec![acks]), "T").unwrap();
        assert_eq!(svg.matches("<polyline").count(), 4);
        assert_eq!(svg.matches("<circle").count(), 8);
    }

    #[test]
    fn steps_of_a_search_are_drawn_from_few_series_to_many() {
        let steps = table(&[
            &["step", "interval", "series", "ack p99"],
            &["1", "15 s", "8.00 M", "5.00 ms"],
            &["2", "15 s", "16.00 M", "900.0 ms"],
            &["3", "15 s", "12.00 M", "10.0 ms"],
            &["4", "60 s", "12.00 M", "3.00 ms"],
        ]);
        let svg = series_per_core(&result(vec![steps]), "T").unwrap();
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(svg.contains("every 60 s"));
    }

    #[test]
    fn tables_in_the_document_are_replaced_and_the_rest_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let one = result(vec![table(&[&["a", "b"], &["1", "2"]])]);
        one.write(&dir.path().join("one.md")).unwrap();
        let text = "before\n<!-- result: one other -->\nold\n<!-- end -->\nafter\n\
                    <!-- result: two -->\n<!-- end -->\n";
        let new = with_results(text, dir.path()).unwrap();
        let expected = "before\n<!-- result: one other -->\nTitle (`bench x`)\n\n| a   | b   |\n|-----|-----|\n\
                        | 1   | 2   |\n\n<!-- end -->\nafter\n<!-- result: two -->\nNot measured yet.\n\
                        <!-- end -->\n";
        assert_eq!(new, expected);
        assert_eq!(with_results(&new, dir.path()).unwrap(), expected);
        assert!(with_results("<!-- result: one -->\n", dir.path()).is_err());
        let open = "<!-- result: one -->\n<!-- result: two -->\n<!-- end -->\n";
        assert!(with_results(open, dir.path()).is_err());
    }
}
