//! Turns a report into one JSON document.

use serde_json::{Value, json};
use wal::inspect::{SegmentCounts, SegmentFile, StoreView};

use super::report::{EndpointReport, Report};
use crate::wal::verify;

/// The document.
pub(super) fn document(view: &StoreView, report: &Report) -> Value {
    let none = SegmentCounts::default();
    let counts = report.counts.iter().chain(std::iter::repeat(&none));
    let segments = view.segments().iter().zip(counts).enumerate();
    let segments = segments.map(|(at, (file, counts))| {
        let is_prepared = at >= report.counts.len();
        segment(file, counts, is_prepared)
    });
    let chunks = report.chunks.iter().map(|chunk| {
        json!({
            "file": chunk.path.display().to_string(),
            "file_bytes": chunk.file_bytes,
            "records": chunk.records,
            "bytes": chunk.bytes,
            "live_bytes": chunk.live_bytes,
            "dead_bytes": chunk.bytes - chunk.live_bytes,
        })
    });
    let losses = report.losses.iter().map(|loss| {
        json!({
            "time_ms": loss.time_ms,
            "endpoint": loss.endpoint,
            "reason": loss.reason.as_str(),
            "from": loss.from.get(),
            "to": loss.to.get(),
            "records": loss.records,
            "first_ms": loss.appended_ms.0,
            "last_ms": loss.appended_ms.1,
        })
    });
    let quarantine = report.quarantine.iter();
    let quarantine =
        quarantine.map(|(path, bytes)| json!({"file": path.display().to_string(), "bytes": bytes}));
    json!({
        "store": view.dir().display().to_string(),
        "end": view.end().position.get(),
        "records_ever": view.end().records,
        "segments": segments.collect::<Vec<_>>(),
        "chunks": chunks.collect::<Vec<_>>(),
        "series": report.series,
        "series_named": report.series_named,
        "records": report.records,
        "unknown_series_records": report.unknown_series,
        "first_ms": report.times_ms.map(|(first, _)| first),
        "last_ms": report.times_ms.map(|(_, last)| last),
        "endpoints": report.endpoints.iter().map(endpoint).collect::<Vec<_>>(),
        "losses": losses.collect::<Vec<_>>(),
        "quarantine": quarantine.collect::<Vec<_>>(),
        "top_series": pairs(&report.top_series, "series", "samples"),
        "top_label_names": pairs(&report.top_names, "name", "values"),
        "top_labels": pairs(&report.top_labels, "label", "series"),
        "problems": report.problems.iter()
            .filter(|problem| !problem.what.is_usual())
            .map(verify::to_json).collect::<Vec<_>>(),
        "notes": report.problems.iter()
            .filter(|problem| problem.what.is_usual())
            .map(verify::to_json).collect::<Vec<_>>(),
    })
}

fn segment(file: &SegmentFile, counts: &SegmentCounts, is_prepared: bool) -> Value {
    json!({
        "file": file.path().display().to_string(),
        "id": file.id(),
        "generation": file.generation(),
        "created_ms": file.created_ms(),
        "previous_end": file.previous_end().map(|end| end.get()),
        "first": file.first().get(),
        "file_bytes": file.file_bytes(),
        "used_bytes": counts.bytes,
        "frames": counts.frames,
        "records": counts.records,
        "first_appended_ms": counts.appended_ms.map(|(first, _)| first),
        "last_appended_ms": counts.appended_ms.map(|(_, last)| last),
        "prepared": is_prepared,
    })
}

fn endpoint(endpoint: &EndpointReport) -> Value {
    let dropped = endpoint.dropped.iter();
    let dropped = dropped.map(|(reason, records)| ((*reason).to_owned(), json!(records)));
    json!({
        "name": endpoint.name,
        "acked": endpoint.acked,
        "ahead": endpoint.ahead.map(|(from, to)| json!({ "from": from, "acked": to })),
        "lag_bytes": endpoint.lag_bytes,
        "lag_ms": endpoint.lag_ms,
        "records_in": endpoint.records_in,
        "delivered": endpoint.delivered,
        "pending": endpoint.pending,
        "dropped": dropped.collect::<serde_json::Map<_, _>>(),
    })
}

fn pairs(all: &[(String, u64)], name: &str, count: &str) -> Vec<Value> {
    let pair = |(text, n): &(String, u64)| json!({ (name): text, (count): n });
    all.iter().map(pair).collect()
}
