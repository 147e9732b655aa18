//! Turns a log that somebody has into one of ours, once it is let go.
//!
//! # Failure
//! - Whoever has it for longer keeps it: that is the error of opening it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Agent;
use super::writer::{self, Writer};

/// How often, and how far apart, a log that was closed just now is tried: a page of metrics that is being
/// made takes milliseconds.
const REOPEN_ATTEMPTS: usize = 100;
const REOPEN_WAIT: Duration = Duration::from_millis(20);

fn is_locked(error: &anyhow::Error) -> bool {
    let wal = error.downcast_ref::<wal::Error>();
    matches!(wal, Some(wal::Error::Locked { .. }))
}

impl Agent {
    /// Opens a log, after the process that had it where that may be waited for.
    pub(super) fn open_once_free(
        &self,
        id: &str,
        wanted: &writer::Asked,
    ) -> anyhow::Result<Writer> {
        let since = self.ground.clock.monotonic();
        let mut is_told = false;
        loop {
            let error = match Writer::open(id, wanted, &self.ground) {
                Err(error) if is_locked(&error) => error,
                opened => return opened,
            };
            let waited = self.ground.clock.monotonic().saturating_sub(since);
            if waited >= self.ground.lock_timeout || self.ground.is_stopping.load(Ordering::Relaxed)
            {
                return Err(error);
            }
            if !is_told {
                tracing::info!(component = id, "waiting for the log of another process");
                is_told = true;
            }
            let wait = async { tokio::time::sleep(REOPEN_WAIT).await };
            self.ground.shipping.block_on(wait);
        }
    }

    /// Opens a log that was closed just now: whoever is still reading its numbers holds its lock.
    pub(super) fn reopen(&self, id: &str, wanted: &writer::Asked) -> anyhow::Result<Writer> {
        for _ in 0..REOPEN_ATTEMPTS {
            match Writer::open(id, wanted, &self.ground) {
                Err(error) if is_locked(&error) => {}
                opened => return opened,
            }
            let wait = async { tokio::time::sleep(REOPEN_WAIT).await };
            self.ground.shipping.block_on(wait);
        }
        Writer::open(id, wanted, &self.ground)
    }
}
