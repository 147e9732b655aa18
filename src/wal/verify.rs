//! Turns every checksum of a store into a verdict.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};
use wal::inspect::{Event, Problem, StoreView};

use super::progress::Progress;
use super::store_dir;
use super::table::bytes_text;

/// Exit code: something does not check.
const PROBLEMS: u8 = 2;
/// Problems that are listed; further ones are only counted.
const LISTED_MAX: usize = 1000;

/// Checks every checksum of a store: file headers, frames, series records, positions, the ledger.
///
/// Works while an agent has the store: it looks at what was there when it began, changes nothing
/// and takes no lock. Zeros that were prepared ahead are no problem, and neither is what the last
/// run was writing when it was cut off: nothing of that was ever acknowledged.
///
/// Exit code: 0 everything checks, 1 the store could not be read, 2 something does not check.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Options {
    /// The store of a component, `<storage.path>/<component id>`, or a `<storage.path>` with one.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// The verdict as JSON.
    #[arg(long)]
    json: bool,
}

/// What was read.
#[derive(Debug, Default)]
struct Verdict {
    segments: u64,
    frames: u64,
    records: u64,
    bytes: u64,
    series: u64,
    series_bytes: u64,
    positions: u64,
    losses: u64,
    problems: Vec<Problem>,
    usual: Vec<Problem>,
    problem_count: u64,
}

/// Verifies.
///
/// # Errors
/// The store cannot be listed.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let dir = store_dir::find(&options.dir)?;
    let mut progress = Progress::begin();
    let view = StoreView::open(&dir)?;
    let mut verdict = Verdict::default();
    verdict.take_all(view.problems());
    verdict.segments(&view, &mut progress);
    let series = view.series()?;
    verdict.take_all(series.problems());
    verdict.series = super::count(series.len());
    verdict.series_bytes = series.files().iter().map(|file| file.bytes).sum();
    verdict.positions = super::count(view.positions().len());
    let losses = view.losses()?;
    verdict.losses = super::count(losses.losses.len());
    verdict.take_all(&losses.problems);
    progress.end();
    verdict.print(&view, &progress, options.json)?;
    if verdict.problem_count > 0 {
        return Ok(ExitCode::from(PROBLEMS));
    }
    Ok(ExitCode::SUCCESS)
}

impl Verdict {
    fn segments(&mut self, view: &StoreView, progress: &mut Progress) {
        let start = view
            .segments()
            .first()
            .map_or(view.end().position, |s| s.first());
        let total = view.bytes_between(start, view.end().position);
        let mut done = 0;
        let mut scan = view.scan();
        while let Some(event) = scan.next_event() {
            match event {
                Event::Frame(frame) => {
                    done += frame.end().bytes_since(frame.position());
                    let seconds = progress.elapsed().as_secs_f64();
                    progress.show(|| {
                        let (done, total) = (bytes_text(done), bytes_text(total));
                        format!("{done} of {total} in {seconds:.1} s")
                    });
                }
                Event::Problem(problem) => self.take(&problem),
            }
        }
        for counts in scan.counts() {
            self.segments += 1;
            self.frames += counts.frames;
            self.records += counts.records;
            self.bytes += counts.bytes;
        }
    }

    fn take_all(&mut self, problems: &[Problem]) {
        for problem in problems {
            self.take(problem);
        }
    }

    fn take(&mut self, problem: &Problem) {
        let list = if problem.what.is_usual() {
            &mut self.usual
        } else {
            self.problem_count += 1;
            &mut self.problems
        };
        if list.len() < LISTED_MAX {
            list.push(problem.clone());
        }
    }

    fn print(&self, view: &StoreView, progress: &Progress, json: bool) -> std::io::Result<()> {
        let text = if json {
            format!("{}\n", self.json(view))
        } else {
            self.text(view, progress)
        };
        std::io::stdout().lock().write_all(text.as_bytes())
    }

    fn text(&self, view: &StoreView, progress: &Progress) -> String {
        let seconds = progress.elapsed().as_secs_f64();
        let mut lines = vec![
            format!("checked {} in {seconds:.2} s", view.dir().display()),
            format!(
                "  {} segments, {} frames, {} records, {}",
                self.segments,
                self.frames,
                self.records,
                bytes_text(self.bytes)
            ),
            format!(
                "  {} series, {}",
                self.series,
                bytes_text(self.series_bytes)
            ),
            format!(
                "  {} positions, {} losses in the ledger",
                self.positions, self.losses
            ),
        ];
        for usual in &self.usual {
            lines.push(format!("note: {}", line(usual)));
        }
        for problem in &self.problems {
            lines.push(format!("PROBLEM: {}", line(problem)));
        }
        lines.push(match self.problem_count {
            0 => "everything checks".to_owned(),
            1 => "1 problem; `penstock wal repair` copies what checks to a new store".to_owned(),
            n => format!("{n} problems; `penstock wal repair` copies what checks to a new store"),
        });
        lines.join("\n") + "\n"
    }

    fn json(&self, view: &StoreView) -> Value {
        json!({
            "store": view.dir().display().to_string(),
            "segments": self.segments,
            "frames": self.frames,
            "records": self.records,
            "bytes": self.bytes,
            "series": self.series,
            "series_bytes": self.series_bytes,
            "positions": self.positions,
            "losses": self.losses,
            "problems": self.problems.iter().map(to_json).collect::<Vec<_>>(),
            "problem_count": self.problem_count,
            "notes": self.usual.iter().map(to_json).collect::<Vec<_>>(),
        })
    }
}

/// A problem in one line.
pub(super) fn line(problem: &Problem) -> String {
    let Problem {
        path,
        offset,
        position,
        bytes,
        records,
        what,
    } = problem;
    let position = position.map_or(String::new(), |at| format!(" (position {at})"));
    let records = records.map_or(String::new(), |n| format!(", {n} records"));
    format!(
        "{} at {offset}{position}, {bytes} bytes{records}: {}; costs {}",
        path.display(),
        what.as_str(),
        what.cost()
    )
}

/// A problem for programs.
pub(super) fn to_json(problem: &Problem) -> Value {
    json!({
        "file": problem.path.display().to_string(),
        "offset": problem.offset,
        "position": problem.position.map(|position| position.get()),
        "bytes": problem.bytes,
        "records": problem.records,
        "what": problem.what.as_str(),
        "costs": problem.what.cost(),
    })
}
