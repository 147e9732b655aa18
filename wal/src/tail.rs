//! Turns a position into the frames that follow it, up to what is durable.
//!
//! # Invariants
//! - Never reads at or beyond the durable watermark: what is shipped is on disk. Nor beyond where its
//!   endpoint is held.
//! - The position only grows and always ends up behind whatever was read or skipped.
//!
//! # Failure
//! A frame that does not check is skipped to the next that does; the skipped bytes are copied to
//! `quarantine/`, recorded in the ledger once and logged. Later frames are never touched. If it may
//! be of the last group an interrupted run wrote and nothing proves that it was acknowledged, it is
//! torn: kept aside and logged, but no loss. What lies
//! between the end of an interrupted run and the next segment was never acknowledged and is skipped
//! in silence. A segment that is gone (removed by hand) is a loss. How many records were lost is the
//! difference between the counts of the frames around them.
//!
//! A page the device refuses to read is an error [`READ_TRIES`] times, then a loss.
//!
//! # Threads
//! Owned by one task.

use std::sync::Arc;

use crate::endpoint::EndpointState;
use crate::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind, RawRecords, decode_samples};
use crate::header::FILE_HEADER_BYTES;
use crate::ledger::{ALL_ENDPOINTS, Loss};
use crate::reader::{FrameReader, Look, READ_TRIES};
use crate::segment::Segments;
use crate::store::Shared;
use crate::tally::Tally;
use crate::{DropReason, Error, Mark, Position, Sample, quarantine};

/// A frame read back from the log.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    header: FrameHeader,
    body: &'a [u8],
}

impl<'a> Frame<'a> {
    pub(crate) const fn new(header: FrameHeader, body: &'a [u8]) -> Self {
        Self { header, body }
    }

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

    /// Its beginning, with the records of the log before that.
    #[must_use]
    pub const fn begin_mark(&self) -> Mark {
        Mark {
            position: self.header.position,
            records: self.header.records_before,
        }
    }

    /// Its end, with the records of the log before that.
    #[must_use]
    pub const fn end_mark(&self) -> Mark {
        Mark {
            position: self.end(),
            records: self.header.records_after(),
        }
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
    endpoint: Arc<EndpointState>,
    /// Behind the last frame read, and the records before that.
    mark: Mark,
    open: Option<Open>,
    /// Why records may be missing before the next frame; none if nothing was skipped.
    skipped: Option<DropReason>,
    /// When the last frame was appended.
    appended_ms: i64,
    /// Records found missing and not yet taken by [`Tail::take_lost`].
    lost: Tally,
    /// How often the unreadable page here was asked for.
    tries: u32,
    /// Nothing is read beyond.
    until: Option<Mark>,
}

/// The segment file being read.
#[derive(Debug)]
struct Open {
    reader: FrameReader,
    /// Where reading stops for good, if the log goes on in a later file before this one's end.
    sealed_at: Option<Position>,
    /// Whether an interrupted run ended here: what it wrote last may never have been acknowledged.
    interrupted: bool,
}

/// What to do at a position.
enum Step {
    Frame(FrameHeader),
    /// Go on there: the file ends or the rest of it was never acknowledged.
    Skip(Position),
    /// Nothing readable until there.
    Broken(Position, DropReason),
}

impl Tail {
    pub(crate) const fn new(shared: Arc<Shared>, endpoint: Arc<EndpointState>, mark: Mark) -> Self {
        Self {
            shared,
            endpoint,
            mark,
            open: None,
            skipped: None,
            appended_ms: 0,
            lost: Tally::of_delivered(0),
            tries: 0,
            until: None,
        }
    }

    /// Reads no further than this from now on: not beyond where it is said to end.
    #[must_use]
    pub fn until(mut self, until: Option<Mark>) -> Self {
        self.read_until(until);
        self
    }

    /// See [`Self::until`].
    pub fn read_until(&mut self, until: Option<Mark>) {
        self.until = until;
    }

    /// Behind the last frame read.
    #[must_use]
    pub const fn position(&self) -> Position {
        self.mark.position
    }

    /// Behind the last frame read, with the records before that: what to acknowledge.
    #[must_use]
    pub const fn mark(&self) -> Mark {
        self.mark
    }

    /// Records that lie before [`Self::mark`] and were in no frame since the last call: lost, by
    /// reason.
    pub fn take_lost(&mut self) -> Tally {
        std::mem::take(&mut self.lost)
    }

