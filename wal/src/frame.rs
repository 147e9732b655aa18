//! Turns samples and raw records into the checksummed bytes of a frame and back.
//!
//! Pure: no file, no clock. Recovery, tail and inspection share this one decoder.
//!
//! # On disk
//! `docs/format.md`, "Segment: frames". The header's crc covers the position and the segment's
//! salt, so that neither recycled blocks nor bytes crafted by a sender pass for a frame.
//!
//! # Failure
//! [`FrameHeader::decode`] answers `None` for anything that is not a whole, valid header at this
//! place. A body is only looked at after its crc was checked ([`FrameHeader::body_is_whole`]); what
//! still makes no sense then is [`Error::Malformed`], never a panic.

use crate::bytes::{align_8, get_u32, get_u64, put_u32, put_u64};
use crate::{Error, Position, RawRecord, RecordKind, Sample, SeriesRef};

/// Bytes of a frame header.
pub(crate) const FRAME_HEADER_BYTES: usize = 64;
pub(crate) const FRAME_MAGIC: u32 = 0x3152_4650;
/// Most bytes one encoded sample takes: control, ref, timestamp, value.
const SAMPLE_BYTES_MAX: usize = 1 + 4 + 8 + 8;
/// Kind, ref and length in front of a raw record's bytes.
const RAW_HEADER_BYTES: usize = 9;

pub(crate) mod field {
    //! Offsets of the header's fields.
    pub(crate) const MAGIC: usize = 0;
    pub(crate) const KIND: usize = MAGIC + 4;
    pub(crate) const BODY_BYTES: usize = KIND + 4;
    pub(crate) const SAMPLE_COUNT: usize = BODY_BYTES + 4;
    pub(crate) const RAW_COUNT: usize = SAMPLE_COUNT + 4;
    pub(crate) const BODY_CRC: usize = RAW_COUNT + 4;
    pub(crate) const POSITION: usize = BODY_CRC + 4;
    pub(crate) const SALT: usize = POSITION + 8;
    pub(crate) const RECORDS_BEFORE: usize = SALT + 8;
    pub(crate) const APPENDED_MS: usize = RECORDS_BEFORE + 8;
    pub(crate) const UNSYNCED_BYTES: usize = APPENDED_MS + 8;
    pub(crate) const CRC: usize = UNSYNCED_BYTES + 4;
    pub(crate) const END: usize = CRC + 4;
}

const _: () = assert!(field::END == FRAME_HEADER_BYTES);

/// What a frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FrameKind {
    Data = 1,
    /// The rest of the segment is unused.
    End = 2,
}

/// The header of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FrameHeader {
    pub(crate) kind: FrameKind,
    pub(crate) body_bytes: u32,
    pub(crate) sample_count: u32,
    pub(crate) raw_count: u32,
    pub(crate) body_crc: u32,
    pub(crate) position: Position,
    pub(crate) salt: u64,
    /// Records of all frames before this one, since the birth of the store. What a reader misses
    /// between two frames is the difference.
    pub(crate) records_before: u64,
    pub(crate) durable: Position,
    pub(crate) appended_ms: i64,
}

/// What all frames of one request share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stamp {
    pub(crate) durable: Position,
    pub(crate) appended_ms: i64,
}

impl FrameHeader {
    /// The header that closes a segment.
    pub(crate) const fn end(
        position: Position,
        salt: u64,
        records_before: u64,
        stamp: Stamp,
    ) -> Self {
        Self {
            kind: FrameKind::End,
            body_bytes: 0,
            sample_count: 0,
            raw_count: 0,
            body_crc: 0,
            position,
            salt,
            records_before,
            durable: stamp.durable,
            appended_ms: stamp.appended_ms,
        }
    }

    /// Whether it holds records.
    pub(crate) fn is_data(&self) -> bool {
        self.kind == FrameKind::Data
    }

    /// Records of this frame: samples and raw records.
    pub(crate) const fn records(&self) -> u64 {
        self.sample_count as u64 + self.raw_count as u64
    }

    /// Records of all frames up to the end of this one, since the birth of the store.
    pub(crate) const fn records_after(&self) -> u64 {
        self.records_before.saturating_add(self.records())
    }

