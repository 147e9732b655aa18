//! Turns the chunk files of an earlier run into a series table.
//!
//! # Invariants
//! - Of two records of one ref the one with the larger sequence counts.
//! - Of two refs with the same labels (a series was given up and came back) the later one is found;
//!   the other stays readable for the frames that name it.
//! - A ref that may have stood in bytes that cannot be read is not given out again: frames on disk
//!   may name it.
//!
//! # Failure
//! A chunk whose header is broken is left alone and counted; a record that does not check, or that the
//! device cannot read, costs that series only. A device that reads nothing of a chunk ends the start.
//!
//! # Limits
//! One chunk is held in memory at a time.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::arena::ChunkWriter;
use super::{FREE, SeriesOptions, SeriesTable, Staged};
use crate::chunk::{Chunk, RECORD_HEADER_BYTES, walk};
use crate::reader::read_pages;
use crate::{Error, SeriesRef};

/// Shards of the table smaller than this are not worth shrinking.
const SHRINK_FROM: usize = 256;

/// What opening the arena found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SeriesRecovery {
    /// Bytes of records that do not check.
    pub(crate) broken_bytes: u64,
    /// Chunks that are left alone.
    pub(crate) unreadable_chunks: u64,
}

/// What is known while chunks are read.
#[derive(Default)]
struct Reading {
    found: SeriesRecovery,
    /// By ref.
    records: Vec<Read>,
    next_ref: u32,
}

/// The record of a ref that was read last.
#[derive(Clone, Copy, Default)]
struct Read {
    /// Plus one; 0 for "not seen".
    sequence: u64,
    /// Of its labels: that these need not be read through the map, page by page, while the table grows.
    hash: u64,
}

impl SeriesTable {
    /// Reads every chunk in `options.dir` and makes it durable. All series count as seen in
    /// `segment_id`.
    ///
    /// # Errors
    /// What the system said; a chunk from a newer version.
    pub(crate) fn open(
        options: SeriesOptions,
        segment_id: u64,
    ) -> Result<(Self, SeriesRecovery), Error> {
        let table = Self::empty(options)?;
        table.set_segment(segment_id);
        let mut reading = Reading {
            next_ref: 1,
            ..Reading::default()
        };
        let mut writer = ChunkWriter::default();
        let mut buffer = Vec::new();
        let dir = table.arena.options.dir.clone();
        // A chunk that the last process removed must not come back: its sequences are used again.
        let synced = table.arena.options.disk.sync_dir(&dir);
        synced.map_err(Error::io("sync", &dir))?;
        for ((id, _), path) in crate::dir::numbered(&dir, "chunk")? {
            table.arena.reserve_id(id);
            let chunk = match Chunk::open(&table.arena.options.disk, &path) {
                Ok(chunk) => Arc::new(chunk),
                Err(
                    e @ (Error::BadHeader { .. }
                    | Error::Io {
                        action: "map" | "read",
                        ..
                    }),
                ) => {
                    tracing::error!(error = %e, "a series chunk cannot be read and is left alone");
                    reading.found.unreadable_chunks += 1;
                    continue;
                }
                Err(e) => return Err(e),
            };
            let slot = table.arena.adopt(id, chunk.clone())?;
            let whole = table.recover_chunk(slot, &chunk, &mut buffer, &mut reading)?;
            if whole {
                writer.go_on(slot, chunk);
            }
        }
        let mut define = table.define.lock();
        define.writer = writer;
        define.next_ref = reading.next_ref;
        table.give_back_refs(&mut define, &reading);
        drop(define);
        Ok((table, reading.found))
    }

    /// Takes in the records of a chunk; whether it can be appended to.
    fn recover_chunk(
        &self,
        slot: usize,
        chunk: &Arc<Chunk>,
        buffer: &mut Vec<u8>,
        reading: &mut Reading,
    ) -> Result<bool, Error> {
        let path = chunk.file.path();
        let disk = &self.arena.options.disk;
        disk.sync(&chunk.file).map_err(Error::io("sync", path))?;
        buffer.resize(self.arena.chunk_len(), 0);
        let read = read_pages(disk, &chunk.file, buffer, 0);
        let (bytes, unreadable) = read.map_err(Error::io("read", path))?;
        let unreadable: u64 = unreadable.iter().map(|bad| bad.end - bad.start).sum();
        // Shorter than it was made: what is missing held records.
        let missing = (self.arena.chunk_len() - bytes) as u64;
        let salt = chunk.header.salt;
        let end = walk(
            &buffer[..bytes],
            crate::header::FILE_HEADER_BYTES,
            salt,
            |record| {
                self.arena.saw_sequence(record.sequence);
                self.take_in(slot, chunk, &record, reading);
            },
        );
        let broken = end.broken_bytes as u64 + unreadable + missing;
        reading.found.broken_bytes += broken;
        chunk.written.store(end.end as u64, Ordering::Release);
        chunk.synced.store(end.end as u64, Ordering::Release);
        Ok(broken == 0)
    }

