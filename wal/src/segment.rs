//! Turns segment ids into files: prepared ahead, found by position, removed or used again when acked.
//!
//! A segment is one file, unless writing that failed: then it goes on in a file of the next generation.
//!
//! # Invariants
//! - Ids in the set are those whose file, header and name are durable.
//! - A segment is used in id order; its salt never changes, also where it goes on in another file.
//! - Of two files of one segment the later one holds everything from its `previous_end` on.
//!
//! # Failure
//! A segment that cannot be prepared (disk full) is simply not there: appends are refused until one
//! is. A removed segment that somebody still reads is not used again: its file stays until it is closed.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::chunk::create_with_header;
use crate::fs::{Disk, DiskFile};
use crate::header::{FILE_HEADER_BYTES, FileHeader, SEGMENT_MAGIC};
use crate::quota::Quota;
use crate::recycle::Spare;
use crate::{Error, Mark, Position};

/// What the system counts space in.
const BLOCK_BYTES: u64 = 512;
/// Space is given back in whole pages.
const PAGE_BYTES: u64 = 4096;

/// One segment file.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) header: FileHeader,
    pub(crate) file: DiskFile,
    /// What it takes of the disk.
    disk_bytes: AtomicU64,
}

/// What a new segment file is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begin {
    pub(crate) id: u64,
    pub(crate) generation: u32,
    pub(crate) salt: u64,
    /// Where the log before it ends, if that cannot be told from the file before it.
    pub(crate) previous_end: Option<Mark>,
    pub(crate) now_ms: i64,
}

/// Names a segment file: a segment has more than one if its device failed while it was written.
pub(crate) type FileKey = (u64, u32);

impl Segment {
    pub(crate) fn new(header: FileHeader, file: DiskFile) -> Self {
        let allocated = file
            .file()
            .metadata()
            .map(|found| found.blocks() * BLOCK_BYTES);
        let bytes = allocated.map_or(header.file_bytes, |bytes| bytes.min(header.file_bytes));
        Self {
            header,
            file,
            disk_bytes: AtomicU64::new(bytes),
        }
    }

    pub(crate) const fn key(&self) -> FileKey {
        (self.header.id, self.header.generation)
    }

    /// Where the log before this file ends, if a recovery or a failed device began it.
    pub(crate) const fn previous_end(&self) -> Option<Position> {
        match self.header.previous_end {
            0 => None,
            end => Some(Position::new(end)),
        }
    }

    /// Records of the log before it, if a recovery began it.
    pub(crate) fn records_before(&self) -> Option<u64> {
        let header = &self.header;
        (header.generation == 0 && header.previous_end > 0).then_some(header.records_before)
    }

    /// Where the segment begins in the log.
    pub(crate) const fn start(&self) -> Position {
        Position::new(self.header.id * self.header.file_bytes)
    }

    /// Where the segment ends in the log.
    pub(crate) const fn end(&self) -> Position {
        Position::new((self.header.id + 1) * self.header.file_bytes)
    }

    /// Where the first frame of this file stands.
    pub(crate) const fn first(&self) -> Position {
        if self.header.generation > 0 {
            Position::new(self.header.previous_end)
        } else {
            self.start().plus(FILE_HEADER_BYTES as u64)
        }
    }

    /// Where in the file a position of the segment, or its end, lies.
    pub(crate) const fn offset_of(&self, position: Position) -> u64 {
        position.bytes_since(self.start())
    }
}

/// The segment files of a store.
#[derive(Debug)]
pub(crate) struct Segments {
    dir: PathBuf,
    segment_bytes: u64,
    disk: Arc<dyn Disk>,
    quota: Arc<Quota>,
    files: Mutex<BTreeMap<FileKey, Arc<Segment>>>,
    /// A file that the next segment goes into. Filled, used and removed by the keeper.
    spare: Spare,
    /// Whether a file was removed and may come back. Written by the keeper.
    removal_is_loose: AtomicBool,
}

impl Segments {
    pub(crate) fn new(
        dir: PathBuf,
        segment_bytes: u64,
        disk: Arc<dyn Disk>,
        quota: Arc<Quota>,
    ) -> Self {
        let files = Mutex::new(BTreeMap::new());
        Self {
            dir,
            segment_bytes,
            disk,
            quota,
            files,
            spare: Spare::default(),
            removal_is_loose: AtomicBool::new(false),
        }
    }

    /// Changes the set, and the account of disk with it.
    fn change(&self, change: impl FnOnce(&mut BTreeMap<FileKey, Arc<Segment>>)) {
        let mut files = self.files.lock();
        change(&mut files);
        let bytes = |segment: &Arc<Segment>| segment.disk_bytes.load(Ordering::Relaxed);
        let spare = if self.spare.is_none() {
            0
        } else {
            self.segment_bytes
        };
        self.quota
            .set_segments(files.values().map(bytes).sum::<u64>() + spare);
    }

