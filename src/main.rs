//! Turns a command line into an exit code.
//!
//! `run` is the agent, `demo` the main job on an embedded backend, `wal` works on logs.

#![forbid(unsafe_code)]

mod component;
mod demo;
mod run;
mod server;
mod telemetry;
mod wal;
mod web;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A telemetry store-and-forward agent: what it acknowledges is on disk and gets delivered.
#[derive(Debug, Parser)]
#[command(name = "penstock", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the pipelines of a configuration file.
    Run(run::Options),
    /// Shows the main job: a load, an outage, a kill, and every sample accounted for.
    Demo(demo::Options),
    /// Looks into the log of a component, checks, repairs, replays it; imports another one.
    #[command(subcommand)]
    Wal(wal::Command),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Run(options) => run::run(&options).map(|()| ExitCode::SUCCESS),
        Command::Demo(options) => demo::run(options),
        Command::Wal(command) => wal::run(&command),
    };
    outcome.unwrap_or_else(|error| {
        telemetry::logs::print_error(&error);
        ExitCode::FAILURE
    })
}
