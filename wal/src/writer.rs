//! Turns samples and raw records into frames in the ring and says which position to wait for.
//!
//! One [`Writer`] per ingest thread. Nothing here touches the disk: the committer does.
//!
//! # Invariants
//! - Ranges of the log are handed out in order, without overlap, under one mutex that is held for a
//!   few additions only.
//! - A request is appended whole or not at all, also when it needs several frames.
//! - A frame never spans two segments. Who rolls over owns the gap: it zero-fills it behind an end
//!   frame.
//!
//! # Limits
//! Beyond the last prepared segment, or with the ring full of frames not yet durable, appends are
//! refused ([`Error::Full`]); nothing ever waits here.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use crate::error::FullReason;
use crate::frame::{
    FRAME_HEADER_BYTES, FrameHeader, FrameKind, Stamp, body_bytes_max, encode_body, frame_bytes,
};
use crate::header::FILE_HEADER_BYTES;
use crate::recover::Recovered;
use crate::stats::StoreStats;
use crate::store::Shared;
use crate::sys::RingRange;
use crate::{Error, Mark, Position, RawRecord, Sample};

/// A segment that may be written to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prepared {
    pub(crate) id: u64,
    pub(crate) salt: u64,
}

/// What is handed out next.
#[derive(Debug)]
pub(crate) struct Reserve {
    pub(crate) head: u64,
    /// The segment of `head` and those behind it.
    pub(crate) prepared: VecDeque<Prepared>,
    /// The id of the segment to prepare next.
    pub(crate) next_id: u64,
    /// Where the log before the first segment of this run ends; taken by that segment's header.
    pub(crate) previous_end: Option<Mark>,
    /// Records handed out so far, since the birth of the store.
    pub(crate) records: u64,
}

/// The reservation of all writers.
pub(crate) type SharedReserve = Mutex<Reserve>;

/// A frame encoded but not yet placed.
#[derive(Debug)]
struct Part {
    body_start: usize,
    body_bytes: usize,
    samples: u32,
    raw: u32,
    crc: u32,
}

/// A place in the log: a frame's, or (without a part) a gap at the end of a segment.
#[derive(Clone, Copy, Debug)]
struct Place {
    position: u64,
    bytes: u64,
    salt: u64,
    records_before: u64,
    part: Option<usize>,
}

/// Appends to a store; owned by one thread.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    slot: usize,
    body: Vec<u8>,
    parts: Vec<Part>,
    places: Vec<Place>,
}

/// Above this a writer's buffer is given back after a large request.
const BODY_KEPT_BYTES: usize = 4 << 20;

impl Writer {
    pub(crate) const fn new(shared: Arc<Shared>, slot: usize) -> Self {
        Self {
            shared,
            slot,
            body: Vec::new(),
            parts: Vec::new(),
            places: Vec::new(),
        }
    }

    /// Appends one request and returns the position that must be durable before it is acknowledged.
    ///
    /// # Errors
    /// [`Error::Full`] and [`Error::TooLarge`] with nothing appended; [`Error::Poisoned`] and
    /// [`Error::Closed`] for good.
    pub fn append(&mut self, samples: &[Sample], raw: &[RawRecord<'_>]) -> Result<Position, Error> {
        self.shared.check_open()?;
        if samples.is_empty() && raw.is_empty() {
            return Ok(self.shared.durable_position());
        }
        let now_ms = self.shared.clock.unix_ms();
        self.encode(samples, raw, now_ms)?;
        let (end, rolled) = self.place().inspect_err(|_| {
            StoreStats::add(&self.shared.stats.refused, 1);
        })?;
        self.copy(now_ms);
        self.shared.tracker.end(self.slot);
        self.shared.stats.appended(samples, raw, self.parts.len());
        self.shared.commit_wanted.notify_one();
        if rolled {
            self.shared.wake_keeper();
        }
        if self.body.capacity() > BODY_KEPT_BYTES {
            self.body = Vec::new();
        }
        Ok(Position::new(end))
    }

    /// Whether more of the log waits for the device than half of what may: appends are soon refused.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        let durable = self.shared.durable_position().get();
        let waiting = self.shared.tracker.head().saturating_sub(durable);
        waiting > self.shared.ring.bytes() / 2
    }

