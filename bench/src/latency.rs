//! Turns a load below saturation into how long acks and samples take, beside how long the device takes.
//!
//! Acks, at several numbers of connections at the same rate, are judged by the sync time of the same
//! filesystem in the same run. The age of a sample is the time from its timestamp, which is when its
//! request was due, to its arrival at the sink.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::fs::{FallocateFlags, fallocate};
use wal::{SharedClock, SystemClock};

use crate::Common;
use crate::e2e::version_of;
use crate::fleet::{Fleet, SERIES_PER_REQUEST};
use crate::load::{Brought, Pace, Rate};
use crate::measure::{LOAD_CORE, SUBJECT_CORE, float, per_mille, percentile, pin_to};
use crate::scene::Scene;
use crate::series::{Protocol, Shape};
use crate::sink::Sink;
use crate::subject::Program;
use crate::table::{Table, millis, print, publish};

const CONNECTIONS: [usize; 3] = [1, 8, 32];
/// At full speed before acks are measured: until segment files are used again, which at the rate measured
/// would take minutes.
const FILES_WARM_UP: Duration = Duration::from_secs(10);
/// Load before measuring.
const WARM_UP: Duration = Duration::from_secs(3);
/// The same where only samples newer than a start that is noted late are forwarded.
const FRESH_WARM_UP: Duration = Duration::from_secs(8);
/// What is written between two syncs of the device.
const WRITE_BYTES: usize = 64 << 10;
/// Writes to a file that is allocated beforehand, as segments are.
const WRITES_PER_FILE: u64 = 1024;
/// p99 of the acks is at most twice that of the device and so much more.
const BEYOND_DEVICE: Duration = Duration::from_millis(2);
const FRESH_P50_GOAL: Duration = Duration::from_millis(10);
const FRESH_P99_GOAL: Duration = Duration::from_millis(100);
/// Of the load whose samples' ages are measured: series, each once a second, and of a request.
const FRESH_SERIES: usize = 10_000;
const FRESH_SERIES_PER_REQUEST: usize = 100;

/// The arguments of `latency`.
#[derive(Debug, clap::Args)]
#[command(
    mut_arg("connections", |connections| connections.hide(true)),
    mut_arg("seconds", |seconds| seconds.default_value("10"))
)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// The agent; by default the release build beside this bench.
    #[arg(long, value_name = "PATH")]
    agent: Option<PathBuf>,
    /// Requests per second over all connections while acks are measured.
    #[arg(long, default_value_t = 200.0)]
    rate: f64,
    /// Measure the age of samples also in vmagent and the Prometheus agent.
    #[arg(long)]
    others: bool,
}

/// Measures device, acks and ages and publishes the result.
pub(crate) fn run(options: &Options) -> Result<()> {
    let common = &options.common;
    let ours = Program::penstock(options.agent.as_deref(), true)?;
    print("the device ...");
    pin_to(SUBJECT_CORE)?;
    let clock = SystemClock::shared();
    let device = sync_times(common, &clock, None)?;
    let paced = sync_times(common, &clock, Some(Rate::steady(options.rate)))?;
    pin_to(LOAD_CORE)?;
    let fleet = Fleet::in_order(common.series)?;
    let mut acks = Vec::new();
    for connections in CONNECTIONS {
        print(&format!("acks on {connections} connections ..."));
        acks.push((
            connections,
            measure_acks(options, &ours, &fleet, connections)?,
        ));
    }
    let mut notes = options.describe();
    let mut programs = vec![ours];
    if options.others {
        programs.extend([Program::Vmagent, Program::Prometheus]);
    }
    let mut ages = Vec::new();
    for program in &programs {
        if program.version().is_none() {
            notes.push(format!("{}: not installed, skipped", program.name()));
            continue;
        }
        notes.push(version_of(program));
        print(&format!("age of samples through {} ...", program.name()));
        match measure_ages(common, program) {
            Ok(measured) => ages.push((program.name(), measured)),
            Err(error) => notes.push(format!("{}: no result: {error:#}", program.name())),
        }
    }
    let tables = [
        goals(&device, &acks, &ages),
        ack_table(
            [("device", &device), ("device, at the rate", &paced)],
            &acks,
        ),
        age_table(&ages),
    ];
    publish("Latency below saturation", &notes, &tables, common.out())
}

