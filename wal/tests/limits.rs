//! What endpoints lose to limits, the quota and time: exactly what was allowed, and nobody else.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::common::life::{Truth, timed};
use crate::common::{HastyDisk, TestClock, scratch};
use wal::{
    Committer, DropReason, Endpoint, LagLimits, OnFull, Store, StoreOptions, Tail, Tally, Writer,
};

const SEGMENT_BYTES: u64 = 64 << 10;
const HOUR_MS: i64 = 3_600_000;
/// Three samples and a raw record.
const RECORDS: u64 = 4;

/// A store under a clock of the test, filled by requests of about 10 kB.
struct Filled {
    store: Store,
    writer: Writer,
    committer: Committer,
    truth: Truth,
    clock: Arc<TestClock>,
}

impl Filled {
    fn open(dir: &Path, options: impl FnOnce(StoreOptions) -> StoreOptions) -> Self {
        let clock = TestClock::shared();
        let plain = timed(Arc::new(HastyDisk), 1, clock.clone());
        let store = Store::open(dir, options(plain)).unwrap();
        Self {
            writer: store.writer().unwrap(),
            committer: store.committer().unwrap(),
            truth: Truth::default(),
            clock,
            store,
        }
    }

    /// One request per second; whether all were taken.
    fn fill(&mut self, requests: u64) -> bool {
        for _ in 0..requests {
            let rest = (1, Some(10_000));
            let taken = self
                .truth
                .append(&self.store, &mut self.writer, &[1, 2, 3], rest);
            if let Err(error) = taken {
                assert!(error.is_full(), "{error}");
                return false;
            }
            self.committer.commit_now().unwrap();
            self.clock.pass(Duration::from_secs(1));
            self.store.keep();
        }
        true
    }

    /// Reads everything; how many records, and what is lost.
    fn read(&self, tail: &mut Tail) -> (u64, Tally) {
        let found = self.truth.read(&self.store, tail, usize::MAX);
        (found.len() as u64, tail.take_lost())
    }

    /// Reads and acknowledges everything.
    fn drain(&self, endpoint: &Endpoint, tail: &mut Tail) -> (u64, Tally) {
        let (found, lost) = self.read(tail);
        let mut tally = Tally::of_delivered(found);
        tally += lost;
        endpoint.ack(tail.mark(), tally);
        assert_eq!(endpoint.account().pending, 0);
        (found, lost)
    }
}

fn only(reason: DropReason, lost: &Tally) -> u64 {
    assert_eq!(lost.dropped(reason), lost.total(), "{lost:?}");
    lost.total()
}

#[test]
fn dropping_the_oldest_frees_the_quota_and_only_who_is_behind_pays() {
    let dir = scratch();
    let max = 8 * SEGMENT_BYTES;
    let mut log = Filled::open(dir.path(), |options| StoreOptions {
        max_disk_bytes: Some(max),
        on_full: OnFull::DropOldest,
        ..options
    });
    let [fast, dead] = ["fast", "dead"].map(|name| log.store.endpoint(name).unwrap());
    log.store.endpoints_complete();
    let (mut fast_tail, mut dead_tail) = (fast.tail(), dead.tail());
    let (mut fast_has, mut dead_lost) = (0, 0);
    for _ in 0..200 {
        assert!(log.fill(1), "there is always room");
        assert!(log.store.disk_bytes().0 <= max);
        let (found, lost) = log.drain(&fast, &mut fast_tail);
        assert_eq!(lost.total(), 0);
        fast_has += found;
        // The dead one's shipper delivers nothing, but steps over what is given up.
        if dead.given_up_beyond(dead_tail.position()).is_some() {
            assert!(dead_tail.next().unwrap().is_some());
            let lost = dead_tail.take_lost();
            dead_lost += only(DropReason::Quota, &lost);
            let before = dead_tail.mark().records - RECORDS;
            // In one step with the frame behind it, as its position must be one of a frame.
            let mut tally = lost;
            tally += Tally::of_delivered(RECORDS);
            dead.ack(dead_tail.mark(), tally);
            assert!(before >= dead_lost);
        }
    }
    assert_eq!(fast_has, 200 * RECORDS);
    assert!(dead_lost > 100 * RECORDS, "{dead_lost}");
    let (found, lost) = log.drain(&dead, &mut dead_tail);
    assert_eq!(lost.total(), 0);
    let delivered = dead.account().tally.delivered;
    assert_eq!(delivered + dead_lost, 200 * RECORDS, "{found} of them now");
    let lines = log.store.lost_bytes();
    assert_eq!(lines.keys().collect::<Vec<_>>(), ["quota"]);
}

#[test]
fn without_leave_to_drop_the_quota_refuses_and_nobody_loses() {
    let dir = scratch();
    let mut log = Filled::open(dir.path(), |options| StoreOptions {
        max_disk_bytes: Some(8 * SEGMENT_BYTES),
        ..options
    });
    let dead = log.store.endpoint("dead").unwrap();
    log.store.endpoints_complete();
    assert!(!log.fill(200));
    let (found, lost) = log.drain(&dead, &mut dead.tail());
    assert!(found > 100 && lost.total() == 0, "{found}");
    log.store.keep();
    assert!(log.fill(1), "room again");
}

