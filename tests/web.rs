//! Turns the real binary under load into what its API says of it.

use std::fs;
use std::io::{BufRead, BufReader, Cursor, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use zip::ZipArchive;

use crate::common::agent::Agent;
use crate::common::http::{Client, get, post};
use crate::common::load::{Sender, compressed, series};
use crate::common::sink::Sink;
use crate::common::{PATIENCE, eventually};

/// Stands wherever a secret may, and nowhere else.
const SECRET: &str = "hunter2-the-secret";
const WRITER: &str = "prometheus.remote_write.out";
const PACE: Duration = Duration::from_millis(5);

/// A receiver with tenants, a relabel, a writer; secrets everywhere.
fn config(port: u16, url: &str) -> String {
    let secret_url = url.replace("http://", &format!("http://user:{SECRET}@"));
    format!(
        r#"
prometheus.receive_http "in" {{
  http {{
    listen_address = "127.0.0.1"
    listen_port    = {port}
  }}
  tenants {{
    tenant "small" {{
      max_active_series = 1
    }}
  }}
  forward_to = [prometheus.relabel.keep.receiver]
}}
prometheus.relabel "keep" {{
  rule {{
    regex  = "not_there"
    action = "labeldrop"
  }}
  forward_to = [{WRITER}.receiver]
}}
prometheus.remote_write "out" {{
  endpoint {{
    name    = "sink"
    url     = "{secret_url}"
    headers = {{"X-Key" = "{SECRET}"}}
  }}
}}
prometheus.remote_write "other" {{
  endpoint {{
    name = "nowhere"
    url  = "http://127.0.0.1:9/"
    basic_auth {{
      username = "u"
      password = "{SECRET}"
    }}
  }}
}}
http {{
  auth {{
    bearer_tokens = ["{SECRET}"]
    filter {{
      paths = ["/never/"]
    }}
  }}
}}
"#
    )
}

/// Asks the API; its answers hold no secret.
fn api(agent: &Agent, path: &str) -> Value {
    let reply = get(agent.own_port, &format!("/api/v0/web/{path}")).unwrap();
    assert_eq!(reply.status, 200, "{path}: {}", reply.text);
    assert!(!reply.text.contains(SECRET), "{path}: {}", reply.text);
    serde_json::from_str(&reply.text).unwrap()
}

/// The endpoint of the writer under load.
fn endpoint(agent: &Agent) -> Value {
    api(agent, "reservoir")["writers"][0]["endpoints"][0].clone()
}

fn names(of: &Value) -> Vec<&str> {
    let keys = of.as_object().unwrap().keys();
    keys.map(String::as_str).collect()
}

#[test]
fn the_agent_and_its_components_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let sink = Sink::start();
    let agent = Agent::start_with(dir.path(), &[], |port| config(port, &sink.url()));
    let about = api(&agent, "agent");
    assert_eq!(about["ready"], true);
    assert_eq!(about["config"]["isLastLoadGood"], true);
    assert_eq!(about["config"]["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(about["version"], env!("CARGO_PKG_VERSION"));
    assert!(about["uptimeSeconds"].as_f64().unwrap() >= 0.0);
    assert_eq!(api(&agent, "peers"), json!([]));

    let components = api(&agent, "components");
    let ids = components
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["localID"].as_str().unwrap());
    assert_eq!(
        ids.collect::<Vec<_>>(),
        [
            "prometheus.receive_http.in",
            "prometheus.relabel.keep",
            WRITER,
            "prometheus.remote_write.other",
        ]
    );
    let relabel = &components[1];
    assert_eq!(relabel["dataFlowEdgesTo"], json!([WRITER]));
    assert_eq!(relabel["referencesTo"], json!([WRITER]));
    assert_eq!(
        relabel["referencedBy"],
        json!(["prometheus.receive_http.in"])
    );
    assert_eq!(relabel["health"]["state"], "healthy");

    let other = api(&agent, "components/prometheus.remote_write.other");
    let argument = |name: &str, value: Value| json!({"name": name, "type": "attr", "value": value});
    let string = |text: &str| json!({"type": "string", "value": text});
    let secret = json!({"type": "capsule", "value": "(secret)"});
    let auth = [
        argument("username", string("u")),
        argument("password", secret),
    ];
    let body = json!([
        argument("url", string("http://127.0.0.1:9/")),
        argument("name", string("nowhere")),
        {"name": "basic_auth", "type": "block", "label": "", "body": auth},
    ]);
    let expected = json!([{"name": "endpoint", "type": "block", "label": "", "body": body}]);
    assert_eq!(other["arguments"], expected);
    let receiver = json!({"type": "capsule", "value": "MetricsReceiver"});
    assert_eq!(other["exports"], json!([argument("receiver", receiver)]));
    let keep = api(&agent, "components/prometheus.relabel.keep");
    let exported = keep["exports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["name"]);
    assert_eq!(exported.collect::<Vec<_>>(), ["receiver", "rules"]);
    let out = api(&agent, &format!("components/{WRITER}"));
    assert!(out.to_string().contains("(secret)@127.0.0.1"), "{out}");
}

const OF_WRITER: &str = "bytesPerSecond dir diskBytes diskBytesMax endpoints failed id isOutOfSpace lost \
                         positions samplesPerSecond segmentBytes segments segmentsLeftOut series stalled";
const OF_ENDPOINT: &str = "acked etaSeconds inFlight lagBytes lagSeconds lastError lastErrorAt name records \
                           rejected samplesPerSecond saved shards state url";

#[test]
fn the_reservoir_tells_what_flows() {
    let dir = tempfile::tempdir().unwrap();
    let sink = Sink::start();
    let agent = Agent::start_with(dir.path(), &[], |port| config(port, &sink.url()));
    let sender = Sender::start_paced(agent.port, "a", PACE);
    let writer = eventually(PATIENCE, || {
        let writer = api(&agent, "reservoir")["writers"][0].clone();
        let rates = [
            &writer["samplesPerSecond"],
            &writer["bytesPerSecond"],
            &writer["endpoints"][0]["samplesPerSecond"],
        ];
        let flows = rates.iter().all(|rate| rate.as_f64().unwrap() > 0.0);
        let is_known = writer["series"].as_u64().unwrap() > 50;
        let both = (flows && is_known).then(|| writer.clone());
        both.ok_or_else(|| writer.to_string())
    });
    assert_eq!(names(&writer).join(" "), OF_WRITER);
    assert_eq!(names(&writer["endpoints"][0]).join(" "), OF_ENDPOINT);
    let position = |name: &str| writer["positions"][name].as_u64().unwrap();
    assert!(position("reclaimed") <= position("durable"), "{writer}");
    assert!(position("durable") <= position("appended"), "{writer}");
    let segments = writer["segments"].as_array().unwrap().iter();
    let current = segments.filter(|one| one["state"] == "current");
    assert_eq!(current.count(), 1, "{writer}");
    sender.stop();
}

/// Waits until the endpoint is as it should be.
fn until_endpoint(agent: &Agent, is_so: impl Fn(&Value) -> bool) -> Value {
    eventually(PATIENCE, || {
        let endpoint = endpoint(agent);
        if is_so(&endpoint) {
            return Ok(endpoint);
        }
        Err(endpoint.to_string())
    })
}

#[test]
fn the_reservoir_follows_an_outage() {
    let dir = tempfile::tempdir().unwrap();
    let sink = Sink::start();
    let agent = Agent::start_with(dir.path(), &[], |port| config(port, &sink.url()));
    let sender = Sender::start_paced(agent.port, "a", PACE);
    until_endpoint(&agent, |endpoint| endpoint["state"] == "delivering");

    sink.go_down();
    let down = until_endpoint(&agent, |endpoint| {
        let no_end_is_in_sight = endpoint["etaSeconds"].is_null();
        let is_behind = endpoint["lagBytes"].as_u64() > Some(0);
        endpoint["state"] == "retrying" && is_behind && no_end_is_in_sight
    });
    let error = down["lastError"].as_str();
    assert!(error.is_some_and(|error| !error.is_empty()), "{down}");
    assert!(down["lastErrorAt"].as_f64().unwrap() > 1.7e9, "{down}");

    sink.come_back();
    let sent = sender.stop();
    let back = until_endpoint(&agent, |endpoint| {
        endpoint["state"] == "idle" && endpoint["lagBytes"] == 0
    });
    let records = &back["records"];
    assert_eq!(back["etaSeconds"], json!(null));
    assert_eq!(records["pending"], json!(0));
    assert_eq!(records["in"], records["delivered"]);
    let count: usize = sent.values().map(Vec::len).sum();
    let least = u64::try_from(count).ok();
    assert!(records["in"].as_u64() >= least, "{records}");
}

#[test]
fn series_and_tenants_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let sink = Sink::start();
    let agent = Agent::start_with(dir.path(), &[], |port| config(port, &sink.url()));
    let mut client = Client::new(agent.port);
    let all: Vec<_> = (0..100)
        .map(|n| {
            let (pod, zone) = (format!("p{n:02}"), format!("z{}", n / 60));
            series(&[("__name__", "up"), ("pod", &pod), ("zone", &zone)])
        })
        .collect();
    assert_eq!(client.write(&compressed(all)).unwrap().status, 204);
    let small = ["a", "b"].map(|name| series(&[("__name__", name), ("job", "x")]));
    let headers = "Content-Encoding: snappy\r\nX-Scope-OrgID: small\r\n";
    let reply = client.send(
        "POST /api/v1/metrics/write",
        headers,
        &compressed(small.into()),
    );
    assert_eq!(reply.unwrap().status, 400, "one series too many");

    let found = api(&agent, &format!("cardinality/{WRITER}?top=2"));
    assert_eq!(found["series"], 101);
    assert_eq!(found["metrics"][0], json!({"name": "up", "series": 100}));
    assert_eq!(
        found["labels"][0],
        json!({"name": "pod", "values": 100, "series": 100})
    );
    assert_eq!(
        found["pairs"][0],
        json!({"name": "zone", "value": "z0", "series": 60})
    );
    assert_eq!(
        (
            found["pairs"].as_array().unwrap().len(),
            &found["isApproximate"]
        ),
        (2, &json!(false))
    );

    let tenants = api(&agent, "tenants");
    assert_eq!(tenants[0]["receiver"], "prometheus.receive_http.in");
    let of_receiver = tenants[0]["tenants"].as_array().unwrap();
    let small = of_receiver
        .iter()
        .find(|one| one["tenant"] == "small")
        .unwrap();
    assert_eq!(
        (&small["limit"], &small["activeSeries"], &small["refused"]),
        (&json!(1), &json!(1), &json!(1))
    );
}

#[test]
fn dead_letters_and_history_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let sink = Sink::start();
    let agent = Agent::start_with(dir.path(), &[], |port| config(port, &sink.url()));
    let history = eventually(PATIENCE, || {
        let history = api(&agent, "history?seconds=60");
        let all = history["series"].as_array().unwrap();
        let kinds = |kind: &str| all.iter().filter(|one| one["kind"] == kind).count();
        match (kinds("receiver"), kinds("writer"), kinds("endpoint")) {
            (3, 4, 6) => Ok(history),
            other => Err(format!("{other:?}")),
        }
    });
    assert_eq!(history["stepSeconds"], 10);
    let all = history["series"].as_array().unwrap();
    let is_told = |one: &Value| !one["values"].as_array().unwrap().is_empty();
    assert!(all.iter().all(is_told), "{history}");

    assert_eq!(api(&agent, &format!("rejected/{WRITER}")), json!([]));
    let letters = agent.storage().join(WRITER).join("rejected/sink");
    fs::create_dir_all(&letters).unwrap();
    let letter = r#"{"time_ms":5000,"endpoint":"sink","reason":"http_422","answer":"no","records":3,"series":[{"labels":{"__name__":"up"}}]}"#;
    fs::write(letters.join("00000000.jsonl"), format!("{letter}\n")).unwrap();
    let told = api(&agent, &format!("rejected/{WRITER}?limit=1"));
    let letter = &told[0];
    assert_eq!(
        (&letter["endpoint"], &letter["at"]),
        (&json!("sink"), &json!(5.0))
    );
    assert_eq!(
        (&letter["status"], &letter["records"]),
        (&json!(422), &json!(3))
    );
    assert!(
        letter["text"]
            .as_str()
            .unwrap()
            .contains("{\"__name__\":\"up\"}"),
        "{letter}"
    );
}

