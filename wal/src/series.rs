//! Turns label bytes into series refs and back: the arena, the hash table and the predictions.
//!
//! # Invariants
//! - A ref that any method returned has its record written (not yet synced) in the arena.
//! - `offset[ref]` is set once the record is readable through the map, and before the ref can be
//!   found in the table.
//! - [`SeriesTable::written`] covers every record whose ref was returned; the committer syncs up to
//!   it before it writes a frame that may name one of them.
//!
//! # Threads
//! Reads take no lock except a table shard's read lock in [`SeriesTable::find`]. `define` takes one
//! mutex. `offset[ref]`: Release after the write, Acquire before the read through the map. `next`
//! is a guess: relaxed.
//!
//! # Failure
//! A failed write or a full disk while defining leaves no trace in the table; the bytes that were
//! written are overwritten by the next definition.
//!
//! # Limits
//! `series_max` refs; an arena of at most 32 GiB (u32 offsets of 8-byte words).

mod recover;

use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crossbeam::utils::CachePadded;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use parking_lot::{Mutex, RwLock};
use recover::SeriesRecovery;

use crate::chunk::{Chunk, Record, encode_record, record_bytes};
use crate::error::FullReason;
use crate::fs::Disk;
use crate::header::{FILE_HEADER_BYTES, FileHeader, SERIES_MAGIC};
use crate::quota::Quota;
use crate::sys::LazyArray;
use crate::{Error, SeriesRef};

/// Most label bytes of one series.
pub const LABELS_BYTES_MAX: usize = 1 << 20;
const SHARDS: usize = 64;
/// Most chunks: more would only be reached with chunks smaller than the default.
const CHUNKS_MAX: usize = 4096;
const ARENA_BYTES_MAX: u64 = 8 << 32;

/// A series that ingest has not found.
#[derive(Debug)]
pub struct NewSeries<'a> {
    /// [`SeriesTable::hash`] of the labels.
    pub hash: u64,
    /// Canonical label bytes.
    pub labels: &'a [u8],
    /// Filled in by [`SeriesTable::define`].
    pub series: SeriesRef,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    series: SeriesRef,
    hash: u32,
}

/// Where and how large the arena is.
#[derive(Clone, Debug)]
pub(crate) struct SeriesOptions {
    pub(crate) dir: PathBuf,
    pub(crate) chunk_bytes: u64,
    pub(crate) series_max: u32,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) quota: Arc<Quota>,
}

/// All series of a store.
#[derive(Debug)]
pub struct SeriesTable {
    options: SeriesOptions,
    hasher: RandomState,
    chunks: Box<[OnceLock<Chunk>]>,
    chunk_count: AtomicUsize,
    offset: LazyArray,
    next: LazyArray,
    shards: Box<[CachePadded<RwLock<HashTable<Entry>>>]>,
    series_count: AtomicUsize,
    written: AtomicU64,
    define: Mutex<Define>,
}

/// The one that defines next.
#[derive(Debug)]
struct Define {
    /// Slot and offset where the next record goes; no chunk yet if `slot` is `None`.
    slot: Option<usize>,
    at: usize,
    next_ref: u32,
    sequence: u64,
    next_id: u64,
    buffer: Vec<u8>,
    /// Records in `buffer`: ref, arena offset, hash.
    pending: Vec<(SeriesRef, u64, u64)>,
}

impl SeriesTable {
    /// Reads every chunk in `options.dir` and makes it durable.
    ///
    /// # Errors
    /// What the system said; a chunk from a newer version. A chunk whose header is broken is left
    /// alone and counted.
    pub(crate) fn open(options: SeriesOptions) -> Result<(Self, SeriesRecovery), Error> {
        let slots = usize::try_from(ARENA_BYTES_MAX / options.chunk_bytes).unwrap_or(usize::MAX);
        let slots = slots.min(CHUNKS_MAX);
        let array = || {
            LazyArray::new(options.series_max as usize + 1)
                .map_err(Error::io("reserve memory for", &options.dir))
        };
        let table = Self {
            hasher: RandomState::default(),
            chunks: (0..slots).map(|_| OnceLock::new()).collect(),
            chunk_count: AtomicUsize::new(0),
            offset: array()?,
            next: array()?,
            shards: (0..SHARDS)
                .map(|_| CachePadded::new(RwLock::new(HashTable::new())))
                .collect(),
            series_count: AtomicUsize::new(0),
            written: AtomicU64::new(0),
            define: Mutex::new(Define {
                slot: None,
                at: 0,
                next_ref: 1,
                sequence: 0,
                next_id: 0,
                buffer: Vec::new(),
                pending: Vec::new(),
            }),
            options,
        };
        let found = table.recover()?;
        Ok((table, found))
    }

