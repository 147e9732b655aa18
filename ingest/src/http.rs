//! Turns an HTTP request into an answer: read, append, wait until durable, say so.
//!
//! # Invariants
//! - 204 and 400 with a list of refused series are sent only after everything that was not refused
//!   is durable in every store of the receiver.
//! - Every request gets at most one answer and is counted once, answered or cut off.
//!
//! # Failure
//! | what | answer | then |
//! |---|---|---|
//! | no or wrong credentials | 401 | closes |
//! | other path, method, type, message, encoding | 404, 405, 415 | connection stays |
//! | body too large, compressed or not | 413 | closes if there is much left to read |
//! | no snappy or zstd, no protobuf | 400 with the byte | nothing was stored |
//! | more series than a request may have | 400, so that every sender drops it | nothing was stored |
//! | series that are not allowed | 400 with counts and the first | the others are stored |
//! | body too slow | 408 | closes |
//! | too many bytes in flight, of all or of the connection | 429, retry after 1 s | |
//! | more samples of a tenant than it may send | 429, retry when it may | nothing was stored |
//! | log full, or behind and the connection has most in flight | 503, retry after 5 s | |
//! | log failed | 503 | |
//!
//! Every answer to a remote-write 2.0 message that could be negotiated says how much was written.
//!
//! # Limits
//! - Body bytes and bytes in flight, see [`ReceiverOptions`]; of a body nobody wants, at most
//!   [`DRAIN_BYTES_MAX`] are read so that the sender sees the answer and can go on.
//!
//! # Threads
//! - Runs on the shard thread of the connection. Between the last byte of the body and the wait
//!   for the disk nothing waits.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Request, Response};
use wal::SharedClock;

use crate::admit::BytesPermit;
use crate::answer::Answer;
use crate::append::{self, Appender, Failure};
use crate::connection::Connection;
use crate::negotiate::{Encoding, Message, check_head};
use crate::options::ReceiverOptions;
use crate::own_store::OwnStore;
use crate::paths::Paths;
use crate::secure::{Guard, Tls};
use crate::share::{self, Splitter};
use crate::stats::{CUT_OFF, Counters, ReceiverStats};
use crate::tenants::Tenants;

/// Most bytes read of a body nobody wants.
const DRAIN_BYTES_MAX: u64 = 1 << 20;

/// Most body buffers a shard thread keeps for reuse, and how large each may be.
const SPARE_BUFFERS_MAX: usize = 64;
const SPARE_BYTES_MAX: usize = 1 << 20;

/// What the receivers of one shard thread share.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) shard: usize,
    pub(crate) clock: SharedClock,
    pub(crate) appender: RefCell<Appender>,
    /// Where bodies are decompressed and cut that others have a part in.
    pub(crate) cutting: RefCell<(Vec<u8>, Splitter)>,
    pub(crate) buffers: RefCell<Vec<Vec<u8>>>,
}

/// What a receiver goes by until the layout changes.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) options: Arc<ReceiverOptions>,
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) guard: Option<Arc<Guard>>,
    pub(crate) tenants: Option<Arc<Tenants>>,
}

/// One receiver on one shard thread.
#[derive(Debug)]
pub(crate) struct Receiver {
    pub(crate) stats: Arc<ReceiverStats>,
    pub(crate) worker: Rc<Worker>,
    settings: RefCell<Rc<Settings>>,
    paths: RefCell<Paths>,
}

impl Receiver {
    pub(crate) fn new(
        stats: Arc<ReceiverStats>,
        worker: Rc<Worker>,
        settings: Settings,
        paths: Paths,
    ) -> Rc<Self> {
        let receiver = Self {
            stats,
            worker,
            settings: RefCell::new(Rc::new(settings.clone())),
            paths: RefCell::new(paths),
        };
        receiver.change(settings, None);
        Rc::new(receiver)
    }

    /// What it goes by now. Nothing is borrowed across a wait, so it can change between any two.
    pub(crate) fn settings(&self) -> Rc<Settings> {
        self.settings.borrow().clone()
    }

    /// Goes on with these settings, and ways if there are others.
    pub(crate) fn change(&self, settings: Settings, paths: Option<Paths>) {
        let mut present = self.paths.borrow_mut();
        if let Some(paths) = paths {
            *present = paths;
        }
        present.set_tenants(settings.tenants.as_ref());
        self.settings.replace(Rc::new(settings));
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.stats.shards[self.worker.shard]
    }
}

/// A body buffer that goes back to the shard's spare ones.
pub(crate) struct Buffer<'w> {
    worker: &'w Worker,
    pub(crate) bytes: Vec<u8>,
}

