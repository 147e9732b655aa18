//! Turns the number of bytes and connections at work into "come in" or "not now".
//!
//! # Invariants
//! - What a permit took it gives back when dropped, however the request ends.
//! - A request that is alone is always admitted, or one that is larger than a limit never would be.
//! - Connections that hold equally much are never told apart: until the limit is reached, only one
//!   that holds more than its share is refused.
//!
//! # Limits
//! - Bytes in flight: compressed and decompressed bytes of requests not yet answered, per receiver
//!   and per connection. A connection with one request at a time is bounded by that request.
//! - Above half of the receiver's limit, a connection's share: the limit over the connections that
//!   hold something. While the log is behind, the average of what connections hold, for one that has
//!   other requests in flight.
//! - Connections: per receiver, over all shards.
//!
//! # Threads
//! Shared by all shards but what a connection holds, which its shard has to itself. Relaxed counters,
//! so two requests that arrive together at the limit may both be refused. No data is published
//! through them.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why a request is not taken now. All of it may be sent again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shed {
    /// The receiver holds all it may.
    Full,
    /// The connection holds all it may.
    Connection,
    /// It is getting tight, and the connection holds more than its share.
    Share,
    /// The log is behind, and the connection has more in flight than others.
    LogBehind,
}

/// What the decision is about, at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Load {
    /// What is asked for.
    more: u64,
    /// What the request has already.
    own: u64,
    /// What its connection has, the request's included.
    held: u64,
    /// What all have, the connection's included.
    taken: u64,
    /// Connections that have something, this one included.
    holders: u64,
    limit: u64,
    connection_limit: u64,
}

impl Load {
    /// Whether the request may have more.
    fn decide(self) -> Result<(), Shed> {
        let is_alone = self.taken == self.own;
        if is_alone {
            return Ok(());
        }
        let after = self.taken.saturating_add(self.more);
        if after > self.limit {
            return Err(Shed::Full);
        }
        let held = self.held.saturating_add(self.more);
        let is_alone_here = self.held == self.own;
        if held > self.connection_limit && !is_alone_here {
            return Err(Shed::Connection);
        }
        if after > self.limit / 2 && held > self.limit / self.holders.max(1) {
            return Err(Shed::Share);
        }
        Ok(())
    }

    /// Whether the request may go to a log that is behind: more of the same from a connection that
    /// has more than the average there already would only make the others wait.
    fn decide_behind(self) -> Result<(), Shed> {
        let others = self.held.saturating_sub(self.own);
        if others > self.taken / self.holders.max(1) {
            return Err(Shed::LogBehind);
        }
        Ok(())
    }
}

/// Bytes of a receiver's requests in flight.
#[derive(Debug)]
pub(crate) struct Flight {
    taken: AtomicU64,
    /// Connections that hold something.
    holders: AtomicU64,
    /// Both may change at any time; what is taken by then stays.
    limit: AtomicU64,
    connection_limit: AtomicU64,
}

/// Bytes of one connection's requests in flight.
#[derive(Default, Debug)]
pub(crate) struct Held(Cell<u64>);

impl Flight {
    pub(crate) const fn new(limit: u64, connection_limit: u64) -> Self {
        Self {
            taken: AtomicU64::new(0),
            holders: AtomicU64::new(0),
            limit: AtomicU64::new(limit),
            connection_limit: AtomicU64::new(connection_limit),
        }
    }

    /// The limits from now on.
    pub(crate) fn set_limits(&self, limit: u64, connection_limit: u64) {
        self.limit.store(limit, Ordering::Relaxed);
        (self.connection_limit).store(connection_limit, Ordering::Relaxed);
    }

    /// How much is taken.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// A permit for nothing yet, for a request of the connection that holds `held`.
    pub(crate) const fn permit<'g>(&'g self, held: &'g Held) -> BytesPermit<'g> {
        BytesPermit {
            flight: self,
            held,
            own: 0,
        }
    }
}

/// What one request has taken.
#[derive(Debug)]
pub(crate) struct BytesPermit<'g> {
    flight: &'g Flight,
    held: &'g Held,
    own: u64,
}

