//! Turns the segment files of a directory into the log as it is now: its files and where it ends.
//!
//! # Invariants
//! - A file in the list has a header that makes sense: its id is that of its name, its size a power
//!   of two, its end of the log before it not behind its own. Sums of positions do not overflow.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{PositionFile, Problem, What, is_gone};
use crate::bytes::{get_u32, get_u64};
use crate::frame::{FRAME_HEADER_BYTES, FRAME_MAGIC, FrameHeader, field};
use crate::fs::Disk;
use crate::header::{FILE_HEADER_BYTES, FileHeader, HEADER_COPY_BYTES, SEGMENT_MAGIC};
use crate::reader::{FrameReader, read_pages};
use crate::recover::log_end;
use crate::recycle::{TORN_BYTES_MAX, is_unwritten};
use crate::segment::{FileKey, Segment};
use crate::{Error, Mark, Position, dir};

/// Sizes a segment may have, as in `StoreOptions`.
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 64 << 10..=1 << 30;
/// Ids beyond this would take more bytes than a position can count.
const ID_MAX: u64 = 1 << 32;
/// A header that does not check is read again: the live process may have been writing it.
const HEADER_READS_MAX: usize = 3;

/// One segment file of a view.
#[derive(Clone, Debug)]
pub struct SegmentFile {
    pub(super) path: PathBuf,
    pub(super) header: FileHeader,
    /// Where its frames end at the latest.
    pub(super) limit: Position,
    /// Whether a run was interrupted at `limit`.
    pub(super) interrupted: bool,
}

impl SegmentFile {
    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number of the segment.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.header.id
    }

    /// Counts the files that went on with one segment after its device failed.
    #[must_use]
    pub const fn generation(&self) -> u32 {
        self.header.generation
    }

    /// When it was prepared, in milliseconds since the Unix epoch.
    #[must_use]
    pub const fn created_ms(&self) -> i64 {
        self.header.created_ms
    }

    /// Its size.
    #[must_use]
    pub const fn file_bytes(&self) -> u64 {
        self.header.file_bytes
    }

    /// Where the log before it ends, if a recovery or a failed device began it.
    #[must_use]
    pub const fn previous_end(&self) -> Option<Position> {
        match self.header.previous_end {
            0 => None,
            end => Some(Position::new(end)),
        }
    }

    /// Where its first frame stands.
    #[must_use]
    pub const fn first(&self) -> Position {
        if self.header.generation > 0 {
            Position::new(self.header.previous_end)
        } else {
            Position::new(self.start().get() + FILE_HEADER_BYTES as u64)
        }
    }

    pub(super) const fn key(&self) -> FileKey {
        (self.header.id, self.header.generation)
    }

    pub(super) const fn start(&self) -> Position {
        Position::new(self.header.id * self.header.file_bytes)
    }

    pub(super) const fn end(&self) -> Position {
        Position::new((self.header.id + 1) * self.header.file_bytes)
    }

    /// A reader of it, or none if the file is gone.
    pub(super) fn reader(&self, disk: &Arc<dyn Disk>) -> Result<Option<FrameReader>, Error> {
        let file = match disk.open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("open", &self.path)(error)),
        };
        let header = self.header;
        let segment = Arc::new(Segment::new(header, file));
        Ok(Some(FrameReader::new(disk.clone(), segment)))
    }
}

/// The files and the end of the log.
#[derive(Debug)]
pub(super) struct Segments {
    files: Vec<SegmentFile>,
    /// How many of them hold the log; the others are prepared ahead.
    used: usize,
    end: Mark,
}

/// The segment files of a store, by name.
pub(super) fn list(dir: &Path) -> Result<Vec<(FileKey, PathBuf)>, Error> {
    dir::numbered(&dir.join("segments"), "seg")
}

impl Segments {
    /// Reads the headers of what was listed `before` and what is there now, and finds the end.
    pub(super) fn open(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        before: Vec<(FileKey, PathBuf)>,
        problems: &mut Vec<Problem>,
    ) -> Result<Self, Error> {
        let mut listed = before;
        listed.extend(list(dir)?);
        listed.sort_unstable();
        listed.dedup();
        let mut segments = Self {
            files: Vec::new(),
            used: 0,
            end: Mark::default(),
        };
        for (key, path) in listed {
            match read_file(disk, key, &path, problems) {
                Ok(Some(file)) => segments.take_in(file, problems),
                Ok(None) => {}
                Err(error) if is_gone(&error) => {}
                Err(_) => {
                    problems.push(Problem::in_file(&path, 0, 0, What::Unreadable));
                }
            }
        }
        segments.find_end(disk, problems);
        segments.set_limits();
        Ok(segments)
    }

