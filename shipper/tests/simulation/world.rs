//! Turns a plan into a life: senders append, endpoints ship, processes end and begin, and what must
//! hold is looked at after every step.
//!
//! The store is driven by hand between the steps, where simulated time stands still. Each endpoint has
//! a runtime of its own with a clock of its own, so that the order among endpoints is that of the plan.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use shipper::labels::canonical;
use shipper::{Endpoint, EndpointHandle, Stopped};
use tokio::runtime::Runtime;
use tokio::time::Instant;
use wal::{
    Clock, Committer, DropReason, NewSeries, Position, Random, RawRecord, RecordKind, Sample,
    SeriesRef, StartedSample, Store, StoreOptions, Writer,
};

use super::backend::{Numbered, name, timestamp_ms, value_bits};
use super::network::{Network, Trace, instant, shared};
use super::plan::{Dialect, LATENCY_MAX, Plan, RETRY_AFTER_MAX};

const EPOCH_MS: i64 = 1_700_000_000_000;
/// Between two looks while the rest is delivered.
const LOOK: Duration = Duration::from_millis(100);
/// An aborted task ends its own tasks, and those theirs: more turns than that takes.
const TURNS_TO_END: usize = 16;

/// The time as a process sees it: that of the runtime it is asked in, or as it was last set.
#[derive(Debug)]
pub(crate) struct DeviceClock {
    begin: Option<Instant>,
    now_ms: AtomicU64,
    /// By how much somebody has set the wall clock; the same for all clocks of a life.
    wrong_ms: Arc<AtomicI64>,
}

impl DeviceClock {
    fn set(&self, now: Duration) {
        let ms = u64::try_from(now.as_millis()).unwrap();
        self.now_ms.store(ms, Ordering::Relaxed);
    }
}

impl Clock for DeviceClock {
    fn unix_ms(&self) -> i64 {
        let since = i64::try_from(self.monotonic().as_millis()).unwrap();
        EPOCH_MS + since + self.wrong_ms.load(Ordering::Relaxed)
    }

    fn monotonic(&self) -> Duration {
        match self.begin {
            Some(begin) => instant() - begin,
            None => Duration::from_millis(self.now_ms.load(Ordering::Relaxed)),
        }
    }
}

#[derive(Debug)]
struct Chance(Mutex<fastrand::Rng>);

impl Random for Chance {
    fn next_u64(&self) -> u64 {
        self.0.lock().u64(..)
    }
}

/// A store with what writes to it.
struct Log {
    store: Store,
    writer: Writer,
    committer: Committer,
    /// By number.
    series: Vec<SeriesRef>,
}

impl Log {
    fn open(dir: &Path, plan: &Plan, clock: &Arc<DeviceClock>, salt: u64) -> Self {
        let options = StoreOptions {
            segment_bytes: 64 << 10,
            ring_bytes: 64 << 10,
            series_chunk_bytes: 8 << 10,
            series_max: 1 << 10,
            max_disk_bytes: Some(16 << 20),
            clock: shared(clock),
            random: Arc::new(Chance(Mutex::new(fastrand::Rng::with_seed(salt)))),
            manual: true,
            ..StoreOptions::default()
        };
        let store = Store::open(dir, options).unwrap();
        let labels: Vec<_> = (0..plan.series)
            .map(|series| {
                let instance = format!("host-{}", series / plan.series_per_target);
                canonical(&[("__name__", &name(series)), ("instance", &instance)])
            })
            .collect();
        let table = store.series();
        let mut new: Vec<_> = labels
            .iter()
            .map(|labels| NewSeries {
                hash: table.hash(labels),
                labels,
                series: SeriesRef::NONE,
            })
            .collect();
        table.guard().define(&mut new).unwrap();
        let series = new.iter().map(|new| new.series).collect();
        Self {
            writer: store.writer().unwrap(),
            committer: store.committer().unwrap(),
            store,
            series,
        }
    }
}

/// An endpoint, its backend, and the time between them.
struct Site {
    name: String,
    runtime: Runtime,
    begin: Instant,
    clock: Arc<DeviceClock>,
    network: Network,
    handle: Option<EndpointHandle>,
    /// The state of the shipper's randomness, which is the thread's.
    chance: u64,
    shards: u16,
    reshards: u32,
}

