//! Turns a configuration into a running agent, and a signal into its orderly end.
//!
//! Start: read, log, own address, stores, receivers, endpoints, ready. Stop, in the direction of the
//! flow: stop accepting, ship until the deadline, commit and save positions, end.
//!
//! # Failure
//! Whatever keeps the agent from starting is one clear message and exit code 1. A log whose disk
//! fails ends the process: nothing more is acknowledged, and the next start recovers.
//!
//! # Threads
//! This thread runs the control plane. Ingest shards are threads of their own; shipping has its own
//! runtime; every store has a keeper and, without io_uring, a committer thread.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use ingest::{ReceiverOptions, Shards, ShardsOptions};
use shipper::EndpointHandle;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use wal::{IoEngine, SharedClock, Store, StoreOptions, SystemClock};

use crate::component::{self, Plan, RemoteWrite};
use crate::server::Server;
use crate::telemetry::capture::Capture;
use crate::telemetry::logs;
use crate::telemetry::metrics::{EndpointSource, ReceiverSource, Sources, StoreSource};
use crate::web::{AgentInfo, Outline, PlanModel, Prefix, Web};

/// How long requests in flight may take once the agent stops.
const ACCEPTED_GRACE: Duration = Duration::from_secs(5);

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
    /// Ingest threads; by default one per core.
    #[arg(long = "ingest.threads", value_name = "N")]
    ingest_threads: Option<NonZeroUsize>,
    /// How files are written: auto, io_uring or portable.
    #[arg(
        long = "storage.io-engine",
        value_name = "ENGINE",
        default_value = "auto"
    )]
    io_engine: String,
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
            (
                "server.http.ui-path-prefix",
                self.ui_path_prefix.as_str().to_owned(),
            ),
            ("storage.io-engine", self.io_engine.clone()),
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
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let plan = load(&options.config)?;
    let capture = logs::start(plan.logging)?;
    let capture = (!options.disable_support_bundle).then_some(capture);
    let control = Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start a runtime")?;
    control.block_on(async {
        // Signals first: one that comes while logs recover must not kill.
        let mut signals = Signals::new()?;
        let agent = Agent::start(options, plan, capture).await?;
        let reason = agent.wait(&mut signals).await;
        agent
            .stop(options.shutdown_deadline, reason, &mut signals)
            .await
    })
}

/// Reads the configuration.
fn load(path: &Path) -> anyhow::Result<Plan> {
    let mut files = Vec::new();
    for path in config_files(path)? {
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        files.push(config::parse(&path.to_string_lossy(), &text)?);
    }
    Ok(component::plan(&files)?)
}

/// The file itself, or the files of a directory in the order of their names.
fn config_files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let unreadable = || format!("cannot read {}", path.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).with_context(unreadable)? {
        let file = entry.with_context(unreadable)?.path();
        if file
            .extension()
            .is_some_and(|e| e == "alloy" || e == "penstock")
        {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() {
        bail!("{} holds no *.alloy or *.penstock file", path.display());
    }
    Ok(files)
}

/// Why the agent stops.
#[derive(Debug)]
enum Reason {
    Signal,
    LogFailed(String),
}

/// The signals that end an agent.
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

    /// Waits for SIGTERM or SIGINT.
    async fn stop(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.reload.recv() => {
                    tracing::warn!("SIGHUP is reserved for reload, which needs a restart so far");
                }
            }
        }
    }
}

/// Everything that runs.
#[derive(Debug)]
struct Agent {
    shards: Shards,
    stores: Vec<Store>,
    endpoints: Vec<EndpointHandle>,
    shipping: Runtime,
    server: tokio::task::JoinHandle<()>,
    /// Where every endpoint stands.
    positions: Vec<wal::Endpoint>,
}

