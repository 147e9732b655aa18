//! Turns the page of the real binary, in a real browser, into what its reader would see.
//!
//! | file | does |
//! |---|---|
//! | `driver` | a Chromium that is told what to do over WebDriver |
//! | `pictures`, `fleet` | an outage under a load with familiar names -> the documents' pictures |
//! | `basics.js` | a page -> what somebody with a keyboard or a screen reader would miss |
//! | `pure.js` | the modules without a document -> what they get wrong |

mod driver;
mod fleet;
mod pictures;

use std::time::Duration;

use serde_json::Value;

use crate::cluster;
use crate::common::agent::Agent;
use crate::common::http::{Client, get};
use crate::common::load::{Sender, compressed, series};
use crate::common::sink::Sink;
use crate::common::{PATIENCE, eventually};
use driver::Browser;

const BASICS: &str = include_str!("browser/basics.js");
const PURE: &str = include_str!("browser/pure.js");

/// What nobody must see.
const SECRET: &str = "s3cr3t-of-the-test";
/// A label value as a stranger may send it.
const HOSTILE: &str =
    "<img src=x onerror=\"window.wasRun=true\"><script>window.wasRun=true</script>";
const HOSTILE_SERIES: usize = 200;
/// Between requests of the load.
const PACE: Duration = Duration::from_millis(4);

const WRITER: &str = "prometheus.remote_write.out";
const RELABEL: &str = "prometheus.relabel.drop";

/// Every page by its fragment, with its heading and a selector that is there once it has its data.
const PAGES: [(&str, &str, &str); 8] = [
    ("", "Overview", ".graph .node"),
    ("components", "Components", "tr[data-component] .badge"),
    (
        "components/prometheus.remote_write.out",
        "prometheus.remote_write.out",
        "pre.config .token-capsule",
    ),
    ("reservoir", "Reservoir", ".log .acked-mark"),
    ("cardinality", "Cardinality", ".bars .bar-level"),
    ("debug", "Live debugging", "#component"),
    ("cluster", "Cluster", ".notice"),
    ("nowhere", "There is no such page", "a[href='#/']"),
];

/// A receiver, rules, a writer with a quota and two endpoints, of which one has a password.
fn config(port: u16, first: &Sink, second: &Sink) -> String {
    let (first, second) = (first.url(), second.url());
    format!(
        r#"
livedebugging {{
  enabled = true
}}
prometheus.receive_http "in" {{
  http {{
    listen_address = "127.0.0.1"
    listen_port    = {port}
  }}
  forward_to = [prometheus.relabel.drop.receiver]
}}
prometheus.relabel "drop" {{
  forward_to = [prometheus.remote_write.out.receiver]
  rule {{
    source_labels = ["__name__"]
    regex         = "debug_.*"
    action        = "drop"
  }}
}}
prometheus.remote_write "out" {{
  endpoint {{
    name = "primary"
    url  = "{first}"
  }}
  endpoint {{
    name = "archive"
    url  = "{second}"
    basic_auth {{
      username = "penstock"
      password = "{SECRET}"
    }}
    queue_config {{
      max_samples_per_send = 100
      max_shards           = 2
    }}
  }}
  wal {{
    max_disk_bytes = "2GiB"
  }}
}}
"#
    )
}

/// An agent with two sinks, under load, and a browser.
struct Scene {
    browser: Browser,
    /// Until the load is ended.
    sender: Option<Sender>,
    agent: Agent,
    _primary: Sink,
    archive: Sink,
    _dir: tempfile::TempDir,
}

impl Scene {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (primary, archive) = (Sink::start(), Sink::start());
        let agent = Agent::start_with(dir.path(), &[], |port| config(port, &primary, &archive));
        let sender = Sender::start_paced(agent.port, "browser", PACE);
        Self {
            browser: Browser::start(dir.path()),
            sender: Some(sender),
            agent,
            _primary: primary,
            archive,
            _dir: dir,
        }
    }

    /// Shows a page and waits for its data.
    fn open(&mut self, fragment: &str, heading: &str, ready: &str) {
        let url = format!("http://127.0.0.1:{}/#/{fragment}", self.agent.own_port);
        self.browser.open(&url);
        let script = format!(
            "const heading = document.querySelector('h1')?.textContent;
             return heading === {heading:?} && document.querySelector({ready:?}) !== null"
        );
        self.browser
            .until(&format!("{fragment:?} shows {ready}"), &script);
    }

    fn open_reservoir(&mut self) {
        let (fragment, heading, ready) = PAGES[3];
        self.open(fragment, heading, ready);
    }

    /// Waits until the panel of an endpoint says so.
    fn until_endpoint(&mut self, name: &str, what: &str, condition: &str) {
        let script = format!(
            "const panel = document.querySelector('[data-endpoint=\"{name}\"]');
             if (panel === null) return false;
             const state = panel.dataset.state, words = panel.querySelector('.endpoint-words').textContent;
             const figure = (at) => panel.querySelectorAll('.figure-value')[at].textContent;
             return {condition}"
        );
        self.browser.until(&format!("{name}: {what}"), &script);
    }

    /// Samples acknowledged so far.
    fn acked(&self) -> i64 {
        self.sender.as_ref().unwrap().acked()
    }

    /// Nothing more is sent; something was acknowledged until then.
    fn end_load(&mut self) {
        assert!(self.acked() > 0);
        self.sender.take().unwrap().stop();
    }

    /// The end of every test: nothing went wrong where nobody looked.
    fn end(mut self) {
        let said: Vec<String> = self.browser.console();
        assert!(said.is_empty(), "the console has {said:#?}");
        if self.sender.is_some() {
            self.end_load();
        }
    }
}

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("no number: {value}"))
}

