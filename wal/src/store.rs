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

use crossbeam::channel::TrySendError;
use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, watch};

use crate::checkpoint::compact;
use crate::dir::DirLock;
use crate::durable::{Durable, DurableState};
use crate::endpoint::{Endpoint, EndpointState};
use crate::frame::FRAME_HEADER_BYTES;
use crate::fs::{Disk, SystemDisk};
use crate::header::FILE_HEADER_BYTES;
use crate::ledger::{Ledger, LostBytes};
use crate::quota::Quota;
use crate::recover::{Places, Recovered, recover, segment_bytes_on_disk};
use crate::segment::Segments;
use crate::series::{SeriesOptions, SeriesTable};
use crate::stats::StoreStats;
use crate::sync::Committer;
use crate::sys::Ring;
use crate::tracker::Tracker;
use crate::writer::{Reserve, SharedReserve, Writer};
use crate::{Error, Position, SharedClock, SystemClock, keeper};

/// Writers a store can have at a time: one per ingest thread, with room for other doors.
pub const WRITERS_MAX: usize = 256;

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
    pub(crate) reclaimed: AtomicU64,
    pub(crate) recovered_end: Option<Position>,
    pub(crate) commit_wanted: Notify,
    pub(crate) endpoints: Mutex<BTreeMap<String, Arc<EndpointState>>>,
    pub(crate) endpoints_complete: AtomicBool,
    pub(crate) ledger: Ledger,
    pub(crate) stats: StoreStats,
    watch: watch::Sender<DurableState>,
    failure: Mutex<Option<String>>,
    closing: AtomicBool,
    committing: Mutex<bool>,
    commit_ended: Condvar,
    keeper_wake: crossbeam::channel::Sender<()>,
    positions: PathBuf,
    _lock: DirLock,
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
        Ok(())
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Stops all acknowledging for good.
    pub(crate) fn poison(&self, why: String) {
        self.failure.lock().get_or_insert(why.clone());
        self.closing.store(true, Ordering::Release);
        self.watch.send_modify(|state| state.failure = Some(why));
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
    shared: Arc<Shared>,
    keeper: Arc<Mutex<Option<JoinHandle<()>>>>,
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
        let keeper = if manual {
            None
        } else {
            Some(spawn_keeper(&shared, woken)?)
        };
        let committer = Committer::new(shared.clone());
        Ok(Self {
            shared,
            keeper: Arc::new(Mutex::new(keeper)),
            committer: Arc::new(Mutex::new(Some(committer))),
        })
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
        Durable::new(self.shared.watch.subscribe())
    }

    /// The endpoint of this name; its position is found or made, durably.
    ///
    /// # Errors
    /// What the system said.
    pub fn endpoint(&self, name: &str) -> Result<Endpoint, Error> {
        let shared = &self.shared;
        let mut endpoints = shared.endpoints.lock();
        if let Some(state) = endpoints.get(name) {
            return Ok(Endpoint::new(shared.clone(), state.clone()));
        }
        let oldest = shared.segments.first_from(0).map_or_else(
            || shared.durable_position(),
            |segment| shared.segments.start_of(segment.header.id),
        );
        let state = EndpointState::open(&shared.disk, &shared.positions, name, oldest)?;
        let state = Arc::new(state);
        endpoints.insert(name.to_owned(), state.clone());
        Ok(Endpoint::new(shared.clone(), state))
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
        *self.shared.committing.lock() = committer.is_some();
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

    /// One round of the keeper, for callers that drive the store by hand.
    pub fn keep(&self) {
        keeper::step(&self.shared);
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
        let keeper = self.keeper.lock().take();
        if keeper.is_some_and(|keeper| keeper.join().is_err()) {
            tracing::error!("the log keeper panicked");
        }
        if let Err(e) = keeper::save_positions(shared) {
            tracing::error!(error = %e, "cannot save positions: more is sent again after the start");
        }
        let head = Position::new(shared.tracker.head());
        if let Err(e) = shared
            .segments
            .remove_unused_after(shared.segments.id_of(head))
        {
            tracing::warn!(error = %e, "cannot remove unused segments");
        }
    }
}

fn spawn_keeper(
    shared: &Arc<Shared>,
    woken: crossbeam::channel::Receiver<()>,
) -> Result<JoinHandle<()>, Error> {
    let kept = shared.clone();
    thread::Builder::new()
        .name("wal-keeper".to_owned())
        .spawn(move || keeper::run(&kept, &woken))
        .map_err(Error::io("start the keeper of", &shared.dir))
}

/// The store's subdirectories.
struct Dirs {
    series: PathBuf,
    segments: PathBuf,
    positions: PathBuf,
    quarantine: PathBuf,
}

