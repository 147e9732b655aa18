//! Turns the same churn, with idle series given up and without, into latency and memory side by side.
//!
//! Requests come at a rate, each with the pods whose time is over replaced by new ones, until so many
//! times the live series have come and gone. Before and after that the series stay as they are.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::Common;
use crate::e2e::{setting, version_of};
use crate::fleet::{Fleet, SERIES_PER_REQUEST};
use crate::http::metric_sum;
use crate::load::{Brought, Pace, Rate};
use crate::measure::{LOAD_CORE, float, per_mille, percentile, pin_to};
use crate::scene::{Ended, Moment, Scene};
use crate::sink::Sink;
use crate::subject::Program;
use crate::table::{Table, mebibytes, millions, millis, print, publish};

/// Rounds before measuring: define, learn the order, settle.
const WARM_UP_ROUNDS: u64 = 3;
/// Load without churn before the memory of the live series is taken, and after the churn.
const STEADY: Duration = Duration::from_secs(10);
/// Of the samples due so many are acknowledged by a subject that keeps up.
const KEPT_UP: f64 = 0.98;
/// An idle timeout that is never reached.
const NEVER: &str = "24h";
/// Resident bytes after the churn, of those before, at most.
const RESIDENT_GOAL: f64 = 1.5;
/// 99.9th percentile of the answer times with cleaning, of that without, at most.
const LATENCY_GOAL: f64 = 2.0;
/// By how much the longest answer time with cleaning may be longer than that without.
const PAUSE_GOAL: Duration = Duration::from_millis(10);

/// The arguments of `churn`.
#[derive(Debug, clap::Args)]
#[command(mut_arg("seconds", |seconds| seconds.default_value("60")))]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// The agent; by default the release build beside this bench.
    #[arg(long, value_name = "PATH")]
    agent: Option<PathBuf>,
    /// Requests per second over all connections.
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
    /// How many times the live series come and go.
    #[arg(long, default_value_t = 10.0)]
    churn: f64,
    /// The idle timeout with cleaning.
    #[arg(long, value_name = "SECONDS", default_value_t = 2)]
    idle_seconds: u32,
}

/// What one run showed.
struct Churned {
    before: Sight,
    end: Sight,
    after: Sight,
    peak_resident: f64,
    brought: Brought,
    refused: u64,
    stopped_well: bool,
}

/// The scene at one moment, with what the agent says about its series log.
struct Sight {
    moment: Moment,
    series: f64,
    chunks: f64,
    disk_bytes: f64,
    given_up: f64,
    chunks_removed: f64,
    copied_bytes: f64,
}

/// Measures the agent twice and publishes the result.
pub(crate) fn run(options: &Options) -> Result<()> {
    let rate = options.rate()?;
    let common = &options.common;
    let program = Program::penstock(options.agent.as_deref(), true)?;
    pin_to(LOAD_CORE)?;
    let fleet = Fleet::in_order(common.series)?;
    let idle = format!("{}s", options.idle_seconds);
    let mut results = Vec::new();
    for timeout in [NEVER, &idle] {
        print(&format!(
            "measuring with series_idle_timeout = {timeout} ..."
        ));
        let line = format!("series_idle_timeout = \"{timeout}\"");
        let program = program.clone().with_wal(&line);
        results.push(measure(&program, common, &fleet, rate)?);
    }
    let [without, with] = &results[..] else {
        bail!("two runs, two results");
    };
    let notes = [
        options.describe(rate),
        "latency from the time a request was due, whatever became of those before, while series are \
         replaced; before: live series only, after 10 s of load; at the end: while the last are \
         replaced; after: 10 s of load later"
            .to_owned(),
        setting(),
        version_of(&program),
    ];
    let due = options.samples_per_second();
    let tables = [goals(without, with, due), details(&idle, without, with)];
    publish("Penstock, churn", &notes, &tables, common.out())
}

impl Options {
    /// The pace, if the live series stay alive at it.
    fn rate(&self) -> Result<Rate> {
        let round = float(self.requests_per_round()) / self.rate;
        let idle = f64::from(self.idle_seconds);
        // Also false for what is not a number.
        if !(round > 0.0 && round <= idle / 2.0) {
            bail!(
                "a series comes every {round:.2} s: too seldom for an idle timeout of {idle} s; \
                 raise --rate or --idle-seconds"
            );
        }
        let lifetime = f64::from(self.common.seconds) / self.churn;
        let lifetime = Duration::try_from_secs_f64(lifetime).context("--churn")?;
        if lifetime.as_secs_f64() < round {
            bail!("a series would be replaced before it comes: raise --rate or lower --churn");
        }
        Ok(Rate {
            requests_per_second: self.rate,
            lifetime,
            is_real_time: false,
        })
    }

    fn requests_per_round(&self) -> u64 {
        self.common.series.div_ceil(SERIES_PER_REQUEST) as u64
    }

