//! Turns logs that real Prometheus processes left into what Penstock delivers after an import.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::common::agent::{Agent, config, penstock};
use crate::common::backend::{Backend, Kind, assert_same, count, url};
use crate::common::recorder::{self, Received, Recorder};
use crate::common::scraper::Scraper;
use crate::common::{PATIENCE, eventually, free_port};
use ingest::prometheus_wal::{Event, PrometheusWal, Record};
use ingest::proto::TimeSeries;
use prost::Message;
use serde_json::Value;

/// The store of the agents that `common` starts.
fn store(dir: &Path) -> String {
    let store = dir.join("storage/prometheus.remote_write.out");
    store.display().to_string()
}

fn import(from: &Path, store: &str, flags: &[&str]) -> Output {
    let from = from.display().to_string();
    let mut arguments = vec![
        "wal".to_owned(),
        "import".to_owned(),
        from,
        store.to_owned(),
    ];
    arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
    penstock(&arguments).output().unwrap()
}

/// Imports and gives the JSON summary.
fn imported(from: &Path, store: &str, flags: &[&str], exit_code: i32) -> Value {
    let output = import(from, store, &[&["--json"], flags].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(exit_code), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What is said to be wrong.
fn refused(from: &Path, store: &str) -> String {
    let output = import(from, store, &[]);
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

/// A real log, if the corpus is here.
fn corpus(name: &str) -> Option<PathBuf> {
    let given = std::env::var_os("PENSTOCK_CORPUS").map(PathBuf::from);
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus");
    let path = given.unwrap_or_else(beside).join("wal").join(name);
    if path.try_exists().unwrap() {
        return Some(path);
    }
    println!(
        "skipped: no real log at {} (PENSTOCK_CORPUS)",
        path.display()
    );
    None
}

/// What upstream's own reader counted in a log, by item.
fn counted(log: &Path) -> impl Fn(&str) -> u64 {
    let path = format!("{}.expected.json", log.display());
    let expected: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    move |item| {
        let files = expected.as_array().unwrap().iter();
        files.filter_map(|file| file["items"][item].as_u64()).sum()
    }
}

/// What an endpoint should get of a log: custom buckets have no form in remote write 1.0.
fn expected(log: &Path) -> Received {
    let mut wal = PrometheusWal::open(log).unwrap();
    let mut names = std::collections::HashMap::new();
    let mut all = Received::default();
    while let Some(event) = wal.next_event().unwrap() {
        let Event::Record(record) = event else {
            continue;
        };
        match record {
            Record::Series(series) => {
                for series in series {
                    let mut bytes = Vec::new();
                    series.append_canonical(&mut bytes).unwrap();
                    let labels = TimeSeries::decode(&bytes[..]).unwrap().labels;
                    names.insert(series.reference, recorder::labels(&labels));
                }
            }
            Record::Samples(samples) => {
                for sample in samples {
                    let item = [(sample.timestamp_ms, sample.value_bits)].into_iter();
                    recorder::add(&mut all.samples, &names[&sample.reference], item);
                }
            }
            Record::Histograms(histograms) => {
                for one in histograms.iter().filter(|one| one.message.schema != -53) {
                    let item = [one.message.encode_to_vec()].into_iter();
                    recorder::add(&mut all.histograms, &names[&one.reference], item);
                }
            }
            Record::Exemplars(exemplars) => {
                for one in exemplars {
                    let item = [one.message().unwrap().encode_to_vec()].into_iter();
                    recorder::add(&mut all.exemplars, &names[&one.sample.reference], item);
                }
            }
            other => panic!("{other:?}"),
        }
    }
    all
}

#[test]
fn every_sample_of_a_real_log_arrives_in_order() {
    let Some(log) = corpus("prom-3.14-agent-a-crash") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let summary = imported(&log, &store(dir.path()), &[], 0);
    let counted = counted(&log);
    assert_eq!(summary["samples"], counted("samples"));
    let histograms = counted("histogram_samples") + counted("custom_buckets_histogram_samples");
    assert_eq!(summary["histograms"], histograms);
    assert_eq!(summary["exemplars"], counted("exemplars"));
    assert_eq!(summary["series"], counted("series"));
    assert_eq!(summary["complete"], true);

    let sink = Recorder::start();
    let agent = Agent::start_with(dir.path(), &[], |port| {
        let url = format!("url = \"{}\"", sink.url());
        let with_histograms = format!("{url}\n    send_native_histograms = true");
        config(port, &[sink.url()]).replace(&url, &with_histograms)
    });
    agent.until_delivered(&sink.url());
    let (expected, received) = (expected(&log), sink.received());
    let samples: usize = received.samples.values().map(Vec::len).sum();
    println!("{samples} samples of {} series", received.samples.len());
    assert_eq!(
        Some(samples),
        summary["samples"].as_u64().and_then(|n| n.try_into().ok())
    );
    assert!(received.samples == expected.samples, "samples differ");
    assert!(
        received.histograms == expected.histograms,
        "histograms differ"
    );
    let histograms: usize = received.histograms.values().map(Vec::len).sum();
    assert_eq!(u64::try_from(histograms), Ok(counted("histogram_samples")));
    assert!(received.exemplars == expected.exemplars, "exemplars differ");
}

#[test]
fn a_range_of_time_is_imported_and_a_dry_run_only_counts() {
    let Some(log) = corpus("prom-2.42-agent-a") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let all = imported(&log, &store, &["--dry-run"], 0);
    assert!(!Path::new(&store).try_exists().unwrap());
    let (first, last) = (all["first_ms"].as_i64(), all["last_ms"].as_i64());
    let middle = first.unwrap().midpoint(last.unwrap()) / 1000;
    let count = |summary: &Value| summary["samples"].as_u64().unwrap();
    let early = imported(&log, &store, &["--to", &middle.to_string()], 0);
    let late = imported(&log, &store, &["--from", &middle.to_string()], 0);
    assert!(count(&early) > 0 && count(&late) > 0);
    assert_eq!(count(&early) + count(&late), count(&all));
    assert!(early["last_ms"].as_i64() < Some(middle * 1000));
    assert!(late["first_ms"].as_i64() >= Some(middle * 1000));
}

#[test]
fn a_corrupt_log_is_imported_but_for_what_is_lost() {
    let Some(log) = corpus("prom-2.42-server-a") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let broken = dir.path().join("broken");
    fs::create_dir(&broken).unwrap();
    let mut bytes = fs::read(log.join("wal/00000000")).unwrap();
    bytes[1_000_000] ^= 1;
    fs::write(broken.join("00000000"), bytes).unwrap();
    let summary = imported(&broken, &store(dir.path()), &[], 2);
    assert_eq!(summary["corrupt_count"], 1);
    let lost = summary["corrupt_bytes"].as_u64().unwrap();
    assert!((1..=3 * 32_768).contains(&lost), "{lost} bytes");
    let (left, all) = (
        summary["samples"].as_u64().unwrap(),
        counted(&log)("samples"),
    );
    assert!(left < all && left > all * 9 / 10, "{left} of {all}");

    let text = import(&broken, &store(dir.path()), &[]).stdout;
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("checksum does not match"), "{text}");
}

#[test]
fn mistaken_directories_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    fs::create_dir(&log).unwrap();
    let said = refused(&log, &store(dir.path()));
    assert!(
        said.contains("holds no segments of a Prometheus WAL"),
        "{said}"
    );
    fs::write(log.join("00000000"), "").unwrap();
    let said = refused(&log, &dir.path().display().to_string());
    assert!(said.contains("is no store"), "{said}");
    let said = refused(&dir.path().join("nowhere"), &store(dir.path()));
    assert!(said.contains("nowhere"), "{said}");

    let _agent = Agent::start(dir.path(), &[], &[]);
    let said = refused(&log, &store(dir.path()));
    assert!(
        said.contains("is in use by another process: stop the agent"),
        "{said}"
    );
}

/// Several scrapes of everything.
const SAMPLES_MIN: f64 = 10_000.0;

#[test]
fn the_buffer_of_a_prometheus_agent_whose_backend_was_down_is_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let reference = Backend::start(Kind::Prometheus, dir.path(), "reference");
    let dead = url(free_port());
    let scraper = Scraper::start(dir.path(), &[dead, reference.url()]);
    eventually(PATIENCE, || match scraper.scraped() {
        SAMPLES_MIN.. => Ok(()),
        scraped => Err(format!("{SAMPLES_MIN} samples are scraped, now {scraped}")),
    });
    let log = dir.path().join("scraper");
    let scraped = scraper.kill_once_has(&reference.url());

    let summary = imported(&log, &store(dir.path()), &[], 0);
    assert_eq!(summary["samples"].as_f64(), Some(scraped));
    let backend = Backend::start(Kind::Prometheus, dir.path(), "backend");
    let agent = Agent::start(dir.path(), &[backend.url()], &[]);
    agent.until_delivered(&backend.url());
    assert_eq!(agent.refused(&backend.url()), 0.0);
    let (expected, found) = (reference.samples(), backend.samples());
    assert!(count(&expected) > 5_000, "only {}", count(&expected));
    assert_same(&expected, &found);
}
