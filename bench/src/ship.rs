//! Turns the agent's work with an endpoint, less that without, into what shipping alone costs.
//!
//! Also a backlog, which is shipped while nothing comes in. Remote write 1.0 and 2.0.

use std::path::PathBuf;

use anyhow::Result;
use wal::SystemClock;

use crate::Common;
use crate::drain::{Drained, drain};
use crate::e2e::{Measured, measure, setting, version_of};
use crate::fleet::Fleet;
use crate::limit;
use crate::measure::{LOAD_CORE, pin_to};
use crate::subject::Program;
use crate::table::{Table, millions, millis, print, publish, times};

/// Samples per core-second of ingest and ship, at least.
const V1_GOAL: f64 = 4.5e6;
const V2_GOAL: f64 = 3.0e6;

/// The arguments of `ship`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// The agent; by default the release build beside this bench.
    #[arg(long, value_name = "PATH")]
    agent: Option<PathBuf>,
    /// Samples of each series in the backlog.
    #[arg(long, default_value_t = 40)]
    rounds: u32,
}

/// What was measured of a protocol.
struct Shipped {
    name: &'static str,
    goal: f64,
    steady: Measured,
    backlog: Drained,
}

/// Measures both protocols and publishes the result.
pub(crate) fn run(options: &Options) -> Result<()> {
    let common = &options.common;
    let agent = options.agent.as_deref();
    let fleet = Fleet::in_order(common.series)?;
    print("the limit ...");
    let limit = limit::per_core_second(common, &fleet)?;
    pin_to(LOAD_CORE)?;
    print("ingest only ...");
    let ingest = measure(&Program::penstock(agent, false)?, common, &fleet)?;
    let v1 = Program::penstock(agent, true)?;
    let mut results = Vec::new();
    for (name, goal, program) in [
        ("remote write 1.0", V1_GOAL, v1.clone()),
        ("remote write 2.0", V2_GOAL, v1.clone().by_v2()),
    ] {
        print(&format!("{name} ..."));
        let clock = SystemClock::shared();
        results.push(Shipped {
            name,
            goal,
            steady: measure(&program, common, &fleet)?,
            backlog: drain(common, options.rounds, &program, &fleet, &clock)?,
        });
    }
    let notes = [
        common.describe(),
        "shipping alone: the CPU time per sample of ingest and ship less that of ingest only, in the same \
         run; backlog: taken while nobody listened at the endpoint, shipped while nothing came in"
            .to_owned(),
        setting(),
        version_of(&v1),
    ];
    let tables = [goals(&results), details(&ingest, &results, limit)];
    publish("Penstock, shipping", &notes, &tables, common.out())
}

/// Samples per core-second if only the work that `whole` has beyond `part` is done.
fn difference(whole: f64, part: f64) -> f64 {
    1.0 / (1.0 / whole - 1.0 / part)
}

fn goals(results: &[Shipped]) -> Table {
    let mut table = Table::goals();
    for shipped in results {
        let rate = shipped.steady.per_core_second();
        table.goal(
            &format!("ingest and ship, {}", shipped.name),
            format!(">= {}", millions(shipped.goal)),
            millions(rate),
            rate >= shipped.goal,
        );
    }
    table
}

fn details(ingest: &Measured, results: &[Shipped], limit: f64) -> Table {
    let mut table = Table::new([
        "work",
        "samples/core-s",
        "of the limit",
        "wire B/sample",
        "ack p50",
        "ack p99",
    ]);
    let mut row = |name: String, rate: f64, bytes: f64, acks: Option<&Measured>| {
        // The limit says nothing about work that does not take samples in.
        let share = acks.map_or_else(|| "-".to_owned(), |_| times(rate / limit));
        let bytes = if bytes.is_nan() {
            "-".to_owned()
        } else {
            format!("{bytes:.1}")
        };
        let [p50, p99] = acks.map_or_else(
            || ["-".to_owned(), "-".to_owned()],
            |acks| [millis(acks.latency_p50), millis(acks.latency_p99)],
        );
        table.row(vec![name, millions(rate), share, bytes, p50, p99]);
    };
    let ingested = ingest.per_core_second();
    row("ingest only".to_owned(), ingested, f64::NAN, Some(ingest));
    for shipped in results {
        let (name, steady) = (shipped.name, &shipped.steady);
        let rate = steady.per_core_second();
        row(
            format!("ingest and ship, {name}"),
            rate,
            steady.wire_out,
            Some(steady),
        );
        let alone = difference(rate, ingested);
        row(
            format!("shipping alone, {name}"),
            alone,
            steady.wire_out,
            None,
        );
        let backlog = &shipped.backlog;
        let (rate, bytes) = (backlog.per_core_second(), backlog.bytes_per_sample());
        row(format!("a backlog, {name}"), rate, bytes, None);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_is_in_time_per_sample() {
        // 200 ns of which 120 are the part.
        let alone = difference(1e9 / 200.0, 1e9 / 120.0);
        assert!((alone - 1e9 / 80.0).abs() < 1.0);
    }
}
