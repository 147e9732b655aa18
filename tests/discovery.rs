//! Turns files, an answer and paths into the targets of components that are chained, while all of them change
//! and fail.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::common::agent::Agent;
use crate::common::http::get;
use crate::common::{PATIENCE, eventually};

/// Answers every request with what it is told to, and counts them.
#[derive(Clone, Debug)]
struct Inventory {
    port: u16,
    state: Arc<Mutex<(&'static str, String, u64)>>,
}

impl Inventory {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(("200 OK", "[]".to_owned(), 0)));
        let told = state.clone();
        let serve = move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n > 0) {
                    head.extend_from_slice(&byte);
                }
                let (status, body) = {
                    let mut told = told.lock().unwrap();
                    told.2 += 1;
                    (told.0, told.1.clone())
                };
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: application/json\r\n\
                     Content-Length: {length}\r\n\r\n{body}"
                );
                // Who asked may be gone.
                stream.write_all(answer.as_bytes()).ok();
            }
        };
        let thread = std::thread::Builder::new().name("inventory".to_owned());
        thread.spawn(serve).unwrap();
        Self { port, state }
    }

    fn tell(&self, status: &'static str, address: &str) {
        let mut state = self.state.lock().unwrap();
        (state.0, state.1) = (status, document(address));
    }

    fn requests(&self) -> u64 {
        self.state.lock().unwrap().2
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

fn detail(agent: &Agent, id: &str) -> Value {
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

fn until(agent: &Agent, (id, export, name): (&str, &str, &str), want: &[&str]) {
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
