//! Turns the bytes of templates into pieces of files, and pieces back into bytes.
//!
//! They are written once, read every interval, and can be made again, so they are not on the heap but in
//! files without a name ([`NamelessFile`]), which are mapped: the kernel may take their memory back. The
//! files are many and small, *chunks*, so that space comes back: a chunk goes with the last template in it,
//! and one of which too much is dead is emptied by `cache`, which knows what is in it.
//!
//! # Failure
//! - Where no file can be made or written, a full disk above all, nothing is put, and that is not tried
//!   again before some hundred templates were asked for ([`Chunks::may_try`]). What is there stays.
//!
//! # Threads
//! - Calls are made on the thread that encodes. They go to the page cache and sync nothing; a chunk is
//!   made once in hundreds of templates, or in dozens where an endpoint has very many shards.
//!
//! # Limits
//! - One open file; the other chunks are mapped and closed. A chunk takes its whole size at once.

use std::io;
use std::path::Path;

use wal::NamelessFile;

/// Chunks are large enough not to be many, small enough to come back one by one.
const CHUNK_BYTES_MAX: usize = 4 << 20;
/// So that what is left over at the end of a chunk is little.
const CHUNK_BYTES_MIN: usize = 64 << 10;
/// Of all that may be taken.
const CHUNKS_MIN: usize = 8;
const CHUNKS: usize = 32;
const PAGE_BYTES: usize = 4096;

/// How many templates go by until a file is tried for again: so many, then twice as many. A small fleet comes
/// to the last only after long, and has the least to gain.
const PATIENCE_MIN: u32 = 8;
const PATIENCE_MAX: u32 = 1024;

/// Where the bytes of a template are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Piece {
    chunk: u32,
    start: u32,
    len: u32,
}

impl Piece {
    pub(super) const fn len(self) -> usize {
        self.len as usize
    }

    /// The first `len` bytes, and the others.
    pub(super) fn split_at(self, len: usize) -> (Self, Self) {
        let len = u32::try_from(len).map_or(self.len, |len| len.min(self.len));
        let behind = Self {
            start: self.start + len,
            len: self.len - len,
            ..self
        };
        (Self { len, ..self }, behind)
    }

    pub(super) const fn is_in(self, chunk: usize) -> bool {
        self.chunk as usize == chunk
    }
}

#[derive(Debug)]
struct Chunk {
    file: NamelessFile,
    live_bytes: usize,
    dead_bytes: usize,
}

/// Why nothing is put now.
#[derive(Debug)]
struct Trouble {
    error: io::Error,
    /// Templates that go by without a try, from the last one on.
    patience: u32,
    left: u32,
}

/// The files of one encoder.
#[derive(Debug)]
pub(super) struct Chunks {
    dir: Box<Path>,
    chunk_bytes: usize,
    /// By number; none where one has gone.
    chunks: Vec<Option<Chunk>>,
    /// The number of the one that is appended to.
    open: Option<usize>,
    bytes: usize,
    trouble: Option<Trouble>,
    joined: Vec<u8>,
}

