//! Turns this very program into an agent process that can be started, killed and measured.
//!
//! # Invariants
//! - No agent outlives the demo: whatever ends it, dropping the [`Agent`] kills the process.
//! - What a process had used is read before it is ended, and summed over all of them.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::client::{Client, metric_sum};

/// How long a scrape of the agent's own metrics may take.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(2);
/// How much of the agent's log an error shows.
const LOG_LINES_SHOWN: usize = 20;

/// What agent processes have used and done.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Usage {
    /// User and system time.
    pub(super) cpu_seconds: f64,
    /// Bytes of frames written, if the agent said so.
    pub(super) written_bytes: Option<f64>,
    /// Samples in those frames, if the agent said so.
    pub(super) written_samples: Option<f64>,
}

/// Memory of a process.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Memory {
    /// All resident bytes, with mapped files.
    pub(super) resident_bytes: u64,
    /// Resident bytes no file stands behind.
    pub(super) anonymous_bytes: u64,
}

/// How far the agent says it is behind.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Lag {
    /// Bytes of the log.
    pub(super) bytes: Option<f64>,
    /// Age of the oldest sample not delivered.
    pub(super) seconds: Option<f64>,
}

/// The agent: its files, its addresses, and its process while it runs.
#[derive(Debug)]
pub(super) struct Agent {
    dir: PathBuf,
    ingest: SocketAddr,
    server: SocketAddr,
    child: Option<Child>,
    usage: Usage,
}

impl Agent {
    /// Writes the configuration into `dir`; nothing runs yet.
    pub(super) fn new(dir: &Path, backend: SocketAddr) -> Result<Self> {
        let [ingest, server] = free_addresses()?;
        fs::write(dir.join("config.alloy"), configuration(ingest, backend))
            .with_context(|| format!("write a configuration into {}", dir.display()))?;
        Ok(Self {
            dir: dir.to_owned(),
            ingest,
            server,
            child: None,
            usage: Usage::default(),
        })
    }

    /// Where it takes remote-write requests.
    pub(super) const fn ingest(&self) -> SocketAddr {
        self.ingest
    }

    /// Starts a process.
    pub(super) fn start(&mut self) -> Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .context("open the agent's log")?;
        let program = std::env::current_exe().context("find this program")?;
        let mut command = Command::new(program);
        command
            .arg("run")
            .arg(self.dir.join("config.alloy"))
            .arg(format!(
                "--storage.path={}",
                self.dir.join("data").display()
            ))
            .arg(format!("--server.http.listen-addr={}", self.server))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C is for the demo; it stops the agent itself.
            .process_group(0);
        self.child = Some(command.spawn().context("start the agent")?);
        Ok(())
    }

    /// Whether it takes connections; fails if it ended instead.
    pub(super) fn is_listening(&mut self) -> Result<bool> {
        self.check()?;
        let connected = TcpStream::connect_timeout(&self.ingest, SCRAPE_TIMEOUT);
        Ok(connected.is_ok_and(|stream| stream.local_addr().is_ok_and(|own| own != self.ingest)))
    }

    /// Fails if the process ended though nobody asked it to.
    pub(super) fn check(&mut self) -> Result<()> {
        let Some(child) = &mut self.child else {
            return Ok(());
        };
        if let Some(status) = child.try_wait()? {
            self.child = None;
            bail!("the agent ended by itself ({status})\n{}", self.log_tail());
        }
        Ok(())
    }

    /// Ends the process with SIGKILL.
    pub(super) fn kill(&mut self) -> Result<()> {
        self.note_usage()?;
        let mut child = self.child.take().context("no agent runs")?;
        kill_process(pid_of(&child)?, Signal::KILL)?;
        child.wait()?;
        Ok(())
    }

    /// Asks the process to end, with SIGTERM.
    pub(super) fn terminate(&mut self) -> Result<()> {
        self.note_usage()?;
        let child = self.child.as_ref().context("no agent runs")?;
        Ok(kill_process(pid_of(child)?, Signal::TERM)?)
    }

    /// How the process ended; `None` while it runs.
    pub(super) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let child = self.child.as_mut().context("no agent runs")?;
        let status = child.try_wait()?;
        if status.is_some() {
            self.child = None;
        }
        Ok(status)
    }

    /// What the processes that were ended had used.
    pub(super) const fn usage(&self) -> Usage {
        self.usage
    }

    /// The memory of the running process.
    pub(super) fn memory(&self) -> Result<Memory> {
        let child = self.child.as_ref().context("no agent runs")?;
        let status = fs::read_to_string(format!("/proc/{}/status", child.id()))?;
        Ok(memory_in(&status))
    }

    /// How far the agent says it is behind; empty if it does not answer.
    pub(super) fn lag(&self) -> Lag {
        let page = self.metrics().unwrap_or_default();
        Lag {
            bytes: metric_sum(&page, "penstock_endpoint_lag_bytes"),
            seconds: metric_sum(&page, "penstock_endpoint_lag_seconds"),
        }
    }

    /// The end of the agent's log.
    pub(super) fn log_tail(&self) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = text.lines().collect();
        let first = lines.len().saturating_sub(LOG_LINES_SHOWN);
        format!(
            "the end of its log:\n{}",
            lines.get(first..).unwrap_or_default().join("\n")
        )
    }

    fn log(&self) -> PathBuf {
        self.dir.join("agent.log")
    }

    fn metrics(&self) -> Option<String> {
        Client::new(self.server, SCRAPE_TIMEOUT)
            .page("/metrics")
            .ok()
    }

    fn note_usage(&mut self) -> Result<()> {
        let child = self.child.as_ref().context("no agent runs")?;
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.id()))?;
        self.usage.cpu_seconds += cpu_seconds_in(&stat).context("read the agent's CPU time")?;
        let page = self.metrics().unwrap_or_default();
        let bytes = metric_sum(&page, "penstock_wal_written_bytes_total");
        let samples = metric_sum(&page, "penstock_wal_samples_total");
        for (sum, number) in [
            (&mut self.usage.written_bytes, bytes),
            (&mut self.usage.written_samples, samples),
        ] {
            if let Some(number) = number {
                *sum.get_or_insert(0.0) += number;
            }
        }
        Ok(())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child
            && let Err(error) = child.kill().and_then(|()| child.wait())
        {
            tracing::error!(%error, "cannot end the agent");
        }
    }
}

