//! What changes while an endpoint is behind: samples packed by series, shards, pauses.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::{
    Backend, LONG, Log, Received, Reply, acked_samples, assert_delivered_once, delivered, options,
    until,
};
use shipper::{EndpointOptions, Stopped};
use wal::{RawRecord, RecordKind};

fn messages(seen: &[Received]) -> usize {
    seen.iter().map(|r| r.request.timeseries.len()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_backlog_is_sent_by_series_once_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    // A pack keeps to one segment.
    let mut log = Log::open_with(dir.path(), |options| options.segment_bytes = 16 << 20);
    let backend = Backend::start(|_, _| Reply::ok()).await;
    let series = log.series(2000);
    log.write(&series, 0..200).await;
    let endpoint = log.ship(EndpointOptions::new("a", &backend.url()));
    let seen = backend.until_samples(2000 * 200).await;
    // What comes then is sent as it comes.
    log.write(&series, 200..202).await;
    let all = backend.until_samples(2000 * 202).await;
    assert_delivered_once(&all, 2000, 0..202);
    assert!(all.iter().all(|r| r.sample_count() <= 2000));
    let (samples, messages) = (acked_samples(&seen), messages(&seen));
    assert!(
        samples > messages * 4,
        "{samples} samples in {messages} messages"
    );
    assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
    assert!(log.is_acked("a"));
    let account = log.store.endpoint("a").unwrap().account();
    assert_eq!(account.tally.delivered, 2000 * 202);
    log.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn exemplars_of_a_backlog_arrive_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let backend = Backend::start(|_, _| Reply::ok()).await;
    let series = log.series(2000);
    // Tag 3 of the message is the timestamp.
    for round in 0..150_u8 {
        log.write(&series, i64::from(round)..i64::from(round) + 1)
            .await;
        let bytes = [0x18, round & 0x7f];
        let exemplar = RawRecord {
            series: series[7],
            kind: RecordKind::Exemplar,
            bytes: &bytes,
        };
        log.append(&[], &[exemplar]).await;
    }
    let endpoint = log.ship(EndpointOptions::new("a", &backend.url()));
    until(|| endpoint.stats().snapshot().sent.exemplars == 150).await;
    assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
    let seen = backend.seen();
    assert_eq!(acked_samples(&seen), 2000 * 150);
    let exemplars = seen.iter().flat_map(|r| &r.request.timeseries);
    let times: Vec<_> = exemplars
        .flat_map(|series| &series.exemplars)
        .map(|exemplar| exemplar.timestamp)
        .collect();
    let sent: Vec<_> = (0..150_i64).map(|round| round & 0x7f).collect();
    assert_eq!(times, sent);
    log.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn shards_follow_the_load_and_no_series_is_out_of_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    // Takes a request, half a round, for each round that is written, as long as anybody counts them.
    let (written, rounds) = sync_channel(1024);
    let rounds = Mutex::new(rounds);
    let backend = Backend::start(move |_, _| {
        rounds.lock().unwrap().recv().ok();
        Reply::ok()
    })
    .await;
    let mut written = Some(written);
    let mut options = options("a", &backend.url());
    options.queue.min_shards = 1;
    options.queue.max_shards = 8;
    options.queue.reshard_every = Duration::from_millis(50);
    let endpoint = log.ship(options);
    let stats = endpoint.stats();
    let series = log.series(100);
    let mut round = 0;
    let began = stats.snapshot().shards;
    let mut most = began;
    let mut least = began;
    while most <= began || least >= began {
        log.write(&series, round..round + 1).await;
        round += 1;
        let shards = stats.snapshot().shards;
        (most, least) = (most.max(shards), least.min(shards));
        assert!(shards <= 8);
        // Saturated first, then idle.
        if most > began {
            written = None;
        }
        if let Some(written) = &written {
            // Where it is full there is enough for the backend to do.
            written.try_send(()).ok();
        } else {
            until(|| log.is_acked("a")).await;
        }
    }
    assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
    assert_delivered_once(&backend.seen(), 100, 0..round);
    log.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stop_ships_what_the_log_holds() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let backend = Backend::start(|_, _| Reply::ok()).await;
    let series = log.series(50);
    // Many times what the queues hold.
    log.write(&series, 0..300).await;
    let endpoint = log.ship(options("a", &backend.url()));
    assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
    assert!(log.is_acked("a"));
    assert_delivered_once(&backend.seen(), 50, 0..300);
    log.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_endpoint_that_is_away_is_asked_by_one_shard_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let is_away = Arc::new(AtomicBool::new(true));
    let backend = {
        let is_away = Arc::clone(&is_away);
        Backend::start(move |_, _| match is_away.load(Ordering::Relaxed) {
            true => Reply::status(503),
            false => Reply::ok(),
        })
        .await
    };
    let endpoint = log.ship(options("a", &backend.url()));
    let series = log.series(400);
    log.write(&series, 0..4).await;
    let seen = backend.until(|seen| seen.len() >= 200).await;
    // Each of the four shards fails on its own at first; then a turn is one shard's until it backs off.
    let bodies: Vec<_> = seen[20..].iter().map(|r| &r.body).collect();
    let different = bodies.iter().collect::<std::collections::BTreeSet<_>>();
    assert!(different.len() >= 2, "every shard gets its turn");
    is_away.store(false, Ordering::Relaxed);
    backend.until(|seen| acked_samples(seen) >= 1600).await;
    assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
    assert_eq!(delivered(&backend.seen()).len(), 400);
    log.close();
}
