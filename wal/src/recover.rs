//! Turns the segment files of an earlier run into a set to read from and the place to go on.
//!
//! # Invariants
//! - Nothing is cut and nothing that holds a readable frame is moved. A crash during recovery leaves
//!   what the next recovery needs.
//! - The log goes on at a position beyond every one that was ever handed out.
//!
//! # Failure
//! A segment without a readable header or frame goes to `quarantine/` unless it holds zeros only; then
//! it was prepared in advance, or creating it was interrupted, and it is removed.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::bytes::next_nonzero;
use crate::endpoint::furthest_acked;
use crate::frame::{FrameHeader, FrameKind, next_frame};
use crate::fs::Disk;
use crate::header::{FILE_HEADER_BYTES, FileHeader, SEGMENT_MAGIC};
use crate::segment::{Segment, Segments};
use crate::{Error, Position, dir, sys};

/// Where the log goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Recovered {
    /// The segment to begin.
    pub(crate) next_id: u64,
    /// Where the log of the earlier runs ends; none in a new store.
    pub(crate) previous_end: Option<Position>,
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
pub(crate) fn segment_bytes_on_disk(dir: &Path) -> Result<Option<u64>, Error> {
    for (_, path) in dir::numbered(dir, "seg")?.iter().rev() {
        match read_header(path) {
            Ok(header) => return Ok(Some(header.file_bytes)),
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
    let acked = furthest_acked(places.positions)?;
    let mut next_id = segments.id_of(acked);
    if acked > Position::ZERO {
        next_id += 1;
    }
    let mut end = None;
    for (id, path) in dir::numbered(places.segments, "seg")?.into_iter().rev() {
        next_id = next_id.max(id + 1);
        let segment = match read_header(&path) {
            Ok(header) if header.file_bytes == segments.segment_bytes() && header.id == id => {
                let file = disk.open(&path).map_err(Error::io("open", &path))?;
                Segment { header, file }
            }
            Ok(header) => {
                let (got, want) = (header.file_bytes, segments.segment_bytes());
                let text = format!("{} has {got} bytes, the store {want}", path.display());
                return Err(Error::Options(text));
            }
            Err(Error::BadHeader { .. }) => {
                set_aside(disk, &path, places, 0)?;
                continue;
            }
            Err(e) => return Err(e),
        };
        if end.is_none() {
            // The newest segment with a frame in it ends the log; those behind it are empty.
            end = log_end(segments, &segment)?;
            if end.is_none() {
                // No frame here or later knew anything in it to be durable: torn, not lost.
                set_aside(disk, &path, places, FILE_HEADER_BYTES)?;
                continue;
            }
            // What a killed process left in the page cache must not vanish after it was sent.
            disk.sync(&segment.file).map_err(Error::io("sync", &path))?;
        }
        segments.insert(segment);
    }
    if end.is_none() && next_id > 0 {
        // Everything there was is acknowledged, or set aside and in the ledger. 0 would say "new".
        end = Some(acked.max(Position::new(1)));
    }
    Ok(Recovered {
        next_id,
        previous_end: end,
    })
}

fn read_header(path: &Path) -> Result<FileHeader, Error> {
    let file = fs::File::open(path).map_err(Error::io("open", path))?;
    let mut page = Vec::with_capacity(FILE_HEADER_BYTES);
    std::io::Read::read_to_end(
        &mut std::io::Read::take(file, FILE_HEADER_BYTES as u64),
        &mut page,
    )
    .map_err(Error::io("read", path))?;
    FileHeader::decode(&page, SEGMENT_MAGIC, path)
}

/// Removes a file; what it holds from `from` on, unless that is zeros only, goes to quarantine.
fn set_aside(
    disk: &Arc<dyn Disk>,
    path: &Path,
    places: Places<'_>,
    from: usize,
) -> Result<(), Error> {
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    let rest = bytes.get(from..).unwrap_or(&[]);
    if let Some(last) = rest.iter().rposition(|&b| b != 0) {
        let mut to = places.quarantine.join(path.file_name().unwrap_or_default());
        while to.try_exists().map_err(Error::io("look for", &to))? {
            to.as_mut_os_string().push("+");
        }
        fs::write(&to, &bytes[..=from + last]).map_err(Error::io("write", &to))?;
        fs::File::open(&to)
            .and_then(|f| f.sync_all())
            .map_err(Error::io("sync", &to))?;
        disk.sync_dir(places.quarantine)
            .map_err(Error::io("sync", places.quarantine))?;
        let to = to.display();
        tracing::error!(path = %path.display(), %to, "no frame is readable: kept in quarantine");
    }
    disk.remove(path).map_err(Error::io("remove", path))
}

/// Where the frames of a segment end, or none if it holds none.
fn log_end(segments: &Segments, segment: &Segment) -> Result<Option<Position>, Error> {
    let path = segment.file.path();
    let map = sys::map_file(segment.file.file()).map_err(Error::io("map", path))?;
    let start = segments.start_of(segment.header.id);
    let salt = segment.header.salt;
    let place = |at: usize| (start.plus(at as u64), salt);
    let mut at = FILE_HEADER_BYTES;
    let mut found = false;
    while at < map.len() {
        let (position, _) = place(at);
        let header = FrameHeader::decode(&map[at..], position, salt);
        let whole = header.filter(|h| h.body_if_whole(&map[at..]).is_some());
        if let Some(header) = whole {
            found = true;
            if header.kind == FrameKind::End {
                return Ok(Some(segments.start_of(segment.header.id + 1)));
            }
            at += usize::try_from(header.frame_bytes()).unwrap_or(usize::MAX);
            continue;
        }
        // Broken here: the rest of the group it was committed with may be whole all the same. What
        // was not acknowledged is delivered too then, which a sender that tries again cannot tell.
        let Some(next) = next_frame(&map, at, place) else {
            break;
        };
        at = next;
    }
    if let Some(beyond) = next_nonzero(&map, at.min(map.len())) {
        let (path, end) = (path.display(), start.plus(at as u64));
        tracing::warn!(%path, %end, beyond, "the last run was cut off while it wrote");
    }
    Ok(found.then(|| start.plus(at.min(map.len()) as u64)))
}
