//! Turns the queue of one shard into delivered batches.
//!
//! The main path is [`Worker::run`]: wait for a batch, encode it, send it until the endpoint has
//! decided, tell the ack window. One worker also carries the metadata, which has requests of its
//! own in remote write 1.0.
//!
//! # Invariants
//! - One request in flight, and a batch is repeated until it is decided before anything newer goes
//!   out: order per series.
//! - A refusal that may be the fault of a part is narrowed down to it (see [`Worker::divide`]), unless
//!   the answer says that the rest is written: that is not sent again.
//! - The ack window hears of a batch after its outcome, never before; a worker that is dropped has
//!   acked nothing that was not decided.
//!
//! # Limits
//! - An idle shard sends what it has as soon as [`SEND_GAP`] (or the batch deadline, if shorter) has
//!   passed since its last request began: fresh, yet at most a hundred small requests per second.
//!   A busy shard's queue fills meanwhile, so it batches by itself.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::SemaphorePermit;
use tokio::time::Instant;
use wal::{DropReason, SharedClock};

use crate::ack::Acks;
use crate::age::{AgeLimit, take_older};
use crate::backoff::Backoff;
use crate::batch::Batch;
use crate::drain::Drain;
use crate::encode::{Encoder, LeftOut};
use crate::health::Health;
use crate::lanes::Lane;
use crate::metadata::MetadataCache;
use crate::options::ProtobufMessage;
use crate::outcome::{Attempt, Outcome};
use crate::outgoing::OutgoingLabels;
use crate::queue::{Level, Queue};
use crate::rejected::{Refusal, Rejected};
use crate::report::Reporter;
use crate::send::{Body, Sender};
use crate::stats::{Counts, Stats};

/// Between the starts of two small requests of one shard.
pub(crate) const SEND_GAP: Duration = Duration::from_millis(10);

/// After so many batches refused record by record, the rest is likely to be refused too.
const FUTILE_BATCHES: u32 = 8;
/// Into how many parts a batch is cut then.
const FUTILE_PARTS: usize = 16;

/// A request that is given up may still be answered so long: then it is known what became of it.
const ANSWER_GRACE: Duration = Duration::from_secs(2);

/// What all workers of an endpoint have in common.
pub(crate) struct Shared {
    pub(crate) store: wal::Store,
    pub(crate) sender: Sender,
    pub(crate) acks: Acks,
    pub(crate) stats: Arc<Stats>,
    pub(crate) reporter: Reporter,
    pub(crate) rejected: Rejected,
    pub(crate) health: Health,
    pub(crate) drain: Drain,
    pub(crate) age: AgeLimit,
    pub(crate) clock: SharedClock,
    pub(crate) metadata: Arc<MetadataCache>,
    /// Requests hold remote write 2.0. Becomes false once, when the endpoint does not know it.
    pub(crate) is_v2: AtomicBool,
    /// Whether it may.
    pub(crate) falls_back: bool,
}

impl Shared {
    /// The message requests hold now.
    pub(crate) fn message(&self) -> ProtobufMessage {
        if self.is_v2.load(Relaxed) {
            ProtobufMessage::V2
        } else {
            ProtobufMessage::V1
        }
    }

    /// Remote write 1.0 from now on, for all shards; said once.
    fn fall_back(&self, answer: &str) {
        if self.is_v2.swap(false, Relaxed) {
            self.reporter.fell_back(answer);
        }
    }

    /// Sends once; no answer if the batch is given up meanwhile and does not get one soon.
    async fn send(&self, batch: &Batch, body: &Body, attempt: u64) -> Option<Attempt> {
        let mut sending = pin!(self.sender.send(body, attempt));
        tokio::select! {
            biased;
            result = &mut sending => Some(result),
            () = self.gives_up(batch) => tokio::time::timeout(ANSWER_GRACE, sending).await.ok(),
        }
    }

    /// Keeps a dead letter of what was refused for good, and tells the operator.
    fn refused(&self, batch: &Batch, refused: &Refused, records: u64) {
        let refusal = Refusal {
            time_ms: self.clock.unix_ms(),
            reason: &refused.reason,
            answer: &refused.detail,
            batch,
        };
        let series = self.store.series().guard();
        let now = self.clock.monotonic();
        let (written, named) = self.rejected.write(now, &refusal, |one| series.labels(one));
        self.reporter
            .rejected(now, &refusal, records, named.as_deref());
        if let Err(error) = written {
            self.reporter.no_letter(now, &error);
        }
    }

    /// An attempt failed and goes again.
    fn failed(&self, detail: &str) {
        self.health.failed();
        self.reporter.retrying(self.clock.monotonic(), detail);
    }

