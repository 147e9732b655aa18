//! Turns every kind of bad request into its answer, and the good one after it into a 204.

use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};

use crate::common::agent::{Agent, config};
use crate::common::http::Client;
use crate::common::load::{compressed, series};
use crate::common::{PATIENCE, eventually};
use ingest::proto::WriteRequest;
use prost::Message;

const WRITE: &str = "POST /api/v1/metrics/write";
/// What memory may differ by after bad input: bodies that ingest threads keep for the next requests, and what
/// the allocator does. Measured: up to 6 MiB more, and no more from 100 rounds to 300.
const KEPT_BYTES: u64 = 12 << 20;
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

/// Everything that is bad, some of it many times at once, and of requests that never end.
fn flood(agent: &Agent) {
    let all = || {
        unreadable()
            .into_iter()
            .chain(refused())
            .chain(misdirected())
    };
    let mut client = Client::new(agent.port);
    for bad in all() {
        let reply = client.exchange(&bad.request).unwrap();
        assert_eq!(reply.status, bad.status, "{reply:?}");
    }
    let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, agent.port)).unwrap();
    let whole = body(&good());
    let garbage = [
        &b"\x16\x03\x01 hello"[..],
        b"GET /\r\n",
        &[0xff; 5000],
        b"PRI * HTTP/2.0\r\n\r\n",
    ];
    let half = body(&[0; 20_000]);
    let cut = (0..300).map(|at| &whole[..at % whole.len()]);
    let cut = cut
        .chain(garbage)
        .chain(std::iter::repeat_n(&half[..10_000], 50));
    let open: Vec<TcpStream> = cut
        .map(|bytes| {
            let mut stream = connect();
            // Fails where it was refused at once.
            stream.write_all(bytes).unwrap_or_default();
            stream
        })
        .collect();
    // Whoever is good is served meanwhile.
    assert_eq!(client.write(&good()).unwrap().status, 204);
    drop((open, client));
    eventually(PATIENCE, || {
        let open = agent.metric("prometheus_receive_http_tcp_connections", &[]);
        let bytes = agent.metric("penstock_receive_http_in_flight_bytes", &[]);
        let is_quiet = open + bytes == 0.0;
        is_quiet
            .then_some(())
            .ok_or_else(|| format!("{open} connections, {bytes} bytes"))
    });
}

#[test]
fn bad_input_leaves_no_memory_and_no_file_behind() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(dir.path(), &[], &["--ingest.threads=2"]);
    // At first spare buffers grow towards what they then stay at.
    for _ in 0..5 {
        flood(&agent);
    }
    let (bytes, files) = agent.process.holds();
    for _ in 0..10 {
        flood(&agent);
    }
    eventually(PATIENCE, || {
        let now = agent.process.holds().1;
        (now <= files)
            .then_some(())
            .ok_or_else(|| format!("{now} files, not {files}"))
    });
    let after = agent.process.holds().0;
    println!("{bytes} bytes before, {after} after");
    assert!(
        after < bytes + KEPT_BYTES,
        "{bytes} bytes before, {after} after"
    );
}

/// A tenant at its limit, as its sender and whoever runs the agent see it.
#[test]
fn tenants_have_their_limits_and_their_metrics() {
    let dir = tempfile::tempdir().unwrap();
    let limits = "  limits {\n    series_limit = 4\n  }\n  tenants {\n    \
                  tenant \"small\" {\n      max_active_series = 2\n    }\n  }\n";
    let agent = Agent::start_with(dir.path(), &[], |port| {
        config(port, &[]).replacen("  http {", &format!("{limits}  http {{"), 1)
    });
    let mut client = Client::new(agent.port);
    let mut send = |tenant: &str, names: &[&str]| {
        let all = names.iter().map(|name| series(&[("__name__", name)]));
        let header = format!("X-Scope-OrgID: {tenant}\r\n");
        let body = compressed(all.collect());
        client.send(WRITE, &header, &body).unwrap()
    };
    assert_eq!(send("small", &["a", "b"]).status, 204);
    let reply = send("small", &["a", "c", "b"]);
    assert_eq!(reply.status, 400);
    assert!(
        reply.text.contains("tenant_series_limit: 1 series"),
        "{reply:?}"
    );
    assert_eq!(send("free", &["d", "e", "f", "g"]).status, 204);
    let reply = send("free", &["d", "e", "f", "g", "h"]);
    assert!(reply.text.contains("more than the limit of 4"), "{reply:?}");
    let metric = |name: &str, pairs: &[(&str, &str)]| {
        agent.metric(&format!("penstock_receive_http_tenant_{name}"), pairs)
    };
    let small = ("tenant", "small");
    assert_eq!(metric("active_series", &[small]), 2.0);
    assert_eq!(metric("active_series_limit", &[small]), 2.0);
    assert_eq!(metric("active_series", &[("tenant", "free")]), 4.0);
    assert_eq!(metric("samples_total", &[small]), 4.0);
    let reason = ("reason", "tenant_series_limit");
    assert_eq!(metric("refused_series_total", &[small, reason]), 1.0);
    let top = [small, ("label", "__name__"), ("value", "c")];
    assert_eq!(metric("top_refused", &top), 1.0);
    let active = "prometheus_remote_write_wal_storage_active_series";
    assert_eq!(
        agent.metric(active, &[]),
        6.0,
        "none was defined for nothing"
    );
}
