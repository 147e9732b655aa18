//! Turns the hash of a series into a shard of the table, of which some get more than others.
//!
//! A shard's table doubles at once when it is full. If all had the same share they would all do so at about the
//! same number of series, and be half empty together behind it. Their shares lie between 1 and 2, evenly on a
//! scale of doublings: so at any number of series about the same part of them has just doubled, and memory
//! grows with the series.

/// A shard doubles at once, and its readers wait meanwhile: many, so that each is small.
pub(super) const SHARDS: usize = 256;

/// Hashes are told apart by so many bits.
const PARTS: usize = 1 << 13;

/// Which shard has which part of the hashes.
#[derive(Debug)]
pub(super) struct Shares {
    shard_of: Box<[u8; PARTS]>,
}

impl Shares {
    pub(super) fn new() -> Self {
        let share = |shard: usize| (shard as f64 / SHARDS as f64).exp2();
        let all: f64 = (0..SHARDS).map(share).sum();
        let mut shard_of = Box::new([0; PARTS]);
        let (mut shard, mut behind) = (0, share(0));
        for (part, of) in shard_of.iter_mut().enumerate() {
            // The middle of a part decides, so that no share is off by more than one.
            while (part as f64 + 0.5) / PARTS as f64 * all > behind && shard + 1 < SHARDS {
                shard += 1;
                behind += share(shard);
            }
            *of = u8::try_from(shard).unwrap_or(u8::MAX);
        }
        Self { shard_of }
    }

    /// The number of the shard, below [`SHARDS`]. Not by those bits of the hash that its table goes by.
    #[inline]
    pub(super) fn shard(&self, hash: u64) -> usize {
        let part = usize::try_from(hash >> 32).unwrap_or(0) % PARTS;
        usize::from(self.shard_of[part])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Buckets of a table of so many: a power of two that is at most seven eighths full.
    fn buckets(series: f64) -> f64 {
        (series * 8.0 / 7.0).max(1.0).log2().ceil().exp2()
    }

    #[test]
    fn every_shard_has_a_share_and_none_more_than_twice_another() {
        let shares = Shares::new();
        let mut parts = [0_usize; SHARDS];
        for part in 0..PARTS as u64 {
            parts[shares.shard(part << 32 | 0x1234)] += 1;
        }
        let (least, most) = (parts.iter().min().unwrap(), parts.iter().max().unwrap());
        assert!(*least > 0 && *most <= 2 * least + 2, "{least} to {most}");
    }

    #[test]
    fn memory_grows_with_the_series() {
        let shares = Shares::new();
        let mut parts = [0_usize; SHARDS];
        for part in 0..PARTS as u64 {
            parts[shares.shard(part << 32)] += 1;
        }
        for step in 0..64 {
            // Two doublings, from a hundred thousand on.
            let series = 1e5 * (f64::from(step) / 32.0).exp2();
            let of = |parts: &usize| *parts as f64 / PARTS as f64 * series;
            let all: f64 = parts.iter().map(|parts| buckets(of(parts))).sum();
            let per_series = all / series;
            assert!((1.4..1.8).contains(&per_series), "{per_series} at {series}");
        }
    }
}
