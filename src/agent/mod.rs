//! Turns what a configuration asks for into logs, endpoints, receivers; and another configuration into
//! changes of the same.
//!
//! [`Agent::apply`] is the only way anything is started or stopped: it compares what runs with what is
//! asked for, and touches what differs.
//!
//! # Order
//! Logs are opened, and their endpoints named, before anything can be received for them; receivers change
//! in one step (`ingest::Shards::apply`); then endpoints start, which by then know what they hold back for other agents
//! of a cluster; what nobody feeds any more is stopped last.
//!
//! # Invariants
//! - What did not change is not touched: no connection closed, no request refused, no position moved.
//! - What was acknowledged for a writer that is gone stays on disk: it is delivered if the writer comes back.
//!
//! # Failure
//! - What cannot be done for one component is told by its id, and the others are done.
//! - Where the ingest threads cannot go over to what is asked for, they feed what they fed: none of that is
//!   stopped, and logs that were opened for it are closed again.
//!
//! # Threads
//! - Everything here runs on the thread that has the graph, and waits for what it starts.

mod controller;
mod echo;
mod failure_log;
mod files;
mod flow;
mod locked;
mod model;
mod scraper;
mod shared;
mod view;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::Duration;

use cluster::{Ownership, Peer, State};
use config::Body;
use ingest::{Layout, ReceiverOptions, Shards, ShardsOptions, Stage};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use wal::{IoEngine, SharedClock, Store};

use crate::cluster::Handover;
use crate::component::{ReceiveHttp, Relabel, Role};
use crate::graph;
use crate::overlap;
use crate::server::ServerStats;
use crate::telemetry::metrics::{ReceiverSource, Sources, StoreSource};

pub(crate) use controller::{Controller, Event, Loaded};
pub(crate) use files::Files;
pub(crate) use scraper::{Exposing, InProcess, Memory};
pub(crate) use view::{LoadState, View};

use flow::Flow;
use scraper::Scraper;
use writer::Writer;

/// How long requests in flight may take once the agent stops.
const ACCEPTED_GRACE: Duration = Duration::from_secs(5);

/// What everything stands on.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) storage: PathBuf,
    pub(crate) clock: SharedClock,
    pub(crate) engine: IoEngine,
    pub(crate) threads: usize,
    /// What this host adds to the times of scrapes.
    pub(crate) scrape_seed: u64,
    /// Sockets that whoever started this process handed over.
    pub(crate) inherited: Arc<[TcpListener]>,
    /// Those of them that another process may have too, and that this one gives up in order.
    pub(crate) shared: Vec<TcpListener>,
    /// How long the first start of writers waits for their logs.
    pub(crate) lock_timeout: Duration,
    /// The agent was told to stop.
    pub(crate) is_stopping: Arc<AtomicBool>,
    /// Who of a cluster scrapes what.
    pub(crate) ownership: Ownership,
    /// Who of a cluster owns which series; none: there is no cluster.
    pub(crate) handover: Option<Handover>,
    /// Where this process is asked without a socket.
    pub(crate) memory: Memory,
    /// Where endpoints run.
    pub(crate) shipping: Handle,
    /// How long what is removed may go on shipping.
    pub(crate) shutdown_deadline: Duration,
    /// Told when a log has failed.
    pub(crate) failed: mpsc::Sender<String>,
    pub(crate) server: Arc<ServerStats>,
}

impl Ground {
    /// Whether a target is scraped by this agent, by its key: always, unless a cluster shares them. Then not
    /// before it takes part in the work: until then it may not know who does.
    fn is_ours(&self, is_clustered: bool) -> impl Fn(u64) -> bool + use<'_> {
        let (owners, is_shared) = (&self.ownership, is_clustered && self.ownership.is_on());
        let takes_part = |peer: &Peer| peer.is_self && peer.state == State::Participant;
        let is_ready = owners.is_ready() && owners.peers().iter().any(takes_part);
        move |key| !is_shared || (is_ready && owners.is_local(key))
    }
}

