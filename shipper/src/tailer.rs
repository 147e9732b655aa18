//! Turns frames of the log into records in the queues of the shards.
//!
//! The main path is [`Tailer::run`]: read a frame, route its records, open it in the ack window,
//! push its parts; wait for room or for new frames. Far behind it reads many frames ahead and pushes
//! their records by series (`pack`).
//!
//! # Invariants
//! - Frames are opened in log order and pushed whole before the next is read, or the next many.
//! - A frame is opened before any of its records can be done.
//! - The number of shards changes between two frames, when everything queued is decided.
//! - A lane splits between two frames: it reads on to where the newer lane begins, and ends.
//!
//! # Failure
//! - Read errors are repeated every [`READ_RETRY`]; a poisoned or closed log ends the tailer.
//! - Dropped anywhere (stop), it leaves queued what is queued; the rest is on disk and not acked.
//!
//! # Limits
//! - Holds one frame, or one pack while behind. A full queue holds up the whole endpoint, and no other.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use wal::{Mark, Position};

use crate::ack::TailedFrame;
use crate::crew::Crew;
use crate::drain::BEHIND_FROM;
use crate::governor::Wish;
use crate::lanes::{Lane, half, newest_shards};
use crate::options::Resolved;
use crate::pack::{PACK_FROM, Pack};
use crate::router::Router;
use crate::shard::Shared;
use labels::wire::len_u64;

/// Between two tries to read what could not be read.
const READ_RETRY: Duration = Duration::from_secs(5);

/// A pack in which a series has fewer samples than this saves nothing, nor does the next one likely.
const PACK_SAMPLES_LEAST: usize = 2;
/// So many times what a pack holds is then read without.
const PACK_PAUSE: u64 = 16;

/// An endpoint that asks for what is new first is split when what is read is older than this ...
const SPLIT_FROM: Duration = BEHIND_FROM;
/// ... and there are more records of the log to read, as a part of what a pack is worth it from; fewer
/// are sent in a moment.
const SPLIT_PART: u64 = 4;
/// The newer lane begins so near to the end of the log, as a part of a segment.
const SPLIT_SEGMENT_PART: u64 = 256;
/// Between two looks at whether the newer lane is far behind itself.
const GIVE_WAY: Duration = Duration::from_secs(1);

/// How an endpoint is to end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug)]
pub(crate) enum Stop {
    No,
    /// Deliver what the log holds now.
    Drain,
    AtOnce,
}

/// The tailer of one lane of an endpoint.
pub(crate) struct Tailer {
    shared: Arc<Shared>,
    resolved: Arc<Resolved>,
    tail: wal::Tail,
    lane: Lane,
    /// Where the lane ends, if it is that of the backlog.
    until: Option<Mark>,
    /// Asks for another lane; none if there may be only one.
    splits: Option<mpsc::Sender<()>>,
    /// When the last frame read was appended.
    appended_ms: i64,
    /// Records of the log before which it was found that nothing can be split.
    split_from: u64,
    durable: wal::Durable,
    /// How far may be read for now.
    held: watch::Receiver<Option<Position>>,
    router: Router,
    crew: Crew,
    wish: Arc<Wish>,
    /// Records of the log before which no pack is worth it.
    pack_from: u64,
    /// The memory of the last pack, for the next.
    pack: Option<Pack>,
}

