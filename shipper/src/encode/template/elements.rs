//! Turns literals and copies into the elements of a snappy block.

/// The farthest a copy of two offset bytes reaches.
pub(super) const COPY_OFFSET_MAX: usize = (1 << 16) - 1;
/// The shortest copy worth its element.
pub(super) const COPY_BYTES_MIN: usize = 4;

/// The longest copy of one element.
const COPY_BYTES_MAX: usize = 64;
/// A copy with one offset byte: at most so long, from nearer than that.
pub(super) const SHORT_COPY_BYTES_MAX: usize = 11;
pub(super) const SHORT_COPY_OFFSET_END: usize = 1 << 11;

const TAG_LITERAL: u8 = 0;
const TAG_COPY_1: u8 = 1;
const TAG_COPY_2: u8 = 2;

/// Literals up to here have their length in the tag.
const LITERAL_IN_TAG_MAX: usize = 60;

/// Appends `bytes` as they are.
pub(super) fn put_literal(out: &mut Vec<u8>, bytes: &[u8]) {
    let Some(last) = bytes.len().checked_sub(1) else {
        return;
    };
    if last < LITERAL_IN_TAG_MAX {
        out.push(low_byte(last) << 2 | TAG_LITERAL);
    } else {
        let length = (last as u64).to_le_bytes();
        let width = if last <= 0xff {
            1
        } else if last <= 0xffff {
            2
        } else {
            4
        };
        out.push(low_byte(LITERAL_IN_TAG_MAX - 1 + width) << 2 | TAG_LITERAL);
        out.extend_from_slice(&length[..width]);
    }
    out.extend_from_slice(bytes);
}

/// Appends copies of the `len` bytes that begin `offset` bytes ago.
pub(super) fn put_copy(out: &mut Vec<u8>, offset: usize, mut len: usize) {
    debug_assert!((1..=COPY_OFFSET_MAX).contains(&offset) && len >= COPY_BYTES_MIN);
    while len > COPY_BYTES_MAX {
        // what is left must still be worth an element
        let now = COPY_BYTES_MAX.min(len - COPY_BYTES_MIN);
        put_copy_2(out, offset, now);
        len -= now;
    }
    if len <= SHORT_COPY_BYTES_MAX && offset < SHORT_COPY_OFFSET_END {
        let high = low_byte(offset >> 8) << 5;
        out.push(high | low_byte(len - COPY_BYTES_MIN) << 2 | TAG_COPY_1);
        out.push(low_byte(offset));
    } else {
        put_copy_2(out, offset, len);
    }
}

fn put_copy_2(out: &mut Vec<u8>, offset: usize, len: usize) {
    out.push(low_byte(len - 1) << 2 | TAG_COPY_2);
    out.extend_from_slice(&[low_byte(offset), low_byte(offset >> 8)]);
}

pub(super) const fn low_byte(number: usize) -> u8 {
    number.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use labels::wire::{len_u64, put_varint};

    /// Also those where one form of a copy ends and the next begins.
    fn offset() -> impl Strategy<Value = usize> {
        prop_oneof![1..70_000_usize, 2040..2056_usize]
    }

    proptest! {
        #[test]
        fn snap_reads_what_was_meant(
            first in proptest::collection::vec(any::<u8>(), 1..70_000),
            copies in proptest::collection::vec((offset(), 4..300_usize, 0..9_usize), 0..20),
        ) {
            let mut plain = first.clone();
            let mut elements = Vec::new();
            put_literal(&mut elements, &first);
            for (offset, len, literal) in copies {
                let offset = offset.min(plain.len()).min(COPY_OFFSET_MAX);
                put_copy(&mut elements, offset, len);
                for _ in 0..len {
                    plain.push(plain[plain.len() - offset]);
                }
                put_literal(&mut elements, &first[..literal.min(first.len())]);
                plain.extend_from_slice(&first[..literal.min(first.len())]);
            }
            let mut block = Vec::new();
            put_varint(&mut block, len_u64(plain.len()));
            block.extend_from_slice(&elements);
            prop_assert_eq!(snap::raw::Decoder::new().decompress_vec(&block).unwrap(), plain);
        }
    }
}
