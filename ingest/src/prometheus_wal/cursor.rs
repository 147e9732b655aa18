//! Turns the bytes of a record into numbers and strings: big-endian, varints as in protobuf.

/// The record ends too early, or a number is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Broken;

/// A reader over a record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn is_done(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Broken> {
        let (first, rest) = self.0.split_first().ok_or(Broken)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Broken> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or(Broken)?;
        self.0 = rest;
        Ok(bytes)
    }

    #[expect(clippy::big_endian_bytes, reason = "the format is Prometheus's")]
    pub(crate) fn fixed64(&mut self) -> Result<u64, Broken> {
        let (bytes, rest) = self.0.split_first_chunk::<8>().ok_or(Broken)?;
        self.0 = rest;
        Ok(u64::from_be_bytes(*bytes))
    }

    /// Eight bytes that are a float; the bits stay as they are.
    pub(crate) fn double(&mut self) -> Result<f64, Broken> {
        self.fixed64().map(f64::from_bits)
    }

    pub(crate) fn uvarint(&mut self) -> Result<u64, Broken> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                return Err(Broken);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Broken)
    }

    /// Zigzag: small negative numbers are short.
    pub(crate) fn varint(&mut self) -> Result<i64, Broken> {
        let zigzag = self.uvarint()?;
        Ok((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed())
    }

    /// A count of things that follow. Each takes at least a byte, so a count beyond what is left is
    /// a lie, and nobody has to reserve memory for it.
    pub(crate) fn count(&mut self) -> Result<usize, Broken> {
        let count = usize::try_from(self.uvarint()?).map_err(|_| Broken)?;
        (count <= self.0.len()).then_some(count).ok_or(Broken)
    }

    pub(crate) fn string(&mut self) -> Result<&'a [u8], Broken> {
        let length = self.count()?;
        self.bytes(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_of_every_length_are_read() {
        for shift in 0..64 {
            for value in [1u64 << shift, u64::MAX >> shift] {
                let mut bytes = Vec::new();
                prost::encoding::encode_varint(value, &mut bytes);
                assert_eq!(Cursor::new(&bytes).uvarint(), Ok(value));
                let signed = value.cast_signed();
                let zigzag = ((signed << 1) ^ (signed >> 63)).cast_unsigned();
                bytes.clear();
                prost::encoding::encode_varint(zigzag, &mut bytes);
                assert_eq!(Cursor::new(&bytes).varint(), Ok(signed));
            }
        }
    }

    #[test]
    fn what_ends_too_early_is_broken() {
        assert_eq!(Cursor::new(&[0xff; 9]).uvarint(), Err(Broken));
        assert_eq!(Cursor::new(&[0xff; 11]).uvarint(), Err(Broken));
        assert_eq!(Cursor::new(&[0; 7]).fixed64(), Err(Broken));
        assert_eq!(Cursor::new(&[5, b'a', b'b']).string(), Err(Broken));
    }
}
