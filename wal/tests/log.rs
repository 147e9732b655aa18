//! The log as its users see it: order, restarts, rotten bytes, quota, both io engines.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::common::{
    HastyDisk, Named, TestClock, ack_all, define, named, open, options, read_all, scratch,
};
use wal::{
    Error, IoEngine, Position, RawRecord, RecordKind, Sample, SeriesRef, Store, StoreOptions,
};

fn samples(store: &Store, numbers: &[u32], timestamp_ms: i64) -> Vec<Sample> {
    define(store, numbers)
        .unwrap()
        .into_iter()
        .map(|series| Sample {
            series,
            timestamp_ms,
            value_bits: 0x4059_0000_0000_0000,
        })
        .collect()
}

/// Appends and commits requests of 500 samples, one per timestamp; what the tail should find.
fn fill(store: &Store, timestamps: std::ops::Range<i64>) -> Vec<Named> {
    let mut writer = store.writer().unwrap();
    let mut committer = store.committer().unwrap();
    let numbers: Vec<u32> = (0..500).collect();
    let mut all = Vec::new();
    for timestamp_ms in timestamps {
        let batch = samples(store, &numbers, timestamp_ms);
        writer.append(&batch, &[]).unwrap();
        committer.commit_now().unwrap();
        store.keep();
        all.extend(batch.iter().map(|sample| named(store, sample)));
    }
    all
}

fn segment_files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(dir.join("segments"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension() == Some("seg".as_ref()))
        .collect();
    files.sort();
    files
}

#[test]
fn a_second_process_is_kept_out_with_a_clear_message() {
    let dir = scratch();
    let store = open(dir.path());
    let error = Store::open(dir.path(), options(Arc::new(HastyDisk))).unwrap_err();
    let lock = dir.path().join("LOCK");
    assert_eq!(
        error.to_string(),
        format!("{} is in use by another process", lock.display())
    );
    drop(store);
    open(dir.path());
}

#[test]
fn the_tail_reads_across_segments_and_a_restart_resumes_at_the_acked_frame() {
    let dir = scratch();
    let store = open(dir.path());
    let endpoint = store.endpoint("one").unwrap();
    let all = fill(&store, 0..300);
    assert!(segment_files(dir.path()).len() > 5);
    let mut tail = endpoint.tail();
    let mut count = 0;
    while count < 120 {
        count += 1;
        tail.next().unwrap().unwrap();
    }
    ack_all(&endpoint, &mut tail);
    store.close();
    drop((tail, endpoint, store));
    let store = open(dir.path());
    let endpoint = store.endpoint("one").unwrap();
    let (mut tail, mut bytes) = (endpoint.tail(), 0);
    while let Some(frame) = tail.next().unwrap() {
        bytes += frame.end().bytes_since(frame.position());
    }
    // The rest of segments is no more than a frame each; what the stop left unused does not count.
    let lag = endpoint.lag_bytes();
    assert!((bytes..bytes + 20_000).contains(&lag), "{lag} for {bytes}");
    let found = read_all(&store, &mut endpoint.tail());
    assert!(found == all[120 * 500..]);
}

#[test]
fn acked_segments_are_removed_and_an_endpoint_behind_keeps_its_own() {
    let dir = scratch();
    let store = open(dir.path());
    let (fast, slow) = (
        store.endpoint("fast").unwrap(),
        store.endpoint("slow").unwrap(),
    );
    let all = fill(&store, 0..300);
    let before = segment_files(dir.path()).len();
    let mut tail = fast.tail();
    assert!(read_all(&store, &mut tail) == all);
    ack_all(&fast, &mut tail);
    store.keep();
    assert_eq!(segment_files(dir.path()).len(), before);
    let mut tail = slow.tail();
    read_all(&store, &mut tail);
    ack_all(&slow, &mut tail);
    store.keep();
    // The one in use and those prepared ahead.
    assert!(segment_files(dir.path()).len() <= 3);
    assert_eq!(store.lost_bytes(), BTreeMap::new());
}