    /// The series that followed `after` last time, or [`SeriesRef::NONE`].
    #[inline]
    #[must_use]
    pub fn predicted(&self, after: SeriesRef) -> SeriesRef {
        let next = self.next.as_slice().get(after.index());
        SeriesRef::new(next.map_or(0, |next| next.load(Ordering::Relaxed)))
    }

    /// Remembers that `next` followed `after`.
    #[inline]
    pub fn learn(&self, after: SeriesRef, next: SeriesRef) {
        if let Some(slot) = self.next.as_slice().get(after.index()) {
            slot.store(next.get(), Ordering::Relaxed);
        }
    }

    /// The canonical label bytes of a series; empty if there is none of that ref.
    #[inline]
    #[must_use]
    pub fn labels(&self, series: SeriesRef) -> &[u8] {
        let Some(offset) = self.offset.as_slice().get(series.index()) else {
            return &[];
        };
        let offset = u64::from(offset.load(Ordering::Acquire)) * 8;
        if offset == 0 {
            return &[];
        }
        let (slot, at) = self.split(offset);
        self.chunks[slot]
            .get()
            .map_or(&[], |chunk| chunk.labels_at(at))
    }

    /// The hash [`Self::find`] and [`Self::define`] want; differs from process to process.
    #[inline]
    #[must_use]
    pub fn hash(&self, labels: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(labels);
        hasher.finish()
    }

    /// The series with these canonical labels, if it is defined.
    #[must_use]
    pub fn find(&self, hash: u64, labels: &[u8]) -> Option<SeriesRef> {
        let shard = self.shard(hash).read();
        let entry = shard.find(spread(low(hash)), |entry| {
            entry.hash == low(hash) && self.labels(entry.series) == labels
        });
        entry.map(|entry| entry.series)
    }