#[test]
fn every_page_shows_its_data_to_everybody_and_no_secret() {
    let mut scene = Scene::start();
    let mut client = Client::new(scene.agent.port);
    // So many that it is among the pairs with the most series.
    let hostile = (0..HOSTILE_SERIES).map(|which| {
        let which = which.to_string();
        series(&[
            ("__name__", "hostile"),
            ("number", &which),
            ("text", HOSTILE),
        ])
    });
    let hostile = compressed(hostile.collect());
    assert_eq!(client.write(&hostile).unwrap().status, 204);
    for (width, theme) in [(1440, "light"), (390, "dark")] {
        scene.browser.resize(width, theme);
        for (fragment, heading, ready) in PAGES {
            scene.open(fragment, heading, ready);
            let problems = scene.browser.run(BASICS);
            assert_eq!(problems, Value::Array(vec![]), "{fragment} at {width}");
            let page = scene
                .browser
                .run("return document.documentElement.outerHTML");
            assert!(!page.as_str().unwrap().contains(SECRET), "{fragment}");
        }
    }
    // As text it is there, and nothing of it was run.
    let (fragment, heading, ready) = PAGES[4];
    scene.open(fragment, heading, ready);
    let script = "return [...document.querySelectorAll('.bar-name')].some((name) => name.textContent.includes('onerror'))";
    scene.browser.until("the hostile label is shown", script);
    assert_eq!(
        scene.browser.run("return window.wasRun ?? null"),
        Value::Null
    );
    for path in [
        "components",
        "components/prometheus.remote_write.out",
        "agent",
        "reservoir",
        "history?seconds=3600",
        "cardinality/prometheus.remote_write.out?top=50",
        "rejected/prometheus.remote_write.out",
        "tenants",
        "peers",
    ] {
        let reply = get(scene.agent.own_port, &format!("/api/v0/web/{path}")).unwrap();
        assert_eq!(reply.status, 200, "{path}: {}", reply.text);
        assert!(!reply.text.contains(SECRET), "{path}");
    }
    scene.end();
}

#[test]
fn the_cluster_page_shows_who_is_there_and_who_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let start = |name: &str, join: &[u16]| {
        let dir = dir.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        let flags = cluster::flags(name, join);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        Agent::start(&dir, &[], &flags)
    };
    let a = start("a", &[]);
    let mut b = start("b", &[a.own_port]);
    cluster::until_known(&[("a", &a), ("b", &b)], PATIENCE);
    let mut browser = Browser::start(dir.path());
    for (width, theme) in [(1440, "light"), (390, "dark")] {
        browser.resize(width, theme);
        browser.open(&format!("http://127.0.0.1:{}/#/cluster", a.own_port));
        let both = format!(
            "const rows = [...document.querySelectorAll('tbody tr')].map((row) => row.textContent);
             return document.querySelector('h1')?.textContent === 'Cluster' && rows.length === 2
                 && rows[0].includes('this one') && rows[0].includes('127.0.0.1:{}')
                 && !rows[1].includes('this one') && rows[1].includes('127.0.0.1:{}')
                 && rows.every((row) => row.includes('participant') && /[1-9]\\d\\.\\d %/.test(row))",
            a.own_port, b.own_port
        );
        browser.until("both agents, each with a share", &both);
        assert_eq!(browser.run(BASICS), Value::Array(vec![]), "at {width}");
    }
    b.process.kill();
    let one =
        "const rows = [...document.querySelectorAll('tbody tr')].map((row) => row.textContent);
               return rows.length === 1 && rows[0].includes('100.0 %')";
    browser.until("the other one is gone", one);
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn rates_on_the_edges_follow_the_load() {
    let mut scene = Scene::start();
    let (fragment, heading, ready) = PAGES[0];
    scene.open(fragment, heading, ready);
    // Receiver, rules, writer and two endpoints.
    let edges = "const rates = [...document.querySelectorAll('.graph .edge-rate')].map((label) => label.textContent);
         if (rates.length !== 4) return false;";
    let all_move = format!("{edges} return rates.every((rate) => /[1-9]/.test(rate))");
    scene.browser.until("all edges have a rate", &all_move);
    let before = scene
        .browser
        .run("return document.querySelector('.graph .edge-rate').textContent");
    let other = format!("{edges} return rates[0] !== {before}");
    scene.browser.until("a rate changes", &other);
    scene.end_load();
    let at_rest = format!("{edges} return rates.every((rate) => !/[1-9]/.test(rate))");
    scene.browser.until("nothing flows", &at_rest);
    scene.end();
}

