//! Turns a plan into a life: senders append, endpoints ship, processes end and begin, and what must
//! hold is looked at after every step.
//!
//! The store is driven by hand between the steps, where simulated time stands still. Each endpoint has
//! a runtime of its own with a clock of its own, so that the order among endpoints is that of the plan.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use wal::{Account, DropReason};

use super::backend::Numbered;
use super::clock::DeviceClock;
use super::log::{Appended, Log};
use super::network::Trace;
use super::plan::{Dialect, LATENCY_MAX, Plan, RETRY_AFTER_MAX};
use super::site::Site;

/// Between two looks while the rest is delivered.
const LOOK: Duration = Duration::from_millis(100);
/// Between two small requests of one shard, as far as timers are exact.
const GAP: Duration = Duration::from_millis(12);
/// No request is larger.
const REQUEST_BYTES_MAX: u64 = 2000;

/// What happened in a life.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Lived {
    pub(crate) traces: Vec<Trace>,
    pub(crate) restarts: u32,
    pub(crate) reshards: u32,
    /// How long recovery took, in thousandths of what it may take.
    pub(crate) recovery_permille: u128,
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

/// Lives it.
pub(crate) fn live(plan: &Plan) -> Lived {
    let mut world = World::new(plan);
    while world.at < plan.healthy_from {
        let gap = plan.gap_max.mul_f64(world.random.f64());
        world.run_until((world.at + gap).min(plan.healthy_from));
        world.happen();
        world.check_positions();
    }
    let recovery_permille = world.recover();
    world.check_accounts();
    Lived {
        traces: (world.sites.iter().map(|site| site.network.trace())).collect(),
        restarts: world.restarts,
        reshards: world.sites.iter().map(|site| site.reshards).sum(),
        recovery_permille,
    }
}

