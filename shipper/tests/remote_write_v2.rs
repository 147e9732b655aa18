//! Turns requests of remote write 2.0 into the verdict of a strict receiver, and its answers into
//! what must follow.

use std::collections::BTreeMap;

use crate::common::{
    Backend, LONG, Log, MetricMetadata, Received, Reply, options, until, value_bits,
};
use prost::Message;
use shipper::{Counts, EndpointOptions, ProtobufMessage, Stopped};
use wal::{RawRecord, RecordKind, Sample, SeriesRef, StartedSample};

#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(string, repeated, tag = "4")]
    symbols: Vec<String>,
    #[prost(message, repeated, tag = "5")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(uint32, repeated, tag = "1")]
    labels_refs: Vec<u32>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<PbSample>,
    #[prost(message, repeated, tag = "3")]
    histograms: Vec<Histogram>,
    #[prost(message, repeated, tag = "4")]
    exemplars: Vec<Exemplar>,
    #[prost(message, optional, tag = "5")]
    metadata: Option<Metadata>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct PbSample {
    #[prost(fixed64, tag = "1")]
    value_bits: u64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
    #[prost(int64, tag = "3")]
    start_timestamp: i64,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Histogram {
    #[prost(int64, tag = "15")]
    timestamp: i64,
    #[prost(int64, tag = "17")]
    start_timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Exemplar {
    #[prost(uint32, repeated, tag = "1")]
    labels_refs: Vec<u32>,
    #[prost(double, tag = "2")]
    value: f64,
    #[prost(int64, tag = "3")]
    timestamp: i64,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Metadata {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(uint32, tag = "3")]
    help_ref: u32,
    #[prost(uint32, tag = "4")]
    unit_ref: u32,
}

/// Reads a request as strictly as the protocol allows.
fn strict(received: &Received) -> Request {
    for (name, value) in [
        (
            "content-type",
            "application/x-protobuf;proto=io.prometheus.write.v2.Request",
        ),
        ("content-encoding", "snappy"),
        ("x-prometheus-remote-write-version", "2.0.0"),
    ] {
        assert_eq!(received.header(name), Some(value));
    }
    assert!(received.header("user-agent").is_some());
    let message = snap::raw::Decoder::new()
        .decompress_vec(&received.body)
        .unwrap();
    let request = Request::decode(&*message).unwrap();
    assert_eq!(request.symbols[0], "");
    let mut unique = request.symbols.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), request.symbols.len(), "every symbol once");
    for series in &request.timeseries {
        assert!(series.samples.is_empty() != series.histograms.is_empty());
        let labels = labels(&request, &series.labels_refs);
        assert!(labels.is_sorted_by(|a, b| a.0 < b.0), "{labels:?}");
        assert!(
            labels
                .iter()
                .all(|(name, value)| !name.is_empty() && !value.is_empty())
        );
        for exemplar in &series.exemplars {
            self::labels(&request, &exemplar.labels_refs);
        }
    }
    request
}

fn labels(request: &Request, refs: &[u32]) -> Vec<(String, String)> {
    assert!(refs.len().is_multiple_of(2), "{refs:?}");
    let text = |number: u32| request.symbols[number as usize].clone();
    refs.chunks(2)
        .map(|pair| (text(pair[0]), text(pair[1])))
        .collect()
}

fn counts(request: &Request) -> [usize; 3] {
    let series = &request.timeseries;
    [
        series.iter().map(|s| s.samples.len()).sum(),
        series.iter().map(|s| s.histograms.len()).sum(),
        series.iter().map(|s| s.exemplars.len()).sum(),
    ]
}

/// An answer that says how much was written.
fn written(status: u16, counts: [usize; 3]) -> Reply {
    let names = [
        "x-prometheus-remote-write-samples-written",
        "x-prometheus-remote-write-histograms-written",
        "x-prometheus-remote-write-exemplars-written",
    ];
    let headers = names.into_iter().zip(counts.map(|count| count.to_string()));
    Reply::Status(status, headers.collect(), String::new())
}

