//! Turns layouts into running shard threads, changes what runs while it does, and back into stopped ones.
//!
//! A shard thread owns its sockets, buffers, writers and predictions of connections; it shares
//! with the others the series tables, one permit counter per limit, and the log.
//!
//! # Invariants
//! - When [`Shards::start`] returns, every address is listened on; nothing fails later that could
//!   have failed then.
//! - When [`Shards::apply`] returns, every request that is appended goes where the new layout says, and a
//!   store that is not in it can be closed.
//! - The committers run until the stores are closed, so requests in flight when accepting stops
//!   can still become durable. Hence the order: [`Shards::stop_accepting`], `Store::close`,
//!   [`Shards::join`].
//!
//! # Limits
//! - What a layout leaves has the grace to finish; then it is cut off.
//!
//! # Threads
//! - `scrape-N`, where scrapers run (`pull`).
//! - `ingest-N`, one per shard. Under `IoEngine::Uring` the committers are tasks of the shards, in turn,
//!   under `IoEngine::Portable` each has a thread of its own.
//! - What crosses: layouts, over a channel of one whose closing says stop; channels whose closing says
//!   drained, switched, given back; and connections that another shard accepted (`spread`).
//! - One layout at a time: `apply` blocks whoever calls it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use wal::IoEngine;

use crate::Error;
use crate::control::{Control, Leaving};
use crate::layout::{Applied, Layout};
use crate::options::ShardsOptions;
use crate::pull::ScraperStats;
use crate::share::Inlet;
use crate::stats::ReceiverStats;
use crate::switch::{Shard, Switch, run};
use crate::tap::Tap;

/// Running shard threads.
#[derive(Debug)]
pub struct Shards {
    threads: Vec<JoinHandle<()>>,
    grace: Duration,
    control: Mutex<Control>,
    /// To each shard; empty once they are told to stop.
    switches: Mutex<Vec<tokio::sync::mpsc::Sender<Switch>>>,
    /// What can be read while a layout is applied.
    shown: Mutex<Shown>,
    /// Nothing is ever sent; every shard drops its end when its connections are gone.
    drained: Mutex<mpsc::Receiver<()>>,
}

/// The newest layout, for others.
#[derive(Default, Debug)]
struct Shown {
    addresses: BTreeMap<String, SocketAddr>,
    stats: BTreeMap<String, Arc<ReceiverStats>>,
    taps: BTreeMap<String, Tap>,
    scrapers: BTreeMap<String, Arc<ScraperStats>>,
    inlets: BTreeMap<String, Inlet>,
}

impl Shards {
    /// Listens on every receiver's address and starts the threads.
    ///
    /// # Errors
    ///
    /// An address is taken or not ours, a store has no more writers, a thread could not be
    /// started, or a setting names a store that is not there.
    pub fn start(options: &ShardsOptions, layout: Layout) -> Result<Self, Error> {
        if options.threads == 0 || options.scrape_threads == 0 {
            let text = "at least one ingest thread and one that scrapes are needed";
            return Err(Error::Options(text.into()));
        }
        let (drained, all_drained) = mpsc::sync_channel(0);
        let (mut threads, mut switches) = (Vec::new(), Vec::new());
        for number in 0..options.threads + options.scrape_threads {
            // One layout at a time.
            let (switch, received) = tokio::sync::mpsc::channel(1);
            let shard = Shard {
                number,
                clock: options.clock.clone(),
                scrape_seed: options.scrape_seed,
                grace: options.shutdown_grace,
                switches: received,
                drained: drained.clone(),
            };
            switches.push(switch);
            threads.push(if number < options.threads {
                start_thread(&format!("ingest-{number}"), shard, options.engine)?
            } else {
                // Nothing here needs a ring: committers are elsewhere.
                let name = format!("scrape-{}", number - options.threads);
                start_thread(&name, shard, IoEngine::Portable)?
            });
        }
        drop(drained);
        let shards = Self {
            threads,
            grace: options.shutdown_grace,
            control: Mutex::new(Control::new(options)),
            switches: Mutex::new(switches),
            shown: Mutex::default(),
            drained: Mutex::new(all_drained),
        };
        let started = shards.change(layout, true);
        if started.is_err() {
            // Not joined: committers that run already end with their stores.
            shards.stop_accepting();
        }
        started.map(|_| shards)
    }

    /// Goes over to another layout without a pause: receivers of the same name and address keep their
    /// sockets, connections and counters whatever else changes. Blocks until no request is in flight that
    /// may touch what is not in it any more, at most for about the grace twice.
    ///
    /// # Errors
    ///
    /// The layout makes no sense, a new store has no writers left or its committer cannot be started, or
    /// the shards are stopping. Everything goes on as it was; a store that would have been new is to be
    /// closed.
    pub fn apply(&self, layout: Layout) -> Result<Applied, Error> {
        self.change(layout, false)
    }

