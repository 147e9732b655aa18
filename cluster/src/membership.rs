//! Turns messages and time into the agents that are there.
//!
//! The protocol is SWIM, by `foca` (docs/decisions/0020): probes, suspicion, gossip. Around it stands what it
//! leaves open: who is let in, of two agents with one name which has to go, and that whoever is wrong about an
//! agent is told by it.
//!
//! # Invariants
//! - An agent's identity only ever becomes newer (see `node`).
//! - Nothing of a message is used before all of it was read.
//! - While this agent is alone because of its name, it takes part in nothing: the others hold it for gone.
//!
//! # Failure
//! - A message that is not taken is answered with why, and counted.
//!
//! # Limits
//! - [`MEMBERS_MAX`] agents, those that are gone included: whoever brings one more is refused.
//! - What changes is told to [`FANOUT_MAX`] of the others at once; they tell the rest.

use std::num::{NonZeroU8, NonZeroUsize};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use foca::{Config, Foca, Member, Message, NoCustomBroadcast, PeriodicParams};

use crate::events::Events;
use crate::node::{Node, State};
use crate::options::{Options, Timing};
use crate::random::Random;
use crate::stats::{Stats, count};
use crate::wire::{Answer, Content, PACKET_BYTES_MAX, Refusal, WireCodec, open, packet, seal};

/// Agents that can be known, those that are gone included.
pub const MEMBERS_MAX: usize = 1024;
/// How many are told of a change at once.
const FANOUT_MAX: usize = 64;
/// How often a piece of news is passed on by each who has it: enough for a thousand, four times the logarithm.
const TRANSMISSIONS: NonZeroU8 = NonZeroU8::new(12).expect("is not zero");
/// Who is asked to ask one that does not answer; whom news is passed on to.
const HELPERS: NonZeroUsize = NonZeroUsize::new(3).expect("is not zero");
/// Who is asked for everything it knows; who of those that are gone is tried.
const ASKED: NonZeroUsize = NonZeroUsize::new(2).expect("is not zero");

/// After having been refused for its name, an agent is alone for this and the rejoin interval, so that it asks again
/// before it lets anybody in: without an end, two that are alone could never come together.
const ALONE_MIN: Duration = Duration::from_secs(15);

/// A change of state that there is not: states go forward, one at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("an agent that is {} does not become {}", from.as_str(), to.as_str())]
pub struct InvalidTransition {
    /// The state it is in.
    pub from: State,
    /// The state it was to be in.
    pub to: State,
}

/// What the answer to an own message meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Heard {
    /// Nothing, or what changes nothing for who asked.
    Nothing,
    LetIn,
    Refused(Refusal),
}

/// The agents that are there, as this one knows them.
pub(crate) struct Membership {
    cluster: String,
    config: Config,
    protocol: Foca<Node, WireCodec, Random, NoCustomBroadcast>,
    events: Events,
    outgoing: Vec<(Arc<str>, Bytes)>,
    random: Random,
    /// Until when this agent is alone because another one has its name.
    alone_until: Option<Duration>,
    alone_for: Duration,
    has_left: bool,
    is_changed: bool,
    stats: Arc<Stats>,
}

impl std::fmt::Debug for Membership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let own = self.protocol.identity();
        f.debug_struct("Membership")
            .field("own", own)
            .finish_non_exhaustive()
    }
}

fn config(timing: &Timing) -> Config {
    let every = |frequency, num_members| {
        Some(PeriodicParams {
            frequency,
            num_members,
        })
    };
    Config {
        probe_period: timing.probe_interval,
        probe_rtt: timing.probe_timeout,
        num_indirect_probes: HELPERS,
        max_transmissions: TRANSMISSIONS,
        suspect_to_down_after: timing.suspicion,
        remove_down_after: Some(timing.forget_after),
        max_packet_size: NonZeroUsize::new(PACKET_BYTES_MAX).unwrap_or(NonZeroUsize::MIN),
        notify_down_members: true,
        periodic_announce: every(timing.announce_interval, ASKED),
        periodic_announce_to_down_members: every(timing.announce_down_interval, ASKED),
        periodic_gossip: every(timing.gossip_interval, HELPERS),
    }
}

