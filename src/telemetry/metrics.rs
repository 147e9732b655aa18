//! Turns the numbers of receivers, stores and endpoints into metric families.
//!
//! Names are those that users of the field know where they exist (`prometheus_remote_storage_*`,
//! `prometheus_remote_write_wal_*`, `prometheus_receive_http_*`); what only Penstock has is
//! `penstock_*`. Everything is read when scraped; nothing is kept here.

mod receiver;
mod relabel;
mod scraper;
mod targets;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ingest::pull::ScraperStats;
use ingest::{ReceiverStats, Stage};
use shipper::encode::{Miss, TemplateCounts};
use shipper::stats::DURATION_BOUNDS_SECONDS;
use shipper::{Counts, DropReason, QueueOptions, Stats};
use wal::{IoEngine, SYNC_SECONDS_BOUNDS, SharedClock, Store};

use super::families::{Durations, Families, Group, float};
use super::{process, secure};
use crate::discovery;
use crate::server::ServerStats;

/// A store and the component it belongs to.
#[derive(Clone, Debug)]
pub(crate) struct StoreSource {
    pub(crate) id: String,
    pub(crate) store: Store,
    /// What is appended to it can be looked at here.
    pub(crate) tap: ingest::Tap,
}

/// A receiver.
#[derive(Clone, Debug)]
pub(crate) struct ReceiverSource {
    pub(crate) id: String,
    pub(crate) connections_max: usize,
    pub(crate) stats: Arc<ReceiverStats>,
}

/// An endpoint of a store.
#[derive(Clone, Debug)]
pub(crate) struct EndpointSource {
    pub(crate) id: String,
    pub(crate) url: String,
    pub(crate) queue: QueueOptions,
    pub(crate) position: wal::Endpoint,
    pub(crate) stats: Arc<Stats>,
}

/// Everything that has numbers.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    pub(crate) engine: IoEngine,
    pub(crate) clock: SharedClock,
    pub(crate) stores: Vec<StoreSource>,
    pub(crate) receivers: Vec<ReceiverSource>,
    pub(crate) scrapers: Vec<Arc<ScraperStats>>,
    pub(crate) relabels: Vec<Arc<Stage>>,
    pub(crate) endpoints: Vec<EndpointSource>,
    pub(crate) discoveries: Vec<Arc<discovery::Stats>>,
    pub(crate) server: Arc<ServerStats>,
}

impl Sources {
    /// All families as they are now.
    pub(crate) fn collect(&self) -> Families {
        let mut families = Families::default();
        let version = env!("CARGO_PKG_VERSION");
        let mut plain = families.plain();
        plain.with("version", version).gauge(
            "penstock_build_info",
            "Version of this Penstock",
            1.0,
        );
        let engine = self.engine.as_str();
        plain
            .with("engine", engine)
            .gauge("penstock_io_engine_info", "How files are written", 1.0);
        process::collect(&mut families);
        secure::collect_server(&mut families, &self.server);
        for receiver in &self.receivers {
            receiver::collect(&mut families, receiver, self.clock.monotonic());
        }
        for scraper in &self.scrapers {
            scraper::collect(&mut families, scraper);
        }
        for stage in &self.relabels {
            relabel::collect(&mut families, stage);
        }
        for found in &self.discoveries {
            targets::collect(&mut families, found);
        }
        for store in &self.stores {
            collect_store(&mut families, store);
        }
        for endpoint in &self.endpoints {
            collect_endpoint(&mut families, endpoint, self.clock.unix_ms());
        }
        families
    }
}

fn collect_store(families: &mut Families, source: &StoreSource) {
    let mut group = families.component(&source.id);
    collect_store_counters(&mut group, source.store.stats());
    collect_cleaning(&mut group, source.store.stats());
    collect_store_gauges(&mut group, &source.store);
    for (reason, bytes) in source.store.lost_bytes() {
        let help = "Bytes lost, over all runs";
        group
            .with("reason", reason)
            .counter("penstock_wal_lost_bytes", help, bytes);
    }
    let (counts, sum) = source.store.stats().sync_seconds.snapshot();
    let synced = Durations {
        sum,
        bounds: SYNC_SECONDS_BOUNDS.to_vec(),
        counts,
    };
    group.histogram(
        "penstock_wal_sync_seconds",
        "Write and sync of a group commit",
        &synced,
    );
}

