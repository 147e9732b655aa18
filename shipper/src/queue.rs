//! Turns routed records into a bounded line in front of one shard.
//!
//! One producer, the tailer; one consumer, the shard. A flat ring of samples rather than a channel
//! of buffers: its memory is bounded by the capacity however small the frames are, and nothing is
//! allocated per frame.
//!
//! # Invariants
//! - Records leave in the order they came; a frame may leave in several batches. A share of a pack comes
//!   whole, and nothing behind it until what is left of it fits into the line.
//! - After [`Queue::close`] nothing is added.
//!
//! # Limits
//! - `capacity` records, and [`RAW_BYTES_MAX`] * 4 of raw records (or a single larger one); and a share,
//!   which the tailer has the memory of otherwise. When full the tailer waits, and with it the whole
//!   endpoint: what is not queued is on disk anyway.
//!
//! # Threads
//! - A lock held for a copy of at most one batch, never across an await.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use wal::Sample;

use crate::ack::FrameNumber;
use crate::batch::{Batch, OwnedRecord, RAW_BYTES_MAX, Run};
use crate::pack::{Entry, PackedShare};

/// What a shard sees when it looks at its queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Level {
    /// Nothing there, more may come.
    Empty,
    /// Less than a full batch.
    Partial,
    /// A full batch, or the rest of a closed queue: no reason to wait.
    Ready,
    /// Closed and taken empty.
    Finished,
}

/// The part of a frame that is routed to one shard and not in its queue yet.
#[derive(Debug, Default)]
pub(crate) struct Routed {
    pub(crate) samples: VecDeque<Sample>,
    pub(crate) raw: VecDeque<OwnedRecord>,
}

impl Routed {
    pub(crate) fn records(&self) -> usize {
        self.samples.len() + self.raw.len()
    }
}

#[derive(Debug, Default)]
struct Line {
    samples: VecDeque<Sample>,
    raw: VecDeque<OwnedRecord>,
    runs: VecDeque<Run>,
    raw_bytes: usize,
    /// Behind all that.
    share: Option<PackedShare>,
    closed: bool,
}

impl Line {
    /// Without the share.
    fn records(&self) -> usize {
        self.samples.len() + self.raw.len()
    }

    /// Puts one record behind all others.
    fn push(&mut self, frame: FrameNumber, entry: Entry) {
        let is_sample = matches!(entry, Entry::Sample(_));
        // Of a run the samples come first.
        let goes_on = |run: &&mut Run| run.frame == frame && !(is_sample && run.raw > 0);
        let (samples, raw) = (usize::from(is_sample), usize::from(!is_sample));
        match self.runs.back_mut().filter(goes_on) {
            Some(run) => {
                run.samples += samples;
                run.raw += raw;
            }
            None => self.runs.push_back(Run {
                frame,
                samples,
                raw,
            }),
        }
        match entry {
            Entry::Sample(sample) => self.samples.push_back(sample),
            Entry::Raw(record) => {
                self.raw_bytes += record.bytes.len();
                self.raw.push_back(record);
            }
        }
    }
}

/// The queue of one shard.
#[derive(Debug)]
pub(crate) struct Queue {
    line: Mutex<Line>,
    capacity: usize,
    /// Records that make a full batch.
    full: usize,
    /// Told to the shard: there is more than there was.
    arrived: Notify,
    /// Told to the tailer, which has one for all its queues: there is room.
    room: Arc<Notify>,
}

impl Queue {
    pub(crate) fn new(capacity: usize, max_samples_per_send: usize, room: Arc<Notify>) -> Self {
        // a batch larger than the queue would never fill
        let full = max_samples_per_send.min(capacity);
        Self {
            line: Mutex::default(),
            capacity,
            full,
            arrived: Notify::new(),
            room,
        }
    }

