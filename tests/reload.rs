//! Turns changes of the configuration under load into no refused request, no lost sample, no closed
//! connection of what did not change, and positions that go on.

use std::fs;

use rustix::process::Signal;

use crate::common::agent::Agent;
use crate::common::http::{Client, get};
use crate::common::load::Stream;
use crate::common::sink::{Sink, expected};
use crate::common::{PATIENCE, eventually, free_port};

/// Reloads under load.
const RELOADS: usize = 30;
/// Requests acknowledged between two of them.
const REQUESTS: i64 = 20;

/// What a configuration of the test has besides receiver and writer.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    number: usize,
    /// A second endpoint of the writer.
    with_second: bool,
    /// A second writer.
    with_extra: bool,
    /// A component in between.
    with_relabel: bool,
}

impl Round {
    fn new(number: usize) -> Self {
        Self {
            number,
            with_second: number % 3 == 1,
            with_extra: number % 4 >= 2,
            with_relabel: !number.is_multiple_of(5),
        }
    }

    fn config(self, port: u16, sinks: &[&Sink; 3]) -> String {
        let [main, second, extra] = sinks.map(Sink::url);
        let endpoint =
            |url: &str, more: &str| format!("  endpoint {{\n    url = \"{url}\"\n{more}  }}\n");
        let number = self.number;
        // What the sink takes for the number of a run is the header that came with a request.
        let mut endpoints = endpoint(
            &main,
            &format!("    headers = {{\"X-Run\" = \"{number}\"}}\n"),
        );
        if self.with_second {
            endpoints += &endpoint(&second, "");
        }
        let mut text = format!(
            "logging {{\n  level = \"{}\"\n}}\nprometheus.remote_write \"out\" {{\n{endpoints}}}\n",
            if number.is_multiple_of(2) {
                "debug"
            } else {
                "info"
            },
        );
        let mut to = vec!["prometheus.remote_write.out.receiver"];
        if self.with_relabel {
            to = vec!["prometheus.relabel.between.receiver"];
            text += &format!(
                "prometheus.relabel \"between\" {{\n  forward_to = [prometheus.remote_write.out.receiver]\n  \
                 rule {{\n    source_labels = [\"sender\"]\n    regex = \"nobody-{number}\"\n    \
                 action = \"drop\"\n  }}\n}}\n"
            );
        }
        if self.with_extra {
            to.push("prometheus.remote_write.extra.receiver");
            let endpoint = endpoint(&extra, "");
            text += &format!("prometheus.remote_write \"extra\" {{\n{endpoint}}}\n");
        }
        let to = to.join(", ");
        text + &format!(
            "prometheus.receive_http \"in\" {{\n  http {{\n    listen_address = \"127.0.0.1\"\n    \
             listen_port = {port}\n  }}\n  forward_to = [{to}]\n}}\n"
        )
    }
}

fn reload(agent: &Agent) -> (u16, String) {
    let reply = get(agent.own_port, "/-/reload").unwrap();
    (reply.status, reply.text)
}

fn connections_accepted(agent: &Agent) -> f64 {
    let of = [
        ("component_id", "prometheus.receive_http.in"),
        ("event", "accepted"),
    ];
    agent.metric("penstock_receive_http_connections_total", &of)
}

#[test]
fn a_reload_under_load_is_not_noticed_by_senders_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let sinks = [Sink::start(), Sink::start(), Sink::start()];
    let sinks = [&sinks[0], &sinks[1], &sinks[2]];
    let agent = Agent::start_with(dir.path(), &[], |port| Round::new(0).config(port, &sinks));
    let stream = Stream::new("steady");
    let (mut sent, mut client) = (0, Client::new(agent.port));
    for number in 1..=RELOADS {
        agent.configure(&Round::new(number).config(agent.port, &sinks));
        let own_port = agent.own_port;
        let reloading = std::thread::Builder::new().name("reload".to_owned());
        let reloading = reloading
            .spawn(move || get(own_port, "/-/reload").unwrap())
            .unwrap();
        let until = sent + REQUESTS;
        // At least so many, and as many as it takes.
        while sent < until || !reloading.is_finished() {
            let reply = client.write(&stream.request(sent)).unwrap();
            assert_eq!(
                reply.status, 204,
                "request {sent}, reload {number}: {}",
                reply.text
            );
            sent += 1;
        }
        let reply = reloading.join().unwrap();
        assert_eq!((reply.status, &*reply.text), (200, "config reloaded\n"));
    }
    assert_eq!(connections_accepted(&agent), 1.0, "the one it began with");
    let acked = expected(stream.samples(0..sent));
    let samples: usize = acked.values().map(Vec::len).sum();
    eventually(PATIENCE, || match sinks[0].deliveries() {
        came if came >= samples => Ok(()),
        came => Err(format!("{came} of {samples} samples came")),
    });
    let log = sinks[0].log();
    log.assert_holds(&acked);
    let again = log.deliveries.len() - samples;
    assert!(
        again * 10 < samples,
        "{again} of {samples} came twice: positions are not kept"
    );
    let runs = log.requests.iter().map(|request| request.run);
    assert_eq!(runs.max(), Some(RELOADS), "the newest header is sent");
    drop(log);
    assert!(sinks[1].deliveries() > 0 && sinks[2].deliveries() > 0);
    assert_eq!(
        agent.metric("penstock_config_load_failures_total", &[]),
        0.0
    );
}

