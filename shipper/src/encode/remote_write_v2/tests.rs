//! Turns handwritten and generated batches into verdicts on the encoder, with prost to read bodies.

use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::ack::FrameNumber;
use labels::canonical;

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
    exemplars: Vec<ExemplarV2>,
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

#[derive(Clone, PartialEq, Message)]
struct ExemplarV2 {
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

#[derive(Clone, PartialEq, Eq, Message)]
struct Histogram {
    #[prost(sint32, tag = "4")]
    schema: i32,
    #[prost(int64, tag = "15")]
    timestamp: i64,
    #[prost(int64, tag = "17")]
    start_timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Exemplar {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(double, tag = "2")]
    value: f64,
    #[prost(int64, tag = "3")]
    timestamp: i64,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct MetricMetadata {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "4")]
    help: String,
    #[prost(string, tag = "5")]
    unit: String,
}

/// A `TimeSeries` with its strings.
#[derive(Clone, PartialEq, Debug, Default)]
struct Resolved {
    labels: Vec<(String, String)>,
    samples: Vec<PbSample>,
    histograms: Vec<Histogram>,
    exemplars: Vec<Exemplar>,
    metadata: Option<(i32, String, String)>,
}

/// Reads a body as a strict receiver does.
fn decode(body: &[u8]) -> Vec<Resolved> {
    let message = snap::raw::Decoder::new().decompress_vec(body).unwrap();
    let request = Request::decode(&*message).unwrap();
    let symbols = &request.symbols;
    assert_eq!(symbols[0], "");
    let mut unique = symbols.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), symbols.len(), "every symbol once");
    let text = |number: u32| symbols[number as usize].clone();
    let labels = |refs: &[u32]| -> Vec<_> {
        assert!(refs.len().is_multiple_of(2));
        refs.chunks(2)
            .map(|pair| (text(pair[0]), text(pair[1])))
            .collect()
    };
    let exemplar = |exemplar: &ExemplarV2| Exemplar {
        labels: labels(&exemplar.labels_refs)
            .into_iter()
            .map(|(name, value)| Label { name, value })
            .collect(),
        value: exemplar.value,
        timestamp: exemplar.timestamp,
    };
    let resolved = request.timeseries.iter().map(|series| {
        assert!(series.samples.is_empty() || series.histograms.is_empty());
        Resolved {
            labels: labels(&series.labels_refs),
            samples: series.samples.clone(),
            histograms: series.histograms.clone(),
            exemplars: series.exemplars.iter().map(exemplar).collect(),
            metadata: series
                .metadata
                .as_ref()
                .map(|m| (m.kind, text(m.help_ref), text(m.unit_ref))),
        }
    });
    resolved.collect()
}

fn sample(series: u32, timestamp_ms: i64, value_bits: u64) -> Sample {
    Sample {
        series: SeriesRef::new(series),
        timestamp_ms,
        value_bits,
    }
}

fn record(series: u32, kind: RecordKind, bytes: &[u8]) -> OwnedRecord {
    OwnedRecord {
        series: SeriesRef::new(series),
        kind,
        bytes: bytes.into(),
    }
}

fn started(series: u32, timestamp_ms: i64, start_ms: i64) -> OwnedRecord {
    let sample = StartedSample {
        timestamp_ms,
        value_bits: 7,
        start_ms,
    };
    record(series, RecordKind::StartedSample, &sample.to_bytes())
}

fn exemplar(timestamp: i64) -> Exemplar {
    Exemplar {
        labels: vec![Label {
            name: "trace_id".into(),
            value: "t".into(),
        }],
        value: 0.5,
        timestamp,
    }
}

fn batch(samples: &[Sample], raw: &[OwnedRecord]) -> Batch {
    let mut batch = Batch::default();
    let frame = FrameNumber::new(0);
    batch.push(frame, &[samples], raw.iter().cloned());
    batch
}

type Table = Vec<Vec<(&'static str, &'static str)>>;

fn table() -> Table {
    vec![
        vec![("__name__", "up"), ("instance", "i"), ("job", "j")],
        vec![
            ("__name__", "d_seconds_bucket"),
            ("instance", "i"),
            ("job", "j"),
            ("le", "1"),
        ],
        vec![("A", "first"), ("__name__", "up"), ("job", "__name__")],
        vec![("__name__", "up"), ("job", "j")],
    ]
}

