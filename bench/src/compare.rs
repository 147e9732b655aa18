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
/// Ours with requests as large as those of vmagent.
const LARGE: &str = "penstock, large requests";
const LARGE_REQUESTS: &str = "queue_config { max_samples_per_send = 10000 }";

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
    let large = ours.clone().with_endpoint(LARGE_REQUESTS);
    notes.push(format!(
        "{LARGE}: {LARGE_REQUESTS}, as much as vmagent puts into one by default"
    ));
    for (name, program) in [
        (OURS, ours),
        (LARGE, large),
        ("vmagent", Program::Vmagent),
        ("prometheus agent", Program::Prometheus),
    ] {
        if program.version().is_none() {
            notes.push(format!("{name}: not installed, skipped"));
            continue;
        }
        notes.push(version_of(&program));
        print(&format!("measuring {name} ..."));
        match measure(&program, common, &fleet) {
            Ok(measured) => results.push((name, measured)),
            Err(error) => notes.push(format!("{name}: no result: {error:#}")),
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

/// Our figures over each of the others.
fn ratios(results: &[(&str, Measured)]) -> Table {
    let heads = ["against", "samples per core-second", OURS, LARGE];
    let mut table = Table::new(heads);
    let ours = [OURS, LARGE].map(|ours| {
        let found = results.iter().find(|(name, _)| *name == ours);
        found.map(|(_, measured)| measured.per_core_second())
    });
    for (name, theirs) in results {
        let theirs = theirs.per_core_second();
        let mut row = vec![(*name).to_owned(), crate::table::millions(theirs)];
        row.extend(
            ours.map(|ours| ours.map_or("-".to_owned(), |ours| format!("{:.1} x", ours / theirs))),
        );
        table.row(row);
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
