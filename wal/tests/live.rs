//! Turns settings and endpoints that change under a store that runs into verdicts on what it keeps.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::common::life::clean;
use crate::common::{HastyDisk, ack_all, define, options, read_all, scratch};
use wal::{Committer, DropReason, LiveOptions, OnFull, Sample, Store, StoreOptions, Tally, Writer};

const SEGMENT_BYTES: u64 = 64 << 10;
/// One in a request.
const PER_REQUEST: usize = 2000;

struct Log {
    store: Store,
    writer: Writer,
    committer: Committer,
    requests: u64,
}

impl Log {
    fn open(dir: &Path, change: impl FnOnce(&mut StoreOptions)) -> Self {
        let mut options = options(Arc::new(HastyDisk));
        change(&mut options);
        let store = Store::open(dir, options).unwrap();
        Self {
            writer: store.writer().unwrap(),
            committer: store.committer().unwrap(),
            store,
            requests: 0,
        }
    }

    /// Appends so many requests; how many were taken.
    fn fill(&mut self, requests: u64) -> u64 {
        let series = define(&self.store, &[1]).unwrap()[0];
        for taken in 0..requests {
            let sample = |at: usize| Sample {
                series,
                timestamp_ms: 1_700_000_000_000,
                // Nothing of it can be left out.
                value_bits: (at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            };
            let samples: Vec<_> = (0..PER_REQUEST).map(sample).collect();
            if let Err(error) = self.writer.append(&samples, &[]) {
                assert!(error.is_full(), "{error}");
                return taken;
            }
            self.requests += 1;
            self.committer.commit_now().unwrap();
            self.store.keep();
        }
        requests
    }

    /// The process is killed.
    fn kill(self) {
        drop(self);
    }
}

fn records(requests: u64) -> u64 {
    requests * PER_REQUEST as u64
}

#[test]
fn a_full_store_takes_data_again_once_it_may_have_more_or_may_drop() {
    for drop_oldest in [false, true] {
        let dir = scratch();
        let small = 6 * SEGMENT_BYTES;
        let mut log = Log::open(dir.path(), |options| options.max_disk_bytes = Some(small));
        let slow = log.store.endpoint("slow").unwrap();
        log.store.endpoints_complete();
        assert!(log.fill(100) < 100);
        let before = log.store.live_options();
        let after = if drop_oldest {
            LiveOptions {
                on_full: OnFull::DropOldest,
                ..before
            }
        } else {
            LiveOptions {
                max_disk_bytes: Some(1 << 30),
                ..before
            }
        };
        log.store.change(after).unwrap();
        // What was given up is stepped over by who ships.
        let mut tail = slow.tail();
        let mut lost = Tally::default();
        let mut taken = 0;
        while taken < 100 {
            log.store.keep();
            read_all(&log.store, &mut tail);
            lost += tail.take_lost();
            if drop_oldest {
                let mut tally = lost;
                tally.delivered = tail.mark().records - slow.account().tally.total() - lost.total();
                slow.ack(tail.mark(), tally);
                lost = Tally::default();
            }
            taken += log.fill(1);
        }
        let is_within = log.store.disk_bytes().0 <= small;
        assert_eq!(is_within, drop_oldest);
        log.kill();
    }
}

#[test]
fn a_limit_that_is_too_small_changes_nothing_and_none_follows_the_volume() {
    let dir = scratch();
    let mut log = Log::open(dir.path(), |options| {
        options.retain = Duration::from_secs(7);
    });
    let before = log.store.live_options();
    let refused = log.store.change(LiveOptions {
        max_disk_bytes: Some(SEGMENT_BYTES),
        retain: Duration::ZERO,
        ..before
    });
    assert!(
        matches!(refused, Err(wal::Error::Options(_))),
        "{refused:?}"
    );
    assert_eq!(log.store.live_options(), before);
    assert_eq!(log.store.disk_bytes().1, before.max_disk_bytes);
    let with = |max_disk_bytes| LiveOptions {
        max_disk_bytes,
        ..before
    };
    log.store.change(with(None)).unwrap();
    let share = log.store.disk_bytes().1;
    assert_ne!(share, before.max_disk_bytes);
    log.store.change(with(Some(32 << 20))).unwrap();
    assert!(log.fill(20) == 20);
    // The keeper has looked at the volume meanwhile.
    assert_eq!(log.store.disk_bytes().1, Some(32 << 20));
}

#[test]
fn what_is_delivered_is_kept_for_as_long_as_it_is_said_now() {
    let dir = scratch();
    let mut log = Log::open(dir.path(), |_| {});
    let endpoint = log.store.endpoint("e").unwrap();
    log.store.endpoints_complete();
    let retain = |retain| LiveOptions {
        retain,
        ..log.store.live_options()
    };
    let (hour, nothing) = (retain(Duration::from_secs(3600)), retain(Duration::ZERO));
    log.store.change(hour).unwrap();
    let mut tail = endpoint.tail();
    let deliver = |log: &mut Log, tail: &mut _| {
        assert_eq!(log.fill(20), 20);
        read_all(&log.store, tail);
        ack_all(&endpoint, tail);
        log.store.keep();
    };
    deliver(&mut log, &mut tail);
    let first = log.store.watermarks().reclaimed;
    assert!(first < endpoint.acked() && log.store.disk_bytes().0 > 4 * SEGMENT_BYTES);
    log.store.change(nothing).unwrap();
    log.store.keep();
    assert!(log.store.watermarks().reclaimed > first);
    let second = log.store.watermarks().reclaimed;
    log.store.change(hour).unwrap();
    deliver(&mut log, &mut tail);
    assert_eq!(log.store.watermarks().reclaimed, second);
}

#[test]
fn idle_series_go_after_the_time_that_is_said_now() {
    let dir = scratch();
    let mut log = Log::open(dir.path(), |options| {
        options.series_idle_timeout = Duration::from_secs(3600);
    });
    log.store.endpoints_complete();
    define(&log.store, &[7, 8, 9]).unwrap();
    let pass = |log: &mut Log| {
        for _ in 0..4 {
            assert_eq!(log.fill(5), 5);
            clean(&log.store);
        }
        log.store.series().len()
    };
    assert_eq!(pass(&mut log), 4);
    let soon = LiveOptions {
        series_idle_timeout: Duration::ZERO,
        ..log.store.live_options()
    };
    log.store.change(soon).unwrap();
    assert!(pass(&mut log) < 4);
}

/// Killed or not in between: what a forgotten endpoint had not read goes, and is counted when it comes back.
#[test]
fn a_forgotten_endpoint_holds_nothing_and_goes_on_where_it_was_when_it_is_named_again() {
    for killed in [false, true] {
        let dir = scratch();
        let mut log = Log::open(dir.path(), |_| {});
        let [fast, gone] = ["fast", "gone"].map(|name| log.store.endpoint(name).unwrap());
        log.store.endpoints_complete();
        assert_eq!(log.fill(3), 3);
        let mut tail = gone.tail();
        read_all(&log.store, &mut tail);
        ack_all(&gone, &mut tail);
        assert_eq!(log.fill(20), 20);
        let mut fast_tail = fast.tail();
        read_all(&log.store, &mut fast_tail);
        ack_all(&fast, &mut fast_tail);
        log.store.keep();
        let held = log.store.disk_bytes().0;
        assert!(log.store.forget_endpoint("gone"));
        assert!(!log.store.forget_endpoint("gone"));
        assert!(tail.next().unwrap().is_none(), "it ends");
        assert_eq!(tail.take_lost().total(), 0);
        log.store.keep();
        assert!(log.store.disk_bytes().0 < held);
        let acked = gone.acked();
        drop((fast, gone, tail, fast_tail));
        let log = if killed {
            let requests = log.requests;
            log.kill();
            let log = Log::open(dir.path(), |_| {});
            log.store.endpoint("fast").unwrap();
            log.store.endpoints_complete();
            log.store.keep();
            Log { requests, ..log }
        } else {
            log
        };
        let again = log.store.endpoint("gone").unwrap();
        assert_eq!((again.acked(), again.mark().records), (acked, records(3)));
        let account = again.account();
        assert_eq!(account.records_in, records(log.requests));
        assert_eq!(account.pending, records(log.requests - 3));
        let mut tail = again.tail();
        let found = read_all(&log.store, &mut tail).len() as u64;
        let lost = tail.take_lost();
        assert_eq!(lost.dropped(DropReason::MissingSegment), lost.total());
        assert!(lost.total() > 0);
        assert_eq!(found + lost.total(), records(log.requests - 3));
        // It holds what comes from now on.
        let reclaimed = log.store.watermarks().reclaimed;
        log.store.keep();
        assert_eq!(log.store.watermarks().reclaimed, reclaimed);
    }
}

#[test]
fn an_endpoint_named_while_the_store_runs_begins_at_the_oldest_data_and_loses_none_of_it() {
    let dir = scratch();
    let mut log = Log::open(dir.path(), |_| {});
    let first = log.store.endpoint("first").unwrap();
    log.store.endpoints_complete();
    assert_eq!(log.fill(20), 20);
    let second = log.store.endpoint("second").unwrap();
    let mut tail = first.tail();
    read_all(&log.store, &mut tail);
    ack_all(&first, &mut tail);
    log.store.keep();
    let mut tail = second.tail();
    let found = read_all(&log.store, &mut tail).len() as u64;
    assert_eq!((found, tail.take_lost().total()), (records(20), 0));
}
