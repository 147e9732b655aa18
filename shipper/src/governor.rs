//! Turns an endpoint's numbers into how many shards it should have, and how long it will be behind.
//!
//! # Threads
//! - A timer of its own inside the endpoint's task. It only wishes: the tailer changes the shards
//!   between two frames.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};

use crate::options::QueueOptions;
use crate::reshard::{Observed, Rate, Resharder};
use crate::shard::Shared;
use crate::stats::Snapshot;

/// Between two looks at the progress.
const LOOK: Duration = Duration::from_secs(1);
/// Records per second: below that nothing moves.
const RATE_LEAST: f64 = 0.001;
/// Weight of the newest look at how fast an endpoint catches up.
const DRAIN_WEIGHT: f64 = 0.2;

/// How many shards there should be.
#[derive(Debug, Default)]
pub(crate) struct Wish {
    /// 0 for "as it is".
    shards: AtomicU16,
    made: Notify,
}

impl Wish {
    /// The number wished for since the last call.
    pub(crate) fn take(&self) -> Option<u16> {
        Some(self.shards.swap(0, Ordering::AcqRel)).filter(|shards| *shards > 0)
    }

    /// Waits until there is one.
    pub(crate) async fn made(&self) {
        self.made.notified().await;
    }

    /// Wishes for so many.
    pub(crate) fn make(&self, shards: u16) {
        self.shards.store(shards, Ordering::Release);
        self.made.notify_one();
    }
}

/// Watches one endpoint.
pub(crate) struct Governor {
    shared: Arc<Shared>,
    wish: Arc<Wish>,
    resharder: Resharder,
    tick: Duration,
    at_tick: Seen,
    progress: Progress,
}

/// The numbers of a tick.
#[derive(Clone, Copy)]
struct Seen {
    at: Instant,
    records: u64,
    sent: u64,
    dropped: u64,
    retried: u64,
    sending: Duration,
}

/// How fast the endpoint catches up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    log_records: u64,
    behind: u64,
    decided: Rate,
    arriving: Rate,
}

impl Progress {
    pub(crate) fn new(log_records: u64, behind: u64) -> Self {
        Self {
            log_records,
            behind,
            decided: Rate::default(),
            arriving: Rate::default(),
        }
    }

    /// Takes in a look after so many seconds: records the log has taken in all, and those of them the
    /// endpoint has not decided. Records decided per second, and seconds until there are none behind;
    /// without an end where more come than go.
    pub(crate) fn look(
        &mut self,
        log_records: u64,
        behind: u64,
        seconds: f64,
    ) -> (f64, Option<f64>) {
        let arrived = log_records.saturating_sub(self.log_records);
        let decided = (self.behind + arrived).saturating_sub(behind);
        self.arriving.add(float(arrived), seconds, DRAIN_WEIGHT);
        self.decided.add(float(decided), seconds, DRAIN_WEIGHT);
        (self.log_records, self.behind) = (log_records, behind);
        // What is left of a rate that was is none.
        let rate = Some(self.decided.per_second()).filter(|rate| *rate >= RATE_LEAST);
        let rate = rate.unwrap_or(0.0);
        let gained = rate - self.arriving.per_second();
        let eta = match behind {
            0 => Some(0.0),
            _ => Some(float(behind) / gained).filter(|_| gained > 0.0),
        };
        (rate, eta)
    }
}

impl Governor {
    pub(crate) fn new(shared: Arc<Shared>, wish: Arc<Wish>, options: &QueueOptions) -> Self {
        let at_tick = Seen::take(&shared, &shared.stats.snapshot());
        let behind = shared.stats.behind(shared.store.records());
        Self {
            wish,
            resharder: Resharder::new(options.min_shards, options.max_shards),
            tick: options.reshard_every,
            progress: Progress::new(at_tick.records, behind),
            at_tick,
            shared,
        }
    }

