//! Names what the log holds: float samples by number, everything else as its wire message.
//!
//! A new signal is a new [`RecordKind`] here, a decoder in front and an encoder behind; never a
//! second log.

use crate::SeriesRef;

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
    /// `prometheus.MetricMetadata`; belongs to no series.
    Metadata = 3,
}

impl RecordKind {
    /// The kind with this number on disk.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Exemplar),
            2 => Some(Self::Histogram),
            3 => Some(Self::Metadata),
            _ => None,
        }
    }
}

/// A record kept as the bytes of its remote-write 1.0 message (without field tag and length), so
/// that it can be sent on as it came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RawRecord<'a> {
    /// The series; [`SeriesRef::NONE`] for [`RecordKind::Metadata`].
    pub series: SeriesRef,
    /// What the bytes are.
    pub kind: RecordKind,
    /// The protobuf message.
    pub bytes: &'a [u8],
}
