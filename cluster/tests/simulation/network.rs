//! Turns messages into deliveries, late, twice or never.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster::Transport;
use fastrand::Rng;

use super::plan::Plan;

/// What arrives.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Arrival {
    Message {
        /// The process that sent it, and its address.
        from: (usize, Arc<str>),
        to: Arc<str>,
        bytes: Bytes,
    },
    Answer {
        /// The process that asked.
        to: usize,
        from: Arc<str>,
        bytes: Bytes,
    },
    /// Addresses a process looked for.
    Found { to: usize },
}

/// What a process has to say, until the network takes it.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) messages: Vec<(Arc<str>, Bytes)>,
    pub(super) is_looking: bool,
}

impl Transport for Outbox {
    fn send(&mut self, address: &Arc<str>, message: Bytes) {
        self.messages.push((Arc::clone(address), message));
    }

    fn look_for_peers(&mut self) {
        self.is_looking = true;
    }
}

/// What is under way.
#[derive(Debug)]
pub(super) struct Network {
    under_way: BinaryHeap<Reverse<(Duration, u64, Arrival)>>,
    number: u64,
    rng: Rng,
    delay: (Duration, Duration),
    pub(super) loss: f64,
    pub(super) duplication: f64,
    /// Addresses on one side; None: nobody is apart.
    pub(super) side: Option<BTreeSet<Arc<str>>>,
    pub(super) lost: u64,
    pub(super) doubled: u64,
}

impl Network {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            under_way: BinaryHeap::new(),
            number: 0,
            rng: Rng::with_seed(!plan.seed),
            delay: plan.delay,
            loss: plan.loss,
            duplication: plan.duplication,
            side: None,
            lost: 0,
            doubled: 0,
        }
    }

    fn is_heard(&self, from: &Arc<str>, to: &Arc<str>) -> bool {
        let is_there = |address| self.side.as_ref().is_none_or(|side| side.contains(address));
        is_there(from) == is_there(to)
    }

    /// Takes something that goes from one address to another.
    pub(super) fn send(
        &mut self,
        (from, to): (&Arc<str>, &Arc<str>),
        what: &Arrival,
        now: Duration,
    ) {
        if !self.is_heard(from, to) || self.rng.f64() < self.loss {
            self.lost += 1;
            return;
        }
        let mut copies = 1;
        if self.rng.f64() < self.duplication {
            self.doubled += 1;
            copies = 2;
        }
        for _ in 0..copies {
            self.later(what.clone(), now);
        }
    }

    /// Takes something that does not get lost.
    pub(super) fn later(&mut self, what: Arrival, now: Duration) {
        let (least, most) = self.delay;
        let delay = least + (most - least).mul_f64(self.rng.f64());
        self.number += 1;
        self.under_way
            .push(Reverse((now + delay, self.number, what)));
    }

    pub(super) fn next(&self) -> Option<Duration> {
        self.under_way.peek().map(|Reverse((at, ..))| *at)
    }

    pub(super) fn take(&mut self, now: Duration) -> Option<Arrival> {
        if self.next()? > now {
            return None;
        }
        self.under_way.pop().map(|Reverse((_, _, what))| what)
    }
}
