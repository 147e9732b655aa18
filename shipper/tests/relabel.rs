//! From a log to endpoints that do not want everything, or want it under other labels.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::common::{
    Backend, Exemplar, LONG, Log, Received, Reply, delivered, options, until, value_bits,
};
use labels::canonical;
use labels::relabel::{Action, RuleOptions};
use prost::Message;
use shipper::{Counts, DropReason, Endpoint, EndpointHandle, EndpointOptions, Stopped};
use wal::{Clock, RawRecord, RecordKind, Sample};

fn rule(action: Action, source: &str, regex: &str) -> RuleOptions {
    RuleOptions {
        action,
        source_labels: vec![source.to_owned()],
        regex: regex.to_owned(),
        ..RuleOptions::default()
    }
}

fn to(target: &str, rule: RuleOptions) -> RuleOptions {
    RuleOptions {
        target_label: target.to_owned(),
        ..rule
    }
}

/// A series called `name` of a job.
fn labels(name: &str, job: &str) -> Vec<u8> {
    canonical(&[("__name__", name), ("instance", name), ("job", job)])
}

/// The label sets of what was acked, as text.
fn label_sets(seen: &[Received]) -> BTreeSet<String> {
    let acked = seen.iter().filter(|r| r.status / 100 == 2);
    let series = acked.flat_map(|r| &r.request.timeseries);
    let text = |l: &crate::common::Label| format!("{}={}", l.name, l.value);
    series
        .map(|s| s.labels.iter().map(text).collect::<Vec<_>>().join(","))
        .collect()
}

fn assert_adds_up(log: &Log, endpoint: &str, delivered: u64, dropped: &[(DropReason, u64)]) {
    let account = log.store.endpoint(endpoint).unwrap().account();
    assert_eq!((account.pending, account.tally.delivered), (0, delivered));
    for reason in DropReason::ALL {
        let want = dropped.iter().find(|(one, _)| *one == reason);
        let want = want.map_or(0, |(_, records)| *records);
        assert_eq!(account.tally.dropped(reason), want, "{reason:?}");
    }
    assert_eq!(account.records_in, account.tally.total());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rules_see_external_labels_and_what_they_drop_is_counted_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let backend = Backend::start(|_, _| Reply::ok()).await;
    let all: Vec<_> = (0..40)
        .map(|n| {
            labels(
                &format!("m{n:02}"),
                if n % 4 == 0 { "noisy" } else { "quiet" },
            )
        })
        .collect();
    let series = log.define(&all);
    let exemplar = Exemplar::default().encode_to_vec();
    let exemplars = [0, 1].map(|n: usize| RawRecord {
        series: series[n],
        kind: RecordKind::Exemplar,
        bytes: &exemplar,
    });
    log.append(&[], &exemplars).await;
    log.write(&series, 0..30).await;
    let mut options = options("a", &backend.url());
    options
        .external_labels
        .insert("cluster".into(), "eu".into());
    options.write_relabel = vec![
        rule(Action::Drop, "job", "noisy"),
        to("site", rule(Action::Replace, "cluster", "(.*)")),
        RuleOptions {
            source_labels: Vec::new(),
            ..rule(Action::LabelDrop, "", "cluster|job")
        },
    ];
    let endpoint = log.ship(options);
    let seen = backend.until_samples(30 * 30).await;
    let stats = endpoint.stats();
    assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
    let got = delivered(&seen);
    assert_eq!(got.len(), 30);
    assert!(
        got.values().all(|times| times.iter().copied().eq(0..30)),
        "{got:?}"
    );
    let sets = label_sets(&seen);
    assert_eq!(sets.len(), 30);
    assert!(
        sets.contains("__name__=m01,instance=m01,site=eu"),
        "{sets:?}"
    );
    let dropped = stats.snapshot().dropped[DropReason::Relabel.number()].1;
    assert_eq!((dropped.samples, dropped.exemplars), (10 * 30, 1));
    assert_adds_up(&log, "a", 30 * 30 + 1, &[(DropReason::Relabel, 301)]);
    log.close();
}

