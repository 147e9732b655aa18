//! Turns a batch into a remote-write 1.0 body: `prometheus.WriteRequest`, snappy block format.
//!
//! The log keeps labels as the bytes this protocol wants, so encoding is copying: per series a tag,
//! a length, the label bytes and the sample. Other records are copied as the messages they are.
//!
//! # Invariants
//! - Records appear in batch order. Neighbouring samples of one series share a `TimeSeries`, also where
//!   they are of different frames.
//! - Value bits are copied, never computed with: a stale marker is a signalling NaN.
//! - Value and timestamp are written even when zero, so that all samples have the same shape; to a
//!   protobuf reader that is the same message.
//!
//! # Failure
//! - Records of a series without (readable) labels are left out and counted, and so are histograms
//!   with custom buckets, which this protocol must not carry.

use wal::{DropReason, RecordKind, Sample, SeriesRef, StartedSample};

use super::start::without_start;
use super::{Encoded, LeftOut};
use crate::batch::{Batch, OwnedRecord};
use crate::labels::ExternalLabels;
use crate::stats::Counts;
use crate::wire::{
    FIELD_1_BYTES, FIELD_1_FIXED64, FIELD_2_BYTES, FIELD_2_VARINT, FIELD_3_BYTES, FIELD_4_BYTES,
    Fields, VARINT_BYTES_MAX, Value, len_u64, put_bytes, put_varint, varint_len, write_varint,
};

/// Schema number of histograms with custom buckets, as the zigzag varint it is on the wire (-53).
const CUSTOM_BUCKETS_SCHEMA: u64 = 105;
/// The field of `prometheus.Histogram` that holds the schema.
const SCHEMA_FIELD: u64 = 4;
/// Tag, length, tag and value: what a sample takes before its timestamp.
const SAMPLE_HEAD_BYTES: usize = 12;

/// The encoder of one shard; keeps its buffers from batch to batch.
pub struct RemoteWriteV1 {
    external: ExternalLabels,
    merged: Vec<u8>,
    message: Vec<u8>,
    compressed: Vec<u8>,
    left_out: Vec<LeftOut>,
    snappy: snap::raw::Encoder,
}

impl std::fmt::Debug for RemoteWriteV1 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteWriteV1")
            .field("external", &self.external)
            .finish_non_exhaustive()
    }
}

impl RemoteWriteV1 {
    /// An encoder that adds `external` to every series.
    #[must_use]
    pub fn new(external: ExternalLabels) -> Self {
        Self {
            external,
            merged: Vec::new(),
            message: Vec::new(),
            compressed: Vec::new(),
            left_out: Vec::new(),
            snappy: snap::raw::Encoder::new(),
        }
    }

    /// Encodes the records of `batch`; `labels` gives the canonical label bytes of a series, empty
    /// if it has none.
    ///
    /// # Errors
    /// If the body is larger than snappy can say (4 GiB).
    pub fn encode<'a>(
        &mut self,
        batch: &Batch,
        labels: impl Fn(SeriesRef) -> &'a [u8],
    ) -> Result<Encoded<'_>, snap::Error> {
        self.message.clear();
        self.left_out.clear();
        let mut sent = Counts::default();
        for part in batch.parts() {
            let mut at = 0;
            for of_series in part.samples.chunk_by(|a, b| a.series == b.series) {
                let start = at;
                at += of_series.len();
                if self.put_samples(of_series, labels(of_series[0].series)) {
                    sent += Counts::of_samples(of_series.len());
                    continue;
                }
                for (run, samples) in part.runs_of(start..at) {
                    let counts = Counts::of_samples(samples);
                    self.leave_out(run, DropReason::UnknownSeries, counts);
                }
            }
            for record in part.raw {
                let mut counts = Counts::default();
                counts.add_record(record.kind);
                if !is_supported(record) {
                    self.leave_out(part.last_run(), DropReason::CustomBuckets, counts);
                } else if self.put_record(record, labels(record.series)) {
                    sent += counts;
                } else {
                    self.leave_out(part.last_run(), DropReason::UnknownSeries, counts);
                }
            }
        }
        let compressed_bytes_max = snap::raw::max_compress_len(self.message.len());
        if self.compressed.len() < compressed_bytes_max {
            self.compressed.resize(compressed_bytes_max, 0);
        }
        let bytes = self.snappy.compress(&self.message, &mut self.compressed)?;
        Ok(Encoded {
            body: &self.compressed[..bytes],
            sent,
            left_out: &self.left_out,
        })
    }

    /// Notes records that do not go into the request.
    fn leave_out(&mut self, run: usize, reason: DropReason, counts: Counts) {
        match self.left_out.last_mut() {
            Some(last) if last.run == run && last.reason == reason => last.counts += counts,
            _ => self.left_out.push(LeftOut {
                run,
                reason,
                counts,
            }),
        }
    }

    /// Puts one `TimeSeries` with these samples, all of one series. False if it has no labels.
    fn put_samples(&mut self, samples: &[Sample], labels: &[u8]) -> bool {
        let Some(labels) = with_external(&self.external, labels, &mut self.merged) else {
            return false;
        };
        let message = &mut self.message;
        let fields: usize = samples.iter().map(|s| 2 + sample_len(s)).sum();
        put_series_head(message, labels, fields);
        for sample in samples {
            // one append of the longest form, then cut: cheaper than four small appends
            let mut field = [0; SAMPLE_HEAD_BYTES + VARINT_BYTES_MAX];
            field[0] = FIELD_2_BYTES;
            // at most 20 bytes, so the length is one byte
            write_varint(&mut field[1..], len_u64(sample_len(sample)));
            field[2] = FIELD_1_FIXED64;
            field[3..11].copy_from_slice(&sample.value_bits.to_le_bytes());
            field[11] = FIELD_2_VARINT;
            let len = write_varint(&mut field[SAMPLE_HEAD_BYTES..], timestamp(sample));
            message.extend_from_slice(&field[..SAMPLE_HEAD_BYTES + len]);
        }
        true
    }

    /// Puts one raw record. False if it has a series and that has no labels.
    fn put_record(&mut self, record: &OwnedRecord, labels: &[u8]) -> bool {
        let tag = match record.kind {
            RecordKind::Metadata => {
                put_bytes(&mut self.message, FIELD_3_BYTES, &record.bytes);
                return true;
            }
            RecordKind::Exemplar => FIELD_3_BYTES,
            RecordKind::Histogram => FIELD_4_BYTES,
            RecordKind::StartedSample => {
                return StartedSample::from_bytes(&record.bytes)
                    .is_some_and(|started| self.put_started(record.series, started, labels));
            }
        };
        let Some(labels) = with_external(&self.external, labels, &mut self.merged) else {
            return false;
        };
        let bytes = without_start(&record.bytes);
        let field = 1 + varint_len(len_u64(bytes.len())) + bytes.len();
        put_series_head(&mut self.message, labels, field);
        put_bytes(&mut self.message, tag, &bytes);
        true
    }

    /// Puts a sample without its start timestamp, for which this protocol has no place.
    fn put_started(&mut self, series: SeriesRef, started: StartedSample, labels: &[u8]) -> bool {
        let sample = Sample {
            series,
            timestamp_ms: started.timestamp_ms,
            value_bits: started.value_bits,
        };
        self.put_samples(&[sample], labels)
    }
}