impl Dirs {
    fn create(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Self, Error> {
        let sub = |name: &str| -> Result<PathBuf, Error> {
            let path = dir.join(name);
            disk.create_dir(&path).map_err(Error::io("create", &path))?;
            Ok(path)
        };
        Ok(Self {
            series: sub("series")?,
            segments: sub("segments")?,
            positions: sub("positions")?,
            quarantine: sub("quarantine")?,
        })
    }
}

fn open_shared(
    dir: &Path,
    options: StoreOptions,
    keeper_wake: crossbeam::channel::Sender<()>,
) -> Result<Shared, Error> {
    let disk = options.disk.clone();
    disk.create_dir(dir).map_err(Error::io("create", dir))?;
    let lock = DirLock::take(dir)?;
    let dirs = Dirs::create(&disk, dir)?;
    let ledger = Ledger::open(dir)?;
    let quota = Arc::new(Quota::new());
    let Opened {
        series,
        segments,
        recovered,
    } = open_files(&dirs, &options, &quota)?;
    let segment_bytes = segments.segment_bytes();
    let head = segments
        .start_of(recovered.next_id)
        .plus(FILE_HEADER_BYTES as u64);
    let oldest = segments
        .first_from(0)
        .map_or(recovered.next_id, |s| s.header.id);
    let oldest = segments.start_of(oldest);
    let (series_count, path) = (series.len(), dir.display());
    tracing::info!(dir = %path, series = series_count, %oldest, %head, "log opened");
    let ring = Ring::new(options.ring_bytes).map_err(Error::io("map the ring of", dir))?;
    quota.limit(dir, options.max_disk_bytes, options.disk_bytes_least());
    Ok(Shared {
        body_bytes_max: body_bytes_max(ring.bytes(), segment_bytes),
        quota,
        reclaimed: AtomicU64::new(oldest.get()),
        dir: dir.to_owned(),
        quarantine: dirs.quarantine,
        clock: options.clock,
        disk,
        series,
        segments,
        ring: Arc::new(ring),
        ring_start: AtomicU64::new(head.get()),
        tracker: Tracker::new(head.get(), WRITERS_MAX),
        reserve: Mutex::new(Reserve::new(head, recovered)),
        free_slots: Mutex::new((0..WRITERS_MAX).rev().collect()),
        durable: AtomicU64::new(head.get()),
        recovered_end: recovered.previous_end,
        commit_wanted: Notify::new(),
        endpoints: Mutex::new(BTreeMap::new()),
        endpoints_complete: AtomicBool::new(false),
        ledger,
        stats: StoreStats::default(),
        watch: watch::channel(DurableState::at(head)).0,
        failure: Mutex::new(None),
        closing: AtomicBool::new(false),
        committing: Mutex::new(false),
        commit_ended: Condvar::new(),
        keeper_wake,
        positions: dirs.positions,
        _lock: lock,
    })
}

/// The files of an earlier run, or none.
struct Opened {
    series: SeriesTable,
    segments: Segments,
    recovered: Recovered,
}

fn open_files(dirs: &Dirs, options: &StoreOptions, quota: &Arc<Quota>) -> Result<Opened, Error> {
    let disk = &options.disk;
    let (series, found) = SeriesTable::open(SeriesOptions {
        dir: dirs.series.clone(),
        chunk_bytes: options.series_chunk_bytes,
        series_max: options.series_max,
        disk: disk.clone(),
        quota: quota.clone(),
    })?;
    if found.broken_bytes > 0 || found.unreadable_chunks > 0 {
        let (bytes, chunks) = (found.broken_bytes, found.unreadable_chunks);
        tracing::warn!(bytes, chunks, "part of the series log cannot be read");
    }
    let segment_bytes = segment_bytes_on_disk(&dirs.segments)?.unwrap_or(options.segment_bytes);
    let dir = dirs.segments.clone();
    let segments = Segments::new(dir, segment_bytes, disk.clone(), quota.clone());
    let places = Places {
        segments: &dirs.segments,
        positions: &dirs.positions,
        quarantine: &dirs.quarantine,
    };
    let recovered = recover(&segments, disk, places)?;
    let series = compact(series, &segments)?;
    Ok(Opened {
        series,
        segments,
        recovered,
    })
}

/// Most body bytes of a frame: four frames fit the ring, one fits a segment.
fn body_bytes_max(ring_bytes: u64, segment_bytes: u64) -> usize {
    let frame_max = (ring_bytes / 4).min(segment_bytes - FILE_HEADER_BYTES as u64);
    usize::try_from(frame_max).unwrap_or(usize::MAX) - FRAME_HEADER_BYTES
}