impl Site {
    fn new(plan: &Plan, number: usize, wrong_ms: &Arc<AtomicI64>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let begin = runtime.block_on(async { instant() });
        let clock = Arc::new(DeviceClock {
            begin: Some(begin),
            now_ms: AtomicU64::new(0),
            wrong_ms: Arc::clone(wrong_ms),
        });
        let seed = plan.seed ^ (number as u64 + 1).rotate_left(32);
        let network = Network::new(
            plan.backends[number].clone(),
            &plan.options,
            plan.series,
            Arc::clone(&clock),
            seed,
        );
        Self {
            name: format!("endpoint-{number}"),
            runtime,
            begin,
            clock,
            network,
            handle: None,
            chance: seed,
            shards: 0,
            reshards: 0,
        }
    }

    fn start(&mut self, plan: &Plan, store: &Store) {
        let mut options = plan.options.clone();
        options.name.clone_from(&self.name);
        let _within = self.runtime.enter();
        let transport = Arc::new(self.network.clone());
        let clock = shared(&self.clock);
        let runtime = self.runtime.handle();
        let handle = Endpoint::start_over(transport, store.clone(), options, clock, runtime);
        let handle = handle.unwrap();
        self.shards = handle.stats().snapshot().shards;
        self.handle = Some(handle);
    }

    /// Runs this endpoint's part of the world.
    fn run<T>(&mut self, what: impl Future<Output = T>) -> T {
        fastrand::seed(self.chance);
        let result = self.runtime.block_on(what);
        self.chance = fastrand::get_seed();
        if let Some(violation) = self.network.violation() {
            panic!("{}: {violation}", self.name);
        }
        result
    }

    fn run_until(&mut self, at: Duration) {
        let at = self.begin + at;
        self.run(async move { tokio::time::sleep_until(at).await });
        if let Some(handle) = &self.handle {
            let shards = handle.stats().snapshot().shards;
            self.reshards += u32::from(shards != self.shards);
            self.shards = shards;
        }
    }

    /// Ends it where it is.
    fn kill(&mut self) {
        self.handle = None;
        self.run(async {
            for _ in 0..TURNS_TO_END {
                tokio::task::yield_now().await;
            }
        });
        self.network.restarted();
    }

    /// Ends it in an orderly way; how long that took.
    fn stop(&mut self, deadline: Duration) -> Duration {
        let handle = self.handle.take().expect("it runs");
        let (stopped, took) = self.run(async {
            let start = instant();
            (handle.stop(deadline).await, instant() - start)
        });
        assert!(took <= deadline + Duration::from_millis(1), "{took:?}");
        if stopped == Stopped::Drained {
            assert!(took < deadline || deadline.is_zero());
        }
        self.network.restarted();
        took
    }
}

/// The records of one append.
struct Appended {
    end: Position,
    samples: Vec<Numbered>,
}

struct World<'p> {
    plan: &'p Plan,
    dir: tempfile::TempDir,
    random: fastrand::Rng,
    clock: Arc<DeviceClock>,
    log: Option<Log>,
    sites: Vec<Site>,
    appended: Vec<Appended>,
    /// Per site, appends before this one were found decided where the position says so.
    checked: Vec<usize>,
    restarts: u32,
    /// Per series, how many samples it has had.
    numbers: Vec<u64>,
    at: Duration,
}

/// What happened in a life.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Lived {
    pub(crate) traces: Vec<Trace>,
    pub(crate) restarts: u32,
    pub(crate) reshards: u32,
}

/// Lives it.
pub(crate) fn live(plan: &Plan) -> Lived {
    let mut world = World::new(plan);
    let mut at = Duration::ZERO;
    while at < plan.healthy_from {
        let gap = plan.gap_max.mul_f64(world.random.f64());
        at = (world.at + gap).min(plan.healthy_from);
        world.run_until(at);
        world.happen();
        world.check_positions();
    }
    world.recover();
    Lived {
        traces: world
            .sites
            .iter()
            .map(|site| site.network.trace())
            .collect(),
        restarts: world.restarts,
        reshards: world.sites.iter().map(|site| site.reshards).sum(),
    }
}