impl<'w> Buffer<'w> {
    pub(crate) fn new(worker: &'w Worker) -> Self {
        let bytes = worker.buffers.borrow_mut().pop().unwrap_or_default();
        Self { worker, bytes }
    }
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        let mut spare = self.worker.buffers.borrow_mut();
        if self.bytes.capacity() <= SPARE_BYTES_MAX && spare.len() < SPARE_BUFFERS_MAX {
            self.bytes.clear();
            spare.push(std::mem::take(&mut self.bytes));
        }
    }
}

/// Counts a request once, also when it is cut off while we read or wait.
struct Counted<'r> {
    receiver: &'r Receiver,
    started: Duration,
    status: u16,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let took = self
            .receiver
            .worker
            .clock
            .monotonic()
            .saturating_sub(self.started);
        self.receiver.counters().answered(self.status, took);
    }
}

/// Answers a request.
pub(crate) async fn respond(
    receiver: &Receiver,
    connection: &Connection,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    receiver.counters().started();
    let started = receiver.worker.clock.monotonic();
    let mut counted = Counted {
        receiver,
        started,
        status: CUT_OFF,
    };
    let answer = match take(receiver, connection, request).await {
        Ok(answer) | Err(answer) => answer,
    };
    counted.status = answer.status().as_u16();
    answer.into_response()
}

/// Negotiates the message, then takes the body.
async fn take(
    receiver: &Receiver,
    connection: &Connection,
    request: Request<Incoming>,
) -> Result<Answer, Answer> {
    let (head, body) = request.into_parts();
    let settings = receiver.settings();
    if let Some(guard) = &settings.guard
        && !guard.admits(&head.headers)
    {
        let answer = Answer::unauthorized(guard.challenge()).and_close();
        return Err(drain(receiver, &head, body, answer).await);
    }
    match check_head(&head, body.size_hint().exact(), &settings.options) {
        Ok((message, encoding)) => {
            take_body(receiver, connection, (&head, body), (message, encoding))
                .await
                .map_err(|answer| answer.for_message(message))
        }
        Err(answer) => Err(drain(receiver, &head, body, answer).await),
    }
}

/// The main path. What stands in its way leaves as an error.
async fn take_body(
    receiver: &Receiver,
    connection: &Connection,
    (head, mut body): (&Parts, Incoming),
    (message, encoding): (Message, Encoding),
) -> Result<Answer, Answer> {
    let clock = || receiver.worker.clock.monotonic();
    let started = clock();
    let mut permit = receiver.stats.bytes.permit(&connection.held);
    let mut compressed = Buffer::new(&receiver.worker);
    let read = read(receiver, &mut body, &mut permit, &mut compressed.bytes);
    let read_timeout = receiver.settings().options.read_timeout;
    match tokio::time::timeout(read_timeout, read).await {
        Ok(Ok(())) => {}
        Ok(Err(answer)) => {
            // What it held is free for others while the rest is read away.
            drop((permit, compressed));
            return Err(drain(receiver, head, body, answer).await);
        }
        Err(_) => return Err(Answer::body_too_slow(read_timeout)),
    }
    let was_read = clock();
    let sharing = receiver.settings().options.sharing.clone();
    if let Some(sharing) = sharing {
        let sent = (message, encoding, &*compressed.bytes, &head.headers);
        return share::take((receiver, connection), &sharing, &mut permit, sent).await;
    }
    let mut positions = connection.positions.take();
    let appended = append(
        receiver,
        connection,
        &mut permit,
        (message, encoding, &compressed.bytes, &head.headers),
        &mut positions,
    );
    drop(compressed);
    let (answer, stores) = appended?;
    let was_appended = clock();
    until_durable(receiver, &stores, &positions).await?;
    connection.positions.replace(positions);
    receiver.counters().took([
        was_read.saturating_sub(started),
        was_appended.saturating_sub(was_read),
        clock().saturating_sub(was_appended),
    ]);
    Ok(answer)
}

/// Waits until what was appended is durable in every store.
pub(crate) async fn until_durable(
    receiver: &Receiver,
    stores: &Stores,
    positions: &[wal::Position],
) -> Result<(), Answer> {
    for (own, position) in stores.iter().zip(positions) {
        let mut durable = own.durable.clone();
        if let Err(error) = durable.reached(*position).await {
            receiver.worker.appender.borrow_mut().forget_metadata();
            return Err(Answer::log(&error));
        }
    }
    Ok(())
}