fn take(received: &Received) -> Reply {
    written(200, counts(&strict(received)))
}

fn is_v2(received: &Received) -> bool {
    received.header("x-prometheus-remote-write-version") == Some("2.0.0")
}

fn v2(url: &str) -> EndpointOptions {
    let mut options = options("a", url);
    options.protobuf_message = ProtobufMessage::V2;
    options.send_native_histograms = true;
    (options.queue.min_shards, options.queue.max_shards) = (1, 1);
    options
}

fn samples(count: u64) -> Counts {
    Counts {
        samples: count,
        ..Counts::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_strict_receiver_gets_every_sample_once_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let backend = Backend::start(|_, received| take(received)).await;
    let series = log.series(57);
    log.write(&series, 0..20).await;
    let mut options = v2(&backend.url());
    options.queue.max_shards = 4;
    let endpoint = log.ship(options);
    log.write(&series, 20..40).await;
    let stats = endpoint.stats();
    until(|| stats.snapshot().sent == samples(57 * 40)).await;
    let mut found: BTreeMap<_, Vec<i64>> = BTreeMap::new();
    for received in backend.seen() {
        let request = strict(&received);
        for series in &request.timeseries {
            let of_series = found
                .entry(labels(&request, &series.labels_refs))
                .or_default();
            for sample in &series.samples {
                assert_eq!(sample.value_bits, value_bits(sample.timestamp));
                of_series.push(sample.timestamp);
            }
        }
    }
    assert_eq!(found.len(), 57);
    for times in found.values() {
        assert!(times.iter().copied().eq(0..40), "{times:?}");
    }
    assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
    assert!(log.is_acked("a"));
    log.close();
}

/// A sample with start timestamp, a histogram with one, an exemplar and metadata.
async fn append_every_kind(log: &mut Log) {
    let series = log.series(2);
    let started = StartedSample {
        timestamp_ms: 5,
        value_bits: 0x7ff0_0000_0000_0002,
        start_ms: 3,
    }
    .to_bytes();
    let histogram = Histogram {
        timestamp: 6,
        start_timestamp: 4,
    }
    .encode_to_vec();
    let exemplar = crate::common::Exemplar {
        value: 0.5,
        timestamp: 7,
    }
    .encode_to_vec();
    let metadata = MetricMetadata {
        kind: 1,
        metric_family_name: "metric_0".into(),
    }
    .encode_to_vec();
    let record = |series, kind, bytes| RawRecord {
        series,
        kind,
        bytes,
    };
    let records = [
        record(SeriesRef::NONE, RecordKind::Metadata, &*metadata),
        record(series[0], RecordKind::StartedSample, &started),
        record(series[0], RecordKind::Exemplar, &exemplar),
        record(series[1], RecordKind::Histogram, &histogram),
    ];
    log.append(&[], &records).await;
}

const EVERY_KIND: Counts = Counts {
    samples: 1,
    exemplars: 1,
    histograms: 1,
    metadata: 0,
};

#[tokio::test]
async fn start_timestamps_exemplars_and_metadata_go_with_their_series() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let backend = Backend::start(|_, received| take(received)).await;
    let endpoint = log.ship(v2(&backend.url()));
    append_every_kind(&mut log).await;
    let stats = endpoint.stats();
    until(|| stats.snapshot().sent == EVERY_KIND).await;
    let seen = backend.seen();
    let requests: Vec<_> = seen.iter().map(strict).collect();
    let [counter, histogram] = &*requests[0].timeseries else {
        panic!("{requests:?}");
    };
    let sample = PbSample {
        value_bits: 0x7ff0_0000_0000_0002,
        timestamp: 5,
        start_timestamp: 3,
    };
    assert_eq!(counter.samples, [sample]);
    assert_eq!(counter.exemplars[0].timestamp, 7);
    assert_eq!(counter.metadata.as_ref().unwrap().kind, 1);
    assert_eq!(histogram.histograms[0].start_timestamp, 4);
    assert_eq!(histogram.metadata, None);
    assert_eq!(stats.snapshot().highest_sent_ms, Some(5));
    assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
    assert!(log.is_acked("a"), "metadata holds up nothing");
    log.close();
}

