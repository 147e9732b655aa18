//! Turns cumulative counts of classic buckets into a histogram with custom buckets.

use std::cmp::Ordering;

use crate::decode::exposition::histogram::{CUSTOM_SCHEMA, Histogram};

/// Runs of empty buckets up to this long stay in an integer histogram, as in Prometheus.
const EMPTY_MAX: i64 = 2;

/// How many histograms could not be converted.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Unconverted {
    /// How many.
    pub count: u64,
    /// Why the last one was not.
    pub why: &'static str,
}

impl Unconverted {
    pub(super) fn add(&mut self, why: &'static str) {
        self.count += 1;
        self.why = why;
    }
}

/// What was said about one histogram.
#[derive(Default, Debug)]
pub(super) struct Collected {
    /// Upper bounds and cumulative counts, in the order they came.
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: f64,
    wrong: Option<&'static str>,
}

impl Collected {
    pub(super) fn clear(&mut self) {
        self.buckets.clear();
        self.count = None;
        self.sum = 0.0;
        self.wrong = None;
    }

    pub(super) fn bucket(&mut self, bound: f64, count: f64) {
        if count < 0.0 {
            self.wrong = Some("negative count of a bucket");
        }
        self.buckets.push((bound, count));
    }

    pub(super) fn count(&mut self, count: f64) {
        if count < 0.0 {
            self.wrong = Some("negative count");
        }
        self.count = Some(count);
    }

    pub(super) fn sum(&mut self, sum: f64) {
        self.sum = sum;
    }

    /// Puts the buckets in order; of those that came twice the first counts.
    ///
    /// At once, as it is only needed for bodies out of order: a place found for each bucket as it
    /// comes would let a crafted body move the others once per bucket.
    fn order(&mut self) -> Result<(), &'static str> {
        if !self.buckets.is_sorted_by(|(one, _), (next, _)| one < next) {
            // No bound is NaN.
            let order = |one: &f64, next: &f64| one.partial_cmp(next).unwrap_or(Ordering::Equal);
            self.buckets.sort_by(|(one, _), (next, _)| order(one, next));
            self.buckets.dedup_by(|(next, _), (one, _)| *next <= *one);
        }
        let mut pairs = self.buckets.iter().zip(self.buckets.iter().skip(1));
        if pairs.any(|((_, one), (_, next))| next < one) {
            return Err("counts of buckets are not cumulative");
        }
        Ok(())
    }

    /// Writes the histogram.
    pub(super) fn convert(&mut self, out: &mut Histogram) -> Result<(), &'static str> {
        if let Some(wrong) = self.wrong {
            return Err(wrong);
        }
        self.order()?;
        let last = self.buckets.last().copied();
        let highest = last.map(|(_, count)| count);
        let count = self.count.or(highest).ok_or("neither count nor buckets")?;
        if last.is_none_or(|(bound, _)| bound < f64::INFINITY) {
            self.buckets.push((f64::INFINITY, count));
        }
        let infinite = self.buckets.last().map(|(_, count)| *count);
        if infinite.is_none_or(|infinite| infinite.to_bits() != count.to_bits()) {
            return Err("count is not that of the +Inf bucket");
        }
        out.clear();
        out.schema = CUSTOM_SCHEMA;
        out.sum = self.sum;
        let bounds = self.buckets.iter().map(|(bound, _)| *bound);
        out.custom_values
            .extend(bounds.filter(|bound| *bound < f64::INFINITY));
        let is_whole = self
            .buckets
            .iter()
            .all(|(_, count)| whole(*count).is_some());
        let written = match whole(count).filter(|_| is_whole) {
            Some(count) => self.write_whole(count, out),
            None => self.write_floats(count, out),
        };
        written.ok_or("counts out of range")
    }

    fn write_whole(&self, count: i64, out: &mut Histogram) -> Option<()> {
        out.count = u64::try_from(count).ok()?;
        let mut before = 0;
        for (index, (_, cumulative)) in (0..).zip(&self.buckets) {
            let cumulative = whole(*cumulative)?;
            out.positive.push(index, cumulative - before, EMPTY_MAX)?;
            before = cumulative;
        }
        Some(())
    }

    fn write_floats(&self, count: f64, out: &mut Histogram) -> Option<()> {
        out.is_float = true;
        out.count_float = count;
        let mut before = 0.0;
        for (index, (_, cumulative)) in (0..).zip(&self.buckets) {
            out.positive.push_float(index, cumulative - before)?;
            before = *cumulative;
        }
        Some(())
    }
}

/// The integer that the float is.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "it is compared with what it came from"
)]
fn whole(count: f64) -> Option<i64> {
    let whole = count as i64;
    (whole as f64 == count && whole < i64::MAX).then_some(whole)
}
