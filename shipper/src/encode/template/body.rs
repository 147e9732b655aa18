//! Turns plain messages and ready fragments, in the order they come, into one snappy body.
//!
//! A snappy block is the length of what it says, then elements: literals, and copies of what came
//! before. Elements of several blocks may stand behind each other as long as no copy reaches back
//! beyond its own block, so plain messages between fragments are compressed on their own and lose
//! their length.
//!
//! # Invariants
//! - Without a fragment the body is what `snap` makes of the whole message, byte for byte.
//!
//! # Failure
//! - A message of more than 4 GiB is refused, as by `snap`.
//!
//! # Limits
//! - Keeps the memory of the largest body.

use labels::wire::{len_u64, varint_len, write_varint};

/// Room for the length of the message, a varint of 32 bits.
const PREAMBLE_BYTES_MAX: usize = 5;

/// A body in the making; keeps its buffers from one to the next.
pub(in crate::encode) struct Body {
    /// Plain bytes that are not compressed yet.
    message: Vec<u8>,
    /// Elements from [`PREAMBLE_BYTES_MAX`] up to `len`; what is behind has no meaning.
    elements: Vec<u8>,
    len: usize,
    /// What the elements say, in bytes.
    plain_bytes: u64,
    snappy: snap::raw::Encoder,
}

impl Body {
    pub(in crate::encode) fn new() -> Self {
        Self {
            message: Vec::new(),
            elements: Vec::new(),
            len: PREAMBLE_BYTES_MAX,
            plain_bytes: 0,
            snappy: snap::raw::Encoder::new(),
        }
    }

    /// Forgets the body, keeps the memory.
    pub(in crate::encode) fn clear(&mut self) {
        self.message.clear();
        self.len = PREAMBLE_BYTES_MAX;
        self.plain_bytes = 0;
    }

    /// Where plain messages are appended.
    pub(in crate::encode) fn message(&mut self) -> &mut Vec<u8> {
        &mut self.message
    }

    /// Compresses what is plain; then room for so many bytes of elements, which count for nothing
    /// until [`Self::took`].
    pub(super) fn room(&mut self, bytes: usize) -> Result<&mut [u8], snap::Error> {
        if !self.message.is_empty() {
            self.compress()?;
        }
        Ok(room(&mut self.elements, self.len, bytes))
    }

    /// The first `bytes` of the room are elements that say `plain_bytes`.
    pub(super) fn took(&mut self, bytes: usize, plain_bytes: u64) {
        debug_assert!(self.message.is_empty(), "it would come before these");
        self.len += bytes;
        self.plain_bytes += plain_bytes;
    }

    fn compress(&mut self) -> Result<(), snap::Error> {
        let bytes_max = snap::raw::max_compress_len(self.message.len());
        let room = room(&mut self.elements, self.len, bytes_max);
        let bytes = self.snappy.compress(&self.message, room)?;
        let preamble = varint_len(len_u64(self.message.len()));
        room.copy_within(preamble..bytes, 0);
        self.len += bytes - preamble;
        self.plain_bytes += len_u64(self.message.len());
        self.message.clear();
        Ok(())
    }

    /// The whole body.
    ///
    /// # Errors
    /// If the message is larger than snappy can say (4 GiB).
    pub(in crate::encode) fn finish(&mut self) -> Result<&[u8], snap::Error> {
        if self.plain_bytes == 0 {
            let bytes_max = snap::raw::max_compress_len(self.message.len());
            let room = room(&mut self.elements, 0, bytes_max);
            let bytes = self.snappy.compress(&self.message, room)?;
            return Ok(&self.elements[..bytes]);
        }
        if !self.message.is_empty() {
            self.compress()?;
        }
        if self.plain_bytes > u64::from(u32::MAX) {
            return Err(snap::Error::TooBig {
                given: self.plain_bytes,
                max: u64::from(u32::MAX),
            });
        }
        let start = PREAMBLE_BYTES_MAX - varint_len(self.plain_bytes);
        write_varint(&mut self.elements[start..], self.plain_bytes);
        Ok(&self.elements[start..self.len])
    }
}

/// `bytes` bytes from `at`; the buffer grows as needed and is never cleared, which would cost more
/// than the compression of small bodies.
fn room(buffer: &mut Vec<u8>, at: usize, bytes: usize) -> &mut [u8] {
    if buffer.len() < at + bytes {
        buffer.resize(at + bytes, 0);
    }
    &mut buffer[at..at + bytes]
}
