//! Turns the series of a request into those its tenant may send: the others leave it before anything is
//! defined or appended.
//!
//! # Invariants
//! - Afterwards the batch holds nothing of a refused series but metadata, which is its family's, and what
//!   the new series brought is where it is said to be.

use std::collections::HashSet;
use std::ops::Range;

use wal::{RecordKind, SeriesRef};

use super::{Interner, Pending, Scratch};
use crate::decode::labels::{Reason, shown};
use crate::decode::{Batch, NotAllowed, Refusals};
use crate::tenants::Pass;

/// Stands for the series of what is refused. No store has one of this number: its memory would be more
/// than there is.
const REFUSED: SeriesRef = SeriesRef::new(u32::MAX);

/// Places of a request that are looked at where all of it is refused.
const SEEN_MAX: usize = 64;

impl Interner<'_> {
    /// Takes out of the batch what the tenant may not send.
    pub(crate) fn admit(&mut self, pass: &mut Pass<'_>, batch: &mut Batch) {
        let had_new = self.scratch.pending.len();
        self.admit_new(pass, batch);
        let mut gone = HashSet::new();
        self.admit_known(pass, batch, &mut gone);
        if gone.is_empty() && self.scratch.pending.len() == had_new {
            return;
        }
        let pending = &mut self.scratch.pending;
        let samples = pending.iter_mut().map(|new| &mut new.brought.samples);
        keep(
            &mut batch.samples,
            |sample| sample.series != REFUSED,
            samples,
        );
        let records = pending.iter_mut().map(|new| &mut new.brought.records);
        keep(
            &mut batch.records,
            |record| record.series != REFUSED,
            records,
        );
    }

    fn admit_new(&mut self, pass: &mut Pass<'_>, batch: &mut Batch) {
        let Scratch { arena, pending, .. } = &mut *self.scratch;
        pending.retain(|new: &Pending| {
            if pass.may_define() {
                return true;
            }
            new.brought.assign(REFUSED, batch);
            let records = batch.records.get_mut(new.brought.records.clone());
            let mut items = new.brought.samples.len() + new.brought.records.len();
            for record in records.unwrap_or_default() {
                if record.kind == RecordKind::Metadata {
                    record.series = SeriesRef::NONE;
                    items -= 1;
                }
            }
            let labels = arena.get(new.labels.clone()).unwrap_or_default();
            refuse(&mut batch.refused, labels);
            batch.refused.items[Reason::TenantSeriesLimit.index()] += items as u64;
            pass.refused(labels, items);
            false
        });
    }

    fn admit_known(&self, pass: &Pass<'_>, batch: &mut Batch, gone: &mut HashSet<SeriesRef>) {
        let Batch {
            samples,
            records,
            refused,
            ..
        } = batch;
        let mut last = (SeriesRef::NONE, true);
        let mut may_send = |series: SeriesRef| {
            if series.is_none() || series == REFUSED {
                return true;
            }
            if last.0 != series {
                last = (series, pass.may_send(series));
                if !last.1 && gone.insert(series) {
                    refuse(refused, self.table.labels(series));
                }
            }
            if !last.1 {
                refused.items[Reason::TenantSeriesLimit.index()] += 1;
                pass.refused(self.table.labels(series), 1);
            }
            last.1
        };
        for sample in samples {
            if !may_send(sample.series) {
                sample.series = REFUSED;
            }
        }
        for record in records {
            if record.kind != RecordKind::Metadata && !may_send(record.series) {
                record.series = REFUSED;
            }
        }
    }

    /// Calls `with` with the labels of some of the request's series, spread over it, and how many of its
    /// samples each stands for.
    pub(crate) fn some_labels(&self, batch: &Batch, mut with: impl FnMut(&[u8], usize)) {
        let count = batch.samples.len();
        let step = count.div_ceil(SEEN_MAX).max(1);
        for at in (0..count).step_by(step) {
            let stands_for = step.min(count - at);
            let series = batch.samples.get(at).map_or(SeriesRef::NONE, |s| s.series);
            if !series.is_none() {
                with(self.table.labels(series), stands_for);
                continue;
            }
            let pending = &self.scratch.pending;
            let behind = pending.partition_point(|new| new.brought.samples.start <= at);
            if let Some(new) = behind.checked_sub(1).and_then(|at| pending.get(at)) {
                let labels = self.scratch.arena.get(new.labels.clone());
                with(labels.unwrap_or_default(), stands_for);
            }
        }
    }
}

impl Scratch {
    /// The refs that the new series of the last request were given.
    pub(crate) fn defined<'s>(&'s self, batch: &'s Batch) -> impl Iterator<Item = SeriesRef> + 's {
        self.pending.iter().filter_map(|new| {
            let sample = batch.samples.get(new.brought.samples.clone());
            let sample = sample.and_then(|all| all.first()).map(|one| one.series);
            let record = batch.records.get(new.brought.records.clone());
            sample.or_else(|| record.and_then(|all| all.first()).map(|one| one.series))
        })
    }
}

fn refuse(refused: &mut Refusals, labels: &[u8]) {
    let reason = Reason::TenantSeriesLimit;
    // Written out for the answer, which shows the first only.
    let shown = match refused.first {
        None => shown(labels),
        Some(_) => String::new(),
    };
    refused.add(NotAllowed { reason, shown }, 0);
}

/// Keeps the items that `is_kept`, and moves the ranges, which are in order, with them. A range is kept
/// whole.
fn keep<'r, T>(
    items: &mut Vec<T>,
    is_kept: impl Fn(&T) -> bool,
    ranges: impl Iterator<Item = &'r mut Range<usize>>,
) {
    let mut ranges = ranges.peekable();
    let (mut at, mut kept) = (0, 0);
    items.retain(|item| {
        while let Some(range) = ranges.next_if(|range| range.start <= at) {
            *range = kept..kept + range.len();
        }
        let is_kept = is_kept(item);
        at += 1;
        kept += usize::from(is_kept);
        is_kept
    });
    for range in ranges {
        *range = kept..kept + range.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_move_with_what_is_kept() {
        let mut items = vec!['a', '-', 'b', 'b', '-', '-', 'c', 'd'];
        let mut ranges = vec![0..0, 2..4, 4..4, 6..7, 8..8];
        keep(&mut items, |item| *item != '-', ranges.iter_mut());
        assert_eq!(items, ['a', 'b', 'b', 'c', 'd']);
        assert_eq!(ranges, [0..0, 1..3, 3..3, 3..4, 5..5]);
    }
}