impl Membership {
    pub(crate) fn new(options: &Options, stats: Arc<Stats>) -> Self {
        let own = Node {
            name: options.node_name.as_str().into(),
            address: options.address.as_str().into(),
            started_ms: options.started_ms,
            version: 0,
            state: State::Viewer,
        };
        let mut random = Random::new(options.seed);
        let config = config(&options.timing);
        let protocol = Foca::new(own, config.clone(), random.fork(), WireCodec);
        Self {
            cluster: options.cluster_name.clone(),
            config,
            protocol,
            events: Events::new(Arc::clone(&stats)),
            outgoing: Vec::new(),
            random,
            alone_until: None,
            alone_for: options.rejoin_interval.max(ALONE_MIN) + ALONE_MIN,
            has_left: false,
            is_changed: true,
            stats,
        }
    }

    pub(crate) const fn own(&self) -> &Node {
        self.protocol.identity()
    }

    /// Whether there is anybody else.
    pub(crate) const fn has_others(&self) -> bool {
        self.protocol.num_members() > 0
    }

    /// Whether this agent is alone because another one has its name.
    pub(crate) const fn is_alone(&self) -> bool {
        self.alone_until.is_some()
    }

    /// Whether the agents that are there have changed since this was last asked.
    pub(crate) const fn take_changed(&mut self) -> bool {
        std::mem::replace(&mut self.is_changed, false)
    }

    /// What is to be sent, and where to.
    pub(crate) fn take_outgoing(&mut self) -> Vec<(Arc<str>, Bytes)> {
        std::mem::take(&mut self.outgoing)
    }

    /// The agents that are there, this one among them, by their names, each of which is there once.
    pub(crate) fn nodes(&self) -> Vec<Node> {
        let others = self.protocol.iter_members().map(|member| member.id());
        let mut all: Vec<Node> = others.chain([self.own()]).cloned().collect();
        all.sort_by(|a, b| {
            let elder = (a.started_ms, &a.address).cmp(&(b.started_ms, &b.address));
            a.name.cmp(&b.name).then(elder)
        });
        all.dedup_by(|later, first| later.name == first.name);
        all
    }

    /// What lets this agent in.
    pub(crate) fn hello(&self) -> Bytes {
        self.seal(&Content::Hello(self.own().clone()))
    }

    fn seal(&self, content: &Content<'_>) -> Bytes {
        seal(&self.cluster, content)
    }

    /// Takes a message of another agent.
    pub(crate) fn receive(&mut self, bytes: &[u8], now: Duration) -> Answer {
        let taken = self.take(bytes, now);
        self.settle(now);
        match taken {
            Ok(None) => Answer {
                bytes: Bytes::new(),
                refusal: None,
            },
            Ok(Some(known)) => Answer {
                bytes: self.seal(&Content::Known(known)),
                refusal: None,
            },
            Err(refusal) => {
                count(match refusal {
                    Refusal::Malformed => &self.stats.malformed,
                    Refusal::OtherCluster => &self.stats.foreign,
                    _ => &self.stats.refused,
                });
                Answer {
                    bytes: self.seal(&Content::Refused(refusal)),
                    refusal: Some(refusal),
                }
            }
        }
    }

    fn take(&mut self, bytes: &[u8], now: Duration) -> Result<Option<Node>, Refusal> {
        let (cluster, content) = open(bytes).map_err(|_| Refusal::Malformed)?;
        if cluster != self.cluster {
            return Err(Refusal::OtherCluster);
        }
        match content {
            Content::Gossip(bytes) => self.gossip(bytes, now),
            Content::Hello(node) => self.hello_from(&node, now).map(Some),
            Content::News { node, is_gone } => self.news(node, is_gone, now),
            Content::Known(_) | Content::Refused(_) => Err(Refusal::Malformed),
        }
    }

    /// Whether `node` may speak at all.
    fn look_at(&self, node: &Node) -> Result<(), Refusal> {
        if self.is_alone() || self.has_left {
            return Err(Refusal::Alone);
        }
        if node.address == self.own().address {
            return Err(Refusal::AddressTaken);
        }
        match self.known(&node.address) {
            Some(known) if known.id().age() > node.age() => {
                let (started_ms, version) = known.id().age();
                Err(Refusal::Stale {
                    started_ms,
                    version,
                })
            }
            Some(_) => Ok(()),
            None => self.has_room_for(1),
        }
    }

    fn known(&self, address: &str) -> Option<&Member<Node>> {
        let mut all = self.protocol.iter_membership_state();
        all.find(|member| *member.id().address == *address)
    }

    fn has_room_for(&self, more: usize) -> Result<(), Refusal> {
        let known = self.protocol.iter_membership_state().len();
        match known.saturating_add(more) <= MEMBERS_MAX {
            true => Ok(()),
            false => Err(Refusal::Full),
        }
    }