    pub(crate) const fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// Takes in a segment file found on disk.
    pub(crate) fn insert(&self, segment: Arc<Segment>) {
        self.change(|files| drop(files.insert(segment.key(), segment)));
    }

    /// Makes a new, empty, durable segment file.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn prepare(&self, begin: Begin) -> Result<Arc<Segment>, Error> {
        let end = begin.previous_end.unwrap_or_default();
        let mut header = FileHeader {
            magic: SEGMENT_MAGIC,
            generation: begin.generation,
            id: begin.id,
            file_bytes: self.segment_bytes,
            salt: begin.salt,
            previous_end: end.position.get(),
            created_ms: begin.now_ms,
            records_before: end.records,
            is_recycled: begin.generation == 0 && self.has_spare(),
        };
        let path = segment_path(&self.dir, (begin.id, begin.generation));
        let recycled = match header.is_recycled {
            true => self.spare.recycle(&self.disk, &path, &header),
            false => None,
        };
        let file = match recycled {
            Some(file) => file,
            None => {
                header.is_recycled = false;
                create_with_header(&self.disk, &path, &header)?
            }
        };
        let segment = Arc::new(Segment::new(header, file));
        // Counts in full even where its space cannot be taken ahead.
        segment
            .disk_bytes
            .store(self.segment_bytes, Ordering::Relaxed);
        self.change(|files| drop(files.insert(segment.key(), segment.clone())));
        Ok(segment)
    }

    /// The file that the segment of this id is written to: the newest.
    pub(crate) fn get(&self, id: u64) -> Option<Arc<Segment>> {
        let files = self.files.lock();
        let newest = files.range((id, 0)..=(id, u32::MAX)).next_back();
        newest.map(|(_, segment)| segment.clone())
    }

    /// The first file of the first segment with at least this id.
    pub(crate) fn first_from(&self, id: u64) -> Option<Arc<Segment>> {
        let files = self.files.lock();
        files.range((id, 0)..).next().map(|(_, s)| s.clone())
    }

    /// The file behind this one.
    pub(crate) fn after(&self, (id, generation): FileKey) -> Option<Arc<Segment>> {
        let files = self.files.lock();
        let behind = files.range((id, generation.saturating_add(1))..).next();
        behind.map(|(_, segment)| segment.clone())
    }

    /// The file that holds this position, or the first that begins behind it.
    pub(crate) fn holding(&self, position: Position) -> Option<Arc<Segment>> {
        let id = self.id_of(position);
        let files = self.files.lock();
        let here = files.range((id, 0)..=(id, u32::MAX)).rev();
        let holds = here.map(|(_, s)| s).find(|s| s.first() <= position);
        let behind = || {
            let mut behind = files.range((id, 0)..).map(|(_, s)| s);
            behind.find(|s| s.first() > position)
        };
        holds.or_else(behind).cloned()
    }

    /// Every file, oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<Segment>> {
        self.files.lock().values().cloned().collect()
    }

    /// Id of the segment a position lies in.
    pub(crate) const fn id_of(&self, position: Position) -> u64 {
        position.get() / self.segment_bytes
    }

    /// Where a segment begins in the log.
    pub(crate) const fn start_of(&self, id: u64) -> Position {
        Position::new(id * self.segment_bytes)
    }

    /// Whether the log may end at `end` in this segment (also exactly at its end).
    pub(crate) const fn holds(&self, id: u64, end: Position) -> bool {
        end.get() > self.start_of(id).get() && end.get() <= self.start_of(id + 1).get()
    }

    /// Bytes of frames between two positions: what interrupted runs left unused does not count.
    pub(crate) fn bytes_between(&self, from: Position, to: Position) -> u64 {
        if from >= to {
            return 0;
        }
        let files = self.files.lock();
        let mut bytes = 0;
        let keys = (self.id_of(from), 0)..=(self.id_of(to), u32::MAX);
        let mut between = files.range(keys).map(|(_, segment)| segment).peekable();
        while let Some(segment) = between.next() {
            let start = from.max(segment.first());
            let ended = between.peek().and_then(|next| next.previous_end());
            let end = ended.unwrap_or_else(|| segment.end()).min(to);
            bytes += end.bytes_since(start);
        }
        bytes
    }

    /// Gives back the space behind `end`, where this file's last frame ends, if nothing was ever written
    /// there. Of a recycled file that cannot be told from what is there: who calls must know that
    /// everything behind `end` is of an older segment.
    pub(crate) fn give_back_rest(&self, segment: &Arc<Segment>, end: Position) {
        let from = segment.offset_of(end).next_multiple_of(PAGE_BYTES);
        let to = segment.header.file_bytes;
        let is_unused = match segment.header.is_recycled {
            true => Ok(true),
            false => self
                .disk
                .next_data(&segment.file, from)
                .map(|data| data.is_none()),
        };
        let given = is_unused
            .and_then(|unused| Ok(unused && self.disk.give_back(&segment.file, from, to)?));
        match given {
            Ok(true) => {
                segment.disk_bytes.store(from, Ordering::Relaxed);
                self.change(|_| ());
            }
            Ok(false) => {}
            Err(error) => {
                let path = segment.file.path().display();
                tracing::warn!(%path, %error, "cannot give back the unused rest");
            }
        }
    }

    /// The place with `bytes` bytes of frames between it and `to`; the oldest there is if they are
    /// fewer.
    pub(crate) fn position_before(&self, to: Position, bytes: u64) -> Position {
        let files = self.files.lock();
        let mut left = bytes;
        let mut end = to;
        let behind = files.range(..=(self.id_of(to), u32::MAX)).rev();
        for segment in behind.map(|(_, segment)| segment) {
            end = end.min(segment.end());
            let here = end.bytes_since(segment.first());
            if here > left {
                return Position::new(end.get() - left);
            }
            left -= here;
            end = segment.previous_end().unwrap_or_else(|| segment.start());
        }
        end
    }

    /// Whether the next segment needs no new space.
    pub(crate) fn has_spare(&self) -> bool {
        // What was removed last may come back: nothing of it may be overwritten.
        !self.spare.is_none() && !self.removal_is_loose.load(Ordering::Relaxed)
    }

    /// Removes the file kept for the next segment unless there is room for another one: what else
    /// needs the space goes first.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn trim_spare(&self) -> Result<(), Error> {
        if self.spare.is_none() || self.quota.has_room(self.segment_bytes) {
            return Ok(());
        }
        self.remove_spare()
    }

    /// Removes the file kept for the next segment.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn remove_spare(&self) -> Result<(), Error> {
        let removed = self.spare.remove(&self.disk);
        self.change(|_| ());
        removed
    }

    /// Takes a file out of the set to use it again; false, and nothing is changed, if it cannot be.
    fn try_keep(&self, segment: &Arc<Segment>) -> bool {
        let (id, generation) = segment.key();
        let is_whole = segment.disk_bytes.load(Ordering::Relaxed) == self.segment_bytes;
        if !self.spare.is_none() || generation > 0 || !is_whole {
            return false;
        }
        if !self.quota.has_room(self.segment_bytes) {
            return false;
        }
        {
            let mut files = self.files.lock();
            let goes_on = files.range((id, 1)..=(id, u32::MAX)).next().is_some();
            // The set's and the caller's: nobody else reads it, and nobody can begin to.
            if goes_on || Arc::strong_count(segment) > 2 {
                return false;
            }
            files.remove(&segment.key());
        }
        let kept = self.spare.keep(&self.disk, segment.file.path());
        if let Err(error) = &kept {
            tracing::warn!(%error, "cannot be kept for the next segment");
            self.insert(segment.clone());
        }
        self.change(|_| ());
        kept.is_ok()
    }

    /// Removes the segments before `keep`, durably and one by one: the log on disk has no gap, and
    /// what they named is free when this returns. One of them may be kept as a file for the next
    /// segment. How many were removed.
    ///
    /// # Errors
    /// What the system said; what was removed until then is gone from the set.
    pub(crate) fn remove_before(&self, keep: u64) -> Result<u64, Error> {
        let mut removed = 0;
        loop {
            if self.removal_is_loose.load(Ordering::Relaxed) {
                let synced = self.disk.sync_dir(&self.dir);
                synced.map_err(Error::io("sync", &self.dir))?;
                self.removal_is_loose.store(false, Ordering::Relaxed);
            }
            let Some(segment) = self.first_from(0).filter(|s| s.header.id < keep) else {
                return Ok(removed);
            };
            if !self.try_keep(&segment) {
                let path = segment.file.path();
                self.disk.remove(path).map_err(Error::io("remove", path))?;
                self.change(|files| drop(files.remove(&segment.key())));
            }
            self.removal_is_loose.store(true, Ordering::Relaxed);
            removed += 1;
        }
    }

    /// Removes a file that holds nothing durable.
    ///
    /// # Errors
    /// What the system said; the file is out of the set all the same.
    pub(crate) fn remove(&self, segment: &Segment) -> Result<(), Error> {
        self.change(|files| drop(files.remove(&segment.key())));
        let path = segment.file.path();
        self.disk.remove(path).map_err(Error::io("remove", path))
    }

    /// Removes the segments after `keep`, which nothing was ever written to.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn remove_unused_after(&self, keep: u64) -> Result<(), Error> {
        while let Some(segment) = self.first_from(keep + 1) {
            let path = segment.file.path();
            self.disk.remove(path).map_err(Error::io("remove", path))?;
            self.change(|files| drop(files.remove(&segment.key())));
        }
        Ok(())
    }
}

fn segment_path(dir: &Path, (id, generation): FileKey) -> PathBuf {
    match generation {
        0 => dir.join(format!("{id:08}.seg")),
        _ => dir.join(format!("{id:08}-{generation}.seg")),
    }
}