fn collect_store_counters(group: &mut Group<'_>, stats: &wal::StoreStats) {
    for (name, help, counter) in [
        ("penstock_wal_commits", "Group commits", &stats.commits),
        ("penstock_wal_appends", "Requests appended", &stats.appends),
        (
            "penstock_wal_written_bytes",
            "Bytes of frames written",
            &stats.written_bytes,
        ),
        ("penstock_wal_samples", "Samples appended", &stats.samples),
        (
            "prometheus_remote_storage_exemplars_in",
            "Exemplars appended",
            &stats.exemplars,
        ),
        (
            "prometheus_remote_storage_histograms_in",
            "Histograms appended",
            &stats.histograms,
        ),
        (
            "penstock_wal_metadata",
            "Metadata messages appended",
            &stats.metadata,
        ),
        ("penstock_wal_frames", "Frames appended", &stats.frames),
        (
            "penstock_wal_refused",
            "Appends refused because the log was full",
            &stats.refused,
        ),
        (
            "penstock_wal_segments_reclaimed",
            "Segments removed",
            &stats.segments_reclaimed,
        ),
        (
            "penstock_wal_segments_recycled",
            "Segments that went into the file of one removed",
            &stats.segments_recycled,
        ),
        (
            "prometheus_remote_write_wal_samples_appended",
            "Samples appended",
            &stats.samples,
        ),
        (
            "prometheus_remote_storage_samples_in",
            "Samples appended",
            &stats.samples,
        ),
    ] {
        group.counter(name, help, counter.load(Ordering::Relaxed));
    }
}

/// What the online cleaner of the series log did.
fn collect_cleaning(group: &mut Group<'_>, stats: &wal::StoreStats) {
    for (name, help, counter) in [
        (
            "penstock_wal_series_given_up",
            "Series given up as idle",
            &stats.series_given_up,
        ),
        (
            "penstock_wal_series_chunks_removed",
            "Files of the series log removed",
            &stats.chunks_removed,
        ),
        (
            "penstock_wal_series_copied_bytes",
            "Bytes of live series copied out of files that were mostly dead",
            &stats.series_copied_bytes,
        ),
    ] {
        group.counter(name, help, counter.load(Ordering::Relaxed));
    }
}

fn collect_store_gauges(group: &mut Group<'_>, store: &Store) {
    let newest_ms = store.stats().highest_timestamp_ms.load(Ordering::Relaxed);
    if let Some(ms) = u64::try_from(newest_ms).ok().filter(|ms| *ms > 0) {
        let name = "prometheus_remote_storage_highest_timestamp_in_seconds";
        group.gauge(name, "Newest sample appended", float(ms) / 1000.0);
    }
    let full = store.stats().out_of_space.load(Ordering::Relaxed);
    let marks = store.watermarks();
    let (bytes, bytes_max) = store.disk_bytes();
    for (name, help, value) in [
        (
            "penstock_wal_appended_position",
            "Bytes ever handed out in the log",
            marks.appended.get(),
        ),
        (
            "penstock_wal_durable_position",
            "Bytes of the log on the device",
            marks.durable.get(),
        ),
        (
            "penstock_wal_reclaimed_position",
            "Bytes of the log removed again",
            marks.reclaimed.get(),
        ),
        (
            "prometheus_remote_write_wal_storage_active_series",
            "Series",
            store.series().len() as u64,
        ),
        (
            "penstock_wal_out_of_space",
            "1 while no segment can be prepared",
            full,
        ),
        (
            "penstock_wal_stalled",
            "1 while the device takes nothing",
            u64::from(store.stall().is_some()),
        ),
        (
            "penstock_wal_series_chunks",
            "Files of the series log",
            store.series().chunk_count() as u64,
        ),
        ("penstock_wal_disk_bytes", "Disk taken", bytes),
    ] {
        group.gauge(name, help, float(value));
    }
    if let Some(max) = bytes_max {
        group.gauge(
            "penstock_wal_disk_bytes_max",
            "Disk that may be taken",
            float(max),
        );
    }
}

