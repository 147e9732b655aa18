//! Keeps what was lost, where, why and for whom: one checked line per loss, never rewritten.
//!
//! The account in numbers is each endpoint's tally (`tally.rs`); the ledger says where and when.
//!
//! # On disk
//! `docs/format.md`, "Losses".
//!
//! # Failure
//! A line that cannot be written is logged and still counted in memory: a full disk must not stop
//! what the ledger reports on. A line torn by a crash is left alone; the next begins behind it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::fs::{Disk, DiskFile};
use crate::{DropReason, Error, Position};

/// The endpoint of a loss that hits all of them.
pub const ALL_ENDPOINTS: &str = "*";

/// One loss.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loss {
    /// When it was found, in milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// For whom; [`ALL_ENDPOINTS`] for everybody.
    pub endpoint: String,
    /// Why.
    pub reason: DropReason,
    /// Where it begins.
    pub from: Position,
    /// Where it ends.
    pub to: Position,
    /// Records at most: what of them was in flight may have arrived.
    pub records: u64,
    /// When the first and the last of them were appended, in milliseconds since the Unix epoch, as
    /// near as their surroundings tell; 0 where nothing tells.
    pub appended_ms: (i64, i64),
}

/// Bytes lost, by reason.
pub type LostBytes = BTreeMap<String, u64>;

#[derive(Debug)]
pub(crate) struct Ledger {
    path: PathBuf,
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    file: DiskFile,
    /// Where the next line goes.
    end: u64,
    lost: LostBytes,
    /// Which losses were recorded already: every endpoint's tail meets the same broken frame.
    known: BTreeMap<(String, u64, u64), ()>,
}

/// The lines of a ledger file that check.
pub(crate) fn parse(bytes: &[u8]) -> Vec<Loss> {
    bytes
        .split(|&b| b == b'\n')
        .filter_map(parse_line)
        .collect()
}

