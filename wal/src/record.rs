//! Names what the log holds: float samples by number, everything else as its wire message.
//!
//! A new signal is a new [`RecordKind`] here, a decoder in front and an encoder behind; never a
//! second log.

use crate::SeriesRef;
use crate::bytes::{get_u64, put_u64};

/// One float sample of one series.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sample {
    /// The series, in the store the sample is appended to.
    pub series: SeriesRef,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// The IEEE 754 bits of the value: bits, so that a stale marker (a signalling NaN) survives.
    pub value_bits: u64,
}

/// What a [`RawRecord`] holds. The numbers are on disk and never change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum RecordKind {
    /// `prometheus.Exemplar` of a series.
    Exemplar = 1,
    /// `prometheus.Histogram` of a series (native histogram, integer or float).
    Histogram = 2,
    /// `prometheus.MetricMetadata`, of a metric family. Where it came with a series it names that
    /// series too, else none.
    Metadata = 3,
    /// A float sample that came with a start timestamp: a [`StartedSample`].
    StartedSample = 4,
}

impl RecordKind {
    /// The kind with this number on disk.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Exemplar),
            2 => Some(Self::Histogram),
            3 => Some(Self::Metadata),
            4 => Some(Self::StartedSample),
            _ => None,
        }
    }
}

/// A float sample and since when its counter counts. Samples without a start timestamp are never
/// kept in this form: they cost nothing for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StartedSample {
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// The IEEE 754 bits of the value.
    pub value_bits: u64,
    /// Milliseconds since the Unix epoch; 0 where a sample without one must keep its place among
    /// others of its series that have one.
    pub start_ms: i64,
}

impl StartedSample {
    /// Bytes of the form on disk.
    pub const BYTES: usize = 24;

    /// The form on disk: timestamp, value and start timestamp, little-endian.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        put_u64(&mut bytes, 0, self.timestamp_ms.cast_unsigned());
        put_u64(&mut bytes, 8, self.value_bits);
        put_u64(&mut bytes, 16, self.start_ms.cast_unsigned());
        bytes
    }

    /// Reads the form on disk; `None` if the length is another.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        (bytes.len() == Self::BYTES).then(|| Self {
            timestamp_ms: get_u64(bytes, 0).cast_signed(),
            value_bits: get_u64(bytes, 8),
            start_ms: get_u64(bytes, 16).cast_signed(),
        })
    }
}

/// A record kept as the bytes of its remote-write 1.0 message (without field tag and length), so
/// that it can be sent on as it came. A histogram may also hold the start timestamp of remote write
/// 2.0 (field 17), which has no place in 1.0; a [`RecordKind::StartedSample`] is no message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RawRecord<'a> {
    /// The series; of [`RecordKind::Metadata`] it may be [`SeriesRef::NONE`].
    pub series: SeriesRef,
    /// What the bytes are.
    pub kind: RecordKind,
    /// The protobuf message, or a [`StartedSample`].
    pub bytes: &'a [u8],
}
