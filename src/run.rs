//! Turns a command line and signals into a running agent and its orderly end.
//!
//! Start: see `agent::Controller`. Stop, in the direction of the flow: tell the cluster, leave new connections to the
//! next process where there may be one (`overlap`), stop accepting, ship until the
//! deadline, commit and save positions, end.
//!
//! # Failure
//! Whatever keeps the agent from starting is one clear message and exit code 1. A log whose disk
//! fails ends the process: nothing more is acknowledged, and the next start recovers.
//!
//! # Threads
//! This thread waits for signals and answers at the agent's own address. `controller` has the graph and
//! starts and stops everything. Ingest shards are threads of their own; shipping has its own runtime;
//! every store has a keeper and, without io_uring, a committer thread.

use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::cluster::Ownership;
use anyhow::{Context, bail};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use wal::{IoEngine, SharedClock, SystemClock};

use crate::agent::{Controller, Event, Files, Ground, Loaded, Memory, View};
use crate::cluster::{self, Clustering};
use crate::component::Facts;
use crate::graph::{Host, Seen, Watcher};
use crate::overlap;
use crate::server::Server;
use crate::telemetry::logs;
use crate::telemetry::metrics::Sources;
use crate::web::{AgentInfo, Prefix, Web};

/// What waits to be done: reloads that wait for each other, and changes seen outside.
const EVENTS_MAX: usize = 64;

/// The arguments of `run`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Configuration file, or a directory whose *.alloy and *.penstock files make one configuration.
    #[arg(value_name = "CONFIG")]
    config: PathBuf,
    /// Where the logs are kept; each component has its own directory below.
    #[arg(
        long = "storage.path",
        value_name = "DIR",
        default_value = "data-penstock/"
    )]
    storage_path: PathBuf,
    /// The agent's own address: /metrics, /-/ready, /-/healthy.
    #[arg(
        long = "server.http.listen-addr",
        value_name = "ADDR",
        default_value = "127.0.0.1:12345"
    )]
    listen_addr: String,
    /// The address that means the agent itself: targets there are scraped without a socket.
    #[arg(
        long = "server.http.memory-addr",
        value_name = "ADDR",
        default_value = "alloy.internal:12345"
    )]
    memory_addr: String,
    /// Where the page and its API are at that address.
    #[arg(
        long = "server.http.ui-path-prefix",
        value_name = "PATH",
        default_value = "/",
        value_parser = Prefix::new
    )]
    ui_path_prefix: Prefix,
    /// Nobody gets a support bundle.
    #[arg(long = "server.http.disable-support-bundle")]
    disable_support_bundle: bool,
    /// How long a stop may go on shipping; what is left stays on disk for the next start.
    #[arg(
        long = "feature.component-shutdown-deadline",
        value_name = "DURATION",
        default_value = "10s",
        value_parser = parse_duration
    )]
    shutdown_deadline: Duration,
    /// Ingest threads; by default one per core, at most 128.
    #[arg(long = "ingest.threads", value_name = "N")]
    ingest_threads: Option<NonZeroUsize>,
    /// Listen beside the process before this one, which ends, and the one after it.
    #[arg(long = "server.listen.reuse-port", conflicts_with = "cluster.enabled")]
    reuse_port: bool,
    /// How long to wait for the logs of the process before this one; 0: not at all.
    #[arg(
        long = "storage.lock-timeout",
        value_name = "DURATION",
        default_value = "0s",
        value_parser = parse_duration
    )]
    lock_timeout: Duration,
    /// How files are written: auto, io_uring or portable.
    #[arg(
        long = "storage.io-engine",
        value_name = "ENGINE",
        default_value = "auto"
    )]
    io_engine: String,
    #[command(flatten)]
    flags: Box<crate::run_flags::RunFlags>,
}

