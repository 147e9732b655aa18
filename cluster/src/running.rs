//! Turns membership, addresses to join by and time into ownership.
//!
//! [`Cluster`] is told what happens, and of what it asks for it gets answers later. Whoever runs it brings messages,
//! time and addresses; what goes out goes by a [`Transport`].
//!
//! # Invariants
//! - What others are told changes at most every [`crate::Timing::notify_interval`]: what happens in between is told at its end.
//!
//! # Failure
//! - An agent that finds nobody goes on alone and tries again, ever more seldom, down to the rejoin interval. Before
//!   it has found somebody, or had [`crate::Timing::join_within`] for it, it is not ready: others may own what it would
//!   take for its own.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::membership::{Heard, InvalidTransition, MEMBERS_MAX, Membership};
use crate::node::State;
use crate::options::{InvalidOption, Options};
use crate::ownership::{Known, Ownership, Peer};
use crate::random::Random;
use crate::readiness::Readiness;
use crate::ring::Ring;
use crate::stats::Stats;
use crate::wire::{Answer, Refusal};

/// The way to the others. Neither of these waits.
pub trait Transport {
    /// Sends a message to `address`, or loses it. The answer, if one comes, goes to [`Cluster::answered`].
    fn send(&mut self, address: &Arc<str>, message: Bytes);

    /// Looks for addresses to join by. What is found goes to [`Cluster::found`].
    fn look_for_peers(&mut self);
}

/// When to look for others.
#[derive(Debug)]
struct Joining {
    peers_max: usize,
    /// Zero: only once.
    interval: Duration,
    backoff: Duration,
    backoff_min: Duration,
    next: Option<Duration>,
    random: Random,
    /// Whom it was said hello to, until it was to all: who finds one that is gone tries another next time.
    tried: BTreeSet<Arc<str>>,
    /// What was last said of it in the log.
    said: Option<Refusal>,
}

impl Joining {
    /// Looks for others again, sooner as long as there are none.
    fn again(&mut self, has_others: bool, now: Duration) {
        if has_others {
            self.backoff = self.backoff_min;
        }
        let wait = match has_others {
            true => self.interval,
            false => self.backoff.min(self.interval),
        };
        self.backoff = self.backoff.saturating_mul(2);
        self.next = (!self.interval.is_zero()).then(|| now.saturating_add(wait));
    }

    /// Some of these addresses, all of them in turn.
    fn choose(&mut self, mut all: Vec<Arc<str>>) -> Vec<Arc<str>> {
        all.sort_unstable();
        all.dedup();
        all.truncate(MEMBERS_MAX);
        let count = match self.peers_max {
            0 => all.len(),
            most => most,
        };
        let (mut tried, mut rest): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|address| self.tried.contains(address));
        if rest.is_empty() {
            std::mem::swap(&mut tried, &mut rest);
        }
        let is_last = rest.len() <= count;
        let mut chosen = self.random.some_of(rest, count);
        let more = count - chosen.len();
        chosen.extend(self.random.some_of(tried, more));
        if is_last {
            self.tried.clear();
        }
        self.tried.extend(chosen.iter().cloned());
        chosen
    }
}

/// A running membership.
#[derive(Debug)]
pub struct Cluster<T> {
    membership: Membership,
    joining: Joining,
    readiness: Readiness,
    /// Until when it may be that there are others it has not found yet.
    may_be_alone_from: Option<Duration>,
    was_ready: bool,
    ownership: Ownership,
    notify_interval: Duration,
    /// When the others may be told of the next change.
    notify_at: Duration,
    is_stale: bool,
    stats: Arc<Stats>,
    transport: T,
}

impl<T: Transport> Cluster<T> {
    /// An agent that knows of nobody yet.
    ///
    /// # Errors
    /// A setting cannot be used.
    pub fn new(options: &Options, transport: T, now: Duration) -> Result<Self, InvalidOption> {
        options.validate()?;
        let stats = Arc::<Stats>::default();
        let membership = Membership::new(options, Arc::clone(&stats));
        let backoff = options.timing.join_backoff;
        let joining = Joining {
            peers_max: options.join_peers_max,
            interval: options.rejoin_interval,
            backoff,
            backoff_min: backoff,
            next: options.has_join_addresses.then_some(now),
            random: Random::new(options.seed.rotate_left(32)),
            tried: BTreeSet::new(),
            said: None,
        };
        let mut readiness = Readiness::new(options.wait_for_size, options.wait_timeout, now);
        let join_within = options.timing.join_within;
        let may_be_alone_from =
            (options.has_join_addresses).then(|| now.saturating_add(join_within));
        let was_ready = readiness.look(0, now) && may_be_alone_from.is_none();
        let mut cluster = Self {
            membership,
            joining,
            readiness,
            may_be_alone_from,
            was_ready,
            ownership: Ownership::new(Known {
                is_on: true,
                is_ready: was_ready,
                ..Known::default()
            }),
            notify_interval: options.timing.notify_interval,
            notify_at: now,
            is_stale: true,
            stats,
            transport,
        };
        cluster.tick(now);
        Ok(cluster)
    }

