//! Turns requests through relabel rules, to several stores, and from senders that do not sort their
//! labels, into verdicts on what each store holds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::common::*;
use ingest::proto::TimeSeries;
use ingest::{Path, STAGES_MAX, Stage};
use labels::canonical;
use labels::relabel::{Action, Relabeled, Relabeler, Rule, RuleOptions};
use wal::IoEngine;

fn rule(action: Action, source: &str, regex: &str, target: &str, replacement: &str) -> RuleOptions {
    let source_labels = if source.is_empty() {
        vec![]
    } else {
        vec![source.to_owned()]
    };
    RuleOptions {
        action,
        source_labels,
        regex: regex.to_owned(),
        target_label: target.to_owned(),
        replacement: replacement.to_owned(),
        ..RuleOptions::default()
    }
}

fn drop_metric(regex: &str) -> RuleOptions {
    rule(Action::Drop, "__name__", regex, "", "$1")
}

fn built(rules: &[RuleOptions]) -> Vec<Rule> {
    rules.iter().map(|rule| rule.build().unwrap()).collect()
}

fn stage(name: &str, rules: &[RuleOptions], entries_max: usize) -> Arc<Stage> {
    let ttl = Duration::from_secs(60);
    Arc::new(Stage::new(name, built(rules), entries_max, ttl))
}

/// A receiver with these paths, on one thread so that what is remembered is used again.
fn start(stores: usize, paths: Vec<Path>) -> Running {
    let mut setup = Setup::new(IoEngine::Portable);
    (setup.threads, setup.stores) = (1, stores);
    setup.receiver.paths = paths;
    setup.start()
}

fn path(store: usize, stages: &[&Arc<Stage>]) -> Path {
    Path {
        store,
        stages: stages.iter().map(|stage| (*stage).clone()).collect(),
    }
}

fn counts(stage: &Stage) -> [u64; 4] {
    let stats = stage.stats();
    [&stats.processed, &stats.written, &stats.hits, &stats.misses]
        .map(|counter| counter.load(Ordering::Relaxed))
}

/// Names and values of what a store holds, in order.
fn held(running: &Running, store: usize) -> Vec<(Vec<u8>, f64)> {
    let all = stored(&running.stores[store]).into_iter();
    all.map(|(labels, _, value)| (labels, value)).collect()
}

#[test]
fn rules_run_once_per_series_and_what_they_drop_is_in_no_store() {
    let only = stage(
        "only",
        &[
            drop_metric("debug_.*"),
            rule(Action::Replace, "pod", "(.*)-.*", "app", "$1"),
            rule(Action::LabelDrop, "", "pod", "", "$1"),
        ],
        1000,
    );
    let running = start(1, vec![path(0, &[&only])]);
    let mut client = running.connect();
    let request = |value: f64| {
        compressed(vec![
            series(&[("__name__", "up"), ("pod", "shop-1")], value, 1),
            series(&[("__name__", "debug_x"), ("pod", "shop-1")], value, 1),
            series(&[("__name__", "up"), ("pod", "shop-2")], value + 0.5, 2),
        ])
    };
    for value in [1.0, 2.0, 3.0] {
        assert_eq!(client.post(&request(value)).status, 204);
    }
    let up = canonical(&[("__name__", "up"), ("app", "shop")]);
    let want: Vec<_> = [1.0, 1.5, 2.0, 2.5, 3.0, 3.5]
        .map(|value| (up.clone(), value))
        .into();
    assert_eq!(held(&running, 0), want);
    assert_eq!(running.stores[0].series().len(), 1);
    assert_eq!(counts(&only), [9, 6, 6, 3]);
    assert_eq!(only.stats().size.load(Ordering::Relaxed), 3);
    running.stop();
}

