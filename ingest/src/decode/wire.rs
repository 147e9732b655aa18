//! Turns protobuf bytes into keys, varints and spans, remembering where in the request it is.
//!
//! Accepts what the protobuf specification calls valid and refuses the rest: the same verdict as
//! prost gives, except that UTF-8 is not looked at here (see `labels`).
//!
//! # Invariants
//! - `at <= bytes.len()`; the bytes of a nested message are a prefix of the request that ends with
//!   the message, so `at` is always the offset in the whole request and can go into an error.
//!
//! # Limits
//! - Groups and messages nest at most [`DEPTH_MAX`] deep, so that a crafted request cannot exhaust
//!   the stack.

use std::fmt;
use std::ops::Range;

/// How deep messages and groups may nest; the limit of prost.
pub(crate) const DEPTH_MAX: u32 = 100;

/// Bytes that are no protobuf message of the expected type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed {
    /// Where in the decompressed request.
    pub offset: usize,
    /// What is wrong there.
    pub what: &'static str,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.what, self.offset)
    }
}

/// Appends an unsigned varint.
#[expect(clippy::cast_possible_truncation, reason = "seven bits at a time")]
pub(crate) fn append_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// How a field's bytes are delimited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wire {
    Varint,
    Fixed64,
    Bytes,
    GroupStart,
    GroupEnd,
    Fixed32,
}

/// A field number and how its bytes are delimited.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    pub(crate) number: u32,
    pub(crate) wire: Wire,
    /// Where the key began.
    pub(crate) offset: usize,
}

impl Key {
    /// Refuses a known field with another wire type than `expected`.
    pub(crate) fn expect(self, expected: Wire) -> Result<(), Malformed> {
        if self.wire == expected {
            Ok(())
        } else {
            Err(Malformed {
                offset: self.offset,
                what: "wrong wire type for a known field",
            })
        }
    }
}

