//! The real log and a list, side by side, through any order of what users, time and stops do.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::common::life::{Truth, clean, timed};
use crate::common::{HastyDisk, TestClock, scratch};
use proptest::prelude::*;
use wal::{
    Committer, DropReason, Endpoint, LagLimits, LiveOptions, OnFull, Store, StoreOptions, Tail,
    Tally,
};

const HOUR_MS: i64 = 3_600_000;
/// The second endpoint has limits.
const NAMES: [&str; 2] = ["free", "limited"];
const MAX_AGE: Duration = Duration::from_secs(3600);

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<u32>, Option<usize>),
    Commit,
    Keep,
    Clean,
    Read(usize, usize),
    Ack(usize),
    Pass(u64),
    Jump(i64),
    Forget(usize),
    Name(usize),
    /// Whether the oldest may be dropped from now on.
    Change(bool),
    Kill,
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    let raw = prop_oneof![Just(None), Just(Some(200)), Just(Some(15_000))];
    let frames = prop_oneof![0..5_usize, Just(usize::MAX)];
    prop_oneof![
        8 => (prop::collection::vec(0..300_u32, 1..80), raw).prop_map(|(n, raw)| Step::Append(n, raw)),
        6 => Just(Step::Commit),
        4 => Just(Step::Keep),
        2 => Just(Step::Clean),
        4 => (0..2_usize, frames).prop_map(|(at, frames)| Step::Read(at, frames)),
        3 => (0..2_usize).prop_map(Step::Ack),
        2 => (1..1500_u64).prop_map(Step::Pass),
        1 => prop_oneof![Just(6 * HOUR_MS), Just(-6 * HOUR_MS)].prop_map(Step::Jump),
        1 => (0..2_usize).prop_map(Step::Forget),
        2 => (0..2_usize).prop_map(Step::Name),
        1 => any::<bool>().prop_map(Step::Change),
        1 => Just(Step::Kill),
        1 => Just(Step::Close),
    ]
}

/// What may be lost.
#[derive(Clone, Copy, Debug)]
struct Rules {
    drop_oldest: bool,
    max_bytes: bool,
    max_age: bool,
}

fn rules() -> impl Strategy<Value = Rules> {
    (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(drop_oldest, max_bytes, max_age)| {
        Rules {
            drop_oldest,
            max_bytes,
            max_age,
        }
    })
}

/// An endpoint, and how many records of the list it has read, acknowledged and saved.
struct Reader {
    endpoint: Endpoint,
    tail: Tail,
    read: usize,
    /// Found missing and not yet acknowledged; acknowledged.
    lost: Tally,
    tally: Tally,
    is_named: bool,
}

impl Reader {
    fn name(store: &Store, at: usize, rules: Rules) -> Self {
        let endpoint = store.endpoint(NAMES[at]).unwrap();
        if at == 1 {
            endpoint.set_limits(LagLimits {
                max_bytes: rules.max_bytes.then_some(40_000),
                max_age: rules.max_age.then_some(MAX_AGE),
            });
        }
        Self {
            tail: endpoint.tail(),
            read: usize::try_from(endpoint.mark().records).unwrap(),
            lost: Tally::default(),
            tally: endpoint.account().tally,
            endpoint,
            is_named: true,
        }
    }
}

/// The log.
struct Log {
    store: Store,
    committer: Committer,
    readers: [Reader; 2],
}

fn settings(drop_oldest: bool) -> LiveOptions {
    let (max, on_full) = if drop_oldest {
        (512 << 10, OnFull::DropOldest)
    } else {
        (64 << 20, OnFull::Reject)
    };
    LiveOptions {
        max_disk_bytes: Some(max),
        on_full,
        retain: Duration::ZERO,
        series_idle_timeout: Duration::ZERO,
    }
}

impl Log {
    fn open(dir: &Path, rules: Rules, clock: &Arc<TestClock>) -> Self {
        let live = settings(rules.drop_oldest);
        let options = StoreOptions {
            max_disk_bytes: live.max_disk_bytes,
            on_full: live.on_full,
            ..timed(Arc::new(HastyDisk), 1, clock.clone())
        };
        let store = Store::open(dir, options).unwrap();
        let readers = [0, 1].map(|at| Reader::name(&store, at, rules));
        store.endpoints_complete();
        // As the keeper's thread does at once: what is on disk is as old as the clock says now.
        store.keep();
        Self {
            committer: store.committer().unwrap(),
            readers,
            store,
        }
    }
}

