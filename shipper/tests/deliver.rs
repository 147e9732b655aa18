//! From a real log to a backend that behaves.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::common::{
    Backend, Exemplar, LONG, Label, Log, MetricMetadata, Reply, assert_delivered_once, options,
    until,
};
use prost::Message;
use shipper::{Auth, Counts, DropReason, SecretSource, Stopped};
use wal::{RawRecord, RecordKind, Sample, SeriesRef};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_samples_are_delivered_once_and_in_order_per_series() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let backend = Backend::start(|_, _| Reply::ok()).await;
    let series = log.series(57);
    log.write(&series, 0..20).await;
    let endpoint = log.ship(options("a", &backend.url()));
    log.write(&series, 20..40).await;
    let seen = backend.until_samples(57 * 40).await;
    assert_delivered_once(&seen, 57, 0..40);
    assert!(seen.iter().all(|received| received.sample_count() <= 50));

    let stats = endpoint.stats();
    assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
    assert!(log.is_acked("a"));
    let numbers = stats.snapshot();
    assert_eq!(numbers.sent, Counts::of_samples(57 * 40));
    assert_eq!(numbers.pending, Counts::default());
    assert_eq!(
        (numbers.highest_tailed_ms, numbers.highest_sent_ms),
        (Some(39), Some(39))
    );
    assert_eq!(numbers.lag(i64::MAX), Duration::ZERO);
    assert_eq!(numbers.sent_batches, seen.len() as u64);
    assert_eq!(
        numbers.sent_bytes,
        seen.iter().map(|r| r.body.len() as u64).sum::<u64>()
    );
    log.close();
}

#[tokio::test]
async fn requests_say_what_they_are_and_who_sends_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let backend = Backend::start(|_, _| Reply::ok()).await;
    let mut options = options("a", &backend.url());
    options.http.auth = Auth::bearer(SecretSource::Text("t0ken".into()));
    options
        .headers
        .insert("X-Scope-OrgID".into(), "tenant".into());
    options.external_labels.insert("cluster".into(), "c".into());
    options
        .external_labels
        .insert("job".into(), "not this".into());
    let endpoint = log.ship(options);
    let series = log.series(1);
    log.write(&series, 0..1).await;
    let seen = backend.until_samples(1).await;
    for (name, value) in [
        ("content-encoding", "snappy"),
        ("content-type", "application/x-protobuf"),
        ("x-prometheus-remote-write-version", "0.1.0"),
        ("authorization", "Bearer t0ken"),
        ("x-scope-orgid", "tenant"),
    ] {
        assert_eq!(seen[0].header(name), Some(value));
    }
    assert!(
        seen[0]
            .header("user-agent")
            .unwrap()
            .starts_with("Penstock/")
    );
    assert_eq!(seen[0].header("retry-attempt"), None);
    let label = |name: &str, value: &str| Label {
        name: name.into(),
        value: value.into(),
    };
    assert_eq!(
        seen[0].request.timeseries[0].labels,
        [
            label("__name__", "metric_0"),
            label("cluster", "c"),
            label("instance", "host-0"),
            label("job", "test"),
        ]
    );
    endpoint.stop(LONG).await;
    log.close();
}

#[tokio::test]
async fn user_and_password_of_the_url_are_sent() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let backend = Backend::start(|_, _| Reply::ok()).await;
    let url = format!("http://Aladdin:open%20sesame@{}/", backend.addr);
    let endpoint = log.ship(options("a", &url));
    assert_eq!(
        endpoint.url_redacted(),
        format!("http://xxxxx@{}/", backend.addr)
    );
    let series = log.series(1);
    log.write(&series, 0..1).await;
    let seen = backend.until_samples(1).await;
    assert_eq!(
        seen[0].header("authorization"),
        Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")
    );
    endpoint.stop(LONG).await;
    log.close();
}

#[tokio::test]
async fn a_target_stays_on_one_connection() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let backend = Backend::start(|_, _| Reply::ok()).await;
    let series = log.series(40);
    log.write(&series, 0..1).await;
    let endpoint = log.ship(options("a", &backend.url()));
    let seen = backend.until_samples(40).await;
    let targets: Vec<BTreeSet<_>> = seen
        .iter()
        .map(|r| {
            r.request
                .timeseries
                .iter()
                .map(|s| s.labels[1].value.clone())
                .collect()
        })
        .collect();
    let all: usize = targets.iter().map(BTreeSet::len).sum();
    assert_eq!(
        all, 4,
        "no target is spread over two first requests: {targets:?}"
    );
    endpoint.stop(LONG).await;
    log.close();
}

fn raw(series: SeriesRef, kind: RecordKind, bytes: &[u8]) -> RawRecord<'_> {
    RawRecord {
        series,
        kind,
        bytes,
    }
}

