//! Turns chunk files into refs and label bytes.
//!
//! # Invariants
//! - Of two records of one ref the one with the larger sequence counts.
//!
//! # Failure
//! - A file that another reading finds otherwise is being written: it is read until it stays the same.
//!
//! # Limits
//! - One chunk in memory at a time, 24 bytes per record. Labels are mapped.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Problem, What, is_gone};
use crate::chunk::{Chunk, RECORD_HEADER_BYTES, WalkEnd, record_bytes, walk};
use crate::fs::Disk;
use crate::header::{FILE_HEADER_BYTES, FileHeader, HEADER_COPY_BYTES, SERIES_MAGIC};
use crate::reader::read_pages;
use crate::{Error, SeriesRef, dir};

/// Sizes a chunk may have.
const CHUNK_BYTES: std::ops::RangeInclusive<u64> = 8 << 10..=1 << 30;
/// A file that is written while it is read is read again so often.
const READS_MAX: usize = 10;

/// What is in one chunk file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChunkFile {
    /// The file.
    pub path: PathBuf,
    /// Its size.
    pub file_bytes: u64,
    /// Records that check.
    pub records: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Bytes of those that no later record of the same ref replaces.
    pub live_bytes: u64,
}

/// Where a record is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Place {
    pub(super) series: SeriesRef,
    pub(super) sequence: u64,
    pub(super) chunk: u32,
    /// In words of 8 bytes.
    pub(super) word: u32,
}

/// The series of a store. Each has an index below [`Self::len`], in the order of the refs.
#[derive(Debug)]
pub struct SeriesView {
    chunks: Vec<Chunk>,
    files: Vec<ChunkFile>,
    places: Vec<Place>,
    problems: Vec<Problem>,
}

