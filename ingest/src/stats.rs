//! Turns what the shards did into numbers that can be read at any time.
//!
//! Counted once per request, never per sample.
//!
//! # Threads
//! Every shard adds to a block of its own, on cache lines of its own; a reader sums the blocks.
//! Relaxed throughout: counters say nothing about each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::admit::{Flight, Gate};
use crate::decode::Batch;
use crate::decode::labels::Reason;
use crate::secure::SecureStats;
use crate::tap::Tap;
use crate::tenants::Tenants;

/// Stands for a status where the peer went away, or the grace ended, before there was an answer.
pub const CUT_OFF: u16 = 0;

/// All statuses a receiver answers with, counted one by one, and [`CUT_OFF`].
pub const STATUS_CODES: [u16; 12] = [
    204, 400, 401, 404, 405, 408, 413, 415, 429, 500, 503, CUT_OFF,
];

/// Upper bounds of the request duration buckets, in microseconds; one bucket more is unbounded.
pub const DURATION_BUCKETS_US: [u64; 15] = [
    250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 125_000, 250_000, 500_000,
    1_000_000, 5_000_000, 30_000_000,
];

/// What the time of a request that was taken goes to: reading its body, working on it (decompress, decode,
/// intern, append), and waiting until it is durable.
pub const STAGES: [&str; 3] = ["read", "append", "commit"];

/// The numbers of one receiver on one shard.
#[derive(Default, Debug)]
#[repr(align(128))]
pub(crate) struct Counters {
    requests: [AtomicU64; STATUS_CODES.len()],
    durations: [AtomicU64; DURATION_BUCKETS_US.len() + 1],
    duration_us_sum: AtomicU64,
    samples: AtomicU64,
    exemplars: AtomicU64,
    histograms: AtomicU64,
    metadata: AtomicU64,
    refused_series: [AtomicU64; Reason::ALL.len()],
    refused_items: [AtomicU64; Reason::ALL.len()],
    compressed_bytes: AtomicU64,
    decompressed_bytes: AtomicU64,
    connections_accepted: AtomicU64,
    connections_refused: AtomicU64,
    connections_timed_out: AtomicU64,
    connections_broken: AtomicU64,
    accept_errors: AtomicU64,
    requests_started: AtomicU64,
    dropped_items: AtomicU64,
    passed_on_series: AtomicU64,
    passing_failures: AtomicU64,
    passed_in: AtomicU64,
    stage_us: [AtomicU64; STAGES.len()],
    /// Connections this shard serves now.
    pub(crate) connections_open: AtomicU64,
}

fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
}

impl Counters {
    /// Adds the time of each of [`STAGES`].
    pub(crate) fn took(&self, stages: [Duration; STAGES.len()]) {
        for (sum, stage) in self.stage_us.iter().zip(stages) {
            let micros = u64::try_from(stage.as_micros()).unwrap_or(u64::MAX);
            sum.fetch_add(micros, Ordering::Relaxed);
        }
    }

    pub(crate) fn started(&self) {
        add(&self.requests_started, 1);
    }

    pub(crate) fn answered(&self, status: u16, duration: Duration) {
        let at = STATUS_CODES.iter().position(|code| *code == status);
        add(&self.requests[at.unwrap_or(STATUS_CODES.len() - 1)], 1);
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = DURATION_BUCKETS_US.partition_point(|bound| *bound < micros);
        add(&self.durations[bucket], 1);
        self.duration_us_sum.fetch_add(micros, Ordering::Relaxed);
    }

    pub(crate) fn received(&self, compressed: usize, decompressed: usize) {
        add(&self.compressed_bytes, compressed);
        add(&self.decompressed_bytes, decompressed);
    }

