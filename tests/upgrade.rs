//! Turns one process that ends and the next that starts into a service that nobody was refused by.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;

use command_fds::{CommandFdExt, FdMapping};

use crate::common::agent::{config, penstock};
use crate::common::http::is_ok;
use crate::common::load::Stream;
use crate::common::process::Process;
use crate::common::sink::{Sink, expected};
use crate::common::{PATIENCE, eventually};

/// Requests, each on a connection of its own, before, between and after.
const REQUESTS: i64 = 20;

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
