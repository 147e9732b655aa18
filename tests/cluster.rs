//! Turns real agents on one host into a cluster, and deaths, wrong names and certificates into what the others see.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::agent::{Agent, config, penstock};
use crate::common::http::{Client, get};
use crate::common::recorder::Recorder;
use crate::common::target::Target;
use crate::common::{PATIENCE, eventually};
use crate::secure::{Authority, CLIENTS, tls};

/// A killed agent is found within 10 s on a machine with nothing else to do.
pub(crate) const FOUND_DEAD_WITHIN: Duration = Duration::from_secs(30);

/// The flags of an agent `name` that joins by these ports.
pub(crate) fn flags(name: &str, join: &[u16]) -> Vec<String> {
    let mut addresses = String::new();
    for port in join {
        write!(addresses, "127.0.0.1:{port},").unwrap();
    }
    vec![
        "--cluster.enabled=true".to_owned(),
        format!("--cluster.node-name={name}"),
        "--cluster.advertise-address=127.0.0.1".to_owned(),
        format!("--cluster.join-addresses={addresses}"),
    ]
}

fn start(dir: &Path, name: &str, join: &[u16], more: &[&str]) -> Agent {
    let dir = dir.join(format!("{name}-{}", fastrand::u32(..)));
    std::fs::create_dir(&dir).unwrap();
    let flags = flags(name, join);
    let mut all: Vec<&str> = flags.iter().map(String::as_str).collect();
    all.extend(more);
    Agent::start_with(&dir, &all, |port| config(port, &[]))
}

fn api(agent: &Agent, path: &str) -> Value {
    let reply = get(agent.own_port, &format!("/api/v0/web/{path}")).unwrap();
    serde_json::from_str(&reply.text).unwrap()
}

/// Names and states an agent knows; its own has to be there.
fn peers(agent: &Agent) -> Value {
    without_self(api(agent, "peers"), agent.own_port)
}

/// The same from JSON, with no word on whose it is.
fn without_self(mut peers: Value, own_port: u16) -> Value {
    let own = format!("127.0.0.1:{own_port}");
    for peer in peers.as_array_mut().unwrap() {
        let is_self = peer["addr"] == own.as_str();
        let peer = peer.as_object_mut().unwrap();
        assert_eq!(peer.remove("isSelf"), Some(json!(is_self)));
    }
    peers
}

/// What all of these should know once they take part in the work.
fn expected(agents: &[(&str, &Agent)]) -> Value {
    let all = agents.iter().map(|(name, agent)| {
        let addr = format!("127.0.0.1:{}", agent.own_port);
        json!({"name": name, "addr": addr, "state": "participant"})
    });
    all.collect()
}

pub(crate) fn until_known(agents: &[(&str, &Agent)], deadline: Duration) {
    let want = expected(agents);
    eventually(deadline, || {
        for (name, agent) in agents {
            let found = peers(agent);
            if found != want {
                return Err(format!("{name} knows {found}"));
            }
        }
        Ok(())
    });
}

#[test]
fn three_agents_know_each_other_and_notice_who_goes_and_comes() {
    let dir = tempfile::tempdir().unwrap();
    let a = start(dir.path(), "a", &[], &[]);
    let mut b = start(dir.path(), "b", &[a.own_port], &[]);
    let mut c = start(dir.path(), "c", &[a.own_port, b.own_port], &[]);
    until_known(&[("a", &a), ("b", &b), ("c", &c)], PATIENCE);

    let shares = |agent: &Agent| api(agent, "cluster")["shares"].clone();
    let all = shares(&a);
    assert_eq!(all, shares(&b), "the ring is the same everywhere");
    let sum: f64 = all
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["share"].as_f64().unwrap())
        .sum();
    assert!((sum - 1.0).abs() < 1e-9, "{all}");
    let participants = [("state", "participant"), ("cluster_name", "")];
    assert!((a.metric("cluster_node_peers", &participants) - 3.0).abs() < 1e-9);
    assert_eq!(api(&a, "agent")["clustering"], true);

    c.process.kill();
    until_known(&[("a", &a), ("b", &b)], FOUND_DEAD_WITHIN);
    let names: Vec<Value> = shares(&a)
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].clone())
        .collect();
    assert_eq!(names, ["a", "b"], "it owns nothing any more");

    c.restart();
    until_known(&[("a", &a), ("b", &b), ("c", &c)], PATIENCE);

    // Without having been found dead first.
    c.process.kill();
    c.restart();
    until_known(&[("a", &a), ("b", &b), ("c", &c)], PATIENCE);

    assert!(b.process.terminate().success());
    until_known(&[("a", &a), ("c", &c)], PATIENCE);
    let gone = [("event", "node_leave")];
    assert!(a.metric("cluster_node_gossip_received_events_total", &gone) >= 2.0);
}

