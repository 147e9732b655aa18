//! Turns a snappy block into the bytes it stands for, into a buffer that is reused; and bytes into a block.
//!
//! # Limits
//! - The length a block claims is checked before memory is touched: against the configured limit,
//!   and against what that many compressed bytes can possibly hold.

/// No snappy element makes more of its bytes: a copy of 64 bytes takes 3.
const EXPANSION_MAX: usize = 22;

/// Why a block was not decompressed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Refused {
    /// It claims to be longer than allowed.
    TooLong {
        /// What it claims.
        claimed: usize,
    },
    /// It is no snappy block.
    Broken(String),
}

/// The length `block` claims to decompress to, at most `length_max`.
pub(crate) fn claimed_length(block: &[u8], length_max: usize) -> Result<usize, Refused> {
    if block.is_empty() {
        return Err(Refused::Broken("the body is empty".into()));
    }
    let claimed = snap::raw::decompress_len(block).map_err(|e| Refused::Broken(e.to_string()))?;
    if claimed > length_max {
        return Err(Refused::TooLong { claimed });
    }
    if claimed / EXPANSION_MAX > block.len() {
        return Err(Refused::Broken(format!(
            "{} bytes cannot decompress to the claimed {claimed}",
            block.len()
        )));
    }
    Ok(claimed)
}

/// Decompresses `block`; the result is the first `claimed` bytes of `out`, which only grows.
pub(crate) fn decompress<'o>(
    block: &[u8],
    claimed: usize,
    out: &'o mut Vec<u8>,
) -> Result<&'o [u8], Refused> {
    if out.len() < claimed {
        out.resize(claimed, 0);
    }
    let length = snap::raw::Decoder::new()
        .decompress(block, out)
        .map_err(|e| Refused::Broken(e.to_string()))?;
    Ok(out.get(..length).unwrap_or_default())
}

/// `bytes` as a block. Of more than 4 GiB nothing, which is no block.
pub(crate) fn compress(bytes: &[u8]) -> Vec<u8> {
    let block = snap::raw::Encoder::new().compress_vec(bytes);
    block.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    use compress as compressed;

    #[test]
    fn blocks_come_back_as_they_were_and_the_buffer_is_reused() {
        let mut out = Vec::new();
        for bytes in [&b"hello hello hello"[..], &[7; 100_000], b"", b"x"] {
            let block = compressed(bytes);
            let claimed = claimed_length(&block, 1 << 20).unwrap();
            assert_eq!(decompress(&block, claimed, &mut out).unwrap(), bytes);
        }
        assert_eq!(out.len(), 100_000);
    }

    #[test]
    fn the_most_compressible_input_is_not_taken_for_a_lie() {
        let block = compressed(&vec![0; 8 << 20]);
        assert_eq!(claimed_length(&block, 8 << 20), Ok(8 << 20));
    }

    #[test]
    fn a_long_claim_is_refused_before_memory_is_touched() {
        let block = compressed(&[0; 1000]);
        assert_eq!(
            claimed_length(&block, 999),
            Err(Refused::TooLong { claimed: 1000 })
        );
    }

    #[test]
    fn a_claim_beyond_what_the_bytes_can_hold_is_refused() {
        let claim_of_16_mib = [0x80, 0x80, 0x80, 0x08, 0];
        assert!(matches!(
            claimed_length(&claim_of_16_mib, 32 << 20),
            Err(Refused::Broken(_))
        ));
    }

    #[test]
    fn empty_and_broken_blocks_are_refused() {
        assert!(matches!(claimed_length(&[], 10), Err(Refused::Broken(_))));
        assert!(matches!(
            claimed_length(&[0xff; 12], 10),
            Err(Refused::Broken(_))
        ));
        let mut out = Vec::new();
        assert!(matches!(
            decompress(&[5, 0, 0], 5, &mut out),
            Err(Refused::Broken(_))
        ));
    }
}
