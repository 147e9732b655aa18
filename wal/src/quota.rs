//! Keeps account of the disk a store takes: whoever makes a file asks here first.
//!
//! Without a limit of its own the store takes a share of its volume. That is looked up again and again:
//! what others give back while the store runs is room, also if it was started on a full volume.
//!
//! # Limits
//! Segments and chunks are made by two threads; asking and making is not one step, so the account may
//! be overdrawn by one file.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The disk of one store, in bytes.
#[derive(Debug)]
pub(crate) struct Quota {
    segments: AtomicU64,
    chunks: AtomicU64,
    /// The largest number while there is no limit.
    max: AtomicU64,
    volume: OnceLock<Volume>,
}

/// What the limit follows if nobody set one.
#[derive(Debug)]
struct Volume {
    dir: PathBuf,
    /// The store cannot work with less.
    least: u64,
}

impl Quota {
    /// No limit yet.
    pub(crate) const fn new() -> Self {
        let [segments, chunks] = [AtomicU64::new(0), AtomicU64::new(0)];
        Self {
            segments,
            chunks,
            max: AtomicU64::new(u64::MAX),
            volume: OnceLock::new(),
        }
    }

    /// Sets the limit: what was asked for, else a share of the volume of `dir`.
    pub(crate) fn limit(&self, dir: &Path, asked: Option<u64>, least: u64) {
        if let Some(max) = asked {
            self.max.store(max, Ordering::Relaxed);
            return;
        }
        let dir = dir.to_owned();
        self.volume.get_or_init(|| Volume { dir, least });
        self.follow_volume();
    }

    /// Looks at the volume again, if that is where the limit comes from: 80 % of what the store has
    /// and could still take. While the volume does not answer the limit stays.
    pub(crate) fn follow_volume(&self) {
        let Some(volume) = self.volume.get() else {
            return;
        };
        if let Ok(found) = rustix::fs::statvfs(&volume.dir) {
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            let share = free.saturating_add(self.used()) / 5 * 4;
            self.max.store(share.max(volume.least), Ordering::Relaxed);
        }
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
