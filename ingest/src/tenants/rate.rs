//! Turns samples per second into "take it" or "in so long".
//!
//! A token bucket kept as one number: when it will be full again. Taking moves that moment on.
//!
//! # Invariants
//! - A full bucket admits any request, or one larger than the burst never would be; the next wait for it.
//!
//! # Threads
//! Shared by the shards; one relaxed compare-and-swap per request.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// How fast, and how much at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rate {
    /// Above 0.
    pub(crate) per_second: u64,
    pub(crate) burst: u64,
}

impl Rate {
    /// How long it takes for this many to come in again.
    fn time(self, count: u64) -> u64 {
        let nanos = u128::from(count) * NANOS_PER_SECOND / u128::from(self.per_second.max(1));
        u64::try_from(nanos).unwrap_or(u64::MAX / 4)
    }
}

/// How much of a burst is there.
#[derive(Default, Debug)]
pub(crate) struct Bucket {
    /// Nanoseconds of the monotonic clock.
    full_at: AtomicU64,
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 2)
}

impl Bucket {
    /// Takes `count`, or says how long to wait for them.
    pub(crate) fn take(&self, rate: Rate, count: u64, now: Duration) -> Result<(), Duration> {
        let (now, time, burst) = (nanos(now), rate.time(count), rate.time(rate.burst));
        let after = |full_at: u64| full_at.max(now).saturating_add(time);
        let take = |full_at: u64| {
            let is_full = full_at <= now;
            (is_full || after(full_at) - now <= burst).then(|| after(full_at))
        };
        self.full_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .map(|_| ())
            .map_err(|full_at| {
                // What never fits waits until the bucket is full.
                let enough = (after(full_at) - now).saturating_sub(burst);
                Duration::from_nanos(enough.min(full_at - now))
            })
    }

    /// Gives back what was taken for nothing.
    pub(crate) fn give_back(&self, rate: Rate, count: u64) {
        let back = |full_at: u64| Some(full_at.saturating_sub(rate.time(count)));
        self.full_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, back)
            .unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        per_second: 100,
        burst: 1000,
    };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_burst_is_taken_at_once_and_then_the_rate() {
        let bucket = Bucket::default();
        assert_eq!(bucket.take(RATE, 600, at(50)), Ok(()));
        assert_eq!(bucket.take(RATE, 400, at(50)), Ok(()));
        assert_eq!(bucket.take(RATE, 200, at(50)), Err(at(2)));
        assert_eq!(bucket.take(RATE, 100, at(51)), Ok(()));
        assert_eq!(bucket.take(RATE, 1, at(51)), Err(Duration::from_millis(10)));
        // Unused time counts up to a burst and no further.
        assert_eq!(bucket.take(RATE, 1000, at(500)), Ok(()));
        assert_eq!(
            bucket.take(RATE, 1, at(500)),
            Err(Duration::from_millis(10))
        );
    }

    #[test]
    fn more_than_a_burst_is_taken_from_a_full_bucket_only() {
        let bucket = Bucket::default();
        assert_eq!(bucket.take(RATE, 3000, at(50)), Ok(()));
        assert_eq!(
            bucket.take(RATE, 1, at(60)),
            Err(at(10) + Duration::from_millis(10))
        );
        assert_eq!(bucket.take(RATE, 3000, at(70)), Err(at(10)));
        assert_eq!(bucket.take(RATE, 3000, at(80)), Ok(()));
    }

    #[test]
    fn what_was_taken_for_nothing_is_there_again() {
        let bucket = Bucket::default();
        assert_eq!(bucket.take(RATE, 1000, at(50)), Ok(()));
        bucket.give_back(RATE, 1000);
        assert_eq!(bucket.take(RATE, 1000, at(50)), Ok(()));
    }
}
