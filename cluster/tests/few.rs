//! One to a thousand agents, step by step: what is let in, what is told when, how soon a death is known.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster::{Cluster, Options, Refusal, State, Timing, Transport};

#[derive(Debug, Default)]
struct Outbox(Vec<(Arc<str>, Bytes)>);

impl Transport for Outbox {
    fn send(&mut self, address: &Arc<str>, message: Bytes) {
        self.0.push((Arc::clone(address), message));
    }

    fn look_for_peers(&mut self) {}
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn options(name: &str, number: u64) -> Options {
    Options {
        cluster_name: "eu".to_owned(),
        node_name: name.to_owned(),
        address: format!("h{number}:1"),
        started_ms: 1000 + number,
        seed: number,
        has_join_addresses: false,
        join_peers_max: 5,
        rejoin_interval: Duration::from_secs(60),
        wait_for_size: 0,
        wait_timeout: Duration::ZERO,
        timing: Timing::default(),
    }
}

/// Agents that hear each other at once.
struct Few {
    agents: Vec<(Arc<str>, Cluster<Outbox>)>,
    now: Duration,
}

impl Few {
    fn new(all: &[Options]) -> Self {
        let agents = all.iter().map(|one| {
            let agent = Cluster::new(one, Outbox::default(), Duration::ZERO).unwrap();
            (one.address.as_str().into(), agent)
        });
        Self {
            agents: agents.collect(),
            now: Duration::ZERO,
        }
    }

    /// Three that know each other and take part in the work.
    fn three(change: impl Fn(&mut Options)) -> Self {
        let mut all = [options("a", 1), options("b", 2), options("c", 3)];
        all.iter_mut().for_each(change);
        let mut few = Self::new(&all);
        for number in 0..3 {
            few.join(number, 0);
            few.agents[number]
                .1
                .enter(State::Participant, few.now)
                .unwrap();
        }
        few.run(ms(3000));
        few
    }

    fn join(&mut self, who: usize, to: usize) {
        let address = Arc::clone(&self.agents[to].0);
        self.agents[who].1.found(vec![address], self.now);
        self.deliver();
    }

    fn deliver(&mut self) {
        loop {
            let mut sent = Vec::new();
            for (address, agent) in &mut self.agents {
                let out = std::mem::take(&mut agent.transport().0);
                sent.extend(
                    out.into_iter()
                        .map(|(to, bytes)| (Arc::clone(address), to, bytes)),
                );
            }
            if sent.is_empty() {
                return;
            }
            for (from, to, bytes) in sent {
                let now = self.now;
                let Some((_, agent)) = self.agents.iter_mut().find(|one| one.0 == to) else {
                    continue;
                };
                let answer = agent.receive(&bytes, now).bytes;
                if let Some((_, agent)) = self.agents.iter_mut().find(|one| one.0 == from) {
                    agent.answered(&to, &answer, now);
                }
            }
        }
    }

    fn run(&mut self, length: Duration) {
        let end = self.now + length;
        while self.now < end {
            self.now += ms(50);
            for (_, agent) in &mut self.agents {
                agent.tick(self.now);
            }
            self.deliver();
        }
    }

