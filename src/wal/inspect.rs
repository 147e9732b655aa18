//! Turns a store into a report of what is in it.
//!
//! | file | turns |
//! |---|---|
//! | `report` | frames and series into counts |
//! | `text` | the report into tables |
//! | `json` | the report into one document |

mod json;
mod report;
mod text;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use wal::SystemClock;
use wal::inspect::StoreView;

use self::report::Report;
use super::store_dir;

/// Shows what is in a store: segments, series, positions, the account, losses, the largest series.
///
/// Works while an agent has the store: it shows what was there when it began, changes nothing and
/// takes no lock.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Options {
    /// The store of a component, `<storage.path>/<component id>`, or a `<storage.path>` with one.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Everything as one JSON document.
    #[arg(long)]
    json: bool,
    /// So many series, label names and labels are listed.
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,
}

/// Inspects.
///
/// # Errors
/// The store cannot be listed.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let view = StoreView::open(&store_dir::find(&options.dir)?)?;
    let now_ms = SystemClock::shared().unix_ms();
    let report = Report::of(&view, options.top, now_ms)?;
    let text = if options.json {
        format!("{:#}\n", json::document(&view, &report))
    } else {
        text::tables(&view, &report)
    };
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