    fn hello_from(&mut self, node: &Node, now: Duration) -> Result<Node, Refusal> {
        if node == self.own() {
            // By another address than the advertised one.
            return Ok(node.clone());
        }
        self.look_at(node)?;
        if node.is_namesake(self.own()) && node.is_elder(self.own()) && !self.has_others() {
            // Were it refused for its name, both could be alone, each for the other's.
            self.go_alone(&node.address, now);
            return Err(Refusal::Alone);
        }
        let others = self.protocol.iter_members().map(Member::id);
        let namesake = others
            .chain([self.own()])
            .find(|other| node.is_namesake(other));
        if let Some(namesake) = namesake {
            let started_ms = namesake.started_ms;
            tracing::warn!(name = %node.name, address = %node.address, "not let in: its name is taken");
            count(&self.stats.conflicts);
            return Err(Refusal::NameTaken { started_ms });
        }
        count(&self.stats.welcomed);
        Ok(self.own().clone())
    }

    fn gossip(&mut self, bytes: &[u8], now: Duration) -> Result<Option<Node>, Refusal> {
        let read = packet(bytes).map_err(|_| Refusal::Malformed)?;
        let header = &read.header;
        self.look_at(&header.src)?;
        let unknown = read.updates.iter().filter(|update| {
            let address = &update.id().address;
            *address != self.own().address && self.known(address).is_none()
        });
        self.has_room_for(unknown.count())?;
        let is_for_another_time = header.dst.address == self.own().address
            && header.dst != *self.own()
            && header.message != Message::Announce;
        if is_for_another_time {
            return Ok(Some(self.own().clone()));
        }
        let done = self.protocol.handle_data(bytes, self.events.at(now));
        noted(done);
        Ok(None)
    }

    fn news(&mut self, node: Node, is_gone: bool, now: Duration) -> Result<Option<Node>, Refusal> {
        self.look_at(&node)?;
        if let Some(known) = self.known(&node.address)
            && known.state() == foca::State::Down
            && *known.id() == node
            && !is_gone
        {
            let (started_ms, version) = node.age();
            return Err(Refusal::Stale {
                started_ms,
                version,
            });
        }
        let member = if is_gone {
            Member::down(node)
        } else {
            Member::alive(node)
        };
        self.learn(member, now);
        Ok(None)
    }

    fn learn(&mut self, member: Member<Node>, now: Duration) {
        let done = self
            .protocol
            .apply_many([member].into_iter(), true, self.events.at(now));
        noted(done);
    }

    /// Takes the answer to an own message.
    pub(crate) fn answered(&mut self, address: &str, bytes: &[u8], now: Duration) -> Heard {
        if bytes.is_empty() || self.has_left {
            return Heard::Nothing;
        }
        let heard = match open(bytes) {
            Ok((cluster, Content::Known(node))) if cluster == self.cluster => self.knows(node, now),
            Ok((_, Content::Refused(refusal))) => self.refused(address, refusal, now),
            _ => {
                count(&self.stats.malformed);
                Heard::Nothing
            }
        };
        self.settle(now);
        heard
    }

    /// `node` has answered, and takes this agent for what it is.
    fn knows(&mut self, node: Node, now: Duration) -> Heard {
        if node.address == self.own().address || self.has_room_for(1).is_err() {
            return Heard::Nothing;
        }
        let known = self.known(&node.address);
        let is_known = known.is_some_and(|known| known.state() != foca::State::Down);
        self.alone_until = None;
        if !is_known {
            // It answers with all the others it knows.
            noted(self.protocol.announce(node.clone(), self.events.at(now)));
        }
        self.learn(Member::alive(node), now);
        count(&self.stats.joins);
        Heard::LetIn
    }

    fn refused(&mut self, address: &str, refusal: Refusal, now: Duration) -> Heard {
        count(&self.stats.refused_by_others);
        match refusal {
            Refusal::Stale {
                started_ms,
                version,
            } => {
                // A clock that was set back over a restart, or somebody is wrong about this agent.
                if self.own().age() <= (started_ms, version) {
                    let newer = self.own().later_than((started_ms, version));
                    self.turn_into(newer, now);
                }
                return Heard::Nothing;
            }
            Refusal::NameTaken { .. } if !self.has_others() => self.be_alone(now),
            // Both are in a cluster, and the two clusters cannot come together as long as both stay.
            Refusal::NameTaken { started_ms } if started_ms < self.own().started_ms => {
                self.go_alone(address, now);
            }
            _ => {}
        }
        Heard::Refused(refusal)
    }

