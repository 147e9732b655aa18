//! Turns what happens to records into numbers the binary exports.
//!
//! # Threads
//! - Plain relaxed atomics, touched once per batch or frame, never per sample. Numbers of one
//!   [`Snapshot`] may be a batch apart from each other.
//! - The reasons of failures and the last of them sit behind locks: they are rare and come from the
//!   endpoint.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU16, AtomicU64};
use std::time::Duration;

use parking_lot::Mutex;
use wal::{DropReason, RecordKind};

use crate::encode::{TemplateCounts, TemplateStats};
use crate::lanes::Lane;

/// Upper bounds of the buckets of the request duration histogram; one more bucket is unbounded.
pub const DURATION_BOUNDS_SECONDS: [f64; 15] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 120.0, 300.0,
];

/// "No such time": what a gauge of milliseconds holds before it is set.
const NONE_MS: i64 = i64::MIN;

/// How many records, by kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Float samples.
    pub samples: u64,
    /// Exemplars.
    pub exemplars: u64,
    /// Native histograms.
    pub histograms: u64,
    /// Metric metadata.
    pub metadata: u64,
}

impl Counts {
    /// So many float samples.
    #[must_use]
    pub const fn of_samples(samples: usize) -> Self {
        Self {
            samples: samples as u64,
            exemplars: 0,
            histograms: 0,
            metadata: 0,
        }
    }

    /// One more record of a kind.
    pub fn add_record(&mut self, kind: RecordKind) {
        match kind {
            RecordKind::Exemplar => self.exemplars += 1,
            RecordKind::Histogram => self.histograms += 1,
            RecordKind::Metadata => self.metadata += 1,
            RecordKind::StartedSample => self.samples += 1,
        }
    }

    /// What is left when `part` is taken away; of no kind less than nothing.
    #[must_use]
    pub const fn without(self, part: Self) -> Self {
        Self {
            samples: self.samples.saturating_sub(part.samples),
            exemplars: self.exemplars.saturating_sub(part.exemplars),
            histograms: self.histograms.saturating_sub(part.histograms),
            metadata: self.metadata.saturating_sub(part.metadata),
        }
    }

    /// Records of all kinds.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.samples + self.exemplars + self.histograms + self.metadata
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.samples += other.samples;
        self.exemplars += other.exemplars;
        self.histograms += other.histograms;
        self.metadata += other.metadata;
    }
}

#[derive(Debug, Default)]
struct AtomicCounts([AtomicU64; 4]);

impl AtomicCounts {
    fn add(&self, counts: Counts) {
        for (atomic, count) in self.0.iter().zip(fields(counts)) {
            atomic.fetch_add(count, Relaxed);
        }
    }

    fn sub(&self, counts: Counts) {
        for (atomic, count) in self.0.iter().zip(fields(counts)) {
            atomic.fetch_sub(count, Relaxed);
        }
    }

    fn get(&self) -> Counts {
        let [samples, exemplars, histograms, metadata] = &self.0;
        Counts {
            samples: samples.load(Relaxed),
            exemplars: exemplars.load(Relaxed),
            histograms: histograms.load(Relaxed),
            metadata: metadata.load(Relaxed),
        }
    }
}

const fn fields(counts: Counts) -> [u64; 4] {
    [
        counts.samples,
        counts.exemplars,
        counts.histograms,
        counts.metadata,
    ]
}

/// Where an endpoint is between its start and its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// It takes what comes.
    Running = 0,
    /// It was told to stop and ships what there is.
    Draining = 1,
    /// It has ended.
    Stopped = 2,
}

