//! Turns the times at which metrics began to count into samples of 0 there.
//!
//! A counter that is new, or begins anew, is at 5 when it is first seen: without what it was before, nobody
//! knows that it grew by 5. Where a target says since when it counts, a 0 at that time tells.
//!
//! # Invariants
//! - A sample of 0 is later than everything that was written of its target before and earlier than the sample
//!   it comes with: so each start of a series has one at most, and no series goes back in time.
//! - They come before all other samples of their frame. Nothing else of a scrape counts them.
//!
//! # Limits
//! - A start longer ago than [`AGE_MS_MAX`] has none, and at the first scrapes of a target none has that is
//!   longer ago than the interval was at the first of them: before that somebody may have scraped it.

use std::collections::HashSet;
use std::ops::Range;
use std::time::Duration;

use foldhash::fast::RandomState;
use wal::{RecordKind, Sample, SeriesRef};

use crate::decode::exposition::Histogram;
use crate::decode::{Batch, RecordAt};

/// A backend that takes nothing old (Prometheus without a window for it takes an hour back) refuses a request
/// whole; half of that is left for the way there.
const AGE_MS_MAX: i64 = 30 * 60 * 1000;

/// Of which times a 0 can still be written, of all series of a target.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Since {
    /// The last time that something of it may have been written, once it was asked.
    last_ms: Option<i64>,
}

impl Since {
    /// A scrape begins: the time behind which starts get a 0.
    pub(super) fn begin(&mut self, time_ms: i64, interval: Duration) -> i64 {
        let interval_ms = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX);
        // A target's turn is the same after a restart: whoever had it before had it an interval ago.
        let before = time_ms.saturating_sub(interval_ms);
        let last_ms = *self.last_ms.get_or_insert(before);
        last_ms.max(time_ms.saturating_sub(AGE_MS_MAX))
    }

    /// Something of the target was written with this time.
    pub(super) fn wrote(&mut self, time_ms: i64) {
        self.last_ms = self.last_ms.max(Some(time_ms));
    }
}

/// The starts of one scrape.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// Behind this time; none: no start is told.
    after_ms: Option<i64>,
    time_ms: i64,
    /// The latest time of what is written.
    pub(super) latest_ms: i64,
}

impl Window {
    pub(super) const fn new(after_ms: Option<i64>, time_ms: i64) -> Self {
        Self {
            after_ms,
            time_ms,
            latest_ms: time_ms,
        }
    }

    /// Takes note of a sample; gives its start if that is to be told.
    pub(super) fn start(&mut self, start_ms: Option<i64>, timestamp_ms: i64) -> Option<i64> {
        let after_ms = self.after_ms?;
        self.latest_ms = self.latest_ms.max(timestamp_ms);
        let start_ms = start_ms?;
        if start_ms >= timestamp_ms {
            // By a clock that is ahead. Told later it would be a 0 behind this sample.
            if start_ms <= self.time_ms.saturating_add(AGE_MS_MAX) {
                self.latest_ms = self.latest_ms.max(start_ms);
                self.after_ms = Some(after_ms.max(start_ms));
            }
            return None;
        }
        (start_ms > after_ms).then_some(start_ms)
    }
}

/// What is to be told, while series have no numbers yet; reused from scrape to scrape.
#[derive(Default, Debug)]
pub(super) struct Starts {
    /// Places of samples in the batch, and their starts.
    samples: Vec<(usize, i64)>,
    /// Places of histograms in the batch, and the bytes of empty ones.
    histograms: Vec<(usize, Range<usize>)>,
    zeros: Vec<Sample>,
    empty: Vec<RecordAt>,
}

impl Starts {
    pub(super) fn clear(&mut self) {
        self.samples.clear();
        self.histograms.clear();
        self.zeros.clear();
        self.empty.clear();
    }

    /// The sample that was put into the batch last began to count then.
    pub(super) fn sample(&mut self, start_ms: i64, batch: &Batch) {
        self.samples
            .push((batch.samples.len().saturating_sub(1), start_ms));
    }

    /// So did the histogram that is put into the batch next.
    pub(super) fn histogram(&mut self, start_ms: i64, histogram: &Histogram, batch: &mut Batch) {
        let start = batch.made.len();
        histogram.append_start(start_ms, &mut batch.made);
        let place = batch.records.len();
        self.histograms.push((place, start..batch.made.len()));
    }

    /// Series have their numbers, and everything in the batch is where it was put.
    pub(super) fn resolve(&mut self, batch: &Batch, seen: &mut HashSet<u32, RandomState>) {
        if self.samples.is_empty() && self.histograms.is_empty() {
            return;
        }
        seen.clear();
        let mut is_first =
            |series: SeriesRef| series != SeriesRef::NONE && seen.insert(series.get());
        for (place, start_ms) in self.samples.drain(..) {
            let series = batch.samples.get(place).map(|sample| sample.series);
            if let Some(series) = series.filter(|series| is_first(*series)) {
                self.zeros.push(Sample {
                    series,
                    timestamp_ms: start_ms,
                    value_bits: 0,
                });
            }
        }
        for (place, bytes) in self.histograms.drain(..) {
            let series = batch.records.get(place).map(|record| record.series);
            if let Some(series) = series.filter(|series| is_first(*series)) {
                self.empty.push(RecordAt {
                    series,
                    kind: RecordKind::Histogram,
                    bytes,
                });
            }
        }
    }

    /// Puts what was resolved before everything else of the batch; gives how many there are.
    pub(super) fn write(&mut self, batch: &mut Batch) -> usize {
        let count = self.zeros.len() + self.empty.len();
        batch.samples.splice(0..0, self.zeros.drain(..));
        batch.records.splice(0..0, self.empty.drain(..));
        count
    }
}