    /// Takes what fits from the front of `routed`. Returns whether that was all of it.
    pub(crate) fn push(&self, frame: FrameNumber, routed: &mut Routed) -> bool {
        if routed.records() == 0 {
            return true;
        }
        let mut line = self.line.lock();
        debug_assert!(!line.closed, "the tailer closes the queues when it ends");
        let before = self.level(&line);
        let samples = routed.samples.len().min(self.capacity - line.records());
        for slice in front(&routed.samples, samples) {
            line.samples.extend(slice);
        }
        routed.samples.drain(..samples);
        let mut raw = 0;
        while routed.samples.is_empty()
            && line.records() < self.capacity
            && line.raw_bytes < 4 * RAW_BYTES_MAX
            && let Some(record) = routed.raw.pop_front()
        {
            line.raw_bytes += record.bytes.len();
            line.raw.push_back(record);
            raw += 1;
        }
        if samples + raw > 0 {
            line.runs.push_back(Run {
                frame,
                samples,
                raw,
            });
        }
        let changed = self.level(&line) != before;
        drop(line);
        if changed {
            self.arrived.notify_one();
        }
        routed.records() == 0
    }

    /// Takes `share`, if the queue does not have it yet; gives it back empty as soon as what is left of
    /// it fits into the line. Returns whether that is so: until then nothing else may be pushed.
    pub(crate) fn push_packed(&self, share: &mut PackedShare) -> bool {
        let mut guard = self.line.lock();
        let line = &mut *guard;
        debug_assert!(!line.closed, "the tailer closes the queues when it ends");
        let before = self.level(line);
        let mut own = match line.share.take() {
            Some(own) => own,
            None => std::mem::take(share),
        };
        if own.records() + line.records() <= self.capacity {
            while line.raw_bytes < 4 * RAW_BYTES_MAX
                && let Some((frame, entry)) = own.pop()
            {
                line.push(frame, entry);
            }
        }
        let all = own.is_empty();
        if all {
            *share = own;
        } else {
            line.share = Some(own);
        }
        let changed = self.level(line) != before;
        drop(guard);
        if changed {
            self.arrived.notify_one();
        }
        all
    }

    /// Moves the oldest records into `batch`, at most a full one.
    pub(crate) fn take(&self, batch: &mut Batch) {
        batch.clear();
        let mut guard = self.line.lock();
        let line = &mut *guard;
        while let Some(run) = line.runs.front_mut() {
            let free = self.full - batch.records();
            if free == 0 || batch.raw_bytes() >= RAW_BYTES_MAX {
                break;
            }
            let samples = run.samples.min(free);
            let mut bytes = batch.raw_bytes();
            let fitting = line
                .raw
                .iter()
                .take(run.raw.min(free - samples))
                .take_while(|record| {
                    let fits = bytes < RAW_BYTES_MAX;
                    bytes += record.bytes.len();
                    fits
                });
            let raw = if samples == run.samples {
                fitting.count()
            } else {
                0
            };
            batch.push(
                run.frame,
                &front(&line.samples, samples),
                line.raw.drain(..raw),
            );
            line.samples.drain(..samples);
            run.samples -= samples;
            run.raw -= raw;
            if run.samples + run.raw == 0 {
                line.runs.pop_front();
            }
        }
        line.raw_bytes -= batch.raw_bytes();
        let mut has_room = true;
        if let Some(share) = &mut line.share {
            if line.runs.is_empty() {
                share.take(batch, self.full);
            }
            has_room = share.records() <= self.capacity;
        }
        drop(guard);
        if has_room {
            self.room.notify_one();
        }
    }

    /// How much there is to do.
    pub(crate) fn look(&self) -> Level {
        self.level(&self.line.lock())
    }

    /// Waits until [`Self::look`] may say something else.
    pub(crate) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// Says that nothing more will come.
    pub(crate) fn close(&self) {
        self.line.lock().closed = true;
        self.arrived.notify_one();
    }

    fn level(&self, line: &Line) -> Level {
        let records = line.records() + line.share.as_ref().map_or(0, PackedShare::records);
        match (records, line.closed) {
            (0, true) => Level::Finished,
            (0, false) => Level::Empty,
            _ if line.closed || records >= self.full || line.raw_bytes >= RAW_BYTES_MAX => {
                Level::Ready
            }
            _ => Level::Partial,
        }
    }
}