    /// Bytes of the whole frame with padding.
    pub(crate) const fn frame_bytes(&self) -> u64 {
        frame_bytes(self.body_bytes as usize)
    }

    pub(crate) fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let mut out = [0; FRAME_HEADER_BYTES];
        put_u32(&mut out, field::MAGIC, FRAME_MAGIC);
        out[field::KIND] = self.kind as u8;
        put_u32(&mut out, field::BODY_BYTES, self.body_bytes);
        put_u32(&mut out, field::SAMPLE_COUNT, self.sample_count);
        put_u32(&mut out, field::RAW_COUNT, self.raw_count);
        put_u32(&mut out, field::BODY_CRC, self.body_crc);
        put_u64(&mut out, field::POSITION, self.position.get());
        put_u64(&mut out, field::SALT, self.salt);
        put_u64(&mut out, field::RECORDS_BEFORE, self.records_before);
        let appended_ms = self.appended_ms.cast_unsigned();
        put_u64(&mut out, field::APPENDED_MS, appended_ms);
        let unsynced = u32::try_from(self.position.bytes_since(self.durable));
        let unsynced = unsynced.expect("ring and segment are limited far below 4 GiB");
        put_u32(&mut out, field::UNSYNCED_BYTES, unsynced);
        let crc = crc32fast::hash(&out[..field::CRC]);
        put_u32(&mut out, field::CRC, crc);
        out
    }

    /// The header at the start of `bytes`, if it is whole, valid, and belongs here.
    pub(crate) fn decode(bytes: &[u8], position: Position, salt: u64) -> Option<Self> {
        let bytes = bytes.get(..FRAME_HEADER_BYTES)?;
        if get_u32(bytes, field::MAGIC) != FRAME_MAGIC
            || get_u64(bytes, field::POSITION) != position.get()
            || get_u64(bytes, field::SALT) != salt
            || crc32fast::hash(&bytes[..field::CRC]) != get_u32(bytes, field::CRC)
        {
            return None;
        }
        let kind = match bytes[field::KIND] {
            1 => FrameKind::Data,
            2 => FrameKind::End,
            _ => return None,
        };
        Some(Self {
            kind,
            body_bytes: get_u32(bytes, field::BODY_BYTES),
            sample_count: get_u32(bytes, field::SAMPLE_COUNT),
            raw_count: get_u32(bytes, field::RAW_COUNT),
            body_crc: get_u32(bytes, field::BODY_CRC),
            position,
            salt,
            records_before: get_u64(bytes, field::RECORDS_BEFORE),
            durable: Position::new(
                position
                    .get()
                    .saturating_sub(u64::from(get_u32(bytes, field::UNSYNCED_BYTES))),
            ),
            appended_ms: get_u64(bytes, field::APPENDED_MS).cast_signed(),
        })
    }

    /// The body behind a valid header at the start of `bytes`, if its crc holds.
    pub(crate) fn body_if_whole<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let end = FRAME_HEADER_BYTES.checked_add(self.body_bytes as usize)?;
        let body = bytes.get(FRAME_HEADER_BYTES..end)?;
        (crc32fast::hash(body) == self.body_crc).then_some(body)
    }
}

/// Bytes of a frame whose body has this many.
pub(crate) const fn frame_bytes(body_bytes: usize) -> u64 {
    (FRAME_HEADER_BYTES + align_8(body_bytes)) as u64
}

