//! Turns handwritten, generated and captured requests into verdicts on the scanner.

use std::path::PathBuf;

use proptest::prelude::*;
use prost::Message;
use wal::RecordKind;

use super::fuzz::{List, scan_agrees_with_prost};
use super::*;
use crate::proto;

fn scanned(bytes: &[u8]) -> Result<(Batch, List), Malformed> {
    let (mut batch, mut list) = (Batch::default(), List::default());
    scan(bytes, &mut list, &mut batch, &mut Vec::new())?;
    Ok((batch, list))
}

fn label(name: &str, value: &str) -> proto::Label {
    proto::Label {
        name: name.into(),
        value: value.into(),
    }
}

fn series(name: &str, samples: &[(f64, i64)]) -> proto::TimeSeries {
    proto::TimeSeries {
        labels: vec![label("__name__", name)],
        samples: samples
            .iter()
            .map(|(value, timestamp)| proto::Sample {
                value: *value,
                timestamp: *timestamp,
            })
            .collect(),
        ..Default::default()
    }
}

fn request(timeseries: Vec<proto::TimeSeries>) -> Vec<u8> {
    proto::WriteRequest {
        timeseries,
        metadata: vec![],
    }
    .encode_to_vec()
}

/// A field of length-delimited bytes.
fn field(tag: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    prost::encoding::encode_varint(u64::try_from(bytes.len()).unwrap(), &mut out);
    out.extend_from_slice(bytes);
    out
}

#[test]
fn samples_of_every_timestamp_width_are_read() {
    let times: Vec<i64> = (0..63)
        .flat_map(|shift| [1 << shift, (1 << shift) - 1, -(1 << shift)])
        .collect();
    let samples: Vec<_> = times.iter().map(|time| (0.5, *time)).collect();
    let (batch, _) = scanned(&request(vec![series("up", &samples)])).unwrap();
    assert_eq!(
        batch
            .samples
            .iter()
            .map(|s| s.timestamp_ms)
            .collect::<Vec<_>>(),
        times
    );
}

#[test]
fn stale_markers_and_zeros_survive_bit_by_bit() {
    let bits: [u64; 4] = [0x7ff0_0000_0000_0002, 0, 1 << 63, 0x7ff8_0000_0000_0001];
    let mut message = series("up", &[]).encode_to_vec();
    for bits in bits {
        // By hand: prost leaves out -0 and may quiet a signalling NaN.
        let time = [0x10, 0x80, 0xd0, 0x95, 0xff, 0xbc, 0x31];
        message.extend(field(
            0x12,
            &[&[0x09][..], &bits.to_le_bytes(), &time].concat(),
        ));
    }
    let (batch, _) = scanned(&field(0x0a, &message)).unwrap();
    assert_eq!(
        batch
            .samples
            .iter()
            .map(|s| s.value_bits)
            .collect::<Vec<_>>(),
        bits
    );
}

#[test]
fn missing_metric_name_is_refused_and_the_neighbours_are_stored() {
    let mut nameless = series("x", &[(1.0, 1), (2.0, 2)]);
    nameless.labels = vec![label("a", "b")];
    let bytes = request(vec![
        series("a", &[(1.0, 1)]),
        nameless,
        series("b", &[(1.0, 1)]),
    ]);
    let (batch, list) = scanned(&bytes).unwrap();
    assert_eq!(batch.samples.len(), 2);
    assert_ne!(batch.samples[0].series, batch.samples[1].series);
    assert!(list.labels(batch.samples[1].series).ends_with(b"b"));
    let at = Reason::MissingMetricName.index();
    assert_eq!((batch.refused.series[at], batch.refused.items[at]), (1, 2));
    assert_eq!(
        batch.refused.first,
        Some(("{a=\"b\"}".into(), Reason::MissingMetricName))
    );
}

#[test]
fn a_series_without_data_is_not_resolved() {
    let (batch, list) = scanned(&request(vec![series("a", &[])])).unwrap();
    assert!(batch.samples.is_empty() && batch.refused.is_empty());
    assert_eq!(format!("{list:?}"), format!("{:?}", List::default()));
}

#[test]
fn labels_after_samples_count_also_when_the_first_ones_were_predicted() {
    let plain = request(vec![series("up", &[(1.0, 1_700_000_000_000)])]);
    let mut message = plain[2..].to_vec();
    let extra = proto::TimeSeries {
        labels: vec![label("zone", "z")],
        ..Default::default()
    };
    message.extend(extra.encode_to_vec());
    let split = field(0x0a, &message);
    let (mut batch, mut list) = scanned(&plain).unwrap();
    batch.clear();
    scan(&split, &mut list, &mut batch, &mut Vec::new()).unwrap();
    assert_eq!(batch.samples.len(), 1);
    assert!(
        list.labels(batch.samples[0].series)
            .ends_with(b"zone\x12\x01z")
    );
    scan_agrees_with_prost(&[plain, split].concat());
}