/// The first `count` of these, in order: slices are copied whole.
fn front(samples: &VecDeque<Sample>, count: usize) -> [&[Sample]; 2] {
    let (first, second) = samples.as_slices();
    let of_first = count.min(first.len());
    [&first[..of_first], &second[..count - of_first]]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wal::{RecordKind, SeriesRef};

    use super::*;
    use crate::pack::Pack;

    fn queue(capacity: usize, full: usize) -> Queue {
        Queue::new(capacity, full, Arc::new(Notify::new()))
    }

    fn sample(number: i64) -> Sample {
        Sample {
            series: SeriesRef::new(1),
            timestamp_ms: number,
            value_bits: 0,
        }
    }

    fn exemplar(bytes: usize) -> OwnedRecord {
        let bytes = vec![0; bytes].into();
        OwnedRecord {
            series: SeriesRef::new(1),
            kind: RecordKind::Exemplar,
            bytes,
        }
    }

    fn routed(samples: std::ops::Range<i64>, raw: &[usize]) -> Routed {
        Routed {
            samples: samples.map(sample).collect(),
            raw: raw.iter().map(|bytes| exemplar(*bytes)).collect(),
        }
    }

    #[test]
    fn full_queue_takes_what_fits_and_leaves_the_rest() {
        let queue = queue(3, 2);
        let mut frame = routed(0..5, &[1]);
        assert!(!queue.push(FrameNumber::new(0), &mut frame));
        assert_eq!(frame.samples, [sample(3), sample(4)]);
        assert_eq!(frame.raw.len(), 1);
        let mut batch = Batch::default();
        queue.take(&mut batch);
        assert_eq!(batch.samples, [sample(0), sample(1)]);
        assert!(!queue.push(FrameNumber::new(0), &mut frame));
        queue.take(&mut batch);
        assert!(queue.push(FrameNumber::new(0), &mut frame));
        assert_eq!(queue.look(), Level::Ready);
        queue.take(&mut batch);
        assert_eq!((batch.samples.len(), batch.raw.len()), (1, 1));
        assert_eq!(queue.look(), Level::Empty);
    }

    #[test]
    fn raw_bytes_close_a_batch_and_fill_the_queue() {
        let queue = queue(100, 50);
        let mut frame = routed(0..1, &[RAW_BYTES_MAX - 1, 1, 1, 4 * RAW_BYTES_MAX, 1]);
        assert!(!queue.push(FrameNumber::new(0), &mut frame));
        assert_eq!(frame.raw.len(), 1);
        assert_eq!(queue.look(), Level::Ready);
        let mut batch = Batch::default();
        queue.take(&mut batch);
        assert_eq!((batch.samples.len(), batch.raw.len()), (1, 2));
        queue.take(&mut batch);
        assert_eq!((batch.samples.len(), batch.raw.len()), (0, 2));
        assert!(queue.push(FrameNumber::new(0), &mut frame));
    }

    #[test]
    fn closed_queue_is_taken_empty_and_then_finished() {
        let queue = queue(10, 10);
        assert!(queue.push(FrameNumber::new(0), &mut routed(0..1, &[])));
        queue.close();
        assert_eq!(queue.look(), Level::Ready);
        queue.take(&mut Batch::default());
        assert_eq!(queue.look(), Level::Finished);
    }

    #[test]
    fn batch_larger_than_the_queue_is_full_when_the_queue_is() {
        let queue = queue(2, 100);
        assert!(queue.push(FrameNumber::new(0), &mut routed(0..2, &[])));
        assert_eq!(queue.look(), Level::Ready);
    }

    /// A share with these samples, one after the other: series and frame.
    fn pack(samples: &[(u32, u64)], raw: usize) -> Pack {
        let mut pack = Pack::new(1, 1 << 20);
        for frame in 0..=samples.iter().map(|(_, frame)| *frame).max().unwrap_or(0) {
            let mut routed = Routed::default();
            let of_frame = samples.iter().filter(|(_, of)| *of == frame);
            for (series, _) in of_frame {
                let series = SeriesRef::new(*series);
                let last = Sample {
                    series,
                    ..sample(0)
                };
                routed.samples.push_back(last);
            }
            routed.raw.extend((0..raw).map(|_| exemplar(1)));
            pack.add(FrameNumber::new(frame), std::slice::from_mut(&mut routed));
        }
        pack.group(0);
        pack
    }

    proptest! {
        #[test]
        fn a_share_leaves_once_in_its_order_and_comes_back_before_what_follows(
            samples in proptest::collection::vec((1..9_u32, 0..6_u64), 0..60),
            raw in 0..3_usize,
            before in 0..9_i64,
            capacity in 1..30_usize,
            full in 1..30_usize,
        ) {
            let queue = queue(capacity, full);
            let (mut pack, mut same) = (pack(&samples, raw), pack(&samples, raw));
            let mut expected: Vec<_> = (0..before).map(|_| (7, 1, false)).collect();
            while let Some((frame, entry)) = same.shares()[0].pop() {
                expected.push(match entry {
                    Entry::Sample(sample) => (frame.get(), sample.series.get(), false),
                    Entry::Raw(record) => (frame.get(), record.series.get(), true),
                });
            }
            expected.push((8, 1, false));
            let mut seen = Vec::new();
            let mut batch = Batch::default();
            let mut take = || {
                queue.take(&mut batch);
                assert!(batch.records() <= full);
                let (mut samples, mut raw) = (batch.samples.iter(), batch.raw.iter());
                for run in &batch.runs {
                    let samples = samples.by_ref().take(run.samples);
                    seen.extend(samples.map(|one| (run.frame.get(), one.series.get(), false)));
                    let raw = raw.by_ref().take(run.raw);
                    seen.extend(raw.map(|one| (run.frame.get(), one.series.get(), true)));
                }
            };
            let mut routed = [routed(0..before, &[]), routed(0..1, &[])];
            while !queue.push(FrameNumber::new(7), &mut routed[0]) {
                take();
            }
            while !queue.push_packed(&mut pack.shares()[0]) {
                take();
            }
            prop_assert!(pack.shares()[0].is_empty());
            while !queue.push(FrameNumber::new(8), &mut routed[1]) {
                take();
            }
            queue.close();
            while queue.look() != Level::Finished {
                take();
            }
            prop_assert_eq!(seen, expected);
        }

        #[test]
        fn everything_leaves_once_in_order_with_its_frame(
            frames in proptest::collection::vec((0..20i64, 0..5usize), 1..20),
            capacity in 1..30usize,
            full in 1..30usize,
        ) {
            let queue = queue(capacity, full);
            let (mut next, mut expected, mut seen) = (0, Vec::new(), Vec::new());
            let mut batch = Batch::default();
            let mut take = |batch: &mut Batch| {
                queue.take(batch);
                assert!(batch.records() <= full);
                let (mut samples, mut raw) = (batch.samples.iter(), batch.raw.iter());
                for run in &batch.runs {
                    assert!(run.samples + run.raw > 0);
                    seen.extend(samples.by_ref().take(run.samples).map(|s| (run.frame, s.timestamp_ms)));
                    seen.extend(raw.by_ref().take(run.raw).map(|r| (run.frame, -(r.bytes.len() as i64))));
                }
                assert!(samples.next().is_none() && raw.next().is_none());
            };
            for (number, (samples, raw)) in frames.iter().enumerate() {
                let frame = FrameNumber::new(number as u64);
                let raw: Vec<_> = (1..=*raw).collect();
                expected.extend((next..next + samples).map(|s| (frame, s)));
                expected.extend(raw.iter().map(|bytes| (frame, -(*bytes as i64))));
                let mut routed = routed(next..next + samples, &raw);
                next += samples;
                while !queue.push(frame, &mut routed) {
                    take(&mut batch);
                }
            }
            queue.close();
            while queue.look() != Level::Finished {
                take(&mut batch);
            }
            prop_assert_eq!(seen, expected);
        }
    }
}
