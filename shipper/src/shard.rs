//! Turns the queue of one shard into delivered batches.
//!
//! The main path is [`Worker::run`]: wait for a batch, encode it, send it until the endpoint has
//! decided, tell the ack window. One worker also carries the metadata, which has requests of its
//! own in remote write 1.0.
//!
//! # Invariants
//! - One request in flight, and a batch is repeated until it is decided before anything newer goes
//!   out: order per series.
//! - The ack window hears of a batch after its outcome, never before; a worker that is dropped has
//!   acked nothing that was not decided.
//!
//! # Limits
//! - An idle shard sends what it has as soon as [`SEND_GAP`] (or the batch deadline, if shorter) has
//!   passed since its last request began: fresh, yet at most a hundred small requests per second.
//!   A busy shard's queue fills meanwhile, so it batches by itself.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use wal::SharedClock;

use crate::ack::Acks;
use crate::backoff::Backoff;
use crate::batch::Batch;
use crate::encode::{Encoded, RemoteWriteV1};
use crate::outcome::Outcome;
use crate::queue::{Level, Queue};
use crate::report::Reporter;
use crate::send::Sender;
use crate::stats::{Counts, DropReason, Stats};

/// Between the starts of two small requests of one shard.
pub(crate) const SEND_GAP: Duration = Duration::from_millis(10);

/// What all workers of an endpoint have in common.
pub(crate) struct Shared {
    pub(crate) store: wal::Store,
    pub(crate) sender: Sender,
    pub(crate) acks: Acks,
    pub(crate) stats: Arc<Stats>,
    pub(crate) reporter: Reporter,
    pub(crate) clock: SharedClock,
}

/// The worker of one shard.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    encoder: RemoteWriteV1,
    backoff: Backoff,
    gap: Duration,
    batch: Batch,
    last_start: Option<Instant>,
}

impl Worker {
    pub(crate) fn new(
        shared: Arc<Shared>,
        queue: Arc<Queue>,
        encoder: RemoteWriteV1,
        backoff: Backoff,
        batch_send_deadline: Duration,
    ) -> Self {
        let gap = SEND_GAP.min(batch_send_deadline);
        Self {
            shared,
            queue,
            encoder,
            backoff,
            gap,
            batch: Batch::default(),
            last_start: None,
        }
    }

    /// Delivers until the queue is closed and empty.
    pub(crate) async fn run(mut self) {
        while self.next_batch().await {
            let counts = self.batch.counts();
            if let Some((body, sent)) = self.encode(counts) {
                self.deliver(body, sent).await;
            }
            self.shared
                .stats
                .finished(counts, self.batch.highest_timestamp_ms());
            self.shared.acks.done(self.batch.done(), &self.shared.stats);
        }
    }

    /// Waits for a batch that is full, or old enough. False when there will be none any more.
    async fn next_batch(&mut self) -> bool {
        loop {
            match self.queue.look() {
                Level::Finished => return false,
                Level::Ready => break,
                Level::Empty => self.queue.arrived().await,
                Level::Partial => {
                    let due = self.last_start.map(|start| start + self.gap);
                    let Some(due) = due.filter(|due| *due > Instant::now()) else {
                        break;
                    };
                    tokio::select! {
                        () = tokio::time::sleep_until(due) => {}
                        () = self.queue.arrived() => {}
                    }
                }
            }
        }
        self.queue.take(&mut self.batch);
        true
    }

    /// The request body and what is in it, unless nothing is.
    fn encode(&mut self, counts: Counts) -> Option<(Bytes, Counts)> {
        let Shared { store, stats, .. } = &*self.shared;
        let encoded = match self
            .encoder
            .encode(&self.batch, |series| store.series().labels(series))
        {
            Ok(encoded) => encoded,
            Err(error) => {
                tracing::error!(%error, records = counts.total(), "batch cannot be encoded");
                stats.dropped(DropReason::TooLarge, counts);
                return None;
            }
        };
        for (reason, counts) in encoded.dropped() {
            stats.dropped(reason, counts);
        }
        let Encoded { body, sent, .. } = encoded;
        // an own copy of the compressed bytes, as repeating a request shares them with the client
        (sent.total() > 0).then(|| (Bytes::copy_from_slice(body), sent))
    }

    /// Sends `body` until the endpoint has decided.
    async fn deliver(&mut self, body: Bytes, records: Counts) {
        let Shared {
            sender,
            stats,
            reporter,
            clock,
            ..
        } = &*self.shared;
        self.last_start = Some(Instant::now());
        for attempt in 0.. {
            let start = clock.monotonic();
            let result = sender.send(body.clone(), attempt).await;
            let now = clock.monotonic();
            stats.attempted(now.saturating_sub(start));
            match result.outcome {
                Outcome::Ack => {
                    reporter.succeeded(now);
                    stats.acked(records, body.len(), clock.unix_ms());
                    break;
                }
                Outcome::Reject { reason } => {
                    reporter.rejected(now, &reason, records.total(), &result.detail);
                    stats.rejected(&reason, records);
                    break;
                }
                Outcome::Retry { after } => {
                    reporter.retrying(now, &result.detail);
                    let delay = self.backoff.after_failure(after, fastrand::f64());
                    let waiting = stats.backing_off(delay);
                    tokio::time::sleep(delay).await;
                    drop(waiting);
                    stats.retried(records);
                }
            }
        }
        self.backoff.reset();
    }
}
