//! Turns HTTP exchanges with a real receiver and a real store into verdicts, on both engines.

use std::time::Duration;

use crate::common::*;
use wal::IoEngine;

fn each_engine(test: impl Fn(IoEngine)) {
    for engine in engines() {
        println!("engine: {}", engine.as_str());
        test(engine);
    }
}

#[test]
fn what_is_answered_204_is_durable_and_readable() {
    each_engine(|engine| {
        let running = Setup::new(engine).start();
        let mut client = running.connect();
        for round in 0..5i32 {
            let reply = client.post(&body("up", f64::from(round)));
            assert_eq!((reply.status, reply.text.as_str()), (204, ""));
            let marks = running.stores[0].watermarks();
            assert_eq!(marks.durable, marks.appended);
        }
        let labels = label_bytes(&[("__name__", "up")]);
        let expected: Vec<_> = (0..5i32)
            .map(|v| (labels.clone(), 1_700_000_000_000, f64::from(v)))
            .collect();
        assert_eq!(stored(&running.stores[0]), expected);
        let numbers = running.snapshot();
        assert_eq!((numbers.samples, numbers.requests[0]), (5, 5));
        running.stop();
    });
}

#[test]
fn labels_are_stored_canonical_whatever_their_order() {
    each_engine(|engine| {
        let running = Setup::new(engine).start();
        let mut client = running.connect();
        let sorted = [("__name__", "up"), ("a", "1"), ("b", "2")];
        let shuffled = [("b", "2"), ("empty", ""), ("__name__", "up"), ("a", "1")];
        for labels in [&shuffled[..], &sorted, &shuffled] {
            assert_eq!(
                client
                    .post(&compressed(vec![series(labels, 1.0, 5)]))
                    .status,
                204
            );
        }
        let expected = vec![(label_bytes(&sorted), 5, 1.0); 3];
        assert_eq!(stored(&running.stores[0]), expected);
        assert_eq!(running.stores[0].series().len(), 1);
        running.stop();
    });
}

/// The remote write of VictoriaMetrics' agent: 1.0, by zstd.
#[test]
fn zstd_bodies_are_the_same_series_as_snappy_ones() {
    each_engine(|engine| {
        let running = Setup::new(engine).start();
        let mut client = running.connect();
        let ask = "GET /api/v1/write?x=y&get_vm_proto_version=1";
        client.send(&with_head(ask, "", &[]));
        let reply = client.reply();
        assert_eq!((reply.status, reply.text.as_str()), (200, "1"));
        assert_eq!(client.post(&body("up", 1.0)).status, 204);
        client.send(&zstd_post(&plain(vec![series(
            &[("__name__", "up")],
            2.0,
            1_700_000_000_001,
        )])));
        assert_eq!(client.reply().status, 204);
        let labels = label_bytes(&[("__name__", "up")]);
        let expected = [
            (labels.clone(), 1_700_000_000_000, 1.0),
            (labels, 1_700_000_000_001, 2.0),
        ];
        assert_eq!(stored(&running.stores[0]), expected);
        assert_eq!(running.stores[0].series().len(), 1);
        running.stop();
    });
}

/// A request that must be answered with `status`, a text with `says`, and perhaps a header; then
/// the connection either takes the next request or is closed.
struct Bad {
    request: Vec<u8>,
    status: u16,
    says: &'static str,
    header: Option<(&'static str, &'static str)>,
    stays: bool,
}

fn bad(request: Vec<u8>, status: u16, says: &'static str) -> Bad {
    Bad {
        request,
        status,
        says,
        header: None,
        stays: true,
    }
}

