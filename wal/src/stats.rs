//! Counts what the log does, for `/metrics`: atomics that anyone may read at any time.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use crate::series::CleanStats;
use crate::{RawRecord, RecordKind, Sample, StartedSample};

/// Upper bounds of the sync latency buckets, in seconds.
pub const SYNC_SECONDS_BOUNDS: [f64; 12] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5,
];

/// A histogram with the bounds of [`SYNC_SECONDS_BOUNDS`].
#[derive(Debug, Default)]
pub struct SyncHistogram {
    buckets: [AtomicU64; SYNC_SECONDS_BOUNDS.len() + 1],
    sum_nanos: AtomicU64,
}

impl SyncHistogram {
    pub(crate) fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = SYNC_SECONDS_BOUNDS
            .iter()
            .take_while(|&&bound| seconds > bound)
            .count();
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.sum_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// Count per bucket (not cumulative; the last is beyond all bounds) and the sum in seconds.
    #[must_use]
    pub fn snapshot(&self) -> (Vec<u64>, f64) {
        let counts = self
            .buckets
            .iter()
            .map(|bucket| bucket.load(Ordering::Relaxed))
            .collect();
        (
            counts,
            Duration::from_nanos(self.sum_nanos.load(Ordering::Relaxed)).as_secs_f64(),
        )
    }
}

/// What a store has done since it was opened.
#[derive(Debug, Default)]
pub struct StoreStats {
    /// Time from the first write of a group commit to the end of its sync.
    pub sync_seconds: SyncHistogram,
    /// Group commits.
    pub commits: AtomicU64,
    /// Bytes of frames and gaps written.
    pub written_bytes: AtomicU64,
    /// Samples appended.
    pub samples: AtomicU64,
    /// Exemplars appended.
    pub exemplars: AtomicU64,
    /// Native histograms appended.
    pub histograms: AtomicU64,
    /// Metadata messages appended.
    pub metadata: AtomicU64,
    /// The newest timestamp of a sample, in milliseconds since the Unix epoch; 0 before the first.
    pub highest_timestamp_ms: AtomicI64,
    /// Requests appended.
    pub appends: AtomicU64,
    /// Frames appended.
    pub frames: AtomicU64,
    /// Appends refused because the log was full.
    pub refused: AtomicU64,
    /// Segments removed because every endpoint was past them.
    pub segments_reclaimed: AtomicU64,
    /// Segments that went into the file of one reclaimed.
    pub segments_recycled: AtomicU64,
    /// Series given up as idle.
    pub series_given_up: AtomicU64,
    /// Series given up whose memory waits for the log to be reclaimed.
    pub series_in_limbo: AtomicU64,
    /// Chunk files of the series log removed.
    pub chunks_removed: AtomicU64,
    /// Bytes of live series records copied out of mostly dead chunks.
    pub series_copied_bytes: AtomicU64,
    /// 1 while no segment can be prepared (disk full or quota reached).
    pub out_of_space: AtomicU64,
}

impl StoreStats {
    /// A request was appended.
    pub(crate) fn appended(&self, samples: &[Sample], raw: &[RawRecord<'_>], frames: usize) {
        Self::add(&self.appends, 1);
        Self::add(&self.samples, samples.len() as u64);
        Self::add(&self.frames, frames as u64);
        for record in raw {
            let counter = match record.kind {
                RecordKind::Exemplar => &self.exemplars,
                RecordKind::Histogram => &self.histograms,
                RecordKind::Metadata => &self.metadata,
                RecordKind::StartedSample => &self.samples,
            };
            Self::add(counter, 1);
        }
        let started = raw
            .iter()
            .filter(|record| record.kind == RecordKind::StartedSample)
            .filter_map(|record| StartedSample::from_bytes(record.bytes))
            .map(|sample| sample.timestamp_ms);
        let plain = samples.iter().map(|sample| sample.timestamp_ms);
        if let Some(newest) = plain.chain(started).max() {
            self.highest_timestamp_ms
                .fetch_max(newest, Ordering::Relaxed);
        }
    }

    /// The series log was cleaned a step further.
    pub(crate) fn cleaned(&self, done: &CleanStats) {
        Self::add(&self.series_given_up, done.given_up);
        self.series_in_limbo.store(done.in_limbo, Ordering::Relaxed);
        Self::add(&self.chunks_removed, done.chunks_removed);
        Self::add(&self.series_copied_bytes, done.copied_bytes);
    }

    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}
