//! Turns remote-write receivers as others run them into the samples they hold.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::http::{get, is_ok, percent_encoded};
use super::on_free_port;
use super::process::{Process, debian};

/// Samples (milliseconds, value as text) in order of time, by labels as sorted JSON.
pub(crate) type Samples = BTreeMap<String, Vec<(i64, String)>>;

/// Seconds since 1970 behind every sample of a test; VictoriaMetrics takes two days from now for
/// more.
const END_OF_EXPORT: u64 = 9_999_999_999;

/// Which program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// As it comes: a sample older than the newest of its series refuses its whole request.
    Prometheus,
    VictoriaMetrics,
}

/// A running receiver.
#[derive(Debug)]
pub(crate) struct Backend {
    kind: Kind,
    name: String,
    dir: PathBuf,
    port: u16,
    process: Option<Process>,
}

impl Backend {
    /// Starts one that keeps everything named `name` in `dir`.
    pub(crate) fn start(kind: Kind, dir: &Path, name: &str) -> Self {
        on_free_port(|port| Self::start_on(port, kind, dir, name))
    }

    /// The same on a given port; `None` if it is taken.
    pub(crate) fn start_on(port: u16, kind: Kind, dir: &Path, name: &str) -> Option<Self> {
        let mut backend = Self {
            kind,
            name: name.to_owned(),
            dir: dir.to_owned(),
            port,
            process: None,
        };
        backend.restart().then_some(backend)
    }

    /// Starts it again with what it has on disk; whether the port was free.
    pub(crate) fn restart(&mut self) -> bool {
        let mut process = Process::start(&self.name, self.command(), &self.dir);
        let path = match self.kind {
            Kind::VictoriaMetrics => "/health",
            Kind::Prometheus => "/-/ready",
        };
        let is_up = process.is_up(|| is_ok(self.port, path));
        self.process = Some(process);
        is_up
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process.take().unwrap().kill();
    }

    /// Where it receives.
    pub(crate) fn url(&self) -> String {
        url(self.port)
    }

    fn command(&self) -> Command {
        let data = self.dir.join(&self.name).display().to_string();
        let address = format!("127.0.0.1:{}", self.port);
        if self.kind == Kind::VictoriaMetrics {
            let mut command = debian("victoria-metrics", "victoria-metrics");
            command.arg(format!("-storageDataPath={data}"));
            command.arg(format!("-httpListenAddr={address}"));
            return command;
        }
        let config = self.dir.join(format!("{}.yml", self.name));
        fs::write(&config, "").unwrap();
        let mut command = debian("prometheus", "prometheus");
        command.arg("--web.enable-remote-write-receiver");
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={data}"));
        command.arg(format!("--web.listen-address={address}"));
        command
    }

    /// Everything it holds of the last hour.
    pub(crate) fn samples(&self) -> Samples {
        match self.kind {
            Kind::VictoriaMetrics => self.exported(),
            Kind::Prometheus => self.queried(),
        }
    }

    fn queried(&self) -> Samples {
        let query = percent_encoded("{__name__!=\"\"}[1h]");
        let reply = get(self.port, &format!("/api/v1/query?query={query}")).unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text);
        let reply: Value = serde_json::from_str(&reply.text).unwrap();
        let mut all = Samples::new();
        for series in reply["data"]["result"].as_array().unwrap() {
            let values = series["values"].as_array().unwrap().iter();
            let samples = values.map(|pair| {
                let value = pair[1].as_str().unwrap().to_owned();
                (milliseconds(&pair[0].to_string()), value)
            });
            all.insert(series["metric"].to_string(), samples.collect());
        }
        all
    }

    fn exported(&self) -> Samples {
        // What came last is in memory and not yet searched.
        assert!(is_ok(self.port, "/internal/force_flush"));
        let query = percent_encoded("{__name__!=\"\"}");
        // Its default for `end` is the second that has begun, and what came in that one is left out.
        let path = format!("/api/v1/export?match={query}&end={END_OF_EXPORT}");
        let reply = get(self.port, &path).unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text);
        let mut all = Samples::new();
        for line in reply.text.lines() {
            let series: Value = serde_json::from_str(line).unwrap();
            let times = series["timestamps"].as_array().unwrap().iter();
            let values = series["values"].as_array().unwrap().iter();
            let samples = times
                .map(|time| time.as_i64().unwrap())
                .zip(values.map(ToString::to_string));
            // One series may come in several lines.
            let known = all.entry(series["metric"].to_string()).or_default();
            known.extend(samples);
            known.sort();
        }
        all
    }
}

/// Where a backend on this port receives.
pub(crate) fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}/api/v1/write")
}

/// `12.345` seconds.
fn milliseconds(seconds: &str) -> i64 {
    let (whole, part) = seconds.split_once('.').unwrap_or((seconds, ""));
    format!("{whole}{part:0<3}").parse().unwrap()
}

/// Fails with the first differences unless both hold the same series with the same samples.
pub(crate) fn assert_same(expected: &Samples, found: &Samples) {
    let mut differences = Vec::new();
    for labels in found
        .keys()
        .filter(|labels| !expected.contains_key(*labels))
    {
        differences.push(format!("unexpected series {labels}"));
    }
    for (labels, samples) in expected {
        let Some(found) = found.get(labels) else {
            differences.push(format!("missing series {labels}"));
            continue;
        };
        if samples == found {
            continue;
        }
        let missing: Vec<_> = samples
            .iter()
            .filter(|s| !found.contains(s))
            .take(3)
            .collect();
        let unexpected: Vec<_> = found
            .iter()
            .filter(|s| !samples.contains(s))
            .take(3)
            .collect();
        differences.push(format!(
            "{labels}: {} samples instead of {}, missing {missing:?}, unexpected {unexpected:?}",
            found.len(),
            samples.len()
        ));
    }
    let count = differences.len();
    differences.truncate(10);
    assert!(
        count == 0,
        "{count} series differ:\n{}",
        differences.join("\n")
    );
}

/// Number of samples of all series.
pub(crate) fn count(samples: &Samples) -> usize {
    samples.values().map(Vec::len).sum()
}