/// The labels to send, or `None` if the series is unknown.
fn with_external<'a>(
    external: &ExternalLabels,
    labels: &'a [u8],
    merged: &'a mut Vec<u8>,
) -> Option<&'a [u8]> {
    if labels.is_empty() {
        return None;
    }
    if external.is_empty() {
        return Some(labels);
    }
    external.merge(labels, merged).ok()?;
    Some(merged)
}

/// Starts a `TimeSeries` of these labels and `fields` more bytes.
fn put_series_head(message: &mut Vec<u8>, labels: &[u8], fields: usize) {
    message.reserve(1 + VARINT_BYTES_MAX + labels.len() + fields);
    message.push(FIELD_1_BYTES);
    put_varint(message, len_u64(labels.len() + fields));
    message.extend_from_slice(labels);
}

/// Length of the `Sample` message.
fn sample_len(sample: &Sample) -> usize {
    // tag and value, tag and timestamp
    9 + 1 + varint_len(timestamp(sample))
}

/// The timestamp as protobuf's `int64`: two's complement.
fn timestamp(sample: &Sample) -> u64 {
    sample.timestamp_ms.cast_unsigned()
}

/// Whether remote write 1.0 has a form for it. Bytes that are no message are the receiver's to
/// judge.
fn is_supported(record: &OwnedRecord) -> bool {
    if record.kind != RecordKind::Histogram {
        return true;
    }
    let mut fields = Fields::new(&record.bytes);
    while let Ok(Some((number, value))) = fields.next() {
        if number == SCHEMA_FIELD {
            return value != Value::Varint(CUSTOM_BUCKETS_SCHEMA);
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::ack::FrameNumber;
    use crate::labels::canonical;

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
        batch.push(FRAME, samples.iter().copied(), raw.iter().cloned());
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
        let mut encoder = RemoteWriteV1::new(ExternalLabels::default());
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
        let mut encoder = RemoteWriteV1::new(ExternalLabels::default());
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
            batch.push(frame, samples.iter().copied(), [exemplar].into_iter());
        }
        let mut encoder = RemoteWriteV1::new(ExternalLabels::default());
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
        let mut encoder = RemoteWriteV1::new(ExternalLabels::default());
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
        let mut encoder = RemoteWriteV1::new(ExternalLabels::default());
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
            [sample(1, 2, 7)].into_iter(),
            std::iter::empty(),
        );
        let mut encoder = RemoteWriteV1::new(ExternalLabels::default());
        let request = decode(encoder.encode(&batch, labels_of(&table)).unwrap().body);
        assert_eq!(request.timeseries[0].histograms.len(), 1);
        assert_eq!(request.timeseries[1].samples.len(), 1);
    }

    #[test]
    fn external_labels_are_added_to_every_kind() {
        let table = table(&[&[("__name__", "up")]]);
        let external = BTreeMap::from([("cluster".to_owned(), "c".to_owned())]);
        let raw = [record(
            1,
            RecordKind::Exemplar,
            &Exemplar {
                timestamp: 3,
                ..Default::default()
            },
        )];
        let mut encoder = RemoteWriteV1::new(ExternalLabels::new(&external));
        let encoded = encoder
            .encode(&batch(&[sample(1, 1, 1)], &raw), labels_of(&table))
            .unwrap();
        for series in decode(encoded.body).timeseries {
            assert_eq!(
                series.labels,
                pb_labels(&[("__name__", "up"), ("cluster", "c")])
            );
        }
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
            let mut encoder = RemoteWriteV1::new(ExternalLabels::default());
            let encoded = encoder.encode(&batch(&samples, &raw), labels_of(&table)).unwrap();
            prop_assert_eq!(decode(encoded.body).timeseries, expected);
        }
    }
}
