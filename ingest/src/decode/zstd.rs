//! Turns zstd frames into the bytes they stand for, into a buffer that is reused.
//!
//! The layout of a frame's head is that of RFC 8878, 3.1.1.
//!
//! # Limits
//! - The length and the window that a frame claims are checked before memory is touched; a frame that
//!   does not say how long it is is taken for as long as allowed.
//! - Never more comes out than was claimed.

use std::io::Read;

use super::snappy::Refused;

/// The first four bytes of a frame, little-endian.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Every decoder supports windows of this size, so every encoder may use it.
const WINDOW_LEAST_MAX: u64 = 8 << 20;

/// What the head of a frame claims, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Head {
    window: u64,
    content: Option<u64>,
}

impl Head {
    fn of(frame: &[u8]) -> Option<Self> {
        let rest = frame.strip_prefix(&MAGIC)?;
        let (&descriptor, rest) = rest.split_first()?;
        let is_single_segment = descriptor & 0x20 != 0;
        let (window, rest) = if is_single_segment {
            (None, rest)
        } else {
            let (&byte, rest) = rest.split_first()?;
            let base = 1 << (10 + (byte >> 3));
            (Some(base + base / 8 * u64::from(byte & 7)), rest)
        };
        let dictionary_bytes = [0, 1, 2, 4][usize::from(descriptor & 3)];
        let content_bytes = match descriptor >> 6 {
            0 => usize::from(is_single_segment),
            size => 1 << size,
        };
        let content = rest.get(dictionary_bytes..)?.get(..content_bytes)?;
        let mut number = [0; 8];
        number[..content_bytes].copy_from_slice(content);
        let number = u64::from_le_bytes(number);
        // Two bytes say what one cannot.
        let content = match content_bytes {
            0 => None,
            2 => Some(number + 256),
            _ => Some(number),
        };
        let window = window.or(content)?;
        Some(Self { window, content })
    }
}

/// The length the first of `frames` claims to decompress to, at most `length_max`; that, if it does not
/// say.
pub(crate) fn claimed_length(frames: &[u8], length_max: usize) -> Result<usize, Refused> {
    let Some(head) = Head::of(frames) else {
        return Err(Refused::Broken("the body does not begin with one".into()));
    };
    let content = head.content.map(usize::try_from);
    let claimed = content.map_or(length_max, |content| content.unwrap_or(usize::MAX));
    if claimed > length_max {
        return Err(Refused::TooLong { claimed });
    }
    let window_max = u64::try_from(length_max).unwrap_or(u64::MAX);
    if head.window > window_max.max(WINDOW_LEAST_MAX) {
        let window = head.window;
        return Err(Refused::Broken(format!(
            "a window of {window} bytes is larger than the limit"
        )));
    }
    Ok(claimed)
}

/// Decompresses `frames`, one or several in a row, to at most `claimed` bytes in `out`.
pub(crate) fn decompress<'o>(
    mut frames: &[u8],
    claimed: usize,
    out: &'o mut Vec<u8>,
) -> Result<&'o [u8], Refused> {
    out.clear();
    while !frames.is_empty() {
        claimed_length(frames, claimed)?;
        let broken = |error: String| Refused::Broken(error);
        let decoder = ruzstd::decoding::StreamingDecoder::new(&mut frames);
        let decoder = decoder.map_err(|error| broken(error.to_string()))?;
        let left = claimed - out.len();
        let read = decoder
            .take(u64::try_from(left).unwrap_or(u64::MAX).saturating_add(1))
            .read_to_end(out);
        read.map_err(|error| broken(error.to_string()))?;
        if out.len() > claimed {
            let claimed = out.len();
            return Err(Refused::TooLong { claimed });
        }
    }
    Ok(out)
}

#[cfg(any(test, fuzzing))]
pub mod fuzz {
    //! What holds of any bytes that claim to be zstd.

    use super::{MAGIC, claimed_length, decompress};

    const MAX: usize = 1 << 20;

    /// Decompresses `bytes` as they are, and as what stands behind the first bytes of a frame.
    ///
    /// # Panics
    /// If more comes out than was claimed, or allowed.
    pub fn no_more_comes_out_than_was_claimed(bytes: &[u8]) {
        for frames in [bytes.to_vec(), [&MAGIC[..], bytes].concat()] {
            let Ok(claimed) = claimed_length(&frames, MAX) else {
                continue;
            };
            assert!(claimed <= MAX);
            if let Ok(out) = decompress(&frames, claimed, &mut Vec::new()) {
                assert!(out.len() <= claimed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    const MAX: usize = 1 << 20;

    fn expanded(frames: &[u8], limit: usize) -> Result<Vec<u8>, Refused> {
        let claimed = claimed_length(frames, limit)?;
        decompress(frames, claimed, &mut Vec::new()).map(<[u8]>::to_vec)
    }

    #[test]
    fn frames_come_back_as_they_were() {
        for bytes in [&b"hello hello hello"[..], &[7; 300_000], b"x"] {
            let frame = compress_to_vec(bytes, CompressionLevel::Fastest);
            assert_eq!(expanded(&frame, MAX).unwrap(), bytes);
        }
    }

    #[test]
    fn a_head_is_read_as_it_is_specified() {
        let head = |bytes: &[u8]| Head::of(&[&MAGIC[..], bytes].concat());
        let of = |window, content| Some(Head { window, content });
        // A single segment of one byte of length, of two, of four, of eight.
        assert_eq!(head(&[0x20, 200]), of(200, Some(200)));
        assert_eq!(head(&[0x60, 1, 0]), of(257, Some(257)));
        assert_eq!(head(&[0xa0, 0, 0, 1, 0]), of(65_536, Some(65_536)));
        assert_eq!(head(&[0xe0, 9, 0, 0, 0, 0, 0, 0, 0]), of(9, Some(9)));
        // A window of 1 KiB and three eighths, no length; and one behind a dictionary's four bytes.
        assert_eq!(head(&[0x00, 3]), of(1408, None));
        assert_eq!(head(&[0x83, 0, 1, 2, 3, 4, 5, 0, 0, 0]), of(1024, Some(5)));
        assert_eq!(head(&[0x20]), None);
        assert_eq!(Head::of(b"snappy"), None);
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_is_there() {
        let bomb = compress_to_vec(&vec![0; 8 << 20][..], CompressionLevel::Fastest);
        let refused = expanded(&bomb, MAX).unwrap_err();
        assert!(matches!(refused, Refused::TooLong { .. }), "{refused:?}");
        // One that claims less than it is, whatever it says of its window.
        let mut liar = bomb;
        if liar[4] & 0x20 != 0 {
            let at = 5;
            liar[at..at + 4].copy_from_slice(&100_u32.to_le_bytes());
        }
        assert!(expanded(&liar, MAX).is_err());
        let wide = [&MAGIC[..], &[0x00, 31 << 3]].concat();
        assert!(matches!(expanded(&wide, MAX), Err(Refused::Broken(_))));
    }

    #[test]
    fn a_second_frame_shares_what_the_first_claimed() {
        let one = compress_to_vec(&[1; 100][..], CompressionLevel::Fastest);
        let two = [one.clone(), one].concat();
        assert_eq!(decompress(&two, 200, &mut Vec::new()).unwrap(), [1; 200]);
        let refused = decompress(&two, 150, &mut Vec::new()).unwrap_err();
        assert!(matches!(refused, Refused::TooLong { .. }), "{refused:?}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            fuzz::no_more_comes_out_than_was_claimed(&bytes);
        }
    }
}
