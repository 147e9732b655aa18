//! Turns a configuration into what is wrong with it, without running it.
//!
//! # Failure
//! - Errors are printed with their lines and end in exit code 1; warnings are printed and do not.

#[cfg(test)]
mod tests;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};

use crate::agent::Files;
use crate::graph::Stability;
use crate::run_flags::ConfigFormat;

/// The arguments of `validate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Configuration file, or a directory whose *.alloy and *.penstock files make one configuration.
    #[arg(value_name = "CONFIG")]
    config: PathBuf,
    /// The language it is written in.
    #[arg(
        long = "config.format",
        value_name = "FORMAT",
        value_enum,
        default_value = "alloy"
    )]
    format: ConfigFormat,
    /// Go on without what cannot be converted from another language.
    #[arg(long = "config.bypass-conversion-errors")]
    bypass_errors: bool,
    /// Arguments the program of the other language is started with.
    #[arg(
        long = "config.extra-args",
        value_name = "ARGS",
        default_value = "",
        allow_hyphen_values = true
    )]
    extra_args: String,
    /// The least stable of what may be used.
    #[arg(
        long = "stability.level",
        value_name = "LEVEL",
        value_enum,
        default_value = "generally-available"
    )]
    stability: Stability,
}

/// Prints what is wrong.
///
/// # Errors
/// There is anything that would keep the agent from running it, or it cannot be read.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let files = Files {
        path: options.config.clone(),
        format: options.format,
        bypass_errors: options.bypass_errors,
        extra_args: options.extra_args.clone(),
    };
    let found = files.check(options.stability)?;
    if !found.is_empty() {
        let stderr = std::io::stderr();
        let pretty = found.pretty(stderr.is_terminal());
        let printed = stderr.lock().write_all(pretty.as_bytes());
        printed.context("print what is wrong")?;
    }
    if found.has_errors() {
        bail!("validation failed");
    }
    Ok(())
}