#[test]
fn a_rotten_byte_costs_its_frame_only_and_is_accounted_once() {
    for in_body in [false, true] {
        let dir = scratch();
        let store = open(dir.path());
        store.endpoint("one").unwrap();
        let all = fill(&store, 0..300);
        let mut tail = store.endpoint("one").unwrap().tail();
        let mut ends = vec![];
        while let Some(frame) = tail.next().unwrap() {
            ends.push((frame.position(), frame.end()));
        }
        store.close();
        drop((tail, store));
        // The 100th frame, in the file where it stands.
        let (position, end) = ends[100];
        let (file, offset) = (position.get() / (64 << 10), position.get() % (64 << 10));
        let path = dir.path().join(format!("segments/{file:08}.seg"));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[usize::try_from(offset).unwrap() + if in_body { 300 } else { 12 }] ^= 4;
        std::fs::write(&path, bytes).unwrap();

        let store = open(dir.path());
        for name in ["one", "two"] {
            let found = read_all(&store, &mut store.endpoint(name).unwrap().tail());
            let expected: Vec<_> = [&all[..100 * 500], &all[101 * 500..]].concat();
            assert!(
                found == expected,
                "{} found, in_body {in_body}",
                found.len()
            );
        }
        let lost = BTreeMap::from([("corrupt_frame".to_owned(), end.bytes_since(position))]);
        assert_eq!(store.lost_bytes(), lost);
        assert_eq!(
            std::fs::read_dir(dir.path().join("quarantine"))
                .unwrap()
                .count(),
            1
        );
    }
}

/// The frames of one group commit know nothing of each other's durability: nothing proves that the
/// first was acknowledged, but the others are whole.
#[test]
fn a_rotten_frame_in_the_last_group_leaves_the_others_of_the_group() {
    let dir = scratch();
    let store = open(dir.path());
    store.endpoint("one").unwrap();
    let mut writer = store.writer().unwrap();
    let all: Vec<_> = (0..3).map(|t| samples(&store, &[1, 2, 3], t)).collect();
    for batch in &all {
        writer.append(batch, &[]).unwrap();
    }
    store.committer().unwrap().commit_now().unwrap();
    let expected: Vec<_> = all[1..]
        .iter()
        .flatten()
        .map(|s| named(&store, s))
        .collect();
    drop((writer, store));
    let path = &segment_files(dir.path())[0];
    let mut bytes = std::fs::read(path).unwrap();
    bytes[4096 + 70] ^= 1;
    std::fs::write(path, bytes).unwrap();
    let store = open(dir.path());
    assert!(read_all(&store, &mut store.endpoint("one").unwrap().tail()) == expected);
    assert_eq!(
        std::fs::read_dir(dir.path().join("quarantine"))
            .unwrap()
            .count(),
        1
    );
}

#[test]
fn new_series_do_not_grow_the_disk_beyond_the_quota() {
    let dir = scratch();
    let quota = StoreOptions {
        max_disk_bytes: Some(400 << 10),
        ..options(Arc::new(HastyDisk))
    };
    let store = Store::open(dir.path(), quota).unwrap();
    store.keep();
    let mut first = 0;
    let error = loop {
        match define(&store, &(first..first + 100).collect::<Vec<_>>()) {
            Ok(_) => first += 100,
            Err(e) => break e,
        }
        assert!(
            store.disk_bytes().0 <= 400 << 10,
            "{} bytes",
            store.disk_bytes().0
        );
    };
    assert!(error.is_full(), "{error}");
    // Known series go on.
    define(&store, &[0, 1, 2]).unwrap();
}

#[test]
fn the_smallest_quota_has_room_for_data() {
    let dir = scratch();
    // As by default, a chunk takes as much as a segment.
    let mut quota = options(Arc::new(HastyDisk));
    quota.series_chunk_bytes = quota.segment_bytes;
    let smallest = quota.disk_bytes_least();
    quota.max_disk_bytes = Some(smallest);
    let store = Store::open(dir.path(), quota).unwrap();
    let batch = samples(&store, &[1, 2, 3], 1);
    store.writer().unwrap().append(&batch, &[]).unwrap();
    assert!(store.disk_bytes().0 <= smallest);
}

#[test]
fn a_quota_that_holds_nothing_is_refused_at_once() {
    let dir = scratch();
    let quota = StoreOptions {
        max_disk_bytes: Some(100 << 10),
        ..options(Arc::new(HastyDisk))
    };
    let error = Store::open(dir.path(), quota).unwrap_err();
    assert!(matches!(error, Error::Options(_)), "{error}");
}

#[test]
fn a_rotten_series_record_costs_that_series_only() {
    let dir = scratch();
    let store = open(dir.path());
    store.endpoint("one").unwrap();
    let all = fill(&store, 0..3);
    store.close();
    drop(store);
    let path = dir.path().join("series/00000000.chunk");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4096 + 50] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let store = open(dir.path());
    assert_eq!(store.series().len(), 499);
    let found = read_all(&store, &mut store.endpoint("one").unwrap().tail());
    assert_eq!(
        found
            .iter()
            .filter(|(labels, ..)| labels.is_empty())
            .count(),
        3
    );
    assert!(
        found
            .iter()
            .filter(|f| !f.0.is_empty())
            .all(|f| all.contains(f))
    );
    // The ref of the broken record is not given to another series.
    let fresh = define(&store, &[0, 9999]).unwrap();
    assert!(fresh.iter().all(|series| series.get() > 500), "{fresh:?}");
}