impl Options {
    /// Every flag and its value.
    fn in_force(&self, threads: usize) -> Vec<(&'static str, String)> {
        let deadline = self.shutdown_deadline.as_secs_f64();
        vec![
            (
                "feature.component-shutdown-deadline",
                format!("{deadline}s"),
            ),
            ("ingest.threads", threads.to_string()),
            (
                "server.http.disable-support-bundle",
                self.disable_support_bundle.to_string(),
            ),
            ("server.http.listen-addr", self.listen_addr.clone()),
            ("server.http.memory-addr", self.memory_addr.clone()),
            (
                "server.http.ui-path-prefix",
                self.ui_path_prefix.as_str().to_owned(),
            ),
            ("config.format", format!("{:?}", self.flags.config_format)),
            ("stability.level", format!("{:?}", self.flags.stability)),
            ("server.listen.reuse-port", self.reuse_port.to_string()),
            ("storage.io-engine", self.io_engine.clone()),
            (
                "storage.lock-timeout",
                format!("{}s", self.lock_timeout.as_secs_f64()),
            ),
            ("storage.path", self.storage_path.display().to_string()),
        ]
    }
}

/// A duration of the configuration language, such as `1m30s`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    use config::FromValue;
    Duration::from_value(&config::Value::from(text)).map_err(|error| error.to_string())
}

/// Runs the agent until a signal ends it.
///
/// # Errors
/// Why it could not start, or that a log failed while it ran.
pub(crate) fn run(options: Options) -> anyhow::Result<()> {
    let control = Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start a runtime")?;
    control.block_on(async {
        // Signals first: one that comes while logs recover must not kill.
        let mut signals = Signals::new()?;
        let (events, events_rx) = mpsc::channel(EVENTS_MAX);
        let (failed, mut failures) = mpsc::channel(1);
        let deadline = options.shutdown_deadline;
        let (ended, mut end) = oneshot::channel();
        let (runtime, told) = (Handle::current(), events.clone());
        let is_stopping = Arc::new(AtomicBool::new(false));
        let stopping = is_stopping.clone();
        let run = move || {
            // Fails when nobody waits any more.
            drop(ended.send(control_thread(
                &options,
                (told, events_rx),
                (failed, stopping),
                &runtime,
            )));
        };
        std::thread::Builder::new()
            .name("controller".to_owned())
            .spawn(run)
            .context("start a thread")?;
        let reason = loop {
            tokio::select! {
                told = signals.next() => match told {
                    Told::Stop => break Reason::Signal,
                    // Full: one that waits reads what this one would.
                    Told::Reload => drop(events.try_send(Event::Reload(None))),
                },
                Some(why) = failures.recv() => break Reason::LogFailed(why),
                ended = &mut end => return ended.context("the controller panicked")?,
            }
        };
        let deadline = match reason {
            Reason::Signal => deadline,
            Reason::LogFailed(_) => Duration::ZERO,
        };
        is_stopping.store(true, Ordering::Relaxed);
        tracing::info!(?reason, deadline_seconds = deadline.as_secs(), "stopping");
        let (hurry, hurried) = oneshot::channel();
        // Fails when it has ended.
        drop(events.send(Event::Stop { deadline, hurried }).await);
        let mut hurry = Some(hurry);
        loop {
            tokio::select! {
                ended = &mut end => {
                    ended.context("the controller panicked")??;
                    break;
                }
                told = signals.next() => {
                    if let (Told::Stop, Some(hurry)) = (told, hurry.take()) {
                        // Fails when nothing waits for it any more.
                        hurry.send(()).ok();
                    }
                }
            }
        }
        match reason {
            Reason::Signal => Ok(()),
            Reason::LogFailed(why) => bail!("a log has failed: {why}"),
        }
    })
}

