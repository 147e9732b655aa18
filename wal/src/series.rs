//! Turns label bytes into series refs and back: the arena, the hash table and the predictions.
//!
//! # Invariants
//! - A ref that [`SeriesGuard::define`] returned has its record written (not yet synced) in the arena.
//! - `offset[ref]` is set once the record is readable through the map, and before the ref can be
//!   found in the table.
//! - A chunk with unsynced records is known to the committer before their refs are returned; it syncs
//!   them before it writes a frame that may name one of them.
//! - `seen[ref]` is [`FREE`], [`DEAD`], or the tick (a segment) in which the series was last asked
//!   for. Whoever appends a sample has set it under a guard that it still holds; a ref is given up
//!   only after no guard of the time of its last tick is left (see `clean.rs`).
//!
//! # Threads
//! Reads take no lock except a table shard's read lock in [`SeriesGuard::find`]. `define` takes one
//! mutex. `offset[ref]`: Release after the write, Acquire before the read through the map. `seen`:
//! compare and swap. `next` is a guess: relaxed. Chunks are held by crossbeam-epoch.
//!
//! # Failure
//! A failed write or a full disk while defining leaves no trace in the table; the bytes that were
//! written are overwritten by the next definition.
//!
//! # Limits
//! `series_max` refs; an arena of at most 32 GiB (u32 offsets of 8-byte words).

mod arena;
mod clean;
mod guard;
mod recover;
mod shares;
mod walk;

use std::hash::{BuildHasher, Hasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

pub use arena::LABELS_BYTES_MAX;
use arena::{Arena, ChunkWriter, Staged, Unsynced, check_labels};
pub(crate) use clean::{CleanStats, Cleaner, Idle};
use crossbeam::epoch;
use crossbeam::utils::CachePadded;
use foldhash::fast::RandomState;
pub use guard::SeriesGuard;
use hashbrown::HashTable;
use parking_lot::{Mutex, RwLock};
use shares::{SHARDS, Shares};

use crate::chunk::{Chunk, walk};
use crate::error::FullReason;
use crate::fs::Disk;
use crate::quota::Quota;
use crate::sys::LazyArray;
use crate::{Error, SeriesRef, SharedRandom};

/// Records are written at the latest when so many bytes are staged.
const STAGED_BYTES_MAX: usize = 1 << 20;

/// `seen`: no series has this ref.
const FREE: u32 = 0;
/// `seen`: the series is given up; frames on disk may still name it.
const DEAD: u32 = 1;
/// `seen`: last asked for in the segment of this id less this number.
const FIRST_TICK: u32 = 2;

/// A series that ingest has not found.
#[derive(Debug)]
pub struct NewSeries<'a> {
    /// [`SeriesTable::hash`] of the labels.
    pub hash: u64,
    /// Canonical label bytes.
    pub labels: &'a [u8],
    /// Filled in by [`SeriesGuard::define`].
    pub series: SeriesRef,
}

/// Where and how large the arena is.
#[derive(Clone, Debug)]
pub(crate) struct SeriesOptions {
    pub(crate) dir: PathBuf,
    pub(crate) chunk_bytes: u64,
    pub(crate) series_max: u32,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) random: SharedRandom,
    pub(crate) quota: Arc<Quota>,
}

/// All series of a store.
#[derive(Debug)]
pub struct SeriesTable {
    arena: Arena,
    hasher: RandomState,
    offset: LazyArray,
    /// The ref that followed; 0 if that was the one behind, or is not known.
    next: LazyArray,
    seen: LazyArray,
    /// The tick of now.
    tick: AtomicU32,
    /// Refs by the hash of their labels, which is worked out again when a shard grows: to keep it would
    /// take as much memory as the ref, twice, as tables are half empty.
    shards: Box<[CachePadded<RwLock<HashTable<SeriesRef>>>]>,
    shares: Shares,
    series_count: AtomicUsize,
    /// Series ever defined by this process.
    defined: AtomicU64,
    /// How often refs were freed.
    generation: AtomicU64,
    /// Whether the last definition failed, so that this is said once.
    is_failing: AtomicBool,
    define: Mutex<Define>,
}

