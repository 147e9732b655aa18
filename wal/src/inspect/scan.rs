//! Turns the segment files of a view into frames and problems, in log order.
//!
//! # Failure
//! - A frame that does not check is skipped to the next that does, as the tail does. How many records
//!   that costs is the difference between the counts of the frames around.

use std::sync::Arc;

use super::segments::{SegmentFile, Segments};
use super::{Problem, StoreView, What};
use crate::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind};
use crate::fs::Disk;
use crate::reader::{FrameReader, Look};
use crate::tail::Frame;
use crate::{Error, Position};

/// What a scan meets.
#[derive(Debug)]
pub enum Event<'a> {
    /// A frame that checks.
    Frame(Frame<'a>),
    /// Something that does not.
    Problem(Problem),
}

/// What a scan found in one segment file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SegmentCounts {
    /// Data frames that check.
    pub frames: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of them, headers and padding included.
    pub bytes: u64,
    /// When the first and the last were appended, in milliseconds since the Unix epoch.
    pub appended_ms: Option<(i64, i64)>,
}

/// What stands at a place of a file.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// A frame that checks, of either kind.
    Frame(FrameHeader),
    Hole(Hole),
    /// The frames of the file end.
    End,
}

/// Bytes without a frame that checks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hole {
    pub(super) from: Position,
    pub(super) to: Position,
    pub(super) what: What,
    /// Records before what follows, if that is in this file.
    pub(super) records: Option<u64>,
    /// Zeros up to the end, or what the file held before: never written, unless records are missing.
    pub(super) is_unused: bool,
}

/// Walks through one file.
#[derive(Debug)]
pub(super) struct Walk {
    reader: FrameReader,
    at: Position,
    limit: Position,
    interrupted: bool,
    ended: bool,
}

impl Walk {
    /// None if the file is gone.
    pub(super) fn open(disk: &Arc<dyn Disk>, file: &SegmentFile) -> Result<Option<Self>, Error> {
        let reader = file.reader(disk)?;
        Ok(reader.map(|reader| Self {
            reader,
            at: file.first(),
            limit: file.limit,
            interrupted: file.interrupted,
            ended: false,
        }))
    }

    /// The next frame or hole.
    ///
    /// # Errors
    /// The device reads nothing here.
    pub(super) fn step(&mut self) -> Result<Step, Error> {
        let end = self.reader.segment.end();
        let left = self.limit.bytes_since(self.at);
        if self.ended || left == 0 || end.bytes_since(self.at) < FRAME_HEADER_BYTES as u64 {
            return Ok(Step::End);
        }
        let mut look = self.frame()?;
        if look.is_none() {
            // The live process may have been writing what was read.
            self.reader.forget();
            look = self.frame()?;
        }
        let Some(header) = look else {
            return self.hole();
        };
        self.ended = header.kind == FrameKind::End;
        self.at = self.at.plus(header.frame_bytes());
        Ok(Step::Frame(header))
    }

    fn frame(&mut self) -> Result<Option<FrameHeader>, Error> {
        Ok(match self.reader.look(self.at, self.limit)? {
            Look::Frame(header) => Some(header),
            Look::BrokenBody(_) | Look::Broken => None,
        })
    }

    fn hole(&mut self) -> Result<Step, Error> {
        let path = self.reader.segment.file.path();
        if matches!(path.try_exists(), Ok(false)) {
            // Reclaimed by a live process, which may have begun to use the file again.
            return Ok(Step::End);
        }
        let (from, limit) = (self.at, self.limit);
        let (mut what, to, records) = match self.reader.look(from, limit)? {
            Look::BrokenBody(header) | Look::Frame(header) => {
                let to = from.plus(header.frame_bytes()).min(limit);
                (What::FrameBody, to, Some(header.records_after()))
            }
            Look::Broken => {
                let next = self.reader.next_header(from, limit)?;
                let records = next.map(|next| next.records_before);
                (
                    What::Frame,
                    next.map_or(limit, |next| next.position),
                    records,
                )
            }
        };
        if self.reader.is_unreadable(from, to) {
            what = What::Unreadable;
        } else if self.interrupted && !self.reader.is_proved_durable(from, limit, None)? {
            what = What::Torn;
        }
        let is_recycled = self.reader.segment.header.is_recycled;
        let is_unused = to == limit && (is_recycled || self.is_zero(from, to)?);
        self.at = to;
        Ok(Step::Hole(Hole {
            from,
            to,
            what,
            records,
            is_unused,
        }))
    }

    fn is_zero(&mut self, from: Position, to: Position) -> Result<bool, Error> {
        let rest = self.reader.range(from, to)?;
        Ok(rest.iter().all(|&byte| byte == 0))
    }

    /// The body of a frame that was just stepped over.
    pub(super) fn body(&mut self, header: &FrameHeader) -> Result<&[u8], Error> {
        let from = header.position.plus(FRAME_HEADER_BYTES as u64);
        self.reader
            .range(from, from.plus(u64::from(header.body_bytes)))
    }
}

