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

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam::channel::RecvTimeoutError;

use crate::Error;
use crate::endpoint::SAVE_INTERVAL;
use crate::error::FullReason;
use crate::stats::StoreStats;
use crate::store::Shared;
use crate::writer::Prepared;

/// Segments ready beyond the one in use.
const PREPARED_AHEAD: usize = 2;

/// One round: positions, then removal, then preparation.
pub(crate) fn step(shared: &Arc<Shared>) {
    if let Err(e) = save_positions(shared) {
        tracing::error!(error = %e, "cannot save positions; trying again");
    } else if let Err(e) = reclaim(shared) {
        tracing::error!(error = %e, "cannot remove a delivered segment; trying again");
    }
    prepare(shared);
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

fn reclaim(shared: &Arc<Shared>) -> Result<(), Error> {
    if !shared.endpoints_complete.load(Ordering::Acquire) {
        return Ok(());
    }
    let durable = shared.durable_position();
    let endpoints = shared.endpoints.lock().clone();
    // Without endpoints nobody waits for the data.
    let acked = endpoints
        .values()
        .map(|endpoint| endpoint.saved())
        .min()
        .unwrap_or(durable);
    let limit = acked.min(durable);
    let keep = shared.segments.id_of(limit);
    let removed = shared.segments.remove_before(keep)?;
    StoreStats::add(&shared.stats.segments_reclaimed, removed);
    let oldest = shared
        .segments
        .first_from(0)
        .map_or(0, |segment| segment.header.id);
    let reclaimed = shared.segments.start_of(oldest);
    assert!(reclaimed <= limit || removed == 0, "reclaimed beyond acked");
    shared
        .reclaimed
        .fetch_max(reclaimed.get(), Ordering::AcqRel);
    Ok(())
}

/// Brings the prepared segments up to [`PREPARED_AHEAD`] beyond the one in use.
pub(crate) fn prepare(shared: &Arc<Shared>) {
    shared.quota.follow_volume();
    while shared.reserve.lock().prepared.len() <= PREPARED_AHEAD {
        let outcome = prepare_one(shared);
        let full = outcome.as_ref().is_err_and(Error::is_full);
        let was_full = shared
            .stats
            .out_of_space
            .swap(u64::from(full), Ordering::Relaxed)
            == 1;
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

/// Prepares one segment and hands it to the writers. Only the opening thread and then the keeper
/// call this, so the id cannot be taken twice.
///
/// # Errors
/// [`Error::Full`] at the quota or on a full disk, else what the system said.
fn prepare_one(shared: &Arc<Shared>) -> Result<(), Error> {
    if !shared.quota.has_room(shared.segments.segment_bytes()) {
        return Err(Error::Full {
            reason: FullReason::Segments,
        });
    }
    let (id, previous_end) = {
        let reserve = shared.reserve.lock();
        (reserve.next_id, reserve.previous_end)
    };
    let now_ms = shared.clock.unix_ms();
    let segment = shared
        .segments
        .prepare(id, previous_end, now_ms)
        .map_err(|e| e.or_full(FullReason::Segments))?;
    let mut reserve = shared.reserve.lock();
    reserve.prepared.push_back(Prepared {
        id,
        salt: segment.header.salt,
    });
    reserve.next_id = id + 1;
    reserve.previous_end = None;
    Ok(())
}