    fn samples_per_second(&self) -> f64 {
        let samples = float(self.common.series as u64) / float(self.requests_per_round());
        samples * self.rate
    }

    fn describe(&self, rate: Rate) -> String {
        format!(
            "{}; {} requests per second, so a series comes every {:.1} s; {} times the series come \
             and go, a pod of 100 at a time, each after {:.1} s",
            self.common.describe(),
            self.rate,
            float(self.requests_per_round()) / self.rate,
            self.churn,
            rate.lifetime.as_secs_f64()
        )
    }
}

fn measure(program: &Program, common: &Common, fleet: &Fleet, rate: Rate) -> Result<Churned> {
    let pace = Pace::Rate(rate);
    let mut scene = Scene::start(program, common, fleet, Sink::start()?, &pace)?;
    let watched = watch(&mut scene, program, common);
    let clock = scene.clock.clone();
    let ((sights, peak_resident), ended) = scene.end(watched)?;
    let Ended {
        subject,
        sink,
        progress,
        brought,
    } = ended;
    let malformed = sink.counts.malformed.load(Ordering::Relaxed);
    if malformed > 0 {
        bail!("the sink could not read {malformed} requests");
    }
    let [before, end, after] = sights;
    Ok(Churned {
        before,
        end,
        after,
        peak_resident,
        brought,
        refused: progress.refused.load(Ordering::Relaxed),
        stopped_well: subject.stop(&clock)?,
    })
}

/// The scene before the churn, at its end, and after it; and the most resident bytes seen in it.
fn watch(scene: &mut Scene, program: &Program, common: &Common) -> Result<([Sight; 3], f64)> {
    let enough = WARM_UP_ROUNDS * u64::try_from(common.series)?;
    let warm = scene.warm_up(program, enough)?;
    let steady = scene.wait(|now| now.at >= warm.at + STEADY)?;
    let before = Sight::take(scene, steady)?;
    let began = scene.clock.monotonic();
    scene.load.record(true);
    scene.load.churn(Some(began));
    let mut peak_resident = 0.0_f64;
    let last = scene.wait(|now| {
        peak_resident = peak_resident.max(now.used.resident_bytes);
        now.at >= began + common.duration()
    })?;
    scene.load.record(false);
    scene.load.churn(None);
    let end = Sight::take(scene, last)?;
    let steady = scene.wait(|now| now.at >= last.at + STEADY)?;
    let after = Sight::take(scene, steady)?;
    Ok(([before, end, after], peak_resident))
}

impl Sight {
    fn take(scene: &Scene, moment: Moment) -> Result<Self> {
        let page = scene.subject.metrics()?;
        let sum = |name: &str| {
            metric_sum(&page, name).with_context(|| format!("the agent does not tell {name}"))
        };
        Ok(Self {
            moment,
            series: sum("prometheus_remote_write_wal_storage_active_series")?,
            chunks: sum("penstock_wal_series_chunks")?,
            disk_bytes: sum("penstock_wal_disk_bytes")?,
            given_up: sum("penstock_wal_series_given_up_total")?,
            chunks_removed: sum("penstock_wal_series_chunks_removed_total")?,
            copied_bytes: sum("penstock_wal_series_copied_bytes_total")?,
        })
    }
}

/// What is wanted and what is.
fn goals(without: &Churned, with: &Churned, due: f64) -> Table {
    let mut table = Table::goals();
    // Else the latencies are those of a backlog and say nothing about pauses.
    let share = without.acked_per_second().min(with.acked_per_second()) / due;
    table.goal(
        "below saturation: acknowledged, of what was due",
        format!(">= {KEPT_UP:.2} x"),
        format!("{share:.2} x"),
        share >= KEPT_UP,
    );
    let growth = with.growth(&with.end);
    table.goal(
        "resident at the end, of before",
        format!("<= {RESIDENT_GOAL:.1} x"),
        format!("{growth:.2} x"),
        growth <= RESIDENT_GOAL,
    );
    let tail = |run: &Churned| per_mille(&run.brought.latencies, 999).as_secs_f64();
    let ratio = tail(with) / tail(without);
    table.goal(
        "ack latency p99.9, of that without cleaning",
        format!("<= {LATENCY_GOAL:.1} x"),
        format!("{ratio:.2} x"),
        ratio <= LATENCY_GOAL,
    );
    // From when it was sent: the load's own pauses are not the agent's.
    let longest = |run: &Churned| run.brought.answers.last().copied().unwrap_or_default();
    let beyond = longest(with).saturating_sub(longest(without));
    table.goal(
        "longest ack beyond that without cleaning",
        format!("<= {}", millis(PAUSE_GOAL)),
        millis(beyond),
        beyond <= PAUSE_GOAL,
    );
    table
}

