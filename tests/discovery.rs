//! Turns files, an answer and paths into the targets of components that are chained, while all of them change
//! and fail.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::common::agent::Agent;
use crate::common::http::{get, is_ok};
use crate::common::process::{Process, debian};
use crate::common::server;
use crate::common::{PATIENCE, eventually, on_free_port};

/// Answers every request with what it is told to, and counts them.
#[derive(Clone, Debug)]
struct Inventory {
    port: u16,
    told: Arc<Mutex<Told>>,
}

#[derive(Clone, Debug)]
struct Told {
    status: &'static str,
    /// What is at a path; where nothing is, `body`.
    bodies: BTreeMap<&'static str, String>,
    body: String,
    requests: u64,
}

impl Inventory {
    fn start() -> Self {
        let told = Arc::new(Mutex::new(Told {
            status: "200 OK",
            bodies: BTreeMap::new(),
            body: "[]".to_owned(),
            requests: 0,
        }));
        let by = told.clone();
        let port = server::start("inventory", move |request| {
            let answer = by.lock().unwrap().answer(&request.head);
            Some(answer.into_bytes())
        });
        Self { port, told }
    }

    fn tell(&self, status: &'static str, address: &str) {
        let mut told = self.told.lock().unwrap();
        (told.status, told.body) = (status, document(address));
    }

    fn requests(&self) -> u64 {
        self.told.lock().unwrap().requests
    }
}

impl Told {
    fn answer(&mut self, head: &str) -> String {
        self.requests += 1;
        let path = head.split([' ', '?']).nth(1).unwrap_or_default();
        let body = self.bodies.get(path).unwrap_or(&self.body);
        let (status, length) = (self.status, body.len());
        let body = if head.starts_with("HEAD") { "" } else { body };
        format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: application/json\r\nApi-Version: 1.41\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        )
    }
}

fn document(address: &str) -> String {
    format!("[{{\"targets\": [\"{address}\"], \"labels\": {{\"from\": \"outside\"}}}}]")
}

/// Files and an answer make targets, rules make paths of them, the files there are targets again.
fn config(dir: &Path, inventory: &Inventory, slow: &Inventory, level: &str) -> String {
    let (dir, fast, slow) = (dir.display(), inventory.port, slow.port);
    format!(
        r#"
logging {{
  level = "{level}"
}}
discovery.file "hosts" {{
  files = ["{dir}/targets/*.json", "{dir}/targets/*.yml"]
}}
discovery.http "inventory" {{
  url              = "http://127.0.0.1:{fast}/targets"
  refresh_interval = "100ms"
}}
discovery.http "slow" {{
  url              = "http://127.0.0.1:{slow}/targets"
  refresh_interval = "1h"
}}
discovery.relabel "logs" {{
  targets = array.concat(discovery.file.hosts.targets, discovery.http.inventory.targets)
  rule {{
    source_labels = ["__address__"]
    regex         = "(.+):.*"
    replacement   = "{dir}/logs/$1/**/*.log"
    target_label  = "__path__"
  }}
  rule {{
    source_labels = ["__address__"]
    regex         = "dropped:.*"
    action        = "drop"
  }}
}}
local.file_match "logs" {{
  path_targets = discovery.relabel.logs.output
  sync_period  = "100ms"
}}
"#
    )
}

pub(crate) fn detail(agent: &Agent, id: &str) -> Value {
    let page = get(agent.own_port, &format!("/api/v0/web/components/{id}")).unwrap();
    assert_eq!(page.status, 200, "{}", page.text);
    serde_json::from_str(&page.text).unwrap()
}

/// The label `name` of every target a component exports.
fn exported(agent: &Agent, id: &str, export: &str, name: &str) -> Vec<String> {
    let detail = detail(agent, id);
    let exports = detail["exports"].as_array().unwrap();
    let list = exports.iter().find(|one| one["name"] == export).unwrap();
    let targets = list["value"]["value"].as_array().unwrap().iter();
    let label = |target: &Value| {
        let labels = target["value"].as_array().unwrap();
        let label = labels.iter().find(|label| label["key"] == name);
        label.map_or_else(String::new, |label| {
            label["value"]["value"].as_str().unwrap().to_owned()
        })
    };
    targets.map(label).collect()
}

pub(crate) fn until(agent: &Agent, (id, export, name): (&str, &str, &str), want: &[&str]) {
    eventually(PATIENCE, || match exported(agent, id, export, name) {
        found if found == want => Ok(()),
        found => Err(format!("{id}: {found:?} becomes {want:?}")),
    });
}

const OUTPUT: (&str, &str, &str) = ("discovery.relabel.logs", "output", "__address__");
const MATCHED: (&str, &str, &str) = ("local.file_match.logs", "targets", "__path__");

fn write(dir: &Path, name: &str, text: &str) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn of(id: &str) -> [(&str, &str); 1] {
    [("component_id", id)]
}

