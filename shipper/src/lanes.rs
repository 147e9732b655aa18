//! Turns one endpoint into the one or two lanes in which it gets its records.
//!
//! One lane is the rule. With `priority = "fresh"` an endpoint that is far behind gets what is new in a
//! lane of its own, while the other one sends the backlog up to where that begins; then the newer lane
//! is the only one. See `docs/decisions/0014-fresh-first.md`.
//!
//! # Invariants
//! - Order per series holds within each lane.
//! - There are never more than two: what an endpoint misses while it has two is caught up in the newer,
//!   before its backlog.
//! - Both positions are durable: the range of the newer lane is saved beside the acknowledged position.
//!
//! # Limits
//! - Two lanes have half the shards each, and at least one. Until what was queued when it split is
//!   decided, the older keeps what it had, and the newer has what is left, and at least one.

use std::pin::pin;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::ack::FrameNumber;
use crate::governor::{Governor, Wish};
use crate::options::{Priority, Resolved};
use crate::shard::Shared;
use crate::shard_map::shard_count;
use crate::tailer::{Stop, Tailer};

/// One of two, in turns the newer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Lane(bool);

impl Lane {
    /// How many there are.
    pub(crate) const COUNT: usize = 2;
    /// The one that every endpoint has at its start.
    pub(crate) const FIRST: Self = Self(false);

    pub(crate) const fn other(self) -> Self {
        Self(!self.0)
    }

    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }

    /// The lane of a frame.
    pub(crate) const fn of(frame: FrameNumber) -> Self {
        Self(frame.is_in_second_lane())
    }
}

/// The lanes of one endpoint.
pub(crate) struct Lanes {
    shared: Arc<Shared>,
    resolved: Arc<Resolved>,
    saved: wal::Endpoint,
    wish: Arc<Wish>,
}

impl Lanes {
    pub(crate) fn new(shared: Arc<Shared>, resolved: Resolved, saved: wal::Endpoint) -> Self {
        Self {
            shared,
            resolved: Arc::new(resolved),
            saved,
            wish: Arc::default(),
        }
    }

    /// Ships the log until it is closed or poisoned, or to be stopped.
    ///
    /// # Panics
    /// If a lane has.
    pub(crate) async fn run(self, stop: watch::Receiver<Stop>) {
        let (splits, mut asked) = mpsc::channel(1);
        let mut tailers = JoinSet::new();
        let splits = (self.resolved.options.priority == Priority::Fresh).then_some(splits);
        let is_split = self.saved.ahead().is_some();
        if is_split {
            tailers.spawn(self.oldest().run(stop.clone()));
        }
        tailers.spawn(self.newest(splits.clone(), is_split).run(stop.clone()));
        let options = &self.resolved.options.queue;
        let governor = Governor::new(Arc::clone(&self.shared), Arc::clone(&self.wish), options);
        let mut governor = pin!(governor.run());
        loop {
            tokio::select! {
                // First: who asked for another lane may have ended since.
                biased;
                Some(()) = asked.recv() => {
                    tailers.spawn(self.newest(splits.clone(), true).run(stop.clone()));
                }
                ended = tailers.join_next() => match ended {
                    Some(Ok(())) => {}
                    Some(Err(error)) if error.is_panic() => {
                        std::panic::resume_unwind(error.into_panic())
                    }
                    Some(Err(_)) | None => break,
                },
                never = &mut governor => match never {},
            }
        }
    }

    /// The lane of the backlog that an earlier run left.
    fn oldest(&self) -> Tailer {
        let until = self.saved.ahead().map(|ahead| ahead.from);
        let (shared, resolved) = (Arc::clone(&self.shared), Arc::clone(&self.resolved));
        let shards = half(&self.resolved);
        let tail = self.saved.tail();
        Tailer::new(
            shared,
            (tail, until),
            resolved,
            shards,
            Arc::clone(&self.wish),
        )
    }

    fn newest(&self, splits: Option<mpsc::Sender<()>>, is_split: bool) -> Tailer {
        let (shared, resolved) = (Arc::clone(&self.shared), Arc::clone(&self.resolved));
        let queue = &resolved.options.queue;
        let shards = match is_split {
            // The other lane may still have all of its own: this one gets its part when those are fewer.
            true => {
                let taken = shared.stats.snapshot().shards;
                let free = queue.max_shards.saturating_sub(taken);
                free.clamp(1, newest_shards(&resolved))
            }
            false => shard_count(queue),
        };
        let tail = self.saved.tail_newest();
        Tailer::new(
            shared,
            (tail, None),
            resolved,
            shards,
            Arc::clone(&self.wish),
        )
        .splitting(splits)
    }
}

/// The shards of the newer of two lanes.
pub(crate) fn newest_shards(resolved: &Resolved) -> u16 {
    shard_count(&resolved.options.queue).min(half(resolved))
}

/// The shards one of two lanes may have.
pub(crate) fn half(resolved: &Resolved) -> u16 {
    (resolved.options.queue.max_shards / 2).max(1)
}
