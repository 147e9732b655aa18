//! Turns label bytes as they were sent into small numbers, without a log behind them.
//!
//! Where the bytes a sender uses are not those of the series they end up in (labels that come
//! unsorted, relabel rules in between), comparing them with the stored labels fails every time. An
//! alias is such bytes, kept: found by prediction like a series (what followed last time is compared
//! first), else by hash. What an alias leads to is known elsewhere (`paths`, `intern`).
//!
//! # Invariants
//! - An alias is given out only for bytes that are equal to its own, all of them.
//! - [`Aliases::identity`] never names two different byte strings: whoever keeps something about an
//!   alias keeps the identity beside it, and need not be told when the alias is given to others.
//! - What the current request uses stays until the next one begins.
//!
//! # Limits
//! - [`Limits`]. Beyond them an alias taken at random makes room: with targets that come round one
//!   after the other, giving up the one that was not used for longest would give up each just before
//!   it is needed. A request that alone needs more than the limits exceeds them until the next.
//!
//! # Threads
//! - Owned by a shard thread.

use std::hash::BuildHasher;
use std::time::Duration;

use foldhash::quality::RandomState;
use hashbrown::HashTable;

use crate::decode::labels::LABEL_TAG;

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Most aliases.
    pub(crate) entries_max: usize,
    /// Most bytes of labels.
    pub(crate) bytes_max: usize,
    /// An alias that was not used for so long is given up.
    pub(crate) ttl: Option<Duration>,
}

/// Where there is no room one of so many is kept.
const KEPT_OF_FULL: u8 = 32;
/// What label sets often have.
const BYTES_EXPECTED: usize = 1 << 10;

/// How often the place to make room at is chosen anew before the limits are exceeded instead.
const TRIES_MAX: usize = 16;

/// An alias; the first of all is none, and what it predicts is the start of a first request.
#[derive(Default, Debug)]
struct Entry {
    bytes: Box<[u8]>,
    hash: u64,
    identity: u64,
    /// The alias that followed last time; 0 is none.
    next: u32,
    /// The request that used it last.
    request: u32,
    /// Seconds of monotonic time when it was used last.
    used_s: u32,
}

/// Every alias of one receiver on one shard thread.
#[derive(Debug)]
pub(crate) struct Aliases {
    entries: Vec<Entry>,
    table: HashTable<u32>,
    free: Vec<u32>,
    hasher: RandomState,
    random: fastrand::Rng,
    limits: Limits,
    bytes: usize,
    identities: u64,
    request: u32,
    now_s: u32,
    /// Where looking for what is too old goes on.
    hand: usize,
    /// When the hand was moved last.
    swept_s: u32,
    /// Aliases given up to make room, and because of their age.
    given_up: [u64; 2],
}

impl Aliases {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            entries: vec![Entry::default()],
            table: HashTable::new(),
            free: Vec::new(),
            hasher: RandomState::default(),
            random: fastrand::Rng::new(),
            limits,
            bytes: 0,
            identities: 0,
            request: 0,
            now_s: 0,
            hand: 0,
            swept_s: 0,
            given_up: [0; 2],
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Aliases given up to make room, and because of their age.
    pub(crate) const fn given_up(&self) -> [u64; 2] {
        self.given_up
    }