#[test]
fn stages_run_in_order_and_a_shared_one_is_counted_once() {
    let first = stage("first", &[drop_metric("a")], 100);
    let second = stage(
        "second",
        &[
            drop_metric("b"),
            rule(Action::Replace, "", "(.*)", "zone", "z"),
        ],
        100,
    );
    let running = start(2, vec![path(0, &[&first, &second]), path(1, &[&first])]);
    let mut client = running.connect();
    let request = compressed(
        ["a", "b", "c"]
            .iter()
            .map(|name| series(&[("__name__", name)], 1.0, 1))
            .collect(),
    );
    assert_eq!(client.post(&request).status, 204);
    let named = |labels: &[(&str, &str)]| (canonical(labels), 1.0);
    assert_eq!(
        held(&running, 0),
        [named(&[("__name__", "c"), ("zone", "z")])]
    );
    assert_eq!(
        held(&running, 1),
        [named(&[("__name__", "b")]), named(&[("__name__", "c")])]
    );
    assert_eq!(counts(&first)[..2], [3, 2]);
    assert_eq!(counts(&second)[..2], [2, 1]);
    running.stop();
}

#[test]
fn labels_that_rules_leave_nameless_refuse_the_series_and_the_rest_is_stored() {
    let nameless = stage(
        "nameless",
        &[rule(Action::Replace, "__name__", "bad", "__name__", "")],
        100,
    );
    let running = start(1, vec![path(0, &[&nameless])]);
    let mut client = running.connect();
    let request = compressed(vec![
        series(&[("__name__", "bad"), ("a", "1")], 1.0, 1),
        series(&[("__name__", "good")], 1.0, 1),
        // Without a name when it comes, and still.
        series(&[("a", "1")], 1.0, 1),
    ]);
    for _ in 0..2 {
        let reply = client.post(&request);
        assert_eq!(reply.status, 400);
        assert!(
            reply.text.contains("missing_metric_name: 2 series"),
            "{}",
            reply.text
        );
    }
    assert_eq!(held(&running, 0).len(), 2);
    running.stop();
}

#[test]
fn rules_may_give_a_name_to_what_has_none() {
    let naming = stage(
        "naming",
        &[rule(Action::Replace, "metric", "(.+)", "__name__", "$1")],
        100,
    );
    let running = start(1, vec![path(0, &[&naming])]);
    let request = compressed(vec![series(&[("metric", "up")], 1.0, 1)]);
    assert_eq!(running.connect().post(&request).status, 204);
    let want = canonical(&[("__name__", "up"), ("metric", "up")]);
    assert_eq!(held(&running, 0), [(want, 1.0)]);
    running.stop();
}

#[test]
fn senders_that_do_not_sort_their_labels_are_understood_each_time() {
    let running = start(1, vec![Path::plain(0)]);
    let mut client = running.connect();
    let sorted = [("__name__", "up"), ("a", "1"), ("b", "2")];
    let mut turned = sorted;
    turned.reverse();
    let other = [("b", "2"), ("__name__", "down"), ("a", "")];
    for round in 0..5 {
        let all = [&turned[..], &other, &sorted].map(|labels| series(labels, 1.0, round));
        assert_eq!(client.post(&compressed(all.into())).status, 204);
    }
    let up = (canonical(&sorted), 1.0);
    let down = (canonical(&[("__name__", "down"), ("b", "2")]), 1.0);
    let want: Vec<_> = (0..5)
        .flat_map(|_| [up.clone(), down.clone(), up.clone()])
        .collect();
    assert_eq!(held(&running, 0), want);
    assert_eq!(running.stores[0].series().len(), 2);
    running.stop();
}

/// What a path's rules make of a series, by the rules themselves and nothing remembered.
fn oracle(series: &TimeSeries, stages: &[&[RuleOptions]]) -> Option<Vec<u8>> {
    let sorted: BTreeMap<&str, &str> = series
        .labels
        .iter()
        .filter(|label| !label.value.is_empty())
        .map(|label| (label.name.as_str(), label.value.as_str()))
        .collect();
    let mut labels = canonical(&sorted.into_iter().collect::<Vec<_>>());
    for rules in stages {
        match Relabeler::new(built(rules).into()).apply(&labels).unwrap() {
            Relabeled::AsItIs => {}
            Relabeled::Dropped => return None,
            Relabeled::Changed(changed) => labels = changed.to_vec(),
        }
    }
    Some(labels)
}

