//! Turns senders with and without certificates and credentials into verdicts, on both engines.

use std::time::Duration;

use hyper::header::{AUTHORIZATION, HeaderValue};
use ingest::secure::{AuthOptions, ClientAuth, Handshake};
use wal::IoEngine;

use crate::common::tls::*;
use crate::common::*;

fn each_engine(test: impl Fn(IoEngine)) {
    for engine in engines() {
        println!("engine: {}", engine.as_str());
        test(engine);
    }
}

fn handshakes(running: &Running, how: Handshake) -> u64 {
    running.shards.stats()["front"].secure().handshakes(how)
}

fn until_handshakes(running: &Running, how: Handshake, count: u64) {
    loop {
        // Looked at once a round: between two looks it may become what it should.
        let found = handshakes(running, how);
        assert!(found <= count, "{found} handshakes, not {count}");
        if found == count {
            return;
        }
        std::thread::yield_now();
    }
}

#[test]
fn what_comes_over_tls_is_durable() {
    each_engine(|engine| {
        let authority = Authority::new();
        let mut setup = Setup::new(engine);
        setup.receiver.tls = Some(authority.options());
        let running = setup.start();
        let address = running.shards.addresses()["front"];
        runtime().block_on(async {
            let stream = encrypted(address, authority.client(None, &[]));
            let stream = stream.await.unwrap();
            let (status, text) = once(stream, write(address, &body("up", 1.0)))
                .await
                .unwrap();
            assert_eq!((status, text.as_str()), (204, ""));
            let stream = encrypted(address, authority.client(None, &["h2", "http/1.1"]));
            let stream = stream.await.unwrap();
            let agreed = stream.get_ref().1.alpn_protocol();
            assert_eq!(agreed, Some(&b"http/1.1"[..]), "HTTP/2 is off by default");
        });
        assert_eq!(stored(&running.stores[0]).len(), 1);
        until_handshakes(&running, Handshake::Done, 2);
        running.stop();
    });
}

/// Whether a client with this certificate gets an answer.
fn is_let_in(running: &Running, authority: &Authority, pair: Option<&Pair>) -> bool {
    let address = running.shards.addresses()["front"];
    runtime().block_on(async {
        let stream = encrypted(address, authority.client(pair, &[])).await;
        match stream {
            // With TLS 1.3 a client knows only when it reads.
            Ok(stream) => once(stream, write(address, &body("up", 1.0))).await.is_ok(),
            Err(_) => false,
        }
    })
}

#[test]
fn every_policy_lets_in_the_clients_it_should_and_counts_the_others() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (good, foreign, expired) = (
        authority.sign(),
        stranger.sign(),
        authority.sign_until(2020),
    );
    let clients = [None, Some(&good), Some(&foreign), Some(&expired)];
    for (policy, expected) in [
        (ClientAuth::None, [true, true, true, true]),
        (ClientAuth::Request, [true, true, true, true]),
        (ClientAuth::RequireAny, [false, true, true, true]),
        (ClientAuth::VerifyIfGiven, [true, true, false, false]),
        (ClientAuth::RequireAndVerify, [false, true, false, false]),
    ] {
        let mut setup = Setup::new(IoEngine::Portable);
        setup.receiver.tls = Some(authority.asking(policy));
        let running = setup.start();
        let found = clients.map(|pair| is_let_in(&running, &authority, pair));
        assert_eq!(found, expected, "{policy:?}");
        let refused = |from: usize| expected[from..].iter().filter(|is_in| !**is_in).count() as u64;
        let of_certificates = refused(1);
        let missing = refused(0) - of_certificates;
        // A client knows that it was refused before its handshake is counted.
        until_handshakes(&running, Handshake::NoCertificate, missing);
        until_handshakes(&running, Handshake::BadCertificate, of_certificates);
        let taken = expected.iter().filter(|is_in| **is_in).count();
        assert_eq!(stored(&running.stores[0]).len(), taken);
        running.stop();
    }
}

#[test]
fn a_client_that_does_not_trust_us_is_counted() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let mut setup = Setup::new(IoEngine::Portable);
    setup.receiver.tls = Some(authority.options());
    let running = setup.start();
    assert!(!is_let_in(&running, &stranger, None));
    until_handshakes(&running, Handshake::RefusedByPeer, 1);
    running.stop();
}

#[test]
fn the_wrong_protocol_on_either_port_is_closed_and_counted() {
    each_engine(|engine| {
        let authority = Authority::new();
        let mut setup = Setup::new(engine);
        setup.receiver.tls = Some(authority.options());
        let encrypting = setup.start();
        let mut plain_client = encrypting.connect();
        plain_client.send(&post(&body("up", 1.0)));
        while !plain_client.is_closed() {}
        until_handshakes(&encrypting, Handshake::NotTls, 1);
        assert!(is_let_in(&encrypting, &authority, None));
        encrypting.stop();

        for http2 in [None, Some(ingest::Http2Options::default())] {
            let mut setup = Setup::new(engine);
            setup.receiver.http2 = http2;
            let plain = setup.start();
            assert!(!is_let_in(&plain, &authority, None));
            plain.until(|numbers| numbers.connections_broken == 1);
            assert_eq!(plain.connect().post(&body("up", 1.0)).status, 204);
            plain.stop();
        }
    });
}

