//! Turns a stream of refused label values into those refused most, in bounded memory.
//!
//! The sketch is Space-Saving (Metwally et al., 2005): a value that is not among the counted ones takes the
//! place of the least counted, with its count.
//!
//! # Invariants
//! - A count is never too small, and too large by at most what its place was taken over with. A value of
//!   more than a 64th of everything refused is always among the counted ones.
//!
//! # Limits
//! - [`COUNTERS`] values of at most [`VALUE_BYTES_MAX`] bytes.

const COUNTERS: usize = 64;
const VALUE_BYTES_MAX: usize = 128;

/// How often each of the most frequent values was refused.
#[derive(Default, Debug)]
pub(crate) struct Sketch {
    counters: Vec<(String, u64)>,
}

impl Sketch {
    /// Counts `items` more of `value`.
    pub(crate) fn add(&mut self, value: &[u8], items: u64) {
        let cut = value.get(..VALUE_BYTES_MAX).unwrap_or(value);
        let found = |(name, _): &&mut (String, u64)| name.as_bytes() == cut;
        if let Some((_, count)) = self.counters.iter_mut().find(found) {
            *count += items;
            return;
        }
        let name = String::from_utf8_lossy(cut).into_owned();
        if self.counters.len() < COUNTERS {
            self.counters.push((name, items));
        } else if let Some(least) = self.counters.iter_mut().min_by_key(|(_, count)| *count) {
            *least = (name, least.1 + items);
        }
    }

    /// The `count` most refused values, the most refused first.
    pub(crate) fn top(&self, count: usize) -> Vec<(String, u64)> {
        let mut all = self.counters.clone();
        all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        all.truncate(count);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_refused_are_found_among_very_many() {
        let mut sketch = Sketch::default();
        for at in 0..10_000u64 {
            sketch.add(format!("rare_{at}").as_bytes(), 1);
            sketch.add(b"often", 1);
            if at % 3 == 0 {
                sketch.add(b"sometimes", 1);
            }
        }
        let top = sketch.top(2);
        assert_eq!(top[0].0, "often");
        assert_eq!(top[1].0, "sometimes");
        let (total, most) = (23_334, 23_334 / COUNTERS as u64 + 1);
        assert!((10_000..=10_000 + most).contains(&top[0].1), "{top:?}");
        assert!(top[0].1 <= total);
        assert_eq!(sketch.counters.len(), COUNTERS);
    }

    #[test]
    fn values_are_cut_and_printable() {
        let mut sketch = Sketch::default();
        sketch.add(&[b'x'; 1000], 1);
        sketch.add(&[b'x'; 2000], 1);
        sketch.add(&[0xff; 300], 5);
        let top = sketch.top(10);
        assert_eq!(top.len(), 2);
        assert_eq!(top[1], ("x".repeat(VALUE_BYTES_MAX), 2));
    }
}
