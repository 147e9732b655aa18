//! Turns obstacles to a start into one clear message, and signals into an orderly end.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::common::agent::{Agent, config, penstock};
use crate::common::backend::url;
use crate::common::http::{get, percent_encoded};
use crate::common::load::Stream;
use crate::common::process::{Process, debian};
use crate::common::{PATIENCE, eventually, free_port, now, on_free_port};
use rustix::process::Signal;

/// The arguments of a run in `dir` with this configuration.
fn run(dir: &Path, text: &str) -> Vec<String> {
    let path = dir.join("config.penstock");
    fs::write(&path, text).unwrap();
    vec![
        "run".to_owned(),
        path.display().to_string(),
        format!("--storage.path={}", dir.join("storage").display()),
        format!("--server.http.listen-addr=127.0.0.1:{}", free_port()),
    ]
}

/// Starts what must not start; what it said apart from log lines.
fn refusal(dir: &Path, arguments: &[String]) -> String {
    let mut process = Process::start("refused", penstock(arguments), dir);
    let status = process.wait(PATIENCE);
    let log = process.log();
    assert_eq!(status.code(), Some(1), "{log}");
    let said = log.lines().filter(|line| !line.starts_with("ts="));
    let said: Vec<&str> = said.collect();
    said.join("\n")
}

/// One line, with all of `parts`.
fn assert_one_line(said: &str, parts: &[&str]) {
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("Error: "), "{said}");
    for part in parts {
        assert!(said.contains(part), "{said} has {part}");
    }
}

#[test]
fn a_taken_own_address_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let mut arguments = run(dir.path(), &config(free_port(), &[]));
    arguments.push(format!("--server.http.listen-addr={taken}"));
    arguments.remove(3);
    let said = refusal(dir.path(), &arguments);
    assert_one_line(&said, &[&taken, "--server.http.listen-addr", "in use"]);
}

#[test]
fn a_taken_receiver_address_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let said = refusal(dir.path(), &run(dir.path(), &config(taken.port(), &[])));
    assert_one_line(&said, &[&taken.to_string(), "receive_http.in", "in use"]);
}

#[test]
fn a_second_agent_gets_neither_the_port_nor_the_storage_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let first = Agent::start(dir.path(), &[], &[]);
    let elsewhere = tempfile::tempdir().unwrap();
    let said = refusal(
        elsewhere.path(),
        &run(elsewhere.path(), &config(first.port, &[])),
    );
    assert_one_line(&said, &["receive_http.in", "in use"]);
    let said = refusal(dir.path(), &run(dir.path(), &config(free_port(), &[])));
    assert_one_line(&said, &["--storage.path", "in use by another process"]);
    Stream::new("first").send(first.port, 0..1);
}

#[test]
fn a_storage_path_that_is_no_directory_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("storage"), "").unwrap();
    let said = refusal(dir.path(), &run(dir.path(), &config(free_port(), &[])));
    assert_one_line(&said, &["--storage.path", "storage", "Not a directory"]);
}

#[test]
fn a_configuration_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.penstock").display().to_string();
    let said = refusal(dir.path(), &["run".to_owned(), missing.clone()]);
    assert_one_line(&said, &[&missing, "No such file"]);
}

#[test]
fn a_directory_without_configurations_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let said = refusal(dir.path(), &["run".to_owned(), empty.display().to_string()]);
    assert_one_line(&said, &["empty", "*.penstock"]);
}

#[test]
fn a_directory_of_configurations_is_one_configuration() {
    let dir = tempfile::tempdir().unwrap();
    on_free_port(|port| {
        let text = config(port, &[]);
        let (receiver, writer) = text.split_at(text.find("prometheus.remote_write \"").unwrap());
        let parts = dir.path().join("parts");
        fs::create_dir_all(&parts).unwrap();
        fs::write(parts.join("in.alloy"), receiver).unwrap();
        fs::write(parts.join("out.penstock"), writer).unwrap();
        fs::write(parts.join("notes.txt"), "not a configuration").unwrap();
        let mut arguments = run(dir.path(), "");
        arguments[1] = parts.display().to_string();
        let mut process = Process::start("parts", penstock(&arguments), dir.path());
        let path = "/api/v1/metrics/write";
        let answers = || get(port, path).is_ok_and(|reply| reply.status == 405);
        process.is_up(answers).then_some(())
    });
}

/// Configurations, and what must be said of each: place and message, then the source line.
const BROKEN: [(&str, &str, &str); 6] = [
    (
        "prometheus.scraper \"x\" {}\n",
        ":1:1: cannot find the definition of component name \"prometheus.scraper\"",
        "1 | prometheus.scraper \"x\" {}",
    ),
    (
        "prometheus.remote_write \"x\" {\n  colour = 1\n}\n",
        ":2:3: unrecognized attribute name \"colour\"",
        "2 |   colour = 1",
    ),
    (
        "prometheus.receive_http \"x\" {\n  forward_to = [\"out\"]\n}\n",
        ":2:17: \"out\" should be capsule, got string",
        "2 |   forward_to = [\"out\"]",
    ),
    (
        "prometheus.remote_write \"x\" {\n  endpoint {\n  }\n}\n",
        ":2:3: missing required attribute \"url\"",
        "2 |   endpoint {",
    ),
    (
        "prometheus.receive_http \"x\" {\n  forward_to = [prometheus.remote_write.y.receiver]\n}\n",
        ":2:17: component \"prometheus.remote_write.y.receiver\" does not exist",
        "2 |   forward_to = [prometheus.remote_write.y.receiver]",
    ),
    (
        "prometheus.remote_write \"x\" {\n  endpoint {\n    url = \"http://h\n  }\n}\n",
        ":3:11: ",
        "3 |     url = \"http://h",
    ),
];

