//! Turns queued records into the content of one request.
//!
//! A batch keeps the order of each series; its runs say which frame each record is of, which is what
//! the ack window is told. Of a run the samples come first, then its other records.
//!
//! # Limits
//! - `max_samples_per_send` records, and `RAW_BYTES_MAX` of records that are kept as bytes.

use std::ops::Range;

use wal::{DropReason, RecordKind, Sample, SeriesRef, StartedSample};

use crate::ack::{Done, FrameNumber};
use crate::encode::LeftOut;
use crate::stats::Counts;
use labels::wire::len_u64;

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
    /// The protobuf message, or a [`StartedSample`].
    pub bytes: Box<[u8]>,
}

impl OwnedRecord {
    /// The timestamp of a sample with a start timestamp.
    pub(crate) fn started_ms(&self) -> Option<i64> {
        if self.kind != RecordKind::StartedSample {
            return None;
        }
        StartedSample::from_bytes(&self.bytes).map(|started| started.timestamp_ms)
    }
}

/// Neighbouring records of one frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    pub(crate) frame: FrameNumber,
    pub(crate) samples: usize,
    pub(crate) raw: usize,
}

impl Run {
    /// Records of all kinds.
    pub(crate) const fn records(&self) -> usize {
        self.samples + self.raw
    }
}

/// The records of one request, those of each series in the order they were tailed.
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

    /// Takes records of one frame; they come after everything that is already here. The samples are those
    /// of all slices.
    pub fn push(
        &mut self,
        frame: FrameNumber,
        samples: &[&[Sample]],
        raw: impl Iterator<Item = OwnedRecord>,
    ) {
        let (samples_before, raw_before) = (self.samples.len(), self.raw.len());
        for samples in samples {
            self.samples.extend_from_slice(samples);
        }
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

    /// Takes one sample; it comes after everything that is already here.
    #[inline]
    pub(crate) fn push_sample(&mut self, frame: FrameNumber, sample: Sample) {
        self.samples.push(sample);
        match self.runs.last_mut() {
            // of a run the samples come first
            Some(run) if run.frame == frame && run.raw == 0 => run.samples += 1,
            _ => self.runs.push(Run {
                frame,
                samples: 1,
                raw: 0,
            }),
        }
    }

    /// Takes one other record; it comes after everything that is already here.
    pub(crate) fn push_raw(&mut self, frame: FrameNumber, record: OwnedRecord) {
        self.raw_bytes += record.bytes.len();
        self.raw.push(record);
        match self.runs.last_mut() {
            Some(run) if run.frame == frame => run.raw += 1,
            _ => self.runs.push(Run {
                frame,
                samples: 0,
                raw: 1,
            }),
        }
    }

    /// Records of all kinds.
    pub(crate) fn records(&self) -> usize {
        self.samples.len() + self.raw.len()
    }

    /// The records in order, in as few parts as there can be.
    pub(crate) fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        let (mut samples, mut raw) = (&*self.samples, &*self.raw);
        let mut first_run = 0;
        self.runs
            .split_inclusive(|run| run.raw > 0)
            .map(move |runs| {
                let count = runs.iter().map(|run| run.samples).sum();
                let part = Part {
                    samples: samples.split_off(..count).unwrap_or_default(),
                    raw: (raw.split_off(..runs.last().map_or(0, |run| run.raw)))
                        .unwrap_or_default(),
                    first_run,
                    runs,
                };
                first_run += runs.len();
                part
            })
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

    /// The frames it has records of.
    pub(crate) fn frames(&self) -> impl Iterator<Item = FrameNumber> {
        self.runs.iter().map(|run| run.frame)
    }

    /// What the ack window is told when the batch has come to its end: what was not left out was
    /// delivered, or `dropped` for this reason but for `written` records. Which those were is not
    /// known; the first are taken for them.
    pub(crate) fn done(
        &self,
        left_out: &[LeftOut],
        dropped: Option<DropReason>,
        mut written: u64,
    ) -> Vec<Done> {
        if left_out.is_empty() && written == 0 {
            return self.all_done(dropped);
        }
        let mut left_out = left_out.iter().peekable();
        let mut done = Vec::with_capacity(self.runs.len());
        for (number, run) in self.runs.iter().enumerate() {
            let mut rest = Done {
                frame: run.frame,
                records: len_u64(run.records()),
                dropped,
            };
            while let Some(left) = left_out.next_if(|left| left.run == number) {
                let records = left.counts.total();
                rest.records -= records;
                done.push(Done {
                    records,
                    dropped: Some(left.reason),
                    ..rest
                });
            }
            if dropped.is_some() && written > 0 {
                let records = rest.records.min(written);
                (rest.records, written) = (rest.records - records, written - records);
                done.push(Done {
                    records,
                    dropped: None,
                    ..rest
                });
            }
            done.push(rest);
        }
        done
    }

    /// The same where all records came to the same end: once per frame, as a batch of series has
    /// records of few frames in many runs.
    fn all_done(&self, dropped: Option<DropReason>) -> Vec<Done> {
        let done = |frame: FrameNumber, records: u64| Done {
            frame,
            records,
            dropped,
        };
        let (first, last) = self.frames().fold((u64::MAX, 0), |(first, last), frame| {
            (first.min(frame.get()), last.max(frame.get()))
        });
        let range = usize::try_from(last.saturating_sub(first)).unwrap_or(usize::MAX);
        if range >= 2 * self.runs.len() {
            let runs = self.runs.iter();
            return runs
                .map(|run| done(run.frame, len_u64(run.records())))
                .collect();
        }
        let mut records = vec![0; range + 1];
        for run in &self.runs {
            let at = usize::try_from(run.frame.get() - first).unwrap_or(usize::MAX);
            records[at] += len_u64(run.records());
        }
        let numbered = (first..).zip(records);
        numbered
            .filter(|(_, records)| *records > 0)
            .map(|(frame, records)| done(FrameNumber::new(frame), records))
            .collect()
    }

    /// Whether the last record is a sample whose series has no other sample here, so that it may go
    /// before the others without disorder.
    pub(crate) fn last_series_is_single(&self) -> bool {
        let Some((last, others)) = self.samples.split_last() else {
            return false;
        };
        self.runs.last().is_some_and(|run| run.raw == 0)
            && others.iter().all(|sample| sample.series != last.series)
    }

    /// Cuts the batch behind its first `records` records; answers with the rest.
    ///
    /// # Panics
    /// If there are not that many.
    pub(crate) fn split_off(&mut self, records: usize) -> Self {
        let mut rest = Self::default();
        let (mut samples, mut raw, mut left) = (0, 0, records);
        let mut kept = Vec::with_capacity(self.runs.len());
        for run in self.runs.drain(..) {
            let first = Run {
                samples: run.samples.min(left),
                raw: run.raw.min(left.saturating_sub(run.samples)),
                ..run
            };
            left -= first.samples + first.raw;
            (samples, raw) = (samples + first.samples, raw + first.raw);
            let second = Run {
                samples: run.samples - first.samples,
                raw: run.raw - first.raw,
                ..run
            };
            kept.extend(Some(first).filter(|run| run.samples + run.raw > 0));
            rest.runs
                .extend(Some(second).filter(|run| run.samples + run.raw > 0));
        }
        assert_eq!(left, 0, "cut inside the batch");
        self.runs = kept;
        rest.samples = self.samples.split_off(samples);
        rest.raw = self.raw.split_off(raw);
        rest.raw_bytes = rest.raw.iter().map(|record| record.bytes.len()).sum();
        self.raw_bytes -= rest.raw_bytes;
        rest
    }

    /// The newest sample.
    pub(crate) fn highest_timestamp_ms(&self) -> Option<i64> {
        let plain = self.samples.iter().map(|sample| sample.timestamp_ms);
        plain
            .chain(self.raw.iter().filter_map(OwnedRecord::started_ms))
            .max()
    }
}

