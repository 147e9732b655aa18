//! Turns received samples into a verdict: what is missing, repeated, late or altered.
//!
//! # Invariants
//! - `delivered` counts each sample of each series once, however often it arrived.
//! - A sample of series `s` that is not received is either beyond `highest[s]` or in `gaps[s]`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::fleet::Fleet;
use super::wire::{Malformed, Seen, for_each_sample};

/// What has arrived so far.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Counts {
    /// Different samples.
    pub(super) delivered: u64,
    /// Samples that had arrived before.
    pub(super) duplicates: u64,
    /// Samples that arrived for the first time after a later one of their series.
    pub(super) out_of_order: u64,
    /// Samples whose labels, value or timestamp are not those of any sample that is sent.
    pub(super) altered: u64,
    /// Samples of series that skipped over earlier ones, which may still come.
    pub(super) skips: u64,
}

/// Knows what should arrive and compares.
#[derive(Debug)]
pub(super) struct Checker {
    fleet: Arc<Fleet>,
    /// The highest sequence number received, by series.
    highest: Vec<u32>,
    /// Sequence numbers below the highest that have not arrived, by series.
    gaps: BTreeMap<u32, Vec<Range<u32>>>,
    counts: Counts,
}

impl Checker {
    /// Expects the samples of `fleet`.
    pub(super) fn new(fleet: Arc<Fleet>) -> Self {
        let highest = (0..fleet.series()).map(|_| 0).collect();
        Self {
            fleet,
            highest,
            gaps: BTreeMap::new(),
            counts: Counts::default(),
        }
    }

    /// What has arrived so far.
    pub(super) const fn counts(&self) -> Counts {
        self.counts
    }

    /// Takes a request apart and checks every sample of it.
    pub(super) fn receive(&mut self, message: &[u8]) -> Result<(), Malformed> {
        // First to the end: a request that is refused must not count in part.
        for_each_sample(message, |_| {})?;
        for_each_sample(message, |seen| match self.identify(&seen) {
            Some((series, sequence)) => self.record(series, sequence),
            None => self.counts.altered += 1,
        })
    }

    /// Which sample this is, if it is exactly as it was sent.
    fn identify(&self, seen: &Seen<'_>) -> Option<(u32, u32)> {
        let series = seen.series?;
        let sequence = whole(seen.value).filter(|sequence| *sequence > 0)?;
        let intact = self.fleet.labels(series) == Some(seen.labels)
            && self.fleet.timestamp_ms(sequence) == seen.timestamp_ms;
        intact.then_some((series, sequence))
    }

    fn record(&mut self, series: u32, sequence: u32) {
        let at = usize::try_from(series).unwrap_or(usize::MAX);
        let Some(highest) = self.highest.get_mut(at) else {
            self.counts.altered += 1;
            return;
        };
        if sequence > *highest {
            let next = *highest + 1;
            *highest = sequence;
            self.counts.delivered += 1;
            if sequence > next {
                self.counts.skips += 1;
                self.gaps.entry(series).or_default().push(next..sequence);
            }
        } else if self.fill_gap(series, sequence) {
            self.counts.delivered += 1;
            self.counts.out_of_order += 1;
        } else {
            self.counts.duplicates += 1;
        }
    }

    /// Whether the sample was one that had not arrived; now it has.
    fn fill_gap(&mut self, series: u32, sequence: u32) -> bool {
        let Some(gaps) = self.gaps.get_mut(&series) else {
            return false;
        };
        let Some(at) = gaps.iter().position(|gap| gap.contains(&sequence)) else {
            return false;
        };
        let gap = gaps.swap_remove(at);
        for left in [gap.start..sequence, sequence + 1..gap.end] {
            if !left.is_empty() {
                gaps.push(left);
            }
        }
        true
    }

    /// How many samples have not arrived though they should, where `acked` says up to which
    /// sequence number each series' samples should have.
    pub(super) fn missing(&self, acked: impl Fn(u32) -> u32) -> u64 {
        let mut missing = 0;
        for (series, highest) in (0..).zip(&self.highest) {
            let acked = acked(series);
            missing += u64::from(acked.saturating_sub(*highest));
            for gap in self.gaps.get(&series).into_iter().flatten() {
                let end = gap.end.min(acked.saturating_add(1));
                missing += u64::from(end.saturating_sub(gap.start));
            }
        }
        missing
    }
}

