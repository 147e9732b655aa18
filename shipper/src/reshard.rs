//! Turns how fast records come and go into how many shards there should be.
//!
//! The reference's rule (Prometheus remote write, `QueueManager.calculateDesiredShards`): rates are
//! smoothed over ticks of 10 s, the work per record times the records to send per second is the
//! number of shards wanted, and small differences change nothing.
//!
//! ```text
//! kept    = sent / (sent + dropped)
//! backlog = 0.05 * lag seconds * arriving * kept
//! desired = (seconds spent sending / sent) * (arriving * kept + backlog)
//! ```
//!
//! Pure: the caller brings the numbers and the clock. The lag is the age of the oldest frame that is
//! not acknowledged, rather than the difference of sample timestamps, which senders may set as they
//! like.
//!
//! # Invariants
//! - Never outside `min..=max`, never changed by what is within 30 % of the number there is.
//! - A failing endpoint changes nothing: neither a retry since the last tick nor a tick without
//!   success lets it.

use std::time::Duration;

/// Weight of the newest tick.
const EWMA_WEIGHT: f64 = 0.2;
/// Share of the backlog to be caught up with per second.
const BACKLOG_SHARE: f64 = 0.05;
/// A number of shards this far from the one there is, as a share of it, changes nothing.
const TOLERANCE: f64 = 0.3;
/// With a larger lag shards are not taken away.
const LAG_MAX: Duration = Duration::from_secs(10);

/// A smoothed rate per second; the first that is not zero counts whole.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rate {
    per_second: Option<f64>,
}

impl Rate {
    /// Takes in what came in `seconds`.
    pub(crate) fn add(&mut self, count: f64, seconds: f64, weight: f64) {
        let now = count / seconds;
        self.per_second = match self.per_second {
            Some(before) => Some(before + weight * (now - before)),
            None => Some(now).filter(|now| *now != 0.0),
        };
    }

    /// Per second; 0 before anything came.
    pub(crate) fn per_second(self) -> f64 {
        self.per_second.unwrap_or(0.0)
    }
}

/// What happened since the last tick.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Observed {
    /// Records the log has taken.
    pub(crate) arrived: f64,
    /// Records the endpoint has acknowledged.
    pub(crate) sent: f64,
    /// Records it does not get: dropped by a rule or a setting.
    pub(crate) dropped: f64,
    /// How long all requests took together.
    pub(crate) sending: Duration,
    /// How far the endpoint is behind.
    pub(crate) lag: Duration,
    /// Whether a request was acknowledged and none had to be repeated.
    pub(crate) is_healthy: bool,
}

/// The rule with its memory.
#[derive(Clone, Debug)]
pub(crate) struct Resharder {
    min: u16,
    max: u16,
    arriving: Rate,
    sending: Rate,
    sent: Rate,
    dropped: Rate,
}

impl Resharder {
    pub(crate) fn new(min: u16, max: u16) -> Self {
        Self {
            min,
            max,
            arriving: Rate::default(),
            sending: Rate::default(),
            sent: Rate::default(),
            dropped: Rate::default(),
        }
    }

    /// Takes in one tick of `seconds` with `shards` at work. How many the load asks for, and how many
    /// there should be.
    pub(crate) fn tick(&mut self, seconds: f64, seen: &Observed, shards: u16) -> (f64, u16) {
        let add = |rate: &mut Rate, count| rate.add(count, seconds, EWMA_WEIGHT);
        add(&mut self.arriving, seen.arrived);
        add(&mut self.sent, seen.sent);
        add(&mut self.dropped, seen.dropped);
        add(&mut self.sending, seen.sending.as_secs_f64());
        let sent = self.sent.per_second();
        if sent <= 0.0 {
            return (f64::from(shards), shards);
        }
        let kept = sent / (sent + self.dropped.per_second());
        let arriving = self.arriving.per_second() * kept;
        let backlog = BACKLOG_SHARE * seen.lag.as_secs_f64() * arriving;
        let desired = self.sending.per_second() / sent * (arriving + backlog);
        let wanted = self.decide(desired, seen, shards);
        (desired, wanted)
    }

    fn decide(&self, desired: f64, seen: &Observed, shards: u16) -> u16 {
        let (whole, now) = (desired.ceil(), f64::from(shards));
        let close = (now * (1.0 - TOLERANCE)..=now * (1.0 + TOLERANCE)).contains(&whole);
        if !seen.is_healthy || close || (whole < now && seen.lag > LAG_MAX) {
            return shards;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to what a u16 holds"
        )]
        let whole = whole.clamp(f64::from(self.min), f64::from(self.max)) as u16;
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_secs(10);

    /// An endpoint that answers each request after a time that depends on its size, with a log in
    /// front of it, in simulated time.
    struct Simulation {
        resharder: Resharder,
        shards: u16,
        /// Records in the log.
        backlog: f64,
        /// Of a request of one record, and of each further one.
        seconds_per_record: f64,
        history: Vec<u16>,
    }