#[tokio::test]
async fn remote_write_1_has_no_start_timestamps_and_loses_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let backend = Backend::start(|_, _| Reply::ok()).await;
    let mut options = v2(&backend.url());
    options.protobuf_message = ProtobufMessage::V1;
    let endpoint = log.ship(options);
    append_every_kind(&mut log).await;
    let stats = endpoint.stats();
    let expected = Counts {
        metadata: 1,
        ..EVERY_KIND
    };
    until(|| stats.snapshot().sent == expected).await;
    let dropped = stats.snapshot().dropped;
    assert!(
        dropped
            .iter()
            .all(|(_, counts)| *counts == Counts::default())
    );
    for received in backend.seen() {
        let message = snap::raw::Decoder::new()
            .decompress_vec(&received.body)
            .unwrap();
        let start = Histogram {
            timestamp: 0,
            start_timestamp: 4,
        };
        let start = start.encode_to_vec();
        assert!(!message.windows(start.len()).any(|bytes| bytes == start));
    }
    assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
    assert!(log.is_acked("a"));
    log.close();
}

#[tokio::test]
async fn an_answer_that_says_nothing_was_written_is_no_success() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let backend = Backend::start(|_, _| Reply::ok()).await;
    let series = log.series(3);
    log.write(&series, 0..1).await;
    let mut options = v2(&backend.url());
    options.fallback_to_v1 = false;
    let endpoint = log.ship(options);
    let stats = endpoint.stats();
    until(|| stats.snapshot().failed.contains_key("not_written")).await;
    assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
    let numbers = stats.snapshot();
    assert_eq!(numbers.failed["not_written"], samples(3));
    assert_eq!(numbers.sent, Counts::default());
    assert_eq!(backend.seen().len(), 1, "it is not repeated");
    assert!(log.is_acked("a"));
    log.close();
}

#[tokio::test]
async fn a_receiver_of_1_that_takes_everything_for_empty_is_sent_1() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let backend = Backend::start(|_, _| Reply::ok()).await;
    let series = log.series(3);
    log.write(&series, 0..1).await;
    let endpoint = log.ship(v2(&backend.url()));
    let stats = endpoint.stats();
    until(|| stats.snapshot().sent == samples(3)).await;
    assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
    assert!(stats.snapshot().failed.is_empty());
    let seen = backend.seen();
    let versions: Vec<_> = (seen.iter())
        .map(|r| r.header("x-prometheus-remote-write-version").unwrap())
        .collect();
    assert_eq!(versions, ["2.0.0", "0.1.0"]);
    assert_eq!(seen[1].sample_count(), 3, "the same batch");
    log.close();
}

#[tokio::test]
async fn a_partial_refusal_is_counted_exactly_and_not_sent_again() {
    for status in [400, 200] {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::open(dir.path());
        let backend = Backend::start(move |_, received| {
            let [samples, ..] = counts(&strict(received));
            written(status, [samples - 2, 0, 0])
        })
        .await;
        let series = log.series(7);
        log.write(&series, 0..1).await;
        let endpoint = log.ship(v2(&backend.url()));
        let stats = endpoint.stats();
        until(|| stats.snapshot().failed_total() == samples(2)).await;
        assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
        let numbers = stats.snapshot();
        assert_eq!(numbers.sent, samples(5));
        assert_eq!(numbers.pending, Counts::default());
        assert_eq!(backend.seen().len(), 1);
        assert!(log.is_acked("a"));
        let account = log.store.endpoint("a").unwrap().account();
        assert_eq!(account.tally.delivered, 5);
        assert_eq!(account.tally.dropped(wal::DropReason::Refused), 2);
        log.close();
    }
}

