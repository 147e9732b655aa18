//! Turns the series that tenants send into how many each has active, and the one too many into a refusal.
//!
//! One word per series of a store: whose it is and when it was last sent, in halves of the idle timeout. A
//! sample of an active series costs one load and one comparison.
//!
//! # Invariants
//! - The count of a tenant is the number of words that name it, plus what passes have reserved. Whoever
//!   changes a word by compare-and-swap or swap changes the counts of both its tenants.
//! - A series is one tenant's at a time: that which sent it first. Others that send it too are let through
//!   and not charged, until the first stops.
//! - A ref that was given to another series goes over to whoever brought that, as new series take their
//!   word whoever has it. One that was given away by another receiver is charged to its old tenant
//!   until the timeout: the same as if the series had not gone.
//!
//! # Limits
//! - 4 to 8 bytes per ref of the store, allocated as refs get larger.
//! - The sweep at each half of the timeout reads every word: about a millisecond per million series, on
//!   the thread that finds the time has come.
//!
//! # Threads
//! Shared by the shards; relaxed atomics, as no data is published through them.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use wal::SeriesRef;

/// A tenant's place in the counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TenantNumber(pub(crate) u32);

/// Halves of the idle timeout, counted; compared within 128.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Epoch(pub(crate) u8);

impl Epoch {
    /// Whether something last sent in this epoch is idle in `now`. A thread that read the epoch before
    /// another moved it on sees words from the future: they are not.
    const fn is_idle(self, now: Self) -> bool {
        now.0.wrapping_sub(self.0).cast_signed() >= 2
    }
}

/// Who has a series, and when it was last sent; 0 is nobody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Word(u32);

impl Word {
    const fn new(tenant: TenantNumber, epoch: Epoch) -> Self {
        Self((tenant.0 + 1) << 8 | epoch.0 as u32)
    }

    const fn tenant(self) -> Option<TenantNumber> {
        match (self.0 >> 8).checked_sub(1) {
            Some(number) => Some(TenantNumber(number)),
            None => None,
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "the low byte")]
    const fn epoch(self) -> Epoch {
        Epoch(self.0 as u8)
    }
}

/// Words of the first chunk; each further one has twice as many, so that few pointers reach every ref.
const FIRST_CHUNK: u32 = 1 << 12;
const CHUNKS: usize = 21;

/// Who has which series of one store.
#[derive(Debug)]
pub(crate) struct Activity {
    chunks: [OnceLock<Box<[AtomicU32]>>; CHUNKS],
    counts: Box<[AtomicU32]>,
}

