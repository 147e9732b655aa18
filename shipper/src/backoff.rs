//! Turns failed attempts into waiting times.
//!
//! Pure: the caller brings the randomness and does the waiting.
//!
//! # Invariants
//! - Without a `Retry-After` a delay is between half of and the whole current step; the step
//!   doubles from `min` up to `max`.
//! - A `Retry-After` is waited in full, and the step after it is twice as long, within `min` and `max`.
//!
//! # Limits
//! - A `Retry-After` counts up to [`RETRY_AFTER_MAX`]: a mistyped header must not park data for days.

use std::time::Duration;

/// The longest wait an endpoint can ask for.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// The wait rule of one shard.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    step: Duration,
}

impl Backoff {
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        debug_assert!(min <= max, "options are validated");
        Self {
            min,
            max,
            step: min,
        }
    }

    /// How long to wait after one more failed attempt. `jitter` is in 0..=1: 1 waits the whole step.
    pub(crate) fn after_failure(&mut self, asked: Option<Duration>, jitter: f64) -> Duration {
        if let Some(asked) = asked.filter(|asked| !asked.is_zero()) {
            let delay = asked.min(RETRY_AFTER_MAX);
            self.step = (delay * 2).clamp(self.min, self.max);
            return delay;
        }
        let step = self.step;
        self.step = (step * 2).min(self.max);
        step.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
    }

    /// The longest wait that nobody asks for.
    pub(crate) const fn longest(&self) -> Duration {
        self.max
    }

    /// An attempt got through: the next failure starts small again.
    pub(crate) fn reset(&mut self) {
        self.step = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn delays_double_up_to_the_maximum() {
        let mut backoff = Backoff::new(ms(30), ms(200));
        let delays: Vec<_> = (0..5).map(|_| backoff.after_failure(None, 1.0)).collect();
        assert_eq!(delays, [ms(30), ms(60), ms(120), ms(200), ms(200)]);
    }

    #[test]
    fn jitter_stays_between_half_and_the_whole_step() {
        let mut backoff = Backoff::new(ms(100), ms(100));
        assert_eq!(backoff.after_failure(None, 0.0), ms(50));
        assert_eq!(backoff.after_failure(None, 0.5), ms(75));
        assert_eq!(backoff.after_failure(None, 1.0), ms(100));
        assert_eq!(backoff.after_failure(None, 7.0), ms(100));
    }

    #[test]
    fn an_ack_starts_over() {
        let mut backoff = Backoff::new(ms(30), ms(5000));
        backoff.after_failure(None, 1.0);
        backoff.after_failure(None, 1.0);
        backoff.reset();
        assert_eq!(backoff.after_failure(None, 1.0), ms(30));
    }

    #[test]
    fn retry_after_is_waited_in_full_and_doubles_the_next_step() {
        let mut backoff = Backoff::new(ms(30), ms(5000));
        assert_eq!(backoff.after_failure(Some(ms(1000)), 0.0), ms(1000));
        assert_eq!(backoff.after_failure(None, 1.0), ms(2000));
        assert_eq!(backoff.after_failure(Some(ms(60_000)), 0.0), ms(60_000));
        assert_eq!(backoff.after_failure(None, 1.0), ms(5000));
    }

    /// A date is exact to the second, so that what is left of it may be next to nothing.
    #[test]
    fn a_short_retry_after_leaves_the_steps_as_long_as_the_first() {
        let mut backoff = Backoff::new(ms(30), ms(5000));
        assert_eq!(backoff.after_failure(Some(ms(1)), 0.0), ms(1));
        assert_eq!(backoff.after_failure(None, 1.0), ms(30));
        assert_eq!(backoff.after_failure(None, 1.0), ms(60));
    }

    #[test]
    fn retry_after_of_zero_means_the_normal_delay() {
        let mut backoff = Backoff::new(ms(30), ms(5000));
        assert_eq!(backoff.after_failure(Some(Duration::ZERO), 1.0), ms(30));
    }

    #[test]
    fn an_absurd_retry_after_is_capped() {
        let mut backoff = Backoff::new(ms(30), ms(5000));
        let year = Duration::from_secs(365 * 86_400);
        assert_eq!(backoff.after_failure(Some(year), 1.0), RETRY_AFTER_MAX);
    }
}
