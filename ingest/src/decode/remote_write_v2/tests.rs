//! Turns handwritten, generated and captured requests into verdicts on the scanner.

use std::path::PathBuf;

use proptest::prelude::*;
use prost::Message;

use super::fuzz::scan_agrees_with_prost;
use super::*;
use crate::decode::remote_write_v1::fuzz::List;
use crate::proto;
use crate::proto::v2;

fn scanned(bytes: &[u8]) -> Result<(Batch, List), Malformed> {
    let (mut batch, mut list) = (Batch::default(), List::default());
    scan(bytes, &mut list, &mut batch, &mut Buffers::default())?;
    Ok((batch, list))
}

fn request(symbols: &[&str], timeseries: Vec<v2::TimeSeries>) -> Vec<u8> {
    let symbols = symbols.iter().map(|s| s.as_bytes().to_vec()).collect();
    v2::Request {
        symbols,
        timeseries,
    }
    .encode_to_vec()
}

fn sample(timestamp: i64, start_timestamp: i64) -> v2::Sample {
    v2::Sample {
        value_bits: 0x7ff0_0000_0000_0002,
        timestamp,
        start_timestamp,
    }
}

fn series(labels_refs: &[u32], samples: &[v2::Sample]) -> v2::TimeSeries {
    v2::TimeSeries {
        labels_refs: labels_refs.to_vec(),
        samples: samples.to_vec(),
        ..Default::default()
    }
}

fn refused(batch: &Batch, reason: Reason) -> (u64, u64) {
    let at = reason.index();
    (batch.refused.series[at], batch.refused.items[at])
}

#[test]
fn a_series_that_breaks_a_rule_is_refused_alone() {
    let good = series(&[1, 2], &[sample(1, 0)]);
    let mut both = good.clone();
    both.histograms.push(v2::Histogram::default());
    let mut dangling_exemplar = good.clone();
    dangling_exemplar.exemplars.push(v2::Exemplar {
        labels_refs: vec![9, 9],
        ..Default::default()
    });
    let all = vec![
        good.clone(),
        series(&[1, 2, 3], &[sample(1, 0)]),
        series(&[1, 4], &[sample(1, 0), sample(2, 0)]),
        both,
        series(&[1, 2], &[]),
        series(&[3, 3], &[sample(1, 0)]),
        dangling_exemplar,
        good,
    ];
    let (batch, _) = scanned(&request(&["", "__name__", "up", "x"], all)).unwrap();
    assert_eq!(batch.samples.len(), 3);
    assert_eq!(refused(&batch, Reason::InvalidLabelRefs), (3, 4));
    assert_eq!(refused(&batch, Reason::SamplesAndHistograms), (1, 2));
    assert_eq!(refused(&batch, Reason::NothingInSeries), (1, 0));
    assert_eq!(refused(&batch, Reason::MissingMetricName), (1, 1));
    assert_eq!(batch.written().samples, 3);
}

#[test]
fn a_first_symbol_with_text_ends_the_request() {
    assert!(scanned(&request(&["up"], vec![])).is_err());
    assert!(scanned(&request(&[], vec![])).is_ok());
}

#[test]
fn symbols_may_stand_behind_the_series_that_use_them() {
    let mut bytes = request(&[], vec![series(&[1, 2], &[sample(1, 0)])]);
    bytes.extend(request(&["", "__name__", "up"], vec![]));
    assert_eq!(scanned(&bytes).unwrap().0.samples.len(), 1);
    scan_agrees_with_prost(&bytes);
}

#[test]
fn a_sample_never_overtakes_one_with_a_start_timestamp() {
    let symbols = ["", "__name__", "a_total", "b"];
    let all = vec![
        series(&[1, 2], &[sample(1, 0)]),
        series(&[1, 2], &[sample(2, 0), sample(3, 7)]),
        series(&[1, 3], &[sample(4, 0)]),
        series(&[1, 2], &[sample(5, 0)]),
    ];
    let bytes = request(&symbols, all);
    scan_agrees_with_prost(&bytes);
    let (batch, _) = scanned(&bytes).unwrap();
    let plain: Vec<_> = batch.samples.iter().map(|s| s.timestamp_ms).collect();
    assert_eq!(plain, [1, 4]);
    let started: Vec<_> = batch
        .records
        .iter()
        .map(|record| StartedSample::from_bytes(batch.bytes(&bytes, &record.bytes)).unwrap())
        .map(|sample| (sample.timestamp_ms, sample.start_ms, sample.value_bits))
        .collect();
    let stale = 0x7ff0_0000_0000_0002;
    assert_eq!(started, [(2, 0, stale), (3, 7, stale), (5, 0, stale)]);
    assert_eq!(batch.written().samples, 5);
}

