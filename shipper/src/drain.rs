//! Turns the `drain` settings into pauses between the requests of an endpoint that is behind.
//!
//! # Invariants
//! - An endpoint that keeps up waits for nothing: only what is older than 10 s (`BEHIND_FROM`) is backlog.
//!
//! # Limits
//! - After a pause at most one second's worth of bytes goes out at once.

use std::time::Duration;

use parking_lot::Mutex;

/// An endpoint further behind is draining.
pub(crate) const BEHIND_FROM: Duration = Duration::from_secs(10);

/// How fast a backlog may be sent, so that a backend that was away is not run over; the `drain` block.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct DrainOptions {
    /// Compressed bytes of requests per second, over all shards; none: as fast as they are taken.
    pub max_bytes_per_second: Option<u64>,
    /// The share of its time, above 0 and up to 1, that a shard may have a request under way; none: all
    /// of it.
    pub max_share: Option<f64>,
    /// Records read ahead of what is sent, 28 bytes each, so that many samples of a series share its
    /// labels; 0: none.
    pub read_ahead: usize,
}

impl Default for DrainOptions {
    fn default() -> Self {
        Self {
            max_bytes_per_second: None,
            max_share: None,
            read_ahead: 1 << 20,
        }
    }
}

/// What the shards of one endpoint may send while it is behind.
#[derive(Debug)]
pub(crate) struct Drain {
    options: DrainOptions,
    /// When the bytes let through so far will have had their time, since some fixed instant.
    paid_until: Mutex<Duration>,
}

impl Drain {
    pub(crate) fn new(options: DrainOptions) -> Self {
        Self {
            options,
            paid_until: Mutex::new(Duration::ZERO),
        }
    }

    /// How long a request of so many bytes has to wait at `now`; it has its place then.
    pub(crate) fn delay(&self, now: Duration, bytes: usize, lag: Duration) -> Duration {
        let Some(per_second) = self.options.max_bytes_per_second else {
            return Duration::ZERO;
        };
        if lag < BEHIND_FROM {
            return Duration::ZERO;
        }
        #[expect(clippy::cast_precision_loss, reason = "a time needs no more")]
        let takes = Duration::from_secs_f64(bytes as f64 / per_second.max(1) as f64);
        let mut paid_until = self.paid_until.lock();
        let earliest = now.saturating_sub(Duration::from_secs(1));
        let begin = (*paid_until).max(earliest);
        *paid_until = begin + takes;
        begin.saturating_sub(now)
    }

    /// How long a shard rests after a request that took so long.
    pub(crate) fn rest(&self, took: Duration, lag: Duration) -> Duration {
        match self.options.max_share {
            Some(share) if lag >= BEHIND_FROM => took.mul_f64(1.0 / share - 1.0),
            _ => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEHIND: Duration = Duration::from_secs(60);

    fn limited(per_second: u64) -> Drain {
        Drain::new(DrainOptions {
            max_bytes_per_second: Some(per_second),
            max_share: Some(0.25),
            ..DrainOptions::default()
        })
    }

    #[test]
    fn a_backlog_goes_out_at_the_rate_set() {
        let drain = limited(1000);
        let mut now = Duration::from_secs(100);
        for _ in 0..100 {
            now += drain.delay(now, 500, BEHIND);
        }
        // The first second was free.
        let took = (now - Duration::from_secs(100)).as_secs_f64();
        assert!((took - 48.5).abs() < 0.01, "{took}");
    }

    #[test]
    fn who_keeps_up_waits_for_nothing() {
        let drain = limited(1);
        let now = Duration::from_secs(5);
        for lag in [Duration::ZERO, BEHIND_FROM / 2] {
            assert_eq!(drain.delay(now, 1 << 20, lag), Duration::ZERO);
            assert_eq!(drain.rest(Duration::from_secs(1), lag), Duration::ZERO);
        }
        let free = Drain::new(DrainOptions::default());
        assert_eq!(free.delay(now, 1 << 20, BEHIND), Duration::ZERO);
        assert_eq!(free.rest(Duration::from_secs(1), BEHIND), Duration::ZERO);
    }

    #[test]
    fn a_shard_rests_for_the_rest_of_its_share() {
        let rest = limited(1).rest(Duration::from_secs(1), BEHIND);
        assert_eq!(rest, Duration::from_secs(3));
    }
}
