//! Turns the failures of all shards of an endpoint into whose turn it is to try again.
//!
//! An endpoint that answers nobody is asked by one shard at a time. When it answers again the others
//! come back one after the other, at random within the longest backoff, so that neither the shards of
//! one agent nor a fleet of agents fall upon it at once.
//!
//! # Invariants
//! - Whoever waits here goes on at the latest when the one that tries is decided: a shard that is
//!   aborted gives its turn back.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, SemaphorePermit};

/// So many failures, of whatever shard and without a success between, mean that it answers nobody.
const AWAY_AFTER: u32 = 3;

/// Whether an endpoint answers.
#[derive(Debug)]
pub(crate) struct Health {
    /// Failures since the last success.
    failures: AtomicU32,
    /// Whether it ever answered.
    has_answered: AtomicBool,
    turn: Semaphore,
    back: Notify,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            failures: AtomicU32::new(0),
            has_answered: AtomicBool::new(false),
            turn: Semaphore::new(1),
            back: Notify::new(),
        }
    }
}

impl Health {
    /// Whether it answers nobody.
    pub(crate) fn is_away(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= AWAY_AFTER
    }

    /// Whether it is known to answer: more is read ahead for such an endpoint only.
    pub(crate) fn is_up(&self) -> bool {
        self.has_answered.load(Ordering::Relaxed) && !self.is_away()
    }

    /// An attempt failed in a way that is worth another.
    pub(crate) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// The endpoint has decided on a request.
    pub(crate) fn answered(&self) {
        if !self.has_answered.load(Ordering::Relaxed) {
            self.has_answered.store(true, Ordering::Relaxed);
        }
        if self.failures.load(Ordering::Relaxed) > 0 {
            self.failures.store(0, Ordering::Relaxed);
            self.back.notify_waiters();
        }
    }

    /// Waits until a shard may try again. What it gets is to be held until that attempt is decided;
    /// `jitter` is in 0..=1, of `spread` if it is one of many that waited.
    pub(crate) async fn turn(&self, jitter: f64, spread: Duration) -> Option<SemaphorePermit<'_>> {
        let back = self.back.notified();
        if !self.is_away() {
            return None;
        }
        tokio::select! {
            // First: who gave the turn back may have done so because it is not needed any more.
            biased;
            () = back => {}
            turn = self.turn.acquire() => return turn.ok(),
        }
        tokio::time::sleep(spread.mul_f64(jitter.clamp(0.0, 1.0))).await;
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::Instant;

    use super::*;

    const SPREAD: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_is_away_is_asked_by_one_and_the_others_come_back_spread() {
        let health = Arc::new(Health::default());
        assert!(!health.is_up(), "nothing is known yet");
        health.answered();
        assert!(health.is_up());
        assert!(health.turn(1.0, SPREAD).await.is_none(), "it answers");
        for _ in 0..AWAY_AFTER {
            health.failed();
        }
        assert!(!health.is_up());
        let turn = health.turn(1.0, SPREAD).await;
        assert!(turn.is_some());
        let start = Instant::now();
        let others: Vec<_> = (1..=4_u32)
            .map(|number| {
                let health = Arc::clone(&health);
                tokio::spawn(async move {
                    let turn = health.turn(f64::from(number) / 4.0, SPREAD).await;
                    (turn.is_some(), start.elapsed())
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(others.iter().all(|other| !other.is_finished()));
        health.answered();
        drop(turn);
        let mut came = Vec::new();
        for other in others {
            came.push(other.await.unwrap());
        }
        let ms = |at: Duration| (at - Duration::from_secs(60)).as_millis();
        let waited: Vec<_> = came.iter().map(|(turn, at)| (*turn, ms(*at))).collect();
        assert_eq!(
            waited,
            [(false, 1250), (false, 2500), (false, 3750), (false, 5000)]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_given_back_goes_to_the_next() {
        let health = Health::default();
        for _ in 0..AWAY_AFTER {
            health.failed();
        }
        let turn = health.turn(0.5, SPREAD).await;
        let (next, ()) = tokio::join!(health.turn(0.5, SPREAD), async { drop(turn) });
        assert!(next.is_some(), "it is still away");
    }
}
