//! Turns the address of another agent into connections to it, and requests into answers.
//!
//! # Failure
//! - A request over a connection that turns out to be closed is made anew once over a fresh one: whoever asks twice
//!   does no harm.
//!
//! # Limits
//! - [`IDLE_MAX`] connections to an agent wait for a next request, none for longer than [`IDLE_AFTER`].

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{HOST, HeaderValue, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use shipper::{TlsOptions, client_tls};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio_rustls::TlsConnector;
use wal::SharedClock;

use super::numbers::Numbers;

/// What this agent calls itself.
pub(super) const OWN_NAME: &str = concat!("Penstock/", env!("CARGO_PKG_VERSION"));
const IDLE_MAX: usize = 32;
/// Less than the others wait for a next request.
pub(super) const IDLE_AFTER: Duration = Duration::from_secs(20);
/// Most bytes of an answer.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Makes connections.
#[derive(Clone, Debug)]
pub(super) struct Dial {
    /// None: the others are spoken to in plain.
    pub(super) tls: Option<TlsOptions>,
    pub(super) numbers: Arc<Numbers>,
    pub(super) runtime: Handle,
}

impl Dial {
    pub(super) async fn connect(&self, address: &str) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect(address).await.context("connect")?;
        stream.set_nodelay(true)?;
        let Some(options) = self.tls.clone() else {
            return self.opened(stream).await;
        };
        // Read for each connection, so that renewed files count.
        let config = tokio::task::spawn_blocking(move || client_tls(&options)).await?;
        let config = config.map_err(|problem| anyhow::anyhow!("{problem}"))?;
        let (host, _) = address.rsplit_once(':').unwrap_or((address, ""));
        let host = host.trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host).context("the address has no name for TLS")?;
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector.connect(name, stream).await.context("TLS")?;
        self.opened(stream).await
    }

    async fn opened<S>(&self, stream: S) -> anyhow::Result<SendRequest<Full<Bytes>>>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let numbers = Arc::clone(&self.numbers);
        numbers.connections.fetch_add(1, Ordering::Relaxed);
        self.runtime.spawn(async move {
            // Its end is seen by who uses it.
            connection.await.ok();
            numbers.connections.fetch_sub(1, Ordering::Relaxed);
        });
        if sender.is_closed() {
            bail!("the connection is closed at once");
        }
        Ok(sender)
    }
}

/// Connections that wait for a next request, and since when, by address.
type Idle = HashMap<Arc<str>, Vec<(SendRequest<Full<Bytes>>, Duration)>>;

/// Connections for any number of requests at a time.
#[derive(Debug)]
pub(super) struct Lines {
    dial: Dial,
    idle: Mutex<Idle>,
    clock: SharedClock,
}

impl Lines {
    pub(super) fn new(dial: Dial, clock: SharedClock) -> Self {
        Self {
            dial,
            idle: Mutex::default(),
            clock,
        }
    }

    /// What `address` answers.
    ///
    /// # Errors
    /// There is no answer, or none that is whole and short enough.
    pub(super) async fn ask(
        &self,
        address: &Arc<str>,
        mut request: Request<Full<Bytes>>,
    ) -> anyhow::Result<Response<Bytes>> {
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_str(address)?);
        headers.insert(USER_AGENT, HeaderValue::from_static(OWN_NAME));
        if let Some(mut open) = self.take(address)
            && open.ready().await.is_ok()
            && let Ok(answer) = open.send_request(request.clone()).await
        {
            return self.read(address, open, answer).await;
        }
        let mut fresh = self.dial.connect(address).await?;
        let answer = fresh.send_request(request).await?;
        self.read(address, fresh, answer).await
    }

    async fn read(
        &self,
        address: &Arc<str>,
        connection: SendRequest<Full<Bytes>>,
        answer: Response<hyper::body::Incoming>,
    ) -> anyhow::Result<Response<Bytes>> {
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
        let mut idle = self.idle.lock();
        let idle = idle.entry(Arc::clone(address)).or_default();
        if idle.len() < IDLE_MAX {
            idle.push((connection, self.clock.monotonic()));
        }
        Ok(Response::from_parts(head, body))
    }

    /// The connection that was used last. Those of agents that are gone are closed too.
    fn take(&self, address: &Arc<str>) -> Option<SendRequest<Full<Bytes>>> {
        let now = self.clock.monotonic();
        let mut idle = self.idle.lock();
        idle.retain(|_, all| {
            all.retain(|(open, since)| {
                !open.is_closed() && now.saturating_sub(*since) < IDLE_AFTER
            });
            !all.is_empty()
        });
        idle.get_mut(address)?.pop().map(|(open, _)| open)
    }
}

/// The beginning of a refusal's text, for the log.
pub(super) fn excerpt(body: &Bytes) -> String {
    let text = String::from_utf8_lossy(body.get(..body.len().min(200)).unwrap_or_default());
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    match text.trim() {
        "" => String::new(),
        text => format!(": {text}"),
    }
}
