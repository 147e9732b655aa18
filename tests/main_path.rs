//! Turns a real Prometheus agent, Penstock and a real backend into a line, and compares its end
//! with what the same Prometheus agent sent directly to a second backend of the same kind.

use crate::common::agent::Agent;
use crate::common::backend::{Backend, Kind, assert_same, count};
use crate::common::scraper::Scraper;
use crate::common::{PATIENCE, eventually};

/// Several scrapes of everything.
const SAMPLES_MIN: f64 = 10_000.0;

#[test]
fn prometheus_gets_through_penstock_what_it_gets_directly() {
    compare(Kind::Prometheus);
}

#[test]
fn victoria_metrics_gets_through_penstock_what_it_gets_directly() {
    compare(Kind::VictoriaMetrics);
}

fn compare(kind: Kind) {
    let dir = tempfile::tempdir().unwrap();
    let reference = Backend::start(kind, dir.path(), "reference");
    let backend = Backend::start(kind, dir.path(), "backend");
    let agent = Agent::start(dir.path(), &[backend.url()], &[]);
    let scraper = Scraper::start(dir.path(), &[agent.url(), reference.url()]);
    eventually(PATIENCE, || match scraper.scraped() {
        SAMPLES_MIN.. => Ok(()),
        scraped => Err(format!("{SAMPLES_MIN} samples are scraped, now {scraped}")),
    });
    let scraped = scraper.finish();
    let samples_in = agent.metric("penstock_wal_samples_total", &[]);
    assert_eq!(samples_in, scraped, "each sample is appended once");
    agent.until_delivered(&backend.url());
    assert_eq!(agent.refused(&backend.url()), 0.0);

    let (expected, found) = (reference.samples(), backend.samples());
    assert!(count(&expected) > 5_000, "only {}", count(&expected));
    assert_same(&expected, &found);
}
