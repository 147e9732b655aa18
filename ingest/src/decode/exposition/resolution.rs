//! Turns native histograms into ones of lower resolution: pairs of buckets become one.
//!
//! Bucket `i` of schema `n` lies in bucket `ceil(i / 2)` of schema `n - 1`, as the bounds of schema `n` are
//! powers of `2^(2^-n)`.

use super::histogram::{Buckets, CUSTOM_SCHEMA, Histogram};

/// The lowest resolution there is.
const SCHEMA_MIN: i32 = -4;

impl Histogram {
    /// How many buckets it has, without the one for zero.
    #[must_use]
    pub fn buckets(&self) -> usize {
        let count = |buckets: &Buckets| -> usize {
            let lengths = buckets.spans.iter().map(|(_, length)| *length as usize);
            lengths.sum()
        };
        count(&self.positive) + count(&self.negative)
    }

    /// Halves the resolution until it is at most this schema and there are at most so many buckets (0: any
    /// number). False if that cannot be.
    pub fn reduce(&mut self, schema_max: Option<i32>, buckets_max: usize) -> bool {
        let has_room = |one: &Self| buckets_max == 0 || one.buckets() <= buckets_max;
        if self.schema == CUSTOM_SCHEMA {
            return has_room(self);
        }
        while self.schema > SCHEMA_MIN
            && (schema_max.is_some_and(|most| self.schema > most) || !has_room(self))
        {
            self.schema -= 1;
            self.positive = halved(&self.positive, self.is_float);
            self.negative = halved(&self.negative, self.is_float);
        }
        has_room(self)
    }
}

/// Buckets of half the resolution.
fn halved(buckets: &Buckets, is_float: bool) -> Buckets {
    let (mut made, mut index, mut at, mut count) = (Buckets::default(), 0_i64, 0, 0_i64);
    let (mut last, mut whole, mut part) = (None, 0_i64, 0.0);
    let mut push = |index: Option<i64>, whole: i64, part: f64| {
        let Some(index) = index else { return };
        // Indexes only come nearer to each other.
        let pushed = match is_float {
            true => made.push_float(index, part),
            false => made.push(index, whole, 0),
        };
        debug_assert!(pushed.is_some());
    };
    for (offset, length) in &buckets.spans {
        index += i64::from(*offset);
        for _ in 0..*length {
            let to = (index + 1).div_euclid(2);
            if last != Some(to) {
                push(last, whole, part);
                (last, whole, part) = (Some(to), 0, 0.0);
            }
            count = count.saturating_add(buckets.deltas.get(at).copied().unwrap_or(0));
            whole = whole.saturating_add(count);
            part += buckets.counts.get(at).copied().unwrap_or(0.0);
            (index, at) = (index + 1, at + 1);
        }
    }
    push(last, whole, part);
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(counts: &[(i64, i64)]) -> Histogram {
        let mut histogram = Histogram {
            schema: 3,
            ..Histogram::default()
        };
        for (index, count) in counts {
            histogram.positive.push(*index, *count, 0).unwrap();
        }
        histogram
    }

    fn counts(histogram: &Histogram) -> Vec<(i64, i64)> {
        let (mut index, mut count, mut deltas) = (0, 0, histogram.positive.deltas.iter());
        let mut all = Vec::new();
        for (offset, length) in &histogram.positive.spans {
            index += i64::from(*offset);
            for _ in 0..*length {
                count += deltas.next().unwrap();
                all.push((index, count));
                index += 1;
            }
        }
        all
    }

    #[test]
    fn pairs_of_buckets_become_one() {
        let mut one = histogram(&[(-3, 1), (-2, 2), (0, 4), (1, 8), (2, 16), (7, 32)]);
        assert!(one.reduce(Some(2), 0));
        assert_eq!(one.schema, 2);
        assert_eq!(counts(&one), [(-1, 3), (0, 4), (1, 24), (4, 32)]);
        assert!(one.reduce(None, 3));
        assert_eq!((one.schema, one.buckets()), (1, 3));
        assert_eq!(counts(&one), [(0, 7), (1, 24), (2, 32)]);
    }

    #[test]
    fn what_cannot_be_halved_any_more_is_told() {
        let mut far = histogram(&[(-1_000_000, 1), (0, 1), (1_000_000, 1)]);
        assert!(!far.reduce(None, 1));
        assert_eq!((far.schema, far.buckets()), (SCHEMA_MIN, 3));
        let mut custom = histogram(&[(0, 1), (1, 1)]);
        custom.schema = CUSTOM_SCHEMA;
        assert!(!custom.reduce(None, 1));
        assert!(custom.reduce(Some(0), 2), "its bounds are its own");
        assert_eq!(custom.schema, CUSTOM_SCHEMA);
    }
}
