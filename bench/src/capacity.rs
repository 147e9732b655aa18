//! Turns more and more series at their scrape interval into how many of them one core sustains.
//!
//! One agent for the whole search: series that are not there yet are sent once, as fast as they are
//! acknowledged, and when all of it is delivered the load goes on at the real rate. The generator makes
//! series of templates it has already, so that it holds tens of millions of them in the memory of some.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, bail};
use wal::{SharedClock, SystemClock};

use crate::Common;
use crate::e2e::version_of;
use crate::fleet::Fleet;
use crate::load::{Load, Pace, Rate};
use crate::measure::{LOAD_CORE, Used, float, machine_memory, percentile, pin_to};
use crate::search::Search;
use crate::sink::Sink;
use crate::subject::{Program, Subject};
use crate::table::{Table, mebibytes, millions, millis, print, publish, times, yes_or_no};

/// Of the machine's memory, what series may take at most: the rest is the log, the load, the kernel.
const MEMORY_SHARE: f64 = 0.7;
/// What a series takes, resident and in the page cache.
const SERIES_BYTES: f64 = 450.0;
/// p99 of the answer times of a load that is sustained.
const ACK_GOAL: Duration = Duration::from_millis(50);
/// Of the samples due so many are acknowledged and delivered where the load is sustained.
const KEPT_UP: f64 = 0.98;
/// How often a number is tried until it is sustained: a machine has pauses of its own.
const TRIES: usize = 2;
/// At the rate before measuring.
const WARM_UP: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(20);
/// Without a sample more the agent is given up.
const STUCK: Duration = Duration::from_secs(60);

/// The arguments of `series-per-core`.
#[derive(Debug, clap::Args)]
#[command(
    mut_arg("series", |series| series.help("How many series are a step: a multiple of 2000")),
    mut_arg("seconds", |seconds| seconds.default_value("12")),
    mut_arg("connections", |connections| connections.default_value("8"))
)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// The agent; by default the release build beside this bench.
    #[arg(long, value_name = "PATH")]
    agent: Option<PathBuf>,
    /// Seconds between two samples of a series; each number is searched for.
    #[arg(long, value_delimiter = ',', default_values_t = [15, 60])]
    intervals: Vec<u32>,
    /// Where the search begins.
    #[arg(long, default_value_t = 8_000_000)]
    first: usize,
    /// Most series; by default as many as fit this machine.
    #[arg(long)]
    max_series: Option<usize>,
    /// The search ends when it knows the number to so many percent.
    #[arg(long, default_value_t = 10)]
    precision: usize,
}

/// What a number of series at an interval came to.
struct Step {
    interval: u32,
    series: usize,
    /// Series in the agent, of this step or others.
    defined: usize,
    due: f64,
    acked: f64,
    delivered: f64,
    cpu_share: f64,
    ack_p50: Duration,
    ack_p99: Duration,
    /// How late the load itself woke up, p99: it is in the answer times.
    load_late: Duration,
    load_share: f64,
    used: Used,
}

impl Step {
    fn is_sustained(&self) -> bool {
        let kept_up = self.due * KEPT_UP;
        self.acked >= kept_up && self.delivered >= kept_up && self.ack_p99 < ACK_GOAL
    }
}

/// What runs during the search.
struct Bench<'o> {
    common: &'o Common,
    fleet: Fleet,
    subject: Subject,
    sink: Sink,
    clock: SharedClock,
    /// Copies of the fleet the agent has seen, and samples it has acknowledged.
    defined: u32,
    acked: u64,
}

/// Searches at all intervals and publishes the result.
pub(crate) fn run(options: &Options) -> Result<()> {
    let common = &options.common;
    let max = options.max_series()?;
    let endless = "series_idle_timeout = \"24h\"";
    let program = Program::penstock(options.agent.as_deref(), true)?.with_wal(endless);
    pin_to(LOAD_CORE)?;
    let clock = SystemClock::shared();
    let sink = Sink::start()?;
    let mut bench = Bench {
        common,
        fleet: Fleet::in_order(common.series)?,
        subject: Subject::start(&program, common.scratch()?, sink.address, &clock)?,
        sink,
        clock,
        defined: 0,
        acked: 0,
    };
    let mut steps = Vec::new();
    let mut found = Vec::new();
    let mut first = options.first;
    for interval in &options.intervals {
        let copies = [first, max].map(|series| series / common.series);
        let search = Search::new(copies[0], copies[1], options.precision);
        let outcome = bench.search(*interval, search, &mut steps);
        let best = steps
            .iter()
            .filter(|step| step.interval == *interval && step.is_sustained());
        let best = best.map(|step| step.series).max().unwrap_or(0);
        first = best.max(options.first);
        found.push((*interval, best, outcome.err()));
    }
    // The sink waits for the agent's connections.
    drop(bench.subject);
    let notes = options.notes(max, &program);
    let tables = [answers(&found, &steps, &options.end(max)), details(&steps)];
    publish("Series per core", &notes, &tables, common.out())
}