impl Agent {
    async fn start(
        options: &Options,
        plan: Plan,
        capture: Option<Capture>,
    ) -> anyhow::Result<Self> {
        let clock = SystemClock::shared();
        let engine = choose_engine(&options.io_engine)?;
        let address = own_address(&options.listen_addr)?;
        let server = Server::listen(address, &plan.http, &clock).await?;
        let outline = Outline::of(&plan);
        let stores = open_stores(options, &plan.writers, &clock)?;
        let threads = options.ingest_threads.map_or_else(cores, NonZeroUsize::get);
        let settings = ShardsOptions {
            threads,
            engine,
            shutdown_grace: ACCEPTED_GRACE,
            clock: clock.clone(),
        };
        name_endpoints(&plan.writers, &stores)?;
        let receivers = plan.receivers.iter().map(receiver_options).collect();
        let shards = Shards::start(&settings, receivers, &stores)?;
        let shipping = Builder::new_multi_thread()
            .thread_name("ship")
            .worker_threads(cores())
            .enable_all()
            .build()
            .context("start the shipping runtime")?;
        let mut sources = Sources {
            engine,
            clock: clock.clone(),
            stores: Vec::new(),
            relabels: plan.relabels.iter().map(|one| one.stage.clone()).collect(),
            receivers: receiver_sources(&plan, &shards),
            endpoints: Vec::new(),
            server: server.stats(),
        };
        let mut endpoints = Vec::new();
        for (writer, store) in plan.writers.into_iter().zip(&stores) {
            sources.stores.push(StoreSource {
                id: writer.id.clone(),
                store: store.clone(),
            });
            start_endpoints(
                writer,
                store,
                (&clock, &shipping),
                &mut endpoints,
                &mut sources,
            )?;
        }
        let positions = sources
            .endpoints
            .iter()
            .map(|e| e.position.clone())
            .collect();
        let web = told(options, outline, sources, threads, capture);
        let server = tokio::spawn(own_address_served(server, Arc::clone(&web)));
        web.set_ready();
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            io_engine = engine.as_str(),
            threads,
            address = options.listen_addr,
            "Penstock is running"
        );
        Ok(Self {
            shards,
            stores,
            endpoints,
            shipping,
            server,
            positions,
        })
    }

    /// Until a signal comes or a log fails.
    async fn wait(&self, signals: &mut Signals) -> Reason {
        let mut failures = tokio::task::JoinSet::new();
        for store in &self.stores {
            let mut durable = store.durable();
            failures.spawn(async move { durable.ended().await });
        }
        tokio::select! {
            () = signals.stop() => Reason::Signal,
            Some(ended) = failures.join_next() => match ended {
                Ok(error) => Reason::LogFailed(error.to_string()),
                Err(error) => Reason::LogFailed(error.to_string()),
            },
        }
    }

    /// Ends in the direction of the flow.
    async fn stop(
        self,
        deadline: Duration,
        reason: Reason,
        signals: &mut Signals,
    ) -> anyhow::Result<()> {
        tracing::info!(?reason, deadline_seconds = deadline.as_secs(), "stopping");
        let Self {
            shards,
            stores,
            endpoints,
            shipping,
            server,
            positions,
        } = self;
        let shards = tokio::task::spawn_blocking(move || {
            shards.stop_accepting();
            shards
        })
        .await?;
        let deadline = match reason {
            Reason::Signal => deadline,
            Reason::LogFailed(_) => Duration::ZERO,
        };
        let shipped = stop_endpoints(endpoints, deadline);
        tokio::select! {
            () = shipped => {}
            () = signals.stop() => tracing::info!("a second signal: stopping at once"),
        }
        for endpoint in positions {
            let (endpoint, bytes) = (endpoint.name(), endpoint.lag_bytes());
            tracing::info!(endpoint, bytes_left_on_disk = bytes, "stopped shipping");
        }
        tokio::task::spawn_blocking(move || {
            for store in &stores {
                store.close();
            }
            shards.join()
        })
        .await??;
        server.abort();
        shipping.shutdown_background();
        match reason {
            Reason::Signal => Ok(()),
            Reason::LogFailed(why) => bail!("a log has failed: {why}"),
        }
    }
}