/// What runs.
#[derive(Debug)]
pub(crate) struct Agent {
    ground: Ground,
    shards: Shards,
    writers: BTreeMap<String, Writer>,
    stages: BTreeMap<String, (Body, Arc<Stage>)>,
    /// Where receivers listen, and how many connections they take.
    receivers: BTreeMap<String, (SocketAddr, usize)>,
    scrapers: BTreeMap<String, Scraper>,
    /// Whom receivers and scrapers feed.
    forwarded: BTreeMap<String, Vec<String>>,
    /// Writers that are gone, until they have stopped.
    leaving: BTreeMap<String, Leaving>,
    /// Everything that was asked for, as it was written.
    order: Vec<String>,
}

/// A writer that ships what it has, and is closed then.
#[derive(Debug)]
struct Leaving {
    /// Dropped: it is closed at once.
    hurry: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// What could not be done for a component, by its id.
pub(crate) type Problems = Vec<(String, anyhow::Error)>;

impl Agent {
    /// One with nothing to do yet.
    ///
    /// # Errors
    /// A thread could not be started.
    pub(crate) fn start(ground: Ground) -> anyhow::Result<Self> {
        let settings = ShardsOptions {
            threads: ground.threads,
            scrape_threads: scrape_threads(ground.threads),
            scrape_seed: ground.scrape_seed,
            inherited: ground.inherited.clone(),
            engine: ground.engine,
            shutdown_grace: ACCEPTED_GRACE,
            clock: ground.clock.clone(),
        };
        let shards = Shards::start(&settings, Layout::default())?;
        Ok(Self {
            ground,
            shards,
            writers: BTreeMap::new(),
            stages: BTreeMap::new(),
            receivers: BTreeMap::new(),
            scrapers: BTreeMap::new(),
            forwarded: BTreeMap::new(),
            leaving: BTreeMap::new(),
            order: Vec::new(),
        })
    }