/// The live numbers of one endpoint.
#[derive(Debug)]
pub struct Stats {
    sent: AtomicCounts,
    retried: AtomicCounts,
    pending: AtomicCounts,
    failed: Mutex<BTreeMap<String, Counts>>,
    dropped: [AtomicCounts; DropReason::ALL.len()],
    sent_bytes: AtomicU64,
    sent_metadata_bytes: AtomicU64,
    sent_batches: AtomicU64,
    duration_counts: [AtomicU64; DURATION_BOUNDS_SECONDS.len() + 1],
    duration_sum_us: AtomicU64,
    /// By lane.
    shards: [AtomicU16; Lane::COUNT],
    shards_desired: AtomicU64,
    /// Records of the log before the tailed position of the newest lane.
    tailed_records: AtomicU64,
    /// Records that the lane of the backlog has not read.
    backlog_records: AtomicU64,
    drain_rate: AtomicU64,
    drain_eta: AtomicU64,
    highest_tailed_ms: AtomicI64,
    highest_sent_ms: AtomicI64,
    last_success_ms: AtomicI64,
    shards_backing_off: AtomicU64,
    backoff_ms: AtomicU64,
    queue_full_waits: AtomicU64,
    /// By lane.
    window_frames: [AtomicU64; Lane::COUNT],
    oldest_unacked_ms: [AtomicI64; Lane::COUNT],
    templates: Arc<TemplateStats>,
    phase: AtomicU16,
    is_failing: AtomicBool,
    last_error: Mutex<Option<(String, Duration)>>,
}

impl Stats {
    pub(crate) fn new(shards: u16) -> Self {
        Self {
            sent: AtomicCounts::default(),
            retried: AtomicCounts::default(),
            pending: AtomicCounts::default(),
            failed: Mutex::default(),
            dropped: Default::default(),
            sent_bytes: AtomicU64::new(0),
            sent_metadata_bytes: AtomicU64::new(0),
            sent_batches: AtomicU64::new(0),
            duration_counts: Default::default(),
            duration_sum_us: AtomicU64::new(0),
            shards: [AtomicU16::new(shards), AtomicU16::new(0)],
            shards_desired: AtomicU64::new(f64::from(shards).to_bits()),
            tailed_records: AtomicU64::new(0),
            backlog_records: AtomicU64::new(0),
            drain_rate: AtomicU64::new(0),
            drain_eta: AtomicU64::new(0),
            highest_tailed_ms: AtomicI64::new(NONE_MS),
            highest_sent_ms: AtomicI64::new(NONE_MS),
            last_success_ms: AtomicI64::new(NONE_MS),
            shards_backing_off: AtomicU64::new(0),
            backoff_ms: AtomicU64::new(0),
            queue_full_waits: AtomicU64::new(0),
            window_frames: Default::default(),
            oldest_unacked_ms: [const { AtomicI64::new(NONE_MS) }; Lane::COUNT],
            templates: Arc::default(),
            phase: AtomicU16::new(Phase::Running as u16),
            is_failing: AtomicBool::new(false),
            last_error: Mutex::default(),
        }
    }

    /// Something went wrong at this instant of the monotonic clock.
    pub(crate) fn erred(&self, detail: &str, now: Duration) {
        *self.last_error.lock() = Some((detail.to_owned(), now));
    }