impl<'p> World<'p> {
    fn new(plan: &'p Plan) -> Self {
        let memory = Path::new("/dev/shm");
        let dir = match memory.is_dir() {
            true => tempfile::tempdir_in(memory),
            false => tempfile::tempdir(),
        };
        let wrong_ms = Arc::default();
        let sites = 0..plan.backends.len();
        let mut world = Self {
            plan,
            dir: dir.unwrap(),
            random: fastrand::Rng::with_seed(plan.seed ^ 0xc0ff_ee00),
            clock: Arc::new(DeviceClock {
                begin: None,
                now_ms: AtomicU64::new(0),
                wrong_ms: Arc::clone(&wrong_ms),
            }),
            log: None,
            checked: vec![0; plan.backends.len()],
            sites: sites
                .map(|number| Site::new(plan, number, &wrong_ms))
                .collect(),
            appended: Vec::new(),
            numbers: vec![0; plan.series as usize],
            restarts: 0,
            at: Duration::ZERO,
        };
        world.open();
        world
    }

    /// A process begins.
    fn open(&mut self) {
        let salt = self.random.u64(..);
        let log = self
            .log
            .insert(Log::open(self.dir.path(), self.plan, &self.clock, salt));
        for site in &mut self.sites {
            site.start(self.plan, &log.store);
        }
        log.store.endpoints_complete();
    }

    fn log(&mut self) -> &mut Log {
        self.log.as_mut().expect("a process runs")
    }

    fn run_until(&mut self, at: Duration) {
        for site in &mut self.sites {
            site.run_until(at);
        }
        self.at = at;
        self.clock.set(at);
    }

    /// What senders and operators do.
    fn happen(&mut self) {
        if self.random.u8(..) < u8::MAX / self.plan.restart_every {
            self.restarts += 1;
            match self.random.u8(0..4) {
                0 => self.kill(),
                1 => self.stop(),
                2 => self.restart_endpoint(),
                _ => {
                    let by = self.random.i64(-100_000..100_000);
                    self.clock.wrong_ms.fetch_add(by, Ordering::Relaxed);
                }
            }
        } else {
            self.append();
        }
        if self.random.u8(0..8) == 0 {
            self.log().store.keep();
        }
    }

    /// Some senders' requests, made durable together.
    fn append(&mut self) {
        for _ in 0..self.random.u8(1..=3) {
            let share = [0.1, 0.5, 1.0][self.random.usize(0..3)];
            let mut appended = Vec::new();
            for series in 0..self.plan.series {
                if self.random.f64() < share {
                    let number = self.numbers[series as usize];
                    self.numbers[series as usize] += 1;
                    appended.push(Numbered { series, number });
                }
            }
            let is_started = |one: &Numbered| one.series % self.plan.started_every == 0;
            let (started, plain): (Vec<_>, Vec<_>) =
                appended.iter().partition(|one| is_started(one));
            let log = self.log.as_mut().expect("a process runs");
            let samples = plain.iter().map(|one: &&Numbered| Sample {
                series: log.series[one.series as usize],
                timestamp_ms: timestamp_ms(one.number),
                value_bits: value_bits(one.number),
            });
            let samples: Vec<_> = samples.collect();
            let raw = started.iter().map(|one: &&Numbered| {
                let started = StartedSample {
                    timestamp_ms: timestamp_ms(one.number),
                    value_bits: value_bits(one.number),
                    start_ms: EPOCH_MS,
                };
                (log.series[one.series as usize], started.to_bytes())
            });
            let raw: Vec<_> = raw.collect();
            let raw = raw.iter().map(|(series, bytes)| RawRecord {
                series: *series,
                kind: RecordKind::StartedSample,
                bytes,
            });
            let raw: Vec<_> = raw.collect();
            let end = log.writer.append(&samples, &raw).unwrap();
            self.appended.push(Appended {
                end,
                samples: appended,
            });
        }
        self.log().committer.commit_now().unwrap();
    }

    /// The process is killed, and what it did not save is gone; another begins.
    fn kill(&mut self) {
        for site in &mut self.sites {
            site.kill();
        }
        self.log = None;
        self.open();
    }

    /// The process ends as it should; another begins.
    fn stop(&mut self) {
        let deadline = Duration::from_millis(self.random.u64(0..3000));
        let mut took = Duration::ZERO;
        for site in &mut self.sites {
            took = took.max(site.stop(deadline));
        }
        self.run_until(self.at + took);
        let log = self.log.take().expect("a process runs");
        drop(log.committer);
        log.store.close();
        drop((log.writer, log.store));
        self.open();
    }

