//! Turns a `Histogram` message into its classic parts and its native buckets.

use std::ops::Range;

use super::{Part, Shape, counted, double, each_field, span, varint};
use crate::decode::exposition::Parser;
use crate::decode::exposition::error::Wrong;
use crate::decode::exposition::histogram::{Buckets, Histogram};
use crate::decode::wire::{Cursor, Key, Wire};

/// Spans and buckets of one sign as they came.
#[derive(Default, Debug)]
struct RawBuckets {
    spans: Vec<(i32, u32)>,
    deltas: Vec<i64>,
    counts: Vec<f64>,
}

/// The native part of a message.
#[derive(Default, Debug)]
pub(in crate::decode::exposition) struct Raw {
    count: u64,
    count_float: f64,
    sum: f64,
    schema: i32,
    zero_threshold: f64,
    zero_count: u64,
    zero_count_float: f64,
    negative: RawBuckets,
    positive: RawBuckets,
    /// Exemplars of the native form.
    pub(super) exemplars: Vec<Range<usize>>,
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

impl RawBuckets {
    fn clear(&mut self) {
        self.spans.clear();
        self.deltas.clear();
        self.counts.clear();
    }

    fn span(&mut self, body: &[u8], at: Range<usize>) -> Result<(), Wrong> {
        let (mut offset, mut length) = (0, 0);
        let start = at.start;
        let narrow = |_| Wrong {
            at: start,
            what: "span of buckets out of range",
        };
        each_field(body, at, |key, message| {
            match key.number {
                1 => offset = i32::try_from(unzigzag(varint(key, message)?)).map_err(narrow)?,
                2 => length = u32::try_from(varint(key, message)?).map_err(narrow)?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        self.spans.push((offset, length));
        Ok(())
    }

    /// Deltas, packed or one by one.
    fn deltas(&mut self, key: Key, message: &mut Cursor<'_>) -> Result<(), Wrong> {
        if key.wire == Wire::Bytes {
            let mut packed = message.message()?;
            while !packed.is_done() {
                self.deltas.push(unzigzag(packed.varint()?));
            }
        } else {
            self.deltas.push(unzigzag(varint(key, message)?));
        }
        Ok(())
    }

    /// Counts, packed or one by one.
    fn counts(&mut self, key: Key, message: &mut Cursor<'_>) -> Result<(), Wrong> {
        if key.wire == Wire::Bytes {
            let mut packed = message.message()?;
            while !packed.is_done() {
                self.counts.push(f64::from_bits(packed.fixed64()?));
            }
        } else {
            self.counts.push(double(key, message)?);
        }
        Ok(())
    }

    /// Without what is empty. None if buckets and spans do not match.
    fn compact(&self, is_float: bool, buckets: &mut Buckets) -> Option<()> {
        buckets.clear();
        let lengths = self.spans.iter().map(|(_, length)| u64::from(*length));
        let count = if is_float {
            self.counts.len()
        } else {
            self.deltas.len()
        };
        if lengths.sum::<u64>() != u64::try_from(count).ok()? {
            return None;
        }
        let later = self.spans.get(1..).unwrap_or_default();
        if later.iter().any(|(offset, _)| *offset < 0) {
            return None;
        }
        let mut index = 0i64;
        let mut deltas = self.deltas.iter();
        let mut counts = self.counts.iter();
        let mut absolute = 0i64;
        for (offset, length) in &self.spans {
            index += i64::from(*offset);
            for _ in 0..*length {
                if is_float {
                    buckets.push_float(index, *counts.next()?)?;
                } else {
                    absolute = absolute.checked_add(*deltas.next()?)?;
                    buckets.push(index, absolute, 0)?;
                }
                index += 1;
            }
        }
        Some(())
    }
}

impl Raw {
    fn clear(&mut self) {
        self.count = 0;
        self.count_float = 0.0;
        self.sum = 0.0;
        self.schema = 0;
        self.zero_threshold = 0.0;
        self.zero_count = 0;
        self.zero_count_float = 0.0;
        self.negative.clear();
        self.positive.clear();
        self.exemplars.clear();
    }

    /// Whether there is a native form. One without observations says so by an empty span.
    pub(super) fn is_native(&self) -> bool {
        !self.positive.spans.is_empty()
            || !self.negative.spans.is_empty()
            || self.zero_threshold > 0.0
            || self.zero_count > 0
            || self.zero_count_float > 0.0
    }

    fn is_float(&self) -> bool {
        self.count_float > 0.0 || self.zero_count_float > 0.0
    }

    /// How many were observed, as a sample says it.
    fn classic_count(&self) -> f64 {
        if self.count_float == 0.0 {
            counted(self.count)
        } else {
            self.count_float
        }
    }

    /// Writes the native form. None if buckets and spans do not match.
    pub(super) fn compact(&self, histogram: &mut Histogram, is_gauge: bool) -> Option<()> {
        histogram.clear();
        histogram.is_float = self.is_float();
        if histogram.is_float {
            histogram.count_float = self.count_float;
            histogram.zero_count_float = self.zero_count_float;
        } else {
            histogram.count = self.count;
            histogram.zero_count = self.zero_count;
        }
        histogram.sum = self.sum;
        histogram.schema = self.schema;
        histogram.zero_threshold = self.zero_threshold;
        histogram.is_gauge = is_gauge;
        self.positive
            .compact(histogram.is_float, &mut histogram.positive)?;
        self.negative
            .compact(histogram.is_float, &mut histogram.negative)
    }
}

impl Parser {
    /// Reads both forms of a histogram.
    pub(super) fn read_histogram(&mut self, body: &[u8], at: Range<usize>) -> Result<(), Wrong> {
        debug_assert!(matches!(
            self.families.shape,
            Shape::Histogram | Shape::GaugeHistogram
        ));
        let families = &mut self.families;
        let (raw, parts, metric) = (&mut families.raw, &mut families.parts, &mut families.metric);
        raw.clear();
        parts.clear();
        each_field(body, at, |key, message| {
            match key.number {
                1 => raw.count = varint(key, message)?,
                2 => raw.sum = double(key, message)?,
                3 => parts.push(bucket(body, span(key, message)?)?),
                4 => raw.count_float = double(key, message)?,
                5 => {
                    let schema = unzigzag(varint(key, message)?);
                    raw.schema = i32::try_from(schema).map_err(|_| Wrong {
                        at: key.offset,
                        what: "schema out of range",
                    })?;
                }
                6 => raw.zero_threshold = double(key, message)?,
                7 => raw.zero_count = varint(key, message)?,
                8 => raw.zero_count_float = double(key, message)?,
                9 => raw.negative.span(body, span(key, message)?)?,
                10 => raw.negative.deltas(key, message)?,
                11 => raw.negative.counts(key, message)?,
                12 => raw.positive.span(body, span(key, message)?)?,
                13 => raw.positive.deltas(key, message)?,
                14 => raw.positive.counts(key, message)?,
                15 => metric.start(body, span(key, message)?)?,
                16 => raw.exemplars.push(span(key, message)?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        metric.count = raw.classic_count();
        metric.sum = raw.sum;
        Ok(())
    }
}

/// Reads a bucket of the classic form.
fn bucket(body: &[u8], at: Range<usize>) -> Result<Part, Wrong> {
    let (mut count, mut count_float) = (0, 0.0);
    let mut part = Part {
        bound: 0.0,
        value: 0.0,
        exemplar: None,
    };
    each_field(body, at, |key, message| {
        match key.number {
            1 => count = varint(key, message)?,
            2 => part.bound = double(key, message)?,
            3 => part.exemplar = Some(span(key, message)?),
            4 => count_float = double(key, message)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    part.value = if count_float == 0.0 {
        counted(count)
    } else {
        count_float
    };
    Ok(part)
}
