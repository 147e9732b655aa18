//! Turns bodies that are no messages, or say what may not be said, into 400s and 413s.

use ingest::proto::{self, v2};
use prost::Message;

use super::Then::Stays;
use super::*;

const V2: &str = "Content-Type: application/x-protobuf;proto=io.prometheus.write.v2.Request\r\n";

fn snappy(bytes: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(bytes).unwrap()
}

fn post_v2(message: &[u8]) -> Vec<u8> {
    with_head("POST /api/v1/write", V2, &snappy(message))
}

/// One of everything that remote write 1.0 has.
fn everything() -> Vec<u8> {
    let mut one = series(&[("__name__", "all"), ("a", "b")], 1.0, 1_700_000_000_000);
    one.exemplars.push(proto::Exemplar {
        labels: one.labels.clone(),
        value: 1.0,
        timestamp: 5,
    });
    let mut other = series(&[("__name__", "histogram")], 1.0, 1);
    other.samples.clear();
    other.histograms.push(proto::Histogram {
        count: Some(proto::Count::Int(3)),
        positive_spans: vec![proto::BucketSpan {
            offset: 1,
            length: 2,
        }],
        positive_deltas: vec![1, -1],
        timestamp: 5,
        ..Default::default()
    });
    let metadata = proto::MetricMetadata {
        metric_family_name: "all".into(),
        help: "of it".into(),
        ..Default::default()
    };
    let request = proto::WriteRequest {
        timeseries: vec![one, other],
        metadata: vec![metadata],
    };
    request.encode_to_vec()
}

/// One of everything that remote write 2.0 has.
fn everything_v2() -> v2::Request {
    let symbols = ["", "__name__", "all", "a", "b"];
    let one = v2::TimeSeries {
        labels_refs: vec![1, 2, 3, 4],
        samples: vec![v2::Sample {
            value_bits: 1,
            timestamp: 1_700_000_000_000,
            start_timestamp: 5,
        }],
        exemplars: vec![v2::Exemplar {
            labels_refs: vec![3, 4],
            ..Default::default()
        }],
        metadata: Some(v2::Metadata {
            r#type: 1,
            help_ref: 4,
            unit_ref: 0,
        }),
        ..Default::default()
    };
    v2::Request {
        symbols: symbols.map(|text| text.as_bytes().to_vec()).to_vec(),
        timeseries: vec![one],
    }
}

/// Every prefix of a message and every byte of it replaced by one that means another wire type, a
/// group, or a varint that goes on: the answer is prost's verdict, and the connection stays.
#[test]
fn messages_cut_off_or_changed_anywhere_are_refused_or_taken_as_prost_does() {
    const CHANGES: [u8; 5] = [0x0b, 0x0c, 0x80, 0xff, 0x7d];
    let mut battery = Battery::start();
    let mut client = battery.connect();
    let (v1, v2) = (everything(), everything_v2().encode_to_vec());
    for (message, is_v2) in [(&v1, false), (&v2, true)] {
        let cuts = (0..message.len()).map(|end| message[..end].to_vec());
        let changes = (0..message.len() * CHANGES.len()).map(|at| {
            let mut changed = message.clone();
            changed[at / CHANGES.len()] = CHANGES[at % CHANGES.len()];
            changed
        });
        for bytes in cuts.chain(changes) {
            let (request, is_message) = if is_v2 {
                (post_v2(&bytes), v2::Request::decode(&*bytes).is_ok())
            } else {
                let is_message = proto::WriteRequest::decode(&*bytes).is_ok();
                (post(&snappy(&bytes)), is_message)
            };
            client.send(&request);
            let reply = client.reply();
            assert!([204, 400].contains(&reply.status), "{bytes:x?}: {reply:?}");
            // Series may still be refused, and so may be what is not UTF-8, which prost refuses whole.
            let is_malformed = reply.text.starts_with("bad protobuf");
            let has_symbols = !is_v2 || reply.text.contains("symbol");
            assert!(
                !is_malformed || !is_message || has_symbols,
                "{bytes:x?}: {reply:?}"
            );
        }
    }
    battery.is_good(&mut client, "every change");
    drop(client);
    battery.end();
}

