//! Turns senders' samples into durable frames, in a store that is driven by hand.

use std::path::Path;
use std::sync::Arc;

use labels::canonical;
use parking_lot::Mutex;
use wal::{
    Committer, NewSeries, Position, Random, RawRecord, RecordKind, Sample, SeriesRef, SharedClock,
    StartedSample, Store, StoreOptions, Writer,
};

use super::backend::{Numbered, name, timestamp_ms, value_bits};
use super::clock::EPOCH_MS;
use super::plan::Plan;

#[derive(Debug)]
struct Chance(Mutex<fastrand::Rng>);

impl Random for Chance {
    fn next_u64(&self) -> u64 {
        self.0.lock().u64(..)
    }
}

/// The records of one append.
pub(crate) struct Appended {
    pub(crate) end: Position,
    pub(crate) samples: Vec<Numbered>,
    /// Records that are switched off.
    pub(crate) unwanted: u64,
}

/// A store with what writes to it.
pub(crate) struct Log {
    pub(crate) store: Store,
    writer: Writer,
    committer: Committer,
    /// By number.
    series: Vec<SeriesRef>,
}

impl Log {
    pub(crate) fn open(dir: &Path, plan: &Plan, clock: SharedClock, salt: u64) -> Self {
        let options = StoreOptions {
            segment_bytes: 64 << 10,
            ring_bytes: 64 << 10,
            series_chunk_bytes: 8 << 10,
            series_max: 1 << 10,
            max_disk_bytes: Some(16 << 20),
            clock,
            random: Arc::new(Chance(Mutex::new(fastrand::Rng::with_seed(salt)))),
            manual: true,
            ..StoreOptions::default()
        };
        let store = Store::open(dir, options).unwrap();
        let labels = |series| {
            let instance = format!("host-{}", series / plan.series_per_target);
            canonical(&[("__name__", &name(series)), ("instance", &instance)])
        };
        let labels: Vec<_> = (0..plan.series).map(labels).collect();
        let table = store.series();
        let new = labels.iter().map(|labels| NewSeries {
            hash: table.hash(labels),
            labels,
            series: SeriesRef::NONE,
        });
        let mut new: Vec<_> = new.collect();
        table.guard().define(&mut new).unwrap();
        let series = new.iter().map(|new| new.series).collect();
        Self {
            writer: store.writer().unwrap(),
            committer: store.committer().unwrap(),
            store,
            series,
        }
    }

    /// Appends a request and makes it durable.
    pub(crate) fn append(&mut self, plan: &Plan, samples: Vec<Numbered>) -> Appended {
        let series = |one: &Numbered| self.series[one.series as usize];
        let is_started = |one: &&Numbered| one.series.is_multiple_of(plan.started_every);
        let (started, plain): (Vec<_>, Vec<_>) = samples.iter().partition(is_started);
        let plain = plain.iter().map(|one| Sample {
            series: series(one),
            timestamp_ms: timestamp_ms(one.number),
            value_bits: value_bits(one.number),
        });
        let plain: Vec<_> = plain.collect();
        let started = started.iter().map(|one| {
            let started = StartedSample {
                timestamp_ms: timestamp_ms(one.number),
                value_bits: value_bits(one.number),
                start_ms: EPOCH_MS,
            };
            (series(one), started.to_bytes())
        });
        let started: Vec<_> = started.collect();
        let raw = |(series, bytes)| RawRecord {
            series,
            kind: RecordKind::StartedSample,
            bytes,
        };
        let raw = started.iter().map(|(series, bytes)| raw((*series, bytes)));
        let mut raw: Vec<_> = raw.collect();
        let padding = plan.padding.map(|bytes| vec![0; bytes]);
        raw.extend(padding.iter().map(|bytes| RawRecord {
            series: self.series[0],
            kind: RecordKind::Exemplar,
            bytes,
        }));
        let end = loop {
            match self.writer.append(&plain, &raw) {
                // The next segment is to be prepared.
                Err(error) if error.is_full() => self.store.keep(),
                result => break result.unwrap(),
            }
        };
        self.committer.commit_now().unwrap();
        Appended {
            end,
            samples,
            unwanted: u64::from(padding.is_some()),
        }
    }

    /// An orderly end.
    pub(crate) fn close(self) {
        drop(self.committer);
        self.store.close();
    }
}
