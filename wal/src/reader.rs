//! Turns positions of one segment file into checked frames, through a window of memory.
//!
//! The one frame reader of tail, recovery and inspection. Reads with plain calls instead of a map: a
//! bad sector is then an error of the call and not a signal that ends the process, and a test can
//! stand between (`docs/decisions/0007`).
//!
//! # Failure
//! Pages the device refuses to read are taken as zeros and noted ([`FrameReader::is_unreadable`]), so
//! that the frames around them are still found. Where nothing around them and not the start of the file
//! can be read either, it is the device that fails and not a page: that is an error.
//!
//! # Limits
//! A window of [`WINDOW_BYTES`], or of the largest frame met.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::Position;
use crate::bytes::next_magic;
use crate::error::Error;
use crate::frame::{FRAME_HEADER_BYTES, FRAME_MAGIC, FrameHeader};
use crate::fs::{Disk, DiskFile};
use crate::header::FILE_HEADER_BYTES;
use crate::segment::Segment;

const WINDOW_BYTES: usize = 1 << 20;
/// A page of the device.
pub(crate) const PAGE_BYTES: usize = 4096;
/// So often a page the device refuses is asked for before it counts as lost.
pub(crate) const READ_TRIES: u32 = 3;

/// What stands at a position.
#[derive(Debug)]
pub(crate) enum Look {
    /// A frame whose header and body check.
    Frame(FrameHeader),
    /// The header checks, so its length does; the body does not.
    BrokenBody(FrameHeader),
    /// No frame begins here.
    Broken,
}

/// A reader of one segment file.
#[derive(Debug)]
pub(crate) struct FrameReader {
    disk: Arc<dyn Disk>,
    pub(crate) segment: Arc<Segment>,
    window: Vec<u8>,
    /// Where the window begins in the file.
    window_at: u64,
    unreadable: Vec<Range<u64>>,
}

impl FrameReader {
    pub(crate) const fn new(disk: Arc<dyn Disk>, segment: Arc<Segment>) -> Self {
        Self {
            disk,
            segment,
            window: Vec::new(),
            window_at: 0,
            unreadable: Vec::new(),
        }
    }

    /// Looks at `position`, using nothing at or beyond `limit`. Both lie in the segment, which ends at
    /// its own limit.
    ///
    /// # Errors
    /// The device cannot read this part of the file at all.
    pub(crate) fn look(&mut self, position: Position, limit: Position) -> Result<Look, Error> {
        let Some(header) = self.header(position, limit)? else {
            return Ok(Look::Broken);
        };
        let bytes = usize::try_from(header.frame_bytes()).unwrap_or(usize::MAX);
        let frame = self.bytes(position, bytes, limit)?;
        Ok(if header.body_if_whole(frame).is_some() {
            Look::Frame(header)
        } else {
            Look::BrokenBody(header)
        })
    }

    /// The header at `position`, if one checks there.
    ///
    /// # Errors
    /// See [`Self::look`].
    pub(crate) fn header(
        &mut self,
        position: Position,
        limit: Position,
    ) -> Result<Option<FrameHeader>, Error> {
        let salt = self.segment.header.salt;
        let bytes = self.bytes(position, FRAME_HEADER_BYTES, limit)?;
        Ok(FrameHeader::decode(bytes, position, salt))
    }

    /// The next header that checks behind `position` (itself left out) and before `limit`.
    ///
    /// # Errors
    /// See [`Self::look`].
    pub(crate) fn next_header(
        &mut self,
        position: Position,
        limit: Position,
    ) -> Result<Option<FrameHeader>, Error> {
        let mut at = position.plus(8);
        loop {
            // Whatever the window holds from here on, or a fresh window.
            let bytes = self.bytes(at, FRAME_HEADER_BYTES, limit)?;
            if bytes.len() < FRAME_HEADER_BYTES {
                return Ok(None);
            }
            let window_end = self.window_end(at);
            let window = self.bytes(at, window_end, limit)?;
            match next_magic(window, FRAME_MAGIC) {
                None => at = at.plus((window.len() & !7) as u64),
                Some(skip) => {
                    at = at.plus(skip as u64);
                    if let Some(header) = self.header(at, limit)? {
                        return Ok(Some(header));
                    }
                    at = at.plus(8);
                }
            }
        }
    }

    /// Whether a frame behind `position`, from `next` on, was appended when `position` was known to
    /// be durable. Without such a frame, what is broken may be of the last group that an interrupted
    /// run wrote, and never have been acknowledged.
    ///
    /// # Errors
    /// See [`Self::look`].
    pub(crate) fn is_proved_durable(
        &mut self,
        position: Position,
        limit: Position,
        next: Option<FrameHeader>,
    ) -> Result<bool, Error> {
        let mut next = match next {
            Some(next) => Some(next),
            None => self.next_header(position, limit)?,
        };
        while let Some(header) = next {
            if header.durable > position {
                return Ok(true);
            }
            next = self.next_header(header.position, limit)?;
        }
        Ok(false)
    }

