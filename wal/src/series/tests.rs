//! Series come, are found again, are given up and come back.

use std::path::Path;

use super::*;
use crate::SystemRandom;
use crate::fs::SystemDisk;

fn open(dir: &Path) -> SeriesTable {
    let options = SeriesOptions {
        dir: dir.to_owned(),
        chunk_bytes: 16 << 10,
        series_max: 10_000,
        disk: Arc::new(SystemDisk),
        random: Arc::new(SystemRandom),
        quota: Arc::new(Quota::new(dir, 0)),
    };
    SeriesTable::open(options, 0).unwrap().0
}

fn labels(n: u32) -> Vec<u8> {
    format!("labels of series number {n}").into_bytes()
}

fn define(table: &SeriesTable, numbers: &[u32]) -> Vec<SeriesRef> {
    let all: Vec<_> = numbers.iter().map(|&n| labels(n)).collect();
    let mut new: Vec<_> = all
        .iter()
        .map(|labels| NewSeries {
            hash: table.hash(labels),
            labels,
            series: SeriesRef::NONE,
        })
        .collect();
    table.guard().define(&mut new).unwrap();
    new.iter().map(|new| new.series).collect()
}

fn find(table: &SeriesTable, n: u32) -> Option<SeriesRef> {
    table.guard().find(table.hash(&labels(n)), &labels(n))
}

#[test]
fn refs_survive_a_restart_across_chunks() {
    let dir = tempfile::tempdir().unwrap();
    let numbers: Vec<u32> = (0..2000).collect();
    let refs = define(&open(dir.path()), &numbers);
    let table = open(dir.path());
    assert!(table.chunk_count() > 3);
    assert_eq!(table.len(), 2000);
    for (n, series) in numbers.iter().zip(&refs) {
        assert_eq!(table.guard().labels(*series), labels(*n));
        assert_eq!(find(&table, *n), Some(*series));
    }
    assert_eq!(define(&table, &[7, 99_999])[0], refs[7]);
}

#[test]
fn what_followed_is_remembered_and_else_it_is_the_ref_behind() {
    let dir = tempfile::tempdir().unwrap();
    let table = open(dir.path());
    let guard = table.guard();
    let [a, b, c] = [1, 2, 3].map(SeriesRef::new);
    assert_eq!(guard.predicted(SeriesRef::NONE), a);
    assert_eq!(guard.predicted(a), b);
    guard.learn(a, c);
    assert_eq!(guard.predicted(a), c);
    guard.learn(a, a);
    assert_eq!(guard.predicted(a), a);
    guard.learn(a, b);
    assert_eq!(guard.predicted(a), b);
    let stored = table.next.as_slice()[a.index()].load(Ordering::Relaxed);
    assert_eq!(stored, 0, "takes no memory");
    // Beyond all there can be: a guess, of no labels.
    let last = SeriesRef::new(u32::MAX);
    guard.learn(last, a);
    assert!(guard.labels(guard.predicted(last)).is_empty());
    assert!(
        guard
            .labels(guard.predicted(SeriesRef::new(10_000)))
            .is_empty()
    );
    assert!(!guard.confirm(guard.predicted(a)), "not defined yet");
}

#[test]
fn a_new_series_twice_in_one_call_gets_one_ref() {
    let dir = tempfile::tempdir().unwrap();
    let table = open(dir.path());
    let refs = define(&table, &[5, 6, 5]);
    assert_eq!(refs[0], refs[2]);
    assert_ne!(refs[0], refs[1]);
    assert_eq!(table.len(), 2);
}

#[test]
fn refs_run_out_with_a_clear_answer() {
    let dir = tempfile::tempdir().unwrap();
    let table = open(dir.path());
    define(&table, &(0..10_000).collect::<Vec<_>>());
    let labels = labels(20_000);
    let hash = table.hash(&labels);
    let mut new = [NewSeries {
        hash,
        labels: &labels,
        series: SeriesRef::NONE,
    }];
    assert!(table.guard().define(&mut new).unwrap_err().is_full());
}

#[test]
fn labels_of_an_unknown_ref_are_empty() {
    let dir = tempfile::tempdir().unwrap();
    let table = open(dir.path());
    let guard = table.guard();
    assert!(guard.labels(SeriesRef::NONE).is_empty());
    assert!(guard.labels(SeriesRef::new(77)).is_empty());
    assert!(guard.labels(SeriesRef::new(u32::MAX)).is_empty());
}

