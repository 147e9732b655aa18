//! Turns captured bodies into comparisons with what Prometheus reads in them.
//!
//! The corpus asked the parser of Prometheus for the start time of a sample before its value. For
//! OpenMetrics that looks ahead for a `_created` line and leaves the value of the last line it
//! looked at behind: so the corpus has the value of the last sample of the same metadata for all
//! of them. That is what is compared there; the values are compared with the standard library's.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::*;

fn format_of(entry: &Value) -> Format {
    match entry["format"].as_str().unwrap() {
        "text-0.0.4" => Format::Text,
        "openmetrics-1.0.0" => Format::OpenMetrics,
        "protobuf-delimited" => Format::Protobuf,
        other => panic!("{other}"),
    }
}

/// Both forms of a histogram, as the corpus lists them.
const BOTH: ParseOptions = ParseOptions {
    strict: false,
    skip_created: true,
    classic_histograms: true,
    native_histograms: true,
};

fn bits(value: f64) -> Value {
    json!(format!("{:016x}", value.to_bits()))
}

fn exemplars(parser: &Parser, body: &[u8]) -> Value {
    let shown = |exemplar: Exemplar<'_>| {
        let mut line = json!({"l": label_map(exemplar.labels()), "v": bits(exemplar.value)});
        if let Some(timestamp) = exemplar.timestamp_ms {
            line["t"] = timestamp.into();
        }
        line
    };
    parser.exemplars(body).map(shown).collect()
}

fn spans(buckets: &Buckets) -> Value {
    let spans = buckets.spans.iter();
    let spans: Vec<_> = spans
        .map(|(offset, length)| json!({"Offset": offset, "Length": length}))
        .collect();
    json!(spans)
}

fn histogram(histogram: &Histogram) -> Value {
    assert!(!histogram.is_float, "no float histogram was captured");
    json!({
        "CounterResetHint": if histogram.is_gauge { 3 } else { 0 },
        "Schema": histogram.schema,
        "ZeroThreshold": bits(histogram.zero_threshold),
        "ZeroCount": histogram.zero_count,
        "Count": histogram.count,
        "Sum": bits(histogram.sum),
        "PositiveSpans": spans(&histogram.positive),
        "NegativeSpans": spans(&histogram.negative),
        "PositiveBuckets": histogram.positive.deltas,
        "NegativeBuckets": histogram.negative.deltas,
        "CustomValues": null,
    })
}

/// The sample as the corpus writes it.
fn line(parser: &Parser, body: &[u8], entry: &Entry) -> Option<Value> {
    let (mut line, timestamp, start) = match entry {
        Entry::Sample(at) => {
            let line = json!({"k": "s", "v": bits(at.value)});
            (line, at.timestamp_ms, at.start_ms)
        }
        Entry::Histogram(at) => {
            let line = json!({"k": "h", "h": histogram(parser.histogram())});
            (line, at.timestamp_ms, at.start_ms)
        }
        _ => return None,
    };
    line["l"] = json!(label_map(parser.labels(body)));
    if let Some(timestamp) = timestamp {
        line["t"] = timestamp.into();
    }
    if let Some(start) = start {
        line["st"] = start.into();
    }
    let exemplars = exemplars(parser, body);
    if exemplars != json!([]) {
        line["e"] = exemplars;
    }
    Some(line)
}

#[derive(Default)]
struct Seen {
    lines: Vec<Value>,
    /// For every line of OpenMetrics whose value what wrote the corpus has not: the last line of
    /// its metrics.
    looked_ahead: BTreeMap<usize, usize>,
    counts: BTreeMap<&'static str, u64>,
    series: BTreeSet<String>,
}

fn see(body: &[u8], format: Format) -> Result<Seen, ParseError> {
    let mut parser = Parser::default();
    parser.start(body, format, BOTH);
    let mut seen = Seen::default();
    let mut first = 0;
    while let Some(entry) = parser.next(body)? {
        let what = match &entry {
            Entry::Help { .. } => "help",
            Entry::Type { .. } => "type",
            Entry::Unit { .. } => "unit",
            Entry::Comment => "comment",
            Entry::Sample(_) => "samples",
            Entry::Histogram(_) => "native_histograms",
        };
        *seen.counts.entry(what).or_default() += 1;
        let has_start = matches!(
            parser.last_type,
            Kind::Counter | Kind::Histogram | Kind::Summary
        );
        match &entry {
            Entry::Sample(at) if format == Format::OpenMetrics => {
                let value: f64 = text(&body[at.value_at.clone()]).parse().unwrap();
                assert_eq!(value.to_bits(), at.value.to_bits());
                for line in first..seen.lines.len() + usize::from(has_start) {
                    seen.looked_ahead.insert(line, seen.lines.len());
                }
            }
            _ => first = seen.lines.len(),
        }
        if let Some(line) = line(&parser, body, &entry) {
            seen.series.insert(line["l"].to_string());
            *seen.counts.entry("exemplars").or_default() +=
                line["e"].as_array().map_or(0, |all| all.len() as u64);
            seen.lines.push(line);
        }
    }
    Ok(seen)
}

