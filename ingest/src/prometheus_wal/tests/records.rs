//! Records of every type, byte by byte.

use prost::encoding::encode_varint;

use super::super::*;
use crate::proto::{Count, MetricType, ZeroCount};

const STALE: u64 = 0x7ff0_0000_0000_0002;

/// A record under construction.
pub(super) fn record(kind: u8, fields: &[Field<'_>]) -> Vec<u8> {
    let mut bytes = vec![kind];
    for field in fields {
        match field {
            Byte(value) => bytes.push(*value),
            Fixed(value) => bytes.extend(value.to_be_bytes()),
            Uvarint(value) => encode_varint(*value, &mut bytes),
            Varint(value) => {
                encode_varint(((value << 1) ^ (value >> 63)).cast_unsigned(), &mut bytes);
            }
            Text(text) => {
                encode_varint(u64::try_from(text.len()).unwrap(), &mut bytes);
                bytes.extend(text.as_bytes());
            }
        }
    }
    bytes
}

#[derive(Clone, Copy)]
pub(super) enum Field<'a> {
    Byte(u8),
    Fixed(u64),
    Uvarint(u64),
    Varint(i64),
    Text(&'a str),
}

use Field::{Byte, Fixed, Text, Uvarint, Varint};

fn sample(reference: u64, timestamp_ms: i64, value_bits: u64) -> Sample {
    Sample {
        reference,
        timestamp_ms,
        value_bits,
    }
}

#[test]
fn series_have_canonical_labels() {
    let labels = [
        Uvarint(3),
        Text("job"),
        Text("x"),
        Text("__name__"),
        Text("up"),
        Text("e"),
        Text(""),
    ];
    let bytes = record(1, &[&[Fixed(7)][..], &labels].concat());
    let Ok(Record::Series(series)) = Record::decode(&bytes) else {
        panic!("no series");
    };
    let mut canonical = Vec::new();
    series[0].append_canonical(&mut canonical).unwrap();
    assert_eq!(
        canonical,
        b"\x0a\x0e\x0a\x08__name__\x12\x02up\x0a\x08\x0a\x03job\x12\x01x"
    );
    assert_eq!(
        (series[0].reference, series[0].metric_name()),
        (7, &b"up"[..])
    );
}

#[test]
fn samples_keep_their_bits_in_both_versions() {
    let two = [sample(10, 1000, 42), sample(9, 900, STALE)];
    let first = record(
        2,
        &[
            Fixed(10),
            Fixed(1000),
            Varint(0),
            Varint(0),
            Fixed(42),
            Varint(-1),
            Varint(-100),
            Fixed(STALE),
        ],
    );
    assert_eq!(Record::decode(&first), Ok(Record::Samples(two.to_vec())));
    // Start times: explicit at first, then none, the same, another.
    let second = record(
        11,
        &[
            Varint(10),
            Varint(1000),
            Varint(5),
            Fixed(42),
            Varint(-1),
            Varint(-100),
            Byte(0),
            Fixed(STALE),
            Varint(1),
            Varint(0),
            Byte(1),
            Fixed(1),
            Varint(2),
            Varint(7),
            Byte(2),
            Varint(3),
            Fixed(2),
        ],
    );
    let four = [two[0], two[1], sample(10, 1000, 1), sample(12, 1007, 2)];
    assert_eq!(Record::decode(&second), Ok(Record::Samples(four.to_vec())));
    for kind in [2, 4, 7, 11, 12] {
        assert!(
            Record::decode(&[kind]).is_ok(),
            "an empty record of type {kind}"
        );
    }
}

#[test]
fn a_ref_may_use_all_bits() {
    let bytes = record(
        2,
        &[
            Fixed(u64::MAX),
            Fixed(0),
            Varint(0),
            Varint(-5),
            Fixed(0),
            Varint(1),
            Varint(i64::MIN),
            Fixed(1),
        ],
    );
    let expected = vec![sample(u64::MAX, -5, 0), sample(0, i64::MIN, 1)];
    assert_eq!(Record::decode(&bytes), Ok(Record::Samples(expected)));
}

#[test]
fn histograms_become_messages_in_every_type() {
    let int = [
        Byte(2),
        Varint(3),
        Fixed(0.5f64.to_bits()),
        Uvarint(4),
        Uvarint(12),
        Fixed(STALE),
        Uvarint(1),
        Varint(-2),
        Uvarint(2),
        Uvarint(0),
        Uvarint(2),
        Varint(5),
        Varint(-1),
        Uvarint(0),
    ];
    let head = [Fixed(8), Fixed(100), Varint(1), Varint(2)];
    let later = [Varint(9), Varint(102), Varint(0)];
    for (kind, head) in [(7, &head[..]), (12, &later)] {
        let bytes = record(kind, &[head, &int].concat());
        let Ok(Record::Histograms(found)) = Record::decode(&bytes) else {
            panic!("no histograms of type {kind}");
        };
        let message = &found[0].message;
        assert_eq!((found[0].reference, message.timestamp), (9, 102));
        assert_eq!(message.sum.to_bits(), STALE);
        assert_eq!(message.count, Some(Count::Int(12)));
        assert_eq!(message.zero_count, Some(ZeroCount::Int(4)));
        assert_eq!((message.reset_hint, message.schema), (2, 3));
        assert_eq!(message.positive_deltas, [5, -1]);
        assert_eq!(
            (
                message.positive_spans[0].offset,
                message.positive_spans[0].length
            ),
            (-2, 2)
        );
    }
    let one = Fixed(1f64.to_bits());
    let float = [
        Byte(3),
        Varint(-53),
        Fixed(0),
        Fixed(0),
        one,
        one,
        Uvarint(1),
        Varint(0),
        Uvarint(1),
        Uvarint(0),
        Uvarint(1),
        one,
        Uvarint(0),
        Uvarint(1),
        one,
    ];
    for (kind, head) in [(10, &head[..]), (13, &later)] {
        let bytes = record(kind, &[head, &float].concat());
        let Ok(Record::Histograms(found)) = Record::decode(&bytes) else {
            panic!("no histograms of type {kind}");
        };
        let message = &found[0].message;
        assert_eq!(message.count, Some(Count::Float(1.0)));
        assert_eq!(
            (&message.positive_counts[..], &message.custom_values[..]),
            (&[1.0][..], &[1.0][..])
        );
    }
}

#[test]
fn metadata_names_the_family() {
    let fields = [
        Uvarint(5),
        Byte(3),
        Uvarint(3),
        Text("UNIT"),
        Text("s"),
        Text("HELP"),
        Text("h"),
        Text("NEW"),
        Text("?"),
    ];
    let bytes = record(6, &fields);
    let Ok(Record::Metadata(found)) = Record::decode(&bytes) else {
        panic!("no metadata");
    };
    let message = found[0].message(b"latency_bucket").unwrap();
    assert_eq!(message.metric_family_name, "latency");
    assert_eq!(message.r#type, i32::from(MetricType::Histogram));
    assert_eq!((message.help.as_str(), message.unit.as_str()), ("h", "s"));
}

#[test]
fn a_record_cut_anywhere_is_malformed() {
    let bytes = record(
        4,
        &[
            Fixed(1),
            Fixed(2),
            Varint(0),
            Varint(0),
            Fixed(3),
            Uvarint(1),
            Text("id"),
            Text("abc"),
        ],
    );
    let Ok(Record::Exemplars(whole)) = Record::decode(&bytes) else {
        panic!("no exemplars");
    };
    assert_eq!(whole[0].message().unwrap().labels[0].value, "abc");
    for end in (2..bytes.len()).filter(|end| *end != 17) {
        assert_eq!(
            Record::decode(&bytes[..end]),
            Err(Why::Malformed),
            "cut at {end}"
        );
    }
    assert_eq!(Record::decode(&[]), Err(Why::Malformed));
    assert_eq!(Record::decode(&[14]), Err(Why::UnknownType));
}
