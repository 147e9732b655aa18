//! Turns agents that share their series behind a load balancer into one stream for a backend that takes nothing late.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cluster::{FOUND_DEAD_WITHIN, flags, until_known};
use crate::common::agent::Agent;
use crate::common::backend::{Backend, Kind, assert_same};
use crate::common::http::{Client, get};
use crate::common::load::{Sender, Stream};
use crate::common::process::{Process, debian};
use crate::common::{PATIENCE, eventually, on_free_port};

/// An agent of a cluster that shares its series.
fn start(dir: &Path, name: &str, join: &[u16], url: &str) -> Agent {
    let how = |dir: &Path, flags: &[&str], config: &dyn Fn(u16) -> String| {
        Agent::start_with(dir, flags, config)
    };
    start_by(how, dir, (name, join), url)
}

fn start_by(
    how: impl FnOnce(&Path, &[&str], &dyn Fn(u16) -> String) -> Agent,
    dir: &Path,
    (name, join): (&str, &[u16]),
    url: &str,
) -> Agent {
    let own = dir.join(name);
    std::fs::create_dir(&own).unwrap();
    let flags = flags(name, join);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    how(&own, &flags, &|port| {
        format!(
            "prometheus.receive_http \"in\" {{\n  http {{\n    listen_address = \"127.0.0.1\"\n    \
             listen_port = {port}\n  }}\n  forward_to = [prometheus.remote_write.out.receiver]\n  \
             clustering {{\n    enabled = true\n  }}\n}}\n\
             prometheus.remote_write \"out\" {{\n  endpoint {{\n    url = \"{url}\"\n    queue_config {{\n      \
             batch_send_deadline = \"300ms\"\n    }}\n  }}\n}}\n"
        )
    })
}

/// A load balancer: each request goes to the next of these ports.
struct Balancer {
    port: u16,
    _process: Process,
}

impl Balancer {
    fn start(dir: &Path, ports: &[u16]) -> Self {
        let dir = dir.join("nginx");
        std::fs::create_dir(&dir).unwrap();
        on_free_port(|port| {
            let servers: String = (ports.iter())
                .map(|port| format!("server 127.0.0.1:{port} max_fails=0; "))
                .collect();
            let config = format!(
                "daemon off; master_process off; pid nginx.pid; error_log err.log;\nevents {{}}\nhttp {{\n  access_log off;\n  \
                 client_body_temp_path tb; proxy_temp_path tp; fastcgi_temp_path tf; uwsgi_temp_path tu; \
                 scgi_temp_path ts;\n  client_max_body_size 64m;\n  upstream proxies {{ {servers} keepalive 16; }}\n  \
                 server {{ listen 127.0.0.1:{port}; location / {{ proxy_http_version 1.1; \
                 proxy_set_header Connection \"\"; proxy_pass http://proxies; }} }}\n}}\n"
            );
            let file: PathBuf = dir.join("nginx.conf");
            std::fs::write(&file, config).unwrap();
            let mut command = debian("nginx", "nginx-light");
            command.arg("-p").arg(&dir).arg("-c").arg(&file);
            let mut process = Process::start("nginx", command, &dir);
            let is_up = process.is_up(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
            is_up.then_some(Self {
                port,
                _process: process,
            })
        })
    }
}

fn until_acked(sender: &Sender, more: i64) {
    let want = sender.acked() + more;
    eventually(PATIENCE, || match sender.acked() {
        acked if acked >= want => Ok(()),
        acked => Err(format!("{acked} of {want}")),
    });
}

fn refused(agents: &[&Agent], url: &str) -> f64 {
    agents.iter().map(|agent| agent.refused(url)).sum()
}

#[test]
fn behind_a_load_balancer_nothing_is_late_and_nothing_is_lost_whoever_dies_or_comes() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Backend::start(Kind::Prometheus, dir.path(), "prometheus");
    let url = backend.url();
    let a = start(dir.path(), "a", &[], &url);
    let mut b = start(dir.path(), "b", &[a.own_port], &url);
    let mut c = start(dir.path(), "c", &[a.own_port, b.own_port], &url);
    until_known(&[("a", &a), ("b", &b), ("c", &c)], PATIENCE);
    let balancer = Balancer::start(dir.path(), &[a.port, b.port, c.port]);
    let senders = ["x", "y"].map(|name| Sender::start(balancer.port, name));
    let until_all = |more: i64| senders.iter().for_each(|sender| until_acked(sender, more));

