//! Turns frames of the log into records in the queues of the shards.
//!
//! The main path is [`Tailer::run`]: read a frame, route its records, open it in the ack window,
//! push its parts; wait for room or for new frames. Far behind it reads many frames ahead and pushes
//! their records by series (`pack`).
//!
//! # Invariants
//! - Frames are opened in log order and pushed whole before the next is read, or the next many.
//! - A frame is opened before any of its records can be done.
//! - The number of shards changes between two frames, when everything queued is decided.
//!
//! # Failure
//! - A frame that passes its checksum and still does not decode is counted as dropped (`corrupt`):
//!   it would not decode later either.
//! - Other read errors are repeated every [`READ_RETRY`]; a poisoned or closed log ends the tailer.
//! - Dropped anywhere (stop), it leaves queued what is queued; the rest is on disk and not acked.
//!
//! # Limits
//! - Holds one frame, or one pack while behind. A full queue holds up the whole endpoint, and no other.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use wal::{DropReason, Frame, Position, RawRecords, RecordKind, Sample, Store, Tally};

use crate::ack::TailedFrame;
use crate::age::{AgeLimit, is_older};
use crate::batch::OwnedRecord;
use crate::crew::Crew;
use crate::governor::{Governor, Wish};
use crate::metadata::MetadataCache;
use crate::options::{ProtobufMessage, Resolved};
use crate::outgoing::Decisions;
use crate::pack::{PACK_FROM, Pack};
use crate::queue::Routed;
use crate::shard::Shared;
use crate::shard_map::ShardMap;
use crate::stats::{Counts, Stats};
use crate::wire::len_u64;

/// Between two tries to read what could not be read.
const READ_RETRY: Duration = Duration::from_secs(5);

/// A pack in which a series has fewer samples than this saves nothing, nor does the next one likely.
const PACK_SAMPLES_LEAST: usize = 2;
/// So many times what a pack holds is then read without.
const PACK_PAUSE: u64 = 16;

/// How an endpoint is to end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug)]
pub(crate) enum Stop {
    No,
    /// Deliver what the log holds now.
    Drain,
    AtOnce,
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
    resolved: Resolved,
    tail: wal::Tail,
    durable: wal::Durable,
    router: Router,
    crew: Crew,
    wish: Arc<Wish>,
    /// Records of the log before which no pack is worth it.
    pack_from: u64,
    /// The memory of the last pack, for the next.
    pack: Option<Pack>,
}