#[test]
fn what_is_wrong_is_told_with_its_place_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let sinks = [Sink::start(), Sink::start(), Sink::start()];
    let sinks = [&sinks[0], &sinks[1], &sinks[2]];
    let agent = Agent::start_with(dir.path(), &[], |port| Round::new(0).config(port, &sinks));
    let good = Round::new(0).config(agent.port, &sinks);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().port().to_string();
    for (text, wrong) in [
        ("prometheus.remote_write {".to_owned(), "config.penstock:1:"),
        (
            good.clone() + "loki.write \"x\" {}\n",
            "component name \"loki.write\"",
        ),
        (
            good.replace(
                "forward_to = [",
                "forward_to = [prometheus.echo.nobody.receiver, ",
            ),
            "component \"prometheus.echo.nobody.receiver\" does not exist",
        ),
        (
            good.replace("listen_port = ", "listen_port = \"x\" + "),
            "should be",
        ),
        (
            good.replace(
                &format!("listen_port = {}", agent.port),
                &format!("listen_port = {taken}"),
            ),
            "in use",
        ),
    ] {
        agent.configure(&text);
        let (status, said) = reload(&agent);
        assert_eq!(status, 400, "{text}");
        assert!(said.contains(wrong), "{said} has {wrong}");
        assert_eq!(
            agent.metric("penstock_config_last_load_successful", &[]),
            0.0
        );
        let stream = Stream::new("still");
        stream.send(agent.port, 0..1);
    }
    agent.configure(&good);
    assert_eq!(reload(&agent).0, 200);
    assert_eq!(
        agent.metric("penstock_config_last_load_successful", &[]),
        1.0
    );
    assert_eq!(
        agent.metric("penstock_config_load_failures_total", &[]),
        5.0
    );
}

#[test]
fn nothing_is_acknowledged_for_a_writer_that_cannot_be_started() {
    let dir = tempfile::tempdir().unwrap();
    let sinks = [Sink::start(), Sink::start(), Sink::start()];
    let sinks = [&sinks[0], &sinks[1], &sinks[2]];
    let agent = Agent::start_with(dir.path(), &[], |port| Round::new(0).config(port, &sinks));
    let in_the_way = agent.storage().join("prometheus.remote_write.extra");
    fs::write(&in_the_way, "").unwrap();
    agent.configure(&Round::new(2).config(agent.port, &sinks));
    let (status, said) = reload(&agent);
    assert_eq!(status, 400, "{said}");
    assert!(
        said.contains("prometheus.receive_http.in: leads to prometheus.remote_write.extra"),
        "{said}"
    );
    let stream = Stream::new("both");
    // As before.
    stream.send(agent.port, 0..5);
    fs::remove_file(&in_the_way).unwrap();
    assert_eq!(reload(&agent), (200, "config reloaded\n".to_owned()));
    stream.send(agent.port, 5..10);
    for (sink, numbers) in [(sinks[0], 0..10), (sinks[2], 5..10)] {
        let acked = expected(stream.samples(numbers));
        let samples: usize = acked.values().map(Vec::len).sum();
        eventually(PATIENCE, || match sink.deliveries() {
            came if came >= samples => Ok(()),
            came => Err(format!("{came} of {samples} samples came")),
        });
        sink.log().assert_holds(&acked);
    }
}

#[test]
fn an_endpoint_that_cannot_start_as_asked_goes_on_as_before() {
    let dir = tempfile::tempdir().unwrap();
    let sinks = [Sink::start(), Sink::start(), Sink::start()];
    let sinks = [&sinks[0], &sinks[1], &sinks[2]];
    let agent = Agent::start_with(dir.path(), &[], |port| Round::new(0).config(port, &sinks));
    let good = Round::new(0).config(agent.port, &sinks);
    let ca_file = dir.path().join("ca.pem");
    fs::write(&ca_file, "no certificate\n").unwrap();
    let tls_config = format!("    tls_config {{\n      ca_file = {ca_file:?}\n    }}\n  }}\n");
    agent.configure(&good.replacen("  }\n", &tls_config, 1));
    let (status, said) = reload(&agent);
    assert_eq!(status, 400, "{said}");
    assert!(said.contains("the ca holds no certificate"), "{said}");
    let stream = Stream::new("before");
    stream.send(agent.port, 0..5);
    let acked = expected(stream.samples(0..5));
    let samples: usize = acked.values().map(Vec::len).sum();
    eventually(PATIENCE, || match sinks[0].deliveries() {
        came if came >= samples => Ok(()),
        came => Err(format!("{came} of {samples} samples came")),
    });
    sinks[0].log().assert_holds(&acked);
}