    /// Whether something in `[from, to)` could not be read from the device.
    pub(crate) fn is_unreadable(&self, from: Position, to: Position) -> bool {
        let (from, to) = (self.segment.offset_of(from), self.segment.offset_of(to));
        self.unreadable
            .iter()
            .any(|bad| bad.start < to && from < bad.end)
    }

    /// Forgets what was read: the next look asks the device again.
    pub(crate) fn forget(&mut self) {
        self.window.clear();
        self.unreadable.clear();
    }

    /// The bytes of `[from, to)`, as far as they are before the segment's end.
    ///
    /// # Errors
    /// See [`Self::look`].
    pub(crate) fn range(&mut self, from: Position, to: Position) -> Result<&[u8], Error> {
        let bytes = usize::try_from(to.bytes_since(from)).unwrap_or(usize::MAX);
        self.bytes(from, bytes, to)
    }

    /// How many bytes of the window lie behind `position`.
    fn window_end(&self, position: Position) -> usize {
        let at = self.segment.offset_of(position);
        let end = self.window_at + self.window.len() as u64;
        usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX)
    }

    /// At most `len` bytes from `position` on; fewer at the limit or the end of the file.
    fn bytes(&mut self, position: Position, len: usize, limit: Position) -> Result<&[u8], Error> {
        let at = self.segment.offset_of(position);
        let end = self.segment.offset_of(limit);
        let len = len.min(usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX));
        if len == 0 {
            return Ok(&[]);
        }
        let have = self.window_at..self.window_at + self.window.len() as u64;
        if at < have.start || at + len as u64 > have.end {
            self.fill(at, len, end)?;
        }
        let start = usize::try_from(at - self.window_at).unwrap_or(usize::MAX);
        let window = self.window.get(start..).unwrap_or_default();
        Ok(&window[..len.min(window.len())])
    }

    /// Moves the window to `at`.
    fn fill(&mut self, at: u64, len: usize, end: u64) -> Result<(), Error> {
        let most = usize::try_from(end - at).unwrap_or(usize::MAX);
        self.window.resize(len.max(WINDOW_BYTES).min(most), 0);
        if self.window.capacity() > 2 * self.window.len().max(WINDOW_BYTES) {
            self.window.shrink_to(WINDOW_BYTES);
        }
        self.window_at = at;
        let file = &self.segment.file;
        let read = read_pages(&self.disk, file, &mut self.window, at).inspect_err(|_| {
            self.window.clear();
        });
        let (bytes, unreadable) = read.map_err(Error::io("read", file.path()))?;
        self.window.truncate(bytes);
        self.unreadable = unreadable;
        Ok(())
    }
}

/// The first page of a file, or what there is of it; nothing where the device refuses that page and
/// reads the next.
///
/// # Errors
/// What the system said, [`READ_TRIES`] times, if it is the device that fails and not the page.
pub(crate) fn read_header_page(disk: &Arc<dyn Disk>, file: &DiskFile) -> io::Result<Vec<u8>> {
    let mut page = vec![0; FILE_HEADER_BYTES];
    let mut read = disk.read_full_at(file, &mut page, 0);
    for _ in 1..READ_TRIES {
        if read.is_err() {
            read = disk.read_full_at(file, &mut page, 0);
        }
    }
    match read {
        Ok(bytes) => page.truncate(bytes),
        Err(_) if disk.read_at(file, &mut [0; 8], PAGE_BYTES as u64).is_ok() => page.clear(),
        Err(error) => return Err(error),
    }
    Ok(page)
}

/// Fills `buffer` from `offset` on; how many bytes the file had, and the ranges of the file the device
/// refused, which are zeros in the buffer.
///
/// # Errors
/// What the system said, if neither a single page nor the start of the file could be read.
pub(crate) fn read_pages(
    disk: &Arc<dyn Disk>,
    file: &DiskFile,
    buffer: &mut [u8],
    offset: u64,
) -> io::Result<(usize, Vec<Range<u64>>)> {
    let error = match disk.read_full_at(file, buffer, offset) {
        Ok(bytes) => return Ok((bytes, Vec::new())),
        Err(error) => error,
    };
    let mut unreadable: Vec<Range<u64>> = Vec::new();
    let mut read = 0;
    let mut any = false;
    while read < buffer.len() {
        let at = offset + read as u64;
        // Up to the end of the device's page.
        let bytes = PAGE_BYTES - usize::try_from(at % PAGE_BYTES as u64).unwrap_or(0);
        let bytes = bytes.min(buffer.len() - read);
        let page = &mut buffer[read..read + bytes];
        match disk.read_full_at(file, page, at) {
            Ok(0) => break,
            Ok(n) => {
                any = true;
                read += n;
            }
            Err(_) => {
                page.fill(0);
                unreadable.push(at..at + bytes as u64);
                read += bytes;
            }
        }
    }
    // All that was asked for may be one bad page: whether the device works the file's header tells.
    if any || disk.read_full_at(file, &mut [0; 8], 0).is_ok() {
        Ok((read, unreadable))
    } else {
        Err(error)
    }
}
