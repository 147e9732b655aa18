//! Turns a series log that is mostly dead into one that holds what the segments still name.
//!
//! Runs while a store is opened, when the series log has grown to [`CHUNKS_MIN`] chunks. A series that
//! no frame on disk names is dropped; should it come back, it is defined again. So churn cannot fill
//! the disk for longer than one run.
//!
//! # Invariants
//! - A ref that a readable frame on disk names keeps its labels and its number.
//! - A dropped ref is named by no frame on disk, so its number may be given out again.
//!
//! # Failure
//! See [`SeriesTable::rewrite`]: a crash at any step leaves every live record. A full disk leaves the
//! log as it was.
//!
//! # Limits
//! Looks at no more than [`SEGMENTS_MAX`] segments (a second or so); with a larger backlog the start
//! comes first and the dead records stay.

use std::sync::Arc;

use crate::chunk::record_bytes;
use crate::frame::{FrameHeader, FrameKind, RawRecords, decode_samples, next_frame};
use crate::header::FILE_HEADER_BYTES;
use crate::segment::{Segment, Segments};
use crate::series::SeriesTable;
use crate::{Error, Sample, SeriesRef, sys};

/// Below this there is little to gain.
const CHUNKS_MIN: usize = 4;
/// At about 10 million samples each.
const SEGMENTS_MAX: usize = 16;

/// Answers the table, rewritten if at least half of it is dead.
///
/// # Errors
/// What the system said.
pub(crate) fn compact(series: SeriesTable, segments: &Segments) -> Result<SeriesTable, Error> {
    let all = segments.all();
    if series.chunk_count() < CHUNKS_MIN || all.len() > SEGMENTS_MAX {
        return Ok(series);
    }
    let live = live_refs(&all, segments)?;
    let known = |series_ref: &SeriesRef| !series.labels(*series_ref).is_empty();
    let live: Vec<SeriesRef> = live.into_iter().filter(known).collect();
    let record = |series_ref: &SeriesRef| record_bytes(series.labels(*series_ref).len()) as u64;
    let live_bytes: u64 = live.iter().map(record).sum();
    let before = series.disk_bytes();
    if live_bytes * 2 > before {
        return Ok(series);
    }
    let dropped = series.len() - live.len();
    let options = series.options().clone();
    match series.rewrite(&live) {
        Ok(()) => tracing::info!(live = live.len(), dropped, before, "series log compacted"),
        Err(e) if e.is_full() => tracing::warn!(error = %e, "no room to compact the series log"),
        Err(e) => return Err(e),
    }
    Ok(SeriesTable::open(options)?.0)
}

/// Every ref that a readable frame names, in order.
fn live_refs(all: &[Arc<Segment>], segments: &Segments) -> Result<Vec<SeriesRef>, Error> {
    let mut named = Vec::new();
    let mut samples = Vec::new();
    for segment in all {
        let path = segment.file.path();
        let map = sys::map_file(segment.file.file()).map_err(Error::io("map", path))?;
        let start = segments.start_of(segment.header.id);
        let salt = segment.header.salt;
        let mut at = Some(FILE_HEADER_BYTES);
        while let Some(here) = at.filter(|at| *at < map.len()) {
            let position = start.plus(here as u64);
            let header = FrameHeader::decode(&map[here..], position, salt);
            let body = header.and_then(|h| Some((h, h.body_if_whole(&map[here..])?)));
            at = match body {
                Some((header, _)) if header.kind == FrameKind::End => None,
                Some((header, body)) => {
                    mark(&header, body, &mut samples, &mut named);
                    Some(here + usize::try_from(header.frame_bytes()).unwrap_or(usize::MAX))
                }
                None => next_frame(&map, here, |at| (start.plus(at as u64), salt)),
            };
        }
    }
    let numbers = named.iter().enumerate().filter(|(_, named)| **named);
    Ok(numbers
        .map(|(n, _)| SeriesRef::new(u32::try_from(n).unwrap_or(0)))
        .collect())
}

/// Notes the refs of a frame; what does not decode names nothing that could be sent.
fn mark(header: &FrameHeader, body: &[u8], samples: &mut Vec<Sample>, named: &mut Vec<bool>) {
    samples.clear();
    let decoded = decode_samples(body, header.sample_count, header.appended_ms, samples);
    let raw = decoded.map(|at| RawRecords::new(body, at, header.raw_count));
    let raw = raw
        .into_iter()
        .flatten()
        .filter_map(|record| Some(record.ok()?.series));
    for series in samples.iter().map(|sample| sample.series).chain(raw) {
        if named.len() <= series.index() {
            named.resize(series.index() + 1, false);
        }
        named[series.index()] = true;
    }
    if let Some(none) = named.first_mut() {
        *none = false;
    }
}
