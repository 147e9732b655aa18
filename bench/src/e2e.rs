//! Turns a subject under load into numbers: samples per core-second, latency, bytes, memory.
//!
//! The subject has one core, load and sink have the other. What counts is the subject's own CPU
//! time, so the figures hold also where the load, or the device, was the slower part.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::Common;
use crate::fleet::Fleet;
use crate::limit;
use crate::load::{Brought, Pace};
use crate::measure::{LOAD_CORE, float, percentile, pin_to, process_cpu};
use crate::scene::{Ended, Moment, Scene};
use crate::sink::Sink;
use crate::subject::Program;
use crate::table::{Table, millions, millis, publish};

/// Rounds before measuring: define, learn the order, settle.
const WARM_UP_ROUNDS: u64 = 3;
/// Time before measuring, behind those rounds: until segment files are used again.
const WARM_UP: Duration = Duration::from_secs(10);

/// The arguments of `e2e`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// The agent; by default the release build beside this bench.
    #[arg(long, value_name = "PATH")]
    agent: Option<PathBuf>,
    /// Deliver by remote write 2.0.
    #[arg(long)]
    v2: bool,
}

/// What one subject did in the time measured.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    /// Delivered, or acknowledged where nothing is delivered.
    pub(crate) samples: f64,
    /// How long was measured.
    pub(crate) seconds: f64,
    /// CPU time of the subject.
    pub(crate) cpu_seconds: f64,
    /// Median of the answer times.
    pub(crate) latency_p50: Duration,
    /// 99th percentile of the answer times.
    pub(crate) latency_p99: Duration,
    /// Body bytes per sample in.
    pub(crate) wire_in: f64,
    /// Body bytes per sample out; NaN where nothing is delivered.
    pub(crate) wire_out: f64,
    /// Bytes per sample written to the log, if told.
    pub(crate) log_bytes: Option<f64>,
    /// Bytes per sample the kernel wrote for it.
    pub(crate) device_bytes: f64,
    /// Resident bytes no file stands behind.
    pub(crate) anonymous_total: f64,
    /// Resident bytes per series no file stands behind.
    pub(crate) anonymous: f64,
    /// Resident bytes per series.
    pub(crate) resident: f64,
    /// CPU of generating, per sample, in ns.
    pub(crate) load_ns: f64,
    /// CPU of the sink, per sample, in ns.
    pub(crate) sink_ns: f64,
    /// Requests refused by 429 or 5xx.
    pub(crate) refused: u64,
    /// CPU seconds of its ingest threads since its start.
    pub(crate) ingest_threads: Vec<f64>,
    /// Whether it stopped in time and without an error.
    pub(crate) stopped_well: bool,
}

impl Measured {
    /// The figure everything is about.
    pub(crate) fn per_core_second(&self) -> f64 {
        self.samples / self.cpu_seconds
    }
}

/// Measures the agent and publishes the result.
pub(crate) fn run(options: &Options) -> Result<()> {
    let common = &options.common;
    let mut program = Program::penstock(options.agent.as_deref(), true)?;
    if options.v2 {
        program = program.by_v2();
    }
    let fleet = Fleet::in_order(common.series)?;
    let limit = limit::per_core_second(common, &fleet)?;
    pin_to(LOAD_CORE)?;
    let measured = measure(&program, common, &fleet)?;
    let protocol = if options.v2 { ", remote write 2.0" } else { "" };
    let mut table = Table::new(["what", "result"]);
    for (name, value) in rows(&measured) {
        table.row(vec![name.to_owned(), value]);
    }
    table.row(vec![
        "limit, samples per core-second".to_owned(),
        millions(limit),
    ]);
    let share = measured.per_core_second() / limit;
    table.row(vec!["of the limit".to_owned(), format!("{share:.2} x")]);
    let notes = [common.describe(), setting(), version_of(&program)];
    publish(
        &format!("Penstock, ingest and ship{protocol}"),
        &notes,
        &[table],
        common.out(),
    )
}

/// How the cores are used.
pub(crate) fn setting() -> String {
    "subject on one core, load and sink on another; samples per core-second is by the CPU time \
     (user and system) of the subject with all its threads; what the kernel does on the other core \
     or in threads of its own (receiving over loopback, the journal) is not in it, for anybody"
        .to_owned()
}

/// A line with the version of a program.
pub(crate) fn version_of(program: &Program) -> String {
    let version = program.version().unwrap_or_default();
    format!("{}: {version}", program.name())
}