    /// One endpoint gets other settings.
    fn restart_endpoint(&mut self) {
        let number = self.random.usize(0..self.sites.len());
        let log = self.log.as_ref().expect("a process runs");
        let site = &mut self.sites[number];
        site.kill();
        site.start(self.plan, &log.store);
    }

    /// No position is ahead of what its backend has.
    fn check_positions(&mut self) {
        let log = self.log.as_ref().expect("a process runs");
        for (site, checked) in self.sites.iter().zip(&mut self.checked) {
            let acked = log.store.endpoint(&site.name).unwrap().acked();
            while let Some(next) = self.appended.get(*checked).filter(|next| next.end <= acked) {
                site.network.with_backend(|backend| {
                    for sample in &next.samples {
                        let decided = backend.is_decided(*sample);
                        assert!(decided, "{}: {sample:?} is acked and not there", site.name);
                    }
                });
                *checked += 1;
            }
        }
    }

    /// All weather is fair now: everything is delivered, in time.
    fn recover(&mut self) {
        let until = self.at + self.recovery_at_most();
        while !self.is_delivered() {
            assert!(
                self.at < until,
                "not delivered at {:?}: {:#?}",
                self.at,
                self.accounts()
            );
            self.run_until(self.at + LOOK);
            self.check_positions();
        }
        for site in &self.sites {
            let number = self
                .checked
                .iter()
                .filter(|checked| **checked == self.appended.len());
            assert_eq!(number.count(), self.sites.len(), "{}", site.name);
        }
        self.check_accounts();
    }

    fn is_delivered(&self) -> bool {
        let log = self.log.as_ref().expect("a process runs");
        let durable = log.store.watermarks().durable;
        let acked = |site: &Site| log.store.endpoint(&site.name).unwrap().acked();
        self.sites.iter().all(|site| acked(site) >= durable)
    }

    fn accounts(&self) -> Vec<wal::Account> {
        let log = self.log.as_ref().expect("a process runs");
        let account = |site: &Site| log.store.endpoint(&site.name).unwrap().account();
        self.sites.iter().map(account).collect()
    }

    /// How long the slowest endpoint may take from now on.
    ///
    /// What failed last may end only after the timeout, is repeated after the longest backoff, and then
    /// the others come back within another. From then on a request takes its latency and, at a limited
    /// share, as much again for each other part; between two there may be a send gap. At worst every record
    /// takes a request, and a refused one two more per halving of its batch.
    fn recovery_at_most(&self) -> Duration {
        let options = &self.plan.options;
        let queue = &options.queue;
        let pending = self.accounts().iter().map(|account| account.pending).max();
        let requests = u32::try_from(3 * pending.unwrap_or(0) + 20).unwrap();
        let share = options.drain.max_share.unwrap_or(1.0);
        let request = (2 * LATENCY_MAX).div_f64(share) + Duration::from_millis(12);
        options.remote_timeout
            + queue.max_backoff.max(RETRY_AFTER_MAX)
            + 2 * queue.max_backoff
            + requests * request
    }

    /// Every record is accounted for, once.
    fn check_accounts(&self) {
        let all: usize = self.appended.iter().map(|one| one.samples.len()).sum();
        for (number, account) in self.accounts().iter().enumerate() {
            let plan = &self.plan.backends[number];
            let bad = plan.bad_series.map_or(0, |series| {
                self.numbers[series as usize].min(plan.bad_samples)
            });
            let refused = account.tally.dropped(DropReason::Refused);
            assert_eq!(account.records_in, all as u64, "{account:?}");
            assert_eq!(account.pending, 0, "{account:?}");
            assert_eq!(account.tally.delivered + refused, all as u64, "{account:?}");
            // Which of a request are written is not known, so that with a restart in between a refusal
            // may be counted in a frame that goes out again.
            let is_exact = plan.dialect != Dialect::V2Partial || self.restarts == 0;
            if plan.takes_nothing_twice {
                assert!(refused >= bad || !is_exact, "{account:?}");
            } else {
                assert!(refused == bad || !is_exact, "{account:?}");
            }
        }
    }
}
