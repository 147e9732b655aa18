//! Turns a report into tables.

use wal::inspect::{SegmentCounts, StoreView};

use super::report::Report;
use crate::wal::table::{bytes_text, table};
use crate::wal::{time, verify};

/// The whole report.
pub(super) fn tables(view: &StoreView, report: &Report) -> String {
    let mut text = format!("store {}\n", view.dir().display());
    text.push_str(&summary(view, report));
    let sections = [
        ("segments", segments(view, report)),
        ("series chunks", chunks(report)),
        ("endpoints", endpoints(report)),
        ("account (records)", account(report)),
        ("losses", losses(report)),
        ("quarantine", quarantine(report)),
        (
            "series by samples",
            pairs(&["samples", "<series"], &report.top_series),
        ),
        (
            "label names by values",
            pairs(&["values", "<name"], &report.top_names),
        ),
        (
            "labels by series",
            pairs(&["series", "<label"], &report.top_labels),
        ),
    ];
    for (title, table) in sections {
        if table.lines().count() > 1 {
            text.push_str(&format!("\n{title}\n{table}"));
        }
    }
    for problem in &report.problems {
        let word = if problem.what.is_usual() {
            "note"
        } else {
            "PROBLEM"
        };
        text.push_str(&format!("\n{word}: {}\n", verify::line(problem)));
    }
    text
}

fn summary(view: &StoreView, report: &Report) -> String {
    let end = view.end();
    let records: Vec<String> = report
        .records
        .iter()
        .map(|(kind, records)| format!("{records} {kind}"))
        .collect();
    let mut lines = vec![
        format!(
            "the log ends at {}, {} records ever",
            end.position, end.records
        ),
        format!("on disk: {}", records.join(", ")),
        format!(
            "{} series, {} of them in frames on disk",
            report.series, report.series_named
        ),
    ];
    if let Some((first, last)) = report.times_ms {
        let (first, last) = (time::format(first), time::format(last));
        lines.push(format!("samples from {first} to {last}"));
    }
    if report.unknown_series > 0 {
        let records = report.unknown_series;
        lines.push(format!("{records} records of series without a record"));
    }
    lines.join("\n") + "\n"
}

fn segments(view: &StoreView, report: &Report) -> String {
    let none = SegmentCounts::default();
    let counts = report.counts.iter().chain(std::iter::repeat(&none));
    let mut rows = Vec::new();
    for (at, (file, counts)) in view.segments().iter().zip(counts).enumerate() {
        let id = match file.generation() {
            0 => file.id().to_string(),
            generation => format!("{}-{generation}", file.id()),
        };
        let appended = match counts.appended_ms {
            Some((first, _)) => clock(first),
            None if at >= report.counts.len() => "prepared".to_owned(),
            None => String::new(),
        };
        rows.push(vec![
            id,
            file.first().to_string(),
            bytes_text(counts.bytes),
            counts.frames.to_string(),
            counts.records.to_string(),
            appended,
            counts
                .appended_ms
                .map_or(String::new(), |(_, last)| time_of_day(last)),
            file.previous_end()
                .map_or(String::new(), |end| end.to_string()),
        ]);
    }
    let header = [
        "id",
        "position",
        "used",
        "frames",
        "records",
        "<from",
        "<to",
        "log before",
    ];
    table(&header, &rows)
}

/// A time without the fraction.
fn clock(unix_ms: i64) -> String {
    let text = time::format(unix_ms);
    text.split_once('.')
        .map_or(text.clone(), |(whole, _)| format!("{whole}Z"))
}

fn time_of_day(unix_ms: i64) -> String {
    let text = clock(unix_ms);
    text.split_once('T')
        .map_or(text.clone(), |(_, time)| time.to_owned())
}

fn chunks(report: &Report) -> String {
    let row = |chunk: &wal::inspect::ChunkFile| {
        let name = chunk.path.file_name().unwrap_or_default().to_string_lossy();
        vec![
            name.into_owned(),
            bytes_text(chunk.file_bytes),
            chunk.records.to_string(),
            bytes_text(chunk.bytes),
            bytes_text(chunk.live_bytes),
            bytes_text(chunk.bytes - chunk.live_bytes),
        ]
    };
    let rows: Vec<_> = report.chunks.iter().map(row).collect();
    table(
        &["<chunk", "size", "records", "used", "live", "dead"],
        &rows,
    )
}

fn endpoints(report: &Report) -> String {
    let row = |endpoint: &super::report::EndpointReport| {
        vec![
            endpoint.name.clone(),
            endpoint.acked.to_string(),
            endpoint
                .ahead
                .map_or("-".to_owned(), |(from, to)| format!("{from}-{to}")),
            bytes_text(endpoint.lag_bytes),
            endpoint.pending.to_string(),
            format!(
                "{}.{} s",
                endpoint.lag_ms / 1000,
                endpoint.lag_ms % 1000 / 100
            ),
        ]
    };
    let rows: Vec<_> = report.endpoints.iter().map(row).collect();
    let header = [
        "<endpoint",
        "acked",
        "ahead",
        "lag",
        "lag records",
        "lag time",
    ];
    table(&header, &rows)
}

fn account(report: &Report) -> String {
    let mut rows = Vec::new();
    for endpoint in &report.endpoints {
        let dropped: Vec<String> = endpoint
            .dropped
            .iter()
            .map(|(reason, records)| format!("{records} {reason}"))
            .collect();
        rows.push(vec![
            endpoint.name.clone(),
            endpoint.records_in.to_string(),
            endpoint.delivered.to_string(),
            endpoint.pending.to_string(),
            dropped.join(", "),
        ]);
    }
    table(
        &["<endpoint", "in", "= delivered", "+ pending", "<+ dropped"],
        &rows,
    )
}

fn losses(report: &Report) -> String {
    let row = |loss: &wal::Loss| {
        vec![
            time::format(loss.time_ms),
            loss.reason.as_str().to_owned(),
            loss.from.to_string(),
            loss.to.to_string(),
            loss.endpoint.clone(),
        ]
    };
    let rows: Vec<_> = report.losses.iter().map(row).collect();
    table(&["<found", "<reason", "from", "to", "<endpoint"], &rows)
}

fn quarantine(report: &Report) -> String {
    let row = |(path, bytes): &(std::path::PathBuf, u64)| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        vec![bytes_text(*bytes), name.into_owned()]
    };
    let rows: Vec<_> = report.quarantine.iter().map(row).collect();
    table(&["bytes", "<file"], &rows)
}

fn pairs(header: &[&str], all: &[(String, u64)]) -> String {
    let row = |(text, n): &(String, u64)| vec![n.to_string(), text.clone()];
    let rows: Vec<_> = all.iter().map(row).collect();
    table(header, &rows)
}
