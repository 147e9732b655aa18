//! Turns a stream of hashes into how many different ones there are, in bounded memory.
//!
//! The smallest [`KEPT_MAX`] hashes are kept (k minimum values): as hashes are spread evenly, the largest of
//! them tells how many there are in all.
//!
//! # Invariants
//! - Up to twice [`KEPT_MAX`] are counted exactly; beyond that the standard error is 1 in 32 (3 %).

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use crate::telemetry::families::float;

/// 8 KiB of hashes for a label, and twice that before half of them go.
pub(super) const KEPT_MAX: usize = 1024;

/// Takes what is a hash already.
#[derive(Debug, Default)]
pub(super) struct AsItIs(u64);

/// See [`AsItIs`].
pub(super) type Hashed = BuildHasherDefault<AsItIs>;

impl Hasher for AsItIs {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The different ones.
#[derive(Debug)]
pub(super) struct Values {
    kept: HashSet<u64, Hashed>,
    /// Larger ones are not kept.
    most: u64,
    last: Option<u64>,
}

impl Default for Values {
    fn default() -> Self {
        Self {
            kept: HashSet::default(),
            most: u64::MAX,
            last: None,
        }
    }
}

impl Values {
    pub(super) fn add(&mut self, hash: u64) {
        // Neighbours have most of their values in common.
        if hash > self.most || self.last == Some(hash) {
            return;
        }
        self.last = Some(hash);
        if self.kept.insert(hash) && self.kept.len() >= 2 * KEPT_MAX {
            self.most = self.smallest();
            let most = self.most;
            self.kept.retain(|hash| *hash <= most);
        }
    }

    /// The largest of the smallest [`KEPT_MAX`].
    fn smallest(&self) -> u64 {
        let mut all: Vec<u64> = self.kept.iter().copied().collect();
        let (_, most, _) = all.select_nth_unstable(KEPT_MAX - 1);
        *most
    }

    pub(super) const fn is_approximate(&self) -> bool {
        self.most < u64::MAX
    }

    /// How many different ones there were.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count of what fits in memory"
    )]
    pub(super) fn count(&self) -> u64 {
        if self.most == u64::MAX {
            return self.kept.len() as u64;
        }
        let share = float(self.smallest()) / float(u64::MAX);
        (float(KEPT_MAX as u64 - 1) / share) as u64
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use foldhash::fast::FixedState;

    use super::*;

    #[test]
    fn few_are_counted_and_many_are_estimated() {
        for (different, error) in [(0, 0.0), (1000, 0.0), (2000, 0.0), (100_000, 0.1)] {
            let mut values = Values::default();
            for round in 0..3 {
                for n in 0..different {
                    values.add(FixedState::default().hash_one(n));
                    if round == 1 {
                        values.add(FixedState::default().hash_one(different / 2));
                    }
                }
            }
            let off = (float(values.count()) - float(different)).abs();
            assert!(
                off <= float(different) * error,
                "{} of {different}",
                values.count()
            );
            assert!(values.kept.len() < 2 * KEPT_MAX);
            assert_eq!(values.most < u64::MAX, different > 2047, "{different}");
        }
    }
}
