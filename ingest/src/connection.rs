//! Turns an accepted socket into requests answered in order, and a slow peer into a closed one.
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
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until};
use wal::Position;

use crate::append::Route;
use crate::http::{Receiver, respond};

/// What belongs to one connection beside its socket.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Where its requests go, with the last series of each way: the sender's next request most
    /// likely goes on from there.
    pub(crate) route: RefCell<Route>,
    /// Spare buffer for the positions of a request.
    pub(crate) positions: RefCell<Vec<Position>>,
    /// Until when the peer has to move; none while it waits for us.
    deadline: Cell<Option<Instant>>,
    /// Whether nothing of the next request has come yet.
    is_idle: Cell<bool>,
    timed_out: Cell<bool>,
}

impl Connection {
    fn new(receiver: &Receiver) -> Self {
        // A new connection is expected to say something soon: it gets the time of a head.
        let deadline = Instant::now() + receiver.options.read_timeout;
        Self {
            route: RefCell::new(Route::new(&receiver.options.stores)),
            positions: RefCell::default(),
            deadline: Cell::new(Some(deadline)),
            is_idle: Cell::new(false),
            timed_out: Cell::new(false),
        }
    }

    fn wait_for_us(&self) {
        self.is_idle.set(false);
        self.deadline.set(None);
    }

    fn wait_for(&self, is_idle: bool, time: Duration) {
        self.is_idle.set(is_idle);
        self.deadline.set(Some(Instant::now() + time));
    }
}

/// Answers the requests of a connection until it ends or `stop` becomes true.
pub(crate) async fn serve(
    stream: TcpStream,
    receiver: Rc<Receiver>,
    mut stop: watch::Receiver<bool>,
) {
    let connection = Rc::new(Connection::new(&receiver));
    let stream = TimedStream {
        stream,
        connection: connection.clone(),
        read_timeout: receiver.options.read_timeout,
        write_timeout: receiver.options.write_timeout,
        reading: None,
        writing: None,
    };
    let counters = receiver.clone();
    let seen = connection.clone();
    let service = service_fn(move |request| {
        let (receiver, connection) = (receiver.clone(), connection.clone());
        async move {
            connection.wait_for_us();
            let response = respond(&receiver, &connection, request).await;
            connection.wait_for(true, receiver.options.idle_timeout);
            Ok::<_, Infallible>(response)
        }
    });
    let serving = http1::Builder::new()
        // Its clock also runs between requests, where the idle timeout should: see TimedStream.
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        // An error means that the sender is gone, and so is whoever wanted us to run.
        _ = stop.wait_for(|stop| *stop) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if seen.timed_out.get() {
        counters.counters().connection_timed_out();
    } else if let Err(error) = ended {
        tracing::debug!(receiver = counters.stats.name(), %error, "connection ended");
    }
}

/// A socket that fails when the peer is too slow.
struct TimedStream {
    stream: TcpStream,
    connection: Rc<Connection>,
    read_timeout: Duration,
    write_timeout: Duration,
    reading: Option<Pin<Box<Sleep>>>,
    /// Set while the peer does not take what we write.
    writing: Option<Pin<Box<Sleep>>>,
}

impl TimedStream {
    fn poll_read_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(deadline) = self.connection.deadline.get() else {
            return Poll::Pending;
        };
        let sleep = self
            .reading
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() != deadline {
            sleep.as_mut().reset(deadline);
        }
        sleep.as_mut().poll(cx).map(|()| Err(self.too_slow()))
    }

    /// Starts or ends the time a write may take; `polled` is what the socket said.
    fn check_write<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.writing = None;
            return polled;
        }
        let timeout = self.write_timeout;
        let sleep = self
            .writing
            .get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + timeout)));
        sleep.as_mut().poll(cx).map(|()| Err(self.too_slow()))
    }

    fn too_slow(&self) -> io::Error {
        self.connection.timed_out.set(true);
        io::ErrorKind::TimedOut.into()
    }
}

impl AsyncRead for TimedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        if polled.is_pending() {
            return this.poll_read_deadline(cx);
        }
        if this.connection.is_idle.get() && buf.filled().len() > before {
            this.connection.wait_for(false, this.read_timeout);
        }
        polled
    }
}

impl AsyncWrite for TimedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.check_write(cx, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
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
        self.check_write(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
