//! Reads and writes fixed-width little-endian integers at offsets of a byte slice, and finds what is
//! not zero, or begins with a magic number.
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

/// The first 8-byte boundary whose word begins with `magic`.
pub(crate) fn next_magic(bytes: &[u8], magic: u32) -> Option<usize> {
    const BLOCK: usize = 4096;
    let magic = magic.to_le_bytes();
    let begins = |word: &[u8]| word[..4] == magic;
    for (block_at, block) in (0..).step_by(BLOCK).zip(bytes.chunks(BLOCK)) {
        let (words, _) = block.as_chunks::<8>();
        // A fold over a whole block runs as wide as the machine allows.
        if words.iter().fold(false, |any, word| any | begins(word)) {
            let word = words.iter().position(|word| begins(word))?;
            return Some(block_at + word * 8);
        }
    }
    None
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