#[test]
fn the_quota_refuses_and_taking_goes_on_once_there_is_room() {
    let dir = scratch();
    let quota = StoreOptions {
        max_disk_bytes: Some(512 << 10),
        ..options(Arc::new(HastyDisk))
    };
    let store = Store::open(dir.path(), quota).unwrap();
    let endpoint = store.endpoint("one").unwrap();
    store.endpoints_complete();
    let mut writer = store.writer().unwrap();
    let mut committer = store.committer().unwrap();
    let batch = samples(&store, &(0..500).collect::<Vec<_>>(), 1);
    let mut taken = 0;
    let error = loop {
        store.keep();
        match writer.append(&batch, &[]) {
            Ok(_) => taken += batch.len(),
            Err(e) => break e,
        }
        committer.commit_now().unwrap();
    };
    assert!(error.is_full(), "{error}");
    assert!(store.disk_bytes().0 <= 512 << 10);
    let mut tail = endpoint.tail();
    assert_eq!(read_all(&store, &mut tail).len(), taken);
    ack_all(&endpoint, &mut tail);
    store.keep();
    writer.append(&batch, &[]).unwrap();
    committer.commit_now().unwrap();
    assert_eq!(read_all(&store, &mut tail).len(), batch.len());
}

#[test]
fn a_ring_that_is_not_emptied_refuses() {
    let dir = scratch();
    let store = open(dir.path());
    let mut writer = store.writer().unwrap();
    let batch = samples(&store, &(0..2000).collect::<Vec<_>>(), 1);
    assert!(!writer.is_behind());
    let error = (0..100)
        .find_map(|_| writer.append(&batch, &[]).err())
        .unwrap();
    assert!(matches!(error, Error::Full { .. }), "{error}");
    assert!(writer.is_behind());
    let mut committer = store.committer().unwrap();
    committer.commit_now().unwrap();
    assert!(!writer.is_behind());
    store.keep();
    writer.append(&batch, &[]).unwrap();
}

#[test]
fn a_request_larger_than_a_frame_is_appended_whole() {
    let dir = scratch();
    let store = open(dir.path());
    let endpoint = store.endpoint("one").unwrap();
    let mut batch = samples(&store, &(0..3000).collect::<Vec<_>>(), 1);
    for (at, sample) in batch.iter_mut().enumerate() {
        sample.timestamp_ms = i64::try_from(at).unwrap() * 1_000_003;
        sample.value_bits = u64::MAX - at as u64;
    }
    let blob = vec![7; 5000];
    let series = batch[5].series;
    let raw: Vec<_> = (0..4)
        .map(|_| RawRecord {
            series,
            kind: RecordKind::Histogram,
            bytes: &blob,
        })
        .chain([RawRecord {
            series: SeriesRef::NONE,
            kind: RecordKind::Metadata,
            bytes: b"m",
        }])
        .collect();
    store.writer().unwrap().append(&batch, &raw).unwrap();
    store.committer().unwrap().commit_now().unwrap();
    let mut tail = endpoint.tail();
    let (mut found, mut found_raw, mut frames) = (Vec::new(), Vec::new(), 0);
    while let Some(frame) = tail.next().unwrap() {
        frames += 1;
        let records = frame.samples(&mut found).unwrap().map(Result::unwrap);
        found_raw.extend(records.map(|r| (r.series, r.kind, r.bytes.to_vec())));
    }
    assert!(frames > 1);
    assert_eq!(found, batch);
    let expected: Vec<_> = raw
        .iter()
        .map(|r| (r.series, r.kind, r.bytes.to_vec()))
        .collect();
    assert_eq!(found_raw, expected);
    // What can never fit is told so, and nothing of it is appended.
    let huge = vec![0; 200 << 10];
    let record = RawRecord {
        series,
        kind: RecordKind::Exemplar,
        bytes: &huge,
    };
    assert!(
        store
            .writer()
            .unwrap()
            .append(&batch, &[record])
            .unwrap_err()
            .is_too_large()
    );
}

#[test]
fn segments_removed_by_hand_are_a_loss_in_the_ledger_not_a_stop() {
    let dir = scratch();
    let store = open(dir.path());
    store.endpoint("one").unwrap();
    let all = fill(&store, 0..100);
    store.close();
    drop(store);
    std::fs::remove_file(&segment_files(dir.path())[0]).unwrap();
    let store = open(dir.path());
    let found = read_all(&store, &mut store.endpoint("one").unwrap().tail());
    assert!(found.len() < all.len() && found[..] == all[all.len() - found.len()..]);
    assert!(store.lost_bytes().contains_key("missing_segment"));
}

