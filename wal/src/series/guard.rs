//! Turns label bytes into refs for one request, and refs into label bytes, while nothing is unmapped.
//!
//! # Invariants
//! - What [`SeriesGuard::find`], [`SeriesGuard::define`] and [`SeriesGuard::confirm`] answered stays
//!   defined for as long as the guard is held, so that it can be appended, and as long as frames
//!   on disk name it.

use std::sync::atomic::Ordering;

use crossbeam::epoch::Guard;
use hashbrown::HashTable;

use super::{DEAD, Define, FREE, NewSeries, SeriesTable};
use crate::{Error, SeriesRef};

/// The series of a store, held in place. Hold it from looking up the series of a request until its
/// samples are appended.
#[derive(Debug)]
pub struct SeriesGuard<'t> {
    table: &'t SeriesTable,
    pin: Guard,
    tick: u32,
}

impl<'t> SeriesGuard<'t> {
    pub(super) fn new(table: &'t SeriesTable, pin: Guard) -> Self {
        Self {
            table,
            pin,
            tick: table.tick.load(Ordering::Acquire),
        }
    }

    /// The series that followed `after` last time, or the ref behind it: only a guess, to be
    /// [confirmed](Self::confirm) once its labels were compared.
    #[inline]
    #[must_use]
    pub fn predicted(&self, after: SeriesRef) -> SeriesRef {
        let next = self.table.next.as_slice().get(after.index());
        match next.map_or(0, |next| next.load(Ordering::Relaxed)) {
            0 => after.behind(),
            next => SeriesRef::new(next),
        }
    }

    /// Remembers that `next` followed `after`. Takes memory only where that is not the ref behind it:
    /// series are mostly sent in the order in which they came first.
    #[inline]
    pub fn learn(&self, after: SeriesRef, next: SeriesRef) {
        if let Some(slot) = self.table.next.as_slice().get(after.index()) {
            let next = if next == after.behind() {
                0
            } else {
                next.get()
            };
            if slot.load(Ordering::Relaxed) != next {
                slot.store(next, Ordering::Relaxed);
            }
        }
    }

    /// Says that samples of a series will be appended under this guard. False if the series is given
    /// up or unknown: look for its labels then.
    #[inline]
    #[must_use]
    pub fn confirm(&self, series: SeriesRef) -> bool {
        let Some(seen) = self.table.seen.as_slice().get(series.index()) else {
            return false;
        };
        let mut tick = seen.load(Ordering::Relaxed);
        while tick < self.tick {
            if tick == FREE || tick == DEAD {
                return false;
            }
            match seen.compare_exchange(tick, self.tick, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => tick = now,
            }
        }
        true
    }

    /// The canonical label bytes of a series; empty if there is none of that ref.
    #[inline]
    #[must_use]
    pub fn labels(&self, series: SeriesRef) -> &[u8] {
        let Some(offset) = self.table.offset.as_slice().get(series.index()) else {
            return &[];
        };
        let words = offset.load(Ordering::Acquire);
        if words == 0 {
            return &[];
        }
        let found = self.table.arena.locate(u64::from(words) * 8, &self.pin);
        found.map_or(&[], |(chunk, at)| chunk.labels_at(at))
    }

    /// Names the record that holds the labels of a series, for whoever keeps what was made of them:
    /// the same name means the same labels, in this process. A series' name may change, as records
    /// are copied, and a ref names another series once [`SeriesTable::generation`] has changed. 0 if
    /// there is no series of that ref.
    #[inline]
    #[must_use]
    pub fn record(&self, series: SeriesRef) -> u64 {
        let Some(offset) = self.table.offset.as_slice().get(series.index()) else {
            return 0;
        };
        let words = u64::from(offset.load(Ordering::Acquire));
        if words == 0 {
            return 0;
        }
        let found = self.table.arena.locate(words * 8, &self.pin);
        found.map_or(0, |(chunk, at)| {
            chunk.header.id * chunk.header.file_bytes + at as u64
        })
    }

    /// See [`SeriesTable::hash`].
    #[inline]
    #[must_use]
    pub fn hash(&self, labels: &[u8]) -> u64 {
        self.table.hash(labels)
    }

    /// The series with these canonical labels, if it is defined.
    #[must_use]
    pub fn find(&self, hash: u64, labels: &[u8]) -> Option<SeriesRef> {
        let shard = self.table.shard(hash).read();
        let is_it = |&series: &SeriesRef| self.labels(series) == labels && self.confirm(series);
        shard.find(hash, is_it).copied()
    }

    /// The hash of a series' labels.
    pub(super) fn hash_of(&self, series: SeriesRef) -> u64 {
        self.hash(self.labels(series))
    }

    /// Gives every series of `new` its ref, writing records for those not yet known.
    ///
    /// # Errors
    /// [`Error::Full`] when the arena or the disk is, [`Error::TooLarge`] for labels over
    /// [`LABELS_BYTES_MAX`](crate::LABELS_BYTES_MAX), [`Error::Io`]. Series before the failing one may
    /// be defined; that harms nothing.
    pub fn define(&self, new: &mut [NewSeries<'_>]) -> Result<(), Error> {
        let mut define = self.table.define.lock();
        let defined = self.define_each(&mut define, new);
        let published = self.table.publish(&mut define);
        let result = defined.and(published);
        self.table.report(&result);
        result
    }

    fn define_each(&self, define: &mut Define, new: &mut [NewSeries<'_>]) -> Result<(), Error> {
        // Series of this call that are not yet published, by their hash: duplicates are rare, but
        // a sender may name a new series twice in a request.
        let mut here: HashTable<usize> = HashTable::new();
        for at in 0..new.len() {
            let NewSeries { hash, labels, .. } = new[at];
            if let Some(series) = self.find(hash, labels) {
                new[at].series = series;
                continue;
            }
            let earlier = here.find(hash, |&n| new[n].labels == labels).copied();
            if let Some(earlier) = earlier {
                new[at].series = new[earlier].series;
                continue;
            }
            let series = define.next(self.table.series_max())?;
            self.table.stage(define, series, hash, labels)?;
            define.took(series);
            new[at].series = series;
            let hash_of = |&n: &usize| new[n].hash;
            here.insert_unique(hash, at, hash_of);
        }
        Ok(())
    }
}