fn details(idle: &str, without: &Churned, with: &Churned) -> Table {
    let mut table = Table::default();
    table.row(vec![
        "series_idle_timeout".to_owned(),
        NEVER.to_owned(),
        idle.to_owned(),
    ]);
    for ((name, without), (_, with)) in without.rows().into_iter().zip(with.rows()) {
        table.row(vec![name, without, with]);
    }
    table
}

impl Churned {
    /// Resident bytes at a moment, of those before.
    fn growth(&self, sight: &Sight) -> f64 {
        sight.moment.used.resident_bytes / self.before.moment.used.resident_bytes
    }

    fn rows(&self) -> Vec<(String, String)> {
        let mut rows = self.load_rows();
        let sights = [
            ("before", &self.before),
            ("at the end", &self.end),
            ("after", &self.after),
        ];
        let mut each = |name: &str, value: &dyn Fn(&Sight) -> String| {
            for (when, sight) in sights {
                rows.push((format!("{name}, {when}"), value(sight)));
            }
        };
        each("series", &|sight| format!("{:.0}", sight.series));
        each("resident", &|sight| {
            mebibytes(sight.moment.used.resident_bytes)
        });
        each("resident, of before", &|sight| {
            format!("{:.2} x", self.growth(sight))
        });
        each("anonymous", &|sight| {
            mebibytes(sight.moment.used.anonymous_bytes)
        });
        each("series chunks", &|sight| format!("{:.0}", sight.chunks));
        each("disk taken", &|sight| mebibytes(sight.disk_bytes));
        each("series given up", &|sight| format!("{:.0}", sight.given_up));
        each("chunks removed", &|sight| {
            format!("{:.0}", sight.chunks_removed)
        });
        each("series copied", &|sight| mebibytes(sight.copied_bytes));
        rows.push((
            "resident, most while churning".to_owned(),
            mebibytes(self.peak_resident),
        ));
        rows.push(("stopped in order".to_owned(), self.stopped_well.to_string()));
        rows
    }

    fn acked_per_second(&self) -> f64 {
        let (from, to) = (&self.before.moment, &self.end.moment);
        float(to.acked - from.acked) / (to.at - from.at).as_secs_f64()
    }

    /// Between the first sight and the second.
    fn load_rows(&self) -> Vec<(String, String)> {
        let (from, to) = (&self.before.moment, &self.end.moment);
        let seconds = (to.at - from.at).as_secs_f64();
        let cpu = to.used.cpu_seconds - from.used.cpu_seconds;
        let (acks, late) = (&self.brought.latencies, &self.brought.woken_late);
        let answers = &self.brought.answers;
        let longest = |times: &[Duration]| millis(times.last().copied().unwrap_or_default());
        let rows = [
            ("requests measured", acks.len().to_string()),
            ("ack latency p50", millis(percentile(acks, 50))),
            ("ack latency p99", millis(percentile(acks, 99))),
            ("ack latency p99.9", millis(per_mille(acks, 999))),
            ("ack latency, longest", longest(acks)),
            (
                "from when it was sent, p99.9",
                millis(per_mille(answers, 999)),
            ),
            ("from when it was sent, longest", longest(answers)),
            ("of it the load's own, p50", millis(percentile(late, 50))),
            ("of it the load's own, p99.9", millis(per_mille(late, 999))),
            ("of it the load's own, longest", longest(late)),
            (
                "samples acknowledged per second",
                millions(self.acked_per_second()),
            ),
            (
                "samples delivered per second",
                millions(float(to.delivered - from.delivered) / seconds),
            ),
            (
                "CPU of the agent",
                format!("{:.0} %", cpu / seconds * 100.0),
            ),
            ("series replaced", (to.replaced - from.replaced).to_string()),
            ("requests refused (429, 5xx)", self.refused.to_string()),
        ];
        rows.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(series: usize, rate: f64, churn: f64) -> Options {
        let common = Common {
            series,
            seconds: 60,
            connections: 4,
            out: None,
            dir: PathBuf::new(),
        };
        Options {
            common,
            agent: None,
            rate,
            churn,
            idle_seconds: 2,
        }
    }

    #[test]
    fn churn_is_how_often_a_series_is_replaced_in_the_time_measured() {
        let rate = options(100_000, 100.0, 10.0).rate().unwrap();
        assert_eq!(rate.lifetime, Duration::from_secs(6));
        let due = options(100_000, 100.0, 10.0).samples_per_second();
        assert!((due - 200_000.0).abs() < 1e-6);
    }

    #[test]
    fn a_rate_at_which_live_series_look_idle_is_refused() {
        assert!(options(1_000_000, 100.0, 10.0).rate().is_err());
        assert!(options(1_000_000, 500.0, 10.0).rate().is_ok());
        assert!(options(1_000_000, f64::NAN, 10.0).rate().is_err());
        assert!(options(100_000, 100.0, 1e9).rate().is_err());
    }
}
