//! Turns a plan into a life: processes, messages, checks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cluster::{Cluster, Options, Ownership, Peer, State, Timing};
use fastrand::Rng;

use super::network::{Arrival, Network, Outbox};
use super::plan::{Fault, Plan};

/// A process becomes participant so long after its start, when it has loaded.
const LOAD: Duration = Duration::from_millis(300);
/// Between telling that it is about to leave and leaving.
const TERMINATING: Duration = Duration::from_secs(2);
/// How long they have to keep to it.
const KEPT_FOR: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_secs(3);
const KEYS: usize = 200;
/// When the first process was started, in the time of the machine.
const EPOCH_MS: u64 = 1_700_000_000_000;

/// What happened in a life.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Lived {
    messages: u64,
    lost: u64,
    doubled: u64,
    crashed: u64,
    restarted: u64,
    clocks_back: u64,
    left: u64,
    moved: u64,
    namesakes: u64,
    partitions: u64,
    pauses: u64,
    renewed: u64,
    conflicts: u64,
    alone_at_the_end: u64,
    owners_changed: u64,
    seconds_to_agree: u64,
    slowest_seconds: u64,
    /// Depends on every answer that was given.
    trace: u64,
}

impl Lived {
    pub(super) fn add(&mut self, other: &Self) {
        for (sum, one) in [
            (&mut self.messages, other.messages),
            (&mut self.lost, other.lost),
            (&mut self.doubled, other.doubled),
            (&mut self.crashed, other.crashed),
            (&mut self.restarted, other.restarted),
            (&mut self.clocks_back, other.clocks_back),
            (&mut self.left, other.left),
            (&mut self.moved, other.moved),
            (&mut self.namesakes, other.namesakes),
            (&mut self.partitions, other.partitions),
            (&mut self.pauses, other.pauses),
            (&mut self.renewed, other.renewed),
            (&mut self.conflicts, other.conflicts),
            (&mut self.alone_at_the_end, other.alone_at_the_end),
            (&mut self.owners_changed, other.owners_changed),
            (&mut self.seconds_to_agree, other.seconds_to_agree),
        ] {
            *sum += one;
        }
        self.slowest_seconds = self.slowest_seconds.max(other.seconds_to_agree);
    }

    /// Lives in which nothing goes wrong show nothing.
    pub(super) fn assert_eventful(&self) {
        for count in [
            self.lost,
            self.doubled,
            self.crashed,
            self.restarted,
            self.clocks_back,
            self.left,
            self.moved,
            self.namesakes,
            self.partitions,
            self.pauses,
            self.renewed,
            self.conflicts,
            self.alone_at_the_end,
            self.owners_changed,
        ] {
            assert!(count > 0, "something never happened: {self:?}");
        }
    }
}

struct Process {
    name: String,
    address: Arc<str>,
    cluster: Cluster<Outbox>,
    ownership: Ownership,
    participates_at: Option<Duration>,
    leaves_at: Option<Duration>,
    ends_at: Option<Duration>,
    paused_until: Duration,
    seen: Seen,
}

/// What a process was last seen to own.
#[derive(Default)]
struct Seen {
    version: u64,
    at: Option<Duration>,
    /// Whether its own state has changed since, of which it tells at once.
    is_own: bool,
    participants: BTreeSet<Arc<str>>,
    owners: Vec<Option<Arc<str>>>,
}

struct World<'p> {
    plan: &'p Plan,
    rng: Rng,
    now: Duration,
    network: Network,
    /// By number; that of a process is never given again.
    processes: BTreeMap<usize, Process>,
    started: usize,
    /// Names and addresses of those that have crashed.
    dead: Vec<(String, Arc<str>)>,
    addresses: Vec<Arc<str>>,
    keys: Vec<u64>,
    lived: Lived,
}

/// Lives a life.
pub(super) fn live(plan: &Plan) -> Lived {
    let mut rng = Rng::with_seed(plan.seed.rotate_left(17));
    let keys = (0..KEYS).map(|_| rng.u64(..)).collect();
    let mut world = World {
        plan,
        rng,
        now: Duration::ZERO,
        network: Network::new(plan),
        processes: BTreeMap::new(),
        started: 0,
        dead: Vec::new(),
        addresses: (0..plan.processes).map(address).collect(),
        keys,
        lived: Lived::default(),
    };
    let starts = plan
        .starts
        .iter()
        .zip(0..)
        .map(|(at, number)| (*at, Err(number)));
    let faults = plan.faults.iter().map(|(at, fault)| (*at, Ok(fault)));
    let mut happens: Vec<_> = starts.chain(faults).collect();
    happens.sort_by_key(|(at, _)| *at);
    for (at, what) in happens {
        world.run_until(at);
        match what {
            Err(number) => world.start(&format!("node-{number}"), &address(number), 0),
            Ok(fault) => world.happen(fault),
        }
    }
    world.run_until(plan.calm_at);
    world.calm();
    world.end()
}

