//! Turns series records into bytes of chunk files and offsets of the arena.
//!
//! The arena is the address space of all chunks: slot * chunk bytes + offset in the file. A slot is
//! used again once nothing points into it.
//!
//! # Invariants
//! - A chunk in a slot stays mapped for every reader that was pinned while it was there.
//! - A chunk with records that are not synced is in the list of the committer before their refs are
//!   used.
//!
//! # Failure
//! A record is written whole or not at all as far as the table knows; what a failed write left is
//! written over by the next.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crossbeam::epoch::Guard;
use parking_lot::Mutex;

use super::SeriesOptions;
use crate::chunk::{Chunk, Record, encode_record, record_bytes};
use crate::error::FullReason;
use crate::header::{FILE_HEADER_BYTES, FileHeader, SERIES_MAGIC};
use crate::sys::EpochCell;
use crate::{Error, SeriesRef};

/// Most label bytes of one series.
pub const LABELS_BYTES_MAX: usize = 1 << 20;
/// Most chunks: more would only be reached with chunks smaller than the default.
const CHUNKS_MAX: usize = 4096;
const ARENA_BYTES_MAX: u64 = 8 << 32;

const FULL: Error = Error::Full {
    reason: FullReason::Series,
};

/// All chunks.
#[derive(Debug)]
pub(crate) struct Arena {
    pub(super) options: SeriesOptions,
    slots: Box<[EpochCell<Arc<Chunk>>]>,
    places: Mutex<Places>,
    chunk_count: AtomicUsize,
    /// Chunks with records that are not synced.
    unsynced: Mutex<Vec<Arc<Chunk>>>,
    sequence: AtomicU64,
}

#[derive(Debug)]
struct Places {
    /// Free slots, the lowest last.
    free: Vec<usize>,
    next_id: u64,
}

/// A chunk to sync, and how far it was written when it was handed out.
#[derive(Debug)]
pub(crate) struct Unsynced {
    pub(crate) chunk: Arc<Chunk>,
    to: u64,
}

/// Appends records to chunks of its own, one after the other.
#[derive(Debug, Default)]
pub(super) struct ChunkWriter {
    open: Option<(usize, Arc<Chunk>)>,
    /// Empty, for when the open one is full.
    spare: Option<(usize, Arc<Chunk>)>,
    buffer: Vec<u8>,
    /// Records in `buffer`.
    pub(super) staged: Vec<Staged>,
}

/// A record on its way into a chunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Staged {
    pub(super) series: SeriesRef,
    pub(super) offset: u64,
    pub(super) hash: u64,
}

impl Arena {
    pub(super) fn new(options: SeriesOptions) -> Self {
        let slots = usize::try_from(ARENA_BYTES_MAX / options.chunk_bytes).unwrap_or(usize::MAX);
        let slots = slots.min(CHUNKS_MAX);
        Self {
            slots: (0..slots).map(|_| EpochCell::empty()).collect(),
            places: Mutex::new(Places {
                free: (0..slots).rev().collect(),
                next_id: 0,
            }),
            chunk_count: AtomicUsize::new(0),
            unsynced: Mutex::new(Vec::new()),
            sequence: AtomicU64::new(0),
            options,
        }
    }

