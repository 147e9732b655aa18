//! Turns what became of records into numbers that add up: delivered, or dropped for a named reason.
//!
//! # Invariants
//! For every endpoint, at every saved position: `records in the log before it, since the endpoint
//! began = delivered + dropped`, over all runs.
//!
//! # On disk
//! `docs/format.md`, "Position file": a counter per reason, at the reason's number. The numbers never
//! change.

use std::ops::AddAssign;

/// Counters a position file has room for.
pub(crate) const REASONS_MAX: usize = 16;

/// Why a record did not reach an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum DropReason {
    /// The endpoint refused it for good.
    Refused = 0,
    /// Its series has no readable labels any more.
    UnknownSeries = 1,
    /// A histogram with custom buckets, which remote write 1.0 must not carry.
    CustomBuckets = 2,
    /// Its kind is switched off for this endpoint.
    SwitchedOff = 3,
    /// Its batch is larger than the protocol can carry.
    TooLarge = 4,
    /// Its frame does not check, or checks and cannot be decoded.
    CorruptFrame = 5,
    /// Its segment is gone.
    MissingSegment = 6,
    /// The device cannot read it any more.
    Unreadable = 7,
    /// Of the last group an interrupted run wrote: nothing proves that it was ever acknowledged.
    Torn = 8,
    /// The disk quota was reached with `on_full = "drop_oldest"`.
    Quota = 9,
    /// The endpoint was behind by more than its `max_lag_bytes`.
    MaxLagBytes = 10,
    /// The endpoint was behind by more than its `max_lag_age`.
    MaxLagAge = 11,
    /// The endpoint's relabel rules drop its series.
    Relabel = 12,
    /// It was older than the endpoint's `sample_age_limit`.
    TooOld = 13,
}

impl DropReason {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 14] = [
        Self::Refused,
        Self::UnknownSeries,
        Self::CustomBuckets,
        Self::SwitchedOff,
        Self::TooLarge,
        Self::CorruptFrame,
        Self::MissingSegment,
        Self::Unreadable,
        Self::Torn,
        Self::Quota,
        Self::MaxLagBytes,
        Self::MaxLagAge,
        Self::Relabel,
        Self::TooOld,
    ];

    /// As in metrics and in the ledger.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::UnknownSeries => "unknown_series",
            Self::CustomBuckets => "nhcb_in_rw1_not_supported",
            Self::SwitchedOff => "switched_off",
            Self::TooLarge => "too_large",
            Self::CorruptFrame => "corrupt_frame",
            Self::MissingSegment => "missing_segment",
            Self::Unreadable => "unreadable",
            Self::Torn => "torn",
            Self::Quota => "quota",
            Self::MaxLagBytes => "max_lag_bytes",
            Self::MaxLagAge => "max_lag_age",
            Self::Relabel => "dropped_series",
            Self::TooOld => "too_old",
        }
    }

    /// Its number on disk.
    #[must_use]
    pub const fn number(self) -> usize {
        self as usize
    }
}

const _: () = assert!(DropReason::ALL.len() <= REASONS_MAX);

/// What became of records.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// The endpoint has them.
    pub delivered: u64,
    pub(crate) dropped: [u64; REASONS_MAX],
}

impl Tally {
    /// So many records were delivered.
    #[must_use]
    pub const fn of_delivered(records: u64) -> Self {
        Self {
            delivered: records,
            dropped: [0; REASONS_MAX],
        }
    }

    /// So many records were dropped for this reason.
    #[must_use]
    pub fn of_dropped(reason: DropReason, records: u64) -> Self {
        let mut tally = Self::default();
        tally.drop(reason, records);
        tally
    }

    /// So many more records were dropped for this reason.
    pub fn drop(&mut self, reason: DropReason, records: u64) {
        self.dropped[reason.number()] += records;
    }

    /// Records dropped for this reason.
    #[must_use]
    pub const fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason.number()]
    }

    /// All records it accounts for.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.delivered + self.dropped.iter().sum::<u64>()
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.delivered += other.delivered;
        for (mine, theirs) in self.dropped.iter_mut().zip(other.dropped) {
            *mine += theirs;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_the_number_of_its_place_and_a_name_of_its_own() {
        let mut names = std::collections::BTreeSet::new();
        for (at, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason.number(), at);
            assert!(names.insert(reason.as_str()));
        }
    }

    #[test]
    fn tallies_add_up_by_reason() {
        let mut tally = Tally::of_delivered(5);
        tally += Tally::of_dropped(DropReason::Quota, 3);
        tally.drop(DropReason::Quota, 1);
        assert_eq!((tally.dropped(DropReason::Quota), tally.total()), (4, 9));
    }
}