#[test]
fn an_outage_is_seen_from_its_beginning_to_its_end() {
    let mut scene = Scene::start();
    scene.open_reservoir();
    scene.until_endpoint("archive", "it delivers", "state === 'delivering'");
    // Numbers move while there is load.
    let samples =
        "return document.querySelector('[data-endpoint=\"primary\"] .ledger .number').textContent";
    let before = scene.browser.run(samples);
    scene.browser.until(
        "the account grows",
        &format!("return ({{text: (() => {{ {samples} }})()}}).text !== {before}"),
    );

    scene.archive.go_down();
    scene.until_endpoint(
        "archive",
        "it retries",
        "state === 'retrying' && words.includes('behind')",
    );
    let lag = "return Number(document.querySelector('[data-endpoint=\"archive\"] .figure-value').title.replace(/\\D/g, ''))";
    let first = number(&scene.browser.run(lag));
    let more = format!("return (() => {{ {lag} }})() > {} + 100000", first.max(1.0));
    scene.browser.until("the lag grows", &more);
    let error =
        "return !document.querySelector('[data-endpoint=\"archive\"] .endpoint-error').hidden";
    scene.browser.until("the last error is shown", error);
    let width = "return document.querySelector('.lag-shade.tone-warn')?.getAttribute('width') > 0";
    scene.browser.until("the picture shows the lag", width);
    let said = "return document.getElementById('announcer').textContent.includes('Retrying')";
    scene.browser.until("the change is announced", said);
    scene.until_endpoint(
        "archive",
        "more than seconds behind",
        "/\\d\\d\u{202f}s/.test(figure(1))",
    );
    // The other one notices nothing.
    scene.until_endpoint("primary", "it delivers", "state === 'delivering'");

    // Nothing more comes, and it takes what there is slowly, a thousand a second: there is time to see
    // an end coming.
    scene.end_load();
    scene.archive.delay(Duration::from_millis(200));
    scene.archive.come_back();
    let words = "document.querySelector('[data-endpoint=\"archive\"] .endpoint-words').textContent";
    let in_sight = format!("return {words}.includes('empty in about')");
    scene.browser.until("an end is in sight", &in_sight);
    scene.archive.delay(Duration::ZERO);
    let zero = "return [...document.querySelectorAll('[data-endpoint]')].every((panel) =>
        panel.querySelector('.figure-value').title === '0'
        && panel.querySelector('.ledger-verdict').textContent.endsWith('adds up'))";
    scene.browser.until("nothing is left, and it adds up", zero);
    scene.end();
}

#[test]
fn a_lost_agent_is_said_and_found_again() {
    let mut scene = Scene::start();
    scene.open_reservoir();
    scene.agent.process.kill();
    let lost = "return !document.getElementById('banner').hidden
        && document.getElementById('banner').textContent.includes('trying again')";
    scene.browser.until("the connection is lost", lost);
    scene.agent.restart();
    let back = "return document.getElementById('banner').hidden && !document.body.classList.contains('is-stale')";
    scene.browser.until("the connection is back", back);
    // Failed requests are what the browser itself tells of; nothing else.
    let said = scene.browser.console();
    let is_ours = |line: &&String| !line.contains("net::ERR_");
    assert_eq!(said.iter().find(is_ours), None);
    scene.end_load();
}

