//! Turns a record as it is stored into the record.
//!
//! # Limits
//! - At most [`RECORD_BYTES_MAX`] come out; what claims or turns out to be more is refused before
//!   more memory is taken.

use std::io::Read;

use super::Why;
use crate::decode::snappy::{Refused, claimed_length, decompress};

/// Longest record that is read, stored or decompressed. A record holds what one scrape or one
/// request brought; this is a scrape of millions of samples.
pub const RECORD_BYTES_MAX: usize = 64 << 20;

/// How a record is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Compression {
    None,
    Snappy,
    Zstd,
}

impl Compression {
    /// What the flags of a fragment say; both bits are no compression at all.
    pub(crate) fn from_flags(flags: u8) -> Option<Self> {
        match flags & 0b1_1000 {
            0 => Some(Self::None),
            0b0_1000 => Some(Self::Snappy),
            0b1_0000 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The record, in `out` or as it is stored.
    pub(crate) fn expand<'a>(
        self,
        stored: &'a [u8],
        out: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], Why> {
        match self {
            Self::None => Ok(stored),
            Self::Snappy => {
                let claimed =
                    claimed_length(stored, RECORD_BYTES_MAX).map_err(|refused| match refused {
                        Refused::TooLong { .. } => Why::TooLong,
                        Refused::Broken(_) => Why::Compression,
                    })?;
                decompress(stored, claimed, out).map_err(|_| Why::Compression)
            }
            Self::Zstd => expand_zstd(stored, out),
        }
    }
}

fn expand_zstd<'a>(mut stored: &[u8], out: &'a mut Vec<u8>) -> Result<&'a [u8], Why> {
    out.clear();
    let limit = u64::try_from(RECORD_BYTES_MAX).unwrap_or(u64::MAX);
    // A record may be several frames in a row.
    while !stored.is_empty() {
        let decoder = ruzstd::decoding::StreamingDecoder::new(&mut stored);
        let decoder = decoder.map_err(|_| Why::Compression)?;
        let left = limit + 1 - u64::try_from(out.len()).unwrap_or(limit);
        decoder
            .take(left)
            .read_to_end(out)
            .map_err(|_| Why::Compression)?;
        if out.len() > RECORD_BYTES_MAX {
            return Err(Why::TooLong);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    #[test]
    fn both_compressions_come_back() {
        let plain = b"samples samples samples".repeat(1000);
        let snappy = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
        let zstd = compress_to_vec(&plain[..], CompressionLevel::Fastest);
        let mut out = Vec::new();
        for (compression, stored) in [
            (Compression::None, &plain),
            (Compression::Snappy, &snappy),
            (Compression::Zstd, &zstd),
        ] {
            assert_eq!(compression.expand(stored, &mut out), Ok(&plain[..]));
        }
    }

    #[test]
    fn what_is_too_long_is_refused() {
        let plain = vec![0; RECORD_BYTES_MAX + 1];
        let snappy = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
        let zstd = compress_to_vec(&plain[..], CompressionLevel::Fastest);
        let mut out = Vec::new();
        let refused = Compression::Snappy.expand(&snappy, &mut out);
        assert_eq!(refused, Err(Why::TooLong));
        let refused = Compression::Zstd.expand(&zstd, &mut out);
        assert_eq!(refused, Err(Why::TooLong));
    }

    #[test]
    fn garbage_is_refused() {
        for compression in [Compression::Snappy, Compression::Zstd] {
            let refused = compression
                .expand(b"\xff\xfegarbage", &mut Vec::new())
                .map(<[u8]>::len);
            assert_eq!(refused, Err(Why::Compression), "{compression:?}");
        }
    }

    #[test]
    fn a_wrong_byte_anywhere_is_no_panic() {
        let mut plain = b"series and samples ".repeat(20);
        plain.extend((0..=255).cycle().take(2000));
        let snappy = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
        let zstd = compress_to_vec(&plain[..], CompressionLevel::Fastest);
        for (compression, stored) in [(Compression::Snappy, snappy), (Compression::Zstd, zstd)] {
            for at in 0..stored.len() {
                for value in [0, 1, 0x7f, 0x80, 0xff, !stored[at]] {
                    let mut broken = stored.clone();
                    broken[at] = value;
                    let mut out = Vec::new();
                    // Often there is something left: the checksum of the fragment is what counts.
                    if let Ok(record) = compression.expand(&broken, &mut out) {
                        assert!(record.len() <= RECORD_BYTES_MAX);
                    }
                }
            }
        }
    }

    #[test]
    fn both_flags_at_once_are_no_compression() {
        assert_eq!(Compression::from_flags(0b1_1001), None);
    }
}
