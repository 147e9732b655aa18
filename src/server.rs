//! Turns connections to the agent's own address into requests, and answers into bytes on them.
//!
//! HTTP/1.1 and HTTP/2, by ALPN where it is encrypted, by prior knowledge where it is not.
//!
//! | file | does |
//! |---|---|
//! | `secured` | the `http` block -> TLS and who may ask |
//! | `routes` | a request -> the answer to it; what is below the UI's prefix is in `web` |
//! | `body` | text, JSON, endless lines -> answers |
//! | `deadline` | a peer that takes nothing -> the end of what waits for it |
//!
//! # Invariants
//! - Where credentials are needed for a path, nothing of it is told without them, be it there or not.
//! - Who may ask is looked at for each request, as it is configured then. A connection from before a
//!   change ends soon after it.
//!
//! # Failure
//! - A change that cannot be used changes nothing.
//!
//! # Limits
//! [`CONNECTIONS_MAX`] connections with [`STREAMS_MAX`] requests each at a time. A handshake, and
//! then a head, must arrive within [`HEAD_TIMEOUT`]. An answer has to be taken, and the next request
//! to come, within [`ANSWER_TIMEOUT`] of it; of an endless answer something, whenever there is something:
//! a slow reader holds no memory for ever.

mod body;
mod deadline;
mod routes;
mod secured;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use hyper::Request;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use ingest::secure::SecureStats;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use wal::SharedClock;

use crate::component::HttpService;
use crate::web::Web;
pub(crate) use body::{Answer, Body, fresh, json, text, whole};
use deadline::{ANSWER_TIMEOUT, Deadline, Held};
use routes::Head;
use secured::Secured;

/// Scrapers and probes, browsers: a handful, with room for mistakes.
const CONNECTIONS_MAX: usize = 256;
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const STREAMS_MAX: u32 = 16;
const HEADERS_BYTES_MAX: u32 = 16 << 10;
/// What of endless answers waits in a connection.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// How long accepting rests after a failure such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The numbers of the agent's own server.
#[derive(Debug, Default)]
pub(crate) struct ServerStats {
    pub(crate) secure: Arc<SecureStats>,
    pub(crate) accepted: AtomicU64,
    /// Closed at once because of the limit.
    pub(crate) refused: AtomicU64,
    /// Closed because the peer was too slow.
    pub(crate) timed_out: AtomicU64,
    /// Requests without the credentials they need.
    pub(crate) unauthorized: AtomicU64,
}

/// A socket that was handed over.
fn take(inherited: &std::net::TcpListener) -> std::io::Result<TcpListener> {
    let socket = inherited.try_clone()?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket)
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The agent's own address, taken. Copies are the same server.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    /// Taken by whoever serves.
    listener: Arc<Mutex<Option<TcpListener>>>,
    is_closed: Arc<watch::Sender<bool>>,
    secured: Arc<watch::Sender<Arc<Secured>>>,
    clock: SharedClock,
    stats: Arc<ServerStats>,
}

/// What all connections share.
#[derive(Clone)]
struct Shared {
    secured: Arc<watch::Sender<Arc<Secured>>>,
    stats: Arc<ServerStats>,
    web: Arc<Web>,
}