#[test]
fn what_passes_a_component_is_seen_filtered_and_paused() {
    let mut scene = Scene::start();
    scene.open(&format!("debug/{RELABEL}"), "Live debugging", ".lines li");
    let lines =
        "const lines = [...document.querySelectorAll('.lines li')].map((one) => one.textContent);";
    let script =
        format!("{lines} return lines.length > 5 && lines.every((one) => one.includes(' => '))");
    scene.browser.until("what rules make of labels", &script);
    // Only one of the fifty from now on, and what is there already goes.
    let filtered = "const filter = document.querySelector('#stream-filter');
                    filter.value = 'which=\"7\"';
                    filter.dispatchEvent(new Event('change'))";
    scene.browser.run(filtered);
    let script = format!(
        "{lines} const own = lines.filter((one) => one.includes('which=\"7\"')).length;
         if (own < lines.length) [...document.querySelectorAll('button')].find((one) => one.textContent === 'Clear').click();
         return own > 2 && own === lines.length"
    );
    scene.browser.until("what is asked for", &script);
    let pause = "[...document.querySelectorAll('button')].find((one) => one.textContent === 'Pause').click();
                 return document.querySelectorAll('.lines li').length";
    scene.browser.run(pause);
    let script = "return [...document.querySelectorAll('.badge')].some((one) => one.textContent.includes('paused'))";
    scene.browser.until("it is paused", script);
    let count = "return document.querySelectorAll('.lines li').length";
    // What had come when it was paused may still be drawn; nothing that comes later is.
    let until_passed = |scene: &Scene| {
        let acked = scene.acked();
        eventually(PATIENCE, || match scene.acked() - acked {
            20.. => Ok(()),
            passed => Err(format!("{passed} requests passed")),
        });
    };
    until_passed(&scene);
    let before = scene.browser.run(count);
    until_passed(&scene);
    assert_eq!(scene.browser.run(count), before);
    scene.end();
}

#[test]
fn it_is_used_by_keyboard_and_remembers_its_theme() {
    let mut scene = Scene::start();
    let (fragment, heading, ready) = PAGES[0];
    scene.open(fragment, heading, ready);
    scene.browser.press("\u{e004}");
    let focused = "return document.activeElement.textContent.trim()";
    assert_eq!(scene.browser.run(focused), "Skip to the content");
    scene.browser.press("\u{e007}");
    assert_eq!(
        scene.browser.run("return document.activeElement.id"),
        "main"
    );
    assert_eq!(scene.browser.run("return location.hash"), "#/");
    // The first stop inside is a component of the pipeline; Enter opens it.
    scene.browser.press("\u{e004}");
    let label = scene
        .browser
        .run("return document.activeElement.getAttribute('aria-label')");
    assert!(label.as_str().unwrap().contains("prometheus."), "{label}");
    scene.browser.press("\u{e007}");
    scene.browser.until(
        "its page",
        "return location.hash.startsWith('#/components/')",
    );
    scene.browser.until(
        "its heading has the focus",
        "return document.activeElement.tagName === 'H1'",
    );

    let ground = "return getComputedStyle(document.body).backgroundColor";
    scene.browser.resize(1440, "light");
    let light = scene.browser.run(ground);
    for name in ["light", "dark"] {
        scene.browser.click("#theme");
        let chosen = scene
            .browser
            .run("return document.documentElement.dataset.theme");
        assert_eq!(chosen, name);
    }
    assert_ne!(scene.browser.run(ground), light);
    scene.browser.reload();
    scene.browser.until(
        "it is still dark",
        "return document.documentElement.dataset.theme === 'dark'",
    );
    assert_ne!(scene.browser.run(ground), light);
    // An old bookmark leads to the page of its component.
    let url = format!(
        "http://127.0.0.1:{}/component/{RELABEL}",
        scene.agent.own_port
    );
    scene.browser.open(&url);
    let there = format!("return document.querySelector('h1')?.textContent === {RELABEL:?}");
    scene.browser.until("the bookmark works", &there);
    scene.end();
}

#[test]
fn what_needs_no_document_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let sink = Sink::start();
    let agent = Agent::start(
        dir.path(),
        &[sink.url()],
        &["--server.http.ui-path-prefix=/below/it"],
    );
    let mut browser = Browser::start(dir.path());
    browser.open(&format!("http://127.0.0.1:{}/below/it", agent.own_port));
    let there = format!("return document.body.textContent.includes({WRITER:?})");
    browser.until(
        "it works below a prefix",
        "return document.querySelector('.graph .node') !== null",
    );
    browser.open(&format!(
        "http://127.0.0.1:{}/below/it/#/components",
        agent.own_port
    ));
    browser.until("it shows its components", &there);
    let outcome = browser.run_async(PURE);
    assert_eq!(outcome["failures"], Value::Array(vec![]));
    assert!(
        number(&outcome["count"]) > 60.0,
        "only {} were tried",
        outcome["count"]
    );
}