impl BytesPermit<'_> {
    /// Takes `more`, or says why not, with nothing taken.
    pub(crate) fn take(&mut self, more: usize) -> Result<(), Shed> {
        let more = u64::try_from(more).unwrap_or(u64::MAX / 2);
        let before = self.held.0.get();
        if before == 0 && more > 0 {
            self.flight.holders.fetch_add(1, Ordering::Relaxed);
        }
        let taken = self.flight.taken.fetch_add(more, Ordering::Relaxed);
        self.held.0.set(before + more);
        let load = Load {
            more,
            held: before,
            taken,
            ..self.load()
        };
        if let Err(shed) = load.decide() {
            self.give_back(more);
            return Err(shed);
        }
        self.own += more;
        Ok(())
    }

    /// Whether the request may go to a log; asked with what says that the log is behind, and only where
    /// the connection has other requests in flight.
    pub(crate) fn may_append(&self, is_behind: impl FnOnce() -> bool) -> Result<(), Shed> {
        if self.held.0.get() > self.own && is_behind() {
            return self.load().decide_behind();
        }
        Ok(())
    }

    fn load(&self) -> Load {
        Load {
            more: 0,
            own: self.own,
            held: self.held.0.get(),
            taken: self.flight.taken(),
            holders: self.flight.holders.load(Ordering::Relaxed),
            limit: self.flight.limit.load(Ordering::Relaxed),
            connection_limit: self.flight.connection_limit.load(Ordering::Relaxed),
        }
    }

    fn give_back(&self, amount: u64) {
        self.flight.taken.fetch_sub(amount, Ordering::Relaxed);
        let left = self.held.0.get() - amount;
        self.held.0.set(left);
        if left == 0 && amount > 0 {
            self.flight.holders.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for BytesPermit<'_> {
    fn drop(&mut self) {
        self.give_back(self.own);
    }
}

/// A bounded count of connections, shared by the shards.
#[derive(Debug)]
pub(crate) struct Gate {
    taken: AtomicU64,
    limit: AtomicU64,
}

impl Gate {
    pub(crate) const fn new(limit: u64) -> Self {
        Self {
            taken: AtomicU64::new(0),
            limit: AtomicU64::new(limit),
        }
    }

    /// The limit from now on; those that are in stay.
    pub(crate) fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// How many there are.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// One more; none if there may not be.
    pub(crate) fn enter(&self) -> Option<Permit<'_>> {
        let before = self.taken.fetch_add(1, Ordering::Relaxed);
        let permit = Permit(self);
        (before < self.limit.load(Ordering::Relaxed)).then_some(permit)
    }
}

