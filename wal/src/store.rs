//! Turns a directory into a log that is written, committed, tailed and kept: the parts' common state.
//!
//! # Invariants
//! `reclaimed <= saved(endpoint) <= acked(endpoint) <= tailed(endpoint) <= durable <= appended`, each
//! with one writer: the keeper, the keeper, the endpoint's shipper, its tail, the committer, the
//! reservation.
//!
//! # Failure
//! See `recover.rs` (start), `sync.rs` (disk errors while running), `keeper.rs` (full disk).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam::channel::TrySendError;
use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, watch};

use crate::dir::DirLock;
use crate::durable::{Durable, DurableState};
use crate::endpoint::EndpointState;
use crate::error::FullReason;
use crate::fs::{Disk, SystemDisk};
use crate::keeper::Keeper;
use crate::ledger::{Ledger, LostBytes};
use crate::limits::OnFull;
use crate::live::LiveOptions;
use crate::open::open_shared;
use crate::quota::Quota;
use crate::segment::Segments;
use crate::series::{Cleaner, SeriesTable};
use crate::stats::StoreStats;
use crate::sync::Committer;
use crate::sys::Ring;
use crate::tracker::Tracker;
use crate::writer::{Reserve, SharedReserve, Writer};
use crate::{Error, Position, SharedClock, SharedRandom, SystemClock, SystemRandom, keeper};

/// Writers a store can have at a time: one per ingest thread, with room for other doors.
pub const WRITERS_MAX: usize = 256;
/// Parts of an idle ring given back in one step of the keeper.
const RING_PARTS: usize = 4;

/// Default of [`StoreOptions::series_idle_timeout`]. Coming back costs a record; staying costs memory.
pub const SERIES_IDLE_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// What a start does about what it cannot read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Recovery {
    /// Sets it aside, counts it, and goes on with everything else.
    #[default]
    Salvage,
    /// Refuses to start and changes nothing, so that an operator can look first. What an interrupted
    /// run was just writing is no reason.
    Strict,
}

/// How a store is laid out and what it may use.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Size of a segment file in bytes: a power of two from 64 KiB. A store keeps the size it was
    /// born with.
    pub segment_bytes: u64,
    /// Bytes appended but not yet durable at most: a power of two from 64 KiB.
    pub ring_bytes: usize,
    /// Size of a series chunk file in bytes: a power of two from 8 KiB.
    pub series_chunk_bytes: u64,
    /// Most series refs.
    pub series_max: u32,
    /// Most bytes of disk the store may take; none: 80 % of what is free or its own, and at
    /// least what it cannot work without.
    pub max_disk_bytes: Option<u64>,
    /// Where time comes from.
    pub clock: SharedClock,
    /// Where bytes go.
    pub disk: Arc<dyn Disk>,
    /// Where salts come from.
    pub random: SharedRandom,
    /// What a start does about what it cannot read.
    pub recovery: Recovery,
    /// What happens at the quota and on a full disk.
    pub on_full: OnFull,
    /// Delivered data is kept so long, for replay, as far as the quota allows.
    pub retain: Duration,
    /// Series nobody has sent for this long, and that no segment on disk names, are given up.
    pub series_idle_timeout: Duration,
    /// No threads: the caller drives committer and [`Store::keep`] by hand (simulation).
    pub manual: bool,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            ring_bytes: 64 << 20,
            series_chunk_bytes: 64 << 20,
            series_max: 1 << 26,
            max_disk_bytes: None,
            clock: SystemClock::shared(),
            disk: Arc::new(SystemDisk),
            random: Arc::new(SystemRandom),
            recovery: Recovery::Salvage,
            on_full: OnFull::Reject,
            retain: Duration::ZERO,
            series_idle_timeout: SERIES_IDLE_TIMEOUT,
            manual: false,
        }
    }
}

impl StoreOptions {
    /// The smallest `max_disk_bytes` a store can work with: the segment in use, the next, a chunk.
    #[must_use]
    pub const fn disk_bytes_least(&self) -> u64 {
        2 * self.segment_bytes + self.series_chunk_bytes
    }

    fn validate(&self) -> Result<(), Error> {
        let size = |name: &str, bytes: u64, least: u64| {
            if bytes.is_power_of_two() && bytes >= least {
                return Ok(());
            }
            Err(Error::Options(format!(
                "{name} must be a power of two from {least}, not {bytes}"
            )))
        };
        size("segment_bytes", self.segment_bytes, 64 << 10)?;
        size("ring_bytes", self.ring_bytes as u64, 64 << 10)?;
        size("series_chunk_bytes", self.series_chunk_bytes, 8 << 10)?;
        let most = self.segment_bytes.max(self.ring_bytes as u64);
        if most > 1 << 30 {
            return Err(Error::Options(
                "segment_bytes and ring_bytes must be at most 1 GiB".to_owned(),
            ));
        }
        let least = self.disk_bytes_least();
        if self.max_disk_bytes.is_some_and(|max| max < least) {
            return Err(Error::Options(format!(
                "max_disk_bytes must be at least {least}"
            )));
        }
        Ok(())
    }
}

