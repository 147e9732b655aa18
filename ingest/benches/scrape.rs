//! Turns bodies of targets, as they come scrape after scrape, into samples a second of one core: from the bytes of
//! the body to a position in the log, beside one pass over its newlines.
//!
//! `cargo bench -p ingest --bench scrape`

use std::collections::BTreeMap;
use std::fmt::Write;
use std::hint::black_box;
use std::path::PathBuf;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ingest::Path;
use ingest::decode::exposition::Format;
use ingest::pull::{Defaults, Gunzip, Labels, Rules, ScrapeLine, Target};
use libdeflater::{CompressionLvl, Compressor};
use wal::{Store, StoreOptions};

/// Bodies of one target, each with other values.
struct Bodies {
    name: &'static str,
    format: Format,
    all: Vec<Vec<u8>>,
}

/// Captured rounds of a target where the corpus is, else made ones.
fn bodies() -> Vec<Bodies> {
    let corpus = std::env::var_os("PENSTOCK_CORPUS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/corpus")),
        PathBuf::from,
    );
    let read = |file: String| std::fs::read(corpus.join("exposition").join(file)).ok();
    let captured = |name: &str, end: &str| -> Option<Vec<Vec<u8>>> {
        (1..=3)
            .map(|round| read(format!("{name}.round{round}.{end}")))
            .collect()
    };
    let mut found = vec![Bodies {
        name: "made",
        format: Format::Text,
        all: (0..3).map(made).collect(),
    }];
    for (name, file, end, format) in [
        ("node_exporter", "node_exporter-1.5.0", "txt", Format::Text),
        (
            "openmetrics",
            "client_golang-random",
            "om",
            Format::OpenMetrics,
        ),
        ("protobuf", "client_golang-random", "pb", Format::Protobuf),
    ] {
        if let Some(all) = captured(file, end) {
            found.push(Bodies { name, format, all });
        }
    }
    found
}

/// A thousand series of twenty families.
fn made(round: usize) -> Vec<u8> {
    let mut body = String::new();
    for family in 0..20 {
        _ = writeln!(body, "# HELP made_{family}_total Things that were made.");
        _ = writeln!(body, "# TYPE made_{family}_total counter");
        for series in 0..50 {
            let value = series * 1000 + round * 7 + family;
            _ = writeln!(
                body,
                "made_{family}_total{{device=\"eth{series}\",mode=\"idle\"}} {value}"
            );
        }
    }
    body.into_bytes()
}

fn line(store: &Store) -> ScrapeLine {
    let labels = Labels::from([("__address__".to_owned(), "host-1:9100".to_owned())]);
    let defaults = Defaults {
        job: "bench".to_owned(),
        interval: Duration::from_secs(15),
        timeout: Duration::from_secs(10),
        metrics_path: "/metrics".to_owned(),
        scheme: "http".to_owned(),
        params: BTreeMap::new(),
    };
    let target = Target::prepare(&labels, &defaults).expect("a target");
    let line = ScrapeLine::new(
        std::slice::from_ref(store),
        &[Path::plain(0)],
        target,
        Rules::default(),
    );
    line.expect("a writer")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut compressor = Compressor::new(CompressionLvl::default());
    let mut out = vec![0; compressor.gzip_compress_bound(bytes.len())];
    let length = compressor.gzip_compress(bytes, &mut out).expect("room");
    out.truncate(length);
    out
}

fn scrapes(criterion: &mut Criterion) {
    for bodies in bodies() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path(), StoreOptions::default()).expect("a store");
        let committer = store.committer().expect("a committer");
        let committing = committer.spawn_thread().expect("a thread");
        let mut scraped = line(&store);
        let mut time_ms = 0;
        let mut scrape = |line: &mut ScrapeLine, body: &[u8]| {
            time_ms += 15_000;
            let scraped = line
                .scrape(Ok((body, bodies.format)), time_ms)
                .expect("room");
            assert_eq!(scraped.error, None);
            scraped.followed + scraped.parsed
        };
        let samples = scrape(&mut scraped, &bodies.all[0]);
        let mut group = criterion.benchmark_group(bodies.name);
        group.throughput(Throughput::Elements(samples as u64));
        let mut rounds = bodies.all.iter().cycle();
        group.bench_function("newlines", |b| {
            b.iter(|| {
                let body = rounds.next().expect("endless");
                memchr::memchr_iter(b'\n', black_box(body)).count()
            });
        });
        group.bench_function("again", |b| {
            b.iter(|| scrape(&mut scraped, rounds.next().expect("endless")));
        });
        let mut fresh = line(&store);
        group.bench_function("first", |b| {
            b.iter(|| {
                fresh.forget();
                scrape(&mut fresh, rounds.next().expect("endless"))
            });
        });
        let compressed: Vec<Vec<u8>> = bodies.all.iter().map(|body| gzip(body)).collect();
        let mut rounds = compressed.iter().cycle();
        let (mut gunzip, mut body) = (Gunzip::default(), Vec::new());
        group.bench_function("again, gzip", |b| {
            b.iter(|| {
                let compressed = rounds.next().expect("endless");
                gunzip
                    .decompress(compressed, &mut body, 64 << 20)
                    .expect("gzip");
                scrape(&mut scraped, &body)
            });
        });
        group.finish();
        drop((scraped, fresh));
        store.close();
        committing.join().expect("no panic");
    }
}

criterion_group!(benches, scrapes);
criterion_main!(benches);
