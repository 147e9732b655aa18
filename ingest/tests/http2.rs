//! Turns HTTP/2 exchanges with a real receiver into verdicts, on both engines.

use std::io::{Read, Write};
use std::net::TcpStream as StdStream;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::channel::Channel;
use http_body_util::{BodyExt, Either, Full};
use hyper::Request;
use hyper::client::conn::http2::SendRequest;
use ingest::Http2Options;
use tokio::net::TcpStream;
use wal::IoEngine;

use crate::common::tls::*;
use crate::common::*;

type AnyBody = Either<Full<Bytes>, Channel<Bytes>>;

const WINDOW: u32 = 1 << 20;

fn each_engine(test: impl Fn(IoEngine)) {
    for engine in engines() {
        println!("engine: {}", engine.as_str());
        test(engine);
    }
}

fn setup(engine: IoEngine) -> Setup {
    let mut setup = Setup::new(engine);
    setup.receiver.http2 = Some(Http2Options::default());
    setup
}

async fn connect(running: &Running) -> SendRequest<AnyBody> {
    let stream = TcpStream::connect(running.shards.addresses()["front"]).await;
    http2_over(stream.unwrap(), WINDOW).await.unwrap()
}

fn request(running: &Running, body: &[u8]) -> Request<AnyBody> {
    write(running.shards.addresses()["front"], body).map(Either::Left)
}

/// One whose body never ends.
fn stalled(running: &Running) -> (http_body_util::channel::Sender<Bytes>, Request<AnyBody>) {
    let (sender, body) = Channel::new(1);
    let request = request(running, &[]).map(|_| Either::Right(body));
    (sender, request)
}

#[test]
fn both_versions_are_spoken_with_and_without_tls() {
    each_engine(|engine| {
        let authority = Authority::new();
        for tls in [None, Some(authority.options())] {
            let is_tls = tls.is_some();
            let mut setup = setup(engine);
            setup.receiver.tls = tls;
            let running = setup.start();
            let address = running.shards.addresses()["front"];
            runtime().block_on(async {
                let mut sender: SendRequest<Full<Bytes>> = if is_tls {
                    let config = authority.client(None, &["h2"]);
                    let stream = encrypted(address, config).await.unwrap();
                    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
                    http2_over(stream, WINDOW).await.unwrap()
                } else {
                    let stream = TcpStream::connect(address).await.unwrap();
                    http2_over(stream, WINDOW).await.unwrap()
                };
                let response = sender.send_request(write(address, &body("up", 1.0))).await;
                assert_eq!(said(response.unwrap()).await, (204, String::new()));
                let missing = Request::get(format!("http://{address}/")).body(Full::default());
                let response = sender.send_request(missing.unwrap()).await.unwrap();
                let (status, text) = said(response).await;
                assert_eq!(status, 404, "{text}");
                assert!(text.contains("remote write is at"), "{text}");
                let request = write(address, &body("up", 2.0));
                let older = if is_tls {
                    let config = authority.client(None, &["http/1.1"]);
                    once(encrypted(address, config).await.unwrap(), request).await
                } else {
                    once(TcpStream::connect(address).await.unwrap(), request).await
                };
                assert_eq!(older.unwrap().0, 204);
            });
            assert_eq!(stored(&running.stores[0]).len(), 2);
            running.stop();
        }
    });
}

#[test]
fn requests_side_by_side_are_all_stored() {
    each_engine(|engine| {
        let running = setup(engine).start();
        runtime().block_on(async {
            let sender = connect(&running).await;
            let mut all = tokio::task::JoinSet::new();
            // More than there may be at a time: the client keeps them back.
            for number in 0..300 {
                let name = format!("series_{}", number % 50);
                let request = request(&running, &body(&name, f64::from(number)));
                let mut sender = sender.clone();
                all.spawn(async move { said(sender.send_request(request).await.unwrap()).await });
            }
            while let Some(answer) = all.join_next().await {
                assert_eq!(answer.unwrap(), (204, String::new()));
            }
        });
        let mut values: Vec<f64> = stored(&running.stores[0]).iter().map(|s| s.2).collect();
        values.sort_by(f64::total_cmp);
        let expected: Vec<f64> = (0..300).map(f64::from).collect();
        assert_eq!(values, expected);
        assert_eq!(running.stores[0].series().len(), 50);
        let numbers = running.snapshot();
        assert_eq!(
            (numbers.connections_accepted, numbers.requests[0]),
            (1, 300)
        );
        running.stop();
    });
}

