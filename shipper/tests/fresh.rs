//! An endpoint that gets what is new before its backlog.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::common::{Backend, LONG, Log, Received, Reply, delivered, options, until};
use shipper::{EndpointOptions, Priority, Stopped};
use wal::{Clock, Position, SharedClock, SystemClock};

const SERIES: usize = 400;
const HOUR_MS: i64 = 3_600_000;
/// Rounds of an hour ago, and those that came since.
const OLD: i64 = 200;
const NEW: i64 = 400;

/// The clock of the machine, set back for a while.
#[derive(Debug)]
struct SetBack {
    clock: SharedClock,
    by_ms: AtomicI64,
}

impl Clock for SetBack {
    fn unix_ms(&self) -> i64 {
        self.clock.unix_ms() - self.by_ms.load(Ordering::Relaxed)
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }
}

fn open(dir: &Path, clock: &Arc<SetBack>) -> Log {
    Log::open_with(dir, |options| options.clock = Arc::<SetBack>::clone(clock))
}

fn fresh(url: &str) -> EndpointOptions {
    let mut options = options("a", url);
    options.priority = Priority::Fresh;
    options.queue.min_shards = 2;
    options.queue.max_shards = 4;
    // The backlog takes a minute.
    options.drain.max_bytes_per_second = Some(50_000);
    options
}