#[test]
fn an_endpoint_further_behind_than_max_lag_bytes_loses_the_oldest_of_its_own() {
    let dir = scratch();
    let mut log = Filled::open(dir.path(), |options| options);
    let [free, limited] = ["free", "limited"].map(|name| log.store.endpoint(name).unwrap());
    limited.set_limits(LagLimits {
        max_bytes: Some(100_000),
        max_age: None,
    });
    log.store.endpoints_complete();
    assert!(log.fill(9));
    assert_eq!(log.read(&mut limited.tail()).1.total(), 0);
    assert!(log.fill(40));
    let (found, lost) = log.drain(&limited, &mut limited.tail());
    let lost = only(DropReason::MaxLagBytes, &lost);
    assert_eq!(found + lost, 49 * RECORDS);
    // What is left is between seven eighths of the limit, less a frame, and the limit.
    assert!((7 * RECORDS..=10 * RECORDS).contains(&found), "{found}");
    let (found, lost) = log.drain(&free, &mut free.tail());
    assert_eq!((found, lost.total()), (49 * RECORDS, 0));
}

/// Runs the same life with other jumps of the wall clock; what is lost to age.
fn lost_to_age(jumps: &[i64]) -> u64 {
    let dir = scratch();
    let mut log = Filled::open(dir.path(), |options| options);
    let [free, limited] = ["free", "limited"].map(|name| log.store.endpoint(name).unwrap());
    limited.set_limits(LagLimits {
        max_bytes: None,
        max_age: Some(Duration::from_secs(30)),
    });
    log.store.endpoints_complete();
    let mut jumps = jumps.iter().cycle();
    for _ in 0..10 {
        assert!(log.fill(10));
        log.clock.jump(*jumps.next().unwrap());
    }
    let (found, lost) = log.drain(&limited, &mut limited.tail());
    assert_eq!(found + lost.total(), 100 * RECORDS);
    let (found, lost_by_free) = log.drain(&free, &mut free.tail());
    assert_eq!((found, lost_by_free.total()), (100 * RECORDS, 0));
    only(DropReason::MaxLagAge, &lost)
}

#[test]
fn age_is_counted_by_a_clock_that_nobody_can_set() {
    let lost = lost_to_age(&[0]) / RECORDS;
    assert!(
        (68..=70).contains(&lost),
        "{lost} requests of 100 are 30 seconds old"
    );
    for jumps in [
        &[6 * HOUR_MS, -6 * HOUR_MS][..],
        &[-6 * HOUR_MS, 6 * HOUR_MS],
        &[6 * HOUR_MS],
        &[-6 * HOUR_MS],
    ] {
        assert_eq!(lost_to_age(jumps) / RECORDS, lost, "{jumps:?}");
    }
}

#[test]
fn jumps_of_the_wall_clock_change_nothing_without_limits_also_over_restarts() {
    let dir = scratch();
    let mut log = Filled::open(dir.path(), |options| options);
    for round in 0..6_i64 {
        let slow = log.store.endpoint("slow").unwrap();
        log.store.endpoints_complete();
        assert!(log.fill(10));
        log.clock
            .jump(if round % 2 == 0 { 6 } else { -12 } * HOUR_MS);
        assert!(log.fill(10));
        let (found, lost) = log.read(&mut slow.tail());
        let all = u64::try_from(round + 1).unwrap() * 20 * RECORDS;
        assert_eq!((found, lost.total()), (all, 0));
        let Filled {
            store,
            writer,
            committer,
            truth,
            clock,
        } = log;
        drop((writer, committer, slow));
        drop(store);
        let options = timed(Arc::new(HastyDisk), 2, clock.clone());
        let store = Store::open(dir.path(), options).unwrap();
        log = Filled {
            writer: store.writer().unwrap(),
            committer: store.committer().unwrap(),
            store,
            truth,
            clock,
        };
    }
}

#[test]
fn retained_data_stays_for_its_time_and_gives_way_to_the_quota() {
    let dir = scratch();
    let max = 10 * SEGMENT_BYTES;
    let mut log = Filled::open(dir.path(), |options| StoreOptions {
        max_disk_bytes: Some(max),
        retain: Duration::from_secs(20),
        ..options
    });
    let endpoint = log.store.endpoint("one").unwrap();
    log.store.endpoints_complete();
    let mut tail = endpoint.tail();
    let kept = |log: &Filled| {
        log.read(
            &mut log
                .store
                .endpoint(&format!("at {}", log.truth.len()))
                .unwrap()
                .tail(),
        )
        .0
    };
    assert!(log.fill(20));
    log.drain(&endpoint, &mut tail);
    log.store.keep();
    let marks = log.store.watermarks();
    assert_eq!(marks.reclaimed.get(), 0, "delivered, but not old");
    log.clock.pass(Duration::from_secs(60));
    log.store.keep();
    let reclaimed = log.store.watermarks().reclaimed.get();
    assert!(reclaimed >= SEGMENT_BYTES, "old");
    // Much at once: what is retained goes before anything is refused.
    for _ in 0..100 {
        let rest = (1, Some(10_000));
        log.truth
            .append(&log.store, &mut log.writer, &[1, 2, 3], rest)
            .unwrap();
        log.committer.commit_now().unwrap();
        let (_, lost) = log.drain(&endpoint, &mut tail);
        assert_eq!(lost.total(), 0);
        log.store.keep();
        assert!(log.store.disk_bytes().0 <= max);
    }
    assert!(log.store.watermarks().reclaimed.get() > reclaimed);
    // As much is kept as there is room for.
    assert!(kept(&log) > 20 * RECORDS);
    assert!(log.store.lost_bytes().is_empty());
}