#[tokio::test]
async fn exemplars_go_with_samples_and_metadata_on_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let backend = Backend::start(|_, _| Reply::ok()).await;
    let endpoint = log.ship(options("a", &backend.url()));
    let series = log.series(1)[0];
    let exemplar = Exemplar {
        value: 1.5,
        timestamp: 7,
    };
    let metadata = MetricMetadata {
        kind: 1,
        metric_family_name: "metric_0".into(),
    };
    let sample = Sample {
        series,
        timestamp_ms: 7,
        value_bits: 1,
    };
    let (exemplar_bytes, metadata_bytes) = (exemplar.encode_to_vec(), metadata.encode_to_vec());
    let records = [
        raw(series, RecordKind::Exemplar, &exemplar_bytes),
        raw(SeriesRef::NONE, RecordKind::Metadata, &metadata_bytes),
    ];
    log.append(&[sample], &records).await;
    let seen = backend.until(|seen| seen.len() == 2).await;
    let (with, without): (Vec<_>, Vec<_>) = seen
        .into_iter()
        .partition(|received| received.request.metadata.is_empty());
    assert_eq!(without[0].request.metadata, [metadata]);
    assert!(without[0].request.timeseries.is_empty());
    assert_eq!(with[0].request.timeseries.len(), 2);
    assert_eq!(with[0].request.timeseries[1].exemplars, [exemplar]);
    let stats = endpoint.stats();
    assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
    assert!(log.is_acked("a"));
    let sent = Counts {
        samples: 1,
        exemplars: 1,
        histograms: 0,
        metadata: 1,
    };
    assert_eq!(stats.snapshot().sent, sent);
    assert_eq!(
        stats.snapshot().sent_metadata_bytes,
        without[0].body.len() as u64
    );
    log.close();
}

#[tokio::test]
async fn what_is_switched_off_is_counted_and_holds_up_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let backend = Backend::start(|_, _| Reply::ok()).await;
    let series = log.series(1);
    log.write(&series, 0..1).await;
    log.append(&[], &[raw(series[0], RecordKind::Histogram, &[]); 3])
        .await;
    let endpoint = log.ship(options("a", &backend.url()));
    let stats = endpoint.stats();
    let switched_off = (
        DropReason::SwitchedOff,
        Counts {
            histograms: 3,
            ..Counts::default()
        },
    );
    until(|| stats.snapshot().dropped.contains(&switched_off)).await;
    assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
    assert!(log.is_acked("a"));
    assert_eq!(backend.seen().len(), 1);
    log.close();
}

#[tokio::test]
async fn sample_of_an_unknown_series_is_counted_and_blocks_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let backend = Backend::start(|_, _| Reply::ok()).await;
    let series = log.series(1);
    let unknown = SeriesRef::new(60_000);
    log.append(
        &[Sample {
            series: unknown,
            timestamp_ms: 0,
            value_bits: 0,
        }],
        &[],
    )
    .await;
    log.write(&series, 0..1).await;
    let endpoint = log.ship(options("a", &backend.url()));
    backend.until_samples(1).await;
    let stats = endpoint.stats();
    assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
    assert!(log.is_acked("a"));
    let dropped = stats.snapshot().dropped;
    assert!(dropped.contains(&(DropReason::UnknownSeries, Counts::of_samples(1))));
    log.close();
}

#[tokio::test]
async fn idle_endpoint_sends_the_first_sample_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let backend = Backend::start(|_, _| Reply::ok()).await;
    let mut options = options("a", &backend.url());
    options.queue.batch_send_deadline = Duration::from_secs(3600);
    let endpoint = log.ship(options);
    let series = log.series(1);
    for round in 0..3 {
        // the second must not wait for a full batch or the deadline either
        log.write(&series, round..round + 1).await;
        backend
            .until_samples(usize::try_from(round).unwrap() + 1)
            .await;
    }
    endpoint.stop(LONG).await;
    log.close();
}

#[tokio::test]
async fn redirect_that_keeps_the_body_is_followed_and_others_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let backend = Backend::start(|_, received| match received.path.as_str() {
        "/moved" => Reply::ok(),
        "/login" => Reply::Status(302, vec![("location", "/moved".into())], String::new()),
        _ => Reply::Status(307, vec![("location", "/moved".into())], String::new()),
    })
    .await;
    let series = log.series(3);
    log.write(&series, 0..1).await;
    let kept = log.ship(options("kept", &backend.url()));
    let seen = backend.until_samples(3).await;
    assert!(
        seen.iter()
            .any(|r| r.path == "/moved" && r.sample_count() == 3)
    );
    let login = log.ship(options("login", &format!("http://{}/login", backend.addr)));
    backend
        .until(|seen| seen.iter().filter(|r| r.path == "/login").count() >= 3)
        .await;
    let stats = login.stats();
    let left = Stopped::GaveUp { records: 3 };
    assert_eq!(login.stop(Duration::ZERO).await, left);
    assert_eq!(stats.snapshot().failed_total(), Counts::default());
    assert_eq!(stats.snapshot().sent, Counts::default());
    kept.stop(LONG).await;
    log.close();
}