    fn names(&self, who: usize) -> Vec<String> {
        let peers = self.agents[who].1.ownership().peers();
        peers.iter().map(|peer| peer.name.to_string()).collect()
    }
}

#[test]
fn one_that_dies_is_known_to_be_gone_within_ten_seconds() {
    for seed in 0..50 {
        let mut few = Few::three(|options| options.seed += seed * 10);
        assert_eq!(few.names(0), ["a", "b", "c"]);
        few.agents.remove(2);
        few.run(ms(9000));
        assert_eq!(
            [few.names(0), few.names(1)],
            [["a", "b"], ["a", "b"]],
            "seed {seed}"
        );
    }
}

#[test]
fn one_that_is_about_to_leave_gives_up_its_share_at_once() {
    let mut few = Few::three(|_| ());
    let now = few.now;
    few.agents[2].1.enter(State::Terminating, now).unwrap();
    few.deliver();
    few.run(ms(1000));
    for who in 0..3 {
        let ownership = few.agents[who].1.ownership();
        assert_eq!(ownership.shares().len(), 2, "it owns nothing");
        assert_eq!(
            ownership.peers()[2].state,
            State::Terminating,
            "and is there"
        );
    }
    let now = few.now;
    few.agents[2].1.leave(now);
    few.deliver();
    few.run(ms(1000));
    assert_eq!([few.names(0), few.names(1)], [["a", "b"], ["a", "b"]]);
}

#[test]
fn one_that_is_back_at_once_is_taken_for_itself() {
    let mut few = Few::three(|_| ());
    few.agents.remove(2);
    let mut again = options("c", 3);
    again.started_ms += 10_000;
    let agent = Cluster::new(&again, Outbox::default(), few.now).unwrap();
    few.agents.push(("h3:1".into(), agent));
    few.join(2, 0);
    few.run(ms(1500));
    let ownership = few.agents[1].1.ownership();
    assert_eq!(
        ownership.peers()[2].state,
        State::Viewer,
        "it has no part in the work yet"
    );
    assert_eq!(ownership.shares().len(), 2);
    // The same with a clock that was set back by a day.
    few.agents.remove(2);
    let mut again = options("c", 3);
    again.started_ms = 5;
    let agent = Cluster::new(&again, Outbox::default(), few.now).unwrap();
    few.agents.push(("h3:1".into(), agent));
    few.join(2, 0);
    few.run(ms(3000));
    assert_eq!(few.names(2), ["a", "b", "c"]);
    assert_eq!(few.agents[1].1.stats().counts().left, 0);
}

#[test]
fn states_go_forward_only() {
    let mut few = Few::new(&[options("a", 1)]);
    let agent = &mut few.agents[0].1;
    let now = Duration::ZERO;
    assert!(agent.enter(State::Terminating, now).is_err());
    assert!(agent.enter(State::Viewer, now).is_err());
    agent.enter(State::Participant, now).unwrap();
    assert!(agent.enter(State::Participant, now).is_err());
    agent.enter(State::Terminating, now).unwrap();
    let error = agent.enter(State::Participant, now).unwrap_err();
    assert_eq!(
        error.to_string(),
        "an agent that is terminating does not become participant"
    );
}

#[test]
fn another_cluster_another_one_s_name_and_another_one_s_address_are_refused() {
    let mut foreign = options("x", 4);
    foreign.cluster_name = "us".to_owned();
    let mut same_address = options("y", 1);
    same_address.started_ms += 9;
    for (newcomer, want) in [
        (foreign, Refusal::OtherCluster),
        (options("b", 5), Refusal::NameTaken { started_ms: 1002 }),
        (same_address, Refusal::AddressTaken),
    ] {
        let mut few = Few::three(|_| ());
        let mut agent = Cluster::new(&newcomer, Outbox::default(), few.now).unwrap();
        agent.found(vec!["nobody:1".into()], few.now);
        let (_, hello) = agent.transport().0.remove(0);
        let now = few.now;
        let answer = few.agents[0].1.receive(&hello, now);
        assert_eq!(answer.refusal, Some(want));
        agent.answered("nobody:1", &answer.bytes, now);
        assert_eq!(agent.is_alone(), matches!(want, Refusal::NameTaken { .. }));
        assert_eq!(few.names(0), ["a", "b", "c"]);
    }
}

#[test]
fn work_is_shared_once_there_are_enough() {
    let few = Few::three(|options| options.wait_for_size = 3);
    assert!(
        few.agents
            .iter()
            .all(|(_, agent)| agent.ownership().is_ready())
    );
    let few = Few::three(|options| options.wait_for_size = 4);
    assert!(
        few.agents
            .iter()
            .all(|(_, agent)| !agent.ownership().is_ready())
    );
    let few = Few::three(|options| {
        options.wait_for_size = 4;
        options.wait_timeout = ms(2000);
    });
    assert!(
        few.agents
            .iter()
            .all(|(_, agent)| agent.ownership().is_ready())
    );
}

#[test]
fn those_who_wait_are_told_of_changes() {
    let mut few = Few::new(&[options("a", 1), options("b", 2)]);
    let ownership = few.agents[0].1.ownership();
    let mut changed = ownership.changed();
    assert!(
        ownership.is_on() && ownership.is_local(7),
        "nobody takes part in the work"
    );
    few.agents[0].1.enter(State::Participant, few.now).unwrap();
    assert!(changed.has_changed().unwrap());
    assert_eq!(*changed.borrow_and_update(), ownership.version());
    few.join(1, 0);
    few.run(ms(900));
    assert!(!changed.has_changed().unwrap(), "not twice in a second");
    few.run(ms(200));
    assert!(changed.has_changed().unwrap());
    assert_eq!(few.names(0), ["a", "b"]);
}
