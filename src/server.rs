//! Turns requests to the agent's own address into metrics and health.
//!
//! HTTP/1.1 and HTTP/2, by ALPN where it is encrypted, by prior knowledge where it is not.
//!
//! # Invariants
//! - Where credentials are needed for a path, nothing of it is told without them, be it there or not.
//!
//! # Limits
//! [`CONNECTIONS_MAX`] connections with [`STREAMS_MAX`] requests each at a time. A handshake, and
//! then a head, must arrive within [`HEAD_TIMEOUT`]. An answer has to be taken, and the next request
//! to come, within [`ANSWER_TIMEOUT`] of the last request: a slow reader holds no memory for ever.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use ingest::secure::{Guard, SecureStats, Tls};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::unconstrained;
use tokio::time::Instant;
use wal::SharedClock;

use crate::component::{HttpService, PathAuth};
use crate::telemetry::families;
use crate::telemetry::metrics::Sources;

/// Scrapers and probes: a handful, with room for mistakes.
const CONNECTIONS_MAX: usize = 256;
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A page of metrics takes milliseconds; the slowest scrapers give up after some ten seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
const STREAMS_MAX: u32 = 16;
const HEADERS_BYTES_MAX: u32 = 16 << 10;
/// How long accepting rests after a failure such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the agent says about itself.
#[derive(Debug)]
pub(crate) struct State {
    sources: Sources,
    ready: AtomicBool,
}

impl State {
    pub(crate) const fn new(sources: Sources) -> Self {
        Self {
            sources,
            ready: AtomicBool::new(false),
        }
    }

    /// Everything has started.
    pub(crate) fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }
}

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

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The agent's own address, taken.
#[derive(Debug)]
pub(crate) struct Server {
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    guard: Option<(Guard, PathAuth)>,
    stats: Arc<ServerStats>,
}

/// What all connections share.
struct Shared {
    tls: Option<Arc<Tls>>,
    guard: Option<(Guard, PathAuth)>,
    stats: Arc<ServerStats>,
    state: Arc<State>,
}

impl Server {
    /// Takes the address.
    ///
    /// # Errors
    /// The address is taken or not ours, or certificates cannot be used.
    pub(crate) async fn listen(
        address: SocketAddr,
        http: &HttpService,
        clock: &SharedClock,
    ) -> anyhow::Result<Self> {
        let stats = Arc::new(ServerStats::default());
        let tls = http.tls.clone().map(|options| {
            let (clock, stats) = (Arc::clone(clock), Arc::clone(&stats.secure));
            Tls::new("http", options, clock, true, stats).map(Arc::new)
        });
        let auth = http.auth.clone();
        let guard = auth.map(|auth| Guard::new(&auth.options).map(|guard| (guard, auth)));
        let cannot = |problem: String| anyhow::anyhow!("cannot secure the own address: {problem}");
        Ok(Self {
            tls: tls.transpose().map_err(|error| cannot(error.to_string()))?,
            guard: guard.transpose().map_err(cannot)?,
            stats,
            listener: TcpListener::bind(address).await.with_context(|| {
                format!("cannot listen on {address} (--server.http.listen-addr)")
            })?,
        })
    }

    /// Its numbers.
    pub(crate) fn stats(&self) -> Arc<ServerStats> {
        Arc::clone(&self.stats)
    }