/// Timestamps of one series, each where it came first.
fn firsts(seen: &[Received]) -> BTreeMap<String, Vec<i64>> {
    let mut all = delivered(seen);
    for timestamps in all.values_mut() {
        let mut known = std::collections::HashSet::new();
        timestamps.retain(|timestamp| known.insert(*timestamp));
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_new_comes_before_the_backlog_and_both_positions_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(SetBack {
        clock: SystemClock::shared(),
        by_ms: AtomicI64::new(HOUR_MS),
    });
    let mut log = open(dir.path(), &clock);
    let series = log.series(SERIES);
    log.write(&series, 0..OLD).await;
    clock.by_ms.store(0, Ordering::Relaxed);
    log.write(&series, OLD..NEW).await;
    let backend = Backend::start(|_, _| Reply::ok()).await;
    let endpoint = log.ship(fresh(&backend.url()));
    until(|| log.store.endpoint("a").unwrap().ahead().is_some()).await;
    log.write(&series, NEW..NEW + 5).await;
    let last = |seen: &[Received]| {
        let of_last = |times: &Vec<i64>| times.contains(&(NEW + 4));
        let delivered = delivered(seen);
        delivered.len() == SERIES && delivered.values().all(of_last)
    };
    let seen = backend.until(|seen| last(seen)).await;
    let known = firsts(&seen);
    assert!(known.values().all(|times| !times.contains(&(OLD - 1))));
    let snapshot = endpoint.stats().snapshot();
    assert!(
        snapshot.lag(clock.unix_ms()) > Duration::from_secs(3000),
        "the backlog's"
    );
    assert!(matches!(
        endpoint.stop(Duration::ZERO).await,
        Stopped::GaveUp { .. }
    ));
    let pending = log.store.endpoint("a").unwrap().account().pending;
    let tally = log.store.endpoint("a").unwrap().account().tally;
    assert_eq!(
        pending + tally.delivered,
        u64::try_from(NEW + 5).unwrap() * SERIES as u64
    );
    log.close();

    // Another process: new data first again, and the backlog at full speed.
    let mut log = open(dir.path(), &clock);
    let saved = log.store.endpoint("a").unwrap();
    assert_eq!(saved.account().pending, pending);
    assert!(saved.ahead().is_some_and(|ahead| ahead.tally.delivered > 0));
    let before = backend.seen().len();
    let mut options = fresh(&backend.url());
    options.drain.max_bytes_per_second = None;
    let endpoint = log.ship(options);
    log.write(&series, NEW + 5..NEW + 6).await;
    until(|| log.is_acked("a")).await;
    assert_eq!(saved.ahead(), None, "one position again");
    // From here on there is one lane.
    log.write(&series, NEW + 6..NEW + 8).await;
    assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
    assert!(log.is_acked("a"));
    let seen = backend.seen();
    let resent: usize = seen[..before].iter().map(Received::sample_count).sum();
    let all: usize = seen.iter().map(Received::sample_count).sum();
    let needed = SERIES * usize::try_from(NEW + 8).unwrap();
    // What was in queues and under way when the first process ended comes twice.
    assert!(all - needed < resent.min(SERIES * 10), "{all} for {needed}");
    let split = known
        .values()
        .map(|times| times.iter().copied().filter(|t| *t >= OLD).min());
    let split = split.max().flatten().unwrap();
    for (name, times) in firsts(&seen) {
        assert_eq!(times.len() * SERIES, needed, "{name}");
        let (new, old): (Vec<i64>, Vec<i64>) = times.into_iter().partition(|time| *time >= split);
        assert!(old.is_sorted() && new.is_sorted(), "{name}");
    }
    log.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_backlog_ends_where_the_newer_lane_begins() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(SetBack {
        clock: SystemClock::shared(),
        by_ms: AtomicI64::new(HOUR_MS),
    });
    let mut log = Log::open_with(dir.path(), |options| {
        options.clock = Arc::<SetBack>::clone(&clock);
        options.segment_bytes = 16 << 20;
    });
    let series = log.series(2000);
    log.write(&series, 0..250).await;
    let backend = Backend::start(|_, _| Reply::ok()).await;
    let mut options = EndpointOptions::new("a", &backend.url());
    options.priority = Priority::Fresh;
    // Long enough to be seen.
    options.drain.max_bytes_per_second = Some(1 << 20);
    let endpoint = log.ship(options);
    let saved = log.store.endpoint("a").unwrap();
    let split = Cell::new(None);
    let has_split = || {
        split.set(saved.ahead());
        split.get().is_some() || saved.account().pending == 0
    };
    until(has_split).await;
    let split = split.get().expect("it splits before it has everything");
    let split = i64::try_from(split.from.records / 2000).unwrap();
    log.write(&series, 250..252).await;
    until(|| log.is_acked("a")).await;
    assert_eq!(saved.ahead(), None);
    assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
    assert_eq!(saved.account().tally.delivered, 2000 * 252);
    let delivered = delivered(&backend.seen());
    assert_eq!(delivered.len(), 2000);
    for (name, times) in delivered {
        let (new, old): (Vec<i64>, Vec<i64>) = times.iter().partition(|time| **time >= split);
        assert!(old.iter().copied().eq(0..split), "{name}: {old:?}");
        assert!(new.iter().copied().eq(split..252), "{name}: {new:?}");
    }
    log.close();
}

/// Both lanes are of an hour ago, as after a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_backlog_waits_while_the_newer_lane_is_behind_itself() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(SetBack {
        clock: SystemClock::shared(),
        by_ms: AtomicI64::new(HOUR_MS),
    });
    let mut log = open(dir.path(), &clock);
    let series = log.series(SERIES);
    let saved = log.store.endpoint("a").unwrap();
    log.write(&series, 0..OLD).await;
    let split = saved.begin_ahead(Position::ZERO, 4000).unwrap().unwrap();
    let split = i64::try_from(split.records).unwrap() / i64::try_from(SERIES).unwrap();
    log.write(&series, OLD..NEW).await;
    let backend = Backend::start(|_, _| Reply::ok()).await;
    let mut options = fresh(&backend.url());
    options.drain.max_bytes_per_second = None;
    let endpoint = log.ship(options);
    until(|| log.is_acked("a")).await;
    assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
    let (mut old, mut new, mut old_before) = (0, 0, 0);
    for request in backend.seen() {
        let samples = request.request.timeseries.iter();
        for sample in samples.flat_map(|one| &one.samples) {
            match sample.timestamp < split {
                true => old += 1,
                false => (new, old_before) = (new + 1, old),
            }
        }
    }
    let all = usize::try_from(split).unwrap() * SERIES;
    assert_eq!(
        (old, old + new),
        (all, SERIES * usize::try_from(NEW).unwrap())
    );
    assert!(
        old_before < all / 4,
        "{old_before} of {all} before what is new"
    );
    log.close();
}
