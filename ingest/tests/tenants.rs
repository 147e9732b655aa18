//! Turns requests of several tenants into samples and refusals, each tenant's by its own limits.

use std::sync::Arc;
use std::time::Duration;

use crate::common::*;
use ingest::{ANONYMOUS, Path, Reason, Stage, TenantLimits, TenantSnapshot, TenantsOptions};
use labels::relabel::{Action, RuleOptions};
use wal::IoEngine;

const SERIES_LIMIT: usize = Reason::TenantSeriesLimit.index();

fn limited(series_max: u32, samples_per_second: u64, burst_samples: u64) -> TenantsOptions {
    TenantsOptions {
        limits: TenantLimits {
            series_max,
            samples_per_second,
            burst_samples,
        },
        ..TenantsOptions::default()
    }
}

fn start(options: TenantsOptions, stores: usize) -> Running {
    let mut setup = Setup::new(IoEngine::Portable);
    setup.stores = stores;
    setup.receiver.paths = (0..stores).map(Path::plain).collect();
    setup.receiver.tenants = Some(options);
    setup.start()
}

/// One sample of each name.
fn request(names: &[&str]) -> Vec<u8> {
    let one = |name: &&str| series(&[("__name__", name), ("job", "j")], 1.0, 1_700_000_000_000);
    compressed(names.iter().map(one).collect())
}

fn send(client: &mut Client, tenant: &str, body: &[u8]) -> Reply {
    let header = match tenant {
        "" => String::new(),
        name => format!("X-Scope-OrgID: {name}\r\n"),
    };
    client.send(&with_head("POST /api/v1/write", &header, body));
    client.reply()
}

fn snapshot(running: &Running, name: &str) -> TenantSnapshot {
    let tenants = running.shards.stats()["front"].tenants().unwrap();
    let all = tenants.snapshot(Duration::ZERO);
    all.into_iter().find(|one| one.name == name).unwrap()
}

/// Names of the stored series, in order.
fn names(running: &Running, store: usize) -> String {
    let name = |labels: &[u8]| {
        let text = String::from_utf8_lossy(labels).into_owned();
        let (_, value) = text.split_once("__name__").unwrap();
        value.chars().nth(2).unwrap()
    };
    let all = stored(&running.stores[store]);
    all.iter().map(|(labels, ..)| name(labels)).collect()
}

#[test]
fn series_beyond_the_limit_are_refused_alone_and_not_defined() {
    let running = start(limited(3, 0, 0), 2);
    let mut client = running.connect();
    assert_eq!(send(&mut client, "t", &request(&["a", "b"])).status, 204);
    let reply = send(&mut client, "t", &request(&["x", "a", "c", "y", "b", "z"]));
    // The first of the new ones has the last place.
    assert_eq!(reply.status, 400, "{reply:?}");
    assert!(
        reply
            .text
            .contains("tenant_series_limit: 3 series with 3 samples"),
        "{reply:?}"
    );
    assert!(
        reply
            .text
            .contains("first: tenant_series_limit in {__name__=\"c\""),
        "{reply:?}"
    );
    let reply = send(&mut client, "t", &request(&["y", "a", "z", "b", "x"]));
    assert!(reply.text.contains("2 series with 2 samples"), "{reply:?}");
    for store in 0..2 {
        assert_eq!(names(&running, store), "abxababx");
        assert_eq!(running.stores[store].series().len(), 3, "none for nothing");
    }
    let now = snapshot(&running, "t");
    assert_eq!((now.active_series, now.samples), (3, 8));
    assert_eq!(now.refused_series[SERIES_LIMIT], 5);
    let top: Vec<_> = now
        .top_refused
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(top, ["y", "z", "c"]);
    assert_eq!(running.snapshot().refused_series[SERIES_LIMIT], 5);
    running.stop();
}

#[test]
fn tenants_do_not_touch_each_other() {
    let mut options = limited(1, 0, 0);
    let large = TenantLimits::default();
    options.overrides.insert("large".to_owned(), large);
    let running = start(options, 1);
    let mut client = running.connect();
    assert_eq!(send(&mut client, "", &request(&["a"])).status, 204);
    assert_eq!(send(&mut client, "", &request(&["b"])).status, 400);
    assert_eq!(send(&mut client, "t", &request(&["b"])).status, 204);
    assert_eq!(
        send(&mut client, "large", &request(&["c", "d", "e"])).status,
        204
    );
    assert_eq!(snapshot(&running, ANONYMOUS).active_series, 1);
    assert_eq!(snapshot(&running, "large").active_series, 3);
    assert_eq!(
        snapshot(&running, "t").refused_series,
        [0; Reason::ALL.len()]
    );
    running.stop();
}

#[test]
fn a_series_of_two_tenants_is_charged_to_the_first() {
    let running = start(limited(2, 0, 0), 1);
    let mut client = running.connect();
    assert_eq!(
        send(&mut client, "first", &request(&["a", "b"])).status,
        204
    );
    // Another's active series are let through and not charged.
    assert_eq!(
        send(&mut client, "second", &request(&["a", "b"])).status,
        204
    );
    assert_eq!(snapshot(&running, "second").active_series, 0);
    assert_eq!(
        send(&mut client, "second", &request(&["c", "d"])).status,
        204
    );
    let reply = send(&mut client, "second", &request(&["a", "e", "b"]));
    assert_eq!(reply.status, 400);
    assert_eq!(names(&running, 0), "ababcdab");
    running.stop();
}