#[test]
fn repeated_and_missing_sample_fields_follow_the_protobuf_rules() {
    let labels = series("up", &[]).encode_to_vec();
    for sample in [
        &[][..],
        &[0x10, 5],
        &[0x10, 5, 0x10, 6],
        &[0x90, 0x80, 0x00, 0x85, 0x00],
    ] {
        let message = [labels.clone(), field(0x12, sample)].concat();
        let bytes = field(0x0a, &message);
        scan_agrees_with_prost(&bytes);
        assert_eq!(scanned(&bytes).unwrap().0.samples.len(), 1);
    }
}

#[test]
fn a_wrong_wire_type_is_malformed_at_its_key() {
    let good = request(vec![series("up", &[(1.0, 1)])]);
    let bytes = [good.clone(), vec![0x08, 1]].concat();
    let offset = good.len();
    let what = "wrong wire type for a known field";
    assert_eq!(scanned(&bytes).err(), Some(Malformed { offset, what }));
}

#[test]
fn malformed_labels_are_found_in_a_series_without_data() {
    let bytes = field(0x0a, &field(0x0a, &[0x0a, 9, b'x']));
    assert!(scanned(&bytes).is_err());
    scan_agrees_with_prost(&bytes);
}

#[test]
fn an_exemplar_that_is_not_text_is_refused_alone() {
    let mut message = series("up", &[(1.0, 1)]).encode_to_vec();
    message.extend(field(0x1a, &field(0x0a, &field(0x0a, &[0xff]))));
    let bytes = field(0x0a, &message);
    let (batch, _) = scanned(&bytes).unwrap();
    assert_eq!((batch.samples.len(), batch.records.len()), (1, 0));
    assert_eq!(batch.refused.items[Reason::InvalidUtf8.index()], 1);
    scan_agrees_with_prost(&bytes);
}

#[test]
fn overridden_text_that_is_not_utf8_refuses_what_is_sent_on_but_not_labels() {
    let name = [field(0x12, &[0xff]), field(0x12, b"up")].concat();
    let bytes = field(0x1a, &name);
    let (batch, _) = scanned(&bytes).unwrap();
    assert_eq!(batch.refused.items[Reason::InvalidUtf8.index()], 1);
    scan_agrees_with_prost(&bytes);

    let label = [
        field(0x0a, &[0xff]),
        field(0x0a, b"__name__"),
        field(0x12, b"up"),
    ]
    .concat();
    let bytes = field(0x0a, &[field(0x0a, &label), field(0x12, &[])].concat());
    let (batch, list) = scanned(&bytes).unwrap();
    assert_eq!(
        list.labels(batch.samples[0].series),
        series("up", &[]).encode_to_vec()
    );
    scan_agrees_with_prost(&bytes);
}

#[test]
fn requests_of_very_many_tiny_messages_are_refused() {
    let mut message = series("up", &[]).encode_to_vec();
    let labels = message.len();
    message.extend([0x12, 0x00].repeat(ITEMS_MAX));
    assert_eq!(
        scanned(&field(0x0a, &message)).unwrap().0.samples.len(),
        ITEMS_MAX
    );
    message.extend([0x1a, 0x00]);
    assert!(scanned(&field(0x0a, &message)).is_err());
    assert!(scanned(&[0x1a, 0x00].repeat(ITEMS_MAX + 1)).is_err());
    message.truncate(labels);
    message.extend([0x12, 0x00, 0x0a, 0x00].repeat(FIELDS_MAX));
    assert!(scanned(&field(0x0a, &message)).is_err());
}

#[test]
fn every_cut_of_a_request_gets_the_verdict_of_prost() {
    let mut rich = series("up", &[(0.0, 1_700_000_000_000), (1.5, -1)]);
    rich.exemplars.push(proto::Exemplar {
        labels: vec![label("trace_id", "abc")],
        value: 1.0,
        timestamp: 5,
    });
    rich.histograms.push(proto::Histogram {
        positive_spans: vec![proto::BucketSpan {
            offset: -2,
            length: 1,
        }],
        positive_deltas: vec![5],
        custom_values: vec![1.0],
        ..Default::default()
    });
    let metadata = vec![proto::MetricMetadata {
        r#type: 1,
        metric_family_name: "up".into(),
        help: "help".into(),
        unit: String::new(),
    }];
    let bytes = proto::WriteRequest {
        timeseries: vec![rich.clone(), rich],
        metadata,
    }
    .encode_to_vec();
    for end in 0..=bytes.len() {
        scan_agrees_with_prost(&bytes[..end]);
    }
}