    /// Waits until a request of so many bytes may go out. False if some of `batch` is given up before.
    async fn may_send(&self, batch: &Batch, bytes: usize) -> bool {
        let lag = self.lag(batch);
        let delay = self.drain.delay(self.clock.monotonic(), bytes, lag);
        if delay.is_zero() {
            return true;
        }
        tokio::select! {
            biased;
            () = self.gives_up(batch) => false,
            () = tokio::time::sleep(delay) => true,
        }
    }

    /// How far the lane of `batch` is behind.
    fn lag(&self, batch: &Batch) -> Duration {
        let lane = batch.frames().next().map_or(Lane::FIRST, Lane::of);
        self.stats.lag(lane, self.clock.unix_ms())
    }

    /// Waits for as long as a failure asks for, and until it is the shard's turn.
    async fn wait_to_retry(
        &self,
        delay: Duration,
        spread: Duration,
    ) -> Option<SemaphorePermit<'_>> {
        tokio::time::sleep(delay).await;
        self.health.turn(fastrand::f64(), spread).await
    }

    /// Waits until something of `batch` is given up.
    async fn gives_up(&self, batch: &Batch) {
        let mut news = self.acks.give_ups();
        while self.acks.given_up(&batch.runs).is_none() {
            if news.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// The log has lost records before they could be sent; of what kind they were is not known.
    pub(crate) fn lost(&self, tally: &wal::Tally) {
        for reason in DropReason::ALL {
            let records = usize::try_from(tally.dropped(reason)).unwrap_or(usize::MAX);
            self.stats.dropped(reason, Counts::of_samples(records));
        }
    }
}

/// The worker of one shard.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    encoder: Encoder,
    outgoing: OutgoingLabels,
    backoff: Backoff,
    gap: Duration,
    batch: Batch,
    last_start: Option<Instant>,
    /// To be waited before the next request.
    rest: Duration,
    /// Batches in a row of which every record was refused.
    futile: u32,
}

impl Worker {
    pub(crate) fn new(
        shared: Arc<Shared>,
        queue: Arc<Queue>,
        (encoder, outgoing): (Encoder, OutgoingLabels),
        backoff: Backoff,
        batch_send_deadline: Duration,
    ) -> Self {
        let gap = SEND_GAP.min(batch_send_deadline);
        Self {
            shared,
            queue,
            encoder,
            outgoing,
            backoff,
            gap,
            batch: Batch::default(),
            last_start: None,
            rest: Duration::ZERO,
            futile: 0,
        }
    }

    /// Delivers until the queue is closed and empty.
    pub(crate) async fn run(mut self) {
        while self.next_batch().await {
            let mut batch = std::mem::take(&mut self.batch);
            self.drop_given_up(&mut batch);
            self.drop_too_old(&mut batch);
            while batch.records() > 0 {
                let delivery = self.deliver(&mut batch).await;
                if delivery.given_up {
                    self.drop_given_up(&mut batch);
                } else if delivery.is_divisible() && batch.records() > 1 {
                    self.divide(std::mem::take(&mut batch)).await;
                } else {
                    if delivery.is_accepted() {
                        self.futile = 0;
                    }
                    self.finish(&batch, &delivery);
                    batch.clear();
                }
            }
            self.batch = batch;
        }
    }

    /// Leaves out what the endpoint is not to get any more.
    fn drop_given_up(&self, batch: &mut Batch) {
        if let Some((records, reason)) = self.shared.acks.given_up(&batch.runs) {
            let rest = batch.split_off(records);
            let delivery = Delivery::dropped(reason, batch.counts());
            self.finish(batch, &delivery);
            *batch = rest;
        }
    }

    /// Leaves out what is older than the endpoint wants it. Says whether there was anything.
    fn drop_too_old(&self, batch: &mut Batch) -> bool {
        let Some(older) = take_older(batch, self.shared.age.oldest_ms()) else {
            return false;
        };
        self.finish(
            &older,
            &Delivery::dropped(DropReason::TooOld, older.counts()),
        );
        true
    }

