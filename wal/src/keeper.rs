//! Keeps a store going from behind: segments prepared ahead, positions saved, acked segments removed.
//!
//! # Invariants
//! - Segments are removed only after every endpoint's position beyond them was saved, so a crash at
//!   any step finds either the segment or a position behind it; and not before all endpoints were
//!   named after a start.
//! - A segment becomes usable for writers only once its file, header and name are durable.
//!
//! # Failure
//! Disk full or quota reached: no new segment, writers get [`crate::Error::Full`] once the prepared
//! ones are used up; tried again every [`SAVE_INTERVAL`], so service resumes by itself.
//!
//! # Threads
//! One thread per store, woken by writers that rolled over; or stepped by hand.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crossbeam::channel::RecvTimeoutError;
use parking_lot::Mutex;

use crate::endpoint::SAVE_INTERVAL;
use crate::error::FullReason;
use crate::limits::{self, Ages, OnFull};
use crate::segment::Begin;
use crate::series::{Cleaner, Idle};
use crate::stats::StoreStats;
use crate::store::{Shared, Stall};
use crate::writer::Prepared;
use crate::{Error, Position};

/// Between two looks for idle series.
const CLEAN_INTERVAL: Duration = Duration::from_secs(1);
/// Between two steps of the cleaner while it has something to do: guards last a request.
const CLEAN_SOON: Duration = Duration::from_millis(10);

/// A segment is rolled over early only for so many new series,
const ROLL_SERIES_MIN: u64 = 1000;
/// and only if they are one of so many.
const ROLL_SHARE: u64 = 8;

/// Segments ready beyond the one in use.
const PREPARED_AHEAD: usize = 2;

/// What the keeper remembers from step to step.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    ages: Option<Ages>,
    rolling: Rolling,
}

/// When the segment in use began, and how many series had been defined by then.
#[derive(Debug, Default)]
struct Rolling {
    id: u64,
    began: Duration,
    defined: u64,
}

/// One round: positions, limits, removal, preparation.
pub(crate) fn step(shared: &Arc<Shared>) {
    let mut keeper = shared.keeper.lock();
    find_directory(shared);
    let saved = save_positions(shared);
    let kept = saved.and_then(|()| keeper.limit_and_reclaim(shared));
    if let Err(error) = kept {
        tracing::error!(%error, "cannot save positions or remove segments; trying again");
    }
    keeper.roll_idle_segment(shared);
    if let Err(error) = shared.segments.trim_spare() {
        tracing::warn!(%error, "cannot remove a file kept for the next segment");
    }
    prepare(shared);
    if let Err(error) = shared.series.prepare() {
        // Who needs it tries again, and tells the operator.
        tracing::debug!(%error, "cannot make the next series chunk ahead");
    }
    shared.give_back_ring();
}

