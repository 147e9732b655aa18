//! Reads and writes fixed-width little-endian integers at offsets of a byte slice, and finds what is
//! not zero.
//!
//! Offsets come from constants of the format or were checked by the caller; a short slice is a bug
//! and panics.

pub(crate) fn get_u32(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

pub(crate) fn get_u64(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

pub(crate) fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// The next multiple of 8.
pub(crate) const fn align_8(bytes: usize) -> usize {
    (bytes + 7) & !7
}

/// The next 8-byte boundary from `at` (itself one) on whose word is not zero.
pub(crate) fn next_nonzero(bytes: &[u8], at: usize) -> Option<usize> {
    const BLOCK: usize = 4096;
    let mut from = at;
    for block in bytes[at..].chunks(BLOCK) {
        // A fold over a whole block runs as wide as the machine allows.
        if block.iter().fold(0, |any, &b| any | b) != 0 {
            let word = block
                .chunks(8)
                .position(|word| word.iter().any(|&b| b != 0))?;
            return Some(from + word * 8);
        }
        from += BLOCK;
    }
    None
}