/// Reads the whole body into `out`.
async fn read(
    receiver: &Receiver,
    body: &mut Incoming,
    permit: &mut BytesPermit<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Answer> {
    let limit = receiver.settings().options.body_bytes_max;
    // Not more than is kept anyway: a sender may promise what it never sends.
    let promised = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    out.reserve(promised.min(SPARE_BYTES_MAX));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Answer::body_ended_early(&error))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if out.len() + data.len() > limit {
            return Err(Answer::too_large("the compressed body", None, limit));
        }
        permit.take(data.len()).map_err(Answer::shed)?;
        out.extend_from_slice(&data);
    }
    Ok(())
}

/// A body, what it is, and the headers that came before it.
pub(crate) type Sent<'b> = (Message, Encoding, &'b [u8], &'b HeaderMap);

/// The stores of a request: they are not closed before it is answered.
pub(crate) type Stores = Rc<[Rc<OwnStore>]>;

/// Appends the body to the stores that the receiver forwards to now, whatever it did when the head
/// came. `Ok` is the answer to give once it is durable in them.
pub(crate) fn append(
    receiver: &Receiver,
    connection: &Connection,
    permit: &mut BytesPermit<'_>,
    (message, encoding, compressed, headers): Sent<'_>,
    positions: &mut Vec<wal::Position>,
) -> Result<(Answer, Stores), Answer> {
    let settings = receiver.settings();
    let options = &*settings.options;
    let limit = options.body_bytes_max;
    let refuse = |refused| Answer::compression(encoding, refused, limit);
    let claimed = (encoding.claimed_length(compressed, limit)).map_err(refuse)?;
    // What is plain was counted before it was cut.
    if encoding != Encoding::Plain {
        permit.take(claimed).map_err(Answer::shed)?;
        receiver.counters().received(compressed.len(), claimed);
    }
    let mut appender = receiver.worker.appender.borrow_mut();
    let mut route = connection.route.borrow_mut();
    let paths = &mut *receiver.paths.borrow_mut();
    (permit.may_append(|| Appender::is_behind(paths))).map_err(Answer::shed)?;
    let now = receiver.worker.clock.monotonic();
    let tenant = settings.tenants.as_deref();
    let tenant = tenant.map(|all| (all, all.of(headers, now)));
    let tenant = tenant.as_ref().map(|(all, tenant)| (*all, &**tenant));
    let tap = receiver.stats.tap();
    let request = append::Incoming {
        compressed,
        claimed,
        message,
        encoding,
        series_max: options.series_max,
        context: append::Context {
            labels: options.labels,
            tenant,
            now,
            tap: tap.is_on().then_some(tap),
        },
    };
    match appender.append(request, (&mut *paths, &mut *route), positions) {
        Ok(()) => {}
        Err(Failure::Compression(refused)) => return Err(refuse(refused)),
        Err(Failure::Malformed(malformed)) => return Err(Answer::malformed(malformed)),
        Err(Failure::TooFast(too_fast)) => return Err(Answer::too_fast(tenant, too_fast)),
        Err(Failure::TooManySeries(count)) => {
            return Err(Answer::too_many_series(count, options.series_max));
        }
        Err(Failure::Log(error)) => return Err(Answer::log(&error)),
    }
    if let Some((_, tenant)) = tenant {
        tenant.stored(appender.batch());
    }
    receiver
        .counters()
        .stored(appender.batch(), paths.ways.is_empty());
    receiver
        .counters()
        .metadata_known(appender.metadata_held_back());
    let refused = &appender.batch().refused;
    let mut answer = if refused.is_empty() {
        Answer::stored()
    } else {
        Answer::refused(refused)
    };
    if message == Message::V2 {
        answer = answer.with_written(appender.batch().written());
    }
    appender.finish();
    Ok((answer, paths.stores.clone()))
}

/// Reads away the body of a request that is refused, if that is not much: closing a connection
/// with unread bytes makes the sender's system throw our answer away.
async fn drain(receiver: &Receiver, head: &Parts, mut body: Incoming, answer: Answer) -> Answer {
    let left = body.size_hint().lower();
    let waits_for_go = head.headers.contains_key(hyper::header::EXPECT);
    if left > DRAIN_BYTES_MAX || waits_for_go {
        return answer.and_close();
    }
    let reading = async {
        let mut seen = 0u64;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                return false;
            };
            seen += frame
                .data_ref()
                .map_or(0, |data| u64::try_from(data.len()).unwrap_or(0));
            if seen > DRAIN_BYTES_MAX {
                return false;
            }
        }
        true
    };
    let read_timeout = receiver.settings().options.read_timeout;
    match tokio::time::timeout(read_timeout, reading).await {
        Ok(true) => answer,
        Ok(false) | Err(_) => answer.and_close(),
    }
}