/// The keeper's thread.
pub(crate) fn run(shared: &Arc<Shared>, wake: &crossbeam::channel::Receiver<()>) {
    while !shared.is_closing() {
        step(shared);
        match wake.recv_timeout(SAVE_INTERVAL) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
}

impl Keeper {
    fn limit_and_reclaim(&mut self, shared: &Arc<Shared>) -> Result<(), Error> {
        if !shared.endpoints_complete.load(Ordering::Acquire) {
            return Ok(());
        }
        let ages = match self.ages.take() {
            Some(ages) => ages,
            None => Ages::open(shared)?,
        };
        let ages = self.ages.insert(ages);
        let now = shared.clock.monotonic();
        ages.note(shared.durable_position(), now);
        limits::enforce(shared, ages)?;
        let retain = shared.live.lock().retain;
        let keep = match retain {
            Duration::ZERO => u64::MAX,
            retain => shared.segments.id_of(ages.older_than(retain, now)),
        };
        reclaim(shared, keep)?;
        ages.forget_before(Position::new(shared.reclaimed.load(Ordering::Acquire)));
        Ok(())
    }

    /// Series are given up segment by segment. Where a segment lasts long and many series are new in
    /// it, or wait for its end, memory would grow or stay for as long: then a new one is begun.
    fn roll_idle_segment(&mut self, shared: &Arc<Shared>) {
        let id = shared.tracker.head() / shared.segments.segment_bytes();
        let now = shared.clock.monotonic();
        let defined = shared.series.defined();
        let rolling = &mut self.rolling;
        if rolling.id != id {
            *rolling = Rolling {
                id,
                began: now,
                defined,
            };
        }
        let series = shared.series.len() as u64;
        let in_limbo = shared.stats.series_in_limbo.load(Ordering::Relaxed);
        let new = (defined - rolling.defined).max(in_limbo);
        let timeout = shared.live.lock().series_idle_timeout;
        let old = now.saturating_sub(rolling.began) >= timeout;
        // Behind, nothing could be given up, and the unused rest would count towards the quota.
        let caught_up = shared.least_saved() >= shared.segments.start_of(id);
        if old && new >= ROLL_SERIES_MIN && new * ROLL_SHARE >= series && caught_up {
            rolling.began = now;
            shared.roll_wanted.store(true, Ordering::Release);
            shared.commit_wanted.notify_one();
        }
    }
}

/// Whether the file in use is still where it was made: written and synced to a file that no name leads
/// to, nothing would survive a restart.
fn find_directory(shared: &Arc<Shared>) {
    let in_use = shared.tracker.head() / shared.segments.segment_bytes();
    let Some(segment) = shared.segments.get(in_use) else {
        return;
    };
    let (path, file) = (segment.file.path(), segment.file.file());
    let lost = match (fs::metadata(path), file.metadata()) {
        (Ok(named), Ok(open)) => (named.ino() != open.ino()).then(|| "is another file".to_owned()),
        (Err(error), _) | (_, Err(error)) => Some(error.to_string()),
    };
    let why = lost.map(|lost| format!("{}: {lost}", path.display()));
    shared.set_stall(Stall::Directory, why);
}

/// The cleaner's thread.
pub(crate) fn run_cleaner(shared: &Arc<Shared>, cleaner: &Mutex<Cleaner>) {
    while !shared.is_closing() {
        let more = clean(shared, &mut cleaner.lock()).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot clean the series log; trying again");
            false
        });
        let pause = if more { CLEAN_SOON } else { CLEAN_INTERVAL };
        // Woken only to end.
        thread::park_timeout(pause);
    }
}

/// One step of the cleaner; whether the next should come soon.
///
/// # Errors
/// What the system said; everything is as it was.
pub(crate) fn clean(shared: &Arc<Shared>, cleaner: &mut Cleaner) -> Result<bool, Error> {
    if !shared.endpoints_complete.load(Ordering::Acquire) {
        return Ok(false);
    }
    let reclaimed = Position::new(shared.reclaimed.load(Ordering::Acquire));
    let idle = Idle {
        now: shared.clock.monotonic(),
        timeout: shared.live.lock().series_idle_timeout,
        head: Position::new(shared.tracker.head()),
        reclaimed,
        oldest_segment: shared.segments.id_of(reclaimed),
    };
    let done = cleaner.step(&shared.series, &idle)?;
    shared.stats.cleaned(&done);
    Ok(done.more)
}

/// # Errors
/// What the system said; the others were still saved.
pub(crate) fn save_positions(shared: &Arc<Shared>) -> Result<(), Error> {
    let endpoints = shared.endpoints.lock().clone();
    let mut result = Ok(());
    for endpoint in endpoints.values() {
        result = result.and(endpoint.save(&shared.disk));
    }
    result
}

/// Removes the segments before `keep` that every endpoint is done with.
fn reclaim(shared: &Arc<Shared>, keep: u64) -> Result<(), Error> {
    let limit = shared.least_saved();
    let keep = keep.min(shared.segments.id_of(limit));
    let removed = shared.segments.remove_before(keep)?;
    StoreStats::add(&shared.stats.segments_reclaimed, removed);
    let oldest = shared
        .segments
        .first_from(0)
        .map_or(0, |segment| segment.header.id);
    // Segments that a run left empty are gone: the oldest may begin behind what is saved.
    let reclaimed = shared.segments.start_of(oldest).min(limit);
    shared
        .reclaimed
        .fetch_max(reclaimed.get(), Ordering::AcqRel);
    Ok(())
}

