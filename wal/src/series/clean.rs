//! Turns chunks that are mostly dead into fresh ones while ingest goes on: the checkpoint.
//!
//! A series that nobody has asked for since a segment that is reclaimed, for as long as
//! `series_idle_timeout`, is given up: it is not found any more, and once no frame on disk can name it
//! its ref is free and its record dead. The live records of a chunk that is at least half dead are
//! copied to another chunk, and its file goes.
//!
//! # Invariants
//! - A series is given up in this order: `seen` becomes [`DEAD`] (nobody confirms it any more), it
//!   leaves the table, every guard of that time ends, and the log is reclaimed beyond the head of that
//!   moment. Only then is its ref free. So neither a frame on disk nor one still to be appended by a
//!   slow thread names a free ref.
//! - A chunk is left in this order: its live records are durable elsewhere, their offsets point there,
//!   every guard of that time ends, it is unmapped by the thread that runs this, its file is removed.
//!
//! # Failure
//! A crash at any step finds every live record at least once; of two the larger sequence counts, and
//! both hold the same labels. A device that fails leaves everything as it was; the copies are dead.
//!
//! # Limits
//! [`GIVE_UP_MAX`] series and one chunk per step. The copy may overdraw the disk quota by one chunk.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam::epoch;

use super::arena::ChunkWriter;
use super::{DEAD, FIRST_TICK, FREE, STAGED_BYTES_MAX, SeriesTable, tick_of};
use crate::chunk::{Chunk, walk};
use crate::header::FILE_HEADER_BYTES;
use crate::{Error, Position, SeriesRef};

/// Series given up in one step, and freed in one: a step shares a core with ingest and must be short.
const GIVE_UP_MAX: usize = 1 << 13;
/// One of so many bytes of a chunk must be dead for its pages to be let go of.
const DEAD_SHARE: u64 = 4;
/// Ticks whose beginning is remembered: with more, the oldest are taken to have begun together.
const TICKS_MAX: usize = 1024;

/// What the log knows that series depend on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Idle {
    /// Time since some fixed instant.
    pub(crate) now: Duration,
    /// Series not asked for that long are given up.
    pub(crate) timeout: Duration,
    /// Everything before was handed out to writers when the step began.
    pub(crate) head: Position,
    /// Everything before is removed.
    pub(crate) reclaimed: Position,
    /// The oldest segment there is.
    pub(crate) oldest_segment: u64,
}

/// What a step did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct CleanStats {
    /// Series given up.
    pub(crate) given_up: u64,
    /// Refs that may be used again.
    pub(crate) freed: u64,
    /// Series given up that wait for the log to be reclaimed.
    pub(crate) in_limbo: u64,
    /// Chunk files removed.
    pub(crate) chunks_removed: u64,
    /// Bytes of records copied.
    pub(crate) copied_bytes: u64,
    /// Whether the next step should come soon.
    pub(crate) more: bool,
}

/// Cleans one series table, step by step, on one thread.
#[derive(Debug, Default)]
pub(crate) struct Cleaner {
    /// When each tick began.
    ticks: VecDeque<(u32, Duration)>,
    /// The ref the search for idle series goes on with.
    cursor: u32,
    /// Given up, and waiting for the guards of that time.
    given_up: Option<(Vec<SeriesRef>, Grace)>,
    /// Given up, and confirmed by no guard any more.
    unheld: Option<Vec<SeriesRef>>,
    /// Waiting until the log is reclaimed to a position.
    limbo: VecDeque<(Position, Vec<SeriesRef>)>,
    /// A chunk nothing points into, and the guards that may still see it.
    left: Option<(usize, Arc<Chunk>, Grace)>,
    /// Chunks out of their slots, to be unmapped and removed.
    retired: Vec<Arc<Chunk>>,
    writer: ChunkWriter,
}

/// Waits for the guards of the moment it was made.
#[derive(Debug)]
struct Grace(Arc<()>);

impl Grace {
    fn begin() -> Self {
        let token = Arc::new(());
        let pin = epoch::pin();
        let deferred = token.clone();
        pin.defer(move || drop(deferred));
        pin.flush();
        Self(token)
    }

    fn is_over(&self) -> bool {
        epoch::pin().flush();
        Arc::strong_count(&self.0) == 1
    }
}

impl Cleaner {
    /// Does what can be done now.
    ///
    /// # Errors
    /// What the system said to copying or removing a chunk; to be tried again.
    pub(crate) fn step(&mut self, table: &SeriesTable, idle: &Idle) -> Result<CleanStats, Error> {
        let mut stats = CleanStats::default();
        self.free(table, idle.reclaimed, &mut stats);
        self.give_up(table, idle, &mut stats);
        self.remove_retired(table, &mut stats)?;
        self.leave_chunk(table, &mut stats)?;
        stats.in_limbo = self.limbo.iter().map(|(_, refs)| refs.len() as u64).sum();
        stats.more |= self.given_up.is_some()
            || self.unheld.is_some()
            || self.left.is_some()
            || !self.retired.is_empty();
        Ok(stats)
    }