/// What all parts of a store share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) dir: PathBuf,
    pub(crate) quarantine: PathBuf,
    pub(crate) clock: SharedClock,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) random: SharedRandom,
    pub(crate) series: SeriesTable,
    pub(crate) segments: Segments,
    pub(crate) ring: Arc<Ring>,
    /// The position at the ring's first byte. Moves up to the head whenever everything is durable, so
    /// that a log that keeps up touches little of the ring. Written under the reservation mutex
    /// before the head moves, read by the committer after it has loaded the head.
    pub(crate) ring_start: AtomicU64,
    pub(crate) tracker: Tracker,
    pub(crate) reserve: SharedReserve,
    pub(crate) free_slots: Mutex<Vec<usize>>,
    pub(crate) body_bytes_max: usize,
    pub(crate) quota: Arc<Quota>,
    pub(crate) durable: AtomicU64,
    /// Records handed out to writers, since the birth of the store. Written under the reservation.
    pub(crate) records: AtomicU64,
    pub(crate) reclaimed: AtomicU64,
    pub(crate) recovered_end: Option<Position>,
    pub(crate) commit_wanted: Notify,
    pub(crate) endpoints: Mutex<BTreeMap<String, Arc<EndpointState>>>,
    pub(crate) endpoints_complete: AtomicBool,
    pub(crate) ledger: Ledger,
    pub(crate) stats: StoreStats,
    pub(crate) watch: watch::Sender<DurableState>,
    /// Whether the watermark stays where it is from now on: of its own, or who waits for that would
    /// wake with every commit.
    pub(crate) ends: watch::Sender<bool>,
    pub(crate) failure: Mutex<Option<String>>,
    pub(crate) stalls: Mutex<[Option<String>; 2]>,
    pub(crate) stalled: AtomicBool,
    pub(crate) closing: AtomicBool,
    pub(crate) committing: Mutex<bool>,
    pub(crate) commit_ended: Condvar,
    pub(crate) keeper_wake: crossbeam::channel::Sender<()>,
    pub(crate) keeper: Mutex<Keeper>,
    pub(crate) live: Mutex<LiveOptions>,
    /// Somebody wants a new segment although this one is not full.
    pub(crate) roll_wanted: AtomicBool,
    pub(crate) positions: PathBuf,
    pub(crate) _lock: DirLock,
}

/// Who found that the device takes nothing now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stall {
    /// The committer cannot write.
    Commit = 0,
    /// The keeper does not find the directory any more.
    Directory = 1,
}

impl Shared {
    pub(crate) fn durable_position(&self) -> Position {
        Position::new(self.durable.load(Ordering::Acquire))
    }