/// Names of a family of counters or gauges, one per record kind.
macro_rules! per_kind {
    ($suffix:literal) => {
        [
            concat!("prometheus_remote_storage_samples", $suffix),
            concat!("prometheus_remote_storage_exemplars", $suffix),
            concat!("prometheus_remote_storage_histograms", $suffix),
            concat!("prometheus_remote_storage_metadata", $suffix),
        ]
    };
}

const fn each(counts: Counts) -> [u64; 4] {
    [
        counts.samples,
        counts.exemplars,
        counts.histograms,
        counts.metadata,
    ]
}

fn collect_endpoint(families: &mut Families, source: &EndpointSource, now_ms: i64) {
    let mut group = families.component(&source.id);
    let mut group = group.with("remote_name", source.position.name());
    let mut group = group.with("url", source.url.clone());
    let now = source.stats.snapshot();
    for (names, help, counts) in [
        (
            per_kind!(""),
            "Records the endpoint has acknowledged",
            now.sent,
        ),
        (
            per_kind!("_failed"),
            "Records the endpoint refused for good",
            now.failed_total(),
        ),
        (
            per_kind!("_retried"),
            "Records in requests that had to be repeated",
            now.retried,
        ),
    ] {
        for (name, count) in names.into_iter().zip(each(counts)) {
            group.counter(name, help, count);
        }
    }
    // Those refused by the endpoint are counted as failed.
    for (reason, counts) in (now.dropped.into_iter()).filter(|(r, _)| *r != DropReason::Refused) {
        let mut group = group.with("reason", reason.as_str());
        for (name, count) in per_kind!("_dropped").into_iter().zip(each(counts)) {
            group.counter(name, "Records left behind unasked", count);
        }
    }
    for (reason, counts) in &now.failed {
        let help = "Records the endpoint refused for good, by its answer";
        let mut group = group.with("reason", reason.clone());
        group.counter("penstock_endpoint_refused_records", help, counts.total());
    }
    for (name, count) in per_kind!("_pending").into_iter().zip(each(now.pending)) {
        group.gauge(name, "Records queued or in flight", float(count));
    }
    collect_account(&mut group, &source.position.account());
    collect_sending(&mut group, source, &now);
    collect_templates(&mut group, &now.templates);
    collect_lag(&mut group, source, &now, now_ms);
}

/// `in = delivered + pending + dropped`, over all runs.
fn collect_account(group: &mut Group<'_>, account: &wal::Account) {
    let name = "penstock_endpoint_records_in";
    let help = "Records the log has taken since the endpoint began, over all runs";
    group.counter(name, help, account.records_in);
    let name = "penstock_endpoint_records_delivered";
    group.counter(name, "Of those, delivered", account.tally.delivered);
    let name = "penstock_endpoint_records_pending";
    group.gauge(name, "Of those, not decided yet", float(account.pending));
    for reason in DropReason::ALL {
        let mut group = group.with("reason", reason.as_str());
        let name = "penstock_endpoint_records_dropped";
        group.counter(name, "Of those, dropped", account.tally.dropped(reason));
    }
}

/// What became of runs of series that come again and again.
fn collect_templates(group: &mut Group<'_>, counts: &TemplateCounts) {
    let name = "penstock_shipper_template_hits";
    group.counter(name, "Samples patched into a template", counts.hits);
    for (reason, samples) in Miss::ALL.into_iter().zip(counts.misses) {
        let mut group = group.with("reason", reason.as_str());
        let name = "penstock_shipper_template_misses";
        group.counter(name, "Samples encoded without or for one", samples);
    }
    let name = "penstock_shipper_template_builds";
    group.counter(name, "Templates built", counts.built);
    let name = "penstock_shipper_template_refusals";
    group.counter(name, "Templates found wrong and not used", counts.refused);
    let name = "penstock_shipper_template_evictions";
    group.counter(
        name,
        "Templates removed because they were not used for long",
        counts.evicted,
    );
    let name = "penstock_shipper_template_bytes";
    group.gauge(
        name,
        "Bytes of templates, in memory and in files",
        float(counts.bytes),
    );
    let name = "penstock_shipper_template_file_bytes";
    group.gauge(name, "Of those, in files", float(counts.file_bytes));
}