#[test]
fn a_broken_configuration_is_shown_where_it_is_broken() {
    for (text, message, line) in BROKEN {
        let dir = tempfile::tempdir().unwrap();
        let arguments = run(dir.path(), text);
        let said = refusal(dir.path(), &arguments);
        let header = format!("Error: {}{message}", arguments[1]);
        assert!(said.starts_with(&header), "{said}\nstarts with\n{header}");
        assert!(
            said.lines().any(|shown| shown.trim() == line),
            "{said}\nshows\n{line}"
        );
        let last = said.lines().last();
        assert_eq!(
            last,
            Some("Error: could not perform the initial load successfully")
        );
        assert!(!dir.path().join("storage").try_exists().unwrap());
    }
}

#[test]
fn sigterm_ends_within_the_deadline_whatever_cannot_be_shipped() {
    let dir = tempfile::tempdir().unwrap();
    let dead = url(free_port());
    let deadline = "--feature.component-shutdown-deadline=2s";
    let mut agent = Agent::start(dir.path(), &[dead], &[deadline]);
    Stream::new("only").send(agent.port, 0..10);
    let start = now();
    assert_eq!(agent.process.terminate().code(), Some(0));
    let took = start.elapsed();
    assert!(took < Duration::from_secs(7), "{took:?}");
}

#[test]
fn a_second_sigterm_ends_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let deadline = "--feature.component-shutdown-deadline=10m";
    let mut agent = Agent::start(dir.path(), &[url(free_port())], &[deadline]);
    Stream::new("only").send(agent.port, 0..10);
    agent.process.signal(Signal::TERM);
    until_logged(&agent, "stopping");
    // Signals that come before the first was looked at count as one.
    eventually(PATIENCE, || {
        agent.process.signal(Signal::INT);
        let ended = agent.process.has_ended();
        ended.then_some(()).ok_or_else(|| "it ends".to_owned())
    });
    assert_eq!(agent.process.wait(PATIENCE).code(), Some(0));
}

fn until_logged(agent: &Agent, what: &str) {
    eventually(PATIENCE, || {
        let log = agent.process.log();
        log.contains(what)
            .then_some(())
            .ok_or_else(|| format!("{what} is logged"))
    });
}

#[test]
fn sighup_does_not_end() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(dir.path(), &[], &[]);
    agent.process.signal(Signal::HUP);
    until_logged(&agent, "config reloaded");
    Stream::new("only").send(agent.port, 0..1);
}

#[test]
fn its_pages_answer() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(dir.path(), &[url(free_port())], &[]);
    for (path, status, says) in [
        ("/-/ready", 200, "Penstock is ready."),
        ("/-/healthy", 200, "All Penstock components are healthy."),
        ("/metrics", 200, "penstock_build_info{version="),
        ("/nothing", 404, "/metrics"),
    ] {
        let reply = get(agent.own_port, path).unwrap();
        assert_eq!(reply.status, status, "{path}");
        assert!(reply.text.contains(says), "{path}: {}", reply.text);
    }
}

#[test]
fn its_metrics_are_scraped_by_prometheus() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(dir.path(), &[url(free_port())], &[]);
    Stream::new("only").send(agent.port, 0..10);
    let (_prometheus, port) = scraping(dir.path(), agent.own_port);
    let value = |query: &str| {
        let path = format!("/api/v1/query?query={}", percent_encoded(query));
        let reply: serde_json::Value =
            serde_json::from_str(&get(port, &path).unwrap().text).unwrap();
        let value = &reply["data"]["result"][0]["value"][1];
        value
            .as_str()
            .map(ToOwned::to_owned)
            .ok_or_else(|| format!("{query}: {}", get(port, "/api/v1/targets").unwrap().text))
    };
    assert_eq!(eventually(PATIENCE, || value("up")), "1");
    assert_eq!(value("penstock_wal_samples_total").unwrap(), "510");
    assert_eq!(
        value("count(penstock_endpoint_lag_bytes > 0)").unwrap(),
        "1"
    );
    let buckets = "count(penstock_wal_sync_seconds_bucket) > 5";
    assert_ne!(value(buckets).unwrap(), "0");
}

/// A Prometheus that scrapes the port.
fn scraping(dir: &Path, target: u16) -> (Process, u16) {
    let path = dir.join("prometheus.yml");
    let text = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n\
         - job_name: penstock\n  static_configs: [{{targets: ['127.0.0.1:{target}']}}]\n"
    );
    fs::write(&path, text).unwrap();
    on_free_port(|port| {
        let mut command: Command = debian("prometheus", "prometheus");
        command.arg(format!("--config.file={}", path.display()));
        command.arg(format!(
            "--storage.tsdb.path={}",
            dir.join("scraped").display()
        ));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let mut process = Process::start("prometheus", command, dir);
        let is_up = process.is_up(|| crate::common::http::is_ok(port, "/-/ready"));
        is_up.then_some((process, port))
    })
}
