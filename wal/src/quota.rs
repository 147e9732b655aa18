//! Keeps account of the disk a store takes: whoever makes a file asks here first.
//!
//! Without a limit of its own the store takes a share of its volume. That is looked up again and again:
//! what others give back while the store runs is room, also if it was started on a full volume.
//!
//! # Limits
//! Segments and chunks are made by two threads; asking and making is not one step, so the account may
//! be overdrawn by one file.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// The disk of one store, in bytes.
#[derive(Debug)]
pub(crate) struct Quota {
    segments: AtomicU64,
    chunks: AtomicU64,
    /// The largest number while there is no limit.
    max: AtomicU64,
    /// The store cannot work with less.
    least: u64,
    dir: PathBuf,
    /// Whether the limit is a share of the volume of `dir`. Locked while `max` is set.
    follows_volume: Mutex<bool>,
}

impl Quota {
    /// No limit yet.
    pub(crate) fn new(dir: &Path, least: u64) -> Self {
        let [segments, chunks] = [AtomicU64::new(0), AtomicU64::new(0)];
        Self {
            segments,
            chunks,
            max: AtomicU64::new(u64::MAX),
            least,
            dir: dir.to_owned(),
            follows_volume: Mutex::new(false),
        }
    }

    /// Sets the limit: what was asked for, else a share of the volume.
    pub(crate) fn limit(&self, asked: Option<u64>) {
        let mut follows_volume = self.follows_volume.lock();
        *follows_volume = asked.is_none();
        if let Some(max) = asked {
            self.max.store(max, Ordering::Relaxed);
        } else {
            self.share_of_volume();
        }
    }

    /// Looks at the volume again, if that is where the limit comes from.
    pub(crate) fn follow_volume(&self) {
        let follows_volume = self.follows_volume.lock();
        if *follows_volume {
            self.share_of_volume();
        }
    }

    /// 80 % of what the store has and could still take. While the volume does not answer the limit stays.
    fn share_of_volume(&self) {
        if let Ok(found) = rustix::fs::statvfs(&self.dir) {
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            let share = free.saturating_add(self.used()) / 5 * 4;
            self.max.store(share.max(self.least), Ordering::Relaxed);
        }
    }

    /// The smallest limit the store can work with.
    pub(crate) const fn least(&self) -> u64 {
        self.least
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
