//! Turns simulated time into the clocks of processes.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use wal::Clock;

pub(crate) const EPOCH_MS: i64 = 1_700_000_000_000;

/// The time as a process sees it: that of the runtime it is asked in, or as it was last set.
#[derive(Debug)]
pub(crate) struct DeviceClock {
    begin: Option<Instant>,
    now_ms: AtomicU64,
    /// By how much somebody has set the wall clock; the same for all clocks of a life.
    wrong_ms: Arc<AtomicI64>,
}

impl DeviceClock {
    /// Follows the time of runtimes that began then.
    pub(crate) fn of_runtime(begin: Instant, wrong_ms: &Arc<AtomicI64>) -> Arc<Self> {
        Arc::new(Self {
            begin: Some(begin),
            now_ms: AtomicU64::new(0),
            wrong_ms: Arc::clone(wrong_ms),
        })
    }

    /// Stands still until it is set.
    pub(crate) fn by_hand() -> Arc<Self> {
        Arc::new(Self {
            begin: None,
            now_ms: AtomicU64::new(0),
            wrong_ms: Arc::default(),
        })
    }

    pub(crate) fn set(&self, now: Duration) {
        let ms = u64::try_from(now.as_millis()).unwrap();
        self.now_ms.store(ms, Ordering::Relaxed);
    }

    pub(crate) const fn wrong_ms(&self) -> &Arc<AtomicI64> {
        &self.wrong_ms
    }

    /// Somebody sets the wall clock.
    pub(crate) fn jump(&self, ms: i64) {
        self.wrong_ms.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for DeviceClock {
    fn unix_ms(&self) -> i64 {
        let since = i64::try_from(self.monotonic().as_millis()).unwrap();
        EPOCH_MS + since + self.wrong_ms.load(Ordering::Relaxed)
    }

    fn monotonic(&self) -> Duration {
        match self.begin {
            Some(begin) => instant() - begin,
            None => Duration::from_millis(self.now_ms.load(Ordering::Relaxed)),
        }
    }
}

/// Now, in the time of the runtime that runs.
pub(crate) fn instant() -> Instant {
    Instant::now()
}