#[tokio::test]
async fn a_series_whose_labels_are_all_removed_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let backend = Backend::start(|_, _| Reply::ok()).await;
    let series = log.series(3);
    log.write(&series, 0..5).await;
    let mut options = options("a", &backend.url());
    options.write_relabel = vec![RuleOptions {
        action: Action::LabelKeep,
        regex: "none".into(),
        ..RuleOptions::default()
    }];
    let endpoint = log.ship(options);
    until(|| log.is_acked("a")).await;
    assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
    assert_eq!(backend.seen().len(), 0);
    assert_adds_up(&log, "a", 0, &[(DropReason::Relabel, 15)]);
    log.close();
}

#[tokio::test]
async fn a_backlog_goes_out_by_the_rules_of_the_run_that_sends_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let away = Backend::start(|_, _| Reply::status(503)).await;
    let series = log.define(&[labels("x", "one"), labels("y", "two")]);
    log.write(&series, 0..20).await;
    let mut before = options("a", &away.url());
    before.write_relabel = vec![rule(Action::Keep, "job", "one")];
    let endpoint = log.ship(before);
    away.until(|seen| seen.len() > 2).await;
    assert!(matches!(
        endpoint.stop(Duration::ZERO).await,
        Stopped::GaveUp { .. }
    ));
    log.close();

    let log = Log::open(dir.path());
    let backend = Backend::start(|_, _| Reply::ok()).await;
    let mut after = options("a", &backend.url());
    after.write_relabel = vec![
        rule(Action::Keep, "job", "two"),
        to("job", rule(Action::Uppercase, "job", "(.*)")),
    ];
    let endpoint = log.ship(after);
    let seen = backend.until_samples(20).await;
    assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
    assert!(delivered(&seen)["y"].iter().copied().eq(0..20));
    let sets = label_sets(&seen).into_iter().collect::<Vec<_>>();
    assert_eq!(sets, ["__name__=y,instance=y,job=TWO"]);
    assert_adds_up(&log, "a", 20, &[(DropReason::Relabel, 20)]);
    log.close();
}

/// Has another series fill the log until refs that are idle were freed.
async fn free_refs(log: &mut Log) {
    let filling = async {
        while log.store.series().generation() == 0 {
            // looked for each time, as one that is sent is
            let filler = log.define(&[labels("filler", "no")]);
            log.write(&filler.repeat(1000), 0..1).await;
        }
    };
    tokio::time::timeout(LONG, filling)
        .await
        .expect("idle refs are freed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_ref_that_is_used_again_gets_the_labels_and_the_verdict_of_its_new_series() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open_with(dir.path(), |options| {
        options.series_idle_timeout = Duration::ZERO;
    });
    let backend = Backend::start(|_, _| Reply::ok()).await;
    let mut options = options("a", &backend.url());
    options.external_labels.insert("zone".into(), "z".into());
    options.write_relabel = vec![rule(Action::Drop, "job", "no")];
    log.store.endpoint("a").unwrap();
    log.store.endpoints_complete();
    let endpoint = log.ship(options);
    let job = |is_kept: bool| if is_kept { "yes" } else { "no" };
    let old: Vec<_> = (0..200)
        .map(|n| labels(&format!("old{n}"), job(n % 2 == 0)))
        .collect();
    let old = log.define(&old);
    log.write(&old, 0..3).await;
    backend.until_samples(300).await;
    free_refs(&mut log).await;
    // every third is kept now: among the refs used again are some that were dropped
    let new: Vec<_> = (0..200)
        .map(|n| labels(&format!("new{n}"), job(n % 3 == 0)))
        .collect();
    let new = log.define(&new);
    let kept_now = new.iter().step_by(3).collect::<BTreeSet<_>>();
    let dropped_before = old.iter().skip(1).step_by(2).collect::<BTreeSet<_>>();
    assert!(
        !dropped_before.is_disjoint(&kept_now),
        "refs are used again"
    );
    log.write(&new, 7..9).await;
    let seen = backend.until_samples(300 + 67 * 2).await;
    assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
    let names = |prefix: &str, step| {
        let name = |n| format!("__name__={prefix}{n},instance={prefix}{n},job=yes,zone=z");
        (0..200).step_by(step).map(name).collect::<BTreeSet<_>>()
    };
    assert_eq!(label_sets(&seen), &names("old", 2) | &names("new", 3));
    let got = delivered(&seen);
    assert!(
        (0..200)
            .step_by(3)
            .all(|n| got[&format!("new{n}")] == [7, 8])
    );
    log.close();
}

