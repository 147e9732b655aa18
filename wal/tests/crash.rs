//! Stops a run at every disk operation and proves that what was acknowledged is recovered.
//!
//! The run goes through a disk that keeps a journal of what it was asked to do. For each prefix of
//! the journal the disk as it could be after a power cut is laid out afresh (what was synced is
//! there; of the rest each write and each name may or may not be, torn writes included), and the
//! real store opens it.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::journal::{Cut, Journal, JournalDisk, Op, lay_out};
use common::{Named, ack_all, define, named, open, options, read_all};
use wal::{Sample, Store, StoreOptions};

/// One acknowledgement: after this many operations, these samples were durable for good.
type Acked = (usize, Vec<Named>);

struct Run {
    ops: Vec<Op>,
    acked: Vec<Acked>,
    /// After this many operations, everything before was delivered to the only endpoint.
    delivered: Vec<(usize, usize)>,
}

/// One run by default; `PENSTOCK_TEST_SEED` gives others.
fn seed() -> u64 {
    let text = std::env::var("PENSTOCK_TEST_SEED").ok();
    text.map_or(7, |text| text.parse().unwrap())
}

/// A short life of a store: growing series, requests of many sizes, an endpoint that keeps up.
fn run(dir: &Path) -> Run {
    let journal = Arc::new(Journal::default());
    let disk = Arc::new(JournalDisk(journal.clone()));
    let store = Store::open(dir, options(disk)).unwrap();
    let endpoint = store.endpoint("one").unwrap();
    store.endpoints_complete();
    let mut tail = endpoint.tail();
    let mut committer = store.committer().unwrap();
    let mut writers = [store.writer().unwrap(), store.writer().unwrap()];
    let mut random = fastrand::Rng::with_seed(seed());
    let mut acked = Vec::new();
    let mut delivered = Vec::new();
    let mut total = 0;
    for round in 0..60_i64 {
        let mut batch = Vec::new();
        for writer in &mut writers {
            let count = [1, 20, 300, 1500][random.usize(0..4)];
            let numbers: Vec<u32> = (0..count)
                .map(|_| random.u32(0..10 + u32::try_from(round).unwrap() * 8))
                .collect();
            let refs = define(&store, &numbers).unwrap();
            let samples: Vec<_> = refs
                .iter()
                .map(|&series| Sample {
                    series,
                    timestamp_ms: round,
                    value_bits: random.u64(..),
                })
                .collect();
            writer.append(&samples, &[]).unwrap();
            batch.extend(samples.iter().map(|sample| named(&store, sample)));
        }
        committer.commit_now().unwrap();
        total += batch.len();
        acked.push((journal.len(), batch));
        if round % 7 == 3 {
            read_all(&store, &mut tail);
            ack_all(&endpoint, &mut tail);
            delivered.push((journal.len(), total));
            store.keep();
        } else if round % 3 == 0 {
            store.keep();
        }
    }
    drop(writers);
    let ops = journal.ops();
    Run {
        ops,
        acked,
        delivered,
    }
}

/// Opens what a cut left and checks it against what was promised by then.
fn check(run: &Run, from: &Path, at: usize, cut: Cut) {
    let dir = common::scratch();
    lay_out(&run.ops[..at], from, dir.path(), cut);
    // Recovery itself may be cut off: open twice.
    drop(open(dir.path()));
    let store = open(dir.path());
    let endpoint = store.endpoint("one").unwrap();
    let found = read_all(&store, &mut endpoint.tail());
    assert_eq!(
        store.lost_bytes(),
        BTreeMap::new(),
        "cut {cut:?} after operation {at}"
    );
    let promised: Vec<&Named> = run
        .acked
        .iter()
        .filter(|(ops, _)| *ops <= at)
        .flat_map(|(_, batch)| batch)
        .collect();
    let most = run
        .delivered
        .iter()
        .filter(|(ops, _)| *ops <= at)
        .map(|(_, n)| *n)
        .max();
    // What was delivered need not be found again; everything else must, in order.
    let owed = &promised[most.unwrap_or(0).min(promised.len())..];
    let found_owed = found
        .iter()
        .position(|sample| Some(&sample) == owed.first());
    let start = found_owed.unwrap_or(found.len());
    assert!(
        found[start..].len() >= owed.len() && found[start..].iter().zip(owed).all(|(a, b)| a == *b),
        "cut {cut:?} after operation {at}: {} acknowledged and undelivered, {} found",
        owed.len(),
        found.len() - start,
    );
    assert!(
        found.iter().all(|(labels, ..)| !labels.is_empty()),
        "a sample without its series"
    );
    // And it goes on: a new sample is taken, committed and read.
    let mut committer = store.committer().unwrap();
    let mut writer = store.writer().unwrap();
    let series = define(&store, &[4_000_000]).unwrap()[0];
    let last = Sample {
        series,
        timestamp_ms: 1,
        value_bits: 2,
    };
    writer.append(&[last], &[]).unwrap();
    committer.commit_now().unwrap();
    let again = read_all(&store, &mut endpoint.tail());
    assert_eq!(again.last(), Some(&named(&store, &last)));
    assert_eq!(again.len(), found.len() + 1);
}

