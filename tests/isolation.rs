//! Turns an endpoint that does not take anything into the proof that the others do not notice, and
//! that its own data waits for it.

use std::net::TcpListener;
use std::time::Duration;

use crate::common::agent::Agent;
use crate::common::backend::{Backend, Kind, assert_same, url};
use crate::common::load::Stream;
use crate::common::{eventually, free_port};

/// The default time to fill a batch is 5 s; one endpoint's trouble must not add to it.
const PROMPT: Duration = Duration::from_secs(8);
const STOPS_SOON: &str = "--feature.component-shutdown-deadline=1s";

fn until_promptly_delivered(agent: &Agent, url: &str) {
    eventually(PROMPT, || match agent.lag_bytes(url) {
        0.0 => Ok(()),
        left => Err(format!("{left} bytes are left")),
    });
}

#[test]
fn a_dead_endpoint_holds_up_nobody_and_gets_everything_when_it_comes() {
    let dir = tempfile::tempdir().unwrap();
    let live = Backend::start(Kind::Prometheus, dir.path(), "live");
    let dead_port = free_port();
    let dead = url(dead_port);
    let mut agent = Agent::start(dir.path(), &[dead.clone(), live.url()], &[STOPS_SOON]);
    let stream = Stream::new("only");

    let empty = agent.lag_bytes(&dead);
    stream.send(agent.port, 0..100);
    until_promptly_delivered(&agent, &live.url());
    assert_same(&stream.samples(0..100), &live.samples());
    let lag = agent.lag_bytes(&dead);
    assert!(lag > empty, "{lag} is more than {empty}");

    assert!(agent.process.terminate().success());
    agent.restart();
    assert!(agent.lag_bytes(&dead) >= lag);
    stream.send(agent.port, 100..200);
    until_promptly_delivered(&agent, &live.url());
    assert_same(&stream.samples(0..200), &live.samples());

    let risen = Backend::start_on(dead_port, Kind::Prometheus, dir.path(), "risen");
    let risen = risen.expect("the port stayed free");
    for backend in [&live, &risen] {
        agent.until_delivered(&backend.url());
        assert_eq!(agent.refused(&backend.url()), 0.0);
        assert_same(&stream.samples(0..200), &backend.samples());
    }
}

#[test]
fn an_endpoint_that_never_answers_holds_up_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let live = Backend::start(Kind::VictoriaMetrics, dir.path(), "live");
    // The system completes connections; nobody ever reads from them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = url(silent.local_addr().unwrap().port());
    let mut agent = Agent::start(dir.path(), &[silent.clone(), live.url()], &[STOPS_SOON]);
    let stream = Stream::new("only");

    let empty = agent.lag_bytes(&silent);
    stream.send(agent.port, 0..100);
    until_promptly_delivered(&agent, &live.url());
    assert_same(&stream.samples(0..100), &live.samples());
    assert!(agent.lag_bytes(&silent) > empty);
    agent.process.signal(rustix::process::Signal::TERM);
    assert!(agent.process.wait(PROMPT).success());
}
