//! Turns an accepted connection into the shard that serves it: the one with the fewest.
//!
//! The system spreads connections over the sockets of an address by a hash of their ends. With few and
//! busy ones that is a lottery: of four connections on two shards all land on one in one case of eight,
//! and a core does nothing for as long as they last. So the shard that accepted one hands it over to
//! the shard with the fewest connections, if it has more itself.
//!
//! # Invariants
//! - Every place taken is given back when the connection ends, on whichever shard.
//!
//! # Failure
//! - A shard that takes no more (its inbox is full, or it stops): the one that accepted serves.
//!
//! # Limits
//! - [`INBOX_MAX`] connections on their way to a shard, parts of requests (`share`) among them.
//!
//! # Threads
//! - Sockets cross in bounded channels, one per shard and receiver; the counts are relaxed: two shards
//!   that accept at the same moment may choose the same.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use crate::share::Passed;
use crate::stats::ReceiverStats;

/// Connections, or parts, that a shard has not looked at yet.
const INBOX_MAX: usize = 256;

/// Where the shards of a receiver leave connections for each other.
#[derive(Clone, Debug)]
pub(crate) struct Spread {
    stats: Arc<ReceiverStats>,
    inboxes: Arc<[mpsc::Sender<HandedOver>]>,
}

/// What another thread hands over to a shard.
#[derive(Debug)]
pub(crate) enum HandedOver {
    Connection(TcpStream, Place),
    /// Of a request that came to another agent.
    Part(Passed),
}

/// What is handed over to one shard.
pub(crate) type Inbox = mpsc::Receiver<HandedOver>;

/// A connection in the count of its shard, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    stats: Arc<ReceiverStats>,
    shard: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open().fetch_sub(1, Ordering::Relaxed);
    }
}

impl Place {
    fn new(stats: &Arc<ReceiverStats>, shard: usize) -> Self {
        let place = Self {
            stats: stats.clone(),
            shard,
        };
        place.open().fetch_add(1, Ordering::Relaxed);
        place
    }

    fn open(&self) -> &AtomicU64 {
        &self.stats.shards[self.shard].connections_open
    }
}

impl Spread {
    /// For the shards of a receiver; an inbox for each.
    pub(crate) fn new(stats: &Arc<ReceiverStats>) -> (Self, Vec<Inbox>) {
        let channels = stats.shards.iter().map(|_| mpsc::channel(INBOX_MAX));
        let (inboxes, receivers): (Vec<_>, Vec<_>) = channels.unzip();
        let spread = Self {
            stats: stats.clone(),
            inboxes: inboxes.into(),
        };
        (spread, receivers)
    }

    /// Keeps a connection that shard `own` has accepted, or hands it over: `None` then.
    pub(crate) fn keep(
        &self,
        own: usize,
        stream: tokio::net::TcpStream,
    ) -> Option<(tokio::net::TcpStream, Place)> {
        let to = fewest(own, &self.counts());
        let place = Place::new(&self.stats, to);
        if to == own {
            return Some((stream, place));
        }
        let stream = match stream.into_std() {
            Ok(stream) => stream,
            Err(error) => {
                self.stats.shards[own].accept_failed();
                tracing::warn!(%error, "a connection is lost on the way to its thread");
                return None;
            }
        };
        match self.inboxes[to].try_send(HandedOver::Connection(stream, place)) {
            Ok(()) => None,
            Err(full) => {
                let HandedOver::Connection(stream, _) = full.into_inner() else {
                    return None;
                };
                let stream = tokio::net::TcpStream::from_std(stream).ok()?;
                Some((stream, Place::new(&self.stats, own)))
            }
        }
    }

    /// Leaves a part for a shard; whether there is room. Which one, is for who knows how many it has left.
    pub(crate) fn pass(&self, at: usize, part: Passed) -> bool {
        let inbox = at.checked_rem(self.inboxes.len());
        let inbox = inbox.and_then(|at| self.inboxes.get(at));
        inbox.is_some_and(|inbox| inbox.try_send(HandedOver::Part(part)).is_ok())
    }

    fn counts(&self) -> Vec<u64> {
        let shards = self.stats.shards.iter();
        let open = shards.map(|shard| shard.connections_open.load(Ordering::Relaxed));
        open.collect()
    }
}

/// The shard with the fewest connections; `own` if none has fewer.
fn fewest(own: usize, counts: &[u64]) -> usize {
    let ours = counts.get(own).copied().unwrap_or(u64::MAX);
    let least = counts.iter().enumerate().min_by_key(|(_, count)| **count);
    match least {
        Some((shard, count)) if *count < ours => shard,
        _ => own,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_goes_to_the_shard_with_the_fewest_and_stays_where_none_has_fewer() {
        assert_eq!(fewest(0, &[0, 0]), 0);
        assert_eq!(fewest(1, &[0, 0]), 1);
        assert_eq!(fewest(0, &[1, 0]), 1);
        assert_eq!(fewest(0, &[1, 2]), 0);
        assert_eq!(fewest(2, &[5, 3, 4]), 1);
    }
}
