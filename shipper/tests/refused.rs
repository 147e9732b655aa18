//! A refusal that is the fault of a part: the rest is delivered, in order, at a bounded cost.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::common::{Backend, LONG, Log, Received, Reply, options};
use parking_lot::Mutex;
use shipper::{Counts, EndpointOptions, Stopped};

/// Metric name to the timestamps it has, as the backend keeps them.
type Held = Arc<Mutex<BTreeMap<String, Vec<i64>>>>;

fn one_shard(url: &str) -> EndpointOptions {
    let mut options = options("a", url);
    (options.queue.min_shards, options.queue.max_shards) = (1, 1);
    options
}

fn samples(received: &Received) -> Vec<(String, i64)> {
    let series = received.request.timeseries.iter();
    series
        .flat_map(|series| {
            let name = &series.labels[0].value;
            series.samples.iter().map(|s| (name.clone(), s.timestamp))
        })
        .collect()
}

/// Takes a request whole or, if any sample is not newer than its series, not at all.
fn take_newer(held: &Held, received: &Received) -> Reply {
    let mut held = held.lock();
    let mut next = held.clone();
    for (name, timestamp) in samples(received) {
        let of_series = next.entry(name).or_default();
        if of_series.last().is_some_and(|last| *last >= timestamp) {
            return Reply::status(400);
        }
        of_series.push(timestamp);
    }
    *held = next;
    Reply::ok()
}

async fn until_acked(log: &Log) {
    let endpoint = log.store.endpoint("a").unwrap();
    let durable = log.store.watermarks().durable;
    let acked = async {
        while endpoint.acked() < durable {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, acked).await.unwrap();
}

async fn deliver_all(log: &Log, options: EndpointOptions) -> shipper::Snapshot {
    let endpoint = log.ship(options);
    let stats = endpoint.stats();
    until_acked(log).await;
    assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
    stats.snapshot()
}

#[tokio::test]
async fn one_bad_series_costs_its_own_samples_only() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let backend = Backend::start(|_, received| {
        let bad = samples(received).iter().any(|(name, _)| name == "metric_7");
        Reply::status(if bad { 422 } else { 204 })
    })
    .await;
    log.write(&log.series(40), 0..30).await;
    let numbers = deliver_all(&log, one_shard(&backend.url())).await;
    assert_eq!(numbers.failed["http_422"], Counts::of_samples(30));
    assert_eq!(numbers.sent, Counts::of_samples(39 * 30));
    assert_eq!(numbers.pending.total(), 0);
    // What was refused is kept with the answer, and nothing else.
    let dead = dir.path().join(shipper::rejected::DIRECTORY).join("a");
    let mut refused = Vec::new();
    for (_, path) in shipper::rejected::files(&dead).unwrap() {
        for line in std::fs::read_to_string(path).unwrap().lines() {
            let letter: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(letter["reason"], "http_422");
            let series = letter["series"].as_array().unwrap();
            assert_eq!(series.len(), 1);
            assert_eq!(series[0]["labels"]["__name__"], "metric_7");
            let samples = series[0]["samples"].as_array().unwrap().clone();
            refused.extend(samples.into_iter().map(|s| s[0].as_i64().unwrap()));
        }
    }
    assert_eq!(refused, (0..30).collect::<Vec<_>>());
    log.close();
}

/// What a crash leaves: the endpoint has more than was saved, and is asked to take it again.
#[tokio::test]
async fn what_is_sent_again_is_refused_and_everything_newer_is_taken() {
    for series in [3, 60] {
        for had in [1, 7, 29, 30] {
            let dir = tempfile::tempdir().unwrap();
            let mut log = Log::open(dir.path());
            log.write(&log.series(series), 0..30).await;
            let held = Held::default();
            for n in 0..series {
                held.lock()
                    .insert(format!("metric_{n}"), (0..had).collect());
            }
            let at_backend = Arc::clone(&held);
            let backend =
                Backend::start(move |_, received| take_newer(&at_backend, received)).await;
            let numbers = deliver_all(&log, one_shard(&backend.url())).await;
            let all: Vec<i64> = (0..30).collect();
            assert!(
                held.lock().values().all(|timestamps| *timestamps == all),
                "{series} series, {had} had before"
            );
            let again = series * usize::try_from(had).unwrap();
            assert_eq!(numbers.failed["http_400"], Counts::of_samples(again));
            log.close();
        }
    }
}

#[tokio::test]
async fn an_endpoint_that_refuses_everything_takes_few_requests_a_batch() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let backend = Backend::start(|_, _| Reply::status(400)).await;
    let endpoint = log.ship(one_shard(&backend.url()));
    log.write(&log.series(50), 0..40).await;
    let stats = endpoint.stats();
    until_acked(&log).await;
    assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
    assert_eq!(
        stats.snapshot().failed["http_400"],
        Counts::of_samples(2000)
    );
    // The first batches go record by record; of the others 1, 16 parts and 16 single records.
    let requests = backend.until(|_| true).await.len();
    assert!(requests <= 10 * 2 * 50 + 32 * 33, "{requests}");
    log.close();
}

#[tokio::test]
async fn an_endpoint_that_takes_other_batches_is_trusted_with_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let backend = Backend::start(|_, received| {
        let is_bad = |name: &str| matches!(name, "metric_1" | "metric_3");
        let bad = samples(received).iter().any(|(name, _)| is_bad(name));
        Reply::status(if bad { 400 } else { 204 })
    })
    .await;
    let endpoint = log.ship(one_shard(&backend.url()));
    let stats = endpoint.stats();
    let series = log.series(32);
    for round in 0..20 {
        log.write(&[series[1], series[3]], round..round + 1).await;
        until_acked(&log).await;
        log.write(&[series[0], series[2]], round..round + 1).await;
        until_acked(&log).await;
    }
    log.write(&series, 20..21).await;
    until_acked(&log).await;
    assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
    let numbers = stats.snapshot();
    assert_eq!(numbers.failed["http_400"], Counts::of_samples(2 * 21));
    assert_eq!(numbers.sent, Counts::of_samples(2 * 20 + 30));
    log.close();
}
