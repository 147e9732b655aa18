//! What does a sample cost from batch to compressed body, next to prost doing the same?
//!
//! 100k series (`fleet`), 2000 samples per batch, in ref order; no series comes again. `plain`: one
//! sample of each. `packed`: ten of each together, as a backlog is sent.

#![allow(missing_docs, reason = "criterion's macros")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench")]

mod fleet;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use labels::ExternalLabels;
use prost::Message;
use shipper::batch::Batch;
use shipper::encode::{RemoteWriteV1, RemoteWriteV2};
use shipper::metadata::MetadataCache;
use shipper::outgoing::{OUTGOING_BYTES_MAX, Outgoing, OutgoingLabels};
use wal::{Sample, SeriesRef};

use fleet::{ASPECTS, PER_BATCH, SUBJECTS, Table, batches, labels, sample};

const SERIES: u32 = 100_000;
/// Samples of a series in a pack.
const ROUNDS: u32 = 10;
/// Memory for templates, of which no run has one.
const BYTES_MAX: usize = 64 << 20;

#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct MetricMetadata {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "4")]
    help: String,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<PbSample>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct PbSample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

/// One sample of every series.
fn plain() -> Vec<Sample> {
    (0..SERIES).map(|series| sample(series, 0)).collect()
}

/// As many samples, of fewer series.
fn packed() -> Vec<Sample> {
    let of_series = |series| (0..ROUNDS).map(move |interval| sample(series, interval));
    (0..SERIES / ROUNDS).flat_map(of_series).collect()
}

/// Encodes all batches; bytes of their bodies.
fn measure(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    batches: &[Batch],
    mut encode: impl FnMut(&Batch) -> usize,
) {
    let wire: usize = batches.iter().map(&mut encode).sum();
    println!(
        "{name}: {:.1} bytes per sample",
        wire as f64 / f64::from(SERIES)
    );
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            batches
                .iter()
                .map(|batch| black_box(encode(batch)))
                .sum::<usize>()
        });
    });
}

fn all(criterion: &mut Criterion) {
    let table = Table::new(SERIES);
    println!("{} label bytes per series", table.bytes() / SERIES as usize);
    let (plain, packed) = (batches(&plain(), PER_BATCH), batches(&packed(), PER_BATCH));
    encode_v1(criterion, [&plain, &packed], &table);
    encode_v2(criterion, [&plain, &packed], &table);
}

fn encode_v1(criterion: &mut Criterion, [plain, packed]: [&[Batch]; 2], table: &Table) {
    let mut group = criterion.benchmark_group("remote_write_v1");
    group.throughput(Throughput::Elements(u64::from(SERIES)));
    let replica = BTreeMap::from([("replica".to_owned(), "1".to_owned())]);
    let (none, replica) = (ExternalLabels::default(), ExternalLabels::new(&replica));
    for (name, external, batches) in [
        ("plain", &none, plain),
        ("plain_with_external_label", &replica, plain),
        ("packed", &none, packed),
    ] {
        let outgoing = Arc::new(Outgoing::new(external.clone(), Vec::new()));
        let mut outgoing = OutgoingLabels::new(outgoing, OUTGOING_BYTES_MAX);
        let mut encoder = RemoteWriteV1::new();
        if name == "packed" {
            // As an endpoint has it: samples of one series are not looked for there.
            encoder = encoder.with_templates(&std::env::temp_dir(), BYTES_MAX, Arc::default());
        }
        measure(&mut group, name, batches, |batch| {
            outgoing.begin();
            let outgoing = &outgoing;
            let labels = |one: SeriesRef| outgoing.labels(u64::from(one.get()), table.of(one));
            encoder.set_generation(0);
            encoder.encode(batch, labels).unwrap().body.len()
        });
    }
    let mut encoder = RemoteWriteV1::new();
    measure(
        &mut group,
        "packed_and_compressed_by_snap",
        packed,
        |batch| {
            encoder
                .encode(batch, |one| table.of(one))
                .unwrap()
                .body
                .len()
        },
    );
    let strings: Vec<_> = (0..SERIES).map(labels).collect();
    let samples: Vec<_> = self::plain();
    group.sample_size(10).bench_function("prost", |bencher| {
        bencher.iter(|| {
            for (labels, samples) in strings.chunks(PER_BATCH).zip(samples.chunks(PER_BATCH)) {
                black_box(encode_with_prost(labels, samples));
            }
        });
    });
    group.finish();
}

fn encode_v2(criterion: &mut Criterion, [plain, packed]: [&[Batch]; 2], table: &Table) {
    let mut group = criterion.benchmark_group("remote_write_v2");
    group.throughput(Throughput::Elements(u64::from(SERIES)));
    for (name, described, batches) in [
        ("plain", false, plain),
        ("plain_with_metadata", true, plain),
        ("packed", false, packed),
    ] {
        let metadata = Arc::new(MetadataCache::default());
        if described {
            describe(&metadata);
        }
        let mut encoder = RemoteWriteV2::new(metadata);
        measure(&mut group, name, batches, |batch| {
            encoder
                .encode(batch, |one| table.of(one))
                .unwrap()
                .body
                .len()
        });
    }
    group.finish();
}

/// Metadata for every metric.
fn describe(metadata: &MetadataCache) {
    for subject in SUBJECTS {
        for aspect in ASPECTS {
            let message = MetricMetadata {
                kind: 1,
                name: format!("{subject}_{aspect}"),
                help: format!("What {subject} is about, in {aspect}."),
            };
            metadata.learn(&message.encode_to_vec());
        }
    }
}

/// From strings and samples to a compressed body, as generated code does it.
fn encode_with_prost(labels: &[Vec<(&'static str, String)>], samples: &[Sample]) -> usize {
    let series = labels
        .iter()
        .zip(samples)
        .map(|(labels, sample)| TimeSeries {
            labels: labels
                .iter()
                .map(|(name, value)| Label {
                    name: (*name).to_owned(),
                    value: value.clone(),
                })
                .collect(),
            samples: vec![PbSample {
                value: f64::from_bits(sample.value_bits),
                timestamp: sample.timestamp_ms,
            }],
        });
    let message = WriteRequest {
        timeseries: series.collect(),
    }
    .encode_to_vec();
    snap::raw::Encoder::new()
        .compress_vec(&message)
        .unwrap()
        .len()
}

criterion_group!(benches, all);
criterion_main!(benches);
