//! Turns segment ids into files: prepared ahead, found by position, removed when acked.
//!
//! # Invariants
//! - Ids in the set are those whose file, header and name are durable.
//! - A segment is used in id order; its salt never changes.
//!
//! # Failure
//! A segment that cannot be prepared (disk full) is simply not there: appends are refused until one
//! is. Readers that still map a removed segment keep reading it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::chunk::create_with_header;
use crate::fs::{Disk, DiskFile};
use crate::header::{FILE_HEADER_BYTES, FileHeader, SEGMENT_MAGIC};
use crate::quota::Quota;
use crate::{Error, Position};

/// One segment file.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) header: FileHeader,
    pub(crate) file: DiskFile,
}

impl Segment {
    /// Where the log before this segment ends, if a recovery began it.
    pub(crate) const fn previous_end(&self) -> Option<Position> {
        match self.header.previous_end {
            0 => None,
            end => Some(Position::new(end)),
        }
    }
}

/// The segment files of a store.
#[derive(Debug)]
pub(crate) struct Segments {
    dir: PathBuf,
    segment_bytes: u64,
    disk: Arc<dyn Disk>,
    quota: Arc<Quota>,
    files: Mutex<BTreeMap<u64, Arc<Segment>>>,
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
        }
    }

    /// Changes the set, and the account of disk with it.
    fn change(&self, change: impl FnOnce(&mut BTreeMap<u64, Arc<Segment>>)) {
        let mut files = self.files.lock();
        change(&mut files);
        self.quota
            .set_segments(files.len() as u64 * self.segment_bytes);
    }

    pub(crate) const fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// Takes in a segment found on disk.
    pub(crate) fn insert(&self, segment: Segment) {
        self.change(|files| drop(files.insert(segment.header.id, Arc::new(segment))));
    }

    /// Makes a new, empty, durable segment.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn prepare(
        &self,
        id: u64,
        previous_end: Option<Position>,
        now_ms: i64,
    ) -> Result<Arc<Segment>, Error> {
        let header = FileHeader {
            magic: SEGMENT_MAGIC,
            id,
            file_bytes: self.segment_bytes,
            salt: fastrand::u64(..),
            previous_end: previous_end.map_or(0, Position::get),
            created_ms: now_ms,
        };
        let file = create_with_header(&self.disk, &segment_path(&self.dir, id), &header)?;
        let segment = Arc::new(Segment { header, file });
        self.change(|files| drop(files.insert(id, segment.clone())));
        Ok(segment)
    }

    pub(crate) fn get(&self, id: u64) -> Option<Arc<Segment>> {
        self.files.lock().get(&id).cloned()
    }

    /// The first segment with at least this id.
    pub(crate) fn first_from(&self, id: u64) -> Option<Arc<Segment>> {
        self.files
            .lock()
            .range(id..)
            .next()
            .map(|(_, segment)| segment.clone())
    }

    /// Every segment, oldest first.
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
        let files = self.files.lock();
        let mut bytes = 0;
        let mut between = files.range(self.id_of(from)..=self.id_of(to)).peekable();
        while let Some((&id, _)) = between.next() {
            let start = from.max(self.start_of(id).plus(FILE_HEADER_BYTES as u64));
            let ended = between.peek().and_then(|(_, next)| next.previous_end());
            let end = ended.unwrap_or_else(|| self.start_of(id + 1)).min(to);
            bytes += end.bytes_since(start);
        }
        bytes
    }

    /// Where in its segment a position lies.
    pub(crate) fn offset_of(&self, position: Position) -> usize {
        usize::try_from(position.get() % self.segment_bytes).unwrap_or(usize::MAX)
    }

    /// Removes the segments before `keep`; returns how many.
    ///
    /// # Errors
    /// What the system said; what was removed until then is gone from the set.
    pub(crate) fn remove_before(&self, keep: u64) -> Result<u64, Error> {
        let mut removed = 0;
        while let Some(segment) = self.first_from(0).filter(|s| s.header.id < keep) {
            let path = segment.file.path();
            self.disk.remove(path).map_err(Error::io("remove", path))?;
            self.change(|files| drop(files.remove(&segment.header.id)));
            removed += 1;
        }
        Ok(removed)
    }

    /// Removes the segments after `keep`, which nothing was ever written to.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn remove_unused_after(&self, keep: u64) -> Result<(), Error> {
        while let Some(segment) = self.first_from(keep + 1) {
            let path = segment.file.path();
            self.disk.remove(path).map_err(Error::io("remove", path))?;
            self.change(|files| drop(files.remove(&segment.header.id)));
        }
        Ok(())
    }
}

pub(crate) fn segment_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:08}.seg"))
}
