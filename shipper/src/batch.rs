//! Turns queued records into the content of one request.
//!
//! A batch keeps arrival order, frame by frame: the samples of a frame, then its other records.
//! It knows how many records of which frame it holds, which is what the ack window is told.
//!
//! # Limits
//! - `max_samples_per_send` records, and `RAW_BYTES_MAX` of records that are kept as bytes.

use wal::{RecordKind, Sample, SeriesRef};

use crate::ack::{Done, FrameNumber};
use crate::stats::Counts;

/// Raw record bytes that close a batch. Histograms may be kilobytes each, and receivers refuse
/// bodies of tens of megabytes.
pub(crate) const RAW_BYTES_MAX: usize = 4 << 20;

/// A record that is its wire message, on its way from the log to a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnedRecord {
    /// The series; [`SeriesRef::NONE`] for metadata.
    pub series: SeriesRef,
    /// What the bytes are.
    pub kind: RecordKind,
    /// The protobuf message.
    pub bytes: Box<[u8]>,
}

/// Neighbouring records of one frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    pub(crate) frame: FrameNumber,
    pub(crate) samples: usize,
    pub(crate) raw: usize,
}

/// The records of one request, in the order they were tailed.
#[derive(Debug, Default)]
pub struct Batch {
    pub(crate) samples: Vec<Sample>,
    pub(crate) raw: Vec<OwnedRecord>,
    pub(crate) runs: Vec<Run>,
    raw_bytes: usize,
}

impl Batch {
    /// Forgets the records, keeps the memory.
    pub fn clear(&mut self) {
        self.samples.clear();
        self.raw.clear();
        self.runs.clear();
        self.raw_bytes = 0;
    }

    /// Takes records of one frame; they come after everything that is already here.
    pub fn push(
        &mut self,
        frame: FrameNumber,
        samples: impl Iterator<Item = Sample>,
        raw: impl Iterator<Item = OwnedRecord>,
    ) {
        let (samples_before, raw_before) = (self.samples.len(), self.raw.len());
        self.samples.extend(samples);
        for record in raw {
            self.raw_bytes += record.bytes.len();
            self.raw.push(record);
        }
        let samples = self.samples.len() - samples_before;
        self.runs.push(Run {
            frame,
            samples,
            raw: self.raw.len() - raw_before,
        });
    }

    /// Records of all kinds.
    pub(crate) fn records(&self) -> usize {
        self.samples.len() + self.raw.len()
    }

    pub(crate) fn raw_bytes(&self) -> usize {
        self.raw_bytes
    }

    /// Records by kind.
    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::of_samples(self.samples.len());
        for record in &self.raw {
            counts.add_record(record.kind);
        }
        counts
    }

    /// What the ack window is told when the batch has come to its end.
    pub(crate) fn done(&self) -> impl Iterator<Item = Done> {
        self.runs.iter().map(|run| Done {
            frame: run.frame,
            records: run.samples + run.raw,
        })
    }

    /// The newest sample.
    pub(crate) fn highest_timestamp_ms(&self) -> Option<i64> {
        self.samples.iter().map(|sample| sample.timestamp_ms).max()
    }
}