/// Everything but signals and requests, until it is told to stop.
fn control_thread(
    options: &Options,
    (told, mut events): (mpsc::Sender<Event>, mpsc::Receiver<Event>),
    (failed, is_stopping): (mpsc::Sender<String>, Arc<AtomicBool>),
    runtime: &Handle,
) -> anyhow::Result<()> {
    let (seen, mut seen_rx) = mpsc::channel(EVENTS_MAX);
    let loaded = load(options, seen, runtime)?;
    let capture = logs::start(loaded.logging())?;
    let capture = (!options.disable_support_bundle).then_some(capture);
    options.flags.check()?;
    let clock = SystemClock::shared();
    let engine = choose_engine(&options.io_engine)?;
    let address = own_address(&options.listen_addr)?;
    let (inherited, shared) = sockets(options.reuse_port, address, &loaded)?;
    let http = loaded.http();
    let server = runtime.block_on(Server::listen(address, &inherited, &http, &clock))?;
    let threads = options
        .ingest_threads
        .map_or_else(|| cores().min(INGEST_THREADS_MAX), NonZeroUsize::get);
    let nothing = nothing(engine, &clock, &server);
    let about = about(options, clock.unix_ms(), threads);
    let clustering = clustering(options, &about, &server, (&clock, runtime))?;
    let view = Arc::new(View::new(about, clustering.clone(), told, nothing));
    let web = Arc::new(Web::new(
        view.clone(),
        options.ui_path_prefix.clone(),
        capture,
    ));
    let serve = || runtime.spawn(own_address_served(server.clone(), web.clone()));
    // The process before this one answers as long as it is there.
    let serving = (!options.reuse_port).then(serve);
    let shipping = shipping_runtime()?;
    let ground = Ground {
        storage: options.storage_path.clone(),
        clock,
        engine,
        threads,
        scrape_seed: ingest::pull::scrape_seed(&hostname()),
        inherited,
        shared,
        lock_timeout: options.lock_timeout,
        is_stopping,
        ownership: clustering
            .as_ref()
            .map_or_else(Ownership::off, |one| one.ownership().clone()),
        handover: clustering.as_ref().map(|one| one.handover().clone()),
        memory: Memory {
            address: options.memory_addr.clone(),
            answers: web.clone(),
        },
        shipping: shipping.handle().clone(),
        shutdown_deadline: options.shutdown_deadline,
        failed,
        server: server.stats(),
    };
    let controller = Controller::start(loaded, ground, view, server.clone())?;
    let serving = serving.unwrap_or_else(serve);
    if let Some(clustering) = &clustering {
        runtime.block_on(clustering.participate());
    }
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        io_engine = engine.as_str(),
        threads,
        address = options.listen_addr,
        "Penstock is running"
    );
    let ended = controller.run(&mut events, &mut seen_rx, runtime);
    if let Some(clustering) = &clustering {
        runtime.block_on(clustering.leave());
    }
    serving.abort();
    shipping.shutdown_background();
    ended
}

/// Where endpoints run.
fn shipping_runtime() -> anyhow::Result<Runtime> {
    Builder::new_multi_thread()
        .thread_name("ship")
        .worker_threads(cores())
        .enable_all()
        .build()
        .context("start the shipping runtime")
}

/// Joins the cluster, if there is to be one.
fn clustering(
    options: &Options,
    about: &AgentInfo,
    server: &Server,
    (clock, runtime): (&SharedClock, &Handle),
) -> anyhow::Result<Option<Clustering>> {
    let (own, flags) = (server.address(), &options.flags.cluster);
    let settings = cluster::Settings::of(flags, own, &about.hostname, about.started_ms)?;
    let storage = &options.storage_path;
    let Some(settings) = settings else {
        cluster::forget(storage);
        return Ok(None);
    };
    Clustering::start(settings, storage, clock, runtime).map(Some)
}

/// What has numbers before anything runs.
fn nothing(engine: IoEngine, clock: &SharedClock, server: &Server) -> Sources {
    Sources {
        engine,
        clock: clock.clone(),
        stores: Vec::new(),
        receivers: Vec::new(),
        scrapers: Vec::new(),
        relabels: Vec::new(),
        endpoints: Vec::new(),
        discoveries: Vec::new(),
        server: server.stats(),
    }
}

/// Reads the configuration and evaluates it.
fn load(options: &Options, seen: mpsc::Sender<Seen>, runtime: &Handle) -> anyhow::Result<Loaded> {
    let host = Host {
        facts: Facts {
            memory_address: options.memory_addr.clone(),
            hostname: hostname(),
        },
        stability: options.flags.stability,
        watcher: Watcher {
            runtime: runtime.clone(),
            seen,
            storage: options.storage_path.clone().into(),
        },
    };
    let files = Files {
        path: options.config.clone(),
        format: options.flags.config_format,
        bypass_errors: options.flags.bypass_conversion_errors,
        extra_args: options.flags.config_extra_args.clone(),
    };
    Loaded::new(files, host)
}