    /// Answers requests for as long as it is polled.
    #[expect(clippy::infinite_loop, reason = "ends when its task is aborted")]
    pub(crate) async fn serve(self, state: Arc<State>) {
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let shared = Arc::new(Shared {
            tls: self.tls,
            guard: self.guard,
            stats: self.stats,
            state,
        });
        loop {
            let stream = match self.listener.accept().await {
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

async fn accepted(stream: TcpStream, shared: Arc<Shared>) {
    let Some(tls) = &shared.tls else {
        return connection(stream, shared).await;
    };
    if let Some(stream) = tls.accept(stream, HEAD_TIMEOUT).await {
        connection(stream, shared).await;
    }
}

/// Runs the streams of HTTP/2, none for ever: a peer may keep its window shut.
#[derive(Clone, Copy)]
struct Bounded;

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Bounded {
    fn execute(&self, stream: F) {
        tokio::spawn(tokio::time::timeout(ANSWER_TIMEOUT, stream));
    }
}

async fn connection<S>(stream: S, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let deadline = Arc::new(Mutex::new(Instant::now() + HEAD_TIMEOUT));
    let service = service_fn(|request| {
        *deadline.lock() = Instant::now() + ANSWER_TIMEOUT;
        let response = answer(&request, &shared);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut builder = auto::Builder::new(Bounded);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT);
    builder
        .http2()
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADERS_BYTES_MAX);
    let mut served = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = loop {
        let until = *deadline.lock();
        tokio::select! {
            biased;
            ended = served.as_mut() => break ended,
            () = unconstrained(tokio::time::sleep_until(until)) => {
                if *deadline.lock() <= Instant::now() {
                    count(&shared.stats.timed_out);
                    return;
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the agent's own address ended early");
    }
}

fn answer(request: &Request<Incoming>, shared: &Shared) -> Response<Full<Bytes>> {
    if let Some((guard, auth)) = &shared.guard
        && auth.covers(request.uri().path())
        && !guard.admits(request.headers())
    {
        count(&shared.stats.unauthorized);
        let mut response = text(StatusCode::UNAUTHORIZED, "Unauthorized\n");
        let challenge = guard.challenge();
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        return response;
    }
    page(request, &shared.state)
}

fn page(request: &Request<Incoming>, state: &State) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/metrics" => match state.sources.collect().encode() {
            Ok(metrics) => {
                let mut response = text(StatusCode::OK, metrics);
                let kind = HeaderValue::from_static(families::CONTENT_TYPE);
                response.headers_mut().insert(CONTENT_TYPE, kind);
                response
            }
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        },
        "/-/ready" if state.ready.load(Ordering::Acquire) => {
            text(StatusCode::OK, "Penstock is ready.\n")
        }
        "/-/ready" => text(StatusCode::SERVICE_UNAVAILABLE, "Penstock is not ready.\n"),
        "/-/healthy" => healthy(state),
        _ => text(
            StatusCode::NOT_FOUND,
            "there is /metrics, /-/ready and /-/healthy\n",
        ),
    }
}

/// Unhealthy is a store that cannot take data.
fn healthy(state: &State) -> Response<Full<Bytes>> {
    let sick = state.sources.stores.iter().filter(|source| {
        let full = source.store.stats().out_of_space.load(Ordering::Relaxed) == 1;
        full || source.store.failure().is_some()
    });
    let names: Vec<&str> = sick.map(|source| source.id.as_str()).collect();
    if names.is_empty() {
        return text(StatusCode::OK, "All Penstock components are healthy.\n");
    }
    let names = format!("unhealthy components: {}\n", names.join(", "));
    text(StatusCode::INTERNAL_SERVER_ERROR, names)
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use wal::{IoEngine, SystemClock};

    fn shared() -> Arc<Shared> {
        let stats = Arc::new(ServerStats::default());
        let sources = Sources {
            engine: IoEngine::Portable,
            clock: SystemClock::shared(),
            stores: Vec::new(),
            relabels: Vec::new(),
            receivers: Vec::new(),
            endpoints: Vec::new(),
            server: Arc::clone(&stats),
        };
        Arc::new(Shared {
            tls: None,
            guard: None,
            stats,
            state: Arc::new(State::new(sources)),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_says_or_takes_nothing_is_let_go() {
        let get = b"GET /metrics HTTP/1.1\r\nHost: t\r\n\r\n";
        for (request, seconds) in [(&b""[..], 10), (b"GET /me", 10), (get, 60)] {
            let shared = shared();
            // Room for the head of the answer, and not for the page.
            let (ours, mut theirs) = tokio::io::duplex(64);
            let begin = Instant::now();
            let serving = tokio::spawn(connection(ours, Arc::clone(&shared)));
            theirs.write_all(request).await.unwrap();
            serving.await.unwrap();
            assert_eq!(begin.elapsed().as_secs(), seconds);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_window_that_stays_shut_holds_no_page_for_ever() {
        let shared = shared();
        let (ours, mut theirs) = tokio::io::duplex(64 << 10);
        let begin = Instant::now();
        let serving = tokio::spawn(connection(ours, Arc::clone(&shared)));
        // SETTINGS with an initial window of 0, then GET / on stream 1.
        let settings = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0];
        let get = [0, 0, 3, 1, 5, 0, 0, 0, 1, 0x82, 0x84, 0x86];
        let all = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings, &get].concat();
        theirs.write_all(&all).await.unwrap();
        let mut said = Vec::new();
        theirs.read_to_end(&mut said).await.unwrap();
        serving.await.unwrap();
        assert_eq!(begin.elapsed().as_secs(), 60);
        assert_eq!(shared.stats.timed_out.load(Ordering::Relaxed), 1);
    }
}
