//! Turns the bytes of a record into its items.
//!
//! A record is a type byte and items up to its end. Refs and times of samples are differences: to
//! the head of the record in the first version of a type, to the item before (ref) and the first
//! item (time) in the second, which also has start times; remote write 1.0 has no place for those.
//!
//! # Failure
//! - All or nothing: a record that breaks off inside an item gives none.

use super::Why;
use super::cursor::{Broken, Cursor};
use super::histogram::{Counts, histogram};
use crate::decode::labels::{Reason, canonical};
use crate::proto;

const SERIES: u8 = 1;
const SAMPLES: u8 = 2;
const TOMBSTONES: u8 = 3;
const EXEMPLARS: u8 = 4;
const MMAP_MARKERS: u8 = 5;
const METADATA: u8 = 6;
const HISTOGRAMS: u8 = 7;
const FLOAT_HISTOGRAMS: u8 = 8;
const CUSTOM_HISTOGRAMS: u8 = 9;
const CUSTOM_FLOAT_HISTOGRAMS: u8 = 10;
const SAMPLES_V2: u8 = 11;
const HISTOGRAMS_V2: u8 = 12;
const FLOAT_HISTOGRAMS_V2: u8 = 13;

/// A record: items of one type. Refs are those of the Prometheus that wrote them.
#[derive(Clone, PartialEq, Debug)]
pub enum Record<'a> {
    /// What refs stand for, from here on.
    Series(Vec<Series<'a>>),
    /// Float samples.
    Samples(Vec<Sample>),
    /// Exemplars.
    Exemplars(Vec<Exemplar<'a>>),
    /// Native histograms, integer or float, also with custom buckets.
    Histograms(Vec<Histogram>),
    /// Type, help and unit.
    Metadata(Vec<Metadata<'a>>),
    /// Deletions by the query API of a server; what was deleted is somewhere before.
    Tombstones,
    /// Bookkeeping of a server.
    MmapMarkers,
}

/// Name and value, not necessarily UTF-8.
pub(crate) type LabelBytes<'a> = (&'a [u8], &'a [u8]);

/// A series and its labels.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Series<'a> {
    /// What it is called in other records.
    pub reference: u64,
    labels: Vec<LabelBytes<'a>>,
}

impl Series<'_> {
    /// Appends the canonical label bytes, see [`crate::decode::labels`].
    ///
    /// # Errors
    /// Why the label set is not allowed; nothing is appended then.
    pub fn append_canonical(&self, out: &mut Vec<u8>) -> Result<(), Reason> {
        canonical(&self.labels, out)
    }

    /// The value of `__name__`; empty if there is none.
    #[must_use]
    pub fn metric_name(&self) -> &[u8] {
        let name = self.labels.iter().find(|(name, _)| *name == b"__name__");
        name.map_or(&[], |(_, value)| value)
    }
}

/// A float at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sample {
    /// The series.
    pub reference: u64,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// The bits of the float.
    pub value_bits: u64,
}

/// An observation that points at a trace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exemplar<'a> {
    /// The series, the time and the value.
    pub sample: Sample,
    labels: Vec<LabelBytes<'a>>,
}

impl Exemplar<'_> {
    /// The message of remote write.
    ///
    /// # Errors
    /// [`Reason::InvalidUtf8`].
    pub fn message(&self) -> Result<proto::Exemplar, Reason> {
        let labels = self.labels.iter().map(|(name, value)| {
            Ok(proto::Label {
                name: text(name)?,
                value: text(value)?,
            })
        });
        Ok(proto::Exemplar {
            labels: labels.collect::<Result<_, Reason>>()?,
            value: f64::from_bits(self.sample.value_bits),
            timestamp: self.sample.timestamp_ms,
        })
    }
}

/// A native histogram.
#[derive(Clone, PartialEq, Debug)]
pub struct Histogram {
    /// The series.
    pub reference: u64,
    /// The message of remote write, with its time.
    pub message: proto::Histogram,
}