impl<'p> World<'p> {
    fn new(plan: &'p Plan) -> Self {
        let memory = Path::new("/dev/shm");
        let dir = match memory.is_dir() {
            true => tempfile::tempdir_in(memory),
            false => tempfile::tempdir(),
        };
        let clock = DeviceClock::by_hand();
        let sites = 0..plan.backends.len();
        let sites = sites.map(|number| Site::new(plan, number, clock.wrong_ms()));
        let mut world = Self {
            plan,
            dir: dir.unwrap(),
            random: fastrand::Rng::with_seed(plan.seed ^ 0xc0ff_ee00),
            log: None,
            checked: vec![0; plan.backends.len()],
            sites: sites.collect(),
            clock,
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
        let clock = Arc::<DeviceClock>::clone(&self.clock);
        let log = Log::open(self.dir.path(), self.plan, clock, salt);
        for site in &mut self.sites {
            site.start(self.plan, &log.store);
        }
        log.store.endpoints_complete();
        self.log = Some(log);
    }

    fn log(&self) -> &Log {
        self.log.as_ref().expect("a process runs")
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
                _ => self.clock.jump(self.random.i64(-100_000..100_000)),
            }
        } else {
            for _ in 0..self.random.u8(1..=3) {
                self.append();
            }
        }
        if self.random.u8(0..8) == 0 {
            self.log().store.keep();
        }
    }

    /// A sender's request.
    fn append(&mut self) {
        let share = [0.1, 0.5, 1.0][self.random.usize(0..3)];
        let mut samples = Vec::new();
        for (series, next) in (0..).zip(&mut self.numbers) {
            if self.random.f64() < share {
                let number = *next;
                samples.push(Numbered { series, number });
                *next += 1;
            }
        }
        if !samples.is_empty() {
            let log = self.log.as_mut().expect("a process runs");
            self.appended.push(log.append(self.plan, samples));
        }
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
        let took = self.sites.iter_mut().map(|site| site.stop(deadline)).max();
        self.run_until(self.at + took.unwrap_or_default());
        self.log.take().expect("a process runs").close();
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
            while let Some(next) = self.appended.get(*checked)
                && next.end <= acked
            {
                for sample in &next.samples {
                    let is_decided = site.network.with_backend(|one| one.is_decided(*sample));
                    assert!(is_decided, "{}: {sample:?} is acked, not there", site.name);
                }
                *checked += 1;
            }
            let endpoint = log.store.endpoint(&site.name).unwrap();
            let Some(ahead) = endpoint.ahead() else {
                continue;
            };
            let is_ahead =
                |one: &&Appended| one.end > ahead.from.position && one.end <= ahead.acked;
            for sample in self
                .appended
                .iter()
                .filter(is_ahead)
                .flat_map(|one| &one.samples)
            {
                let is_decided = site.network.with_backend(|one| one.is_decided(*sample));
                assert!(is_decided, "{}: {sample:?} is ahead, not there", site.name);
            }
        }
    }

    /// All weather is fair now: everything is delivered, in time. In what part of it, per mille.
    fn recover(&mut self) -> u128 {
        let (begin, most) = (self.at, self.recovery_at_most());
        while !self.is_delivered() {
            let took = self.at - begin;
            assert!(took < most, "not delivered: {:#?}", self.accounts());
            self.run_until(self.at + LOOK);
        }
        self.check_positions();
        let all = self.appended.len();
        assert!(self.checked.iter().all(|checked| *checked == all));
        (self.at - begin).as_millis() * 1000 / most.as_millis()
    }

    fn is_delivered(&self) -> bool {
        let store = &self.log().store;
        let durable = store.watermarks().durable;
        let acked = |site: &Site| store.endpoint(&site.name).unwrap().acked();
        self.sites.iter().all(|site| acked(site) >= durable)
    }

    fn accounts(&self) -> Vec<Account> {
        let store = &self.log().store;
        let account = |site: &Site| store.endpoint(&site.name).unwrap().account();
        self.sites.iter().map(account).collect()
    }

    /// How long the slowest endpoint may take from now on.
    ///
    /// What failed last may end only after the timeout, is repeated after the longest wait, and then the
    /// others come back within another. From then on a request takes its latency and, at a limited share,
    /// as much again for each other part; at a limited rate, the time of its bytes; and between two may be
    /// a gap. At worst every record takes a request, and a refused batch two more per halving.
    fn recovery_at_most(&self) -> Duration {
        let options = &self.plan.options;
        let (queue, drain) = (&options.queue, &options.drain);
        let pending = self.accounts().iter().map(|account| account.pending).max();
        let requests = u32::try_from(2 * pending.unwrap_or(0) + 10).unwrap();
        let mut request = (2 * LATENCY_MAX).div_f64(drain.max_share.unwrap_or(1.0)) + GAP;
        if let Some(rate) = drain.max_bytes_per_second {
            request += Duration::from_millis(1000 * REQUEST_BYTES_MAX / rate);
        }
        options.remote_timeout
            + queue.max_backoff.max(RETRY_AFTER_MAX)
            + 2 * queue.max_backoff
            + requests * request
    }

    /// Every record is accounted for, once.
    fn check_accounts(&self) {
        let all = self.appended.iter();
        let all: usize = all.map(|one| one.samples.len()).sum();
        let unwanted: u64 = self.appended.iter().map(|one| one.unwanted).sum();
        for (plan, account) in self.plan.backends.iter().zip(self.accounts()) {
            let bad = |series| plan.bad_samples.min(self.numbers[series as usize]);
            let bad = plan.bad_series.map_or(0, bad);
            let tally = account.tally;
            let refused = tally.dropped(DropReason::Refused);
            let off = tally.dropped(DropReason::SwitchedOff);
            assert_eq!(tally.delivered + refused, all as u64, "{account:?}");
            assert_eq!((account.pending, off), (0, unwanted), "{account:?}");
            // Which of a request are written is not known, so that with a restart in between a refusal
            // may be counted in a frame that goes out again.
            let is_exact = plan.dialect != Dialect::V2Partial || self.restarts == 0;
            let more = refused > bad && plan.takes_nothing_twice;
            assert!(refused == bad || more || !is_exact, "{account:?}");
        }
    }
}
