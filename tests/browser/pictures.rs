//! Turns a running pipeline in the middle of an outage into the documents' pictures: `just screenshots`.
//!
//! In the suite it shows that they can be taken, in seconds. With [`DIRECTORY`] set it takes the time that
//! a picture needs to show something: minutes of load, an endpoint away.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::driver::Browser;
use super::fleet::Fleet;
use crate::common::agent::Agent;
use crate::common::backend::{Backend, Kind};
use crate::common::http::get;
use crate::common::{eventually, free_port};

/// Where they go, if they are to stay.
const DIRECTORY: &str = "PENSTOCK_SCREENSHOTS";
/// Steps of history, of ten seconds each, before and with the outage.
const STEPS: [usize; 2] = [8, 20];
const STEPS_PATIENCE: Duration = Duration::from_secs(600);
const SIZE_MAX_BYTES: usize = 200_000;

/// Name, fragment, what is there once it is ready, width, theme.
const PICTURES: [(&str, &str, &str, u32, &str); 6] = [
    (
        "overview",
        "",
        ".graph .edge-flow.is-flowing",
        1280,
        "light",
    ),
    ("reservoir", "reservoir", ".log .acked-mark", 1280, "light"),
    (
        "reservoir-dark",
        "reservoir",
        ".log .acked-mark",
        1280,
        "dark",
    ),
    (
        "component",
        "components/prometheus.remote_write.central",
        "pre.config .token-block",
        1280,
        "dark",
    ),
    (
        "cardinality",
        "cardinality",
        ".bars .bar-level",
        1280,
        "light",
    ),
    (
        "reservoir-phone",
        "reservoir",
        ".log .acked-mark",
        390,
        "light",
    ),
];

fn config([edge, apps]: [u16; 2], [primary, archive]: &[String; 2]) -> String {
    format!(
        r#"
prometheus.receive_http "edge" {{
  http {{
    listen_address = "127.0.0.1"
    listen_port    = {edge}
  }}
  forward_to = [prometheus.relabel.drop_debug.receiver]
}}
prometheus.receive_http "apps" {{
  http {{
    listen_address = "127.0.0.1"
    listen_port    = {apps}
  }}
  forward_to = [prometheus.relabel.drop_debug.receiver, prometheus.remote_write.longterm.receiver]
}}
prometheus.relabel "drop_debug" {{
  forward_to = [prometheus.remote_write.central.receiver]
  rule {{
    source_labels = ["__name__"]
    regex         = "debug_.*"
    action        = "drop"
  }}
}}
prometheus.remote_write "central" {{
  endpoint {{
    name = "primary"
    url  = "{primary}"
  }}
  endpoint {{
    name = "archive"
    url  = "{archive}"
    basic_auth {{
      username = "penstock"
      password = "secret"
    }}
    write_relabel_config {{
      source_labels = ["__name__"]
      regex         = "go_.*"
      action        = "drop"
    }}
    queue_config {{
      max_shards = 16
    }}
  }}
  wal {{
    max_disk_bytes = "4GiB"
    retain         = "10m"
  }}
}}
prometheus.remote_write "longterm" {{
  endpoint {{
    name = "longterm"
    url  = "{primary}"
  }}
}}
"#
    )
}

#[test]
fn pictures_are_taken() {
    let scratch = tempfile::tempdir().unwrap();
    let to = std::env::var_os(DIRECTORY).map(PathBuf::from);
    let dir = to.clone().unwrap_or_else(|| scratch.path().to_owned());
    fs::create_dir_all(&dir).unwrap();
    let start = |name| Backend::start(Kind::VictoriaMetrics, scratch.path(), name);
    let (primary, mut archive) = (start("primary"), start("archive"));
    let urls = [primary.url(), archive.url()];
    let apps = free_port();
    let agent = Agent::start_with(scratch.path(), &[], |edge| config([edge, apps], &urls));
    let fleets = [
        Fleet::start(agent.port, "eu-west"),
        Fleet::start(apps, "us-east"),
    ];
    if to.is_some() {
        until_history(&agent, STEPS[0]);
    }
    archive.kill();
    if to.is_some() {
        until_history(&agent, STEPS[1]);
    }
    let mut browser = Browser::start(scratch.path());
    for (name, fragment, ready, width, theme) in PICTURES {
        browser.resize(width, theme);
        browser.open(&format!("http://127.0.0.1:{}/#/{fragment}", agent.own_port));
        let is_ready = format!(
            "return document.querySelector({ready:?}) !== null
                 && document.querySelector('.edge-rate:empty') === null"
        );
        browser.until(name, &is_ready);
        let is_out = "return document.querySelector('[data-state=\"delivering\"]') !== null
            && document.querySelector('[data-state=\"retrying\"]') !== null";
        if fragment == "reservoir" {
            browser.until("one endpoint is away", is_out);
        }
        let image = browser.screenshot(width);
        assert!(image.starts_with(b"\x89PNG"));
        let size = image.len();
        // What fonts there are makes a difference, so only where the pictures stay.
        assert!(
            to.is_none() || size < SIZE_MAX_BYTES,
            "{name} has {size} bytes"
        );
        fs::write(dir.join(format!("{name}.png")), image).unwrap();
    }
    assert_eq!(browser.console(), Vec::<String>::new());
    drop(browser);
    for fleet in fleets {
        fleet.stop();
    }
}

fn until_history(agent: &Agent, steps: usize) {
    eventually(STEPS_PATIENCE, || {
        let told = get(agent.own_port, "/api/v0/web/history").unwrap().text;
        let told: Value = serde_json::from_str(&told).unwrap();
        let values = told["series"][0]["values"].as_array();
        let known = values.map_or(0, |all| all.iter().filter(|one| !one.is_null()).count());
        let missing = || format!("{known} of {steps} steps");
        (known >= steps).then_some(()).ok_or_else(missing)
    });
}