/// Requests of random series in random order, labels sorted or not, through caches that are far too
/// small or large enough, with and without a plain path: each store holds what the rules say.
#[test]
fn every_store_holds_what_the_rules_make_of_what_was_sent() {
    let seeds = std::env::var("PENSTOCK_TEST_SEED").ok();
    let seeds = seeds.map_or(0..12, |seed| {
        let seed = seed.parse::<u64>().unwrap();
        seed..seed + 1
    });
    for seed in seeds {
        let mut random = fastrand::Rng::with_seed(seed);
        let first = [
            drop_metric("m[0-2]"),
            rule(Action::LabelDrop, "", "pod", "", "$1"),
        ];
        let second = [rule(Action::Replace, "b", "(.)", "zone", "z$1")];
        let entries = random.choice([1, 7, 1000]).unwrap();
        let stages = [stage("1", &first, entries), stage("2", &second, entries)];
        let mut plans: Vec<Vec<usize>> = vec![vec![0], vec![0, 1], vec![1]];
        if random.bool() {
            plans.push(vec![]);
        }
        random.shuffle(&mut plans);
        let paths = plans.iter().enumerate().map(|(store, plan)| {
            let through: Vec<_> = plan.iter().map(|at| &stages[*at]).collect();
            path(store, &through)
        });
        let running = start(plans.len(), paths.collect());
        let mut want: Vec<Vec<(Vec<u8>, f64)>> = vec![vec![]; plans.len()];
        let mut client = running.connect();
        for request in 0..30_u32 {
            let all: Vec<_> = (0..random.usize(1..40))
                .map(|at| random_series(&mut random, f64::from(request) + at as f64 / 100.0))
                .collect();
            for series in &all {
                for (store, plan) in plans.iter().enumerate() {
                    let rules = [&first[..], &second];
                    let through: Vec<_> = plan.iter().map(|at| rules[*at]).collect();
                    if let Some(labels) = oracle(series, &through) {
                        want[store].push((labels, series.samples[0].value));
                    }
                }
            }
            assert_eq!(client.post(&compressed(all)).status, 204, "seed {seed}");
            if random.u8(..10) == 0 {
                client = running.connect();
            }
        }
        for (store, want) in want.iter().enumerate() {
            assert!(held(&running, store) == *want, "seed {seed}, store {store}");
        }
        running.stop();
    }
}

fn random_series(random: &mut fastrand::Rng, value: f64) -> TimeSeries {
    let name = format!("m{}", random.u8(..6));
    let (pod, b) = (random.u8(..4).to_string(), random.u8(..3).to_string());
    let mut labels = vec![("__name__", &*name), ("b", &b), ("pod", &pod)];
    match random.u8(..4) {
        0 => labels.reverse(),
        1 => labels.push(("zz", "")),
        _ => {}
    }
    series(&labels, value, 1)
}

#[test]
fn a_path_of_too_many_stages_does_not_start() {
    let one = stage("one", &[], 1);
    let stages: Vec<_> = (0..=STAGES_MAX).map(|_| &one).collect();
    let mut setup = Setup::new(IoEngine::Portable);
    setup.receiver.paths = vec![path(0, &stages)];
    let message = setup.try_start().err().unwrap().to_string();
    assert!(message.contains("too many components"), "{message}");
}

/// The last series of a request is the first of the next, and what comes behind it needs its place.
#[test]
fn a_label_set_in_use_does_not_make_room_for_another() {
    let only = stage("only", &[rule(Action::Replace, "", "(.*)", "zone", "z")], 1);
    let running = start(1, vec![path(0, &[&only])]);
    let mut client = running.connect();
    let mut want = Vec::new();
    for round in 0..40_u32 {
        let (a, b) = (format!("m{round}"), format!("m{}", round + 1));
        let all = [(a, 1.0), (b, 2.0)].map(|(name, value)| {
            let value = f64::from(round) + value / 10.0;
            let labels = [("__name__", &*name), ("zone", "z")];
            want.push((canonical(&labels), value));
            series(&labels[..1], value, 1)
        });
        assert_eq!(client.post(&compressed(all.into())).status, 204);
    }
    assert!(held(&running, 0) == want);
    running.stop();
}
