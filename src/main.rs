//! Turns a command line into an exit code.
//!
//! `run` is the agent; `fmt`, `convert` and `validate` work on configurations, `demo` is the main job on
//! an embedded backend, `wal` works on logs.

#![forbid(unsafe_code)]

mod agent;
mod cluster;
mod completions;
mod component;
mod convert;
mod demo;
mod discovery;
mod exporter;
mod format;
mod graph;
mod overlap;
mod run;
mod run_flags;
mod server;
mod telemetry;
mod validate;
mod version;
mod wal;
mod web;

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
    /// Tells what is wrong with a configuration, without running it.
    Validate(validate::Options),
    /// Shows the main job: a load, an outage, a kill, and every sample accounted for.
    Demo(demo::Options),
    /// Looks into the log of a component, checks, repairs, replays it; imports another one.
    #[command(subcommand)]
    Wal(wal::Command),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Run(options) => run::run(options).map(|()| ExitCode::SUCCESS),
        Command::Format(options) => format::run(&options),
        Command::Convert(options) => convert::run(&options),
        Command::Completions(options) => completions::run(&options, Arguments::command()),
        Command::Validate(options) => validate::run(&options).map(|()| ExitCode::SUCCESS),
        Command::Demo(options) => demo::run(options),
        Command::Wal(command) => wal::run(&command),
    };
    outcome.unwrap_or_else(|error| {
        telemetry::logs::print_error(&error);
        ExitCode::FAILURE
    })
}