    /// Counts what a request held that was taken; `dropped` if there is no store to put it in.
    pub(crate) fn stored(&self, batch: &Batch, dropped: bool) {
        if dropped {
            add(
                &self.dropped_items,
                batch.samples.len() + batch.records.len(),
            );
        }
        let written = batch.written();
        add(&self.samples, written.samples);
        let records = batch.samples.len() + batch.records.len() - written.samples;
        for (counter, count) in [
            (&self.exemplars, written.exemplars),
            (&self.histograms, written.histograms),
            (
                &self.metadata,
                records - written.exemplars - written.histograms,
            ),
        ] {
            if count > 0 {
                add(counter, count);
            }
        }
        if !batch.refused.is_empty() {
            for at in 0..Reason::ALL.len() {
                self.refused_series[at].fetch_add(batch.refused.series[at], Ordering::Relaxed);
                self.refused_items[at].fetch_add(batch.refused.items[at], Ordering::Relaxed);
            }
        }
    }

    /// Series that others own are on their way to them.
    pub(crate) fn passed_on(&self, series: usize) {
        add(&self.passed_on_series, series);
    }

    pub(crate) fn passing_failed(&self) {
        add(&self.passing_failures, 1);
    }

    pub(crate) fn passed_in(&self) {
        add(&self.passed_in, 1);
    }

    /// Metadata that the log has.
    pub(crate) fn metadata_known(&self, count: usize) {
        if count > 0 {
            add(&self.metadata, count);
        }
    }

    pub(crate) fn connection_accepted(&self) {
        add(&self.connections_accepted, 1);
    }

    pub(crate) fn connection_refused(&self) {
        add(&self.connections_refused, 1);
    }

    pub(crate) fn connection_timed_out(&self) {
        add(&self.connections_timed_out, 1);
    }

    pub(crate) fn connection_broken(&self) {
        add(&self.connections_broken, 1);
    }

    pub(crate) fn accept_failed(&self) {
        add(&self.accept_errors, 1);
    }
}

/// The numbers of one receiver.
#[derive(Debug)]
pub struct ReceiverStats {
    name: String,
    pub(crate) shards: Box<[Counters]>,
    pub(crate) bytes: Flight,
    pub(crate) connections: Gate,
    /// Set with each layout; requests have them from their receiver.
    tenants: Mutex<Option<Arc<Tenants>>>,
    pub(crate) secure: Arc<SecureStats>,
    tap: Tap,
}

impl ReceiverStats {
    pub(crate) fn new(name: String, shards: usize, bytes: Flight, connections: Gate) -> Self {
        let shards = (0..shards).map(|_| Counters::default()).collect();
        Self {
            name,
            shards,
            bytes,
            connections,
            tenants: Mutex::default(),
            secure: Arc::default(),
            tap: Tap::default(),
        }
    }

    /// The receiver's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tenants, where the receiver has any.
    #[must_use]
    pub fn tenants(&self) -> Option<Arc<Tenants>> {
        self.tenants.lock().clone()
    }

    pub(crate) fn set_tenants(&self, tenants: Option<Arc<Tenants>>) {
        *self.tenants.lock() = tenants;
    }

    /// Where the samples that come can be looked at.
    #[must_use]
    pub const fn tap(&self) -> &Tap {
        &self.tap
    }

    /// What became of handshakes and certificates.
    #[must_use]
    pub fn secure(&self) -> &SecureStats {
        &self.secure
    }

    /// Connections that each shard serves now, and samples that it has taken.
    pub fn by_shard(&self) -> impl Iterator<Item = (u64, u64)> {
        self.shards.iter().map(|shard| {
            let open = shard.connections_open.load(Ordering::Relaxed);
            (open, shard.samples.load(Ordering::Relaxed))
        })
    }

    /// The numbers now, summed over the shards.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let mut sum = Snapshot::default();
        for shard in &self.shards {
            let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            each(&mut sum.requests, &shard.requests);
            each(&mut sum.durations, &shard.durations);
            each(&mut sum.stage_us, &shard.stage_us);
            each(&mut sum.refused_series, &shard.refused_series);
            each(&mut sum.refused_items, &shard.refused_items);
            sum.duration_us_sum += get(&shard.duration_us_sum);
            sum.samples += get(&shard.samples);
            sum.exemplars += get(&shard.exemplars);
            sum.histograms += get(&shard.histograms);
            sum.metadata += get(&shard.metadata);
            sum.compressed_bytes += get(&shard.compressed_bytes);
            sum.decompressed_bytes += get(&shard.decompressed_bytes);
            sum.connections_accepted += get(&shard.connections_accepted);
            sum.connections_refused += get(&shard.connections_refused);
            sum.connections_timed_out += get(&shard.connections_timed_out);
            sum.connections_broken += get(&shard.connections_broken);
            sum.accept_errors += get(&shard.accept_errors);
            sum.dropped_items += get(&shard.dropped_items);
            sum.requests_started += get(&shard.requests_started);
            sum.passed_on_series += get(&shard.passed_on_series);
            sum.passing_failures += get(&shard.passing_failures);
            sum.passed_in += get(&shard.passed_in);
        }
        sum.connections_open = self.connections.taken();
        sum.in_flight_bytes = self.bytes.taken();
        sum
    }
}

