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
use crate::measure::{SUBJECT_CORE, Used, thread_seconds, used};

/// Longest wait for a process that starts, and for one that stops.
const DEADLINE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);
/// The same for one that recovers a log, and how often it is looked at.
const READY_DEADLINE: Duration = Duration::from_secs(120);
const READY_PAUSE: Duration = Duration::from_millis(1);
/// What the agent logs when a store is recovered.
const LOG_OPENED: &str = "log opened";

/// What can be tested.
#[derive(Clone, Debug)]
pub(crate) enum Program {
    /// This project's agent.
    Penstock {
        /// The program.
        path: PathBuf,
        /// Whether it has an endpoint to deliver to.
        ships: bool,
        /// Lines of the `wal` block; none: the defaults.
        wal: Vec<String>,
        /// Lines of the endpoint's block besides its url.
        endpoint: Vec<String>,
        /// More endpoints.
        others: Vec<SocketAddr>,
        /// Ingest threads, each with a core; none: as many as it wants on one core.
        threads: Option<usize>,
        /// The first of its cores, from the first of all on.
        first_core: usize,
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
        Ok(Self::Penstock {
            path,
            ships,
            wal: Vec::new(),
            endpoint: Vec::new(),
            others: Vec::new(),
            threads: None,
            first_core: 0,
        })
    }

    /// The same with one more line in the `wal` block, if it has one.
    pub(crate) fn with_wal(mut self, line: &str) -> Self {
        if let Self::Penstock { wal, .. } = &mut self {
            wal.push(line.to_owned());
        }
        self
    }

    /// The same with one more line in the block of the endpoint, if it has one.
    pub(crate) fn with_endpoint(mut self, line: &str) -> Self {
        if let Self::Penstock { endpoint, .. } = &mut self {
            endpoint.push(line.to_owned());
        }
        self
    }

    /// The same with these endpoints too.
    pub(crate) fn with_others(mut self, addresses: Vec<SocketAddr>) -> Self {
        if let Self::Penstock { others, .. } = &mut self {
            *others = addresses;
        }
        self
    }

    /// The same that delivers by remote write 2.0.
    pub(crate) fn by_v2(self) -> Self {
        self.with_endpoint("protobuf_message = \"io.prometheus.write.v2.Request\"")
    }

    /// The same with so many ingest threads on as many cores.
    pub(crate) fn with_threads(mut self, count: usize) -> Self {
        if let Self::Penstock { threads, .. } = &mut self {
            *threads = Some(count);
        }
        self
    }

    /// The same with its cores behind so many others.
    pub(crate) fn behind_cores(mut self, count: usize) -> Self {
        if let Self::Penstock { first_core, .. } = &mut self {
            *first_core = count;
        }
        self
    }

    /// How many cores it may use, and behind how many others.
    pub(crate) fn cores(&self) -> (usize, usize) {
        match self {
            Self::Penstock {
                threads,
                first_core,
                ..
            } => (threads.unwrap_or(1), *first_core),
            _ => (1, 0),
        }
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
        let told = line.map(|line| line.trim().to_owned());
        let told = told.or_else(|| package_version(program));
        Some(told.unwrap_or_else(|| "tells no version".to_owned()))
    }

    /// Whether samples come out at the other end.
    pub(crate) const fn ships(&self) -> bool {
        !matches!(self, Self::Penstock { ships: false, .. })
    }

