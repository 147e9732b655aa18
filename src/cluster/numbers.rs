//! Turns what passes between this agent and the others into counters.

use std::sync::atomic::{AtomicU64, Ordering};

/// Of the messages of one direction.
#[derive(Debug, Default)]
pub(crate) struct Way {
    pub(crate) messages: AtomicU64,
    pub(crate) bytes: AtomicU64,
    /// Messages that did not get through.
    pub(crate) failed: AtomicU64,
}

impl Way {
    pub(crate) fn passed(&self, bytes: usize) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }
}

/// What passes.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    pub(crate) sent: Way,
    pub(crate) received: Way,
    /// Connections to the others.
    pub(crate) connections: AtomicU64,
    /// Looks for addresses to join by that led to none.
    pub(crate) nobody_found: AtomicU64,
}

impl Numbers {
    pub(crate) fn nobody_was_found(&self) {
        self.nobody_found.fetch_add(1, Ordering::Relaxed);
    }
}
