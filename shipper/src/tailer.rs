//! Turns frames of the log into records in the queues of the shards.
//!
//! The main path is [`Tailer::run`]: read a frame, route its records, open it in the ack window,
//! push its parts; wait for room or for new frames.
//!
//! # Invariants
//! - Frames are opened in log order and pushed whole before the next is read.
//! - A frame is opened before any of its records can be done.
//!
//! # Failure
//! - A frame that passes its checksum and still does not decode is counted as dropped (`corrupt`):
//!   it would not decode later either.
//! - Other read errors are repeated every [`READ_RETRY`]; a poisoned or closed log ends the tailer.
//! - Dropped anywhere (stop), it leaves queued what is queued; the rest is on disk and not acked.
//!
//! # Limits
//! - Holds one frame. A full queue holds up the whole endpoint, and no other.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use wal::{DropReason, Frame, Position, RawRecords, RecordKind, Sample, SeriesGuard, Store, Tally};

use crate::ack::TailedFrame;
use crate::batch::OwnedRecord;
use crate::metadata::MetadataCache;
use crate::options::{EndpointOptions, ProtobufMessage};
use crate::queue::{Queue, Routed};
use crate::shard::Shared;
use crate::shard_map::ShardMap;
use crate::stats::{Counts, Stats};
use crate::wire::len_u64;

/// Between two tries to read what could not be read.
const READ_RETRY: Duration = Duration::from_secs(5);

/// The queues of an endpoint: one per shard and, last, the one for metadata. Closed when the
/// tailer ends, however it ends.
pub(crate) struct Lanes {
    queues: Vec<Arc<Queue>>,
    room: Arc<Notify>,
}

impl Lanes {
    pub(crate) fn new(queues: Vec<Arc<Queue>>, room: Arc<Notify>) -> Self {
        debug_assert!(queues.len() >= 2, "a shard and the metadata");
        Self { queues, room }
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        for queue in &self.queues {
            queue.close();
        }
    }
}

/// Which records an endpoint gets.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    exemplars: bool,
    histograms: bool,
    metadata: bool,
}

impl Wanted {
    const fn takes(self, kind: RecordKind) -> bool {
        match kind {
            RecordKind::Exemplar => self.exemplars,
            RecordKind::Histogram => self.histograms,
            RecordKind::Metadata => self.metadata,
            RecordKind::StartedSample => true,
        }
    }
}

/// The tailer of one endpoint.
pub(crate) struct Tailer {
    shared: Arc<Shared>,
    tail: wal::Tail,
    durable: wal::Durable,
    router: Router,
    lanes: Lanes,
}

impl Tailer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        tail: wal::Tail,
        lanes: Lanes,
        map: ShardMap,
        options: &EndpointOptions,
    ) -> Self {
        let wanted = Wanted {
            exemplars: options.send_exemplars,
            histograms: options.send_native_histograms,
            metadata: options.metadata.send,
        };
        let durable = shared.store.durable();
        let routed = lanes.queues.iter().map(|_| Routed::default()).collect();
        let router = Router {
            map,
            wanted,
            metadata: Arc::clone(&shared.metadata),
            scratch: Vec::new(),
            routed,
        };
        Self {
            shared,
            tail,
            durable,
            router,
            lanes,
        }
    }

    /// Routes frames until the log is closed or poisoned.
    pub(crate) async fn run(mut self) {
        loop {
            match self.read() {
                Ok(Some(frame)) => self.push(frame).await,
                Ok(None) => {
                    let lost = self.tail.take_lost();
                    self.shared.lost(&lost);
                    self.shared
                        .acks
                        .passed(self.tail.mark(), lost, &self.shared.stats);
                    if let Err(error) = self.durable.changed_past(self.tail.position()).await {
                        tracing::debug!(%error, "the log has ended");
                        return;
                    }
                }
                Err(error) => {
                    let position = self.tail.position().get();
                    tracing::error!(%error, position, "the log cannot be read");
                    if error.is_poisoned() {
                        return;
                    }
                    tokio::time::sleep(READ_RETRY).await;
                }
            }
            // with room in the queues nothing else here gives way to other endpoints
            tokio::task::consume_budget().await;
        }
    }

    /// Reads and routes the next frame, if there is one.
    fn read(&mut self) -> Result<Option<TailedFrame>, wal::Error> {
        let Some(frame) = self.tail.next()? else {
            return Ok(None);
        };
        let Shared { store, stats, .. } = &*self.shared;
        let begin = frame.begin_mark();
        let message = self.shared.message();
        let routed = self.router.route(&frame, store, (stats, message));
        let lost = self.tail.take_lost();
        if lost.total() > 0 {
            // At once, not with the frame: what is given up must not wait for an endpoint that is
            // away.
            self.shared.lost(&lost);
            self.shared.acks.passed(begin, lost, stats);
        }
        Ok(Some(routed))
    }

    /// Opens the frame and moves what was routed into the queues.
    async fn push(&mut self, frame: TailedFrame) {
        let number = self.shared.acks.open(frame, &self.shared.stats);
        loop {
            let mut all = true;
            for (queue, routed) in self.lanes.queues.iter().zip(&mut self.router.routed) {
                all &= queue.push(number, routed);
            }
            if all {
                return;
            }
            self.shared.stats.queue_full();
            self.lanes.room.notified().await;
        }
    }
}

