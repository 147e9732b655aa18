//! Turns bucket counts into a native histogram, and that into the message remote write sends.
//!
//! Exporters leave empty buckets in; Prometheus takes them out before it stores a histogram, and
//! so does this: what is written here has the same spans as what Prometheus would send on.
//!
//! # Invariants
//! - The lengths of the spans of [`Buckets`] add up to the number of its deltas (integer) or
//!   counts (float); the other list is empty.
//! - The first and the last bucket of a span are not empty.

use crate::decode::wire::append_varint;

/// The schema of histograms with custom buckets.
pub(super) const CUSTOM_SCHEMA: i32 = -53;

/// Reset hints: it began anew; it may go down.
const HINT_RESET: u64 = 1;
const HINT_GAUGE: u64 = 3;

/// A native histogram without labels and timestamp.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Histogram {
    /// Whether counts are floats; else they are whole.
    pub is_float: bool,
    /// Observations in total: the one that `is_float` says.
    pub count: u64,
    /// Observations in total.
    pub count_float: f64,
    /// The sum of what was observed.
    pub sum: f64,
    /// Resolution; -53 for custom buckets.
    pub schema: i32,
    /// Width of the zero bucket.
    pub zero_threshold: f64,
    /// Observations in the zero bucket: the one that `is_float` says.
    pub zero_count: u64,
    /// Observations in the zero bucket.
    pub zero_count_float: f64,
    /// Whether it may go down: the reset hint is then 3, else 0.
    pub is_gauge: bool,
    /// Buckets above zero, or the custom ones.
    pub positive: Buckets,
    /// Buckets below zero.
    pub negative: Buckets,
    /// Upper bounds of custom buckets, without the last one, which is infinite.
    pub custom_values: Vec<f64>,
}

/// Buckets of one sign.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Buckets {
    /// Gap to the span before (or index of the first bucket), and number of buckets.
    pub spans: Vec<(i32, u32)>,
    /// Counts of an integer histogram, as difference to the bucket before.
    pub deltas: Vec<i64>,
    /// Counts of a float histogram.
    pub counts: Vec<f64>,
    next: i64,
    last_count: i64,
}

impl Buckets {
    pub(super) fn clear(&mut self) {
        self.spans.clear();
        self.deltas.clear();
        self.counts.clear();
        self.next = 0;
        self.last_count = 0;
    }

    /// Makes room for the bucket at `index`, behind all others: up to `empty_max` empty buckets
    /// are cheaper than a new span. Gives how many it takes, or none if no span reaches there.
    fn reach(&mut self, index: i64, empty_max: i64) -> Option<i64> {
        let gap = index.checked_sub(self.next)?;
        self.next = index.checked_add(1)?;
        if gap < 0 && !self.spans.is_empty() {
            return None;
        }
        if let Some((_, length)) = self.spans.last_mut()
            && gap <= empty_max
        {
            *length = length.checked_add(u32::try_from(gap + 1).ok()?)?;
            return Some(gap);
        }
        self.spans.push((i32::try_from(gap).ok()?, 1));
        Some(0)
    }

    /// The next bucket of an integer histogram. None if its index or count is out of range.
    pub(super) fn push(&mut self, index: i64, count: i64, empty_max: i64) -> Option<()> {
        if count == 0 {
            return Some(());
        }
        for _ in 0..self.reach(index, empty_max)? {
            self.deltas.push(0i64.checked_sub(self.last_count)?);
            self.last_count = 0;
        }
        self.deltas.push(count.checked_sub(self.last_count)?);
        self.last_count = count;
        Some(())
    }

    /// The next bucket of a float histogram. None if its index is out of range.
    pub(super) fn push_float(&mut self, index: i64, count: f64) -> Option<()> {
        if count == 0.0 {
            return Some(());
        }
        self.reach(index, 0)?;
        self.counts.push(count);
        Some(())
    }