    /// The chunk of an arena offset, and the offset in it.
    #[inline]
    pub(super) fn locate<'g>(
        &self,
        offset: u64,
        pin: &'g Guard,
    ) -> Option<(&'g Arc<Chunk>, usize)> {
        let shift = self.options.chunk_bytes.trailing_zeros();
        let at = offset & (self.options.chunk_bytes - 1);
        let slot = usize::try_from(offset >> shift).unwrap_or(usize::MAX);
        let chunk = self.slots.get(slot)?.get(pin)?;
        Some((chunk, usize::try_from(at).unwrap_or(usize::MAX)))
    }

    pub(super) const fn offset(&self, slot: usize, at: usize) -> u64 {
        slot as u64 * self.options.chunk_bytes + at as u64
    }

    /// Every chunk with its slot.
    pub(super) fn chunks(&self, pin: &Guard) -> Vec<(usize, Arc<Chunk>)> {
        let held = self.slots.iter().enumerate();
        held.filter_map(|(slot, cell)| Some((slot, cell.get(pin)?.clone())))
            .collect()
    }

    /// Takes in a chunk found on disk; its slot.
    pub(super) fn adopt(&self, id: u64, chunk: Arc<Chunk>) -> Result<usize, Error> {
        let mut places = self.places.lock();
        places.next_id = places.next_id.max(id + 1);
        let slot = places.free.pop().ok_or(FULL)?;
        self.slots[slot].put(chunk);
        self.count_chunks(1);
        Ok(slot)
    }

    /// No new chunk gets this id.
    pub(super) fn reserve_id(&self, id: u64) {
        let mut places = self.places.lock();
        places.next_id = places.next_id.max(id + 1);
    }

    /// Makes an empty chunk.
    pub(super) fn create(&self, beyond_quota: bool) -> Result<(usize, Arc<Chunk>), Error> {
        if !beyond_quota && !self.options.quota.has_room(self.options.chunk_bytes) {
            return Err(FULL);
        }
        let mut places = self.places.lock();
        let slot = *places.free.last().ok_or(FULL)?;
        let id = places.next_id;
        let header = FileHeader {
            magic: SERIES_MAGIC,
            generation: 0,
            id,
            file_bytes: self.options.chunk_bytes,
            salt: self.options.random.next_u64(),
            previous_end: 0,
            created_ms: 0,
            records_before: 0,
            is_recycled: false,
        };
        let path = self.chunk_path(id);
        let chunk = Chunk::create(&self.options.disk, &path, header)
            .map_err(|e| e.or_full(FullReason::Series))?;
        let chunk = Arc::new(chunk);
        places.next_id = id + 1;
        places.free.pop();
        self.slots[slot].put(chunk.clone());
        self.count_chunks(1);
        Ok((slot, chunk))
    }

    fn chunk_path(&self, id: u64) -> PathBuf {
        self.options.dir.join(format!("{id:08}.chunk"))
    }

    /// Empties a slot that nothing points into. The chunk is unmapped when its last owner drops it.
    pub(super) fn retire(&self, slot: usize) {
        self.slots[slot].take();
        let mut places = self.places.lock();
        places.free.push(slot);
        places.free.sort_unstable_by(|a, b| b.cmp(a));
    }

    /// The file of a retired chunk is gone.
    pub(super) fn removed(&self) {
        self.chunk_count.fetch_sub(1, Ordering::AcqRel);
        self.count_chunks(0);
    }

    fn count_chunks(&self, more: usize) {
        let count = self.chunk_count.fetch_add(more, Ordering::AcqRel) + more;
        let bytes = count as u64 * self.options.chunk_bytes;
        self.options.quota.set_chunks(bytes);
    }

    /// How many chunk files there are.
    pub(super) fn chunk_count(&self) -> usize {
        self.chunk_count.load(Ordering::Acquire)
    }

    pub(super) fn chunk_len(&self) -> usize {
        usize::try_from(self.options.chunk_bytes).unwrap_or(usize::MAX)
    }

    /// A sequence larger than any before.
    fn next_sequence(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed)
    }

    /// Sequences go on behind this one.
    pub(super) fn saw_sequence(&self, sequence: u64) {
        self.sequence.fetch_max(sequence + 1, Ordering::Relaxed);
    }

    /// The committer must sync this chunk before it writes another frame.
    pub(super) fn add_unsynced(&self, chunk: &Arc<Chunk>) {
        let mut unsynced = self.unsynced.lock();
        if !unsynced.iter().any(|other| Arc::ptr_eq(other, chunk)) {
            unsynced.push(chunk.clone());
        }
    }

    /// A chunk that the committer must sync before it writes a frame.
    pub(super) fn next_unsynced(&self) -> Option<Unsynced> {
        let chunk = self.unsynced.lock().pop()?;
        let to = chunk.written.load(Ordering::Acquire);
        Some(Unsynced { chunk, to })
    }
}

impl Unsynced {
    /// The chunk was synced.
    pub(super) fn synced(self) {
        self.chunk.synced.fetch_max(self.to, Ordering::AcqRel);
    }
}

impl ChunkWriter {
    /// Goes on writing in a chunk found on disk: the last, unless that was only made to be the next.
    pub(super) fn go_on(&mut self, slot: usize, chunk: Arc<Chunk>) {
        if self.open.is_some() && chunk.used_bytes() == 0 {
            self.spare = Some((slot, chunk));
        } else {
            self.open = Some((slot, chunk));
        }
    }

    /// Writes to this chunk no more.
    pub(super) fn leave(&mut self, chunk: &Arc<Chunk>) {
        self.open.take_if(|(_, open)| Arc::ptr_eq(open, chunk));
    }