fn address(number: usize) -> Arc<str> {
    format!("10.0.0.{number}:12345").into()
}

impl World<'_> {
    fn start(&mut self, name: &str, address: &Arc<str>, back_ms: u64) {
        let number = self.started;
        self.started += 1;
        let now_ms = u64::try_from(self.now.as_millis()).unwrap();
        let options = Options {
            cluster_name: "simulated".to_owned(),
            node_name: name.to_owned(),
            address: address.to_string(),
            started_ms: EPOCH_MS + now_ms - back_ms,
            seed: self.rng.u64(..),
            has_join_addresses: true,
            join_peers_max: self.plan.join_peers_max,
            rejoin_interval: self.plan.rejoin_interval,
            wait_for_size: 0,
            wait_timeout: Duration::ZERO,
            timing: Timing::default(),
        };
        let cluster = Cluster::new(&options, Outbox::default(), self.now).unwrap();
        let process = Process {
            name: name.to_owned(),
            address: Arc::clone(address),
            ownership: cluster.ownership(),
            cluster,
            participates_at: Some(self.now + LOAD),
            leaves_at: None,
            ends_at: None,
            paused_until: Duration::ZERO,
            seen: Seen::default(),
        };
        self.processes.insert(number, process);
        if !self.addresses.contains(address) {
            self.addresses.push(Arc::clone(address));
        }
        self.stepped(number);
    }

    /// One of those that run and are not about to leave.
    fn any(&mut self) -> Option<usize> {
        let all = self.processes.iter();
        let all = all.filter(|(_, process)| process.leaves_at.is_none());
        let all: Vec<usize> = all.map(|(number, _)| *number).collect();
        self.rng.choice(all)
    }

    fn crash(&mut self) -> Option<(String, Arc<str>)> {
        let number = self.any()?;
        let process = self.processes.remove(&number).unwrap();
        let counts = process.cluster.stats().counts();
        self.lived.renewed += counts.renewed;
        self.lived.conflicts += counts.conflicts;
        self.lived.crashed += 1;
        let gone = (process.name, process.address);
        self.dead.push(gone.clone());
        Some(gone)
    }

    fn happen(&mut self, fault: &Fault) {
        let fresh = address(100 + self.started);
        match fault {
            Fault::Crash => drop(self.crash()),
            Fault::Restart { is_clock_back } => {
                // At once, or one that has been away for a while.
                if self.rng.bool() || self.dead.is_empty() {
                    self.crash();
                }
                let Some((name, address)) = self.dead.pop() else {
                    return;
                };
                self.lived.restarted += 1;
                self.lived.clocks_back += u64::from(*is_clock_back);
                let back_ms = if *is_clock_back { 3_600_000 } else { 0 };
                self.start(&name, &address, back_ms);
            }
            Fault::Move => {
                self.crash();
                if let Some((name, _)) = self.dead.pop() {
                    self.lived.moved += 1;
                    self.start(&name, &fresh, 0);
                }
            }
            Fault::Join => self.start(&format!("node-{}", 100 + self.started), &fresh, 0),
            Fault::Namesake => {
                if let Some(number) = self.any() {
                    let name = self.processes[&number].name.clone();
                    self.lived.namesakes += 1;
                    self.start(&name, &fresh, 0);
                }
            }
            Fault::Leave => {
                if let Some(number) = self.any() {
                    let (now, process) = (self.now, self.processes.get_mut(&number).unwrap());
                    self.lived.left += 1;
                    process.leaves_at = Some(now + TERMINATING);
                    if process.cluster.enter(State::Terminating, now).is_ok() {
                        process.seen.is_own = true;
                    }
                    self.stepped(number);
                }
            }
            Fault::Partition => {
                self.lived.partitions += 1;
                let rng = &mut self.rng;
                let side = self.addresses.iter().filter(|_| rng.bool()).cloned();
                self.network.side = Some(side.collect());
            }
            Fault::Heal => self.network.side = None,
            Fault::Pause(length) => {
                if let Some(number) = self.any() {
                    self.lived.pauses += 1;
                    self.processes.get_mut(&number).unwrap().paused_until = self.now + *length;
                }
            }
        }
    }

    /// Nothing goes wrong any more.
    fn calm(&mut self) {
        self.network.side = None;
        self.network.loss = 0.0;
        self.network.duplication = 0.0;
        for process in self.processes.values_mut() {
            process.paused_until = Duration::ZERO;
        }
        if self.processes.is_empty() {
            self.start("node-0", &address(0), 0);
        }
    }

    fn run_until(&mut self, end: Duration) {
        loop {
            let next = self.processes.iter().filter_map(|(number, process)| {
                let at = process.next()?.max(process.paused_until);
                Some((at.max(self.now), *number))
            });
            let next = next.min();
            let arrives = self.network.next().filter(|at| *at <= end);
            match (next.filter(|(at, _)| *at <= end), arrives) {
                (Some((at, number)), arrives) if arrives.is_none_or(|arrives| at < arrives) => {
                    self.now = at;
                    self.tick(number);
                }
                (_, Some(at)) => {
                    self.now = self.now.max(at);
                    self.arrive();
                }
                (_, None) => break,
            }
        }
        self.now = end;
    }

    fn tick(&mut self, number: usize) {
        let (now, process) = (self.now, self.processes.get_mut(&number).unwrap());
        process.cluster.tick(now);
        if process.participates_at.take_if(|at| *at <= now).is_some() {
            process.seen.is_own = true;
            // It fails where it is about to leave already.
            process.cluster.enter(State::Participant, now).ok();
        }
        if process.ends_at.is_some_and(|at| at <= now) {
            let process = self.processes.remove(&number).unwrap();
            self.dead.push((process.name, process.address));
            return;
        }
        if process.leaves_at.is_some_and(|at| at <= now) && process.ends_at.is_none() {
            process.cluster.leave(now);
            process.ends_at = Some(now + Duration::from_millis(500));
        }
        self.stepped(number);
    }

    fn arrive(&mut self) {
        let Some(arrival) = self.network.take(self.now) else {
            return;
        };
        let now = self.now;
        match arrival {
            Arrival::Message { from, to, bytes } => {
                let mut all = self.processes.iter_mut();
                let Some((number, process)) = all.find(|(_, process)| process.address == to) else {
                    return;
                };
                if process.paused_until > now {
                    return;
                }
                self.lived.messages += 1;
                let answer = process.cluster.receive(&bytes, now);
                for byte in &answer.bytes {
                    let sum = self.lived.trace.wrapping_add(u64::from(*byte) + 1);
                    self.lived.trace = sum.wrapping_mul(0x0100_0000_01b3);
                }
                let number = *number;
                let answer = Arrival::Answer {
                    to: from.0,
                    from: Arc::clone(&to),
                    bytes: answer.bytes,
                };
                self.network.send((&to, &from.1), &answer, now);
                self.stepped(number);
            }
            Arrival::Answer { to, from, bytes } => {
                let running = self.processes.get_mut(&to);
                if let Some(process) = running.filter(|process| process.paused_until <= now) {
                    process.cluster.answered(&from, &bytes, now);
                    self.stepped(to);
                }
            }
            Arrival::Found { to } => {
                if let Some(process) = self.processes.get_mut(&to) {
                    process.cluster.found(self.addresses.clone(), now);
                    self.stepped(to);
                }
            }
        }
    }

    /// Takes what a process has to say, and looks at what it owns.
    fn stepped(&mut self, number: usize) {
        let (now, process) = (self.now, self.processes.get_mut(&number).unwrap());
        let out = std::mem::take(process.cluster.transport());
        for (to, bytes) in out.messages {
            let from = (number, Arc::clone(&process.address));
            let message = Arrival::Message {
                from,
                to: Arc::clone(&to),
                bytes,
            };
            self.network.send((&process.address, &to), &message, now);
        }
        if out.is_looking {
            self.network.later(Arrival::Found { to: number }, now);
        }
        if process.ownership.version() != process.seen.version {
            self.lived.owners_changed += 1;
            process.look(&self.keys, now);
        }
    }

    /// Waits until all agree, and a while longer.
    fn end(mut self) -> Lived {
        let calm_at = self.now;
        let mut agreed = self.now;
        let mut versions = self.versions();
        loop {
            let outcome = self.is_agreed();
            if outcome.is_err() || versions != self.versions() {
                agreed = self.now;
                versions = self.versions();
            } else if self.now - agreed >= KEPT_FOR {
                break;
            }
            let problem = outcome.err().unwrap_or_default();
            let waited = agreed - calm_at;
            assert!(waited < self.agreed_within(), "{problem}\n{:?}", self.plan);
            self.run_until(self.now + LOOK_EVERY);
        }
        self.lived.seconds_to_agree = (agreed - calm_at).as_secs();
        for process in self.processes.values() {
            let counts = process.cluster.stats().counts();
            self.lived.renewed += counts.renewed;
            self.lived.conflicts += counts.conflicts;
            self.lived.alone_at_the_end += u64::from(process.cluster.is_alone());
        }
        self.lived.lost = self.network.lost;
        self.lived.doubled = self.network.doubled;
        self.lived
    }

    /// How long agreement may take once all is calm: a round of suspicion and a few of trying those that were held
    /// for gone, twice the rejoin interval for one that is alone for a name that is free by now, and as many as
    /// it takes to say hello to every address.
    fn agreed_within(&self) -> Duration {
        let rounds = match self.plan.join_peers_max {
            0 => 1,
            most => self.addresses.len().div_ceil(most),
        };
        let rounds = u32::try_from(rounds + 2).unwrap();
        Duration::from_secs(90) + self.plan.rejoin_interval * rounds
    }

    fn versions(&self) -> Vec<u64> {
        let all = self.processes.values();
        all.map(|process| process.ownership.version()).collect()
    }

    /// Whether all see those that are there, as they are, and own every key once.
    fn is_agreed(&self) -> Result<(), String> {
        let all: Vec<&Process> = self.processes.values().collect();
        if all
            .iter()
            .any(|one| one.participates_at.is_some() || one.leaves_at.is_some())
        {
            return Err("somebody comes or goes".to_owned());
        }
        let (alone, together): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|process| process.cluster.is_alone());
        let names: BTreeSet<&str> = together.iter().map(|one| one.name.as_str()).collect();
        if names.len() != together.len() {
            return Err("two with one name are in".to_owned());
        }
        for one in &alone {
            let peers = one.ownership.peers();
            if peers.len() != 1 || !names.contains(one.name.as_str()) {
                return Err(format!("{} should not be alone with {peers:?}", one.name));
            }
        }
        let mut there: Vec<(&str, &str)> = together
            .iter()
            .map(|one| (one.name.as_str(), &*one.address))
            .collect();
        there.sort_unstable();
        for one in &together {
            let peers = one.ownership.peers();
            let seen: Vec<_> = peers
                .iter()
                .map(|peer| (&*peer.name, &*peer.address))
                .collect();
            let all_work = peers.iter().all(|peer| peer.state == State::Participant);
            if seen != there || !all_work {
                return Err(format!("{} sees {peers:?} of {there:?}", one.name));
            }
        }
        for key in self.keys.iter().filter(|_| !together.is_empty()) {
            let locals = together.iter().filter(|one| one.ownership.is_local(*key));
            let locals: Vec<&str> = locals.map(|one| one.name.as_str()).collect();
            let owners = together.iter().map(|one| one.ownership.owner(*key));
            let owners: BTreeSet<_> = owners.map(|owner| owner.unwrap().name).collect();
            if locals.len() != 1 || owners.len() != 1 {
                return Err(format!("{key:#x} is owned by {owners:?}, here: {locals:?}"));
            }
        }
        Ok(())
    }
}

