//! Turns a directory into the common state of a store: its files found, its log recovered.
//!
//! # Failure
//! See `recover.rs`. Nothing is made or removed before the directory is locked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, watch};

use crate::dir::DirLock;
use crate::durable::DurableState;
use crate::frame::FRAME_HEADER_BYTES;
use crate::fs::Disk;
use crate::header::FILE_HEADER_BYTES;
use crate::keeper::Keeper;
use crate::ledger::Ledger;
use crate::live::LiveOptions;
use crate::quota::Quota;
use crate::recover::{Places, Recovered, recover, segment_bytes_on_disk};
use crate::segment::Segments;
use crate::series::{SeriesOptions, SeriesTable};
use crate::stats::StoreStats;
use crate::store::{Recovery, Shared, StoreOptions, WRITERS_MAX};
use crate::sys::{self, Ring};
use crate::tracker::Tracker;
use crate::writer::Reserve;
use crate::{Error, inspect};

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

/// Opens or creates the store in `dir`.
///
/// # Errors
/// See [`crate::Store::open`].
pub(crate) fn open_shared(
    dir: &Path,
    options: StoreOptions,
    keeper_wake: crossbeam::channel::Sender<()>,
) -> Result<Shared, Error> {
    let disk = options.disk.clone();
    disk.create_dir(dir).map_err(Error::io("create", dir))?;
    let lock = DirLock::take(dir)?;
    if options.recovery == Recovery::Strict {
        check_strictly(dir)?;
    }
    let dirs = Dirs::create(&disk, dir)?;
    sys::explain_bus_errors(&dirs.series);
    let ledger = Ledger::open(&disk, dir)?;
    let quota = Arc::new(Quota::new(dir, options.disk_bytes_least()));
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
    quota.limit(options.max_disk_bytes);
    Ok(Shared {
        body_bytes_max: body_bytes_max(ring.bytes(), segment_bytes),
        quota,
        reclaimed: AtomicU64::new(oldest.get()),
        dir: dir.to_owned(),
        quarantine: dirs.quarantine,
        live: Mutex::new(LiveOptions::from(&options)),
        clock: options.clock,
        random: options.random,
        disk,
        series,
        segments,
        ring: Arc::new(ring),
        ring_start: AtomicU64::new(head.get()),
        tracker: Tracker::new(head.get(), WRITERS_MAX),
        reserve: Mutex::new(Reserve::new(head, recovered)),
        free_slots: Mutex::new((0..WRITERS_MAX).rev().collect()),
        durable: AtomicU64::new(head.get()),
        records: AtomicU64::new(recovered.records),
        recovered_end: recovered.previous_end,
        commit_wanted: Notify::new(),
        endpoints: Mutex::new(BTreeMap::new()),
        endpoints_complete: AtomicBool::new(false),
        ledger,
        stats: StoreStats::default(),
        watch: watch::channel(DurableState::at(head)).0,
        ends: watch::channel(false).0,
        failure: Mutex::new(None),
        stalls: Mutex::default(),
        stalled: AtomicBool::new(false),
        closing: AtomicBool::new(false),
        committing: Mutex::new(false),
        commit_ended: Condvar::new(),
        keeper_wake,
        keeper: Mutex::new(Keeper::default()),
        roll_wanted: AtomicBool::new(false),
        positions: dirs.positions,
        _lock: lock,
    })
}

/// Checks all of a store before anything in it is touched.
fn check_strictly(dir: &Path) -> Result<(), Error> {
    let segments = dir.join("segments");
    let is_store = segments.try_exists();
    if !is_store.map_err(Error::io("look for", &segments))? {
        return Ok(());
    }
    let Some(problem) = inspect::first_problem(dir)? else {
        return Ok(());
    };
    let (what, offset) = (problem.what.as_str(), problem.offset);
    let what = format!("{what} does not check at offset {offset}");
    Err(Error::Corrupt {
        path: problem.path,
        what,
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
    let segment_bytes =
        segment_bytes_on_disk(disk, &dirs.segments)?.unwrap_or(options.segment_bytes);
    let dir = dirs.segments.clone();
    let segments = Segments::new(dir, segment_bytes, disk.clone(), quota.clone());
    let places = Places {
        segments: &dirs.segments,
        positions: &dirs.positions,
        quarantine: &dirs.quarantine,
    };
    let recovered = recover(&segments, disk, places)?;
    let series = SeriesOptions {
        dir: dirs.series.clone(),
        chunk_bytes: options.series_chunk_bytes,
        series_max: options.series_max,
        disk: disk.clone(),
        random: options.random.clone(),
        quota: quota.clone(),
    };
    let (series, found) = SeriesTable::open(series, recovered.next_id)?;
    if found.broken_bytes > 0 || found.unreadable_chunks > 0 {
        let (bytes, chunks) = (found.broken_bytes, found.unreadable_chunks);
        let dir = dirs.series.display();
        tracing::warn!(%dir, bytes, chunks, "part of the series log cannot be read");
    }
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