impl Tailer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        tail: wal::Tail,
        resolved: Resolved,
        shards: u16,
        wish: Arc<Wish>,
    ) -> Self {
        let options = &resolved.options;
        let wanted = Wanted {
            exemplars: options.send_exemplars,
            histograms: options.send_native_histograms,
            metadata: options.metadata.send,
        };
        let durable = shared.store.durable();
        let mut router = Router {
            map: ShardMap::new(shards),
            decisions: Decisions::new(Arc::clone(&resolved.outgoing)),
            age: AgeLimit::new(options.queue.sample_age_limit, &shared.clock),
            wanted,
            metadata: Arc::clone(&shared.metadata),
            scratch: Vec::new(),
            routed: Vec::new(),
        };
        router.set_shards(shards);
        Self {
            crew: Crew::start(&shared, &resolved, shards),
            shared,
            resolved,
            tail,
            durable,
            router,
            wish,
            pack_from: 0,
            pack: None,
        }
    }

    /// Ships the log until it is closed or poisoned, or to be stopped.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<Stop>) {
        let (shared, wish) = (Arc::clone(&self.shared), Arc::clone(&self.wish));
        let governor = Governor::new(shared, wish, &self.resolved.options.queue);
        let mut at_once = stop.clone();
        let delivered = tokio::select! {
            biased;
            () = told(&mut at_once, Stop::AtOnce) => false,
            () = self.ship(&mut stop) => true,
            never = governor.run() => match never {},
        };
        if !delivered {
            self.crew.abort().await;
        }
    }

    /// Routes frames until the log is closed or poisoned, or until everything it held when that was asked
    /// for is routed; and waits until that is decided.
    async fn ship(&mut self, stop: &mut watch::Receiver<Stop>) {
        let mut end = None;
        loop {
            if end.is_none() && *stop.borrow() >= Stop::Drain {
                end = Some(self.durable.position());
            }
            if end.is_some_and(|end| self.tail.position() >= end) {
                break;
            }
            if let Some(shards) = self.wish.take() {
                self.reshard(shards).await;
            }
            match self.read() {
                Ok(Some(frame)) if self.is_far_behind() => self.push_pack(frame).await,
                Ok(Some(frame)) => {
                    self.pack = None;
                    self.push(frame).await;
                }
                Ok(None) => {
                    self.pack = None;
                    let lost = self.tail.take_lost();
                    self.shared.lost(&lost);
                    let Shared { acks, stats, .. } = &*self.shared;
                    stats.set_tailed(self.tail.mark().records);
                    acks.passed(self.tail.mark(), lost, stats);
                    let more = tokio::select! {
                        more = self.durable.changed_past(self.tail.position()) => more.map(drop),
                        () = self.wish.made() => Ok(()),
                        () = told(stop, Stop::Drain), if end.is_none() => Ok(()),
                    };
                    if let Err(error) = more {
                        tracing::debug!(%error, "the log has ended");
                        break;
                    }
                }
                Err(error) => {
                    let position = self.tail.position().get();
                    tracing::error!(%error, position, "the log cannot be read");
                    if error.is_poisoned() {
                        break;
                    }
                    tokio::time::sleep(READ_RETRY).await;
                }
            }
            // with room in the queues nothing else here gives way to other endpoints
            tokio::task::consume_budget().await;
        }
        self.crew.dissolve().await;
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
            for (queue, routed) in self.crew.queues().iter().zip(&mut self.router.routed) {
                all &= queue.push(number, routed);
            }
            if all {
                return;
            }
            self.shared.stats.queue_full();
            self.crew.room().await;
        }
    }

    /// Records that a pack takes.
    const fn read_ahead(&self) -> usize {
        self.resolved.options.drain.read_ahead
    }

    /// Whether to read ahead: there is much to read, and somebody to send it to.
    fn is_far_behind(&self) -> bool {
        let read = self.tail.mark().records;
        let ahead = self.shared.store.records().saturating_sub(read);
        self.read_ahead() > 0
            && ahead >= PACK_FROM
            && read >= self.pack_from
            && self.shared.health.is_up()
    }

    /// Opens the frame and those behind it, and moves their records into the queues by series.
    async fn push_pack(&mut self, frame: TailedFrame) {
        let (lanes, records_max) = (self.router.routed.len(), self.read_ahead());
        let mut pack = (self.pack.take()).unwrap_or_else(|| Pack::new(lanes, records_max));
        let segment = self.segment_of(&frame);
        let mut next = Some(frame);
        while let Some(frame) = next.take_if(|frame| self.segment_of(frame) == segment) {
            let number = self.shared.acks.open(frame, &self.shared.stats);
            pack.add(number, &mut self.router.routed);
            if pack.is_full() {
                break;
            }
            tokio::task::consume_budget().await;
            next = self.read().unwrap_or_else(|error| {
                tracing::debug!(%error, "a pack ends before what cannot be read");
                None
            });
        }
        for lane in 0..lanes {
            pack.group(lane);
            tokio::task::yield_now().await;
        }
        if pack.samples_per_series() < PACK_SAMPLES_LEAST {
            let pause = PACK_PAUSE * len_u64(self.read_ahead());
            self.pack_from = self.tail.mark().records + pause;
        }
        loop {
            let mut all = true;
            for (queue, lane) in self.crew.queues().iter().zip(pack.lanes()) {
                all &= queue.push_packed(lane);
            }
            if all {
                break;
            }
            self.shared.stats.queue_full();
            self.crew.room().await;
        }
        pack.clear();
        self.pack = Some(pack);
        if let Some(first_of_next) = next {
            self.push(first_of_next).await;
        }
    }

    /// The segment a frame is in. A pack keeps to one: a segment that is given up is then all or nothing
    /// of what is queued, and nothing queued behind what is still wanted holds it up.
    fn segment_of(&self, frame: &TailedFrame) -> u64 {
        self.shared.store.segment_before(frame.end.position)
    }

    /// Waits until everything queued is decided and goes on with another number of shards.
    async fn reshard(&mut self, shards: u16) {
        self.crew.dissolve().await;
        self.pack = None;
        self.router.set_shards(shards);
        self.crew = Crew::start(&self.shared, &self.resolved, shards);
    }
}

/// Waits to be told to stop, at least so urgently.
async fn told(stop: &mut watch::Receiver<Stop>, at_least: Stop) {
    if stop.wait_for(|stop| *stop >= at_least).await.is_err() {
        // Whoever could tell is gone, and this task will be aborted.
        std::future::pending::<()>().await;
    }
}

/// Splits a frame by shard.
struct Router {
    map: ShardMap,
    decisions: Decisions,
    age: AgeLimit,
    wanted: Wanted,
    metadata: Arc<MetadataCache>,
    scratch: Vec<Sample>,
    /// Like the queues: one per shard and the metadata's.
    routed: Vec<Routed>,
}

