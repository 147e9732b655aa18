//! Turns stores of real agents, whole and broken, into what `penstock wal` says, repairs and replays.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::common::agent::{Agent, config, penstock};
use crate::common::http::Client;
use crate::common::load::{Sender, Stream, compressed, series};
use crate::common::recorder::{Received, Recorder};
use crate::common::{PATIENCE, eventually, free_port};
use ingest::proto::{Exemplar, Histogram};
use serde_json::Value;

/// Frames of the store: one for each request of the load, and one with everything else.
const REQUESTS: i64 = 40;
/// Records of a request of the load.
const RECORDS: u64 = 51;
/// Records in the one other request.
const OTHERS: u64 = 3;
const STORE: &str = "storage/prometheus.remote_write.out";
const HEADER_BYTES: usize = 4096;

/// A store that an agent left when it was killed.
struct Store {
    dir: tempfile::TempDir,
    /// What it holds.
    all: Received,
}

impl Store {
    /// One endpoint has everything, the other, named `late`, nothing.
    fn build() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let sink = Recorder::start();
        let dead = crate::common::backend::url(free_port());
        let urls = [sink.url(), dead.clone()];
        let mut agent =
            Agent::start_with(dir.path(), &[], |port| late(&config(port, &urls), &dead));
        Stream::new("load").send(agent.port, 0..REQUESTS);
        let reply = Client::new(agent.port).write(&others()).unwrap();
        assert_eq!(reply.status, 204, "{reply:?}");
        agent.until_delivered(&sink.url());
        // Positions are saved some time after.
        eventually(PATIENCE, || {
            let seen = wal(&["inspect", "--json"], &[&dir.path().join(STORE)]);
            let seen: Value = serde_json::from_slice(&seen.stdout).unwrap();
            let pending = |n: usize| seen["endpoints"][n]["pending"].as_u64();
            let is_saved = [pending(0), pending(1)].contains(&Some(0));
            is_saved
                .then_some(())
                .ok_or_else(|| format!("{seen} is saved"))
        });
        agent.process.kill();
        let all = sink.received();
        Self { dir, all }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join(STORE)
    }

    /// A copy with some bytes changed.
    fn broken(&self, name: &str, damage: impl FnOnce(&Path)) -> PathBuf {
        let copy = self.dir.path().join(name);
        copy_tree(&self.path(), &copy);
        damage(&copy);
        copy
    }
}

/// Names an endpoint, and lets all send histograms.
fn late(text: &str, url: &str) -> String {
    let line = format!("url = \"{url}\"");
    text.replace(&line, &format!("{line}\n    name = \"late\""))
        .replace(
            "  endpoint {\n",
            "  endpoint {\n    send_native_histograms = true\n",
        )
}

