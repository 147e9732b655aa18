//! Turns a position into the frames that follow it, up to what is durable.
//!
//! # Invariants
//! - Never reads at or beyond the durable watermark: what is shipped is on disk.
//! - The position only grows and always ends up behind whatever was read or skipped.
//!
//! # Failure
//! A frame that does not check is skipped to the next that does; the skipped bytes are copied to
//! `quarantine/`, recorded in the ledger once and logged. Later frames are never touched. If it may
//! be of the last group an interrupted run wrote and nothing proves that it was acknowledged, it is
//! torn: kept aside and logged, but no loss. What lies
//! between the end of an interrupted run and the next segment was never acknowledged and is skipped
//! in silence. A segment that is gone (removed by hand) is a loss.
//!
//! # Threads
//! Owned by one task. Reads through a map: a bad sector is a signal, not an error.

use std::fs;
use std::sync::Arc;

use memmap2::Mmap;

use crate::frame::{
    FRAME_HEADER_BYTES, FrameHeader, FrameKind, RawRecords, decode_samples, is_proved_durable,
    next_frame,
};
use crate::header::FILE_HEADER_BYTES;
use crate::ledger::{ALL_ENDPOINTS, Loss};
use crate::segment::Segment;
use crate::store::Shared;
use crate::{Error, Position, Sample, sys};

/// Skipped, but no loss: nobody can have been told that it is safe.
const TORN: &str = "torn";

/// A frame read back from the log.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    header: FrameHeader,
    body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Where it begins.
    #[must_use]
    pub const fn position(&self) -> Position {
        self.header.position
    }

    /// Where it ends; acknowledging this position acknowledges the frame.
    #[must_use]
    pub const fn end(&self) -> Position {
        self.header.position.plus(self.header.frame_bytes())
    }

    /// When it was appended, in milliseconds since the Unix epoch.
    #[must_use]
    pub const fn appended_ms(&self) -> i64 {
        self.header.appended_ms
    }

    /// How many float samples it holds.
    #[must_use]
    pub const fn sample_count(&self) -> usize {
        self.header.sample_count as usize
    }

    /// How many raw records it holds.
    #[must_use]
    pub const fn raw_count(&self) -> usize {
        self.header.raw_count as usize
    }

    /// Appends its samples to `out`; answers its raw records.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the body checks but makes no sense; later from the iterator too.
    pub fn samples(&self, out: &mut Vec<Sample>) -> Result<RawRecords<'a>, Error> {
        let FrameHeader {
            sample_count,
            raw_count,
            appended_ms,
            ..
        } = self.header;
        let at = decode_samples(self.body, sample_count, appended_ms, out)?;
        Ok(RawRecords::new(self.body, at, raw_count))
    }
}

/// A reader of one store on behalf of one endpoint.
#[derive(Debug)]
pub struct Tail {
    shared: Arc<Shared>,
    endpoint: String,
    position: Position,
    open: Option<Open>,
}

/// The segment being read.
#[derive(Debug)]
struct Open {
    segment: Arc<Segment>,
    map: Mmap,
    /// Where reading stops for good, if the log went on in a later segment before this one's end.
    sealed_at: Option<Position>,
}

/// What stands at a position.
enum Found {
    Frame(FrameHeader),
    /// Go on there: the segment ends or the rest of it was never acknowledged.
    Skip(Position),
    /// Nothing readable until there.
    Broken(Position, &'static str),
}

impl Tail {
    pub(crate) const fn new(shared: Arc<Shared>, endpoint: String, position: Position) -> Self {
        Self {
            shared,
            endpoint,
            position,
            open: None,
        }
    }

    /// Behind the last frame read.
    #[must_use]
    pub const fn position(&self) -> Position {
        self.position
    }