    /// A request begins at this monotonic time; what the one before used may be given up.
    pub(crate) fn begin(&mut self, now: Duration) {
        self.request = self.request.wrapping_add(1);
        self.now_s = u32::try_from(now.as_secs()).unwrap_or(u32::MAX);
        while self.is_over() && self.make_room() {}
        if let Some(ttl) = self.limits.ttl {
            self.sweep(u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX).max(1));
        }
    }

    /// The alias that followed `after`, if `series` begins with its bytes and then has no label more:
    /// its number and length.
    #[inline]
    pub(crate) fn predicted(&mut self, after: u32, series: &[u8]) -> Option<(u32, usize)> {
        let next = self.entries.get(after as usize)?.next;
        let (request, now_s) = (self.request, self.now_s);
        let entry = self.entries.get_mut(next as usize)?;
        let length = entry.bytes.len();
        if length == 0
            || !series.starts_with(&entry.bytes)
            || series.get(length) == Some(&LABEL_TAG)
        {
            return None;
        }
        (entry.request, entry.used_s) = (request, now_s);
        Some((next, length))
    }

    /// The alias with exactly these bytes.
    pub(crate) fn find(&mut self, bytes: &[u8]) -> Option<u32> {
        if self.table.is_empty() {
            return None;
        }
        let hash = self.hasher.hash_one(bytes);
        let entries = &self.entries;
        let is_it = |at: &u32| bytes_of(entries, *at) == bytes;
        let found = *self.table.find(hash, is_it)?;
        self.touch(found);
        Some(found)
    }

    /// Whether the alias of this number has exactly these bytes; it is in use then.
    pub(crate) fn is_again(&mut self, at: u32, bytes: &[u8]) -> bool {
        let is_same = !bytes.is_empty() && bytes_of(&self.entries, at) == bytes;
        if is_same {
            self.touch(at);
        }
        is_same
    }

    /// Whether bytes that were not found are worth keeping: always while there is room, and then rarely.
    /// What comes round in more pieces than there is room for would otherwise push out each time what
    /// it needs next, at the cost of both.
    pub(crate) fn is_worth_keeping(&mut self) -> bool {
        let is_full = self.table.len() >= self.limits.entries_max
            || self.bytes + BYTES_EXPECTED > self.limits.bytes_max;
        !is_full || self.random.u8(..KEPT_OF_FULL) == 0
    }

    /// Remembers that `next` followed `after`.
    pub(crate) fn learn(&mut self, after: u32, next: u32) {
        if let Some(entry) = self.entries.get_mut(after as usize) {
            entry.next = next;
        }
    }

    /// Makes an alias of bytes that are none yet.
    pub(crate) fn insert(&mut self, bytes: &[u8]) -> u32 {
        let hash = self.hasher.hash_one(bytes);
        if self.table.len() >= self.limits.entries_max
            || self.bytes + bytes.len() > self.limits.bytes_max
        {
            self.make_room();
        }
        self.identities += 1;
        self.bytes += bytes.len();
        let entry = Entry {
            bytes: bytes.into(),
            hash,
            identity: self.identities,
            next: 0,
            request: self.request,
            used_s: self.now_s,
        };
        let at = match self.free.pop() {
            Some(at) => at,
            None => {
                self.entries.push(Entry::default());
                u32::try_from(self.entries.len() - 1).unwrap_or(0)
            }
        };
        if let Some(place) = self.entries.get_mut(at as usize) {
            *place = entry;
        }
        let entries = &self.entries;
        let hash_of = |at: &u32| entries.get(*at as usize).map_or(0, |entry| entry.hash);
        self.table.insert_unique(hash, at, hash_of);
        at
    }

    /// The bytes of an alias; none if it was given up.
    pub(crate) fn bytes(&self, at: u32) -> &[u8] {
        bytes_of(&self.entries, at)
    }

    /// What tells these bytes from those that had the number before; 0 if there are none.
    #[inline]
    pub(crate) fn identity(&self, at: u32) -> u64 {
        self.entries
            .get(at as usize)
            .map_or(0, |entry| entry.identity)
    }

    /// Whether the alias still has this identity; then the request uses it.
    #[inline]
    pub(crate) fn use_again(&mut self, at: u32, identity: u64) -> bool {
        let (request, now_s) = (self.request, self.now_s);
        match self.entries.get_mut(at as usize) {
            Some(entry) if identity != 0 && entry.identity == identity => {
                (entry.request, entry.used_s) = (request, now_s);
                true
            }
            _ => false,
        }
    }

    fn is_over(&self) -> bool {
        self.table.len() > self.limits.entries_max || self.bytes > self.limits.bytes_max
    }

    fn touch(&mut self, at: u32) {
        if let Some(entry) = self.entries.get_mut(at as usize) {
            (entry.request, entry.used_s) = (self.request, self.now_s);
        }
    }

    /// Gives up one that this request does not use; false if none was found.
    fn make_room(&mut self) -> bool {
        for _ in 0..TRIES_MAX {
            let at = self.random.usize(..self.entries.len());
            let is_used = |entry: &Entry| entry.identity == 0 || entry.request == self.request;
            if self.entries.get(at).is_some_and(|entry| !is_used(entry)) {
                self.give_up(at);
                self.given_up[0] += 1;
                return true;
            }
        }
        false
    }

    fn give_up(&mut self, at: usize) {
        let Some(entry) = self.entries.get_mut(at) else {
            return;
        };
        let entry = std::mem::take(entry);
        self.bytes -= entry.bytes.len();
        let number = u32::try_from(at).unwrap_or(0);
        if let Ok(found) = self.table.find_entry(entry.hash, |one| *one == number) {
            found.remove();
            self.free.push(number);
        }
    }

    /// Looks at as many as it takes to see all of them within a quarter of the time they may live.
    fn sweep(&mut self, ttl_s: u32) {
        let passed = self.now_s.saturating_sub(self.swept_s) as usize;
        if passed == 0 {
            return;
        }
        self.swept_s = self.now_s;
        let round_s = (ttl_s as usize / 4).max(1);
        let count = (self.entries.len() * passed).div_ceil(round_s);
        for _ in 0..count.min(self.entries.len()) {
            self.hand = (self.hand + 1) % self.entries.len();
            let is_old = |entry: &Entry| {
                entry.identity != 0
                    && entry.request != self.request
                    && self.now_s.saturating_sub(entry.used_s) >= ttl_s
            };
            if self.entries.get(self.hand).is_some_and(is_old) {
                self.give_up(self.hand);
                self.given_up[1] += 1;
            }
        }
    }
}

