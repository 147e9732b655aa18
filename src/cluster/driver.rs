//! Turns messages, answers, addresses and time into what the cluster does.
//!
//! # Threads
//! - One task; who tells it something waits at most for those before.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster::{Answer, Cluster, State, Transport};
use tokio::sync::{mpsc, oneshot};
use wal::SharedClock;

use super::discovery::{self, JoinAddress};
use super::transport::{Outgoing, Peers};

/// Timers end this late at most: what is due at about the same time is done together.
const TICK_MIN: Duration = Duration::from_millis(1);

/// What the cluster is told.
#[derive(Debug)]
pub(super) enum Told {
    /// One of the others says something.
    Message(Bytes, oneshot::Sender<Answer>),
    /// Who is at an address has answered.
    Answered(Arc<str>, Bytes),
    /// Addresses to join by.
    Found(Vec<Arc<str>>),
    Enter(State, oneshot::Sender<()>),
    Leave(oneshot::Sender<()>),
}

/// The way to the others.
#[derive(Debug)]
pub(super) struct Driver {
    peers: Peers,
    join: Vec<JoinAddress>,
    is_looking: bool,
}

impl Driver {
    pub(super) fn new(outgoing: Outgoing, join: Vec<JoinAddress>) -> Self {
        Self {
            peers: Peers::new(outgoing),
            join,
            is_looking: false,
        }
    }
}

impl Transport for Driver {
    fn send(&mut self, address: &Arc<str>, message: Bytes) {
        self.peers.send(address, message);
    }

    fn look_for_peers(&mut self) {
        if std::mem::replace(&mut self.is_looking, true) {
            return;
        }
        let (join, told) = (self.join.clone(), self.peers.outgoing.told.clone());
        self.peers.outgoing.runtime.spawn(async move {
            let found = discovery::look(join).await;
            // Fails when nobody is interested any more.
            drop(told.send(Told::Found(found)).await);
        });
    }
}

/// Runs until nobody tells it anything any more.
pub(super) async fn run(
    mut cluster: Cluster<Driver>,
    mut told: mpsc::Receiver<Told>,
    clock: SharedClock,
) {
    loop {
        let now = clock.monotonic();
        let wait = cluster
            .next()
            .map(|at| at.saturating_sub(now).max(TICK_MIN));
        let due = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        let what = tokio::select! {
            what = told.recv() => what,
            () = due => {
                cluster.tick(clock.monotonic());
                continue;
            }
        };
        let Some(what) = what else {
            return;
        };
        let now = clock.monotonic();
        step(&mut cluster, what, now);
        // Whoever is busy with what comes still has to ask whether the others are there.
        if cluster.next().is_some_and(|at| at <= now) {
            cluster.tick(now);
        }
    }
}

/// Those who asked may not wait any more: then sending the answer fails.
fn step(cluster: &mut Cluster<Driver>, what: Told, now: Duration) {
    match what {
        Told::Message(message, answer) => {
            drop(answer.send(cluster.receive(&message, now)));
        }
        Told::Answered(from, answer) => cluster.answered(&from, &answer, now),
        Told::Found(addresses) => {
            let driver = cluster.transport();
            driver.is_looking = false;
            if addresses.is_empty() {
                driver.peers.outgoing.numbers.nobody_was_found();
            }
            cluster.found(addresses, now);
        }
        Told::Enter(state, done) => {
            if let Err(error) = cluster.enter(state, now) {
                tracing::debug!(%error, "the state of this agent in the cluster is as it was");
            }
            done.send(()).ok();
        }
        Told::Leave(done) => {
            cluster.leave(now);
            done.send(()).ok();
        }
    }
}
