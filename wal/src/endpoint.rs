//! Turns acknowledgements of an endpoint into its durable position.
//!
//! # Invariants
//! - A saved position is a lower bound: everything before it needs no sending. It may lag what was
//!   acknowledged by up to [`SAVE_INTERVAL`]; what lies between is sent again after a crash.
//! - `saved <= acked <= durable`. Segments are removed only below `saved` of every endpoint.
//!
//! # On disk
//! `docs/format.md`, "Position file": two slots written in turn, so that a torn write leaves the
//! older one.
//!
//! # Failure
//! A file without a valid slot starts the endpoint at the oldest data on disk: sent again, not lost.
//! A failed save is logged and tried again; nothing is removed meanwhile.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::bytes::{get_u32, get_u64, put_u32, put_u64};
use crate::fs::{Disk, DiskFile};
use crate::header::FORMAT_VERSION;
use crate::store::Shared;
use crate::tail::Tail;
use crate::{Error, Position};

/// Positions are saved at most this often. What was acknowledged since is sent again after a crash,
/// and some receivers refuse it record by record: a sync now and then is cheaper.
pub const SAVE_INTERVAL: Duration = Duration::from_millis(200);

const MAGIC: [u8; 8] = *b"PNSTKPOS";
const FILE_BYTES: u64 = 1024;
const SLOT_SPACING: usize = 512;

pub(crate) mod field {
    //! Offsets of a slot's fields.
    pub(crate) const MAGIC: usize = 0;
    pub(crate) const VERSION: usize = MAGIC + 8;
    pub(crate) const SEQUENCE: usize = VERSION + 8;
    pub(crate) const ACKED: usize = SEQUENCE + 8;
    pub(crate) const CRC: usize = ACKED + 8;
    pub(crate) const END: usize = CRC + 4;
}

/// The position of one endpoint, shared by its handles and the keeper.
#[derive(Debug)]
pub(crate) struct EndpointState {
    pub(crate) name: String,
    acked: AtomicU64,
    saved: AtomicU64,
    file: Mutex<PositionFile>,
}

#[derive(Debug)]
struct PositionFile {
    file: DiskFile,
    sequence: u64,
}

impl EndpointState {
    /// Opens the endpoint's position, or makes a new one at `oldest`; durable when this returns.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn open(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        name: &str,
        oldest: Position,
    ) -> Result<Self, Error> {
        let path = dir.join(file_name(name));
        let there = path.try_exists().map_err(Error::io("look for", &path))?;
        let (file, found) = if there {
            let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
            (
                disk.open(&path).map_err(Error::io("open", &path))?,
                newest_slot(&bytes),
            )
        } else {
            (
                disk.create(&path, FILE_BYTES)
                    .map_err(Error::io("create", &path))?,
                None,
            )
        };
        if there && found.is_none() {
            tracing::error!(
                endpoint = name,
                path = %path.display(),
                "no valid position: sending starts again at the oldest data on disk"
            );
        }
        let (sequence, acked) = found.unwrap_or((0, oldest));
        let state = Self {
            name: name.to_owned(),
            acked: AtomicU64::new(acked.get()),
            saved: AtomicU64::new(acked.get()),
            file: Mutex::new(PositionFile { file, sequence }),
        };
        if found.is_none() {
            state.write(disk, acked)?;
            disk.sync_dir(dir).map_err(Error::io("sync", dir))?;
        }
        Ok(state)
    }

    pub(crate) fn acked(&self) -> Position {
        Position::new(self.acked.load(Ordering::Acquire))
    }

    pub(crate) fn saved(&self) -> Position {
        Position::new(self.saved.load(Ordering::Acquire))
    }

    /// Saves the position if it moved since the last time.
    ///
    /// # Errors
    /// What the system said; the older slot is still good.
    pub(crate) fn save(&self, disk: &Arc<dyn Disk>) -> Result<(), Error> {
        let acked = self.acked();
        if acked > self.saved() {
            self.write(disk, acked)?;
            self.saved.store(acked.get(), Ordering::Release);
        }
        Ok(())
    }

    fn write(&self, disk: &Arc<dyn Disk>, acked: Position) -> Result<(), Error> {
        let mut open = self.file.lock();
        let sequence = open.sequence + 1;
        let slot = if sequence.is_multiple_of(2) {
            0
        } else {
            SLOT_SPACING as u64
        };
        let path = open.file.path().to_owned();
        disk.write_all_at(&open.file, &encode_slot(sequence, acked), slot)
            .and_then(|()| disk.sync(&open.file))
            .map_err(Error::io("save", path))?;
        open.sequence = sequence;
        Ok(())
    }
}

