//! Turns heads and framing that are wrong, or lie, into answers or closed connections.

use super::Then::{Closes, ClosesAtEnd, Stays};
use super::*;

const WRITE: &str = "POST /api/v1/write HTTP/1.1\r\nHost: t\r\n";

/// A request with these header lines and then these bytes.
fn raw(headers: &str, rest: &[u8]) -> Vec<u8> {
    [format!("{WRITE}{headers}\r\n").as_bytes(), rest].concat()
}

fn chunked(bytes: &[u8]) -> Vec<u8> {
    raw("Transfer-Encoding: chunked\r\n", bytes)
}

fn one_chunk(body: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", body.len()).as_bytes(), body, b"\r\n"].concat()
}

fn with_length(length: impl std::fmt::Display, body: &[u8]) -> Vec<u8> {
    raw(&format!("Content-Length: {length}\r\n"), body)
}

#[test]
fn a_request_cut_off_anywhere_stores_nothing() {
    let mut battery = Battery::start();
    let request = post(&body("cut", 1.0));
    for end in 0..request.len() {
        let mut client = battery.connect();
        client.send(&request[..end]);
        client.end();
        while let Some(reply) = client.try_reply() {
            assert!((400..500).contains(&reply.status), "at {end}: {reply:?}");
        }
    }
    // Left open, and closed all at once after others were served.
    let open: Vec<Client> = (0..request.len())
        .map(|end| {
            let mut client = battery.connect();
            client.send(&request[..end]);
            client
        })
        .collect();
    let mut next = battery.connect();
    battery.is_good(&mut next, "requests cut off");
    drop((open, next));
    assert_eq!(
        battery.running.stores[0].series().len(),
        1,
        "only the good one"
    );
    battery.end();
}

#[test]
fn lengths_that_are_not_those_of_the_body() {
    let (good, bad) = (body("good", 1.0), body("sent", 1.0));
    let short = [with_length(bad.len() - 1, &bad), post(&good)].concat();
    run(&[
        case("too short", short, &[400, 405], Stays),
        case(
            "too long",
            with_length(bad.len() + 1, &bad),
            &[],
            ClosesAtEnd,
        ),
        case("none", raw("", &[]), &[400], Stays),
        case("negative", with_length(-1, &bad), &[400], Closes),
        case(
            "signed",
            with_length(format!("+{}", bad.len()), &bad),
            &[400],
            Closes,
        ),
        case("of hex", with_length("0x20", &bad), &[400], Closes),
        case("not a number", with_length("many", &bad), &[400], Closes),
        case("empty", with_length("", &bad), &[400], Closes),
        case(
            "above u64",
            with_length("18446744073709551616", &bad),
            &[400],
            Closes,
        ),
        case("huge", with_length(u64::MAX - 1, &bad), &[431], Closes),
        case(
            "over the limit",
            with_length((64 << 10) + 1, &[0; (64 << 10) + 1]),
            &[413],
            Stays,
        ),
    ]);
}

#[test]
fn chunks_that_are_none() {
    let good = body("sent", 1.0);
    let whole = one_chunk(&good);
    let then = |end: &[u8]| chunked(&[&whole, end].concat());
    let many = [&b"1\r\nx\r\n".repeat(70_000)[..], b"0\r\n\r\n"].concat();
    run(&[
        case("good", then(b"0\r\n\r\n"), &[204], Stays),
        case(
            "with extension",
            chunked(&[b"1;a=b\r\nx\r\n", &b"0\r\n\r\n"[..]].concat()),
            &[400],
            Stays,
        ),
        case("with trailers", then(b"0\r\nX-A: b\r\n\r\n"), &[204], Stays),
        case("no end", then(b""), &[], ClosesAtEnd),
        case("no last line", then(b"0\r\n"), &[], ClosesAtEnd),
        case("bad size", chunked(b"xyz\r\n"), &[400], Closes),
        case("no size", chunked(b"\r\nabc\r\n"), &[400], Closes),
        case("negative size", chunked(b"-1\r\nabc\r\n"), &[400], Closes),
        case(
            "size above u64",
            chunked(b"11112222333344445\r\n"),
            &[400],
            Closes,
        ),
        case(
            "size larger than what comes",
            chunked(b"ffff\r\nabc"),
            &[],
            ClosesAtEnd,
        ),
        case(
            "no line end behind it",
            chunked(b"1\r\nxy0\r\n\r\n"),
            &[400],
            Closes,
        ),
        case("bare line feeds", chunked(b"1\nx\n0\n\n"), &[400], Closes),
        case("empty", chunked(b"0\r\n\r\n"), &[400], Stays),
        case("larger than the limit", chunked(&many), &[413], Stays),
    ]);
}

