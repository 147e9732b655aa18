//! Turns handwritten and generated batches into verdicts on the encoder, with prost to read bodies.

use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::ack::FrameNumber;
use labels::canonical;

#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
    #[prost(message, repeated, tag = "3")]
    metadata: Vec<MetricMetadata>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<PbSample>,
    #[prost(message, repeated, tag = "3")]
    exemplars: Vec<Exemplar>,
    #[prost(message, repeated, tag = "4")]
    histograms: Vec<Histogram>,
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
    // fixed64 has the wire form of double and compares by bits
    #[prost(fixed64, tag = "1")]
    value_bits: u64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
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

#[derive(Clone, PartialEq, Message)]
struct Histogram {
    #[prost(uint64, tag = "1")]
    count: u64,
    #[prost(double, tag = "3")]
    sum: f64,
    #[prost(sint32, tag = "4")]
    schema: i32,
    #[prost(int64, tag = "15")]
    timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
struct MetricMetadata {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(string, tag = "2")]
    metric_family_name: String,
    #[prost(string, tag = "4")]
    help: String,
}

const FRAME: FrameNumber = FrameNumber::new(0);

fn sample(series: u32, timestamp_ms: i64, value_bits: u64) -> Sample {
    Sample {
        series: SeriesRef::new(series),
        timestamp_ms,
        value_bits,
    }
}

fn record(series: u32, kind: RecordKind, message: &impl Message) -> OwnedRecord {
    let bytes = message.encode_to_vec().into();
    OwnedRecord {
        series: SeriesRef::new(series),
        kind,
        bytes,
    }
}

fn batch(samples: &[Sample], raw: &[OwnedRecord]) -> Batch {
    let mut batch = Batch::default();
    batch.push(FRAME, &[samples], raw.iter().cloned());
    batch
}

/// Series 1, 2, ... of the table; all others are unknown.
fn table(series: &[&[(&str, &str)]]) -> Vec<Vec<u8>> {
    series.iter().map(|labels| canonical(labels)).collect()
}

fn labels_of<'a>(table: &'a [Vec<u8>]) -> impl Fn(SeriesRef) -> &'a [u8] {
    move |series| {
        series
            .index()
            .checked_sub(1)
            .and_then(|i| table.get(i))
            .map_or(&[][..], |l| l)
    }
}

fn decode(body: &[u8]) -> WriteRequest {
    let message = snap::raw::Decoder::new().decompress_vec(body).unwrap();
    WriteRequest::decode(&*message).unwrap()
}

fn pb_labels(labels: &[(&str, &str)]) -> Vec<Label> {
    let pair = |(n, v): &(&str, &str)| Label {
        name: (*n).into(),
        value: (*v).into(),
    };
    labels.iter().map(pair).collect()
}

#[test]
fn stale_marker_zero_and_negative_zero_survive_bit_for_bit() {
    let table = table(&[&[("__name__", "up")]]);
    let bits = [
        0x7ff0_0000_0000_0002,
        0,
        (-0.0f64).to_bits(),
        f64::NAN.to_bits(),
    ];
    let samples: Vec<_> = bits.iter().map(|bits| sample(1, 0, *bits)).collect();
    let mut encoder = RemoteWriteV1::new();
    let encoded = encoder
        .encode(&batch(&samples, &[]), labels_of(&table))
        .unwrap();
    let request = decode(encoded.body);
    let got: Vec<_> = request.timeseries[0]
        .samples
        .iter()
        .map(|s| s.value_bits)
        .collect();
    assert_eq!(got, bits);
}

#[test]
fn series_without_labels_is_left_out_and_counted() {
    let table = table(&[&[("__name__", "up")]]);
    let samples = [
        sample(1, 1, 1),
        sample(2, 1, 1),
        sample(2, 2, 1),
        sample(0, 1, 1),
    ];
    let raw = [record(2, RecordKind::Exemplar, &Exemplar::default())];
    let mut encoder = RemoteWriteV1::new();
    let encoded = encoder
        .encode(&batch(&samples, &raw), labels_of(&table))
        .unwrap();
    assert_eq!(decode(encoded.body).timeseries.len(), 1);
    assert_eq!(
        encoded.sent,
        Counts {
            samples: 1,
            ..Counts::default()
        }
    );
    assert_eq!(
        encoded.left_out,
        [LeftOut {
            run: 0,
            reason: DropReason::UnknownSeries,
            counts: Counts {
                samples: 3,
                exemplars: 1,
                ..Counts::default()
            },
        }]
    );
}

