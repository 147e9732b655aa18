//! Turns the protobuf bytes of a remote-write 1.0 `WriteRequest` into a batch.
//!
//! One pass, nothing allocated once the buffers have grown. What nearly every series looks like
//! (predicted labels, then samples of value and six-byte timestamp) is recognised by its bytes;
//! everything else valid goes through the general walk and comes out the same.
//!
//! # Invariants
//! - The verdict on well-formedness is prost's, but for the limits below and two exceptions: text that
//!   is not UTF-8 refuses its series (or record), not the request; and the label bytes of a predicted or known
//!   series are not parsed again, because equal bytes were parsed when the series was defined.
//! - A series brings nothing to the batch if it is refused; a series that brings nothing is not
//!   resolved and so never defined.
//!
//! # Limits
//! - [`ITEMS_MAX`] samples and records of unusual layout, [`FIELDS_MAX`] pieces of labels per
//!   series. Without them a crafted request would take twenty times its size in memory. Usual
//!   samples are bounded by the size of the request.
//!
//! # Failure
//! - Malformed bytes end the scan; the batch then holds what came before and must not be used.

use std::ops::Range;

use wal::{RecordKind, Sample, SeriesRef};

use super::labels::{LABEL_TAG, Reason};
use super::records::{self, Record};
use super::wire::{Cursor, DEPTH_MAX, Malformed, Wire};
use super::{Batch, Brought, NotAllowed, RecordAt, Resolve, Slot};

/// Most samples, exemplars, histograms and metadata of one request that are not laid out as usual.
pub const ITEMS_MAX: usize = 1 << 20;

/// Most pieces the labels of one series may come in.
pub const FIELDS_MAX: usize = 1 << 14;

/// Scans a request and appends what it holds to `batch`.
///
/// `fields` is a spare buffer.
///
/// # Errors
///
/// The bytes are no `WriteRequest`.
pub fn scan(
    body: &[u8],
    resolve: &mut impl Resolve,
    batch: &mut Batch,
    fields: &mut Vec<Range<usize>>,
) -> Result<(), Malformed> {
    let mut request = Cursor::over(body, 0..body.len());
    while !request.is_done() {
        let key = request.key()?;
        match key.number {
            1 => {
                key.expect(Wire::Bytes)?;
                let message = request.message()?;
                if !predicted_series(message, resolve, batch)? {
                    any_series(body, message, resolve, batch, fields)?;
                }
            }
            3 => {
                key.expect(Wire::Bytes)?;
                metadata(&mut request, batch)?;
            }
            _ => request.skip(key, DEPTH_MAX)?,
        }
    }
    Ok(())
}

/// Takes a series whose labels are the predicted ones; `false` if they are not, with the batch
/// as it was.
#[inline]
fn predicted_series(
    mut message: Cursor<'_>,
    resolve: &mut impl Resolve,
    batch: &mut Batch,
) -> Result<bool, Malformed> {
    let Some((series, label_bytes)) = resolve.predicted(message.rest()) else {
        return Ok(false);
    };
    message.advance(label_bytes);
    let before = batch.samples.len();
    while let Some((sample, length)) = usual_sample(message.rest(), series) {
        batch.samples.push(sample);
        message.advance(length);
    }
    if message.is_done() {
        return Ok(true);
    }
    if has_label(message)? {
        // More labels further on: this is another label set after all.
        batch.samples.truncate(before);
        return Ok(false);
    }
    while !message.is_done() {
        other_field(&mut message, series, batch)?;
    }
    Ok(true)
}

/// Whether one of the fields left in a series is a label.
fn has_label(mut message: Cursor<'_>) -> Result<bool, Malformed> {
    while !message.is_done() {
        let key = message.key()?;
        if key.number == 1 {
            return Ok(true);
        }
        message.skip(key, DEPTH_MAX - 1)?;
    }
    Ok(false)
}

/// Takes a series of any layout.
fn any_series(
    body: &[u8],
    mut message: Cursor<'_>,
    resolve: &mut impl Resolve,
    batch: &mut Batch,
    fields: &mut Vec<Range<usize>>,
) -> Result<(), Malformed> {
    let (samples, records) = (batch.samples.len(), batch.records.len());
    fields.clear();
    let start = message.at();
    while message.rest().first() == Some(&LABEL_TAG) {
        message.advance(1);
        message.span()?;
    }
    fields.push(start..message.at());
    while !message.is_done() {
        if let Some((sample, length)) = usual_sample(message.rest(), SeriesRef::NONE) {
            batch.samples.push(sample);
            message.advance(length);
        } else if let Some(label) = other_field(&mut message, SeriesRef::NONE, batch)? {
            if fields.len() >= FIELDS_MAX {
                return Err(message.malformed("labels of a series in too many pieces"));
            }
            fields.push(label);
        }
    }
    let brought = Brought {
        samples: samples..batch.samples.len(),
        records: records..batch.records.len(),
    };
    if brought.is_empty() {
        return super::labels::LabelSet::default().read(body, fields);
    }
    match resolve.resolve(body, fields, &brought)? {
        Ok(Slot::Known(series)) => brought.assign(series, batch),
        Ok(Slot::New) => {}
        Err(not_allowed) => {
            batch.refused.add(not_allowed, brought.count());
            batch.samples.truncate(samples);
            batch.records.truncate(records);
        }
    }
    Ok(())
}