/// What proxies in front and we might read differently must not leave a second request behind.
#[test]
fn framing_that_can_be_read_in_two_ways() {
    let good = body("good", 1.0);
    let hidden = post(&body("smuggled", 1.0));
    let chunks = [&one_chunk(&good)[..], b"0\r\n\r\n"].concat();
    let behind = |headers: &str, bytes: &[u8]| [&raw(headers, bytes)[..], &hidden].concat();
    let both = |first: &str, second: &str| behind(&format!("{first}\r\n{second}\r\n"), &chunks);
    let length = format!("Content-Length: {}", chunks.len());
    let te = "Transfer-Encoding: chunked";
    let lengths = format!("Content-Length: {0}\r\nContent-Length: {0}\r\n", good.len());
    let mut battery = Battery::start();
    for case in [
        case("length and chunks", both(&length, te), &[204], Closes),
        case("chunks and length", both(te, &length), &[204], Closes),
        case(
            "two lengths",
            both("Content-Length: 5", "Content-Length: 6"),
            &[400],
            Closes,
        ),
        case(
            "a list of lengths",
            behind("Content-Length: 5, 6\r\n", &good),
            &[400],
            Closes,
        ),
        case(
            "chunked is not last",
            behind("Transfer-Encoding: chunked, identity\r\n", &chunks),
            &[400],
            Closes,
        ),
        case(
            "nearly chunked",
            behind("Transfer-Encoding: xchunked\r\n", &chunks),
            &[400],
            Closes,
        ),
        case(
            "space before the colon",
            behind("Transfer-Encoding : chunked\r\n", &chunks),
            &[400],
            Closes,
        ),
        case(
            "folded",
            behind("Transfer-Encoding:\r\n chunked\r\n", &chunks),
            &[400],
            Closes,
        ),
    ] {
        battery.run(&case);
        // Framed by its chunks, the first was a good one.
        battery.good += usize::from(case.answers == [204]);
    }
    let same = raw(&lengths, &good);
    battery.run(&case("the same length twice", same, &[204], Stays));
    battery.good += 1;
    let mut old = raw("Transfer-Encoding: chunked\r\n", &chunks);
    old.splice(26..27, *b"0");
    battery.run(&case("chunks in HTTP/1.0", old, &[400], Closes));
    let names = stored(&battery.running.stores[0]);
    let smuggled = label_bytes(&[("__name__", "smuggled")]);
    assert!(names.iter().all(|(labels, ..)| *labels != smuggled));
    battery.end();
}

#[test]
fn requests_in_one_segment_are_answered_in_order() {
    let mut battery = Battery::start();
    let good = post(&body("good", 1.0));
    let refused = post(&compressed(vec![series(&[("job", "x")], 1.0, 1)]));
    let elsewhere = with_head("GET /elsewhere", "", &[]);
    let segment = [
        &good,
        &refused,
        &good,
        &elsewhere,
        &good,
        &post(b"no snappy"),
        &good,
    ];
    let answers = &[204, 400, 204, 404, 204, 400, 204];
    let bytes: Vec<u8> = segment.into_iter().flatten().copied().collect();
    battery.run(&case("good and bad ones", bytes, answers, Stays));
    battery.good += 4;
    battery.end();
}