#[test]
fn bodies_that_are_larger_than_they_look() {
    let zeros = vec![0; (64 << 10) + 1];
    let long = snappy(&zeros);
    let mut liar = snappy(&[0; 60_000]);
    // 60000 as a varint of three bytes becomes 1.
    liar.splice(..3, [1]);
    // The first has no length of its own, the second says 100 bytes.
    let frame = |content: &[u8]| {
        ruzstd::encoding::compress_to_vec(content, ruzstd::encoding::CompressionLevel::Fastest)
    };
    let bomb = frame(&vec![0; 16 << 20]);
    let zstd = |frame: &[u8]| with_head("POST /api/v1/write", ZSTD, frame);
    // A frame of one block that repeats a byte 128 KiB times, as often as it likes: no length in its head.
    let mut endless = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 7 << 3];
    for _ in 0..1000 {
        endless.extend([0x02, 0x00, 0x10, b'x']);
    }
    run(&[
        case(
            "claims 4 GiB",
            post(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0]),
            &[413],
            Stays,
        ),
        case(
            "claims more than it can hold",
            post(&[0x80, 0xfa, 0x03, 0, 0]),
            &[400],
            Stays,
        ),
        case("a varint without end", post(&[0xff; 20]), &[400], Stays),
        case("one byte too many", post(&long), &[413], Stays),
        case("claims less than it is", post(&liar), &[400], Stays),
        case("a bomb of zstd", zstd(&bomb), &[413], Stays),
        case("an endless one", zstd(&endless), &[413], Stays),
        case(
            "a window of gigabytes",
            zstd(&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 0, 0]),
            &[400],
            Stays,
        ),
        case(
            "a frame cut off",
            zstd(&bomb[..bomb.len() / 2]),
            &[413],
            Stays,
        ),
    ]);
}

#[test]
fn label_sets_that_are_not_allowed() {
    let of = |labels: &[(&str, &str)]| post(&compressed(vec![series(labels, 1.0, 1)]));
    let (long, longer) = ("x".repeat(60 << 10), "x".repeat(5 << 10));
    let mut not_utf8 = plain(vec![series(&[("__name__", "replaced")], 1.0, 1)]);
    let at = not_utf8
        .windows(8)
        .position(|eight| eight == b"replaced")
        .unwrap();
    not_utf8[at] = 0xff;
    let battery = Battery::start_with(|setup| setup.receiver.body_bytes_max = 1 << 20);
    run_all(
        battery,
        &[
            case("no name", of(&[("a", "b")]), &[400], Stays),
            case("none at all", of(&[]), &[400], Stays),
            case("an empty name", of(&[("__name__", "")]), &[400], Stays),
            case(
                "a label without name",
                of(&[("__name__", "a"), ("", "b")]),
                &[400],
                Stays,
            ),
            case(
                "a name twice",
                of(&[("__name__", "a"), ("b", "1"), ("b", "1")]),
                &[400],
                Stays,
            ),
            case("not UTF-8", post(&snappy(&not_utf8)), &[400], Stays),
            case(
                "too long",
                of(&[("__name__", "a"), ("b", &long), ("c", &longer)]),
                &[400],
                Stays,
            ),
            // Allowed: names are no longer letters and digits only.
            case(
                "UTF-8",
                of(&[("__name__", "\u{e9}"), ("a b", "\0")]),
                &[204],
                Stays,
            ),
        ],
    );
}

/// One of everything, but for this.
fn v2_with(change: impl FnOnce(&mut v2::Request)) -> Vec<u8> {
    let mut request = everything_v2();
    change(&mut request);
    post_v2(&request.encode_to_vec())
}

#[test]
fn symbols_that_are_not_there() {
    run(&[
        case("as it should be", v2_with(|_| ()), &[204], Stays),
        case(
            "out of range",
            v2_with(|r| r.timeseries[0].labels_refs[3] = 5),
            &[400],
            Stays,
        ),
        case(
            "far out of range",
            v2_with(|r| r.timeseries[0].labels_refs[0] = u32::MAX),
            &[400],
            Stays,
        ),
        case(
            "a name without value",
            v2_with(|r| r.timeseries[0].labels_refs.truncate(3)),
            &[400],
            Stays,
        ),
        case(
            "no labels",
            v2_with(|r| r.timeseries[0].labels_refs.clear()),
            &[400],
            Stays,
        ),
        case(
            "the first not empty",
            v2_with(|r| r.symbols[0] = b"x".to_vec()),
            &[400],
            Stays,
        ),
        case(
            "no first",
            v2_with(|r| drop(r.symbols.remove(0))),
            &[400],
            Stays,
        ),
        case("no symbols", v2_with(|r| r.symbols.clear()), &[400], Stays),
        case(
            "not UTF-8",
            v2_with(|r| r.symbols[4] = vec![0xff]),
            &[400],
            Stays,
        ),
        case(
            "an exemplar's",
            v2_with(|r| r.timeseries[0].exemplars[0].labels_refs[0] = 9),
            &[400],
            Stays,
        ),
        case(
            "the help's",
            v2_with(|r| r.timeseries[0].metadata.as_mut().unwrap().help_ref = 9),
            &[400],
            Stays,
        ),
        case(
            "nothing in it",
            v2_with(|r| {
                r.timeseries[0] = v2::TimeSeries {
                    labels_refs: vec![1, 2],
                    ..Default::default()
                };
            }),
            &[400],
            Stays,
        ),
        // None of its fields is known, and the answer says that nothing was written.
        case("1.0 as 2.0", post_v2(&everything()), &[204], Stays),
    ]);
}