/// The list.
#[derive(Default)]
struct List {
    truth: Truth,
    durable: Vec<usize>,
    loose: Vec<usize>,
    saved: [usize; 2],
    acked: [usize; 2],
    /// Whether data may have become too old: by time, or by the wall clock at a start.
    aged: bool,
    passed: Duration,
    jumped: bool,
    /// Whether the oldest was allowed to be dropped at some time.
    dropped_oldest: bool,
    /// Who was forgotten for a time, in which what it had not read may have gone.
    was_forgotten: [bool; 2],
}

impl List {
    fn acked_of_named(&self, log: &Log) -> [usize; 2] {
        [0, 1].map(|at| {
            let is_named = log.readers[at].is_named;
            if is_named {
                self.acked[at]
            } else {
                self.saved[at]
            }
        })
    }

    fn append(&mut self, log: &Log, series: &[u32], raw: Option<usize>) {
        let first = self.truth.len();
        let mut writer = log.store.writer().unwrap();
        match self.truth.append(&log.store, &mut writer, series, (7, raw)) {
            Ok(()) => self.loose.extend(first..self.truth.len()),
            Err(e) => assert!(e.is_full(), "{e}"),
        }
    }

    fn commit(&mut self, log: &mut Log) {
        log.committer.commit_now().unwrap();
        self.truth.acked(0);
        self.durable.append(&mut self.loose);
    }

    /// What a reader misses is what it says is lost, for a reason that is allowed.
    fn read(&self, log: &mut Log, at: usize, frames: usize, rules: Rules) {
        let reader = &mut log.readers[at];
        let found = self.truth.read(&log.store, &mut reader.tail, frames);
        let behind = usize::try_from(reader.tail.mark().records).unwrap();
        let passed = &self.durable[reader.read..behind];
        let mut passed_by = passed.iter();
        assert!(
            found.iter().all(|n| passed_by.any(|other| other == n)),
            "in the list's order"
        );
        let lost = reader.tail.take_lost();
        assert_eq!(
            lost.total(),
            (passed.len() - found.len()) as u64,
            "{lost:?}"
        );
        let allowed = [
            (DropReason::Quota, rules.drop_oldest || self.dropped_oldest),
            (DropReason::MissingSegment, self.was_forgotten[at]),
            (DropReason::MaxLagBytes, at == 1 && rules.max_bytes),
            (DropReason::MaxLagAge, at == 1 && rules.max_age && self.aged),
        ];
        let expected: u64 = allowed
            .iter()
            .filter(|(_, allowed)| *allowed)
            .map(|(reason, _)| lost.dropped(*reason))
            .sum();
        assert_eq!(lost.total(), expected, "{lost:?}");
        reader.lost += lost;
        reader.read = behind;
    }

    /// Everything read or lost so far is decided.
    fn ack(&mut self, log: &mut Log, at: usize) {
        let reader = &mut log.readers[at];
        let mut tally = std::mem::take(&mut reader.lost);
        let decided = reader.tail.mark().records - reader.endpoint.mark().records;
        tally.delivered = decided - tally.total();
        reader.endpoint.ack(reader.tail.mark(), tally);
        reader.tally += tally;
        let account = reader.endpoint.account();
        assert_eq!(account.tally, reader.tally);
        assert_eq!(
            account.records_in,
            (self.durable.len() + self.loose.len()) as u64
        );
        self.acked[at] = reader.read;
    }

    /// Nothing is kept for a reader any more; what it has acknowledged is known if it comes back.
    fn forget(&mut self, log: &mut Log, at: usize) {
        let is_named = std::mem::take(&mut log.readers[at].is_named);
        assert_eq!(log.store.forget_endpoint(NAMES[at]), is_named);
        if is_named {
            self.saved[at] = self.acked[at];
            self.was_forgotten[at] = true;
            assert!(log.readers[at].tail.next().unwrap().is_none());
        }
    }