    fn take_in(
        &self,
        slot: usize,
        chunk: &Chunk,
        record: &crate::chunk::Record<'_>,
        reading: &mut Reading,
    ) {
        let series = record.series;
        let index = series.index();
        if index >= self.offset.as_slice().len() {
            return;
        }
        reading.next_ref = reading.next_ref.max(series.get().saturating_add(1));
        if reading.records.len() <= index {
            reading.records.resize(index + 1, Read::default());
        }
        let bytes = crate::chunk::record_bytes(record.labels.len()) as u64;
        if reading.records[index].sequence > record.sequence {
            chunk.dead_bytes.fetch_add(bytes, Ordering::Relaxed);
            return;
        }
        if reading.records[index].sequence != 0 {
            self.forget(series, reading);
        }
        let hash = self.hash(record.labels);
        reading.records[index] = Read {
            sequence: record.sequence + 1,
            hash,
        };
        let hash_of = |series: SeriesRef| reading.records[series.index()].hash;
        let twin = self.twin(record.labels, hash, hash_of);
        let twin_is_later =
            twin.is_some_and(|twin| reading.records[twin.index()].sequence > record.sequence);
        if let Some(twin) = twin.filter(|_| !twin_is_later) {
            self.unlist(twin, hash, hash_of);
        }
        let offset = self.arena.offset(slot, record.offset);
        let staged = Staged {
            series,
            offset,
            hash,
        };
        self.insert(staged, hash_of);
        if twin_is_later {
            self.unlist(series, hash, hash_of);
        }
    }

    /// Another ref with these labels.
    fn twin(
        &self,
        labels: &[u8],
        hash: u64,
        hash_of: impl Fn(SeriesRef) -> u64,
    ) -> Option<SeriesRef> {
        let guard = self.guard();
        let is_it = |&other: &SeriesRef| hash_of(other) == hash && guard.labels(other) == labels;
        self.shard(hash).read().find(hash, is_it).copied()
    }

    /// Takes a ref and its record out of the table: a later record replaces it.
    fn forget(&self, series: SeriesRef, reading: &Reading) {
        let hash_of = |series: SeriesRef| reading.records[series.index()].hash;
        self.unlist(series, hash_of(series), hash_of);
        let words = self.offset.as_slice()[series.index()].swap(0, Ordering::AcqRel);
        self.bury(words);
        self.series_count.fetch_sub(1, Ordering::Relaxed);
    }

    /// Makes a series unfindable; its labels stay readable.
    pub(super) fn unlist(&self, series: SeriesRef, hash: u64, hash_of: impl Fn(SeriesRef) -> u64) {
        let mut shard = self.shard(hash).write();
        if let Ok(entry) = shard.find_entry(hash, |&other| other == series) {
            entry.remove();
        }
        if shard.capacity() > SHRINK_FROM && shard.len() * 4 < shard.capacity() {
            shard.shrink_to_fit(|&series| hash_of(series));
        }
    }

    /// Refs that no record names are free, unless the record may be what could not be read.
    fn give_back_refs(&self, define: &mut super::Define, reading: &Reading) {
        let SeriesRecovery {
            broken_bytes,
            unreadable_chunks,
        } = reading.found;
        if broken_bytes == 0 && unreadable_chunks == 0 {
            let seen = self.seen.as_slice();
            let unused = (1..define.next_ref).rev().map(SeriesRef::new);
            define.free = unused
                .filter(|series| seen[series.index()].load(Ordering::Relaxed) == FREE)
                .collect();
            return;
        }
        let unread = broken_bytes + unreadable_chunks * self.arena.options.chunk_bytes;
        let refs = u32::try_from(unread.div_ceil(RECORD_HEADER_BYTES as u64)).unwrap_or(u32::MAX);
        define.next_ref = define.next_ref.saturating_add(refs);
    }
}