fn each(sums: &mut [u64], counters: &[AtomicU64]) {
    for (sum, counter) in sums.iter_mut().zip(counters) {
        *sum += counter.load(Ordering::Relaxed);
    }
}

/// The numbers of one receiver at one moment; counters since the start unless said otherwise.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// Requests ended, by [`STATUS_CODES`].
    pub requests: [u64; STATUS_CODES.len()],
    /// Requests ended, by [`DURATION_BUCKETS_US`]; not cumulative.
    pub durations: [u64; DURATION_BUCKETS_US.len() + 1],
    /// Microseconds of requests that were taken, by [`STAGES`], summed.
    pub stage_us: [u64; STAGES.len()],
    /// Microseconds from the head of a request to its end, summed.
    pub duration_us_sum: u64,
    /// Requests whose head was read; less those ended is those in flight.
    pub requests_started: u64,
    /// Samples, exemplars, histograms and metadata taken and dropped, because the receiver
    /// forwards to nothing; counted with the others too.
    pub dropped_items: u64,
    /// Float samples taken.
    pub samples: u64,
    /// Exemplars taken.
    pub exemplars: u64,
    /// Native histograms taken.
    pub histograms: u64,
    /// Metadata messages taken.
    pub metadata: u64,
    /// Series refused, by [`Reason::index`].
    pub refused_series: [u64; Reason::ALL.len()],
    /// Samples, exemplars, histograms and metadata refused, by [`Reason::index`].
    pub refused_items: [u64; Reason::ALL.len()],
    /// Body bytes as received.
    pub compressed_bytes: u64,
    /// Body bytes after decompression.
    pub decompressed_bytes: u64,
    /// Connections accepted.
    pub connections_accepted: u64,
    /// Connections closed at once because of the limit.
    pub connections_refused: u64,
    /// Connections closed because the peer was idle or too slow.
    pub connections_timed_out: u64,
    /// Connections that ended in an error: the peer broke the protocol, or went away in between.
    pub connections_broken: u64,
    /// Failures to accept a connection (usually: too many open files).
    pub accept_errors: u64,
    /// Series of requests that were passed on to their owners, each time they came.
    pub passed_on_series: u64,
    /// Requests of which an owner did not take its part.
    pub passing_failures: u64,
    /// Parts that others have passed on to this agent.
    pub passed_in: u64,
    /// Connections open now.
    pub connections_open: u64,
    /// Bytes of requests not yet answered.
    pub in_flight_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_sums_the_shards() {
        let stats = ReceiverStats::new("r".into(), 2, Flight::new(1, 1), Gate::new(1));
        stats.shards[0].answered(204, Duration::from_micros(250));
        stats.shards[1].answered(204, Duration::from_micros(251));
        stats.shards[1].answered(CUT_OFF, Duration::from_secs(60));
        stats.shards[1].received(3, 10);
        let sum = stats.snapshot();
        assert_eq!(
            (sum.requests[0], sum.requests[STATUS_CODES.len() - 1]),
            (2, 1)
        );
        assert_eq!((sum.durations[0], sum.durations[1]), (1, 1));
        assert_eq!(sum.durations[DURATION_BUCKETS_US.len()], 1);
        assert_eq!(sum.duration_us_sum, 60_000_501);
        assert_eq!((sum.compressed_bytes, sum.decompressed_bytes), (3, 10));
    }
}
