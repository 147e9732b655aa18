//! Turns the segment files of an earlier run into a set to read from and the place to go on.
//!
//! # Invariants
//! - Nothing is cut and nothing that holds a readable frame is moved. A crash during recovery leaves
//!   what the next recovery needs.
//! - The log goes on at a position beyond every one that was ever handed out.
//!
//! # Failure
//! A segment without a readable header or frame goes to `quarantine/` unless it holds zeros only; then
//! it was prepared in advance, or creating it was interrupted, and it is removed. Of a file that held
//! another segment before at most [`recycle::TORN_BYTES_MAX`] are kept.

use std::path::Path;
use std::sync::Arc;

use crate::endpoint::all_saved;
use crate::frame::FrameKind;
use crate::fs::Disk;
use crate::header::{FILE_HEADER_BYTES, FileHeader, SEGMENT_MAGIC};
use crate::ledger::read_whole;
use crate::reader::{FrameReader, Look, read_header_page};
use crate::recycle::{self, SPARE_EXTENSION, is_unwritten};
use crate::segment::{Segment, Segments};
use crate::{Error, Mark, Position, dir, quarantine};

/// Where the log goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Recovered {
    /// The segment to begin.
    pub(crate) next_id: u64,
    /// Where the log of the earlier runs ends; none in a new store.
    pub(crate) previous_end: Option<Position>,
    /// Records the log has ever taken.
    pub(crate) records: u64,
}

/// The directories of a store that recovery touches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places<'a> {
    pub(crate) segments: &'a Path,
    pub(crate) positions: &'a Path,
    pub(crate) quarantine: &'a Path,
}

