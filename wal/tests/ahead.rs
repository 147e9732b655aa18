//! An endpoint that gets what is new before its backlog: both positions, over kills and limits.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::common::life::{Truth, timed};
use crate::common::{HastyDisk, TestClock, scratch};
use wal::{Committer, DropReason, Endpoint, LagLimits, OnFull, Store, Tail, Tally};

const NEAR_BYTES: u64 = 20_000;
const LANES: [Lane; 2] = [Lane::Oldest, Lane::Newest];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lane {
    Oldest,
    Newest,
}

/// What may be lost.
#[derive(Clone, Copy, Debug)]
enum Limit {
    None,
    Bytes,
    Quota,
}

/// A reader of the backlog, or of all there is; and one of what is newer, after a split.
struct Log {
    store: Store,
    committer: Committer,
    endpoint: Endpoint,
    tails: [Option<Tail>; 2],
}

impl Log {
    fn open(dir: &Path, clock: &Arc<TestClock>, limit: Limit) -> Self {
        let mut options = timed(Arc::new(HastyDisk), 1, clock.clone());
        if matches!(limit, Limit::Quota) {
            options.max_disk_bytes = Some(320 << 10);
            options.on_full = OnFull::DropOldest;
        }
        let store = Store::open(dir, options).unwrap();
        let endpoint = store.endpoint("one").unwrap();
        endpoint.set_limits(LagLimits {
            max_bytes: matches!(limit, Limit::Bytes).then_some(40_000),
            max_age: None,
        });
        store.endpoints_complete();
        Self {
            committer: store.committer().unwrap(),
            tails: [
                Some(endpoint.tail()),
                endpoint.ahead().map(|_| endpoint.tail_newest()),
            ],
            endpoint,
            store,
        }
    }

    /// Begins a second lane, if there is only one.
    fn split(&mut self) -> bool {
        let tail = self.tails[0].as_mut().unwrap();
        let from = self
            .endpoint
            .begin_ahead(tail.position(), NEAR_BYTES)
            .unwrap();
        tail.read_until(from.or(self.endpoint.ahead().map(|ahead| ahead.from)));
        if from.is_some() {
            self.tails[1] = Some(self.endpoint.tail_newest());
        }
        from.is_some()
    }
}

struct Run {
    log: Log,
    truth: Truth,
    taken: usize,
    delivered: BTreeSet<usize>,
    lost: u64,
    splits: u32,
    joins: u32,
}

impl Run {
    fn append(&mut self, series: &[u32]) {
        let first = self.truth.len();
        let mut writer = self.log.store.writer().unwrap();
        let taken = self
            .truth
            .append(&self.log.store, &mut writer, series, (7, Some(4000)));
        match taken {
            Ok(()) => self.taken += self.truth.len() - first,
            Err(error) => assert!(error.is_full(), "{error}"),
        }
        self.log.committer.commit_now().unwrap();
        self.truth.acked(0);
    }

    /// Reads and acknowledges some frames of a lane.
    fn ship(&mut self, lane: Lane, frames: usize) {
        let Some(tail) = &mut self.log.tails[lane as usize] else {
            return;
        };
        let before = tail.mark().records;
        let found = self.truth.read(&self.log.store, tail, frames);
        assert!(found.is_sorted(), "a lane is in order");
        let lost = tail.take_lost();
        let passed = tail.mark().records - before;
        assert_eq!(passed, found.len() as u64 + lost.total(), "{lane:?}");
        let mut tally = Tally::of_delivered(found.len() as u64);
        tally += lost;
        self.lost += lost.total();
        self.delivered.extend(found);
        match lane {
            Lane::Newest => self.log.endpoint.ack_newest(tail.mark(), tally),
            Lane::Oldest => self.log.endpoint.ack(tail.mark(), tally),
        }
        let is_joined = self.log.tails[1].is_some() && self.log.endpoint.ahead().is_none();
        if is_joined {
            // What was the newer lane is the only one.
            self.log.tails = [self.log.tails[1].take(), None];
            self.joins += 1;
        }
    }

    fn kill(mut self, dir: &Path, clock: &Arc<TestClock>, limit: Limit) -> Self {
        drop(self.log);
        self.truth.forget();
        self.log = Log::open(dir, clock, limit);
        self
    }
}

fn run(seed: u64, limit: Limit) -> (u32, u32, bool) {
    let dir = scratch();
    let mut random = fastrand::Rng::with_seed(seed);
    let clock = TestClock::shared();
    let mut run = Run {
        log: Log::open(dir.path(), &clock, limit),
        truth: Truth::default(),
        taken: 0,
        delivered: BTreeSet::new(),
        lost: 0,
        splits: 0,
        joins: 0,
    };
    for _ in 0..150 {
        match random.u32(0..100) {
            0..40 => run.append(&[random.u32(0..50), 60]),
            40..50 => run.splits += u32::from(run.log.split()),
            50..70 => run.ship(LANES[random.usize(0..2)], random.usize(0..4)),
            70..75 => run.ship(Lane::Oldest, usize::MAX),
            75..95 => run.log.store.keep(),
            95..98 => clock.pass(Duration::from_secs(1)),
            _ => run = run.kill(dir.path(), &clock, limit),
        }
        let account = run.log.endpoint.account();
        let decided = account.tally.total() + account.pending;
        assert_eq!(account.records_in, decided);
    }
    run.log.store.keep();
    run = run.kill(dir.path(), &clock, limit);
    for lane in LANES.into_iter().rev().chain(LANES) {
        run.ship(lane, usize::MAX);
    }
    let account = run.log.endpoint.account();
    assert_eq!(account.pending, 0, "everything is decided once");
    assert_eq!(run.log.endpoint.ahead(), None);
    assert_eq!(account.records_in, run.taken as u64);
    let missing = run.taken - run.delivered.len();
    assert!(missing as u64 <= run.lost, "{missing} of {}", run.lost);
    let dropped = account.tally.total() - account.tally.delivered;
    assert!(missing as u64 <= dropped);
    let reason = match limit {
        Limit::None => return (run.splits, run.joins, dropped == 0),
        Limit::Bytes => DropReason::MaxLagBytes,
        Limit::Quota => DropReason::Quota,
    };
    assert_eq!(account.tally.dropped(reason), dropped);
    (run.splits, run.joins, dropped > 0)
}

#[test]
fn every_record_is_decided_once_over_kills_splits_and_limits() {
    for limit in [Limit::None, Limit::Bytes, Limit::Quota] {
        let (mut splits, mut joins, mut held) = (0, 0, 0);
        for seed in 0..100 {
            let (split, joined, as_said) = run(seed, limit);
            splits += split;
            joins += joined;
            held += u32::from(as_said);
        }
        assert!(splits > 50 && joins > 25, "{limit:?}: {splits} {joins}");
        match limit {
            Limit::None => assert_eq!(held, 100, "nothing is lost"),
            Limit::Bytes | Limit::Quota => assert!(held > 20, "{limit:?} {held}"),
        }
    }
}