/// Splits a frame by shard.
struct Router {
    map: ShardMap,
    wanted: Wanted,
    metadata: Arc<MetadataCache>,
    scratch: Vec<Sample>,
    /// Like the queues: one per shard and the metadata's.
    routed: Vec<Routed>,
}

impl Router {
    /// Routes the records of `frame`; says how many there are to send.
    fn route(
        &mut self,
        frame: &Frame<'_>,
        store: &Store,
        (stats, message): (&Stats, ProtobufMessage),
    ) -> TailedFrame {
        debug_assert!(self.routed.iter().all(|routed| routed.records() == 0));
        let mut counts = Counts::default();
        let mut tally = Tally::default();
        self.scratch.clear();
        let highest_ms = match frame.samples(&mut self.scratch) {
            Ok(records) => {
                let plain_ms = self.route_samples(store);
                let (position, series) = (frame.position(), store.series().guard());
                let (switched_off, known) =
                    self.route_records(position, records, (message, &series));
                stats.dropped(DropReason::SwitchedOff, switched_off);
                tally.drop(DropReason::SwitchedOff, switched_off.total());
                tally.delivered += known;
                plain_ms.max(self.highest_started_ms())
            }
            Err(error) => {
                report_corrupt(frame.position(), &error);
                None
            }
        };
        for routed in &self.routed {
            counts += Counts::of_samples(routed.samples.len());
            for record in &routed.raw {
                counts.add_record(record.kind);
            }
        }
        let records = self.routed.iter().map(Routed::records).sum();
        // Of what kind the unreadable ones are is not known.
        let of_frame = frame.sample_count() + frame.raw_count() - records;
        let corrupt = of_frame - usize::try_from(tally.total()).unwrap_or(of_frame);
        stats.dropped(DropReason::CorruptFrame, Counts::of_samples(corrupt));
        tally.drop(DropReason::CorruptFrame, len_u64(corrupt));
        stats.tailed(counts, highest_ms);
        TailedFrame {
            end: frame.end_mark(),
            appended_ms: frame.appended_ms(),
            records,
            tally,
        }
    }

    /// Routes the decoded samples; returns the newest timestamp.
    fn route_samples(&mut self, store: &Store) -> Option<i64> {
        let mut highest_ms = i64::MIN;
        let series = store.series().guard();
        for sample in &self.scratch {
            highest_ms = highest_ms.max(sample.timestamp_ms);
            let shard = self.map.shard(sample.series, |one| series.labels(one));
            self.routed[shard].samples.push_back(*sample);
        }
        (!self.scratch.is_empty()).then_some(highest_ms)
    }

    /// The newest timestamp of the routed samples that have a start timestamp.
    fn highest_started_ms(&self) -> Option<i64> {
        let raw = self.routed.iter().flat_map(|routed| &routed.raw);
        raw.filter_map(OwnedRecord::started_ms).max()
    }

    /// Routes everything else; answers what is switched off, and how much metadata needs no request
    /// of its own: it is known, or goes with the series.
    fn route_records(
        &mut self,
        position: Position,
        records: RawRecords<'_>,
        (message, series): (ProtobufMessage, &SeriesGuard<'_>),
    ) -> (Counts, u64) {
        let mut switched_off = Counts::default();
        let mut known = 0;
        for record in records {
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    report_corrupt(position, &error);
                    break;
                }
            };
            if !self.wanted.takes(record.kind) {
                switched_off.add_record(record.kind);
                continue;
            }
            if record.kind == RecordKind::Metadata {
                let is_new = self.metadata.learn(record.bytes);
                if !is_new || message == ProtobufMessage::V2 {
                    known += 1;
                    continue;
                }
            }
            let lane = match record.kind {
                RecordKind::Metadata => self.routed.len() - 1,
                _ => self.map.shard(record.series, |one| series.labels(one)),
            };
            let owned = OwnedRecord {
                series: record.series,
                kind: record.kind,
                bytes: record.bytes.into(),
            };
            self.routed[lane].raw.push_back(owned);
        }
        (switched_off, known)
    }
}

fn report_corrupt(position: Position, error: &wal::Error) {
    tracing::error!(%error, position = position.get(), "a frame cannot be decoded");
}