impl Process {
    fn next(&self) -> Option<Duration> {
        let all = [
            self.cluster.next(),
            self.participates_at,
            self.leaves_at.filter(|_| self.ends_at.is_none()),
            self.ends_at,
        ];
        all.into_iter().flatten().min()
    }

    /// Looks at ownership that has changed.
    fn look(&mut self, keys: &[u64], now: Duration) {
        let version = self.ownership.version();
        let peers = self.ownership.peers();
        let own: Vec<&Peer> = peers.iter().filter(|peer| peer.is_self).collect();
        assert!(
            own.len() == 1 && *own[0].name == self.name,
            "it knows itself"
        );
        let at_work = peers.iter().filter(|peer| peer.state == State::Participant);
        let participants: BTreeSet<_> = at_work.map(|peer| Arc::clone(&peer.name)).collect();
        let owners = keys.iter().map(|key| self.ownership.owner(*key));
        let owners: Vec<_> = owners.map(|owner| owner.map(|peer| peer.name)).collect();
        let before = &self.seen;
        if let (Some(at), false) = (before.at, before.is_own) {
            assert_eq!(version, before.version + 1, "one change at a time");
            let second = Duration::from_secs(1);
            assert!(now - at >= second, "told again after {:?}", now - at);
        }
        for (old, new) in before.owners.iter().zip(&owners) {
            let (Some(old), Some(new)) = (old, new) else {
                continue;
            };
            let stays = participants.contains(old) && before.participants.contains(new);
            assert!(
                old == new || !stays,
                "a key went from {old} to {new}, who both stay"
            );
        }
        self.seen = Seen {
            version,
            at: Some(now),
            is_own: false,
            participants,
            owners,
        };
    }
}
