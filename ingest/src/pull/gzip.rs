//! Turns a gzip body into the bytes it holds, at most so many.
//!
//! # Failure
//! - A body of several members, which no exporter sends, is refused: only the first would be read.
//!
//! # Limits
//! - What comes out is counted as it comes out: a length that is promised is not believed. Buffers grow by
//!   doubling and never beyond the limit.

use libdeflater::{DecompressionError, Decompressor};

/// Bytes of a member before its data, and behind it: a length of 4 and a checksum of 4.
const HEADER_BYTES_MIN: usize = 10;
const FOOTER_BYTES: usize = 8;

/// Why there is nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// More bytes than the limit.
    TooLarge,
    /// No gzip, or cut short, or with a wrong checksum.
    Malformed,
}

/// A decompressor with its memory.
pub struct Gunzip {
    inner: Decompressor,
}

impl std::fmt::Debug for Gunzip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gunzip")
    }
}

impl Default for Gunzip {
    fn default() -> Self {
        Self {
            inner: Decompressor::new(),
        }
    }
}

impl Gunzip {
    /// Replaces what is in `out` by what `body` holds. What is in it spares the zeros that would be written there.
    ///
    /// # Errors
    /// It is no gzip, or holds more than `bytes_max`. What is in `out` then means nothing.
    pub fn decompress(
        &mut self,
        body: &[u8],
        out: &mut Vec<u8>,
        bytes_max: usize,
    ) -> Result<(), Refused> {
        if body.len() < HEADER_BYTES_MIN + FOOTER_BYTES {
            return Err(Refused::Malformed);
        }
        // Of the last member, which is the only one or the body is refused.
        let promised = body
            .last_chunk()
            .map_or(0, |last| u32::from_le_bytes(*last));
        let promised = usize::try_from(promised).unwrap_or(usize::MAX);
        // One byte more tells a body of the limit from a larger one.
        let most = bytes_max.saturating_add(1);
        let mut room = promised
            .clamp(body.len(), body.len().saturating_mul(64))
            .min(most);
        loop {
            out.resize(room, 0);
            match self.inner.gzip_decompress(body, out) {
                Ok(written) => {
                    out.truncate(written);
                    return match written {
                        written if written > bytes_max => Err(Refused::TooLarge),
                        written if written != promised => Err(Refused::Malformed),
                        _ => Ok(()),
                    };
                }
                Err(DecompressionError::InsufficientSpace) if room < most => {
                    room = room.saturating_mul(2).min(most);
                }
                Err(DecompressionError::InsufficientSpace) => return Err(Refused::TooLarge),
                Err(DecompressionError::BadData) => return Err(Refused::Malformed),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use libdeflater::{CompressionLvl, Compressor};

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut compressor = Compressor::new(CompressionLvl::default());
        let mut out = vec![0; compressor.gzip_compress_bound(bytes.len())];
        let length = compressor.gzip_compress(bytes, &mut out).unwrap();
        out.truncate(length);
        out
    }

    fn gunzip(body: &[u8], bytes_max: usize) -> Result<Vec<u8>, Refused> {
        let mut out = b"before".to_vec();
        let result = Gunzip::default().decompress(body, &mut out, bytes_max);
        assert!(
            out.capacity() <= 2 * (bytes_max + 1).max(8),
            "{}",
            out.capacity()
        );
        result.map(|()| out)
    }

    #[test]
    fn what_went_in_comes_out() {
        let text = b"up 1\n".repeat(1000);
        assert_eq!(gunzip(&gzip(&text), 5000).unwrap(), text);
        assert_eq!(gunzip(&gzip(&text), 4999), Err(Refused::TooLarge));
        assert_eq!(gunzip(&gzip(b""), 10).unwrap(), b"");
    }

    #[test]
    fn a_bomb_takes_no_more_than_the_limit() {
        let bomb = gzip(&vec![0; 1 << 24]);
        assert_eq!(gunzip(&bomb, 1 << 20), Err(Refused::TooLarge));
        let mut liar = gzip(&vec![0; 1 << 24]);
        let end = liar.len();
        liar[end - 4..].fill(0);
        assert_eq!(gunzip(&liar, 1 << 20), Err(Refused::TooLarge));
    }

    #[test]
    fn what_is_no_gzip_or_more_than_one_is_refused() {
        let body = gzip(b"up 1\nup 2\n");
        for cut in 0..body.len() {
            assert_eq!(gunzip(&body[..cut], 1000), Err(Refused::Malformed), "{cut}");
        }
        let mut wrong = body.clone();
        let end = wrong.len();
        wrong[end - 6] ^= 1;
        assert_eq!(gunzip(&wrong, 1000), Err(Refused::Malformed));
        let two = [body, gzip(b"b 1\n")].concat();
        assert_eq!(gunzip(&two, 1000), Err(Refused::Malformed));
    }
}
