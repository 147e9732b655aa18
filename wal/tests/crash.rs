//! Stops a run at every disk operation and proves that what was acknowledged is recovered.
//!
//! The run goes through a disk that keeps a journal of what it was asked to do. For each prefix of
//! the journal the disk as it could be after a stop is laid out afresh, and the real store opens it:
//! after a kill, after a power cut that takes all that was not synced, and after one that takes a
//! random part. `power_cut.rs` has random lives and cuts the recoveries too.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::common::journal::{Cut, JournalDisk, Op, Platter, lay_out};
use crate::common::life::{ENDPOINTS, Habits, Life, Truth, clean, live, repeatable};
use crate::common::{HastyDisk, ack_all, scratch};
use wal::Store;

/// One run by default; `PENSTOCK_TEST_SEED` gives others.
fn seed() -> u64 {
    let text = std::env::var("PENSTOCK_TEST_SEED").ok();
    text.map_or(7, |text| text.parse().unwrap())
}

/// Cuts `life` after every operation.
fn stop_everywhere(life: &Life) {
    println!("seed {}, {} disk operations", seed(), life.ops.len());
    let mut platter = Platter::default();
    for at in 0..=life.ops.len() {
        for cut in [Cut::Kill, Cut::PowerAll, Cut::PowerSome { unit: 512 }] {
            let mut random = fastrand::Rng::with_seed(at as u64);
            let dir = scratch();
            lay_out(&platter.cut(cut, &mut random), dir.path());
            let disk = Arc::new(HastyDisk);
            // Recovery itself may be cut off: open twice.
            drop(Store::open(dir.path(), repeatable(disk.clone(), random.u64(..))).unwrap());
            let store = Store::open(dir.path(), repeatable(disk, random.u64(..))).unwrap();
            println!("{cut:?} after operation {at}");
            for (number, name) in ENDPOINTS.into_iter().enumerate() {
                let endpoint = store.endpoint(name).unwrap();
                let delivered = life.delivered(number, at);
                life.truth.settle(&store, &endpoint, delivered, at);
            }
            assert_eq!(store.lost_bytes(), BTreeMap::new());
            life.truth.clone().goes_on(&store);
        }
        if let Some(op) = life.ops.get(at) {
            platter.apply(op);
        }
    }
}

/// How often the disk was told something like this.
fn count(life: &Life, what: impl Fn(&Op) -> bool) -> usize {
    life.ops.iter().filter(|op| what(op)).count()
}

fn in_dir(path: &Path, dir: &str) -> bool {
    path.starts_with(dir)
}

#[test]
fn every_acknowledged_record_survives_a_stop_at_any_disk_operation() {
    let dir = scratch();
    let habits = Habits {
        rounds: 60,
        ..Habits::default()
    };
    let life = live(dir.path(), seed(), habits);
    let saves = count(
        &life,
        |op| matches!(op, Op::Sync(p) if in_dir(p, "positions")),
    );
    let reclaimed = count(
        &life,
        |op| matches!(op, Op::Remove(p) if in_dir(p, "segments")),
    );
    let recycled = count(
        &life,
        |op| matches!(op, Op::Rename(_, p) if p.extension() == Some("seg".as_ref())),
    );
    assert!(
        saves > 20 && reclaimed > 3 && recycled > 3,
        "{saves} saves, {reclaimed} reclaimed, {recycled} recycled"
    );
    stop_everywhere(&life);
}

/// A life of churn: each round brings new series; all but the last rounds are delivered, and what is
/// dead is cleaned away as soon as nothing names it.
fn churn(dir: &Path) -> Life {
    let disk = JournalDisk::new(dir);
    let store = Store::open(dir, repeatable(disk.clone(), seed())).unwrap();
    let endpoints = ENDPOINTS.map(|name| store.endpoint(name).unwrap());
    store.endpoints_complete();
    let mut tails = [endpoints[0].tail(), endpoints[1].tail()];
    let mut committer = store.committer().unwrap();
    let mut writer = store.writer().unwrap();
    let mut life = Life::default();
    let mut truth = Truth::default();
    for round in 0..24_u32 {
        // The first ten series live on, and with them the oldest chunks.
        let numbers: Vec<_> = (0..10).chain(round * 50 + 10..round * 50 + 90).collect();
        // Enough bytes to leave a segment behind now and then.
        let rest = (i64::from(round), Some(9_000));
        truth.append(&store, &mut writer, &numbers, rest).unwrap();
        committer.commit_now().unwrap();
        truth.acked(disk.len());
        if round < 21 {
            for (at, tail) in tails.iter_mut().enumerate() {
                truth.read(&store, tail, usize::MAX);
                ack_all(&endpoints[at], tail);
                life.is_delivered(at, disk.len(), truth.len());
            }
        }
        store.keep();
        clean(&store);
    }
    let stats = store.stats();
    let removed = stats.chunks_removed.load(Ordering::Relaxed);
    let copied = stats.series_copied_bytes.load(Ordering::Relaxed);
    assert!(
        removed > 5 && copied > 0,
        "{removed} removed, {copied} bytes copied"
    );
    assert!(store.series().len() < 700, "{} left", store.series().len());
    life.ops = disk.ops();
    life.truth = truth;
    life
}

#[test]
fn cleaning_the_series_log_survives_a_stop_at_any_disk_operation() {
    let dir = scratch();
    stop_everywhere(&churn(dir.path()));
}