    until_all(300);
    for agent in [&a, &b, &c] {
        agent.until_delivered(&url);
        let passed_on = agent.metric("penstock_receive_http_passed_on_series_total", &[]);
        let stored = agent.metric("penstock_receive_http_records_total", &[("kind", "sample")]);
        assert!(passed_on > 100.0 && stored > 100.0, "{passed_on} {stored}");
    }
    assert!(refused(&[&a, &b, &c], &url).abs() < 0.5);

    // One dies, and comes back when the others have noticed.
    c.process.kill();
    until_known(&[("a", &a), ("b", &b)], FOUND_DEAD_WITHIN);
    until_all(100);
    // Nobody ships series of its before it has shipped what it had.
    let gave_up = [("result", "gave_up")];
    let drained = [("result", "drained")];
    let handovers = |agent: &Agent, result: &[(&str, &str)]| {
        agent.metric("penstock_cluster_handovers_total", result)
    };
    assert!(a.metric("penstock_cluster_held_endpoints", &[]) > 0.5);
    c.restart();
    until_known(&[("a", &a), ("b", &b), ("c", &c)], PATIENCE);
    until_all(100);

    // One dies and comes back before anybody notices; one leaves in order, and comes back.
    c.process.kill();
    c.restart();
    until_all(100);
    assert!(b.process.terminate().success());
    until_known(&[("a", &a), ("c", &c)], PATIENCE);
    until_all(100);
    b.restart();
    until_known(&[("a", &a), ("b", &b), ("c", &c)], PATIENCE);
    until_all(100);

    let mut expected = std::collections::BTreeMap::new();
    for sender in senders {
        expected.extend(sender.stop());
    }
    for agent in [&a, &b, &c] {
        agent.until_delivered(&url);
        assert!(handovers(agent, &gave_up).abs() < 0.5);
    }
    assert!(handovers(&a, &drained) > 0.5);
    // What was refused since are samples that were sent again after a kill: one that came late would be missing.
    assert_same(&expected, &backend.samples());
}

#[test]
fn what_is_held_back_is_held_back_after_a_kill_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut backend = Backend::start(Kind::Prometheus, dir.path(), "prometheus");
    let url = backend.url();
    let a = start(dir.path(), "a", &[], &url);
    let b = start(dir.path(), "b", &[a.own_port], &url);
    let mut c = start(dir.path(), "c", &[a.own_port, b.own_port], &url);
    let until_all_known = |c: &Agent| until_known(&[("a", &a), ("b", &b), ("c", c)], PATIENCE);
    let held = |agent: &Agent| agent.metric("penstock_cluster_held_endpoints", &[]);
    until_all_known(&c);
    let balancer = Balancer::start(dir.path(), &[a.port, b.port, c.port]);
    let sender = Sender::start(balancer.port, "x");
    until_acked(&sender, 50);

    // The others have samples of its series, which they ship when it has shipped what it has.
    c.process.kill();
    until_known(&[("a", &a), ("b", &b)], FOUND_DEAD_WITHIN);
    until_acked(&sender, 50);
    assert!(held(&a) > 0.5 && held(&b) > 0.5);

    // It takes more of them, which it ships when they have, and nobody can ship anything.
    backend.kill();
    c.restart();
    until_all_known(&c);
    until_acked(&sender, 50);
    assert!(held(&c) > 0.5);
    c.process.kill();
    c.restart();
    until_all_known(&c);
    assert!(held(&c) > 0.5);
    until_acked(&sender, 50);
    assert!(backend.restart());
    let expected = sender.stop();
    for agent in [&a, &b, &c] {
        agent.until_delivered(&url);
        let gave_up = [("result", "gave_up")];
        let gave_up = agent.metric("penstock_cluster_handovers_total", &gave_up);
        assert!(gave_up.abs() < 0.5);
    }
    assert_same(&expected, &backend.samples());
    let kept = dir.path().join("c/storage/cluster-handover.json");
    eventually(PATIENCE, || match kept.try_exists().unwrap() {
        false => Ok(()),
        true => Err("it is still kept".to_owned()),
    });
}

#[test]
fn agents_that_start_at_one_time_agree_before_they_take_anything() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Backend::start(Kind::Prometheus, dir.path(), "prometheus");
    let url = backend.url();
    let at_once = |name, join: &[u16]| {
        let how = |dir: &Path, flags: &[&str], config: &dyn Fn(u16) -> String| {
            Agent::start_unasked(dir, flags, config)
        };
        start_by(how, dir.path(), (name, join), &url)
    };
    let a = at_once("a", &[]);
    let b = at_once("b", &[a.own_port]);
    let c = at_once("c", &[a.own_port, b.own_port]);
    let all = [&a, &b, &c];
    let balancer = Balancer::start(dir.path(), &all.map(|agent| agent.port));
    let senders = ["x", "y"].map(|name| Sender::start(balancer.port, name));
    senders.iter().for_each(|sender| until_acked(sender, 100));
    let mut expected = std::collections::BTreeMap::new();
    for sender in senders {
        expected.extend(sender.stop());
    }
    for agent in all {
        agent.until_delivered(&url);
        let gave_up = [("result", "gave_up")];
        assert!(
            agent
                .metric("penstock_cluster_handovers_total", &gave_up)
                .abs()
                < 0.5
        );
    }
    assert!(refused(&all, &url).abs() < 0.5);
    assert_same(&expected, &backend.samples());
}