fn bad_requests() -> Vec<Bad> {
    let good = body("up", 1.0);
    let write = "POST /api/v1/metrics/write";
    let zip = |bytes: &[u8]| snap::raw::Encoder::new().compress_vec(bytes).unwrap();
    let v3 = "Content-Type: application/x-protobuf;proto=io.prometheus.write.v3.Request\r\n";
    let mut all = vec![
        bad(
            with_head("POST /api/v1/other", "", &good),
            404,
            "/api/v1/metrics/write",
        ),
        bad(with_head("GET /", "", &[]), 404, "not found"),
        bad(
            with_head(write, "Content-Type: text/plain\r\n", &good),
            415,
            "\"text/plain\"",
        ),
        bad(
            with_head(write, v3, &good),
            415,
            "only prometheus.WriteRequest",
        ),
        bad(
            with_head(write, "Content-Encoding: gzip\r\n", &good),
            415,
            "only snappy",
        ),
        bad(post(&[]), 400, "empty"),
        bad(post(b"this is no snappy"), 400, "bad snappy"),
        bad(post(&good[..good.len() - 1]), 400, "bad snappy"),
        bad(
            post(&zip(&[0x0a, 5])),
            400,
            "at byte 1 of the decompressed body",
        ),
        bad(
            post(&zip(&[0; 70_000])),
            413,
            "decompressed body of 70000 bytes is larger",
        ),
        bad(
            post(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0]),
            413,
            "decompressed body",
        ),
        bad(
            post(&vec![0; 70_000]),
            413,
            "compressed body of 70000 bytes is larger",
        ),
        bad(
            post(&compressed(vec![series(&[("a", "b")], 1.0, 1)])),
            400,
            "missing_metric_name: 1",
        ),
    ];
    for method in ["GET", "PUT", "DELETE"] {
        let request = with_head(&format!("{method} /api/v1/write"), "", &[]);
        let header = Some(("allow", "POST"));
        all.push(Bad {
            header,
            ..bad(request, 405, "only POST")
        });
    }
    all.extend(bad_zstd(&good));
    all.extend(unread_requests());
    all
}

fn bad_zstd(good: &[u8]) -> [Bad; 4] {
    let write = "POST /api/v1/write";
    let v2 = "Content-Type: application/x-protobuf;proto=io.prometheus.write.v2.Request\r\n";
    [
        bad(
            with_head(write, &format!("{v2}{ZSTD}"), good),
            415,
            "only snappy (block format)",
        ),
        bad(with_head(write, ZSTD, good), 400, "bad zstd frame"),
        bad(with_head(write, ZSTD, &[]), 400, "bad zstd frame"),
        bad(zstd_post(&[0; 70_000]), 413, "decompressed body"),
    ]
}

/// Requests refused by their head, with a body that is never sent.
fn unread_requests() -> [Bad; 2] {
    let write = "POST /api/v1/metrics/write";
    let promising = |headers: &str, length: &str| {
        let request = String::from_utf8(with_head(write, headers, &[])).unwrap();
        request
            .replace("Length: 0", &format!("Length: {length}"))
            .into_bytes()
    };
    let huge = bad(promising("", "999999999"), 413, "999999999 bytes is larger");
    let waiting = "Expect: 100-continue\r\nContent-Encoding: gzip\r\n";
    let waiting = bad(promising(waiting, "10"), 415, "snappy");
    [
        Bad {
            stays: false,
            ..huge
        },
        Bad {
            stays: false,
            ..waiting
        },
    ]
}

#[test]
fn every_bad_request_gets_its_answer_and_the_next_good_one_is_stored() {
    each_engine(|engine| {
        let mut setup = Setup::new(engine);
        setup.receiver.body_bytes_max = 65_536;
        let running = setup.start();
        let mut client = running.connect();
        let mut good = 0;
        for bad in bad_requests() {
            client.send(&bad.request);
            let reply = client.reply();
            assert_eq!(reply.status, bad.status, "{reply:?}");
            assert!(
                reply.text.contains(bad.says),
                "{reply:?} should say {}",
                bad.says
            );
            assert!(reply.text.ends_with('\n'), "{reply:?}");
            if let Some((name, value)) = bad.header {
                assert_eq!(header(&reply.head, name), Some(value), "{reply:?}");
            }
            if !bad.stays {
                assert_eq!(
                    header(&reply.head, "connection"),
                    Some("close"),
                    "{reply:?}"
                );
                assert!(client.is_closed());
                client = running.connect();
            }
            assert_eq!(client.post(&body("up", 1.0)).status, 204);
            good += 1;
        }
        assert_eq!(stored(&running.stores[0]).len(), good);
        running.stop();
    });
}

