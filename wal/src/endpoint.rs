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
use tokio::sync::watch;

use crate::bytes::{get_u32, get_u64, put_u32, put_u64};
use crate::fs::{Disk, DiskFile};
use crate::header::FORMAT_VERSION;
use crate::ledger::read_whole;
use crate::limits::LagLimits;
use crate::store::Shared;
use crate::tail::Tail;
use crate::tally::Tally;
use crate::{DropReason, Error, Mark, Position};

/// Positions are saved at most this often. What was acknowledged since is sent again after a crash,
/// and some receivers refuse it record by record: a sync now and then is cheaper.
pub const SAVE_INTERVAL: Duration = Duration::from_millis(200);

const MAGIC: [u8; 8] = *b"PNSTKPOS";
pub(crate) const FILE_BYTES: u64 = 1024;
const SLOT_SPACING: usize = 512;

pub(crate) mod field {
    //! Offsets of a slot's fields.
    use crate::tally::REASONS_MAX;

    pub(crate) const MAGIC: usize = 0;
    pub(crate) const VERSION: usize = MAGIC + 8;
    pub(crate) const SEQUENCE: usize = VERSION + 8;
    pub(crate) const ACKED: usize = SEQUENCE + 8;
    pub(crate) const RECORDS_BEFORE: usize = ACKED + 8;
    pub(crate) const DELIVERED: usize = RECORDS_BEFORE + 8;
    pub(crate) const DROPPED: usize = DELIVERED + 8;
    pub(crate) const CRC: usize = DROPPED + 8 * REASONS_MAX;
    pub(crate) const END: usize = CRC + 4;
}

const _: () = assert!(field::END <= SLOT_SPACING);

/// How far an endpoint is, and what became of everything before.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Progress {
    pub(crate) acked: Position,
    /// Records of the log before the endpoint began.
    pub(crate) records_before: u64,
    pub(crate) tally: Tally,
}

impl Progress {
    /// An endpoint that begins here.
    pub(crate) fn begin(at: Mark) -> Self {
        Self {
            acked: at.position,
            records_before: at.records,
            tally: Tally::default(),
        }
    }

    /// The acknowledged position and what lies before it.
    pub(crate) fn mark(&self) -> Mark {
        Mark {
            position: self.acked,
            records: self.records_before + self.tally.total(),
        }
    }
}

/// The position of one endpoint, shared by its handles and the keeper.
#[derive(Debug)]
pub(crate) struct EndpointState {
    pub(crate) name: String,
    progress: Mutex<Progress>,
    saved: AtomicU64,
    file: Mutex<PositionFile>,
    /// Written by the keeper, read by the tail and the shipper.
    give_up: watch::Sender<Option<GiveUp>>,
    /// The position of `give_up`; 0 for none.
    give_up_at: AtomicU64,
    pub(crate) limits: Mutex<LagLimits>,
}

/// What an endpoint does not get any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GiveUp {
    /// Everything before this that is not decided yet is dropped.
    pub before: Position,
    /// Why.
    pub reason: DropReason,
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
        oldest: impl FnOnce() -> Result<Mark, Error>,
    ) -> Result<Self, Error> {
        let path = dir.join(file_name(name));
        let there = path.try_exists().map_err(Error::io("look for", &path))?;
        let (file, found) = if there {
            let file = disk.open(&path).map_err(Error::io("open", &path))?;
            let bytes = read_whole(disk, &file).map_err(Error::io("read", &path))?;
            (file, newest_slot(&bytes))
        } else {
            let file = disk.create(&path, FILE_BYTES);
            (file.map_err(Error::io("create", &path))?, None)
        };
        if there && found.is_none() {
            tracing::error!(
                endpoint = name,
                path = %path.display(),
                "no valid position: sending starts again at the oldest data on disk"
            );
        }
        let (sequence, progress) = match found {
            Some(found) => found,
            None => (0, Progress::begin(oldest()?)),
        };
        let state = Self {
            name: name.to_owned(),
            progress: Mutex::new(progress),
            saved: AtomicU64::new(progress.acked.get()),
            file: Mutex::new(PositionFile { file, sequence }),
            give_up: watch::channel(None).0,
            give_up_at: AtomicU64::new(0),
            limits: Mutex::default(),
        };
        if found.is_none() {
            state.write(disk, &progress)?;
            disk.sync_dir(dir).map_err(Error::io("sync", dir))?;
        }
        Ok(state)
    }

    pub(crate) fn progress(&self) -> Progress {
        *self.progress.lock()
    }

    pub(crate) fn acked(&self) -> Position {
        self.progress.lock().acked
    }

    pub(crate) fn saved(&self) -> Position {
        Position::new(self.saved.load(Ordering::Acquire))
    }

    /// Gives up what lies before `give_up.before`.
    pub(crate) fn give_up(&self, give_up: GiveUp) {
        self.give_up_at
            .store(give_up.before.get(), Ordering::Release);
        self.give_up.send_replace(Some(give_up));
    }

    /// Everything before is acknowledged or given up.
    pub(crate) fn decided(&self) -> Position {
        let given_up = Position::new(self.give_up_at.load(Ordering::Acquire));
        self.acked().max(given_up)
    }

    /// What is given up beyond `position`, if anything.
    pub(crate) fn given_up_beyond(&self, position: Position) -> Option<GiveUp> {
        if self.give_up_at.load(Ordering::Acquire) <= position.get() {
            return None;
        }
        *self.give_up.borrow()
    }

    /// Saves the position if it moved since the last time.
    ///
    /// # Errors
    /// What the system said; the older slot is still good.
    pub(crate) fn save(&self, disk: &Arc<dyn Disk>) -> Result<(), Error> {
        let progress = self.progress();
        if progress.acked > self.saved() {
            self.write(disk, &progress)?;
            self.saved.store(progress.acked.get(), Ordering::Release);
        }
        Ok(())
    }

    fn write(&self, disk: &Arc<dyn Disk>, progress: &Progress) -> Result<(), Error> {
        let mut open = self.file.lock();
        let sequence = open.sequence + 1;
        let slot = slot_of(sequence);
        let path = open.file.path().to_owned();
        disk.write_all_at(&open.file, &encode_slot(sequence, progress), slot)
            .and_then(|()| disk.sync(&open.file))
            .map_err(Error::io("save", path))?;
        open.sequence = sequence;
        Ok(())
    }
}