impl Ledger {
    /// # Errors
    /// What the system said.
    pub(crate) fn open(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Self, Error> {
        let path = dir.join("losses");
        let there = path.try_exists().map_err(Error::io("look for", &path))?;
        let (file, bytes) = if there {
            let file = disk.open(&path).map_err(Error::io("open", &path))?;
            let bytes = read_whole(disk, &file).map_err(Error::io("read", &path))?;
            (file, bytes)
        } else {
            let file = disk.create(&path, 0).map_err(Error::io("create", &path))?;
            disk.sync_dir(dir).map_err(Error::io("sync", dir))?;
            (file, Vec::new())
        };
        let mut open = Open {
            file,
            end: bytes.len() as u64,
            lost: LostBytes::new(),
            known: BTreeMap::new(),
        };
        for loss in parse(&bytes) {
            open.count(&loss);
        }
        if bytes.last().is_some_and(|&last| last != b'\n') {
            // Torn: whatever it is must not run into the next line.
            let newline = disk.write_all_at(&open.file, b"\n", open.end);
            newline.map_err(Error::io("write", &path))?;
            open.end += 1;
        }
        Ok(Self {
            path,
            open: Mutex::new(open),
        })
    }

    /// Records a loss once, however many readers meet it. Answers whether it was new.
    pub(crate) fn record(&self, disk: &Arc<dyn Disk>, loss: &Loss) -> bool {
        let mut open = self.open.lock();
        if !open.count(loss) {
            return false;
        }
        let line = format(loss);
        let written = disk
            .write_all_at(&open.file, line.as_bytes(), open.end)
            .and_then(|()| disk.sync(&open.file));
        match written {
            Ok(()) => open.end += line.len() as u64,
            Err(e) => {
                tracing::error!(path = %self.path.display(), error = %e, "cannot write to the ledger");
            }
        }
        tracing::error!(
            endpoint = %loss.endpoint,
            reason = loss.reason.as_str(),
            from = %loss.from,
            to = %loss.to,
            records = loss.records,
            "data of the log is lost"
        );
        true
    }

    pub(crate) fn lost(&self) -> LostBytes {
        self.open.lock().lost.clone()
    }
}

impl Open {
    /// Takes a loss into account; false if it was there already.
    fn count(&mut self, loss: &Loss) -> bool {
        let key = (loss.endpoint.clone(), loss.from.get(), loss.to.get());
        if self.known.insert(key, ()).is_some() {
            return false;
        }
        let bytes = loss.to.bytes_since(loss.from);
        *self
            .lost
            .entry(loss.reason.as_str().to_owned())
            .or_default() += bytes;
        true
    }
}

/// All bytes of a small file.
///
/// # Errors
/// What the system said.
pub(crate) fn read_whole(disk: &Arc<dyn Disk>, file: &DiskFile) -> std::io::Result<Vec<u8>> {
    let bytes = file.file().metadata()?.len();
    let mut buffer = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
    let read = disk.read_full_at(file, &mut buffer, 0)?;
    buffer.truncate(read);
    Ok(buffer)
}

/// The line of a loss.
pub(crate) fn format(loss: &Loss) -> String {
    let Loss {
        time_ms,
        endpoint,
        reason,
        from,
        to,
        records,
        appended_ms: (first_ms, last_ms),
    } = loss;
    let endpoint: String = endpoint
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    let reason = reason.as_str();
    let line =
        format!("{time_ms}\t{endpoint}\t{reason}\t{from}\t{to}\t{records}\t{first_ms}\t{last_ms}");
    let crc = crc32fast::hash(line.as_bytes());
    format!("{line}\t{crc:08x}\n")
}

/// The loss of a line without its newline, if it checks.
pub(crate) fn parse_line(line: &[u8]) -> Option<Loss> {
    let line = std::str::from_utf8(line).ok()?;
    let (rest, crc) = line.rsplit_once('\t')?;
    if u32::from_str_radix(crc, 16).ok()? != crc32fast::hash(rest.as_bytes()) {
        return None;
    }
    let mut fields = rest.split('\t');
    let mut next = || fields.next();
    let time_ms = next()?.parse().ok()?;
    let endpoint = next()?.to_owned();
    let name = next()?;
    let reason = DropReason::ALL.into_iter().find(|r| r.as_str() == name)?;
    Some(Loss {
        time_ms,
        endpoint,
        reason,
        from: Position::new(next()?.parse().ok()?),
        to: Position::new(next()?.parse().ok()?),
        records: next()?.parse().ok()?,
        appended_ms: (next()?.parse().ok()?, next()?.parse().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::SystemDisk;

    #[test]
    fn losses_add_up_across_restarts_and_broken_lines_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
        let loss = |from, to| Loss {
            time_ms: 5,
            endpoint: ALL_ENDPOINTS.to_owned(),
            reason: DropReason::CorruptFrame,
            from: Position::new(from),
            to: Position::new(to),
            records: 2,
            appended_ms: (3, 4),
        };
        let ledger = Ledger::open(&disk, dir.path()).unwrap();
        assert!(ledger.record(&disk, &loss(10, 30)));
        assert!(!ledger.record(&disk, &loss(10, 30)));
        assert!(ledger.record(&disk, &loss(50, 51)));
        drop(ledger);
        let path = dir.path().join("losses");
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.push_str("5\t*\tcorrupt_frame\t1\t1000000\t1\t0\t0\tdeadbeef\n\u{0}garbage");
        std::fs::write(&path, text).unwrap();
        let ledger = Ledger::open(&disk, dir.path()).unwrap();
        let lost = |bytes| LostBytes::from([("corrupt_frame".to_owned(), bytes)]);
        assert_eq!(ledger.lost(), lost(21));
        assert!(!ledger.record(&disk, &loss(50, 51)));
        assert!(ledger.record(&disk, &loss(70, 71)));
        drop(ledger);
        let ledger = Ledger::open(&disk, dir.path()).unwrap();
        assert_eq!(ledger.lost(), lost(22));
        assert_eq!(parse(&std::fs::read(&path).unwrap()).len(), 3);
    }
}
