//! Turns a program into a process under test: configured, pinned to its core, measured, stopped.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use wal::SharedClock;

use crate::http::{metric_sum, page};
use crate::measure::{SUBJECT_CORE, Used, used};

/// Longest wait for a process that starts, and for one that stops.
const DEADLINE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// What can be tested.
#[derive(Clone, Debug)]
pub(crate) enum Program {
    /// This project's agent.
    Penstock {
        /// The program.
        path: PathBuf,
        /// Whether it has an endpoint to deliver to.
        ships: bool,
    },
    /// VictoriaMetrics' agent, from PATH.
    Vmagent,
    /// Prometheus in agent mode, from PATH.
    Prometheus,
}

impl Program {
    /// The agent at `path`, or the one built beside this bench.
    pub(crate) fn penstock(path: Option<&Path>, ships: bool) -> Result<Self> {
        let path = match path {
            Some(path) => path.to_owned(),
            None => std::env::current_exe()?.with_file_name("penstock"),
        };
        if !path.try_exists()? {
            bail!(
                "{} is not there: cargo build --release, or --agent PATH",
                path.display()
            );
        }
        Ok(Self::Penstock { path, ships })
    }

    /// Its name in tables.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Penstock { .. } => "penstock",
            Self::Vmagent => "vmagent",
            Self::Prometheus => "prometheus agent",
        }
    }

    /// What it calls its version; `None` if it cannot be run.
    pub(crate) fn version(&self) -> Option<String> {
        let (program, argument) = match self {
            Self::Penstock { path, .. } => (path.as_path(), "--version"),
            Self::Vmagent => (Path::new("vmagent"), "-version"),
            Self::Prometheus => (Path::new("prometheus"), "--version"),
        };
        let output = Command::new(program).arg(argument).output().ok()?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().find(|line| !line.trim().is_empty());
        Some(line.map_or_else(
            || "tells no version".to_owned(),
            |line| line.trim().to_owned(),
        ))
    }

    /// Whether samples come out at the other end.
    pub(crate) const fn ships(&self) -> bool {
        !matches!(self, Self::Penstock { ships: false, .. })
    }

    fn arguments(&self, dir: &Path, places: &Places) -> Result<Vec<String>> {
        let data = dir.join("data").display().to_string();
        let Places {
            ingest,
            server,
            sink,
        } = places;
        Ok(match self {
            Self::Penstock { path, ships } => {
                let config = dir.join("config.alloy");
                let endpoint =
                    format!("  endpoint {{\n    url = \"http://{sink}/api/v1/write\"\n  }}\n");
                let text = format!(
                    "prometheus.receive_http \"in\" {{\n  http {{\n    listen_address = \"{}\"\n    \
                     listen_port = {}\n  }}\n  forward_to = \
                     [prometheus.remote_write.out.receiver]\n}}\n\n\
                     prometheus.remote_write \"out\" {{\n{}}}\n",
                    ingest.ip(),
                    ingest.port(),
                    if *ships { &*endpoint } else { "" }
                );
                fs::write(&config, text)?;
                vec![
                    path.display().to_string(),
                    "run".to_owned(),
                    config.display().to_string(),
                    format!("--storage.path={data}"),
                    format!("--server.http.listen-addr={server}"),
                ]
            }
            Self::Vmagent => vec![
                "vmagent".to_owned(),
                format!("-httpListenAddr={ingest}"),
                format!("-remoteWrite.url=http://{sink}/api/v1/write"),
                format!("-remoteWrite.tmpDataPath={data}"),
            ],
            Self::Prometheus => {
                let config = dir.join("prometheus.yml");
                fs::write(
                    &config,
                    format!("remote_write:\n- url: http://{sink}/api/v1/write\n"),
                )?;
                vec![
                    "prometheus".to_owned(),
                    "--enable-feature=agent".to_owned(),
                    "--web.enable-remote-write-receiver".to_owned(),
                    format!("--config.file={}", config.display()),
                    format!("--storage.agent.path={data}"),
                    format!("--web.listen-address={ingest}"),
                ]
            }
        })
    }
}

/// Where a subject listens and delivers.
#[derive(Clone, Copy, Debug)]
struct Places {
    ingest: SocketAddr,
    server: SocketAddr,
    sink: SocketAddr,
}

/// A process under test; killed when dropped.
#[derive(Debug)]
pub(crate) struct Subject {
    child: Child,
    places: Places,
    dir: TempDir,
}

impl Subject {
    /// Starts `program` in `dir`, delivering to `sink`, and waits until it listens.
    pub(crate) fn start(
        program: &Program,
        dir: TempDir,
        sink: SocketAddr,
        clock: &SharedClock,
    ) -> Result<Self> {
        let (first, second) = (free_address()?, free_address()?);
        let places = Places {
            ingest: first.1,
            server: second.1,
            sink,
        };
        drop((first, second));
        let log = File::create(dir.path().join("log"))?;
        // taskset and not a call of ours: the process must be pinned before its first thread runs,
        // as runtimes look at the cores they may use when they start.
        let child = Command::new("taskset")
            .args(["-c", &SUBJECT_CORE.to_string()])
            .args(program.arguments(dir.path(), &places)?)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start taskset")?;
        let mut subject = Self { child, places, dir };
        let deadline = clock.monotonic() + DEADLINE;
        while TcpStream::connect(subject.places.ingest).is_err() {
            subject.check()?;
            if clock.monotonic() > deadline {
                bail!("{} does not listen: {}", program.name(), subject.log_tail());
            }
            std::thread::sleep(PAUSE);
        }
        Ok(subject)
    }

    /// Where it takes requests.
    pub(crate) const fn ingest(&self) -> SocketAddr {
        self.places.ingest
    }

    /// Fails if it ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the subject ended ({status}): {}", self.log_tail());
        }
        Ok(())
    }

    /// What it has used so far.
    pub(crate) fn used(&self) -> Result<Used> {
        used(self.child.id())
    }

    /// Bytes it wrote into its log per sample, if it tells.
    pub(crate) fn log_bytes_per_sample(&self) -> Option<f64> {
        let page = page(self.places.server, "/metrics").ok()?;
        let bytes = metric_sum(&page, "penstock_wal_written_bytes_total")?;
        Some(bytes / metric_sum(&page, "penstock_wal_samples_total")?)
    }

    /// Asks it to end; answers whether it did so in time and without an error.
    pub(crate) fn stop(mut self, clock: &SharedClock) -> Result<bool> {
        let process = i32::try_from(self.child.id())?;
        let process = Pid::from_raw(process).context("a process has a number")?;
        kill_process(process, Signal::TERM)?;
        let deadline = clock.monotonic() + DEADLINE;
        while clock.monotonic() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.success());
            }
            std::thread::sleep(PAUSE);
        }
        Ok(false)
    }

    fn log_tail(&self) -> String {
        let log = fs::read(self.dir.path().join("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            crate::table::print(&format!("cannot end the subject: {error}"));
        }
    }
}

/// A free port; it stays taken as long as the listener lives.
fn free_address() -> Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}
