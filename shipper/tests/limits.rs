//! From a log to endpoints that are further behind than they may be.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::{Backend, LONG, Log, Reply, acked_samples, options, until};
use shipper::Stopped;
use wal::{Account, DropReason, LagLimits, OnFull};

const SERIES: usize = 2000;
const ROUNDS: i64 = 300;
/// About a third of what is written.
const MAX_BYTES: u64 = 1 << 20;

fn limited(log: &Log, name: &str) {
    let limits = LagLimits {
        max_bytes: Some(MAX_BYTES),
        max_age: None,
    };
    log.store.endpoint(name).unwrap().set_limits(limits);
}

fn account(log: &Log, name: &str) -> Account {
    log.store.endpoint(name).unwrap().account()
}

fn assert_adds_up(account: &Account) {
    let decided = account.tally.total();
    assert_eq!(account.records_in, account.pending + decided, "{account:?}");
}

/// A backend that answers like `bad` until `up`.
async fn backend(up: &Arc<AtomicBool>, bad: fn() -> Reply) -> Backend {
    let up = up.clone();
    Backend::start(move |_, _| {
        if up.load(Ordering::Relaxed) {
            Reply::ok()
        } else {
            bad()
        }
    })
    .await
}

/// An endpoint that behaves like `bad` for long loses the oldest samples, and only that one.
async fn lose_the_oldest(bad: fn() -> Reply) {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let up = Arc::new(AtomicBool::new(false));
    let lagging = backend(&up, bad).await;
    let well = Backend::start(|_, _| Reply::ok()).await;
    limited(&log, "lagging");
    limited(&log, "well");
    log.store.endpoints_complete();
    let series = log.series(SERIES);
    let shipping = [("lagging", &lagging), ("well", &well)].map(|(name, backend)| {
        let mut options = options(name, &backend.url());
        options.remote_timeout = Duration::from_secs(3);
        log.ship(options)
    });
    // Not faster than the good one takes it, or it would lag too.
    for round in 0..ROUNDS {
        log.write(&series, round..round + 1).await;
        until(|| log.is_acked("well")).await;
        assert_adds_up(&account(&log, "lagging"));
    }
    // What was given up is dropped although the endpoint never answers, and the disk is free.
    let dropped = |log: &Log| {
        account(log, "lagging")
            .tally
            .dropped(DropReason::MaxLagBytes)
    };
    until(|| dropped(&log) > 0).await;
    until(|| log.store.watermarks().reclaimed.get() > 0).await;
    up.store(true, Ordering::Relaxed);
    until(|| log.is_acked("lagging")).await;
    for endpoint in shipping {
        assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
    }

    let all = u64::try_from(SERIES).unwrap() * u64::try_from(ROUNDS).unwrap();
    let [lost, whole] = ["lagging", "well"].map(|name| account(&log, name));
    assert_adds_up(&lost);
    assert_eq!((lost.records_in, lost.pending), (all, 0));
    assert_eq!((whole.records_in, whole.tally.delivered), (all, all));
    let arrived = acked_samples(&lagging.seen());
    assert_eq!(lost.tally.delivered, u64::try_from(arrived).unwrap());
    let given_up = lost.tally.dropped(DropReason::MaxLagBytes);
    assert_eq!(given_up, all - lost.tally.delivered);
    assert!(given_up > all / 4, "{given_up} of {all}");
    let losses = std::fs::read_to_string(dir.path().join("losses")).unwrap();
    assert!(losses.contains("\tlagging\tmax_lag_bytes\t"), "{losses}");
    assert!(!losses.contains("\twell\t"), "{losses}");

    log.close();
    let log = Log::open(dir.path());
    assert_eq!(account(&log, "lagging"), lost, "after a restart");
    log.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_endpoint_that_fails_for_long_loses_the_oldest_and_every_record_is_accounted_for() {
    lose_the_oldest(|| Reply::status(503)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_endpoint_that_never_answers_loses_the_oldest_too() {
    lose_the_oldest(|| Reply::Hang).await;
}

/// It answers, so that much is read ahead for it, and then no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_read_ahead_for_an_endpoint_that_went_away_holds_no_segment() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open_with(dir.path(), |options| {
        options.segment_bytes = 256 << 10;
        options.ring_bytes = 512 << 10;
        options.series_chunk_bytes = 256 << 10;
        options.max_disk_bytes = Some(6 << 20);
        options.on_full = OnFull::DropOldest;
    });
    let backend = Backend::start(|number, _| match number {
        0..100 => Reply::ok(),
        _ => Reply::status(503),
    })
    .await;
    log.store.endpoint("a").unwrap();
    log.store.endpoints_complete();
    let series = log.series(SERIES);
    log.write(&series, 0..ROUNDS).await;
    let endpoint = log.ship(options("a", &backend.url()));
    backend.until(|seen| seen.len() >= 110).await;
    // Several times what the quota has room for.
    log.write(&series, ROUNDS..5 * ROUNDS).await;
    let lost = account(&log, "a");
    assert!(lost.tally.dropped(DropReason::Quota) > lost.records_in / 4);
    assert_adds_up(&lost);
    assert!(matches!(
        endpoint.stop(Duration::ZERO).await,
        Stopped::GaveUp { .. }
    ));
    log.close();
}
