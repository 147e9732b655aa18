//! Turns what checks in a store into a new store beside it.
//!
//! Series keep their refs and sequences, frames their places. Where a frame is missing, an empty one
//! covers the place: it names the records before it, so that readers find by the difference what is
//! lost, as they do for any gap. A series whose record is lost keeps its ref, with no labels: else a
//! new series could get the ref, and with it the samples of the lost one.
//!
//! # Invariants
//! - Nothing in the old store is changed; its lock is held meanwhile.
//! - The new store has no problem, and every record of a frame that checks is in it.
//!
//! # Failure
//! - A new directory that could not be finished is left as it is, for the operator to remove.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions, TryLockError};
use std::path::Path;
use std::sync::Arc;

use super::scan::{Hole, Step, Walk};
use super::segments::SegmentFile;
use super::{Event, Problem, SeriesView, StoreView, What};
use crate::chunk::{Record, create_with_header, encode_record, record_bytes};
use crate::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind, Stamp, frame_bytes};
use crate::fs::{Disk, DiskFile, SystemDisk};
use crate::header::{FILE_HEADER_BYTES, FileHeader, SERIES_MAGIC};
use crate::ledger::{ALL_ENDPOINTS, format};
use crate::progress::{FILE_BYTES, encode_slot, slot_of};
use crate::random::{Random, SystemRandom};
use crate::{DropReason, Error, Loss, Mark, Position, SeriesRef, SystemClock};

/// Bytes written at a time.
const BLOCK_BYTES: usize = 1 << 20;

/// What a repair copied and what it left behind.
#[derive(Clone, Debug, Default)]
pub struct Repaired {
    /// Series records.
    pub series: u64,
    /// Series that frames name and whose record is lost.
    pub series_lost: u64,
    /// Segment files.
    pub segments: u64,
    /// Frames that hold records.
    pub frames: u64,
    /// Records in them.
    pub records: u64,
    /// Records that are missing between them.
    pub records_lost: u64,
    /// Endpoints whose position was copied.
    pub positions: u64,
    /// Lines of the ledger.
    pub losses: u64,
    /// What was not copied.
    pub left_behind: Vec<Problem>,
}

/// Copies what checks in the store `from` to the new directory `to`.
///
/// # Errors
/// [`Error::Locked`] if an agent has the store, [`Error::Io`] if `to` is there already or the disk
/// fails.
pub fn repair(from: &Path, to: &Path) -> Result<Repaired, Error> {
    let _lock = lock_if_there(from)?;
    let view = StoreView::open(from)?;
    fs::create_dir(to).map_err(Error::io("create", to))?;
    for name in ["series", "segments", "positions", "quarantine"] {
        let path = to.join(name);
        fs::create_dir(&path).map_err(Error::io("create", path))?;
    }
    let mut repair = Repair {
        disk: Arc::new(SystemDisk),
        view: &view,
        to,
        done: Repaired::default(),
        new_losses: Vec::new(),
    };
    repair.series()?;
    repair.segments()?;
    repair.positions()?;
    repair.losses()?;
    repair.sync_dirs()?;
    Ok(repair.done)
}

/// The lock, without making its file.
fn lock_if_there(dir: &Path) -> Result<Option<fs::File>, Error> {
    let path = dir.join("LOCK");
    let file = match OpenOptions::new().read(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("open", path)(error)),
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(Error::Locked { path }),
        Err(TryLockError::Error(error)) => Err(Error::io("lock", path)(error)),
    }
}

struct Repair<'a> {
    disk: Arc<dyn Disk>,
    view: &'a StoreView,
    to: &'a Path,
    done: Repaired,
    new_losses: Vec<Loss>,
}