#[test]
fn refused_series_are_listed_and_the_others_are_durable() {
    each_engine(|engine| {
        let running = Setup::new(engine).start();
        let mut client = running.connect();
        let request = compressed(vec![
            series(&[("__name__", "a")], 1.0, 1),
            series(&[("job", "nameless")], 1.0, 1),
            series(&[("__name__", "b"), ("x", "1"), ("x", "2")], 1.0, 1),
            series(&[("job", "nameless too")], 1.0, 1),
            series(&[("__name__", "c")], 1.0, 1),
        ]);
        let reply = client.post(&request);
        assert_eq!(reply.status, 400);
        for part in [
            "missing_metric_name: 2 series with 2 samples",
            "duplicate_label_name: 1 series with 1 samples",
            "first: missing_metric_name in {job=\"nameless\"}",
        ] {
            assert!(reply.text.contains(part), "{}", reply.text);
        }
        let marks = running.stores[0].watermarks();
        assert_eq!(marks.durable, marks.appended);
        let names: Vec<_> = stored(&running.stores[0])
            .into_iter()
            .map(|s| s.0)
            .collect();
        let expected = ["a", "c"].map(|name| label_bytes(&[("__name__", name)]));
        assert_eq!(names, expected);
        let refused = running.snapshot().refused_series;
        assert_eq!(refused[ingest::Reason::MissingMetricName.index()], 2);
        assert_eq!(refused[ingest::Reason::DuplicateLabelName.index()], 1);
        running.stop();
    });
}

#[test]
fn slow_peers_are_let_go() {
    each_engine(|engine| {
        let mut setup = Setup::new(engine);
        // Long enough for a whole request on a busy machine.
        setup.receiver.read_timeout = Duration::from_millis(700);
        let running = setup.start();
        let request = post(&body("up", 1.0));
        let mut slow_second_head = running.connect();
        slow_second_head.send(&request);
        let mut slow_body = running.connect();
        slow_body.send(&request[..request.len() - 1]);
        assert_eq!(slow_second_head.reply().status, 204);
        slow_second_head.send(&request[..20]);
        let mut slow_head = running.connect();
        slow_head.send(&request[..20]);
        let mut silent = running.connect();

        let reply = slow_body.reply();
        assert_eq!(reply.status, 408, "{reply:?}");
        assert!(
            reply.text.contains("did not arrive within 700ms"),
            "{reply:?}"
        );
        for closed in [
            &mut slow_body,
            &mut slow_second_head,
            &mut slow_head,
            &mut silent,
        ] {
            assert!(closed.is_closed());
        }
        running.until(|numbers| numbers.connections_timed_out == 3);
        running.stop();
    });
}

#[test]
fn idle_peers_are_let_go() {
    each_engine(|engine| {
        let mut setup = Setup::new(engine);
        setup.receiver.idle_timeout = Duration::from_millis(30);
        let running = setup.start();
        let mut idle = running.connect();
        assert_eq!(idle.post(&body("up", 1.0)).status, 204);
        assert!(idle.is_closed());
        running.until(|numbers| numbers.connections_timed_out == 1);
        running.stop();
    });
}

#[test]
fn a_peer_that_takes_no_answers_is_let_go() {
    each_engine(|engine| {
        let mut setup = Setup::new(engine);
        setup.receiver.write_timeout = Duration::from_millis(100);
        let running = setup.start();
        let mut deaf = running.connect();
        let request = with_head("GET /", "", &[]);
        while deaf.try_send(&request.repeat(1000)) {}
        running.until(|numbers| numbers.connections_timed_out == 1);
        running.stop();
    });
}

#[test]
fn connections_beyond_the_limit_are_closed_and_counted() {
    each_engine(|engine| {
        let mut setup = Setup::new(engine);
        setup.receiver.connections_max = 1;
        let running = setup.start();
        let mut first = running.connect();
        assert_eq!(first.post(&body("up", 1.0)).status, 204);
        let mut second = running.connect();
        assert!(second.is_closed());
        assert_eq!(first.post(&body("up", 1.0)).status, 204);
        assert_eq!(running.snapshot().connections_refused, 1);
        drop(first);
        running.until(|numbers| numbers.connections_open == 0);
        assert_eq!(running.connect().post(&body("up", 1.0)).status, 204);
        running.stop();
    });
}