/// Neighbouring runs: samples, then other records, which are all of the last run.
#[derive(Debug)]
pub(crate) struct Part<'a> {
    pub(crate) samples: &'a [Sample],
    pub(crate) raw: &'a [OwnedRecord],
    first_run: usize,
    runs: &'a [Run],
}

impl Part<'_> {
    /// The number of the last run.
    pub(crate) const fn last_run(&self) -> usize {
        self.first_run + self.runs.len() - 1
    }

    /// The numbers of the runs that some of the samples are of, each with how many of them. Looks at
    /// all runs: for what is rare.
    pub(crate) fn runs_of(&self, samples: Range<usize>) -> Vec<(usize, usize)> {
        let mut end = 0;
        let numbered = (self.first_run..).zip(self.runs).map(|(number, run)| {
            let start = end;
            end += run.samples;
            let overlap = end
                .min(samples.end)
                .saturating_sub(start.max(samples.start));
            (number, overlap)
        });
        numbered.filter(|(_, overlap)| *overlap > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn batch(runs: &[(usize, usize)]) -> Batch {
        let mut batch = Batch::default();
        let mut number = 0;
        let mut next = || {
            number += 1;
            number
        };
        for (frame, &(samples, raw)) in runs.iter().enumerate() {
            let samples: Vec<_> = (0..samples)
                .map(|_| Sample {
                    series: SeriesRef::new(next()),
                    ..Sample::default()
                })
                .collect();
            let raw: Vec<_> = (0..raw)
                .map(|_| OwnedRecord {
                    series: SeriesRef::new(next()),
                    kind: RecordKind::Exemplar,
                    bytes: vec![0; 3].into(),
                })
                .collect();
            let frame = FrameNumber::new(frame as u64);
            batch.push(frame, &[&samples], raw.into_iter());
        }
        batch
    }

    /// The series of all records in order, and the frame each belongs to.
    fn order(batch: &Batch) -> Vec<(SeriesRef, FrameNumber)> {
        let (mut samples, mut raw) = (batch.samples.iter(), batch.raw.iter());
        let mut all = Vec::new();
        for run in &batch.runs {
            all.extend(
                samples
                    .by_ref()
                    .take(run.samples)
                    .map(|s| (s.series, run.frame)),
            );
            all.extend(raw.by_ref().take(run.raw).map(|r| (r.series, run.frame)));
        }
        all
    }

    proptest! {
        #[test]
        fn a_cut_batch_is_the_same_records_in_the_same_order(
            runs in prop::collection::vec((0..5_usize, 0..4_usize), 1..6),
            at: prop::sample::Index,
        ) {
            let mut first = batch(&runs);
            let (whole, bytes) = (order(&first), first.raw_bytes());
            let at = at.index(whole.len() + 1);
            let rest = first.split_off(at);
            prop_assert_eq!(first.records(), at);
            prop_assert_eq!([order(&first), order(&rest)].concat(), whole);
            prop_assert_eq!(first.raw_bytes() + rest.raw_bytes(), bytes);
        }
    }
}
