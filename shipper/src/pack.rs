//! Turns many rounds of the log into samples grouped by series, for an endpoint that is behind.
//!
//! A request costs its labels once per series and not once per sample, so the samples of some rounds
//! together take a fraction of the bytes and of the time. What is read ahead stays where it was put; the
//! order by series is a list of places, counted out and not sorted. Each queue gets its share whole, and
//! batches are read through that list: neighbours in a round are neighbours in memory, so this walks some
//! rounds side by side. A queue gives the share back for the next pack.
//!
//! # Invariants
//! - The order of each series is that of the log: the order by series is stable. Where a series has
//!   samples and other records in one pack, that share stays in the order of the log.
//! - The records of a pack belong to frames of one segment that are open in the ack window; they may be
//!   decided in any order. A segment that is given up is so as a whole, and nothing queued behind what is
//!   still wanted holds it up.
//!
//! # Limits
//! - `drain.read_ahead` records of 28 bytes, and a frame; given back when the endpoint has caught up.
//!   To order a share, up to [`COUNTERS_MAX`] counters of 4 bytes.

use std::collections::{HashSet, VecDeque};

use wal::{RecordKind, Sample, SeriesRef};

use crate::ack::FrameNumber;
use crate::batch::{Batch, OwnedRecord, RAW_BYTES_MAX};
use crate::queue::Routed;

/// With fewer records ahead in the log there is little to group.
pub(crate) const PACK_FROM: u64 = 1 << 18;
/// Bytes of other records than samples that close a pack.
const PACK_RAW_BYTES_MAX: usize = 2 * RAW_BYTES_MAX;

/// Refs between the least and the largest of a share, per sample, up to which counting is faster than
/// sorting; many queues have few of many series each.
const COUNTERS_PER_SAMPLE: usize = 8;
/// And at most so many.
const COUNTERS_MAX: usize = 1 << 22;

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
pub(crate) struct PackedShare {
    /// Number of the first frame of the pack.
    first: u64,
    /// As they came.
    samples: Vec<Packed>,
    /// Their places, in the order they go.
    order: Vec<u32>,
    /// The next of `order` to go.
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
    shares: Vec<PackedShare>,
    records_max: usize,
    first: Option<u64>,
    records: usize,
    raw_bytes: usize,
    counters: Vec<u32>,
}

impl Pack {
    /// An empty one for so many queues, which takes about so many records.
    pub(crate) fn new(shares: usize, records_max: usize) -> Self {
        Self {
            records_max,
            shares: (0..shares).map(|_| PackedShare::default()).collect(),
            first: None,
            records: 0,
            raw_bytes: 0,
            counters: Vec::new(),
        }
    }

    /// Empties it, keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.shares.iter_mut().for_each(PackedShare::clear);
        self.first = None;
        self.records = 0;
        self.raw_bytes = 0;
    }

    /// Takes the records of the next frame.
    pub(crate) fn add(&mut self, frame: FrameNumber, routed: &mut [Routed]) {
        let first = *self.first.get_or_insert(frame.get());
        let offset = u32::try_from(frame.get() - first).expect("a pack has fewer frames");
        for (share, routed) in self.shares.iter_mut().zip(routed) {
            share.first = first;
            self.records += routed.records();
            let packed = |sample: &Sample| Packed {
                series: sample.series,
                frame: offset,
                timestamp_ms: sample.timestamp_ms,
                value_bits: sample.value_bits,
            };
            let (front, back) = routed.samples.as_slices();
            share.samples.extend(front.iter().map(packed));
            share.samples.extend(back.iter().map(packed));
            routed.samples.clear();
            for record in routed.raw.drain(..) {
                self.raw_bytes += record.bytes.len();
                share.raw.push_back((offset, record));
            }
        }
    }

    /// Whether it takes no more.
    pub(crate) const fn is_full(&self) -> bool {
        self.records >= self.records_max || self.raw_bytes >= PACK_RAW_BYTES_MAX
    }

    /// Brings the samples of each series together in the share of this number.
    pub(crate) fn group(&mut self, share: usize) {
        self.shares[share].group(&mut self.counters);
    }

    /// Samples of a series, on average; once the shares are grouped.
    pub(crate) fn samples_per_series(&self) -> usize {
        let samples: usize = self.shares.iter().map(|share| share.samples.len()).sum();
        let series: usize = self.shares.iter().map(|share| share.series).sum();
        samples / series.max(1)
    }

    /// What goes to each queue.
    pub(crate) fn shares(&mut self) -> &mut [PackedShare] {
        &mut self.shares
    }
}

impl PackedShare {
    fn clear(&mut self) {
        debug_assert!(self.is_empty(), "what was read ahead is not lost");
        self.samples.clear();
        self.order.clear();
        self.next = 0;
        self.is_sorted = false;
        self.series = 0;
    }

