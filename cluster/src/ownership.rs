//! Turns what is known of a cluster now into a handle that is cheap to copy and to ask.
//!
//! # Invariants
//! - What is answered between two changes of the version is the same.
//! - A key that nobody owns is local: with clustering off, and where no agent takes part in the work.
//!
//! # Threads
//! - Written by whoever runs the cluster, read by all; a read takes a lock for one search.

use std::hash::Hasher;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::watch;
use twox_hash::XxHash64;

use crate::node::State;
use crate::ring::Ring;

/// An agent of the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Nobody else has it.
    pub name: Arc<str>,
    /// `host:port` of its HTTP listener.
    pub address: Arc<str>,
    /// What it does.
    pub state: State,
    /// Whether it is this agent.
    pub is_self: bool,
    /// When it started, in milliseconds since the Unix epoch, and its changes since.
    pub age: (u64, u32),
}

/// What is known at one moment, for who asks more than once.
#[derive(Clone, Debug)]
pub struct Moment {
    /// Whether work may be shared.
    pub is_ready: bool,
    /// Stands for those who take part in the work, and for the life of each of them so far: whoever knows of the
    /// same ones has the same number, and no number comes again when somebody comes again.
    pub number: u64,
    /// By their names.
    pub peers: Vec<Peer>,
    ring: Arc<Ring>,
}

impl Moment {
    /// The place among the peers of who owns a key; none: nobody takes part.
    #[must_use]
    pub fn owner(&self, key: u64) -> Option<usize> {
        let name = self.ring.owner(key)?;
        let at = self.peers.binary_search_by(|peer| peer.name.cmp(name));
        at.ok()
    }

    /// Those who take part in the work.
    pub fn participants(&self) -> impl Iterator<Item = &Peer> {
        let all = self.peers.iter();
        all.filter(|peer| peer.state == State::Participant)
    }
}

/// What is known at one moment.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) is_on: bool,
    pub(crate) is_ready: bool,
    pub(crate) version: u64,
    /// By their names.
    pub(crate) peers: Vec<Peer>,
    /// Of those that take part in the work.
    pub(crate) ring: Arc<Ring>,
}

#[derive(Debug)]
struct Shared {
    known: RwLock<Known>,
    version: watch::Sender<u64>,
}

/// Who owns what. Copies are the same.
#[derive(Clone, Debug)]
pub struct Ownership(Arc<Shared>);

impl Ownership {
    /// That of an agent without a cluster: everything is local.
    #[must_use]
    pub fn off() -> Self {
        Self::new(Known {
            is_ready: true,
            ..Known::default()
        })
    }

    pub(crate) fn new(known: Known) -> Self {
        let version = watch::Sender::new(known.version);
        Self(Arc::new(Shared {
            known: RwLock::new(known),
            version,
        }))
    }

    /// Replaces what is known, as another version, and tells those who wait for it.
    pub(crate) fn publish(&self, mut known: Known) {
        let version = {
            let mut place = self.0.known.write();
            known.version = place.version + 1;
            *place = known;
            place.version
        };
        self.0.version.send_replace(version);
    }

    /// Whether this is what is known already: a renewed identity, say, is no news to who asks here.
    pub(crate) fn is_of(&self, peers: &[Peer], is_ready: bool) -> bool {
        let known = self.0.known.read();
        known.is_ready == is_ready && known.peers == peers
    }

    /// Whether there is a cluster.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.known.read().is_on
    }

    /// Whether work may be taken: not before there are as many agents as are waited for.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.known.read().is_ready
    }

    /// Grows with every change.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.0.known.read().version
    }

    /// Whether this agent is the one that owns `key`, or nobody is. Says nothing of [`Self::is_ready`].
    #[must_use]
    pub fn is_local(&self, key: u64) -> bool {
        let known = self.0.known.read();
        owner(&known, key).is_none_or(|peer| peer.is_self)
    }

    /// The agent that owns `key`, of those that take part in the work.
    #[must_use]
    pub fn owner(&self, key: u64) -> Option<Peer> {
        owner(&self.0.known.read(), key).cloned()
    }

    /// All of it at once.
    #[must_use]
    pub fn moment(&self) -> Moment {
        let known = self.0.known.read();
        let mut moment = Moment {
            is_ready: known.is_ready,
            number: 0,
            peers: known.peers.clone(),
            ring: Arc::clone(&known.ring),
        };
        let mut hash = XxHash64::with_seed(0);
        for peer in moment.participants() {
            hash.write(peer.name.as_bytes());
            hash.write(&[0]);
            hash.write(&peer.age.0.to_le_bytes());
            hash.write(&peer.age.1.to_le_bytes());
        }
        moment.number = hash.finish();
        moment
    }

    /// Every agent that is there, by name; none where there is no cluster.
    #[must_use]
    pub fn peers(&self) -> Vec<Peer> {
        self.0.known.read().peers.clone()
    }

    /// How much of all keys each agent that takes part in the work owns.
    #[must_use]
    pub fn shares(&self) -> Vec<(Arc<str>, f64)> {
        self.0.known.read().ring.shares()
    }

    /// Is told of each change, at most once a second.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.0.version.subscribe()
    }

    /// How many wait to be told of changes.
    #[must_use]
    pub fn observers(&self) -> usize {
        self.0.version.receiver_count()
    }
}

fn owner(known: &Known, key: u64) -> Option<&Peer> {
    let name = known.ring.owner(key)?;
    let at = known.peers.binary_search_by(|peer| peer.name.cmp(name));
    known.peers.get(at.ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_cluster_everything_is_local() {
        let off = Ownership::off();
        assert!(!off.is_on() && off.is_ready() && off.is_local(7));
        assert_eq!((off.owner(7), off.version()), (None, 0));
        assert!(off.peers().is_empty());
    }
}