    fn arguments(
        &self,
        dir: &Path,
        places: &Places,
        scrapes: Option<&Scrapes>,
    ) -> Result<Vec<String>> {
        let data = dir.join("data").display().to_string();
        let Places {
            ingest,
            server,
            sink,
        } = places;
        let jobs = scrapes.map(Scrapes::for_prometheus).unwrap_or_default();
        Ok(match self {
            Self::Penstock {
                path,
                ships,
                wal,
                endpoint,
                others,
                threads,
                first_core: _,
            } => {
                let config = dir.join("config.alloy");
                let endpoints = ships.then_some((&**endpoint, &**others));
                let scrape = scrapes.map(Scrapes::for_penstock).unwrap_or_default();
                let text = penstock_config(places, endpoints, wal) + &scrape;
                fs::write(&config, text)?;
                let mut arguments = vec![
                    path.display().to_string(),
                    "run".to_owned(),
                    config.display().to_string(),
                    format!("--storage.path={data}"),
                    format!("--server.http.listen-addr={server}"),
                ];
                arguments.extend(threads.map(|count| format!("--ingest.threads={count}")));
                arguments
            }
            Self::Vmagent => {
                let mut arguments = vec![
                    "vmagent".to_owned(),
                    format!("-httpListenAddr={ingest}"),
                    format!("-remoteWrite.url=http://{sink}/api/v1/write"),
                    format!("-remoteWrite.tmpDataPath={data}"),
                ];
                if scrapes.is_some() {
                    let config = dir.join("scrape.yml");
                    fs::write(&config, &jobs)?;
                    arguments.push(format!("-promscrape.config={}", config.display()));
                }
                arguments
            }
            Self::Prometheus => {
                let config = dir.join("prometheus.yml");
                fs::write(
                    &config,
                    format!("{jobs}remote_write:\n- url: http://{sink}/api/v1/write\n"),
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

fn penstock_config(
    places: &Places,
    endpoints: Option<(&[String], &[SocketAddr])>,
    wal: &[String],
) -> String {
    let Places { ingest, sink, .. } = places;
    let mut writer = String::new();
    if let Some((lines, others)) = endpoints {
        let more: String = lines.iter().map(|line| format!("    {line}\n")).collect();
        writer.push_str(&format!(
            "  endpoint {{\n    url = \"http://{sink}/api/v1/write\"\n{more}  }}\n"
        ));
        for (number, address) in others.iter().enumerate() {
            writer.push_str(&format!(
                "  endpoint {{\n    name = \"other-{number}\"\n    url = \"http://{address}/api/v1/write\"\n  }}\n"
            ));
        }
    }
    if !wal.is_empty() {
        writer.push_str(&format!("  wal {{\n    {}\n  }}\n", wal.join("\n    ")));
    }
    format!(
        "prometheus.receive_http \"in\" {{\n  http {{\n    listen_address = \"{}\"\n    listen_port = \
         {}\n  }}\n  forward_to = [prometheus.remote_write.out.receiver]\n}}\n\n\
         prometheus.remote_write \"out\" {{\n{writer}}}\n",
        ingest.ip(),
        ingest.port(),
    )
}

/// Where a subject listens and delivers.
#[derive(Clone, Copy, Debug)]
struct Places {
    ingest: SocketAddr,
    server: SocketAddr,
    sink: SocketAddr,
}

/// Targets to scrape: paths of one server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scrapes {
    pub(crate) address: SocketAddr,
    pub(crate) targets: usize,
    /// Seconds between two scrapes of a target.
    pub(crate) interval: u32,
}

impl Scrapes {
    fn timeout(&self) -> u32 {
        self.interval.min(10)
    }

    fn for_penstock(&self) -> String {
        let target = |number: usize| {
            format!(
                "    {{\"__address__\" = \"{}\", \"__metrics_path__\" = \"/t/{number}\", \"target\" = \"{number}\"}},\n",
                self.address
            )
        };
        let targets: String = (0..self.targets).map(target).collect();
        format!(
            "prometheus.scrape \"bench\" {{\n  targets = [\n{targets}  ]\n  scrape_interval = \"{}s\"\n  \
             scrape_timeout = \"{}s\"\n  enable_compression = false\n  \
             forward_to = [prometheus.remote_write.out.receiver]\n}}\n",
            self.interval,
            self.timeout()
        )
    }

    fn for_prometheus(&self) -> String {
        let target = |number: usize| {
            format!(
                "  - targets: ['{}']\n    labels: {{__metrics_path__: /t/{number}, target: '{number}'}}\n",
                self.address
            )
        };
        let targets: String = (0..self.targets).map(target).collect();
        format!(
            "scrape_configs:\n- job_name: bench\n  scrape_interval: {}s\n  scrape_timeout: {}s\n  \
             static_configs:\n{targets}",
            self.interval,
            self.timeout()
        )
    }
}

/// A process under test; killed when dropped.
#[derive(Debug)]
pub(crate) struct Subject {
    command: Vec<String>,
    /// For `taskset`.
    cores: String,
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
        Self::start_as((program, None), dir, sink, clock)
    }

    /// The same, and it scrapes.
    pub(crate) fn start_scraping(
        program: &Program,
        dir: TempDir,
        sink: SocketAddr,
        clock: &SharedClock,
        scrapes: &Scrapes,
    ) -> Result<Self> {
        Self::start_as((program, Some(scrapes)), dir, sink, clock)
    }

    fn start_as(
        (program, scrapes): (&Program, Option<&Scrapes>),
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
        let command = program.arguments(dir.path(), &places, scrapes)?;
        let (count, behind) = program.cores();
        let first = SUBJECT_CORE + behind;
        let cores = format!("{first}-{}", first + count - 1);
        let child = spawn(&command, &cores, dir.path())?;
        let mut subject = Self {
            command,
            cores,
            child,
            places,
            dir,
        };
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

    /// CPU seconds of its threads whose names begin so, by name.
    pub(crate) fn threads(&self, prefix: &str) -> Result<Vec<f64>> {
        thread_seconds(self.child.id(), prefix)
    }

    /// Where it stores.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The agent's own metrics.
    pub(crate) fn metrics(&self) -> Result<String> {
        page(self.places.server, "/metrics").context("fetch the subject's metrics")
    }

    /// Ends it by SIGKILL.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts the agent again after [`Self::kill`], with the same store and addresses, until it says
    /// that it is ready.
    pub(crate) fn restart(&mut self, clock: &SharedClock) -> Result<Started> {
        let log = self.dir.path().join("log");
        let told = fs::read(&log)?.len();
        let began = clock.monotonic();
        self.child = spawn(&self.command, &self.cores, self.dir.path())?;
        // First the line and then the answer: the agent takes connections before it answers, and
        // whoever waits for that does not see the line.
        let log_opened = self.poll(clock, || Ok(contains(&fs::read(&log)?[told..], LOG_OPENED)))?;
        let server = self.places.server;
        let ready = self.poll(clock, || {
            let answer = page(server, "/-/ready").unwrap_or_default();
            Ok(answer.split(' ').nth(1) == Some("200"))
        })?;
        Ok(Started {
            log_opened: log_opened - began,
            ready: ready - began,
        })
    }

    /// Looks every millisecond; when it was.
    fn poll(&mut self, clock: &SharedClock, is: impl Fn() -> Result<bool>) -> Result<Duration> {
        let deadline = clock.monotonic() + READY_DEADLINE;
        while clock.monotonic() < deadline {
            if is()? {
                return Ok(clock.monotonic());
            }
            self.check()?;
            std::thread::sleep(READY_PAUSE);
        }
        bail!("the subject is not ready: {}", self.log_tail())
    }

    /// Bytes it wrote into its log per sample, if it tells.
    pub(crate) fn log_bytes_per_sample(&self) -> Option<f64> {
        let page = self.metrics().ok()?;
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

/// How long a start took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Started {
    /// Until its log was recovered.
    pub(crate) log_opened: Duration,
    /// Until it said that it is ready.
    pub(crate) ready: Duration,
}

impl Drop for Subject {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            crate::table::print(&format!("cannot end the subject: {error}"));
        }
    }
}

fn spawn(command: &[String], cores: &str, dir: &Path) -> Result<Child> {
    let mut log = File::options();
    let log = log.create(true).append(true).open(dir.join("log"))?;
    // taskset and not a call of ours: the process must be pinned before its first thread runs, as
    // runtimes look at the cores they may use when they start.
    Command::new("taskset")
        .args(["-c", cores])
        .args(command)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("start taskset")
}

/// Name and version of the Debian package a program in `PATH` is from: Debian's vmagent does not tell
/// its own.
fn package_version(program: &Path) -> Option<String> {
    let ask = |arguments: [&str; 3]| {
        let output = Command::new("dpkg-query").args(arguments).output().ok()?;
        String::from_utf8(output.stdout).ok()
    };
    let owner = ask(["-S", "--", &format!("*/bin/{}", program.display())])?;
    let (package, _) = owner.split_once(':')?;
    ask(["-W", "-f=${Package} ${Version} of Debian", package])
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|at| at == text.as_bytes())
}

/// A free port; it stays taken as long as the listener lives.
fn free_address() -> Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_wal_block_are_in_the_configuration() {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let places = Places {
            ingest: address,
            server: address,
            sink: address,
        };
        let plain = penstock_config(&places, None, &[]);
        assert!(plain.ends_with("prometheus.remote_write \"out\" {\n}\n"));
        let lines = ["series_idle_timeout = \"2s\"".to_owned()];
        let text = penstock_config(&places, Some((&[], &[address])), &lines);
        assert!(text.contains("  wal {\n    series_idle_timeout = \"2s\"\n  }\n}\n"));
        assert_eq!(
            text.matches("url = \"http://127.0.0.1:1/api/v1/write\"")
                .count(),
            2
        );
    }

    #[test]
    fn a_line_is_found_in_a_log() {
        assert!(contains(b"ts=1 msg=\"log opened\" dir=x", LOG_OPENED));
        assert!(!contains(b"log", LOG_OPENED));
    }
}
