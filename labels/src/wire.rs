//! Turns numbers into protobuf varints and protobuf bytes into fields.
//!
//! Just enough of the format for copying messages whole: tags, lengths, nothing typed.
//!
//! # Failure
//! - Bytes that are no protobuf message end the walk with [`Malformed`]; nothing panics.

/// Field number 1, length-delimited.
pub const FIELD_1_BYTES: u8 = 0x0a;
/// Field number 2, length-delimited.
pub const FIELD_2_BYTES: u8 = 0x12;
/// Field number 3, length-delimited.
pub const FIELD_3_BYTES: u8 = 0x1a;
/// Field number 4, length-delimited.
pub const FIELD_4_BYTES: u8 = 0x22;
/// Field number 5, length-delimited.
pub const FIELD_5_BYTES: u8 = 0x2a;
/// Field number 1, varint.
pub const FIELD_1_VARINT: u8 = 0x08;
/// Field number 3, varint.
pub const FIELD_3_VARINT: u8 = 0x18;
/// Field number 4, varint.
pub const FIELD_4_VARINT: u8 = 0x20;
/// Field number 2, 64-bit.
pub const FIELD_2_FIXED64: u8 = 0x11;
/// Field number 1, 64-bit.
pub const FIELD_1_FIXED64: u8 = 0x09;
/// Field number 2, varint.
pub const FIELD_2_VARINT: u8 = 0x10;

/// The bytes are not a protobuf message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

/// The longest varint.
pub const VARINT_BYTES_MAX: usize = 10;

/// How many bytes `value` takes as a varint.
#[must_use]
pub const fn varint_len(value: u64) -> usize {
    // 7 bits per byte; `| 1` because zero takes a byte too
    ((63 - (value | 1).leading_zeros()) / 7 + 1) as usize
}

/// Writes `value` at the start of `out`, which must be long enough, and returns its length.
#[expect(clippy::cast_possible_truncation, reason = "seven bits at a time")]
pub fn write_varint(out: &mut [u8], mut value: u64) -> usize {
    let mut at = 0;
    while value >= 0x80 {
        out[at] = value as u8 | 0x80;
        value >>= 7;
        at += 1;
    }
    out[at] = value as u8;
    at + 1
}

/// Appends `value`.
pub fn put_varint(out: &mut Vec<u8>, value: u64) {
    let mut bytes = [0; VARINT_BYTES_MAX];
    let len = write_varint(&mut bytes, value);
    out.extend_from_slice(&bytes[..len]);
}

/// Appends a length-delimited field.
pub fn put_bytes(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    put_varint(out, len_u64(bytes.len()));
    out.extend_from_slice(bytes);
}

/// A length as a protobuf number.
#[must_use]
pub const fn len_u64(len: usize) -> u64 {
    len as u64
}

/// One field of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Value<'a> {
    /// A varint.
    Varint(u64),
    /// Bytes with their length before them.
    Bytes(&'a [u8]),
    /// 64 bits.
    Fixed64(u64),
    /// 32 bits, which nobody here looks into.
    Fixed,
}

/// Walks the fields of a message in wire order.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Walks this message.
    #[must_use]
    pub const fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// What comes after the fields walked so far.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next field: its number and value; `None` at the end.
    ///
    /// # Errors
    /// The bytes are no protobuf message.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator of results does not stop at the first error"
    )]
    pub fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => {
                let mut bits = [0; 8];
                bits.copy_from_slice(self.take(8)?);
                Value::Fixed64(u64::from_le_bytes(bits))
            }
            2 => {
                let len = self.varint()?;
                Value::Bytes(self.take(usize::try_from(len).map_err(|_| Malformed)?)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return Err(Malformed),
        };
        Ok(Some((tag >> 3, value)))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(Malformed)?;
        self.rest = rest;
        Ok(head)
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for (at, byte) in self.rest.iter().take(VARINT_BYTES_MAX).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[at + 1..];
                return Ok(value);
            }
        }
        Err(Malformed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn varints_agree_with_prost(value in prop_oneof![any::<u64>(), 0..300u64]) {
            let mut ours = Vec::new();
            put_varint(&mut ours, value);
            let mut theirs = Vec::new();
            prost::encoding::encode_varint(value, &mut theirs);
            prop_assert_eq!(varint_len(value), theirs.len());
            prop_assert_eq!(ours, theirs);
        }

        #[test]
        fn walking_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut fields = Fields::new(&bytes);
            while let Ok(Some(_)) = fields.next() {}
        }
    }

    #[test]
    fn fields_come_in_wire_order() {
        let bytes = [0x08, 0x96, 0x01, 0x12, 0x02, b'h', b'i', 0x1d, 1, 2, 3, 4];
        let mut fields = Fields::new(&bytes);
        assert_eq!(fields.next(), Ok(Some((1, Value::Varint(150)))));
        assert_eq!(fields.next(), Ok(Some((2, Value::Bytes(b"hi")))));
        assert_eq!(fields.next(), Ok(Some((3, Value::Fixed))));
        assert_eq!(fields.next(), Ok(None));
    }

    #[test]
    fn a_length_past_the_end_is_malformed() {
        assert_eq!(Fields::new(&[0x0a, 0x05, 1]).next(), Err(Malformed));
    }
}