    /// Makes what runs be what is asked for.
    pub(crate) fn apply(&mut self, asked: &[graph::Asked<'_>]) -> Problems {
        let mut problems = Problems::new();
        let there: BTreeSet<String> = self.writers.keys().cloned().collect();
        let wanted = self.open_writers(asked, &mut problems);
        self.change_stages(asked);
        let is_laid_out = self.change_doors(asked, &mut problems);
        if is_laid_out {
            self.order = asked.iter().map(|one| one.id.clone()).collect();
        } else {
            self.close_all_but(&there);
        }
        // Before anything is shipped: some of it may be held back.
        self.tell_handover(asked);
        for (id, wanted) in wanted {
            if let Some(writer) = self.writers.get_mut(&id) {
                let failed = writer.ship(wanted, &self.ground);
                problems.extend(failed.into_iter().map(|error| (id.clone(), error)));
            }
        }
        // Where nothing has changed, what is not asked for any more is still fed.
        if is_laid_out {
            self.leave(asked);
        }
        self.ground.lock_timeout = Duration::ZERO;
        problems
    }

    /// Opens logs that are new, changes those that are there, names all endpoints.
    fn open_writers(
        &mut self,
        asked: &[graph::Asked<'_>],
        problems: &mut Problems,
    ) -> Vec<(String, writer::Asked)> {
        let mut all = Vec::new();
        for one in asked {
            let wanted = match one.role {
                Role::Writer(component) => writer::Asked::writer(component, one.body),
                Role::Echo(format) => writer::Asked::echo(*format, one.body),
                _ => continue,
            };
            match self.open_writer(&one.id, &wanted) {
                Ok(()) => all.push((one.id.clone(), wanted)),
                Err(error) => problems.push((one.id.clone(), error)),
            }
        }
        all
    }

    fn open_writer(&mut self, id: &str, wanted: &writer::Asked) -> anyhow::Result<()> {
        if !self.writers.contains_key(id) {
            let writer = if self.until_left(id) {
                self.reopen(id, wanted)?
            } else {
                self.open_once_free(id, wanted)?
            };
            self.watch(&writer.store);
            self.writers.insert(id.to_owned(), writer);
        } else if let Some(writer) = self.writers.get_mut(id) {
            writer.change(id, wanted.wal())?;
        }
        match self.writers.get_mut(id) {
            Some(writer) => writer.name(wanted),
            None => Ok(()),
        }
    }

    /// A log that fails ends the agent: nothing more is acknowledged, and the next start recovers.
    fn watch(&self, store: &Store) {
        let (mut durable, failed) = (store.durable(), self.ground.failed.clone());
        let store = store.clone();
        self.ground.shipping.spawn(async move {
            let ended = durable.ended().await;
            // One that was closed has ended too.
            if let Some(failure) = store.failure() {
                tracing::error!(%failure, "a log has failed");
                // Fails when the agent is ending anyway.
                drop(failed.send(ended.to_string()).await);
            }
        });
    }

    fn change_stages(&mut self, asked: &[graph::Asked<'_>]) {
        let mut before = std::mem::take(&mut self.stages);
        for one in asked {
            let Role::Relabel(relabel) = one.role else {
                continue;
            };
            let stage = match before.remove(&one.id) {
                Some((body, stage)) if is_same_stage(&body, one.body) => stage,
                predecessor => stage(&one.id, relabel, predecessor.map(|(_, stage)| stage)),
            };
            self.stages
                .insert(one.id.clone(), (one.body.clone(), stage));
        }
    }

    /// Closes logs that nobody will feed: what would have did not start.
    fn close_all_but(&mut self, there: &BTreeSet<String>) {
        self.writers.retain(|id, writer| {
            let is_there = there.contains(id);
            if !is_there {
                writer.store.close();
            }
            is_there
        });
    }

    /// Receivers and scrapers: where data comes in. Whether they are what is asked for, as a whole.
    fn change_doors(&mut self, asked: &[graph::Asked<'_>], problems: &mut Problems) -> bool {
        let mut before = std::mem::take(&mut self.scrapers);
        let (mut scrapers, mut forwarded) = (BTreeMap::new(), BTreeMap::new());
        let (flow, stores) = self.flow(asked);
        let mut layout = Layout {
            stores,
            ..Layout::default()
        };
        for one in asked {
            let forward_to = match one.role {
                Role::Receiver(component) => &component.forward_to,
                Role::Scrape(component) => &component.forward_to,
                _ => continue,
            };
            let paths = flow.paths(forward_to).or_else(|problem| {
                problems.push((one.id.clone(), anyhow::anyhow!(problem)));
                // As before, or not at all: nothing is acknowledged for what does not get it.
                flow.paths(self.forwarded.get(&one.id).ok_or(())?)
                    .map_err(|_| ())
            });
            match (paths, one.role) {
                (Ok(paths), Role::Receiver(component)) => {
                    let handover = self.ground.handover.as_ref();
                    let sharing = handover.filter(|_| component.handover_timeout.is_some());
                    let options = ReceiverOptions {
                        sharing: sharing.map(Handover::sharing),
                        ..receiver_options(&one.id, component, paths)
                    };
                    layout.receivers.push(options);
                }
                (Ok(paths), Role::Scrape(component)) => {
                    let before = before.remove(&one.id);
                    let (next, wrong) = Scraper::next(before, component, &self.ground.memory);
                    problems.extend(wrong.map(|error| (one.id.clone(), error)));
                    if let Some(mut scraper) = next {
                        let is_ours = self.ground.is_ours(component.is_clustered);
                        let options = scraper.options(&one.id, component, paths, is_ours);
                        layout.scrapers.push(options);
                        scrapers.insert(one.id.clone(), scraper);
                    }
                }
                _ => {}
            }
            if problems.iter().all(|(id, _)| *id != one.id) {
                forwarded.insert(one.id.clone(), forward_to.clone());
            } else if let Some(before) = self.forwarded.get(&one.id) {
                forwarded.insert(one.id.clone(), before.clone());
            }
        }
        self.scrapers = scrapers;
        let is_laid_out = self.lay_out(layout, problems);
        if is_laid_out {
            self.forwarded = forwarded;
        }
        is_laid_out
    }

    /// What is between where data comes in and where it stays, and the stores.
    fn flow<'a>(&'a self, asked: &'a [graph::Asked<'_>]) -> (Flow<'a>, Vec<(String, Store)>) {
        let mut flow = Flow::default();
        let mut stores = Vec::new();
        for (id, writer) in &self.writers {
            if asked.iter().any(|one| one.id == *id) {
                flow.stores.insert(id, stores.len());
                stores.push((id.clone(), writer.store.clone()));
            }
        }
        for one in asked {
            if let (Role::Relabel(relabel), Some((_, stage))) = (one.role, self.stages.get(&one.id))
            {
                flow.stages
                    .insert(&one.id, (stage.clone(), &relabel.forward_to));
            }
        }
        (flow, stores)
    }

    /// Has the ingest threads go over to a layout; whether they did.
    fn lay_out(&mut self, layout: Layout, problems: &mut Problems) -> bool {
        let limits: BTreeMap<String, usize> = (layout.receivers.iter())
            .map(|one| (one.name.clone(), one.connections_max))
            .collect();
        let applied = self.shards.apply(layout);
        let is_laid_out = applied.is_ok();
        match applied {
            Ok(applied) => {
                let failed = applied.failed.into_iter();
                problems.extend(failed.map(|(id, error)| (id, error.into())));
            }
            // Everything is as it was.
            Err(error) => problems.push(("receivers".to_owned(), error.into())),
        }
        let before = std::mem::take(&mut self.receivers);
        for (id, address) in self.shards.addresses() {
            let was = before.get(&id);
            if was.map(|(address, _)| *address) != Some(address) {
                tracing::info!(component = id, %address, "receiving");
            }
            let limit = match limits.get(&id) {
                Some(0) | None => ingest::CONNECTIONS_MAX_DEFAULT,
                Some(limit) => *limit,
            };
            self.receivers.insert(id, (address, limit));
        }
        is_laid_out
    }

    /// Closes the logs nobody asks for, in the background: they ship what they have until the deadline.
    fn leave(&mut self, asked: &[graph::Asked<'_>]) {
        self.leaving
            .retain(|_, leaving| !leaving.thread.is_finished());
        let is_asked = |id: &str| {
            asked
                .iter()
                .any(|one| one.id == id && matches!(one.role, Role::Writer(_) | Role::Echo(_)))
        };
        let gone: Vec<String> = self
            .writers
            .keys()
            .filter(|id| !is_asked(id))
            .cloned()
            .collect();
        for id in gone {
            let Some(mut writer) = self.writers.remove(&id) else {
                continue;
            };
            let (hurry, hurried) = oneshot::channel();
            let (shipping, deadline) =
                (self.ground.shipping.clone(), self.ground.shutdown_deadline);
            let name = id.clone();
            let leave = move || {
                shipping.block_on(async {
                    tokio::select! {
                        () = writer::stop(writer.take_endpoints(), deadline) => {}
                        _ = hurried => {}
                    }
                });
                close(&name, &writer);
            };
            let thread = std::thread::Builder::new()
                .name("leave".to_owned())
                .spawn(leave);
            match thread {
                Ok(thread) => {
                    self.leaving.insert(id, Leaving { hurry, thread });
                }
                // Its endpoints stopped with it; the log is as after a kill, which loses nothing.
                Err(error) => tracing::error!(component = id, %error, "cannot stop in order"),
            }
        }
    }

    /// Waits until a writer of this id that was there before is gone; whether there was one.
    fn until_left(&mut self, id: &str) -> bool {
        let Some(leaving) = self.leaving.remove(id) else {
            return false;
        };
        drop(leaving.hurry);
        if leaving.thread.join().is_err() {
            tracing::error!(component = id, "stopping it panicked");
        }
        true
    }

    /// Leaves new connections to the next process, and accepts those that had begun; whether there may be one.
    pub(crate) fn turn_away(&mut self) -> bool {
        let shared = std::mem::take(&mut self.ground.shared);
        if shared.is_empty() {
            return false;
        }
        overlap::turn_away(&shared);
        // The shards go on accepting.
        self.ground
            .shipping
            .block_on(async { tokio::time::sleep(overlap::DRAIN).await });
        self.ground.inherited = Arc::default();
        true
    }

    /// Who of a cluster scrapes what.
    pub(crate) fn ownership(&self) -> &Ownership {
        &self.ground.ownership
    }

    /// What runs now.
    pub(crate) fn sources(&self) -> Sources {
        let stats = self.shards.stats();
        let writers = || {
            let ids = self.order.iter();
            ids.filter_map(|id| Some((id, self.writers.get(id)?)))
        };
        let stores = writers().filter_map(|(id, writer)| {
            Some(StoreSource {
                id: id.clone(),
                store: writer.store.clone(),
                tap: self.shards.tap(id)?,
            })
        });
        let receivers = self.order.iter().filter_map(|id| {
            let (_, connections_max) = self.receivers.get(id)?;
            Some(ReceiverSource {
                id: id.clone(),
                connections_max: *connections_max,
                stats: stats.get(id)?.clone(),
            })
        });
        let relabels = self.order.iter().filter_map(|id| self.stages.get(id));
        let scrapers = self.shards.scrapers();
        Sources {
            engine: self.ground.engine,
            clock: self.ground.clock.clone(),
            stores: stores.collect(),
            receivers: receivers.collect(),
            scrapers: (self.order.iter())
                .filter_map(|id| scrapers.get(id).cloned())
                .collect(),
            relabels: relabels.map(|(_, stage)| stage.clone()).collect(),
            endpoints: writers()
                .flat_map(|(id, writer)| writer.sources(id))
                .collect(),
            discoveries: Vec::new(),
            server: self.ground.server.clone(),
        }
    }

    /// Ends in the direction of the flow: nothing more is accepted; what is there is shipped until the
    /// deadline, or until `hurried` says something; logs are committed and closed.
    pub(crate) fn stop(
        mut self,
        deadline: Duration,
        hurried: oneshot::Receiver<()>,
    ) -> anyhow::Result<()> {
        self.shards.stop_accepting();
        let mut endpoints = Vec::new();
        for writer in self.writers.values_mut() {
            endpoints.extend(writer.take_endpoints());
        }
        self.ground.shipping.block_on(async {
            tokio::select! {
                () = writer::stop(endpoints, deadline) => {}
                // An error is no signal: nobody is left to give one.
                Ok(()) = hurried => tracing::info!("a second signal: stopping at once"),
            }
        });
        for (id, leaving) in std::mem::take(&mut self.leaving) {
            self.leaving.insert(id.clone(), leaving);
            self.until_left(&id);
        }
        for (id, writer) in &self.writers {
            close(id, writer);
        }
        self.shards.join()?;
        Ok(())
    }
}

/// Scraping takes less than receiving: what is known of a target saves most of the work.
fn scrape_threads(threads: usize) -> usize {
    (threads / 2).max(1)
}

/// Closes a log and tells what its endpoints do not have.
fn close(id: &str, writer: &Writer) {
    for endpoint in writer.positions() {
        let (endpoint, bytes) = (endpoint.name().to_owned(), endpoint.lag_bytes());
        tracing::info!(
            component = id,
            endpoint,
            bytes_left_on_disk = bytes,
            "stopped shipping"
        );
    }
    writer.store.close();
}

/// Whether a stage does what is asked for.
fn is_same_stage(made_of: &Body, body: &Body) -> bool {
    // Whom it feeds is not its own matter.
    let arguments = |body: &Body| {
        let own = body
            .attributes
            .iter()
            .filter(|one| one.name != "forward_to");
        own.map(|one| one.given.clone()).collect::<Vec<_>>()
    };
    made_of.blocks == body.blocks && arguments(made_of) == arguments(body)
}

fn stage(id: &str, relabel: &Relabel, predecessor: Option<Arc<Stage>>) -> Arc<Stage> {
    let (rules, entries_max, ttl) = (relabel.rules.clone(), relabel.entries_max, relabel.ttl);
    Arc::new(match predecessor {
        Some(predecessor) => predecessor.with_rules(rules, entries_max, ttl),
        None => Stage::new(id, rules, entries_max, ttl),
    })
}

fn receiver_options(
    id: &str,
    component: &ReceiveHttp,
    paths: Vec<ingest::Path>,
) -> ReceiverOptions {
    ReceiverOptions {
        messages: component.messages.clone(),
        connections_max: component.conn_limit,
        read_timeout: component.read_timeout,
        write_timeout: component.write_timeout,
        idle_timeout: component.idle_timeout,
        paths,
        body_bytes_max: component.limits.body_bytes_max,
        in_flight_bytes_max: component.limits.in_flight_bytes_max,
        connection_in_flight_bytes_max: component.limits.connection_in_flight_bytes_max,
        series_max: component.limits.series_max,
        labels: component.limits.labels,
        tenants: component.tenants.clone(),
        tls: component.tls.clone(),
        auth: component.auth.clone(),
        http2: component.http2,
        ..ReceiverOptions::new(id, component.address, Vec::new())
    }
}
