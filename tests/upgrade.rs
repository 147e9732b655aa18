//! Turns one process that ends and the next that starts into a service that nobody was refused by.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};

use crate::common::agent::{config, penstock};
use crate::common::http::{Client, is_ok};
use crate::common::load::Stream;
use crate::common::process::Process;
use crate::common::sink::{Sink, expected};
use crate::common::{PATIENCE, eventually, free_port};

/// Requests, each on a connection of its own, before, between and after.
const REQUESTS: i64 = 20;
/// Time from one connection to the next while processes change, and from a connection to its request.
const BETWEEN: Duration = Duration::from_millis(4);
const BEFORE_SENDING: Duration = Duration::from_millis(100);

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

/// Makes connections until it is told to stop, whatever becomes of those before; each sends one request, once, a while
/// after it was made. Who sent.
fn arrivals(
    port: u16,
    (stop, acked): (Arc<AtomicBool>, Arc<AtomicU64>),
) -> JoinHandle<Vec<Stream>> {
    let one = move |stream: &Stream, acked: &AtomicU64| -> std::io::Result<()> {
        let mut client = Client::connected(port)?;
        std::thread::sleep(BEFORE_SENDING);
        let reply = client.write(&stream.request(0))?;
        assert_eq!(reply.status, 204, "{}", reply.text);
        acked.fetch_add(1, Ordering::Relaxed);
        Ok(())
    };
    let make = move || {
        let mut all = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let (stream, acked) = (Stream::new(&format!("peer-{}", all.len())), acked.clone());
            let of = stream.clone();
            let thread = std::thread::Builder::new().name("peer".to_owned());
            let thread = thread.spawn(move || one(&of, &acked).unwrap()).unwrap();
            all.push((stream, thread));
            std::thread::sleep(BETWEEN);
        }
        let join = |(stream, thread): (Stream, JoinHandle<()>)| {
            thread.join().unwrap();
            stream
        };
        all.into_iter().map(join).collect()
    };
    let thread = std::thread::Builder::new().name("arrivals".to_owned());
    thread.spawn(make).unwrap()
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
    let peers = arrivals(ports[0], (stop.clone(), total.clone()));
    let until_more = || {
        let before = total.load(Ordering::Relaxed);
        eventually(PATIENCE, || match total.load(Ordering::Relaxed) - before {
            more if more >= REQUESTS.unsigned_abs() => Ok(()),
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
    for stream in peers.join().unwrap() {
        acked.extend(expected(stream.samples(0..1)));
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