#[test]
fn a_stalled_body_is_answered_408_and_the_others_go_on() {
    each_engine(|engine| {
        let mut setup = setup(engine);
        setup.receiver.read_timeout = Duration::from_millis(700);
        let running = setup.start();
        runtime().block_on(async {
            let mut sender = connect(&running).await;
            let (_open, endless) = stalled(&running);
            let slow = tokio::spawn(sender.send_request(endless));
            while !slow.is_finished() {
                let request = request(&running, &body("up", 1.0));
                let response = sender.send_request(request).await.unwrap();
                assert_eq!(said(response).await.0, 204);
            }
            let (status, text) = said(slow.await.unwrap().unwrap()).await;
            assert_eq!(status, 408, "{text}");
            let response = sender
                .send_request(request(&running, &body("up", 1.0)))
                .await;
            assert_eq!(said(response.unwrap()).await.0, 204);
        });
        assert_eq!(running.snapshot().connections_timed_out, 0);
        running.stop();
    });
}

#[test]
fn idle_is_a_connection_without_requests_whatever_else_it_says() {
    each_engine(|engine| {
        let mut setup = setup(engine);
        setup.receiver.idle_timeout = Duration::from_secs(3600);
        setup.receiver.http2.as_mut().unwrap().idle_timeout = Some(Duration::from_millis(300));
        let running = setup.start();
        runtime().block_on(async {
            let mut sender = connect(&running).await;
            // Longer at work than it may be idle.
            let (mut open, slow) = stalled(&running);
            let slow = tokio::spawn(sender.send_request(slow));
            while running.snapshot().requests_started == 0 {
                tokio::task::yield_now().await;
            }
            // Another that ends meanwhile does not make it idle.
            let quick = sender
                .send_request(request(&running, &body("up", 1.0)))
                .await;
            assert_eq!(said(quick.unwrap()).await.0, 204);
            // One that is idle since then is closed for it.
            let mut idle = connect(&running).await;
            let last = idle.send_request(request(&running, &body("up", 1.0))).await;
            assert_eq!(said(last.unwrap()).await.0, 204);
            while running.snapshot().connections_timed_out == 0 {
                tokio::task::yield_now().await;
            }
            open.send_data(Bytes::from(body("up", 1.0))).await.unwrap();
            drop(open);
            assert_eq!(said(slow.await.unwrap().unwrap()).await.0, 204);
        });
        assert_eq!(running.snapshot().connections_timed_out, 1);

        let mut chatting = StdStream::connect(running.shards.addresses()["front"]).unwrap();
        let begin = [PREFACE, &SETTINGS, &GET].concat();
        chatting.write_all(&begin).unwrap();
        // As fast as it can, so that there is always more to read.
        let flood = PONG.repeat(100_000);
        while chatting.write_all(&flood).is_ok() {}
        running.until(|numbers| numbers.connections_timed_out == 2);
        running.stop();
    });
}

#[test]
fn a_peer_that_keeps_its_window_shut_is_let_go() {
    each_engine(|engine| {
        let mut setup = setup(engine);
        setup.receiver.write_timeout = Duration::from_millis(500);
        let running = setup.start();
        runtime().block_on(async {
            let stream = TcpStream::connect(running.shards.addresses()["front"]).await;
            let mut sender = http2_over(stream.unwrap(), 0).await.unwrap();
            let missing = Request::get("http://t/").body(Full::<Bytes>::default());
            let response = sender.send_request(missing.unwrap()).await.unwrap();
            assert_eq!(response.status(), 404);
            // Others that have answers without a text do not keep it alive.
            while let Ok(response) = sender
                .send_request(write(running.shards.addresses()["front"], &body("up", 1.0)))
                .await
            {
                assert_eq!(response.status(), 204);
            }
            assert!(response.into_body().collect().await.is_err());
        });
        running.until(|numbers| numbers.connections_timed_out == 1);
        running.until(|numbers| numbers.connections_open == 0);
        running.stop();
    });
}

#[test]
fn a_stop_lets_requests_finish_and_takes_no_more() {
    each_engine(|engine| {
        let running = setup(engine).start();
        let address = running.shards.addresses()["front"];
        let runtime = runtime();
        let (mut open, slow) = runtime.block_on(async {
            let mut sender = connect(&running).await;
            let (open, request) = stalled(&running);
            let slow = tokio::spawn(sender.send_request(request));
            while running.snapshot().requests_started == 0 {
                tokio::task::yield_now().await;
            }
            (open, slow)
        });
        std::thread::scope(|scope| {
            let shards = &running.shards;
            let stopping = scope.spawn(|| shards.stop_accepting());
            runtime.block_on(async {
                while StdStream::connect(address).is_ok() {
                    tokio::task::yield_now().await;
                }
                assert!(!stopping.is_finished());
                open.send_data(Bytes::from(body("up", 1.0))).await.unwrap();
                drop(open);
                assert_eq!(said(slow.await.unwrap().unwrap()).await.0, 204);
            });
            stopping.join().unwrap();
        });
        assert_eq!(stored(&running.stores[0]).len(), 1);
        running.stop();
    });
}