/// An endless answer, begun.
fn begin(agent: &Agent, path: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", agent.own_port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: t\r\n\r\n").unwrap();
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(stream.read_line(&mut head).unwrap() > 0, "{head}");
    }
    assert!(head.starts_with("HTTP/1.0 200"), "{head}");
    stream
}

#[test]
fn rates_stream_to_so_many_who_take_them() {
    let dir = tempfile::tempdir().unwrap();
    let sink = Sink::start();
    let agent = Agent::start_with(dir.path(), &[], |port| config(port, &sink.url()));
    let sender = Sender::start_paced(agent.port, "a", PACE);
    let graph = "/api/v0/web/graph?window=1";
    let mut stream = begin(&agent, graph);
    eventually(PATIENCE, || {
        let mut chunk = Vec::new();
        while !chunk.ends_with(b"|;|") {
            assert!(stream.read_until(b'|', &mut chunk).unwrap() > 0);
        }
        let edges: Value = serde_json::from_slice(chunk.strip_suffix(b"|;|").unwrap()).unwrap();
        let edge = |from: &str| {
            let mut all = edges.as_array().unwrap().iter();
            all.find(|edge| edge["componentID"] == from)
                .unwrap()
                .clone()
        };
        let (first, second) = (
            edge("prometheus.receive_http.in"),
            edge("prometheus.relabel.keep"),
        );
        assert_eq!(
            first["targetComponentIDs"],
            json!(["prometheus.relabel.keep"])
        );
        assert_eq!(second["targetComponentIDs"], json!([WRITER]));
        let flows = [first, second]
            .iter()
            .all(|edge| edge["rate"].as_f64().unwrap() > 0.0);
        flows.then_some(()).ok_or_else(|| edges.to_string())
    });
    // Many who take nothing: as many as there may be, and everything else goes on.
    let others: Vec<_> = (1..16).map(|_| begin(&agent, graph)).collect();
    assert_eq!(get(agent.own_port, graph).unwrap().status, 503);
    assert_eq!(get(agent.own_port, "/-/ready").unwrap().status, 200);
    drop((stream, others));
    // Those who are gone make room.
    eventually(PATIENCE, || {
        let mut stream = TcpStream::connect(("127.0.0.1", agent.own_port)).unwrap();
        write!(stream, "GET {graph} HTTP/1.0\r\nHost: t\r\n\r\n").unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        (&status == b"HTTP/1.0 200")
            .then_some(())
            .ok_or_else(|| "too many".to_owned())
    });
    sender.stop();
}

