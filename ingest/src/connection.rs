//! Turns a socket that speaks HTTP/1.1 into requests answered in order, and a slow peer into a closed
//! one.
//!
//! # Failure
//! - No first byte of a request within the idle timeout, no whole head within the read timeout
//!   after it, no progress of an answer within the write timeout: the connection is closed and
//!   counted. The body has its own deadline, see `http`.
//!
//! # Limits
//! - One request at a time; what a peer sends ahead waits in the socket.
//!
//! # Threads
//! - A connection lives on the shard thread that accepted it.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep, sleep};
use wal::Position;

use crate::admit::Held;
use crate::append::Route;
use crate::http::{Receiver, respond};

/// What a connection may have read ahead, and once more, as it is looked at after each read: a head is not
/// longer, and a body comes in pieces of it. Not in the bytes in flight, so with 16384 connections that
/// only ever begin a request it is all there is.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// What belongs to one connection beside its socket.
#[derive(Debug)]
pub(crate) struct Connection {
    /// The last series: the sender's next request most likely goes on from there.
    pub(crate) route: RefCell<Route>,
    /// Bytes of its requests in flight.
    pub(crate) held: Held,
    /// Spare buffer for the positions of a request.
    pub(crate) positions: RefCell<Vec<Position>>,
    /// Until when the peer has to send something; none while it waits for us.
    read_deadline: Cell<Option<Instant>>,
    /// Until when the peer has to take something; none while we are not writing.
    write_deadline: Cell<Option<Instant>>,
    /// Whether nothing of the next request has come yet.
    is_idle: Cell<bool>,
}

impl Connection {
    pub(crate) fn new(receiver: &Receiver) -> Self {
        // A new connection is expected to say something soon: it gets the time of a head.
        let deadline = Instant::now() + receiver.settings().options.read_timeout;
        Self {
            route: RefCell::default(),
            held: Held::default(),
            positions: RefCell::default(),
            read_deadline: Cell::new(Some(deadline)),
            write_deadline: Cell::new(None),
            is_idle: Cell::new(false),
        }
    }

    pub(crate) fn wait_for_us(&self) {
        self.is_idle.set(false);
        self.read_deadline.set(None);
    }

    pub(crate) fn wait_for_peer(&self, is_idle: bool, time: Duration) {
        self.is_idle.set(is_idle);
        self.read_deadline.set(Some(Instant::now() + time));
    }

    /// When the peer will have been too slow.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let deadlines = [self.read_deadline.get(), self.write_deadline.get()];
        deadlines.into_iter().flatten().min()
    }
}

/// Answers the requests of a connection until it ends; after `stop` becomes true, only the one
/// that is in flight.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    receiver: Rc<Receiver>,
    mut stop: watch::Receiver<bool>,
) {
    let connection = Rc::new(Connection::new(&receiver));
    let stream = WatchedStream::new(stream, &connection, &receiver);
    let service = service_fn(|request| async {
        connection.wait_for_us();
        let response = respond(&receiver, &connection, request).await;
        connection.wait_for_peer(true, receiver.settings().options.idle_timeout);
        Ok::<_, Infallible>(response)
    });
    let serving = http1::Builder::new()
        .max_buf_size(BUFFER_BYTES_MAX)
        // Its clock also runs between requests, where the idle timeout should.
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    let mut patience = Patience::new(|| connection.deadline());
    let mut is_stopping = false;
    let ended = loop {
        tokio::select! {
            // The deadlines are looked at after the connection has moved.
            biased;
            ended = serving.as_mut() => break ended,
            () = &mut patience => {
                receiver.counters().connection_timed_out();
                return;
            }
            // An error means that whoever wanted us to run is gone.
            _ = unconstrained(stop.wait_for(|stop| *stop)), if !is_stopping => {
                serving.as_mut().graceful_shutdown();
                is_stopping = true;
            }
        }
    };
    if let Err(error) = ended {
        receiver.counters().connection_broken();
        tracing::debug!(receiver = receiver.stats.name(), %error, "connection ended");
    }
}

/// Ends when a deadline of the connection has passed. Polled together with the connection, so it
/// sees every new deadline at once.
pub(crate) struct Patience<F> {
    deadline: F,
    sleep: Pin<Box<Sleep>>,
}

impl<F: Fn() -> Option<Instant>> Patience<F> {
    pub(crate) fn new(deadline: F) -> Self {
        Self {
            deadline,
            sleep: Box::pin(sleep(Duration::ZERO)),
        }
    }
}

impl<F: Fn() -> Option<Instant> + Unpin> Future for Patience<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = (self.deadline)() else {
            return Poll::Pending;
        };
        if self.sleep.deadline() != deadline {
            self.sleep.as_mut().reset(deadline);
        }
        // A peer that sends without end uses up what a task may do at a time; that must not keep
        // its own deadline from being seen.
        Pin::new(&mut unconstrained(self.sleep.as_mut())).poll(cx)
    }
}

/// A socket that notes on its connection what the peer does.
pub(crate) struct WatchedStream<S> {
    stream: S,
    connection: Rc<Connection>,
    receiver: Rc<Receiver>,
}

impl<S> WatchedStream<S> {
    pub(crate) fn new(stream: S, connection: &Rc<Connection>, receiver: &Rc<Receiver>) -> Self {
        Self {
            stream,
            connection: connection.clone(),
            receiver: receiver.clone(),
        }
    }

    fn note_write<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let deadline = &self.connection.write_deadline;
        if polled.is_ready() {
            deadline.set(None);
        } else if deadline.get().is_none() {
            let timeout = self.receiver.settings().options.write_timeout;
            deadline.set(Some(Instant::now() + timeout));
        }
        polled
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WatchedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if self.connection.is_idle.get() && buf.filled().len() > before {
            let timeout = self.receiver.settings().options.read_timeout;
            self.connection.wait_for_peer(false, timeout);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WatchedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note_write(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing for a socket; with TLS, bytes that were taken may still wait here.
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.note_write(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.note_write(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