#[test]
fn heads_that_are_none() {
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03random bytes of a client";
    run(&[
        case("HTTP/0.9", "GET /\r\n\r\n", &[400], Closes),
        case("HTTP/0.9 by name", "GET / HTTP/0.9\r\n\r\n", &[400], Closes),
        case("HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", &[404], Closes),
        case(
            "HTTP/2 on faith",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            &[],
            Closes,
        ),
        case("HTTP/3", "GET / HTTP/3.0\r\n\r\n", &[400], Closes),
        case(
            "garbage",
            b"\x00\x01\x02\xff garbage\r\n\r\n",
            &[400],
            Closes,
        ),
        case("the hello of TLS", hello, &[400], Closes),
        case(
            "a proxy's hello",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / HTTP/1.1\r\n\r\n",
            &[400],
            Closes,
        ),
        case("only line ends", "\r\n\r\n\r\n", &[], ClosesAtEnd),
    ]);
}

#[test]
fn a_head_larger_than_may_be_read_ahead_is_refused() {
    let long = raw(&format!("X: {}\r\n", "x".repeat(210 << 10)), &[]);
    run(&[case("210 KiB", long, &[431], Closes)]);
}

#[test]
fn heads_that_are_http_and_too_much_or_not_ours() {
    let headers = |count: usize, value: &str| {
        let lines: String = (0..count)
            .map(|at| format!("X-{at}: {value}\r\n"))
            .collect();
        raw(&lines, &[])
    };
    let (huge, long) = ("x".repeat(500 << 10), "x".repeat(70 << 10));
    run(&[
        case(
            "an unknown method",
            with_head("BREW /api/v1/write", "", &[]),
            &[405],
            Stays,
        ),
        case(
            "a method of symbols",
            with_head("PO{ST /api/v1/write", "", &[]),
            &[400],
            Closes,
        ),
        case("OPTIONS *", with_head("OPTIONS *", "", &[]), &[404], Stays),
        case("CONNECT", with_head("CONNECT a:1", "", &[]), &[404], Stays),
        case(
            "a whole url",
            with_head("GET http://t/api/v1/write", "", &[]),
            &[405],
            Stays,
        ),
        case(
            "a path of escapes",
            with_head("GET /%00%ff/../../etc", "", &[]),
            &[404],
            Stays,
        ),
        case(
            "a long path",
            with_head(&format!("GET /{long}"), "", &[]),
            &[414],
            Closes,
        ),
        case("a huge header", headers(1, &huge), &[431], Closes),
        case("many headers", headers(101, "a"), &[431], Closes),
        case("as many as there may be", headers(99, "a"), &[400], Stays),
        case(
            "a header without colon",
            raw("nonsense\r\n", &[]),
            &[400],
            Closes,
        ),
        case(
            "a header of a NUL",
            raw("X-A: a\0b\r\n", &[]),
            &[400],
            Closes,
        ),
        case("a header without name", raw(": a\r\n", &[]), &[400], Closes),
        case(
            "bytes above ASCII",
            raw("X-A: \u{e9}\u{2603}\r\n", &[]),
            &[400],
            Stays,
        ),
        case(
            "no host",
            "POST /api/v1/write HTTP/1.1\r\n\r\n",
            &[400],
            Stays,
        ),
    ]);
}

#[test]
fn whoever_waits_for_a_go_gets_one_or_the_refusal() {
    let mut battery = Battery::start();
    let good = body("good", 1.0);
    let expect = "Expect: 100-continue\r\n";
    let length = good.len();
    let go = raw(&format!("{expect}Content-Length: {length}\r\n"), &[]);
    battery.run(&case("never sent", go.clone(), &[100], ClosesAtEnd));
    let all = [&go[..], &good].concat();
    battery.run(&case("sent without waiting", all, &[100, 204], Stays));
    battery.good += 1;
    let huge = raw(&format!("{expect}Content-Length: 99999999\r\n"), &[]);
    battery.run(&case("too large", huge, &[413], Closes));
    let other = raw("Expect: the unexpected\r\nContent-Length: 0\r\n", &[]);
    battery.run(&case("something else", other, &[400], Stays));
    battery.end();
}
