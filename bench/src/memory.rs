//! Turns many series at a modest rate into what each of them costs in memory, in several subjects.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::Common;
use crate::e2e::version_of;
use crate::fleet::Fleet;
use crate::load::{Pace, Rate};
use crate::measure::{LOAD_CORE, float, pin_to};
use crate::scene::Scene;
use crate::sink::Sink;
use crate::subject::Program;
use crate::table::{Table, mebibytes, print, publish, times};

/// Bytes per series at most.
const ANONYMOUS_GOAL: f64 = 50.0;
const RESIDENT_GOAL: f64 = 450.0;
/// Our anonymous bytes, of those of a Prometheus agent, at most.
const PROMETHEUS_GOAL: f64 = 1.0 / 30.0;
/// So many times the time the rounds should take, until the subject is given up.
const PATIENCE: f64 = 4.0;

/// The arguments of `memory`.
#[derive(Debug, clap::Args)]
#[command(
    mut_arg("series", |series| series.default_value("1000000")),
    mut_arg("seconds", |seconds| seconds.default_value("10"))
)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// The agent; by default the release build beside this bench.
    #[arg(long, value_name = "PATH")]
    agent: Option<PathBuf>,
    /// Seconds between two samples of a series.
    #[arg(long, default_value_t = 20.0)]
    interval: f64,
    /// Samples of each series before memory is looked at.
    #[arg(long, default_value_t = 2)]
    rounds: u32,
}

/// Means over the time looked at.
#[derive(Clone, Copy, Default)]
struct Memory {
    anonymous: f64,
    resident: f64,
    delivered: f64,
}

/// Measures everything that is installed and publishes the result.
pub(crate) fn run(options: &Options) -> Result<()> {
    let common = &options.common;
    let ours = Program::penstock(options.agent.as_deref(), true)?;
    pin_to(LOAD_CORE)?;
    let fleet = Fleet::in_order(common.series)?;
    let mut notes = vec![options.describe()];
    let mut results = Vec::new();
    for program in [ours, Program::Vmagent, Program::Prometheus] {
        if program.version().is_none() {
            notes.push(format!("{}: not installed, skipped", program.name()));
            continue;
        }
        notes.push(version_of(&program));
        print(&format!("{} ...", program.name()));
        match measure(options, &program, &fleet) {
            Ok(memory) => results.push((program.name(), memory)),
            Err(error) => notes.push(format!("{}: no result: {error:#}", program.name())),
        }
    }
    let series = float(common.series as u64);
    let tables = [goals(&results, series), details(&results, series)];
    publish("Memory per series", &notes, &tables, common.out())
}

impl Options {
    fn describe(&self) -> String {
        format!(
            "load: {} series of 11 labels, a sample of each every {} s, {} rounds, then the mean of {} s \
             under the same load; anonymous: what no file stands behind; resident: with mapped files, which \
             the kernel can take back; into a sink that answers at once",
            self.common.series, self.interval, self.rounds, self.common.seconds
        )
    }

    fn rounds_take(&self) -> Duration {
        Duration::from_secs_f64(self.interval * f64::from(self.rounds))
    }
}

fn measure(options: &Options, program: &Program, fleet: &Fleet) -> Result<Memory> {
    let requests = float(fleet.requests() as u64);
    let pace = Pace::Rate(Rate::steady(requests / options.interval));
    let mut scene = Scene::start(program, &options.common, fleet, Sink::start()?, &pace)?;
    let watched = watch(&mut scene, options);
    let (memory, ended) = scene.end(watched)?;
    drop(ended.subject);
    Ok(memory)
}

fn watch(scene: &mut Scene, options: &Options) -> Result<Memory> {
    let began = scene.clock.monotonic();
    let deadline = began + options.rounds_take().mul_f64(PATIENCE) + Duration::from_secs(30);
    let enough = u64::from(options.rounds) * u64::try_from(options.common.series)?;
    let rounds_end = began + options.rounds_take();
    let warm =
        scene.wait(|now| (now.acked >= enough && now.at >= rounds_end) || now.at > deadline)?;
    if warm.acked < enough {
        bail!("only {} of {enough} samples were taken in time", warm.acked);
    }
    let (mut sum, mut looks) = (Memory::default(), 0.0);
    let last = scene.wait(|now| {
        sum.anonymous += now.used.anonymous_bytes;
        sum.resident += now.used.resident_bytes;
        looks += 1.0;
        now.at >= warm.at + options.common.duration()
    })?;
    Ok(Memory {
        anonymous: sum.anonymous / looks,
        resident: sum.resident / looks,
        delivered: float(last.delivered) / float(last.acked),
    })
}

fn goals(results: &[(&str, Memory)], series: f64) -> Table {
    let mut table = Table::goals();
    let of = |name: &str| {
        results
            .iter()
            .find(|(found, _)| *found == name)
            .map(|(_, it)| *it)
    };
    let Some(ours) = of("penstock") else {
        return table;
    };
    for (name, goal, result) in [
        (
            "anonymous bytes per series",
            ANONYMOUS_GOAL,
            ours.anonymous / series,
        ),
        (
            "resident bytes per series",
            RESIDENT_GOAL,
            ours.resident / series,
        ),
    ] {
        let (wanted, text) = (format!("<= {goal:.0} B"), format!("{result:.0} B"));
        table.goal(name, wanted, text, result <= goal);
    }
    for (name, rival, goal) in [
        ("anonymous, of vmagent's", "vmagent", 1.0),
        (
            "anonymous, of the Prometheus agent's",
            "prometheus agent",
            PROMETHEUS_GOAL,
        ),
    ] {
        if let Some(theirs) = of(rival) {
            let ratio = ours.anonymous / theirs.anonymous;
            table.goal(
                name,
                format!("<= {goal:.3} x"),
                format!("{ratio:.3} x"),
                ratio <= goal,
            );
        }
    }
    table
}

fn details(results: &[(&str, Memory)], series: f64) -> Table {
    let mut table = Table::new([
        "subject",
        "anonymous",
        "resident",
        "anonymous per series",
        "resident per series",
        "delivered, of acknowledged",
    ]);
    for (name, memory) in results {
        table.row(vec![
            (*name).to_owned(),
            mebibytes(memory.anonymous),
            mebibytes(memory.resident),
            format!("{:.0} B", memory.anonymous / series),
            format!("{:.0} B", memory.resident / series),
            times(memory.delivered),
        ]);
    }
    table
}
