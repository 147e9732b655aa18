//! Turns what the configuration says about receiving into resolved settings.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use wal::{IoEngine, SharedClock};

pub use crate::decode::labels::LabelLimits;
pub use crate::negotiate::Message;
use crate::paths::Stage;
use crate::secure::{AuthOptions, TlsOptions};
use crate::share::Sharing;
pub use crate::tenants::{TenantLimits, TenantsOptions};

/// Connections per receiver when the setting is 0: enough for a fleet, and bounded.
pub const CONNECTIONS_MAX_DEFAULT: usize = 16_384;

/// Bytes of a body unless it is said otherwise: what Prometheus takes.
pub const BODY_BYTES_MAX_DEFAULT: usize = 32 << 20;

/// Bytes in flight of a receiver unless it is said otherwise.
pub const IN_FLIGHT_BYTES_MAX_DEFAULT: u64 = 256 << 20;

/// Bytes in flight of a connection unless it is said otherwise: one request of the largest kind, as it came
/// and decompressed.
#[must_use]
pub const fn connection_in_flight_bytes(body_bytes_max: usize) -> u64 {
    body_bytes_max as u64 * 2
}

/// How the shard threads run.
#[derive(Clone, Debug)]
pub struct ShardsOptions {
    /// Number of shard threads, at least 1.
    pub threads: usize,
    /// Number of threads that scrape, at least 1.
    pub scrape_threads: usize,
    /// See [`scrape_seed`](crate::pull::scrape_seed).
    pub scrape_seed: u64,
    /// Sockets that listen already, handed over by whoever started this process: a receiver at the address of
    /// one listens there and nowhere else, and connections that wait in it are not lost.
    pub inherited: Arc<[TcpListener]>,
    /// How the stores' committers do their file I/O.
    pub engine: IoEngine,
    /// How long requests in flight may take to finish once accepting has stopped.
    pub shutdown_grace: Duration,
    /// Where time comes from.
    pub clock: SharedClock,
}

/// One way from a receiver to a writer.
#[derive(Clone, Debug)]
pub struct Path {
    /// Its place in [`Layout::stores`](crate::Layout::stores).
    pub store: usize,
    /// The relabel components on the way, in order; at most [`STAGES_MAX`](crate::STAGES_MAX).
    pub stages: Vec<Arc<Stage>>,
}

impl Path {
    /// Straight to this store.
    #[must_use]
    pub const fn plain(store: usize) -> Self {
        Self {
            store,
            stages: Vec::new(),
        }
    }
}

/// HTTP/2 on a receiver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Http2Options {
    /// Most requests of a connection at a time; what is more is refused by the protocol.
    pub max_concurrent_streams: u32,
    /// Most time between requests of a connection; none: as over HTTP/1.1.
    pub idle_timeout: Option<Duration>,
    /// After how long without a sign of life a peer is asked for one; none: it is not asked.
    pub read_idle_timeout: Option<Duration>,
    /// How long its answer may take.
    pub ping_timeout: Duration,
}

impl Default for Http2Options {
    fn default() -> Self {
        Self {
            max_concurrent_streams: 100,
            idle_timeout: None,
            read_idle_timeout: None,
            ping_timeout: Duration::from_secs(15),
        }
    }
}

/// One place where requests are received.
#[derive(Clone, Debug)]
pub struct ReceiverOptions {
    /// The component's name, for logs and metrics.
    pub name: String,
    /// Where to listen; port 0 lets the system choose.
    pub address: SocketAddr,
    /// Where requests go, in the order of `forward_to`. Empty: requests are checked, counted and
    /// dropped.
    pub paths: Vec<Path>,
    /// The messages that are accepted; others are answered 415.
    pub messages: Vec<Message>,
    /// Most connections at a time; 0 means [`CONNECTIONS_MAX_DEFAULT`].
    pub connections_max: usize,
    /// Most time for the head of a request from its first byte, and again for its body.
    pub read_timeout: Duration,
    /// Most time without progress while an answer is written.
    pub write_timeout: Duration,
    /// Most time between requests of a connection.
    pub idle_timeout: Duration,
    /// Most bytes of a body, compressed and decompressed alike.
    pub body_bytes_max: usize,
    /// Most bytes, compressed plus decompressed, of requests not yet answered.
    pub in_flight_bytes_max: u64,
    /// The same for the requests of one connection.
    pub connection_in_flight_bytes_max: u64,
    /// Most series in a request, 0 for any number.
    pub series_max: usize,
    /// What label sets may be.
    pub labels: LabelLimits,
    /// Limits per tenant; none: nobody asks who sends.
    pub tenants: Option<TenantsOptions>,
    /// How connections are encrypted; none: they are not.
    pub tls: Option<TlsOptions>,
    /// Who may send; none: everybody.
    pub auth: Option<AuthOptions>,
    /// HTTP/2 beside HTTP/1.1: by ALPN over TLS, by prior knowledge without.
    pub http2: Option<Http2Options>,
    /// Who owns which series, of agents that share them; none: all is stored here.
    pub sharing: Option<Sharing>,
}

impl ReceiverOptions {
    /// The defaults of `prometheus.receive_http`, with every message accepted, straight to `stores`:
    /// places in [`Layout::stores`](crate::Layout::stores).
    #[must_use]
    pub fn new(name: impl Into<String>, address: SocketAddr, stores: Vec<usize>) -> Self {
        Self {
            name: name.into(),
            address,
            paths: stores.into_iter().map(Path::plain).collect(),
            messages: Message::ALL.to_vec(),
            connections_max: 0,
            read_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(120),
            body_bytes_max: BODY_BYTES_MAX_DEFAULT,
            in_flight_bytes_max: IN_FLIGHT_BYTES_MAX_DEFAULT,
            connection_in_flight_bytes_max: connection_in_flight_bytes(BODY_BYTES_MAX_DEFAULT),
            series_max: 0,
            labels: LabelLimits::default(),
            tenants: None,
            tls: None,
            auth: None,
            http2: None,
            sharing: None,
        }
    }
}