/// What is known about the metric of a series.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Metadata<'a> {
    /// The series.
    pub reference: u64,
    kind: u8,
    unit: &'a [u8],
    help: &'a [u8],
}

impl Metadata<'_> {
    /// The message of remote write for a series with this `__name__`.
    ///
    /// # Errors
    /// [`Reason::InvalidUtf8`], [`Reason::MissingMetricName`].
    pub fn message(&self, metric_name: &[u8]) -> Result<proto::MetricMetadata, Reason> {
        // The numbers are the same on disk and on the wire.
        let kind = proto::MetricType::try_from(i32::from(self.kind));
        let kind = kind.unwrap_or(proto::MetricType::Unknown);
        if metric_name.is_empty() {
            return Err(Reason::MissingMetricName);
        }
        Ok(proto::MetricMetadata {
            r#type: kind.into(),
            metric_family_name: text(family(metric_name, kind))?,
            help: text(self.help)?,
            unit: text(self.unit)?,
        })
    }
}

/// The name of the family: series of classic histograms and summaries have a suffix more.
fn family(name: &[u8], kind: proto::MetricType) -> &[u8] {
    use proto::MetricType::{GaugeHistogram, Histogram, Summary};
    let suffixes: &[&[u8]] = match kind {
        Histogram => &[b"_bucket", b"_sum", b"_count"],
        GaugeHistogram => &[b"_bucket", b"_gsum", b"_gcount"],
        Summary => &[b"_sum", b"_count"],
        _ => &[],
    };
    let stripped = suffixes
        .iter()
        .find_map(|suffix| name.strip_suffix(*suffix));
    stripped.unwrap_or(name)
}

fn text(bytes: &[u8]) -> Result<String, Reason> {
    let text = std::str::from_utf8(bytes).map_err(|_| Reason::InvalidUtf8)?;
    Ok(text.to_owned())
}

impl<'a> Record<'a> {
    /// Reads a record.
    ///
    /// # Errors
    /// [`Why::Malformed`] or [`Why::UnknownType`].
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Why> {
        let mut cursor = Cursor::new(bytes);
        let Ok(kind) = cursor.byte() else {
            return Err(Why::Malformed);
        };
        let record = match kind {
            SERIES => items(cursor, series).map(Self::Series),
            SAMPLES | SAMPLES_V2 => {
                let value = |cursor: &mut Cursor<'_>, _| cursor.fixed64();
                timed(kind, cursor, value).map(|items| {
                    let sample = |(at, value_bits): (At, u64)| at.sample(value_bits);
                    Self::Samples(items.into_iter().map(sample).collect())
                })
            }
            EXEMPLARS => timed(kind, cursor, exemplar)
                .map(|items| Self::Exemplars(items.into_iter().map(|(_, item)| item).collect())),
            METADATA => items(cursor, metadata).map(Self::Metadata),
            HISTOGRAMS | CUSTOM_HISTOGRAMS | HISTOGRAMS_V2 => {
                histograms(kind, cursor, Counts::Int).map(Self::Histograms)
            }
            FLOAT_HISTOGRAMS | CUSTOM_FLOAT_HISTOGRAMS | FLOAT_HISTOGRAMS_V2 => {
                histograms(kind, cursor, Counts::Float).map(Self::Histograms)
            }
            TOMBSTONES => Ok(Self::Tombstones),
            MMAP_MARKERS => Ok(Self::MmapMarkers),
            _ => return Err(Why::UnknownType),
        };
        record.map_err(|Broken| Why::Malformed)
    }
}

/// Items up to the end.
fn items<'a, T>(
    mut cursor: Cursor<'a>,
    one: impl Fn(&mut Cursor<'a>) -> Result<T, Broken>,
) -> Result<Vec<T>, Broken> {
    let mut items = Vec::new();
    while !cursor.is_done() {
        items.push(one(&mut cursor)?);
    }
    Ok(items)
}