    /// Whether series wait for the head of the next step.
    #[cfg(test)]
    pub(crate) const fn has_unheld(&self) -> bool {
        self.unheld.is_some()
    }

    /// Frees the refs that nothing on disk names any more.
    fn free(&mut self, table: &SeriesTable, reclaimed: Position, stats: &mut CleanStats) {
        if let Some((_, refs)) = self.limbo.pop_front_if(|(head, _)| *head <= reclaimed) {
            for series in &refs {
                let words = table.offset.as_slice()[series.index()].swap(0, Ordering::AcqRel);
                table.bury(words);
                table.seen.as_slice()[series.index()].store(FREE, Ordering::Release);
            }
            table.series_count.fetch_sub(refs.len(), Ordering::Relaxed);
            stats.freed += refs.len() as u64;
            stats.more |= (self.limbo.front()).is_some_and(|(head, _)| *head <= reclaimed);
            table.generation.fetch_add(1, Ordering::Release);
            table.define.lock().free.extend(refs);
            if self.limbo.is_empty() {
                let_go_of_dead(table);
            }
        }
    }

    /// Gives up the series that are idle.
    fn give_up(&mut self, table: &SeriesTable, idle: &Idle, stats: &mut CleanStats) {
        if let Some(refs) = self.unheld.take() {
            self.limbo.push_back((idle.head, refs));
        }
        // The head of this step may have been looked up while one of those guards was still
        // appending: that of the next is behind all they appended.
        let over = self.given_up.take_if(|(_, grace)| grace.is_over());
        self.unheld = over.map(|(refs, _)| refs);
        let before = self.idle_before(table, idle);
        if self.given_up.is_some() || before <= FIRST_TICK {
            return;
        }
        let refs = self.mark_dead(table, before);
        stats.more |= refs.len() == GIVE_UP_MAX;
        if refs.is_empty() {
            return;
        }
        let guard = table.guard();
        for series in &refs {
            let hash_of = |series| guard.hash_of(series);
            table.unlist(*series, hash_of(*series), hash_of);
        }
        drop(guard);
        stats.given_up += refs.len() as u64;
        self.given_up = Some((refs, Grace::begin()));
    }

    /// Series last asked for before this tick are idle.
    fn idle_before(&mut self, table: &SeriesTable, idle: &Idle) -> u32 {
        let tick = table.tick.load(Ordering::Acquire);
        if self.ticks.back().is_none_or(|(last, _)| *last != tick) {
            self.ticks.push_back((tick, idle.now));
        }
        if self.ticks.len() > TICKS_MAX {
            self.ticks.pop_front();
        }
        let limit = idle.now.checked_sub(idle.timeout);
        let began = self.ticks.iter().rev();
        let old = began
            .map(|(tick, began)| (*tick, Some(*began)))
            .find(|(_, began)| *began <= limit);
        old.map_or(FIRST_TICK, |(tick, _)| tick)
            .min(tick_of(idle.oldest_segment))
    }

    fn mark_dead(&mut self, table: &SeriesTable, before: u32) -> Vec<SeriesRef> {
        let end = table.define.lock().next_ref;
        let mut refs = Vec::new();
        while self.cursor < end && refs.len() < GIVE_UP_MAX {
            let series = SeriesRef::new(self.cursor);
            self.cursor += 1;
            let seen = &table.seen.as_slice()[series.index()];
            let tick = seen.load(Ordering::Acquire);
            let idle = (FIRST_TICK..before).contains(&tick);
            if idle
                && seen
                    .compare_exchange(tick, DEAD, Ordering::AcqRel, Ordering::Relaxed)
                    .is_ok()
            {
                refs.push(series);
            }
        }
        // Now and not in the next step: by then more are defined, which are never idle, and the
        // search would follow them for as long as series keep coming.
        if self.cursor >= end {
            self.cursor = 0;
        }
        refs
    }

    /// Unmaps and removes the chunks nobody holds any more.
    fn remove_retired(&mut self, table: &SeriesTable, stats: &mut CleanStats) -> Result<(), Error> {
        if let Some((slot, chunk, _)) = self.left.take_if(|(_, _, grace)| grace.is_over()) {
            table.arena.retire(slot);
            self.retired.push(chunk);
        }
        if self.retired.is_empty() {
            return Ok(());
        }
        // What the slots let go of is dropped by the collector.
        epoch::pin().flush();
        let disk = &table.arena.options.disk;
        while let Some(at) = (self.retired.iter()).position(|c| Arc::strong_count(c) == 1) {
            let path = self.retired[at].file.path().to_owned();
            disk.remove(&path).map_err(Error::io("remove", &path))?;
            drop(self.retired.swap_remove(at));
            table.arena.removed();
            stats.chunks_removed += 1;
        }
        Ok(())
    }