/// Where the slot of this sequence stands.
pub(crate) const fn slot_of(sequence: u64) -> u64 {
    if sequence.is_multiple_of(2) {
        0
    } else {
        SLOT_SPACING as u64
    }
}

pub(crate) fn encode_slot(sequence: u64, progress: &Progress) -> [u8; field::END] {
    let mut slot = [0; field::END];
    slot[..8].copy_from_slice(&MAGIC);
    put_u32(&mut slot, field::VERSION, FORMAT_VERSION);
    put_u64(&mut slot, field::SEQUENCE, sequence);
    put_u64(&mut slot, field::ACKED, progress.acked.get());
    put_u64(&mut slot, field::RECORDS_BEFORE, progress.records_before);
    put_u64(&mut slot, field::DELIVERED, progress.tally.delivered);
    for (number, dropped) in progress.tally.dropped.into_iter().enumerate() {
        put_u64(&mut slot, field::DROPPED + 8 * number, dropped);
    }
    let crc = crc32fast::hash(&slot[..field::CRC]);
    put_u32(&mut slot, field::CRC, crc);
    slot
}

/// Offsets of the slots that were written and do not check. A slot that was never written is zeros.
pub(crate) fn broken_slots(bytes: &[u8]) -> Vec<usize> {
    let slots = [0, SLOT_SPACING];
    let is_broken = |at: &usize| {
        let slot = bytes.get(*at..*at + field::END).unwrap_or_default();
        slot.iter().any(|&byte| byte != 0) && valid_slot(slot).is_none()
    };
    slots.into_iter().filter(is_broken).collect()
}

/// The sequence and content of a slot that checks.
fn valid_slot(slot: &[u8]) -> Option<(u64, Progress)> {
    let checks = slot[field::MAGIC..8] == MAGIC
        && crc32fast::hash(&slot[..field::CRC]) == get_u32(slot, field::CRC);
    checks.then(|| (get_u64(slot, field::SEQUENCE), decode_slot(slot)))
}

/// The sequence and content of the slot that counts, if one checks.
pub(crate) fn newest_slot(bytes: &[u8]) -> Option<(u64, Progress)> {
    let slots = [0, SLOT_SPACING].map(|at| valid_slot(bytes.get(at..at + field::END)?));
    slots
        .into_iter()
        .flatten()
        .max_by_key(|(sequence, _)| *sequence)
}

fn decode_slot(slot: &[u8]) -> Progress {
    let mut tally = Tally::of_delivered(get_u64(slot, field::DELIVERED));
    for (number, dropped) in tally.dropped.iter_mut().enumerate() {
        *dropped = get_u64(slot, field::DROPPED + 8 * number);
    }
    Progress {
        acked: Position::new(get_u64(slot, field::ACKED)),
        records_before: get_u64(slot, field::RECORDS_BEFORE),
        tally,
    }
}

/// What every endpoint, known or forgotten, has saved, by its file's name.
///
/// # Errors
/// What the system said.
pub(crate) fn all_saved(
    disk: &Arc<dyn Disk>,
    dir: &Path,
) -> Result<Vec<(String, Progress)>, Error> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let path = entry.map_err(Error::io("list", dir))?.path();
        let file = disk.open(&path).map_err(Error::io("open", &path))?;
        let bytes = read_whole(disk, &file).map_err(Error::io("read", &path))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        all.extend(newest_slot(&bytes).map(|(_, progress)| (name_of_file(&name), progress)));
    }
    Ok(all)
}