fn labels<'a>(cursor: &mut Cursor<'a>) -> Result<Vec<LabelBytes<'a>>, Broken> {
    let count = cursor.count()?;
    (0..count)
        .map(|_| Ok((cursor.string()?, cursor.string()?)))
        .collect()
}

fn series<'a>(cursor: &mut Cursor<'a>) -> Result<Series<'a>, Broken> {
    Ok(Series {
        reference: cursor.fixed64()?,
        labels: labels(cursor)?,
    })
}

fn metadata<'a>(cursor: &mut Cursor<'a>) -> Result<Metadata<'a>, Broken> {
    let mut found = Metadata {
        reference: cursor.uvarint()?,
        kind: cursor.byte()?,
        unit: &[],
        help: &[],
    };
    for _ in 0..cursor.count()? {
        let (name, value) = (cursor.string()?, cursor.string()?);
        match name {
            b"UNIT" => found.unit = value,
            b"HELP" => found.help = value,
            _ => {}
        }
    }
    Ok(found)
}

/// Series and time of an item.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct At {
    reference: u64,
    timestamp_ms: i64,
}

impl At {
    const fn sample(self, value_bits: u64) -> Sample {
        Sample {
            reference: self.reference,
            timestamp_ms: self.timestamp_ms,
            value_bits,
        }
    }

    /// Differences may wrap: refs of remote senders use all bits.
    const fn plus(self, reference: i64, time: i64) -> Self {
        Self {
            reference: self.reference.wrapping_add_signed(reference),
            timestamp_ms: self.timestamp_ms.wrapping_add(time),
        }
    }
}

fn exemplar<'a>(cursor: &mut Cursor<'a>, at: At) -> Result<Exemplar<'a>, Broken> {
    Ok(Exemplar {
        sample: at.sample(cursor.fixed64()?),
        labels: labels(cursor)?,
    })
}

fn histograms(kind: u8, cursor: Cursor<'_>, counts: Counts) -> Result<Vec<Histogram>, Broken> {
    let one = |cursor: &mut Cursor<'_>, at: At| {
        Ok(Histogram {
            reference: at.reference,
            message: histogram(cursor, counts, at.timestamp_ms)?,
        })
    };
    let items = timed(kind, cursor, one)?;
    Ok(items.into_iter().map(|(_, item)| item).collect())
}

/// Items that belong to a series and a time.
fn timed<'a, T>(
    kind: u8,
    mut cursor: Cursor<'a>,
    one: impl Fn(&mut Cursor<'a>, At) -> Result<T, Broken>,
) -> Result<Vec<(At, T)>, Broken> {
    let mut items: Vec<(At, T)> = Vec::new();
    if cursor.is_done() {
        return Ok(items);
    }
    if kind < SAMPLES_V2 {
        let head = At {
            reference: cursor.fixed64()?,
            timestamp_ms: cursor.fixed64()?.cast_signed(),
        };
        while !cursor.is_done() {
            let at = head.plus(cursor.varint()?, cursor.varint()?);
            items.push((at, one(&mut cursor, at)?));
        }
        return Ok(items);
    }
    let zero = At {
        reference: 0,
        timestamp_ms: 0,
    };
    let first = zero.plus(cursor.varint()?, cursor.varint()?);
    cursor.varint()?; // the first start time
    let mut at = first;
    loop {
        items.push((at, one(&mut cursor, at)?));
        if cursor.is_done() {
            return Ok(items);
        }
        let reference = at.plus(cursor.varint()?, 0).reference;
        at = At {
            reference,
            ..first.plus(0, cursor.varint()?)
        };
        start_time(&mut cursor)?;
    }
}

/// A start time: none, the one before, or a difference to the first.
fn start_time(cursor: &mut Cursor<'_>) -> Result<(), Broken> {
    match cursor.byte()? {
        0 | 1 => Ok(()),
        _ => cursor.varint().map(drop),
    }
}
