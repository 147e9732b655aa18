//! Turns several subjects under the same load, one after the other, into a table of ratios.
//!
//! None of the others syncs before it acknowledges; the table compares work per CPU time as they
//! are, and says so.

use std::path::PathBuf;

use anyhow::Result;

use crate::Common;
use crate::e2e::{Measured, measure, rows, setting, version_of};
use crate::fleet::Fleet;
use crate::measure::{LOAD_CORE, pin_to};
use crate::subject::Program;
use crate::table::{Table, print, publish};

/// The subject the others are compared with.
const OURS: &str = "penstock";

/// The arguments of `compare`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// The agent; by default the release build beside this bench.
    #[arg(long, value_name = "PATH")]
    agent: Option<PathBuf>,
}

/// Measures everything that is installed and publishes the result.
pub(crate) fn run(options: &Options) -> Result<()> {
    let common = &options.common;
    let ours = Program::penstock(options.agent.as_deref(), true)?;
    pin_to(LOAD_CORE)?;
    let fleet = Fleet::in_order(common.series)?;
    let mut notes = vec![
        common.describe(),
        setting(),
        "only penstock has the samples on the device before it acknowledges them".to_owned(),
    ];
    let mut results = Vec::new();
    for program in [ours, Program::Vmagent, Program::Prometheus] {
        if program.version().is_none() {
            notes.push(format!("{}: not installed, skipped", program.name()));
            continue;
        }
        notes.push(version_of(&program));
        print(&format!("measuring {} ...", program.name()));
        match measure(&program, common, &fleet) {
            Ok(measured) => results.push((program.name(), measured)),
            Err(error) => notes.push(format!("{}: no result: {error:#}", program.name())),
        }
    }
    let tables = [ratios(&results), details(&results)];
    publish(
        "Ingest and ship, side by side",
        &notes,
        &tables,
        common.out(),
    )
}

/// Our figure over each of the others.
fn ratios(results: &[(&str, Measured)]) -> Table {
    let mut table = Table::new(["penstock against", "samples per core-second", "ratio"]);
    let Some((_, ours)) = results.iter().find(|(name, _)| *name == OURS) else {
        return table;
    };
    for (name, theirs) in results {
        table.row(vec![
            (*name).to_owned(),
            crate::table::millions(theirs.per_core_second()),
            format!("{:.1} x", ours.per_core_second() / theirs.per_core_second()),
        ]);
    }
    table
}

/// All numbers, a column per subject.
fn details(results: &[(&str, Measured)]) -> Table {
    let mut table = Table::default();
    let heads = results.iter().map(|(name, _)| (*name).to_owned());
    table.row([String::new()].into_iter().chain(heads).collect());
    let columns: Vec<_> = results.iter().map(|(_, measured)| rows(measured)).collect();
    for (at, (name, _)) in columns.first().into_iter().flatten().enumerate() {
        let cells = columns.iter().map(|column| column[at].1.clone());
        table.row([(*name).to_owned()].into_iter().chain(cells).collect());
    }
    table
}