    /// # Errors
    /// [`Error::Poisoned`] or [`Error::Closed`].
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        if self.closing.load(Ordering::Acquire) {
            return Err(self
                .failure
                .lock()
                .clone()
                .map_or(Error::Closed, Error::Poisoned));
        }
        if self.stalled.load(Ordering::Acquire) {
            return Err(Error::Full {
                reason: FullReason::Device,
            });
        }
        Ok(())
    }

    /// Begins or ends a stall: while there is one, nothing is taken and nobody waits.
    pub(crate) fn set_stall(&self, who: Stall, why: Option<String>) {
        if why.is_none() && !self.stalled.load(Ordering::Acquire) {
            return;
        }
        let mut stalls = self.stalls.lock();
        let place = &mut stalls[who as usize];
        match (&place, &why) {
            (None, Some(why)) => {
                tracing::error!(why, "nothing is taken until the device works again");
            }
            (Some(_), None) => tracing::info!(?who, "the device works again: taking data"),
            _ => {}
        }
        *place = why;
        let stalled = stalls.iter().any(Option::is_some);
        self.stalled.store(stalled, Ordering::Release);
        self.watch.send_if_modified(|state| {
            let changed = state.stalled != stalled;
            state.stalled = stalled;
            changed
        });
    }

    /// Up to where every endpoint's position is saved. Without endpoints nobody waits for the data.
    pub(crate) fn least_saved(&self) -> Position {
        let durable = self.durable_position();
        let endpoints = self.endpoints.lock();
        let saved = endpoints.values().map(|endpoint| endpoint.saved()).min();
        saved.unwrap_or(durable).min(durable)
    }

    /// Nothing is in the ring: what comes at `head` begins at its start. The caller holds the reservation.
    pub(crate) fn restart_ring(&self, head: u64) {
        let start = self.ring_start.swap(head, Ordering::AcqRel);
        self.ring.used(head - start);
    }

    /// Gives memory of the ring back while nothing is in it: some parts, between which writers may go
    /// on.
    pub(crate) fn give_back_ring(&self) {
        for _ in 0..RING_PARTS {
            let reserve = self.reserve.lock();
            if reserve.head == self.durable.load(Ordering::Acquire) {
                self.restart_ring(reserve.head);
                self.ring.give_back();
            }
            drop(reserve);
        }
    }

    /// Records of the log before `position`, if that is where it ends.
    pub(crate) fn records_before(&self, position: Position) -> Option<u64> {
        let reserve = self.reserve.lock();
        (reserve.head == position.get()).then_some(reserve.records)
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Stops all acknowledging for good.
    pub(crate) fn poison(&self, why: String) {
        self.failure.lock().get_or_insert(why.clone());
        self.closing.store(true, Ordering::Release);
        self.watch.send_modify(|state| state.failure = Some(why));
        self.ends.send_replace(true);
        self.wake_keeper();
    }

    /// Everything goes on at `head`, the beginning of a segment; nothing is under way.
    pub(crate) fn skip_to(&self, reserve: &mut Reserve, head: u64) {
        let id = head / self.segments.segment_bytes();
        reserve.head = head;
        reserve.forget_before(id);
        self.ring_start.store(head, Ordering::Release);
        self.tracker.skip_to(head);
        self.series.set_segment(id);
        self.advance_durable(head);
        self.wake_keeper();
    }

    /// Moves the durable watermark and wakes who waits for it. Only the committer calls this.
    pub(crate) fn advance_durable(&self, to: u64) {
        let before = self.durable.swap(to, Ordering::AcqRel);
        assert!(
            before <= to && to <= self.tracker.head(),
            "durable moves within what is appended"
        );
        self.watch
            .send_modify(|state| state.position = Position::new(to));
    }

    pub(crate) fn wake_keeper(&self) {
        match self.keeper_wake.try_send(()) {
            // Full means a wake-up is waiting already; disconnected means there is no keeper.
            Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
        }
    }

    pub(crate) fn committer_ended(&self) {
        *self.committing.lock() = false;
        self.commit_ended.notify_all();
        self.watch.send_modify(|state| state.ended = true);
        self.ends.send_replace(true);
    }
}

/// The watermarks of a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Watermarks {
    /// Handed out to writers.
    pub appended: Position,
    /// On the device.
    pub durable: Position,
    /// Removed from disk.
    pub reclaimed: Position,
}

/// One write-ahead log with its series; a cheap handle.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
    cleaner: Arc<Mutex<Cleaner>>,
    committer: Arc<Mutex<Option<Committer>>>,
}

impl Store {
    /// Opens or creates the store in `dir`, recovering whatever an earlier process left.
    ///
    /// # Errors
    /// [`Error::Locked`] if another process has it, [`Error::NewerVersion`], [`Error::Options`], or
    /// what the system said.
    pub fn open(dir: &Path, options: StoreOptions) -> Result<Self, Error> {
        options.validate()?;
        let (wake, woken) = crossbeam::channel::bounded(1);
        let manual = options.manual;
        let shared = Arc::new(open_shared(dir, options, wake)?);
        match shared.series.prepare() {
            // Tried again with the first series.
            Err(error) if error.is_full() => {}
            prepared => prepared?,
        }
        keeper::prepare(&shared);
        let committer = Committer::new(shared.clone());
        let store = Self {
            shared,
            threads: Arc::default(),
            cleaner: Arc::default(),
            committer: Arc::new(Mutex::new(Some(committer))),
        };
        if !manual {
            store.spawn_threads(woken)?;
        }
        Ok(store)
    }

    /// The series of this store.
    #[must_use]
    pub fn series(&self) -> &SeriesTable {
        &self.shared.series
    }

    /// A writer for one thread.
    ///
    /// # Errors
    /// [`Error::TooManyWriters`] beyond [`WRITERS_MAX`].
    pub fn writer(&self) -> Result<Writer, Error> {
        let slot = self.shared.free_slots.lock().pop();
        let slot = slot.ok_or(Error::TooManyWriters { limit: WRITERS_MAX })?;
        Ok(Writer::new(self.shared.clone(), slot))
    }

    /// A view of the durable watermark to wait on.
    #[must_use]
    pub fn durable(&self) -> Durable {
        Durable::new(self.shared.watch.subscribe(), self.shared.ends.subscribe())
    }

