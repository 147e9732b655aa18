//! Fails each disk operation in turn, in every way, and proves: no crash, no false acknowledgement,
//! nothing lost, and no file used again of which a sync failed.
//!
//! A run opens the store an earlier life left, goes on with it, and ends. Then the store is opened on
//! a healthy disk: as the process left it, as the device had it, and as a power cut may leave it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use crate::common::faulty::{Cache, Fault, FaultyDisk, Plan};
use crate::common::journal::{Cut, Image, Platter, lay_out};
use crate::common::life::{ENDPOINTS, Habits, Life, Truth, live, repeatable};
use crate::common::{HastyDisk, ack_all, scratch};
use wal::{Endpoint, Error, Store, Tail, Writer};

/// Beyond every operation.
const EVER: usize = usize::MAX - 1;
const ROUNDS: u32 = 8;
/// So often a call that failed is made again: more often than the device fails.
const TRIES: usize = 400;

/// What the store is when the faulty disk gets it.
fn earlier() -> &'static (Life, Image) {
    static EARLIER: OnceLock<(Life, Image)> = OnceLock::new();
    EARLIER.get_or_init(|| {
        let dir = scratch();
        let habits = Habits {
            rounds: 14,
            reopens: false,
            ..Habits::default()
        };
        let mut life = live(dir.path(), 3, habits);
        life.truth.forget();
        let image = Platter::whole(&life.ops);
        (life, image)
    })
}

/// A run on a faulty disk.
struct Run {
    truth: Truth,
    /// Records each endpoint has for good.
    delivered: [usize; 2],
    opened: bool,
    /// Calls until the store was open.
    opening: u64,
    refused: usize,
    poisoned: bool,
    disk: Arc<FaultyDisk>,
}

/// Does it until the device lets it, or the store says that it is over.
fn insist<T>(mut what: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    for _ in 0..TRIES {
        match what() {
            Ok(done) => return Ok(done),
            Err(e) if e.is_poisoned() => return Err(e),
            Err(_) => {}
        }
    }
    what()
}

/// A store in use.
struct Use<'r> {
    run: &'r mut Run,
    store: Store,
    endpoints: Vec<(Endpoint, Tail)>,
    writer: Writer,
}

impl Use<'_> {
    /// Requests that grow the series and cross segments; deliveries, reclaim and cleaning.
    fn live(&mut self, patient: bool) -> Result<(), Error> {
        let mut committer = self.store.committer().unwrap();
        let mut taken = 0;
        for round in 0..ROUNDS {
            let mut tries = 0;
            loop {
                let numbers: Vec<u32> = (0..5).chain(round * 20 + 900..round * 20 + 930).collect();
                let rest = (i64::from(round), Some(8000));
                let appended = self
                    .run
                    .truth
                    .append(&self.store, &mut self.writer, &numbers, rest);
                let committed = committer.commit_now();
                let answers = [appended.as_ref().err(), committed.as_ref().err()];
                self.note(answers)?;
                let done = appended.is_ok() && committed.is_ok();
                taken += usize::from(done);
                self.keep(round)?;
                tries += 1;
                if done || !patient || tries == TRIES {
                    break;
                }
            }
        }
        if patient {
            // What is acknowledged drains whatever the device does, and in the end it works again.
            insist(|| committer.commit_now())?;
            self.run.truth.acked(0);
            assert!(
                taken > 0 && self.store.stall().is_none(),
                "{:?}",
                self.store.stall()
            );
        }
        Ok(())
    }

    fn note(&mut self, [appended, committed]: [Option<&Error>; 2]) -> Result<(), Error> {
        if committed.is_none() {
            self.run.truth.acked(0);
        }
        for error in [appended, committed].into_iter().flatten() {
            self.run.refused += 1;
            if error.is_poisoned() {
                return Err(Error::Poisoned(error.to_string()));
            }
        }
        Ok(())
    }

    /// The first endpoint keeps up with what is acknowledged, and all is kept tidy.
    fn keep(&mut self, round: u32) -> Result<(), Error> {
        for at in 0..if round == ROUNDS / 2 { 2 } else { 1 } {
            let (endpoint, tail) = &mut self.endpoints[at];
            let mut numbers = Vec::new();
            insist(|| self.run.truth.read_on(&self.store, tail, &mut numbers))?;
            ack_all(endpoint, tail);
            if let Some(last) = numbers.last() {
                self.run.delivered[at] = last + 1;
            }
            self.run.truth.assert_delivered(self.run.delivered[at]);
        }
        self.store.keep();
        for _ in 0..8 {
            // Says what the device said; everything is as it was.
            let _more = self.store.clean();
        }
        Ok(())
    }
}

