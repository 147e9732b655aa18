//! Turns position files and the ledger into what endpoints have and what was lost.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Problem, What, is_gone};
use crate::endpoint;
use crate::fs::Disk;
use crate::ledger::{parse_line, read_whole};
use crate::progress::{self, Progress};
use crate::{Ahead, Error, Loss, Position, Tally};

/// Bytes of a position slot.
const SLOT_BYTES: u64 = progress::field::END as u64;
/// A small file that changes while it is read is read again so often.
const READS_MAX: usize = 10;

/// What one endpoint has saved.
#[derive(Clone, Debug)]
pub struct PositionFile {
    /// The file.
    pub path: PathBuf,
    /// The endpoint's name.
    pub endpoint: String,
    /// Everything before needs no sending.
    pub acked: Position,
    /// Records of the log before the endpoint began.
    pub records_before: u64,
    /// What became of the records since.
    pub tally: Tally,
    /// What is decided beyond `acked`.
    pub ahead: Option<Ahead>,
    pub(super) sequence: u64,
}

impl PositionFile {
    /// Records of the log before `acked`.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records_before.saturating_add(self.tally.total())
    }

    /// What became of everything decided, also ahead.
    #[must_use]
    pub fn decided(&self) -> Tally {
        self.progress().decided()
    }

    pub(super) const fn progress(&self) -> Progress {
        Progress {
            acked: self.acked,
            records_before: self.records_before,
            tally: self.tally,
            ahead: self.ahead,
        }
    }
}

/// The position files with a slot that checks.
pub(super) fn read_all(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    problems: &mut Vec<Problem>,
) -> Result<Vec<PositionFile>, Error> {
    let mut all = Vec::new();
    for (path, _) in sizes(dir)? {
        let bytes = match read_settled(disk, &path, |bytes| {
            progress::broken_slots(bytes).is_empty()
        }) {
            Ok(bytes) => bytes,
            Err(error) if is_gone(&error) => continue,
            Err(_) => {
                problems.push(Problem::in_file(&path, 0, 0, What::Unreadable));
                continue;
            }
        };
        for slot in progress::broken_slots(&bytes) {
            let slot = slot as u64;
            problems.push(Problem::in_file(
                &path,
                slot,
                SLOT_BYTES,
                What::PositionSlot,
            ));
        }
        let Some((sequence, progress)) = progress::newest_slot(&bytes) else {
            continue;
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        all.push(PositionFile {
            endpoint: endpoint::name_of_file(&name),
            path,
            acked: progress.acked,
            records_before: progress.records_before,
            tally: progress.tally,
            ahead: progress.ahead,
            sequence,
        });
    }
    Ok(all)
}

/// Reads a small file until what is read is whole or stays the same.
fn read_settled(
    disk: &Arc<dyn Disk>,
    path: &Path,
    is_whole: impl Fn(&[u8]) -> bool,
) -> Result<Vec<u8>, Error> {
    let file = disk.open(path).map_err(Error::io("open", path))?;
    let mut bytes = Vec::new();
    for _ in 0..READS_MAX {
        let read = read_whole(disk, &file).map_err(Error::io("read", path))?;
        let is_settled = is_whole(&read) || read == bytes;
        bytes = read;
        if is_settled {
            break;
        }
    }
    Ok(bytes)
}

/// The lines of the ledger.
#[derive(Clone, Debug, Default)]
pub struct LossLedger {
    /// Those that check, in the order they were written.
    pub losses: Vec<Loss>,
    /// The others.
    pub problems: Vec<Problem>,
    /// The lines that check, with their newlines.
    pub(super) lines: Vec<u8>,
}

impl LossLedger {
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let disk: Arc<dyn Disk> = Arc::new(super::ReadOnlyDisk);
        let mut ledger = Self::default();
        let bytes = match read_settled(&disk, path, |bytes| bytes.last() == Some(&b'\n')) {
            Ok(bytes) => bytes,
            Err(error) if is_gone(&error) => return Ok(ledger),
            Err(error) => return Err(error),
        };
        let mut offset = 0;
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            let text = line.strip_suffix(b"\n");
            match parse_line(text.unwrap_or(line)) {
                Some(loss) => {
                    ledger.losses.push(loss);
                    ledger.lines.extend_from_slice(text.unwrap_or(line));
                    ledger.lines.push(b'\n');
                }
                None if line == b"\n" => {}
                None => {
                    // The last line without its end is what a crash leaves.
                    let what = text.map_or(What::Torn, |_| What::LedgerLine);
                    let bytes = line.len() as u64;
                    ledger
                        .problems
                        .push(Problem::in_file(path, offset, bytes, what));
                }
            }
            offset += line.len() as u64;
        }
        Ok(ledger)
    }
}

/// The files of a directory with their sizes, by name; none if there is no such directory.
pub(super) fn sizes(dir: &Path) -> Result<Vec<(PathBuf, u64)>, Error> {
    let list = match fs::read_dir(dir) {
        Ok(list) => list,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("list", dir)(error)),
    };
    let mut all = Vec::new();
    for entry in list {
        let entry = entry.map_err(Error::io("list", dir))?;
        // It may be gone by now.
        let bytes = entry.metadata().map_or(0, |metadata| metadata.len());
        all.push((entry.path(), bytes));
    }
    all.sort_unstable();
    Ok(all)
}
