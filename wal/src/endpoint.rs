//! Turns acknowledgements of an endpoint into its durable position.
//!
//! # Invariants
//! - A saved position is a lower bound: everything before it needs no sending. It may lag what was
//!   acknowledged by up to [`SAVE_INTERVAL`]; what lies between is sent again after a crash.
//! - `saved <= acked <= durable`. Segments are removed only below `saved` of every endpoint.
//!
//! - At most one range beyond `acked` is decided too ([`Ahead`]). When `acked` reaches its beginning
//!   it goes on at its end.
//!
//! # On disk
//! See [`crate::progress`].
//!
//! # Failure
//! A file without a valid slot starts the endpoint at the oldest data on disk: sent again, not lost.
//! A failed save is logged and tried again; nothing is removed meanwhile.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::fs::{Disk, DiskFile};
use crate::ledger::read_whole;
use crate::limits::{LagLimits, frame_from};
use crate::progress::{Ahead, FILE_BYTES, Progress, encode_slot, newest_slot, slot_of};
use crate::store::Shared;
use crate::tail::Tail;
use crate::tally::Tally;
use crate::{DropReason, Error, Mark, Position};

/// Positions are saved at most this often. What was acknowledged since is sent again after a crash,
/// and some receivers refuse it record by record: a sync now and then is cheaper.
pub const SAVE_INTERVAL: Duration = Duration::from_millis(200);

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
    /// Nothing is read beyond, for now.
    hold: watch::Sender<Option<Position>>,
    pub(crate) limits: Mutex<LagLimits>,
    forgotten: AtomicBool,
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
    /// What the newest slot says.
    saved: Progress,
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
            file: Mutex::new(PositionFile {
                file,
                sequence,
                saved: progress,
            }),
            give_up: watch::channel(None).0,
            give_up_at: AtomicU64::new(0),
            hold: watch::channel(None).0,
            limits: Mutex::default(),
            forgotten: AtomicBool::new(false),
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

    /// What lies beyond the position may go from now on.
    pub(crate) fn forget(&self) {
        self.forgotten.store(true, Ordering::Release);
    }

    /// Whether the log keeps nothing for it any more.
    pub(crate) fn is_forgotten(&self) -> bool {
        self.forgotten.load(Ordering::Acquire)
    }

    /// Gives up what lies before `give_up.before`.
    pub(crate) fn give_up(&self, give_up: GiveUp) {
        self.give_up_at
            .store(give_up.before.get(), Ordering::Release);
        self.give_up.send_replace(Some(give_up));
    }

    /// See [`Endpoint::hold`].
    pub(crate) fn held_at(&self) -> Option<Position> {
        *self.hold.borrow()
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

    /// Where the backlog ends, if something is decided beyond it.
    pub(crate) fn ahead_from(&self) -> Option<Position> {
        let progress = self.progress.lock();
        progress.ahead.map(|ahead| ahead.from.position)
    }

    /// Saves the position if it moved since the last time.
    ///
    /// # Errors
    /// What the system said; the older slot is still good.
    pub(crate) fn save(&self, disk: &Arc<dyn Disk>) -> Result<(), Error> {
        let progress = self.progress();
        if progress != self.file.lock().saved {
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
        open.saved = *progress;
        Ok(())
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

    /// What of that is saved: a start after a crash goes on from here.
    #[must_use]
    pub fn saved(&self) -> Position {
        self.state.saved()
    }

    /// The acknowledged position and how many records of the log lie before it.
    #[must_use]
    pub fn mark(&self) -> Mark {
        self.state.progress().mark()
    }

    /// What is decided beyond the acknowledged position; see [`Self::begin_ahead`].
    #[must_use]
    pub fn ahead(&self) -> Option<Ahead> {
        self.state.progress().ahead
    }

    /// Bytes of frames that are durable and not decided.
    #[must_use]
    pub fn lag_bytes(&self) -> u64 {
        let progress = self.state.progress();
        let bytes = |from, to| self.shared.segments.bytes_between(from, to);
        let decided = |ahead: Ahead| bytes(ahead.from.position, ahead.acked);
        let behind = bytes(progress.acked, self.shared.durable_position());
        behind - progress.ahead.map_or(0, decided)
    }

    /// What has become of the records the log has taken since the endpoint began.
    #[must_use]
    pub fn account(&self) -> Account {
        // First the endpoint, so that what it has decided is among what the log has taken.
        let progress = self.state.progress();
        let records_in = self.shared.records.load(Ordering::Acquire) - progress.records_before;
        let tally = progress.decided();
        Account {
            records_in,
            pending: records_in - tally.total(),
            tally,
        }
    }

    /// Everything before `mark` that was not acknowledged yet was decided: `tally` says how. Saved to
    /// disk within [`SAVE_INTERVAL`]; going back is ignored. Where something is decided ahead, `mark`
    /// is not beyond its beginning.
    ///
    /// # Panics
    /// If the position is not durable: what is not durable cannot have been read. In debug builds
    /// also if the tally does not add up.
    pub fn ack(&self, mark: Mark, tally: Tally) {
        self.check_durable(mark);
        self.state.progress.lock().ack(mark, tally);
    }

    /// Everything ahead and before `mark` was decided; as [`Self::ack`] if nothing is ahead.
    ///
    /// # Panics
    /// As [`Self::ack`].
    pub fn ack_newest(&self, mark: Mark, tally: Tally) {
        self.check_durable(mark);
        self.state.progress.lock().ack_newest(mark, tally);
    }

    fn check_durable(&self, mark: Mark) {
        let durable = self.shared.durable_position();
        assert!(mark.position <= durable, "acked beyond durable");
    }

    /// Splits what is not acknowledged into a backlog and what is newer than about the last `bytes` of
    /// the log: that is read by [`Self::tail_newest`] and acknowledged by [`Self::ack_newest`], while
    /// the backlog is read up to here and acknowledged by [`Self::ack`]. None if the log cannot be
    /// split beyond `after`, or is split already.
    ///
    /// # Errors
    /// What the system said to looking for where a frame begins.
    pub fn begin_ahead(&self, after: Position, bytes: u64) -> Result<Option<Mark>, Error> {
        let durable = self.shared.durable_position();
        let near = self.shared.segments.position_before(durable, bytes);
        let Some(frame) = frame_from(&self.shared, near)? else {
            return Ok(None);
        };
        let from = Mark {
            position: frame.position,
            records: frame.records_before,
        };
        let mut progress = self.state.progress.lock();
        let after = after.max(progress.acked);
        if from.position <= after || progress.ahead.is_some() {
            return Ok(None);
        }
        progress.ahead = Some(Ahead::begin(from));
        Ok(Some(from))
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

    /// Has its readers go no further than this until they are told otherwise; none: as far as there is
    /// something. Not kept over a restart.
    pub fn hold(&self, at: Option<Position>) {
        self.state.hold.send_replace(at);
    }

    /// Tells how far its readers may go.
    #[must_use]
    pub fn held(&self) -> watch::Receiver<Option<Position>> {
        self.state.hold.subscribe()
    }

    /// Bytes of frames before `to` that are not decided.
    #[must_use]
    pub fn bytes_left(&self, to: Position) -> u64 {
        let decided = self.state.decided();
        if decided >= to {
            return 0;
        }
        self.shared.segments.bytes_between(decided, to).max(1)
    }

    /// Beyond these limits the endpoint loses the oldest data.
    pub fn set_limits(&self, limits: LagLimits) {
        *self.state.limits.lock() = limits;
    }

    /// A reader of the log from the acknowledged position on, up to where what is ahead begins.
    #[must_use]
    pub fn tail(&self) -> Tail {
        let progress = self.state.progress();
        let until = progress.ahead.map(|ahead| ahead.from);
        Tail::new(self.shared.clone(), self.state.clone(), progress.mark()).until(until)
    }

    /// A reader from the end of everything decided on.
    #[must_use]
    pub fn tail_newest(&self) -> Tail {
        let newest = self.state.progress().newest();
        Tail::new(self.shared.clone(), self.state.clone(), newest)
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
    use crate::progress::{SLOT_SPACING, field};

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