impl Options {
    fn describe(&self) -> Vec<String> {
        vec![
            format!(
                "acks: {} series of 11 labels, {SERIES_PER_REQUEST} per request, {} requests a second over all \
                 connections, {} s measured; with an endpoint; from when the request was due, which includes how \
                 late the load itself woke up; before that {} s at full speed, until files are used again",
                self.common.series,
                self.rate,
                self.common.seconds,
                FILES_WARM_UP.as_secs()
            ),
            format!(
                "device: {} KiB written into an allocated file, then fdatasync, on the same filesystem and core just \
                 before, one after the other; and at the rate of the requests, from when each was due: what the \
                 machine does besides is in that as it is in the acks",
                WRITE_BYTES >> 10
            ),
            format!(
                "age: {FRESH_SERIES} series, each once a second, {FRESH_SERIES_PER_REQUEST} per request, evenly \
                 over the second; from the timestamp, when the request was due, to the arrival at a sink that \
                 answers at once; by clocks of 1 ms"
            ),
        ]
    }
}

/// How long the device takes for a write and its sync, sorted: one after the other, or at a rate, counted
/// from when each was due.
fn sync_times(common: &Common, clock: &SharedClock, rate: Option<Rate>) -> Result<Vec<Duration>> {
    let dir = common.scratch()?;
    let bytes = vec![0x5a; WRITE_BYTES];
    let time = match rate {
        None => common.duration() / 3,
        Some(_) => common.duration(),
    };
    let end = clock.monotonic() + time;
    let mut times = Vec::new();
    for number in 0.. {
        let path = dir.path().join(format!("{number}"));
        let file = File::create(&path)?;
        let file_bytes = WRITES_PER_FILE * WRITE_BYTES as u64;
        fallocate(&file, FallocateFlags::empty(), 0, file_bytes).context("allocate a file")?;
        file.sync_all()?;
        let first = clock.monotonic();
        for write in 0..WRITES_PER_FILE {
            let mut began = clock.monotonic();
            if let Some(rate) = rate {
                let due = first + rate.due(write);
                std::thread::sleep(due.saturating_sub(began));
                began = due;
            }
            file.write_all_at(&bytes, write * WRITE_BYTES as u64)?;
            file.sync_data()?;
            let now = clock.monotonic();
            times.push(now - began);
            if now >= end {
                times.sort_unstable();
                return Ok(times);
            }
        }
        std::fs::remove_file(path)?;
    }
    Ok(times)
}

fn measure_acks(
    options: &Options,
    program: &Program,
    fleet: &Fleet,
    connections: usize,
) -> Result<Brought> {
    let common = Common {
        connections,
        ..options.common.clone()
    };
    let sink = Sink::start()?;
    let full = Pace::Delivered(sink.counts.clone());
    let mut scene = Scene::start(program, &common, fleet, sink, &full)?;
    let began = scene.clock.monotonic();
    scene.wait(|now| now.at >= began + FILES_WARM_UP)?;
    let pace = Pace::Rate(Rate::steady(options.rate));
    let mut scene = scene.with_load(fleet, connections, &pace)?;
    let enough = fleet.samples() * 2;
    let watched = watch(&mut scene, &common, WARM_UP, enough, |scene, is| {
        scene.load.record(is);
    });
    let ((), ended) = scene.end(watched)?;
    drop(ended.subject);
    Ok(ended.brought)
}

fn measure_ages(common: &Common, program: &Program) -> Result<Vec<Duration>> {
    let shape = Shape {
        protocol: Protocol::V1,
        is_unsorted: false,
    };
    let fleet = Fleet::shaped(shape, FRESH_SERIES, FRESH_SERIES_PER_REQUEST)?;
    let pace = Pace::Rate(Rate::steady(float(fleet.requests() as u64)));
    let mut scene = Scene::start(program, common, &fleet, Sink::start()?, &pace)?;
    let enough = fleet.samples() * 2;
    let watched = watch(&mut scene, common, FRESH_WARM_UP, enough, |scene, is| {
        scene.sink.counts.record(is);
    });
    let ((), ended) = scene.end(watched)?;
    drop(ended.subject);
    Ok(ended.sink.counts.ages())
}