    pub(super) fn files(&self) -> &[SegmentFile] {
        &self.files
    }

    /// Those that hold the log.
    pub(super) fn used(&self) -> &[SegmentFile] {
        &self.files[..self.used]
    }

    pub(super) const fn end(&self) -> Mark {
        self.end
    }

    fn take_in(&mut self, file: SegmentFile, problems: &mut Vec<Problem>) {
        let all = self.files.first();
        if all.is_some_and(|first| first.file_bytes() != file.file_bytes()) {
            problems.push(Problem::in_file(
                &file.path,
                0,
                HEADER_COPY_BYTES,
                What::Header,
            ));
        } else {
            self.files.push(file);
        }
    }

    /// The newest file with a frame in it ends the log.
    fn find_end(&mut self, disk: &Arc<dyn Disk>, problems: &mut Vec<Problem>) {
        for (at, file) in self.files.iter().enumerate().rev() {
            let Ok(Some(mut reader)) = file.reader(disk) else {
                continue;
            };
            if file.header.is_recycled && is_unwritten(disk, &reader.segment.file, &file.header) {
                continue;
            }
            let found = log_end(disk, &reader.segment).ok().flatten();
            let end = found.map_or(file.first(), |found| found.position);
            problems.extend(torn_tail(&mut reader, file, end));
            if let Some(found) = found {
                (self.used, self.end) = (at + 1, found);
                return;
            }
        }
    }

    fn set_limits(&mut self) {
        let mut next: Option<(FileKey, Option<Position>)> = None;
        for (at, file) in self.files.iter_mut().enumerate().rev() {
            let ended = next.and_then(|(_, end)| end);
            let here = ended.filter(|end| (file.first()..=file.end()).contains(end));
            (file.limit, file.interrupted) = if at + 1 == self.used {
                (self.end.position, true)
            } else if let Some(end) = here {
                (end, next.is_some_and(|((id, _), _)| id != file.id()))
            } else {
                (file.end(), false)
            };
            next = Some((file.key(), file.previous_end()));
        }
    }

    /// Notes what an endpoint still needs and is before the first segment.
    pub(super) fn check_begin(
        &self,
        disk: &Arc<dyn Disk>,
        positions: &[PositionFile],
        problems: &mut Vec<Problem>,
    ) {
        let Some(first) = self.used().first() else {
            return;
        };
        let needs = |p: &&PositionFile| {
            let ended = first.previous_end().is_none_or(|end| end > p.acked);
            p.acked < first.start() && ended
        };
        let Some(position) = positions.iter().filter(needs).min_by_key(|p| p.acked) else {
            return;
        };
        let records = self.records_from(disk, 0);
        problems.push(Problem {
            path: first.path.clone(),
            offset: 0,
            position: Some(position.acked),
            bytes: first.start().bytes_since(position.acked),
            records: records.map(|records| records.saturating_sub(position.records())),
            what: What::MissingSegment,
        });
    }

    /// Records before the first frame that checks in or behind a file.
    pub(super) fn records_from(&self, disk: &Arc<dyn Disk>, from: usize) -> Option<u64> {
        for file in self.used().iter().skip(from) {
            let Ok(Some(mut reader)) = file.reader(disk) else {
                continue;
            };
            let at = file.first();
            let header = match reader.header(at, file.limit) {
                Ok(Some(header)) => Some(header),
                _ => reader.next_header(at, file.limit).ok().flatten(),
            };
            if let Some(header) = header {
                return Some(header.records_before);
            }
        }
        None
    }

    pub(super) fn bytes_between(&self, from: Position, to: Position) -> u64 {
        let part = |file: &SegmentFile| file.limit.min(to).bytes_since(file.first().max(from));
        self.used().iter().map(part).sum()
    }
}