fn encode_slot(sequence: u64, acked: Position) -> [u8; field::END] {
    let mut slot = [0; field::END];
    slot[..8].copy_from_slice(&MAGIC);
    put_u32(&mut slot, field::VERSION, FORMAT_VERSION);
    put_u64(&mut slot, field::SEQUENCE, sequence);
    put_u64(&mut slot, field::ACKED, acked.get());
    let crc = crc32fast::hash(&slot[..field::CRC]);
    put_u32(&mut slot, field::CRC, crc);
    slot
}

fn newest_slot(bytes: &[u8]) -> Option<(u64, Position)> {
    let valid = |at: usize| {
        let slot = bytes.get(at..at + field::END)?;
        let checks = slot[field::MAGIC..8] == MAGIC
            && crc32fast::hash(&slot[..field::CRC]) == get_u32(slot, field::CRC);
        checks.then(|| {
            (
                get_u64(slot, field::SEQUENCE),
                Position::new(get_u64(slot, field::ACKED)),
            )
        })
    };
    valid(0).max(valid(SLOT_SPACING))
}

/// The furthest position any endpoint, known or forgotten, has acknowledged.
///
/// # Errors
/// What the system said.
pub(crate) fn furthest_acked(dir: &Path) -> Result<Position, Error> {
    let mut furthest = Position::ZERO;
    for entry in fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let path = entry.map_err(Error::io("list", dir))?.path();
        let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
        furthest = furthest.max(newest_slot(&bytes).map_or(Position::ZERO, |(_, acked)| acked));
    }
    Ok(furthest)
}

/// A file name for any endpoint name.
fn file_name(name: &str) -> PathBuf {
    let mut file = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => file.push(char::from(byte)),
            _ => file.push_str(&format!("%{byte:02X}")),
        }
    }
    PathBuf::from(file)
}

/// One destination of a store: where its reading starts and how far it has acknowledged.
#[derive(Clone, Debug)]
pub struct Endpoint {
    shared: Arc<Shared>,
    state: Arc<EndpointState>,
}

impl Endpoint {
    pub(crate) const fn new(shared: Arc<Shared>, state: Arc<EndpointState>) -> Self {
        Self { shared, state }
    }

    /// The name its position is found by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// Everything before this needs no sending any more.
    #[must_use]
    pub fn acked(&self) -> Position {
        self.state.acked()
    }

    /// Bytes of frames that are durable and not acknowledged.
    #[must_use]
    pub fn lag_bytes(&self) -> u64 {
        let durable = self.shared.durable_position();
        self.shared.segments.bytes_between(self.acked(), durable)
    }

    /// Everything before `position` was delivered or given up for a counted reason. Saved to disk
    /// within [`SAVE_INTERVAL`]; going back is ignored.
    ///
    /// # Panics
    /// If the position is not durable: what is not durable cannot have been read.
    pub fn ack(&self, position: Position) {
        assert!(
            position <= self.shared.durable_position(),
            "acked beyond durable"
        );
        self.state.acked.fetch_max(position.get(), Ordering::AcqRel);
    }

    /// A reader of the log from the acknowledged position on.
    #[must_use]
    pub fn tail(&self) -> Tail {
        Tail::new(self.shared.clone(), self.state.name.clone(), self.acked())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::SystemDisk;

    fn open(dir: &Path) -> (EndpointState, Arc<dyn Disk>) {
        let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
        (
            EndpointState::open(&disk, dir, "a/b c", Position::new(7)).unwrap(),
            disk,
        )
    }

    #[test]
    fn a_position_survives_and_a_torn_slot_falls_back_to_the_older() {
        let dir = tempfile::tempdir().unwrap();
        let (state, disk) = open(dir.path());
        assert_eq!(state.acked(), Position::new(7));
        for acked in [100, 200] {
            state.acked.store(acked, Ordering::Release);
            state.save(&disk).unwrap();
        }
        assert_eq!(open(dir.path()).0.acked(), Position::new(200));
        let path = dir.path().join("a%2Fb%20c");
        let whole = fs::read(&path).unwrap();
        for at in [SLOT_SPACING + 3, SLOT_SPACING + field::ACKED] {
            let mut torn = whole.clone();
            torn[at] ^= 0xff;
            fs::write(&path, &torn).unwrap();
            assert_eq!(open(dir.path()).0.acked(), Position::new(100), "byte {at}");
        }
    }

    #[test]
    fn a_file_of_garbage_starts_at_the_oldest_data() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a%2Fb%20c"), [0xab; 700]).unwrap();
        assert_eq!(open(dir.path()).0.acked(), Position::new(7));
    }
}