#[test]
fn samples_of_a_series_share_a_message_across_frames_and_are_left_out_by_frame() {
    let table = table(&[&[("__name__", "up")]]);
    let mut batch = Batch::default();
    let frames: [&[Sample]; 2] = [
        &[sample(1, 1, 1)],
        &[sample(1, 2, 1), sample(2, 1, 1), sample(2, 2, 1)],
    ];
    for (number, samples) in (0..).zip(frames) {
        let exemplar = record(2, RecordKind::Exemplar, &Exemplar::default());
        let frame = FrameNumber::new(number);
        batch.push(frame, &[samples], [exemplar].into_iter());
    }
    let mut encoder = RemoteWriteV1::new();
    let encoded = encoder.encode(&batch, labels_of(&table)).unwrap();
    let request = decode(encoded.body);
    assert_eq!(request.timeseries.len(), 2, "an exemplar stands between");
    let left: Vec<_> = (encoded.left_out.iter())
        .map(|left| (left.run, left.counts.samples, left.counts.exemplars))
        .collect();
    assert_eq!(left, [(0, 0, 1), (1, 2, 1)]);
}

#[test]
fn custom_bucket_histogram_is_left_out_and_counted() {
    let table = table(&[&[("__name__", "h")]]);
    let custom = Histogram {
        count: 3,
        schema: -53,
        ..Histogram::default()
    };
    let exponential = Histogram {
        count: 3,
        schema: 3,
        ..Histogram::default()
    };
    let raw = [
        record(1, RecordKind::Histogram, &custom),
        record(1, RecordKind::Histogram, &exponential),
    ];
    let mut encoder = RemoteWriteV1::new();
    let encoded = encoder
        .encode(&batch(&[], &raw), labels_of(&table))
        .unwrap();
    assert_eq!(encoded.left_out[0].reason, DropReason::CustomBuckets);
    assert_eq!(encoded.left_out[0].counts.histograms, 1);
    let request = decode(encoded.body);
    assert_eq!(request.timeseries.len(), 1);
    assert_eq!(request.timeseries[0].histograms, [exponential]);
}

#[test]
fn metadata_is_copied_into_its_own_field() {
    let metadata = MetricMetadata {
        kind: 1,
        metric_family_name: "up".into(),
        help: "is it".into(),
    };
    let raw = [record(0, RecordKind::Metadata, &metadata)];
    let mut encoder = RemoteWriteV1::new();
    let encoded = encoder.encode(&batch(&[], &raw), labels_of(&[])).unwrap();
    assert_eq!(encoded.sent.metadata, 1);
    assert_eq!(
        decode(encoded.body),
        WriteRequest {
            timeseries: Vec::new(),
            metadata: vec![metadata],
        }
    );
}

#[test]
fn records_of_a_frame_stay_before_those_of_the_next() {
    let table = table(&[&[("__name__", "h")]]);
    let histogram = Histogram {
        count: 1,
        timestamp: 1,
        ..Histogram::default()
    };
    let mut batch = batch(&[], &[record(1, RecordKind::Histogram, &histogram)]);
    batch.push(
        FrameNumber::new(1),
        &[&[sample(1, 2, 7)]],
        std::iter::empty(),
    );
    let mut encoder = RemoteWriteV1::new();
    let request = decode(encoder.encode(&batch, labels_of(&table)).unwrap().body);
    assert_eq!(request.timeseries[0].histograms.len(), 1);
    assert_eq!(request.timeseries[1].samples.len(), 1);
}

proptest! {
    #[test]
    fn body_is_what_prost_would_say(
        samples in proptest::collection::vec(
            (1..4u32, any::<i64>(), any::<u64>()).prop_map(|(s, t, v)| sample(s, t, v)), 0..50),
        exemplars in proptest::collection::vec((1..4u32, any::<i64>()), 0..5),
        value in "[a-z]{1,300}",
    ) {
        let names: [&[(&str, &str)]; 3] = [
            &[("__name__", "up")],
            &[("__name__", "up"), ("instance", &value)],
            &[("__name__", &value), ("instance", "i"), ("job", &value)],
        ];
        let table = table(&names);
        let series_of = |series: u32| TimeSeries {
            labels: pb_labels(names[series as usize - 1]),
            ..TimeSeries::default()
        };
        let mut expected: Vec<TimeSeries> = Vec::new();
        for same in samples.chunk_by(|a, b| a.series == b.series) {
            let mut series = series_of(same[0].series.get());
            series.samples.extend(same.iter().map(|s| PbSample {
                value_bits: s.value_bits,
                timestamp: s.timestamp_ms,
            }));
            expected.push(series);
        }
        let mut raw = Vec::new();
        for (of, timestamp) in exemplars {
            let exemplar =
                Exemplar { labels: pb_labels(&[("trace_id", "t")]), value: 0.5, timestamp };
            raw.push(record(of, RecordKind::Exemplar, &exemplar));
            let mut series = series_of(of);
            series.exemplars.push(exemplar);
            expected.push(series);
        }
        let mut encoder = RemoteWriteV1::new();
        let encoded = encoder.encode(&batch(&samples, &raw), labels_of(&table)).unwrap();
        prop_assert_eq!(decode(encoded.body).timeseries, expected);
    }
}