    fn name(&mut self, log: &mut Log, at: usize, rules: Rules) {
        if !log.readers[at].is_named {
            log.readers[at] = Reader::name(&log.store, at, rules);
            assert_eq!(log.readers[at].read, self.saved[at]);
            self.acked[at] = self.saved[at];
        }
    }

    /// The process is gone, and the log is opened by another.
    fn reopened(&mut self, dir: &Path, rules: Rules, clock: &Arc<TestClock>) -> Log {
        self.loose.clear();
        self.truth.forget();
        self.aged |= self.jumped;
        let log = Log::open(dir, rules, clock);
        for (reader, saved) in log.readers.iter().zip(self.saved) {
            assert_eq!(reader.read, saved);
        }
        assert_eq!(log.store.records(), self.durable.len() as u64);
        self.acked = self.saved;
        log
    }
}

fn run(steps: Vec<Step>, rules: Rules) {
    let dir = scratch();
    let clock = TestClock::shared();
    let mut log = Log::open(dir.path(), rules, &clock);
    let mut list = List::default();
    for step in steps {
        match step {
            Step::Append(series, raw) => list.append(&log, &series, raw),
            Step::Commit => list.commit(&mut log),
            Step::Keep => {
                log.store.keep();
                list.saved = list.acked_of_named(&log);
            }
            Step::Clean => clean(&log.store),
            Step::Read(at, _) | Step::Ack(at) if !log.readers[at].is_named => {}
            Step::Read(at, frames) => list.read(&mut log, at, frames, rules),
            Step::Ack(at) => list.ack(&mut log, at),
            Step::Pass(seconds) => {
                clock.pass(Duration::from_secs(seconds));
                list.passed += Duration::from_secs(seconds);
                list.aged |= list.passed >= MAX_AGE;
            }
            Step::Jump(ms) => {
                clock.jump(ms);
                list.jumped = true;
            }
            Step::Forget(at) => list.forget(&mut log, at),
            Step::Name(at) => list.name(&mut log, at, rules),
            Step::Change(drop_oldest) => {
                log.store.change(settings(drop_oldest)).unwrap();
                list.dropped_oldest |= drop_oldest;
            }
            Step::Kill => {
                drop(log);
                log = list.reopened(dir.path(), rules, &clock);
            }
            Step::Close => {
                list.commit(&mut log);
                let saved = list.acked_of_named(&log);
                let Log {
                    store,
                    committer,
                    readers,
                } = log;
                drop(committer);
                store.close();
                list.saved = saved;
                drop((store, readers));
                log = list.reopened(dir.path(), rules, &clock);
            }
        }
    }
    list.commit(&mut log);
    for at in 0..2 {
        list.name(&mut log, at, rules);
        list.read(&mut log, at, usize::MAX, rules);
        list.ack(&mut log, at);
        let account = log.readers[at].endpoint.account();
        assert_eq!(
            (account.pending, log.readers[at].read),
            (0, list.durable.len())
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// A kill loses what was not committed, and only that; a limit what it says.
    #[test]
    fn the_log_behaves_like_a_list(
        steps in prop::collection::vec(step(), 1..120),
        rules in rules(),
    ) {
        run(steps, rules);
    }
}

/// The run before the last took nothing, so the segment its endpoint was saved in is gone.
#[test]
fn a_position_in_a_segment_that_is_gone_holds_nothing_up() {
    let steps = vec![
        Step::Append(vec![0], None),
        Step::Close,
        Step::Read(0, usize::MAX),
        Step::Ack(0),
        Step::Keep,
        Step::Kill,
        Step::Read(1, 2),
        Step::Ack(1),
        Step::Keep,
    ];
    let rules = Rules {
        drop_oldest: false,
        max_bytes: false,
        max_age: false,
    };
    run(steps, rules);
}

/// Nobody was named when the process was killed, so that everything is gone but for what the next segment says.
#[test]
fn what_went_while_nobody_was_named_is_missed_by_who_is_named_again() {
    let steps = vec![
        Step::Append(vec![0], None),
        Step::Close,
        Step::Forget(1),
        Step::Forget(0),
        Step::Keep,
        Step::Kill,
    ];
    let rules = Rules {
        drop_oldest: false,
        max_bytes: false,
        max_age: false,
    };
    run(steps, rules);
}