    /// Whether attempts fail without a success since.
    pub(crate) fn set_failing(&self, is_failing: bool) {
        self.is_failing.store(is_failing, Relaxed);
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u16, Relaxed);
    }

    /// What last went wrong, as the endpoint or the way to it said, and when by the monotonic clock.
    #[must_use]
    pub fn last_error(&self) -> Option<(String, Duration)> {
        self.last_error.lock().clone()
    }

    /// Whether attempts fail, and none has succeeded since.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.is_failing.load(Relaxed)
    }

    /// Where it is between its start and its end.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            0 => Phase::Running,
            1 => Phase::Draining,
            _ => Phase::Stopped,
        }
    }

    /// What the encoders tell of their templates.
    pub(crate) fn templates(&self) -> Arc<TemplateStats> {
        Arc::clone(&self.templates)
    }

    /// A frame was routed to the shards.
    pub(crate) fn tailed(&self, pending: Counts, highest_ms: Option<i64>) {
        self.pending.add(pending);
        if let Some(ms) = highest_ms {
            self.highest_tailed_ms.fetch_max(ms, Relaxed);
        }
    }

    /// So many records of the log lie before the tailed position.
    pub(crate) fn set_tailed(&self, records: u64) {
        self.tailed_records.store(records, Relaxed);
    }

    /// So many records of the backlog are not read by its lane.
    pub(crate) fn set_backlog(&self, records: u64) {
        self.backlog_records.store(records, Relaxed);
    }

    /// Records the endpoint has not decided, of so many that the log has taken.
    pub(crate) fn behind(&self, log_records: u64) -> u64 {
        let ahead = log_records.saturating_sub(self.tailed_records.load(Relaxed));
        ahead + self.backlog_records.load(Relaxed) + self.pending.get().total()
    }

    /// So many shards are at work in a lane.
    pub(crate) fn set_shards(&self, lane: Lane, shards: u16) {
        self.shards[lane.index()].store(shards, Relaxed);
    }

    /// So many shards would do what there is to do.
    pub(crate) fn set_shards_desired(&self, shards: f64) {
        self.shards_desired.store(shards.to_bits(), Relaxed);
    }

    /// Records decided per second, and seconds until none is behind.
    pub(crate) fn set_drain(&self, rate: f64, eta: Option<f64>) {
        self.drain_rate.store(rate.to_bits(), Relaxed);
        let eta = eta.unwrap_or(f64::INFINITY);
        self.drain_eta.store(eta.to_bits(), Relaxed);
    }

    /// How far a lane is behind; see [`Snapshot::lag`].
    pub(crate) fn lag(&self, lane: Lane, now_ms: i64) -> Duration {
        lag(self.oldest_unacked_ms[lane.index()].load(Relaxed), now_ms)
    }

    /// Records are left behind.
    pub(crate) fn dropped(&self, reason: DropReason, counts: Counts) {
        self.dropped[reason.number()].add(counts);
    }

    /// A request came to its end, whatever that was.
    pub(crate) fn attempted(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = DURATION_BOUNDS_SECONDS.partition_point(|bound| *bound < seconds);
        self.duration_counts[bucket].fetch_add(1, Relaxed);
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.duration_sum_us.fetch_add(us, Relaxed);
    }

    /// The endpoint has them.
    pub(crate) fn acked(&self, counts: Counts, bytes: usize, now_ms: i64) {
        self.sent.add(counts);
        self.sent_batches.fetch_add(1, Relaxed);
        // metadata never shares a request
        let of = if counts.metadata > 0 {
            &self.sent_metadata_bytes
        } else {
            &self.sent_bytes
        };
        of.fetch_add(bytes as u64, Relaxed);
        self.last_success_ms.store(now_ms, Relaxed);
    }

    /// The endpoint refused them for good.
    pub(crate) fn rejected(&self, reason: &str, counts: Counts) {
        *self.failed.lock().entry(reason.to_owned()).or_default() += counts;
    }

    /// They go again.
    pub(crate) fn retried(&self, counts: Counts) {
        self.retried.add(counts);
    }

    /// A batch has left, one way or the other.
    pub(crate) fn finished(&self, counts: Counts, highest_ms: Option<i64>) {
        self.pending.sub(counts);
        if let Some(ms) = highest_ms {
            self.highest_sent_ms.fetch_max(ms, Relaxed);
        }
    }

    /// A shard waits before it tries again, for as long as the guard lives.
    pub(crate) fn backing_off(&self, delay: Duration) -> BackingOff<'_> {
        self.shards_backing_off.fetch_add(1, Relaxed);
        self.backoff_ms.store(
            u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
            Relaxed,
        );
        BackingOff(self)
    }

    /// The tailer found a queue full.
    pub(crate) fn queue_full(&self) {
        self.queue_full_waits.fetch_add(1, Relaxed);
    }

    /// What lies between the acked and the tailed position of a lane.
    pub(crate) fn set_window(&self, lane: Lane, frames: usize, oldest_ms: Option<i64>) {
        self.window_frames[lane.index()].store(frames as u64, Relaxed);
        self.oldest_unacked_ms[lane.index()].store(oldest_ms.unwrap_or(NONE_MS), Relaxed);
    }

    /// All numbers as they are now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let time = |atomic: &AtomicI64| Some(atomic.load(Relaxed)).filter(|ms| *ms != NONE_MS);
        let shards_backing_off = self.shards_backing_off.load(Relaxed);
        let backoff_ms = if shards_backing_off > 0 {
            self.backoff_ms.load(Relaxed)
        } else {
            0
        };
        Snapshot {
            sent: self.sent.get(),
            retried: self.retried.get(),
            pending: self.pending.get(),
            failed: self.failed.lock().clone(),
            dropped: std::array::from_fn(|i| (DropReason::ALL[i], self.dropped[i].get())),
            sent_bytes: self.sent_bytes.load(Relaxed),
            sent_metadata_bytes: self.sent_metadata_bytes.load(Relaxed),
            sent_batches: self.sent_batches.load(Relaxed),
            duration_counts: std::array::from_fn(|i| self.duration_counts[i].load(Relaxed)),
            duration_sum: Duration::from_micros(self.duration_sum_us.load(Relaxed)),
            shards: self.shards.iter().map(|shards| shards.load(Relaxed)).sum(),
            shards_desired: f64::from_bits(self.shards_desired.load(Relaxed)),
            drain_rate: f64::from_bits(self.drain_rate.load(Relaxed)),
            drain_eta: f64::from_bits(self.drain_eta.load(Relaxed)),
            highest_tailed_ms: time(&self.highest_tailed_ms),
            highest_sent_ms: time(&self.highest_sent_ms),
            last_success_ms: time(&self.last_success_ms),
            shards_backing_off,
            backoff: Duration::from_millis(backoff_ms),
            queue_full_waits: self.queue_full_waits.load(Relaxed),
            window_frames: self
                .window_frames
                .iter()
                .map(|frames| frames.load(Relaxed))
                .sum(),
            oldest_unacked_ms: self.oldest_unacked_ms.iter().filter_map(time).min(),
            templates: self.templates.snapshot(),
        }
    }
}

