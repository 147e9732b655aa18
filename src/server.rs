//! Turns requests to the agent's own address into metrics and health.
//!
//! # Limits
//! [`CONNECTIONS_MAX`] connections; a head must arrive within [`HEAD_TIMEOUT`].

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::telemetry::families;
use crate::telemetry::metrics::Sources;

/// Scrapers and probes: a handful, with room for mistakes.
const CONNECTIONS_MAX: usize = 256;
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
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

/// Takes the agent's own address.
///
/// # Errors
/// The address is taken or not ours.
pub(crate) async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} (--server.http.listen-addr)"))
}

/// Answers requests for as long as it is polled.
#[expect(clippy::infinite_loop, reason = "ends when its task is aborted")]
pub(crate) async fn serve(listener: TcpListener, state: Arc<State>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = connections.clone().try_acquire_owned() else {
            continue;
        };
        let state = state.clone();
        tokio::spawn(async move {
            connection(stream, state).await;
            drop(permit);
        });
    }
}

async fn connection(stream: TcpStream, state: Arc<State>) {
    let service = service_fn(|request| {
        let state = state.clone();
        async move { Ok::<_, Infallible>(answer(&request, &state)) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the agent's own address ended early");
    }
}

fn answer(request: &Request<Incoming>, state: &State) -> Response<Full<Bytes>> {
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
