//! Turns what a scrape held, beside what the one before held, into stale markers and what is remembered.

use wal::{RecordKind, Sample, SeriesRef};

use super::known::Entry;
use super::report::{ALWAYS, NAMES, labels as report_labels};
use super::scrape::{Changed, STALE_BITS, Scrape, Scratch};
use super::take::resolve;
use crate::append::Door;
use crate::decode::{Batch, Brought};
use crate::paths::Front;

impl Scrape<'_> {
    /// The series that tell how it went; their values come at the end.
    pub(super) fn push_report(
        &mut self,
        door: &mut impl Door,
        batch: &mut Batch,
    ) -> Result<(), String> {
        self.report_at = batch.samples.len();
        let count = if self.rules.extra_metrics {
            NAMES.len()
        } else {
            ALWAYS
        };
        for (name, (series, identity)) in NAMES.iter().zip(self.memory.report).take(count) {
            let at = batch.samples.len();
            batch.samples.push(Sample {
                series: SeriesRef::new(series),
                timestamp_ms: self.time_ms,
                value_bits: 0,
            });
            if door.is_still(series, identity) {
                continue;
            }
            let labels = report_labels(&mut self.scratch.merge, name, self.labels);
            let brought = Brought {
                samples: at..at + 1,
                records: batch.records.len()..batch.records.len(),
            };
            resolve(labels, &brought, (&mut *door, &mut *batch))?;
        }
        self.report_count = batch.samples.len() - self.report_at;
        Ok(())
    }

    /// Whether a series of the last good scrape that is not there any more is told to be stale.
    fn is_tracked(&self, entry: &Entry) -> bool {
        !entry.keeps_time(self.rules.honor_timestamps) || self.rules.track_timestamps_staleness
    }

    /// Finds out about a body that is not as the last one was, and marks what is not in it any more.
    pub(super) fn change(&mut self, front: &impl Front, batch: &mut Batch) {
        let mut next = std::mem::take(&mut self.scratch.next);
        for (entry, sample) in next.iter_mut().zip(&batch.samples) {
            if entry.identity == 0 {
                entry.series = sample.series.get();
                entry.identity = front.identity(entry.series);
            }
        }
        let mut histograms = Vec::new();
        for record in &batch.records {
            if record.kind == RecordKind::Histogram {
                let series = record.series.get();
                histograms.push((series, front.identity(series)));
            }
        }
        let seen = &mut self.scratch.seen;
        seen.clear();
        let mut has_duplicates = false;
        for entry in next.iter().filter(|entry| entry.series != 0) {
            let is_new = seen.insert(entry.series);
            has_duplicates |= !is_new && !entry.keeps_time(self.rules.honor_timestamps);
        }
        seen.extend(histograms.iter().map(|(series, _)| *series));
        let now = seen.len();
        let before = self.memory.known.entries.iter().map(|entry| entry.series);
        let before = before.chain(self.memory.histograms.iter().map(|(series, _)| *series));
        let stayed = before.filter(|series| seen.contains(series)).count();
        self.report.series_added = now.saturating_sub(stayed);
        if self.memory.is_tracking {
            self.mark_stale(front, batch);
        }
        self.scratch.next = next;
        self.changed = Some(Changed {
            histograms,
            is_text: self.is_text(),
            has_duplicates,
        });
        if has_duplicates {
            self.leave_out_duplicates(batch);
        }
    }

    /// Stale markers for what the last good scrape had and `seen` does not hold.
    pub(super) fn mark_stale(&mut self, front: &impl Front, batch: &mut Batch) {
        let mut seen = std::mem::take(&mut self.scratch.seen);
        let before = batch.samples.len();
        let mut mark = |series: u32, identity: u64| {
            if front.is_still(series, identity) && seen.insert(series) {
                batch.samples.push(Sample {
                    series: SeriesRef::new(series),
                    timestamp_ms: self.time_ms,
                    value_bits: STALE_BITS,
                });
            }
        };
        for entry in &self.memory.known.entries {
            if self.is_tracked(entry) {
                mark(entry.series, entry.identity);
            }
        }
        for (series, identity) in &self.memory.histograms {
            mark(*series, *identity);
        }
        self.counts.stale += batch.samples.len() - before;
        self.scratch.seen = seen;
    }

    /// Of the samples of a series without times of their own only the first stays.
    pub(super) fn leave_out_duplicates(&mut self, batch: &mut Batch) {
        let honors_time = self.rules.honor_timestamps;
        let Scratch { seen, next, .. } = &mut *self.scratch;
        seen.clear();
        let entries = match self.changed {
            Some(_) => &*next,
            None => &self.memory.known.entries,
        };
        let mut at = 0;
        let before = batch.samples.len();
        batch.samples.retain(|sample| {
            let entry = entries.get(at);
            at += 1;
            let is_twice =
                |entry: &Entry| !entry.keeps_time(honors_time) && !seen.insert(sample.series.get());
            !entry.is_some_and(is_twice)
        });
        let left_out = before - batch.samples.len();
        self.counts.duplicates += left_out;
        self.report_at -= left_out;
    }
}