/// Counts a shard as waiting until it is dropped, also when its task is.
#[derive(Debug)]
pub(crate) struct BackingOff<'a>(&'a Stats);

impl Drop for BackingOff<'_> {
    fn drop(&mut self) {
        self.0.shards_backing_off.fetch_sub(1, Relaxed);
    }
}

/// The numbers of one endpoint at one moment. Times are milliseconds since the Unix epoch, `None`
/// before there was one.
#[derive(Clone, PartialEq, Debug)]
pub struct Snapshot {
    /// Records the endpoint has acknowledged.
    pub sent: Counts,
    /// Records in requests that had to be repeated, once per repetition.
    pub retried: Counts,
    /// Records tailed and not yet at their end: queued or in flight.
    pub pending: Counts,
    /// Records the endpoint refused for good, by reason (`http_<status>`).
    pub failed: BTreeMap<String, Counts>,
    /// Records left behind without asking the endpoint, by reason.
    pub dropped: [(DropReason, Counts); DropReason::ALL.len()],
    /// Compressed bytes of acknowledged requests with samples, exemplars and histograms.
    pub sent_bytes: u64,
    /// Compressed bytes of acknowledged requests with metadata.
    pub sent_metadata_bytes: u64,
    /// Acknowledged requests.
    pub sent_batches: u64,
    /// Requests by how long they took, not cumulative; see [`DURATION_BOUNDS_SECONDS`].
    pub duration_counts: [u64; DURATION_BOUNDS_SECONDS.len() + 1],
    /// How long all requests took together.
    pub duration_sum: Duration,
    /// Queue shards.
    pub shards: u16,
    /// Queue shards that the load asks for, by the rule of resharding.
    pub shards_desired: f64,
    /// Records decided per second, over the last seconds.
    pub drain_rate: f64,
    /// Seconds until the endpoint has everything, at that rate; infinite where more comes than goes.
    pub drain_eta: f64,
    /// Newest sample read from the log.
    pub highest_tailed_ms: Option<i64>,
    /// Newest sample that came to its end at the endpoint.
    pub highest_sent_ms: Option<i64>,
    /// When a request was last acknowledged.
    pub last_success_ms: Option<i64>,
    /// Shards that wait before trying again.
    pub shards_backing_off: u64,
    /// The wait most recently begun; zero if no shard waits.
    pub backoff: Duration,
    /// How often the tailer had to wait for room in a queue.
    pub queue_full_waits: u64,
    /// Frames between the acked and the tailed position.
    pub window_frames: u64,
    /// When the oldest frame that is tailed and not acked was appended.
    pub oldest_unacked_ms: Option<i64>,
    /// What became of runs of series that come again and again.
    pub templates: TemplateCounts,
}