fn strings(labels: &[(&str, &str)]) -> Vec<(String, String)> {
    let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    labels.iter().map(pair).collect()
}

/// Encodes with series 1, 2, ... of the table; all others are unknown.
fn encoded(encoder: &mut RemoteWriteV2, batch: &Batch) -> (Vec<Resolved>, Counts, Vec<LeftOut>) {
    let bytes: Vec<Vec<u8>> = table().iter().map(|labels| canonical(labels)).collect();
    let labels = |series: SeriesRef| {
        let at = series.index().checked_sub(1);
        at.and_then(|at| bytes.get(at)).map_or(&[][..], |l| l)
    };
    let encoded = encoder.encode(batch, labels).unwrap();
    (
        decode(encoded.body),
        encoded.sent,
        encoded.left_out.to_vec(),
    )
}

fn encoder() -> RemoteWriteV2 {
    RemoteWriteV2::new(Arc::default())
}

#[test]
fn exemplars_go_with_the_samples_of_their_series_once() {
    let at = |series, ts| record(series, RecordKind::Exemplar, &exemplar(ts).encode_to_vec());
    let raw = [at(2, 20), at(1, 10), at(1, 11), at(4, 40)];
    let samples = [sample(1, 1, 1), sample(2, 1, 1), sample(1, 2, 1)];
    let (series, sent, _) = encoded(&mut encoder(), &batch(&samples, &raw));
    let found: Vec<_> = series
        .iter()
        .map(|s| s.exemplars.iter().map(|e| e.timestamp).collect::<Vec<_>>())
        .collect();
    assert_eq!(found, [vec![10, 11], vec![20], vec![], vec![40]]);
    assert_eq!(series[0].exemplars[0], exemplar(10));
    assert_eq!((sent.samples, sent.exemplars), (3, 4));
}

#[test]
fn samples_and_histograms_of_a_series_are_apart_and_keep_their_start() {
    let histogram = Histogram {
        schema: -53,
        timestamp: 9,
        start_timestamp: 3,
    };
    let bytes = histogram.encode_to_vec();
    let raw = [
        started(1, 5, 2),
        record(1, RecordKind::Histogram, &bytes),
        record(1, RecordKind::Exemplar, &exemplar(1).encode_to_vec()),
        started(1, 6, 0),
    ];
    let (series, sent, left_out) = encoded(&mut encoder(), &batch(&[], &raw));
    let times = |s: &PbSample| (s.timestamp, s.start_timestamp);
    assert_eq!(series.len(), 2);
    let found: Vec<_> = series[0].samples.iter().map(times).collect();
    assert_eq!(found, [(5, 2), (6, 0)]);
    assert_eq!(series[0].exemplars, [exemplar(1)]);
    assert_eq!(series[1].histograms, [histogram]);
    assert_eq!((sent.samples, sent.histograms, sent.exemplars), (2, 1, 1));
    assert!(left_out.is_empty());
}

#[test]
fn what_is_known_of_a_metric_goes_with_its_series() {
    let cache = Arc::new(MetadataCache::default());
    let metadata = |name: &str| MetricMetadata {
        kind: 3,
        name: name.into(),
        help: format!("about {name}"),
        unit: "seconds".into(),
    };
    cache.learn(&metadata("d_seconds").encode_to_vec());
    let mut encoder = RemoteWriteV2::new(Arc::clone(&cache));
    let samples = [sample(1, 1, 1), sample(2, 1, 1)];
    let (series, ..) = encoded(&mut encoder, &batch(&samples, &[]));
    assert_eq!(series[0].metadata, None);
    let expected = (3, "about d_seconds".to_owned(), "seconds".to_owned());
    assert_eq!(series[1].metadata, Some(expected));
    cache.learn(&metadata("up").encode_to_vec());
    let (series, ..) = encoded(&mut encoder, &batch(&[sample(3, 1, 1)], &[]));
    let help = &series[0].metadata.as_ref().unwrap().1;
    assert_eq!(help, "about up", "the name is not the first label");
}

