//! Turns what checks in a broken store into a new one beside it.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use wal::inspect;

use super::{store_dir, verify};

/// Copies what checks in a store to a new directory; the old one stays as it is.
///
/// Stop the agent first. Series keep their labels, frames their places, endpoints their positions.
/// Records that cannot be read any more are counted as lost by every endpoint that passes them, under
/// the reason corrupt_frame or missing_segment. When it is done, put the new directory in the place
/// of the old one.
///
/// Exit code: 0 the new store is complete, 1 it could not be made.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Options {
    /// The store of a component, `<storage.path>/<component id>`, or a `<storage.path>` with one.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Where the new store is made; must not be there yet.
    #[arg(long, value_name = "NEW_DIR")]
    to: PathBuf,
}

/// Repairs.
///
/// # Errors
/// Why there is no complete new store.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let dir = store_dir::find(&options.dir)?;
    if options.to.try_exists()? {
        bail!(
            "{} is there already: a repair makes a new store",
            options.to.display()
        );
    }
    let done = match inspect::repair(&dir, &options.to) {
        Err(wal::Error::Locked { path }) => bail!(
            "{} is in use by another process: stop the agent, then repair",
            path.display()
        ),
        done => done?,
    };
    let mut lines = vec![
        format!("repaired {} to {}", dir.display(), options.to.display()),
        format!("  series     {}", done.series),
        format!("  segments   {}", done.segments),
        format!("  frames     {} with {} records", done.frames, done.records),
        format!("  positions  {}", done.positions),
        format!("  losses     {} in the ledger before", done.losses),
    ];
    for problem in &done.left_behind {
        lines.push(format!("left behind: {}", verify::line(problem)));
    }
    if done.series_lost > 0 {
        lines.push(format!(
            "{} series have lost their labels: their samples count as unknown_series",
            done.series_lost
        ));
    }
    if done.records_lost > 0 {
        lines.push(format!("{} records are lost", done.records_lost));
    }
    let text = lines.join("\n") + "\n";
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
