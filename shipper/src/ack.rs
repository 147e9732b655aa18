//! Turns records that are done, in any order, into a position that only grows.
//!
//! Frames are opened in log order with the number of records that go to the shards; shards report
//! how many of a frame's records are done (delivered, refused for good, or not to be sent). When
//! all records of the oldest frames are done the position moves to the end of the last of them.
//!
//! # Invariants
//! - The position never passes a frame with a record that is not done.
//! - The window holds no frame without outstanding records, except behind the oldest open one.
//!
//! # Limits
//! - A frame in the window has a record in a queue or in flight, or is done and behind one that
//!   has. Frames that never had a record to send take no place: they extend the frame before. So
//!   the window is bounded by what the queues let the tailer read ahead.
//!
//! # Threads
//! - One lock per endpoint, taken once per frame by the tailer and once per batch by each shard,
//!   never across an await.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use wal::{DropReason, Mark, Position, Tally};

use crate::batch::Run;
use crate::lanes::Lane;
use crate::stats::Stats;
use labels::wire::len_u64;

const SECOND_LANE: u64 = 1 << 63;

/// Counts the frames one tailer has opened; names a frame while it is in the window. The highest bit is
/// the lane.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct FrameNumber(u64);

impl FrameNumber {
    /// The frame with this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    pub(crate) const fn is_in_second_lane(self) -> bool {
        self.0 & SECOND_LANE != 0
    }

    const fn in_lane(self, lane: Lane) -> Self {
        Self(self.0 | (lane.index() as u64 * SECOND_LANE))
    }

    /// Its number in the window of its lane.
    const fn in_window(self) -> u64 {
        self.0 & !SECOND_LANE
    }
}

/// What the window needs to know of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TailedFrame {
    pub(crate) end: Mark,
    pub(crate) appended_ms: i64,
    /// Records that go to the shards.
    pub(crate) records: usize,
    /// What became of the others, and of those that were found missing before the frame.
    pub(crate) tally: Tally,
}

/// Some records of one frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Done {
    pub(crate) frame: FrameNumber,
    /// How many.
    pub(crate) records: u64,
    /// Why the endpoint does not have them; none if it does.
    pub(crate) dropped: Option<DropReason>,
}

#[derive(Debug)]
struct OpenFrame {
    end: Mark,
    appended_ms: i64,
    outstanding: u64,
    tally: Tally,
}

/// Where everything before is decided, and how that since the last move.
pub(crate) type Moved = (Mark, Tally);

/// The window of frames between the acked and the tailed position.
#[derive(Debug, Default)]
pub(crate) struct AckWindow {
    /// Number of the frame at the front.
    first: u64,
    frames: VecDeque<OpenFrame>,
}

impl AckWindow {
    /// Opens the next frame. Returns its number, and how far the position moved if it had nothing to
    /// send and everything before it is done.
    pub(crate) fn open(&mut self, frame: TailedFrame) -> (FrameNumber, Option<Moved>) {
        let TailedFrame {
            end,
            appended_ms,
            records,
            tally,
        } = frame;
        let next = FrameNumber(self.first + len_u64(self.frames.len()));
        if records > 0 {
            self.frames.push_back(OpenFrame {
                end,
                appended_ms,
                outstanding: len_u64(records),
                tally,
            });
            return (next, None);
        }
        match self.frames.back_mut() {
            Some(last) => {
                debug_assert!(last.end <= end, "frames are opened in log order");
                last.end = end;
                last.tally += tally;
                (next, None)
            }
            None => (next, Some((end, tally))),
        }
    }

    /// Takes records as done. Returns how far the position moved, if it did.
    pub(crate) fn done(&mut self, done: &[Done]) -> Option<Moved> {
        for part in done {
            let index = usize::try_from(part.frame.in_window() - self.first).unwrap_or(usize::MAX);
            let frame = self
                .frames
                .get_mut(index)
                .expect("the frame of a queued record is open");
            assert!(frame.outstanding >= part.records, "a record is done once");
            frame.outstanding -= part.records;
            match part.dropped {
                None => frame.tally.delivered += part.records,
                Some(reason) => frame.tally.drop(reason, part.records),
            }
        }
        let mut moved: Option<Moved> = None;
        while let Some(frame) = self.frames.pop_front_if(|frame| frame.outstanding == 0) {
            self.first += 1;
            let (end, tally) = moved.get_or_insert((frame.end, Tally::default()));
            *end = frame.end;
            *tally += frame.tally;
        }
        moved
    }

    /// Where a frame in the window ends.
    fn end_of(&self, frame: FrameNumber) -> Option<Position> {
        let index = usize::try_from(frame.in_window().checked_sub(self.first)?).ok()?;
        Some(self.frames.get(index)?.end.position)
    }

    /// When the oldest frame in the window was appended.
    pub(crate) fn oldest_appended_ms(&self) -> Option<i64> {
        self.frames.front().map(|frame| frame.appended_ms)
    }

    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }
}

/// The window of one lane.
#[derive(Debug, Default)]
struct LaneWindow {
    window: AckWindow,
    /// Whether the lane is the newer, or the only one. Under the same lock as the window: what a move of
    /// the position means is not to change before it is made.
    is_newest: bool,
}