/// A reader over one message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Reads `bytes[range]`; offsets are reported relative to the start of `bytes`.
    #[inline]
    pub(crate) fn over(bytes: &'a [u8], range: Range<usize>) -> Self {
        Self {
            bytes: bytes.get(..range.end).unwrap_or(bytes),
            at: range.start.min(bytes.len()),
        }
    }

    /// The offset in the whole request.
    #[inline]
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// What is left of the message.
    #[inline]
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// Whether the message is read to its end.
    #[inline]
    pub(crate) fn is_done(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// Skips bytes the caller has looked at in [`Self::rest`].
    #[inline]
    pub(crate) fn advance(&mut self, count: usize) {
        self.at = (self.at + count).min(self.bytes.len());
    }

    /// A complaint about the bytes at the current offset.
    #[cold]
    pub(crate) fn malformed(&self, what: &'static str) -> Malformed {
        Malformed {
            offset: self.at,
            what,
        }
    }

    /// An unsigned varint.
    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, Malformed> {
        match *self.rest() {
            [a, ..] if a < 0x80 => {
                self.at += 1;
                Ok(u64::from(a))
            }
            [a, b, ..] if b < 0x80 => {
                self.at += 2;
                Ok(u64::from(a & 0x7f) | u64::from(b) << 7)
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        let mut shift = 0u32;
        for &byte in self.rest().iter().take(10) {
            if shift == 63 && byte > 1 {
                return Err(self.malformed("varint longer than 64 bits"));
            }
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                self.at += usize::try_from(shift / 7).unwrap_or(10);
                return Ok(value);
            }
        }
        Err(self.malformed("message ends inside a varint"))
    }

    /// A field key.
    #[inline]
    pub(crate) fn key(&mut self) -> Result<Key, Malformed> {
        let offset = self.at;
        let malformed = |what| Malformed { offset, what };
        let key = self.varint()?;
        let key = u32::try_from(key).map_err(|_| malformed("field number out of range"))?;
        let wire = match key & 7 {
            0 => Wire::Varint,
            1 => Wire::Fixed64,
            2 => Wire::Bytes,
            3 => Wire::GroupStart,
            4 => Wire::GroupEnd,
            5 => Wire::Fixed32,
            _ => return Err(malformed("unknown wire type")),
        };
        let number = key >> 3;
        if number == 0 {
            return Err(malformed("field number 0"));
        }
        Ok(Key {
            number,
            wire,
            offset,
        })
    }

    /// Eight bytes, little endian.
    #[inline]
    pub(crate) fn fixed64(&mut self) -> Result<u64, Malformed> {
        let Some(bytes) = self.rest().first_chunk::<8>() else {
            return Err(self.malformed("message ends inside a fixed64"));
        };
        self.at += 8;
        Ok(u64::from_le_bytes(*bytes))
    }

    /// A length and that many bytes, as a range of the whole request.
    #[inline]
    pub(crate) fn span(&mut self) -> Result<Range<usize>, Malformed> {
        let before = self.at;
        let length = self.varint()?;
        let left = self.bytes.len() - self.at;
        match usize::try_from(length) {
            Ok(length) if length <= left => {
                let start = self.at;
                self.at += length;
                Ok(start..self.at)
            }
            _ => Err(Malformed {
                offset: before,
                what: "length beyond the end of the message",
            }),
        }
    }

    /// A length and a nested message of that length.
    #[inline]
    pub(crate) fn message(&mut self) -> Result<Self, Malformed> {
        let span = self.span()?;
        Ok(Self::over(self.bytes, span))
    }

    /// The bytes of a range that [`Self::span`] gave.
    #[inline]
    pub(crate) fn slice(&self, span: Range<usize>) -> &'a [u8] {
        self.bytes.get(span).unwrap_or_default()
    }

    /// Skips the value of a field nobody knows. `depth` is how deep it may still nest.
    pub(crate) fn skip(&mut self, key: Key, depth: u32) -> Result<(), Malformed> {
        if depth == 0 {
            return Err(self.malformed("messages nested too deep"));
        }
        match key.wire {
            Wire::Varint => self.varint().map(drop),
            Wire::Fixed64 => self.fixed64().map(drop),
            Wire::Bytes => self.span().map(drop),
            Wire::Fixed32 => {
                if self.rest().len() < 4 {
                    return Err(self.malformed("message ends inside a fixed32"));
                }
                self.at += 4;
                Ok(())
            }
            Wire::GroupStart => loop {
                let inner = self.key()?;
                if inner.wire != Wire::GroupEnd {
                    self.skip(inner, depth - 1)?;
                } else if inner.number == key.number {
                    return Ok(());
                } else {
                    return Err(self.malformed("end of a group that was not begun"));
                }
            },
            Wire::GroupEnd => Err(self.malformed("end of a group that was not begun")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &[u8]) -> Cursor<'_> {
        Cursor::over(bytes, 0..bytes.len())
    }

    #[test]
    fn varints_of_every_length_are_read() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1u64 << shift) - 1, u64::MAX >> shift] {
                let mut bytes = Vec::new();
                prost::encoding::encode_varint(value, &mut bytes);
                let mut cursor = whole(&bytes);
                assert_eq!(cursor.varint(), Ok(value));
                assert!(cursor.is_done());
            }
        }
    }

    #[test]
    fn a_varint_of_more_than_64_bits_is_refused() {
        let mut bytes = [0xff; 10];
        bytes[9] = 2;
        assert!(whole(&bytes).varint().is_err());
        bytes[9] = 1;
        assert_eq!(whole(&bytes).varint(), Ok(u64::MAX));
    }

    #[test]
    fn a_cut_varint_is_refused_at_its_start() {
        let mut cursor = whole(&[1, 0xff, 0xff]);
        assert_eq!(cursor.varint(), Ok(1));
        assert_eq!(cursor.varint().unwrap_err().offset, 1);
    }

    #[test]
    fn groups_are_skipped_down_to_the_depth_limit() {
        for (deep, accepted) in [(100usize, true), (101, false)] {
            let mut bytes = vec![0x53; deep];
            bytes.extend(vec![0x54; deep]);
            let mut cursor = whole(&bytes);
            let key = cursor.key().unwrap();
            assert_eq!(cursor.skip(key, DEPTH_MAX).is_ok(), accepted, "{deep} deep");
        }
    }
}
