//! Turns a directory into the records of its newest checkpoint and of the segments behind it.
//!
//! # Failure
//! - A file that cannot be read ends everything. Segments that are missing in the row of numbers
//!   are reported and left out.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::pages::{Pages, Step};
use super::record::Record;
use super::{Error, Event, Lost, Why};

const CHECKPOINT_PREFIX: &str = "checkpoint.";

/// The log of a Prometheus, read from its beginning to its end.
#[derive(Debug)]
pub struct PrometheusWal {
    dir: PathBuf,
    left: VecDeque<Part>,
    current: Option<(PathBuf, Pages<File>)>,
}

/// What is read one after the other.
#[derive(Debug)]
enum Part {
    Segment(PathBuf),
    Missing,
}

impl PrometheusWal {
    /// Finds the log in `dir`: the directory of the segments, or the one that has it as `wal`.
    ///
    /// # Errors
    /// [`Error::NoWal`], or what the system said.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let below = dir.join("wal");
        let dir = if below.is_dir() {
            below
        } else {
            dir.to_owned()
        };
        let mut left = VecDeque::new();
        let mut next = 0;
        if let Some((number, checkpoint)) = checkpoints(&dir)?.pop() {
            add(&mut left, 0, segments(&checkpoint)?);
            next = number.saturating_add(1);
        }
        let mut numbered = segments(&dir)?;
        numbered.retain(|(number, _)| *number >= next);
        add(&mut left, next, numbered);
        if left.is_empty() {
            return Err(Error::NoWal(dir));
        }
        Ok(Self {
            dir,
            left,
            current: None,
        })
    }

    /// Where the segments are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The next record or loss; `None` at the end.
    ///
    /// # Errors
    /// What the system said; there is no sense in calling again.
    pub fn next_event(&mut self) -> Result<Option<Event<'_>>, Error> {
        let lost = |file: PathBuf, offset: u64, end: u64, why| Lost {
            file,
            offset,
            bytes: end - offset,
            why,
        };
        let range = loop {
            let Some((path, pages)) = &mut self.current else {
                match self.left.pop_front() {
                    None => return Ok(None),
                    Some(Part::Missing) => {
                        let lost = lost(self.dir.clone(), 0, 0, Why::MissingSegments);
                        return Ok(Some(Event::Lost(lost)));
                    }
                    Some(Part::Segment(path)) => {
                        let file = File::open(&path).map_err(io_error(&path))?;
                        self.current = Some((path, Pages::new(file)));
                    }
                }
                continue;
            };
            match pages.step().map_err(io_error(path))? {
                Step::End => self.current = None,
                Step::Record(range) => break range,
                Step::Lost(range, why) => {
                    let is_last = self.left.is_empty();
                    let why = match why {
                        Why::TornTail if !is_last => Why::CutOff,
                        why => why,
                    };
                    let lost = lost(path.clone(), range.start, range.end, why);
                    return Ok(Some(Event::Lost(lost)));
                }
            }
        };
        Ok(self.current.as_ref().map(|(path, pages)| {
            Record::decode(pages.record()).map_or_else(
                |why| Event::Lost(lost(path.clone(), range.start, range.end, why)),
                Event::Record,
            )
        }))
    }
}

/// Adds segments in order; one gap for each place where numbers are missing.
fn add(parts: &mut VecDeque<Part>, mut next: u64, numbered: Vec<(u64, PathBuf)>) {
    for (number, path) in numbered {
        if number != next {
            parts.push_back(Part::Missing);
        }
        next = number.saturating_add(1);
        parts.push_back(Part::Segment(path));
    }
}

/// Files whose names are numbers, in order of these.
fn segments(dir: &Path) -> Result<Vec<(u64, PathBuf)>, Error> {
    numbered(dir, "")
}

/// Finished checkpoints in order; one that is being written has another suffix.
fn checkpoints(dir: &Path) -> Result<Vec<(u64, PathBuf)>, Error> {
    numbered(dir, CHECKPOINT_PREFIX)
}

fn numbered(dir: &Path, prefix: &str) -> Result<Vec<(u64, PathBuf)>, Error> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(io_error(dir))? {
        let entry = entry.map_err(io_error(dir))?;
        let name = entry.file_name();
        let digits = name.to_str().and_then(|name| name.strip_prefix(prefix));
        let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        if let Some(number) = digits.and_then(|digits| digits.parse().ok()) {
            found.push((number, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

fn io_error(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    |source| Error::Io { path, source }
}
