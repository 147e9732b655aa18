//! Turns a series into the number of its shard.
//!
//! # Invariants
//! - A series stays on one shard for the life of a map: order per series rests on it.
//! - Series of one target share a shard.
//!
//! # Limits
//! - Two bytes per series up to the highest ref that was shipped; nothing with one shard.

use wal::SeriesRef;

use crate::options::QueueOptions;
use labels::target_hash;

/// Enough that one slow answer does not stop everything, few enough that batches fill.
const SHARDS_AT_LEAST: u16 = 4;
/// The series was not seen yet. No shard has this number: options allow far fewer.
const UNKNOWN: u16 = u16::MAX;

/// How many shards an endpoint gets.
pub(crate) fn shard_count(queue: &QueueOptions) -> u16 {
    queue.min_shards.max(SHARDS_AT_LEAST).min(queue.max_shards)
}

/// The shards of the series of one endpoint.
#[derive(Debug)]
pub(crate) struct ShardMap {
    shards: u16,
    of_series: Vec<u16>,
}

impl ShardMap {
    pub(crate) fn new(shards: u16) -> Self {
        debug_assert!(shards > 0 && shards < UNKNOWN);
        Self {
            shards,
            of_series: Vec::new(),
        }
    }

    /// The shard of a series. `labels` gives its canonical label bytes, empty if it has none; such
    /// a series can go anywhere, as it will not be sent.
    pub(crate) fn shard<'a>(
        &mut self,
        series: SeriesRef,
        labels: impl FnOnce(SeriesRef) -> &'a [u8],
    ) -> usize {
        if self.shards == 1 {
            return 0;
        }
        match self.of_series.get(series.index()) {
            Some(&shard) if shard != UNKNOWN => usize::from(shard),
            _ => self.learn(series, labels(series)),
        }
    }

    #[cold]
    fn learn(&mut self, series: SeriesRef, labels: &[u8]) -> usize {
        if labels.is_empty() {
            // not remembered: a ref that was never given out would make the array huge
            return 0;
        }
        let shard = target_hash(labels) % u64::from(self.shards);
        let shard = u16::try_from(shard).expect("less than the number of shards");
        if self.of_series.len() <= series.index() {
            self.of_series.resize(series.index() + 1, UNKNOWN);
        }
        self.of_series[series.index()] = shard;
        usize::from(shard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use labels::canonical;

    fn series(number: u32) -> SeriesRef {
        SeriesRef::new(number)
    }

    #[test]
    fn shard_count_is_four_within_the_limits() {
        let count = |min_shards, max_shards| {
            shard_count(&QueueOptions {
                min_shards,
                max_shards,
                ..QueueOptions::default()
            })
        };
        assert_eq!(count(1, 50), 4);
        assert_eq!(count(1, 2), 2);
        assert_eq!(count(7, 50), 7);
    }

    #[test]
    fn labels_are_asked_for_once_per_series() {
        let mut map = ShardMap::new(8);
        let labels = canonical(&[("instance", "i"), ("job", "j")]);
        let first = map.shard(series(5), |_| &labels);
        assert_eq!(map.shard(series(5), |_| panic!("known")), first);
        assert_eq!(map.shard(series(3), |_| &labels), first, "same target");
    }

    #[test]
    fn targets_spread_over_the_shards() {
        let mut map = ShardMap::new(4);
        let mut seen = [false; 4];
        for number in 1..100 {
            let labels = canonical(&[("instance", &format!("host-{number}")), ("job", "j")]);
            seen[map.shard(series(number), |_| &labels)] = true;
        }
        assert_eq!(seen, [true; 4]);
    }

    #[test]
    fn unknown_series_takes_no_memory() {
        let mut map = ShardMap::new(4);
        map.shard(series(u32::MAX), |_| &[]);
        assert_eq!(map.of_series.len(), 0);
    }
}