/// Brings the prepared segments up to [`PREPARED_AHEAD`] beyond the one in use.
pub(crate) fn prepare(shared: &Arc<Shared>) {
    shared.quota.follow_volume();
    while shared.reserve.lock().prepared.len() <= PREPARED_AHEAD {
        let mut outcome = prepare_one(shared);
        while outcome.as_ref().is_err_and(Error::is_full) && relieve(shared) {
            outcome = prepare_one(shared);
        }
        let full = outcome.as_ref().is_err_and(Error::is_full);
        let state = u64::from(full);
        let was_full = shared.stats.out_of_space.swap(state, Ordering::Relaxed) == 1;
        match outcome {
            Ok(()) if was_full => tracing::info!("there is room again: taking data"),
            Ok(()) => {}
            Err(e) => {
                if !was_full {
                    tracing::error!(error = %e, "cannot prepare a segment: trying again");
                }
                break;
            }
        }
    }
}

/// Makes room: what is only retained goes at once, what an endpoint still needs when that is allowed.
/// Whether there is room now.
fn relieve(shared: &Arc<Shared>) -> bool {
    if !shared.endpoints_complete.load(Ordering::Acquire) {
        return false;
    }
    let oldest = shared.segments.first_from(0).map(|s| s.header.id);
    let before = shared.quota.used();
    let freed = oldest.map_or(Ok(()), |oldest| reclaim(shared, oldest + 1));
    if let Err(error) = freed {
        tracing::error!(%error, "cannot remove a delivered segment");
    }
    if shared.quota.used() < before || shared.segments.has_spare() {
        return true;
    }
    let on_full = shared.live.lock().on_full;
    if on_full == OnFull::DropOldest
        && let Err(error) = limits::drop_oldest(shared)
    {
        tracing::error!(%error, "cannot drop the oldest segment");
    }
    false
}

/// Prepares one segment and hands it to the writers. Only the opening thread and then the keeper
/// call this, so the id cannot be taken twice.
///
/// # Errors
/// [`Error::Full`] at the quota or on a full disk, else what the system said.
fn prepare_one(shared: &Arc<Shared>) -> Result<(), Error> {
    let segments = &shared.segments;
    if !segments.has_spare() && !shared.quota.has_room(segments.segment_bytes()) {
        return Err(Error::Full {
            reason: FullReason::Segments,
        });
    }
    let (id, previous_end) = {
        let reserve = shared.reserve.lock();
        (reserve.next_id, reserve.previous_end)
    };
    let begin = Begin {
        id,
        generation: 0,
        salt: shared.random.next_u64(),
        previous_end,
        now_ms: shared.clock.unix_ms(),
    };
    let segment = segments
        .prepare(begin)
        .map_err(|e| e.or_full(FullReason::Segments))?;
    let recycled = u64::from(segment.header.is_recycled);
    StoreStats::add(&shared.stats.segments_recycled, recycled);
    let mut reserve = shared.reserve.lock();
    reserve.prepared.push_back(Prepared {
        id,
        salt: segment.header.salt,
    });
    reserve.next_id = id + 1;
    reserve.previous_end = None;
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::{RawRecord, RecordKind, SeriesRef, Store, StoreOptions};

    #[test]
    fn an_idle_ring_is_given_back_whatever_was_appended_since_it_was_full() {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions {
            segment_bytes: 16 << 20,
            ring_bytes: 16 << 20,
            series_chunk_bytes: 1 << 20,
            manual: true,
            ..StoreOptions::default()
        };
        let store = Store::open(dir.path(), options).unwrap();
        let mut writer = store.writer().unwrap();
        let mut committer = store.committer().unwrap();
        let bytes = vec![7; 1 << 20];
        let record = RawRecord {
            series: SeriesRef::NONE,
            kind: RecordKind::Metadata,
            bytes: &bytes,
        };
        for _ in 0..8 {
            writer.append(&[], &[record]).unwrap();
        }
        committer.commit_now().unwrap();
        // Begins at the start of the ring again, and is little.
        let little = RawRecord {
            bytes: &bytes[..8],
            ..record
        };
        writer.append(&[], &[little]).unwrap();
        store.keep();
        let ring = &store.shared.ring;
        assert!(ring.touched_bytes() > 8 << 20, "it is not empty");
        committer.commit_now().unwrap();
        for _ in 0..3 {
            store.keep();
        }
        assert!(ring.touched_bytes() <= 1 << 20, "{}", ring.touched_bytes());
        drop((writer, committer));
        store.close();
    }
}
