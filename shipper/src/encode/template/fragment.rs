//! Turns a fragment and the samples of now into the compressed bytes of their series.
//!
//! # Layout
//! A fragment is the snappy elements of one `TimeSeries` message after the other. Of every message
//! the high bytes of the value, and the timestamp unless it is a copy of the one before, are
//! literals whose bytes are zero here and whose places are known.
//!
//! # Invariants
//! - Places grow. A patch writes eight bytes at once and restores what is behind its own few; the
//!   next one writes later and further on, so nothing is left overwritten.
//!
//! # Limits
//! - Timestamps are varints of six bytes: from 1971 to 2109.

use std::iter;

use wal::Sample;

use labels::wire::varint_len;

/// Bytes behind the elements, so that every patch may write eight.
pub(super) const SLACK_BYTES: usize = 8;
/// How long every timestamp is as a varint.
pub(super) const TIMESTAMP_BYTES: usize = 6;
/// Of a [`Place`] where it is kept.
pub(super) const PLACE_BYTES: usize = 4;
/// Where a patch may be: what [`Place`] can say.
pub(super) const OFFSET_MAX: usize = (1 << 24) - 1;

/// Where the value of a series stands in a fragment, and what is fixed about its sample: the offset
/// in the upper bits, then whether the timestamp is a copy (`chained`), then the value's low bytes
/// that are zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place(u32);

impl Place {
    const CHAINED: u32 = 8;

    /// # Panics
    /// If the offset is over [`OFFSET_MAX`], or not a value's byte is left.
    pub(super) fn new(offset: usize, zero_bytes: u8, is_chained: bool) -> Self {
        assert!(offset <= OFFSET_MAX && zero_bytes < 8);
        let offset = u32::try_from(offset).expect("24 bits");
        Self(offset << 8 | u32::from(is_chained) << 3 | u32::from(zero_bytes))
    }

    /// As it is kept.
    pub(super) const fn to_bytes(self) -> [u8; PLACE_BYTES] {
        self.0.to_le_bytes()
    }

    const fn offset(self) -> usize {
        (self.0 >> 8) as usize
    }

    pub(super) const fn is_chained(self) -> bool {
        self.0 & Self::CHAINED != 0
    }

    pub(super) const fn zero_bytes(self) -> u8 {
        (self.0 & 7) as u8
    }
}

/// Why samples do not go into a fragment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Misfit {
    /// A low byte of a value is not zero.
    Values,
    /// A timestamp differs from the one before, or has another length.
    Timestamps,
}

/// The compressed series of a run, without their samples, wherever they are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Fragment<'a> {
    /// The elements and [`SLACK_BYTES`] of nothing.
    pub(super) bytes: &'a [u8],
    /// A [`Place`] per series, little-endian.
    pub(super) places: &'a [[u8; PLACE_BYTES]],
    /// What the elements say, in bytes.
    pub(super) plain_bytes: u32,
}

impl Fragment<'_> {
    /// One per series.
    #[inline]
    pub(super) fn places(&self) -> impl Iterator<Item = Place> {
        self.places
            .iter()
            .map(|bytes| Place(u32::from_le_bytes(*bytes)))
    }

    /// Bytes that [`Self::patch`] writes to: the elements and the slack.
    pub(super) fn room_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of the elements.
    pub(super) fn element_bytes(&self) -> usize {
        self.bytes.len() - SLACK_BYTES
    }

    /// Writes the elements with these samples, one per series, to `out`, which has
    /// [`Self::room_bytes`]. After a misfit the bytes have no meaning.
    pub(super) fn patch(&self, samples: &[Sample], out: &mut [u8]) -> Result<(), Misfit> {
        assert_eq!(samples.len(), self.places.len());
        out.copy_from_slice(self.bytes);
        let mut low_bits = 0;
        let mut unequal = 0;
        let mut before = 0;
        for (place, sample) in iter::zip(self.places(), samples) {
            let shift = 8 * u32::from(place.zero_bytes());
            low_bits |= sample.value_bits & !(u64::MAX << shift);
            let at = place.offset();
            self.put(out, at, sample.value_bits >> shift);
            let timestamp = sample.timestamp_ms.cast_unsigned();
            if place.is_chained() {
                unequal |= timestamp ^ before;
            } else {
                unequal |= u64::from(varint_len(timestamp) != TIMESTAMP_BYTES);
                let behind_tag = 8 - usize::from(place.zero_bytes()) + 1;
                self.put(out, at + behind_tag, timestamp_varint(timestamp));
            }
            before = timestamp;
        }
        if unequal != 0 {
            return Err(Misfit::Timestamps);
        }
        if low_bits != 0 {
            return Err(Misfit::Values);
        }
        Ok(())
    }

    /// Whether all bytes that are patched are zero, as patching relies on.
    pub(super) fn is_blank(&self) -> bool {
        self.places().all(|place| {
            let value_bytes = 8 - usize::from(place.zero_bytes());
            let timestamp = place.offset() + value_bytes + 1;
            let timestamp_bytes = if place.is_chained() {
                0
            } else {
                TIMESTAMP_BYTES
            };
            let is_zero = |at: usize, len| self.bytes[at..at + len].iter().all(|byte| *byte == 0);
            is_zero(place.offset(), value_bytes) && is_zero(timestamp, timestamp_bytes)
        })
    }

    /// Whether all values fit but for some that are no numbers.
    pub(super) fn fits_but_for_nan(&self, samples: &[Sample]) -> bool {
        iter::zip(self.places(), samples).all(|(place, sample)| {
            let shift = 8 * u32::from(place.zero_bytes());
            let fits = sample.value_bits & !(u64::MAX << shift) == 0;
            fits || f64::from_bits(sample.value_bits).is_nan()
        })
    }

    /// Writes `bits` over the zeros at `at`; the bytes behind them are the fragment's again.
    fn put(&self, out: &mut [u8], at: usize, bits: u64) {
        let fixed = &self.bytes[at..at + 8];
        let fixed = u64::from_le_bytes(fixed.try_into().expect("eight bytes"));
        out[at..at + 8].copy_from_slice(&(fixed | bits).to_le_bytes());
    }
}

/// A varint of six bytes as a little-endian number.
pub(super) fn timestamp_varint(timestamp: u64) -> u64 {
    let groups = timestamp & 0x7f
        | (timestamp << 1) & 0x7f << 8
        | (timestamp << 2) & 0x7f << 16
        | (timestamp << 3) & 0x7f << 24
        | (timestamp << 4) & 0x7f << 32
        | (timestamp << 5) & 0x7f << 40;
    groups | 0x80_8080_8080
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use labels::wire::write_varint;

    proptest! {
        #[test]
        fn six_bytes_are_the_varint(timestamp in 1_u64 << 35..1 << 42) {
            let mut bytes = [0; 8];
            prop_assert_eq!(write_varint(&mut bytes, timestamp), TIMESTAMP_BYTES);
            prop_assert_eq!(timestamp_varint(timestamp).to_le_bytes(), bytes);
        }
    }

    #[test]
    fn a_place_keeps_what_it_is_given() {
        for (offset, zero_bytes, is_chained) in
            [(0, 0, true), (OFFSET_MAX, 6, false), (77, 5, true)]
        {
            let place = Place::new(offset, zero_bytes, is_chained);
            assert_eq!(place.offset(), offset);
            assert_eq!(place.zero_bytes(), zero_bytes);
            assert_eq!(place.is_chained(), is_chained);
            let fragment = Fragment {
                bytes: &[],
                places: &[place.to_bytes()],
                plain_bytes: 0,
            };
            assert!(fragment.places().eq([place]));
        }
    }
}