    fn append(&self, out: &mut Vec<u8>, fields: [u32; 3]) {
        let [spans, deltas, counts] = fields;
        for (offset, length) in &self.spans {
            let offset = zigzag(i64::from(*offset));
            let offset_bytes = if offset == 0 {
                0
            } else {
                1 + varint_bytes(offset)
            };
            let length = u64::from(*length);
            key(out, spans, 2);
            append_varint(out, offset_bytes + 1 + varint_bytes(length));
            varint_field(out, 1, offset);
            key(out, 2, 0);
            append_varint(out, length);
        }
        if !self.deltas.is_empty() {
            let packed = self.deltas.iter().map(|delta| varint_bytes(zigzag(*delta)));
            key(out, deltas, 2);
            append_varint(out, packed.sum());
            for delta in &self.deltas {
                append_varint(out, zigzag(*delta));
            }
        }
        packed_doubles(out, counts, &self.counts);
    }
}

impl Histogram {
    pub(super) fn clear(&mut self) {
        self.is_float = false;
        self.count = 0;
        self.count_float = 0.0;
        self.sum = 0.0;
        self.schema = 0;
        self.zero_threshold = 0.0;
        self.zero_count = 0;
        self.zero_count_float = 0.0;
        self.is_gauge = false;
        self.positive.clear();
        self.negative.clear();
        self.custom_values.clear();
    }

    /// Appends the `Histogram` message of remote write 1.0.
    pub fn append_message(&self, timestamp_ms: i64, out: &mut Vec<u8>) {
        let hint = if self.is_gauge { HINT_GAUGE } else { 0 };
        self.append_hinted(timestamp_ms, hint, out);
    }

    /// Appends the message of an empty histogram of the same kind, for when this one began to count.
    pub fn append_start(&self, start_ms: i64, out: &mut Vec<u8>) {
        let empty = Self {
            is_float: self.is_float,
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            custom_values: self.custom_values.clone(),
            ..Self::default()
        };
        empty.append_hinted(start_ms, HINT_RESET, out);
    }

    fn append_hinted(&self, timestamp_ms: i64, hint: u64, out: &mut Vec<u8>) {
        // Which of the two counts is there says what kind of histogram it is, also when it is 0.
        if self.is_float {
            double(out, 2, self.count_float);
        } else {
            key(out, 1, 0);
            append_varint(out, self.count);
        }
        double_field(out, 3, self.sum);
        varint_field(out, 4, zigzag(i64::from(self.schema)));
        double_field(out, 5, self.zero_threshold);
        if self.is_float {
            double(out, 7, self.zero_count_float);
        } else {
            key(out, 6, 0);
            append_varint(out, self.zero_count);
        }
        self.negative.append(out, [8, 9, 10]);
        self.positive.append(out, [11, 12, 13]);
        varint_field(out, 14, hint);
        varint_field(out, 15, timestamp_ms.cast_unsigned());
        packed_doubles(out, 16, &self.custom_values);
    }
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn varint_bytes(value: u64) -> u64 {
    u64::from((64 - (value | 1).leading_zeros()).div_ceil(7))
}

fn key(out: &mut Vec<u8>, field: u32, wire: u32) {
    append_varint(out, u64::from(field << 3 | wire));
}

/// A number that is left out if it is 0.
fn varint_field(out: &mut Vec<u8>, field: u32, value: u64) {
    if value != 0 {
        key(out, field, 0);
        append_varint(out, value);
    }
}

fn double(out: &mut Vec<u8>, field: u32, value: f64) {
    key(out, field, 1);
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

/// A float that is left out if it is 0; -0 is not.
fn double_field(out: &mut Vec<u8>, field: u32, value: f64) {
    if value.to_bits() != 0 {
        double(out, field, value);
    }
}

fn packed_doubles(out: &mut Vec<u8>, field: u32, values: &[f64]) {
    if !values.is_empty() {
        key(out, field, 2);
        append_varint(out, 8 * u64::try_from(values.len()).unwrap_or(0));
        for value in values {
            out.extend_from_slice(&value.to_bits().to_le_bytes());
        }
    }
}
