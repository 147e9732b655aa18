//! Turns a fragment into the certainty that it says what the plain encoder says, or into a no.
//!
//! Other values and other timestamps are patched in, all different from each other, and what `snap`
//! makes of the result is compared with the plain messages. A value that is not where it should be,
//! or that something was copied from, shows; what is patched must have been zero, so any other value would
//! have come out right as well.

use wal::{Sample, SeriesRef};

use super::fragment::{Fragment, Place};
use crate::encode::remote_write_v1::put_series;
use labels::wire::{len_u64, put_varint};

/// Where the timestamps that are patched in come down from, and the step between those that are not
/// copies: one that changes every byte of the varint.
const TIMESTAMP_MS: i64 = 0x155_5555_5555;
const TIMESTAMP_STEP_MS: i64 = 0x1_0204_0811;

/// Proves fragments; keeps its memory.
#[derive(Default)]
pub(super) struct Prover {
    samples: Vec<Sample>,
    expected: Vec<u8>,
    block: Vec<u8>,
    decoded: Vec<u8>,
}

impl Prover {
    /// Whether the fragment says what the plain encoder says of these series.
    pub(super) fn is_right<'a>(
        &mut self,
        fragment: Fragment<'_>,
        series: impl Iterator<Item = SeriesRef>,
        labels: impl Fn(SeriesRef) -> &'a [u8],
    ) -> bool {
        self.samples.clear();
        let mut timestamp_ms = TIMESTAMP_MS;
        for (number, (series, place)) in (0..).zip(series.zip(fragment.places())) {
            if !place.is_chained() {
                timestamp_ms -= TIMESTAMP_STEP_MS;
            }
            self.samples.push(Sample {
                series,
                timestamp_ms,
                value_bits: value_bits(number, place),
            });
        }
        if self.samples.len() != fragment.places.len() || !fragment.is_blank() {
            return false;
        }
        self.expected.clear();
        for sample in &self.samples {
            let labels = labels(sample.series);
            put_series(&mut self.expected, labels, std::slice::from_ref(sample));
        }
        self.says(fragment)
    }

    /// Whether the fragment with the samples says what is expected.
    fn says(&mut self, fragment: Fragment<'_>) -> bool {
        self.block.clear();
        put_varint(&mut self.block, u64::from(fragment.plain_bytes));
        let start = self.block.len();
        self.block.resize(start + fragment.room_bytes(), 0);
        let room = &mut self.block[start..];
        if fragment.patch(&self.samples, room).is_err() {
            return false;
        }
        let block = &self.block[..start + fragment.element_bytes()];
        if len_u64(self.expected.len()) != u64::from(fragment.plain_bytes) {
            return false;
        }
        self.decoded.clear();
        self.decoded.resize(self.expected.len(), 0);
        let decoded = snap::raw::Decoder::new().decompress(block, &mut self.decoded);
        decoded.is_ok() && self.decoded == self.expected
    }
}

/// A value that no other series has, with every byte set that may be.
fn value_bits(number: u64, place: Place) -> u64 {
    // splitmix64's last step; 0x01 in every byte so that none is zero
    let mut bits = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (bits ^ bits >> 27 | 0x0101_0101_0101_0101) << (8 * u32::from(place.zero_bytes()))
}