impl SeriesView {
    pub(super) fn load(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Self, Error> {
        let mut view = Self {
            chunks: Vec::new(),
            files: Vec::new(),
            places: Vec::new(),
            problems: Vec::new(),
        };
        let mut buffer = Vec::new();
        for (_, path) in dir::numbered(dir, "chunk")? {
            match view.add(disk, &path, &mut buffer) {
                Ok(()) => {}
                Err(error) if is_gone(&error) => {}
                // Making it was interrupted, or is under way.
                Err(Error::BadHeader { .. }) if is_blank(disk, &path) => {}
                Err(error) => {
                    let what = match error {
                        Error::BadHeader { .. } => What::Header,
                        Error::NewerVersion { .. } => What::NewerVersion,
                        _ => What::Unreadable,
                    };
                    let bytes = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
                    view.problems.push(Problem::in_file(&path, 0, bytes, what));
                }
            }
        }
        view.places.sort_unstable();
        view.keep_newest();
        Ok(view)
    }

    fn add(
        &mut self,
        disk: &Arc<dyn Disk>,
        path: &Path,
        buffer: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let chunk = Chunk::open(disk, path)?;
        let file_bytes = chunk.bytes().len() as u64;
        if !CHUNK_BYTES.contains(&chunk.header.file_bytes) || file_bytes > *CHUNK_BYTES.end() {
            let path = path.to_owned();
            return Err(Error::BadHeader { path });
        }
        buffer.resize(chunk.bytes().len(), 0);
        let mut found = Found::default();
        for _ in 0..READS_MAX {
            let before = std::mem::take(&mut found);
            let read = read_pages(disk, &chunk.file, buffer, 0);
            let (bytes, _) = read.map_err(Error::io("read", path))?;
            found = Found::of(&buffer[..bytes], chunk.header.salt);
            if found.holes.is_empty() || found == before {
                break;
            }
        }
        let copy =
            |at: usize| Problem::in_file(path, at as u64, HEADER_COPY_BYTES, What::HeaderCopy);
        let head = &buffer[..FILE_HEADER_BYTES.min(buffer.len())];
        let broken = FileHeader::broken_copies(head, SERIES_MAGIC);
        self.problems.extend(broken.into_iter().map(copy));
        for (offset, bytes) in found.holes {
            let problem = Problem::in_file(path, offset, bytes, What::SeriesRecord);
            self.problems.push(problem);
        }
        let number = u32::try_from(self.chunks.len()).unwrap_or(u32::MAX);
        let places = found.records.iter().map(|&(series, sequence, word)| Place {
            series,
            sequence,
            chunk: number,
            word,
        });
        self.places.extend(places);
        self.files.push(ChunkFile {
            path: path.to_owned(),
            file_bytes,
            records: found.records.len() as u64,
            bytes: found.bytes,
            live_bytes: 0,
        });
        self.chunks.push(chunk);
        Ok(())
    }

    /// Of the records of a ref, which stand together, the last one counts.
    fn keep_newest(&mut self) {
        let mut kept = 0;
        for at in 0..self.places.len() {
            let place = self.places[at];
            let next = self.places.get(at + 1);
            if next.is_some_and(|next| next.series == place.series) {
                continue;
            }
            let chunk = place.chunk as usize;
            let bytes = record_bytes(self.labels_at(place).len()) as u64;
            self.files[chunk].live_bytes += bytes;
            self.places[kept] = place;
            kept += 1;
        }
        self.places.truncate(kept);
    }

    /// The chunk files, oldest first.
    #[must_use]
    pub fn files(&self) -> &[ChunkFile] {
        &self.files
    }

    /// What does not check.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// How many series there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The index of a series, if its record checks.
    #[must_use]
    pub fn index_of(&self, series: SeriesRef) -> Option<usize> {
        // Refs are dense as long as no series was given up.
        let guess = series.index().wrapping_sub(1);
        if self.places.get(guess).is_some_and(|p| p.series == series) {
            return Some(guess);
        }
        self.places.binary_search_by_key(&series, |p| p.series).ok()
    }

    /// The ref of a series.
    #[must_use]
    pub fn series(&self, index: usize) -> SeriesRef {
        let place = self.places.get(index);
        place.map_or(SeriesRef::NONE, |place| place.series)
    }

    /// The canonical label bytes of a series; empty if there is no such series.
    #[must_use]
    pub fn labels(&self, series: SeriesRef) -> &[u8] {
        let place = self.index_of(series).and_then(|at| self.places.get(at));
        place.map_or(&[], |place| self.labels_at(*place))
    }

    pub(super) fn places(&self) -> &[Place] {
        &self.places
    }

    pub(super) fn labels_at(&self, place: Place) -> &[u8] {
        self.chunks[place.chunk as usize].labels_at(place.word as usize * 8)
    }

    /// Size of the largest chunk.
    pub(super) fn chunk_bytes(&self) -> u64 {
        let sizes = self.chunks.iter().map(|chunk| chunk.header.file_bytes);
        sizes.max().unwrap_or(0)
    }
}

/// Whether a file has no header yet.
fn is_blank(disk: &Arc<dyn Disk>, path: &Path) -> bool {
    let mut page = vec![0; FILE_HEADER_BYTES];
    let read = disk
        .open(path)
        .and_then(|file| disk.read_full_at(&file, &mut page, 0));
    read.is_ok() && page.iter().all(|&byte| byte == 0)
}

/// What one reading of a chunk found.
#[derive(Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Ref, sequence, and place in words.
    pub(super) records: Vec<(SeriesRef, u64, u32)>,
    pub(super) bytes: u64,
    /// Offset and length.
    pub(super) holes: Vec<(u64, u64)>,
}

impl Found {
    pub(super) fn of(bytes: &[u8], salt: u64) -> Self {
        let mut found = Self::default();
        let mut end = FILE_HEADER_BYTES;
        let walked = walk(bytes, FILE_HEADER_BYTES, salt, |record| {
            found.hole(end, record.offset);
            let word = u32::try_from(record.offset / 8).unwrap_or(u32::MAX);
            found.records.push((record.series, record.sequence, word));
            let record_bytes = record_bytes(record.labels.len());
            found.bytes += record_bytes as u64;
            end = record.offset + record_bytes;
        });
        let WalkEnd { end: last, .. } = walked;
        found.hole(end, last.min(bytes.len()));
        found
    }

    fn hole(&mut self, from: usize, to: usize) {
        if to > from {
            self.holes.push((from as u64, (to - from) as u64));
        }
    }
}

const _: () = assert!(RECORD_HEADER_BYTES.is_multiple_of(8));
