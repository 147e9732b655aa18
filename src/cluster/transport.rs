//! Turns messages into requests: a connection and a queue for each of the others.
//!
//! # Invariants
//! - Nobody waits: a slow or silent agent holds up only what is for it.
//!
//! # Failure
//! - A message that cannot be sent is lost and counted: the protocol lives with that.
//! - A connection that was open and turns out to be closed is made anew once; a restart looks like this.
//!
//! # Limits
//! - [`QUEUE_MAX`] messages wait for each of [`PEERS_MAX`] agents, [`WAITING_BYTES_MAX`] for all of them; none longer
//!   than [`STALE_AFTER`].
//! - A request takes at most [`REQUEST_WITHIN`]; without one for [`IDLE_AFTER`] its connection is closed.
//! - An answer has at most [`MESSAGE_BYTES_MAX`].

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cluster::MESSAGE_BYTES_MAX;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::SendRequest;
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, StatusCode};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use wal::SharedClock;

use super::dial::{Dial, OWN_NAME, excerpt};
use super::driver::Told;
use super::inbox::MESSAGE_PATH;
use super::numbers::Numbers;

const QUEUE_MAX: usize = 32;
const PEERS_MAX: usize = cluster::MEMBERS_MAX;
const WAITING_BYTES_MAX: usize = 16 << 20;
/// What the protocol has given up by then.
const STALE_AFTER: Duration = Duration::from_secs(3);
const REQUEST_WITHIN: Duration = Duration::from_secs(2);
/// Less than the others wait for a next request.
const IDLE_AFTER: Duration = Duration::from_secs(20);

/// What requests need.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub(super) dial: Dial,
    pub(super) told: mpsc::Sender<Told>,
    pub(super) numbers: Arc<Numbers>,
    pub(super) under_way: Arc<watch::Sender<usize>>,
    pub(super) waiting_bytes: Arc<AtomicUsize>,
    pub(super) clock: SharedClock,
    pub(super) runtime: Handle,
}

/// A message, until it is sent or lost.
#[derive(Debug)]
struct Queued {
    message: Bytes,
    since: Duration,
    under_way: Arc<watch::Sender<usize>>,
    waiting_bytes: Arc<AtomicUsize>,
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.under_way
            .send_modify(|count| *count = count.saturating_sub(1));
        let bytes = self.message.len();
        self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The queues of the others.
#[derive(Debug)]
pub(super) struct Peers {
    pub(super) outgoing: Outgoing,
    queues: HashMap<Arc<str>, mpsc::Sender<Queued>>,
}

impl Peers {
    pub(super) fn new(outgoing: Outgoing) -> Self {
        Self {
            outgoing,
            queues: HashMap::new(),
        }
    }

    /// Puts a message into the queue of `address`, or loses it.
    pub(super) fn send(&mut self, address: &Arc<str>, message: Bytes) {
        let outgoing = &self.outgoing;
        let bytes = message.len();
        let before = outgoing.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        outgoing.under_way.send_modify(|count| *count += 1);
        let queued = Queued {
            message,
            since: outgoing.clock.monotonic(),
            under_way: Arc::clone(&outgoing.under_way),
            waiting_bytes: Arc::clone(&outgoing.waiting_bytes),
        };
        let queue = self.queue(address);
        let is_sent = before + bytes <= WAITING_BYTES_MAX
            && queue.is_some_and(|queue| queue.try_send(queued).is_ok());
        if !is_sent {
            self.outgoing.numbers.sent.failed();
        }
    }

    fn queue(&mut self, address: &Arc<str>) -> Option<mpsc::Sender<Queued>> {
        if let Some(queue) = self.queues.get(address).filter(|queue| !queue.is_closed()) {
            return Some(queue.clone());
        }
        if self.queues.len() >= PEERS_MAX {
            self.queues.retain(|_, queue| !queue.is_closed());
            if self.queues.len() >= PEERS_MAX {
                return None;
            }
        }
        let (queue, messages) = mpsc::channel(QUEUE_MAX);
        let peer = Peer {
            address: Arc::clone(address),
            outgoing: self.outgoing.clone(),
            connection: None,
            is_silent: false,
        };
        self.outgoing.runtime.spawn(peer.run(messages));
        self.queues.insert(Arc::clone(address), queue.clone());
        Some(queue)
    }
}

/// One of the others.
struct Peer {
    address: Arc<str>,
    outgoing: Outgoing,
    connection: Option<SendRequest<Full<Bytes>>>,
    /// Whether the last message did not get through.
    is_silent: bool,
}

impl Peer {
    /// Sends what comes, one after the other, until nothing comes for a while.
    async fn run(mut self, mut messages: mpsc::Receiver<Queued>) {
        loop {
            match timeout(IDLE_AFTER, messages.recv()).await {
                Ok(Some(queued)) => self.deliver(&queued).await,
                Ok(None) => return,
                // What has just come is still sent.
                Err(_) => messages.close(),
            }
        }
    }

    async fn deliver(&mut self, queued: &Queued) {
        let numbers = Arc::clone(&self.outgoing.numbers);
        let age = self.outgoing.clock.monotonic().saturating_sub(queued.since);
        if age > STALE_AFTER {
            numbers.sent.failed();
            return;
        }
        match timeout(REQUEST_WITHIN, self.exchange(&queued.message)).await {
            Ok(Ok(answer)) => {
                numbers.sent.passed(queued.message.len());
                self.is_silent = false;
                if !answer.is_empty() {
                    let from = Arc::clone(&self.address);
                    // Fails when nobody is interested any more.
                    drop(self.outgoing.told.send(Told::Answered(from, answer)).await);
                }
            }
            Ok(Err(error)) => self.failed(&format!("{error:#}")),
            Err(_) => self.failed("no answer in time"),
        }
    }

    fn failed(&mut self, error: &str) {
        self.connection = None;
        self.outgoing.numbers.sent.failed();
        // Those that are gone are tried again and again.
        if !std::mem::replace(&mut self.is_silent, true) {
            tracing::warn!(address = %self.address, error, "an agent of the cluster cannot be reached");
        }
    }

    /// Sends a message; what is answered.
    async fn exchange(&mut self, message: &Bytes) -> anyhow::Result<Bytes> {
        if let Some(mut open) = self.connection.take()
            && open.ready().await.is_ok()
            && let Ok(answer) = self.request(&mut open, message).await
        {
            self.connection = Some(open);
            return answer;
        }
        let mut fresh = self.outgoing.dial.connect(&self.address).await?;
        let answer = self.request(&mut fresh, message).await;
        self.connection = Some(fresh);
        answer?
    }

    /// The outer error is that of the connection, the inner one what is wrong with the answer.
    async fn request(
        &self,
        connection: &mut SendRequest<Full<Bytes>>,
        message: &Bytes,
    ) -> anyhow::Result<anyhow::Result<Bytes>> {
        let request = Request::post(MESSAGE_PATH)
            .header(HOST, &*self.address)
            .header(USER_AGENT, OWN_NAME)
            .header(CONTENT_TYPE, "application/octet-stream")
            .body(Full::new(message.clone()))?;
        let answer = connection.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MESSAGE_BYTES_MAX)
            .collect()
            .await;
        let body = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
        Ok(match status {
            StatusCode::OK | StatusCode::NO_CONTENT | StatusCode::CONFLICT => Ok(body),
            status => Err(anyhow::anyhow!("it answers {status}{}", excerpt(&body))),
        })
    }
}
