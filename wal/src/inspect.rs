//! Turns the directory of a store, live or stopped, into what is in it, without changing anything.
//!
//! | file | turns |
//! |---|---|
//! | `segments.rs` | file names and headers into the log as it is now: its files and its end |
//! | `scan.rs` | the log into frames and problems, in log order |
//! | `series.rs` | chunk files into refs and label bytes |
//! | `positions.rs` | position files and the ledger into what endpoints have and what was lost |
//! | `fuzz.rs` | any bytes into a check that reading them ends in order |
//! | `repair.rs` | what checks into a new store beside |
//!
//! A view ends where the log ended when it was opened: what a live process appends later is not
//! looked at, so that nothing half-written is met. Within it, whatever does not check is a
//! [`Problem`] and never an error for the whole.
//!
//! # Invariants
//! - Files are opened for reading only, and the lock is not taken (but by [`repair`]).
//! - One frame decoder for tail, recovery and this.
//!
//! # Failure
//! - A file that vanishes was reclaimed by the live process: it is left out.
//! - What is broken is read a second time before it is a problem: the live process may have been
//!   writing it.
//!
//! # Limits
//! - A window of a segment, one chunk at a time, and 24 bytes per series record; labels stay mapped.

#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod positions;
mod repair;
mod scan;
mod segments;
mod series;

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use positions::{LossLedger, PositionFile};
pub use repair::{Repaired, repair};
pub use scan::{Event, Scan, SegmentCounts};
pub use segments::SegmentFile;
pub use series::{ChunkFile, SeriesView};

use crate::fs::{Disk, DiskFile};
use crate::{Error, Position};

/// What is wrong somewhere in a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// One of the two copies of a file header.
    HeaderCopy,
    /// Both copies, but the frames of the segment tell what stood there.
    HeaderFromFrames,
    /// Both copies: the file cannot be read.
    Header,
    /// The file was written by a newer version.
    NewerVersion,
    /// Bytes between two frames where a frame should begin.
    Frame,
    /// The body of a frame whose header checks.
    FrameBody,
    /// The device refuses to read it.
    Unreadable,
    /// Of the last group an interrupted run wrote; nothing proves that it was ever acknowledged.
    Torn,
    /// Segments that should be there.
    MissingSegment,
    /// Bytes between or behind series records.
    SeriesRecord,
    /// One of the two slots of a position file.
    PositionSlot,
    /// A line of the ledger.
    LedgerLine,
    /// Records that were lost before: their place is covered since.
    LostBefore,
}

impl What {
    /// What it is, in a few words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HeaderCopy => "one of two copies of the file header",
            Self::HeaderFromFrames => "both copies of the file header",
            Self::Header => "both copies of the file header",
            Self::NewerVersion => "the file is of a newer version",
            Self::Frame => "no valid frame header",
            Self::FrameBody => "frame body",
            Self::Unreadable => "the device cannot read it",
            Self::Torn => "torn by the end of a run",
            Self::MissingSegment => "segment missing",
            Self::SeriesRecord => "series record",
            Self::PositionSlot => "position slot",
            Self::LedgerLine => "line of the ledger",
            Self::LostBefore => "lost before",
        }
    }

    /// What it costs, in a few words.
    #[must_use]
    pub const fn cost(self) -> &'static str {
        match self {
            Self::HeaderCopy => "nothing: the other copy is good",
            Self::HeaderFromFrames => "all its frames, until `repair` writes the header anew",
            Self::Header => "everything in the file",
            Self::NewerVersion => "nothing, for a newer Penstock",
            Self::Frame | Self::FrameBody | Self::Unreadable | Self::MissingSegment => {
                "the records in it"
            }
            Self::Torn => "nothing that is known to have been acknowledged",
            Self::SeriesRecord => "the labels of its series",
            Self::PositionSlot => "nothing while the other slot is good; else all is sent again",
            Self::LedgerLine => "the account of one loss",
            Self::LostBefore => "nothing more",
        }
    }

    /// Whether it is usual after a crash or a repair, and nothing to act on.
    #[must_use]
    pub const fn is_usual(self) -> bool {
        matches!(self, Self::Torn | Self::LostBefore)
    }
}

/// Something that does not check, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The file.
    pub path: PathBuf,
    /// Where in the file it begins.
    pub offset: u64,
    /// Where in the log it begins, if it is in the log.
    pub position: Option<Position>,
    /// How many bytes.
    pub bytes: u64,
    /// Records lost with it, where their count is known.
    pub records: Option<u64>,
    /// What is wrong.
    pub what: What,
}