    fn change(&self, layout: Layout, all_or_nothing: bool) -> Result<Applied, Error> {
        let mut control = self.control.lock();
        let senders = self.switches.lock().clone();
        if senders.is_empty() {
            return Err(Error::Options("the ingest threads are stopping".into()));
        }
        let mut prepared = control.prepare(layout, all_or_nothing)?;
        let failed = std::mem::take(&mut prepared.failed);
        let (done, all_done) = mpsc::sync_channel(0);
        let (switches, leaving) = control.commit(prepared, &done);
        drop(done);
        for (sender, switch) in senders.iter().zip(switches) {
            // Fails where the thread has panicked, which its end tells.
            if sender.try_send(switch).is_err() {
                tracing::error!("an ingest thread is gone");
            }
        }
        drop(senders);
        wait(&all_done);
        *self.shown.lock() = show(&control);
        control.forget_ways();
        self.await_leaving(&leaving);
        control.reap();
        Ok(Applied { failed })
    }

    /// Waits until what is left behind is finished or cut off.
    fn await_leaving(&self, leaving: &Leaving) {
        // The shards see to it that this takes no longer than the grace.
        leaving.served.iter().for_each(wait);
        for (store, leases) in &leaving.stores {
            // Nothing is sent: either all are given back, or the time is over.
            let left = leases.lock().recv_timeout(self.grace);
            if left == Err(mpsc::RecvTimeoutError::Timeout) {
                tracing::warn!(store, "requests still wait for a store that is removed");
            }
        }
    }

    /// The addresses with their real ports, by the names of the receivers.
    #[must_use]
    pub fn addresses(&self) -> BTreeMap<String, SocketAddr> {
        self.shown.lock().addresses.clone()
    }

    /// The numbers of the receivers, by their names.
    #[must_use]
    pub fn stats(&self) -> BTreeMap<String, Arc<ReceiverStats>> {
        self.shown.lock().stats.clone()
    }

    /// The numbers of the scrapers, by their names.
    #[must_use]
    pub fn scrapers(&self) -> BTreeMap<String, Arc<ScraperStats>> {
        self.shown.lock().scrapers.clone()
    }

    /// Where parts come in for receivers that share their series with other agents, by their names.
    #[must_use]
    pub fn inlets(&self) -> BTreeMap<String, Inlet> {
        self.shown.lock().inlets.clone()
    }

    /// Where what is appended to the store of this id can be looked at.
    #[must_use]
    pub fn tap(&self, store: &str) -> Option<Tap> {
        self.shown.lock().taps.get(store).cloned()
    }

    /// Stops accepting, lets requests in flight finish up to the grace, closes the connections.
    /// Returns when all are gone. The stores must still be open.
    pub fn stop_accepting(&self) {
        self.switches.lock().clear();
        self.control.lock().stop_listening();
        wait(&self.drained.lock());
    }

    /// Waits for the threads to end. They do once the stores are closed.
    ///
    /// # Errors
    ///
    /// A thread panicked.
    pub fn join(self) -> Result<(), Error> {
        self.stop_accepting();
        let mut panicked = None;
        let committing = self.control.into_inner().committing;
        for thread in self.threads.into_iter().chain(committing) {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            if thread.join().is_err() {
                panicked = Some(name);
            }
        }
        panicked.map_or(Ok(()), |thread| Err(Error::Panicked { thread }))
    }
}

/// Waits until everybody has dropped its end: nothing is ever sent.
fn wait(all: &mpsc::Receiver<()>) {
    while all.recv().is_ok() {}
}

fn show(control: &Control) -> Shown {
    let mut shown = Shown {
        taps: control.taps(),
        scrapers: control.scrapers(),
        inlets: control.inlets(),
        ..Shown::default()
    };
    for (name, address, stats) in control.receivers() {
        shown.addresses.insert(name.to_owned(), address);
        shown.stats.insert(name.to_owned(), stats.clone());
    }
    shown
}

/// Starts a shard's thread and waits until its runtime is there.
fn start_thread(thread: &str, shard: Shard, engine: IoEngine) -> Result<JoinHandle<()>, Error> {
    let failed = |source| Error::Thread {
        thread: thread.to_owned(),
        source,
    };
    match engine {
        IoEngine::Uring => std::thread::Builder::new()
            .name(thread.to_owned())
            .spawn(move || tokio_uring::start(run(shard)))
            .map_err(failed),
        IoEngine::Portable => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(failed)?;
            std::thread::Builder::new()
                .name(thread.to_owned())
                .spawn(move || tokio::task::LocalSet::new().block_on(&runtime, run(shard)))
                .map_err(failed)
        }
    }
}