#[test]
fn too_many_samples_per_second_are_refused_whole_with_the_time_to_wait() {
    let running = start(limited(0, 1, 100), 1);
    let mut client = running.connect();
    let all: Vec<String> = (0..100).map(|at| format!("s{at}")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let many = request(&all);
    assert_eq!(send(&mut client, "t", &many).status, 204);
    let reply = send(&mut client, "t", &many);
    assert_eq!(reply.status, 429, "{reply:?}");
    let wait: u64 = header(&reply.head, "retry-after").unwrap().parse().unwrap();
    // Less by what this test takes.
    assert!((30..=100).contains(&wait), "{reply:?}");
    assert!(reply.text.contains("max_samples_per_second"), "{reply:?}");
    assert_eq!(send(&mut client, "other team", &many).status, 204);
    assert_eq!(stored(&running.stores[0]).len(), 200);
    let now = snapshot(&running, "t");
    assert_eq!(
        (now.samples, now.too_fast_requests, now.too_fast_samples),
        (100, 1, 100)
    );
    let counted: u64 = now.top_refused.iter().map(|(_, count)| count).sum();
    assert!((1..=100).contains(&counted), "{now:?}");
    // New series that are refused so are not defined.
    let new: Vec<String> = (0..50).map(|at| format!("n{at}")).collect();
    let new: Vec<&str> = new.iter().map(String::as_str).collect();
    assert_eq!(send(&mut client, "t", &request(&new)).status, 429);
    assert_eq!(running.stores[0].series().len(), 100);
    running.stop();
}

#[test]
fn a_receiver_that_forwards_to_nothing_has_tenants_too() {
    let running = start(limited(1, 1, 3), 0);
    let mut client = running.connect();
    assert_eq!(
        send(&mut client, "t", &request(&["a", "b", "c"])).status,
        204
    );
    assert_eq!(
        send(&mut client, "t", &request(&["a", "b", "c"])).status,
        429
    );
    assert_eq!(snapshot(&running, "t").samples, 3);
    running.stop();
}

#[test]
fn a_log_that_refuses_costs_the_tenant_nothing() {
    let running = start(limited(5, 1, 3), 1);
    let mut client = running.connect();
    running.stores[0].close();
    for _ in 0..3 {
        let reply = send(&mut client, "t", &request(&["a", "b", "c"]));
        assert_eq!(reply.status, 503, "{reply:?}");
    }
    running.stop();
}

#[test]
fn limits_hold_where_rules_stand_before_every_writer() {
    let rule = RuleOptions {
        action: Action::Drop,
        source_labels: vec!["__name__".to_owned()],
        regex: "d".to_owned(),
        ..RuleOptions::default()
    };
    let rules = vec![rule.build().unwrap()];
    let stage = Arc::new(Stage::new("s", rules, 100, Duration::ZERO));
    let mut setup = Setup::new(IoEngine::Portable);
    (setup.threads, setup.receiver.tenants) = (1, Some(limited(2, 10, 10)));
    setup.receiver.paths = vec![Path {
        store: 0,
        stages: vec![stage],
    }];
    let running = setup.start();
    let mut client = running.connect();
    // What is dropped is nobody's series.
    assert_eq!(send(&mut client, "t", &request(&["d", "a"])).status, 204);
    for _ in 0..2 {
        let reply = send(&mut client, "t", &request(&["a", "b", "c"]));
        assert_eq!(reply.status, 400, "{}", reply.text);
        let text = "tenant_series_limit: 1 series with 1 samples";
        assert!(reply.text.contains(text), "{}", reply.text);
    }
    assert_eq!(names(&running, 0), "aabab");
    assert_eq!(running.stores[0].series().len(), 2);
    assert_eq!(snapshot(&running, "t").active_series, 2);
    // Another tenant has room for what this one has not.
    assert_eq!(send(&mut client, "u", &request(&["c"])).status, 204);
    // 8 of 10 samples are spent.
    let reply = send(&mut client, "t", &request(&["a", "b", "d"]));
    assert_eq!(reply.status, 429, "{}", reply.text);
    assert_eq!(names(&running, 0), "aababc");
    let refused = snapshot(&running, "t").top_refused;
    assert!(refused.iter().any(|(value, _)| value == "c"), "{refused:?}");
    running.stop();
}

/// Of series that the log knows and nobody has active, those beyond the limit are taken out from between
/// the others, and what new ones brought stays theirs.
#[test]
fn refused_series_leave_their_neighbours_alone() {
    let running = start(limited(2, 0, 0), 1);
    let old: Vec<Vec<u8>> = ["a", "b", "c"]
        .map(|name| label_bytes(&[("__name__", name), ("job", "j")]))
        .to_vec();
    let guard = running.stores[0].series().guard();
    let mut new: Vec<wal::NewSeries<'_>> = old
        .iter()
        .map(|labels| wal::NewSeries {
            hash: guard.hash(labels),
            labels,
            series: wal::SeriesRef::NONE,
        })
        .collect();
    guard.define(&mut new).unwrap();
    drop(guard);
    let mut client = running.connect();
    let reply = send(&mut client, "t", &request(&["a", "b", "c", "n"]));
    assert!(reply.text.contains("2 series with 2 samples"), "{reply:?}");
    assert!(
        reply
            .text
            .contains("first: tenant_series_limit in {__name__=\"b\""),
        "{reply:?}"
    );
    assert_eq!(names(&running, 0), "an");
    assert_eq!(send(&mut client, "t", &request(&["n", "a"])).status, 204);
    assert_eq!(names(&running, 0), "anna");
    assert_eq!(snapshot(&running, "t").active_series, 2);
    running.stop();
}