fn run(dir: &Path, plan: Plan, patient: bool) -> Run {
    let (life, image) = earlier();
    lay_out(image, dir);
    let disk = FaultyDisk::new(dir, plan);
    let mut run = Run {
        truth: life.truth.clone(),
        delivered: [0, 1].map(|at| life.delivered(at, EVER)),
        opened: false,
        opening: 0,
        refused: 0,
        poisoned: false,
        disk: disk.clone(),
    };
    let open = || Store::open(dir, repeatable(disk.clone(), 5));
    let store = if patient { insist(open) } else { open() };
    let Ok(store) = store else {
        return run;
    };
    run.opened = true;
    let endpoint = |name| insist(|| store.endpoint(name));
    let endpoints = ENDPOINTS.map(|name| endpoint(name).unwrap());
    store.endpoints_complete();
    run.opening = disk.calls();
    let endpoints = endpoints.map(|e| (e.clone(), e.tail())).into();
    let mut used = Use {
        writer: store.writer().unwrap(),
        store: store.clone(),
        endpoints,
        run: &mut run,
    };
    let ended = used.live(patient);
    drop(used);
    if let Err(error) = ended {
        // Only series that are neither on the device nor in memory any more end the store.
        let text = error.to_string();
        assert!(text.contains(".chunk are neither on the device"), "{text}");
        run.poisoned = true;
    }
    assert_eq!(store.failure().is_some(), run.poisoned);
    store.close();
    assert_eq!(store.lost_bytes(), BTreeMap::new());
    run
}

/// After a start on a healthy disk everything acknowledged and not delivered is there.
fn check(run: &Run, dir: &Path) {
    let misused = run.disk.misused.lock().unwrap().clone();
    assert!(misused.is_empty(), "{misused:?}");
    check_open(run, dir);
    let mut platter = Platter::of(&earlier().1);
    for op in run.disk.journal.ops() {
        platter.apply(&op);
    }
    for cut in [Cut::PowerAll, Cut::PowerSome { unit: 512 }] {
        let mut random = fastrand::Rng::with_seed(run.disk.calls());
        let fresh = scratch();
        lay_out(&platter.cut(cut, &mut random), fresh.path());
        check_open(run, fresh.path());
    }
}

fn check_open(run: &Run, dir: &Path) {
    let store = Store::open(dir, repeatable(Arc::new(HastyDisk), 6)).unwrap();
    for (name, delivered) in ENDPOINTS.into_iter().zip(run.delivered) {
        let endpoint = store.endpoint(name).unwrap();
        run.truth.settle(&store, &endpoint, delivered, EVER);
    }
    assert_eq!(store.lost_bytes(), BTreeMap::new());
    run.truth.clone().goes_on(&store);
}

/// Calls of a run of which none fails: until the store is open, and in all.
fn calls(reads: bool) -> (u64, u64) {
    let dir = scratch();
    let healthy = run(dir.path(), Plan::healthy(reads), false);
    assert!(healthy.opened && healthy.refused == 0);
    check(&healthy, dir.path());
    (healthy.opening, healthy.disk.calls())
}

/// Runs with every call failing in turn; runs that were poisoned.
fn each_call(fault: Fault, cache: Cache) -> usize {
    let (_, calls) = calls(true);
    println!("{calls} calls");
    let mut poisoned = 0;
    for at in 0..calls {
        let plan = Plan {
            fails: at..at + 1,
            fault,
            cache,
            reads: true,
            bad: None,
        };
        println!("{plan:?}");
        let dir = scratch();
        let run = run(dir.path(), plan, false);
        poisoned += usize::from(run.poisoned);
        check(&run, dir.path());
        if matches!(fault, Fault::Interrupted | Fault::Short) {
            assert!(run.opened && run.refused == 0, "not noticed by anybody");
        }
    }
    poisoned
}

#[test]
fn a_call_that_finds_no_space_loses_nothing() {
    assert_eq!(each_call(Fault::NO_SPACE, Cache::Keeps), 0);
}

#[test]
fn a_call_that_fails_loses_nothing() {
    assert_eq!(each_call(Fault::IO, Cache::Keeps), 0);
}

#[test]
fn a_failed_sync_that_takes_back_what_was_written_loses_nothing() {
    assert!(each_call(Fault::IO, Cache::TakesBack) > 0);
}

#[test]
fn interrupted_and_short_reads_and_writes_are_not_noticed() {
    each_call(Fault::Interrupted, Cache::Keeps);
    each_call(Fault::Short, Cache::Keeps);
}

/// From every call on the device fails for a while. A store is not opened without what it cannot
/// read for as long as a page is asked for, so reads fail once it is open.
fn each_outage(fault: Fault, reads: bool) {
    let (opening, all) = calls(reads);
    for at in if reads { opening } else { 0 }..all {
        let lasts = [2, 7, 60][usize::try_from(at % 3).unwrap()];
        let plan = Plan {
            fails: at..at + lasts,
            fault,
            cache: Cache::Keeps,
            reads,
            bad: None,
        };
        println!("{plan:?}");
        let dir = scratch();
        let run = run(dir.path(), plan, true);
        assert!(run.opened && !run.poisoned);
        check(&run, dir.path());
    }
}

#[test]
fn a_full_device_stalls_drains_and_resumes_by_itself() {
    each_outage(Fault::NO_SPACE, false);
}

#[test]
fn a_device_that_fails_stalls_drains_and_resumes_by_itself() {
    each_outage(Fault::IO, false);
    each_outage(Fault::IO, true);
}

#[test]
fn a_device_that_turns_read_only_refuses_and_drains() {
    for at in 0..calls(false).1 {
        let plan = Plan {
            fails: at..u64::MAX,
            fault: Fault::READ_ONLY,
            cache: Cache::Keeps,
            reads: false,
            bad: None,
        };
        println!("{plan:?}");
        let dir = scratch();
        let run = run(dir.path(), plan, false);
        assert!(!run.poisoned);
        check(&run, dir.path());
    }
}
