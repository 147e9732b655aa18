//! Keeps what was lost, where, why and for whom: one checked line per loss, never rewritten.
//!
//! # On disk
//! `docs/format.md`, "Losses".
//!
//! # Failure
//! A line that cannot be written is logged and still counted in memory: a full disk must not stop
//! what the ledger reports on.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::{Error, Position};

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
    pub reason: &'static str,
    /// Where it begins.
    pub from: Position,
    /// Where it ends.
    pub to: Position,
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
    file: File,
    lost: LostBytes,
    /// Where losses were recorded already: every endpoint's tail meets the same broken frame.
    known: BTreeMap<(u64, u64), ()>,
}

impl Ledger {
    /// # Errors
    /// What the system said.
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        let path = dir.join("losses");
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .read(true)
            .open(&path)
            .map_err(Error::io("open", &path))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)
            .map_err(Error::io("read", &path))?;
        let mut lost = LostBytes::new();
        let mut known = BTreeMap::new();
        for line in bytes.split(|&b| b == b'\n') {
            if let Some((reason, from, to)) = parse(line) {
                *lost.entry(reason).or_default() += to.saturating_sub(from);
                known.insert((from, to), ());
            }
        }
        Ok(Self {
            path,
            open: Mutex::new(Open { file, lost, known }),
        })
    }

    /// Records a loss once, however many readers meet it. Answers whether it was new.
    pub(crate) fn record(&self, loss: &Loss) -> bool {
        let mut open = self.open.lock();
        if open
            .known
            .insert((loss.from.get(), loss.to.get()), ())
            .is_some()
        {
            return false;
        }
        *open.lost.entry(loss.reason.to_owned()).or_default() += loss.to.bytes_since(loss.from);
        let line = format(loss);
        let written = open
            .file
            .write_all(line.as_bytes())
            .and_then(|()| open.file.sync_data());
        if let Err(e) = written {
            tracing::error!(path = %self.path.display(), error = %e, "cannot write to the ledger");
        }
        tracing::error!(
            endpoint = %loss.endpoint,
            reason = loss.reason,
            from = %loss.from,
            to = %loss.to,
            "data of the log is lost"
        );
        true
    }

    pub(crate) fn lost(&self) -> LostBytes {
        self.open.lock().lost.clone()
    }
}

fn format(loss: &Loss) -> String {
    let Loss {
        time_ms,
        endpoint,
        reason,
        from,
        to,
    } = loss;
    let line = format!("{time_ms}\t{endpoint}\t{reason}\t{from}\t{to}");
    let crc = crc32fast::hash(line.as_bytes());
    format!("{line}\t{crc:08x}\n")
}

fn parse(line: &[u8]) -> Option<(String, u64, u64)> {
    let line = std::str::from_utf8(line).ok()?;
    let (rest, crc) = line.rsplit_once('\t')?;
    if u32::from_str_radix(crc, 16).ok()? != crc32fast::hash(rest.as_bytes()) {
        return None;
    }
    let mut fields = rest.split('\t').skip(2);
    let reason = fields.next()?.to_owned();
    Some((
        reason,
        fields.next()?.parse().ok()?,
        fields.next()?.parse().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_add_up_across_restarts_and_broken_lines_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let loss = |from, to| Loss {
            time_ms: 5,
            endpoint: ALL_ENDPOINTS.to_owned(),
            reason: "corrupt_frame",
            from: Position::new(from),
            to: Position::new(to),
        };
        let ledger = Ledger::open(dir.path()).unwrap();
        assert!(ledger.record(&loss(10, 30)));
        assert!(!ledger.record(&loss(10, 30)));
        assert!(ledger.record(&loss(50, 51)));
        drop(ledger);
        let path = dir.path().join("losses");
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.push_str("5\t*\tcorrupt_frame\t1\t1000000\tdeadbeef\n\u{0}garbage");
        std::fs::write(&path, text).unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        assert_eq!(
            ledger.lost(),
            LostBytes::from([("corrupt_frame".to_owned(), 21)])
        );
        assert!(!ledger.record(&loss(50, 51)));
    }
}