#[test]
fn a_metric_name_behind_a_changed_label_is_still_the_metric() {
    let series = ["1", "2"].map(|a| canonical(&[("A", a), ("__name__", "up"), ("job", "j")]));
    let cache = Arc::new(MetadataCache::default());
    let metadata = MetricMetadata {
        name: "up".into(),
        help: "is it".into(),
        ..MetricMetadata::default()
    };
    cache.learn(&metadata.encode_to_vec());
    let mut encoder = RemoteWriteV2::new(cache);
    let samples = [sample(1, 1, 1), sample(2, 1, 1)];
    let labels = |of: SeriesRef| &*series[of.index() - 1];
    let found = decode(encoder.encode(&batch(&samples, &[]), labels).unwrap().body);
    for (series, a) in found.iter().zip(["1", "2"]) {
        assert_eq!(
            series.labels,
            strings(&[("A", a), ("__name__", "up"), ("job", "j")])
        );
        assert_eq!(series.metadata.as_ref().unwrap().1, "is it");
    }
}

#[test]
fn what_cannot_be_sent_is_left_out_and_counted() {
    let raw = [
        record(9, RecordKind::Exemplar, &[]),
        record(1, RecordKind::Exemplar, &[0x0a, 9]),
        record(1, RecordKind::StartedSample, &[1]),
    ];
    let samples = [sample(9, 1, 1), sample(1, 1, 1)];
    let (series, sent, left_out) = encoded(&mut encoder(), &batch(&samples, &raw));
    assert_eq!(series.len(), 1);
    assert_eq!(sent, Counts::of_samples(1));
    let of = |reason| {
        let mut counts = Counts::default();
        for left in left_out.iter().filter(|left| left.reason == reason) {
            counts += left.counts;
        }
        counts
    };
    let one_each = Counts {
        samples: 1,
        exemplars: 1,
        ..Counts::default()
    };
    assert_eq!(of(DropReason::UnknownSeries), one_each);
    assert_eq!(of(DropReason::CorruptFrame), one_each);
}

#[test]
fn malformed_labels_do_not_leak_into_the_next_series() {
    let good = canonical(&[("__name__", "up"), ("job", "j")]);
    let other = canonical(&[("__name__", "ab"), ("job", "j")]);
    let broken = &good[..good.len() - 1];
    let samples = [sample(1, 1, 1), sample(2, 1, 1), sample(3, 1, 1)];
    let mut encoder = encoder();
    let labels = |series: SeriesRef| match series.index() {
        1 => &*good,
        2 => broken,
        _ => &*other,
    };
    let encoded = encoder.encode(&batch(&samples, &[]), labels).unwrap();
    let series = decode(encoded.body);
    assert_eq!(series.len(), 2);
    assert_eq!(
        series[1].labels,
        strings(&[("__name__", "ab"), ("job", "j")])
    );
    assert_eq!(encoded.left_out[0].counts, Counts::of_samples(1));
}

proptest! {
    /// One encoder for two batches: nothing of the first shows in the second.
    #[test]
    fn body_is_what_prost_would_say(
        batches in prop::collection::vec(
            prop::collection::vec((1..5u32, any::<i64>(), any::<u64>()), 0..60), 1..3),
    ) {
        let mut encoder = encoder();
        for samples in batches {
            let samples: Vec<_> = samples.into_iter().map(|(s, t, v)| sample(s, t, v)).collect();
            let of_series = samples.chunk_by(|a, b| a.series == b.series);
            let expected: Vec<_> = of_series
                .map(|same| Resolved {
                    labels: strings(&table()[same[0].series.index() - 1]),
                    samples: same
                        .iter()
                        .map(|s| PbSample {
                            value_bits: s.value_bits,
                            timestamp: s.timestamp_ms,
                            start_timestamp: 0,
                        })
                        .collect(),
                    ..Resolved::default()
                })
                .collect();
            let (found, sent, left_out) = encoded(&mut encoder, &batch(&samples, &[]));
            prop_assert_eq!(found, expected);
            prop_assert_eq!(sent, Counts::of_samples(samples.len()));
            prop_assert!(left_out.is_empty());
        }
    }
}
