//! Turns the bytes of an exemplar, histogram or metadata message into a verdict.
//!
//! These messages go into the log as they came, so all there is to do is to make sure that every
//! receiver behind us can read them: one walk over the fields against a table of what each field
//! number holds. They are rare next to float samples; this is plain rather than fast.
//!
//! # Limits
//! - Nesting is bounded by the depth handed in, see `wire`.

use super::wire::{Cursor, Malformed, Wire};

/// What a field number holds.
#[derive(Clone, Copy)]
enum Field {
    Varint,
    Double,
    Text,
    Message(Shape),
    /// Repeated varints, packed or one by one.
    Varints,
    /// Repeated doubles, packed or one by one.
    Doubles,
}

/// The fields of a message type.
type Shape = fn(u32) -> Option<Field>;

/// The message types that are kept as bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Record {
    Exemplar,
    Histogram,
    /// With the start timestamp of remote write 2.0.
    HistogramV2,
    Metadata,
}

/// Whether the message is one of `record`: `Ok(false)` if it only fails in not being UTF-8.
pub(crate) fn check(record: Record, message: Cursor<'_>, depth: u32) -> Result<bool, Malformed> {
    let shape: Shape = match record {
        Record::Exemplar => exemplar,
        Record::Histogram => histogram,
        Record::HistogramV2 => histogram_v2,
        Record::Metadata => metadata,
    };
    walk(message, shape, depth)
}

fn exemplar(number: u32) -> Option<Field> {
    match number {
        1 => Some(Field::Message(label)),
        2 => Some(Field::Double),
        3 => Some(Field::Varint),
        _ => None,
    }
}

fn label(number: u32) -> Option<Field> {
    matches!(number, 1 | 2).then_some(Field::Text)
}

fn metadata(number: u32) -> Option<Field> {
    match number {
        1 => Some(Field::Varint),
        2 | 4 | 5 => Some(Field::Text),
        _ => None,
    }
}

fn histogram(number: u32) -> Option<Field> {
    match number {
        1 | 4 | 6 | 14 | 15 => Some(Field::Varint),
        2 | 3 | 5 | 7 => Some(Field::Double),
        8 | 11 => Some(Field::Message(bucket_span)),
        9 | 12 => Some(Field::Varints),
        10 | 13 | 16 => Some(Field::Doubles),
        _ => None,
    }
}

fn histogram_v2(number: u32) -> Option<Field> {
    match number {
        17 => Some(Field::Varint),
        _ => histogram(number),
    }
}

fn bucket_span(number: u32) -> Option<Field> {
    matches!(number, 1 | 2).then_some(Field::Varint)
}

fn walk(mut message: Cursor<'_>, shape: Shape, depth: u32) -> Result<bool, Malformed> {
    let mut is_utf8 = true;
    while !message.is_done() {
        let key = message.key()?;
        let Some(field) = shape(key.number) else {
            message.skip(key, depth)?;
            continue;
        };
        match field {
            Field::Varints if key.wire == Wire::Bytes => {
                let mut packed = message.message()?;
                while !packed.is_done() {
                    packed.varint()?;
                }
            }
            Field::Doubles if key.wire == Wire::Bytes => {
                let mut packed = message.message()?;
                while !packed.is_done() {
                    packed.fixed64()?;
                }
            }
            Field::Varint | Field::Varints => {
                key.expect(Wire::Varint)?;
                message.varint()?;
            }
            Field::Double | Field::Doubles => {
                key.expect(Wire::Fixed64)?;
                message.fixed64()?;
            }
            Field::Text => {
                key.expect(Wire::Bytes)?;
                let span = message.span()?;
                is_utf8 &= std::str::from_utf8(message.slice(span)).is_ok();
            }
            Field::Message(inner) => {
                key.expect(Wire::Bytes)?;
                is_utf8 &= walk(message.message()?, inner, depth.saturating_sub(1))?;
            }
        }
    }
    Ok(is_utf8)
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::super::wire::DEPTH_MAX;
    use super::*;
    use crate::proto;

    fn verdict(record: Record, bytes: &[u8]) -> Result<bool, Malformed> {
        check(record, Cursor::over(bytes, 0..bytes.len()), DEPTH_MAX - 2)
    }

    #[test]
    fn a_full_histogram_is_accepted() {
        let histogram = proto::Histogram {
            count: Some(proto::Count::Int(7)),
            sum: 1.5,
            schema: -4,
            zero_threshold: 1e-9,
            zero_count: Some(proto::ZeroCount::Float(0.5)),
            negative_spans: vec![proto::BucketSpan {
                offset: -3,
                length: 2,
            }],
            negative_deltas: vec![1, -1],
            negative_counts: vec![1.0],
            positive_spans: vec![proto::BucketSpan {
                offset: 3,
                length: 1,
            }],
            positive_deltas: vec![i64::MIN],
            positive_counts: vec![0.1, 0.2],
            reset_hint: 3,
            timestamp: 1_700_000_000_000,
            custom_values: vec![1.0, 2.0],
        };
        assert_eq!(
            verdict(Record::Histogram, &histogram.encode_to_vec()),
            Ok(true)
        );
    }

    #[test]
    fn repeated_numbers_are_accepted_packed_and_one_by_one() {
        assert_eq!(
            verdict(Record::Histogram, &[0x4a, 2, 1, 2, 0x48, 3]),
            Ok(true)
        );
        let mut doubles = vec![0x51];
        doubles.extend([0; 8]);
        doubles.extend([0x52, 8]);
        doubles.extend([0; 8]);
        assert_eq!(verdict(Record::Histogram, &doubles), Ok(true));
    }

    #[test]
    fn a_cut_packed_double_is_malformed() {
        assert!(verdict(Record::Histogram, &[0x52, 7, 0, 0, 0, 0, 0, 0, 0]).is_err());
    }

    #[test]
    fn a_known_field_of_another_wire_type_is_malformed() {
        assert!(verdict(Record::Exemplar, &[0x10, 1]).is_err());
        assert!(verdict(Record::Metadata, &[0x0b, 0x0c]).is_err());
    }

    #[test]
    fn text_that_is_not_utf8_is_told_apart_from_malformed_bytes() {
        assert_eq!(verdict(Record::Metadata, &[0x12, 1, 0xff]), Ok(false));
        assert_eq!(
            verdict(Record::Exemplar, &[0x0a, 3, 0x0a, 1, 0xff]),
            Ok(false)
        );
    }
}