#[test]
fn an_agent_of_another_cluster_or_with_a_name_that_is_taken_goes_on_alone() {
    let dir = tempfile::tempdir().unwrap();
    let a = start(dir.path(), "a", &[], &["--cluster.name=eu"]);
    let foreign = start(dir.path(), "b", &[a.own_port], &["--cluster.name=us"]);
    let namesake = start(dir.path(), "a", &[a.own_port], &["--cluster.name=eu"]);
    let refused = "penstock_cluster_refused_messages_total";
    let conflicts = "cluster_node_gossip_received_events_total";
    eventually(PATIENCE, || {
        let other = a.metric(
            refused,
            &[("reason", "other_cluster"), ("cluster_name", "eu")],
        );
        let taken = a.metric(conflicts, &[("event", "node_conflict")]);
        let is_seen = other >= 1.0 && taken >= 1.0;
        is_seen
            .then_some(())
            .ok_or_else(|| format!("{other} of another cluster, {taken} conflicts"))
    });
    for (agent, said) in [
        (&foreign, "the cluster has another name"),
        (&namesake, "another agent has the name"),
    ] {
        eventually(PATIENCE, || {
            let log = agent.process.log();
            log.contains(said).then_some(()).ok_or(log)
        });
    }
    until_known(&[("a", &a)], PATIENCE);
    until_known(&[("b", &foreign)], PATIENCE);
    until_known(&[("a", &namesake)], PATIENCE);
}

/// Asks an agent that is only spoken to with certificates.
fn ask_secured(dir: &Path, agent: &Agent) -> Option<Value> {
    let url = format!("https://127.0.0.1:{}/api/v0/web/peers", agent.own_port);
    let mut curl = Command::new("curl");
    curl.current_dir(dir)
        .args(["-sS", "--max-time", "30", "--cacert", "ca"]);
    let output = curl
        .args(["--cert", "server.crt", "--key", "server.key", &url])
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout).ok()
}

#[test]
fn agents_with_certificates_let_in_those_with_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path(), "ca");
    authority.sign("server");
    Authority::new(dir.path(), "other").sign("stranger");
    let http = format!("http {{\n{}}}\n", tls(dir.path(), CLIENTS));
    let spawn = |name: &str, join: &[u16], pair: &str| {
        let own = dir.path().join(name);
        std::fs::create_dir(&own).unwrap();
        let mut all = flags(name, join);
        let file = |what: &str, file: &str| {
            format!(
                "--cluster.tls-{what}-path={}",
                dir.path().join(file).display()
            )
        };
        all.extend([
            "--cluster.enable-tls=true".to_owned(),
            file("ca", "ca"),
            file("cert", &format!("{pair}.crt")),
            file("key", &format!("{pair}.key")),
            "--cluster.tls-server-name=localhost".to_owned(),
        ]);
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        Agent::start_unasked(&own, &all, |port| config(port, &[]) + &http)
    };
    let a = spawn("a", &[], "server");
    eventually(PATIENCE, || {
        ask_secured(dir.path(), &a).ok_or("it does not answer".to_owned())
    });
    let b = spawn("b", &[a.own_port], "server");
    let want = expected(&[("a", &a), ("b", &b)]);
    let until_both = || {
        for agent in [&a, &b] {
            eventually(PATIENCE, || {
                let found = ask_secured(dir.path(), agent);
                let found = found.map(|peers| without_self(peers, agent.own_port));
                if found.as_ref() == Some(&want) {
                    Ok(())
                } else {
                    Err(format!("{found:?}"))
                }
            });
        }
    };
    until_both();
    let stranger = spawn("c", &[a.own_port], "stranger");
    eventually(PATIENCE, || {
        let log = stranger.process.log();
        let is_refused = log.contains("an agent of the cluster cannot be reached");
        if is_refused { Ok(()) } else { Err(log) }
    });
    until_both();
}

#[test]
fn messages_are_taken_only_where_there_is_a_cluster_and_only_if_they_are_some() {
    let dir = tempfile::tempdir().unwrap();
    let post = |agent: &Agent, body: &[u8]| {
        let line = "POST /api/v1/cluster/message";
        Client::new(agent.own_port).send(line, "", body).unwrap()
    };
    let on = start(dir.path(), "a", &[], &[]);
    assert_eq!(post(&on, b"nonsense").status, 400);
    assert_eq!(post(&on, &vec![0; 100 << 10]).status, 413);
    let malformed = [("reason", "malformed")];
    assert!((on.metric("penstock_cluster_refused_messages_total", &malformed) - 1.0).abs() < 1e-9);
    assert_eq!(
        get(on.own_port, "/api/v1/cluster/message").unwrap().status,
        404
    );

    let off_dir = tempfile::tempdir().unwrap();
    let off = Agent::start(off_dir.path(), &[], &[]);
    let reply = post(&off, b"nonsense");
    assert_eq!(
        (reply.status, reply.text.as_str()),
        (404, "clustering is disabled\n")
    );
    assert_eq!(api(&off, "peers"), json!([]));
    assert_eq!(api(&off, "cluster"), Value::Null);
}