/// Why the agent stops.
#[derive(Debug)]
enum Reason {
    Signal,
    LogFailed(String),
}

/// The signals an agent listens to.
#[derive(Debug)]
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let handle = |kind| signal(kind).context("cannot handle signals");
        Ok(Self {
            terminate: handle(SignalKind::terminate())?,
            interrupt: handle(SignalKind::interrupt())?,
            reload: handle(SignalKind::hangup())?,
        })
    }

    /// Waits for what `next` says.
    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Stop,
            _ = self.interrupt.recv() => Told::Stop,
            _ = self.reload.recv() => Told::Reload,
        }
    }
}

/// What a signal means.
enum Told {
    Stop,
    Reload,
}

/// Sockets that whoever started this process handed over, as systemd does (`LISTEN_FDS`): they go on listening
/// while one process ends and the next starts, so that nobody is refused.
fn inherited() -> Vec<TcpListener> {
    let mut handed = listenfd::ListenFd::from_env();
    let mut all = Vec::new();
    for at in 0..handed.len() {
        match handed.take_tcp_listener(at) {
            Ok(Some(listener)) => {
                let address = listener.local_addr().map(|address| address.to_string());
                tracing::info!(
                    address = address.unwrap_or_default(),
                    "a socket was handed over"
                );
                all.push(listener);
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "what was handed over is no TCP socket that listens");
            }
        }
    }
    all
}

/// Sockets that listen already, and those of them that are to be given up in order: where nobody has handed one over,
/// the next process may listen too.
fn sockets(
    reuse_port: bool,
    own: SocketAddr,
    loaded: &Loaded,
) -> anyhow::Result<(Arc<[TcpListener]>, Vec<TcpListener>)> {
    let mut inherited = inherited();
    if !reuse_port {
        return Ok((inherited.into(), Vec::new()));
    }
    let handed: Vec<_> = inherited
        .iter()
        .filter_map(|one| one.local_addr().ok())
        .collect();
    let mut addresses = loaded.addresses();
    addresses.push(own);
    addresses.retain(|address| !handed.contains(address));
    let shared = overlap::listen(&addresses)?;
    for socket in &shared {
        inherited.push(socket.try_clone().context("share a socket")?);
    }
    Ok((inherited.into(), shared))
}

/// Unless more are asked for: with half as many that scrape, each has a writer at every log.
const INGEST_THREADS_MAX: usize = ::wal::WRITERS_MAX / 2;

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

fn hostname() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}

fn choose_engine(setting: &str) -> anyhow::Result<IoEngine> {
    match setting {
        "portable" => Ok(IoEngine::Portable),
        "auto" | "io_uring" => {
            let (engine, why_not) = IoEngine::probe();
            match why_not {
                Some(why) if setting == "io_uring" => bail!("{why} (--storage.io-engine)"),
                Some(why) => tracing::info!(reason = why, "writing files with plain calls"),
                None => {}
            }
            Ok(engine)
        }
        other => bail!("--storage.io-engine must be auto, io_uring or portable, not {other:?}"),
    }
}

/// What the page says about this process.
fn about(options: &Options, started_ms: i64, threads: usize) -> AgentInfo {
    AgentInfo {
        hostname: hostname(),
        started_ms,
        threads,
        storage_path: options.storage_path.display().to_string(),
        flags: options.in_force(threads),
        ..AgentInfo::default()
    }
}

async fn own_address_served(server: Server, web: Arc<Web>) {
    tokio::select! {
        () = server.serve(Arc::clone(&web)) => {}
        () = web.measure() => {}
    }
}

fn own_address(text: &str) -> anyhow::Result<SocketAddr> {
    use std::net::ToSocketAddrs;
    let wrong = || format!("--server.http.listen-addr {text:?} is not an address");
    text.to_socket_addrs()
        .with_context(wrong)?
        .next()
        .with_context(wrong)
}
