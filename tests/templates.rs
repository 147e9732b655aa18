//! Turns rounds of the same series into the question whether real backends take bodies made from
//! templates, and bodies of a backlog packed by series, and hold every sample of them.

use std::collections::BTreeMap;

use crate::common::agent::{Agent, config_with};
use crate::common::backend::{Backend, Kind, Samples, assert_same, url};
use crate::common::http::Client;
use crate::common::load::compressed;
use crate::common::{free_port, unix_ms};
use ingest::proto::{Label, Sample, TimeSeries};

/// Series of all targets together.
const SERIES: i64 = 600;
const PER_TARGET: i64 = 150;
const ROUNDS: i64 = 8;
/// Of a backlog.
const PACKED_ROUNDS: i64 = 40;
/// Rounds from which on everything was seen twice.
const WARM_ROUNDS: i64 = 2;
const STEP_MS: i64 = 1000;

#[test]
fn prometheus_holds_what_was_sent_from_templates() {
    compare(Kind::Prometheus);
}

#[test]
fn victoria_metrics_holds_what_was_sent_from_templates() {
    compare(Kind::VictoriaMetrics);
}

#[test]
fn prometheus_holds_a_backlog_packed_by_series() {
    compare_packed(Kind::Prometheus);
}

#[test]
fn victoria_metrics_holds_a_backlog_packed_by_series() {
    compare_packed(Kind::VictoriaMetrics);
}

fn compare(kind: Kind) {
    let dir = tempfile::tempdir().unwrap();
    let backend = Backend::start(kind, dir.path(), "backend");
    let url = backend.url();
    let agent = Agent::start(dir.path(), std::slice::from_ref(&url), &[]);
    let mut load = Load::new(&agent, ROUNDS);
    for round in 0..ROUNDS {
        load.send(round);
        // so that no request has samples of two rounds
        agent.until_delivered(&url);
    }
    assert_eq!(agent.refused(&url), 0.0);
    assert_same(&load.expected, &backend.samples());
    let hits = agent.metric("penstock_shipper_template_hits_total", &[("url", &url)]);
    // the values of some series outgrow their bytes now and then
    let most = (ROUNDS - WARM_ROUNDS) * SERIES / 2;
    assert!(hits >= most as f64, "{hits} of at least {most}");
    let wrong = agent.metric("penstock_shipper_template_refusals_total", &[("url", &url)]);
    assert_eq!(wrong, 0.0);
}

/// The backend is there after many rounds.
fn compare_packed(kind: Kind) {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let url = url(port);
    let agent = Agent::start_with(dir.path(), &[], |port| {
        let small = "    drain { read_ahead = 6000 }\n    queue_config {\n      capacity = 100\n      \
                     max_samples_per_send = 100\n      max_backoff = \"200ms\"\n    }\n";
        config_with(port, std::slice::from_ref(&url), small)
    });
    let mut load = Load::new(&agent, PACKED_ROUNDS);
    for round in 0..PACKED_ROUNDS {
        load.send(round);
    }
    let backend = Backend::start_on(port, kind, dir.path(), "backend");
    let backend = backend.expect("the port is still free");
    agent.until_delivered(&url);
    assert_same(&load.expected, &backend.samples());
    // Samples of a series side by side have no template.
    let metric = "penstock_shipper_template_misses_total";
    let packed = agent.metric(metric, &[("url", &url), ("reason", "unsuited")]);
    let most = PACKED_ROUNDS * SERIES / 2;
    assert!(packed >= most as f64, "{packed} of at least {most}");
}

/// Rounds of the same series, and what a backend must hold of them.
struct Load {
    client: Client,
    start_ms: i64,
    expected: Samples,
}

impl Load {
    fn new(agent: &Agent, rounds: i64) -> Self {
        Self {
            client: Client::new(agent.port),
            start_ms: unix_ms() - rounds * STEP_MS,
            expected: Samples::new(),
        }
    }

    fn send(&mut self, round: i64) {
        let series: Vec<_> = (0..SERIES).map(|n| one(n, round, self.start_ms)).collect();
        for series in &series {
            let labels = series.labels.iter();
            let labels: BTreeMap<_, _> = labels.map(|l| (&l.name, &l.value)).collect();
            let labels = serde_json::to_string(&labels).unwrap();
            let sample = &series.samples[0];
            let value = (sample.timestamp, sample.value.to_string());
            self.expected.entry(labels).or_default().push(value);
        }
        let reply = self.client.write(&compressed(series)).unwrap();
        assert_eq!(reply.status, 204, "{reply:?}");
    }
}

/// A series with its sample of a round: whole numbers, fractions, and numbers that grow.
fn one(number: i64, round: i64, start_ms: i64) -> TimeSeries {
    let (target, metric) = (number / PER_TARGET, number % PER_TARGET);
    let labels = [
        ("__name__", format!("template_metric_{metric}_total")),
        ("instance", format!("10.0.0.{target}:9100")),
        ("job", "template".to_owned()),
    ];
    let value = match number % 3 {
        0 => number as f64,
        1 => (number + round) as f64 * 0.125,
        _ => (number * 8 + round * round) as f64,
    };
    let label = |(name, value): (&str, String)| Label {
        name: name.to_owned(),
        value,
    };
    TimeSeries {
        labels: labels.into_iter().map(label).collect(),
        samples: vec![Sample {
            value,
            // the targets are not scraped at the same moment
            timestamp: start_ms + round * STEP_MS + target,
        }],
        ..TimeSeries::default()
    }
}