#[test]
fn what_is_not_supported_keeps_it_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.alloy");
    std::fs::write(&file, "").unwrap();
    let mut all = vec!["run".to_owned(), file.display().to_string()];
    all.push(format!("--storage.path={}", dir.path().display()));
    all.push("--server.http.listen-addr=127.0.0.1:0".to_owned());
    all.push("--cluster.enabled".to_owned());
    all.push("--cluster.discover-peers=provider=aws region=eu".to_owned());
    let output = penstock(&all).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("--cluster.discover-peers is not supported"),
        "{said}"
    );
    assert!(said.contains("dnssrv+NAME"), "{said}");
}

/// Targets that the nodes share.
const TARGETS: usize = 24;

/// An agent that shares the targets at this port with others.
fn start_scraping(dir: &Path, name: &str, join: &[u16], (port, url): (u16, &str)) -> Agent {
    let own = dir.join(name);
    std::fs::create_dir(&own).unwrap();
    let flags = flags(name, join);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let target = |number: usize| {
        format!("{{\"__address__\" = \"127.0.0.1:{port}\", \"number\" = \"{number}\"}}, ")
    };
    let targets: String = (0..TARGETS).map(target).collect();
    Agent::start_with(&own, &flags, |_| {
        format!(
            "prometheus.scrape \"x\" {{\n  targets = [{targets}]\n  scrape_interval = \"200ms\"\n  \
             scrape_timeout = \"200ms\"\n  forward_to = [prometheus.remote_write.out.receiver]\n  \
             clustering {{ enabled = true }}\n}}\n\
             prometheus.remote_write \"out\" {{\n  endpoint {{ url = \"{url}\" }}\n}}\n"
        )
    })
}

/// The targets an agent scrapes, by their numbers.
fn scraped(agent: &Agent) -> BTreeSet<String> {
    let found = api(agent, "components/prometheus.scrape.x");
    let blocks = found["debugInfo"].as_array().unwrap().iter();
    let fields = blocks.flat_map(|block| block["body"].as_array().unwrap());
    let labels = fields.filter(|field| field["name"] == "labels");
    let pairs = labels.flat_map(|labels| labels["value"]["value"].as_array().unwrap());
    let numbers = pairs.filter(|pair| pair["key"] == "number");
    numbers
        .map(|pair| pair["value"]["value"].as_str().unwrap().to_owned())
        .collect()
}

/// Waits until each target is scraped by exactly one of them.
fn until_shared(agents: &[&Agent], deadline: Duration) {
    let all: BTreeSet<String> = (0..TARGETS).map(|number| number.to_string()).collect();
    eventually(deadline, || {
        let each: Vec<BTreeSet<String>> = agents.iter().map(|agent| scraped(agent)).collect();
        let count: usize = each.iter().map(BTreeSet::len).sum();
        let union: BTreeSet<String> = each.iter().flatten().cloned().collect();
        let is_shared = count == TARGETS && union == all && each.iter().all(|own| !own.is_empty());
        is_shared.then_some(()).ok_or_else(|| format!("{each:?}"))
    });
}

#[test]
fn each_target_is_scraped_by_one_agent_whoever_dies_or_comes() {
    let dir = tempfile::tempdir().unwrap();
    let (target, recorder) = (Target::start("a 1\n"), Recorder::start());
    let to = (target.port, recorder.url());
    let to = (to.0, &*to.1);
    let a = start_scraping(dir.path(), "a", &[], to);
    until_shared(&[&a], PATIENCE);
    let b = start_scraping(dir.path(), "b", &[a.own_port], to);
    let mut c = start_scraping(dir.path(), "c", &[a.own_port, b.own_port], to);
    until_shared(&[&a, &b, &c], PATIENCE);
    // What moved goes on: nobody told it to be stale.
    let received = recorder.received();
    let values = received.samples.values().flatten();
    assert!(values.clone().count() > 0);
    assert!(
        values
            .into_iter()
            .all(|(_, bits)| *bits != 0x7ff0_0000_0000_0002)
    );
    assert!(a.metric("prometheus_scrape_targets_moved_total", &[]) >= 1.0);

    let were_of_a = scraped(&a);
    c.process.kill();
    until_shared(&[&a, &b], FOUND_DEAD_WITHIN);
    assert!(
        scraped(&a).is_superset(&were_of_a),
        "only what the dead one had moves"
    );
    c.restart();
    until_shared(&[&a, &b, &c], PATIENCE);
    assert!(c.process.terminate().success());
    until_shared(&[&a, &b], PATIENCE);
}
