//! Turns a filled store into the time until a killed agent is ready again, and its memory then.
//!
//! The store is filled through the agent, with an endpoint that does not answer, so that nothing is
//! reclaimed. What a kill leaves is read once before each start: the cache is warm.

use std::fs::{self, File};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use wal::{SharedClock, SystemClock};

use crate::Common;
use crate::e2e::version_of;
use crate::fleet::Fleet;
use crate::http::metric_sum;
use crate::load::{Load, Pace};
use crate::measure::{LOAD_CORE, Used, float, pin_to};
use crate::sink::Sink;
use crate::subject::{Program, Started, Subject};
use crate::table::{Table, mebibytes, millis, print, publish};

/// Starts that are measured.
const STARTS: usize = 3;
/// Between two looks at how full the store is.
const LOOK: Duration = Duration::from_secs(1);
/// Looks without a sample more until the load is given up.
const STUCK_LOOKS: usize = 60;
/// Without load before memory is taken.
const SETTLE: Duration = Duration::from_secs(5);
const READ_BYTES: usize = 1 << 20;
/// Bytes per series at most.
const ANONYMOUS_GOAL: f64 = 50.0;
const RESIDENT_GOAL: f64 = 450.0;

/// The arguments of `restart`.
#[derive(Debug, clap::Args)]
#[command(
    mut_arg("series", |series| series.default_value("1000000")),
    mut_arg("seconds", |seconds| seconds.hide(true))
)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// The agent; by default the release build beside this bench.
    #[arg(long, value_name = "PATH")]
    agent: Option<PathBuf>,
    /// Bytes of segments to fill the store with, in 2^30.
    #[arg(long, default_value_t = 4.0)]
    gigabytes: f64,
}

/// What the log and the directory held when the agent was killed.
struct Filled {
    log_bytes: f64,
    disk_bytes: f64,
    series: f64,
}

/// Memory at the moments of interest.
struct Memory {
    empty: Used,
    ready: Used,
    idle: Used,
    sent_again: Used,
}

/// Measures the starts and publishes the result.
pub(crate) fn run(options: &Options) -> Result<()> {
    let common = &options.common;
    let program = Program::penstock(options.agent.as_deref(), true)?;
    let clock = SystemClock::shared();
    pin_to(LOAD_CORE)?;
    // Nobody listens there once the sink is dropped.
    let endpoint = Sink::start()?.address;
    let empty = empty_agent(&program, common, endpoint, &clock)?;
    let fleet = Fleet::in_order(common.series)?;
    let mut subject = Subject::start(&program, common.scratch()?, endpoint, &clock)?;
    print("filling ...");
    let filled = fill(options, &mut subject, &fleet, &clock)?;
    let mut starts = Vec::new();
    let mut ready = Used::default();
    for _ in 0..STARTS {
        print("starting again ...");
        subject.kill()?;
        read_all(&subject.dir().join("data"))?;
        starts.push(subject.restart(&clock)?);
        ready = subject.used()?;
    }
    std::thread::sleep(SETTLE);
    let idle = subject.used()?;
    send_once(common, &mut subject, &fleet, &clock)?;
    std::thread::sleep(SETTLE);
    let memory = Memory {
        empty,
        ready,
        idle,
        sent_again: subject.used()?,
    };
    let notes = [
        options.describe(),
        "start: from spawn after SIGKILL, with the files in the page cache, until /-/ready answers \
         200; the agent on one core, the endpoint down"
            .to_owned(),
        version_of(&program),
    ];
    let tables = [
        store_table(&filled),
        start_table(&starts),
        memory_table(&memory, float(common.series as u64)),
    ];
    publish("Penstock, restart", &notes, &tables, common.out())
}

impl Options {
    fn describe(&self) -> String {
        format!(
            "load: {} series of 11 labels, {} requests in flight, until {} GiB of log",
            self.common.series, self.common.connections, self.gigabytes
        )
    }
}

/// What an agent uses that has no series.
fn empty_agent(
    program: &Program,
    common: &Common,
    endpoint: SocketAddr,
    clock: &SharedClock,
) -> Result<Used> {
    let subject = Subject::start(program, common.scratch()?, endpoint, clock)?;
    std::thread::sleep(SETTLE);
    subject.used()
}

/// Sends rounds until the log is as long as asked for.
fn fill(
    options: &Options,
    subject: &mut Subject,
    fleet: &Fleet,
    clock: &SharedClock,
) -> Result<Filled> {
    let enough = options.gigabytes * 1_073_741_824.0;
    under_load(&options.common, subject, fleet, clock, |subject, _| {
        Ok(log_bytes(&subject.metrics()?)? >= enough)
    })?;
    let page = subject.metrics()?;
    let sum = |name: &str| metric_sum(&page, name).with_context(|| format!("no {name}"));
    Ok(Filled {
        log_bytes: log_bytes(&page)?,
        disk_bytes: sum("penstock_wal_disk_bytes")?,
        series: sum("prometheus_remote_write_wal_storage_active_series")?,
    })
}