    /// Encodes the request into one body, or into several where one frame cannot hold it.
    fn encode(
        &mut self,
        samples: &[Sample],
        raw: &[RawRecord<'_>],
        now_ms: i64,
    ) -> Result<(), Error> {
        self.body.clear();
        self.parts.clear();
        let limit = self.shared.body_bytes_max;
        if body_bytes_max(samples.len(), raw) <= limit {
            self.encode_part(samples, raw, now_ms);
            return Ok(());
        }
        let samples_per_frame = limit / body_bytes_max(1, &[]);
        for samples in samples.chunks(samples_per_frame.max(1)) {
            self.encode_part(samples, &[], now_ms);
        }
        let mut rest = raw;
        while !rest.is_empty() {
            let mut count = 0;
            while count < rest.len() && body_bytes_max(0, &rest[..=count]) <= limit {
                count += 1;
            }
            if count == 0 {
                let bytes = rest[0].bytes.len() as u64;
                return Err(Error::TooLarge {
                    bytes,
                    limit: limit as u64,
                });
            }
            let (part, behind) = rest.split_at(count);
            self.encode_part(&[], part, now_ms);
            rest = behind;
        }
        Ok(())
    }

    fn encode_part(&mut self, samples: &[Sample], raw: &[RawRecord<'_>], now_ms: i64) {
        let body_start = self.body.len();
        encode_body(samples, raw, now_ms, &mut self.body);
        let body = &self.body[body_start..];
        self.parts.push(Part {
            body_start,
            body_bytes: body.len(),
            samples: u32::try_from(samples.len()).expect("bounded by the frame's size"),
            raw: u32::try_from(raw.len()).expect("bounded by the frame's size"),
            crc: crc32fast::hash(body),
        });
    }

    /// Reserves a place for every part; returns where the last ends and whether a segment was left.
    fn place(&mut self) -> Result<(u64, bool), Error> {
        let segment_bytes = self.shared.segments.segment_bytes();
        self.places.clear();
        let mut reserve = self.shared.reserve.lock();
        let start = reserve.head;
        let mut head = start;
        let mut records = reserve.records;
        for (at, part) in self.parts.iter().enumerate() {
            let bytes = frame_bytes(part.body_bytes);
            let left = segment_bytes - head % segment_bytes;
            let gap = (bytes > left).then_some((None, left));
            for (part, bytes) in gap.into_iter().chain([(Some(at), bytes)]) {
                if head.is_multiple_of(segment_bytes) {
                    head += FILE_HEADER_BYTES as u64;
                }
                self.places.push(Place {
                    position: head,
                    bytes,
                    salt: reserve.salt_of(head / segment_bytes)?,
                    records_before: records,
                    part,
                });
                head += bytes;
            }
            records += u64::from(part.samples) + u64::from(part.raw);
        }
        self.check_room(start, head)?;
        if self.shared.durable.load(Ordering::Acquire) == start {
            self.shared.restart_ring(start);
        }
        self.shared.tracker.begin(self.slot, start, head);
        reserve.head = head;
        reserve.records = records;
        self.shared.records.store(records, Ordering::Release);
        reserve.forget_before(head / segment_bytes);
        if start / segment_bytes != head / segment_bytes {
            self.shared.series.set_segment(head / segment_bytes);
        }
        Ok((head, start / segment_bytes != head / segment_bytes))
    }

    /// Whether the ring can take `[start, head)`.
    fn check_room(&self, start: u64, head: u64) -> Result<(), Error> {
        let ring_bytes = self.shared.ring.bytes();
        if head - start > ring_bytes {
            return Err(Error::TooLarge {
                bytes: head - start,
                limit: ring_bytes,
            });
        }
        let ring_start = self.shared.ring_start.load(Ordering::Acquire);
        let durable = self.shared.durable.load(Ordering::Acquire);
        if head - durable.max(ring_start) > ring_bytes {
            return Err(Error::Full {
                reason: FullReason::Ring,
            });
        }
        Ok(())
    }

    /// Copies every part to its place.
    fn copy(&self, now_ms: i64) {
        let stamp = Stamp {
            durable: self.shared.durable_position(),
            appended_ms: now_ms,
        };
        // Stays while this range is not durable.
        let ring_start = self.shared.ring_start.load(Ordering::Acquire);
        for place in &self.places {
            let position = Position::new(place.position);
            let range = RingRange::claim(place.position - ring_start, place.bytes);
            let Some(part) = place.part.map(|at| &self.parts[at]) else {
                self.fill_gap(place, &range, stamp);
                continue;
            };
            let header = FrameHeader {
                kind: FrameKind::Data,
                body_bytes: u32::try_from(part.body_bytes).expect("bounded by the segment's size"),
                sample_count: part.samples,
                raw_count: part.raw,
                body_crc: part.crc,
                position,
                salt: place.salt,
                records_before: place.records_before,
                durable: stamp.durable,
                appended_ms: stamp.appended_ms,
            };
            let body = &self.body[part.body_start..part.body_start + part.body_bytes];
            let ring = &self.shared.ring;
            ring.write(&range, 0, &header.encode());
            ring.write(&range, FRAME_HEADER_BYTES as u64, body);
            let end = FRAME_HEADER_BYTES + part.body_bytes;
            let padding = usize::try_from(place.bytes).unwrap_or(end) - end;
            ring.write(&range, end as u64, &[0; 8][..padding]);
        }
    }

    fn fill_gap(&self, place: &Place, range: &RingRange, stamp: Stamp) {
        const ZEROS: [u8; 4096] = [0; 4096];
        let mut at = 0;
        if place.bytes >= FRAME_HEADER_BYTES as u64 {
            let position = Position::new(place.position);
            let end = FrameHeader::end(position, place.salt, place.records_before, stamp);
            self.shared.ring.write(range, 0, &end.encode());
            at = FRAME_HEADER_BYTES as u64;
        }
        while at < place.bytes {
            let bytes = (place.bytes - at).min(ZEROS.len() as u64);
            let zeros = &ZEROS[..usize::try_from(bytes).unwrap_or(0)];
            self.shared.ring.write(range, at, zeros);
            at += bytes;
        }
    }
}

impl Reserve {
    /// Starts at `head`; nothing is prepared yet.
    pub(crate) fn new(head: Position, recovered: Recovered) -> Self {
        let Recovered {
            next_id,
            previous_end,
            records,
        } = recovered;
        Self {
            head: head.get(),
            prepared: VecDeque::new(),
            next_id,
            previous_end: previous_end.map(|position| Mark { position, records }),
            records,
        }
    }

    /// Forgets the prepared segments before `id`, but not the last one.
    pub(crate) fn forget_before(&mut self, id: u64) {
        while self.prepared.len() > 1 && self.prepared.front().is_some_and(|p| p.id < id) {
            self.prepared.pop_front();
        }
    }

    pub(crate) fn salt_of(&self, id: u64) -> Result<u64, Error> {
        let prepared = self.prepared.iter().find(|prepared| prepared.id == id);
        prepared.map(|prepared| prepared.salt).ok_or(Error::Full {
            reason: FullReason::Segments,
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.free_slots.lock().push(self.slot);
    }
}
