//! Turns a native histogram of a WAL record into the message of remote write.

use super::cursor::{Broken, Cursor};
use crate::proto::{self, BucketSpan, Count, ZeroCount};

/// The schema of histograms with bounds of their own.
const CUSTOM_BUCKETS: i32 = -53;

/// Whether counts are integers, with buckets as differences, or floats.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Counts {
    Int,
    Float,
}

/// Reads what follows ref and time of a histogram.
pub(crate) fn histogram(
    cursor: &mut Cursor<'_>,
    counts: Counts,
    timestamp: i64,
) -> Result<proto::Histogram, Broken> {
    let reset_hint = i32::from(cursor.byte()?);
    let schema = int32(cursor.varint()?)?;
    let zero_threshold = cursor.double()?;
    let (zero_count, count) = match counts {
        Counts::Int => {
            let zero = ZeroCount::Int(cursor.uvarint()?);
            (zero, Count::Int(cursor.uvarint()?))
        }
        Counts::Float => {
            let zero = ZeroCount::Float(cursor.double()?);
            (zero, Count::Float(cursor.double()?))
        }
    };
    let sum = cursor.double()?;
    let positive_spans = many(cursor, span)?;
    let negative_spans = many(cursor, span)?;
    let mut message = proto::Histogram {
        count: Some(count),
        sum,
        schema,
        zero_threshold,
        zero_count: Some(zero_count),
        negative_spans,
        positive_spans,
        reset_hint,
        timestamp,
        ..Default::default()
    };
    match counts {
        Counts::Int => {
            message.positive_deltas = many(cursor, Cursor::varint)?;
            message.negative_deltas = many(cursor, Cursor::varint)?;
        }
        Counts::Float => {
            message.positive_counts = many(cursor, Cursor::double)?;
            message.negative_counts = many(cursor, Cursor::double)?;
        }
    }
    if schema == CUSTOM_BUCKETS {
        message.custom_values = many(cursor, Cursor::double)?;
    }
    Ok(message)
}

fn span(cursor: &mut Cursor<'_>) -> Result<BucketSpan, Broken> {
    Ok(BucketSpan {
        offset: int32(cursor.varint()?)?,
        length: u32::try_from(cursor.uvarint()?).map_err(|_| Broken)?,
    })
}

fn int32(value: i64) -> Result<i32, Broken> {
    i32::try_from(value).map_err(|_| Broken)
}

/// A count and that many things.
fn many<'a, T>(
    cursor: &mut Cursor<'a>,
    one: impl Fn(&mut Cursor<'a>) -> Result<T, Broken>,
) -> Result<Vec<T>, Broken> {
    let count = cursor.count()?;
    (0..count).map(|_| one(cursor)).collect()
}