/// A line of the corpus: no buckets are an empty list, and floats are what the standard library
/// makes of them, as the reader of JSON does not round them right.
fn expected_line(text: &str) -> Value {
    let mut line: Value = serde_json::from_str(text).unwrap();
    if let Some(histogram) = line.get_mut("h").and_then(Value::as_object_mut) {
        for (key, value) in histogram {
            if matches!(key.as_str(), "Sum" | "ZeroThreshold") {
                let (_, token) = text.split_once(&format!("\"{key}\":")).unwrap();
                let token = token.split([',', '}']).next().unwrap();
                *value = bits(token.parse().unwrap());
            } else if value.is_null() && key != "CustomValues" {
                *value = json!([]);
            }
        }
    }
    line
}

#[test]
fn captured_bodies_are_read_as_prometheus_reads_them() {
    if corpus().is_none() {
        return;
    }
    let (mut files, mut samples) = (0, 0);
    for entry in listed("exposition") {
        let file = entry["file"].as_str().unwrap();
        let body = bytes_of(file);
        let seen = see(&body, format_of(&entry)).unwrap_or_else(|error| panic!("{file}: {error}"));
        let expected = entry["expect_prometheus_textparse"].as_object().unwrap();
        for what in [
            "help",
            "type",
            "unit",
            "comment",
            "samples",
            "native_histograms",
            "exemplars",
        ] {
            let expected = expected.get(what).and_then(Value::as_u64).unwrap_or(0);
            assert_eq!(
                seen.counts.get(what).copied().unwrap_or(0),
                expected,
                "{file}: {what}"
            );
        }
        let distinct = expected["distinct_series"].as_u64().unwrap();
        assert_eq!(seen.series.len() as u64, distinct, "{file}");
        files += 1;
        samples += seen.lines.len();
        let Some(expected) = entry["expected_samples"].as_str() else {
            continue;
        };
        let expected = String::from_utf8(bytes_of(expected)).unwrap();
        let expected: Vec<Value> = expected.lines().map(expected_line).collect();
        assert_eq!(seen.lines.len(), expected.len(), "{file}");
        for (at, expected) in expected.into_iter().enumerate() {
            let mut line = seen.lines[at].clone();
            if let Some(last) = seen.looked_ahead.get(&at) {
                line["v"] = seen.lines[*last]["v"].clone();
            }
            assert_eq!(line, expected, "{file}");
        }
    }
    println!("{files} bodies, {samples} samples and histograms");
    assert!(files > 40, "only {files} bodies");
}

#[test]
fn compressed_and_repeated_captures_have_the_series_of_the_plain_one() {
    if corpus().is_none() {
        return;
    }
    let series = |file: &str, format| see(&bytes_of(file), format).unwrap().series;
    let of = |file: &str| {
        series(
            &format!("exposition/node_exporter-1.5.0{file}"),
            Format::Text,
        )
    };
    for round in ["-gzip.txt.gz", ".round1.txt", ".round2.txt", ".round3.txt"] {
        assert_eq!(of(round), of(".txt"), "{round}");
    }
}

#[test]
fn text_and_protobuf_of_an_exporter_have_the_same_series() {
    if corpus().is_none() {
        return;
    }
    let files: Vec<String> = listed("exposition")
        .iter()
        .map(|entry| entry["file"].as_str().unwrap().to_owned())
        .collect();
    let mut pairs = 0;
    for protobuf in files.iter().filter(|file| file.ends_with(".pb")) {
        let text = format!("{}.txt", protobuf.strip_suffix(".pb").unwrap());
        if !files.contains(&text) {
            continue;
        }
        pairs += 1;
        let classic = |file: &str, format| {
            let body = bytes_of(file);
            let mut parser = Parser::default();
            let classic = ParseOptions {
                native_histograms: false,
                ..BOTH
            };
            parser.start(&body, format, classic);
            let mut series = BTreeSet::new();
            while let Some(entry) = parser.next(&body).unwrap() {
                if matches!(entry, Entry::Sample(_)) {
                    series.insert(label_map(parser.labels(&body)));
                }
            }
            series
        };
        let (text, protobuf) = (
            classic(&text, Format::Text),
            classic(protobuf, Format::Protobuf),
        );
        let apart: Vec<_> = text.symmetric_difference(&protobuf).collect();
        assert!(
            apart.is_empty(),
            "{} apart: {:?}",
            apart.len(),
            &apart[..apart.len().min(4)]
        );
    }
    println!("{pairs} pairs");
    assert!(pairs > 8, "only {pairs} pairs");
}
