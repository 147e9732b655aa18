//! Turns remote-write requests into checked samples, and goes down when told to.
//!
//! While it is down its port stays taken but refuses connections, as the port of a crashed server
//! does, and nobody else can get it meanwhile.
//!
//! # Threads
//! - `demo-backend` serves on a runtime of its own; it also hears the signals that end the demo.
//!   The checker is behind a lock, taken per request and by whoever shows the progress.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result, bail};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::check::{Checker, Counts};

/// Connections waiting to be accepted.
const ACCEPT_BACKLOG: u32 = 128;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Up,
    Down,
    Stopped,
}

/// What the thread shares with the demo.
#[derive(Debug)]
struct Shared {
    checker: Mutex<Checker>,
    body_bytes: AtomicU64,
    malformed: AtomicU64,
    interrupted: AtomicBool,
    failure: Mutex<Option<String>>,
}

/// What the backend has received.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    /// The verdict so far.
    pub(super) counts: Counts,
    /// Compressed bytes of all bodies.
    pub(super) body_bytes: u64,
    /// Bodies that were no request.
    pub(super) malformed: u64,
}

/// A running backend; stops when dropped.
#[derive(Debug)]
pub(super) struct Backend {
    address: SocketAddr,
    shared: Arc<Shared>,
    mode: watch::Sender<Mode>,
    thread: Option<JoinHandle<()>>,
}

impl Backend {
    /// Listens on a free port of the loopback interface.
    pub(super) fn start(checker: Checker) -> Result<Self> {
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            checker: Mutex::new(checker),
            body_bytes: AtomicU64::new(0),
            malformed: AtomicU64::new(0),
            interrupted: AtomicBool::new(false),
            failure: Mutex::new(None),
        });
        let (mode, wanted) = watch::channel(Mode::Up);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = std::thread::Builder::new()
            .name("demo-backend".to_owned())
            .spawn({
                let shared = shared.clone();
                move || {
                    if let Err(error) = runtime.block_on(run(listener, wanted, &shared)) {
                        *shared.failure.lock() = Some(format!("{error:#}"));
                    }
                }
            })?;
        Ok(Self {
            address,
            shared,
            mode,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the port and all connections.
    pub(super) fn go_down(&self) {
        self.mode.send_replace(Mode::Down);
    }

    /// Opens the port again.
    pub(super) fn come_back(&self) {
        self.mode.send_replace(Mode::Up);
    }

    /// Fails if the backend could not go on or the user wants to end.
    pub(super) fn check(&self) -> Result<()> {
        if self.shared.interrupted.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        if let Some(failure) = self.shared.failure.lock().clone() {
            bail!("the embedded backend failed: {failure}");
        }
        Ok(())
    }

    /// What was received so far.
    pub(super) fn received(&self) -> Received {
        Received {
            counts: self.shared.checker.lock().counts(),
            body_bytes: self.shared.body_bytes.load(Ordering::Relaxed),
            malformed: self.shared.malformed.load(Ordering::Relaxed),
        }
    }

    /// See [`Checker::missing`].
    pub(super) fn missing(&self, acked: impl Fn(u32) -> u32) -> u64 {
        self.shared.checker.lock().missing(acked)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.mode.send_replace(Mode::Stopped);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the embedded backend panicked");
        }
    }
}

async fn run(
    listener: StdListener,
    mut mode: watch::Receiver<Mode>,
    shared: &Arc<Shared>,
) -> Result<()> {
    let address = listener.local_addr()?;
    let signals = tokio::spawn(hear_signals(shared.clone()));
    let mut listener = Some(TcpListener::from_std(listener)?);
    while let Some(open) = listener.take() {
        let mut connections = JoinSet::new();
        let left = serve(&open, &mut mode, &mut connections, shared).await?;
        drop(open);
        connections.shutdown().await;
        if left == Mode::Down {
            let reserved = reserve(address)?;
            if *mode.wait_for(|mode| *mode != Mode::Down).await? == Mode::Up {
                listener = Some(reserved.listen(ACCEPT_BACKLOG)?);
            }
        }
    }
    signals.abort();
    Ok(())
}