/// Waits for rounds and time, then records for as long as is to be measured.
fn watch(
    scene: &mut Scene,
    common: &Common,
    warm_up: Duration,
    enough: u64,
    record: impl Fn(&Scene, bool),
) -> Result<()> {
    let began = scene.clock.monotonic();
    scene.wait(|now| now.acked >= enough && now.at >= began + warm_up)?;
    record(scene, true);
    let end = scene.clock.monotonic() + common.duration();
    scene.wait(|now| now.at >= end)?;
    record(scene, false);
    Ok(())
}

fn goals(device: &[Duration], acks: &[(usize, Brought)], ages: &[(&str, Vec<Duration>)]) -> Table {
    let mut table = Table::goals();
    let mut goal = |name: &str, wanted: Duration, result: Duration| {
        let text = format!("<= {}", millis(wanted));
        table.goal(name, text, millis(result), result <= wanted);
    };
    let wanted = percentile(device, 99) * 2 + BEYOND_DEVICE;
    for (connections, brought) in acks {
        let name = format!("ack p99, {connections} connections: twice the device's and 2 ms");
        goal(&name, wanted, percentile(&brought.latencies, 99));
    }
    if let Some((_, ours)) = ages.first() {
        goal("age of samples, p50", FRESH_P50_GOAL, percentile(ours, 50));
        goal("age of samples, p99", FRESH_P99_GOAL, percentile(ours, 99));
    }
    table
}

/// p50, p99 and p99.9.
fn percentiles(sorted: &[Duration]) -> impl Iterator<Item = String> {
    [500, 990, 999]
        .map(|share| millis(per_mille(sorted, share)))
        .into_iter()
}

fn ack_table(devices: [(&str, &[Duration]); 2], acks: &[(usize, Brought)]) -> Table {
    let mut table = Table::new([
        "ack",
        "p50",
        "p99",
        "p99.9",
        "from when sent p99",
        "the load's own lateness p99",
        "times",
    ]);
    let mut row = |name: String, sorted: &[Duration], others: [String; 2]| {
        let count = sorted.len().to_string();
        let cells = [name].into_iter().chain(percentiles(sorted)).chain(others);
        table.row(cells.chain([count]).collect());
    };
    for (name, times) in devices {
        row(name.to_owned(), times, ["-".to_owned(), "-".to_owned()]);
    }
    for (connections, brought) in acks {
        let others = [&brought.answers, &brought.woken_late];
        let others = others.map(|times| millis(percentile(times, 99)));
        row(
            format!("{connections} connections"),
            &brought.latencies,
            others,
        );
    }
    table
}

fn age_table(ages: &[(&str, Vec<Duration>)]) -> Table {
    let mut table = Table::new(["age of samples", "p50", "p99", "p99.9", "samples"]);
    for (name, sorted) in ages {
        let cells = [(*name).to_owned()].into_iter().chain(percentiles(sorted));
        table.row(cells.chain([sorted.len().to_string()]).collect());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acks_are_judged_by_the_device() {
        let ms = Duration::from_millis;
        let brought = |time| Brought {
            latencies: vec![time],
            ..Brought::default()
        };
        let acks = [(1, brought(ms(4))), (8, brought(ms(5)))];
        let table = goals(&[ms(1)], &acks, &[("penstock", vec![ms(10), ms(101)])]);
        let met: Vec<_> = table.rows()[1..].iter().map(|row| &*row[3]).collect();
        assert_eq!(met, ["yes", "no", "no", "no"]);
    }

    #[test]
    fn the_device_can_be_timed() {
        let common = Common {
            series: 1,
            seconds: 0,
            connections: 1,
            out: None,
            dir: std::env::temp_dir(),
        };
        for rate in [None, Some(Rate::steady(200.0))] {
            let times = sync_times(&common, &SystemClock::shared(), rate).unwrap();
            assert_eq!(times.len(), 1);
        }
    }
}
