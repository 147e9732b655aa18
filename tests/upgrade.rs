//! Turns one process that ends and the next that starts into a service that nobody was refused by.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use command_fds::{CommandFdExt, FdMapping};

use crate::common::agent::{config, penstock};
use crate::common::http::{Client, is_ok};
use crate::common::load::Stream;
use crate::common::process::Process;
use crate::common::sink::{Sink, expected};
use crate::common::{PATIENCE, eventually, free_port};

/// Requests, each on a connection of its own, before, between and after.
const REQUESTS: i64 = 20;
/// Who sends while processes change.
const SENDERS: usize = 8;

/// An agent that is handed these sockets, as systemd does.
fn start(dir: &Path, sockets: [&TcpListener; 2], url: &str) -> Process {
    let [front, own] = sockets.map(|socket| socket.local_addr().unwrap().port());
    let text = config(front, &[url.to_owned()]);
    std::fs::write(dir.join("config.alloy"), text).unwrap();
    let arguments = [
        "run".to_owned(),
        dir.join("config.alloy").display().to_string(),
        format!("--storage.path={}", dir.join("data").display()),
        format!("--server.http.listen-addr=127.0.0.1:{own}"),
    ];
    let mut command = penstock(&arguments);
    let mapping = (3..).zip(sockets).map(|(child_fd, socket)| FdMapping {
        parent_fd: OwnedFd::from(socket.try_clone().unwrap()),
        child_fd,
    });
    command.fd_mappings(mapping.collect()).unwrap();
    command.env("LISTEN_FDS", "2");
    let mut process = Process::start("penstock", command, dir);
    assert!(
        process.is_up(|| is_ok(own, "/-/ready")),
        "{}",
        process.log()
    );
    process
}

/// An agent that shares its addresses with the one before it; does not wait.
fn beside(dir: &Path, name: &str, [front, own]: [u16; 2], url: &str) -> Process {
    std::fs::write(dir.join("config.alloy"), config(front, &[url.to_owned()])).unwrap();
    let arguments = [
        "run".to_owned(),
        dir.join("config.alloy").display().to_string(),
        format!("--storage.path={}", dir.join("data").display()),
        format!("--server.http.listen-addr=127.0.0.1:{own}"),
        "--server.listen.reuse-port".to_owned(),
        "--storage.lock-timeout=40s".to_owned(),
    ];
    Process::start(name, penstock(&arguments), dir)
}

/// Sends requests until it is told to stop, each on a connection of its own, each once; how many.
fn sender(
    stream: Stream,
    port: u16,
    (stop, total): (Arc<AtomicBool>, Arc<AtomicU64>),
) -> JoinHandle<i64> {
    let thread = std::thread::Builder::new().name("sender".to_owned());
    let send = move || {
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) {
            let reply = Client::new(port).write(&stream.request(number));
            let reply = reply.unwrap_or_else(|error| panic!("request {number}: {error}"));
            assert_eq!(reply.status, 204, "{}", reply.text);
            number += 1;
            total.fetch_add(1, Ordering::Relaxed);
        }
        number
    };
    thread.spawn(send).unwrap()
}

#[test]
fn between_two_processes_that_share_their_addresses_nobody_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let sink = Sink::start();
    let ports = [free_port(), free_port()];
    let url = sink.url();
    let is_up = |process: &mut Process| {
        assert!(process.is_up(|| is_ok(ports[1], "/-/ready")));
    };
    let mut running = beside(dir.path(), "first", ports, &url);
    is_up(&mut running);
    let (stop, total) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let senders: Vec<(Stream, JoinHandle<i64>)> = (0..SENDERS)
        .map(|number| {
            let stream = Stream::new(&format!("sender-{number}"));
            let sender = sender(stream.clone(), ports[0], (stop.clone(), total.clone()));
            (stream, sender)
        })
        .collect();
    let until_more = || {
        let before = total.load(Ordering::Relaxed);
        eventually(PATIENCE, || match total.load(Ordering::Relaxed) - before {
            more if more >= REQUESTS.unsigned_abs() * 10 => Ok(()),
            more => Err(format!("{more} requests more")),
        });
    };
    for name in ["second", "third"] {
        until_more();
        let mut next = beside(dir.path(), name, ports, &url);
        eventually(PATIENCE, || {
            let is_waiting = next
                .log()
                .contains("waiting for the log of another process");
            is_waiting.then_some(()).ok_or_else(|| next.log())
        });
        assert!(running.terminate().success());
        is_up(&mut next);
        running = next;
    }
    until_more();
    stop.store(true, Ordering::Relaxed);
    let mut acked = BTreeMap::new();
    for (stream, sender) in senders {
        let count = sender.join().unwrap();
        acked.extend(expected(stream.samples(0..count)));
    }
    let samples: usize = acked.values().map(Vec::len).sum();
    eventually(PATIENCE, || match sink.deliveries() {
        came if came >= samples => Ok(()),
        came => Err(format!("{came} of {samples} samples came")),
    });
    sink.log().assert_holds(&acked);
    println!("{samples} samples over two changes");
    // What waits does not go on waiting when it is told to stop.
    let mut waiting = beside(dir.path(), "fourth", ports, &url);
    eventually(PATIENCE, || {
        let is_waiting = waiting
            .log()
            .contains("waiting for the log of another process");
        is_waiting.then_some(()).ok_or_else(|| waiting.log())
    });
    waiting.terminate();
    assert!(
        waiting.log().contains("is in use by another process"),
        "{}",
        waiting.log()
    );
}

#[test]
fn between_two_processes_with_the_same_sockets_nobody_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let sink = Sink::start();
    let [front, own] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let port = front.local_addr().unwrap().port();
    let sockets = [&front, &own];
    let stream = Stream::new("upgraded");
    let mut first = start(dir.path(), sockets, &sink.url());
    stream.send(port, 0..REQUESTS);
    assert!(first.terminate().success());
    // Nobody serves now, and connections are taken all the same: they wait.
    let thread = std::thread::Builder::new().name("waiting".to_owned());
    let waiting = move || {
        let stream = Stream::new("waiting");
        stream.send(port, 0..REQUESTS);
        stream
    };
    let waiting = thread.spawn(waiting).unwrap();
    let _second = start(dir.path(), sockets, &sink.url());
    stream.send(port, REQUESTS..2 * REQUESTS);
    let waited = waiting.join().unwrap();
    let mut acked = expected(stream.samples(0..2 * REQUESTS));
    acked.extend(expected(waited.samples(0..REQUESTS)));
    let samples: usize = acked.values().map(Vec::len).sum();
    eventually(PATIENCE, || match sink.deliveries() {
        came if came >= samples => Ok(()),
        came => Err(format!("{came} of {samples} samples came")),
    });
    sink.log().assert_holds(&acked);
}