/// Sends every series at least once more.
fn send_once(
    common: &Common,
    subject: &mut Subject,
    fleet: &Fleet,
    clock: &SharedClock,
) -> Result<()> {
    // A connection may be some requests ahead of another: the second round makes up for it.
    let enough = 2 * u64::try_from(common.series)?;
    under_load(
        common,
        subject,
        fleet,
        clock,
        |_, acked| Ok(acked >= enough),
    )
}

/// Sends as fast as acknowledged until something is so.
fn under_load(
    common: &Common,
    subject: &mut Subject,
    fleet: &Fleet,
    clock: &SharedClock,
    is_enough: impl Fn(&Subject, u64) -> Result<bool>,
) -> Result<()> {
    let target = subject.ingest();
    let load = Load::start(target, fleet, common.connections, &Pace::Closed, clock)?;
    let watched = watch(subject, &load, is_enough);
    load.finish().map(drop).and(watched)
}

fn watch(
    subject: &mut Subject,
    load: &Load,
    is_enough: impl Fn(&Subject, u64) -> Result<bool>,
) -> Result<()> {
    let (mut before, mut stuck) = (0, 0);
    loop {
        std::thread::sleep(LOOK);
        subject.check()?;
        let acked = load.progress.acked.load(Ordering::Relaxed);
        if is_enough(subject, acked)? {
            return Ok(());
        }
        stuck = if acked > before { 0 } else { stuck + 1 };
        if stuck > STUCK_LOOKS || load.is_broken() {
            bail!("the agent takes no more: is the disk full?");
        }
        before = acked;
    }
}

fn log_bytes(page: &str) -> Result<f64> {
    let sum = |name: &str| metric_sum(page, name).with_context(|| format!("no {name}"));
    Ok(sum("penstock_wal_appended_position")? - sum("penstock_wal_reclaimed_position")?)
}

/// Reads every file below a directory, so that it is in the page cache.
fn read_all(dir: &Path) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            read_all(&path)?;
            continue;
        }
        let mut file = File::open(path)?;
        while file.read(&mut buffer)? > 0 {}
    }
    Ok(())
}

fn store_table(filled: &Filled) -> Table {
    let mut table = Table::new(["store", "result"]);
    for (name, value) in [
        ("log", mebibytes(filled.log_bytes)),
        ("disk taken", mebibytes(filled.disk_bytes)),
        ("series", format!("{:.0}", filled.series)),
    ] {
        table.row(vec![name.to_owned(), value]);
    }
    table
}

fn start_table(starts: &[Started]) -> Table {
    let mut table = Table::new(["start", "log opened", "from there to ready", "ready"]);
    let mut row = |name: String, start: &Started| {
        let rest = start.ready.saturating_sub(start.log_opened);
        table.row(vec![
            name,
            millis(start.log_opened),
            millis(rest),
            millis(start.ready),
        ]);
    };
    for (number, start) in (1..).zip(starts) {
        row(format!("{number}"), start);
    }
    if let Some(median) = median(starts) {
        row("median".to_owned(), &median);
    }
    table
}

/// The start that as many were faster than slower.
fn median(starts: &[Started]) -> Option<Started> {
    let mut sorted = starts.to_vec();
    sorted.sort_by_key(|start| start.ready);
    sorted.get(sorted.len() / 2).copied()
}

fn memory_table(memory: &Memory, series: f64) -> Table {
    let mut table = Table::new([
        "memory",
        "anonymous",
        "resident",
        "anonymous per series",
        "resident per series",
    ]);
    for (name, used) in [
        ("agent without series", memory.empty),
        ("ready", memory.ready),
        ("5 s later", memory.idle),
        ("all series sent again, 5 s later", memory.sent_again),
    ] {
        table.row(vec![
            name.to_owned(),
            mebibytes(used.anonymous_bytes),
            mebibytes(used.resident_bytes),
            format!("{:.0} B", used.anonymous_bytes / series),
            format!("{:.0} B", used.resident_bytes / series),
        ]);
    }
    table.row(vec![
        "goal, at most".to_owned(),
        String::new(),
        String::new(),
        format!("{ANONYMOUS_GOAL:.0} B"),
        format!("{RESIDENT_GOAL:.0} B"),
    ]);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_a_start_that_was() {
        let start = |ms| Started {
            log_opened: Duration::from_millis(ms - 1),
            ready: Duration::from_millis(ms),
        };
        let median = median(&[start(30), start(10), start(20)]).unwrap();
        assert_eq!(median.ready, Duration::from_millis(20));
        assert_eq!(median.log_opened, Duration::from_millis(19));
    }

    #[test]
    fn the_log_is_what_was_appended_and_not_reclaimed() {
        let page = "penstock_wal_appended_position{a=\"1\"} 500\npenstock_wal_reclaimed_position{a=\"1\"} 200\n";
        assert!((log_bytes(page).unwrap() - 300.0).abs() < 1e-9);
        assert!(log_bytes("").is_err());
    }

    #[test]
    fn files_are_read_in_all_directories() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        fs::write(dir.path().join("a/b"), "x").unwrap();
        read_all(dir.path()).unwrap();
        assert!(read_all(&dir.path().join("none")).is_err());
    }
}
