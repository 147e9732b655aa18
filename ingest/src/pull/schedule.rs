//! Turns a target into the moments at which it is scraped.
//!
//! As in Prometheus: each target has its own place in the interval, which depends on what it is and on who
//! scrapes it and on nothing else, so that load is spread and a restart changes nothing.

use std::time::Duration;

/// How far behind the moment it was meant for a scrape may be and still have that as its time.
const TOLERANCE_MAX: Duration = Duration::from_millis(2);

/// FNV-1a of 64 bits.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// What a scraper on this host adds to the place of its targets.
pub(crate) fn seed(hostname: &str) -> u64 {
    fnv1a(hostname.as_bytes())
}

/// How long to wait until the first scrape of a target: the next moment at which the time is the place of
/// the target in the interval. `unix` is the time since the epoch.
pub(crate) fn first(
    (target_id, url, seed): (u64, &str, u64),
    unix: Duration,
    interval: Duration,
) -> Duration {
    let hash = fnv1a(format!("{target_id:016}{url}").as_bytes());
    let interval_ns = interval.as_nanos().max(1);
    let place = u128::from(hash ^ seed) % interval_ns;
    let now = unix.as_nanos() % interval_ns;
    let wait = (place + interval_ns - now) % interval_ns;
    Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX))
}

/// The time that the samples of scrapes have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Aligned {
    /// When the last scrape was meant to be, in milliseconds since the epoch.
    meant_ms: i64,
    interval_ms: i64,
    tolerance_ms: i64,
}

impl Aligned {
    /// The first scrape is meant to be at `first_ms`.
    pub(crate) fn new(first_ms: i64, interval: Duration) -> Self {
        let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        Self {
            meant_ms: first_ms,
            interval_ms: ms(interval).max(1),
            tolerance_ms: ms(TOLERANCE_MAX.min(interval / 100)),
        }
    }

    /// The time of a scrape that begins at `now_ms`: when it was meant to be, if that is near enough.
    pub(crate) fn time(&mut self, now_ms: i64) -> i64 {
        let behind = now_ms.saturating_sub(self.meant_ms);
        if behind >= self.interval_ms {
            self.meant_ms += behind / self.interval_ms * self.interval_ms;
        }
        let behind = now_ms.saturating_sub(self.meant_ms);
        if (0..=self.tolerance_ms).contains(&behind) {
            self.meant_ms
        } else {
            now_ms
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_has_its_place_whenever_the_scraper_starts() {
        let interval = Duration::from_secs(15);
        let at = |now_ms: u64| {
            let now = Duration::from_millis(now_ms);
            (now + first((7, "http://h/metrics", 3), now, interval)).as_nanos()
                % interval.as_nanos()
        };
        assert_eq!(at(0), at(1_700_000_000_123));
        assert_eq!(at(0), at(1_700_000_009_999));
        let wait = first(
            (7, "http://h/metrics", 3),
            Duration::from_millis(1),
            interval,
        );
        assert!(wait < interval);
        let other = first(
            (8, "http://h/metrics", 3),
            Duration::from_millis(1),
            interval,
        );
        assert_ne!(wait, other);
    }

    #[test]
    fn the_hash_is_the_known_one() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn a_scrape_that_is_almost_on_time_has_the_time_it_was_meant_for() {
        let mut aligned = Aligned::new(1000, Duration::from_secs(15));
        assert_eq!(aligned.time(1002), 1000);
        assert_eq!(aligned.time(16_003), 16_003, "too late");
        assert_eq!(aligned.time(31_001), 31_000);
        assert_eq!(aligned.time(91_001), 91_000, "some were skipped");
        assert_eq!(aligned.time(90_999), 90_999, "the clock was set back");
    }
}
