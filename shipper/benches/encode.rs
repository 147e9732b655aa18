//! What does a sample cost from batch to compressed body, next to prost doing the same?
//!
//! 100k series as a Kubernetes cluster has them: 11 labels, about 321 encoded bytes each; one
//! sample per series, 2000 per batch, in ref order.

#![allow(missing_docs, reason = "criterion's macros")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use prost::Message;
use shipper::ack::FrameNumber;
use shipper::batch::Batch;
use shipper::encode::{RemoteWriteV1, RemoteWriteV2};
use shipper::labels::{ExternalLabels, canonical};
use shipper::metadata::MetadataCache;
use shipper::outgoing::{OUTGOING_BYTES_MAX, Outgoing, OutgoingLabels};
use wal::{Sample, SeriesRef};

const SERIES: u32 = 100_000;
const PER_BATCH: usize = 2000;
const METRICS_PER_TARGET: u32 = 250;

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

/// What a metric is called: half of one and half of another.
const SUBJECTS: [&str; 10] = [
    "container_cpu_usage",
    "container_fs_writes",
    "container_memory_working_set",
    "container_network_receive_packets",
    "kube_pod_container_status",
    "kubelet_runtime_operations",
    "process_resident_memory",
    "rest_client_request_duration",
    "storage_operation_duration",
    "workqueue_queue_duration",
];
const ASPECTS: [&str; 5] = [
    "seconds_total",
    "bytes",
    "bucket",
    "errors_total",
    "last_seen",
];

fn labels(series: u32) -> Vec<(&'static str, String)> {
    let (target, metric) = (
        series / METRICS_PER_TARGET,
        (series % METRICS_PER_TARGET) as usize,
    );
    let node = target % 100;
    let name = format!("{}_{}", SUBJECTS[metric / 5 % 10], ASPECTS[metric % 5]);
    vec![
        ("__name__", name),
        ("cluster", "prod-eu-1".into()),
        ("container", format!("checkout-{}", target % 20)),
        (
            "device",
            format!("/dev/nvme{}n1p{}", metric / 50, metric % 7),
        ),
        ("instance", format!("10.42.{node}.{}:10250", target % 250)),
        ("job", "kubelet-cadvisor".into()),
        ("namespace", format!("team-{:02}-production", target % 30)),
        ("node", format!("ip-10-42-{node}-17.internal")),
        ("pod", format!("checkout-7d9f8b6c5d-{target:05}")),
        ("service", "kubelet-svc".into()),
        (
            "zone",
            format!("eu-west-1{}", ["a", "b", "c"][target as usize % 3]),
        ),
    ]
}

fn sample(series: u32) -> Sample {
    // a counter somewhere on its way up
    let value = f64::from(series.wrapping_mul(2_654_435_761) >> 12);
    Sample {
        series: SeriesRef::new(series + 1),
        timestamp_ms: 1_760_000_000_000,
        value_bits: value.to_bits(),
    }
}

fn encode(criterion: &mut Criterion) {
    let strings: Vec<_> = (0..SERIES).map(labels).collect();
    let table: Vec<Vec<u8>> = strings
        .iter()
        .map(|labels| {
            canonical(
                &labels
                    .iter()
                    .map(|(n, v)| (*n, v.as_str()))
                    .collect::<Vec<_>>(),
            )
        })
        .collect();
    let bytes: usize = table.iter().map(Vec::len).sum();
    println!("{} label bytes per series", bytes / table.len());
    let samples: Vec<_> = (0..SERIES).map(sample).collect();
    let batches: Vec<Batch> = samples
        .chunks(PER_BATCH)
        .map(|samples| {
            let mut batch = Batch::default();
            batch.push(
                FrameNumber::new(0),
                samples.iter().copied(),
                std::iter::empty(),
            );
            batch
        })
        .collect();
    let labels_of = |series: SeriesRef| &*table[series.index() - 1];

    let mut group = criterion.benchmark_group("remote_write_v1");
    group.throughput(Throughput::Elements(u64::from(SERIES)));
    let external = BTreeMap::from([("replica".to_owned(), "1".to_owned())]);
    for (name, external) in [
        ("copied", ExternalLabels::default()),
        ("copied_with_external_label", ExternalLabels::new(&external)),
    ] {
        let outgoing = Arc::new(Outgoing::new(external, Vec::new()));
        let mut outgoing = OutgoingLabels::new(outgoing, OUTGOING_BYTES_MAX);
        let mut encoder = RemoteWriteV1::new();
        let mut encode = |batch: &Batch| {
            outgoing.begin();
            let outgoing = &outgoing;
            let labels = |one: SeriesRef| outgoing.labels(u64::from(one.get()), labels_of(one));
            encoder.encode(batch, labels).unwrap().body.len()
        };
        let wire: usize = batches.iter().map(&mut encode).sum();
        println!(
            "{name}: {:.1} bytes per sample",
            wire as f64 / samples.len() as f64
        );
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for batch in &batches {
                    black_box(encode(batch));
                }
            });
        });
    }
    group.sample_size(10).bench_function("prost", |bencher| {
        bencher.iter(|| {
            for (labels, samples) in strings.chunks(PER_BATCH).zip(samples.chunks(PER_BATCH)) {
                black_box(encode_with_prost(labels, samples));
            }
        });
    });
    group.finish();
    encode_v2(criterion, &batches, labels_of);
}

fn encode_v2<'a>(
    criterion: &mut Criterion,
    batches: &[Batch],
    labels_of: impl Fn(SeriesRef) -> &'a [u8] + Copy,
) {
    let mut group = criterion.benchmark_group("remote_write_v2");
    group.throughput(Throughput::Elements(u64::from(SERIES)));
    for (name, described) in [("plain", false), ("with_metadata", true)] {
        let metadata = Arc::new(MetadataCache::default());
        if described {
            describe(&metadata);
        }
        let mut encoder = RemoteWriteV2::new(metadata);
        let wire: usize = batches
            .iter()
            .map(|batch| encoder.encode(batch, labels_of).unwrap().body.len())
            .sum();
        println!(
            "{name}: {:.1} bytes per sample",
            wire as f64 / f64::from(SERIES)
        );
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for batch in batches {
                    black_box(encoder.encode(batch, labels_of).unwrap().body.len());
                }
            });
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

criterion_group!(benches, encode);
criterion_main!(benches);