    /// Delivers what is innocent in a refused batch: part by part, in order, each cut in halves for
    /// as long as it is refused.
    ///
    /// An endpoint that keeps refusing everything ([`FUTILE_BATCHES`] record by record) is trusted
    /// less: a part is given up when it is refused and so is its last record alone. Otherwise it
    /// would take a request per record, fall behind for ever and fill the disk for all. Not so for
    /// what was in the log before the endpoint was started: after a crash much of that goes out
    /// again, receivers that take nothing twice refuse it, and what is new hides among it.
    async fn divide(&mut self, mut batch: Batch) {
        let futile = self.futile >= FUTILE_BATCHES && self.shared.acks.are_fresh(batch.frames());
        let count = if futile { FUTILE_PARTS } else { 2 };
        let mut parts = Vec::new();
        for left in (2..=count).rev() {
            let records = batch.records();
            parts.push(batch.split_off(records - records.div_ceil(left)));
        }
        parts.push(batch);
        let mut accepted = false;
        while let Some(mut part) = parts.pop() {
            let delivery = self.deliver(&mut part).await;
            if delivery.given_up {
                self.drop_given_up(&mut part);
                if part.records() > 0 {
                    parts.push(part);
                }
                continue;
            }
            let records = part.records();
            if !delivery.is_divisible() || records <= 1 {
                accepted |= delivery.is_accepted();
                self.finish(&part, &delivery);
                continue;
            }
            if futile && !accepted && part.last_series_is_single() {
                let mut last = part.split_off(records - 1);
                let alone = self.deliver(&mut last).await;
                if alone.given_up || last.records() == 0 {
                    // Too old by now; or undecided, and what is before it is given up too: both
                    // are looked at anew.
                    parts.extend([last, part]);
                    continue;
                }
                accepted = alone.is_accepted();
                self.finish(&last, &alone);
                if !accepted {
                    self.finish(&part, &delivery.for_rest(part.counts()));
                    continue;
                }
            }
            let rest = part.split_off(part.records() / 2);
            parts.push(rest);
            parts.push(part);
        }
        self.futile = if accepted {
            0
        } else {
            self.futile.saturating_add(1)
        };
    }

    /// A batch, or a part of one, has come to its end.
    fn finish(&self, batch: &Batch, delivery: &Delivery) {
        debug_assert!(!delivery.given_up, "what is undecided has no end yet");
        let Shared { stats, acks, .. } = &*self.shared;
        for left in &delivery.left_out {
            stats.dropped(left.reason, left.counts);
        }
        if let Some(reason) = delivery.dropped {
            stats.dropped(reason, delivery.sent);
        }
        if let Some(refused) = &delivery.refused {
            let failed = delivery.sent.without(delivery.written);
            self.shared.refused(batch, refused, failed.total());
            stats.rejected(&refused.reason, failed);
        }
        stats.finished(batch.counts(), batch.highest_timestamp_ms());
        let written = delivery.written.total();
        let done = batch.done(&delivery.left_out, delivery.verdict(), written);
        acks.done(&done, stats);
    }

