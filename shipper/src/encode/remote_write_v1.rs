//! Turns a batch into a remote-write 1.0 body: `prometheus.WriteRequest`, snappy block format.
//!
//! The log keeps labels as the bytes this protocol wants, so encoding is copying: per series a tag,
//! a length, the label bytes and the sample. Other records are copied as the messages they are.
//!
//! # Invariants
//! - Records appear in batch order. Neighbouring samples of one series share a `TimeSeries`, also where
//!   they are of different frames.
//! - Value bits are copied, never computed with: a stale marker is a signalling NaN.
//! - The message is the same, byte for byte, whether templates are used or not.
//! - Value and timestamp are written even when zero, so that all samples have the same shape; to a
//!   protobuf reader that is the same message.
//!
//! # Failure
//! - Records of a series without (readable) labels are left out and counted, and so are histograms
//!   with custom buckets, which this protocol must not carry.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use wal::{DropReason, RecordKind, Sample, SeriesRef, StartedSample};

use super::start::without_start;
use super::template::{Body, Labels, Step, TemplateStats, Templates};
use super::{Encoded, LeftOut};
use crate::batch::{Batch, OwnedRecord, Part};
use crate::stats::Counts;
use labels::wire::{
    FIELD_1_BYTES, FIELD_1_FIXED64, FIELD_2_BYTES, FIELD_2_VARINT, FIELD_3_BYTES, FIELD_4_BYTES,
    Fields, VARINT_BYTES_MAX, Value, len_u64, put_bytes, put_varint, varint_len, write_varint,
};

/// Schema number of histograms with custom buckets, as the zigzag varint it is on the wire (-53).
const CUSTOM_BUCKETS_SCHEMA: u64 = 105;
/// The field of `prometheus.Histogram` that holds the schema.
const SCHEMA_FIELD: u64 = 4;
/// Tag, length, tag and value: what a sample takes before its timestamp.
pub(super) const SAMPLE_HEAD_BYTES: usize = 12;

/// The encoder of one shard; keeps its buffers from batch to batch.
pub struct RemoteWriteV1 {
    body: Body,
    left_out: Vec<LeftOut>,
    templates: Option<Templates>,
    /// The generation of the refs of the next batch.
    generation: Option<u64>,
}

impl std::fmt::Debug for RemoteWriteV1 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteWriteV1").finish_non_exhaustive()
    }
}

impl Default for RemoteWriteV1 {
    fn default() -> Self {
        Self::new()
    }
}

impl RemoteWriteV1 {
    /// An encoder with empty buffers and without templates.
    #[must_use]
    pub fn new() -> Self {
        Self {
            body: Body::new(),
            left_out: Vec::new(),
            templates: None,
            generation: None,
        }
    }

    /// The same with so many bytes for templates of runs that come again and again, most of them in files
    /// without a name in this directory.
    #[must_use]
    pub fn with_templates(
        mut self,
        dir: &Path,
        bytes_max: usize,
        stats: Arc<TemplateStats>,
    ) -> Self {
        self.templates = Some(Templates::new(dir, bytes_max, stats));
        self
    }

    /// Allows templates in the next batch, and in no other. While its labels are looked up, refs are
    /// of this generation (see [`wal::SeriesTable::generation`]): ask for it under the same guard.
    pub fn set_generation(&mut self, generation: u64) {
        self.generation = Some(generation);
    }