/// The windows of one endpoint together with the positions they move.
pub(crate) struct Acks {
    /// By lane.
    windows: [Mutex<LaneWindow>; Lane::COUNT],
    endpoint: wal::Endpoint,
    /// What lies before this was in the log already and may have been sent by an earlier run.
    fresh_from: Position,
    /// The first frame of each lane behind that; the largest number until there is one.
    first_fresh: [AtomicU64; Lane::COUNT],
}

impl Acks {
    pub(crate) fn new(endpoint: wal::Endpoint, fresh_from: Position) -> Self {
        let is_split = endpoint.ahead().is_some();
        let acks = Self {
            windows: Default::default(),
            endpoint,
            fresh_from,
            first_fresh: [const { AtomicU64::new(u64::MAX) }; Lane::COUNT],
        };
        acks.set_newest(match is_split {
            true => Lane::FIRST.other(),
            false => Lane::FIRST,
        });
        acks
    }

    fn set_newest(&self, lane: Lane) {
        self.windows[lane.other().index()].lock().is_newest = false;
        self.windows[lane.index()].lock().is_newest = true;
    }

    /// The newer lane, or the only one.
    pub(crate) fn newest(&self) -> Lane {
        match self.windows[Lane::FIRST.index()].lock().is_newest {
            true => Lane::FIRST,
            false => Lane::FIRST.other(),
        }
    }

    /// Whose positions these are.
    pub(crate) const fn endpoint(&self) -> &wal::Endpoint {
        &self.endpoint
    }

    /// Whether there are two lanes.
    pub(crate) fn is_split(&self) -> bool {
        self.endpoint.ahead().is_some()
    }

    /// Begins another lane near the end of the log, beyond `after`; where. None if that cannot be.
    ///
    /// # Errors
    /// What the system said to looking for where a frame begins.
    pub(crate) fn split(&self, after: Position, bytes: u64) -> Result<Option<Mark>, wal::Error> {
        let was = self.newest();
        self.set_newest(was.other());
        // From here on what is acknowledged in the lane there was is of the backlog.
        let from = self.endpoint.begin_ahead(after, bytes);
        if !matches!(from, Ok(Some(_))) {
            self.set_newest(was);
        }
        from
    }

    /// Whether none of these records was in the log before the endpoint was started.
    pub(crate) fn are_fresh(&self, mut frames: impl Iterator<Item = FrameNumber>) -> bool {
        frames.all(|frame| {
            let first = &self.first_fresh[Lane::of(frame).index()];
            frame.in_window() >= first.load(Ordering::Relaxed)
        })
    }

    /// Tells of everything that is given up from now on.
    pub(crate) fn give_ups(&self) -> tokio::sync::watch::Receiver<Option<wal::GiveUp>> {
        self.endpoint.give_ups()
    }

    /// How many of these neighbouring records, counted from the first, the endpoint is not to get any
    /// more, and why.
    pub(crate) fn given_up(&self, runs: &[Run]) -> Option<(usize, DropReason)> {
        let give_up = self.endpoint.given_up_beyond(self.endpoint.acked())?;
        let lane = Lane::of(runs.first()?.frame);
        let lane = self.windows[lane.index()].lock();
        let gone = |run: &&Run| {
            lane.window
                .end_of(run.frame)
                .is_some_and(|end| end <= give_up.before)
        };
        let records = runs.iter().take_while(gone).map(Run::records).sum();
        (records > 0).then_some((records, give_up.reason))
    }

    /// See [`AckWindow::open`].
    pub(crate) fn open(&self, lane: Lane, frame: TailedFrame, stats: &Stats) -> FrameNumber {
        let mut of_lane = self.windows[lane.index()].lock();
        let (number, moved) = of_lane.window.open(frame);
        if frame.end.position > self.fresh_from {
            self.first_fresh[lane.index()].fetch_min(number.0, Ordering::Relaxed);
        }
        self.moved(lane, &of_lane, moved, stats);
        number.in_lane(lane)
    }

    /// Everything before `end` was read, `lost` was found missing: behind the last frame there may be
    /// nothing but the unused rest of a segment, which needs no sending either.
    pub(crate) fn passed(&self, lane: Lane, end: Mark, lost: Tally, stats: &Stats) {
        let mut of_lane = self.windows[lane.index()].lock();
        let nothing = TailedFrame {
            end,
            appended_ms: 0,
            records: 0,
            tally: lost,
        };
        let (_, moved) = of_lane.window.open(nothing);
        self.moved(lane, &of_lane, moved, stats);
    }

    /// See [`AckWindow::done`]; all of one lane.
    pub(crate) fn done(&self, done: &[Done], stats: &Stats) {
        let Some(first) = done.first() else { return };
        let lane = Lane::of(first.frame);
        let mut of_lane = self.windows[lane.index()].lock();
        let moved = of_lane.window.done(done);
        self.moved(lane, &of_lane, moved, stats);
    }

