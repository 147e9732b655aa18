//! Turns the numbers of a `prometheus.receive_http` component into metric families.

use std::time::Duration;

use ingest::{DURATION_BUCKETS_US, Reason, STAGES, STATUS_CODES, Snapshot};

use super::ReceiverSource;
use crate::telemetry::families::{Durations, Families, Group, float};
use crate::telemetry::{secure, tenants};

pub(super) fn collect(families: &mut Families, source: &ReceiverSource, now_monotonic: Duration) {
    let mut group = families.component(&source.id);
    let now = source.stats.snapshot();
    for (code, count) in STATUS_CODES.iter().zip(now.requests) {
        let code = if *code == 0 {
            "other".to_owned()
        } else {
            code.to_string()
        };
        let help = "Requests answered";
        group
            .with("status_code", code)
            .counter("penstock_receive_http_requests", help, count);
    }
    let bounds = DURATION_BUCKETS_US.map(|us| Duration::from_micros(us).as_secs_f64());
    let took = Durations {
        sum: Duration::from_micros(now.duration_us_sum).as_secs_f64(),
        bounds: bounds.to_vec(),
        counts: now.durations.to_vec(),
    };
    let help = "From a request's head to its answer";
    group.histogram(
        "prometheus_receive_http_request_duration_seconds",
        help,
        &took,
    );
    collect_records(&mut group, &now);
    collect_work(&mut group, source, &now);
    if let Some(all) = source.stats.tenants() {
        tenants::collect(&mut group, &all, now_monotonic);
    }
    secure::collect_receiver(&mut group, source.stats.secure());
    let limit = float(source.connections_max as u64);
    for (name, help, value) in [
        (
            "prometheus_receive_http_tcp_connections",
            "Connections open",
            float(now.connections_open),
        ),
        (
            "prometheus_receive_http_tcp_connections_limit",
            "Most connections",
            limit,
        ),
        (
            "penstock_receive_http_in_flight_bytes",
            "Bytes of requests not yet answered",
            float(now.in_flight_bytes),
        ),
    ] {
        group.gauge(name, help, value);
    }
    for (event, count) in [
        ("accepted", now.connections_accepted),
        ("refused", now.connections_refused),
        ("timed_out", now.connections_timed_out),
        ("broken", now.connections_broken),
        ("accept_failed", now.accept_errors),
    ] {
        let help = "What became of connections";
        group
            .with("event", event)
            .counter("penstock_receive_http_connections", help, count);
    }
}

fn collect_records(group: &mut Group<'_>, now: &Snapshot) {
    for (kind, count) in [
        ("sample", now.samples),
        ("exemplar", now.exemplars),
        ("histogram", now.histograms),
        ("metadata", now.metadata),
    ] {
        let help = "Records taken";
        group
            .with("kind", kind)
            .counter("penstock_receive_http_records", help, count);
    }
    for reason in Reason::ALL {
        let mut group = group.with("reason", reason.as_str());
        let (series, items) = (
            now.refused_series[reason.index()],
            now.refused_items[reason.index()],
        );
        group.counter(
            "penstock_receive_http_refused_series",
            "Series refused",
            series,
        );
        group.counter(
            "penstock_receive_http_refused_records",
            "Records of refused series",
            items,
        );
    }
    let help = "Records taken by a receiver that forwards to nothing";
    group.counter(
        "penstock_receive_http_dropped_records",
        help,
        now.dropped_items,
    );
    for (name, help, count) in [
        (
            "penstock_receive_http_passed_on_series",
            "Series passed on to the agents of the cluster that own them, each time they came",
            now.passed_on_series,
        ),
        (
            "penstock_receive_http_passing_failures",
            "Requests that are to be repeated because the owner of some series did not take them",
            now.passing_failures,
        ),
        (
            "penstock_receive_http_passed_in_parts",
            "Parts of requests that other agents of the cluster have passed on to this one",
            now.passed_in,
        ),
    ] {
        group.counter(name, help, count);
    }
    let bytes = [
        ("compressed", now.compressed_bytes),
        ("decompressed", now.decompressed_bytes),
    ];
    for (encoding, bytes) in bytes {
        let help = "Bytes of bodies";
        group
            .with("encoding", encoding)
            .counter("penstock_receive_http_bytes", help, bytes);
    }
}

/// Where the time of requests goes, and how even the shards have it.
fn collect_work(group: &mut Group<'_>, source: &ReceiverSource, now: &Snapshot) {
    for (stage, micros) in STAGES.iter().zip(now.stage_us) {
        let seconds = Duration::from_micros(micros).as_secs_f64();
        group.with("stage", *stage).counter_f64(
            "penstock_receive_http_stage_seconds",
            "Time of requests that were taken: reading, working on them, waiting for the sync",
            seconds,
        );
    }
    for (shard, (open, samples)) in source.stats.by_shard().enumerate() {
        let mut group = group.with("shard", shard.to_string());
        let name = "penstock_receive_http_shard_connections";
        group.gauge(name, "Connections a shard serves", float(open));
        let name = "penstock_receive_http_shard_samples";
        group.counter(name, "Samples a shard has taken", samples);
    }
}