    /// Says that every endpoint there is was named by [`Self::endpoint`]. Until then nothing is
    /// removed from the log, as one that is still to come may need it; positions of endpoints that
    /// were not named hold nothing back any more.
    pub fn endpoints_complete(&self) {
        self.shared
            .endpoints_complete
            .store(true, Ordering::Release);
        self.shared.wake_keeper();
    }

    /// Where the log stands.
    #[must_use]
    pub fn watermarks(&self) -> Watermarks {
        let reclaimed = Position::new(self.shared.reclaimed.load(Ordering::Acquire));
        let durable = self.shared.durable_position();
        Watermarks {
            appended: Position::new(self.shared.tracker.head()),
            durable,
            reclaimed,
        }
    }

    /// The committer, the first time; somebody must run it.
    #[must_use]
    pub fn committer(&self) -> Option<Committer> {
        let committer = self.committer.lock().take();
        if committer.is_some() {
            *self.shared.committing.lock() = true;
        }
        committer
    }

    /// Counters for `/metrics`.
    #[must_use]
    pub fn stats(&self) -> &StoreStats {
        &self.shared.stats
    }

    /// Bytes lost so far, by reason, over all runs.
    #[must_use]
    pub fn lost_bytes(&self) -> LostBytes {
        self.shared.ledger.lost()
    }

    /// Bytes of disk the segments and series take, and how many they may take.
    #[must_use]
    pub fn disk_bytes(&self) -> (u64, Option<u64>) {
        (self.shared.quota.used(), self.shared.quota.max())
    }

    /// Bytes of a segment file.
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        self.shared.segments.segment_bytes()
    }

    /// The id of the segment that holds the byte before a position.
    #[must_use]
    pub fn segment_before(&self, position: Position) -> u64 {
        let before = Position::new(position.get().saturating_sub(1));
        self.shared.segments.id_of(before)
    }

    /// Where the store is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// Why the log failed, if it did: the process should say so and end.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.shared.failure.lock().clone()
    }

    /// Why nothing is taken now, if the device fails.
    #[must_use]
    pub fn stall(&self) -> Option<String> {
        let stalls = self.shared.stalls.lock();
        stalls.iter().flatten().next().cloned()
    }

    /// Records the log has ever taken.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.shared.records.load(Ordering::Acquire)
    }

    /// One round of the keeper, for callers that drive the store by hand.
    pub fn keep(&self) {
        keeper::step(&self.shared);
    }

    /// One round of the series cleaner, for callers that drive the store by hand. Whether another
    /// should follow soon.
    ///
    /// # Errors
    /// What the system said; everything is as it was.
    pub fn clean(&self) -> Result<bool, Error> {
        keeper::clean(&self.shared, &mut self.cleaner.lock())
    }

    /// Ends the store: what was appended is committed, positions are saved, prepared segments that
    /// were never used are removed. Appends are refused from now on. Blocks until the committer has
    /// ended (or was dropped); a second call is harmless. The lock goes with the last handle.
    pub fn close(&self) {
        let shared = &self.shared;
        shared.closing.store(true, Ordering::Release);
        shared.commit_wanted.notify_one();
        if let Some(committer) = self.committer.lock().take() {
            drop(committer);
        }
        let mut committing = shared.committing.lock();
        while *committing {
            shared.commit_ended.wait(&mut committing);
        }
        drop(committing);
        shared.wake_keeper();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("a thread of the log panicked");
            }
        }
        if let Err(e) = keeper::save_positions(shared) {
            tracing::error!(error = %e, "cannot save positions: more is sent again after the start");
        }
        let head = Position::new(shared.tracker.head());
        let segments = &shared.segments;
        let unused = segments.remove_unused_after(segments.id_of(head));
        if let Err(e) = unused.and(segments.remove_spare()) {
            tracing::warn!(error = %e, "cannot remove unused segments");
        }
    }
}

impl Store {
    fn spawn_threads(&self, woken: crossbeam::channel::Receiver<()>) -> Result<(), Error> {
        let dir = &self.shared.dir;
        let kept = self.shared.clone();
        let keeper = thread::Builder::new()
            .name("wal-keeper".to_owned())
            .spawn(move || keeper::run(&kept, &woken))
            .map_err(Error::io("start the keeper of", dir))?;
        let (shared, cleaner) = (self.shared.clone(), self.cleaner.clone());
        let cleaner = thread::Builder::new()
            .name("wal-cleaner".to_owned())
            .spawn(move || keeper::run_cleaner(&shared, &cleaner))
            .map_err(Error::io("start the cleaner of", dir))?;
        self.threads.lock().extend([keeper, cleaner]);
        Ok(())
    }
}
