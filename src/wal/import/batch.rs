//! Turns items one after the other into batches a frame can hold.
//!
//! # Invariants
//! - A frame has its samples before its messages. A series that changes from histograms to floats
//!   must not be turned round: no sample joins a batch that has a histogram.

use std::ops::Range;

use prost::Message;
use wal::{RawRecord, RecordKind, Sample, SeriesRef};

/// Longest message: far beyond any histogram, and a few fit the smallest frame.
pub(crate) const RAW_BYTES_MAX: usize = 1 << 20;
const SAMPLES_MAX: usize = 8192;

/// What is appended next.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    samples: Vec<Sample>,
    raw: Vec<(SeriesRef, RecordKind, Range<usize>)>,
    bytes: Vec<u8>,
    has_histogram: bool,
}

impl Batch {
    /// Whether it has what a batch should have at most.
    pub(crate) fn is_full(&self) -> bool {
        self.samples.len() >= SAMPLES_MAX || self.bytes.len() >= RAW_BYTES_MAX
    }

    /// Whether a sample has to wait for the next batch.
    pub(crate) fn must_go_before_sample(&self) -> bool {
        self.has_histogram || self.is_full()
    }

    pub(crate) fn sample(&mut self, sample: Sample) {
        debug_assert!(!self.must_go_before_sample());
        self.samples.push(sample);
    }

    pub(crate) fn raw(&mut self, series: SeriesRef, kind: RecordKind, message: &impl Message) {
        let start = self.bytes.len();
        message
            .encode(&mut self.bytes)
            .expect("a vector has room for every message");
        self.raw.push((series, kind, start..self.bytes.len()));
        self.has_histogram |= kind == RecordKind::Histogram;
    }

    /// Calls `with` with everything.
    pub(crate) fn with<T>(&self, with: impl FnOnce(&[Sample], &[RawRecord<'_>]) -> T) -> T {
        let raw = self.raw.iter().map(|(series, kind, range)| RawRecord {
            series: *series,
            kind: *kind,
            bytes: self.bytes.get(range.clone()).unwrap_or_default(),
        });
        with(&self.samples, &raw.collect::<Vec<_>>())
    }

    pub(crate) fn clear(&mut self) {
        self.samples.clear();
        self.raw.clear();
        self.bytes.clear();
        self.has_histogram = false;
    }
}