/// The place of one connection.
#[derive(Debug)]
pub(crate) struct Permit<'g>(&'g Gate);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD: Load = Load {
        more: 1,
        own: 0,
        held: 0,
        taken: 50,
        holders: 2,
        limit: 100,
        connection_limit: 60,
    };

    #[test]
    fn a_request_alone_is_admitted_however_large() {
        let alone = Load {
            more: 1000,
            own: 70,
            held: 70,
            taken: 70,
            holders: 1,
            ..LOAD
        };
        assert_eq!(alone.decide(), Ok(()));
        let with_another = Load { taken: 71, ..alone };
        assert_eq!(with_another.decide(), Err(Shed::Full));
    }

    #[test]
    fn a_connection_has_its_own_limit_unless_the_request_is_alone_on_it() {
        let much = Load {
            own: 10,
            held: 60,
            taken: 61,
            holders: 1,
            ..LOAD
        };
        assert_eq!(much.decide(), Err(Shed::Connection));
        assert_eq!(Load { held: 59, ..much }.decide(), Ok(()));
        assert_eq!(Load { own: 60, ..much }.decide(), Ok(()));
    }

    #[test]
    fn above_half_whoever_has_more_than_its_share_is_refused_first() {
        let at_share = Load {
            held: 24,
            holders: 4,
            ..LOAD
        };
        assert_eq!(at_share.decide(), Ok(()));
        let beyond = Load {
            held: 25,
            ..at_share
        };
        assert_eq!(beyond.decide(), Err(Shed::Share));
        // Below half nobody is refused, and a newcomer never is.
        assert_eq!(
            Load {
                taken: 49,
                ..beyond
            }
            .decide(),
            Ok(())
        );
        assert_eq!(Load { held: 0, ..beyond }.decide(), Ok(()));
    }

    #[test]
    fn connections_that_hold_equally_much_fill_the_limit() {
        for connections in 1..=100u64 {
            let each = 100 / connections;
            let mut taken = 0;
            for at in 0..connections {
                let load = Load {
                    more: each,
                    taken,
                    holders: at + 1,
                    ..LOAD
                };
                assert_eq!(load.decide(), Ok(()), "{at} of {connections}");
                taken += each;
            }
        }
    }

    #[test]
    fn while_the_log_is_behind_more_from_whoever_has_most_is_refused() {
        let most = Load {
            own: 10,
            held: 50,
            taken: 60,
            holders: 3,
            ..LOAD
        };
        assert_eq!(most.decide_behind(), Err(Shed::LogBehind));
        assert_eq!(Load { held: 30, ..most }.decide_behind(), Ok(()));
        let only = Load {
            held: 60,
            holders: 1,
            ..most
        };
        assert_eq!(only.decide_behind(), Ok(()));
    }

    #[test]
    fn a_permit_gives_back_what_it_took() {
        let flight = Flight::new(10, 10);
        let (here, there) = (Held::default(), Held::default());
        let holders = || flight.holders.load(Ordering::Relaxed);
        let mut first = flight.permit(&here);
        assert_eq!((first.take(6), first.take(4)), (Ok(()), Ok(())));
        let mut second = flight.permit(&there);
        assert_eq!(second.take(1), Err(Shed::Full));
        assert_eq!((holders(), there.0.get()), (1, 0));
        drop(first);
        assert_eq!(holders(), 0);
        assert_eq!(second.take(10), Ok(()));
        assert_eq!((flight.taken(), holders()), (10, 1));
        drop(second);
        assert_eq!((flight.taken(), holders(), there.0.get()), (0, 0, 0));
    }

    #[test]
    fn requests_of_one_connection_count_together() {
        let flight = Flight::new(100, 10);
        let (here, there) = (Held::default(), Held::default());
        let mut first = flight.permit(&here);
        let mut second = flight.permit(&here);
        assert_eq!((first.take(6), second.take(4)), (Ok(()), Ok(())));
        assert_eq!(second.take(1), Err(Shed::Connection));
        assert_eq!(flight.permit(&there).take(20), Ok(()));
        assert_eq!(first.may_append(|| false), Ok(()));
        assert_eq!(
            first.may_append(|| true),
            Ok(()),
            "nobody else has anything"
        );
        let mut other = flight.permit(&there);
        assert_eq!(other.take(1), Ok(()));
        assert_eq!(second.may_append(|| true), Err(Shed::LogBehind));
        assert_eq!(other.may_append(|| unreachable!()), Ok(()));
    }

    #[test]
    fn one_connection_more_than_allowed_is_refused() {
        let gate = Gate::new(1);
        let first = gate.enter();
        assert!(first.is_some() && gate.enter().is_none());
        assert_eq!(gate.taken(), 1);
        drop(first);
        assert!(gate.enter().is_some());
        assert_eq!(gate.taken(), 0);
    }

    #[test]
    fn limits_that_change_hold_from_the_next_one_on_and_take_nothing_back() {
        let gate = Gate::new(2);
        let (first, second) = (gate.enter(), gate.enter());
        gate.set_limit(1);
        assert!(first.is_some() && second.is_some());
        drop(first);
        assert!(gate.enter().is_none(), "the second is in");
        let flight = Flight::new(10, 10);
        let (here, there) = (Held::default(), Held::default());
        let (mut a, mut b) = (flight.permit(&here), flight.permit(&there));
        assert_eq!(a.take(6), Ok(()));
        flight.set_limits(5, 5);
        assert_eq!(b.take(1), Err(Shed::Full));
        flight.set_limits(100, 5);
        assert_eq!(b.take(4), Ok(()));
        assert_eq!(flight.permit(&there).take(2), Err(Shed::Connection));
        drop((a, b));
        assert_eq!(flight.taken(), 0);
    }
}
