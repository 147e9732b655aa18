//! Turns the chunk files of an earlier run into a series table, and a mostly dead one into fresh chunks.
//!
//! # Invariants
//! - Of two records of one ref the one with the larger sequence counts.
//! - A ref that may have stood in bytes that cannot be read is not given out again: frames on disk
//!   may name it.
//!
//! # Failure
//! A chunk whose header is broken is left alone and counted; a record that does not check costs that
//! series only.

use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use super::{Define, SeriesTable, low, spread};
use crate::chunk::{Chunk, RECORD_HEADER_BYTES, WalkEnd, walk};
use crate::error::FullReason;
use crate::{Error, SeriesRef};

/// What opening the arena found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SeriesRecovery {
    pub(crate) series: usize,
    pub(crate) broken_bytes: usize,
    pub(crate) unreadable_chunks: usize,
}

impl SeriesTable {
    /// Reads every chunk of the directory and makes it durable.
    pub(super) fn recover(&self) -> Result<SeriesRecovery, Error> {
        let dir = &self.options.dir;
        let mut found = SeriesRecovery::default();
        let mut define = self.define.lock();
        let mut sequences: Vec<u64> = Vec::new();
        for (id, path) in crate::dir::numbered(dir, "chunk")? {
            define.next_id = id + 1;
            let chunk = match Chunk::open(&self.options.disk, &path) {
                Ok(chunk) => chunk,
                Err(e @ (Error::BadHeader { .. } | Error::Io { action: "map", .. })) => {
                    tracing::error!(error = %e, "a series chunk cannot be read and is left alone");
                    found.unreadable_chunks += 1;
                    continue;
                }
                Err(e) => return Err(e),
            };
            self.options
                .disk
                .sync(&chunk.file)
                .map_err(Error::io("sync", &path))?;
            let slot = self.chunk_count.load(Ordering::Relaxed);
            let place = self.chunks.get(slot).ok_or(Error::Full {
                reason: FullReason::Series,
            })?;
            let chunk = place.get_or_init(|| chunk);
            self.set_chunk_count(slot + 1);
            let end = self.recover_chunk(chunk, slot, &mut define, &mut sequences);
            found.broken_bytes += end.broken_bytes;
            define.slot = Some(slot);
            define.at = end.end;
        }
        // What could not be read may have held refs that frames name: they are not given out again.
        let unread =
            found.broken_bytes as u64 + found.unreadable_chunks as u64 * self.options.chunk_bytes;
        let refs = u32::try_from(unread.div_ceil(RECORD_HEADER_BYTES as u64)).unwrap_or(u32::MAX);
        define.next_ref = define.next_ref.saturating_add(refs);
        found.series = self.len();
        if let Some(slot) = define.slot {
            let end = slot as u64 * self.options.chunk_bytes + define.at as u64;
            self.written.store(end, Ordering::Release);
        }
        Ok(found)
    }

    fn recover_chunk(
        &self,
        chunk: &Chunk,
        slot: usize,
        define: &mut Define,
        sequences: &mut Vec<u64>,
    ) -> WalkEnd {
        let base = slot as u64 * self.options.chunk_bytes;
        walk(chunk.bytes(), chunk.header.salt, |record| {
            let index = record.series.index();
            define.next_ref = define.next_ref.max(record.series.get().saturating_add(1));
            define.sequence = define.sequence.max(record.sequence + 1);
            if index >= self.offset.as_slice().len() {
                return;
            }
            if sequences.len() <= index {
                sequences.resize(index + 1, 0);
            }
            // Stored plus one: 0 is "not seen".
            if sequences[index] > record.sequence {
                return;
            }
            if sequences[index] != 0 {
                self.forget(record.series);
            }
            sequences[index] = record.sequence + 1;
            self.insert(
                record.series,
                base + record.offset as u64,
                self.hash(record.labels),
            );
        })
    }

    /// Takes a series out of the table (during recovery: a later record replaces it).
    fn forget(&self, series: SeriesRef) {
        let hash = self.hash(self.labels(series));
        let mut shard = self.shard(hash).write();
        if let Ok(entry) = shard.find_entry(spread(low(hash)), |entry| entry.series == series) {
            entry.remove();
        }
    }

    /// Writes the records of `live` to fresh chunks and removes all others; the table must then be
    /// opened anew. Nothing may use it meanwhile.
    ///
    /// The copies are durable before the first old chunk goes: a crash at any step finds every live
    /// record at least once, and of two the labels are the same.
    ///
    /// # Errors
    /// What the system said, [`Error::Full`]; the fresh chunks are removed then.
    pub(crate) fn rewrite(self, live: &[SeriesRef]) -> Result<(), Error> {
        let old = self.chunk_count();
        let copied = self.copy_to_fresh_chunks(live);
        let chunks = self.chunks[..self.chunk_count()]
            .iter()
            .filter_map(OnceLock::get);
        let (keep, remove): (Vec<_>, Vec<_>) = chunks.enumerate().partition(|(at, _)| *at >= old);
        let remove = if copied.is_ok() { remove } else { keep };
        for (_, chunk) in remove {
            let path = chunk.file.path();
            self.options
                .disk
                .remove(path)
                .map_err(Error::io("remove", path))?;
        }
        copied
    }

    fn copy_to_fresh_chunks(&self, live: &[SeriesRef]) -> Result<(), Error> {
        let mut define = self.define.lock();
        let first = self.chunk_count();
        self.add_chunk(&mut define)?;
        for &series in live {
            let labels = self.labels(series).to_vec();
            self.stage(&mut define, series, self.hash(&labels), &labels)?;
        }
        self.publish(&mut define)?;
        for chunk in self.chunks[first..self.chunk_count()]
            .iter()
            .filter_map(OnceLock::get)
        {
            let path = chunk.file.path();
            self.options
                .disk
                .sync(&chunk.file)
                .map_err(Error::io("sync", path))?;
        }
        Ok(())
    }
}