impl Repair<'_> {
    /// Writes every series record that counts, and one without labels for every ref that lost its.
    fn series(&mut self) -> Result<(), Error> {
        let series = self.view.series()?;
        self.done.left_behind.extend(series.problems().to_vec());
        let lost = self.refs_without_record(&series);
        let mut places = series.places().to_vec();
        places.sort_unstable_by_key(|place| place.sequence);
        let next = places.last().map_or(0, |place| place.sequence + 1);
        let chunk_bytes = series.chunk_bytes().max(8 << 10);
        let mut chunks = Chunks::new(&self.disk, self.to, chunk_bytes);
        for place in &places {
            let labels = series.labels_at(*place);
            chunks.add(place.series, place.sequence, labels)?;
        }
        for (sequence, lost) in (next..).zip(&lost) {
            chunks.add(*lost, sequence, &[])?;
        }
        chunks.finish()?;
        self.done.series = places.len() as u64;
        self.done.series_lost = lost.len() as u64;
        Ok(())
    }

    /// Refs that frames name and that no record defines.
    fn refs_without_record(&self, series: &SeriesView) -> BTreeSet<SeriesRef> {
        let mut lost = BTreeSet::new();
        let mut samples = Vec::new();
        let mut scan = self.view.scan();
        while let Some(event) = scan.next_event() {
            let Event::Frame(frame) = event else { continue };
            samples.clear();
            let Ok(raw) = frame.samples(&mut samples) else {
                continue;
            };
            let of_samples = samples.iter().map(|sample| sample.series);
            let of_raw = raw.filter_map(|record| Some(record.ok()?.series));
            for named in of_samples.chain(of_raw) {
                if !named.is_none() && series.index_of(named).is_none() {
                    lost.insert(named);
                }
            }
        }
        lost
    }

    fn segments(&mut self) -> Result<(), Error> {
        // The problems, with the counts of records; the walk below sees the same holes.
        let mut scan = self.view.scan();
        while let Some(event) = scan.next_event() {
            if let Event::Problem(problem) = event {
                self.leave_behind(problem);
            }
        }
        for problem in self.view.problems() {
            self.leave_behind(problem.clone());
        }
        let mut before: Option<Mark> = None;
        for file in self.view.segments.used() {
            let Some(walk) = Walk::open(&self.view.disk, file)? else {
                continue;
            };
            before = Some(self.segment(file, walk, before)?);
        }
        Ok(())
    }

    fn leave_behind(&mut self, problem: Problem) {
        if problem.what != What::LostBefore {
            self.done.records_lost += problem.records.unwrap_or(0);
            self.new_losses.extend(loss_of(&problem));
            self.done.left_behind.push(problem);
        }
    }

    /// Copies a file; where its frames end. `before` is where those before it end.
    fn segment(
        &mut self,
        file: &SegmentFile,
        mut walk: Walk,
        before: Option<Mark>,
    ) -> Result<Mark, Error> {
        let header = self.header(file, before);
        let name = file.path().file_name().unwrap_or_default();
        let path = self.to.join("segments").join(name);
        let mut out = Frames {
            file: create_with_header(&self.disk, &path, &header)?,
            disk: &self.disk,
            start: file.start(),
            segment: header,
            at: file.first(),
            buffer: Vec::new(),
            records: before.map_or(0, |before| before.records),
            appended_ms: file.created_ms(),
        };
        loop {
            match walk.step() {
                Ok(Step::Frame(header)) => {
                    out.frame(&header, walk.body(&header)?)?;
                    self.done.frames += u64::from(header.is_data());
                    self.done.records += header.records();
                }
                Ok(Step::Hole(hole)) if hole.is_unused && hole.to == file.end() => {
                    out.end(hole.from)?;
                }
                Ok(Step::Hole(hole)) => out.cover(&hole)?,
                Ok(Step::End) => break,
                Err(_) => {
                    out.end_here()?;
                    break;
                }
            }
        }
        let records = out.finish()?;
        self.done.segments += 1;
        let position = file.limit;
        Ok(Mark { position, records })
    }

    /// The header, which says where the log before it ends if that is not the file before it.
    fn header(&self, file: &SegmentFile, before: Option<Mark>) -> FileHeader {
        let mut header = FileHeader {
            is_recycled: false,
            ..file.header
        };
        let begins = file.previous_end().unwrap_or_else(|| file.start());
        match before {
            // Segments are missing between.
            Some(before) if begins > before.position && header.generation == 0 => {
                let reached = before.position.get() / header.file_bytes;
                if reached < header.id && before.position < file.start() {
                    header.previous_end = before.position.get();
                    header.records_before = before.records;
                }
            }
            Some(_) => {}
            None => {
                // An endpoint may need what was before; it finds out by the count of records.
                let acked = self.view.positions().iter().map(|position| position.acked);
                let least = acked.filter(|acked| *acked < begins).min();
                if let Some(least) = least.filter(|_| header.generation == 0) {
                    header.previous_end = least.get().max(1);
                }
            }
        }
        header
    }

    fn positions(&mut self) -> Result<(), Error> {
        for position in self.view.positions() {
            let name = position.path.file_name().unwrap_or_default();
            let path = self.to.join("positions").join(name);
            let sequence = position.sequence + 1;
            let slot = encode_slot(sequence, &position.progress());
            let file = self.disk.create(&path, FILE_BYTES);
            let file = file.map_err(Error::io("create", &path))?;
            self.disk
                .write_all_at(&file, &slot, slot_of(sequence))
                .and_then(|()| self.disk.sync(&file))
                .map_err(Error::io("write", &path))?;
            self.done.positions += 1;
        }
        Ok(())
    }

    /// The old lines, and one for each loss that no tail can meet any more.
    fn losses(&mut self) -> Result<(), Error> {
        let ledger = self.view.losses()?;
        self.done.losses = ledger.losses.len() as u64;
        self.done.left_behind.extend(ledger.problems.clone());
        let mut lines = ledger.lines;
        let is_known = |loss: &&Loss| {
            let mut known = ledger.losses.iter();
            !known.any(|old| (old.from, old.to) == (loss.from, loss.to))
        };
        for loss in self.new_losses.iter().filter(is_known) {
            lines.extend_from_slice(format(loss).as_bytes());
        }
        let path = self.to.join("losses");
        let file = self
            .disk
            .create(&path, 0)
            .map_err(Error::io("create", &path))?;
        self.disk
            .write_all_at(&file, &lines, 0)
            .and_then(|()| self.disk.sync(&file))
            .map_err(Error::io("write", &path))
    }

    fn sync_dirs(&self) -> Result<(), Error> {
        for name in ["series", "segments", "positions", "."] {
            let path = self.to.join(name);
            self.disk.sync_dir(&path).map_err(Error::io("sync", path))?;
        }
        Ok(())
    }
}

