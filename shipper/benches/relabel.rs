//! What do relabel rules cost per series, and what is left of that once their results are kept?
//!
//! 10k series of 11 labels and five rules as users write them: two that drop series, two that set
//! labels, one that removes some. A fifth of the series is dropped.

#![allow(missing_docs, reason = "criterion's macros")]
#![allow(clippy::unwrap_used, reason = "a bench")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use labels::relabel::{Action, Relabeler, Rule, RuleOptions};
use labels::{ExternalLabels, canonical};
use shipper::outgoing::{OUTGOING_BYTES_MAX, Outgoing, OutgoingLabels};

const SERIES: u32 = 10_000;

fn labels(series: u32) -> Vec<u8> {
    let (target, metric) = (series / 250, series % 250);
    let subject = [
        "go_gc",
        "http_requests",
        "kube_pod",
        "node_cpu",
        "rpc_duration",
    ];
    let name = format!("{}_{metric}_total", subject[metric as usize % 5]);
    let (node, pod) = (target % 100, format!("checkout-7d9f8b6c5d-{target:05}"));
    let instance = format!("10.42.{node}.{}:10250", target % 250);
    canonical(&[
        ("__name__", &name),
        ("container", &format!("checkout-{}", target % 20)),
        ("device", &format!("/dev/nvme{}n1", metric / 50)),
        ("instance", &instance),
        ("job", "kubelet-cadvisor"),
        ("namespace", &format!("team-{:02}-production", target % 30)),
        ("node", &format!("ip-10-42-{node}-17.internal")),
        ("pod", &pod),
        ("pod_template_hash", "7d9f8b6c5d"),
        ("service", "kubelet-svc"),
        ("zone", "eu-west-1a"),
    ])
}

fn rule(action: Action, source: &[&str], regex: &str) -> RuleOptions {
    RuleOptions {
        action,
        source_labels: source.iter().map(|name| (*name).to_owned()).collect(),
        regex: regex.to_owned(),
        ..RuleOptions::default()
    }
}

fn rules() -> Vec<Rule> {
    let to = |target: &str, rule| RuleOptions {
        target_label: target.to_owned(),
        ..rule
    };
    let rules = [
        rule(Action::Drop, &["__name__"], "go_.*|process_.*|promhttp_.*"),
        rule(Action::Keep, &["namespace", "job"], "team-.+;kubelet.*"),
        to(
            "host",
            rule(Action::Replace, &["instance"], r"([^:]+)(?::\d+)?"),
        ),
        to("pod_name", rule(Action::Replace, &["pod"], "(.*)")),
        rule(Action::LabelDrop, &[], "pod_template_hash|id"),
    ];
    rules.iter().map(|rule| rule.build().unwrap()).collect()
}

fn relabel(criterion: &mut Criterion) {
    let table: Vec<Vec<u8>> = (0..SERIES).map(labels).collect();
    let mut group = criterion.benchmark_group("relabel");
    group.throughput(Throughput::Elements(u64::from(SERIES)));

    let mut relabeler = Relabeler::new(rules().into());
    group.bench_function("five_rules", |bencher| {
        bencher.iter(|| {
            for own in &table {
                black_box(relabeler.apply(own));
            }
        });
    });
    let mut hash = rule(Action::HashMod, &["instance"], "(.*)");
    (hash.modulus, hash.target_label) = (16, "shard".to_owned());
    let mut relabeler = Relabeler::new([hash.build().unwrap()].into());
    group.bench_function("hashmod", |bencher| {
        bencher.iter(|| {
            for own in &table {
                black_box(relabeler.apply(own));
            }
        });
    });
    let cluster = BTreeMap::from([("cluster".to_owned(), "eu".to_owned())]);
    for (name, external, rules) in [
        ("kept_results_of_rules", BTreeMap::new(), rules()),
        ("kept_external_label", cluster, Vec::new()),
    ] {
        let outgoing = Outgoing::new(ExternalLabels::new(&external), rules);
        let mut kept = OutgoingLabels::new(Arc::new(outgoing), OUTGOING_BYTES_MAX);
        // what is dropped does not come this far
        let of_tailer =
            |(_, own): &(u64, &Vec<u8>)| name != "kept_results_of_rules" || !is_dropped(own);
        let asked: Vec<_> = (1..).zip(&table).filter(of_tailer).collect();
        group.throughput(Throughput::Elements(asked.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for batch in asked.chunks(2000) {
                    kept.begin();
                    for (record, own) in batch {
                        black_box(kept.labels(*record, own));
                    }
                }
            });
        });
    }
    group.finish();
}

/// Whether the first rule drops it.
fn is_dropped(own: &[u8]) -> bool {
    own.windows(6).any(|bytes| bytes == b"go_gc_")
}

criterion_group!(benches, relabel);
criterion_main!(benches);