/// A guard that one test holds would hold up what another gives up: epochs are the process's.
static EPOCHS: Mutex<()> = Mutex::new(());

/// Everything is acknowledged and removed up to segment `id`, `seconds` into the run.
fn idle(id: u64, seconds: u64) -> Idle {
    Idle {
        now: std::time::Duration::from_secs(seconds),
        timeout: std::time::Duration::from_secs(60),
        head: crate::Position::new(id * 1000 + 1),
        reclaimed: crate::Position::new(id * 1000),
        oldest_segment: id,
    }
}

/// Steps until there is nothing to do now; the committer has synced everything.
fn clean(cleaner: &mut Cleaner, table: &SeriesTable, idle: &Idle) -> CleanStats {
    while let Some(unsynced) = table.next_unsynced() {
        SeriesTable::synced(unsynced);
    }
    let mut all = CleanStats::default();
    for _ in 0..1000 {
        let done = cleaner.step(table, idle).unwrap();
        all.given_up += done.given_up;
        all.freed += done.freed;
        all.chunks_removed += done.chunks_removed;
        if !done.more {
            break;
        }
    }
    all
}

#[test]
fn idle_series_go_and_the_others_stay_what_they_are() {
    let _alone = EPOCHS.lock();
    let dir = tempfile::tempdir().unwrap();
    let table = open(dir.path());
    let mut cleaner = Cleaner::default();
    let refs = define(&table, &(0..2000).collect::<Vec<_>>());
    clean(&mut cleaner, &table, &idle(0, 0));
    let before = table.chunk_count();
    let records: Vec<u64> = (refs.iter())
        .map(|series| table.guard().record(*series))
        .collect();
    assert!(
        records
            .iter()
            .collect::<std::collections::BTreeSet<_>>()
            .len()
            == 2000
    );
    assert!(!records.contains(&0) && table.guard().record(SeriesRef::new(5000)) == 0);
    // Every tenth goes on, in another segment.
    table.set_segment(1);
    let live: Vec<u32> = (0..2000).step_by(10).collect();
    assert_eq!(define(&table, &live)[3], refs[30]);
    let all = clean(&mut cleaner, &table, &idle(1, 30));
    assert_eq!(all, CleanStats::default(), "idle for too short a time");
    let all = clean(&mut cleaner, &table, &idle(1, 100));
    assert_eq!((all.given_up, all.freed), (1800, 0));
    assert_eq!(find(&table, 5), None, "given up");
    assert_eq!(table.guard().labels(refs[5]), labels(5), "but readable");
    assert_eq!(table.guard().record(refs[5]), records[5]);
    assert_eq!(table.generation(), 0);
    let all = clean(&mut cleaner, &table, &idle(2, 101));
    assert_eq!((all.given_up, all.freed), (0, 1800));
    assert!(all.chunks_removed > 1, "{all:?} of {before}");
    assert!(table.chunk_count() * 3 < before);
    assert_eq!(table.len(), 200);
    for &n in &live {
        let series = refs[usize::try_from(n).unwrap()];
        assert_eq!(find(&table, n), Some(series));
        assert_eq!(table.guard().labels(series), labels(n));
    }
    // Free refs are used again, and a restart finds all of it.
    let again = define(&table, &[5, 3001]);
    assert!(again.iter().all(|series| series.get() <= 2000));
    assert!(table.generation() > 0, "refs name others now");
    assert!(!records.contains(&table.guard().record(again[1])));
    drop(table);
    let table = open(dir.path());
    assert_eq!(table.guard().labels(again[1]), labels(3001));
    assert_eq!(find(&table, 5), Some(again[0]));
    assert_eq!(find(&table, 30), Some(refs[30]));
}

#[test]
fn idle_series_go_while_others_keep_coming() {
    let _alone = EPOCHS.lock();
    let dir = tempfile::tempdir().unwrap();
    let table = open(dir.path());
    let mut cleaner = Cleaner::default();
    let mut given_up = 0;
    for segment in 0..10_u32 {
        table.set_segment(segment.into());
        // Nothing is idle at first.
        let round = segment.saturating_sub(4);
        define(
            &table,
            &(round * 100..(round + 1) * 100).collect::<Vec<_>>(),
        );
        let now = idle(segment.into(), 60 * u64::from(segment));
        given_up += clean(&mut cleaner, &table, &now).given_up;
    }
    // Not those of the last segment, and those of the one before were not idle for a minute.
    assert_eq!(given_up, 400);
}