#[test]
fn the_end_of_the_grace_cuts_streams_off() {
    each_engine(|engine| {
        let mut setup = setup(engine);
        setup.grace = Duration::from_millis(50);
        let running = setup.start();
        runtime().block_on(async {
            let mut sender = connect(&running).await;
            let (_open, request) = stalled(&running);
            let slow = tokio::spawn(sender.send_request(request));
            while running.snapshot().requests_started == 0 {
                tokio::task::yield_now().await;
            }
            running.shards.stop_accepting();
            assert!(slow.await.unwrap().is_err());
        });
        let numbers = running.snapshot();
        assert_eq!(numbers.requests.iter().sum::<u64>(), 1);
        assert_eq!(*numbers.requests.last().unwrap(), 1, "cut off");
        assert_eq!(numbers.in_flight_bytes, 0);
        running.stop();
    });
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
/// Stream 1: ":method: GET", ":path: /", ":scheme: http", and its end.
const GET: [u8; 12] = [0, 0, 3, 1, 5, 0, 0, 0, 1, 0x82, 0x84, 0x86];
/// An answer to a ping that nobody sent.
const PONG: [u8; 17] = [0, 0, 8, 6, 1, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];

/// Begins a request on a stream and takes it back.
#[expect(clippy::big_endian_bytes, reason = "as HTTP/2 has it")]
fn reset(stream: u32) -> Vec<u8> {
    let id = stream.to_be_bytes();
    let begin = [&[0, 0, 3, 1, 4], &id[..], &[0x83, 0x84, 0x86]].concat();
    let back = [&[0, 0, 4, 3, 0], &id[..], &[0, 0, 0, 8]].concat();
    [begin, back].concat()
}

#[test]
fn requests_taken_back_at_once_end_the_connection() {
    each_engine(|engine| {
        let running = setup(engine).start();
        let mut peer = StdStream::connect(running.shards.addresses()["front"]).unwrap();
        let many: Vec<u8> = (0..1000).flat_map(|n| reset(2 * n + 1)).collect();
        let attack = [PREFACE, &SETTINGS, &many].concat();
        // It may be gone before it has read everything.
        let is_taken = peer.write_all(&attack).is_ok();
        let mut said = Vec::new();
        let is_heard = peer.read_to_end(&mut said).is_ok();
        println!("taken: {is_taken}, heard: {is_heard}");
        running.until(|numbers| numbers.connections_broken == 1);
        let numbers = running.snapshot();
        let ended: u64 = numbers.requests.iter().sum();
        assert_eq!(ended, numbers.requests_started);
        assert!(ended < 1000, "{ended}");
        assert_eq!(running.connect().post(&body("up", 1.0)).status, 204);
        running.stop();
    });
}

#[test]
fn headers_without_measure_are_refused() {
    each_engine(|engine| {
        let running = setup(engine).start();
        runtime().block_on(async {
            let mut sender = connect(&running).await;
            let mut large = request(&running, &body("up", 1.0));
            let value = "x".repeat(15 << 10).parse().unwrap();
            large.headers_mut().insert("x-small-enough", value);
            let response = sender.send_request(large).await.unwrap();
            assert_eq!(said(response).await.0, 204);
            let mut larger = request(&running, &body("up", 1.0));
            let value = "x".repeat(64 << 10).parse().unwrap();
            larger.headers_mut().insert("x-large", value);
            if let Ok(response) = sender.send_request(larger).await {
                assert_eq!(response.status(), 431);
            }
        });
        assert_eq!(stored(&running.stores[0]).len(), 1);
        running.stop();
    });
}

#[test]
fn credentials_are_looked_at_before_the_body() {
    each_engine(|engine| {
        let mut setup = setup(engine);
        setup.receiver.auth = Some(ingest::secure::AuthOptions {
            bearer_tokens: vec!["token".into()],
            ..Default::default()
        });
        setup.receiver.read_timeout = Duration::from_secs(3600);
        let running = setup.start();
        runtime().block_on(async {
            let mut sender = connect(&running).await;
            let (_open, mut endless) = stalled(&running);
            let length = "9999999".parse().unwrap();
            endless.headers_mut().insert("content-length", length);
            let response = sender.send_request(endless).await.unwrap();
            let challenge = response.headers()["www-authenticate"].clone();
            assert_eq!(challenge, "Bearer realm=\"penstock\"");
            assert_eq!(response.status(), 401);
            let mut good = request(&running, &body("up", 1.0));
            let token = "Bearer token".parse().unwrap();
            good.headers_mut().insert("authorization", token);
            let response = sender.send_request(good).await.unwrap();
            assert_eq!(said(response).await.0, 204);
        });
        running.stop();
    });
}
