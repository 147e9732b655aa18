//! From a real log to backends that fail in every way they can.

use std::time::Duration;

use crate::common::{
    Backend, LONG, Log, Received, Reply, acked_samples, assert_delivered_once, delivered, options,
    until,
};
use shipper::{Counts, EndpointOptions, Stopped};
use tokio::net::TcpListener;
use tokio::time::Instant;

fn one_shard(name: &str, url: &str) -> EndpointOptions {
    let mut options = options(name, url);
    options.queue.max_shards = 1;
    options
}

/// A url where nobody listens.
async fn refused() -> (std::net::SocketAddr, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (addr, format!("http://{addr}/api/v1/write"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn backend_that_comes_up_late_gets_everything() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let (addr, url) = refused().await;
    let endpoint = log.ship(options("a", &url));
    let series = log.series(30);
    log.write(&series, 0..50).await;
    let stats = endpoint.stats();
    until(|| stats.snapshot().retried.total() > 0).await;
    assert!(stats.snapshot().lag(i64::MAX) > Duration::ZERO);
    assert_eq!(stats.snapshot().last_success_ms, None);
    let backend = Backend::start_on(addr, |_, _| Reply::ok()).await;
    let seen = backend.until_samples(30 * 50).await;
    assert_delivered_once(&seen, 30, 0..50);
    assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
    assert!(log.is_acked("a"));
    assert!(stats.snapshot().last_success_ms.is_some());
    log.close();
}

#[tokio::test]
async fn unavailable_for_a_while_repeats_the_same_batch_before_anything_newer() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let backend = Backend::start(|n, _| Reply::status(if n < 5 { 503 } else { 204 })).await;
    let series = log.series(10);
    log.write(&series, 0..20).await;
    let endpoint = log.ship(one_shard("a", &backend.url()));
    let seen = backend.until_samples(200).await;
    assert_delivered_once(&seen, 10, 0..20);
    for (attempt, received) in seen[..6].iter().enumerate() {
        assert_eq!(received.body, seen[0].body);
        let expected = (attempt > 0).then(|| attempt.to_string());
        assert_eq!(received.header("retry-attempt"), expected.as_deref());
    }
    assert_eq!(seen[6].header("retry-attempt"), None);
    let stats = endpoint.stats();
    endpoint.stop(LONG).await;
    let first = seen[0].sample_count();
    assert_eq!(stats.snapshot().retried, Counts::of_samples(5 * first));
    assert_eq!(stats.snapshot().sent, Counts::of_samples(200));
    log.close();
}

#[tokio::test]
async fn retry_after_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let backend = Backend::start(|n, _| match n {
        0 => Reply::Status(429, vec![("retry-after", "1".into())], "slow down".into()),
        _ => Reply::ok(),
    })
    .await;
    let series = log.series(1);
    log.write(&series, 0..1).await;
    let endpoint = log.ship(one_shard("a", &backend.url()));
    let seen = backend.until_samples(1).await;
    assert!(seen[1].at - seen[0].at >= Duration::from_secs(1));
    assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
    assert!(log.is_acked("a"));
    log.close();
}

#[tokio::test]
async fn too_many_requests_can_be_a_refusal() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let backend = Backend::start(|_, _| Reply::status(429)).await;
    let series = log.series(1);
    log.write(&series, 0..1).await;
    let mut options = one_shard("a", &backend.url());
    options.queue.retry_on_http_429 = false;
    let endpoint = log.ship(options);
    backend.until(|seen| !seen.is_empty()).await;
    let stats = endpoint.stats();
    assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
    assert_eq!(stats.snapshot().failed["http_429"], Counts::of_samples(1));
    log.close();
}

#[tokio::test]
async fn refused_batch_is_counted_and_the_next_goes_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let backend = Backend::start(|n, _| match n {
        0 => Reply::Status(410, Vec::new(), "who are you\n".repeat(10_000)),
        _ => Reply::ok(),
    })
    .await;
    let series = log.series(10);
    log.write(&series, 0..20).await;
    let endpoint = log.ship(one_shard("a", &backend.url()));
    let refused = backend.until(|seen| !seen.is_empty()).await[0].sample_count();
    let seen = backend.until_samples(200 - refused).await;
    assert_eq!(acked_samples(&seen), 200 - refused);
    assert!(
        seen.iter()
            .all(|received| received.header("retry-attempt").is_none())
    );
    let stats = endpoint.stats();
    assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
    assert!(log.is_acked("a"));
    let numbers = stats.snapshot();
    assert_eq!(numbers.failed["http_410"], Counts::of_samples(refused));
    assert_eq!(numbers.failed_total(), Counts::of_samples(refused));
    assert_eq!(numbers.sent, Counts::of_samples(200 - refused));
    log.close();
}

