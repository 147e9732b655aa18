//! An endpoint that is taken away while the log goes on, and comes back.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::common::{Backend, LONG, Log, Reply, assert_delivered_once, delivered, options, until};
use wal::DropReason;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_removed_meanwhile_is_counted_and_the_rest_is_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open_with(dir.path(), |options| {
        (options.segment_bytes, options.ring_bytes) = (64 << 10, 64 << 10);
    });
    let good = Backend::start(|_, _| Reply::ok()).await;
    // Refuses what comes first for good, and then is not there.
    let bad = Backend::start(|n, _| Reply::status(if n == 0 { 400 } else { 503 })).await;
    let (kept, gone) = (
        log.ship(options("kept", &good.url())),
        log.ship(options("gone", &bad.url())),
    );
    log.store.endpoints_complete();
    let series = log.series(100);
    log.write(&series[..1], 0..1).await;
    bad.until(|seen| !seen.is_empty()).await;
    let account = || log.store.endpoint("gone").unwrap().account();
    until(|| account().tally.dropped(DropReason::Refused) == 1).await;
    let letters = dir.path().join("rejected/gone");
    assert_eq!(std::fs::read_dir(&letters).unwrap().count(), 1);
    log.write(&series, 1..20).await;
    bad.until(|seen| seen.len() > 2).await;
    gone.stop(Duration::ZERO).await;
    assert!(log.store.forget_endpoint("gone"));

    log.write(&series, 20..500).await;
    good.until_samples(1 + 100 * 499).await;
    let reclaimed = || log.store.stats().segments_reclaimed.load(Ordering::Relaxed);
    until(|| reclaimed() > 1).await;

    let back = log.ship(options("gone", &good.url()));
    let records = log.store.records();
    let account = || log.store.endpoint("gone").unwrap().account();
    until(|| account().pending == 0).await;
    let tally = account().tally;
    let missing = tally.dropped(DropReason::MissingSegment);
    assert!(missing > 0);
    assert_eq!(tally.delivered + missing + 1, records);
    assert_eq!(std::fs::read_dir(&letters).unwrap().count(), 1);
    back.stop(LONG).await;
    kept.stop(LONG).await;
    let seen = good.seen();
    let twice: usize = delivered(&seen).values().map(Vec::len).sum();
    assert_eq!(twice as u64, records + tally.delivered);
    log.close();
}

/// Another url, other credentials: the endpoint is stopped and started again under its name.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_endpoint_that_is_started_again_goes_on_where_it_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let backend = Backend::start(|_, _| Reply::ok()).await;
    let series = log.series(10);
    for round in 0..5 {
        let endpoint = log.ship(options("a", &backend.url()));
        log.write(&series, round * 10..round * 10 + 10).await;
        backend.until(|seen| seen.len() as i64 > round).await;
        endpoint.stop(LONG).await;
    }
    assert_delivered_once(&backend.seen(), 10, 0..50);
    log.close();
}