/// A request with a sample, an exemplar and a native histogram.
fn others() -> Vec<u8> {
    let mut one = series(&[("__name__", "others"), ("job", "x")]);
    let timestamp = one.samples[0].timestamp;
    one.exemplars.push(Exemplar {
        labels: Vec::new(),
        value: 1.5,
        timestamp,
    });
    one.histograms.push(Histogram {
        sum: 3.0,
        schema: 2,
        timestamp,
        ..Histogram::default()
    });
    compressed(vec![one])
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_tree(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

fn wal(arguments: &[&str], paths: &[&Path]) -> Output {
    let mut all = vec!["wal".to_owned()];
    all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    all.extend(paths.iter().map(|path| path.display().to_string()));
    penstock(&all).output().unwrap()
}

/// The JSON of a command that ends with this code.
fn json(command: &str, store: &Path, exit_code: i32) -> Value {
    let output = wal(&[command, "--json"], &[store]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(exit_code), "{command}: {said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Text of a command that ends with this code.
fn text(arguments: &[&str], paths: &[&Path], exit_code: i32) -> String {
    let output = wal(arguments, paths);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        output.status.code(),
        Some(exit_code),
        "{arguments:?}: {said}"
    );
    String::from_utf8(output.stdout).unwrap() + &said
}

fn segment(store: &Path) -> PathBuf {
    store.join("segments/00000000.seg")
}

fn chunk(store: &Path) -> PathBuf {
    store.join("series/00000000.chunk")
}

/// Offset and bytes of every frame of the first segment.
fn frames(store: &Path) -> Vec<(usize, usize)> {
    let bytes = fs::read(segment(store)).unwrap();
    let mut at = HEADER_BYTES;
    let mut frames = Vec::new();
    while bytes[at..at + 4] == [0x50, 0x46, 0x52, 0x31] {
        let mut body = [0; 4];
        body.copy_from_slice(&bytes[at + 8..at + 12]);
        let body = usize::try_from(u32::from_le_bytes(body)).unwrap();
        let frame = 64 + body.next_multiple_of(8);
        frames.push((at, frame));
        at += frame;
    }
    assert_eq!(i64::try_from(frames.len()), Ok(REQUESTS + 1));
    frames
}

fn flip(path: &Path, offset: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[offset] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

/// The only problem: file, offset, bytes, records.
fn only_problem(verdict: &Value) -> (String, u64, u64, Option<u64>) {
    let all = verdict["problems"].as_array().unwrap();
    assert_eq!(all.len(), 1, "{all:?}");
    let of = |name: &str| all[0][name].as_u64();
    let file = all[0]["file"].as_str().unwrap().to_owned();
    (
        file,
        of("offset").unwrap(),
        of("bytes").unwrap(),
        of("records"),
    )
}

fn u64_of(n: usize) -> u64 {
    u64::try_from(n).unwrap()
}

#[test]
fn inspect_tells_what_is_in_a_store() {
    let store = Store::build();
    let seen = json("inspect", &store.path(), 0);
    let requests = u64::try_from(REQUESTS).unwrap();
    let all = requests * RECORDS + OTHERS;
    assert_eq!(seen["records_ever"], all);
    assert_eq!(seen["records"]["samples"], all - 2);
    assert_eq!(seen["records"]["exemplars"], 1);
    assert_eq!(seen["records"]["histograms"], 1);
    assert_eq!(seen["segments"][0]["frames"], requests + 1);
    assert_eq!(
        u64_of(store.all.samples.len()),
        seen["series"].as_u64().unwrap()
    );
    for endpoint in seen["endpoints"].as_array().unwrap() {
        let of = |name: &str| endpoint[name].as_u64().unwrap();
        assert_eq!(of("records_in"), all);
        assert_eq!(of("delivered") + of("pending"), all);
        assert_eq!(
            of("pending"),
            if endpoint["name"] == "late" { all } else { 0 }
        );
        assert_eq!(of("lag_bytes") > 0, endpoint["name"] == "late");
    }
    assert_eq!(seen["top_series"][0]["samples"], requests);
    assert_eq!(seen["top_label_names"][0]["name"], "which");
    assert_eq!(seen["top_labels"][0]["label"], "sender=\"load\"");
    assert_eq!(seen["problems"].as_array().unwrap().len(), 0);
    // The directory above does as well, and the text fits a terminal.
    let text = text(&["inspect"], &[&store.dir.path().join("storage")], 0);
    assert!(
        text.lines().skip(1).all(|line| line.chars().count() <= 100),
        "{text}"
    );
    assert!(
        text.contains("load_steady{sender=\"load\",which=\"0\"}"),
        "{text}"
    );
}

/// A name, a file of the store, the places of its bytes that rot (none: it becomes one line of
/// garbage), and the problem that is to be found: offset, bytes, records.
type Damage = (
    &'static str,
    &'static str,
    Vec<usize>,
    (usize, usize, Option<u64>),
);

fn damages(store: &Path) -> [Damage; 7] {
    const SEGMENT: &str = "segments/00000000.seg";
    const CHUNK: &str = "series/00000000.chunk";
    let (at, bytes) = frames(store)[7];
    let first = fs::read(chunk(store)).unwrap();
    let record = (24 + usize::from(first[HEADER_BYTES + 4])).next_multiple_of(8);
    let frame = (at, bytes, Some(RECORDS));
    let record = (HEADER_BYTES, record, None);
    [
        ("body", SEGMENT, vec![at + 70], frame),
        ("header", SEGMENT, vec![at + 40], frame),
        ("copy", SEGMENT, vec![2048 + 33], (2048, 80, None)),
        (
            "copies",
            SEGMENT,
            vec![3, 2048 + 3],
            (0, HEADER_BYTES, None),
        ),
        ("record", CHUNK, vec![HEADER_BYTES + 30], record),
        ("slot", "positions/late", vec![512 + 24], (512, 348, None)),
        ("ledger", "losses", vec![], (0, 8, None)),
    ]
}

#[test]
fn damage_is_found_where_it_is() {
    let store = Store::build();
    let verdict = json("verify", &store.path(), 0);
    assert_eq!(verdict["frames"], REQUESTS + 1);
    let broken = store.broken("broken", |_| {});
    for (name, file, flips, (offset, bytes, records)) in damages(&store.path()) {
        let file = broken.join(file);
        let damage = || {
            for at in &flips {
                flip(&file, *at);
            }
        };
        damage();
        if flips.is_empty() {
            fs::write(&file, "garbage\n").unwrap();
        }
        let expected = (
            file.display().to_string(),
            u64_of(offset),
            u64_of(bytes),
            records,
        );
        assert_eq!(
            only_problem(&json("verify", &broken, 2)),
            expected,
            "{name}"
        );
        assert_eq!(
            only_problem(&json("inspect", &broken, 0)),
            expected,
            "{name}"
        );
        // And back again.
        damage();
    }
}

#[test]
fn a_torn_tail_is_no_problem() {
    let store = Store::build();
    let (at, bytes) = *frames(&store.path()).last().unwrap();
    let torn = store.broken("torn", |copy| flip(&segment(copy), at + bytes + 20));
    let verdict = json("verify", &torn, 0);
    assert_eq!(verdict["notes"][0]["offset"], at + bytes);
    let text = text(&["verify"], &[&torn], 0);
    assert!(
        text.contains("note: ") && text.contains("everything checks"),
        "{text}"
    );
}

#[test]
fn mistaken_directories_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let said = text(&["verify"], &[dir.path()], 1);
    assert!(said.contains("is no store"), "{said}");
    for name in ["a/segments", "a/series", "b/segments", "b/series"] {
        fs::create_dir_all(dir.path().join(name)).unwrap();
    }
    let said = text(&["inspect"], &[dir.path()], 1);
    assert!(
        said.contains("2 stores are in it") && said.contains("/b"),
        "{said}"
    );
    let to = dir.path().join("b");
    let said = text(&["repair", "--to"], &[&to, &dir.path().join("a")], 1);
    assert!(said.contains("is there already"), "{said}");
}

/// The samples of the store without those of the broken frames, and of the one broken series.
fn readable(store: &Store, received: &Received) -> BTreeMap<String, Vec<(i64, u64)>> {
    let mut expected = store.all.samples.clone();
    expected.retain(|name, _| received.samples.contains_key(name));
    let series = store.all.samples.len();
    assert_eq!(expected.len() + 1, series, "one series has no labels");
    let of_load = expected
        .iter_mut()
        .filter(|(name, _)| name.contains("load"));
    for (_, samples) in of_load {
        // The value is the number of the request.
        samples.retain(|(_, bits)| ![7.0, 20.0, 21.0].contains(&f64::from_bits(*bits)));
    }
    expected
}

#[test]
fn a_repaired_store_delivers_what_was_readable_and_counts_the_rest() {
    let store = Store::build();
    let frames = frames(&store.path());
    let broken = store.broken("broken", |copy| {
        flip(&segment(copy), frames[7].0 + 70);
        flip(&segment(copy), frames[20].0 + 3);
        flip(&segment(copy), frames[21].0 + 3);
        flip(&segment(copy), 3);
        flip(&segment(copy), 2048 + 3);
        flip(&chunk(copy), HEADER_BYTES + 30);
        flip(&copy.join("positions/late"), 512 + 24);
    });
    let fresh = tempfile::tempdir().unwrap();
    let to = fresh.path().join(STORE);
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    let said = text(&["repair", "--to"], &[&to, &broken], 0);
    assert!(said.contains("153 records are lost"), "{said}");
    assert!(said.contains("1 series have lost their labels"), "{said}");
    let verdict = json("verify", &to, 0);
    assert_eq!(
        verdict["records"],
        u64::try_from(REQUESTS).unwrap() * RECORDS + OTHERS - 153
    );

    let sink = Recorder::start();
    let agent = Agent::start_with(fresh.path(), &[], |port| {
        late(&config(port, &[sink.url()]), &sink.url())
    });
    // A series that is new must not get the ref of the one that is lost.
    let fresh_series = compressed(vec![series(&[("__name__", "fresh")])]);
    let reply = Client::new(agent.port).write(&fresh_series).unwrap();
    assert_eq!(reply.status, 204, "{reply:?}");
    agent.until_delivered(&sink.url());
    let mut received = sink.received();
    assert_eq!(received.samples.remove("__name__=fresh").unwrap().len(), 1);
    assert_eq!(received.histograms, store.all.histograms);
    assert_eq!(received.samples, readable(&store, &received));
    let dropped = |reason: &str| {
        let name = "prometheus_remote_storage_samples_dropped_total";
        agent.metric(name, &[("reason", reason)])
    };
    assert_eq!(
        dropped("unknown_series"),
        37.0,
        "40 requests less 3 lost frames"
    );
    let lost = agent.metric(
        "penstock_wal_lost_bytes_total",
        &[("reason", "corrupt_frame")],
    );
    let bytes = frames[7].1 + frames[20].1 + frames[21].1;
    assert_eq!(lost.to_string(), bytes.to_string());
    // The account has them too.
    let seen = eventually(PATIENCE, || {
        let seen = json("inspect", &to, 0);
        let late = seen["endpoints"]
            .as_array()
            .unwrap()
            .iter()
            .find(|e| e["name"] == "late");
        let late = late.cloned().unwrap();
        (late["pending"] == 0)
            .then(|| late.clone())
            .ok_or_else(|| late.to_string())
    });
    assert_eq!(seen["dropped"]["missing_segment"], 153, "{seen}");
}

#[test]
fn a_live_store_is_not_repaired_and_has_no_problem_under_load() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(dir.path(), &[Recorder::start().url()], &[]);
    let senders = [
        Sender::start(agent.port, "a"),
        Sender::start(agent.port, "b"),
    ];
    let store = dir.path().join(STORE);
    let said = text(&["repair", "--to"], &[&dir.path().join("new"), &store], 1);
    assert!(
        said.contains("is in use by another process: stop the agent"),
        "{said}"
    );
    for _ in 0..10 {
        let verdict = json("verify", &store, 0);
        assert_eq!(verdict["problem_count"], 0, "{verdict}");
        let seen = json("inspect", &store, 0);
        assert_eq!(seen["problems"].as_array().unwrap().len(), 0, "{seen}");
        assert_eq!(seen["unknown_series_records"], 0, "{seen}");
    }
    for sender in senders {
        assert!(sender.acked() > 0);
        drop(sender.stop());
    }
}

/// Replays to a sink of its own.
fn replayed(store: &Path, flags: &[&str], exit_code: i32) -> (Received, String) {
    let sink = Recorder::start();
    let url = sink.url();
    let arguments = [&["replay", "--endpoint", &url], flags].concat();
    let said = text(&arguments, &[store], exit_code);
    (sink.received(), said)
}

#[test]
fn a_range_of_time_and_of_series_is_replayed() {
    let store = Store::build();
    let times = store.all.samples.values().flatten().map(|(time, _)| *time);
    let first = times.clone().min().unwrap();
    let seconds = |ms: i64| format!("{}.{:03}", ms / 1000, ms % 1000);
    let (all, said) = replayed(&store.path(), &["--from", "0", "--to", "9999999999"], 0);
    assert!(said.contains("1 histograms, 1 exemplars"), "{said}");
    assert_eq!(all.samples, store.all.samples);
    assert_eq!(all.histograms, store.all.histograms);
    assert_eq!(all.exemplars, store.all.exemplars);

    // Requests are 10 ms apart.
    let (from, to) = (first + 50, first + 150);
    let range = [seconds(from), seconds(to)];
    let selector = "load_steady{which=~\"1.\",which!=\"13\"}";
    let flags = ["--from", &range[0], "--to", &range[1], "--match", selector];
    let (some, said) = replayed(&store.path(), &flags, 0);
    let mut expected = store.all.samples.clone();
    expected.retain(|name, _| {
        let which = name.rsplit('=').next().unwrap();
        name.contains("load_steady") && which.len() == 2 && which.starts_with('1') && which != "13"
    });
    for samples in expected.values_mut() {
        samples.retain(|(time, _)| (from..to).contains(time));
        assert_eq!(samples.len(), 10);
    }
    assert_eq!(expected.len(), 9);
    assert_eq!(some.samples, expected, "{said}");
    assert!(some.histograms.is_empty() && some.exemplars.is_empty());
    assert!(
        said.contains("out of the time range") && said.contains("not matched"),
        "{said}"
    );
}

#[test]
fn a_refusal_ends_a_replay_and_mistakes_are_told() {
    let store = Store::build();
    let other = tempfile::tempdir().unwrap();
    let agent = Agent::start(other.path(), &[], &[]);
    // It refuses this path with 404.
    let url = agent.url().replace("/write", "/nowhere");
    let range = ["--from", "0", "--to", "9999999999"];
    let arguments = [&["replay", "--endpoint", &url], &range[..]].concat();
    let said = text(&arguments, &[&store.path()], 1);
    assert!(said.contains("the endpoint refuses: 404"), "{said}");
    let skipping = [&arguments[..], &["--skip-refused"]].concat();
    let said = text(&skipping, &[&store.path()], 2);
    assert!(said.contains("refused   2043 records"), "{said}");
    let wrong = [&arguments[..], &["--match", "up{"]].concat();
    let said = text(&wrong, &[&store.path()], 2);
    assert!(said.contains("a quoted string"), "{said}");
}
