//! Turns remote-write 1.0 messages into samples, and fields into protobuf bytes.
//!
//! Deliberately not the decoder of the agent: what one of them reads wrongly, the other must not.
//! Understands what senders write (labels first, then samples), and calls anything else malformed.

use std::fmt;

use super::fleet::ID_LABEL;

/// One sample as it arrived.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Seen<'a> {
    /// All label fields of the series.
    pub(super) labels: &'a [u8],
    /// What the series' `series_id` label says, if it has one.
    pub(super) series: Option<u32>,
    /// The value.
    pub(super) value: f64,
    /// The timestamp.
    pub(super) timestamp_ms: i64,
}

/// Bytes that are not a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a remote-write 1.0 request")
    }
}

/// Calls `each` with every sample of the request, in order.
pub(super) fn for_each_sample<'a>(
    message: &'a [u8],
    mut each: impl FnMut(Seen<'a>),
) -> Result<(), Malformed> {
    let mut request = Reader(message);
    while let Some(field) = request.field()? {
        if let (1, Field::Bytes(series)) = field {
            read_series(series, &mut each)?;
        }
    }
    Ok(())
}

fn read_series<'a>(message: &'a [u8], each: &mut impl FnMut(Seen<'a>)) -> Result<(), Malformed> {
    let mut reader = Reader(message);
    let mut labels_end = 0;
    let mut samples_begun = false;
    let mut series = None;
    while let Some(field) = reader.field()? {
        match field {
            (1, Field::Bytes(_)) if samples_begun => return Err(Malformed),
            (1, Field::Bytes(label)) => {
                labels_end = message.len() - reader.0.len();
                series = series.or(id_of(label)?);
            }
            (2, Field::Bytes(sample)) => {
                samples_begun = true;
                let (value, timestamp_ms) = read_sample(sample)?;
                each(Seen {
                    labels: message.get(..labels_end).ok_or(Malformed)?,
                    series,
                    value,
                    timestamp_ms,
                });
            }
            _ => {}
        }
    }
    Ok(())
}

/// The number in the label, if it is the one that names the series.
fn id_of(label: &[u8]) -> Result<Option<u32>, Malformed> {
    let mut reader = Reader(label);
    let Some((1, Field::Bytes(name))) = reader.field()? else {
        return Err(Malformed);
    };
    if name != ID_LABEL.as_bytes() {
        return Ok(None);
    }
    let Some((2, Field::Bytes(value))) = reader.field()? else {
        return Err(Malformed);
    };
    Ok(std::str::from_utf8(value)
        .ok()
        .and_then(|digits| digits.parse().ok()))
}

fn read_sample(sample: &[u8]) -> Result<(f64, i64), Malformed> {
    let mut reader = Reader(sample);
    let (mut value, mut timestamp_ms) = (0.0, 0);
    while let Some(field) = reader.field()? {
        match field {
            (1, Field::Fixed64(bits)) => value = f64::from_bits(bits),
            (2, Field::Varint(bits)) => timestamp_ms = bits.cast_signed(),
            _ => {}
        }
    }
    Ok((value, timestamp_ms))
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Field<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
}

/// What is left of a message.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The next field and its number; `None` at the end.
    fn field(&mut self) -> Result<Option<(u64, Field<'a>)>, Malformed> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let field = match key & 7 {
            0 => Field::Varint(self.varint()?),
            1 => {
                let (bytes, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
                self.0 = rest;
                Field::Fixed64(u64::from_le_bytes(*bytes))
            }
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
                let (bytes, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
                self.0 = rest;
                Field::Bytes(bytes)
            }
            _ => return Err(Malformed),
        };
        Ok(Some((key >> 3, field)))
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(Malformed)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }
}

/// Appends a varint.
pub(super) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value > 0x7f {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// Appends a length-delimited field.
pub(super) fn put_bytes(key: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(key);
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use ingest::proto::WriteRequest;
    use prost::Message;

    use super::super::fleet::Fleet;
    use super::*;

    fn request() -> (Fleet, Vec<u8>) {
        let fleet = Fleet::new(300, 1_700_000_000_000);
        let mut message = Vec::new();
        fleet.encode(0, 7, &mut message);
        (fleet, message)
    }

    #[test]
    fn what_is_encoded_is_what_a_protobuf_library_reads() {
        let (_, message) = request();
        let read = WriteRequest::decode(message.as_slice()).unwrap();
        assert_eq!(read.timeseries.len(), 300);
        for (number, series) in read.timeseries.iter().enumerate() {
            let id = series.labels.iter().find(|label| label.name == ID_LABEL);
            assert_eq!(id.unwrap().value, number.to_string());
            assert_eq!(series.samples.len(), 1);
            assert_eq!(series.samples[0].value, 7.0);
            assert_eq!(series.samples[0].timestamp, 1_700_000_001_750);
        }
        assert_eq!(read.encode_to_vec(), message);
    }

    #[test]
    fn every_sample_is_seen_with_its_series_labels_value_and_time() {
        let (fleet, message) = request();
        let mut seen = Vec::new();
        for_each_sample(&message, |sample| seen.push(sample)).unwrap();
        assert_eq!(seen.len(), 300);
        for (number, sample) in (0..).zip(seen) {
            let expected = Seen {
                labels: fleet.labels(number).unwrap(),
                series: Some(number),
                value: 7.0,
                timestamp_ms: 1_700_000_001_750,
            };
            assert_eq!(sample, expected);
        }
    }

    #[test]
    fn a_cut_request_is_malformed_or_has_fewer_samples() {
        let (_, message) = request();
        for end in 0..message.len().min(2_000) {
            let mut count = 0;
            if for_each_sample(&message[..end], |_| count += 1).is_ok() {
                assert!(count < 300);
            }
        }
    }
}