impl Activity {
    /// For tenants of numbers below `tenants`.
    pub(crate) fn new(tenants: usize) -> Self {
        Self {
            chunks: [const { OnceLock::new() }; CHUNKS],
            counts: (0..tenants).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// How many series a tenant has active, as of the last sweep.
    pub(crate) fn count(&self, tenant: TenantNumber) -> u32 {
        let count = self.counts.get(tenant.0 as usize);
        count.map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// A series that the log knows was sent. False if it is not active and the tenant has `limit`
    /// active ones already; 0 is no limit.
    #[inline]
    pub(crate) fn sent(
        &self,
        series: SeriesRef,
        (tenant, limit): (TenantNumber, u32),
        now: Epoch,
    ) -> bool {
        let Some(word) = self.word(series) else {
            return true;
        };
        let ours = Word::new(tenant, now);
        let mut found = Word(word.load(Ordering::Relaxed));
        loop {
            if found == ours {
                return true;
            }
            let takes_over = match found.tenant() {
                Some(owner) if owner == tenant => false,
                Some(_) if !found.epoch().is_idle(now) => return true,
                _ => true,
            };
            if takes_over && !self.reserve((tenant, limit)) {
                return false;
            }
            match word.compare_exchange(found.0, ours.0, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    if takes_over {
                        self.release(found.tenant(), 1);
                    }
                    return true;
                }
                Err(other) => {
                    if takes_over {
                        self.release(Some(tenant), 1);
                    }
                    found = Word(other);
                }
            }
        }
    }

    /// Counts one series more for a tenant that is about to define it; false if it may not.
    pub(crate) fn reserve(&self, (tenant, limit): (TenantNumber, u32)) -> bool {
        let Some(count) = self.counts.get(tenant.0 as usize) else {
            return true;
        };
        let before = count.fetch_add(1, Ordering::Relaxed);
        if limit > 0 && before >= limit {
            count.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        true
    }

    /// A reserved series has been defined, or somebody else's definition was found.
    pub(crate) fn defined(&self, series: SeriesRef, tenant: TenantNumber, now: Epoch) {
        let Some(word) = self.word(series) else {
            return self.release(Some(tenant), 1);
        };
        let before = word.swap(Word::new(tenant, now).0, Ordering::Relaxed);
        self.release(Word(before).tenant(), 1);
    }

    /// Counts less for a tenant.
    pub(crate) fn release(&self, tenant: Option<TenantNumber>, series: u32) {
        let count = tenant.and_then(|tenant| self.counts.get(tenant.0 as usize));
        if let Some(count) = count {
            count.fetch_sub(series, Ordering::Relaxed);
        }
    }

    /// Lets go of what is idle.
    pub(crate) fn sweep(&self, now: Epoch) {
        for word in self.chunks.iter().filter_map(OnceLock::get).flatten() {
            let found = Word(word.load(Ordering::Relaxed));
            // Whoever changes it meanwhile has sent it.
            if found.tenant().is_some()
                && found.epoch().is_idle(now)
                && word
                    .compare_exchange(found.0, 0, Ordering::Relaxed, Ordering::Relaxed)
                    .is_ok()
            {
                self.release(found.tenant(), 1);
            }
        }
    }

    #[inline]
    fn word(&self, series: SeriesRef) -> Option<&AtomicU32> {
        let at = u64::from(series.get()) + u64::from(FIRST_CHUNK);
        let chunk = at.ilog2() - FIRST_CHUNK.ilog2();
        let words = u64::from(FIRST_CHUNK) << chunk;
        let allocate = || (0..words).map(|_| AtomicU32::new(0)).collect();
        let chunk = self.chunks.get(chunk as usize)?.get_or_init(allocate);
        chunk.get(usize::try_from(at - words).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: TenantNumber = TenantNumber(0);
    const B: TenantNumber = TenantNumber(1);

    fn series(number: u32) -> SeriesRef {
        SeriesRef::new(number)
    }

    #[test]
    fn a_tenant_at_its_limit_goes_on_with_what_it_has() {
        let activity = Activity::new(2);
        let limited = (A, 2);
        assert!(activity.sent(series(1), limited, Epoch(0)));
        assert!(activity.sent(series(2), limited, Epoch(0)));
        assert!(!activity.sent(series(3), limited, Epoch(0)));
        assert!(!activity.reserve(limited));
        assert!(activity.sent(series(1), limited, Epoch(1)));
        assert_eq!((activity.count(A), activity.count(B)), (2, 0));
        assert!(activity.sent(series(3), (B, 0), Epoch(0)));
    }

    #[test]
    fn what_is_not_sent_for_two_halves_makes_room() {
        let activity = Activity::new(1);
        for epoch in [255u8, 0] {
            let now = Epoch(epoch);
            assert!(activity.sent(series(1), (A, 2), now));
            activity.sweep(now);
        }
        assert!(activity.sent(series(2), (A, 2), Epoch(0)));
        assert!(activity.sent(series(2), (A, 2), Epoch(1)));
        activity.sweep(Epoch(1));
        assert_eq!(activity.count(A), 2, "sent within the last half");
        activity.sweep(Epoch(2));
        assert_eq!(activity.count(A), 1);
        assert!(activity.sent(series(9), (A, 2), Epoch(2)));
    }

    #[test]
    fn a_series_is_charged_to_whoever_sent_it_first_until_it_stops() {
        let activity = Activity::new(2);
        assert!(activity.sent(series(1), (A, 1), Epoch(0)));
        assert!(activity.sent(series(1), (B, 1), Epoch(0)));
        assert_eq!((activity.count(A), activity.count(B)), (1, 0));
        // Idle by now, though nobody has swept yet.
        assert!(activity.sent(series(1), (B, 1), Epoch(2)));
        assert_eq!((activity.count(A), activity.count(B)), (0, 1));
    }

    #[test]
    fn a_ref_that_names_another_series_goes_over() {
        let activity = Activity::new(2);
        assert!(activity.sent(series(7), (A, 0), Epoch(0)));
        assert!(activity.reserve((B, 1)));
        activity.defined(series(7), B, Epoch(0));
        assert_eq!((activity.count(A), activity.count(B)), (0, 1));
        // Named twice in a request, or defined by another shard meanwhile.
        assert!(!activity.reserve((B, 1)));
        assert!(activity.reserve((B, 2)));
        activity.defined(series(7), B, Epoch(0));
        assert_eq!(activity.count(B), 1);
    }

    #[test]
    fn every_ref_has_a_word_of_its_own() {
        let activity = Activity::new(1);
        let numbers = (0..20_000).chain([1 << 20, (1 << 20) - FIRST_CHUNK]);
        let mut sent = 0;
        for number in numbers {
            assert!(activity.sent(series(number), (A, 0), Epoch(0)));
            sent += 1;
        }
        assert_eq!(activity.count(A), sent);
        assert!(
            activity.chunks.len()
                > (u64::from(u32::MAX) + u64::from(FIRST_CHUNK)).ilog2() as usize - 12
        );
    }

    #[test]
    fn counts_hold_whatever_threads_do_at_once() {
        let activity = Activity::new(2);
        std::thread::scope(|scope| {
            for tenant in [A, B] {
                let activity = &activity;
                scope.spawn(move || {
                    for round in 0..200u32 {
                        let now = Epoch(u8::try_from(round % 256).unwrap());
                        for number in 0..50 {
                            activity.sent(series(number + round % 7), (tenant, 40), now);
                        }
                        if activity.reserve((tenant, 40)) {
                            activity.defined(series(round % 50), tenant, now);
                        }
                        activity.sweep(now);
                    }
                });
            }
        });
        let words = activity.chunks.iter().filter_map(OnceLock::get).flatten();
        let mut named = [0, 0];
        for word in words {
            if let Some(tenant) = Word(word.load(Ordering::Relaxed)).tenant() {
                named[tenant.0 as usize] += 1;
            }
        }
        assert_eq!(named, [activity.count(A), activity.count(B)]);
    }
}