/// The size the segments on disk were born with, if there are any.
///
/// # Errors
/// What the system said; a segment from a newer version.
pub(crate) fn segment_bytes_on_disk(
    disk: &Arc<dyn Disk>,
    dir: &Path,
) -> Result<Option<u64>, Error> {
    for (_, path) in dir::numbered(dir, "seg")?.iter().rev() {
        match read_header(disk, path) {
            Ok(segment) => return Ok(Some(segment.header.file_bytes)),
            Err(Error::BadHeader { .. }) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(None)
}

/// Fills `segments` with what is readable and finds the end of the log.
///
/// # Errors
/// What the system said; a segment from a newer version or of another size.
pub(crate) fn recover(
    segments: &Segments,
    disk: &Arc<dyn Disk>,
    places: Places<'_>,
) -> Result<Recovered, Error> {
    let saved = all_saved(disk, places.positions)?;
    let newest = || saved.iter().map(|(_, progress)| progress.newest());
    let acked = newest().map(|mark| mark.position).max();
    let acked = acked.unwrap_or_default();
    let mut records = newest().map(|mark| mark.records).max();
    let mut next_id = segments.id_of(acked);
    if acked > Position::ZERO {
        next_id += 1;
    }
    // Where the log ended when the segments there are were begun; nobody may have been told of it.
    let mut ended = acked;
    let mut end = None;
    for (_, spare) in dir::numbered(places.segments, SPARE_EXTENSION)? {
        disk.remove(&spare).map_err(Error::io("remove", &spare))?;
    }
    for ((id, _), path) in dir::numbered(places.segments, "seg")?.into_iter().rev() {
        next_id = next_id.max(id + 1);
        let segment = match read_header(disk, &path) {
            Ok(segment) if segment.header.file_bytes == segments.segment_bytes() => segment,
            Ok(Segment { header, .. }) => {
                let (got, want) = (header.file_bytes, segments.segment_bytes());
                let text = format!("{} has {got} bytes, the store {want}", path.display());
                return Err(Error::Options(text));
            }
            Err(Error::BadHeader { .. }) => {
                set_aside(disk, &path, places, None)?;
                continue;
            }
            Err(e) => return Err(e),
        };
        records = records.max(Some(segment.header.records_before));
        ended = ended.max(segment.previous_end().unwrap_or_default());
        let segment = Arc::new(segment);
        if end.is_none() {
            if is_unwritten(disk, &segment.file, &segment.header) {
                // Prepared ahead and never written to.
                disk.remove(&path).map_err(Error::io("remove", &path))?;
                continue;
            }
            // The newest file with a frame in it ends the log; those behind it are empty.
            let found = log_end(disk, &segment)?;
            end = found.map(|found| found.position);
            let Some(found) = found else {
                // No frame here or later knew anything in it to be durable: torn, or the one
                // acknowledged frame in it is rotten.
                set_aside(disk, &path, places, Some(&segment.header))?;
                continue;
            };
            records = records.max(Some(found.records));
            // What a killed process left in the page cache must not vanish after it was sent.
            disk.sync(&segment.file).map_err(Error::io("sync", &path))?;
            segments.insert(segment.clone());
            // Or every crash while an endpoint is away would cost a segment's space. In a recycled file
            // what stands there may be a frame that was acknowledged and cannot be read now.
            if !segment.header.is_recycled {
                segments.give_back_rest(&segment, found.position);
            }
        } else {
            segments.insert(segment);
        }
    }
    if end.is_none() && next_id > 0 {
        // Everything there was is acknowledged, set aside and in the ledger, or was removed while nobody
        // needed it. 0 would say "new".
        end = Some(ended.max(Position::new(1)));
    }
    Ok(Recovered {
        next_id,
        previous_end: end,
        records: records.unwrap_or(0),
    })
}

/// Opens a segment file and reads its header.
///
/// # Errors
/// [`Error::BadHeader`], also for a file with the name of another.
pub(crate) fn read_header(disk: &Arc<dyn Disk>, path: &Path) -> Result<Segment, Error> {
    let file = disk.open(path).map_err(Error::io("open", path))?;
    let page = read_header_page(disk, &file).map_err(Error::io("read", path))?;
    let header = FileHeader::decode(&page, SEGMENT_MAGIC, path)?;
    Ok(Segment::new(header, file))
}

/// Removes a file; what it holds behind its header, or all of it if there is none, goes to quarantine
/// unless it is zeros only. A file that cannot be read is left where it is.
fn set_aside(
    disk: &Arc<dyn Disk>,
    path: &Path,
    places: Places<'_>,
    header: Option<&FileHeader>,
) -> Result<(), Error> {
    let file = disk.open(path).map_err(Error::io("open", path))?;
    let mut bytes = match read_whole(disk, &file) {
        Ok(bytes) => bytes,
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "cannot be read and is left alone");
            return Ok(());
        }
    };
    let from = match header {
        Some(header) => {
            bytes.truncate(recycle::written_end(header, &bytes));
            FILE_HEADER_BYTES
        }
        None => 0,
    };
    let rest = bytes.get(from..).unwrap_or(&[]);
    if let Some(last) = rest.iter().rposition(|&b| b != 0) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let to = quarantine::keep(disk, places.quarantine, &name, &bytes[..=from + last])?;
        let to = to.display();
        tracing::error!(path = %path.display(), %to, "no frame is readable: kept in quarantine");
    }
    disk.remove(path).map_err(Error::io("remove", path))
}

/// Where the frames of a file end, or none if it holds none.
pub(crate) fn log_end(disk: &Arc<dyn Disk>, segment: &Arc<Segment>) -> Result<Option<Mark>, Error> {
    let mut reader = FrameReader::new(disk.clone(), segment.clone());
    let limit = segment.end();
    let mut at = segment.first();
    let mut found = None;
    loop {
        let header = match reader.look(at, limit)? {
            Look::Frame(header) => header,
            // Broken here: the rest of the group it was committed with may be whole all the same.
            // What was not acknowledged is delivered too then, which a sender that tries again
            // cannot tell.
            Look::BrokenBody(_) | Look::Broken => match reader.next_header(at, limit)? {
                Some(next) => {
                    at = next.position;
                    continue;
                }
                None => break,
            },
        };
        if header.kind == FrameKind::End {
            at = limit;
        } else {
            at = at.plus(header.frame_bytes());
        }
        found = Some(Mark {
            position: at,
            records: header.records_after(),
        });
    }
    if segment.header.is_recycled {
        return Ok(found);
    }
    let rest = reader.range(at, at.plus(FILE_HEADER_BYTES as u64).min(limit))?;
    if rest.iter().any(|&b| b != 0) {
        let path = segment.file.path().display();
        tracing::warn!(%path, end = %at, "the last run was cut off while it wrote");
    }
    Ok(found)
}