    /// Waits for a batch that is full, or old enough. False when there will be none any more.
    async fn next_batch(&mut self) -> bool {
        let rest = std::mem::take(&mut self.rest);
        if !rest.is_zero() {
            tokio::time::sleep(rest).await;
        }
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
                        biased;
                        () = tokio::time::sleep_until(due) => {}
                        () = self.queue.arrived() => {}
                    }
                }
            }
        }
        self.queue.take(&mut self.batch);
        true
    }

    /// Encodes `batch`; without a body where there is nothing to send.
    fn encode(&mut self, batch: &Batch) -> (Option<Body>, Delivery) {
        if self.shared.message() != self.encoder.message() {
            self.encoder.fall_back();
        }
        let message = self.encoder.message();
        let table = self.shared.store.series();
        let series = table.guard();
        self.encoder.set_generation(table.generation());
        self.outgoing.begin();
        let labels = |one| self.outgoing.of(&series, one);
        let encoded = match self.encoder.encode(batch, labels) {
            Ok(encoded) => encoded,
            Err(error) => {
                let counts = batch.counts();
                tracing::error!(%error, records = counts.total(), "batch cannot be encoded");
                return (None, Delivery::dropped(DropReason::TooLarge, counts));
            }
        };
        let delivery = Delivery::of(encoded.sent, encoded.left_out.to_vec());
        // an own copy of the compressed bytes, as repeating a request shares them with the client
        let body = (encoded.sent.total() > 0).then(|| Body {
            bytes: Bytes::copy_from_slice(encoded.body),
            message,
            sent: encoded.sent,
        });
        (body, delivery)
    }

    /// Delivers `batch` as the message that the endpoint knows; it is empty afterwards if all of it
    /// became too old.
    async fn deliver(&mut self, batch: &mut Batch) -> Delivery {
        loop {
            let delivery = self.deliver_encoded(batch).await;
            match &delivery.refused {
                Some(no) if no.is_unsupported && self.shared.falls_back && self.is_v2() => {
                    self.shared.fall_back(&no.detail);
                }
                _ => return delivery,
            }
        }
    }

    /// Whether what was encoded last is remote write 2.0.
    fn is_v2(&self) -> bool {
        self.encoder.message() == ProtobufMessage::V2
    }

    /// Sends `batch` until the endpoint has decided, or it is empty as all of it became too old.
    async fn deliver_encoded(&mut self, batch: &mut Batch) -> Delivery {
        let (body, mut delivery) = self.encode(batch);
        let Some(mut body) = body else {
            return delivery;
        };
        let shared = Arc::clone(&self.shared);
        let Shared {
            stats,
            health,
            clock,
            ..
        } = &*shared;
        if !shared.may_send(batch, body.bytes.len()).await {
            delivery.given_up = true;
            return delivery;
        }
        self.last_start = Some(Instant::now());
        let mut turn = None;
        for attempt in 0.. {
            let start = clock.monotonic();
            let Some(result) = shared.send(batch, &body, attempt).await else {
                delivery.given_up = true;
                break;
            };
            let took = clock.monotonic().saturating_sub(start);
            stats.attempted(took);
            match result.outcome {
                Outcome::Ack => {
                    self.accepted(delivery.sent, body.bytes.len(), took);
                    break;
                }
                Outcome::Reject { reason, divisible } => {
                    health.answered();
                    if let Some(written) = result.written.filter(|some| some.total() > 0) {
                        stats.acked(written, body.bytes.len(), clock.unix_ms());
                        delivery.written = written;
                    }
                    delivery.refused = Some(Refused {
                        reason,
                        divisible,
                        is_unsupported: result.is_unsupported,
                        detail: result.detail,
                    });
                    break;
                }
                Outcome::Retry { after } => {
                    drop(turn.take());
                    shared.failed(&result.detail);
                    let Some(next) = self.back_off(&shared, batch, after).await else {
                        delivery.given_up = true;
                        break;
                    };
                    turn = next;
                    if self.drop_too_old(batch) {
                        let (rest, of_rest) = self.encode(batch);
                        delivery = of_rest;
                        let Some(rest) = rest else {
                            return delivery;
                        };
                        body = rest;
                    }
                    stats.retried(delivery.sent);
                }
            }
        }
        drop(turn);
        self.backoff.reset();
        delivery
    }

    /// The endpoint has taken a request of so many bytes, in so long.
    fn accepted(&mut self, sent: Counts, bytes: usize, took: Duration) {
        let Shared {
            stats,
            reporter,
            health,
            drain,
            clock,
            ..
        } = &*self.shared;
        health.answered();
        reporter.succeeded(clock.monotonic());
        stats.acked(sent, bytes, clock.unix_ms());
        self.rest = drain.rest(took, self.shared.lag(&self.batch));
    }

    /// Waits until the shard may try again; its turn, if it has to have one. None if some of `batch` is
    /// given up before.
    async fn back_off<'s>(
        &mut self,
        shared: &'s Shared,
        batch: &Batch,
        after: Option<Duration>,
    ) -> Option<Option<SemaphorePermit<'s>>> {
        let delay = self.backoff.after_failure(after, fastrand::f64());
        let spread = self.backoff.longest();
        let _waiting = shared.stats.backing_off(delay);
        tokio::select! {
            biased;
            () = shared.gives_up(batch) => None,
            turn = shared.wait_to_retry(delay, spread) => Some(turn),
        }
    }
}

/// What became of a batch at the endpoint.
struct Delivery {
    /// Records that were in the request, or would have been.
    sent: Counts,
    left_out: Vec<LeftOut>,
    /// Why what was not left out was not sent either.
    dropped: Option<DropReason>,
    refused: Option<Refused>,
    /// Records that the endpoint has although it refuses the request.
    written: Counts,
    /// Undecided: some of it is not to be sent any more.
    given_up: bool,
}

/// The endpoint's no.
struct Refused {
    reason: String,
    divisible: bool,
    /// It does not know the message.
    is_unsupported: bool,
    detail: String,
}

impl Delivery {
    const fn of(sent: Counts, left_out: Vec<LeftOut>) -> Self {
        Self {
            sent,
            left_out,
            dropped: None,
            refused: None,
            written: Counts {
                samples: 0,
                exemplars: 0,
                histograms: 0,
                metadata: 0,
            },
            given_up: false,
        }
    }

    const fn dropped(reason: DropReason, counts: Counts) -> Self {
        let mut delivery = Self::of(counts, Vec::new());
        delivery.dropped = Some(reason);
        delivery
    }

    /// Why what was not left out did not reach the endpoint; none if it did.
    fn verdict(&self) -> Option<DropReason> {
        let refused = self.refused.as_ref().map(|_| DropReason::Refused);
        refused.or(self.dropped)
    }

    fn is_divisible(&self) -> bool {
        self.refused.as_ref().is_some_and(|no| no.divisible)
    }

    /// Whether the endpoint took something.
    fn is_accepted(&self) -> bool {
        self.verdict().is_none() && self.sent.total() > 0 || self.written.total() > 0
    }

    /// The same end for these records: what is left after one of them went alone.
    fn for_rest(mut self, sent: Counts) -> Self {
        self.sent = sent;
        self.left_out.clear();
        self
    }
}