fn configuration(ingest: SocketAddr, backend: SocketAddr) -> String {
    format!(
        r#"prometheus.receive_http "in" {{
  http {{
    listen_address = "{}"
    listen_port    = {}
  }}
  forward_to = [prometheus.remote_write.out.receiver]
}}

prometheus.remote_write "out" {{
  endpoint {{
    url = "http://{backend}/api/v1/write"
  }}
}}
"#,
        ingest.ip(),
        ingest.port()
    )
}

/// Two different ports that are free now.
fn free_addresses() -> Result<[SocketAddr; 2]> {
    let first = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
    let second = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
    Ok([first.local_addr()?, second.local_addr()?])
}

fn pid_of(child: &Child) -> Result<Pid> {
    let raw = i32::try_from(child.id())?;
    Pid::from_raw(raw).context("a process has a number")
}

/// User and system time from `/proc/PID/stat`.
fn cpu_seconds_in(stat: &str) -> Option<f64> {
    // The name, in parentheses, may hold anything; the fields are counted from behind it.
    let (_, behind) = stat.rsplit_once(')')?;
    let mut fields = behind.split_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    let ticks_per_second = u32::try_from(rustix::param::clock_ticks_per_second()).ok()?;
    Some(f64::from(user + system) / f64::from(ticks_per_second))
}

/// Resident bytes from `/proc/PID/status`.
fn memory_in(status: &str) -> Memory {
    let kibibytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    Memory {
        resident_bytes: kibibytes("VmRSS:").unwrap_or(0) * 1024,
        anonymous_bytes: kibibytes("RssAnon:").unwrap_or(0) * 1024,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_read() {
        let stat = "42 (a b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20";
        let ticks = f64::from(u32::try_from(rustix::param::clock_ticks_per_second()).unwrap());
        assert_eq!(cpu_seconds_in(stat), Some(200.0 / ticks));
        assert_eq!(cpu_seconds_in("42 (a) S 1"), None);
        let memory = memory_in("Name:\ta\nVmRSS:\t  12 kB\nRssAnon:\t 5 kB\n");
        assert_eq!(memory.resident_bytes, 12 * 1024);
        assert_eq!(memory.anonymous_bytes, 5 * 1024);
    }

    #[test]
    fn the_configuration_is_valid() {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 9009));
        let text = configuration(address, address);
        assert!(text.contains("listen_port    = 9009"));
        config::parse("config.alloy", &text).unwrap();
    }
}