/// The one that defines next.
#[derive(Debug)]
struct Define {
    writer: ChunkWriter,
    next_ref: u32,
    /// Refs below `next_ref` that nothing on disk names.
    free: Vec<SeriesRef>,
}

impl SeriesTable {
    fn empty(options: SeriesOptions) -> Result<Self, Error> {
        let array = || {
            LazyArray::new(options.series_max as usize + 1)
                .map_err(Error::io("reserve memory for", &options.dir))
        };
        Ok(Self {
            hasher: RandomState::default(),
            offset: array()?,
            next: array()?,
            seen: array()?,
            tick: AtomicU32::new(FIRST_TICK),
            shards: (0..SHARDS)
                .map(|_| CachePadded::new(RwLock::new(HashTable::new())))
                .collect(),
            shares: Shares::new(),
            series_count: AtomicUsize::new(0),
            defined: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            is_failing: AtomicBool::new(false),
            define: Mutex::new(Define {
                writer: ChunkWriter::default(),
                next_ref: 1,
                free: Vec::new(),
            }),
            arena: Arena::new(options),
        })
    }

    /// Holds series and chunks in place for as long as the guard lives: short, and never across an
    /// await.
    #[must_use]
    pub fn guard(&self) -> SeriesGuard<'_> {
        SeriesGuard::new(self, epoch::pin())
    }

    /// The hash [`SeriesGuard::find`] and [`SeriesGuard::define`] want; differs from process to
    /// process.
    #[inline]
    #[must_use]
    pub fn hash(&self, labels: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(labels);
        hasher.finish()
    }

    /// Changes before a ref that named one series is given to another: whoever reads a frame with the
    /// new one sees it changed.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// How many series are defined.
    #[must_use]
    pub fn len(&self) -> usize {
        self.series_count.load(Ordering::Relaxed)
    }

    /// Series ever defined by this process, those found on disk included.
    pub(crate) fn defined(&self) -> u64 {
        self.defined.load(Ordering::Relaxed)
    }

    /// Whether no series is defined.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many chunk files hold them.
    #[must_use]
    pub fn chunk_count(&self) -> usize {
        self.arena.chunk_count()
    }

    /// Writers append to the segment of this id from now on.
    pub(crate) fn set_segment(&self, id: u64) {
        self.tick.store(tick_of(id), Ordering::Release);
    }

    /// A chunk that the committer must sync before it writes a frame.
    pub(crate) fn next_unsynced(&self) -> Option<Unsynced> {
        self.arena.next_unsynced()
    }

    /// The committer has synced it.
    pub(crate) fn synced(unsynced: Unsynced) {
        unsynced.synced();
    }

    /// The device failed to sync `chunk`: what was not durable in it is written to a fresh one.
    ///
    /// # Errors
    /// [`Error::Poisoned`] if the device has already taken back what was written; else what the
    /// system said.
    pub(crate) fn rescue(&self, chunk: &Arc<Chunk>) -> Result<(), Error> {
        let mut define = self.define.lock();
        define.writer.leave(chunk);
        let from = chunk.synced.load(Ordering::Acquire);
        let to = chunk.written.load(Ordering::Acquire);
        let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        let bytes = &chunk.bytes()[..index(to)];
        let mut records = Vec::new();
        let end = walk(bytes, index(from), chunk.header.salt, |record| {
            records.push((record.series, record.labels));
        });
        if end.broken_bytes > 0 || end.end != index(to) {
            let path = chunk.file.path().display();
            return Err(Error::Poisoned(format!(
                "series of {path} are neither on the device nor in memory any more"
            )));
        }
        for (series, labels) in records {
            self.stage(&mut define, series, self.hash(labels), labels)?;
        }
        self.publish(&mut define)?;
        chunk.synced.store(to, Ordering::Release);
        Ok(())
    }

    /// Tells the operator when defining begins to fail, and when it works again.
    fn report(&self, result: &Result<(), Error>) {
        match result {
            Err(error @ Error::Io { .. }) if !self.is_failing.swap(true, Ordering::Relaxed) => {
                tracing::error!(%error, "new series are refused until the device takes them");
            }
            Ok(()) if self.is_failing.load(Ordering::Relaxed) => {
                self.is_failing.store(false, Ordering::Relaxed);
                tracing::info!("new series are taken again");
            }
            _ => {}
        }
    }

    /// Puts one record into the buffer.
    fn stage(
        &self,
        define: &mut Define,
        series: SeriesRef,
        hash: u64,
        labels: &[u8],
    ) -> Result<(), Error> {
        check_labels(labels, self.arena.chunk_len())?;
        let full = define.writer.buffered_bytes() > STAGED_BYTES_MAX;
        let room = define.writer.has_room(&self.arena, labels.len());
        if full || !room {
            self.publish(define)?;
        }
        if !room {
            define.writer.begin_chunk(&self.arena, false)?;
        }
        define.writer.stage(&self.arena, series, hash, labels)
    }

    /// Writes the staged records and makes them findable.
    fn publish(&self, define: &mut Define) -> Result<(), Error> {
        define.writer.write(&self.arena)?;
        if let Some(chunk) = define
            .writer
            .chunk()
            .filter(|_| !define.writer.staged.is_empty())
        {
            self.arena.add_unsynced(chunk);
        }
        let guard = self.guard();
        for &staged in &define.writer.staged {
            self.insert(staged, |series| guard.hash_of(series));
        }
        define.writer.staged.clear();
        Ok(())
    }

    /// Points a series to its record, and makes it findable unless it is already. `hash_of` a series
    /// is that of its labels.
    fn insert(&self, staged: Staged, hash_of: impl Fn(SeriesRef) -> u64) {
        let Staged {
            series,
            offset,
            hash,
        } = staged;
        let words = u32::try_from(offset / 8).expect("the arena is limited to 2^32 words");
        let tick = self.tick.load(Ordering::Acquire);
        self.seen.as_slice()[series.index()].store(tick, Ordering::Release);
        let before = self.offset.as_slice()[series.index()].swap(words, Ordering::AcqRel);
        if before != 0 {
            self.bury(before);
            return;
        }
        self.series_count.fetch_add(1, Ordering::Relaxed);
        self.defined.fetch_add(1, Ordering::Relaxed);
        let mut shard = self.shard(hash).write();
        shard.insert_unique(hash, series, |&series| hash_of(series));
    }

    /// Makes the first chunk, before segments prepared ahead take all the room there is; later the
    /// next one once the one in use is half full, so that who defines does not wait for it. By one
    /// thread at a time.
    ///
    /// # Errors
    /// [`Error::Full`] at the quota or on a full disk, else what the system said.
    pub(crate) fn prepare(&self) -> Result<(), Error> {
        if !self.define.lock().writer.wants_spare(&self.arena) {
            return Ok(());
        }
        let made = self.arena.create(false)?;
        self.define.lock().writer.keep_spare(made);
        Ok(())
    }

    /// The record at this arena word counts for nothing any more.
    fn bury(&self, words: u32) {
        let pin = epoch::pin();
        if let Some((chunk, at)) = self.arena.locate(u64::from(words) * 8, &pin) {
            chunk.bury(at);
        }
    }

    fn shard(&self, hash: u64) -> &RwLock<HashTable<SeriesRef>> {
        &self.shards[self.shares.shard(hash)]
    }

    fn series_max(&self) -> u32 {
        self.arena.options.series_max
    }
}

impl Define {
    /// A ref for a new series, which is not taken until [`Self::took`].
    fn next(&self, series_max: u32) -> Result<SeriesRef, Error> {
        let next = self.free.last().copied();
        let next = next.unwrap_or_else(|| SeriesRef::new(self.next_ref));
        if next.get() > series_max {
            return Err(Error::Full {
                reason: FullReason::Series,
            });
        }
        Ok(next)
    }

    fn took(&mut self, series: SeriesRef) {
        if self.free.last() == Some(&series) {
            self.free.pop();
        } else {
            self.next_ref = series.get() + 1;
        }
    }
}

/// The tick of a segment.
fn tick_of(segment_id: u64) -> u32 {
    let tick = segment_id.saturating_add(u64::from(FIRST_TICK));
    u32::try_from(tick).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