fn bytes_of(entries: &[Entry], at: u32) -> &[u8] {
    entries.get(at as usize).map_or(&[], |entry| &entry.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aliases(entries_max: usize, bytes_max: usize) -> Aliases {
        Aliases::new(Limits {
            entries_max,
            bytes_max,
            ttl: None,
        })
    }

    fn begin(aliases: &mut Aliases, seconds: u64) {
        aliases.begin(Duration::from_secs(seconds));
    }

    #[test]
    fn what_followed_is_predicted_and_a_longer_label_set_is_not_it() {
        let mut aliases = aliases(10, 1000);
        begin(&mut aliases, 0);
        let (a, b) = (aliases.insert(b"\x0a\x01a"), aliases.insert(b"\x0a\x01b"));
        aliases.learn(0, a);
        aliases.learn(a, b);
        assert_eq!(aliases.predicted(0, b"\x0a\x01a\x12\x00"), Some((a, 3)));
        assert_eq!(aliases.predicted(0, b"\x0a\x01a\x0a\x00"), None);
        assert_eq!(aliases.predicted(a, b"\x0a\x01b"), Some((b, 3)));
        assert_eq!(aliases.predicted(b, b"\x0a\x01a"), None);
        assert_eq!(aliases.find(b"\x0a\x01b"), Some(b));
        assert_eq!(aliases.find(b"\x0a\x01c"), None);
    }

    #[test]
    fn a_number_given_to_other_bytes_has_another_identity() {
        let mut aliases = aliases(1, 1000);
        begin(&mut aliases, 0);
        let a = aliases.insert(b"a");
        let before = aliases.identity(a);
        begin(&mut aliases, 0);
        let b = aliases.insert(b"b");
        assert_eq!((a, aliases.len()), (b, 1));
        assert_ne!(aliases.identity(b), before);
        assert_eq!(aliases.find(b"a"), None);
        assert_eq!(aliases.given_up(), [1, 0]);
    }

    #[test]
    fn what_the_request_uses_stays_and_the_limits_hold_again_at_the_next() {
        let mut aliases = aliases(2, 1000);
        begin(&mut aliases, 0);
        let all: Vec<_> = (0..50_u8).map(|n| aliases.insert(&[n])).collect();
        for (n, at) in (0..).zip(&all) {
            assert_eq!(aliases.bytes(*at), [n]);
        }
        for _ in 0..50 {
            begin(&mut aliases, 0);
        }
        assert_eq!(aliases.len(), 2);
        let mut aliases = self::aliases(100, 10);
        for n in 0..20 {
            begin(&mut aliases, 0);
            aliases.insert(&[n; 4]);
        }
        assert!(aliases.bytes <= 10, "{}", aliases.bytes);
    }

    #[test]
    fn with_more_than_there_is_room_for_most_of_what_is_kept_stays() {
        let mut aliases = aliases(100, 1 << 20);
        let mut hits = 0;
        for round in 0..20 {
            for n in 0..200_u8 {
                begin(&mut aliases, 0);
                if aliases.find(&[n]).is_some() {
                    hits += usize::from(round > 0);
                } else if aliases.is_worth_keeping() {
                    aliases.insert(&[n]);
                }
            }
        }
        // Half of them, less what a rare newcomer has pushed out.
        assert!(hits > 19 * 80, "{hits}");
    }

    #[test]
    fn what_nobody_uses_for_its_time_is_given_up_and_the_rest_stays() {
        let mut aliases = Aliases::new(Limits {
            entries_max: 1000,
            bytes_max: 1 << 20,
            ttl: Some(Duration::from_secs(60)),
        });
        begin(&mut aliases, 1);
        for n in 0..100_u8 {
            aliases.insert(&[n]);
        }
        for now in (2..200).step_by(5) {
            begin(&mut aliases, now);
            assert!(aliases.find(&[7]).is_some(), "at {now} s");
        }
        assert_eq!((aliases.len(), aliases.given_up()), (1, [0, 99]));
    }
}