    /// Gives every series of `new` its ref, writing records for those not yet known.
    ///
    /// # Errors
    /// [`Error::Full`] when the arena or the disk is, [`Error::TooLarge`] for labels over
    /// [`LABELS_BYTES_MAX`], [`Error::Io`]. Series before the failing one may be defined; that
    /// harms nothing.
    pub fn define(&self, new: &mut [NewSeries<'_>]) -> Result<(), Error> {
        let mut define = self.define.lock();
        let defined = self.define_each(&mut define, new);
        let published = self.publish(&mut define);
        defined.and(published)
    }

    fn define_each(&self, define: &mut Define, new: &mut [NewSeries<'_>]) -> Result<(), Error> {
        // Series of this call that are not yet published, by their hash: duplicates are rare, but
        // a sender may name a new series twice in a request.
        let mut here: HashTable<usize> = HashTable::new();
        for at in 0..new.len() {
            let NewSeries { hash, labels, .. } = new[at];
            if let Some(series) = self.find(hash, labels) {
                new[at].series = series;
                continue;
            }
            let earlier = here.find(hash, |&n| new[n].labels == labels).copied();
            if let Some(earlier) = earlier {
                new[at].series = new[earlier].series;
                continue;
            }
            let series = SeriesRef::new(define.next_ref);
            self.stage(define, series, hash, labels)?;
            define.next_ref += 1;
            new[at].series = series;
            let hash_of = |&n: &usize| new[n].hash;
            here.insert_unique(hash, at, hash_of);
        }
        Ok(())
    }

    /// Puts one record into the buffer.
    fn stage(
        &self,
        define: &mut Define,
        series: SeriesRef,
        hash: u64,
        labels: &[u8],
    ) -> Result<(), Error> {
        let bytes = record_bytes(labels.len());
        let limit = self.chunk_len() - FILE_HEADER_BYTES;
        if labels.len() > LABELS_BYTES_MAX || bytes > limit {
            let limit = LABELS_BYTES_MAX.min(limit) as u64;
            return Err(Error::TooLarge {
                bytes: labels.len() as u64,
                limit,
            });
        }
        if series.get() > self.options.series_max {
            return Err(Error::Full {
                reason: FullReason::Series,
            });
        }
        let room =
            define.slot.is_some() && define.at + define.buffer.len() + bytes <= self.chunk_len();
        if !room {
            self.publish(define)?;
            self.add_chunk(define)?;
        }
        let slot = define.slot.ok_or(Error::Full {
            reason: FullReason::Series,
        })?;
        let chunk = self.chunks[slot].get().ok_or(Error::Full {
            reason: FullReason::Series,
        })?;
        let offset = define.at + define.buffer.len();
        let record = Record {
            offset,
            series,
            sequence: define.sequence,
            labels,
        };
        encode_record(chunk.header.salt, &record, &mut define.buffer);
        define.pending.push((
            series,
            slot as u64 * self.options.chunk_bytes + offset as u64,
            hash,
        ));
        define.sequence += 1;
        Ok(())
    }

    /// Writes the buffered records and makes them findable.
    fn publish(&self, define: &mut Define) -> Result<(), Error> {
        let Some(chunk) = define.slot.and_then(|slot| self.chunks[slot].get()) else {
            return Ok(());
        };
        let written = self
            .options
            .disk
            .write_all_at(&chunk.file, &define.buffer, define.at as u64);
        let bytes = define.buffer.len();
        define.buffer.clear();
        if let Err(source) = written {
            define.pending.clear();
            let error = Error::io("write", chunk.file.path())(source);
            return Err(error.or_full(FullReason::Series));
        }
        define.at += bytes;
        let pending = std::mem::take(&mut define.pending);
        for &(series, offset, hash) in &pending {
            self.insert(series, offset, hash);
        }
        define.pending = pending;
        define.pending.clear();
        let slot = define.slot.unwrap_or(0) as u64;
        let end = slot * self.options.chunk_bytes + define.at as u64;
        self.written.store(end, Ordering::Release);
        Ok(())
    }

    fn insert(&self, series: SeriesRef, offset: u64, hash: u64) {
        let words = u32::try_from(offset / 8).expect("the arena is limited to 2^32 words");
        let before = self.offset.as_slice()[series.index()].swap(words, Ordering::Release);
        if before == 0 {
            self.series_count.fetch_add(1, Ordering::Relaxed);
        }
        let entry = Entry {
            series,
            hash: low(hash),
        };
        let mut shard = self.shard(hash).write();
        shard.insert_unique(spread(entry.hash), entry, |entry| spread(entry.hash));
    }

    /// Makes the first chunk, before segments prepared ahead take all the room there is.
    ///
    /// # Errors
    /// [`Error::Full`] at the quota or on a full disk, else what the system said.
    pub(crate) fn prepare(&self) -> Result<(), Error> {
        let mut define = self.define.lock();
        match define.slot {
            Some(_) => Ok(()),
            None => self.add_chunk(&mut define),
        }
    }

    fn add_chunk(&self, define: &mut Define) -> Result<(), Error> {
        let slot = self.chunk_count.load(Ordering::Relaxed);
        let place = self.chunks.get(slot).ok_or(Error::Full {
            reason: FullReason::Series,
        })?;
        if !self.options.quota.has_room(self.options.chunk_bytes) {
            return Err(Error::Full {
                reason: FullReason::Series,
            });
        }
        let path = chunk_path(&self.options.dir, define.next_id);
        let header = FileHeader {
            magic: SERIES_MAGIC,
            id: define.next_id,
            file_bytes: self.options.chunk_bytes,
            salt: fastrand::u64(..),
            previous_end: 0,
            created_ms: 0,
        };
        let chunk = Chunk::create(&self.options.disk, &path, header)
            .map_err(|e| e.or_full(FullReason::Series))?;
        if place.set(chunk).is_err() {
            return Err(Error::Full {
                reason: FullReason::Series,
            });
        }
        self.set_chunk_count(slot + 1);
        define.slot = Some(slot);
        define.at = FILE_HEADER_BYTES;
        define.next_id += 1;
        Ok(())
    }

    /// How many series are defined.
    #[must_use]
    pub fn len(&self) -> usize {
        self.series_count.load(Ordering::Relaxed)
    }

    /// Whether no series is defined.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) const fn options(&self) -> &SeriesOptions {
        &self.options
    }

    fn set_chunk_count(&self, count: usize) {
        self.chunk_count.store(count, Ordering::Release);
        self.options.quota.set_chunks(self.disk_bytes());
    }

    /// How many chunk files there are.
    pub(crate) fn chunk_count(&self) -> usize {
        self.chunk_count.load(Ordering::Acquire)
    }

    /// Bytes of disk the chunks take.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.chunk_count.load(Ordering::Acquire) as u64 * self.options.chunk_bytes
    }

