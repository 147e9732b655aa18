//! Turns `penstock wal COMMAND` into work on the log of a component.
//!
//! | file | does |
//! |---|---|
//! | `import` | the log of a Prometheus -> appended to a store |
//! | `inspect` | a store -> a report of what is in it |
//! | `verify` | every checksum of a store -> a verdict |
//! | `repair` | what checks in a store -> a new store |
//! | `rejected` | what endpoints refused for good -> text |
//! | `replay` | a time range of a store -> requests to an endpoint |
//! | `store_dir`, `progress`, `table` | shared: which store, a line on stderr, aligned text |
//! | `time` | RFC 3339 and Unix seconds -> milliseconds, and back |

mod import;
mod inspect;
mod progress;
pub(crate) mod rejected;
mod repair;
mod replay;
mod store_dir;
mod table;
pub(crate) mod time;
mod verify;

use std::process::ExitCode;

/// The subcommands of `wal`; each is described at its options.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Import(import::Options),
    Inspect(inspect::Options),
    Verify(verify::Options),
    Rejected(rejected::Options),
    Repair(repair::Options),
    Replay(replay::Options),
}

/// Runs a subcommand.
///
/// # Errors
/// Why it could not do its work.
pub(crate) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Import(options) => import::run(options),
        Command::Inspect(options) => inspect::run(options),
        Command::Verify(options) => verify::run(options),
        Command::Rejected(options) => rejected::run(options),
        Command::Repair(options) => repair::run(options),
        Command::Replay(options) => replay::run(options),
    }
}

/// A length as a number to print.
fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
