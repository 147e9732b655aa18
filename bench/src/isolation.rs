//! Turns ten endpoints, of which half fail for ever, into how much later the others get their samples.
//!
//! Two runs under the same load: with ten sinks that answer, and with five of them replaced by one that
//! hangs, one that answers a byte per second, one that resets, one that says 429 and one that says 500.
//! The lag of a sample is the time from its acknowledgement to its arrival; both are counted, not
//! recognised: the n-th acknowledged is the n-th to arrive.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;

use crate::Common;
use crate::e2e::version_of;
use crate::fleet::{Fleet, SERIES_PER_REQUEST};
use crate::load::{Pace, Rate};
use crate::measure::{LOAD_CORE, Used, percentile, pin_to};
use crate::scene::Scene;
use crate::sink::{Manner, Sink};
use crate::subject::Program;
use crate::table::{Table, mebibytes, millis, print, publish, times};

/// Endpoints that are well in both runs, and as many others.
const HALF: usize = 5;
/// Before measuring: the bad endpoints have long been found to be so.
const WARM_UP: Duration = Duration::from_secs(20);
const GOAL: f64 = 1.1;
const BAD: [Manner; HALF] = [
    Manner::Hangs,
    Manner::Drips,
    Manner::Resets,
    Manner::Says("429 Too Many Requests"),
    Manner::Says("500 Internal Server Error"),
];

/// The arguments of `isolation`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// The agent; by default the release build beside this bench.
    #[arg(long, value_name = "PATH")]
    agent: Option<PathBuf>,
    /// Seconds between two samples of a series.
    #[arg(long, default_value_t = 2)]
    interval: u32,
}

/// How the well endpoints did.
struct Lags {
    /// Sorted, of all well endpoints.
    all: Vec<Duration>,
    used: Used,
    cpu_share: f64,
}

/// Measures both runs and publishes the result.
pub(crate) fn run(options: &Options) -> Result<()> {
    let common = &options.common;
    let penstock = Program::penstock(options.agent.as_deref(), true)?;
    pin_to(LOAD_CORE)?;
    let fleet = Fleet::in_order(common.series)?;
    let mut results = Vec::new();
    for name in ["all ten answer", "five of ten fail"] {
        print(&format!("{name} ..."));
        let fails = !results.is_empty();
        results.push((name, measure(options, &penstock, &fleet, fails)?));
    }
    let p99 = |lags: &Lags| percentile(&lags.all, 99).as_secs_f64();
    let ratio = p99(&results[1].1) / p99(&results[0].1);
    let mut goals = Table::goals();
    let name = "p99 lag of the others while five fail";
    goals.goal(name, format!("<= {GOAL} x"), times(ratio), ratio <= GOAL);
    let mut details = Table::new([
        "run",
        "p50 lag",
        "p99 lag",
        "longest",
        "CPU",
        "anonymous memory",
    ]);
    for (name, lags) in &results {
        let longest = lags.all.last().copied().unwrap_or_default();
        details.row(vec![
            (*name).to_owned(),
            millis(percentile(&lags.all, 50)),
            millis(percentile(&lags.all, 99)),
            millis(longest),
            format!("{:.0} %", lags.cpu_share * 100.0),
            mebibytes(lags.used.anonymous_bytes),
        ]);
    }
    let load = format!(
        "load: {} series every {} s; 10 endpoints, subject on one core, load and sinks on another; lag from \
         the acknowledgement to the arrival, by count, every millisecond for {} s",
        common.series, options.interval, common.seconds
    );
    let notes = [load, version_of(&penstock)];
    publish(
        "Penstock, isolation",
        &notes,
        &[goals, details],
        common.out(),
    )
}

fn measure(options: &Options, penstock: &Program, fleet: &Fleet, fails: bool) -> Result<Lags> {
    let common = &options.common;
    let mut sinks: Vec<_> = (0..HALF).map(|_| Sink::start()).collect::<Result<_>>()?;
    let manner = |bad| if fails { bad } else { Manner::Well };
    let half: Vec<_> = (BAD.map(manner).into_iter().map(Sink::start_as)).collect::<Result<_>>()?;
    let others = sinks[1..].iter().chain(&half).map(|sink| sink.address);
    let program = penstock.clone().with_others(others.collect());
    let requests = fleet.requests();
    let pace = Pace::Rate(Rate {
        requests_per_second: requests as f64 / f64::from(options.interval),
        lifetime: Duration::MAX,
        is_real_time: false,
    });
    let first = sinks.remove(0);
    let mut scene = Scene::start(&program, common, fleet, first, &pace)?;
    let watched = watch(&mut scene, &sinks, common);
    // The sinks of the others wait for their connections.
    let (lags, ended) = scene.end(watched)?;
    drop(ended.subject);
    drop((sinks, half));
    Ok(lags)
}

/// Looks at all counts every millisecond.
fn watch(scene: &mut Scene, others: &[Sink], common: &Common) -> Result<Lags> {
    let warm = scene.clock.monotonic() + WARM_UP;
    let before = scene.wait(|now| now.at >= warm)?.used;
    let end = scene.clock.monotonic() + common.duration();
    let counts = others.iter().map(|sink| &sink.counts);
    let counts: Vec<_> = std::iter::once(&scene.sink.counts).chain(counts).collect();
    let mut acked = Course::default();
    let mut arrived: Vec<Course> = counts.iter().map(|_| Course::default()).collect();
    loop {
        let now = scene.clock.monotonic();
        if now >= end {
            break;
        }
        acked.note(now, scene.load.progress.acked.load(Ordering::Relaxed));
        for (course, counts) in arrived.iter_mut().zip(&counts) {
            course.note(now, counts.samples.load(Ordering::Relaxed));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let used = scene.subject.used()?;
    let mut all: Vec<_> = arrived.iter().flat_map(|one| one.behind(&acked)).collect();
    all.sort_unstable();
    let cpu_share = (used.cpu_seconds - before.cpu_seconds) / common.duration().as_secs_f64();
    Ok(Lags {
        all,
        used,
        cpu_share,
    })
}

/// When a count had which value; only where it changed.
#[derive(Debug, Default)]
struct Course(Vec<(Duration, u64)>);

impl Course {
    fn note(&mut self, now: Duration, count: u64) {
        if self.0.last().is_none_or(|(_, last)| *last < count) {
            self.0.push((now, count));
        }
    }

    /// When it reached `count`, if it did after it was first looked at.
    fn reached(&self, count: u64) -> Option<Duration> {
        let at = self.0.partition_point(|(_, value)| *value < count);
        (at > 0)
            .then(|| self.0.get(at))
            .flatten()
            .map(|(time, _)| *time)
    }

    /// For every request's worth of `first`: how much later this course has it.
    fn behind(&self, first: &Self) -> Vec<Duration> {
        let last = first.0.last().map_or(0, |(_, count)| *count);
        let from = first.0.first().map_or(0, |(_, count)| *count);
        let steps = (from..=last).step_by(SERIES_PER_REQUEST).skip(1);
        steps
            .filter_map(|count| Some(self.reached(count)?.saturating_sub(first.reached(count)?)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_course_behind_another_is_so_by_the_time_between_equal_counts() {
        let step = SERIES_PER_REQUEST as u64;
        let ms = Duration::from_millis;
        let (mut acked, mut arrived) = (Course::default(), Course::default());
        for at in 0..10 {
            acked.note(ms(at), (at + 5) * step);
            arrived.note(ms(at), at * step);
        }
        assert_eq!(arrived.behind(&acked), [ms(5); 4]);
        assert_eq!(acked.behind(&acked), [ms(0); 9]);
    }
}
