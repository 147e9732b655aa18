//! Turns many rounds of the log into samples grouped by series, for an endpoint that is behind.
//!
//! A request costs its labels once per series and not once per sample, so the samples of some rounds
//! together take a fraction of the bytes and of the time. What is read ahead is sorted by series, and
//! goes to the queues in that order.
//!
//! # Invariants
//! - The order of each series is that of the log: the sort is stable. Where a series has samples and
//!   other records in one pack, that lane is not sorted at all.
//! - The records of a pack belong to frames of one segment that are open in the ack window; they may be
//!   decided in any order. A segment that is given up is so as a whole, and nothing queued behind what is
//!   still wanted holds it up.
//!
//! # Limits
//! - `drain.read_ahead` records of 24 bytes, and a frame; given back when the endpoint has caught up.

use std::collections::{HashSet, VecDeque};

use wal::{RecordKind, Sample, SeriesRef};

use crate::ack::FrameNumber;
use crate::batch::OwnedRecord;
use crate::queue::Routed;

/// With fewer records ahead in the log there is little to group.
pub(crate) const PACK_FROM: u64 = 1 << 18;
/// Bytes of other records than samples that close a pack.
const RAW_BYTES_MAX: usize = 8 << 20;

/// A sample and which frame of the pack it is of, as small as a sample.
#[derive(Clone, Copy, Debug)]
struct Packed {
    series: SeriesRef,
    frame: u32,
    timestamp_ms: i64,
    value_bits: u64,
}

/// What goes to one queue.
#[derive(Debug, Default)]
pub(crate) struct PackedLane {
    /// Number of the first frame of the pack.
    first: u64,
    samples: Vec<Packed>,
    /// The next sample to go.
    next: usize,
    raw: VecDeque<(u32, OwnedRecord)>,
    /// By series, other records behind the samples. Else by frame.
    is_sorted: bool,
    /// How many series have samples; not known unless sorted.
    series: usize,
}

/// A record on its way from a pack into a queue.
#[derive(Debug)]
pub(crate) enum Entry {
    Sample(Sample),
    Raw(OwnedRecord),
}

/// Records read ahead, by queue.
#[derive(Debug)]
pub(crate) struct Pack {
    lanes: Vec<PackedLane>,
    records_max: usize,
    first: Option<u64>,
    records: usize,
    raw_bytes: usize,
}

impl Pack {
    /// An empty one for so many queues, which takes about so many records.
    pub(crate) fn new(lanes: usize, records_max: usize) -> Self {
        Self {
            records_max,
            lanes: (0..lanes).map(|_| PackedLane::default()).collect(),
            first: None,
            records: 0,
            raw_bytes: 0,
        }
    }

    /// Takes the records of the next frame.
    pub(crate) fn add(&mut self, frame: FrameNumber, routed: &mut [Routed]) {
        let first = *self.first.get_or_insert(frame.get());
        let offset = u32::try_from(frame.get() - first).expect("a pack has fewer frames");
        for (lane, routed) in self.lanes.iter_mut().zip(routed) {
            lane.first = first;
            self.records += routed.records();
            lane.samples
                .extend(routed.samples.drain(..).map(|sample| Packed {
                    series: sample.series,
                    frame: offset,
                    timestamp_ms: sample.timestamp_ms,
                    value_bits: sample.value_bits,
                }));
            for record in routed.raw.drain(..) {
                self.raw_bytes += record.bytes.len();
                lane.raw.push_back((offset, record));
            }
        }
    }

    /// Whether it takes no more.
    pub(crate) const fn is_full(&self) -> bool {
        self.records >= self.records_max || self.raw_bytes >= RAW_BYTES_MAX
    }

    /// Samples of a series, on average; once the lanes are grouped.
    pub(crate) fn samples_per_series(&self) -> usize {
        let samples: usize = self.lanes.iter().map(|lane| lane.samples.len()).sum();
        let series: usize = self.lanes.iter().map(|lane| lane.series).sum();
        samples / series.max(1)
    }

    /// What goes to each queue.
    pub(crate) fn lanes(&mut self) -> &mut [PackedLane] {
        &mut self.lanes
    }
}

impl PackedLane {
    /// Brings the samples of each series together.
    pub(crate) fn group(&mut self) {
        let in_order = |(_, record): &&(u32, OwnedRecord)| {
            !matches!(record.kind, RecordKind::Exemplar | RecordKind::Metadata)
        };
        let others = self.raw.iter().filter(in_order);
        let others: HashSet<SeriesRef> = others.map(|(_, record)| record.series).collect();
        let mixes = |packed: &Packed| others.contains(&packed.series);
        if !others.is_empty() && self.samples.iter().any(mixes) {
            return;
        }
        self.samples.sort_by_key(|packed| packed.series);
        self.is_sorted = true;
        self.series = self.samples.chunk_by(|a, b| a.series == b.series).count();
    }