    /// Called with the lock held, so that positions and gauges are published in order.
    fn moved(&self, lane: Lane, of_lane: &LaneWindow, moved: Option<Moved>, stats: &Stats) {
        match moved {
            Some((end, tally)) if of_lane.is_newest => self.endpoint.ack_newest(end, tally),
            Some((end, tally)) => self.endpoint.ack(end, tally),
            None => {}
        }
        let window = &of_lane.window;
        stats.set_window(lane, window.len(), window.oldest_appended_ms());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn done(frame: FrameNumber, records: usize) -> Done {
        Done {
            frame,
            records: len_u64(records),
            dropped: None,
        }
    }

    fn position(moved: Option<Moved>) -> Option<Position> {
        moved.map(|(end, _)| end.position)
    }

    fn frame(end: u64, appended_ms: i64, records: usize) -> TailedFrame {
        TailedFrame {
            end: Mark {
                position: Position::new(end),
                records: 0,
            },
            appended_ms,
            records,
            tally: Tally::default(),
        }
    }

    #[test]
    fn position_waits_for_the_oldest_frame() {
        let mut window = AckWindow::default();
        let (first, _) = window.open(frame(10, 1, 2));
        let (second, _) = window.open(frame(20, 2, 1));
        assert_eq!(window.done(&[done(second, 1)]), None);
        assert_eq!(window.done(&[done(first, 1)]), None);
        assert_eq!(window.oldest_appended_ms(), Some(1));
        assert_eq!(
            window
                .done(&[done(first, 1)])
                .map(|(end, tally)| (end.position, tally)),
            Some((Position::new(20), Tally::of_delivered(3)))
        );
        assert_eq!(window.oldest_appended_ms(), None);
    }

    #[test]
    fn frame_with_nothing_to_send_moves_the_position_at_once_when_caught_up() {
        let mut window = AckWindow::default();
        assert_eq!(
            position(window.open(frame(10, 1, 0)).1),
            Some(Position::new(10))
        );
    }

    #[test]
    fn frames_with_nothing_to_send_take_no_place() {
        let mut window = AckWindow::default();
        let (stuck, _) = window.open(frame(10, 1, 1));
        for end in 11..1000 {
            assert_eq!(window.open(frame(end, 2, 0)).1, None);
        }
        assert_eq!(window.len(), 1);
        assert_eq!(
            position(window.done(&[done(stuck, 1)])),
            Some(Position::new(999))
        );
    }

    #[test]
    #[should_panic(expected = "a record is done once")]
    fn more_records_done_than_opened_is_a_bug() {
        let mut window = AckWindow::default();
        let (first, _) = window.open(frame(10, 1, 1));
        window.open(frame(20, 1, 1));
        window.done(&[done(first, 2)]);
    }

    /// The naive model: all frames for ever, and the position by definition.
    #[derive(Default)]
    struct Model {
        frames: Vec<(Position, usize)>,
    }

    impl Model {
        fn position(&self) -> Position {
            let done = self
                .frames
                .iter()
                .take_while(|(_, outstanding)| *outstanding == 0);
            done.last().map_or(Position::ZERO, |(end, _)| *end)
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Open { bytes: u64, records: usize },
        Done { pick: usize, records: usize },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let open =
            (1..100u64, 0..4usize).prop_map(|(bytes, records)| Step::Open { bytes, records });
        let finish =
            (any::<usize>(), 1..4usize).prop_map(|(pick, records)| Step::Done { pick, records });
        proptest::collection::vec(prop_oneof![open, finish], 0..200)
    }

    proptest! {
        #[test]
        fn window_behaves_like_a_list_of_all_frames(steps in steps()) {
            let mut window = AckWindow::default();
            let mut model = Model::default();
            let mut numbers = Vec::new();
            let mut acked = Position::ZERO;
            let (mut decided, mut given) = (0, 0);
            let mut end = Position::ZERO;
            for step in steps {
                let moved = match step {
                    Step::Open { bytes, records } => {
                        end = Position::new(end.get() + bytes);
                        let (number, moved) = window.open(frame(end.get(), 0, records));
                        model.frames.push((end, records));
                        numbers.push(number);
                        moved
                    }
                    Step::Done { pick, records } => {
                        let open: Vec<_> =
                            (0..numbers.len()).filter(|i| model.frames[*i].1 > 0).collect();
                        if open.is_empty() {
                            continue;
                        }
                        let index = open[pick % open.len()];
                        let records = records.min(model.frames[index].1);
                        model.frames[index].1 -= records;
                        given += len_u64(records);
                        window.done(&[done(numbers[index], records)])
                    }
                };
                if let Some((end, tally)) = moved {
                    prop_assert!(end.position > acked);
                    acked = end.position;
                    decided += tally.total();
                }
                prop_assert_eq!(acked, model.position());
                let open = model.frames.iter().filter(|(_, outstanding)| *outstanding > 0).count();
                prop_assert!(window.len() >= open);
                prop_assert_eq!(window.len() == 0, open == 0);
                prop_assert!(decided <= given);
                prop_assert!(open > 0 || decided == given, "every record is in one tally");
            }
        }
    }
}