/// The sample at the start of `bytes` and its length, if it is laid out as nearly all are: value
/// (left out when zero), then a timestamp of six varint bytes (from 1971 to 3084).
#[inline]
pub(super) fn usual_sample(bytes: &[u8], series: SeriesRef) -> Option<(Sample, usize)> {
    if let Some(sample) = bytes.first_chunk::<18>()
        && sample[..3] == [0x12, 16, 0x09]
        && sample[11] == 0x10
    {
        let [_, _, _, v0, v1, v2, v3, v4, v5, v6, v7, _, t @ ..] = *sample;
        let value_bits = u64::from_le_bytes([v0, v1, v2, v3, v4, v5, v6, v7]);
        let timestamp_ms = six_byte_varint(t)?;
        return Some((
            Sample {
                series,
                timestamp_ms,
                value_bits,
            },
            18,
        ));
    }
    let sample = bytes.first_chunk::<9>()?;
    if sample[..3] != [0x12, 7, 0x10] {
        return None;
    }
    let [_, _, _, t @ ..] = *sample;
    Some((
        Sample {
            series,
            timestamp_ms: six_byte_varint(t)?,
            value_bits: 0,
        },
        9,
    ))
}

/// The value of a varint of exactly six bytes.
#[inline]
fn six_byte_varint([a, b, c, d, e, f]: [u8; 6]) -> Option<i64> {
    let word = i64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
    if word & 0x8080_8080_8080 != 0x0080_8080_8080 {
        return None;
    }
    Some(
        word & 0x7f
            | word >> 1 & 0x7f << 7
            | word >> 2 & 0x7f << 14
            | word >> 3 & 0x7f << 21
            | word >> 4 & 0x7f << 28
            | word >> 5 & 0x7f << 35,
    )
}

/// Takes one field of a series in the general way. A label is not taken but returned, with tag
/// and length.
fn other_field(
    message: &mut Cursor<'_>,
    series: SeriesRef,
    batch: &mut Batch,
) -> Result<Option<Range<usize>>, Malformed> {
    let start = message.at();
    let key = message.key()?;
    match key.number {
        1..=4 => key.expect(Wire::Bytes)?,
        _ => {
            message.skip(key, DEPTH_MAX - 1)?;
            return Ok(None);
        }
    }
    let span = message.span()?;
    if key.number == 1 {
        return Ok(Some(start..message.at()));
    }
    has_room(batch, start)?;
    let inner = Cursor::over(message.slice(0..span.end), span.clone());
    match key.number {
        2 => batch.samples.push(any_sample(inner, series)?),
        3 => keep(Record::Exemplar, inner, span, series, batch)?,
        _ => keep(Record::Histogram, inner, span, series, batch)?,
    }
    Ok(None)
}

/// Refuses a request of very many tiny messages.
pub(super) fn has_room(batch: &Batch, offset: usize) -> Result<(), Malformed> {
    if batch.samples.len() + batch.records.len() < ITEMS_MAX {
        return Ok(());
    }
    Err(Malformed {
        offset,
        what: "more than 1048576 samples and other messages in one request",
    })
}

/// A `Sample` message of any layout: fields left out are 0, repeated ones count the last time.
fn any_sample(mut message: Cursor<'_>, series: SeriesRef) -> Result<Sample, Malformed> {
    let mut sample = Sample {
        series,
        timestamp_ms: 0,
        value_bits: 0,
    };
    while !message.is_done() {
        let key = message.key()?;
        match key.number {
            1 => {
                key.expect(Wire::Fixed64)?;
                sample.value_bits = message.fixed64()?;
            }
            2 => {
                key.expect(Wire::Varint)?;
                sample.timestamp_ms = message.varint()?.cast_signed();
            }
            _ => message.skip(key, DEPTH_MAX - 2)?,
        }
    }
    Ok(sample)
}

/// Keeps a message as it came, if it is well-formed; one that is not UTF-8 is refused alone.
fn keep(
    record: Record,
    message: Cursor<'_>,
    bytes: Range<usize>,
    series: SeriesRef,
    batch: &mut Batch,
) -> Result<(), Malformed> {
    let (kind, name, depth) = match record {
        Record::Exemplar => (RecordKind::Exemplar, "exemplar", DEPTH_MAX - 2),
        Record::Histogram | Record::HistogramV2 => {
            (RecordKind::Histogram, "histogram", DEPTH_MAX - 2)
        }
        Record::Metadata => (RecordKind::Metadata, "metadata", DEPTH_MAX - 1),
    };
    if records::check(record, message, depth)? {
        batch.records.push(RecordAt {
            series,
            kind,
            bytes,
        });
    } else {
        let shown = format!("{name} at byte {}", bytes.start);
        batch.refused.add(
            NotAllowed {
                reason: Reason::InvalidUtf8,
                shown,
            },
            1,
        );
    }
    Ok(())
}

fn metadata(request: &mut Cursor<'_>, batch: &mut Batch) -> Result<(), Malformed> {
    has_room(batch, request.at())?;
    let span = request.span()?;
    let inner = Cursor::over(request.slice(0..span.end), span.clone());
    keep(Record::Metadata, inner, span, SeriesRef::NONE, batch)
}

#[cfg(any(test, fuzzing))]
pub mod fuzz;

#[cfg(test)]
mod tests;