impl Problem {
    fn in_file(path: &Path, offset: u64, bytes: u64, what: What) -> Self {
        Self {
            path: path.to_owned(),
            offset,
            position: None,
            bytes,
            records: None,
            what,
        }
    }
}

/// A store directory, read only.
#[derive(Debug)]
pub struct StoreView {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    segments: segments::Segments,
    positions: Vec<PositionFile>,
    problems: Vec<Problem>,
}

impl StoreView {
    /// Looks at the store in `dir`.
    ///
    /// # Errors
    /// The directory is no store or cannot be listed.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let disk: Arc<dyn Disk> = Arc::new(ReadOnlyDisk);
        let mut problems = Vec::new();
        // Positions between two listings: those acknowledge nothing that the first does not begin
        // before, and the second has every segment they point into.
        let before = segments::list(dir)?;
        let positions = positions::read_all(&disk, &dir.join("positions"), &mut problems)?;
        let segments = segments::Segments::open(&disk, dir, before, &mut problems)?;
        segments.check_begin(&disk, &positions, &mut problems);
        Ok(Self {
            dir: dir.to_owned(),
            disk,
            segments,
            positions,
            problems,
        })
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The segment files, oldest first; those behind [`Self::end`] are prepared ahead.
    #[must_use]
    pub fn segments(&self) -> &[SegmentFile] {
        self.segments.files()
    }

    /// Where the log ended when the view was opened, and the records before that.
    #[must_use]
    pub const fn end(&self) -> crate::Mark {
        self.segments.end()
    }

    /// What every endpoint, known or forgotten, has saved.
    #[must_use]
    pub fn positions(&self) -> &[PositionFile] {
        &self.positions
    }

    /// What is wrong with headers, positions, and the end of the log.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Bytes of frames between two positions: what interrupted runs left unused does not count.
    #[must_use]
    pub fn bytes_between(&self, from: Position, to: Position) -> u64 {
        self.segments.bytes_between(from, to)
    }

    /// The log from its oldest segment on.
    #[must_use]
    pub const fn scan(&self) -> Scan<'_> {
        Scan::new(self)
    }

    /// Every series with a record that checks, as of now.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn series(&self) -> Result<SeriesView, Error> {
        SeriesView::load(&self.disk, &self.dir.join("series"))
    }

    /// What was lost so far.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn losses(&self) -> Result<LossLedger, Error> {
        LossLedger::read(&self.dir.join("losses"))
    }

    /// Names and sizes of what is in quarantine.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn quarantine(&self) -> Result<Vec<(PathBuf, u64)>, Error> {
        positions::sizes(&self.dir.join("quarantine"))
    }
}

/// The first thing in a store that does not check, if any; what is usual after a crash is not counted.
///
/// # Errors
/// The directory is no store or cannot be listed.
pub fn first_problem(dir: &Path) -> Result<Option<Problem>, Error> {
    let view = StoreView::open(dir)?;
    let is_serious = |problem: &&Problem| !problem.what.is_usual();
    if let Some(problem) = view.problems().iter().find(is_serious) {
        return Ok(Some(problem.clone()));
    }
    let mut scan = view.scan();
    while let Some(event) = scan.next_event() {
        if let Event::Problem(problem) = event
            && !problem.what.is_usual()
        {
            return Ok(Some(problem));
        }
    }
    let (series, losses) = (view.series()?, view.losses()?);
    let mut others = series.problems().iter().chain(&losses.problems);
    Ok(others.find(is_serious).cloned())
}

/// Whether an error says that a file is not there (any more).
fn is_gone(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

/// The disk of the machine, for reading.
#[derive(Debug, Clone, Copy)]
struct ReadOnlyDisk;

fn refused<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl Disk for ReadOnlyDisk {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        refused()
    }
    fn create(&self, _: &Path, _: u64) -> io::Result<DiskFile> {
        refused()
    }
    fn open(&self, path: &Path) -> io::Result<DiskFile> {
        let file = OpenOptions::new().read(true).open(path)?;
        Ok(DiskFile::new(path, file))
    }
    fn read_at(&self, file: &DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        crate::fs::SystemDisk.read_at(file, buffer, offset)
    }
    fn write_at(&self, _: &DiskFile, _: &[u8], _: u64) -> io::Result<usize> {
        refused()
    }
    fn sync(&self, _: &DiskFile) -> io::Result<()> {
        refused()
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        refused()
    }
    fn remove(&self, _: &Path) -> io::Result<()> {
        refused()
    }
    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        refused()
    }
}