#[test]
fn what_a_guard_appends_while_a_step_begins_keeps_its_series() {
    let _alone = EPOCHS.lock();
    let dir = tempfile::tempdir().unwrap();
    let table = open(dir.path());
    let mut cleaner = Cleaner::default();
    let refs = define(&table, &[1]);
    clean(&mut cleaner, &table, &idle(0, 0));
    let guard = table.guard();
    assert!(guard.confirm(refs[0]));
    table.set_segment(1);
    clean(&mut cleaner, &table, &idle(1, 30));
    // Given up, but held.
    clean(&mut cleaner, &table, &idle(1, 100));
    // The head was looked up, then the guard appended a frame behind it and ended.
    let early = idle(1, 101);
    drop(guard);
    let frame = crate::Position::new(early.head.get() + 500);
    while cleaner.step(&table, &early).unwrap().in_limbo == 0 && !cleaner.has_unheld() {}
    // Reclaimed beyond the early head and not beyond the frame.
    let mut later = idle(1, 102);
    later.head = frame;
    later.reclaimed = crate::Position::new(early.head.get() + 100);
    clean(&mut cleaner, &table, &later);
    assert_eq!(table.guard().labels(refs[0]), labels(1));
}

#[test]
fn a_guard_keeps_what_it_has_confirmed() {
    let _alone = EPOCHS.lock();
    let dir = tempfile::tempdir().unwrap();
    let table = open(dir.path());
    let mut cleaner = Cleaner::default();
    let refs = define(&table, &[1, 2]);
    clean(&mut cleaner, &table, &idle(0, 0));
    let guard = table.guard();
    assert!(guard.confirm(refs[0]));
    table.set_segment(1);
    for segment in 1..5 {
        clean(&mut cleaner, &table, &idle(segment, 100 * segment));
    }
    assert_eq!(guard.labels(refs[0]), labels(1), "not yet appended");
    assert!(!table.guard().confirm(refs[0]), "nobody else gets it");
    let back = define(&table, &[1])[0];
    assert_ne!(back, refs[0]);
    drop(guard);
    let all = clean(&mut cleaner, &table, &idle(5, 600));
    assert_eq!(all.freed, 0, "the log is not reclaimed to the head yet");
    assert_eq!(table.guard().labels(refs[0]), labels(1));
    let all = clean(&mut cleaner, &table, &idle(6, 600));
    assert_eq!(all.freed, 2);
    assert!(table.guard().labels(refs[0]).is_empty());
    assert_eq!(find(&table, 1), Some(back));
}

#[test]
fn the_next_chunk_is_made_ahead_and_outlives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let table = open(dir.path());
    table.prepare().unwrap();
    define(&table, &(0..10).collect::<Vec<_>>());
    table.prepare().unwrap();
    assert_eq!(table.chunk_count(), 1, "not yet half full");
    define(&table, &(10..150).collect::<Vec<_>>());
    table.prepare().unwrap();
    table.prepare().unwrap();
    assert_eq!(table.chunk_count(), 2);
    drop(table);
    // What was made ahead is neither gone on with before its time nor made twice.
    let table = open(dir.path());
    define(&table, &(150..160).collect::<Vec<_>>());
    table.prepare().unwrap();
    let used = |table: &SeriesTable| -> Vec<bool> {
        let chunks = table.arena.chunks(&epoch::pin());
        chunks.iter().map(|(_, c)| c.used_bytes() > 0).collect()
    };
    assert_eq!(used(&table), [true, false]);
    define(&table, &(160..400).collect::<Vec<_>>());
    assert_eq!(used(&table), [true, true]);
}

#[test]
fn a_walk_meets_every_live_series_once() {
    let dir = tempfile::tempdir().unwrap();
    let table = open(dir.path());
    let numbers: Vec<u32> = (0..3000).collect();
    let refs = define(&table, &numbers);
    let seen = |series: SeriesRef| &table.seen.as_slice()[series.index()];
    seen(refs[5]).store(DEAD, Ordering::Release);
    seen(refs[2500]).store(FREE, Ordering::Release);
    let mut met = Vec::new();
    table.for_each_live(|series, labels| met.push((series, labels.to_vec())));
    let pairs = refs.iter().zip(&numbers);
    let live = pairs.filter(|(_, n)| **n != 5 && **n != 2500);
    let expected: Vec<_> = live.map(|(series, n)| (*series, labels(*n))).collect();
    assert_eq!(met, expected);
}