/// A wall clock that stands until it is set.
#[derive(Debug)]
struct SetClock(AtomicI64);

impl Clock for SetClock {
    fn unix_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(1)
    }
}

fn ship(log: &Log, options: EndpointOptions, clock: &Arc<SetClock>) -> EndpointHandle {
    let runtime = tokio::runtime::Handle::current();
    Endpoint::start(
        log.store.clone(),
        options,
        Arc::clone(clock) as wal::SharedClock,
        &runtime,
    )
    .unwrap()
}

fn exemplar(timestamp: i64) -> Vec<u8> {
    Exemplar {
        value: 0.5,
        timestamp,
    }
    .encode_to_vec()
}

#[tokio::test]
async fn what_is_too_old_is_dropped_when_routed_and_before_it_goes_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let clock = Arc::new(SetClock(AtomicI64::new(10_000)));
    let moved = Arc::clone(&clock);
    // while the endpoint is away the time goes on: 5 to 7 are too old by then
    let backend = Backend::start(move |number, _| match number {
        0 => {
            moved.0.store(13_000, Ordering::SeqCst);
            Reply::status(503)
        }
        _ => Reply::ok(),
    })
    .await;
    let series = log.series(1)[0];
    let samples = (0..10).map(|second: i64| Sample {
        series,
        timestamp_ms: second * 1000,
        value_bits: value_bits(second * 1000),
    });
    let samples: Vec<_> = samples.collect();
    let exemplars = [4999, 7999, 8000].map(exemplar);
    let raw = exemplars.each_ref().map(|bytes| RawRecord {
        series,
        kind: RecordKind::Exemplar,
        bytes,
    });
    log.append(&samples, &raw).await;
    let mut options = options("a", &backend.url());
    options.queue.sample_age_limit = Duration::from_secs(5);
    let endpoint = ship(&log, options, &clock);
    let seen = backend.until_samples(2).await;
    let stats = endpoint.stats();
    assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
    assert_eq!(seen[0].sample_count(), 5);
    assert_eq!(
        delivered(&seen).into_values().collect::<Vec<_>>(),
        [[8000, 9000]]
    );
    let too_old = stats.snapshot().dropped[DropReason::TooOld.number()].1;
    let want = Counts {
        samples: 8,
        exemplars: 2,
        ..Counts::default()
    };
    assert_eq!(too_old, want);
    assert_eq!(stats.snapshot().pending, Counts::default());
    assert_adds_up(&log, "a", 3, &[(DropReason::TooOld, 10)]);
    log.close();
}

#[tokio::test]
async fn a_batch_that_is_too_old_as_a_whole_ends_and_the_position_moves() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let clock = Arc::new(SetClock(AtomicI64::new(1000)));
    let moved = Arc::clone(&clock);
    let backend = Backend::start(move |_, _| {
        moved.0.store(1_000_000, Ordering::SeqCst);
        Reply::status(500)
    })
    .await;
    let series = log.series(30);
    log.write(&series, 0..4).await;
    let mut options = options("a", &backend.url());
    options.queue.sample_age_limit = Duration::from_secs(60);
    let endpoint = ship(&log, options, &clock);
    until(|| log.is_acked("a")).await;
    assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
    assert_adds_up(&log, "a", 0, &[(DropReason::TooOld, 120)]);
    log.close();
}