/// Most bytes the body of these records takes.
pub(crate) fn body_bytes_max(samples: usize, raw: &[RawRecord<'_>]) -> usize {
    let raw_bytes: usize = raw.iter().map(|r| RAW_HEADER_BYTES + r.bytes.len()).sum();
    samples * SAMPLE_BYTES_MAX + raw_bytes
}

/// Appends the body of a frame to `out`.
///
/// # Panics
/// If a raw record is 4 GiB or larger; requests are limited far below.
pub(crate) fn encode_body(
    samples: &[Sample],
    raw: &[RawRecord<'_>],
    appended_ms: i64,
    out: &mut Vec<u8>,
) {
    encode_samples(samples, appended_ms, out);
    for record in raw {
        let len = u32::try_from(record.bytes.len()).expect("requests are limited below 4 GiB");
        out.push(record.kind as u8);
        out.extend_from_slice(&record.series.get().to_le_bytes());
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(record.bytes);
    }
}

/// Every field is stored as 8 bytes and overwritten from its true end on: no branch on lengths.
#[expect(
    clippy::cast_possible_truncation,
    reason = "at most 8 bytes of a value are kept"
)]
fn encode_samples(samples: &[Sample], appended_ms: i64, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + samples.len() * SAMPLE_BYTES_MAX + 8, 0);
    let buffer = &mut out[start..];
    let mut at = 0;
    let mut series = 0;
    let mut timestamp = appended_ms;
    for sample in samples {
        let window = &mut buffer[at..at + SAMPLE_BYTES_MAX + 8];
        let (ref_class, ref_field, ref_len) = ref_class(series, sample.series.get());
        let (ts_class, ts_field, ts_len) = timestamp_class(timestamp, sample.timestamp_ms);
        let kept = 8 - sample.value_bits.trailing_zeros() as usize / 8;
        let value = if kept == 0 {
            0
        } else {
            sample.value_bits >> (64 - 8 * kept)
        };
        window[0] = ref_class | ts_class << 2 | (kept as u8) << 4;
        put_u64(window, 1, ref_field);
        put_u64(window, 1 + ref_len, ts_field);
        put_u64(window, 1 + ref_len + ts_len, value);
        at += 1 + ref_len + ts_len + kept;
        series = sample.series.get();
        timestamp = sample.timestamp_ms;
    }
    out.truncate(start + at);
}

/// Class, field and its bytes for a series ref.
fn ref_class(previous: u32, this: u32) -> (u8, u64, usize) {
    if this == previous.wrapping_add(1) {
        return (0, 0, 0);
    }
    let zigzag = zigzag(i64::from(this) - i64::from(previous));
    match zigzag {
        0..=0xff => (1, zigzag, 1),
        0x100..=0xffff => (2, zigzag, 2),
        _ => (3, u64::from(this), 4),
    }
}

/// Class, field and its bytes for a timestamp.
fn timestamp_class(previous: i64, this: i64) -> (u8, u64, usize) {
    if this == previous {
        return (0, 0, 0);
    }
    match this.checked_sub(previous).map(zigzag) {
        Some(delta @ 0..=0xffff) => (1, delta, 2),
        Some(delta @ 0x1_0000..=0xffff_ffff) => (2, delta, 4),
        _ => (3, this.cast_unsigned(), 8),
    }
}

const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

/// Appends `count` samples of a body to `out`; returns where the raw records begin.
///
/// # Errors
/// [`Error::Malformed`] with what was decoded until then in `out`.
pub(crate) fn decode_samples(
    body: &[u8],
    count: u32,
    appended_ms: i64,
    out: &mut Vec<Sample>,
) -> Result<usize, Error> {
    // A sample takes a byte at least: a count beyond the body is a lie, not an allocation.
    out.reserve(body.len().min(count as usize));
    let mut at = 0;
    let mut sample = Sample {
        timestamp_ms: appended_ms,
        ..Sample::default()
    };
    for _ in 0..count {
        let rest = body.get(at..).unwrap_or_default();
        let last;
        let window = match rest.first_chunk() {
            Some(window) => window,
            None if rest.is_empty() => return Err(malformed(at, "a control byte")),
            None => {
                last = padded(rest);
                &last
            }
        };
        let bytes = decode_sample(window, &mut sample).map_err(|what| malformed(at, what))?;
        if bytes > rest.len() {
            return Err(malformed(at, "a whole field"));
        }
        at += bytes;
        out.push(sample);
    }
    Ok(at)
}

