//! Turns limits on how far an endpoint may be behind into what it is not to get any more.
//!
//! Nothing is dropped here: the keeper says what is given up, in the ledger and to the endpoint's
//! tail, and whoever ships for the endpoint counts every record under the reason and moves the
//! position.
//!
//! # Invariants
//! - Without a limit, and with `on_full = "reject"`, nothing is ever given up.
//! - What is given up ends where a frame begins.
//! - Ages do not trust the wall clock while the process runs: a jump of it gives nothing up. What
//!   earlier runs wrote is as old as the wall clock said at the start.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::endpoint::{EndpointState, GiveUp};
use crate::frame::FrameHeader;
use crate::ledger::Loss;
use crate::reader::FrameReader;
use crate::store::Shared;
use crate::{DropReason, Error, Position};

/// What happens when the quota or the disk is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnFull {
    /// Nothing new is taken until there is room: senders are told to come back.
    #[default]
    Reject,
    /// The endpoints that are furthest behind lose the oldest segment.
    DropOldest,
}

/// How far an endpoint may be behind before it loses the oldest data; no limit by default.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LagLimits {
    /// Bytes of frames.
    pub max_bytes: Option<u64>,
    /// Time since they were appended.
    pub max_age: Option<Duration>,
}

/// Of the bytes allowed, so much is left after dropping: otherwise every frame would drop one.
const LEFT_OF_MAX: (u64, u64) = (7, 8);
/// Moments remembered at most; with more, every other is forgotten.
const MOMENTS_MAX: usize = 1 << 13;
const MOMENT_EVERY: Duration = Duration::from_secs(1);

/// When the log was how long.
#[derive(Debug, Default)]
pub(crate) struct Ages {
    /// Everything before the position was appended at this time or before, in milliseconds of the
    /// monotonic clock, negative before it began.
    moments: VecDeque<(Position, i64)>,
}

impl Ages {
    /// What the segments on disk tell of the time before.
    ///
    /// # Errors
    /// What the system said to reading them.
    pub(crate) fn open(shared: &Shared) -> Result<Self, Error> {
        let now_ms = millis(shared.clock.monotonic());
        let unix_ms = shared.clock.unix_ms();
        let mut ages = Self::default();
        for segment in shared.segments.all() {
            let start = segment.first();
            let limit = segment.end().min(shared.durable_position());
            let mut reader = FrameReader::new(shared.disk.clone(), segment);
            if let Some(header) = reader.header(start, limit)? {
                let age = unix_ms.saturating_sub(header.appended_ms).max(0);
                ages.moments.push_back((start, now_ms.saturating_sub(age)));
            }
        }
        Ok(ages)
    }

    /// The log is so long now.
    pub(crate) fn note(&mut self, durable: Position, now: Duration) {
        let now = millis(now);
        let due = self.moments.back().is_none_or(|(position, at)| {
            *position < durable && now >= at.saturating_add(millis(MOMENT_EVERY))
        });
        if due {
            self.moments.push_back((durable, now));
        }
        if self.moments.len() > MOMENTS_MAX {
            let mut keep = false;
            self.moments.retain(|_| {
                keep = !keep;
                keep
            });
        }
    }

    /// Everything before this is older than `age`.
    pub(crate) fn older_than(&self, age: Duration, now: Duration) -> Position {
        let limit = millis(now).saturating_sub(millis(age));
        let old = self.moments.iter().rev().find(|(_, at)| *at < limit);
        old.map_or(Position::ZERO, |(position, _)| *position)
    }