impl Server {
    /// Takes the address: that of a socket that was handed over, or one of its own.
    ///
    /// # Errors
    /// The address is taken or not ours, or certificates cannot be used.
    pub(crate) async fn listen(
        address: SocketAddr,
        inherited: &[std::net::TcpListener],
        http: &HttpService,
        clock: &SharedClock,
    ) -> anyhow::Result<Self> {
        let stats = Arc::new(ServerStats::default());
        let secured = Secured::new(http, clock, &stats.secure)?;
        let is_there = |one: &&std::net::TcpListener| one.local_addr().ok() == Some(address);
        let listener = match inherited.iter().find(is_there) {
            Some(inherited) => take(inherited),
            None => TcpListener::bind(address).await,
        };
        let cannot = || format!("cannot listen on {address} (--server.http.listen-addr)");
        let listener = listener.with_context(cannot)?;
        Ok(Self {
            address: listener.local_addr().context("the own address")?,
            listener: Arc::new(Mutex::new(Some(listener))),
            is_closed: Arc::new(watch::Sender::new(false)),
            secured: Arc::new(watch::Sender::new(Arc::new(secured))),
            clock: Arc::clone(clock),
            stats,
        })
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts nothing more; connections go on.
    pub(crate) fn close(&self) {
        self.is_closed.send_replace(true);
    }

    /// Its numbers.
    pub(crate) fn stats(&self) -> Arc<ServerStats> {
        Arc::clone(&self.stats)
    }

    /// Encrypts and asks for credentials as `http` says from now on. Connections from before end within
    /// [`ANSWER_TIMEOUT`] if that is a change.
    ///
    /// # Errors
    /// It cannot be used; everything is as it was.
    pub(crate) fn reconfigure(&self, http: &HttpService) -> anyhow::Result<()> {
        if self.secured.borrow().http == *http {
            return Ok(());
        }
        let secured = Secured::new(http, &self.clock, &self.stats.secure)?;
        self.secured.send_replace(Arc::new(secured));
        Ok(())
    }

    /// Answers requests for as long as it is polled.
    pub(crate) async fn serve(self, web: Arc<Web>) {
        let Some(listener) = self.listener.lock().take() else {
            return;
        };
        let mut closed = self.is_closed.subscribe();
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let shared = Shared {
            secured: self.secured,
            stats: self.stats,
            web,
        };
        loop {
            let came = tokio::select! {
                biased;
                // An error means that nobody is left to say so.
                _ = async { closed.wait_for(|is_closed| *is_closed).await.is_ok() } => break,
                came = listener.accept() => came,
            };
            let stream = match came {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(permit) = connections.clone().try_acquire_owned() else {
                count(&shared.stats.refused);
                continue;
            };
            count(&shared.stats.accepted);
            let shared = shared.clone();
            tokio::spawn(async move {
                accepted(stream, shared).await;
                drop(permit);
            });
        }
    }
}

async fn accepted(stream: TcpStream, shared: Shared) {
    let mut changes = shared.secured.subscribe();
    let tls = changes.borrow_and_update().tls.clone();
    let Some(tls) = tls else {
        return connection(stream, shared, changes).await;
    };
    if let Some(stream) = tls.accept(stream, HEAD_TIMEOUT).await {
        connection(stream, shared, changes).await;
    }
}

/// Runs the streams of HTTP/2, none for ever: a peer may keep its window shut.
#[derive(Clone, Copy)]
struct Bounded;

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Bounded {
    fn execute(&self, stream: F) {
        tokio::spawn(Deadline::within(ANSWER_TIMEOUT).bind(stream));
    }
}

/// Serves a connection until it ends, is too slow, or was made before one of `changes`.
async fn connection<S>(stream: S, shared: Shared, mut changes: watch::Receiver<Arc<Secured>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let deadline = Deadline::within(HEAD_TIMEOUT);
    let service = service_fn(|request| {
        let (shared, deadline) = (shared.clone(), Arc::clone(&deadline));
        async move { Ok::<_, Infallible>(respond(request, &shared, &deadline).await) }
    });
    let mut builder = auto::Builder::new(Bounded);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(BUFFER_BYTES_MAX);
    builder
        .http2()
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADERS_BYTES_MAX);
    let serving = async {
        let stream = TokioIo::new(stream);
        let mut served = std::pin::pin!(builder.serve_connection(stream, service));
        tokio::select! {
            biased;
            ended = served.as_mut() => return ended,
            Ok(()) = changes.changed() => served.as_mut().graceful_shutdown(),
        }
        let rest = tokio::time::timeout(ANSWER_TIMEOUT, served).await;
        rest.unwrap_or(Ok(()))
    };
    match Arc::clone(&deadline).bind(serving).await {
        None => count(&shared.stats.timed_out),
        Some(Ok(())) => {}
        Some(Err(error)) => {
            tracing::debug!(%error, "a connection to the agent's own address ended early");
        }
    }
}

/// Answers a request of the connection with this deadline.
async fn respond(
    request: Request<Incoming>,
    shared: &Shared,
    connection: &Arc<Deadline>,
) -> Answer {
    // Over HTTP/2 this is polled by the task of the stream.
    let own = Deadline::current().unwrap_or_else(|| Arc::clone(connection));
    let held = (!Arc::ptr_eq(&own, connection)).then(|| Held::new(connection));
    own.pause();
    let (parts, body) = request.into_parts();
    let head = Head {
        method: parts.method,
        uri: parts.uri,
        headers: parts.headers,
    };
    let secured = Arc::clone(&shared.secured.borrow());
    let mut answer = routes::answer(head, body, &secured, &shared.stats, &shared.web).await;
    own.restart();
    answer.body_mut().watch(&own, held);
    answer
}

#[cfg(test)]
mod tests;
