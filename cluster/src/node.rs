//! Turns what an agent says of itself into an identity with an order.
//!
//! # Invariants
//! - Of two identities at one address the newer is right: a restart, a change of state and a renewal make
//!   one that is newer than all before.
//! - Of two agents with one name the elder is right: the newcomer has to go.

use std::cmp::Ordering;
use std::sync::Arc;

use foca::Identity;

/// What an agent does among the others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum State {
    /// It has joined, and has no part in the work yet.
    Viewer,
    /// It has its share of the work.
    Participant,
    /// It is about to leave, and has no part in the work any more.
    Terminating,
}

impl State {
    /// All of them, in the order an agent passes through them.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Participant, Self::Terminating];

    /// Its name in metrics and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Participant => "participant",
            Self::Terminating => "terminating",
        }
    }
}

/// An agent at one moment of its life.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Node {
    pub(crate) name: Arc<str>,
    /// `host:port`; nobody else has it.
    pub(crate) address: Arc<str>,
    /// When the process began, in milliseconds since the Unix epoch.
    pub(crate) started_ms: u64,
    /// Counts the changes since.
    pub(crate) version: u32,
    pub(crate) state: State,
}

impl Node {
    /// What is later for one address.
    pub(crate) const fn age(&self) -> (u64, u32) {
        (self.started_ms, self.version)
    }

    /// The same agent, later.
    pub(crate) fn later(&self) -> Self {
        self.later_than(self.age())
    }

    /// The same agent, later than `age`.
    pub(crate) fn later_than(&self, (started_ms, version): (u64, u32)) -> Self {
        let (started_ms, version) = match version.checked_add(1) {
            Some(version) => (started_ms, version),
            None => (started_ms.saturating_add(1), 0),
        };
        Self {
            started_ms,
            version,
            ..self.clone()
        }
    }

    /// Whether it is another agent, by its address, with the name of `other`.
    pub(crate) fn is_namesake(&self, other: &Self) -> bool {
        self.name == other.name && self.address != other.address
    }

    /// Whether it keeps a name that both have.
    pub(crate) fn is_elder(&self, other: &Self) -> bool {
        (self.started_ms, &self.address) < (other.started_ms, &other.address)
    }
}

impl Identity for Node {
    type Addr = Arc<str>;

    fn renew(&self) -> Option<Self> {
        Some(self.later())
    }

    fn addr(&self) -> Arc<str> {
        Arc::clone(&self.address)
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        let order = self.age().cmp(&adversary.age());
        // Ages are equal only where a clock stood still over a restart; then any order that all share.
        let order = order.then_with(|| self.state.cmp(&adversary.state));
        order.then_with(|| self.name.cmp(&adversary.name)) == Ordering::Greater
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, started_ms: u64, version: u32) -> Node {
        Node {
            name: name.into(),
            address: "h:1".into(),
            started_ms,
            version,
            state: State::Viewer,
        }
    }

    #[test]
    fn later_is_newer_and_newer_wins_for_one_address() {
        let first = node("a", 5, 9);
        let ages = [first.later(), node("a", 6, 0), node("b", 5, 10)];
        for newer in ages {
            assert!(newer.win_addr_conflict(&first), "{newer:?}");
            assert!(!first.win_addr_conflict(&newer), "{newer:?}");
        }
        assert!(!first.win_addr_conflict(&first));
        assert_eq!(node("a", 5, u32::MAX).later().age(), (6, 0));
    }

    #[test]
    fn the_elder_keeps_the_name() {
        let elder = node("a", 5, 900);
        let mut younger = node("a", 6, 0);
        assert!(!younger.is_namesake(&elder), "it is the same agent");
        younger.address = "h:2".into();
        assert!(younger.is_namesake(&elder));
        assert!(elder.is_elder(&younger) && !younger.is_elder(&elder));
    }
}