#[test]
fn the_created_timestamp_of_drafts_is_the_start_of_all() {
    let mut counter = series(&[1, 2], &[sample(1, 0), sample(2, 9)]);
    counter.created_timestamp = 5;
    let mut histogram = series(&[1, 3], &[]);
    histogram.created_timestamp = 6;
    let with_own = v2::Histogram {
        start_timestamp: 8,
        ..Default::default()
    };
    histogram.histograms = vec![v2::Histogram::default(), with_own];
    let bytes = request(&["", "__name__", "a", "h"], vec![counter, histogram]);
    scan_agrees_with_prost(&bytes);
    let (batch, _) = scanned(&bytes).unwrap();
    let starts: Vec<_> = batch
        .records
        .iter()
        .map(|record| {
            let raw = batch.bytes(&bytes, &record.bytes);
            match record.kind {
                RecordKind::Histogram => v2::Histogram::decode(raw).unwrap().start_timestamp,
                _ => StartedSample::from_bytes(raw).unwrap().start_ms,
            }
        })
        .collect();
    assert_eq!(starts, [5, 9, 6, 8]);
}

#[test]
fn references_that_stand_for_too_much_end_the_request() {
    let long = "x".repeat(60_000);
    let exemplar = v2::Exemplar {
        labels_refs: vec![1, 3],
        ..Default::default()
    };
    let mut many = series(&[1, 2], &[sample(1, 0)]);
    many.exemplars = vec![exemplar; 2000];
    let error = scanned(&request(&["", "__name__", "up", &long], vec![many])).unwrap_err();
    assert!(error.what.contains("64 MiB"), "{error}");
}

fn corpus() -> Option<PathBuf> {
    let given = std::env::var_os("PENSTOCK_CORPUS").map(PathBuf::from);
    let path = given
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus"));
    let manifest = path.join("manifest.json");
    manifest.try_exists().unwrap_or(false).then_some(path)
}

#[test]
fn captured_requests_hold_what_the_manifest_says() {
    let Some(corpus) = corpus() else {
        println!("skipped: no corpus of captured requests (PENSTOCK_CORPUS)");
        return;
    };
    let manifest = std::fs::read(corpus.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let mut files = 0;
    for entry in manifest["entries"].as_array().unwrap() {
        if entry["kind"] != "remote-write" || entry["protocol"] != "2.0" {
            continue;
        }
        files += 1;
        let file = entry["file"].as_str().unwrap();
        let body = std::fs::read(corpus.join(file)).unwrap();
        let bytes = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
        scan_agrees_with_prost(&bytes);
        let (batch, list) = scanned(&bytes).unwrap();
        let first = &batch.refused.first;
        assert!(batch.refused.is_empty(), "{file}: {first:?}");
        let written = batch.written();
        let expect = &entry["expect"];
        for (what, found) in [
            ("samples", written.samples),
            ("exemplars", written.exemplars),
            ("histograms", written.histograms),
        ] {
            let found = u64::try_from(found).ok();
            assert_eq!(expect[what].as_u64(), found, "{file} {what}");
        }
        if written.exemplars == 0 {
            // the manifest does not count series of exemplars alone
            let found = u64::try_from(list.len()).ok();
            assert_eq!(expect["distinct_series"].as_u64(), found, "{file}");
        }
    }
    assert!(files > 20, "only {files} captured requests");
}

fn symbols() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let symbol = prop_oneof![
        Just("__name__".to_owned()),
        "[a-z]{1,3}",
        Just("d_bucket".to_owned()),
        "\\PC{0,5}",
        "[a-z]{120,140}",
    ];
    prop::collection::vec(symbol.prop_map(String::into_bytes), 1..6).prop_map(|mut all| {
        all.insert(0, Vec::new());
        all.insert(1, b"__name__".to_vec());
        all
    })
}