#[test]
fn too_many_bytes_in_flight_are_shed_with_429() {
    each_engine(|engine| {
        let mut setup = Setup::new(engine);
        setup.receiver.in_flight_bytes_max = 10;
        let running = setup.start();
        let request = post(&body("up", 1.0));
        let mut slow = running.connect();
        slow.send(&request[..request.len() - 1]);
        running.until(|numbers| numbers.in_flight_bytes > 10);
        let mut other = running.connect();
        let reply = other.post(&body("up", 1.0));
        assert_eq!(reply.status, 429, "{reply:?}");
        assert_eq!(header(&reply.head, "retry-after"), Some("1"));
        slow.send(&request[request.len() - 1..]);
        assert_eq!(slow.reply().status, 204);
        assert_eq!(other.post(&body("up", 1.0)).status, 204);
        assert_eq!(running.snapshot().in_flight_bytes, 0);
        running.stop();
    });
}

#[test]
fn a_closed_log_is_answered_503() {
    each_engine(|engine| {
        let running = Setup::new(engine).start();
        let mut client = running.connect();
        assert_eq!(client.post(&body("up", 1.0)).status, 204);
        running.stores[0].close();
        let reply = client.post(&body("up", 1.0));
        assert_eq!(
            (reply.status, header(&reply.head, "retry-after")),
            (503, None),
            "{reply:?}"
        );
        running.stop();
    });
}

#[test]
fn a_full_log_is_answered_503_and_retry_after() {
    each_engine(|engine| {
        let mut setup = Setup::new(engine);
        setup.store.max_disk_bytes = Some(6 << 20);
        let running = setup.start();
        let _behind = running.stores[0].endpoint("behind").unwrap();
        let mut client = running.connect();
        let mut durable = 0;
        let reply = loop {
            // Values that do not compress.
            let many = (0..2000).map(|at| {
                let value = f64::from_bits(fastrand::u64(..) >> 2);
                series(
                    &[("__name__", "up"), ("at", &at.to_string())],
                    value,
                    fastrand::i64(..),
                )
            });
            let reply = client.post(&compressed(many.collect()));
            if reply.status != 204 {
                break reply;
            }
            durable += 2000;
        };
        assert_eq!(
            (reply.status, header(&reply.head, "retry-after")),
            (503, Some("5"))
        );
        assert!(reply.text.contains("the log is full"), "{reply:?}");
        assert_eq!(stored(&running.stores[0]).len(), durable);
        running.stop();
    });
}

#[test]
fn chunked_pipelined_and_expecting_requests_are_stored() {
    each_engine(|engine| {
        let running = Setup::new(engine).start();
        let mut client = running.connect();
        let body = body("up", 1.0);
        let write = "POST /api/v1/write HTTP/1.1\r\nHost: t\r\n";
        let mut chunked = format!("{write}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
        for byte in &body {
            chunked.extend(format!("1\r\n{}", "").as_bytes());
            chunked.extend([*byte]);
            chunked.extend(b"\r\n");
        }
        chunked.extend(b"0\r\n\r\n");
        client.send(&chunked);
        assert_eq!(client.reply().status, 204);

        client.send(&[post(&body), chunked, post(&body)].concat());
        for _ in 0..3 {
            assert_eq!(client.reply().status, 204);
        }

        let head = format!(
            "{write}Expect: 100-continue\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        client.send(head.as_bytes());
        assert_eq!(client.reply().status, 100);
        client.send(&body);
        assert_eq!(client.reply().status, 204);
        assert_eq!(stored(&running.stores[0]).len(), 5);
        running.stop();
    });
}

#[test]
fn a_body_cut_off_stores_nothing() {
    each_engine(|engine| {
        let running = Setup::new(engine).start();
        let request = post(&body("up", 1.0));
        let mut client = running.connect();
        client.send(&request[..request.len() - 1]);
        running.until(|numbers| numbers.in_flight_bytes > 0);
        drop(client);
        running.until(|numbers| numbers.in_flight_bytes == 0 && numbers.connections_open == 0);
        assert_eq!(stored(&running.stores[0]), vec![]);
        // Whether the answer to nobody or the end of the connection came first.
        assert_eq!(running.snapshot().requests.iter().sum::<u64>(), 1);
        running.stop();
    });
}