    impl Simulation {
        fn new(min: u16, max: u16, seconds_per_record: f64) -> Self {
            Self {
                resharder: Resharder::new(min, max),
                shards: min,
                backlog: 0.0,
                seconds_per_record,
                history: Vec::new(),
            }
        }

        /// One tick of `load` records per second; an endpoint that is away sends nothing.
        fn tick(&mut self, load: f64, is_away: bool) {
            let seconds = TICK.as_secs_f64();
            let arrived = load * seconds;
            self.backlog += arrived;
            let capacity = f64::from(self.shards) / self.seconds_per_record * seconds;
            let sent = if is_away {
                0.0
            } else {
                self.backlog.min(capacity)
            };
            self.backlog -= sent;
            let seen = Observed {
                arrived,
                sent,
                dropped: 0.0,
                sending: Duration::from_secs_f64(sent * self.seconds_per_record),
                lag: Duration::from_secs_f64(self.backlog / load.max(1.0)),
                is_healthy: sent > 0.0,
            };
            let (_, shards) = self.resharder.tick(seconds, &seen, self.shards);
            self.shards = shards;
            self.history.push(shards);
        }

        fn run(&mut self, ticks: usize, load: impl Fn(usize) -> f64, is_away: bool) {
            for tick in 0..ticks {
                self.tick(load(tick), is_away);
            }
        }

        /// Most less fewest shards over the last ticks.
        fn swing(&self, ticks: usize) -> u16 {
            let last = &self.history[self.history.len() - ticks..];
            last.iter().max().unwrap() - last.iter().min().unwrap()
        }
    }

    /// Loads that need from 0.2 to 40 shards.
    fn loads() -> impl Iterator<Item = f64> {
        (1..=200).map(|n| f64::from(n) * 0.2 / 0.001)
    }

    #[test]
    fn a_step_settles_and_keeps_up() {
        for load in loads() {
            let mut it = Simulation::new(1, 50, 0.001);
            it.run(60, |_| 100.0, false);
            it.run(300, |_| load, false);
            assert!(it.swing(100) <= 1, "{load}: {:?}", it.history);
            assert!(it.backlog < load * 60.0, "{load}: {}", it.backlog);
            it.run(200, |_| load / 8.0, false);
            assert!(it.swing(50) <= 1, "{load}: {:?}", it.history);
        }
    }

    #[test]
    fn a_ramp_is_followed() {
        let mut it = Simulation::new(1, 50, 0.001);
        let ramp = |tick: usize| 500.0 + 50.0 * f64::from(u32::try_from(tick).unwrap());
        it.run(500, ramp, false);
        assert!(it.backlog < 25_500.0 * 60.0, "{}", it.backlog);
        assert!(it.history.is_sorted(), "only upwards: {:?}", it.history);
        it.run(200, |_| ramp(500), false);
        assert!(it.swing(100) <= 1, "{:?}", it.history);
    }

    #[test]
    fn an_outage_changes_nothing_and_its_backlog_is_caught_up_with() {
        for load in loads() {
            let mut it = Simulation::new(1, 50, 0.001);
            it.run(200, |_| load, false);
            let before = it.shards;
            it.run(60, |_| load, true);
            assert_eq!(
                it.shards, before,
                "nothing is known of an endpoint that is away"
            );
            it.run(300, |_| load, false);
            assert!(it.backlog < load * 60.0, "{load}: {}", it.backlog);
            assert!(it.swing(100) <= 1, "{load}: {:?}", it.history);
        }
    }

    #[test]
    fn a_storm_of_retries_is_no_load() {
        let mut it = Simulation::new(4, 50, 0.001);
        it.run(100, |_| 3500.0, false);
        let before = it.shards;
        let stormy = Observed {
            arrived: 35_000.0,
            sent: 100.0,
            sending: Duration::from_secs(400),
            lag: Duration::from_secs(600),
            ..Observed::default()
        };
        for _ in 0..100 {
            let (_, shards) = it.resharder.tick(10.0, &stormy, it.shards);
            assert_eq!(shards, before);
        }
    }

    #[test]
    fn the_limits_hold() {
        let mut it = Simulation::new(2, 5, 0.001);
        it.run(100, |_| 100_000.0, false);
        assert_eq!(it.shards, 5);
        let mut it = Simulation::new(2, 5, 0.001);
        it.run(100, |_| 1.0, false);
        assert_eq!(it.shards, 2);
    }

    #[test]
    fn what_is_dropped_needs_no_shards() {
        let mut resharder = Resharder::new(1, 50);
        let seen = Observed {
            arrived: 100_000.0,
            sent: 10_000.0,
            dropped: 90_000.0,
            sending: Duration::from_secs(20),
            is_healthy: true,
            ..Observed::default()
        };
        let (desired, shards) = resharder.tick(10.0, &seen, 1);
        assert!((desired - 2.0).abs() < 1e-9);
        assert_eq!(shards, 2);
    }
}
