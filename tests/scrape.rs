//! Turns real exporters, and targets that misbehave, into what reaches a backend through the real binary.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::common::agent::Agent;
use crate::common::backend::{Backend, Kind};
use crate::common::http::{get, is_ok};
use crate::common::process::{Process, debian};
use crate::common::recorder::Recorder;
use crate::common::target::Target;
use crate::common::{PATIENCE, eventually, free_port, on_free_port, unix_ms};

const STALE_BITS: u64 = 0x7ff0_0000_0000_0002;

fn exporter(dir: &Path) -> (Process, u16) {
    on_free_port(|port| {
        let mut command = debian("prometheus-node-exporter", "prometheus-node-exporter");
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let mut exporter = Process::start("node-exporter", command, dir);
        exporter
            .is_up(|| is_ok(port, "/"))
            .then_some((exporter, port))
    })
}

/// A Prometheus that scrapes the targets, and sends what it has to `url` if there is one.
fn prometheus(
    dir: &Path,
    name: &str,
    targets: &[(&str, u16)],
    url: Option<&str>,
) -> (Process, u16) {
    let mut config = String::from("scrape_configs:\n");
    for (job, port) in targets {
        config += &format!(
            "- {{job_name: {job}, scrape_interval: 1s, scrape_timeout: 900ms, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}\n"
        );
    }
    if targets.is_empty() {
        config.clear();
    }
    if let Some(url) = url {
        config += &format!(
            "remote_write: [{{url: '{url}', queue_config: {{batch_send_deadline: 100ms}}}}]\n"
        );
    }
    let path = dir.join(format!("{name}.yml"));
    fs::write(&path, config).unwrap();
    on_free_port(|port| {
        let mut command = debian("prometheus", "prometheus");
        command.arg(format!("--config.file={}", path.display()));
        command.arg(format!("--storage.tsdb.path={}", dir.join(name).display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let mut process = Process::start(name, command, dir);
        process
            .is_up(|| is_ok(port, "/-/ready"))
            .then_some((process, port))
    })
}

/// A number as Prometheus 3 writes it in `le` and `quantile`: 2.42 leaves it as it is exposed.
fn normalised(series: &str) -> String {
    let label = |pair: &str| match pair.split_once('=') {
        Some(("le" | "quantile", value)) if value.parse::<i64>().is_ok() => format!("{pair}.0"),
        _ => pair.to_owned(),
    };
    series.split(',').map(label).collect::<Vec<_>>().join(",")
}

#[test]
fn real_exporters_are_scraped_as_prometheus_scrapes_them() {
    let dir = tempfile::tempdir().unwrap();
    let (_exporter, node) = exporter(dir.path());
    let (_observed, observed) = prometheus(dir.path(), "observed", &[], None);
    let (ours, theirs) = (Recorder::start(), Recorder::start());
    let targets = [("node", node), ("prometheus", observed)];
    let (_reference, _) = prometheus(dir.path(), "reference", &targets, Some(&theirs.url()));
    let agent = Agent::start_with(dir.path(), &[], |_| {
        let scrape = targets.map(|(job, port)| {
            format!(
                "prometheus.scrape \"{job}\" {{\n  targets = [{{\"__address__\" = \"127.0.0.1:{port}\"}}]\n  \
                 job_name = \"{job}\"\n  scrape_interval = \"1s\"\n  scrape_timeout = \"900ms\"\n  \
                 forward_to = [prometheus.remote_write.out.receiver]\n}}\n"
            )
        });
        let url = ours.url();
        scrape.concat()
            + &format!("prometheus.remote_write \"out\" {{\n  endpoint {{ url = \"{url}\" }}\n}}\n")
    });
    let of = |recorder: &Recorder| -> BTreeSet<String> {
        let received = recorder.received();
        // Where it was scraped three times, everything that comes late is there.
        let all = received
            .samples
            .iter()
            .filter(|(_, samples)| samples.len() >= 3);
        all.map(|(series, _)| normalised(series)).collect()
    };
    eventually(PATIENCE, || {
        let (ours, theirs) = (of(&ours), of(&theirs));
        let differs: Vec<&String> = ours.symmetric_difference(&theirs).take(5).collect();
        if ours.len() > 500 && differs.is_empty() {
            return Ok(());
        }
        Err(format!(
            "{} and {} series, {differs:?}",
            ours.len(),
            theirs.len()
        ))
    });
    for id in ["prometheus.scrape.node", "prometheus.scrape.prometheus"] {
        let at = |how| {
            let labels = [("how", how), ("component_id", id)];
            agent.metric("penstock_scrape_samples_total", &labels)
        };
        assert!(at("followed") > at("parsed"), "most of {id} is known");
    }
    let one = |recorder: &Recorder, name: &str| {
        let received = recorder.received();
        let mut all = received.samples.into_iter();
        let found = all.find(|(series, _)| series.contains(name)).unwrap();
        found.1[0].1
    };
    // Constants are the same bits.
    for name in [
        "node_uname_info",
        "prometheus_build_info",
        "node_boot_time_seconds",
    ] {
        assert_eq!(one(&ours, name), one(&theirs, name), "{name}");
    }
}

/// An agent that scrapes these ports every 200 ms, with more lines in the block.
fn scrape(dir: &Path, ports: &[u16], url: &str, more: &str) -> Agent {
    Agent::start_with(dir, &[], |_| config(ports, url, more))
}

fn config(ports: &[u16], url: &str, more: &str) -> String {
    let targets: String = (ports.iter())
        .map(|port| format!("{{\"__address__\" = \"127.0.0.1:{port}\"}}, "))
        .collect();
    format!(
        "prometheus.scrape \"x\" {{\n  targets = [{targets}]\n  job_name = \"j\"\n  scrape_interval = \"200ms\"\n  \
         scrape_timeout = \"150ms\"\n  forward_to = [prometheus.remote_write.out.receiver]\n{more}}}\n\
         prometheus.remote_write \"out\" {{\n  endpoint {{ url = \"{url}\" }}\n}}\n"
    )
}

/// The values of a series, in the order they came.
fn values(recorder: &Recorder, name: &str) -> Vec<u64> {
    let received = recorder.received();
    let mut all = received.samples.into_iter();
    let found = all.find(|(series, _)| series.contains(&format!("__name__={name},")));
    let samples = found.map(|(_, samples)| samples).unwrap_or_default();
    samples.into_iter().map(|(_, bits)| bits).collect()
}

/// Times and values of a series, in the order they came.
fn samples(recorder: &Recorder, name: &str) -> Vec<(i64, f64)> {
    let received = recorder.received();
    let mut all = received.samples.into_iter();
    let found = all.find(|(series, _)| series.contains(&format!("__name__={name},")));
    let samples = found.map(|(_, samples)| samples).unwrap_or_default();
    let float = |(time_ms, bits)| (time_ms, f64::from_bits(bits));
    samples.into_iter().map(float).collect()
}

fn until_last(recorder: &Recorder, name: &str, want: f64) {
    eventually(PATIENCE, || {
        let values = values(recorder, name);
        match values.last() {
            Some(bits) if *bits == want.to_bits() => Ok(()),
            last => Err(format!("{name} is {:?}", last.copied().map(f64::from_bits))),
        }
    });
}

#[test]
fn a_target_that_misbehaves_is_down_with_the_reason_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let (target, recorder) = (Target::start("a 1\n"), Recorder::start());
    let log = dir.path().join("failures");
    let more = format!("  body_size_limit = \"1KiB\"\n  scrape_failure_log_file = {log:?}\n");
    let agent = scrape(dir.path(), &[target.port], &recorder.url(), &more);
    let error = || {
        let path = "/api/v0/web/components/prometheus.scrape.x";
        get(agent.own_port, path).unwrap().text
    };
    let long = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\n{}",
        "#".repeat(2000)
    );
    let endless = format!(
        "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{}",
        "# x\n".repeat(2000)
    );
    for (answer, reason) in [
        (
            Some(&b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"[..]),
            "server returned HTTP status 503 Service Unavailable",
        ),
        (
            Some(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\na b\n"),
            "line 1",
        ),
        (Some(long.as_bytes()), "body size limit exceeded"),
        (Some(endless.as_bytes()), "body size limit exceeded"),
        (
            Some(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\nabcd"),
            "not gzip",
        ),
        (None, "deadline exceeded"),
    ] {
        target.expose("a 1\n");
        until_last(&recorder, "up", 1.0);
        until_last(&recorder, "a", 1.0);
        target.answer(answer);
        until_last(&recorder, "up", 0.0);
        eventually(PATIENCE, || match error() {
            told if told.contains(reason) => Ok(()),
            told => Err(format!("{reason:?} is in {told}")),
        });
        until_last(&recorder, "a", f64::from_bits(STALE_BITS));
        eventually(PATIENCE, || match fs::read_to_string(&log).unwrap() {
            lines if lines.contains(reason) => Ok(()),
            lines => Err(format!("{reason} is not in {lines}")),
        });
    }
    let head = target.heads().swap_remove(0);
    for line in [
        "GET /metrics HTTP/1.1",
        "accept: application/openmetrics-text;version=1.0.0;escaping=underscores;q=0.6,",
        "accept-encoding: gzip",
        "x-prometheus-scrape-timeout-seconds: 0.15",
        "user-agent: Penstock/",
    ] {
        assert!(head.contains(line), "{line} is in {head}");
    }
}

#[test]
fn a_target_that_is_taken_away_ends_and_one_that_stays_does_not_notice() {
    let dir = tempfile::tempdir().unwrap();
    let (stays, goes) = (Target::start("stays 1\n"), Target::start("goes 1\n"));
    let recorder = Recorder::start();
    let ports = [stays.port, goes.port];
    let agent = scrape(dir.path(), &ports, &recorder.url(), "");
    until_last(&recorder, "stays", 1.0);
    until_last(&recorder, "goes", 1.0);
    agent.configure(&config(&ports[..1], &recorder.url(), ""));
    assert_eq!(get(agent.own_port, "/-/reload").unwrap().status, 200);
    until_last(&recorder, "goes", f64::from_bits(STALE_BITS));
    stays.expose("stays 2\n");
    until_last(&recorder, "stays", 2.0);
    // Not once was it told to be stale, nor was it parsed again.
    assert!(!values(&recorder, "stays").contains(&STALE_BITS));
    assert_eq!(
        agent.metric("penstock_scrape_samples_total", &[("how", "parsed")]),
        2.0
    );
    // It comes back as what it was.
    agent.configure(&config(&ports, &recorder.url(), ""));
    assert_eq!(get(agent.own_port, "/-/reload").unwrap().status, 200);
    until_last(&recorder, "goes", 1.0);
}

#[test]
fn what_was_scraped_while_the_backend_was_away_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let target = Target::start("a 1\n");
    // The endpoint has a name, so its position is found again at another place.
    let named = |url: &str| {
        let text = config(&[target.port], url, "");
        text.replace("endpoint {", "endpoint {\n    name = \"b\"\n    ")
    };
    let away = format!("http://127.0.0.1:{}/api/v1/write", free_port());
    let mut agent = Agent::start_with(dir.path(), &[], |_| named(&away));
    let scraped = || agent.metric("penstock_wal_samples_total", &[]);
    // Six of each scrape.
    let before = eventually(PATIENCE, || match scraped() {
        count if count >= 60.0 => Ok(count),
        count => Err(format!("{count} samples")),
    });
    agent.process.kill();
    let recorder = Recorder::start();
    agent.configure(&named(&recorder.url()));
    agent.start_again();
    eventually(PATIENCE, || {
        let count = values(&recorder, "a").len();
        // What was in flight may be missing, no more: here all of it was on disk.
        let want = before / 6.0 - 1.0;
        if f64::from(u32::try_from(count).unwrap()) >= want {
            Ok(())
        } else {
            Err(format!("{count} of {want}"))
        }
    });
}

#[test]
fn the_agent_scrapes_itself_without_a_socket() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::start();
    let url = recorder.url();
    let _agent = Agent::start_with(dir.path(), &[], |_| {
        format!(
            "prometheus.exporter.self \"me\" {{ }}\nprometheus.scrape \"x\" {{\n  \
             targets = prometheus.exporter.self.me.targets\n  scrape_interval = \"200ms\"\n  \
             scrape_timeout = \"200ms\"\n  forward_to = [prometheus.remote_write.out.receiver]\n}}\n\
             prometheus.remote_write \"out\" {{\n  endpoint {{ url = \"{url}\" }}\n}}\n"
        )
    });
    until_last(&recorder, "up", 1.0);
    until_last(&recorder, "penstock_build_info", 1.0);
    let received = recorder.received();
    let name = "__name__=penstock_build_info,";
    let series = received
        .samples
        .keys()
        .find(|series| series.contains(name))
        .unwrap();
    assert!(series.contains("job=integrations/self"), "{series}");
}

#[test]
fn strict_holds_open_metrics_to_its_specification_from_the_next_scrape_on() {
    let dir = tempfile::tempdir().unwrap();
    let (target, recorder) = (Target::start(""), Recorder::start());
    target.expose_open_metrics("# TYPE a counter\na_total -1\n# EOF\n");
    let agent = scrape(dir.path(), &[target.port], &recorder.url(), "");
    until_last(&recorder, "a_total", -1.0);
    agent.configure(&config(
        &[target.port],
        &recorder.url(),
        "  strict = true\n",
    ));
    assert_eq!(get(agent.own_port, "/-/reload").unwrap().status, 200);
    until_last(&recorder, "up", 0.0);
    until_last(&recorder, "a_total", f64::from_bits(STALE_BITS));
    let page = get(agent.own_port, "/api/v0/web/components/prometheus.scrape.x");
    let told = page.unwrap().text;
    assert!(
        told.contains("line 2, byte 17: value is negative"),
        "{told}"
    );
    // Only OpenMetrics is concerned.
    target.expose("# TYPE a counter\na_total -2\n");
    until_last(&recorder, "a_total", -2.0);
    assert!(agent.metric("penstock_scrape_failures_total", &[("reason", "parse")]) > 0.0);
}

/// Waits until the backend has everything of the counter that was sent by now.
fn until_whole(strict: &Backend, recorder: &Recorder) {
    let (last_ms, last) = *samples(recorder, "a_total").last().unwrap();
    eventually(PATIENCE, || {
        let all = strict.samples();
        let held = all.iter().find(|(series, _)| series.contains("a_total"));
        let held = held.map(|(_, samples)| samples.clone()).unwrap_or_default();
        if held.last().is_none_or(|(time_ms, _)| *time_ms < last_ms) {
            return Err(format!("{last} at {last_ms} is not in {held:?}"));
        }
        let sent = samples(recorder, "a_total").into_iter();
        let missing: Vec<_> = sent
            .filter(|(time_ms, value)| {
                *time_ms <= last_ms && !held.contains(&(*time_ms, value.to_string()))
            })
            .collect();
        assert_eq!(missing, [], "{held:?}");
        Ok(())
    });
}

#[test]
fn a_target_that_restarts_is_0_at_its_start() {
    let dir = tempfile::tempdir().unwrap();
    let (target, recorder) = (Target::start(""), Recorder::start());
    // What a process exposes that began to count just now.
    let start = |value: u32| {
        let start_ms = unix_ms();
        let (seconds, ms) = (start_ms / 1000, start_ms % 1000);
        target.expose_open_metrics(&format!(
            "# TYPE a counter\na_total {value}\na_created {seconds}.{ms:03}\n# EOF\n"
        ));
        start_ms
    };
    target.expose_open_metrics("# EOF\n");
    let strict = Backend::start(Kind::Prometheus, dir.path(), "strict");
    let mut agent = Agent::start_with(dir.path(), &[], |_| {
        let more = "  start_timestamp_zero_ingestion = true\n";
        let text = config(&[target.port], &recorder.url(), more);
        let endpoint = format!("endpoint {{ url = \"{}\" }}\n  endpoint {{", strict.url());
        text.replace("endpoint {", &endpoint)
    });
    until_last(&recorder, "up", 1.0);
    let mut told = Vec::new();
    for value in 1..=50 {
        let start_ms = start(value);
        until_last(&recorder, "a_total", f64::from(value));
        let samples = samples(&recorder, "a_total");
        let zeros = samples.iter().filter(|(_, value)| *value == 0.0);
        let zeros: Vec<i64> = zeros.map(|(time_ms, _)| *time_ms).collect();
        // A scrape may have begun before the process and have reached it: then there is none.
        if zeros.len() > told.len() {
            told.push(start_ms);
        }
        // Of microseconds as floats the last may be cut off.
        let near = |(zero, told): (&i64, &i64)| (told - 1..=*told).contains(zero);
        assert!(zeros.iter().zip(&told).all(near), "{zeros:?} {told:?}");
        assert_eq!(zeros.len(), told.len());
        if told.len() == 3 {
            break;
        }
    }
    assert_eq!(told.len(), 3);
    let all = samples(&recorder, "a_total");
    assert!(all.is_sorted_by(|a, b| a.0 < b.0), "{all:?}");
    assert_eq!(samples(&recorder, "a_created"), []);
    assert_eq!(
        agent.metric("penstock_scrape_start_samples_total", &[]),
        3.0
    );
    // An agent that knows nothing of its series tells nothing that was told.
    agent.process.kill();
    agent.start_again();
    let before = samples(&recorder, "up").len();
    eventually(PATIENCE, || match samples(&recorder, "up").len() {
        now if now > before + 5 => Ok(()),
        now => Err(format!("{now} scrapes, {before} before")),
    });
    assert_eq!(
        agent.metric("penstock_scrape_start_samples_total", &[]),
        0.0
    );
    // A backend that refuses requests with one old sample refused none.
    until_whole(&strict, &recorder);
}