    /// Whether the next records may go to this chunk.
    pub(super) fn has(&self, slot: usize) -> bool {
        let held = self.open.iter().chain(&self.spare);
        held.map(|(held, _)| *held).any(|held| held == slot)
    }

    /// Whether there is no chunk, or the next one is not there yet and soon needed.
    pub(super) fn wants_spare(&self, arena: &Arena) -> bool {
        let is_half_full = |chunk: &Chunk| chunk.used_bytes() * 2 >= arena.options.chunk_bytes;
        let soon = self
            .open
            .as_ref()
            .is_none_or(|(_, chunk)| is_half_full(chunk));
        self.spare.is_none() && soon
    }

    /// An empty chunk for later.
    pub(super) fn keep_spare(&mut self, chunk: (usize, Arc<Chunk>)) {
        self.spare = Some(chunk);
    }

    /// Whether a record of so many label bytes fits behind what is staged.
    pub(super) fn has_room(&self, arena: &Arena, label_bytes: usize) -> bool {
        let at = |chunk: &Chunk| chunk.written.load(Ordering::Relaxed);
        self.open.as_ref().is_some_and(|(_, chunk)| {
            let bytes = self.buffer.len() + record_bytes(label_bytes);
            at(chunk) + bytes as u64 <= arena.options.chunk_bytes
        })
    }

    /// Begins a fresh chunk, `beyond_quota` if it is made to remove another. What is staged must be
    /// written before.
    ///
    /// # Errors
    /// [`Error::Full`], or what the system said.
    pub(super) fn begin_chunk(&mut self, arena: &Arena, beyond_quota: bool) -> Result<(), Error> {
        debug_assert!(self.staged.is_empty(), "staged for the chunk before");
        self.open = Some(match self.spare.take() {
            Some(spare) => spare,
            None => arena.create(beyond_quota)?,
        });
        Ok(())
    }

    /// Puts one record into the buffer; there must be room.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for labels no chunk can hold.
    pub(super) fn stage(
        &mut self,
        arena: &Arena,
        series: SeriesRef,
        hash: u64,
        labels: &[u8],
    ) -> Result<(), Error> {
        let (slot, chunk) = self.open.as_ref().ok_or(FULL)?;
        let at = usize::try_from(chunk.written.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        let offset = at + self.buffer.len();
        let record = Record {
            offset,
            series,
            sequence: arena.next_sequence(),
            labels,
        };
        encode_record(chunk.header.salt, &record, &mut self.buffer);
        self.staged.push(Staged {
            series,
            offset: arena.offset(*slot, offset),
            hash,
        });
        Ok(())
    }

    /// Writes what is staged; the caller then publishes and clears `staged`. What could not be written
    /// is staged no more.
    ///
    /// # Errors
    /// What the system said.
    pub(super) fn write(&mut self, arena: &Arena) -> Result<(), Error> {
        let Some((_, chunk)) = self.open.as_ref().filter(|_| !self.buffer.is_empty()) else {
            return Ok(());
        };
        let at = chunk.written.load(Ordering::Relaxed);
        let disk = &arena.options.disk;
        let written = disk.write_all_at(&chunk.file, &self.buffer, at);
        let bytes = self.buffer.len() as u64;
        self.buffer.clear();
        if let Err(source) = written {
            self.staged.clear();
            let error = Error::io("write", chunk.file.path())(source);
            return Err(error.or_full(FullReason::Series));
        }
        chunk.written.store(at + bytes, Ordering::Release);
        Ok(())
    }

    /// Forgets what is staged.
    pub(super) fn forget(&mut self) {
        self.buffer.clear();
        self.staged.clear();
    }

    pub(super) fn buffered_bytes(&self) -> usize {
        self.buffer.len()
    }

    pub(super) fn chunk(&self) -> Option<&Arc<Chunk>> {
        self.open.as_ref().map(|(_, chunk)| chunk)
    }
}

/// Refuses labels that no record can hold.
pub(super) fn check_labels(labels: &[u8], chunk_len: usize) -> Result<(), Error> {
    let limit = LABELS_BYTES_MAX.min(chunk_len - FILE_HEADER_BYTES - record_bytes(0));
    if labels.len() > limit {
        return Err(Error::TooLarge {
            bytes: labels.len() as u64,
            limit: limit as u64,
        });
    }
    Ok(())
}