impl Tailer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        (tail, until): (wal::Tail, Option<Mark>),
        resolved: Arc<Resolved>,
        shards: u16,
        wish: Arc<Wish>,
    ) -> Self {
        let durable = shared.store.durable();
        let held = shared.acks.endpoint().held();
        let metadata = Arc::clone(&shared.metadata);
        let router = Router::new(&resolved, &shared.clock, metadata, shards);
        let newest = shared.acks.newest();
        let lane = until.map_or(newest, |_| newest.other());
        Self {
            crew: Crew::start(&shared, &resolved, (lane, shards)),
            shared,
            resolved,
            tail,
            lane,
            until,
            splits: None,
            appended_ms: i64::MAX,
            split_from: 0,
            durable,
            held,
            router,
            wish,
            pack_from: 0,
            pack: None,
        }
    }

    /// May ask for another lane when it is far behind.
    pub(crate) fn splitting(mut self, splits: Option<mpsc::Sender<()>>) -> Self {
        self.splits = splits;
        self
    }

    /// Ships the log until it is closed or poisoned, or to be stopped, or until the lane ends.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<Stop>) {
        let mut at_once = stop.clone();
        let delivered = tokio::select! {
            biased;
            () = told(&mut at_once, Stop::AtOnce) => false,
            () = self.ship(&mut stop) => true,
        };
        if !delivered {
            self.crew.abort().await;
        }
        self.shared.stats.set_shards(self.lane, 0);
    }

    /// Routes frames until the log is closed or poisoned, or until everything it held when that was asked
    /// for is routed; and waits until that is decided.
    async fn ship(&mut self, stop: &mut watch::Receiver<Stop>) {
        let mut end = None;
        loop {
            if end.is_none() && *stop.borrow() >= Stop::Drain {
                end = Some(self.durable.position());
            }
            let until = self.until.map(|until| until.position).into_iter();
            if until.chain(end).any(|end| self.tail.position() >= end) {
                break;
            }
            match self.until {
                None if end.is_none() && self.may_split() => self.split().await,
                Some(_) if end.is_none() => self.give_way(stop).await,
                _ => {}
            }
            if self.until.is_none()
                && let Some(shards) = self.wish.take()
            {
                self.reshard(shards).await;
            }
            match self.read() {
                Ok(Some(frame)) if self.is_far_behind() && !self.may_split() => {
                    self.push_pack(frame).await;
                }
                Ok(Some(frame)) => {
                    self.pack = None;
                    self.push(frame).await;
                }
                Ok(None) => {
                    self.pack = None;
                    let lost = self.tail.take_lost();
                    self.shared.lost(&lost);
                    self.set_tailed();
                    let Shared { acks, stats, .. } = &*self.shared;
                    acks.passed(self.lane, self.tail.mark(), lost, stats);
                    let more = tokio::select! {
                        biased;
                        more = more(&mut self.durable, &mut self.held, self.tail.position()) => more,
                        () = self.wish.made(), if self.until.is_none() => Ok(()),
                        () = told(stop, Stop::Drain), if end.is_none() => Ok(()),
                    };
                    if let Err(error) = more {
                        tracing::debug!(%error, "the log has ended");
                        break;
                    }
                }
                Err(error) => {
                    let position = self.tail.position().get();
                    tracing::error!(%error, position, "the log cannot be read");
                    if error.is_poisoned() {
                        break;
                    }
                    tokio::time::sleep(READ_RETRY).await;
                }
            }
            // with room in the queues nothing else here gives way to other endpoints
            tokio::task::consume_budget().await;
        }
        self.crew.dissolve().await;
    }

    /// Reads and routes the next frame, if there is one.
    fn read(&mut self) -> Result<Option<TailedFrame>, wal::Error> {
        let before = self.tail.position();
        let Some(frame) = self.tail.next()? else {
            return Ok(None);
        };
        let Shared { store, stats, .. } = &*self.shared;
        let begin = frame.begin_mark();
        let message = self.shared.message();
        let routed = self.router.route(&frame, store, (stats, message));
        let lost = self.tail.take_lost();
        self.appended_ms = routed.appended_ms;
        self.set_tailed();
        if begin.position > before || lost.total() > 0 {
            // At once, not with the frame: neither what is given up nor the unused rest of a segment
            // must wait for an endpoint that is away.
            self.shared.lost(&lost);
            let Shared { acks, stats, .. } = &*self.shared;
            acks.passed(self.lane, begin, lost, stats);
        }
        Ok(Some(routed))
    }

    /// Opens the frame and moves what was routed into the queues.
    async fn push(&mut self, frame: TailedFrame) {
        let Shared { acks, stats, .. } = &*self.shared;
        let number = acks.open(self.lane, frame, stats);
        loop {
            let mut all = true;
            for (queue, routed) in self.crew.queues().iter().zip(&mut self.router.routed) {
                all &= queue.push(number, routed);
            }
            if all {
                return;
            }
            self.shared.stats.queue_full();
            self.crew.room().await;
        }
    }

    /// With fewer to read there is nothing to read ahead.
    fn pack_records(&self) -> u64 {
        PACK_FROM.min(len_u64(self.read_ahead()))
    }

    /// Records of the lane that are not read.
    fn unread(&self) -> u64 {
        let records = || self.shared.store.records();
        let end = self.until.map_or_else(records, |until| until.records);
        end.saturating_sub(self.tail.mark().records)
    }

    fn set_tailed(&self) {
        let stats = &self.shared.stats;
        match self.until {
            Some(_) => stats.set_backlog(self.unread()),
            None => stats.set_tailed(self.tail.mark().records),
        }
    }

    /// Whether another lane is asked for and this one is far behind.
    fn may_split(&self) -> bool {
        let Shared {
            acks,
            clock,
            health,
            ..
        } = &*self.shared;
        let split_from_ms = i64::try_from(SPLIT_FROM.as_millis()).unwrap_or(i64::MAX);
        self.splits.is_some()
            && clock.unix_ms().saturating_sub(self.appended_ms) >= split_from_ms
            && self.unread() >= self.pack_records() / SPLIT_PART
            && self.tail.mark().records >= self.split_from
            && health.is_up()
            && !acks.is_split()
    }

    /// Leaves what is new to another lane.
    async fn split(&mut self) {
        let Some(splits) = &self.splits else { return };
        let Shared { acks, stats, .. } = &*self.shared;
        self.split_from = self.tail.mark().records + PACK_FROM / SPLIT_PART;
        let near = self.shared.store.segment_bytes() / SPLIT_SEGMENT_PART;
        let from = match acks.split(self.tail.position(), near) {
            Ok(Some(from)) => from,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "what is new cannot be sent first");
                return;
            }
        };
        let endpoint = self.shared.reporter.endpoint();
        let backlog = from.records.saturating_sub(self.tail.mark().records);
        tracing::info!(endpoint, backlog, "what is new is sent before the backlog");
        self.until = Some(from);
        self.tail.read_until(self.until);
        stats.set_tailed(from.records);
        self.set_tailed();
        // There is room for one, and only one is asked for at a time.
        if splits.send(()).await.is_err() {
            tracing::debug!("the endpoint is ending");
        }
        self.splits = None;
        self.reshard(half(&self.resolved)).await;
        self.wish.make(newest_shards(&self.resolved));
    }

    /// Waits while the newer lane is far behind itself: what is new comes first.
    async fn give_way(&self, stop: &mut watch::Receiver<Stop>) {
        let Shared { acks, stats, .. } = &*self.shared;
        while stats.lag(acks.newest(), self.shared.clock.unix_ms()) >= BEHIND_FROM {
            tokio::select! {
                () = tokio::time::sleep(GIVE_WAY) => {}
                () = told(stop, Stop::Drain) => return,
            }
        }
    }

    /// Records that a pack takes.
    fn read_ahead(&self) -> usize {
        self.resolved.options.drain.read_ahead
    }

    /// Whether to read ahead: there is much to read, and somebody to send it to.
    fn is_far_behind(&self) -> bool {
        let read = self.tail.mark().records;
        self.read_ahead() > 0
            && self.unread() >= self.pack_records()
            && read >= self.pack_from
            && self.shared.health.is_up()
    }

    /// Opens the frame and those behind it, and moves their records into the queues by series.
    async fn push_pack(&mut self, frame: TailedFrame) {
        let (shares, records_max) = (self.router.routed.len(), self.read_ahead());
        let mut pack = (self.pack.take()).unwrap_or_else(|| Pack::new(shares, records_max));
        let segment = self.segment_of(&frame);
        let mut next = Some(frame);
        while let Some(frame) = next.take_if(|frame| self.segment_of(frame) == segment) {
            let Shared { acks, stats, .. } = &*self.shared;
            let number = acks.open(self.lane, frame, stats);
            pack.add(number, &mut self.router.routed);
            if pack.is_full() {
                break;
            }
            tokio::task::consume_budget().await;
            next = self.read().unwrap_or_else(|error| {
                tracing::debug!(%error, "a pack ends before what cannot be read");
                None
            });
        }
        for share in 0..shares {
            pack.group(share);
            tokio::task::yield_now().await;
        }
        if pack.samples_per_series() < PACK_SAMPLES_LEAST {
            let pause = PACK_PAUSE * len_u64(self.read_ahead());
            self.pack_from = self.tail.mark().records + pause;
        }
        loop {
            let mut all = true;
            for (queue, share) in self.crew.queues().iter().zip(pack.shares()) {
                all &= queue.push_packed(share);
            }
            if all {
                break;
            }
            self.shared.stats.queue_full();
            self.crew.room().await;
        }
        pack.clear();
        self.pack = Some(pack);
        if let Some(first_of_next) = next {
            self.push(first_of_next).await;
        }
    }

    /// The segment a frame is in. A pack keeps to one: a segment that is given up is then all or nothing
    /// of what is queued, and nothing queued behind what is still wanted holds it up.
    fn segment_of(&self, frame: &TailedFrame) -> u64 {
        self.shared.store.segment_before(frame.end.position)
    }

    /// Waits until everything queued is decided and goes on with another number of shards.
    async fn reshard(&mut self, shards: u16) {
        if self.crew.shards() == shards {
            return;
        }
        self.crew.dissolve().await;
        self.pack = None;
        self.router.set_shards(shards);
        self.crew = Crew::start(&self.shared, &self.resolved, (self.lane, shards));
    }
}

/// Waits until there may be something to read beyond `position`.
///
/// # Errors
/// That will not happen any more.
async fn more(
    durable: &mut wal::Durable,
    held: &mut watch::Receiver<Option<Position>>,
    position: Position,
) -> Result<(), wal::Error> {
    durable.changed_past(position).await?;
    let may_go_on = |held: &Option<Position>| held.is_none_or(|held| held > position);
    tokio::select! {
        // An error means that the endpoint is gone.
        _ = held.wait_for(may_go_on) => Ok(()),
        ended = durable.ended() => Err(ended),
    }
}

/// Waits to be told to stop, at least so urgently.
async fn told(stop: &mut watch::Receiver<Stop>, at_least: Stop) {
    if stop.wait_for(|stop| *stop >= at_least).await.is_err() {
        // Whoever could tell is gone, and this task will be aborted.
        std::future::pending::<()>().await;
    }
}
