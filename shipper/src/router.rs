//! Turns a frame into the records that each shard is to send.
//!
//! # Invariants
//! - Every record of a frame is routed or counted: known metadata as delivered, the others as dropped
//!   for their reason.
//! - A series always goes to the same shard, while there are so many.
//!
//! # Failure
//! - A frame that passes its checksum and still does not decode is counted as dropped (`corrupt`):
//!   it would not decode later either.

use std::sync::Arc;

use wal::{DropReason, Frame, Position, RawRecords, RecordKind, Sample, SharedClock, Store, Tally};

use crate::ack::TailedFrame;
use crate::age::{AgeLimit, is_older};
use crate::batch::OwnedRecord;
use crate::metadata::MetadataCache;
use crate::options::{ProtobufMessage, Resolved};
use crate::outgoing::Decisions;
use crate::queue::Routed;
use crate::shard_map::ShardMap;
use crate::stats::{Counts, Stats};
use labels::wire::len_u64;

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

/// Splits a frame by shard.
pub(crate) struct Router {
    map: ShardMap,
    decisions: Decisions,
    age: AgeLimit,
    wanted: Wanted,
    metadata: Arc<MetadataCache>,
    scratch: Vec<Sample>,
    /// Like the queues: one per shard and the metadata's.
    pub(crate) routed: Vec<Routed>,
}

impl Router {
    pub(crate) fn new(
        resolved: &Resolved,
        clock: &SharedClock,
        metadata: Arc<MetadataCache>,
        shards: u16,
    ) -> Self {
        let options = &resolved.options;
        let wanted = Wanted {
            exemplars: options.send_exemplars,
            histograms: options.send_native_histograms,
            metadata: options.metadata.send,
        };
        let mut router = Self {
            map: ShardMap::new(shards),
            decisions: Decisions::new(Arc::clone(&resolved.outgoing)),
            age: AgeLimit::new(options.queue.sample_age_limit, clock),
            wanted,
            metadata,
            scratch: Vec::new(),
            routed: Vec::new(),
        };
        router.set_shards(shards);
        router
    }

    /// Routes to so many shards from now on; nothing is routed and not pushed.
    pub(crate) fn set_shards(&mut self, shards: u16) {
        self.map = ShardMap::new(shards);
        // And the metadata's.
        self.routed
            .resize_with(usize::from(shards) + 1, Routed::default);
    }

    /// Routes the records of `frame`; says how many there are to send.
    pub(crate) fn route(
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
        TailedFrame {
            end: frame.end_mark(),
            appended_ms: frame.appended_ms(),
            records,
            tally,
        }
    }

    /// Routes the decoded samples; returns the newest timestamp of those to send. Neighbours mostly go
    /// the same way, and are moved in one piece.
    fn route_samples(&mut self, store: &Store, dropped: &mut Dropped) -> Option<i64> {
        let mut highest_ms = None;
        let series = store.series().guard();
        let oldest_ms = self.age.oldest_ms();
        let Self { map, decisions, .. } = self;
        let mut way_of = |sample: &Sample| {
            if sample.timestamp_ms < oldest_ms {
                Way::TooOld
            } else if decisions.is_dropped(sample.series, &series) {
                Way::Dropped
            } else {
                Way::Shard(map.shard(sample.series, |one| decisions.labels(one, &series)))
            }
        };
        let mut rest = &*self.scratch;
        while let Some((first, behind)) = rest.split_first() {
            let way = way_of(first);
            let is_same = |sample: &&Sample| way_of(sample) == way;
            let together;
            (together, rest) = rest.split_at(1 + behind.iter().take_while(is_same).count());
            match way {
                Way::TooOld => dropped.too_old += Counts::of_samples(together.len()),
                Way::Dropped => dropped.relabel += Counts::of_samples(together.len()),
                Way::Shard(shard) => {
                    let newest_ms = together.iter().map(|sample| sample.timestamp_ms).max();
                    highest_ms = highest_ms.max(newest_ms);
                    self.routed[shard].samples.extend(together);
                }
            }
        }
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
            let queue = if kind == RecordKind::Metadata {
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
            self.routed[queue].raw.push_back(owned);
        }
        known
    }
}

/// Where a sample goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    TooOld,
    Dropped,
    Shard(usize),
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