    /// The next frame, or none if everything durable was read.
    ///
    /// # Errors
    /// What the system said to reading. The position is unchanged then.
    #[expect(
        clippy::should_implement_trait,
        reason = "the frame borrows from the tail"
    )]
    pub fn next(&mut self) -> Result<Option<Frame<'_>>, Error> {
        // What is gone by now is not lost: nobody waits for it.
        if self.endpoint.is_forgotten() {
            return Ok(None);
        }
        let until = self.until.map(|until| until.position);
        let ends = until.into_iter().chain(self.endpoint.held_at());
        let durable = ends.fold(self.shared.durable_position(), Position::min);
        loop {
            self.skip_given_up();
            if self.mark.position >= durable || !self.open_file(durable)? {
                self.settle();
                return Ok(None);
            }
            match self.look(durable)? {
                Step::Frame(header) => return self.take(header).map(Some),
                Step::Skip(to) => self.go_on(to),
                Step::Broken(to, reason) => {
                    self.set_aside(to, reason);
                    self.skipped = Some(reason);
                    self.go_on(to);
                }
            }
        }
    }

    fn go_on(&mut self, to: Position) {
        if let Some(open) = &self.open
            && (to >= open.reader.segment.end() || open.sealed_at.is_some_and(|end| to >= end))
        {
            self.open = None;
        }
        self.mark.position = to;
        self.tries = 0;
    }

    /// Steps over a frame that checks.
    fn take(&mut self, header: FrameHeader) -> Result<Frame<'_>, Error> {
        self.count_missing(header.records_before, header.appended_ms);
        self.appended_ms = header.appended_ms;
        let position = self.mark.position;
        self.mark = Mark {
            position: position.plus(header.frame_bytes()),
            records: header.records_after(),
        };
        self.tries = 0;
        let open = self.open.as_mut().ok_or(Error::Closed)?;
        // It was checked where it was looked at, and nobody writes there.
        let body = position.plus(FRAME_HEADER_BYTES as u64);
        let body = open
            .reader
            .range(body, body.plus(u64::from(header.body_bytes)))?;
        Ok(Frame { header, body })
    }

    /// Takes what lies between the records read and `records` as lost.
    fn count_missing(&mut self, records: u64, appended_ms: i64) {
        let missing = records.saturating_sub(self.mark.records);
        if missing > 0 {
            let reason = self.skipped.unwrap_or(DropReason::MissingSegment);
            self.lost.drop(reason, missing);
            tracing::error!(
                endpoint = self.endpoint.name,
                reason = reason.as_str(),
                records = missing,
                from_ms = self.appended_ms,
                to_ms = appended_ms,
                "records are lost"
            );
            self.mark.records = records;
        }
        self.skipped = None;
    }

    /// At the end of everything there is to read: what was skipped last is counted although no frame
    /// follows.
    fn settle(&mut self) {
        let bound = self
            .until
            .filter(|until| until.position <= self.mark.position);
        let records = match bound {
            Some(until) => Some(until.records),
            None if self.skipped.is_some() => self.shared.records_before(self.mark.position),
            None => None,
        };
        if let Some(records) = records {
            self.count_missing(records, self.shared.clock.unix_ms());
        }
    }

    /// Leaves behind what the keeper has given up for this endpoint.
    fn skip_given_up(&mut self) {
        let is_over = self
            .until
            .is_some_and(|until| until.position <= self.mark.position);
        if let Some(give_up) = self.endpoint.given_up_beyond(self.mark.position)
            && !is_over
        {
            self.skipped = Some(give_up.reason);
            self.open = None;
            let until = self.until.map_or(give_up.before, |until| until.position);
            self.mark.position = give_up.before.min(until);
        }
    }

    /// Opens the file of the position; false if there is nothing to read at all.
    fn open_file(&mut self, durable: Position) -> Result<bool, Error> {
        let segments = &self.shared.segments;
        self.open.take_if(|open| open.is_left(segments));
        if self.open.is_some() {
            return Ok(true);
        }
        let id = segments.id_of(self.mark.position);
        let first = segments.start_of(id).plus(FILE_HEADER_BYTES as u64);
        self.mark.position = self.mark.position.max(first);
        let Some(segment) = segments.holding(self.mark.position) else {
            return Ok(false);
        };
        let start = segment.first();
        if start > self.mark.position {
            let position = self.mark.position;
            let is_gap = segment.previous_end().is_none_or(|end| end > position);
            // Runs that were cut off before they wrote anything leave a gap with nothing in it.
            if is_gap && segment.records_before() != Some(self.mark.records) {
                self.lose_segments(start);
                self.skipped = Some(DropReason::MissingSegment);
            }
            self.mark.position = start;
        }
        if self.mark.position > durable {
            self.mark.position = durable;
            return Ok(false);
        }
        let next = segments.after(segment.key());
        let ended = next.as_ref().and_then(|next| next.previous_end());
        let sealed_at = ended.or_else(|| {
            // The disk may have been too full to begin a segment since the last recovery.
            self.shared
                .recovered_end
                .filter(|end| segments.holds(segment.header.id, *end))
        });
        let goes_on = next.is_some_and(|next| next.header.id == segment.header.id);
        self.open = Some(Open {
            reader: FrameReader::new(self.shared.disk.clone(), segment),
            sealed_at,
            interrupted: sealed_at.is_some() && !goes_on,
        });
        Ok(self.mark.position < durable)
    }

    fn look(&mut self, durable: Position) -> Result<Step, Error> {
        let position = self.mark.position;
        let Some(open) = &mut self.open else {
            return Ok(Step::Skip(position));
        };
        let end = open.reader.segment.end();
        if let Some(sealed) = open.sealed_at.filter(|sealed| position >= *sealed) {
            // In the next file of this segment, or behind the unused rest of it.
            let goes_on = !open.interrupted;
            return Ok(Step::Skip(if goes_on { sealed } else { end }));
        }
        let limit = open.sealed_at.unwrap_or(end).min(durable);
        if end.bytes_since(position) < FRAME_HEADER_BYTES as u64 {
            return Ok(Step::Skip(end));
        }
        let (broken_to, next) = match open.reader.look(position, limit)? {
            Look::Frame(header) if header.kind == FrameKind::End => return Ok(Step::Skip(end)),
            Look::Frame(header) => return Ok(Step::Frame(header)),
            Look::BrokenBody(header) => (position.plus(header.frame_bytes()).min(limit), None),
            Look::Broken => {
                let next = open.reader.next_header(position, limit)?;
                (next.map_or(limit, |next| next.position), next)
            }
        };
        let unreadable = open.reader.is_unreadable(position, broken_to);
        if unreadable && self.tries < READ_TRIES {
            self.tries += 1;
            open.reader.forget();
            return Err(Error::io("read", open.reader.segment.file.path())(
                std::io::Error::other("the device cannot read part of it"),
            ));
        }
        let reason = if unreadable {
            DropReason::Unreadable
        } else if open.interrupted && !open.reader.is_proved_durable(position, limit, next)? {
            DropReason::Torn
        } else {
            DropReason::CorruptFrame
        };
        Ok(Step::Broken(broken_to, reason))
    }

    /// Whole segments are gone.
    fn lose_segments(&self, to: Position) {
        let loss = self.loss(to, DropReason::MissingSegment);
        self.shared.ledger.record(&self.shared.disk, &loss);
    }

    fn loss(&self, to: Position, reason: DropReason) -> Loss {
        Loss {
            time_ms: self.shared.clock.unix_ms(),
            endpoint: ALL_ENDPOINTS.to_owned(),
            reason,
            from: self.mark.position,
            to,
            records: 0,
            appended_ms: (self.appended_ms, 0),
        }
    }

    /// Keeps the bytes of `[position, to)` for people to look at, and puts them in the ledger.
    fn set_aside(&mut self, to: Position, reason: DropReason) {
        let from = self.mark.position;
        if reason == DropReason::Torn {
            let endpoint = &self.endpoint.name;
            tracing::warn!(endpoint, %from, %to, "torn by the end of the last run: skipped");
        } else {
            let loss = self.loss(to, reason);
            if !self.shared.ledger.record(&self.shared.disk, &loss) {
                return;
            }
        }
        let Some(open) = &mut self.open else { return };
        let Shared {
            disk, quarantine, ..
        } = &*self.shared;
        let kept = open
            .reader
            .range(from, to)
            .and_then(|bytes| quarantine::keep(disk, quarantine, &format!("{from}-{to}"), bytes));
        if let Err(error) = kept {
            tracing::error!(%error, "cannot quarantine");
        }
    }
}

impl Open {
    /// Whether the segment has gone on in another file since this one was opened: what is durable
    /// beyond the place where that begins is not in this file.
    fn is_left(&self, segments: &Segments) -> bool {
        let segment = &self.reader.segment;
        let newest = || segments.get(segment.header.id);
        self.sealed_at.is_none() && newest().is_some_and(|newest| newest.key() != segment.key())
    }
}