#[test]
fn every_acknowledged_sample_survives_a_stop_at_any_disk_operation() {
    let dir = common::scratch();
    let run = run(dir.path());
    println!("{} disk operations", run.ops.len());
    for at in 0..=run.ops.len() {
        check(&run, dir.path(), at, Cut::Kill);
        check(&run, dir.path(), at, Cut::PowerAll);
        for seed in 0..3 {
            check(
                &run,
                dir.path(),
                at,
                Cut::PowerSome(seed * 1_000_003 + at as u64),
            );
        }
    }
}

/// A life of churn: each round brings new series; all but the last rounds are delivered, and what is
/// dead is cleaned away as soon as nothing names it.
fn churn(dir: &Path) -> Run {
    let journal = Arc::new(Journal::default());
    let options = StoreOptions {
        series_idle_timeout: Duration::ZERO,
        ..options(Arc::new(JournalDisk(journal.clone())))
    };
    let store = Store::open(dir, options).unwrap();
    let endpoint = store.endpoint("one").unwrap();
    store.endpoints_complete();
    let mut tail = endpoint.tail();
    let mut committer = store.committer().unwrap();
    let mut writer = store.writer().unwrap();
    let (mut acked, mut delivered, mut total) = (Vec::new(), Vec::new(), 0);
    for round in 0..30_u32 {
        // The first ten series live on, and with them the oldest chunks.
        let numbers = (0..10).chain(round * 50 + 10..round * 50 + 90);
        let refs = define(&store, &numbers.collect::<Vec<_>>()).unwrap();
        let sample = |series| Sample {
            series,
            timestamp_ms: i64::from(round),
            value_bits: 7,
        };
        // Enough samples to leave a segment behind now and then.
        let samples: Vec<_> = refs
            .iter()
            .cycle()
            .take(2500)
            .map(|&series| sample(series))
            .collect();
        writer.append(&samples, &[]).unwrap();
        committer.commit_now().unwrap();
        total += samples.len();
        acked.push((
            journal.len(),
            samples.iter().map(|s| named(&store, s)).collect(),
        ));
        if round < 27 {
            read_all(&store, &mut tail);
            ack_all(&endpoint, &mut tail);
            delivered.push((journal.len(), total));
        }
        store.keep();
        for _ in 0..20 {
            store.clean().unwrap();
        }
    }
    let stats = store.stats();
    assert!(stats.chunks_removed.load(Ordering::Relaxed) > 5);
    assert!(stats.series_copied_bytes.load(Ordering::Relaxed) > 0);
    assert!(store.series().len() < 600, "{} left", store.series().len());
    Run {
        ops: journal.ops(),
        acked,
        delivered,
    }
}

#[test]
fn cleaning_the_series_log_survives_a_stop_at_any_disk_operation() {
    let dir = common::scratch();
    let run = churn(dir.path());
    println!("{} disk operations", run.ops.len());
    for at in 0..=run.ops.len() {
        check(&run, dir.path(), at, Cut::Kill);
        check(&run, dir.path(), at, Cut::PowerAll);
        for seed in 0..3 {
            check(
                &run,
                dir.path(),
                at,
                Cut::PowerSome(seed * 1_000_003 + at as u64),
            );
        }
    }
}
