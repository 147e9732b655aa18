//! How many nanoseconds does a sample of a scrape body cost, from bytes to labels and value?
//!
//! Bodies are captures of the corpus (`PENSTOCK_CORPUS`, else beside the workspace); where there
//! is none they are made up to look like a node exporter's. Rows per body: a search for newlines
//! alone, which is what nothing that looks at lines can beat; parsing; parsing and going over
//! every label. Time is per body; the throughput row is samples.

#![allow(missing_docs, reason = "criterion's macros")]

use std::hint::black_box;
use std::path::PathBuf;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ingest::decode::exposition::{Converter, Entry, Format, ParseOptions, Parser};

const BODIES: [(&str, Format); 6] = [
    ("node_exporter-1.5.0.txt", Format::Text),
    ("prometheus-2.42.0.txt", Format::Text),
    ("process_exporter-0.7.10.txt", Format::Text),
    ("client_golang-random.om", Format::OpenMetrics),
    ("prometheus-2.42.0.pb", Format::Protobuf),
    ("prometheus-3.14-agent.pb", Format::Protobuf),
];

fn captured(name: &str) -> Option<Vec<u8>> {
    let given = std::env::var_os("PENSTOCK_CORPUS").map(PathBuf::from);
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus");
    let path = given.unwrap_or_else(beside);
    std::fs::read(path.join("exposition").join(name)).ok()
}

/// Text like that of a node exporter.
fn made_up() -> String {
    let mut body = String::new();
    for metric in 0..200 {
        let name = format!("node_cpu_made_{metric}_seconds_total");
        body += &format!("# HELP {name} Seconds of something.\n# TYPE {name} counter\n");
        for cpu in 0..4 {
            let value = f64::from(metric * 37 + cpu) * 1.25;
            body += &format!("{name}{{cpu=\"{cpu}\",mode=\"idle\"}} {value}\n");
        }
    }
    body
}

fn bodies() -> Vec<(&'static str, Format, Vec<u8>)> {
    let captured = BODIES.map(|(name, format)| Some((name, format, captured(name)?)));
    let captured: Option<Vec<_>> = captured.into_iter().collect();
    captured.unwrap_or_else(|| {
        let text = made_up();
        let openmetrics = format!("{text}# EOF\n").replace("_total counter", " counter");
        vec![
            ("made-up.txt", Format::Text, text.into_bytes()),
            ("made-up.om", Format::OpenMetrics, openmetrics.into_bytes()),
        ]
    })
}

/// Samples and histograms of the body, and the bytes of their labels if they are looked at.
fn parse(parser: &mut Parser, body: &[u8], format: Format, looks_at_labels: bool) -> (u64, usize) {
    parser.start(body, format, ParseOptions::default());
    let (mut samples, mut bytes) = (0, 0);
    while let Some(entry) = parser.next(body).expect("a good body") {
        if let Entry::Sample(_) | Entry::Histogram(_) = entry {
            samples += 1;
            if looks_at_labels {
                let lengths = parser.labels(body);
                bytes += lengths
                    .map(|(name, value)| name.len() + value.len())
                    .sum::<usize>();
            }
        }
    }
    (samples, bytes)
}

fn converted(parser: &mut Parser, converter: &mut Converter, body: &[u8], format: Format) -> u64 {
    parser.start(body, format, ParseOptions::default());
    converter.start(false);
    let mut entries = 0;
    while converter.next(parser, body).expect("a good body").is_some() {
        entries += 1;
    }
    entries
}

fn exposition(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("exposition");
    group.measurement_time(Duration::from_secs(2));
    group.warm_up_time(Duration::from_millis(500));
    let mut parser = Parser::default();
    let mut converter = Converter::default();
    for (name, format, body) in &bodies() {
        let (samples, _) = parse(&mut parser, body, *format, true);
        group.throughput(Throughput::Elements(samples));
        group.bench_function(BenchmarkId::new("newlines", name), |bencher| {
            bencher.iter(|| memchr::memchr_iter(b'\n', black_box(body)).count());
        });
        group.bench_function(BenchmarkId::new("parse", name), |bencher| {
            bencher.iter(|| parse(&mut parser, black_box(body), *format, false));
        });
        group.bench_function(BenchmarkId::new("parse+labels", name), |bencher| {
            bencher.iter(|| parse(&mut parser, black_box(body), *format, true));
        });
        group.bench_function(BenchmarkId::new("parse+convert", name), |bencher| {
            bencher.iter(|| converted(&mut parser, &mut converter, black_box(body), *format));
        });
    }
    group.finish();
}

criterion_group!(benches, exposition);
criterion_main!(benches);