fn collect_sending(group: &mut Group<'_>, source: &EndpointSource, now: &shipper::Snapshot) {
    for (name, help, count) in [
        (
            "prometheus_remote_storage_bytes",
            "Compressed bytes sent",
            now.sent_bytes,
        ),
        (
            "prometheus_remote_storage_metadata_bytes",
            "Compressed bytes of metadata sent",
            now.sent_metadata_bytes,
        ),
        (
            "prometheus_remote_storage_enqueue_retries",
            "Waits for room in a queue",
            now.queue_full_waits,
        ),
        (
            "penstock_endpoint_requests_acknowledged",
            "Requests acknowledged",
            now.sent_batches,
        ),
    ] {
        group.counter(name, help, count);
    }
    collect_queue(group, &source.queue, now);
    let took = Durations {
        sum: now.duration_sum.as_secs_f64(),
        bounds: DURATION_BOUNDS_SECONDS.to_vec(),
        counts: now.duration_counts.to_vec(),
    };
    let name = "prometheus_remote_storage_sent_batch_duration_seconds";
    group.histogram(name, "How long requests took", &took);
}

fn collect_queue(group: &mut Group<'_>, queue: &QueueOptions, now: &shipper::Snapshot) {
    let per_send = queue.max_samples_per_send as u64;
    for (name, help, value) in [
        (
            "prometheus_remote_storage_shards",
            "Queue shards",
            u64::from(now.shards),
        ),
        (
            "prometheus_remote_storage_shards_min",
            "Fewest queue shards",
            u64::from(queue.min_shards),
        ),
        (
            "prometheus_remote_storage_shards_max",
            "Most queue shards",
            u64::from(queue.max_shards),
        ),
        (
            "prometheus_remote_storage_shard_capacity",
            "Records a shard may queue",
            queue.capacity as u64,
        ),
        (
            "prometheus_remote_storage_max_samples_per_send",
            "Records in a request",
            per_send,
        ),
        (
            "penstock_endpoint_shards_backing_off",
            "Shards waiting to try again",
            now.shards_backing_off,
        ),
    ] {
        group.gauge(name, help, float(value));
    }
    let name = "prometheus_remote_storage_shards_desired";
    group.gauge(name, "Queue shards the load asks for", now.shards_desired);
}

fn collect_lag(
    group: &mut Group<'_>,
    source: &EndpointSource,
    now: &shipper::Snapshot,
    now_ms: i64,
) {
    let acked = source.position.acked();
    let behind = source.position.lag_bytes();
    let lag = if behind == 0 {
        0.0
    } else {
        now.lag(now_ms).as_secs_f64()
    };
    let help = "Bytes of the log before which everything is delivered";
    group.gauge("penstock_endpoint_acked_position", help, float(acked.get()));
    group.gauge(
        "penstock_endpoint_lag_bytes",
        "Bytes not yet delivered",
        float(behind),
    );
    group.gauge(
        "penstock_endpoint_lag_seconds",
        "Age of the oldest record not yet delivered",
        lag,
    );
    group.gauge(
        "penstock_endpoint_drain_records_per_second",
        "Records delivered, refused or dropped per second",
        now.drain_rate,
    );
    group.gauge(
        "penstock_endpoint_drain_eta_seconds",
        "Time until everything is delivered; infinite where more comes than goes",
        now.drain_eta,
    );
    for (name, help, time_ms) in [
        (
            "prometheus_remote_storage_queue_highest_timestamp_seconds",
            "Newest sample read from the log",
            now.highest_tailed_ms,
        ),
        (
            "prometheus_remote_storage_queue_highest_sent_timestamp_seconds",
            "Newest sample sent",
            now.highest_sent_ms,
        ),
        (
            "penstock_endpoint_last_success_timestamp_seconds",
            "When a request was last acknowledged",
            now.last_success_ms,
        ),
    ] {
        if let Some(ms) = time_ms.and_then(|ms| u64::try_from(ms).ok()) {
            group.gauge(name, help, float(ms) / 1000.0);
        }
    }
}
