//! Turns what the protocol asks for into timers and messages.
//!
//! # Limits
//! - [`TIMERS_MAX`] timers: beyond, nothing is forgotten on time any more.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use foca::{Notification, Runtime, Timer};

use crate::node::Node;
use crate::stats::{Stats, count};

const TIMERS_MAX: usize = 64 << 10;

/// A timer and when it ends.
#[derive(Debug)]
struct Entry {
    at: Duration,
    /// Timers that end at the same time end in the order they were set.
    number: u64,
    timer: Timer<Node>,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// What the protocol asked for and what it told, until somebody takes it.
#[derive(Debug, Default)]
pub(crate) struct Events {
    now: Duration,
    timers: BinaryHeap<Reverse<Entry>>,
    number: u64,
    pub(crate) messages: Vec<(Node, Vec<u8>)>,
    /// Whether there is anybody else who was not there, or the other way round.
    pub(crate) is_changed: bool,
    /// The identity is another one: what depends on it has to begin again.
    pub(crate) is_renewed: bool,
    stats: std::sync::Arc<Stats>,
}

impl Events {
    pub(crate) fn new(stats: std::sync::Arc<Stats>) -> Self {
        Self {
            stats,
            ..Self::default()
        }
    }

    /// It is `now`.
    pub(crate) const fn at(&mut self, now: Duration) -> &mut Self {
        self.now = now;
        self
    }

    /// The next timer that has ended.
    pub(crate) fn ended(&mut self, now: Duration) -> Option<Timer<Node>> {
        if self.next()? > now {
            return None;
        }
        self.timers.pop().map(|Reverse(entry)| entry.timer)
    }

    /// When the next timer ends.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.timers.peek().map(|Reverse(entry)| entry.at)
    }
}

impl Runtime<Node> for Events {
    fn notify(&mut self, notification: Notification<'_, Node>) {
        match notification {
            Notification::MemberUp(node) => {
                tracing::info!(name = %node.name, address = %node.address, "an agent has joined");
                count(&self.stats.joined);
                self.is_changed = true;
            }
            Notification::MemberDown(node) => {
                tracing::info!(name = %node.name, address = %node.address, "an agent is gone");
                count(&self.stats.left);
                self.is_changed = true;
            }
            Notification::Rename(before, after) => {
                count(&self.stats.updated);
                if before.state != after.state {
                    count(&self.stats.state_changed);
                }
                self.is_changed = true;
            }
            Notification::Rejoin(_) => {
                tracing::info!("this agent was held for gone, and joins again");
                count(&self.stats.renewed);
                self.is_renewed = true;
            }
            Notification::Active | Notification::Idle | Notification::Defunct => {}
        }
    }

    fn send_to(&mut self, to: Node, data: &[u8]) {
        self.messages.push((to, data.to_vec()));
    }

    fn submit_after(&mut self, timer: Timer<Node>, after: Duration) {
        if self.timers.len() >= TIMERS_MAX && matches!(timer, Timer::RemoveDown(_)) {
            return;
        }
        self.number += 1;
        self.timers.push(Reverse(Entry {
            at: self.now.saturating_add(after),
            number: self.number,
            timer,
        }));
    }
}