    /// Watches for as long as it is polled.
    #[expect(
        clippy::infinite_loop,
        reason = "it ends with its endpoint, which drops it"
    )]
    pub(crate) async fn run(mut self) -> Infallible {
        let mut looks = tokio::time::interval(LOOK.min(self.tick));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = looks.tick().await;
        loop {
            looks.tick().await;
            let now = Instant::now();
            self.look((now - last).as_secs_f64());
            last = now;
            if now - self.at_tick.at >= self.tick {
                self.tick();
            }
        }
    }

    fn look(&mut self, seconds: f64) {
        let Shared { store, stats, .. } = &*self.shared;
        let records = store.records();
        let (rate, eta) = self.progress.look(records, stats.behind(records), seconds);
        stats.set_drain(rate, eta);
    }

    fn tick(&mut self) {
        let stats = &self.shared.stats;
        let snapshot = stats.snapshot();
        let (before, now) = (self.at_tick, Seen::take(&self.shared, &snapshot));
        self.at_tick = now;
        if self.shared.acks.is_split() {
            // Lanes have a fixed number, and what arrives is not what is sent.
            return;
        }
        let seen = Observed {
            arrived: float(now.records - before.records),
            sent: float(now.sent - before.sent),
            dropped: float(now.dropped - before.dropped),
            sending: now.sending.saturating_sub(before.sending),
            lag: snapshot.lag(self.shared.clock.unix_ms()),
            is_healthy: now.sent > before.sent
                && now.retried == before.retried
                && snapshot.shards_backing_off == 0,
        };
        let shards = snapshot.shards;
        let seconds = (now.at - before.at).as_secs_f64();
        let (desired, wanted) = self.resharder.tick(seconds, &seen, shards);
        stats.set_shards_desired(desired);
        if wanted != shards {
            tracing::debug!(
                endpoint = self.shared.reporter.endpoint(),
                shards,
                wanted,
                "resharding"
            );
            self.wish.make(wanted);
        }
    }
}

impl Seen {
    fn take(shared: &Shared, snapshot: &Snapshot) -> Self {
        let dropped = snapshot.dropped.iter().map(|(_, counts)| counts.total());
        Self {
            at: Instant::now(),
            records: shared.store.records(),
            sent: snapshot.sent.total() + snapshot.failed_total().total(),
            dropped: dropped.sum(),
            retried: snapshot.retried.total(),
            sending: snapshot.duration_sum,
        }
    }
}

/// As a float; exact below 2^53.
#[expect(clippy::cast_precision_loss, reason = "rates need no more")]
const fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_drain_ends_when_it_was_said_to() {
        let (mut log, mut behind) = (0, 10_000_000);
        let mut progress = Progress::new(log, behind);
        let (mut seconds, mut said) = (0.0, Vec::new());
        while behind > 0 {
            log += 10_000;
            // Requests come in lumps.
            let decided = [40_000, 160_000, 100_000][said.len() % 3];
            behind = (behind + 10_000_u64).saturating_sub(decided);
            seconds += 1.0;
            let (_, eta) = progress.look(log, behind, 1.0);
            said.push((seconds, eta.unwrap()));
        }
        for (at, eta) in &said[10..said.len() - 10] {
            let left = seconds - at;
            assert!(
                (eta - left).abs() < left * 0.2 + 1.0,
                "{eta} at {at} of {seconds}"
            );
        }
        assert!(said.last().unwrap().1.abs() < f64::EPSILON);
    }

    #[test]
    fn what_grows_has_no_end() {
        let mut progress = Progress::new(0, 100);
        assert_eq!(progress.look(1000, 600, 1.0), (500.0, None));
    }

    #[test]
    fn a_wish_is_taken_once() {
        let wish = Wish::default();
        assert_eq!(wish.take(), None);
        wish.make(3);
        assert_eq!(wish.take(), Some(3));
        assert_eq!(wish.take(), None);
    }
}
