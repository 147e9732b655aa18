//! Turns every kind of bad request into its answer, and the good one after it into a 204.

use crate::common::agent::Agent;
use crate::common::http::Client;
use crate::common::load::{compressed, series};
use ingest::proto::WriteRequest;
use prost::Message;

const WRITE: &str = "POST /api/v1/metrics/write";
/// More than a body may have.
const TOO_MANY_BYTES: usize = (32 << 20) + 1;

/// A request, the status it must get and what the answer must name.
struct Bad {
    request: Vec<u8>,
    status: u16,
    says: &'static str,
}

fn bad(request: Vec<u8>, status: u16, says: &'static str) -> Bad {
    Bad {
        request,
        status,
        says,
    }
}

fn request(line: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("{line} HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

fn body(bytes: &[u8]) -> Vec<u8> {
    request(WRITE, "", bytes)
}

/// A head without the body it promises: it is refused before any of that is sent.
fn promised(bytes: usize) -> Vec<u8> {
    format!("{WRITE} HTTP/1.1\r\nHost: t\r\nContent-Length: {bytes}\r\n\r\n").into_bytes()
}

fn snappy(bytes: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(bytes).unwrap()
}

fn good() -> Vec<u8> {
    compressed(vec![series(&[("__name__", "good")])])
}

/// Bodies that cannot be read.
fn unreadable() -> Vec<Bad> {
    let good = good();
    let claims_4_gib = [0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0];
    // Field 1 with five bytes, of which there are none.
    let cut_off = snappy(&[0x0a, 5]);
    vec![
        bad(body(&[]), 400, "empty"),
        bad(body(b"this is no snappy"), 400, "bad snappy"),
        bad(body(&good[..good.len() - 1]), 400, "bad snappy"),
        bad(body(&cut_off), 400, "bad protobuf"),
        bad(body(&snappy(b"no protobuf")), 400, "bad protobuf"),
        bad(
            body(&claims_4_gib),
            413,
            "decompressed body of 4294967295 bytes",
        ),
        bad(
            body(&snappy(&vec![0; TOO_MANY_BYTES])),
            413,
            "decompressed body",
        ),
        bad(promised(TOO_MANY_BYTES), 413, "compressed body"),
    ]
}

/// Series that may not be stored.
fn refused() -> Vec<Bad> {
    let twice = series(&[("__name__", "a"), ("x", "1"), ("x", "2")]);
    let unnamed = series(&[("", "x"), ("__name__", "a")]);
    let readable = WriteRequest {
        timeseries: vec![series(&[("__name__", "a"), ("x", "replaced")])],
        metadata: Vec::new(),
    };
    let mut bytes = readable.encode_to_vec();
    let at = bytes
        .windows(8)
        .position(|eight| eight == b"replaced")
        .unwrap();
    bytes[at] = 0xff;
    vec![
        bad(
            body(&compressed(vec![series(&[("job", "x")])])),
            400,
            "missing_metric_name",
        ),
        bad(body(&compressed(vec![twice])), 400, "duplicate_label_name"),
        bad(body(&compressed(vec![unnamed])), 400, "empty_label_name"),
        bad(body(&snappy(&bytes)), 400, "invalid_utf8"),
    ]
}

/// Requests whose head tells that they are for somebody else.
fn misdirected() -> Vec<Bad> {
    let good = good();
    let v3 = "Content-Type: application/x-protobuf;proto=io.prometheus.write.v3.Request\r\n";
    vec![
        bad(
            request(WRITE, "Content-Type: text/plain\r\n", &good),
            415,
            "text/plain",
        ),
        bad(request(WRITE, v3, &good), 415, "prometheus.WriteRequest"),
        bad(
            request(WRITE, "Content-Encoding: gzip\r\n", &good),
            415,
            "gzip",
        ),
        bad(
            request("GET /api/v1/metrics/write", "", &[]),
            405,
            "only POST",
        ),
        bad(
            request("PUT /api/v1/metrics/write", "", &good),
            405,
            "only POST",
        ),
        bad(
            request("POST /api/v1/else", "", &good),
            404,
            "/api/v1/metrics/write",
        ),
    ]
}

#[test]
fn every_bad_request_is_answered_with_its_reason_and_the_next_good_one_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(dir.path(), &[], &[]);
    let mut client = Client::new(agent.port);
    let mut good_ones = 0.0;
    for bad in unreadable()
        .into_iter()
        .chain(refused())
        .chain(misdirected())
    {
        let reply = client.exchange(&bad.request).unwrap();
        assert_eq!(reply.status, bad.status, "{reply:?}");
        assert!(
            reply.text.contains(bad.says),
            "{reply:?} names {}",
            bad.says
        );
        let reply = client.write(&good()).unwrap();
        assert_eq!((reply.status, reply.text.as_str()), (204, ""));
        good_ones += 1.0;
    }
    assert_eq!(agent.metric("penstock_wal_samples_total", &[]), good_ones);
}

#[test]
fn good_series_of_a_request_with_bad_ones_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(dir.path(), &[], &[]);
    let mut client = Client::new(agent.port);
    let mixed = compressed(vec![
        series(&[("__name__", "a")]),
        series(&[("job", "nameless")]),
        series(&[("__name__", "b")]),
    ]);
    let reply = client.write(&mixed).unwrap();
    assert_eq!(reply.status, 400);
    assert!(
        reply.text.contains("missing_metric_name: 1 series"),
        "{reply:?}"
    );
    assert_eq!(agent.metric("penstock_wal_samples_total", &[]), 2.0);
}

#[test]
fn labels_in_any_order_are_taken_as_one_series() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(dir.path(), &[], &[]);
    let mut client = Client::new(agent.port);
    for labels in [
        [("__name__", "a"), ("x", "1"), ("y", "2")],
        [("y", "2"), ("__name__", "a"), ("x", "1")],
        [("x", "1"), ("y", "2"), ("__name__", "a")],
    ] {
        let reply = client.write(&compressed(vec![series(&labels)])).unwrap();
        assert_eq!(reply.status, 204, "{reply:?}");
    }
    let active = "prometheus_remote_write_wal_storage_active_series";
    assert_eq!(agent.metric(active, &[]), 1.0);
    assert_eq!(agent.metric("penstock_wal_samples_total", &[]), 3.0);
}