    fn be_alone(&mut self, now: Duration) {
        self.alone_until = Some(now.saturating_add(self.alone_for));
    }

    /// Does what it is time for.
    pub(crate) fn tick(&mut self, now: Duration) {
        self.alone_until = self.alone_until.filter(|until| *until > now);
        while let Some(timer) = self.events.ended(now) {
            let done = self.protocol.handle_timer(timer, self.events.at(now));
            noted(done);
        }
        self.settle(now);
    }

    /// When [`Self::tick`] has something to do.
    pub(crate) fn next(&self) -> Option<Duration> {
        let all = [self.events.next(), self.alone_until];
        all.into_iter().flatten().min()
    }

    /// Becomes another state, and tells the others.
    pub(crate) fn enter(&mut self, state: State, now: Duration) -> Result<(), InvalidTransition> {
        let from = self.own().state;
        match (from, state) {
            (State::Viewer, State::Participant) | (State::Participant, State::Terminating) => {}
            (from, to) => return Err(InvalidTransition { from, to }),
        }
        let mut newer = self.own().later();
        newer.state = state;
        count(&self.stats.told);
        self.turn_into(newer, now);
        self.settle(now);
        Ok(())
    }

    fn turn_into(&mut self, newer: Node, now: Duration) {
        noted(self.protocol.change_identity(newer, self.events.at(now)));
        self.events.is_renewed = true;
    }

    /// Tells the others that this agent is gone, and takes nothing any more.
    pub(crate) fn leave(&mut self, now: Duration) {
        if self.has_left {
            return;
        }
        self.tell(true);
        noted(self.protocol.leave_cluster(self.events.at(now)));
        self.settle(now);
        self.has_left = true;
    }

    /// Tells the others what this agent is.
    fn tell(&mut self, is_gone: bool) {
        let node = self.own().clone();
        let others = self.protocol.iter_members().map(|member| member.id());
        let others = others.map(|other| Arc::clone(&other.address)).collect();
        let some = self.random.some_of(others, FANOUT_MAX);
        let news = self.seal(&Content::News { node, is_gone });
        let news = some.into_iter().map(|address| (address, news.clone()));
        self.outgoing.extend(news);
    }

    /// Brings in order what a step has led to.
    fn settle(&mut self, now: Duration) {
        if self.has_left {
            self.events.messages.clear();
            return;
        }
        if std::mem::take(&mut self.events.is_renewed) {
            // With another identity the protocol begins anew: it stands still until it sees somebody.
            let nobody = std::iter::empty();
            noted(self.protocol.apply_many(nobody, false, self.events.at(now)));
            self.tell(false);
            self.is_changed = true;
        }
        self.is_changed |= std::mem::take(&mut self.events.is_changed);
        for (to, packet) in std::mem::take(&mut self.events.messages) {
            if to.address != self.own().address {
                let message = self.seal(&Content::Gossip(&packet));
                self.outgoing.push((to.address, message));
            }
        }
        if let Some(elder) = self.elder() {
            self.go_alone(&elder, now);
        }
        let all = self.protocol.iter_members();
        let suspects = all.filter(|member| member.state() == foca::State::Suspect);
        let suspects = u64::try_from(suspects.count()).unwrap_or(u64::MAX);
        self.stats.suspects.store(suspects, Ordering::Relaxed);
    }

    /// Where there is another agent that has this one's name for longer.
    fn elder(&self) -> Option<Arc<str>> {
        let mut others = self.protocol.iter_members().map(Member::id);
        let own = self.own();
        let elder = others.find(|other| other.is_namesake(own) && other.is_elder(own));
        elder.map(|elder| Arc::clone(&elder.address))
    }

    /// Leaves the others because one of them has the name, and goes on by itself.
    fn go_alone(&mut self, seen_at: &str, now: Duration) {
        let name = &self.own().name;
        tracing::error!(%name, seen_at, "another agent has this name: this one goes on alone");
        count(&self.stats.conflicts);
        self.tell(true);
        let own = self.own().later();
        self.protocol = Foca::new(own, self.config.clone(), self.random.fork(), WireCodec);
        self.events = Events::new(Arc::clone(&self.stats));
        self.be_alone(now);
        self.is_changed = true;
    }
}

/// The protocol goes on after every error of its own; what was wrong with a message was said before.
fn noted(done: Result<(), foca::Error>) {
    if let Err(error) = done {
        tracing::debug!(%error, "a message or timer of the cluster was of no use");
    }
}