#[test]
fn a_signal_reloads_and_another_port_is_listened_on() {
    let dir = tempfile::tempdir().unwrap();
    let sinks = [Sink::start(), Sink::start(), Sink::start()];
    let sinks = [&sinks[0], &sinks[1], &sinks[2]];
    let agent = Agent::start_with(dir.path(), &[], |port| Round::new(0).config(port, &sinks));
    let elsewhere = free_port();
    agent.configure(&Round::new(1).config(elsewhere, &sinks));
    agent.process.signal(Signal::HUP);
    let stream = Stream::new("moved");
    eventually(PATIENCE, || {
        match Client::new(elsewhere).write(&stream.request(0)) {
            Ok(reply) if reply.status == 204 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    eventually(PATIENCE, || {
        match Client::new(agent.port).write(&stream.request(0)) {
            Err(_) => Ok(()),
            Ok(reply) => Err(format!("the old port answers {}", reply.status)),
        }
    });
}

#[test]
fn what_a_writer_had_when_it_went_is_delivered_when_it_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let sinks = [Sink::start(), Sink::start(), Sink::start()];
    let sinks = [&sinks[0], &sinks[1], &sinks[2]];
    sinks[2].go_down();
    let with_extra = Round::new(2);
    assert!(with_extra.with_extra && !Round::new(4).with_extra);
    let deadline = ["--feature.component-shutdown-deadline=100ms"];
    let agent = Agent::start_with(dir.path(), &deadline, |port| {
        with_extra.config(port, &sinks)
    });
    let stream = Stream::new("kept");
    stream.send(agent.port, 0..30);
    agent.configure(&Round::new(4).config(agent.port, &sinks));
    assert_eq!(reload(&agent), (200, "config reloaded\n".to_owned()));
    sinks[2].come_back();
    agent.configure(&with_extra.config(agent.port, &sinks));
    assert_eq!(reload(&agent), (200, "config reloaded\n".to_owned()));
    let acked = expected(stream.samples(0..30));
    let samples: usize = acked.values().map(Vec::len).sum();
    eventually(PATIENCE, || match sinks[2].deliveries() {
        came if came >= samples => Ok(()),
        came => Err(format!("{came} of {samples} samples came")),
    });
    sinks[2].log().assert_holds(&acked);
}

#[test]
fn a_file_that_changes_changes_what_refers_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let sinks = [Sink::start(), Sink::start(), Sink::start()];
    let sinks = [&sinks[0], &sinks[1], &sinks[2]];
    let token = dir.path().join("run");
    fs::write(&token, "7").unwrap();
    let config = |port| {
        let text = Round::new(0).config(port, &sinks);
        let file = format!(
            "local.file \"run\" {{\n  filename = \"{}\"\n  is_secret = true\n  detector = \"poll\"\n  \
             poll_frequency = \"20ms\"\n}}\n",
            token.display()
        );
        file + &text.replace("\"X-Run\" = \"0\"", "\"X-Run\" = local.file.run.content")
    };
    let agent = Agent::start_with(dir.path(), &[], config);
    let stream = Stream::new("file");
    let sent_with = |run: usize, number: i64| {
        stream.send(agent.port, number..number + 1);
        eventually(PATIENCE, || {
            let runs: Vec<usize> = sinks[0].log().requests.iter().map(|one| one.run).collect();
            if runs.last() == Some(&run) {
                Ok(())
            } else {
                Err(format!("{runs:?}"))
            }
        });
    };
    sent_with(7, 0);
    fs::write(dir.path().join("next"), "8").unwrap();
    fs::rename(dir.path().join("next"), &token).unwrap();
    // Which request is the first with the new header is a matter of time.
    let mut number = 1;
    eventually(PATIENCE, || {
        stream.send(agent.port, number..number + 1);
        number += 1;
        let last = sinks[0].log().requests.last().map(|one| one.run);
        if last == Some(8) {
            Ok(())
        } else {
            Err(format!("{last:?}"))
        }
    });
    let page = get(agent.own_port, "/api/v0/web/components/local.file.run").unwrap();
    assert!(
        page.text.contains("(secret)") && !page.text.contains("\"8\""),
        "{}",
        page.text
    );
}

#[test]
fn what_the_ingest_threads_cannot_take_over_is_closed_again() {
    let dir = tempfile::tempdir().unwrap();
    let sink = Sink::start();
    // More than a log has writers for: the first one fails all of a change.
    let agent = Agent::start_with(dir.path(), &["--ingest.threads=200"], |_| {
        "logging { }\n".to_owned()
    });
    let round = Round::new(0);
    agent.configure(&round.config(free_port(), &[&sink, &sink, &sink]));
    let (status, text) = reload(&agent);
    assert_eq!(status, 400, "{text}");
    assert!(text.contains("receivers: "), "{text}");
    // Nobody has it: another one may.
    let log = agent.storage().join("prometheus.remote_write.out");
    let mut store = None;
    eventually(PATIENCE, || {
        match wal::Store::open(&log, wal::StoreOptions::default()) {
            Ok(opened) => {
                store = Some(opened);
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        }
    });
    // Once it is free, it is tried again.
    store.unwrap().close();
    let (status, again) = reload(&agent);
    assert_eq!((status, again), (400, text));
    agent.configure("logging { }\n");
    assert_eq!(reload(&agent), (200, "config reloaded\n".to_owned()));
}