impl Options {
    /// As told, or what fits the machine.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number of series, rounded down"
    )]
    fn max_series(&self) -> Result<usize> {
        let fits = (machine_memory()? * MEMORY_SHARE / SERIES_BYTES) as usize;
        let max = self.max_series.unwrap_or(fits);
        if max < self.common.series || self.first < self.common.series {
            bail!("--max-series and --first are at least --series");
        }
        Ok(max)
    }

    /// Why nothing beyond the most series is tried.
    fn end(&self, max: usize) -> String {
        match self.max_series {
            Some(_) => "the most series that were asked for; the core was not full".to_owned(),
            None => {
                format!("memory: no more than {max} series fit this machine; the core was not full")
            }
        }
    }

    fn notes(&self, max: usize, program: &Program) -> Vec<String> {
        vec![
            format!(
                "series of 11 labels, {} connections; the agent on one core with an endpoint, load and sink on \
                 the other; every step at its real rate, series by interval, for {} s after {} s of warm-up: at \
                 an interval longer than that not every series comes within a step, the others having come when \
                 they were new",
                self.common.connections,
                self.common.seconds,
                WARM_UP.as_secs()
            ),
            format!(
                "sustained: ack p99 below {}, from when a request was due, and at least {KEPT_UP} of what is due \
                 acknowledged and delivered, in one of {TRIES} steps; searched by doubling and then halving to {} %, up to {} series",
                millis(ACK_GOAL),
                self.precision,
                max
            ),
            "memory is of the agent at the end of a step, with all series it has seen until then, which after a \
             failed step are more than the step's own; none is given up as idle meanwhile"
                .to_owned(),
            version_of(program),
        ]
    }
}

