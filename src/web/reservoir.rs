//! Turns stores and endpoints into how full they are, how far behind, and what was lost.
//!
//! # Limits
//! Of each log [`SEGMENTS_MAX`] segments are told, the oldest and the newest.

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use shipper::rejected::{DIRECTORY, files};
use shipper::{DropReason, Phase, Snapshot};

use super::json::unix_seconds;
use super::meter::{Metered, Rate, Rates};
use crate::telemetry::metrics::{EndpointSource, Sources, StoreSource};

const SEGMENTS_MAX: usize = 512;

/// Everything there is to tell. Reads directories.
pub(super) fn told(sources: &Sources, rates: &Rates) -> Value {
    let writers = sources.stores.iter();
    let writers = writers.map(|source| writer(source, sources, rates));
    json!({
        "now": unix_seconds(sources.clock.unix_ms()),
        "writers": writers.collect::<Vec<_>>(),
    })
}

fn writer(source: &StoreSource, sources: &Sources, rates: &Rates) -> Value {
    let store = &source.store;
    // The endpoints first: none is ahead of the log that is told with it.
    let endpoints = sources.endpoints.iter().filter(|one| one.id == source.id);
    let endpoints = endpoints.map(|one| endpoint(one, source, sources, rates));
    let endpoints: Vec<Value> = endpoints.collect();
    let marks = store.watermarks();
    let (bytes, bytes_max) = store.disk_bytes();
    let rate = rate_of(rates, &Metered::Writer(source.id.clone()));
    let lost = store.lost_bytes().into_iter();
    let lost = lost.map(|(reason, bytes)| json!({"reason": reason, "bytes": bytes}));
    let (segments, left_out) = segments(store);
    json!({
        "id": source.id,
        "dir": store.dir().display().to_string(),
        "series": store.series().len(),
        "diskBytes": bytes,
        "diskBytesMax": bytes_max,
        "segmentBytes": store.segment_bytes(),
        "positions": {
            "appended": marks.appended.get(),
            "durable": marks.durable.get(),
            "reclaimed": marks.reclaimed.get(),
        },
        "segments": segments,
        "segmentsLeftOut": left_out,
        "isOutOfSpace": store.stats().out_of_space.load(Ordering::Relaxed) == 1,
        "stalled": store.stall(),
        "failed": store.failure(),
        "lost": lost.collect::<Vec<_>>(),
        "samplesPerSecond": rate.samples,
        "bytesPerSecond": rate.bytes,
        "endpoints": endpoints,
    })
}

/// The oldest and the newest, and how many are between them.
fn segments(store: &wal::Store) -> (Vec<Value>, usize) {
    let mut all = store.segments();
    let left_out = all.len().saturating_sub(SEGMENTS_MAX);
    if left_out > 0 {
        all.drain(SEGMENTS_MAX / 2..SEGMENTS_MAX / 2 + left_out);
    }
    let one = |segment: &wal::SegmentInfo| {
        json!({
            "id": segment.id,
            "from": segment.from.get(),
            "to": segment.to.get(),
            "state": segment.state.as_str(),
        })
    };
    (all.iter().map(one).collect(), left_out)
}

fn rate_of(rates: &Rates, metered: &Metered) -> Rate {
    rates.get(metered).copied().unwrap_or_default()
}

fn endpoint(
    source: &EndpointSource,
    writer: &StoreSource,
    sources: &Sources,
    rates: &Rates,
) -> Value {
    let now = source.stats.snapshot();
    let metered = Metered::Endpoint(source.id.clone(), source.position.name().to_owned());
    let rate = rate_of(rates, &metered);
    let lag_bytes = source.position.lag_bytes();
    let (error, error_at) = last_error(source, sources).unzip();
    let (files, bytes) = rejected(&writer.store, &source.position);
    json!({
        "name": source.position.name(),
        "url": source.url,
        "acked": source.position.acked().get(),
        "saved": source.position.saved().get(),
        "state": state(source, lag_bytes, &rate),
        "lagBytes": lag_bytes,
        "lagSeconds": lag_seconds(source, &now, lag_bytes, sources.clock.unix_ms()),
        "etaSeconds": rate.eta_seconds.filter(|_| lag_bytes > 0),
        "samplesPerSecond": rate.samples,
        "shards": {
            "now": now.shards,
            "desired": now.shards_desired,
            "min": source.queue.min_shards,
            "max": source.queue.max_shards,
        },
        "inFlight": now.pending.total(),
        "lastError": error,
        "lastErrorAt": error_at,
        "records": records(source),
        "rejected": {"files": files, "bytes": bytes},
    })
}

/// How long the oldest record waits that is not delivered; nothing if that is not known.
pub(super) fn lag_seconds(
    source: &EndpointSource,
    now: &Snapshot,
    lag_bytes: u64,
    now_ms: i64,
) -> Option<f64> {
    if lag_bytes == 0 {
        return Some(0.0);
    }
    let known = now.oldest_unacked_ms.is_some() && source.stats.phase() != Phase::Stopped;
    known.then(|| now.lag(now_ms).as_secs_f64())
}

fn state(source: &EndpointSource, lag_bytes: u64, rate: &Rate) -> &'static str {
    match source.stats.phase() {
        Phase::Stopped => "stopped",
        Phase::Draining => "draining",
        Phase::Running if source.stats.is_failing() => "retrying",
        Phase::Running if lag_bytes > 0 || rate.samples > 0.0 => "delivering",
        Phase::Running => "idle",
    }
}

/// What last went wrong and when, in seconds since the Unix epoch.
fn last_error(source: &EndpointSource, sources: &Sources) -> Option<(String, f64)> {
    let (error, at) = source.stats.last_error()?;
    let ago = sources.clock.monotonic().saturating_sub(at);
    let ago = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
    let at = sources.clock.unix_ms().saturating_sub(ago);
    Some((error, unix_seconds(at)))
}

/// `in = delivered + pending + dropped`.
fn records(source: &EndpointSource) -> Value {
    let account = source.position.account();
    let dropped = DropReason::ALL.map(|reason| (reason, account.tally.dropped(reason)));
    let dropped = dropped.iter().filter(|(_, records)| *records > 0);
    let dropped =
        dropped.map(|(reason, records)| json!({"reason": reason.as_str(), "records": records}));
    json!({
        "in": account.records_in,
        "delivered": account.tally.delivered,
        "pending": account.pending,
        "dropped": dropped.collect::<Vec<_>>(),
    })
}

/// Files of dead letters and their bytes.
fn rejected(store: &wal::Store, endpoint: &wal::Endpoint) -> (usize, u64) {
    let dir = store.dir().join(DIRECTORY).join(endpoint.file_name());
    let found = files(&dir).unwrap_or_default();
    let size = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
    (found.len(), found.iter().map(|(_, path)| size(path)).sum())
}