/// Several writers on threads, the committer on the engine, a tail that follows.
async fn follow_while_writing(store: &Store) -> usize {
    let endpoint = store.endpoint("one").unwrap();
    let writers: Vec<_> = (0..4)
        .map(|thread| {
            let store = store.clone();
            std::thread::Builder::new()
                .spawn(move || {
                    let numbers: Vec<u32> = (thread * 100..thread * 100 + 100).collect();
                    let mut writer = store.writer().unwrap();
                    let mut last = Position::ZERO;
                    for timestamp_ms in 0..200 {
                        let batch = samples(&store, &numbers, timestamp_ms);
                        last = loop {
                            match writer.append(&batch, &[]) {
                                Ok(end) => break end,
                                Err(e) => assert!(e.is_full(), "{e}"),
                            }
                            std::thread::yield_now();
                        };
                    }
                    last
                })
                .unwrap()
        })
        .collect();
    let mut durable = store.durable();
    let mut tail = endpoint.tail();
    let mut newest: BTreeMap<Vec<u8>, i64> = BTreeMap::new();
    let mut count = 0;
    while count < 4 * 100 * 200 {
        durable.changed_past(tail.position()).await.unwrap();
        for (labels, timestamp_ms, _) in read_all(store, &mut tail) {
            let before = newest.insert(labels, timestamp_ms);
            assert!(
                before.is_none_or(|before| before + 1 == timestamp_ms),
                "order per series"
            );
            count += 1;
        }
        ack_all(&endpoint, &mut tail);
    }
    for writer in writers {
        let last = writer.join().unwrap();
        durable.reached(last).await.unwrap();
    }
    count
}

fn threaded(dir: &Path) -> Store {
    let small = StoreOptions {
        manual: false,
        ring_bytes: 1 << 20,
        ..options(Arc::new(HastyDisk))
    };
    Store::open(dir, small).unwrap()
}

#[test]
fn nothing_is_removed_before_every_endpoint_was_named() {
    let dir = scratch();
    let store = open(dir.path());
    let (fast, _slow) = (
        store.endpoint("fast").unwrap(),
        store.endpoint("slow").unwrap(),
    );
    let all = fill(&store, 0..100);
    let mut tail = fast.tail();
    read_all(&store, &mut tail);
    ack_all(&fast, &mut tail);
    store.close();
    drop((fast, _slow, tail, store));
    let store = Store::open(dir.path(), options(Arc::new(HastyDisk))).unwrap();
    store.keep();
    store.endpoint("fast").unwrap();
    store.keep();
    let slow = store.endpoint("slow").unwrap();
    store.endpoints_complete();
    store.keep();
    assert!(read_all(&store, &mut slow.tail()) == all);
    // One that is named no more holds nothing back.
    drop((slow, store));
    let store = Store::open(dir.path(), options(Arc::new(HastyDisk))).unwrap();
    store.endpoint("fast").unwrap();
    store.endpoints_complete();
    let before = segment_files(dir.path()).len();
    store.keep();
    assert!(segment_files(dir.path()).len() < before);
}

#[test]
fn one_that_comes_alone_after_a_crowd_is_committed_also_where_time_stands_still() {
    let dir = scratch();
    let options = StoreOptions {
        clock: TestClock::shared(),
        ..options(Arc::new(HastyDisk))
    };
    let store = Store::open(dir.path(), options).unwrap();
    store.keep();
    let mut writer = store.writer().unwrap();
    let batch = samples(&store, &[1], 1000);
    let crowd: Vec<_> = (0..8)
        .map(|_| writer.append(&batch, &[]).unwrap())
        .collect();
    let thread = store.committer().unwrap().spawn_thread().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut durable = store.durable();
    runtime.block_on(durable.reached(crowd[7])).unwrap();
    let alone = writer.append(&batch, &[]).unwrap();
    runtime.block_on(durable.reached(alone)).unwrap();
    store.close();
    thread.join().unwrap();
}

#[test]
fn many_writers_one_order_on_the_portable_engine() {
    let dir = scratch();
    let store = threaded(dir.path());
    let thread = store.committer().unwrap().spawn_thread().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    assert_eq!(runtime.block_on(follow_while_writing(&store)), 80_000);
    store.close();
    thread.join().unwrap();
}

#[test]
fn many_writers_one_order_on_io_uring() {
    if let (IoEngine::Portable, why) = IoEngine::probe() {
        println!("skipped: {}", why.unwrap_or_default());
        return;
    }
    let dir = scratch();
    let store = threaded(dir.path());
    let committer = store.committer().unwrap();
    let closing = store.clone();
    tokio_uring::start(async move {
        let commits = tokio_uring::spawn(committer.run_uring());
        assert_eq!(follow_while_writing(&store).await, 80_000);
        let closer = std::thread::Builder::new()
            .spawn(move || closing.close())
            .unwrap();
        commits.await.unwrap();
        closer.join().unwrap();
    });
}
