//! Turns a command line into an exit code.
//!
//! `run` is the agent, `fmt` and `convert` work on configurations, `demo` is the main job on an embedded backend, `wal` works on logs.

#![forbid(unsafe_code)]

mod completions;
mod component;
mod convert;
mod demo;
mod format;
mod run;
mod run_flags;
mod server;
mod telemetry;
mod version;
mod wal;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// A telemetry store-and-forward agent: what it acknowledges is on disk and gets delivered.
#[derive(Debug, Parser)]
#[command(name = "penstock", version = version::VERSION.as_str(), arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the pipelines of a configuration file.
    Run(run::Options),
    /// Formats a configuration file.
    #[command(name = "fmt", visible_alias = "format")]
    Format(format::Options),
    /// Converts the configuration of another program.
    Convert(convert::Options),
    /// Prints what a shell needs to complete the commands.
    Completions(completions::Options),
    /// Shows the main job: a load, an outage, a kill, and every sample accounted for.
    Demo(demo::Options),
    /// Looks into the log of a component, checks, repairs, replays it; imports another one.
    #[command(subcommand)]
    Wal(wal::Command),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Run(options) => run::run(&options).map(|()| ExitCode::SUCCESS),
        Command::Format(options) => format::run(&options),
        Command::Convert(options) => convert::run(&options),
        Command::Completions(options) => completions::run(&options, Arguments::command()),
        Command::Demo(options) => demo::run(options),
        Command::Wal(command) => wal::run(&command),
    };
    outcome.unwrap_or_else(|error| {
        telemetry::logs::print_error(&error);
        ExitCode::FAILURE
    })
}