/// Where captured requests are, if they are here.
fn corpus() -> Option<PathBuf> {
    let given = std::env::var_os("PENSTOCK_CORPUS").map(PathBuf::from);
    let path = given
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus"));
    path.join("manifest.json")
        .try_exists()
        .unwrap_or(false)
        .then_some(path)
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
        if entry["kind"] != "remote-write" || entry["protocol"] != "1.0" {
            continue;
        }
        let file = entry["file"].as_str().unwrap();
        let body = std::fs::read(corpus.join(file)).unwrap();
        if entry["content_encoding"] != "snappy" {
            continue;
        }
        files += 1;
        let bytes = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
        scan_agrees_with_prost(&bytes);
        let (batch, list) = scanned(&bytes).unwrap();
        assert!(
            batch.refused.is_empty(),
            "{file}: {:?}",
            batch.refused.first
        );
        let kind = |kind| {
            batch
                .records
                .iter()
                .filter(|record| record.kind == kind)
                .count()
        };
        let stale = batch
            .samples
            .iter()
            .filter(|s| s.value_bits == 0x7ff0_0000_0000_0002);
        let expect = &entry["expect"];
        let is = |what: &str, found: usize| {
            assert_eq!(
                expect[what].as_u64(),
                u64::try_from(found).ok(),
                "{file} {what}"
            );
        };
        is("samples", batch.samples.len());
        is("exemplars", kind(RecordKind::Exemplar));
        is("histograms", kind(RecordKind::Histogram));
        is("metadata", kind(RecordKind::Metadata));
        if kind(RecordKind::Histogram) == 0 {
            is("stale_markers", stale.count());
        }
        is("distinct_series", list.len());
    }
    assert!(files > 50, "only {files} captured requests");
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("__name__".to_owned()),
        Just("a".to_owned()),
        Just(String::new()),
        "[a-z]{1,3}",
        "\\PC{0,5}",
        "[a-z]{120,140}",
    ]
}

fn labels() -> impl Strategy<Value = Vec<proto::Label>> {
    let label = (text(), text()).prop_map(|(name, value)| proto::Label { name, value });
    (any::<bool>(), prop::collection::vec(label, 0..5)).prop_map(|(named, mut labels)| {
        if named {
            labels.insert(
                0,
                proto::Label {
                    name: "__name__".into(),
                    value: "up".into(),
                },
            );
        }
        labels
    })
}

fn float() -> impl Strategy<Value = f64> {
    prop_oneof![
        Just(0.0),
        any::<u64>().prop_map(f64::from_bits),
        any::<f64>()
    ]
}

fn time() -> impl Strategy<Value = i64> {
    prop_oneof![
        1_600_000_000_000i64..1_800_000_000_000,
        any::<i64>(),
        Just(0)
    ]
}

fn histogram() -> impl Strategy<Value = proto::Histogram> {
    let spans = prop::collection::vec(
        (any::<i32>(), any::<u32>())
            .prop_map(|(offset, length)| proto::BucketSpan { offset, length }),
        0..3,
    );
    let counts = (any::<Option<u64>>(), float());
    (
        counts,
        spans,
        prop::collection::vec(any::<i64>(), 0..3),
        time(),
    )
        .prop_map(
            |((count, sum), positive_spans, positive_deltas, timestamp)| proto::Histogram {
                count: count.map(proto::Count::Int),
                sum,
                positive_counts: vec![sum; positive_spans.len()],
                positive_spans,
                positive_deltas,
                timestamp,
                ..Default::default()
            },
        )
}

prop_compose! {
    fn one_series()(
        labels in labels(),
        samples in prop::collection::vec((float(), time()), 0..3),
        exemplars in prop::collection::vec((labels(), float(), time()), 0..2),
        histograms in prop::collection::vec(histogram(), 0..2),
    ) -> proto::TimeSeries {
        proto::TimeSeries {
            labels,
            samples: samples
                .into_iter()
                .map(|(value, timestamp)| proto::Sample { value, timestamp })
                .collect(),
            exemplars: exemplars
                .into_iter()
                .map(|(labels, value, timestamp)| proto::Exemplar { labels, value, timestamp })
                .collect(),
            histograms,
        }
    }
}

prop_compose! {
    fn write_request()(
        timeseries in prop::collection::vec(one_series(), 0..5),
        metadata in prop::collection::vec((any::<i32>(), text(), text()), 0..2),
    ) -> Vec<u8> {
        let metadata = metadata
            .into_iter()
            .map(|(kind, name, help)| proto::MetricMetadata {
                r#type: kind,
                metric_family_name: name,
                help,
                unit: String::new(),
            })
            .collect();
        proto::WriteRequest { timeseries, metadata }.encode_to_vec()
    }
}

/// Bytes that mean something in protobuf are tried more often than others.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![
        any::<u8>(),
        prop::sample::select(&[0x0a, 0x12, 0x1a, 0x22, 0x09, 0x10, 0x80, 0xff, 0, 1, 3, 4][..]),
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