    /// The arena offset up to which records are written.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// The chunks that hold arena offsets `[from, to)`.
    pub(crate) fn chunks_between(&self, from: u64, to: u64) -> impl Iterator<Item = &Chunk> {
        let first = self.split(from).0;
        let last = self.split(to.saturating_sub(1)).0;
        self.chunks[first..=last].iter().filter_map(OnceLock::get)
    }

    fn shard(&self, hash: u64) -> &RwLock<HashTable<Entry>> {
        &self.shards[usize::try_from(hash >> 32).unwrap_or(0) % SHARDS]
    }

    fn chunk_len(&self) -> usize {
        usize::try_from(self.options.chunk_bytes).unwrap_or(usize::MAX)
    }

    /// Slot and offset in it of an arena offset. Chunk sizes are powers of two.
    #[inline]
    fn split(&self, offset: u64) -> (usize, usize) {
        let shift = self.options.chunk_bytes.trailing_zeros();
        let at = offset & (self.options.chunk_bytes - 1);
        (
            usize::try_from(offset >> shift).unwrap_or(usize::MAX),
            usize::try_from(at).unwrap_or(usize::MAX),
        )
    }
}

fn chunk_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:08}.chunk"))
}

/// The half of a hash that an entry keeps.
#[expect(
    clippy::cast_possible_truncation,
    reason = "exactly the low half is wanted"
)]
const fn low(hash: u64) -> u32 {
    hash as u32
}

/// Spreads 32 bits of hash over 64: the table takes its tag from the top.
const fn spread(hash: u32) -> u64 {
    (hash as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::SystemDisk;

    fn open(dir: &Path) -> SeriesTable {
        SeriesTable::open(SeriesOptions {
            dir: dir.to_owned(),
            chunk_bytes: 16 << 10,
            series_max: 10_000,
            disk: Arc::new(SystemDisk),
            quota: Arc::new(Quota::new()),
        })
        .unwrap()
        .0
    }

    fn labels(n: u32) -> Vec<u8> {
        format!("labels of series number {n}").into_bytes()
    }

    fn define(table: &SeriesTable, numbers: &[u32]) -> Vec<SeriesRef> {
        let all: Vec<_> = numbers.iter().map(|&n| labels(n)).collect();
        let mut new: Vec<_> = all
            .iter()
            .map(|labels| NewSeries {
                hash: table.hash(labels),
                labels,
                series: SeriesRef::NONE,
            })
            .collect();
        table.define(&mut new).unwrap();
        new.iter().map(|new| new.series).collect()
    }

    #[test]
    fn refs_survive_a_restart_across_chunks() {
        let dir = tempfile::tempdir().unwrap();
        let numbers: Vec<u32> = (0..2000).collect();
        let refs = define(&open(dir.path()), &numbers);
        let table = open(dir.path());
        assert!(table.chunk_count.load(Ordering::Relaxed) > 3);
        assert_eq!(table.len(), 2000);
        for (n, series) in numbers.iter().zip(&refs) {
            assert_eq!(table.labels(*series), labels(*n));
            assert_eq!(
                table.find(table.hash(&labels(*n)), &labels(*n)),
                Some(*series)
            );
        }
        assert_eq!(define(&table, &[7, 99_999])[0], refs[7]);
    }

    #[test]
    fn a_new_series_twice_in_one_call_gets_one_ref() {
        let dir = tempfile::tempdir().unwrap();
        let table = open(dir.path());
        let refs = define(&table, &[5, 6, 5]);
        assert_eq!(refs[0], refs[2]);
        assert_ne!(refs[0], refs[1]);
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn refs_run_out_with_a_clear_answer() {
        let dir = tempfile::tempdir().unwrap();
        let table = open(dir.path());
        define(&table, &(0..10_000).collect::<Vec<_>>());
        let labels = labels(20_000);
        let hash = table.hash(&labels);
        let mut new = [NewSeries {
            hash,
            labels: &labels,
            series: SeriesRef::NONE,
        }];
        assert!(table.define(&mut new).unwrap_err().is_full());
    }

    #[test]
    fn labels_of_an_unknown_ref_are_empty() {
        let dir = tempfile::tempdir().unwrap();
        let table = open(dir.path());
        assert!(table.labels(SeriesRef::NONE).is_empty());
        assert!(table.labels(SeriesRef::new(77)).is_empty());
        assert!(table.labels(SeriesRef::new(u32::MAX)).is_empty());
    }
}