    /// The next frame, or none if everything durable was read.
    ///
    /// # Errors
    /// What the system said to mapping a segment. The position is unchanged then.
    #[expect(
        clippy::should_implement_trait,
        reason = "the frame borrows from the tail"
    )]
    pub fn next(&mut self) -> Result<Option<Frame<'_>>, Error> {
        let durable = self.shared.durable_position();
        loop {
            if self.position >= durable || !self.open_segment(durable)? {
                return Ok(None);
            }
            match self.look(durable) {
                Found::Frame(header) => {
                    let at = self.shared.segments.offset_of(self.position);
                    self.position = self.position.plus(header.frame_bytes());
                    let map = self.open.as_ref().map_or(&[] as &[u8], |open| &open.map);
                    let body = at + FRAME_HEADER_BYTES;
                    let body = &map[body..body + header.body_bytes as usize];
                    return Ok(Some(Frame { header, body }));
                }
                Found::Skip(to) => self.position = to,
                Found::Broken(to, reason) => {
                    self.lose(to, reason);
                    self.position = to;
                }
            }
        }
    }

    /// Maps the segment of the position; false if there is nothing to read at all.
    fn open_segment(&mut self, durable: Position) -> Result<bool, Error> {
        let segments = &self.shared.segments;
        let id = segments.id_of(self.position);
        self.position = self
            .position
            .max(segments.start_of(id).plus(FILE_HEADER_BYTES as u64));
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.segment.header.id == id)
        {
            return Ok(true);
        }
        self.open = None;
        let Some(segment) = segments.first_from(id) else {
            return Ok(false);
        };
        let start = segments
            .start_of(segment.header.id)
            .plus(FILE_HEADER_BYTES as u64);
        if segment.header.id > id && segment.previous_end().is_none_or(|end| end > self.position) {
            self.lose(start, "missing_segment");
        }
        self.position = self.position.max(start);
        if self.position > durable {
            self.position = durable;
            return Ok(false);
        }
        let path = segment.file.path();
        let map = sys::map_file(segment.file.file()).map_err(Error::io("map", path))?;
        sys::advise_sequential(&map);
        let next = segments.first_from(segment.header.id + 1);
        let sealed_at = next.and_then(|next| next.previous_end()).or_else(|| {
            // The disk may have been too full to begin a segment since the last recovery.
            self.shared
                .recovered_end
                .filter(|end| segments.holds(segment.header.id, *end))
        });
        self.open = Some(Open {
            segment,
            map,
            sealed_at,
        });
        Ok(self.position < durable)
    }

    fn look(&self, durable: Position) -> Found {
        let Some(open) = &self.open else {
            return Found::Skip(self.position);
        };
        let segments = &self.shared.segments;
        let id = open.segment.header.id;
        let next = segments.start_of(id + 1);
        if open.sealed_at.is_some_and(|end| self.position >= end) {
            return Found::Skip(next);
        }
        let at = segments.offset_of(self.position);
        if at + FRAME_HEADER_BYTES > open.map.len() {
            return Found::Skip(next);
        }
        let salt = open.segment.header.salt;
        match FrameHeader::decode(&open.map[at..], self.position, salt) {
            Some(header) if header.kind == FrameKind::End => Found::Skip(next),
            Some(header) if header.body_if_whole(&open.map[at..]).is_some() => Found::Frame(header),
            // Where the header checks, its length does: only the body is broken.
            Some(header) => {
                let to = self.position.plus(header.frame_bytes()).min(next);
                Found::Broken(to, self.why_broken(open, at))
            }
            None => {
                let end = open.sealed_at.unwrap_or(next).min(durable);
                let limit = segments.offset_of(end.min(Position::new(next.get() - 1))) + 1;
                let found = next_frame(&open.map[..limit.min(open.map.len())], at, |at| {
                    (segments.start_of(id).plus(at as u64), salt)
                });
                let to = found.map_or(end, |at| segments.start_of(id).plus(at as u64));
                Found::Broken(to, self.why_broken(open, at))
            }
        }
    }

    /// A frame that does not check was lost, unless it may be of the last group that an interrupted
    /// run wrote: then only a frame behind it that knew it to be durable proves that.
    fn why_broken(&self, open: &Open, at: usize) -> &'static str {
        let id = open.segment.header.id;
        let start = self.shared.segments.start_of(id);
        let place = |at: usize| (start.plus(at as u64), open.segment.header.salt);
        if open.sealed_at.is_none() || is_proved_durable(&open.map, at, self.position, place) {
            "corrupt_frame"
        } else {
            TORN
        }
    }

    /// Sets `[position, to)` aside.
    fn lose(&self, to: Position, reason: &'static str) {
        let (from, endpoint) = (self.position, &self.endpoint);
        if reason == TORN {
            tracing::warn!(endpoint, %from, %to, "torn by the end of the last run: skipped");
        } else {
            let loss = Loss {
                time_ms: self.shared.clock.unix_ms(),
                endpoint: ALL_ENDPOINTS.to_owned(),
                reason,
                from,
                to,
            };
            if !self.shared.ledger.record(&loss) {
                return;
            }
        }
        let Some(open) = &self.open else { return };
        let from = self.shared.segments.offset_of(self.position);
        let bytes = usize::try_from(to.bytes_since(self.position)).unwrap_or(usize::MAX);
        let end = from.saturating_add(bytes).min(open.map.len());
        let path = self
            .shared
            .quarantine
            .join(format!("{}-{to}", self.position));
        if let Err(e) = fs::write(&path, &open.map[from..end]) {
            tracing::error!(endpoint, path = %path.display(), error = %e, "cannot quarantine");
        }
    }
}