    /// Encodes the records of `batch`; `labels` gives the canonical label bytes to send a series
    /// with, empty if it has none.
    ///
    /// # Errors
    /// If the body is larger than snappy can say (4 GiB).
    pub fn encode<'a>(
        &mut self,
        batch: &Batch,
        labels: impl Fn(SeriesRef) -> &'a [u8],
    ) -> Result<Encoded<'_>, snap::Error> {
        self.body.clear();
        self.left_out.clear();
        let mut sent = Counts::default();
        let labels = Labels {
            of: labels,
            generation: self.generation.take(),
        };
        for part in batch.parts() {
            sent += self.put_all_samples(&part, &labels)?;
            for record in part.raw {
                let mut counts = Counts::default();
                counts.add_record(record.kind);
                if !is_supported(record) {
                    self.leave_out(part.last_run(), DropReason::CustomBuckets, counts);
                } else if self.put_record(record, (labels.of)(record.series)) {
                    sent += counts;
                } else {
                    self.leave_out(part.last_run(), DropReason::UnknownSeries, counts);
                }
            }
        }
        if let Some(templates) = &mut self.templates {
            templates.count();
        }
        Ok(Encoded {
            body: self.body.finish()?,
            sent,
            left_out: &self.left_out,
        })
    }

    /// Puts the samples of a part: runs with a template from that, all others as they are.
    fn put_all_samples<'a, F: Fn(SeriesRef) -> &'a [u8]>(
        &mut self,
        part: &Part<'_>,
        labels: &Labels<F>,
    ) -> Result<Counts, snap::Error> {
        let mut sent = Counts::default();
        let mut at = 0;
        while at < part.samples.len() {
            let samples = &part.samples[at..];
            let step = match (&mut self.templates, labels.generation) {
                (Some(templates), Some(_)) => templates.next(samples, labels, &mut self.body)?,
                _ => Step::Plain(samples.len()),
            };
            match step {
                Step::Done(samples) => {
                    sent += Counts::of_samples(samples);
                    at += samples;
                }
                Step::Plain(samples) => {
                    sent += self.put_plain_samples(part, at..at + samples, labels);
                    at += samples;
                }
            }
        }
        Ok(sent)
    }

    /// Puts some samples of a part, and leaves out those of unknown series.
    fn put_plain_samples<'a, F: Fn(SeriesRef) -> &'a [u8]>(
        &mut self,
        part: &Part<'_>,
        range: Range<usize>,
        labels: &Labels<F>,
    ) -> Counts {
        let mut sent = Counts::default();
        let mut at = range.start;
        for of_series in part.samples[range].chunk_by(|a, b| a.series == b.series) {
            let start = at;
            at += of_series.len();
            if self.put_samples(of_series, (labels.of)(of_series[0].series)) {
                sent += Counts::of_samples(of_series.len());
                continue;
            }
            for (run, samples) in part.runs_of(start..at) {
                let counts = Counts::of_samples(samples);
                self.leave_out(run, DropReason::UnknownSeries, counts);
            }
        }
        sent
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
        if labels.is_empty() {
            return false;
        }
        put_series(self.body.message(), labels, samples);
        true
    }

    /// Puts one raw record. False if it has a series and that has no labels.
    fn put_record(&mut self, record: &OwnedRecord, labels: &[u8]) -> bool {
        let tag = match record.kind {
            RecordKind::Metadata => {
                put_bytes(self.body.message(), FIELD_3_BYTES, &record.bytes);
                return true;
            }
            RecordKind::Exemplar => FIELD_3_BYTES,
            RecordKind::Histogram => FIELD_4_BYTES,
            RecordKind::StartedSample => {
                return StartedSample::from_bytes(&record.bytes)
                    .is_some_and(|started| self.put_started(record.series, started, labels));
            }
        };
        if labels.is_empty() {
            return false;
        }
        let bytes = without_start(&record.bytes);
        let field = 1 + varint_len(len_u64(bytes.len())) + bytes.len();
        put_series_head(self.body.message(), labels, field);
        put_bytes(self.body.message(), tag, &bytes);
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

/// Puts one `TimeSeries` with these samples, all of one series.
pub(super) fn put_series(message: &mut Vec<u8>, labels: &[u8], samples: &[Sample]) {
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
}

/// Starts a `TimeSeries` of these labels and `fields` more bytes.
pub(super) fn put_series_head(message: &mut Vec<u8>, labels: &[u8], fields: usize) {
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
mod tests;
