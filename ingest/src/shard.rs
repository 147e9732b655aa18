//! Turns addresses and stores into running shard threads, and back into stopped ones.
//!
//! A shard thread owns its sockets, buffers, writers and predictions of connections; it shares
//! with the others the series tables, one permit counter per limit, and the log.
//!
//! # Invariants
//! - When [`Shards::start`] returns, every address is listened on; nothing fails later that could
//!   have failed then.
//! - The committers run until the stores are closed, so requests in flight when accepting stops
//!   can still become durable. Hence the order: [`Shards::stop_accepting`], `Store::close`,
//!   [`Shards::join`].
//!
//! # Failure
//! - Accepting fails (too many open files): counted, tried again after [`ACCEPT_PAUSE`].
//!
//! # Limits
//! - Connections per receiver, over all shards; beyond it a connection is closed at once.
//!
//! # Threads
//! - `ingest-N`, one per shard. Under `IoEngine::Uring` the committer of store `i` is a task on
//!   shard `i mod threads`, under `IoEngine::Portable` a thread of its own.
//! - What crosses: one watch channel that says stop, one channel whose closing says drained, and
//!   connections that another shard accepted (`spread`).

use std::cell::RefCell;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use wal::{Committer, Durable, IoEngine, SharedClock, Store};

use crate::Error;
use crate::admit::{Flight, Gate};
use crate::append::Appender;
use crate::http::{Receiver, Worker};
use crate::listen::listen;
use crate::options::{CONNECTIONS_MAX_DEFAULT, ReceiverOptions, ShardsOptions};
use crate::paths::STAGES_MAX;
use crate::protocol::serve;
use crate::secure::{Guard, Tls};
use crate::spread::{Inbox, Place, Spread};
use crate::stats::ReceiverStats;
use crate::tenants::Tenants;

/// How long a shard waits after it could not accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Running shard threads.
#[derive(Debug)]
pub struct Shards {
    threads: Vec<JoinHandle<()>>,
    committers: Vec<JoinHandle<()>>,
    addresses: Vec<SocketAddr>,
    stats: Vec<Arc<ReceiverStats>>,
    stop: watch::Sender<bool>,
    /// Nothing is ever sent; every shard drops its end when its connections are gone.
    drained: Mutex<mpsc::Receiver<()>>,
}

/// What the shards share of one receiver.
#[derive(Clone)]
struct Front {
    options: Arc<ReceiverOptions>,
    stats: Arc<ReceiverStats>,
    tls: Option<Arc<Tls>>,
    guard: Option<Arc<Guard>>,
    spread: Spread,
}

/// What one shard thread is made of.
struct Shard {
    number: usize,
    engine: IoEngine,
    clock: SharedClock,
    grace: Duration,
    receivers: Vec<(Front, TcpListener, Inbox)>,
    appender: Appender,
    durables: Vec<Durable>,
    committers: Vec<Committer>,
    stop: watch::Receiver<bool>,
    drained: mpsc::SyncSender<()>,
}

impl Shards {
    /// Listens on every receiver's address and starts the threads.
    ///
    /// # Errors
    ///
    /// An address is taken or not ours, a store has no more writers, a thread could not be
    /// started, or a setting names a store that is not there.
    pub fn start(
        options: &ShardsOptions,
        receivers: Vec<ReceiverOptions>,
        stores: &[Store],
    ) -> Result<Self, Error> {
        check(options, &receivers, stores)?;
        let (stop, stopped) = watch::channel(false);
        let (drained, all_drained) = mpsc::sync_channel(0);
        let mut shards = Vec::with_capacity(options.threads);
        for number in 0..options.threads {
            shards.push(Shard {
                number,
                engine: options.engine,
                clock: options.clock.clone(),
                grace: options.shutdown_grace,
                receivers: Vec::new(),
                appender: Appender::new(stores, &receivers)?,
                durables: stores.iter().map(Store::durable).collect(),
                committers: Vec::new(),
                stop: stopped.clone(),
                drained: drained.clone(),
            });
        }
        drop(drained);
        let (mut addresses, mut stats) = (Vec::new(), Vec::new());
        for receiver in receivers {
            let (address, counted) = share_out(receiver, &mut shards)?;
            addresses.push(address);
            stats.push(counted);
        }
        let committers = start_committers(options.engine, stores, &mut shards)?;
        let threads = shards
            .into_iter()
            .map(start_thread)
            .collect::<Result<_, _>>()?;
        let drained = Mutex::new(all_drained);
        Ok(Self {
            threads,
            committers,
            addresses,
            stats,
            stop,
            drained,
        })
    }