    /// What lies before is gone.
    pub(crate) fn forget_before(&mut self, reclaimed: Position) {
        while self.moments.front().is_some_and(|(p, _)| *p < reclaimed) {
            self.moments.pop_front();
        }
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// Holds every endpoint to its limits.
///
/// # Errors
/// What the system said to looking for where a frame begins.
pub(crate) fn enforce(shared: &Arc<Shared>, ages: &Ages) -> Result<(), Error> {
    let durable = shared.durable_position();
    let endpoints = shared.endpoints.lock().clone();
    for endpoint in endpoints.values() {
        let limits = *endpoint.limits.lock();
        let from = endpoint.decided();
        if let Some(max) = limits.max_bytes
            && shared.segments.bytes_between(from, durable) > max
        {
            let left = max / LEFT_OF_MAX.1 * LEFT_OF_MAX.0;
            let to = shared.segments.position_before(durable, left);
            give_up(shared, endpoint, to, DropReason::MaxLagBytes)?;
        }
        if let Some(age) = limits.max_age {
            let to = ages.older_than(age, shared.clock.monotonic());
            give_up(shared, endpoint, to, DropReason::MaxLagAge)?;
        }
    }
    Ok(())
}

/// The endpoints that hold the oldest segment lose it. While what was given up before is not free
/// yet, nothing more is.
///
/// # Errors
/// What the system said to looking for where a frame begins.
pub(crate) fn drop_oldest(shared: &Arc<Shared>) -> Result<(), Error> {
    let endpoints = shared.endpoints.lock().clone();
    let waiting = |state: &Arc<EndpointState>| state.given_up_beyond(state.saved()).is_some();
    if endpoints.values().any(waiting) {
        return Ok(());
    }
    let durable = shared.durable_position();
    let Some(oldest) = shared.segments.first_from(0) else {
        return Ok(());
    };
    // What is being written stays.
    if oldest.end() >= durable {
        return Ok(());
    }
    for endpoint in endpoints.values() {
        give_up(shared, endpoint, oldest.end(), DropReason::Quota)?;
    }
    Ok(())
}

fn give_up(
    shared: &Arc<Shared>,
    endpoint: &EndpointState,
    to: Position,
    reason: DropReason,
) -> Result<(), Error> {
    let from = endpoint.decided();
    // What is decided beyond the backlog is no loss; what comes behind that has its turn later.
    let ahead = endpoint.ahead_from().filter(|ahead| *ahead > from);
    let to = ahead.map_or(to, |ahead| to.min(ahead));
    if to <= from {
        return Ok(());
    }
    let first = frame_from(shared, from)?;
    let Some(next) = frame_from(shared, to)? else {
        return Ok(());
    };
    let Some(first) = first.filter(|first| first.position < next.position) else {
        return Ok(());
    };
    let loss = Loss {
        time_ms: shared.clock.unix_ms(),
        endpoint: endpoint.name.clone(),
        reason,
        from: first.position,
        to: next.position,
        records: next.records_before - first.records_before,
        appended_ms: (first.appended_ms, next.appended_ms),
    };
    shared.ledger.record(&shared.disk, &loss);
    endpoint.give_up(GiveUp {
        before: next.position,
        reason,
    });
    Ok(())
}

/// The first durable frame at or behind `position`.
///
/// # Errors
/// What the system said to reading.
pub(crate) fn frame_from(
    shared: &Shared,
    position: Position,
) -> Result<Option<FrameHeader>, Error> {
    let durable = shared.durable_position();
    let mut at = position;
    while let Some(segment) = shared.segments.holding(at) {
        let key = segment.key();
        let next = shared.segments.after(key);
        let sealed = next.as_ref().and_then(|next| next.previous_end());
        let limit = sealed.unwrap_or_else(|| segment.end()).min(durable);
        let first = at.max(segment.first());
        let mut reader = FrameReader::new(shared.disk.clone(), segment);
        let header = match reader.header(first, limit)? {
            Some(header) => Some(header),
            None => reader.next_header(first.align_down(), limit)?,
        };
        match (header.filter(FrameHeader::is_data), next) {
            (Some(header), _) => return Ok(Some(header)),
            (None, Some(next)) if next.first() < durable => at = next.first().max(at.plus(1)),
            (None, _) => break,
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_as_old_as_the_moment_after_them() {
        let mut ages = Ages::default();
        let seconds = Duration::from_secs;
        for second in 0..20_000 {
            ages.note(Position::new(10 * second + 1), seconds(second));
        }
        let now = seconds(20_000);
        assert_eq!(ages.older_than(seconds(30_000), now), Position::ZERO);
        let position = ages.older_than(seconds(1000), now).get();
        assert!(position <= 190_000 && position > 189_900, "{position}");
        ages.forget_before(Position::new(150_000));
        assert_eq!(ages.older_than(seconds(10_000), now), Position::ZERO);
    }
}