#[tokio::test]
async fn a_refusal_that_wrote_nothing_is_narrowed_down() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let backend = Backend::start(|_, received| {
        let request = strict(received);
        let is_bad = |series: &TimeSeries| labels(&request, &series.labels_refs)[0].1 == "metric_3";
        if request.timeseries.iter().any(is_bad) {
            written(400, [0; 3])
        } else {
            written(200, counts(&request))
        }
    })
    .await;
    let series = log.series(8);
    log.write(&series, 0..1).await;
    let endpoint = log.ship(v2(&backend.url()));
    let stats = endpoint.stats();
    until(|| stats.snapshot().sent == samples(7)).await;
    assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
    assert_eq!(stats.snapshot().failed["http_400"], samples(1));
    assert!(log.is_acked("a"));
    log.close();
}

#[tokio::test]
async fn an_endpoint_that_does_not_know_v2_is_sent_v1_until_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let backend =
        Backend::start(|_, received| Reply::status(if is_v2(received) { 415 } else { 204 })).await;
    let series = log.series(3);
    for round in 0..2 {
        let before = backend.seen().len();
        let endpoint = log.ship(v2(&backend.url()));
        for timestamp in [2 * round, 2 * round + 1] {
            log.write(&series, timestamp..timestamp + 1).await;
            backend
                .until_samples(3 * usize::try_from(timestamp + 1).unwrap())
                .await;
        }
        let stats = endpoint.stats();
        assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
        assert_eq!(stats.snapshot().sent, samples(6));
        assert_eq!(stats.snapshot().failed, BTreeMap::new());
        let seen = backend.seen();
        let versions: Vec<_> = seen[before..].iter().map(is_v2).collect();
        assert_eq!(
            versions,
            [true, false, false],
            "asked once, in round {round}"
        );
    }
    crate::common::assert_delivered_once(&backend.seen(), 3, 0..4);
    log.close();
}

#[tokio::test]
async fn without_fallback_415_is_a_refusal() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let backend = Backend::start(|_, _| Reply::status(415)).await;
    let series = log.series(3);
    log.write(&series, 0..1).await;
    let mut options = v2(&backend.url());
    options.fallback_to_v1 = false;
    let endpoint = log.ship(options);
    let stats = endpoint.stats();
    until(|| stats.snapshot().failed.contains_key("http_415")).await;
    assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
    assert_eq!(stats.snapshot().failed["http_415"], samples(3));
    assert!(backend.seen().iter().all(is_v2));
    log.close();
}

#[tokio::test]
async fn metadata_of_v1_goes_out_when_it_is_new_and_again_every_interval() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let backend = Backend::start(|_, _| Reply::ok()).await;
    let mut options = options("a", &backend.url());
    options.metadata.send_interval = std::time::Duration::from_secs(1);
    options.metadata.max_samples_per_send = 1;
    let endpoint = log.ship(options);
    let sample = Sample {
        series: log.series(1)[0],
        ..Sample::default()
    };
    for name in ["a", "b", "b", "a"] {
        let bytes = MetricMetadata {
            kind: 2,
            metric_family_name: name.into(),
        }
        .encode_to_vec();
        let record = RawRecord {
            series: SeriesRef::NONE,
            kind: RecordKind::Metadata,
            bytes: &bytes,
        };
        log.append(&[sample], &[record]).await;
    }
    until(|| log.is_acked("a")).await;
    let names = |seen: &[Received]| -> Vec<String> {
        let all = seen.iter().flat_map(|r| r.request.metadata.clone());
        all.map(|m| m.metric_family_name).collect()
    };
    let seen = backend.until(|seen| names(seen).len() >= 6).await;
    assert_eq!(names(&seen)[..6], ["a", "b", "a", "b", "a", "b"]);
    let account = log.store.endpoint("a").unwrap().account();
    assert_eq!(
        account.tally.delivered, 8,
        "what is known counts as delivered"
    );
    endpoint.stop(LONG).await;
    log.close();
}