/// The endpoint's name behind a file name; see [`file_name`].
pub(crate) fn name_of_file(file: &str) -> String {
    let mut parts = file.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (code, rest) = part.as_bytes().split_at(part.len().min(2));
        let code = std::str::from_utf8(code).unwrap_or_default();
        bytes.extend(u8::from_str_radix(code, 16).ok());
        bytes.extend_from_slice(rest);
    }
    String::from_utf8_lossy(&bytes).into_owned()
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

    /// A file name that no other endpoint has, for what is kept beside its position.
    #[must_use]
    pub fn file_name(&self) -> PathBuf {
        file_name(&self.state.name)
    }

    /// Everything before this needs no sending any more.
    #[must_use]
    pub fn acked(&self) -> Position {
        self.state.acked()
    }

    /// The acknowledged position and how many records of the log lie before it.
    #[must_use]
    pub fn mark(&self) -> Mark {
        self.state.progress().mark()
    }

    /// Bytes of frames that are durable and not acknowledged.
    #[must_use]
    pub fn lag_bytes(&self) -> u64 {
        let durable = self.shared.durable_position();
        self.shared.segments.bytes_between(self.acked(), durable)
    }

    /// What has become of the records the log has taken since the endpoint began.
    #[must_use]
    pub fn account(&self) -> Account {
        // First the endpoint, so that what it has decided is among what the log has taken.
        let progress = self.state.progress();
        let records_in = self.shared.records.load(Ordering::Acquire) - progress.records_before;
        Account {
            records_in,
            pending: records_in - progress.tally.total(),
            tally: progress.tally,
        }
    }

    /// Everything before `mark` that was not acknowledged yet was decided: `tally` says how. Saved to
    /// disk within [`SAVE_INTERVAL`]; going back is ignored.
    ///
    /// # Panics
    /// If the position is not durable: what is not durable cannot have been read. In debug builds
    /// also if the tally does not add up.
    pub fn ack(&self, mark: Mark, tally: Tally) {
        assert!(
            mark.position <= self.shared.durable_position(),
            "acked beyond durable"
        );
        let mut progress = self.state.progress.lock();
        if mark.position > progress.acked {
            progress.acked = mark.position;
            progress.tally += tally;
            debug_assert_eq!(progress.mark(), mark, "every record is accounted for");
        }
    }

    /// What the endpoint is not to get any more although it lies beyond `position`: the keeper gave
    /// it up to stay within a limit.
    #[must_use]
    pub fn given_up_beyond(&self, position: Position) -> Option<GiveUp> {
        self.state.given_up_beyond(position)
    }

    /// Tells of everything that is given up from now on.
    #[must_use]
    pub fn give_ups(&self) -> watch::Receiver<Option<GiveUp>> {
        self.state.give_up.subscribe()
    }

    /// Beyond these limits the endpoint loses the oldest data.
    pub fn set_limits(&self, limits: LagLimits) {
        *self.state.limits.lock() = limits;
    }

    /// A reader of the log from the acknowledged position on.
    #[must_use]
    pub fn tail(&self) -> Tail {
        Tail::new(self.shared.clone(), self.state.clone())
    }
}

/// `records_in = pending + tally.delivered + everything dropped`, over all runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Account {
    /// Records the log has taken since the endpoint began.
    pub records_in: u64,
    /// Records not decided yet.
    pub pending: u64,
    /// What became of the others.
    pub tally: Tally,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::SystemDisk;

    fn open(dir: &Path) -> (EndpointState, Arc<dyn Disk>) {
        let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
        let oldest = Mark {
            position: Position::new(7),
            records: 3,
        };
        let state = EndpointState::open(&disk, dir, "a/b c", || Ok(oldest)).unwrap();
        (state, disk)
    }

    fn ack(state: &EndpointState, acked: u64, tally: Tally) {
        let mut progress = state.progress.lock();
        progress.acked = Position::new(acked);
        progress.tally += tally;
    }

    #[test]
    fn a_position_survives_and_a_torn_slot_falls_back_to_the_older() {
        let dir = tempfile::tempdir().unwrap();
        let (state, disk) = open(dir.path());
        assert_eq!(state.acked(), Position::new(7));
        for (acked, records) in [(100, 10), (200, 4)] {
            ack(
                &state,
                acked,
                Tally::of_dropped(DropReason::MaxLagAge, records),
            );
            state.save(&disk).unwrap();
        }
        let read = open(dir.path()).0.progress();
        assert_eq!(read, state.progress());
        assert_eq!(read.mark().records, 17);
        let path = dir.path().join("a%2Fb%20c");
        let whole = fs::read(&path).unwrap();
        for at in [SLOT_SPACING + 3, SLOT_SPACING + field::ACKED] {
            let mut torn = whole.clone();
            torn[at] ^= 0xff;
            fs::write(&path, &torn).unwrap();
            assert_eq!(open(dir.path()).0.acked(), Position::new(100), "byte {at}");
        }
        let all = all_saved(&disk, dir.path()).unwrap();
        assert_eq!(all[0].0, "a/b c");
    }

    #[test]
    fn a_file_of_garbage_starts_at_the_oldest_data() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a%2Fb%20c"), [0xab; 700]).unwrap();
        assert_eq!(open(dir.path()).0.acked(), Position::new(7));
    }
}