/// Stops all endpoints side by side.
async fn stop_endpoints(endpoints: Vec<EndpointHandle>, deadline: Duration) {
    let mut stopping = tokio::task::JoinSet::new();
    for endpoint in endpoints {
        stopping.spawn(endpoint.stop(deadline));
    }
    while let Some(stopped) = stopping.join_next().await {
        if let Err(error) = stopped {
            tracing::error!(%error, "an endpoint did not stop in order");
        }
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
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

/// What the own address tells.
fn told(
    options: &Options,
    outline: Outline,
    sources: Sources,
    threads: usize,
    capture: Option<Capture>,
) -> Arc<Web> {
    let about = about(options, &outline, sources.clock.unix_ms(), threads);
    let model = PlanModel::new(outline, sources, about);
    let prefix = options.ui_path_prefix.clone();
    Arc::new(Web::new(Arc::new(model), prefix, capture))
}

/// What the page says about this process.
fn about(options: &Options, outline: &Outline, started_ms: i64, threads: usize) -> AgentInfo {
    let hostname = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    AgentInfo {
        hostname,
        started_ms,
        threads,
        storage_path: options.storage_path.display().to_string(),
        config: outline.config(&options.config, started_ms),
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

fn open_stores(
    options: &Options,
    writers: &[RemoteWrite],
    clock: &SharedClock,
) -> anyhow::Result<Vec<Store>> {
    let mut stores = Vec::new();
    for writer in writers {
        let settings = StoreOptions {
            max_disk_bytes: writer.wal.max_disk_bytes,
            on_full: writer.wal.on_full,
            retain: writer.wal.retain,
            series_idle_timeout: writer.wal.series_idle_timeout,
            recovery: writer.wal.recovery,
            clock: clock.clone(),
            ..StoreOptions::default()
        };
        let dir = options.storage_path.join(&writer.id);
        let store = Store::open(&dir, settings).with_context(|| {
            format!(
                "cannot use --storage.path {}",
                options.storage_path.display()
            )
        })?;
        stores.push(store);
    }
    Ok(stores)
}

/// Gives every endpoint a place to start from before any data is taken.
fn name_endpoints(writers: &[RemoteWrite], stores: &[Store]) -> anyhow::Result<()> {
    for (writer, store) in writers.iter().zip(stores) {
        for (endpoint, limits) in writer.endpoints.iter().zip(&writer.limits) {
            store.endpoint(&endpoint.name)?.set_limits(*limits);
        }
        store.endpoints_complete();
    }
    Ok(())
}

fn receiver_options(component: &component::ReceiveHttp) -> ReceiverOptions {
    ReceiverOptions {
        messages: component.messages.clone(),
        connections_max: component.conn_limit,
        read_timeout: component.read_timeout,
        write_timeout: component.write_timeout,
        idle_timeout: component.idle_timeout,
        paths: component.paths.clone(),
        body_bytes_max: component.limits.body_bytes_max,
        in_flight_bytes_max: component.limits.in_flight_bytes_max,
        connection_in_flight_bytes_max: component.limits.connection_in_flight_bytes_max,
        series_max: component.limits.series_max,
        labels: component.limits.labels,
        tenants: component.tenants.clone(),
        tls: component.tls.clone(),
        auth: component.auth.clone(),
        http2: component.http2,
        ..ReceiverOptions::new(&component.id, component.address, Vec::new())
    }
}

fn receiver_sources(plan: &Plan, shards: &Shards) -> Vec<ReceiverSource> {
    let sources = plan
        .receivers
        .iter()
        .zip(shards.stats())
        .zip(shards.addresses());
    sources
        .map(|((component, stats), address)| {
            tracing::info!(component = component.id, %address, "receiving");
            let connections_max = match component.conn_limit {
                0 => ingest::CONNECTIONS_MAX_DEFAULT,
                limit => limit,
            };
            ReceiverSource {
                id: component.id.clone(),
                connections_max,
                stats: stats.clone(),
            }
        })
        .collect()
}

fn start_endpoints(
    writer: RemoteWrite,
    store: &Store,
    (clock, shipping): (&SharedClock, &Runtime),
    endpoints: &mut Vec<EndpointHandle>,
    sources: &mut Sources,
) -> anyhow::Result<()> {
    for endpoint in writer.endpoints {
        let position = store.endpoint(&endpoint.name)?;
        let queue = endpoint.queue.clone();
        let handle =
            shipper::Endpoint::start(store.clone(), endpoint, clock.clone(), shipping.handle())?;
        sources.endpoints.push(EndpointSource {
            id: writer.id.clone(),
            url: handle.url_redacted().to_owned(),
            queue,
            position,
            stats: handle.stats(),
        });
        endpoints.push(handle);
    }
    Ok(())
}