    /// The handle for the rest of the agent.
    pub fn ownership(&self) -> Ownership {
        self.ownership.clone()
    }

    /// Its numbers.
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.stats)
    }

    /// What this agent does.
    pub const fn state(&self) -> State {
        self.membership.own().state
    }

    /// Whether it is alone because another agent has its name.
    pub const fn is_alone(&self) -> bool {
        self.membership.is_alone()
    }

    /// Takes a message that has come.
    pub fn receive(&mut self, message: &[u8], now: Duration) -> Answer {
        let answer = self.membership.receive(message, now);
        self.settle(now);
        answer
    }

    /// Takes the answer of who is at `address` to an own message.
    pub fn answered(&mut self, address: &str, answer: &[u8], now: Duration) {
        match self.membership.answered(address, answer, now) {
            Heard::Nothing => {}
            Heard::LetIn => self.joining.said = None,
            Heard::Refused(refusal) => {
                if self.joining.said.replace(refusal) != Some(refusal) {
                    let reason = refusal.as_str();
                    tracing::warn!(address, reason, "failed to join the cluster");
                }
            }
        }
        self.settle(now);
    }

    /// Takes addresses to join by; empty: none were found.
    pub fn found(&mut self, addresses: Vec<Arc<str>>, now: Duration) {
        let own = &self.membership.own().address;
        let mut others = addresses;
        let has_own = others.contains(own);
        others.retain(|address| address != own);
        if has_own && others.is_empty() {
            // Everybody who could be there is this agent.
            self.may_be_alone_from = None;
            self.is_stale = true;
        }
        let hello = self.membership.hello();
        for address in self.joining.choose(others) {
            self.transport.send(&address, hello.clone());
        }
        self.settle(now);
    }

    /// Does what it is time for.
    pub fn tick(&mut self, now: Duration) {
        self.membership.tick(now);
        if self.joining.next.is_some_and(|at| at <= now) {
            self.joining.again(self.membership.has_others(), now);
            self.transport.look_for_peers();
        }
        self.settle(now);
    }

    /// When [`Self::tick`] has something to do.
    pub fn next(&self) -> Option<Duration> {
        let told = self.is_stale.then_some(self.notify_at);
        let all = [
            self.membership.next(),
            self.joining.next,
            self.readiness.expires(),
            self.may_be_alone_from,
            told,
        ];
        all.into_iter().flatten().min()
    }

    /// Becomes another state, and tells the others.
    ///
    /// # Errors
    /// It does not follow on the one this agent is in.
    pub fn enter(&mut self, state: State, now: Duration) -> Result<(), InvalidTransition> {
        self.membership.enter(state, now)?;
        // What this agent does itself others may know at once.
        self.notify_at = now;
        self.settle(now);
        Ok(())
    }

    /// Tells the others that this agent is gone; takes nothing any more.
    pub fn leave(&mut self, now: Duration) {
        self.joining.next = None;
        self.membership.leave(now);
        self.settle(now);
    }

    /// The way to the others.
    pub const fn transport(&mut self) -> &mut T {
        &mut self.transport
    }

    fn settle(&mut self, now: Duration) {
        for (address, message) in self.membership.take_outgoing() {
            self.transport.send(&address, message);
        }
        self.is_stale |= self.membership.take_changed();
        let is_over = |at: Option<Duration>| at.is_some_and(|at| at <= now);
        if self.membership.has_others() || is_over(self.may_be_alone_from) {
            self.is_stale |= self.may_be_alone_from.take().is_some();
        }
        if self.is_stale || is_over(self.readiness.expires()) {
            let nodes = self.membership.nodes();
            let at_work = nodes.iter().filter(|node| node.state != State::Viewer);
            let is_ready = self.readiness.look(at_work.count(), now);
            let is_ready = is_ready && self.may_be_alone_from.is_none();
            self.is_stale |= is_ready != std::mem::replace(&mut self.was_ready, is_ready);
        }
        if self.is_stale && self.notify_at <= now {
            self.publish(now);
        }
    }

    fn publish(&mut self, now: Duration) {
        self.is_stale = false;
        let own = Arc::clone(&self.membership.own().address);
        let nodes = self.membership.nodes().into_iter();
        let peers: Vec<Peer> = nodes
            .map(|node| Peer {
                is_self: node.address == own,
                age: node.age(),
                name: node.name,
                address: node.address,
                state: node.state,
            })
            .collect();
        if self.ownership.is_of(&peers, self.was_ready) {
            return;
        }
        self.notify_at = now.saturating_add(self.notify_interval);
        let at_work = peers.iter().filter(|peer| peer.state == State::Participant);
        let ring = Ring::new(at_work.map(|peer| Arc::clone(&peer.name)));
        self.ownership.publish(Known {
            is_on: true,
            is_ready: self.was_ready,
            version: 0,
            peers,
            ring: Arc::new(ring),
        });
    }
}
