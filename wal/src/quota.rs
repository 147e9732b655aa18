//! Keeps account of the disk a store takes: whoever makes a file asks here first.
//!
//! # Limits
//! Segments and chunks are made by two threads; asking and making is not one step, so the account may
//! be overdrawn by one file.

use std::sync::atomic::{AtomicU64, Ordering};

/// The disk of one store, in bytes.
#[derive(Debug)]
pub(crate) struct Quota {
    segments: AtomicU64,
    chunks: AtomicU64,
    /// The largest number while there is no limit.
    max: AtomicU64,
}

impl Quota {
    /// No limit yet.
    pub(crate) const fn new() -> Self {
        let [segments, chunks] = [AtomicU64::new(0), AtomicU64::new(0)];
        Self {
            segments,
            chunks,
            max: AtomicU64::new(u64::MAX),
        }
    }

    pub(crate) fn set_max(&self, max: Option<u64>) {
        self.max.store(max.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn max(&self) -> Option<u64> {
        Some(self.max.load(Ordering::Relaxed)).filter(|max| *max != u64::MAX)
    }

    /// What all segments take now; only the segment set calls this.
    pub(crate) fn set_segments(&self, bytes: u64) {
        self.segments.store(bytes, Ordering::Relaxed);
    }

    /// What all series chunks take now; only the series table calls this.
    pub(crate) fn set_chunks(&self, bytes: u64) {
        self.chunks.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn used(&self) -> u64 {
        self.segments.load(Ordering::Relaxed) + self.chunks.load(Ordering::Relaxed)
    }

    /// Whether a file of this many bytes may be made.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        self.used().saturating_add(bytes) <= self.max.load(Ordering::Relaxed)
    }
}