#[test]
fn a_handshake_that_does_not_end_holds_a_place_until_its_deadline() {
    each_engine(|engine| {
        let authority = Authority::new();
        let mut setup = Setup::new(engine);
        setup.receiver.tls = Some(authority.options());
        setup.receiver.connections_max = 1;
        setup.receiver.read_timeout = Duration::from_millis(700);
        let running = setup.start();
        let mut silent = running.connect();
        silent.send(&[22, 3, 1]);
        running.until(|numbers| numbers.connections_open == 1);
        let mut second = running.connect();
        assert!(second.is_closed());
        running.until(|numbers| numbers.connections_refused == 1);
        assert!(silent.is_closed());
        until_handshakes(&running, Handshake::TimedOut, 1);
        running.until(|numbers| numbers.connections_open == 0);
        assert!(is_let_in(&running, &authority, None));
        running.stop();
    });
}

#[test]
fn stopping_does_not_wait_for_handshakes() {
    each_engine(|engine| {
        let mut setup = Setup::new(engine);
        setup.receiver.tls = Some(Authority::new().options());
        setup.receiver.read_timeout = Duration::from_secs(3600);
        setup.grace = Duration::from_secs(3600);
        let running = setup.start();
        let mut silent = running.connect();
        running.until(|numbers| numbers.connections_open == 1);
        running.stop();
        assert!(silent.is_closed());
    });
}

fn protected() -> AuthOptions {
    AuthOptions {
        basic: Some(("scraper".into(), "hunter2".into())),
        bearer_tokens: vec!["first".into(), "second".into()],
    }
}

/// `scraper:hunter2`.
const BASIC: &str = "Basic c2NyYXBlcjpodW50ZXIy";

#[test]
fn only_requests_with_credentials_are_taken() {
    each_engine(|engine| {
        let mut setup = Setup::new(engine);
        setup.receiver.auth = Some(protected());
        let running = setup.start();
        let write = "POST /api/v1/write";
        let with = |value: &str| format!("Authorization: {value}\r\n");
        for value in ["Basic c2NyYXBlcjpodW50ZXIz", "Bearer third", ""] {
            for line in [write, "GET /", "GET /api/v1/write?get_vm_proto_version=1"] {
                let mut client = running.connect();
                client.send(&with_head(line, &with(value), &body("up", 1.0)));
                let reply = client.reply();
                assert_eq!(reply.status, 401, "{line} {value}: {reply:?}");
                let challenge = header(&reply.head, "www-authenticate").unwrap();
                assert!(challenge.starts_with("Basic realm="), "{challenge}");
                assert!(client.is_closed());
            }
        }
        assert_eq!(running.connect().post(&body("up", 1.0)).status, 401);
        let mut client = running.connect();
        for value in [BASIC, "Bearer first", "bearer second"] {
            client.send(&with_head(write, &with(value), &body("up", 1.0)));
            assert_eq!(client.reply().status, 204, "{value}");
        }
        assert_eq!(stored(&running.stores[0]).len(), 3);
        let at = ingest::STATUS_CODES.iter().position(|code| *code == 401);
        assert_eq!(running.snapshot().requests[at.unwrap()], 10);
        assert_eq!(
            running.snapshot().compressed_bytes,
            3 * body("up", 1.0).len() as u64
        );
        running.stop();
    });
}

#[test]
fn a_large_body_without_credentials_is_not_waited_for() {
    each_engine(|engine| {
        let mut setup = Setup::new(engine);
        setup.receiver.auth = Some(protected());
        setup.receiver.read_timeout = Duration::from_secs(3600);
        let running = setup.start();
        let mut client = running.connect();
        let head = String::from_utf8(with_head("POST /api/v1/write", "", &[])).unwrap();
        client.send(head.replace("Length: 0", "Length: 9999999").as_bytes());
        assert_eq!(client.reply().status, 401);
        assert!(client.is_closed());
        running.stop();
    });
}

#[test]
fn certificates_and_credentials_go_together() {
    let authority = Authority::new();
    let mut setup = Setup::new(IoEngine::Portable);
    setup.receiver.tls = Some(authority.asking(ClientAuth::RequireAndVerify));
    setup.receiver.auth = Some(protected());
    let running = setup.start();
    let address = running.shards.addresses()["front"];
    let pair = authority.sign();
    for (value, expected) in [(BASIC, 204), ("Bearer third", 401)] {
        let status = runtime().block_on(async {
            let stream = encrypted(address, authority.client(Some(&pair), &[]));
            let mut request = write(address, &body("up", 1.0));
            let value = HeaderValue::from_static(value);
            request.headers_mut().insert(AUTHORIZATION, value);
            once(stream.await.unwrap(), request).await.unwrap().0
        });
        assert_eq!(status, expected);
    }
    running.stop();
}

#[test]
fn what_cannot_be_used_keeps_the_shards_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    let store = wal::Store::open(dir.path(), wal::StoreOptions::default()).unwrap();
    let options = ingest::ShardsOptions {
        threads: 1,
        scrape_threads: 1,
        scrape_seed: 0,
        inherited: [].into(),
        engine: IoEngine::Portable,
        shutdown_grace: Duration::ZERO,
        clock: wal::SystemClock::shared(),
    };
    let front = || Setup::new(IoEngine::Portable).receiver;
    let (mut tls, mut auth) = (front(), front());
    let mut broken = Authority::new().options();
    broken.key = text("hunter2");
    tls.tls = Some(broken);
    auth.auth = Some(AuthOptions::default());
    for (receiver, says) in [(tls, "the key"), (auth, "auth needs")] {
        let stores = std::slice::from_ref(&store);
        let error = ingest::Shards::start(&options, layout(stores, vec![receiver])).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("cannot secure front"), "{error}");
        assert!(
            error.contains(says) && !error.contains("hunter2"),
            "{error}"
        );
    }
    store.close();
}