    /// The addresses with their real ports, one per receiver.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The numbers of the receivers, one per receiver.
    #[must_use]
    pub fn stats(&self) -> &[Arc<ReceiverStats>] {
        &self.stats
    }

    /// Stops accepting, lets requests in flight finish up to the grace, closes the connections.
    /// Returns when all are gone. The stores must still be open.
    pub fn stop_accepting(&self) {
        self.stop.send_replace(true);
        // Fails when every shard has dropped its end, which is what we wait for.
        while self.drained.lock().recv().is_ok() {}
    }

    /// Waits for the threads to end. They do once the stores are closed.
    ///
    /// # Errors
    ///
    /// A thread panicked.
    pub fn join(self) -> Result<(), Error> {
        self.stop_accepting();
        let mut panicked = None;
        for thread in self.threads.into_iter().chain(self.committers) {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            if thread.join().is_err() {
                panicked = Some(name);
            }
        }
        panicked.map_or(Ok(()), |thread| Err(Error::Panicked { thread }))
    }
}

fn check(
    options: &ShardsOptions,
    receivers: &[ReceiverOptions],
    stores: &[Store],
) -> Result<(), Error> {
    if options.threads == 0 {
        return Err(Error::Options(
            "at least one ingest thread is needed".into(),
        ));
    }
    for receiver in receivers {
        let paths = || receiver.paths.iter();
        if paths().any(|path| path.store >= stores.len()) {
            let text = format!("{} forwards to a store that does not exist", receiver.name);
            return Err(Error::Options(text));
        }
        if paths().any(|path| path.stages.len() > STAGES_MAX) {
            let text = format!("{} forwards through too many components", receiver.name);
            return Err(Error::Options(text));
        }
    }
    Ok(())
}

/// Listens on a receiver's address and gives each shard its socket.
fn share_out(
    receiver: ReceiverOptions,
    shards: &mut [Shard],
) -> Result<(SocketAddr, Arc<ReceiverStats>), Error> {
    let clock = shards.first().map(|shard| shard.clock.clone());
    let (listeners, address) = listen(&receiver.name, receiver.address, shards.len())?;
    let connections = match receiver.connections_max {
        0 => CONNECTIONS_MAX_DEFAULT,
        given => given,
    };
    let connections = Gate::new(u64::try_from(connections).unwrap_or(u64::MAX));
    let bytes = Flight::new(
        receiver.in_flight_bytes_max,
        receiver.connection_in_flight_bytes_max,
    );
    let mut stats = ReceiverStats::new(receiver.name.clone(), shards.len(), bytes, connections);
    if let Some(tenants) = &receiver.tenants {
        let tenants = Tenants::new(tenants.clone(), receiver.paths.len());
        let problem = |why| Error::Options(format!("tenants of {}: {why}", receiver.name));
        stats.tenants = Some(Box::new(tenants.map_err(problem)?));
    }
    let stats = Arc::new(stats);
    let (spread, inboxes) = Spread::new(&stats);
    let front = Front {
        tls: clock.map_or(Ok(None), |clock| tls(&receiver, &stats, clock))?,
        guard: guard(&receiver)?,
        options: Arc::new(receiver),
        stats: stats.clone(),
        spread,
    };
    for ((shard, listener), inbox) in shards.iter_mut().zip(listeners).zip(inboxes) {
        shard.receivers.push((front.clone(), listener, inbox));
    }
    Ok((address, stats))
}

fn tls(
    receiver: &ReceiverOptions,
    stats: &ReceiverStats,
    clock: SharedClock,
) -> Result<Option<Arc<Tls>>, Error> {
    let Some(options) = receiver.tls.clone() else {
        return Ok(None);
    };
    let (name, http2) = (receiver.name.clone(), receiver.http2.is_some());
    match Tls::new(name, options, clock, http2, stats.secure.clone()) {
        Ok(tls) => Ok(Some(Arc::new(tls))),
        Err(invalid) => Err(Error::Secure {
            receiver: receiver.name.clone(),
            problem: invalid.to_string(),
        }),
    }
}

fn guard(receiver: &ReceiverOptions) -> Result<Option<Arc<Guard>>, Error> {
    let guard = receiver.auth.as_ref().map(Guard::new).transpose();
    guard
        .map(|guard| guard.map(Arc::new))
        .map_err(|problem| Error::Secure {
            receiver: receiver.name.clone(),
            problem: format!("auth {problem}"),
        })
}

