//! Turns a socket that speaks HTTP/2 into requests answered side by side, and a slow peer into a
//! closed one.
//!
//! # Invariants
//! - All streams of a connection are polled by its task: they end with it, and a deadline that one
//!   of them sets is seen at once.
//!
//! # Failure
//! - No request within the idle timeout while none is at work, no progress of the socket or of one
//!   answer within the write timeout (also where the peer keeps its window shut): the connection is
//!   closed and counted. Each body has its own deadline, see `http`.
//!
//! # Limits
//! - Requests of a connection at a time: an option. Streams beyond it are refused by the protocol,
//!   so that the peer may send them again.
//! - [`HEADERS_BYTES_MAX`] for the headers of a request; more is answered 431.
//! - [`WINDOW_BYTES`] of bodies that nobody has read yet, per connection.
//! - [`RESETS_PENDING_MAX`] requests that the peer took back before we saw them, and
//!   [`RESETS_OF_ERRORS_MAX`] streams that we reset for its errors; beyond, the connection ends:
//!   rapid reset.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::unconstrained;
use tokio::time::Instant;

use crate::connection::{Connection, Patience, WatchedStream};
use crate::http::{Receiver, respond};
use crate::options::Http2Options;

/// A sender's headers are about 500 bytes, with tokens and tracing a few thousand.
const HEADERS_BYTES_MAX: u32 = 16 << 10;
/// A stream may use that of its whole connection: senders send one body at a time.
const WINDOW_BYTES: u32 = 1 << 20;
/// Answers are short texts.
const SEND_BUFFER_BYTES: usize = 64 << 10;
/// The default of hyper's `h2`, written down as it is what rapid reset is held against.
const RESETS_PENDING_MAX: usize = 20;
/// The same.
const RESETS_OF_ERRORS_MAX: usize = 1024;

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Answers the requests of a connection until it ends; after `stop` becomes true, only those that
/// are in flight.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    receiver: Rc<Receiver>,
    mut stop: watch::Receiver<bool>,
) {
    let options = receiver.settings().options.http2.unwrap_or_default();
    let connection = Rc::new(Connection::new(&receiver));
    let stream = WatchedStream::new(stream, &connection, &receiver);
    let streams = Rc::new(Streams::new(receiver.clone(), connection.clone()));
    let spawned = Spawned::default();
    let service = service_fn(|request| answer(streams.clone(), request));
    let serving = builder(options, spawned.clone()).serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    let mut running = FuturesUnordered::new();
    let mut patience = Patience::new(|| {
        let deadlines = [connection.deadline(), streams.deadline()];
        deadlines.into_iter().flatten().min()
    });
    let mut is_stopping = false;
    let ended = loop {
        let moving = std::future::poll_fn(|cx| {
            let polled = serving.as_mut().poll(cx);
            running.extend(spawned.0.take());
            // What they send wakes this task again.
            while let Poll::Ready(Some(())) = running.poll_next_unpin(cx) {}
            polled
        });
        tokio::select! {
            // The deadlines are looked at after the connection has moved.
            biased;
            ended = moving => break ended,
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

fn builder(options: Http2Options, spawned: Spawned) -> http2::Builder<Spawned> {
    let mut builder = http2::Builder::new(spawned);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(options.max_concurrent_streams)
        .max_header_list_size(HEADERS_BYTES_MAX)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(RESETS_PENDING_MAX)
        .max_local_error_reset_streams(RESETS_OF_ERRORS_MAX)
        .keep_alive_interval(options.read_idle_timeout)
        .keep_alive_timeout(options.ping_timeout);
    builder
}

/// One request; counted as in flight from here, also if it is never polled.
fn answer(
    streams: Rc<Streams>,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<Answered>, Infallible>> {
    let flight = Flight::begin(streams);
    async move {
        let Streams {
            receiver,
            connection,
            ..
        } = &*flight.streams;
        let response = respond(receiver, connection, request).await;
        let flight = flight.answered();
        Ok(response.map(|body| Answered {
            body,
            _flight: flight,
        }))
    }
}

/// Hands the streams of a connection to its task.
#[derive(Clone, Default)]
struct Spawned(Rc<Cell<Vec<Task>>>);

impl<F: Future<Output = ()> + 'static> Executor<F> for Spawned {
    fn execute(&self, stream: F) {
        let mut all = self.0.take();
        all.push(Box::pin(stream));
        self.0.set(all);
    }
}

/// The requests of one connection.
struct Streams {
    receiver: Rc<Receiver>,
    connection: Rc<Connection>,
    in_flight: Cell<usize>,
    next: Cell<u64>,
    /// Answers that the peer has not made room for, and until when it has to: the oldest first.
    unsent: RefCell<VecDeque<(u64, Instant)>>,
}

impl Streams {
    fn new(receiver: Rc<Receiver>, connection: Rc<Connection>) -> Self {
        Self {
            receiver,
            connection,
            in_flight: Cell::new(0),
            next: Cell::new(0),
            unsent: RefCell::default(),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.unsent.borrow().front().map(|(_, deadline)| *deadline)
    }
}

/// One request, until its answer is on its way or given up.
struct Flight {
    streams: Rc<Streams>,
    number: u64,
}

impl Flight {
    fn begin(streams: Rc<Streams>) -> Self {
        streams.connection.wait_for_us();
        streams.in_flight.update(|count| count + 1);
        let number = streams.next.get();
        streams.next.set(number + 1);
        Self { streams, number }
    }

    /// From now on the peer is waited for.
    fn answered(self) -> Self {
        let timeout = self.streams.receiver.settings().options.write_timeout;
        let deadline = Instant::now() + timeout;
        let mut unsent = self.streams.unsent.borrow_mut();
        unsent.push_back((self.number, deadline));
        drop(unsent);
        self
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let streams = &self.streams;
        let mut unsent = streams.unsent.borrow_mut();
        unsent.retain(|(number, _)| *number != self.number);
        streams.in_flight.update(|count| count - 1);
        if streams.in_flight.get() == 0 {
            let settings = streams.receiver.settings();
            let options = &settings.options;
            let idle = options.http2.and_then(|http2| http2.idle_timeout);
            // What is no request, such as a ping, does not count as a sign that one comes.
            let time = idle.unwrap_or(options.idle_timeout);
            streams.connection.wait_for_peer(false, time);
        }
    }
}

/// The body of an answer; it is dropped when the peer's window has let all of it through.
struct Answered {
    body: Full<Bytes>,
    _flight: Flight,
}

impl Body for Answered {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