#[test]
fn targets_follow_what_is_outside_and_stay_while_it_fails() {
    let dir = tempfile::tempdir().unwrap();
    let (inventory, slow) = (Inventory::start(), Inventory::start());
    inventory.tell("200 OK", "web:1");
    write(dir.path(), "targets/a.json", &document("app:1"));
    write(dir.path(), "logs/app/deep/1.log", "");
    write(dir.path(), "logs/web/2.log", "");
    let agent = Agent::start_with(dir.path(), &[], |_| {
        config(dir.path(), &inventory, &slow, "info")
    });
    let log = |name: &str| dir.path().join("logs").join(name).display().to_string();
    let (app, web) = (log("app/deep/1.log"), log("web/2.log"));
    until(&agent, OUTPUT, &["app:1", "web:1"]);
    until(&agent, MATCHED, &[&app, &web]);
    let from = ("local.file_match.logs", "targets", "from");
    until(&agent, from, &["outside", "outside"]);

    // What is in files and directories changes, and one that is broken keeps what it had.
    write(
        dir.path(),
        "targets/b.yml",
        "- targets: ['dropped:1', 'db:1']\n",
    );
    until(&agent, OUTPUT, &["app:1", "db:1", "web:1"]);
    write(dir.path(), "targets/b.yml", "- targets: ['dropped:1\n");
    write(dir.path(), "targets/a.json", &document("app:2"));
    until(&agent, OUTPUT, &["app:2", "db:1", "web:1"]);
    fs::remove_file(dir.path().join("targets/b.yml")).unwrap();
    until(&agent, OUTPUT, &["app:2", "web:1"]);
    write(dir.path(), "logs/web/3.log", "");
    until(&agent, MATCHED, &[&app, &web, &log("web/3.log")]);

    // The server fails: counted, told once, and nothing else changes.
    inventory.tell("500 Oh", "web:2");
    let id = "discovery.http.inventory";
    let failures = || agent.metric("prometheus_sd_http_failures_total", &of(id));
    eventually(PATIENCE, || match failures() {
        count if count >= 3.0 => Ok(()),
        count => Err(format!("{count} failures")),
    });
    until(&agent, OUTPUT, &["app:2", "web:1"]);
    let told = detail(&agent, id);
    assert_eq!(told["health"]["state"], "healthy");
    let info = told["debugInfo"].to_string();
    assert!(
        info.contains("the answer is 500 Internal Server Error"),
        "{info}"
    );
    let lines = agent.process.log();
    let lines = lines.lines().filter(|line| line.contains(id));
    let lines: Vec<&str> = lines
        .filter(|line| line.contains("last targets stay"))
        .collect();
    assert_eq!(lines.len(), 1, "{lines:?}");

    // A reload keeps what did not change: nothing is asked again, and the counters go on.
    let before = agent.metric("penstock_discovery_looks_total", &of("discovery.http.slow"));
    agent.configure(&config(dir.path(), &inventory, &slow, "warn"));
    let reply = get(agent.own_port, "/-/reload").unwrap();
    assert_eq!((reply.status, &*reply.text), (200, "config reloaded\n"));
    assert_eq!(
        exported(&agent, OUTPUT.0, OUTPUT.1, OUTPUT.2),
        ["app:2", "web:1"]
    );
    inventory.tell("200 OK", "web:3");
    until(&agent, OUTPUT, &["app:2", "web:3"]);
    let after = agent.metric("penstock_discovery_looks_total", &of("discovery.http.slow"));
    assert_eq!((before, after, slow.requests()), (1.0, 1.0, 1));
    assert!(failures() >= 3.0);
    assert_eq!(
        agent.metric("prometheus_sd_discovered_targets", &of(id)),
        1.0
    );
}

/// A target as its labels.
pub(crate) type Labels = BTreeMap<String, String>;

/// Every target a component exports.
pub(crate) fn all_exported(agent: &Agent, id: &str) -> BTreeSet<Labels> {
    let detail = detail(agent, id);
    let targets = detail["exports"][0]["value"]["value"].as_array().unwrap();
    let label = |label: &Value| {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&label["key"]), text(&label["value"]["value"]))
    };
    let labels = |target: &Value| {
        target["value"]
            .as_array()
            .unwrap()
            .iter()
            .map(label)
            .collect()
    };
    targets.iter().map(labels).collect()
}

/// Every target of a job of Prometheus, as it was found.
fn found_by_prometheus(port: u16, job: &str) -> BTreeSet<Labels> {
    let page = get(port, "/api/v1/targets").unwrap().text;
    let page: Value = serde_json::from_str(&page).unwrap();
    let mut all = BTreeSet::new();
    for target in page["data"]["activeTargets"].as_array().unwrap() {
        let labels = target["discoveredLabels"].as_object().unwrap().iter();
        let mut labels: Labels = labels
            .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
            .collect();
        if labels.remove("job").as_deref() != Some(job) {
            continue;
        }
        for own in [
            "__scheme__",
            "__metrics_path__",
            "__scrape_interval__",
            "__scrape_timeout__",
        ] {
            labels.remove(own);
        }
        all.insert(labels);
    }
    all
}