impl Chunks {
    /// Files in this directory, of a size for so many bytes in all.
    pub(super) fn new(dir: &Path, bytes_max: usize) -> Self {
        let chunk_bytes = (bytes_max / CHUNKS).clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX);
        let pages = chunk_bytes.min(bytes_max / CHUNKS_MIN) / PAGE_BYTES;
        Self {
            dir: dir.into(),
            chunk_bytes: pages.max(1) * PAGE_BYTES,
            chunks: Vec::new(),
            open: None,
            bytes: 0,
            trouble: None,
            joined: Vec::new(),
        }
    }

    /// Space taken.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// How much more space a piece takes: none if there is room for it in the open chunk.
    pub(super) fn more_bytes(&self, len: usize) -> usize {
        if self.is_large(len) {
            return len.next_multiple_of(PAGE_BYTES);
        }
        let room = self.open_chunk().map_or(0, |chunk| chunk.file.room_bytes());
        if len <= room { 0 } else { self.chunk_bytes }
    }

    /// Large pieces have chunks of their own, or much would be left over at the end of others.
    const fn is_large(&self, len: usize) -> bool {
        len > self.chunk_bytes / 2
    }

    fn open_chunk(&self) -> Option<&Chunk> {
        self.chunks.get(self.open?)?.as_ref()
    }

    /// So many bytes are worth being moved at once: a call costs more than a template. Of what is left over
    /// at the end of a chunk it is little.
    pub(super) const fn together_bytes(&self) -> usize {
        self.chunk_bytes / 16
    }

    /// Puts the parts behind each other; none if there is trouble.
    pub(super) fn put(&mut self, parts: &[&[u8]]) -> Option<Piece> {
        let piece = if let [bytes] = parts {
            self.try_put(bytes)
        } else {
            let mut joined = std::mem::take(&mut self.joined);
            joined.clear();
            for part in parts {
                joined.extend_from_slice(part);
            }
            let piece = self.try_put(&joined);
            self.joined = joined;
            piece
        };
        match piece {
            Ok(piece) => {
                self.trouble = None;
                Some(piece)
            }
            Err(error) => {
                let before = self.trouble.as_ref().map(|trouble| trouble.patience);
                let patience = before.map_or(PATIENCE_MIN, |before| before * 2);
                let patience = patience.min(PATIENCE_MAX);
                self.trouble = Some(Trouble {
                    error,
                    patience,
                    left: patience,
                });
                None
            }
        }
    }

    fn try_put(&mut self, bytes: &[u8]) -> io::Result<Piece> {
        let more_bytes = self.more_bytes(bytes.len());
        let number = match self.open {
            Some(open) if more_bytes == 0 => open,
            _ => self.create(more_bytes.max(PAGE_BYTES))?,
        };
        let is_large = self.is_large(bytes.len());
        if !is_large && self.open != Some(number) {
            self.close();
            self.open = Some(number);
        }
        let put = self.put_into(number, bytes);
        if put.is_err() || is_large {
            self.close_one(number);
        }
        put
    }

    fn put_into(&mut self, number: usize, bytes: &[u8]) -> io::Result<Piece> {
        let chunk = self.chunks.get_mut(number).and_then(Option::as_mut);
        let chunk = chunk.ok_or(io::ErrorKind::NotFound)?;
        let range = chunk.file.put(bytes)?.ok_or(io::ErrorKind::StorageFull)?;
        chunk.live_bytes += range.len();
        let u32_of = |number: usize| u32::try_from(number).map_err(io::Error::other);
        Ok(Piece {
            chunk: u32_of(number)?,
            start: u32_of(range.start)?,
            len: u32_of(range.len())?,
        })
    }

    /// Makes a chunk of this size; its number.
    fn create(&mut self, bytes: usize) -> io::Result<usize> {
        let chunk = Chunk {
            file: NamelessFile::create(&self.dir, bytes)?,
            live_bytes: 0,
            dead_bytes: 0,
        };
        self.bytes += chunk.file.bytes();
        let gone = self.chunks.iter().position(Option::is_none);
        let number = gone.unwrap_or(self.chunks.len());
        match self.chunks.get_mut(number) {
            Some(place) => *place = Some(chunk),
            None => self.chunks.push(Some(chunk)),
        }
        Ok(number)
    }

    /// Nothing is appended to the open chunk any more.
    fn close(&mut self) {
        if let Some(open) = self.open.take() {
            self.close_one(open);
        }
    }

    fn close_one(&mut self, number: usize) {
        self.open = self.open.filter(|open| *open != number);
        if let Some(Some(chunk)) = self.chunks.get_mut(number) {
            chunk.file.seal();
            if chunk.live_bytes == 0 {
                self.remove(number);
            }
        }
    }

    /// The bytes of a piece that is not buried.
    ///
    /// # Panics
    /// If its chunk has gone.
    #[inline]
    pub(super) fn get(&self, piece: Piece) -> &[u8] {
        let chunk = self.chunks.get(piece.chunk as usize);
        let chunk = chunk.and_then(Option::as_ref).expect("kept for its pieces");
        let start = piece.start as usize;
        chunk.file.get(start..start + piece.len())
    }

    /// A piece is not needed any more.
    pub(super) fn bury(&mut self, piece: Piece) {
        let number = piece.chunk as usize;
        let Some(Some(chunk)) = self.chunks.get_mut(number) else {
            return;
        };
        chunk.live_bytes -= piece.len();
        chunk.dead_bytes += piece.len();
        if chunk.live_bytes == 0 && self.open != Some(number) {
            self.remove(number);
        }
    }

    /// The number of the chunk with the most dead bytes of those of which more than one of `one_of` is dead.
    pub(super) fn deadest(&self, one_of: usize) -> Option<usize> {
        let chunks = self.chunks.iter().enumerate();
        let chunks = chunks.filter_map(|(number, chunk)| Some((number, chunk.as_ref()?)));
        chunks
            .filter(|(_, chunk)| chunk.dead_bytes * one_of > chunk.file.bytes())
            .max_by_key(|(_, chunk)| chunk.dead_bytes)
            .map(|(number, _)| number)
    }

    /// Bytes of a chunk's pieces that are not buried.
    pub(super) fn live_bytes(&self, number: usize) -> usize {
        let chunk = self.chunks.get(number).and_then(Option::as_ref);
        chunk.map_or(0, |chunk| chunk.live_bytes)
    }

    /// Gives back the space of a chunk with all that is in it.
    pub(super) fn remove(&mut self, number: usize) {
        let chunk = self.chunks.get_mut(number).and_then(Option::take);
        self.bytes -= chunk.map_or(0, |chunk| chunk.file.bytes());
        self.open = self.open.filter(|open| *open != number);
    }

    /// Whether a template may be built, to be put: not every time where putting failed.
    pub(super) fn may_try(&mut self) -> bool {
        let Some(trouble) = &mut self.trouble else {
            return true;
        };
        let may_try = trouble.left == 0;
        trouble.left = trouble.left.saturating_sub(1);
        may_try
    }

    /// Why the last one was not put.
    pub(super) fn trouble(&self) -> Option<&io::Error> {
        self.trouble.as_ref().map(|trouble| &trouble.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(dir: &Path, pages: usize) -> Chunks {
        let chunks = Chunks::new(dir, CHUNKS_MIN * pages * PAGE_BYTES);
        assert_eq!(chunks.chunk_bytes, pages * PAGE_BYTES);
        chunks
    }

    #[test]
    fn pieces_are_read_back_byte_by_byte_from_whatever_chunk() {
        let dir = tempfile::tempdir().unwrap();
        let mut chunks = chunks(dir.path(), 2);
        let bytes = |number: usize| vec![u8::try_from(number).unwrap(); 100 + number * 137];
        let pieces: Vec<_> = (0..100)
            .map(|number| chunks.put(&[b"parts ", &bytes(number)]).unwrap())
            .collect();
        for (number, piece) in pieces.iter().enumerate() {
            let expected = [b"parts ", &*bytes(number)].concat();
            assert!(chunks.get(*piece) == expected, "{number}");
        }
        assert!(chunks.chunks.len() > 50);
        let large = chunks.more_bytes(PAGE_BYTES + 1);
        assert_eq!(large, 2 * PAGE_BYTES, "a chunk of its own");
        for piece in pieces {
            chunks.bury(piece);
        }
        assert_eq!(chunks.bytes(), 2 * PAGE_BYTES, "the open one");
    }

    #[test]
    fn a_chunk_goes_with_its_last_piece() {
        let dir = tempfile::tempdir().unwrap();
        let mut chunks = chunks(dir.path(), 1);
        let [first, second, third] = [(); 3].map(|()| chunks.put(&[&[1; 2000]]).unwrap());
        assert_eq!(chunks.bytes(), 2 * PAGE_BYTES);
        chunks.bury(first);
        assert_eq!(chunks.deadest(2), None);
        assert_eq!(chunks.deadest(3), Some(0));
        assert_eq!(chunks.bytes(), 2 * PAGE_BYTES);
        chunks.bury(second);
        assert_eq!(chunks.bytes(), PAGE_BYTES);
        assert_eq!(chunks.get(third), [1; 2000]);
        assert_eq!(chunks.put(&[&[2; 2000]]).unwrap().chunk, 1);
        assert_eq!(chunks.put(&[&[2; 2000]]).unwrap().chunk, 0, "used again");
    }

    #[test]
    fn where_no_file_can_be_made_it_is_tried_for_ever_more_rarely() {
        let dir = tempfile::tempdir().unwrap();
        let gone = dir.path().join("gone");
        let mut chunks = chunks(&gone, 1);
        let mut tries = Vec::new();
        for number in 0..5000 {
            if chunks.may_try() {
                assert_eq!(chunks.put(&[b"bytes"]), None);
                tries.push(number);
            }
        }
        assert_eq!(tries[..5], [0, 9, 26, 59, 124]);
        let waits = tries.windows(2).map(|two| two[1] - two[0]);
        assert_eq!(waits.max(), Some(1 + PATIENCE_MAX));
        assert!(chunks.trouble().is_some());
        assert_eq!(chunks.bytes(), 0);
        std::fs::create_dir(&gone).unwrap();
        let piece = chunks.put(&[b"bytes"]).unwrap();
        assert_eq!(chunks.get(piece), b"bytes");
        assert!(chunks.trouble().is_none() && chunks.may_try());
    }
}
