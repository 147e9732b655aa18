//! Turns records that were read again from a log into delivered requests, one after the other.
//!
//! The encoder, the sender and the wait rule of a shard, without queues, positions and statistics: a
//! replay acknowledges nothing in the store.
//!
//! # Failure
//! - A request that may still be taken is repeated for ever, with backoff, as by a shard.
//! - A refusal is the caller's to judge; the batch is not divided.

use std::sync::Arc;

use bytes::Bytes;
use wal::{Sample, SeriesRef, SharedClock};

use crate::ack::FrameNumber;
use crate::backoff::Backoff;
use crate::batch::{Batch, OwnedRecord, RAW_BYTES_MAX};
use crate::encode::{Encoder, RemoteWriteV1};
use crate::error::Error;
use crate::metadata::MetadataCache;
use crate::options::EndpointOptions;
use crate::outcome::Outcome;
use crate::outgoing::{OUTGOING_BYTES_MAX, OutgoingLabels};
use crate::send::{Body, Sender};
use crate::stats::Counts;

/// Sends batches to one endpoint.
pub struct Replay {
    sender: Sender,
    encoder: Encoder,
    outgoing: OutgoingLabels,
    backoff: Backoff,
    batch: Batch,
    batch_records_max: usize,
}

impl std::fmt::Debug for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replay")
            .field("batch", &self.batch)
            .finish_non_exhaustive()
    }
}

/// What became of a batch.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Replayed {
    /// Records the endpoint has taken, or refused.
    pub sent: Counts,
    /// Records that the protocol cannot carry.
    pub left_out: Counts,
    /// The endpoint's answer, if that was no.
    pub refused: Option<String>,
}

impl Replay {
    /// A replay to an endpoint.
    ///
    /// # Errors
    /// [`Error::Option`] for arguments that are not valid, [`Error::Client`] if TLS cannot be set up.
    pub fn new(options: EndpointOptions, clock: SharedClock) -> Result<Self, Error> {
        let resolved = options.resolve()?;
        let queue = &resolved.options.queue;
        Ok(Self {
            sender: Sender::new(&resolved, 1, clock)?,
            backoff: Backoff::new(queue.min_backoff, queue.max_backoff),
            batch_records_max: queue.max_samples_per_send,
            encoder: Encoder::new(
                resolved.options.protobuf_message,
                RemoteWriteV1::new(),
                Arc::new(MetadataCache::default()),
            ),
            outgoing: OutgoingLabels::new(resolved.outgoing, OUTGOING_BYTES_MAX),
            batch: Batch::default(),
        })
    }

    /// Whether the batch must be sent before more is pushed.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.room() == 0 || self.batch.raw_bytes() >= RAW_BYTES_MAX
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batch.records() == 0
    }

    fn room(&self) -> usize {
        self.batch_records_max.saturating_sub(self.batch.records())
    }

    /// Takes the first of these samples, as many as there is room for; answers with the others.
    #[must_use]
    pub fn push_samples<'s>(&mut self, samples: &'s [Sample]) -> &'s [Sample] {
        let (now, later) = samples.split_at(samples.len().min(self.room()));
        (self.batch).push(FrameNumber::new(0), &[now], std::iter::empty());
        later
    }

    /// Takes a record that is its message.
    pub fn push_record(&mut self, record: OwnedRecord) {
        (self.batch).push(FrameNumber::new(0), &[], std::iter::once(record));
    }

    /// Sends what was pushed until the endpoint has decided, and forgets it. `retrying` is told why
    /// an attempt did not get through.
    pub async fn send<'a>(
        &mut self,
        labels: impl Fn(SeriesRef) -> &'a [u8],
        mut retrying: impl FnMut(&str),
    ) -> Replayed {
        let batch = std::mem::take(&mut self.batch);
        let mut replayed = Replayed::default();
        // refs are found again within a batch only: what they name is the caller's
        self.outgoing.clear();
        let outgoing = &self.outgoing;
        let labels = |one: SeriesRef| outgoing.labels(u64::from(one.get()), labels(one));
        let encoded = match self.encoder.encode(&batch, labels) {
            Ok(encoded) => encoded,
            Err(error) => {
                replayed.sent = batch.counts();
                replayed.refused = Some(error.to_string());
                return replayed;
            }
        };
        replayed.sent = encoded.sent;
        for left_out in encoded.left_out {
            replayed.left_out += left_out.counts;
        }
        if encoded.sent.total() == 0 {
            return replayed;
        }
        let (bytes, sent) = (Bytes::copy_from_slice(encoded.body), encoded.sent);
        let body = Body {
            bytes,
            message: self.encoder.message(),
            sent,
        };
        for attempt in 0.. {
            let result = self.sender.send(&body, attempt).await;
            match result.outcome {
                Outcome::Ack => break,
                Outcome::Reject { .. } => {
                    replayed.refused = Some(result.detail);
                    break;
                }
                // Somebody is there who can put it right and begin again.
                Outcome::Retry { .. } if result.is_about_us => {
                    replayed.refused = Some(result.detail);
                    break;
                }
                Outcome::Retry { after } => {
                    retrying(&result.detail);
                    let delay = self.backoff.after_failure(after, fastrand::f64());
                    tokio::time::sleep(delay).await;
                }
            }
        }
        self.backoff.reset();
        replayed
    }
}