impl Bench<'_> {
    /// Tries numbers of copies until the largest that is sustained is known well enough.
    fn search(&mut self, interval: u32, mut search: Search, steps: &mut Vec<Step>) -> Result<()> {
        while let Some(copies) = search.next() {
            let copies = u32::try_from(copies).unwrap_or(u32::MAX);
            let mut is_sustained = false;
            for _ in 0..TRIES {
                let step = self.step(interval, copies)?;
                is_sustained = step.is_sustained();
                print(&format!(
                    "{} series every {interval} s: p99 {}, sustained: {}",
                    step.series,
                    millis(step.ack_p99),
                    yes_or_no(is_sustained)
                ));
                steps.push(step);
                if is_sustained {
                    break;
                }
            }
            search.note(copies as usize, is_sustained);
        }
        Ok(())
    }

    fn step(&mut self, interval: u32, copies: u32) -> Result<Step> {
        if copies > self.defined {
            self.define(self.defined..copies)?;
        }
        self.wait_until_delivered()?;
        let fleet = self.fleet.with_copies(0..copies);
        let requests_per_second = float(fleet.requests() as u64) / f64::from(interval);
        let pace = Pace::Rate(Rate::steady(requests_per_second));
        let load = self.load(&fleet, &pace)?;
        let watched = self.watch(&load);
        let progress = load.progress.clone();
        let brought = load.finish();
        self.subject.check()?;
        let brought = brought?;
        self.acked += progress.acked.load(Ordering::Relaxed);
        let [from, to] = watched?;
        let seconds = (to.at - from.at).as_secs_f64();
        let series = self.common.series * copies as usize;
        Ok(Step {
            interval,
            series,
            defined: self.common.series * self.defined as usize,
            due: float(series as u64) / f64::from(interval),
            acked: float(to.acked - from.acked) / seconds,
            delivered: float(to.delivered - from.delivered) / seconds,
            cpu_share: (to.used.cpu_seconds - from.used.cpu_seconds) / seconds,
            ack_p50: percentile(&brought.latencies, 50),
            ack_p99: percentile(&brought.latencies, 99),
            load_late: percentile(&brought.woken_late, 99),
            load_share: (to.bench_cpu - from.bench_cpu).as_secs_f64() / seconds,
            used: to.used,
        })
    }

    /// Sends each series of some copies once, as fast as the agent takes them.
    fn define(&mut self, copies: Range<u32>) -> Result<()> {
        let fleet = self.fleet.with_copies(copies.clone());
        let load = self.load(&fleet, &Pace::Once)?;
        let (mut last, mut since) = (0, self.clock.monotonic());
        while !load.is_over() {
            self.subject.check()?;
            let acked = load.progress.acked.load(Ordering::Relaxed);
            if acked > last {
                (last, since) = (acked, self.clock.monotonic());
            }
            if self.clock.monotonic() - since > STUCK {
                bail!(
                    "the agent takes no more series: only {acked} of {}",
                    fleet.samples()
                );
            }
            std::thread::sleep(LOOK);
        }
        let progress = load.progress.clone();
        let finished = load.finish();
        // Why the agent ended says more than that its connections did.
        self.subject.check()?;
        finished?;
        self.acked += progress.acked.load(Ordering::Relaxed);
        self.defined = copies.end;
        Ok(())
    }

    fn load(&self, fleet: &Fleet, pace: &Pace) -> Result<Load> {
        let target = self.subject.ingest();
        Load::start(target, fleet, self.common.connections, pace, &self.clock)
    }

    /// Until what has been acknowledged has arrived.
    fn wait_until_delivered(&mut self) -> Result<()> {
        let delivered = || self.sink.counts.samples.load(Ordering::Relaxed);
        let (mut last, mut since) = (delivered(), self.clock.monotonic());
        while delivered() < self.acked {
            self.subject.check()?;
            if delivered() > last {
                (last, since) = (delivered(), self.clock.monotonic());
            }
            if self.clock.monotonic() - since > STUCK {
                bail!("only {last} of {} samples arrive", self.acked);
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// The counts when the load has warmed up, and when it has been measured.
    fn watch(&mut self, load: &Load) -> Result<[Look; 2]> {
        self.pause(load, WARM_UP)?;
        load.record(true);
        let from = self.look(load)?;
        self.pause(load, self.common.duration())?;
        let to = self.look(load)?;
        load.record(false);
        Ok([from, to])
    }

    fn pause(&mut self, load: &Load, time: Duration) -> Result<()> {
        let end = self.clock.monotonic() + time;
        while self.clock.monotonic() < end {
            self.subject.check()?;
            if load.is_broken() {
                bail!("the load gave up");
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    fn look(&self, load: &Load) -> Result<Look> {
        Ok(Look {
            at: self.clock.monotonic(),
            acked: load.progress.acked.load(Ordering::Relaxed),
            delivered: self.sink.counts.samples.load(Ordering::Relaxed),
            used: self.subject.used()?,
            bench_cpu: crate::measure::process_cpu(),
        })
    }
}

/// Counts at a moment.
struct Look {
    at: Duration,
    acked: u64,
    delivered: u64,
    used: Used,
    bench_cpu: Duration,
}

/// For each interval the largest number that was sustained, and what stopped the search.
fn answers(found: &[(u32, usize, Option<anyhow::Error>)], steps: &[Step], end: &str) -> Table {
    let mut table = Table::new([
        "interval",
        "series on one core",
        "samples/s",
        "ack p99",
        "CPU of the agent",
        "anonymous",
        "resident",
        "stopped by",
    ]);
    for (interval, best, error) in found {
        let of_interval = || steps.iter().filter(|step| step.interval == *interval);
        let step = of_interval().find(|step| step.series == *best && step.is_sustained());
        let failed = of_interval().filter(|step| step.series > *best);
        let stopped_by = match (error, failed.min_by_key(|step| step.series)) {
            (Some(error), _) => format!("{error:#}"),
            (None, Some(failed)) => failed.limit(),
            (None, None) => end.to_owned(),
        };
        let cells = step.map_or_else(|| vec!["-".to_owned(); 5], Step::summary);
        let row = [format!("{interval} s"), millions(float(*best as u64))];
        table.row(row.into_iter().chain(cells).chain([stopped_by]).collect());
    }
    table
}

impl Step {
    fn summary(&self) -> Vec<String> {
        vec![
            millions(self.acked),
            millis(self.ack_p99),
            format!("{:.0} %", self.cpu_share * 100.0),
            mebibytes(self.used.anonymous_bytes),
            mebibytes(self.used.resident_bytes),
        ]
    }

    /// What a step that failed ran out of.
    fn limit(&self) -> String {
        let (agent, bench) = (self.cpu_share, self.load_share);
        let what = match (agent > 0.95, bench > 0.95) {
            (_, true) => "CPU of load and sink, not of the agent",
            (true, false) => "CPU of the agent",
            (false, false) => "pauses: neither core was full",
        };
        let (agent, bench) = (agent * 100.0, bench * 100.0);
        format!(
            "{what} at {} series (agent {agent:.0} %, bench {bench:.0} %)",
            self.series
        )
    }
}

fn details(steps: &[Step]) -> Table {
    let mut table = Table::new([
        "step",
        "interval",
        "series",
        "due/s",
        "acknowledged",
        "delivered",
        "CPU of the agent",
        "CPU of load and sink",
        "ack p50",
        "ack p99",
        "the load's own lateness p99",
        "anonymous per series seen",
        "resident per series seen",
        "sustained",
    ]);
    for (number, step) in (1..).zip(steps) {
        let defined = float(step.defined as u64);
        table.row(vec![
            format!("{number}"),
            format!("{} s", step.interval),
            millions(float(step.series as u64)),
            millions(step.due),
            times(step.acked / step.due),
            times(step.delivered / step.due),
            format!("{:.0} %", step.cpu_share * 100.0),
            format!("{:.0} %", step.load_share * 100.0),
            millis(step.ack_p50),
            millis(step.ack_p99),
            millis(step.load_late),
            format!("{:.0} B", step.used.anonymous_bytes / defined),
            format!("{:.0} B", step.used.resident_bytes / defined),
            yes_or_no(step.is_sustained()),
        ]);
    }
    table
}