/// The numbers with their names.
pub(crate) fn rows(measured: &Measured) -> Vec<(&'static str, String)> {
    let bytes = |value: f64| {
        if value.is_nan() {
            "-".to_owned()
        } else {
            format!("{value:.1}")
        }
    };
    vec![
        (
            "samples per core-second",
            millions(measured.per_core_second()),
        ),
        (
            "samples per second",
            millions(measured.samples / measured.seconds),
        ),
        (
            "CPU of the subject",
            format!("{:.0} %", measured.cpu_seconds / measured.seconds * 100.0),
        ),
        ("ack latency p50", millis(measured.latency_p50)),
        ("ack latency p99", millis(measured.latency_p99)),
        ("wire bytes per sample in", bytes(measured.wire_in)),
        ("wire bytes per sample out", bytes(measured.wire_out)),
        (
            "log bytes per sample",
            bytes(measured.log_bytes.unwrap_or(f64::NAN)),
        ),
        ("device bytes per sample", bytes(measured.device_bytes)),
        (
            "memory, anonymous",
            format!("{:.0} MiB", measured.anonymous_total / 1048576.0),
        ),
        (
            "anonymous bytes per series",
            format!("{:.0}", measured.anonymous),
        ),
        (
            "resident bytes per series",
            format!("{:.0}", measured.resident),
        ),
        ("load, ns per sample", format!("{:.0}", measured.load_ns)),
        ("sink, ns per sample", format!("{:.0}", measured.sink_ns)),
        ("requests refused (429, 5xx)", measured.refused.to_string()),
        ("stopped in order", measured.stopped_well.to_string()),
    ]
}

/// Runs `program` under load and measures it.
pub(crate) fn measure(program: &Program, common: &Common, fleet: &Fleet) -> Result<Measured> {
    let sink = Sink::start()?;
    let pace = if program.ships() {
        Pace::Delivered(sink.counts.clone())
    } else {
        Pace::Closed
    };
    let scene = Scene::start(program, common, fleet, sink, &pace)?;
    measure_scene(scene, program, common)
}

/// Measures a scene that has just begun, and ends it.
pub(crate) fn measure_scene(
    mut scene: Scene,
    program: &Program,
    common: &Common,
) -> Result<Measured> {
    let bench_cpu = process_cpu();
    let watched = watch(&mut scene, program, common);
    let clock = scene.clock.clone();
    let ((start, end), ended) = scene.end(watched)?;
    let Ended {
        subject,
        sink,
        progress,
        brought,
    } = ended;
    let others_cpu = process_cpu().saturating_sub(bench_cpu + brought.cpu);
    let acked = float(progress.acked.load(Ordering::Relaxed));
    let malformed = sink.counts.malformed.load(Ordering::Relaxed);
    if malformed > 0 {
        bail!("the sink could not read {malformed} requests");
    }
    let mut measured = evaluate(program, common, &start, &end, &brought);
    measured.log_bytes = subject.log_bytes_per_sample();
    measured.refused = progress.refused.load(Ordering::Relaxed);
    measured.load_ns = brought.cpu.as_secs_f64() / acked * 1e9;
    measured.sink_ns = others_cpu.as_secs_f64() / acked * 1e9;
    measured.ingest_threads = subject.threads("ingest-")?;
    measured.stopped_well = subject.stop(&clock)?;
    Ok(measured)
}

/// Waits for the warm-up and then for the time to measure.
fn watch(scene: &mut Scene, program: &Program, common: &Common) -> Result<(Moment, Moment)> {
    let enough = WARM_UP_ROUNDS * u64::try_from(common.series)?;
    let warm = scene.warm_up(program, enough)?;
    let start = scene.wait(|now| now.at >= warm.at + WARM_UP)?;
    scene.load.record(true);
    let end = scene.wait(|now| now.at >= start.at + common.duration())?;
    Ok((start, end))
}

fn evaluate(
    program: &Program,
    common: &Common,
    start: &Moment,
    end: &Moment,
    brought: &Brought,
) -> Measured {
    let acked = float(end.acked - start.acked);
    let delivered = float(end.delivered - start.delivered);
    let series = float(common.series as u64);
    Measured {
        samples: if program.ships() { delivered } else { acked },
        seconds: (end.at - start.at).as_secs_f64(),
        cpu_seconds: end.used.cpu_seconds - start.used.cpu_seconds,
        latency_p50: percentile(&brought.latencies, 50),
        latency_p99: percentile(&brought.latencies, 99),
        wire_in: float(end.acked_bytes - start.acked_bytes) / acked,
        wire_out: float(end.delivered_bytes - start.delivered_bytes) / delivered,
        log_bytes: None,
        device_bytes: (end.used.device_bytes - start.used.device_bytes) / acked,
        anonymous_total: end.used.anonymous_bytes,
        anonymous: end.used.anonymous_bytes / series,
        resident: end.used.resident_bytes / series,
        load_ns: f64::NAN,
        sink_ns: f64::NAN,
        refused: 0,
        ingest_threads: Vec::new(),
        stopped_well: false,
    }
}