#[test]
fn parts_are_taken_only_as_they_are_meant() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Backend::start(Kind::VictoriaMetrics, dir.path(), "backend");
    let agent = start(dir.path(), "a", &[], &backend.url());
    let stream = Stream::new("x");
    let body = stream.request(0);
    let view = {
        let path = "/api/v1/cluster/handover";
        let known: Value = serde_json::from_str(&get(agent.own_port, path).unwrap().text).unwrap();
        let newest = known["views"].as_array().unwrap().last().unwrap();
        newest["view"].as_str().unwrap().to_owned()
    };
    let kind = "Content-Type: application/x-protobuf;proto=prometheus.WriteRequest\r\n";
    let to = |receiver: &str, view: &str| {
        format!("{kind}X-Penstock-Receiver: {receiver}\r\nX-Penstock-View: {view}\r\n")
    };
    let (here, elsewhere) = (
        "prometheus.receive_http.in",
        "prometheus.receive_http.other",
    );
    for (status, headers, body) in [
        (400, kind.to_owned(), &*body),
        (
            400,
            format!("X-Penstock-Receiver: {here}\r\n{kind}"),
            &*body,
        ),
        (400, to(here, "no number"), &*body),
        (400, to(here, &view).replace("proto=", "x="), &*body),
        (404, to(elsewhere, &view), &*body),
        (409, to(here, "00000000000000ff"), &*body),
        (400, to(here, &view), b"no snappy"),
        (204, to(here, &view), &*body),
    ] {
        let mut client = Client::new(agent.own_port);
        let reply = client
            .send("POST /api/v1/cluster/write", &headers, body)
            .unwrap();
        assert_eq!(reply.status, status, "{headers} {reply:?}");
    }
    agent.until_delivered(&backend.url());
    assert_same(&stream.samples([0]), &backend.samples());
}

/// An agent of a cluster whose own address asks for credentials, but not at `open` and not where tests look.
fn start_guarded(dir: &Path, name: &str, join: &[u16], url: &str, open: &str) -> Agent {
    let http = format!(
        "http {{\n  auth {{\n    basic {{\n      username = \"u\"\n      password = \"p\"\n    }}\n    filter {{\n      \
         paths = [\"/-/ready\", \"/metrics\", \"/api/v0/web/peers\", {open}]\n      \
         authenticate_matching_paths = false\n    }}\n  }}\n}}\n"
    );
    let how = |dir: &Path, flags: &[&str], config: &dyn Fn(u16) -> String| {
        Agent::start_with(dir, flags, |port| config(port) + &http)
    };
    start_by(how, dir, (name, join), url)
}

#[test]
fn agents_that_ask_for_credentials_have_to_leave_out_the_paths_of_the_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Backend::start(Kind::VictoriaMetrics, dir.path(), "backend");
    let url = backend.url();
    let start = |name, join: &[u16], open| start_guarded(dir.path(), name, join, &url, open);
    let cluster = "\"/api/v1/cluster/\"";
    let a = start("a", &[], cluster);
    let b = start("b", &[a.own_port], cluster);
    until_known(&[("a", &a), ("b", &b)], PATIENCE);
    assert_eq!(
        get(a.own_port, "/api/v0/web/components").unwrap().status,
        401
    );
    let sender = Sender::start(a.port, "x");
    until_acked(&sender, 100);
    let expected = sender.stop();
    for agent in [&a, &b] {
        agent.until_delivered(&url);
    }
    let passed_in = "penstock_receive_http_passed_in_parts_total";
    assert!(b.metric(passed_in, &[]) > 0.5);
    assert_same(&expected, &backend.samples());

    let shut = start("c", &[], "");
    let alone = start("d", &[shut.own_port], cluster);
    eventually(PATIENCE, || {
        let log = alone.process.log();
        let is_told = log.contains("it answers 401 Unauthorized");
        is_told.then_some(()).ok_or(log)
    });
    until_known(&[("d", &alone)], PATIENCE);
}