    /// Copies what lives in a chunk that is mostly dead, and leaves it.
    fn leave_chunk(&mut self, table: &SeriesTable, stats: &mut CleanStats) -> Result<(), Error> {
        if self.left.is_some() {
            return Ok(());
        }
        let Some((slot, chunk)) = self.mostly_dead(table) else {
            return Ok(());
        };
        let mut moves = Vec::new();
        let copied = self.copy_live(table, slot, &chunk, &mut moves);
        if let Err(error) = copied {
            self.writer.forget();
            for (_, _, to) in moves {
                table.bury(to);
            }
            return Err(error);
        }
        let dead = chunk.dead_bytes.load(Ordering::Relaxed);
        stats.copied_bytes += chunk.used_bytes().saturating_sub(dead);
        for (series, from, to) in moves {
            let offset = &table.offset.as_slice()[series.index()];
            let moved = offset.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed);
            table.bury(if moved.is_ok() { from } else { to });
        }
        self.left = Some((slot, chunk, Grace::begin()));
        Ok(())
    }

    /// A chunk to leave: nobody appends to it, it is durable, and at least half of it is dead.
    fn mostly_dead(&self, table: &SeriesTable) -> Option<(usize, Arc<Chunk>)> {
        let define = table.define.lock();
        let pin = epoch::pin();
        let chunks = table.arena.chunks(&pin);
        chunks.into_iter().find(|(slot, chunk)| {
            let used = chunk.used_bytes();
            !define.writer.has(*slot)
                && !self.writer.has(*slot)
                && chunk.synced.load(Ordering::Acquire) == used + FILE_HEADER_BYTES as u64
                && chunk.dead_bytes.load(Ordering::Relaxed) * 2 >= used
        })
    }

    /// Copies the live records of `chunk` and makes the copies durable; `moves` gets their ref, old
    /// and new place in the arena, in words.
    fn copy_live(
        &mut self,
        table: &SeriesTable,
        slot: usize,
        chunk: &Chunk,
        moves: &mut Vec<(SeriesRef, u32, u32)>,
    ) -> Result<(), Error> {
        let arena = &table.arena;
        let mut result = Ok(());
        let used = FILE_HEADER_BYTES as u64 + chunk.used_bytes();
        let bytes = &chunk.bytes()[..usize::try_from(used).unwrap_or(usize::MAX)];
        walk(bytes, FILE_HEADER_BYTES, chunk.header.salt, |record| {
            let from = words(arena.offset(slot, record.offset));
            let now = table.offset.as_slice().get(record.series.index());
            let is_live = now.is_some_and(|now| now.load(Ordering::Acquire) == from);
            if !is_live || result.is_err() {
                return;
            }
            let full = self.writer.buffered_bytes() > STAGED_BYTES_MAX;
            let room = self.writer.has_room(arena, record.labels.len());
            if full || !room {
                result = self.write_staged(table, moves);
            }
            if !room && result.is_ok() {
                result = self.writer.begin_chunk(arena, true);
            }
            if result.is_ok() {
                result = self
                    .writer
                    .stage(arena, record.series, u64::from(from), record.labels);
            }
        });
        result?;
        self.write_staged(table, moves)
    }

    /// Makes what is staged durable. A part at a time: a commit waits for the device no longer than one
    /// part takes.
    fn write_staged(
        &mut self,
        table: &SeriesTable,
        moves: &mut Vec<(SeriesRef, u32, u32)>,
    ) -> Result<(), Error> {
        self.writer.write(&table.arena)?;
        for staged in self.writer.staged.drain(..) {
            // The old place travels as the hash, which a copy has no use for.
            let from = u32::try_from(staged.hash).unwrap_or(0);
            moves.push((staged.series, from, words(staged.offset)));
        }
        let Some(target) = self.writer.chunk().cloned() else {
            return Ok(());
        };
        let written = target.written.load(Ordering::Acquire);
        if let Err(source) = table.arena.options.disk.sync(&target.file) {
            self.writer.leave(&target);
            return Err(Error::io("sync", target.file.path())(source));
        }
        target.synced.fetch_max(written, Ordering::AcqRel);
        Ok(())
    }
}

/// Dead records stay in memory as long as their page was touched once. Where enough of a chunk is dead
/// its pages are let go of; those of living series come back one by one.
fn let_go_of_dead(table: &SeriesTable) {
    let pin = epoch::pin();
    for (_, chunk) in table.arena.chunks(&pin) {
        if chunk.dead_bytes.load(Ordering::Relaxed) * DEAD_SHARE >= chunk.used_bytes() {
            chunk.let_go();
        }
    }
}

fn words(offset: u64) -> u32 {
    u32::try_from(offset / 8).expect("the arena is limited to 2^32 words")
}