/// Reads the log of a view.
#[derive(Debug)]
pub struct Scan<'v> {
    view: &'v StoreView,
    /// The next file to open.
    next: usize,
    walk: Option<Walk>,
    /// Records before the next frame, if nothing is missing.
    expected: Option<u64>,
    counts: Vec<SegmentCounts>,
    problem: Option<Problem>,
}

impl<'v> Scan<'v> {
    pub(super) const fn new(view: &'v StoreView) -> Self {
        Self {
            view,
            next: 0,
            walk: None,
            expected: None,
            counts: Vec::new(),
            problem: None,
        }
    }

    /// What was found so far, by file of [`StoreView::segments`].
    #[must_use]
    pub fn counts(&self) -> &[SegmentCounts] {
        &self.counts
    }

    /// The next frame or problem; none at the end of the log.
    pub fn next_event(&mut self) -> Option<Event<'_>> {
        let header = loop {
            if let Some(problem) = self.problem.take() {
                return Some(Event::Problem(problem));
            }
            let Some(walk) = &mut self.walk else {
                self.open_next()?;
                continue;
            };
            match walk.step() {
                Ok(Step::Frame(header)) => {
                    self.count(&header);
                    if header.is_data() {
                        break header;
                    }
                }
                Ok(Step::End) => self.walk = None,
                Ok(Step::Hole(hole)) => self.hole(&hole),
                Err(_) => self.unreadable(),
            }
        };
        let body = self.walk.as_mut()?.body(&header);
        let body = body.unwrap_or_default();
        Some(Event::Frame(Frame::new(header, body)))
    }

    fn segments(&self) -> &'v Segments {
        &self.view.segments
    }

    /// The file that is read.
    fn file(&self) -> &'v SegmentFile {
        &self.segments().used()[self.next - 1]
    }

    /// Opens the next file; none if there is none.
    fn open_next(&mut self) -> Option<()> {
        let files = self.segments().used();
        let file = files.get(self.next)?;
        let before = self.next.checked_sub(1).map(|at| &files[at]);
        self.next += 1;
        self.counts.push(SegmentCounts::default());
        match Walk::open(&self.view.disk, file) {
            Ok(walk) => {
                if walk.is_none() {
                    // Reclaimed by a live process.
                    self.expected = None;
                }
                self.walk = walk;
            }
            Err(_) => self.unreadable(),
        }
        if let Some(before) = before {
            self.problem = self.missing_between(before, file).or(self.problem.take());
        }
        Some(())
    }

    /// Segments that should be between two files.
    fn missing_between(&mut self, before: &SegmentFile, file: &SegmentFile) -> Option<Problem> {
        let end = file.previous_end().unwrap_or_else(|| file.start());
        if file.id() == before.id() || end <= before.end() {
            return None;
        }
        let segments = self.segments();
        let behind = segments.records_from(&self.view.disk, self.next - 1);
        let records = self.missing(behind);
        self.expected = behind.max(self.expected);
        Some(Problem {
            path: file.path.clone(),
            offset: 0,
            position: Some(before.end()),
            bytes: end.bytes_since(before.end()),
            records,
            what: What::MissingSegment,
        })
    }

    /// What is missing if the next frame has so many records before it.
    fn missing(&self, records: Option<u64>) -> Option<u64> {
        Some(records?.saturating_sub(self.expected?))
    }

    fn count(&mut self, header: &FrameHeader) {
        let missing = self.missing(Some(header.records_before)).unwrap_or(0);
        if missing > 0 {
            let mut problem = self.at(header.position, header.position, What::LostBefore);
            problem.records = Some(missing);
            self.problem = Some(problem);
        }
        self.expected = Some(header.records_after());
        if let Some(counts) = self.counts.last_mut()
            && header.is_data()
        {
            counts.frames += 1;
            counts.records += header.records();
            counts.bytes += header.frame_bytes();
            let at = header.appended_ms;
            let (first, last) = counts.appended_ms.unwrap_or((at, at));
            counts.appended_ms = Some((first.min(at), last.max(at)));
        }
    }

    fn hole(&mut self, hole: &Hole) {
        let behind = hole.records.or_else(|| {
            let segments = self.segments();
            segments.records_from(&self.view.disk, self.next)
        });
        let mut problem = self.at(hole.from, hole.to, hole.what);
        problem.records = self.missing(behind);
        if hole.is_unused && problem.records.unwrap_or(0) == 0 {
            return;
        }
        self.expected = behind.max(self.expected);
        self.problem = Some(problem);
    }

    fn at(&self, from: Position, to: Position, what: What) -> Problem {
        let file = self.file();
        Problem {
            path: file.path.clone(),
            offset: from.bytes_since(file.start()),
            position: Some(from),
            bytes: to.bytes_since(from),
            records: None,
            what,
        }
    }

    /// The device reads nothing of the rest of the file.
    fn unreadable(&mut self) {
        let (from, to) = (self.walk.as_ref().map(|walk| walk.at), self.file().limit);
        self.walk = None;
        self.hole(&Hole {
            from: from.unwrap_or(self.file().first()),
            to,
            what: What::Unreadable,
            records: None,
            is_unused: false,
        });
    }
}
