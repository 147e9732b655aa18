//! Turns a machine into a whole run: every command in sequence, each in a process of its own.
//!
//! So each result names the command that repeats it, what one leaves in memory is not in the next, and
//! one that fails does not take the others with it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use wal::SystemClock;

use crate::table::print;

/// Names of results, and the commands with arguments; together about 20 minutes.
const RUNS: [(&str, &str); 14] = [
    ("ingest", "ingest --seconds 6"),
    ("ingest-v2", "ingest --v2 --sizes 100000 --seconds 6"),
    ("ship", "ship --seconds 8"),
    ("ship-1m", "e2e --series 1000000 --seconds 8"),
    ("compare", "compare --seconds 10"),
    ("compare-16", "compare --connections 16 --seconds 10"),
    ("latency", "latency --others --seconds 10"),
    ("cores", "cores --seconds 6"),
    ("memory", "memory"),
    ("drain", "drain"),
    ("isolation", "isolation --seconds 10"),
    ("restart", "restart --gigabytes 1"),
    ("churn", "churn --seconds 20 --churn 3"),
    ("series-per-core", "series-per-core"),
];

/// The arguments of `all`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Where to write the results.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The agent; by default the release build beside this bench.
    #[arg(long, value_name = "PATH")]
    agent: Option<PathBuf>,
    /// Where to make the directories the subjects store in; they are removed.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Only these results.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    only: Vec<String>,
}

/// Runs everything; fails at the end if something did.
pub(crate) fn run(options: &Options) -> Result<()> {
    let runs = options.runs()?;
    fs::create_dir_all(&options.out).with_context(|| format!("make {}", options.out.display()))?;
    let clock = SystemClock::shared();
    let mut failed = Vec::new();
    let mut spent = Duration::ZERO;
    for (name, arguments) in runs {
        print(&format!("== {name}: bench {arguments}"));
        let began = clock.monotonic();
        let status = options.command(name, arguments)?.status();
        if !status.context("start this program again")?.success() {
            failed.push(name);
        }
        let took = clock.monotonic() - began;
        spent += took;
        print(&format!(
            "== {name}: {} s, {} s in all",
            took.as_secs(),
            spent.as_secs()
        ));
    }
    if !failed.is_empty() {
        bail!("no result of {}", failed.join(", "));
    }
    Ok(())
}

impl Options {
    fn runs(&self) -> Result<Vec<(&'static str, &'static str)>> {
        let is_known = |name: &&String| RUNS.iter().any(|(known, _)| known == name);
        if let Some(unknown) = self.only.iter().find(|name| !is_known(name)) {
            bail!("there is no result {unknown}");
        }
        let is_wanted = |name: &str| self.only.is_empty() || self.only.iter().any(|it| it == name);
        Ok(RUNS
            .into_iter()
            .filter(|(name, _)| is_wanted(name))
            .collect())
    }

    fn command(&self, name: &str, arguments: &str) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments.split_whitespace());
        command
            .arg("--out")
            .arg(self.out.join(name).with_extension("md"));
        for (flag, path) in [("--agent", &self.agent), ("--dir", &self.dir)] {
            if let Some(path) = path {
                command.arg(flag).arg(path);
            }
        }
        Ok(command)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn options(only: &[&str]) -> Options {
        Options {
            out: PathBuf::from("out"),
            agent: Some(PathBuf::from("agent")),
            dir: None,
            only: only.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn every_run_is_a_command_there_is() {
        for (name, arguments) in RUNS {
            let command = options(&[]).command(name, arguments).unwrap();
            let arguments = std::iter::once("bench".as_ref()).chain(command.get_args());
            let parsed = crate::Command::try_parse_from(arguments);
            assert!(parsed.is_ok(), "{name}: {parsed:?}");
        }
    }

    #[test]
    fn only_what_is_asked_for_runs() {
        let runs = options(&["drain", "cores"]).runs().unwrap();
        let names: Vec<_> = runs.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["cores", "drain"]);
        assert_eq!(options(&[]).runs().unwrap().len(), RUNS.len());
        assert!(options(&["dry"]).runs().is_err());
    }
}