/// A Docker host of a few containers.
fn docker() -> BTreeMap<&'static str, String> {
    let network = |name: &str| {
        json!({"Id": format!("{name}-id"), "Name": name, "Scope": "local", "Internal": true,
               "Ingress": false, "Labels": {"com.example/zone": "a"}})
    };
    let container = |name: &str, mode: &str, network: &str, ports: Value| {
        // Prometheus keeps one target of each address.
        let ip = format!("10.0.0.{}", name.len());
        let networks = match network {
            "" => json!({}),
            name => json!({name: {"NetworkID": format!("{name}-id"), "IPAddress": ip}}),
        };
        json!({"Id": format!("{name}-id"), "Names": [format!("/{name}"), "/alias"],
               "Labels": {"com.docker.compose/service": name, "empty": ""},
               "HostConfig": {"NetworkMode": mode}, "NetworkSettings": {"Networks": networks},
               "Ports": ports})
    };
    let ports = json!([
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"IP": "::", "PrivatePort": 82, "PublicPort": 8082, "Type": "tcp"},
        {"PrivatePort": 81, "Type": "tcp"}, {"PrivatePort": 53, "Type": "udp"},
    ]);
    let containers = json!([
        container("web", "front", "front", ports),
        container(
            "udp-only",
            "front",
            "front",
            json!([{"PrivatePort": 53, "Type": "udp"}])
        ),
        container("node", "host", "host", json!([])),
        container("alone", "none", "", json!([])),
    ]);
    BTreeMap::from([
        ("/_ping", "OK".to_owned()),
        ("/v1.41/containers/json", containers.to_string()),
        (
            "/v1.41/networks",
            json!([network("front"), network("host")]).to_string(),
        ),
    ])
}

/// Looks for targets with Prometheus.
fn prometheus(dir: &Path, inventory: u16) -> (Process, u16) {
    let path = dir.join("prometheus.yml");
    let url = format!("http://127.0.0.1:{inventory}");
    let text = format!(
        "global: {{scrape_interval: 1h}}\nscrape_configs:\n\
         - job_name: file\n  file_sd_configs: [{{files: ['{0}/targets/*.json', '{0}/targets/*.yml']}}]\n\
         - job_name: http\n  http_sd_configs: [{{url: '{url}/targets'}}]\n\
         - job_name: docker\n  docker_sd_configs: [{{host: '{url}', refresh_interval: 1s}}]\n",
        dir.display()
    );
    fs::write(&path, text).unwrap();
    on_free_port(|port| {
        let mut command = debian("/usr/bin/prometheus", "prometheus");
        command
            .arg("--enable-feature=agent")
            .arg(format!("--config.file={}", path.display()))
            .arg(format!(
                "--storage.agent.path={}",
                dir.join("agent").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let mut process = Process::start("prometheus", command, dir);
        process
            .is_up(|| is_ok(port, "/-/ready"))
            .then_some((process, port))
    })
}

#[test]
fn what_is_found_is_what_prometheus_finds() {
    let dir = tempfile::tempdir().unwrap();
    let inventory = Inventory::start();
    inventory.told.lock().unwrap().bodies = docker();
    inventory.told.lock().unwrap().body =
        "[{\"targets\": [\"a:1\", \"b:1\"], \"labels\": {\"x\": \"1\", \
         \"__meta_url\": \"mine\"}}, {\"targets\": [\"c:1\"]}]"
            .to_owned();
    write(dir.path(), "targets/a.json", &document("app:1"));
    let yaml = "- targets: ['db:1', \"db:2\"]\n  labels: {port: 0x10, on: true, none: ''}\n";
    write(dir.path(), "targets/b.yml", yaml);
    let (_prometheus, port) = prometheus(dir.path(), inventory.port);
    let agent = Agent::start_with(dir.path(), &[], |_| {
        let (dir, url) = (dir.path().display(), inventory.port);
        format!(
            "discovery.file \"file\" {{\n  files = [\"{dir}/targets/*.json\", \"{dir}/targets/*.yml\"]\n}}\n\
             discovery.http \"http\" {{\n  url = \"http://127.0.0.1:{url}/targets\"\n}}\n\
             discovery.docker \"docker\" {{\n  host = \"http://127.0.0.1:{url}\"\n}}\n"
        )
    });
    for (job, count) in [("file", 3), ("http", 3), ("docker", 5)] {
        eventually(PATIENCE, || {
            let (theirs, ours) = (
                found_by_prometheus(port, job),
                all_exported(&agent, &format!("discovery.{job}.{job}")),
            );
            if theirs.len() == count && theirs == ours {
                return Ok(());
            }
            Err(format!("{job}: theirs {theirs:#?}\nours {ours:#?}"))
        });
    }
}