impl Snapshot {
    /// How far the endpoint is behind: the age of the oldest frame it has not acknowledged, zero
    /// when it has them all.
    #[must_use]
    pub fn lag(&self, now_ms: i64) -> Duration {
        lag(self.oldest_unacked_ms.unwrap_or(NONE_MS), now_ms)
    }

    /// Records refused for good, for whatever reason.
    #[must_use]
    pub fn failed_total(&self) -> Counts {
        let mut total = Counts::default();
        for counts in self.failed.values() {
            total += *counts;
        }
        total
    }
}

fn lag(oldest_ms: i64, now_ms: i64) -> Duration {
    let age_ms = match oldest_ms {
        NONE_MS => 0,
        oldest => now_ms.saturating_sub(oldest),
    };
    Duration::from_millis(u64::try_from(age_ms).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_the_bucket_whose_bound_they_reach() {
        let stats = Stats::new(1);
        stats.attempted(Duration::from_millis(5));
        stats.attempted(Duration::from_millis(6));
        stats.attempted(Duration::from_secs(301));
        let counts = stats.snapshot().duration_counts;
        assert_eq!((counts[0], counts[1], counts[15]), (1, 1, 1));
    }

    #[test]
    fn what_went_wrong_last_stays_known() {
        let stats = Stats::new(1);
        assert_eq!((stats.last_error(), stats.is_failing()), (None, false));
        stats.erred("503", Duration::from_secs(1));
        stats.set_failing(true);
        stats.erred("refused", Duration::from_secs(2));
        let last = Some(("refused".to_owned(), Duration::from_secs(2)));
        assert_eq!((stats.last_error(), stats.is_failing()), (last, true));
        assert_eq!(stats.phase(), Phase::Running);
        stats.set_phase(Phase::Stopped);
        assert_eq!(stats.phase(), Phase::Stopped);
    }

    #[test]
    fn backoff_shows_only_while_a_shard_waits() {
        let stats = Stats::new(1);
        let waiting = stats.backing_off(Duration::from_millis(70));
        assert_eq!(stats.snapshot().backoff, Duration::from_millis(70));
        drop(waiting);
        assert_eq!(stats.snapshot().backoff, Duration::ZERO);
        assert_eq!(stats.snapshot().shards_backing_off, 0);
    }

    #[test]
    fn lag_is_the_age_of_the_oldest_unacked_frame() {
        let stats = Stats::new(1);
        assert_eq!(stats.snapshot().lag(5000), Duration::ZERO);
        stats.set_window(Lane::FIRST.other(), 1, Some(2000));
        stats.set_window(Lane::FIRST, 1, Some(3000));
        assert_eq!(stats.snapshot().lag(5000), Duration::from_secs(3));
        assert_eq!(
            stats.snapshot().lag(1000),
            Duration::ZERO,
            "the clock went back"
        );
    }
}