#[test]
fn methods_paths_and_prefixes_are_kept_to() {
    let dir = tempfile::tempdir().unwrap();
    let sink = Sink::start();
    let arguments = [
        "--server.http.ui-path-prefix=/pen",
        "--server.http.disable-support-bundle",
    ];
    let agent = Agent::start_with(dir.path(), &arguments, |port| config(port, &sink.url()));
    let port = agent.own_port;
    for (path, status) in [
        ("/pen/api/v0/web/agent", 200),
        ("/pen/api/v0/web/nothing", 404),
        ("/pen/api/v0/web/components/none", 404),
        ("/pen/api/v0/web/debug/prometheus.relabel.keep", 404),
        ("/api/v0/web/agent", 404),
        ("/metrics", 200),
        ("/-/ready", 200),
        ("/-/healthy", 200),
        ("/-/support?duration=2", 404),
    ] {
        assert_eq!(get(port, path).unwrap().status, status, "{path}");
    }
    let reply = post(port, "/pen/api/v0/web/agent").unwrap();
    assert_eq!(reply.status, 405);
    assert!(
        reply.head.to_ascii_lowercase().contains("allow: get, head"),
        "{}",
        reply.head
    );
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream
        .write_all(b"HEAD /pen/api/v0/web/components HTTP/1.0\r\n\r\n")
        .unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    assert!(
        all.starts_with("HTTP/1.0 200") && all.ends_with("\r\n\r\n"),
        "{all}"
    );
}

