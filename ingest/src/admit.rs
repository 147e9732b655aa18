//! Turns the number of bytes and connections at work into "come in" or "not now".
//!
//! # Invariants
//! - What a permit took it gives back when dropped, however the request ends.
//!
//! # Limits
//! - Bytes in flight: compressed and decompressed bytes of requests not yet answered, per
//!   receiver. A request larger than the limit is admitted when it is alone, or it never would be.
//! - Connections: per receiver, over all shards.
//!
//! # Threads
//! Shared by all shards; relaxed counters, so two requests that arrive together at the limit may
//! both be refused. No data is published through them.

use std::sync::atomic::{AtomicU64, Ordering};

/// A bounded count shared by the shards.
#[derive(Debug)]
pub(crate) struct Gate {
    taken: AtomicU64,
    limit: u64,
}

impl Gate {
    pub(crate) const fn new(limit: u64) -> Self {
        Self {
            taken: AtomicU64::new(0),
            limit,
        }
    }

    /// How much is taken.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// A permit for nothing yet.
    pub(crate) const fn permit(&self) -> Permit<'_> {
        Permit {
            gate: self,
            amount: 0,
        }
    }
}

/// What one request or connection has taken.
#[derive(Debug)]
pub(crate) struct Permit<'g> {
    gate: &'g Gate,
    amount: u64,
}

impl Permit<'_> {
    /// Takes `more`; `false` if there is not that much, with nothing taken.
    pub(crate) fn take(&mut self, more: usize) -> bool {
        let more = u64::try_from(more).unwrap_or(u64::MAX / 2);
        let before = self.gate.taken.fetch_add(more, Ordering::Relaxed);
        let is_alone = before == self.amount;
        if before.saturating_add(more) > self.gate.limit && !is_alone {
            self.gate.taken.fetch_sub(more, Ordering::Relaxed);
            return false;
        }
        self.amount += more;
        true
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.gate.taken.fetch_sub(self.amount, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_gives_back_what_it_took() {
        let gate = Gate::new(10);
        let mut first = gate.permit();
        assert!(first.take(6) && first.take(4));
        let mut second = gate.permit();
        assert!(!second.take(1));
        drop(first);
        assert!(second.take(10));
        assert_eq!(gate.taken(), 10);
        drop(second);
        assert_eq!(gate.taken(), 0);
    }

    #[test]
    fn a_request_beyond_the_limit_is_admitted_alone() {
        let gate = Gate::new(10);
        let mut large = gate.permit();
        assert!(large.take(8) && large.take(8));
        assert!(!gate.permit().take(1));
        drop(large);
        let mut small = gate.permit();
        assert!(small.take(1));
        assert!(!gate.permit().take(11));
    }
}
