//! Turns an outage into how fast its backlog is sent afterwards, and in how many bytes.
//!
//! The subject takes its load while nobody listens at the endpoint; then the sink is there. Time counts
//! from the first sample that arrives, as subjects wait for different times before they try again.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, bail};
use wal::{SharedClock, SystemClock};

use crate::Common;
use crate::e2e::version_of;
use crate::fleet::Fleet;
use crate::load::{Load, Pace};
use crate::measure::{LOAD_CORE, Used, float, pin_to};
use crate::sink::Sink;
use crate::subject::{Program, Subject};
use crate::table::{Table, mebibytes, millions, print, publish, times};

const LOOK: Duration = Duration::from_millis(5);
/// Without a sample more the drain is given up.
const STUCK: Duration = Duration::from_secs(60);
const RATE_GOAL: f64 = 2.0;
const BYTES_GOAL: f64 = 2.5;

/// The arguments of `drain`.
#[derive(Debug, clap::Args)]
#[command(mut_arg("seconds", |seconds| seconds.hide(true)))]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// The agent; by default the release build beside this bench.
    #[arg(long, value_name = "PATH")]
    agent: Option<PathBuf>,
    /// How many samples of each series come during the outage: 40 are ten minutes of one per 15 s.
    #[arg(long, default_value_t = 40)]
    rounds: u32,
}

/// How one subject did.
pub(crate) struct Drained {
    samples: f64,
    bytes: f64,
    seconds: f64,
    cpu_seconds: f64,
    /// When it was over.
    used: Used,
}

impl Drained {
    pub(crate) fn per_core_second(&self) -> f64 {
        self.samples / self.cpu_seconds
    }

    pub(crate) fn bytes_per_sample(&self) -> f64 {
        self.bytes / self.samples
    }
}

/// Measures the drains and publishes the result.
pub(crate) fn run(options: &Options) -> Result<()> {
    let common = &options.common;
    let penstock = Program::penstock(options.agent.as_deref(), true)?;
    let plain = penstock
        .clone()
        .with_endpoint("drain {\n      read_ahead = 0\n    }");
    let mut subjects = vec![("as it comes", plain), ("read ahead", penstock)];
    if Program::Vmagent.version().is_some() {
        subjects.push(("vmagent", Program::Vmagent));
    }
    let clock = SystemClock::shared();
    pin_to(LOAD_CORE)?;
    let fleet = Fleet::in_order(common.series)?;
    let mut notes = vec![options.describe()];
    let mut results = Vec::new();
    for (name, program) in &subjects {
        print(&format!("{name} ..."));
        notes.push(version_of(program));
        let drained = drain(common, options.rounds, program, &fleet, &clock)?;
        results.push((*name, drained));
    }
    let tables = [goals(&results[0].1, &results[1].1), details(&results)];
    publish("Penstock, drain", &notes, &tables, common.out())
}

impl Options {
    fn describe(&self) -> String {
        format!(
            "load: {} series of 11 labels, {} samples each while nobody listens at the endpoint, as fast \
             as they are acknowledged; subject on one core, load and sink on another",
            self.common.series, self.rounds
        )
    }
}

/// Fills `program` while nobody listens at its endpoint, and watches it deliver.
pub(crate) fn drain(
    common: &Common,
    rounds: u32,
    program: &Program,
    fleet: &Fleet,
    clock: &SharedClock,
) -> Result<Drained> {
    let address = Sink::start()?.address;
    let mut subject = Subject::start(program, common.scratch()?, address, clock)?;
    let target = subject.ingest();
    let load = Load::start(target, fleet, common.connections, &Pace::Closed, clock)?;
    let enough = u64::from(rounds) * u64::try_from(common.series)?;
    while load.progress.acked.load(Ordering::Relaxed) < enough && !load.is_broken() {
        std::thread::sleep(LOOK);
    }
    let progress = load.progress.clone();
    load.finish()?;
    let samples = progress.acked.load(Ordering::Relaxed);
    let sink = Sink::start_at(address)?;
    let arrived = || sink.counts.samples.load(Ordering::Relaxed);
    wait(clock, &arrived, 1)?;
    let (began, before) = (clock.monotonic(), subject.used()?);
    let (early, early_bytes) = (arrived(), sink.counts.body_bytes.load(Ordering::Relaxed));
    wait(clock, &arrived, samples)?;
    let (ended, used) = (clock.monotonic(), subject.used()?);
    let bytes = sink.counts.body_bytes.load(Ordering::Relaxed) - early_bytes;
    subject.check()?;
    subject.stop(clock)?;
    Ok(Drained {
        samples: float(samples - early),
        bytes: float(bytes),
        seconds: (ended - began).as_secs_f64(),
        cpu_seconds: used.cpu_seconds - before.cpu_seconds,
        used,
    })
}

/// Until so many samples have arrived.
fn wait(clock: &SharedClock, arrived: &impl Fn() -> u64, samples: u64) -> Result<()> {
    let (mut last, mut since) = (0, clock.monotonic());
    loop {
        let now = arrived();
        if now >= samples {
            return Ok(());
        }
        if now > last {
            (last, since) = (now, clock.monotonic());
        }
        if clock.monotonic() - since > STUCK {
            bail!("only {now} of {samples} samples arrive");
        }
        std::thread::sleep(LOOK);
    }
}

/// What is wanted of reading ahead and what is.
fn goals(plain: &Drained, ahead: &Drained) -> Table {
    let mut table = Table::goals();
    let rate = ahead.per_core_second() / plain.per_core_second();
    let bytes = plain.bytes_per_sample() / ahead.bytes_per_sample();
    for (name, wanted, result) in [
        (
            "samples per core-second, of those sent as they come",
            RATE_GOAL,
            rate,
        ),
        (
            "bytes per sample as they come, of those read ahead",
            BYTES_GOAL,
            bytes,
        ),
    ] {
        table.goal(
            name,
            format!(">= {wanted:.1} x"),
            times(result),
            result >= wanted,
        );
    }
    table
}

fn details(results: &[(&str, Drained)]) -> Table {
    let mut table = Table::new([
        "sent",
        "samples",
        "seconds",
        "samples/s",
        "samples/core-s",
        "B/sample",
        "anonymous memory",
    ]);
    for (name, drained) in results {
        table.row(vec![
            (*name).to_owned(),
            millions(drained.samples),
            format!("{:.2}", drained.seconds),
            millions(drained.samples / drained.seconds),
            millions(drained.per_core_second()),
            format!("{:.1}", drained.bytes_per_sample()),
            mebibytes(drained.used.anonymous_bytes),
        ]);
    }
    table
}
