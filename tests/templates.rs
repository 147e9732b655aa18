//! Turns rounds of the same series into the question whether real backends take bodies made from
//! templates, and hold every sample of them.

use std::collections::BTreeMap;

use crate::common::agent::Agent;
use crate::common::backend::{Backend, Kind, Samples, assert_same};
use crate::common::http::Client;
use crate::common::load::compressed;
use crate::common::unix_ms;
use ingest::proto::{Label, Sample, TimeSeries};

/// Series of all targets together.
const SERIES: i64 = 600;
const PER_TARGET: i64 = 150;
const ROUNDS: i64 = 8;
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

fn compare(kind: Kind) {
    let dir = tempfile::tempdir().unwrap();
    let backend = Backend::start(kind, dir.path(), "backend");
    let url = backend.url();
    let agent = Agent::start(dir.path(), std::slice::from_ref(&url), &[]);
    let mut client = Client::new(agent.port);
    let start_ms = unix_ms() - ROUNDS * STEP_MS;
    let mut expected = Samples::new();
    for round in 0..ROUNDS {
        let series: Vec<_> = (0..SERIES).map(|n| one(n, round, start_ms)).collect();
        for series in &series {
            let labels = series.labels.iter();
            let labels: BTreeMap<_, _> = labels.map(|l| (&l.name, &l.value)).collect();
            let labels = serde_json::to_string(&labels).unwrap();
            let sample = &series.samples[0];
            let value = (sample.timestamp, sample.value.to_string());
            expected.entry(labels).or_default().push(value);
        }
        let reply = client.write(&compressed(series)).unwrap();
        assert_eq!(reply.status, 204, "{reply:?}");
        // so that no request has samples of two rounds
        agent.until_delivered(&url);
    }
    assert_eq!(agent.refused(&url), 0.0);
    assert_same(&expected, &backend.samples());
    let hits = agent.metric("penstock_shipper_template_hits_total", &[("url", &url)]);
    // the values of some series outgrow their bytes now and then
    let most = (ROUNDS - WARM_ROUNDS) * SERIES / 2;
    assert!(hits >= most as f64, "{hits} of at least {most}");
    let wrong = agent.metric("penstock_shipper_template_refusals_total", &[("url", &url)]);
    assert_eq!(wrong, 0.0);
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