/// A wrong password, a path that is not there yet, a proxy that wants a login.
#[tokio::test]
async fn an_answer_that_is_not_about_the_data_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let answers = [401, 403, 404, 405, 407, 302];
    let backend = Backend::start(move |n, _| match answers.get(n) {
        Some(status) => Reply::status(*status),
        None => Reply::ok(),
    })
    .await;
    let series = log.series(10);
    log.write(&series, 0..20).await;
    let endpoint = log.ship(one_shard("a", &backend.url()));
    let seen = backend.until_samples(200).await;
    assert!(seen[..answers.len()].iter().all(|r| r.body == seen[0].body));
    let stats = endpoint.stats();
    assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
    assert_delivered_once(&backend.seen(), 10, 0..20);
    assert_eq!(stats.snapshot().failed_total(), Counts::default());
    log.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn black_holed_endpoint_changes_nothing_for_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let hole = Backend::start(|_, _| Reply::Hang).await;
    let good = Backend::start(|_, _| Reply::ok()).await;
    let stuck = log.ship(options("hole", &hole.url()));
    let endpoint = log.ship(options("good", &good.url()));
    let before = stuck.acked();
    let series = log.series(30);
    // many times what the queues of the stuck one hold
    log.write(&series, 0..300).await;
    let seen = good.until_samples(30 * 300).await;
    assert_delivered_once(&seen, 30, 0..300);
    assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
    assert!(log.is_acked("good"));

    let queued = 5 * (200 + 50);
    let pending = stuck.stats().snapshot().pending.total();
    assert!(pending > 0 && pending <= queued + 30, "{pending}");
    let start = Instant::now();
    let Stopped::GaveUp { records } = stuck.stop(Duration::from_millis(50)).await else {
        panic!("nothing was answered");
    };
    assert!(start.elapsed() < LONG / 3);
    assert_eq!(records, 30 * 300, "queued or still in the log");
    assert_eq!(log.store.endpoint("hole").unwrap().acked(), before);
    log.close();
}

#[tokio::test]
async fn hanging_request_is_repeated_after_the_timeout() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let backend = Backend::start(|n, _| if n == 0 { Reply::Hang } else { Reply::ok() }).await;
    let mut options = one_shard("a", &backend.url());
    options.remote_timeout = Duration::from_millis(100);
    let series = log.series(2);
    log.write(&series, 0..1).await;
    let endpoint = log.ship(options);
    let seen = backend.until_samples(2).await;
    assert_eq!(seen[0].body, seen[1].body);
    assert_eq!(seen[1].header("retry-attempt"), Some("1"));
    endpoint.stop(LONG).await;
    log.close();
}

#[tokio::test]
async fn stop_keeps_its_deadline_while_the_backend_is_down() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let (_, url) = refused().await;
    let series = log.series(10);
    log.write(&series, 0..10).await;
    let endpoint = log.ship(options("a", &url));
    let before = endpoint.acked();
    let start = Instant::now();
    let stopped = endpoint.stop(Duration::from_millis(100)).await;
    assert!(start.elapsed() < LONG / 3);
    // a stop this early may find nothing queued yet; what counts is that nothing is acked
    if let Stopped::GaveUp { records } = stopped {
        assert!(records > 0);
    }
    assert_eq!(log.store.endpoint("a").unwrap().acked(), before);
    log.close();
}

#[tokio::test]
async fn stop_ships_what_is_queued() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let backend = Backend::start(|n, _| match n {
        0 => Reply::Status(503, vec![("retry-after", "1".into())], String::new()),
        _ => Reply::ok(),
    })
    .await;
    let series = log.series(10);
    log.write(&series, 0..10).await;
    let endpoint = log.ship(one_shard("a", &backend.url()));
    let stats = endpoint.stats();
    until(|| stats.snapshot().pending.samples == 100).await;
    assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
    assert_delivered_once(&backend.seen(), 10, 0..10);
    assert!(log.is_acked("a"));
    log.close();
}

