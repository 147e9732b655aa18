//! Turns a stream of hashes into those that come most, in bounded memory.
//!
//! The sketch is that of Misra and Gries, by the batch: when there are twice as many counts as are to be
//! kept, the size of the largest that is not to be kept is taken from all of them.
//!
//! # Invariants
//! - Without such a batch, counts are exact. With them a count is too small by at most `n /`
//!   [`COUNTED_MAX`] for `n` hashes, and what came more often than that is counted.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use wal::SeriesRef;

use super::values::Hashed;

/// Counts that are kept: 3 MB for twice as many.
pub(super) const COUNTED_MAX: usize = 1 << 16;

/// A label of a series: where what is counted can be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) series: SeriesRef,
    /// From 0.
    pub(super) number: u32,
}

/// Counts of what comes most.
#[derive(Debug, Default)]
pub(super) struct Heavy {
    counts: HashMap<u64, (u64, Place), Hashed>,
    /// What counts may be short of.
    taken: u64,
}

impl Heavy {
    /// Counts a hash so many times.
    pub(super) fn add(&mut self, hash: u64, times: u64, place: Place) {
        match self.counts.entry(hash) {
            Entry::Occupied(mut known) => known.get_mut().0 += times,
            Entry::Vacant(new) => {
                new.insert((times, place));
                if self.counts.len() >= 2 * COUNTED_MAX {
                    self.cut();
                }
            }
        }
    }

    fn cut(&mut self) {
        let mut all: Vec<u64> = self.counts.values().map(|(count, _)| *count).collect();
        let middle = all.len() - COUNTED_MAX - 1;
        let (_, taken, _) = all.select_nth_unstable(middle);
        let taken = *taken;
        self.counts.retain(|_, (count, _)| {
            *count = count.saturating_sub(taken);
            *count > 0
        });
        self.taken += taken;
    }

    /// Whether counts may be too small, and some missing.
    pub(super) const fn is_approximate(&self) -> bool {
        self.taken > 0
    }

    /// The most frequent, the most frequent first: where one stands, and its count.
    pub(super) fn top(&self, count: usize) -> Vec<(Place, u64)> {
        let counts = self.counts.values();
        let mut all: Vec<(Place, u64)> = counts.map(|(count, place)| (*place, *count)).collect();
        all.sort_by_key(|(place, count)| (std::cmp::Reverse(*count), place.series, place.number));
        all.truncate(count);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(number: u32) -> Place {
        Place {
            series: SeriesRef::new(number),
            number: 0,
        }
    }

    #[test]
    fn what_comes_most_is_found_among_very_many() {
        let mut heavy = Heavy::default();
        let rare = 4 * COUNTED_MAX as u64;
        for at in 0..rare {
            heavy.add(at, 1, place(1));
            if at % 4 == 0 {
                heavy.add(u64::MAX, 1, place(2));
            }
            if at % 8 == 0 {
                heavy.add(u64::MAX - 1, 1, place(3));
            }
        }
        assert!(heavy.is_approximate());
        assert!(heavy.counts.len() <= 2 * COUNTED_MAX);
        let top = heavy.top(2);
        assert_eq!([top[0].0, top[1].0], [place(2), place(3)]);
        let most = (rare + rare / 4 + rare / 8) / COUNTED_MAX as u64;
        for ((_, count), real) in top.iter().zip([rare / 4, rare / 8]) {
            assert!((real - most..=real).contains(count), "{count} of {real}");
        }
    }

    #[test]
    fn few_are_counted_exactly() {
        let mut heavy = Heavy::default();
        for at in 0..1000 {
            heavy.add(at % 10, 1, place(u32::try_from(at % 10).unwrap()));
        }
        assert!(!heavy.is_approximate());
        assert_eq!(
            heavy.top(3),
            [(place(0), 100), (place(1), 100), (place(2), 100)]
        );
    }
}