/// The file with its header; none if that cannot be read.
fn read_file(
    disk: &Arc<dyn Disk>,
    key: FileKey,
    path: &Path,
    problems: &mut Vec<Problem>,
) -> Result<Option<SegmentFile>, Error> {
    let file = disk.open(path).map_err(Error::io("open", path))?;
    let mut page = vec![0; FILE_HEADER_BYTES + FRAME_HEADER_BYTES];
    let mut bytes = 0;
    for _ in 0..HEADER_READS_MAX {
        (bytes, _) = read_pages(disk, &file, &mut page, 0).map_err(Error::io("read", path))?;
        if FileHeader::broken_copies(&page[..bytes], SEGMENT_MAGIC).is_empty() {
            break;
        }
    }
    let page = &page[..bytes];
    let file_bytes = file.file().metadata().map_or(0, |metadata| metadata.len());
    let header = match FileHeader::decode(page, SEGMENT_MAGIC, path) {
        Ok(header) => {
            let copy =
                |at: usize| Problem::in_file(path, at as u64, HEADER_COPY_BYTES, What::HeaderCopy);
            let broken = FileHeader::broken_copies(page, SEGMENT_MAGIC);
            problems.extend(broken.into_iter().map(copy));
            header
        }
        Err(Error::NewerVersion { .. }) => {
            problems.push(Problem::in_file(path, 0, file_bytes, What::NewerVersion));
            return Ok(None);
        }
        // Making it was interrupted.
        Err(_) if page.iter().all(|&byte| byte == 0) => return Ok(None),
        Err(_) => {
            let header = header_from_frame(page, key, file_bytes);
            let (what, bytes) = match header {
                Some(_) => (What::HeaderFromFrames, FILE_HEADER_BYTES as u64),
                None => (What::Header, file_bytes),
            };
            problems.push(Problem::in_file(path, 0, bytes, what));
            match header {
                Some(header) => header,
                None => return Ok(None),
            }
        }
    };
    if !is_plausible(&header, key) {
        problems.push(Problem::in_file(path, 0, file_bytes, What::Header));
        return Ok(None);
    }
    Ok(Some(SegmentFile {
        path: path.to_owned(),
        header,
        limit: Position::ZERO,
        interrupted: false,
    }))
}

fn is_plausible(header: &FileHeader, key: FileKey) -> bool {
    let size = header.file_bytes;
    if (header.id, header.generation) != key
        || header.id > ID_MAX
        || !size.is_power_of_two()
        || !SEGMENT_BYTES.contains(&size)
    {
        return false;
    }
    let (start, end) = (header.id * size, (header.id + 1) * size);
    let first = start + FILE_HEADER_BYTES as u64;
    header.generation == 0 && header.previous_end <= start
        || (first..=end).contains(&header.previous_end)
}

/// What the first frame tells of a header that is gone. Nobody but us writes there, so that it is
/// to be trusted where a frame found anywhere else might have come with a request.
fn header_from_frame(
    page: &[u8],
    (id, generation): FileKey,
    file_bytes: u64,
) -> Option<FileHeader> {
    let frame = page.get(FILE_HEADER_BYTES..)?;
    let is_frame = frame.len() == FRAME_HEADER_BYTES && get_u32(frame, field::MAGIC) == FRAME_MAGIC;
    if !is_frame || generation != 0 || id > ID_MAX || !SEGMENT_BYTES.contains(&file_bytes) {
        return None;
    }
    let salt = get_u64(frame, field::SALT);
    let position = Position::new(id * file_bytes + FILE_HEADER_BYTES as u64);
    FrameHeader::decode(frame, position, salt)?;
    Some(FileHeader {
        magic: SEGMENT_MAGIC,
        generation,
        id,
        file_bytes,
        salt,
        previous_end: 0,
        created_ms: 0,
        records_before: 0,
        // Not known: nothing is to be concluded from what stands behind the frames.
        is_recycled: true,
    })
}

/// What stands behind the last frame of the log and is not zeros.
fn torn_tail(reader: &mut FrameReader, file: &SegmentFile, end: Position) -> Option<Problem> {
    if file.header.is_recycled {
        // It cannot be told from what the file held before.
        return None;
    }
    let limit = Position::new(end.get() + TORN_BYTES_MAX).min(file.end());
    let rest = reader.range(end, limit).ok()?;
    let last = rest.iter().rposition(|&byte| byte != 0)?;
    Some(Problem {
        path: file.path.clone(),
        offset: end.bytes_since(file.start()),
        position: Some(end),
        bytes: last as u64 + 1,
        records: None,
        what: What::Torn,
    })
}
