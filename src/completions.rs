//! Turns the command line's own description into what a shell needs to complete it.

use std::io::Write;
use std::process::ExitCode;

use clap_complete::Shell;

/// Prints what a shell needs to complete the commands.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The shell.
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

/// Prints the script.
///
/// # Errors
/// stdout cannot be written.
pub(crate) fn run(options: &Options, mut command: clap::Command) -> anyhow::Result<ExitCode> {
    let name = command.get_name().to_owned();
    // Written in one piece: a pipe that closes early is an error then, not a panic.
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut command, name, &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}
