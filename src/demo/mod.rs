//! Turns an empty directory into evidence: load, an outage, a SIGKILL, and a count of what arrived.
//!
//! The main job of the agent on an embedded default, with no other program: a backend that checks
//! every sample, a load that repeats every request until it is acknowledged, and between them this
//! very program as an agent process. While the backend is away, the agent is killed and started
//! again on the same store.
//!
//! | file | turns |
//! |---|---|
//! | `fleet` | a number of series into labels and requests |
//! | `load` | requests into acknowledgements |
//! | `agent` | this program into a process that is started, killed, measured |
//! | `backend` | requests into checked samples |
//! | `check` | samples into a verdict; `wire` reads them |
//! | `client` | a request into an answer |
//! | `progress` | the state into bars or lines |
//! | `report` | the numbers into a table |
//! | `scratch` | a wish into a directory |
//!
//! # Failure
//! - Whatever ends the demo, also Ctrl-C: the agent process is ended, and the directory is removed
//!   unless it is to be kept.

mod agent;
mod backend;
mod check;
mod client;
mod fleet;
mod load;
mod progress;
mod report;
mod scratch;
mod wire;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use wal::{SharedClock, SystemClock};

use crate::run::parse_duration;
use agent::{Agent, Lag};
use backend::Backend;
use check::Checker;
use fleet::{Fleet, STEP_MS};
use load::Load;
use progress::{Progress, State, print_line};
use report::Report;
use scratch::Scratch;

/// How often the state is looked at.
const TICK: Duration = Duration::from_millis(100);
/// How often the agent is asked how far it is behind.
const LAG_INTERVAL: Duration = Duration::from_millis(500);
/// Longest wait for an agent that starts, and for one that stops.
const AGENT_DEADLINE: Duration = Duration::from_secs(30);
/// Longest wait until everything begun is acknowledged.
const ACK_DEADLINE: Duration = Duration::from_secs(30);
/// How long the backlog may stay as it is before what is left of it counts as missing: well beyond
/// the agent's longest pause between attempts.
const STALL_DEADLINE: Duration = Duration::from_secs(15);

/// What may be set.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    /// How long load is generated
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    pub(crate) duration: Duration,
    /// How many series
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..=5_000_000))]
    pub(crate) series: u32,
    /// How long the backend is away
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub(crate) outage: Duration,
    /// Where to store and to leave everything, instead of in a temporary directory
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
}

/// Runs the demo; the code tells whether what was promised was kept.
///
/// # Errors
/// Something the demo needs did not work: a port, a process, a directory, a signal to end.
pub(crate) fn run(options: Options) -> Result<ExitCode> {
    let scratch = Scratch::create(options.keep.as_deref())?;
    let mut demo = Demo::start(options, scratch.path())?;
    demo.load_through_an_outage()?;
    demo.finish_load()?;
    demo.drain()?;
    let report = demo.stop_and_report()?;
    drop(demo);
    print_line("");
    for line in report.lines() {
        print_line(&line);
    }
    print_line("");
    if scratch.is_kept() {
        print_line(&format!("everything is in {}", scratch.path().display()));
    }
    let faults = report.faults();
    for fault in &faults {
        print_line(&format!("FAILED: {fault}"));
    }
    if faults.is_empty() {
        print_line("nothing that was acknowledged is missing, and everything came in order");
        Ok(ExitCode::SUCCESS)
    } else {
        Ok(ExitCode::FAILURE)
    }
}

/// Everything that runs. The fields are dropped in this order: first the agent, whose end frees
/// the load from waiting for answers.
struct Demo {
    agent: Agent,
    load: Load,
    backend: Backend,
    progress: Progress,
    options: Options,
    clock: SharedClock,
    /// When the load began.
    start: Duration,
    lag: (Duration, Lag),
}

impl Demo {
    /// Starts backend, agent and load.
    fn start(options: Options, dir: &Path) -> Result<Self> {
        let clock = SystemClock::shared();
        let fleet = Arc::new(Fleet::new(options.series, clock.unix_ms()));
        let backend = Backend::start(Checker::new(fleet.clone()))?;
        let mut agent = Agent::new(dir, backend.address())?;
        agent.start()?;
        wait_until_listening(&mut agent, &backend, &clock)?;
        let load = Load::start(agent.ingest(), fleet, clock.clone())?;
        let start = clock.monotonic();
        let mut progress = Progress::start(expected_samples(&options))?;
        let text = format!("load: {} series, every {STEP_MS} ms", options.series);
        progress.phase(Duration::ZERO, &text)?;
        Ok(Self {
            agent,
            load,
            backend,
            progress,
            options,
            clock,
            start,
            lag: (Duration::ZERO, Lag::default()),
        })
    }

