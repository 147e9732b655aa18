//! Turns a list of endpoints into a running Penstock that can be killed and started again.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::http::{get, is_ok, metric};
use super::process::Process;
use super::{PATIENCE, eventually, free_port, on_free_port};

const CONFIG: &str = "config.penstock";
/// Where it keeps its log.
pub(crate) const STORAGE: &str = "storage";

/// A Penstock: receiver `in`, writer `out`, one store.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) process: Process,
    dir: PathBuf,
    arguments: Vec<String>,
    /// Where it receives.
    pub(crate) port: u16,
    /// Its own address.
    pub(crate) own_port: u16,
}

impl Agent {
    /// Starts one that ships to `urls`, with more `arguments`; returns when it is ready.
    pub(crate) fn start(dir: &Path, urls: &[String], arguments: &[&str]) -> Self {
        Self::start_with(dir, arguments, |port| config(port, urls))
    }

    /// The same with a configuration that receives on the given port.
    pub(crate) fn start_with(
        dir: &Path,
        arguments: &[&str],
        config: impl Fn(u16) -> String,
    ) -> Self {
        on_free_port(|port| {
            let mut agent = Self::spawn(dir, arguments, &config, port);
            agent.is_ready().then_some(agent)
        })
    }

    /// Starts one and does not wait: who is let in has to find out when it is ready.
    pub(crate) fn start_unasked(
        dir: &Path,
        arguments: &[&str],
        config: impl Fn(u16) -> String,
    ) -> Self {
        Self::spawn(dir, arguments, &config, free_port())
    }

    fn spawn(dir: &Path, arguments: &[&str], config: &impl Fn(u16) -> String, port: u16) -> Self {
        std::fs::write(dir.join(CONFIG), config(port)).unwrap();
        let own_port = free_port();
        let mut all = vec![
            "run".to_owned(),
            dir.join(CONFIG).display().to_string(),
            format!("--storage.path={}", dir.join(STORAGE).display()),
            format!("--server.http.listen-addr=127.0.0.1:{own_port}"),
        ];
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        Self {
            process: Process::start("penstock", penstock(&all), dir),
            dir: dir.to_owned(),
            arguments: all,
            port,
            own_port,
        }
    }

    fn is_ready(&mut self) -> bool {
        let own_port = self.own_port;
        self.process.is_up(|| is_ok(own_port, "/-/ready"))
    }

    /// Where its log is, with one directory for each writer.
    pub(crate) fn storage(&self) -> PathBuf {
        self.dir.join(STORAGE)
    }

    /// What its next start reads.
    pub(crate) fn configure(&self, config: &str) {
        std::fs::write(self.dir.join(CONFIG), config).unwrap();
    }

    /// Starts it again after it has ended: same address, same storage. Does not wait.
    pub(crate) fn start_again(&mut self) {
        assert!(self.process.has_ended());
        self.process = Process::start("penstock", penstock(&self.arguments), &self.dir);
    }

    /// Starts it again and waits until it is ready.
    pub(crate) fn restart(&mut self) {
        self.start_again();
        assert!(self.is_ready(), "it finds its own ports taken");
    }

    /// Where senders write to.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/api/v1/metrics/write", self.port)
    }

    /// A value of its metrics page.
    pub(crate) fn metric(&self, name: &str, pairs: &[(&str, &str)]) -> f64 {
        let page = get(self.own_port, "/metrics").unwrap().text;
        metric(&page, name, pairs).unwrap_or_else(|| panic!("no {name} {pairs:?} in\n{page}"))
    }

    /// Bytes of the log that the endpoint does not have yet.
    pub(crate) fn lag_bytes(&self, url: &str) -> f64 {
        self.metric("penstock_endpoint_lag_bytes", &[("url", url)])
    }

    /// Waits until the endpoint has acknowledged everything.
    pub(crate) fn until_delivered(&self, url: &str) {
        eventually(PATIENCE, || match self.lag_bytes(url) {
            0.0 => Ok(()),
            left => Err(format!("{left} bytes are left for {url}")),
        });
    }

    /// How many samples the endpoint has refused.
    pub(crate) fn refused(&self, url: &str) -> f64 {
        let failed = "prometheus_remote_storage_samples_failed_total";
        self.metric(failed, &[("url", url)])
    }
}

/// The binary under test.
pub(crate) fn penstock(arguments: &[String]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_penstock"));
    command.args(arguments);
    command
}

/// A configuration that receives on `port` and ships to `urls`.
pub(crate) fn config(port: u16, urls: &[String]) -> String {
    config_with(port, urls, "")
}

/// The same with more lines in each endpoint.
pub(crate) fn config_with(port: u16, urls: &[String], more: &str) -> String {
    let endpoints: String = urls
        .iter()
        .map(|url| format!("  endpoint {{\n    url = \"{url}\"\n{more}  }}\n"))
        .collect();
    format!(
        "prometheus.receive_http \"in\" {{\n  http {{\n    listen_address = \"127.0.0.1\"\n    \
         listen_port = {port}\n  }}\n  forward_to = [prometheus.remote_write.out.receiver]\n}}\n\
         prometheus.remote_write \"out\" {{\n{endpoints}}}\n"
    )
}