    /// The next record and its frame.
    pub(crate) fn pop(&mut self) -> Option<(FrameNumber, Entry)> {
        let number = |frame: u32| FrameNumber::new(self.first + u64::from(frame));
        let raw_is_next = |packed: &Packed| {
            let before = |(frame, _): &(u32, OwnedRecord)| *frame < packed.frame;
            !self.is_sorted && self.raw.front().is_some_and(before)
        };
        let sample = self.samples.get(self.next).filter(|one| !raw_is_next(one));
        if let Some(packed) = sample {
            let sample = Sample {
                series: packed.series,
                timestamp_ms: packed.timestamp_ms,
                value_bits: packed.value_bits,
            };
            let frame = number(packed.frame);
            self.next += 1;
            return Some((frame, Entry::Sample(sample)));
        }
        let (frame, record) = self.raw.pop_front()?;
        Some((
            FrameNumber::new(self.first + u64::from(frame)),
            Entry::Raw(record),
        ))
    }

    /// Whether everything has gone.
    pub(crate) fn is_empty(&self) -> bool {
        self.next == self.samples.len() && self.raw.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(series: u32, kind: RecordKind, number: u8) -> OwnedRecord {
        OwnedRecord {
            series: SeriesRef::new(series),
            kind,
            bytes: vec![number].into(),
        }
    }

    fn kinds() -> impl Strategy<Value = Option<RecordKind>> {
        prop_oneof![
            8 => Just(None),
            1 => Just(Some(RecordKind::Exemplar)),
            1 => Just(Some(RecordKind::Histogram)),
        ]
    }

    proptest! {
        #[test]
        fn every_record_leaves_once_with_its_frame_in_the_order_of_its_series(
            frames in proptest::collection::vec(
                proptest::collection::vec((1..6_u32, kinds()), 0..12), 0..12),
        ) {
            let mut pack = Pack::new(1, 1 << 20);
            // By series, what must stay in order: frame and number.
            let mut expected: Vec<(u32, u64, u64)> = Vec::new();
            let mut exemplars = Vec::new();
            for (frame, records) in (7..).zip(&frames) {
                let mut routed = Routed::default();
                for (number, (series, kind)) in (0_u8..).zip(records) {
                    match kind {
                        None => routed.samples.push_back(Sample {
                            series: SeriesRef::new(*series),
                            timestamp_ms: 0,
                            value_bits: u64::from(number),
                        }),
                        Some(kind) => routed.raw.push_back(record(*series, *kind, number)),
                    }
                }
                // Of a frame the samples come first.
                let ordered = |is_sample: bool| {
                    (0_u64..).zip(records).filter(move |(_, (_, kind))| {
                        kind.is_none() == is_sample && *kind != Some(RecordKind::Exemplar)
                    })
                };
                for (number, (series, _)) in ordered(true).chain(ordered(false)) {
                    expected.push((*series, frame, number));
                }
                for (number, (series, kind)) in (0_u64..).zip(records) {
                    if *kind == Some(RecordKind::Exemplar) {
                        exemplars.push((*series, frame, number));
                    }
                }
                pack.add(FrameNumber::new(frame), std::slice::from_mut(&mut routed));
            }
            let lane = &mut pack.lanes()[0];
            lane.group();
            let (mut points, mut got_exemplars) = (Vec::new(), Vec::new());
            while let Some((frame, entry)) = lane.pop() {
                match entry {
                    Entry::Sample(s) => points.push((s.series.get(), frame.get(), s.value_bits)),
                    Entry::Raw(r) if r.kind == RecordKind::Exemplar => {
                        got_exemplars.push((r.series.get(), frame.get(), u64::from(r.bytes[0])));
                    }
                    Entry::Raw(r) => {
                        points.push((r.series.get(), frame.get(), u64::from(r.bytes[0])));
                    }
                }
            }
            prop_assert!(lane.is_empty());
            prop_assert_eq!(got_exemplars, exemplars);
            // Both by series, each in the order it had.
            points.sort_by_key(|(series, ..)| *series);
            expected.sort_by_key(|(series, ..)| *series);
            prop_assert_eq!(points, expected);
        }
    }

    #[test]
    fn samples_of_a_series_come_together() {
        let mut pack = Pack::new(1, 1 << 20);
        for frame in 0..3 {
            let mut routed = Routed::default();
            for series in 1..=2 {
                routed.samples.push_back(Sample {
                    series: SeriesRef::new(series),
                    timestamp_ms: 0,
                    value_bits: frame,
                });
            }
            pack.add(FrameNumber::new(frame), std::slice::from_mut(&mut routed));
        }
        let lane = &mut pack.lanes()[0];
        lane.group();
        let order: Vec<_> = std::iter::from_fn(|| lane.pop())
            .map(|(frame, entry)| match entry {
                Entry::Sample(sample) => (sample.series.get(), frame.get()),
                Entry::Raw(_) => panic!("only samples"),
            })
            .collect();
        assert_eq!(order, [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]);
    }
}