#[test]
fn credentials_cover_the_api_as_everything_else() {
    let dir = tempfile::tempdir().unwrap();
    let sink = Sink::start();
    let agent = Agent::start_unasked(dir.path(), &[], |port| {
        let all = config(port, &sink.url());
        all.replace(
            "paths = [\"/never/\"]",
            "paths = [\"/api/\", \"/-/support\"]",
        )
    });
    let token = format!("Authorization: Bearer {SECRET}\r\n");
    eventually(PATIENCE, || match get(agent.own_port, "/-/ready") {
        Ok(reply) if reply.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let mut client = Client::new(agent.own_port);
    for path in [
        "/api/v0/web/agent",
        "/api/v0/web/reservoir",
        "/api/v0/web/graph",
        "/api/v0/web/nothing",
        "/-/support",
        "/%61pi/v0/web/agent",
    ] {
        assert_eq!(get(agent.own_port, path).unwrap().status, 401, "{path}");
    }
    let line = "GET /api/v0/web/agent";
    assert_eq!(client.send(line, &token, b"").unwrap().status, 200);
}

#[test]
fn the_support_bundle_holds_the_configuration_as_written_and_no_secret_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let sink = Sink::start();
    let agent = Agent::start_with(dir.path(), &[], |port| config(port, &sink.url()));
    let sender = Sender::start_paced(agent.port, "a", PACE);
    let mut files = bundle(agent.own_port);
    sender.stop();
    let sources = files
        .iter()
        .position(|(name, _)| name.ends_with("sources/config.penstock"));
    let (_, source) = files.remove(sources.unwrap());
    assert_eq!(
        source,
        fs::read_to_string(dir.path().join("config.penstock")).unwrap()
    );
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    for (name, text) in &files {
        assert!(
            name.starts_with("penstock-support-bundle/penstock-"),
            "{names:?}"
        );
        assert!(!text.contains(SECRET), "{name}: {text}");
    }
    let text = |name: &str| {
        let found = files
            .iter()
            .find(|(path, _)| Path::new(path).ends_with(name));
        &found
            .unwrap_or_else(|| panic!("no {name} among {names:?}"))
            .1
    };
    assert!(text("penstock-metrics-sample-start.txt").contains("penstock_build_info"));
    assert_ne!(
        text("penstock-metrics-sample-start.txt"),
        text("penstock-metrics-sample-end.txt")
    );
    assert!(text("penstock-runtime-flags.txt").contains("--server.http.ui-path-prefix=/\n"));
    assert!(text("penstock-logs.txt").contains("a support bundle is being made"));
    let components: Value = serde_json::from_str(text("penstock-components.json")).unwrap();
    assert_eq!(components.as_array().unwrap().len(), 4);
}

/// Names and texts of the files of a bundle.
fn bundle(port: u16) -> Vec<(String, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(b"GET /-/support?duration=2 HTTP/1.0\r\n\r\n")
        .unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    let body = all.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let mut archive = ZipArchive::new(Cursor::new(&all[body..])).unwrap();
    let count = archive.len();
    let read = |at| {
        let mut file = archive.by_index(at).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        (file.name().unwrap().into_owned(), text)
    };
    (0..count).map(read).collect()
}