    /// A third of the load, the backend gone, the agent killed, the backend back, the rest.
    fn load_through_an_outage(&mut self) -> Result<()> {
        let Options {
            duration, outage, ..
        } = self.options;
        let down_at = duration / 3;
        self.wait_for(down_at)?;
        self.backend.go_down();
        self.phase("backend down: connections are refused, the agent stores")?;
        self.wait_for(down_at + outage / 2)?;
        self.agent.kill()?;
        self.phase("agent killed with SIGKILL")?;
        self.agent.start()?;
        let killed_at = self.elapsed();
        wait_until_listening(&mut self.agent, &self.backend, &self.clock)?;
        let took = self.elapsed().saturating_sub(killed_at);
        self.phase(&format!(
            "agent started again on the same store, ready after {} ms; backend still down",
            took.as_millis()
        ))?;
        self.wait_for(down_at + outage)?;
        self.backend.come_back();
        self.phase("backend up again: the agent delivers what it stored")?;
        self.wait_for(duration)
    }

    fn finish_load(&mut self) -> Result<()> {
        self.load.finish();
        self.phase("load ended")?;
        let deadline = self.elapsed() + ACK_DEADLINE;
        while !self.load.is_finished() {
            if self.elapsed() > deadline {
                bail!("requests were not acknowledged\n{}", self.agent.log_tail());
            }
            self.tick()?;
        }
        Ok(())
    }

    /// Waits until everything acknowledged has arrived. If nothing comes any more, that is a
    /// finding, not an error: the report says how much is missing.
    fn drain(&mut self) -> Result<()> {
        let mut last = (self.elapsed(), u64::MAX);
        loop {
            let missing = self.missing();
            if missing == 0 {
                return self.phase("everything acknowledged has been delivered");
            }
            if missing < last.1 {
                last = (self.elapsed(), missing);
            }
            if self.elapsed() > last.0 + STALL_DEADLINE {
                return self.phase("something acknowledged is not delivered any more");
            }
            self.tick()?;
        }
    }

    fn stop_and_report(&mut self) -> Result<Report> {
        let memory = self.agent.memory()?;
        self.agent.terminate()?;
        self.phase("agent asked to stop with SIGTERM")?;
        let deadline = self.elapsed() + AGENT_DEADLINE;
        let agent_fault = loop {
            match self.agent.ended()? {
                Some(status) if status.success() => break None,
                Some(status) => {
                    let tail = self.agent.log_tail();
                    break Some(format!("the agent stopped with {status}; {tail}"));
                }
                None if self.elapsed() > deadline => {
                    break Some("the agent did not stop".to_owned());
                }
                None => std::thread::sleep(TICK),
            }
        };
        Ok(Report {
            sent: self.load.sent(),
            received: self.backend.received(),
            missing: self.missing(),
            usage: self.agent.usage(),
            memory,
            series: self.options.series,
            agent_fault,
        })
    }

    fn missing(&self) -> u64 {
        self.backend
            .missing(|series| self.load.acked_sequence(series))
    }

    fn elapsed(&self) -> Duration {
        self.clock.monotonic().saturating_sub(self.start)
    }

    fn phase(&mut self, text: &str) -> Result<()> {
        self.progress.phase(self.elapsed(), text)
    }

    /// Waits until the load has run for so long.
    fn wait_for(&mut self, at: Duration) -> Result<()> {
        while self.elapsed() < at {
            self.tick()?;
        }
        Ok(())
    }

    /// Shows how it goes, makes sure that all parts still work, and waits a moment.
    fn tick(&mut self) -> Result<()> {
        let now = self.elapsed();
        if now >= self.lag.0 + LAG_INTERVAL {
            self.lag = (now, self.agent.lag());
        }
        let state = State {
            acked: self.load.sent().acked,
            delivered: self.backend.received().counts.delivered,
            lag: self.lag.1,
        };
        self.progress.show(now, state);
        self.backend.check()?;
        self.load.check()?;
        self.agent.check()?;
        std::thread::sleep(TICK);
        Ok(())
    }
}

/// How many samples the load will send if nothing holds it up.
fn expected_samples(options: &Options) -> u64 {
    let steps = options.duration.as_millis() / u128::from(STEP_MS);
    u64::from(options.series) * u64::try_from(steps).unwrap_or(u64::MAX)
}

fn wait_until_listening(agent: &mut Agent, backend: &Backend, clock: &SharedClock) -> Result<()> {
    let deadline = clock.monotonic() + AGENT_DEADLINE;
    while !agent.is_listening().context("start the agent")? {
        backend.check()?;
        if clock.monotonic() > deadline {
            bail!("the agent does not listen\n{}", agent.log_tail());
        }
        std::thread::sleep(TICK / 10);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_negative_ones_refused() {
        assert_eq!(parse_duration("1m"), Ok(Duration::from_secs(60)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1_500)));
        assert!(parse_duration("-1s").is_err());
        assert!(parse_duration("soon").is_err());
    }
}