/// What the ledger says of a problem.
fn loss_of(problem: &Problem) -> Option<Loss> {
    let reason = match problem.what {
        What::Frame | What::FrameBody => DropReason::CorruptFrame,
        What::Unreadable => DropReason::Unreadable,
        What::MissingSegment => DropReason::MissingSegment,
        _ => return None,
    };
    let from = problem.position?;
    Some(Loss {
        time_ms: SystemClock::shared().unix_ms(),
        endpoint: ALL_ENDPOINTS.to_owned(),
        reason,
        from,
        to: from.plus(problem.bytes),
        records: problem.records.unwrap_or(0),
        appended_ms: (0, 0),
    })
}

/// The chunk files of the new store.
struct Chunks<'a> {
    disk: &'a Arc<dyn Disk>,
    dir: std::path::PathBuf,
    chunk_bytes: u64,
    next_id: u64,
    salt: u64,
    file: Option<DiskFile>,
    written: usize,
    buffer: Vec<u8>,
}

impl<'a> Chunks<'a> {
    fn new(disk: &'a Arc<dyn Disk>, to: &Path, chunk_bytes: u64) -> Self {
        Self {
            disk,
            dir: to.join("series"),
            chunk_bytes,
            next_id: 0,
            salt: 0,
            file: None,
            written: 0,
            buffer: Vec::new(),
        }
    }