#[tokio::test]
async fn idle_shard_sends_at_most_a_hundred_small_requests_per_second() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let backend = Backend::start(|_, _| Reply::ok()).await;
    let mut options = one_shard("a", &backend.url());
    options.queue.max_samples_per_send = 200;
    let endpoint = log.ship(options);
    let series = log.series(1);
    let start = Instant::now();
    log.write(&series, 0..100).await;
    let seen = backend.until_samples(100).await;
    let gaps = start.elapsed().as_millis() / 10;
    assert!(
        seen.len() as u128 <= gaps + 1,
        "{} requests, {gaps} gaps",
        seen.len()
    );
    endpoint.stop(LONG).await;
    log.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn failures_in_between_change_neither_order_nor_completeness() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let backend = Backend::start(|n, _| {
        Reply::status(match n % 7 {
            0 => 503,
            2 => 429,
            3 => 500,
            _ => 204,
        })
    })
    .await;
    let series = log.series(80);
    let endpoint = log.ship(options("a", &backend.url()));
    log.write(&series, 0..100).await;
    let seen = backend.until_samples(80 * 100).await;
    assert_delivered_once(&seen, 80, 0..100);
    assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
    assert!(log.is_acked("a"));
    log.close();
}

/// What a first run delivered, then a second one, over a log that was closed in between.
async fn restart(first_reply: fn(usize, &Received) -> Reply) -> (Vec<Received>, Vec<Received>) {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let backend = Backend::start(first_reply).await;
    let series = log.series(20);
    log.write(&series, 0..100).await;
    let endpoint = log.ship(options("a", &backend.url()));
    // All series may have gone to few shards, but not all were answered.
    backend
        .until(|seen| seen.iter().any(|r| r.status == 0))
        .await;
    endpoint.stop(Duration::ZERO).await;
    let first = backend.seen();
    log.close();

    let mut log = Log::open(dir.path());
    let backend = Backend::start(|_, _| Reply::ok()).await;
    let endpoint = log.ship(options("a", &backend.url()));
    log.write(&series, 100..110).await;
    backend
        .until(|seen| {
            delivered(seen)
                .values()
                .filter(|t| t.last() == Some(&109))
                .count()
                == 20
        })
        .await;
    assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
    assert!(log.is_acked("a"));
    log.close();
    (first, backend.seen())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn restart_resumes_at_the_saved_position_and_misses_nothing() {
    let (first, second) = restart(|n, _| if n < 20 { Reply::ok() } else { Reply::Hang }).await;
    let (before, after) = (delivered(&first), delivered(&second));
    for (name, after) in &after {
        assert!(after.is_sorted_by(|a, b| a < b), "{name}: {after:?}");
        let before = before.get(name).map_or(&[][..], |t| t);
        assert!(before.is_sorted_by(|a, b| a < b), "{name}: {before:?}");
        let mut all: Vec<_> = before.iter().chain(after).copied().collect();
        all.sort_unstable();
        all.dedup();
        assert!(
            all.iter().copied().eq(0..110),
            "{name}: {before:?} then {after:?}"
        );
    }
    let delivered_twice = acked_samples(&first) + acked_samples(&second) - 20 * 110;
    // at most what the queues let the tailer read ahead of the oldest unanswered request
    assert!(delivered_twice <= 2 * (200 + 50) + 20, "{delivered_twice}");
    assert!(
        acked_samples(&second) < 20 * 110,
        "it does not start at the beginning"
    );
}

#[tokio::test]
async fn dropped_handle_acks_nothing_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let backend = Backend::start(|_, _| Reply::Hang).await;
    let series = log.series(20);
    log.write(&series, 0..10).await;
    let endpoint = log.ship(options("a", &backend.url()));
    let before = endpoint.acked();
    backend.until(|seen| !seen.is_empty()).await;
    drop(endpoint);
    assert_eq!(log.store.endpoint("a").unwrap().acked(), before);
    let endpoint = log.ship(options("a", &backend.url()));
    backend.until(|seen| seen.len() >= 4).await;
    endpoint.stop(Duration::ZERO).await;
    log.close();
}