/// Hands the committers to the shards, or gives them threads.
fn start_committers(
    engine: IoEngine,
    stores: &[Store],
    shards: &mut [Shard],
) -> Result<Vec<JoinHandle<()>>, Error> {
    let mut threads = Vec::new();
    let count = shards.len();
    for (at, store) in stores.iter().enumerate() {
        // Somebody else may run it already, a test or a tool.
        let Some(committer) = store.committer() else {
            continue;
        };
        if engine == IoEngine::Uring {
            shards[at % count].committers.push(committer);
            continue;
        }
        let thread = format!("committer {at}");
        threads.push(
            committer
                .spawn_thread()
                .map_err(|source| Error::Thread { thread, source })?,
        );
    }
    Ok(threads)
}

/// Starts a shard's thread and waits until its runtime is there.
fn start_thread(shard: Shard) -> Result<JoinHandle<()>, Error> {
    let thread = format!("ingest-{}", shard.number);
    let failed = |source| Error::Thread {
        thread: thread.clone(),
        source,
    };
    match shard.engine {
        IoEngine::Uring => std::thread::Builder::new()
            .name(thread.clone())
            .spawn(move || tokio_uring::start(run(shard)))
            .map_err(failed),
        IoEngine::Portable => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(failed)?;
            std::thread::Builder::new()
                .name(thread.clone())
                .spawn(move || tokio::task::LocalSet::new().block_on(&runtime, run(shard)))
                .map_err(failed)
        }
    }
}

/// The life of a shard thread.
async fn run(shard: Shard) {
    let mut committers = JoinSet::new();
    for committer in shard.committers {
        committers.spawn_local(committer.run_uring());
    }
    let worker = Rc::new(Worker {
        shard: shard.number,
        clock: shard.clock,
        appender: RefCell::new(shard.appender),
        durables: shard.durables,
        buffers: RefCell::default(),
    });
    let mut receivers = JoinSet::new();
    for (number, (front, listener, inbox)) in shard.receivers.into_iter().enumerate() {
        let receiver = Rc::new(Receiver {
            number,
            options: front.options,
            stats: front.stats,
            worker: worker.clone(),
            tls: front.tls,
            guard: front.guard,
        });
        let arriving = (listener, inbox, front.spread);
        receivers.spawn_local(receive(receiver, arriving, shard.stop.clone(), shard.grace));
    }
    while receivers.join_next().await.is_some() {}
    // Gives the writers back, so that nothing of this thread holds up the log.
    drop(worker);
    drop(shard.drained);
    while committers.join_next().await.is_some() {}
}

/// Accepts connections until told to stop, then lets them finish.
async fn receive(
    receiver: Rc<Receiver>,
    (listener, mut inbox, spread): (TcpListener, Inbox, Spread),
    mut stop: watch::Receiver<bool>,
    grace: Duration,
) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(receiver = receiver.stats.name(), %error, "cannot listen");
            return;
        }
    };
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    if let Some(kept) = spread.keep(receiver.worker.shard, stream) {
                        connections.spawn_local(admit(kept, receiver.clone(), stop.clone()));
                    }
                }
                Err(error) => {
                    receiver.counters().accept_failed();
                    tracing::warn!(receiver = receiver.stats.name(), %error, "cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some((stream, place)) = inbox.recv() => match TcpStream::from_std(stream) {
                Ok(stream) => {
                    let handed_over = (stream, place);
                    connections.spawn_local(admit(handed_over, receiver.clone(), stop.clone()));
                }
                Err(error) => {
                    receiver.counters().accept_failed();
                    tracing::warn!(receiver = receiver.stats.name(), %error, "cannot take over");
                }
            },
            Some(_) = connections.join_next() => {}
            // An error means that nobody is left to say stop; that is a stop too.
            _ = async { stop.wait_for(|stop| *stop).await.is_ok() } => break,
        }
    }
    drop(listener);
    let finished = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(grace, finished).await.is_err() {
        let open = connections.len();
        tracing::warn!(
            receiver = receiver.stats.name(),
            open,
            "closing busy connections"
        );
        connections.shutdown().await;
    }
}

/// Serves a connection if there may be one more, else closes it.
async fn admit(
    (stream, _place): (TcpStream, Place),
    receiver: Rc<Receiver>,
    stop: watch::Receiver<bool>,
) {
    let stats = receiver.stats.clone();
    let Some(_permit) = stats.connections.enter() else {
        receiver.counters().connection_refused();
        return;
    };
    receiver.counters().connection_accepted();
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(receiver = stats.name(), %error, "cannot set nodelay");
    }
    serve(stream, receiver, stop).await;
}