    fn add(&mut self, series: SeriesRef, sequence: u64, labels: &[u8]) -> Result<(), Error> {
        let end = self.written + self.buffer.len() + record_bytes(labels.len());
        if self.file.is_none() || end as u64 > self.chunk_bytes {
            self.finish()?;
            self.begin()?;
        }
        let record = Record {
            offset: self.written + self.buffer.len(),
            series,
            sequence,
            labels,
        };
        encode_record(self.salt, &record, &mut self.buffer);
        if self.buffer.len() >= BLOCK_BYTES {
            self.write()?;
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), Error> {
        let path = self.dir.join(format!("{:08}.chunk", self.next_id));
        self.salt = SystemRandom.next_u64();
        let header = FileHeader {
            magic: SERIES_MAGIC,
            generation: 0,
            id: self.next_id,
            file_bytes: self.chunk_bytes,
            salt: self.salt,
            previous_end: 0,
            created_ms: 0,
            records_before: 0,
            is_recycled: false,
        };
        self.file = Some(create_with_header(self.disk, &path, &header)?);
        self.next_id += 1;
        self.written = FILE_HEADER_BYTES;
        Ok(())
    }

    fn write(&mut self) -> Result<(), Error> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let written = self
            .disk
            .write_all_at(file, &self.buffer, self.written as u64);
        written.map_err(Error::io("write", file.path()))?;
        self.written += self.buffer.len();
        self.buffer.clear();
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Error> {
        self.write()?;
        match self.file.take() {
            Some(file) => self
                .disk
                .sync(&file)
                .map_err(Error::io("sync", file.path())),
            None => Ok(()),
        }
    }
}

/// The frames of one new segment file.
struct Frames<'a> {
    file: DiskFile,
    disk: &'a Arc<dyn Disk>,
    start: Position,
    segment: FileHeader,
    /// Where the buffer goes.
    at: Position,
    buffer: Vec<u8>,
    /// Records up to the last frame.
    records: u64,
    /// When that was appended.
    appended_ms: i64,
}

impl Frames<'_> {
    fn frame(&mut self, header: &FrameHeader, body: &[u8]) -> Result<(), Error> {
        self.seek(header.position)?;
        self.records = header.records_after();
        self.appended_ms = header.appended_ms;
        self.buffer.extend_from_slice(&header.encode());
        self.buffer.extend_from_slice(body);
        let padding = self.buffer.len().next_multiple_of(8) - self.buffer.len();
        self.buffer.extend_from_slice(&[0; 8][..padding]);
        if self.buffer.len() >= BLOCK_BYTES {
            self.write()?;
        }
        Ok(())
    }

    /// Covers a hole: with an empty frame, or, up to the end of the segment, with an end frame.
    fn cover(&mut self, hole: &Hole) -> Result<(), Error> {
        if hole.to == self.segment_end() {
            return self.end(hole.from);
        }
        let bytes = hole.to.bytes_since(hole.from);
        // No frame was shorter.
        let Some(body_bytes) = bytes.checked_sub(FRAME_HEADER_BYTES as u64) else {
            return Ok(());
        };
        let body = vec![0; usize::try_from(body_bytes).unwrap_or(0)];
        debug_assert_eq!(frame_bytes(body.len()), bytes, "frames are aligned");
        let header = FrameHeader {
            kind: FrameKind::Data,
            body_bytes: u32::try_from(body_bytes).unwrap_or(u32::MAX),
            body_crc: crc32fast::hash(&body),
            ..self.end_header(hole.from)
        };
        self.frame(&header, &body)
    }

    /// Ends the segment here.
    fn end(&mut self, at: Position) -> Result<(), Error> {
        if self.segment_end().bytes_since(at) < FRAME_HEADER_BYTES as u64 {
            return Ok(());
        }
        let header = self.end_header(at);
        self.frame(&header, &[])
    }

    /// Ends the segment behind its last frame.
    fn end_here(&mut self) -> Result<(), Error> {
        self.end(self.at.plus(self.buffer.len() as u64))
    }

    const fn end_header(&self, at: Position) -> FrameHeader {
        let stamp = Stamp {
            durable: at,
            appended_ms: self.appended_ms,
        };
        FrameHeader::end(at, self.segment.salt, self.records, stamp)
    }

    const fn segment_end(&self) -> Position {
        self.start.plus(self.segment.file_bytes)
    }

    /// What follows stands at `position`.
    fn seek(&mut self, position: Position) -> Result<(), Error> {
        let end = self.at.plus(self.buffer.len() as u64);
        if end != position {
            self.write()?;
            self.at = position;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), Error> {
        let offset = self.at.bytes_since(self.start);
        let written = self.disk.write_all_at(&self.file, &self.buffer, offset);
        written.map_err(Error::io("write", self.file.path()))?;
        self.at = self.at.plus(self.buffer.len() as u64);
        self.buffer.clear();
        Ok(())
    }

    /// The records up to the last frame.
    fn finish(mut self) -> Result<u64, Error> {
        self.write()?;
        let synced = self.disk.sync(&self.file);
        synced.map_err(Error::io("sync", self.file.path()))?;
        Ok(self.records)
    }
}
