//! Turns a node exporter into remote-write traffic, as a Prometheus in agent mode sends it.

use std::fs;
use std::path::{Path, PathBuf};

use super::http::{get, is_ok, metric, post};
use super::process::{Process, debian};
use super::{PATIENCE, eventually, on_free_port};

/// Names under which the one exporter is scraped, to have more series than it has.
const JOBS: [&str; 3] = ["node", "north", "south"];

/// A node exporter, and a Prometheus agent that scrapes it every second.
#[derive(Debug)]
pub(crate) struct Scraper {
    _exporter: Process,
    agent: Process,
    port: u16,
    config: PathBuf,
    targets: Vec<String>,
    more: String,
}

impl Scraper {
    /// Starts both; everything scraped goes to each of `urls`.
    pub(crate) fn start(dir: &Path, urls: &[String]) -> Self {
        Self::start_with(dir, urls, "")
    }

    /// The same with more settings of each target.
    pub(crate) fn start_with(dir: &Path, urls: &[String], more: &str) -> Self {
        let (exporter, exporter_port) = on_free_port(|port| {
            let mut command = debian("prometheus-node-exporter", "prometheus-node-exporter");
            command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
            let mut exporter = Process::start("node-exporter", command, dir);
            let is_up = exporter.is_up(|| is_ok(port, "/"));
            is_up.then_some((exporter, port))
        });
        let config = dir.join("scraper.yml");
        fs::write(&config, scrapes(exporter_port) + &remotes(urls, more)).unwrap();
        let (agent, port) = on_free_port(|port| {
            let mut command = debian("prometheus", "prometheus");
            command.args(["--enable-feature=agent", "--web.enable-lifecycle"]);
            command.arg(format!("--config.file={}", config.display()));
            command.arg(format!(
                "--storage.agent.path={}",
                dir.join("scraper").display()
            ));
            command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
            let mut agent = Process::start("scraper", command, dir);
            let is_up = agent.is_up(|| is_ok(port, "/-/ready"));
            is_up.then_some((agent, port))
        });
        Self {
            _exporter: exporter,
            agent,
            port,
            config,
            targets: urls.to_vec(),
            more: more.to_owned(),
        }
    }

    fn page(&self) -> String {
        get(self.port, "/metrics").unwrap().text
    }

    /// Samples scraped so far.
    pub(crate) fn scraped(&self) -> f64 {
        let name = "prometheus_agent_samples_appended_total";
        metric(&self.page(), name, &[("type", "float")]).unwrap_or(0.0)
    }

    /// Stops scraping, waits until every target has all samples, and ends the agent. Returns their
    /// number.
    ///
    /// Ending it at once would let each queue keep what it has not read from the agent's own log.
    pub(crate) fn finish(mut self) -> f64 {
        let scraped = self.stop_until_have(&self.targets);
        assert!(self.agent.terminate().success());
        scraped
    }

    /// Stops scraping, waits until the target `url` has all samples, whatever the others have, and
    /// kills the agent. Returns their number.
    pub(crate) fn kill_once_has(mut self, url: &str) -> f64 {
        let scraped = self.stop_until_have(&[url.to_owned()]);
        self.agent.kill();
        scraped
    }

    fn stop_until_have(&self, targets: &[String]) -> f64 {
        fs::write(&self.config, remotes(&self.targets, &self.more)).unwrap();
        let reloaded = post(self.port, "/-/reload").unwrap();
        assert_eq!(reloaded.status, 200, "{}", reloaded.text);
        eventually(PATIENCE, || {
            let (page, scraped) = (self.page(), self.scraped());
            let state = targets.iter().map(|target| Target::new(&page, target));
            let state: Vec<_> = state.collect();
            let is_done = state.iter().all(|target| target.has(scraped));
            is_done
                .then_some(scraped)
                .ok_or_else(|| format!("all have {scraped} of {state:?}"))
        })
    }
}

/// How far the agent is with one of its targets.
#[derive(Debug)]
struct Target {
    attempted: f64,
    retried: f64,
    pending: f64,
}

impl Target {
    fn new(page: &str, url: &str) -> Self {
        let value = |name: &str| {
            let name = format!("prometheus_remote_storage_samples_{name}");
            metric(page, &name, &[("url", url)]).unwrap_or(-1.0)
        };
        Self {
            attempted: value("total"),
            retried: value("retried_total"),
            pending: value("pending"),
        }
    }

    fn has(&self, samples: f64) -> bool {
        self.pending == 0.0 && self.attempted - self.retried == samples
    }
}

fn scrapes(port: u16) -> String {
    let jobs: String = JOBS
        .map(|job| {
            format!("- job_name: {job}\n  static_configs: [{{targets: ['127.0.0.1:{port}']}}]\n")
        })
        .concat();
    format!("global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n{jobs}")
}

fn remotes(urls: &[String], more: &str) -> String {
    let remotes = urls.iter().enumerate().map(|(at, url)| {
        format!(
            "- {{name: target{at}, url: '{url}', queue_config: {{batch_send_deadline: 500ms}}{more}}}\n"
        )
    });
    format!("remote_write:\n{}", remotes.collect::<String>())
}