/// The value as a whole number, if it is one.
fn whole(value: f64) -> Option<u32> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "compared with what it was right behind"
    )]
    let whole = value as u32;
    (f64::from(whole) == value).then_some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START_MS: i64 = 1_700_000_000_000;

    fn checker(series: u32) -> Checker {
        Checker::new(Arc::new(Fleet::new(series, START_MS)))
    }

    fn deliver(checker: &mut Checker, sequences: &[u32]) {
        let mut message = Vec::new();
        for sequence in sequences {
            checker.fleet.encode(0, *sequence, &mut message);
            checker.receive(&message).unwrap();
        }
    }

    #[test]
    fn everything_in_order_is_a_clean_verdict() {
        let mut checker = checker(3);
        deliver(&mut checker, &[1, 2, 3]);
        let clean = Counts {
            delivered: 9,
            ..Counts::default()
        };
        assert_eq!(checker.counts(), clean);
        assert_eq!(checker.missing(|_| 3), 0);
    }

    #[test]
    fn a_skipped_sample_is_missing() {
        let mut checker = checker(2);
        deliver(&mut checker, &[1, 2, 5]);
        assert_eq!(checker.missing(|_| 5), 4);
        assert_eq!(checker.counts().skips, 2);
    }

    #[test]
    fn samples_that_never_came_at_the_end_are_missing() {
        let mut checker = checker(2);
        deliver(&mut checker, &[1]);
        assert_eq!(checker.missing(|_| 4), 6);
        assert_eq!(checker.missing(|series| if series == 0 { 4 } else { 1 }), 3);
    }

    #[test]
    fn a_series_that_never_came_is_missing() {
        assert_eq!(checker(5).missing(|_| 2), 10);
    }

    #[test]
    fn a_gap_of_samples_that_were_never_acked_is_not_missing() {
        let mut checker = checker(1);
        deliver(&mut checker, &[1, 5]);
        assert_eq!(checker.missing(|_| 1), 0);
        assert_eq!(checker.missing(|_| 3), 2);
    }

    #[test]
    fn a_repeated_sample_is_a_duplicate_and_not_delivered_twice() {
        let mut checker = checker(1);
        deliver(&mut checker, &[1, 2, 3, 2, 3, 4]);
        let counts = checker.counts();
        assert_eq!((counts.delivered, counts.duplicates), (4, 2));
        assert_eq!(counts.out_of_order, 0);
        assert_eq!(checker.missing(|_| 4), 0);
    }

    #[test]
    fn a_late_sample_is_out_of_order_and_no_longer_missing() {
        let mut checker = checker(1);
        deliver(&mut checker, &[1, 5, 3]);
        assert_eq!(checker.counts().out_of_order, 1);
        assert_eq!(checker.missing(|_| 5), 2);
        deliver(&mut checker, &[3]);
        assert_eq!(checker.counts().duplicates, 1);
        deliver(&mut checker, &[2, 4]);
        assert_eq!(checker.missing(|_| 5), 0);
        assert_eq!(checker.counts().out_of_order, 3);
    }

    #[test]
    fn a_sample_with_another_value_time_or_label_is_altered() {
        let mut checker = checker(1);
        let mut message = Vec::new();
        checker.fleet.encode(0, 1, &mut message);
        let last = message.len() - 1;
        // a letter of the last label's value; the value's exponent; the time's highest bits
        for at in [last - 30, last - 7, last] {
            let mut wrong = message.clone();
            wrong[at] ^= 1;
            checker.receive(&wrong).unwrap();
        }
        assert_eq!(checker.counts().altered, 3);
        assert_eq!(checker.counts().delivered, 0);
        assert_eq!(checker.missing(|_| 1), 1);
    }

    #[test]
    fn a_refused_request_counts_for_nothing() {
        let mut checker = checker(3);
        let mut message = Vec::new();
        checker.fleet.encode(0, 1, &mut message);
        message.truncate(message.len() - 3);
        assert!(checker.receive(&message).is_err());
        assert_eq!(checker.counts(), Counts::default());
    }

    #[test]
    fn only_whole_numbers_are_sequence_numbers() {
        assert_eq!(whole(3.0), Some(3));
        for value in [0.5, -1.0, 1e18, f64::NAN, f64::INFINITY] {
            assert_eq!(whole(value), None);
        }
    }
}