    /// Brings the samples of each series together.
    fn group(&mut self, counters: &mut Vec<u32>) {
        let in_order = |(_, record): &&(u32, OwnedRecord)| {
            !matches!(record.kind, RecordKind::Exemplar | RecordKind::Metadata)
        };
        let others = self.raw.iter().filter(in_order);
        let others: HashSet<SeriesRef> = others.map(|(_, record)| record.series).collect();
        let mixes = |packed: &Packed| others.contains(&packed.series);
        if !others.is_empty() && self.samples.iter().any(mixes) {
            self.order.extend((0..).take(self.samples.len()));
            return;
        }
        self.is_sorted = true;
        let refs = || self.samples.iter().map(|packed| packed.series.get());
        let (Some(least), Some(most)) = (refs().min(), refs().max()) else {
            return;
        };
        let range = (most - least) as usize + 1;
        if range <= COUNTERS_MAX.min(self.samples.len().saturating_mul(COUNTERS_PER_SAMPLE)) {
            counters.clear();
            counters.resize(range, 0);
            self.count_out(least, counters);
        } else {
            self.sort();
        }
    }

    /// Orders by series: counts the samples of each, with a counter for every ref from `least` on, so
    /// that it is known where those of the next begin.
    fn count_out(&mut self, least: u32, counters: &mut [u32]) {
        for packed in &self.samples {
            counters[(packed.series.get() - least) as usize] += 1;
        }
        let mut begin = 0;
        for counter in counters.iter_mut() {
            let samples = std::mem::replace(counter, begin);
            self.series += usize::from(samples > 0);
            begin += samples;
        }
        self.order.resize(self.samples.len(), 0);
        for (place, packed) in (0..).zip(&self.samples) {
            let next = &mut counters[(packed.series.get() - least) as usize];
            self.order[*next as usize] = place;
            *next += 1;
        }
    }

    /// Orders by series where counting takes too many counters.
    fn sort(&mut self) {
        self.order.extend((0..).take(self.samples.len()));
        let series = |place: u32| self.samples[place as usize].series;
        // with the place no two are equal, so this is stable
        self.order
            .sort_unstable_by_key(|place| (series(*place), *place));
        let runs = self.order.chunk_by(|a, b| series(*a) == series(*b));
        self.series = runs.count();
    }

    /// Moves the next records into `batch`, as long as it has fewer than `full`.
    pub(crate) fn take(&mut self, batch: &mut Batch, full: usize) {
        if self.is_sorted {
            let free = full.saturating_sub(batch.records());
            let end = self.order.len().min(self.next + free);
            for place in &self.order[self.next..end] {
                let packed = self.samples[*place as usize];
                batch.push_sample(self.frame(packed.frame), packed.into());
            }
            self.next = end;
        }
        while batch.records() < full
            && batch.raw_bytes() < RAW_BYTES_MAX
            && let Some((frame, entry)) = self.pop()
        {
            match entry {
                Entry::Sample(sample) => batch.push_sample(frame, sample),
                Entry::Raw(record) => batch.push_raw(frame, record),
            }
        }
    }

    /// The next record and its frame.
    pub(crate) fn pop(&mut self) -> Option<(FrameNumber, Entry)> {
        let raw_is_next = |packed: &Packed| {
            let before = |(frame, _): &(u32, OwnedRecord)| *frame < packed.frame;
            !self.is_sorted && self.raw.front().is_some_and(before)
        };
        let place = self.order.get(self.next);
        let sample = place.map(|place| self.samples[*place as usize]);
        if let Some(packed) = sample.filter(|one| !raw_is_next(one)) {
            self.next += 1;
            return Some((self.frame(packed.frame), Entry::Sample(packed.into())));
        }
        let (frame, record) = self.raw.pop_front()?;
        Some((self.frame(frame), Entry::Raw(record)))
    }

    const fn frame(&self, offset: u32) -> FrameNumber {
        FrameNumber::new(self.first + offset as u64)
    }

    /// Records that have not gone.
    pub(crate) fn records(&self) -> usize {
        self.samples.len() - self.next + self.raw.len()
    }

    /// Whether everything has gone.
    pub(crate) fn is_empty(&self) -> bool {
        self.records() == 0
    }
}

impl From<Packed> for Sample {
    fn from(packed: Packed) -> Self {
        Self {
            series: packed.series,
            timestamp_ms: packed.timestamp_ms,
            value_bits: packed.value_bits,
        }
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
            pack.group(0);
            let share = &mut pack.shares()[0];
            let (mut points, mut got_exemplars) = (Vec::new(), Vec::new());
            while let Some((frame, entry)) = share.pop() {
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
            prop_assert!(share.is_empty());
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
        pack.group(0);
        let share = &mut pack.shares()[0];
        let order: Vec<_> = std::iter::from_fn(|| share.pop())
            .map(|(frame, entry)| match entry {
                Entry::Sample(sample) => (sample.series.get(), frame.get()),
                Entry::Raw(_) => panic!("only samples"),
            })
            .collect();
        assert_eq!(order, [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]);
    }
}
