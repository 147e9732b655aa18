//! Turns requests into parts, and parts back into what they hold.

use std::collections::BTreeMap;

use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::proto::{self, v2};

type Labels = Vec<(String, String)>;

fn v1(all: &[Labels]) -> Vec<u8> {
    let timeseries = all
        .iter()
        .enumerate()
        .map(|(number, labels)| proto::TimeSeries {
            labels: (labels.iter())
                .map(|(name, value)| proto::Label {
                    name: name.clone(),
                    value: value.clone(),
                })
                .collect(),
            samples: vec![proto::Sample {
                value: number as f64,
                timestamp: 1,
            }],
            ..proto::TimeSeries::default()
        });
    proto::WriteRequest {
        timeseries: timeseries.collect(),
        metadata: vec![proto::MetricMetadata::default()],
    }
    .encode_to_vec()
}

fn v2(all: &[Labels]) -> Vec<u8> {
    let mut symbols = vec![String::new()];
    let mut reference = |text: &String| {
        let at = symbols.iter().position(|one| one == text);
        let at = at.unwrap_or_else(|| {
            symbols.push(text.clone());
            symbols.len() - 1
        });
        u32::try_from(at).unwrap()
    };
    let timeseries: Vec<_> = (all.iter().enumerate())
        .map(|(number, labels)| v2::TimeSeries {
            labels_refs: (labels.iter())
                .flat_map(|(name, value)| [reference(name), reference(value)])
                .collect(),
            samples: vec![v2::Sample {
                value_bits: (number as f64).to_bits(),
                timestamp: 1,
                ..v2::Sample::default()
            }],
            ..v2::TimeSeries::default()
        })
        .collect();
    v2::Request {
        symbols: symbols.into_iter().map(String::into_bytes).collect(),
        timeseries,
    }
    .encode_to_vec()
}

/// The labels by the value of their sample.
fn read(message: Message, body: &[u8]) -> Vec<(f64, Labels)> {
    match message {
        Message::V1 => {
            let request = proto::WriteRequest::decode(body).unwrap();
            let series = request.timeseries.into_iter().map(|one| {
                let labels = one.labels.into_iter();
                let labels = labels.map(|label| (label.name, label.value));
                (one.samples[0].value, labels.collect())
            });
            series.collect()
        }
        Message::V2 => {
            let request = v2::Request::decode(body).unwrap();
            let symbol = |at: &u32| {
                let symbol = request.symbols[*at as usize].clone();
                String::from_utf8(symbol).unwrap()
            };
            let series = request.timeseries.iter().map(|one| {
                let pairs = one.labels_refs.chunks(2);
                let labels = pairs.map(|pair| (symbol(&pair[0]), symbol(&pair[1])));
                (f64::from_bits(one.samples[0].value_bits), labels.collect())
            });
            series.collect()
        }
    }
}

fn key_of(message: Message, labels: &Labels) -> u64 {
    let body = match message {
        Message::V1 => v1(std::slice::from_ref(labels)),
        Message::V2 => v2(std::slice::from_ref(labels)),
    };
    let mut found = None;
    let mut splitter = Splitter::default();
    let owner = |key| {
        found = Some(key);
        None
    };
    splitter.split((message, &body), 0, owner).unwrap();
    found.unwrap()
}

fn labels(all: &[(&str, &str)]) -> Labels {
    all.iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn a_series_has_one_key_in_whatever_form_it_comes() {
    let one = labels(&[("__name__", "up"), ("a", "1"), ("b", "2")]);
    let key = key_of(Message::V1, &one);
    assert_eq!(key_of(Message::V2, &one), key);
    let mut turned = one.clone();
    turned.reverse();
    assert_eq!(key_of(Message::V1, &turned), key);
    let mut with_none = one.clone();
    with_none.push(("c".to_owned(), String::new()));
    assert_eq!(key_of(Message::V2, &with_none), key);
    for other in [
        [("__name__", "up"), ("a", "2"), ("b", "1")],
        [("__name__", "up"), ("a", "1"), ("b", "3")],
        [("__name__", "up"), ("b", "1"), ("a", "2")],
    ] {
        assert_ne!(key_of(Message::V1, &labels(&other)), key, "{other:?}");
    }
    let long = "x".repeat(200);
    let mut one = labels(&[("__name__", "up"), ("a", &long), ("b", &long)]);
    let key_of_long = key_of(Message::V1, &one);
    assert_eq!(key_of(Message::V2, &one), key_of_long);
    one.reverse();
    assert_eq!(key_of(Message::V1, &one), key_of_long);
    // All agents have to agree, whatever they were built from.
    assert_eq!(key, 11_692_228_198_899_105_647);
}

#[test]
fn what_is_malformed_is_told_with_its_place() {
    let body = v1(&[labels(&[("a", "1")])]);
    let mut splitter = Splitter::default();
    let cut = splitter.split((Message::V1, &body[..body.len() - 1]), 1, |_| Some(0));
    assert!(cut.is_err());
    let cut = splitter.split((Message::V1, &[0x0a, 2, 0x0a, 9]), 1, |_| Some(0));
    assert_eq!(cut.unwrap_err().offset, 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_series_is_in_one_part_and_the_parts_are_requests(
        all in proptest::collection::vec(
            proptest::collection::vec(("[a-c]{1,2}", "[x-z]{0,3}"), 0..5),
            0..20,
        ),
        owners in 1_usize..4,
        is_v2 in any::<bool>(),
    ) {
        let message = if is_v2 { Message::V2 } else { Message::V1 };
        let body = if is_v2 { v2(&all) } else { v1(&all) };
        let mut splitter = Splitter::default();
        // Once before, so that what is left of that would show.
        splitter.split((message, &body), owners + 1, |_| Some(0)).unwrap();
        let owner = |key: u64| {
            let at = usize::try_from(key % (owners as u64 + 1)).unwrap();
            at.checked_sub(1)
        };
        splitter.split((message, &body), owners, owner).unwrap();
        let mut found = BTreeMap::new();
        let mut kept = 0;
        let mut add = |at: Option<usize>, part: &[u8]| {
            let mut before = -1.0;
            for (value, labels) in read(message, part) {
                assert!(value > before, "the order of the body");
                before = value;
                assert_eq!(owner(key_of(message, &labels)), at);
                kept += usize::from(at.is_none());
                assert_eq!(found.insert(value.to_bits(), labels), None);
            }
        };
        add(None, splitter.kept());
        for (at, part) in splitter.parts() {
            add(Some(at), part);
        }
        prop_assert_eq!(splitter.series(), (all.len(), kept));
        let want: BTreeMap<u64, Labels> = read(message, &body)
            .into_iter()
            .map(|(value, labels)| (value.to_bits(), labels))
            .collect();
        prop_assert_eq!(found, want);
        if !is_v2 {
            let kept = proto::WriteRequest::decode(splitter.kept()).unwrap();
            prop_assert_eq!(kept.metadata.len(), 1, "nobody owns it");
        }
    }
}