/// Takes the address without listening: connections are refused.
fn reserve(address: SocketAddr) -> Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket
        .bind(address)
        .context("keep the port of the backend")?;
    Ok(socket)
}

/// Serves until the mode is another; answers which.
async fn serve(
    listener: &TcpListener,
    mode: &mut watch::Receiver<Mode>,
    connections: &mut JoinSet<()>,
    shared: &Arc<Shared>,
) -> Result<Mode> {
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted.context("accept")?;
                stream.set_nodelay(true)?;
                connections.spawn(connection(stream, shared.clone()));
            }
            Some(_) = connections.join_next() => {}
            changed = mode.wait_for(|mode| *mode != Mode::Up) => return Ok(*changed?),
        }
    }
}

async fn connection(stream: tokio::net::TcpStream, shared: Arc<Shared>) {
    let service = service_fn(|request| answer(request, &shared));
    let served = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the embedded backend ended");
    }
}

async fn answer(
    request: Request<Incoming>,
    shared: &Shared,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = match request.into_body().collect().await {
        Ok(body) => receive(&body.to_bytes(), shared),
        Err(_) => StatusCode::BAD_REQUEST,
    };
    Ok(response)
}

fn receive(body: &[u8], shared: &Shared) -> StatusCode {
    let decompressed = snap::raw::Decoder::new().decompress_vec(body);
    let received = decompressed
        .ok()
        .and_then(|message| shared.checker.lock().receive(&message).ok());
    shared
        .body_bytes
        .fetch_add(body.len() as u64, Ordering::Relaxed);
    if received.is_some() {
        StatusCode::NO_CONTENT
    } else {
        shared.malformed.fetch_add(1, Ordering::Relaxed);
        StatusCode::BAD_REQUEST
    }
}

/// Notes that the demo shall end, so that it ends in order: no agent left behind, no files.
async fn hear_signals(shared: Arc<Shared>) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    shared.interrupted.store(true, Ordering::Relaxed);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::client::Client;
    use super::super::fleet::Fleet;
    use super::*;

    fn body(fleet: &Fleet, sequence: u32) -> Vec<u8> {
        let mut message = Vec::new();
        fleet.encode(0, sequence, &mut message);
        snap::raw::Encoder::new().compress_vec(&message).unwrap()
    }

    fn push_until(client: &mut Client, body: &[u8], done: impl Fn(&std::io::Result<u16>) -> bool) {
        loop {
            if done(&client.push(body)) {
                return;
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn requests_are_counted_refused_while_down_and_counted_again() {
        let fleet = Arc::new(Fleet::new(10, 0));
        let backend = Backend::start(Checker::new(fleet.clone())).unwrap();
        let mut client = Client::new(backend.address(), Duration::from_secs(20));
        assert_eq!(client.push(&body(&fleet, 1)).unwrap(), 204);

        backend.go_down();
        push_until(&mut client, &body(&fleet, 1), |status| {
            status
                .as_ref()
                .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
        });
        backend.come_back();
        push_until(&mut client, &body(&fleet, 2), |status| {
            status.as_ref().is_ok_and(|status| *status == 204)
        });

        backend.check().unwrap();
        let received = backend.received();
        assert_eq!(received.counts.delivered, 20);
        assert_eq!(received.counts.out_of_order, 0);
        assert_eq!(backend.missing(|_| 2), 0);
        assert_eq!(backend.missing(|_| 3), 10);
    }

    #[test]
    fn what_is_no_request_is_refused_and_counted() {
        let backend = Backend::start(Checker::new(Arc::new(Fleet::new(1, 0)))).unwrap();
        let mut client = Client::new(backend.address(), Duration::from_secs(20));
        assert_eq!(client.push(b"no snappy block").unwrap(), 400);
        assert_eq!(backend.received().malformed, 1);
    }
}