/// Decodes the sample behind `sample` in its place; answers how many bytes it takes, or what is missing.
#[inline]
fn decode_sample(
    window: &[u8; SAMPLE_BYTES_MAX],
    sample: &mut Sample,
) -> Result<usize, &'static str> {
    let control = window[0];
    let kept = usize::from(control >> 4);
    if kept > 8 {
        return Err("at most 8 bytes of value");
    }
    let before = sample.series.get();
    // Most samples are of the series behind the one before and of the same scrape. Without looking up
    // lengths where the next sample begins is known sooner.
    if control & 0xf == 0 {
        sample.series = SeriesRef::new(before.wrapping_add(1));
        sample.value_bits = high_bytes(window, 1, kept);
        return Ok(1 + kept);
    }
    let ref_len = [0, 1, 2, 4][usize::from(control & 3)];
    let ref_field = short(window, 1, ref_len);
    let series = match control & 3 {
        0 => Some(before.wrapping_add(1)),
        3 => u32::try_from(ref_field).ok(),
        _ => u32::try_from(i64::from(before) + unzigzag(ref_field)).ok(),
    };
    sample.series = SeriesRef::new(series.ok_or("a series ref")?);
    let ts_len = [0, 2, 4, 8][usize::from(control >> 2 & 3)];
    let ts_field = short(window, 1 + ref_len, ts_len);
    sample.timestamp_ms = match control >> 2 & 3 {
        0 => sample.timestamp_ms,
        3 => ts_field.cast_signed(),
        _ => sample.timestamp_ms.wrapping_add(unzigzag(ts_field)),
    };
    sample.value_bits = high_bytes(window, 1 + ref_len + ts_len, kept);
    Ok(1 + ref_len + ts_len + kept)
}

/// The `kept` (0 to 8) bytes at `at` as the high bytes of a number, the low ones zero.
#[inline]
fn high_bytes(window: &[u8; SAMPLE_BYTES_MAX], at: usize, kept: usize) -> u64 {
    // twice, as a shift by all bits is none
    let zero_bits = 4 * (8 - kept);
    get_u64(window, at) << zero_bits << zero_bits
}

/// The last bytes of a body, and zeros behind them, which no sample may reach into.
#[cold]
fn padded(rest: &[u8]) -> [u8; SAMPLE_BYTES_MAX] {
    let mut window = [0; SAMPLE_BYTES_MAX];
    window[..rest.len()].copy_from_slice(rest);
    window
}

/// The first `len` (0 to 8) of 8 bytes at `at` as a little-endian number.
#[inline]
fn short(window: &[u8; SAMPLE_BYTES_MAX], at: usize, len: usize) -> u64 {
    let other_bits = 4 * (8 - len);
    get_u64(window, at) << other_bits << other_bits >> other_bits >> other_bits
}

const fn malformed(at: usize, what: &'static str) -> Error {
    Error::Malformed { at, what }
}

/// The raw records of a body, from where the samples end.
#[derive(Debug, Clone)]
pub struct RawRecords<'a> {
    body: &'a [u8],
    at: usize,
    left: u32,
}

impl<'a> RawRecords<'a> {
    pub(crate) const fn new(body: &'a [u8], at: usize, count: u32) -> Self {
        Self {
            body,
            at,
            left: count,
        }
    }

    /// How many are left.
    #[must_use]
    pub const fn left(&self) -> usize {
        self.left as usize
    }

    fn decode(&mut self) -> Result<RawRecord<'a>, Error> {
        let at = self.at;
        let short = || Error::Malformed {
            at,
            what: "a whole raw record",
        };
        let head = self.body.get(at..at + RAW_HEADER_BYTES).ok_or_else(short)?;
        let kind = RecordKind::from_number(head[0]).ok_or(Error::Malformed {
            at,
            what: "a known record kind",
        })?;
        let start = at + RAW_HEADER_BYTES;
        let end = start + get_u32(head, 5) as usize;
        let bytes = self.body.get(start..end).ok_or_else(short)?;
        self.at = end;
        Ok(RawRecord {
            series: SeriesRef::new(get_u32(head, 1)),
            kind,
            bytes,
        })
    }
}

impl<'a> Iterator for RawRecords<'a> {
    type Item = Result<RawRecord<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let record = self.decode();
        if record.is_err() {
            self.left = 0;
        }
        Some(record)
    }
}

#[cfg(any(test, fuzzing))]
pub mod fuzz {
    //! Bodies of the fuzz targets; `cargo test` runs them on generated input.
    use super::{FrameHeader, RawRecords, decode_samples};
    use crate::Position;