impl Router {
    /// Routes to so many shards from now on; nothing is routed and not pushed.
    fn set_shards(&mut self, shards: u16) {
        self.map = ShardMap::new(shards);
        // And the metadata's.
        self.routed
            .resize_with(usize::from(shards) + 1, Routed::default);
    }

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
        // after the frame was read, or a ref in it could still mean another series
        self.decisions.begin(store.series().generation());
        let mut dropped = Dropped::default();
        let highest_ms = match frame.samples(&mut self.scratch) {
            Ok(records) => {
                let plain_ms = self.route_samples(store, &mut dropped);
                let of = (message, store);
                let known = self.route_records(frame.position(), records, of, &mut dropped);
                tally.delivered += known;
                plain_ms.max(self.highest_started_ms())
            }
            Err(error) => {
                report_corrupt(frame.position(), &error);
                None
            }
        };
        for (reason, counts) in dropped.by_reason() {
            stats.dropped(reason, counts);
            tally.drop(reason, counts.total());
        }
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
        stats.set_tailed(frame.end_mark().records);
        TailedFrame {
            end: frame.end_mark(),
            appended_ms: frame.appended_ms(),
            records,
            tally,
        }
    }

    /// Routes the decoded samples; returns the newest timestamp of those to send.
    fn route_samples(&mut self, store: &Store, dropped: &mut Dropped) -> Option<i64> {
        let mut highest_ms = None;
        let series = store.series().guard();
        let (mut too_old, mut relabel) = (0, 0);
        let oldest_ms = self.age.oldest_ms();
        for sample in &self.scratch {
            if sample.timestamp_ms < oldest_ms {
                too_old += 1;
                continue;
            }
            if self.decisions.is_dropped(sample.series, &series) {
                relabel += 1;
                continue;
            }
            highest_ms = highest_ms.max(Some(sample.timestamp_ms));
            let decisions = &mut self.decisions;
            let shard = (self.map).shard(sample.series, |one| decisions.labels(one, &series));
            self.routed[shard].samples.push_back(*sample);
        }
        dropped.too_old += Counts::of_samples(too_old);
        dropped.relabel += Counts::of_samples(relabel);
        highest_ms
    }

    /// The newest timestamp of the routed samples that have a start timestamp.
    fn highest_started_ms(&self) -> Option<i64> {
        let raw = self.routed.iter().flat_map(|routed| &routed.raw);
        raw.filter_map(OwnedRecord::started_ms).max()
    }

    /// Routes everything else; answers how much metadata needs no request of its own: it is known, or
    /// goes with the series.
    fn route_records(
        &mut self,
        position: Position,
        records: RawRecords<'_>,
        (message, store): (ProtobufMessage, &Store),
        dropped: &mut Dropped,
    ) -> u64 {
        let series = store.series().guard();
        let oldest_ms = self.age.oldest_ms();
        let mut known = 0;
        for record in records {
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    report_corrupt(position, &error);
                    break;
                }
            };
            let (kind, one) = (record.kind, record.series);
            if !self.wanted.takes(kind) {
                dropped.switched_off.add_record(kind);
                continue;
            }
            let lane = if kind == RecordKind::Metadata {
                let is_new = self.metadata.learn(record.bytes);
                if !is_new || message == ProtobufMessage::V2 {
                    known += 1;
                    continue;
                }
                self.routed.len() - 1
            } else if is_older(kind, record.bytes, oldest_ms) {
                dropped.too_old.add_record(kind);
                continue;
            } else if self.decisions.is_dropped(one, &series) {
                dropped.relabel.add_record(kind);
                continue;
            } else {
                let decisions = &mut self.decisions;
                self.map.shard(one, |one| decisions.labels(one, &series))
            };
            let owned = OwnedRecord {
                series: one,
                kind,
                bytes: record.bytes.into(),
            };
            self.routed[lane].raw.push_back(owned);
        }
        known
    }
}

/// What of a frame is not to be sent, by reason.
#[derive(Debug, Default)]
struct Dropped {
    switched_off: Counts,
    too_old: Counts,
    relabel: Counts,
}

impl Dropped {
    const fn by_reason(&self) -> [(DropReason, Counts); 3] {
        [
            (DropReason::SwitchedOff, self.switched_off),
            (DropReason::TooOld, self.too_old),
            (DropReason::Relabel, self.relabel),
        ]
    }
}

fn report_corrupt(position: Position, error: &wal::Error) {
    tracing::error!(%error, position = position.get(), "a frame cannot be decoded");
}
