//! Turns `penstock wal COMMAND` into work on the log of a component while no agent has it.
//!
//! | file | does |
//! |---|---|
//! | `import` | the log of a Prometheus -> appended to a store |
//! | `time` | RFC 3339 and Unix seconds -> milliseconds, and back |

mod import;
mod time;

use std::process::ExitCode;

/// The subcommands of `wal`; each is described at its options.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Import(import::Options),
}

/// Runs a subcommand.
///
/// # Errors
/// Why it could not do its work.
pub(crate) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Import(options) => import::run(options),
    }
}