    /// Any bytes decode to a header or none, and to a body or an error.
    pub fn frame_decode_never_panics(data: &[u8]) {
        if let Some(header) = FrameHeader::decode(data, Position::ZERO, 0) {
            assert!(
                header
                    .body_if_whole(data)
                    .is_none_or(|body| body.len() < data.len())
            );
        }
        let mut samples = Vec::new();
        let count = data.first().map_or(0, |&n| u32::from(n) * 8);
        if let Ok(at) = decode_samples(data, count, 0, &mut samples) {
            assert!(RawRecords::new(data, at, count).count() <= count as usize);
        }
        assert!(samples.len() <= count as usize);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample(series: u32, timestamp_ms: i64, value_bits: u64) -> Sample {
        Sample {
            series: SeriesRef::new(series),
            timestamp_ms,
            value_bits,
        }
    }

    fn round_trip(samples: &[Sample], appended_ms: i64) {
        let mut body = Vec::new();
        encode_samples(samples, appended_ms, &mut body);
        let mut read = Vec::new();
        let count = u32::try_from(samples.len()).unwrap();
        let at = decode_samples(&body, count, appended_ms, &mut read).unwrap();
        assert_eq!(at, body.len());
        assert_eq!(read, samples);
    }

    #[test]
    fn a_stale_marker_survives_bit_by_bit() {
        round_trip(&[sample(3, 1000, 0x7ff0_0000_0000_0002)], 0);
    }

    #[test]
    fn extreme_refs_and_timestamps_round_trip() {
        let values = [0, 1, u64::MAX, 1 << 63, 0xff, 0x4059_0000_0000_0000];
        let mut samples = Vec::new();
        for (at, &value) in values.iter().cycle().take(40).enumerate() {
            let series = [1, u32::MAX, 2, 130, 129, 70_000][at % 6];
            let timestamp = [i64::MIN, i64::MAX, 0, 1, -1, 1 << 40, 1 << 20][at % 7];
            samples.push(sample(series, timestamp, value));
        }
        round_trip(&samples, i64::MIN);
        round_trip(&samples, i64::MAX);
    }

    #[test]
    fn neighbours_at_one_instant_take_a_byte_and_their_value() {
        let samples: Vec<_> = (1..=100)
            .map(|n| sample(n, 5, 0x4059_0000_0000_0000))
            .collect();
        let mut body = Vec::new();
        encode_samples(&samples, 5, &mut body);
        assert_eq!(body.len(), 300);
    }

    #[test]
    fn a_flipped_bit_in_the_header_is_seen() {
        let stamp = Stamp {
            durable: Position::new(96),
            appended_ms: 1,
        };
        let header = FrameHeader::end(Position::new(4096), 9, 77, stamp);
        let bytes = header.encode();
        assert_eq!(
            FrameHeader::decode(&bytes, Position::new(4096), 9),
            Some(header)
        );
        for bit in 0..bytes.len() * 8 {
            let mut rotten = bytes;
            rotten[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                FrameHeader::decode(&rotten, Position::new(4096), 9),
                None,
                "bit {bit}"
            );
        }
        assert_eq!(FrameHeader::decode(&bytes, Position::new(4104), 9), None);
        assert_eq!(FrameHeader::decode(&bytes, Position::new(4096), 8), None);
    }

    proptest! {
        #[test]
        fn samples_round_trip(
            samples in prop::collection::vec((any::<u32>(), any::<i64>(), any::<u64>()), 0..200),
            appended_ms: i64,
        ) {
            let samples: Vec<_> = samples.into_iter().map(|(s, t, v)| sample(s, t, v)).collect();
            round_trip(&samples, appended_ms);
        }

        #[test]
        fn raw_records_round_trip(
            records in prop::collection::vec((any::<u32>(), prop::collection::vec(any::<u8>(), 0..50)), 0..20),
        ) {
            let raw: Vec<_> = records.iter().map(|(series, bytes)| RawRecord {
                series: SeriesRef::new(*series), kind: RecordKind::Histogram, bytes,
            }).collect();
            let mut body = Vec::new();
            encode_body(&[sample(1, 2, 3)], &raw, 0, &mut body);
            let at = decode_samples(&body, 1, 0, &mut Vec::new()).unwrap();
            let count = u32::try_from(raw.len()).unwrap();
            let read: Vec<_> = RawRecords::new(&body, at, count).map(Result::unwrap).collect();
            prop_assert_eq!(read, raw);
        }

        #[test]
        fn decode_never_panics(data in prop::collection::vec(any::<u8>(), 0..400)) {
            fuzz::frame_decode_never_panics(&data);
        }
    }
}