/// Mostly pairs that begin with a metric name; now and then anything.
fn refs() -> impl Strategy<Value = Vec<u32>> {
    prop_oneof![
        4 => (2..5u32).prop_map(|name| vec![1, name]),
        2 => (2..5u32, 2..5u32, 2..5u32).prop_map(|(name, a, b)| vec![a, b, 1, name]),
        1 => prop::collection::vec(0..8u32, 0..5),
    ]
}

fn time() -> impl Strategy<Value = i64> {
    prop_oneof![
        1_600_000_000_000i64..1_800_000_000_000,
        any::<i64>(),
        Just(0)
    ]
}

fn start() -> impl Strategy<Value = i64> {
    prop_oneof![4 => Just(0), 1 => any::<i64>()]
}

prop_compose! {
    fn one_sample()(
        value_bits in any::<u64>(), timestamp in time(), start_timestamp in start(),
    ) -> v2::Sample {
        v2::Sample { value_bits, timestamp, start_timestamp }
    }
}

prop_compose! {
    fn one_histogram()(
        sum in any::<f64>(),
        offsets in prop::collection::vec(any::<i32>(), 0..3),
        positive_deltas in prop::collection::vec(any::<i64>(), 0..3),
        timestamp in time(),
        start_timestamp in start(),
    ) -> v2::Histogram {
        let span = |offset| proto::BucketSpan { offset, length: 1 };
        v2::Histogram {
            count: Some(proto::Count::Float(sum)),
            sum,
            positive_spans: offsets.into_iter().map(span).collect(),
            positive_deltas,
            timestamp,
            start_timestamp,
            ..Default::default()
        }
    }
}

prop_compose! {
    fn one_series()(
        labels_refs in refs(),
        samples in prop::collection::vec(one_sample(), 0..3),
        histograms in prop_oneof![3 => Just(vec![]), 1 => prop::collection::vec(one_histogram(), 1..3)],
        exemplars in prop::collection::vec((refs(), any::<f64>(), time()), 0..2),
        metadata in prop::option::of((0..7i32, 0..8u32, 0..8u32)),
        created_timestamp in start(),
    ) -> v2::TimeSeries {
        let exemplar = |(labels_refs, value, timestamp)| v2::Exemplar { labels_refs, value, timestamp };
        v2::TimeSeries {
            labels_refs,
            samples,
            histograms,
            exemplars: exemplars.into_iter().map(exemplar).collect(),
            metadata: metadata.map(|(r#type, help_ref, unit_ref)| {
                v2::Metadata { r#type, help_ref, unit_ref }
            }),
            created_timestamp,
        }
    }
}

fn write_request() -> impl Strategy<Value = Vec<u8>> {
    (symbols(), prop::collection::vec(one_series(), 0..5)).prop_map(|(symbols, timeseries)| {
        v2::Request {
            symbols,
            timeseries,
        }
        .encode_to_vec()
    })
}

/// Bytes that mean something in protobuf are tried more often than others.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![
        any::<u8>(),
        prop::sample::select(
            &[
                0x0a, 0x12, 0x1a, 0x22, 0x2a, 0x30, 0x18, 0x09, 0x10, 0x80, 0xff, 0, 1, 3, 4
            ][..]
        ),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn generated_requests_come_out_as_prost_reads_them(bytes in write_request()) {
        scan_agrees_with_prost(&bytes);
    }

    #[test]
    fn mutated_requests_get_the_verdict_of_prost(
        mut bytes in write_request(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), byte(), 0..3u8), 1..4),
    ) {
        for (at, byte, what) in edits {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            match what {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        scan_agrees_with_prost(&bytes);
    }

    #[test]
    fn any_bytes_get_the_verdict_of_prost(bytes in prop::collection::vec(byte(), 0..60)) {
        scan_agrees_with_prost(&bytes);
    }
}
