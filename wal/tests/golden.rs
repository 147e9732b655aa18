//! Reads the stores that released formats left behind, byte for byte as they were written.
//!
//! The directories under `tests/golden/` are never edited. A new format version adds one:
//! `PENSTOCK_WRITE_GOLDEN=v2 cargo test -p wal golden` writes it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::common::{ack_all, define, labels, open, scratch};
use wal::{RawRecord, RecordKind, Sample, SeriesRef, StartedSample, Store};

fn golden(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(version)
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_tree(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

/// What every golden store holds: frame `n` has these samples.
fn samples_of(refs: &[SeriesRef], n: i64) -> Vec<Sample> {
    let values = [0, 1, 0x4059_0000_0000_0000, 0x7ff0_0000_0000_0002, u64::MAX];
    let sample = |(at, &series): (usize, &SeriesRef)| Sample {
        series,
        timestamp_ms: 1_700_000_000_000 + n * 15_000 + i64::try_from(at % 3).unwrap(),
        value_bits: values[at % values.len()].wrapping_add(u64::try_from(n).unwrap()),
    };
    refs.iter().enumerate().map(sample).collect()
}

const FRAMES: i64 = 20;
/// The endpoint has acknowledged so many frames.
const ACKED: usize = 5;

/// Writes a store of today's format: two runs, so that one segment begins by a recovery.
fn write(dir: &Path) {
    for run in 0..2 {
        let store = open(dir);
        let endpoint = store.endpoint("the endpoint").unwrap();
        let refs = define(&store, &(0..60).collect::<Vec<_>>()).unwrap();
        let mut committer = store.committer().unwrap();
        for n in run * FRAMES / 2..(run + 1) * FRAMES / 2 {
            let exemplar = RawRecord {
                series: refs[1],
                kind: RecordKind::Exemplar,
                bytes: b"exemplar",
            };
            let metadata = RawRecord {
                series: SeriesRef::NONE,
                kind: RecordKind::Metadata,
                bytes: b"help",
            };
            let samples = samples_of(&refs, n);
            store
                .writer()
                .unwrap()
                .append(&samples, &[exemplar, metadata])
                .unwrap();
            committer.commit_now().unwrap();
        }
        let mut tail = endpoint.tail();
        for _ in 0..ACKED * usize::from(run == 0) {
            tail.next().unwrap().unwrap();
        }
        ack_all(&endpoint, &mut tail);
        drop(committer);
        store.close();
    }
    let loss = "1700000000000\t*\tcorrupt_frame\t10\t106\t7\t1\t2";
    let line = format!("{loss}\t{:08x}\n", crc32fast::hash(loss.as_bytes()));
    std::fs::write(dir.join("losses"), line).unwrap();
    std::fs::remove_file(dir.join("LOCK")).unwrap();
}

/// A store of one frame with a record of each kind that `v1` does not have, written with
/// `PENSTOCK_WRITE_GOLDEN=v1-kinds`.
const KINDS: &str = "v1-kinds";

const STARTED: StartedSample = StartedSample {
    timestamp_ms: 1_700_000_000_000,
    value_bits: 0x7ff0_0000_0000_0002,
    start_ms: 1_690_000_000_000,
};

fn write_kinds(dir: &Path) {
    let store = open(dir);
    let endpoint = store.endpoint("the endpoint").unwrap();
    let refs = define(&store, &[0]).unwrap();
    let record = |kind, bytes| RawRecord {
        series: refs[0],
        kind,
        bytes,
    };
    let started = STARTED.to_bytes();
    let records = [
        record(RecordKind::StartedSample, &started),
        record(RecordKind::Metadata, b"help"),
    ];
    store.writer().unwrap().append(&[], &records).unwrap();
    store.committer().unwrap().commit_now().unwrap();
    drop(endpoint);
    store.close();
    std::fs::remove_file(dir.join("LOCK")).unwrap();
}

/// The samples and raw records of a frame.
type Held = (Vec<Sample>, Vec<(RecordKind, Vec<u8>)>);

fn read(store: &Store) -> Vec<Held> {
    let mut tail = store.endpoint("the endpoint").unwrap().tail();
    let mut frames = Vec::new();
    while let Some(frame) = tail.next().unwrap() {
        let mut samples = Vec::new();
        let raw = frame.samples(&mut samples).unwrap().map(Result::unwrap);
        let raw = raw
            .map(|record| (record.kind, record.bytes.to_vec()))
            .collect();
        frames.push((samples, raw));
    }
    frames
}

#[test]
fn reads_format_v1() {
    if let Ok(version) = std::env::var("PENSTOCK_WRITE_GOLDEN") {
        match &*version {
            KINDS => write_kinds(&golden(KINDS)),
            _ => write(&golden(&version)),
        }
    }
    let dir = scratch();
    copy_tree(&golden("v1"), dir.path());
    let store = open(dir.path());
    let refs: Vec<SeriesRef> = (1..=60).map(SeriesRef::new).collect();
    for (n, series) in refs.iter().enumerate() {
        assert_eq!(
            store.series().guard().labels(*series),
            labels(u32::try_from(n).unwrap())
        );
    }
    let frames = read(&store);
    let first = i64::try_from(ACKED).unwrap();
    assert_eq!(frames.len(), usize::try_from(FRAMES - first).unwrap());
    for (n, (samples, raw)) in (first..).zip(&frames) {
        assert_eq!(*samples, samples_of(&refs, n));
        let exemplar = (RecordKind::Exemplar, b"exemplar".to_vec());
        assert_eq!(*raw, [exemplar, (RecordKind::Metadata, b"help".to_vec())]);
    }
    assert_eq!(
        store.lost_bytes(),
        BTreeMap::from([("corrupt_frame".to_owned(), 96)])
    );
}

#[test]
fn reads_the_kinds_that_came_later() {
    let dir = scratch();
    copy_tree(&golden(KINDS), dir.path());
    let store = open(dir.path());
    let mut tail = store.endpoint("the endpoint").unwrap().tail();
    let frame = tail.next().unwrap().unwrap();
    let records: Vec<_> = frame.samples(&mut Vec::new()).unwrap().collect();
    let [Ok(started), Ok(metadata)] = &*records else {
        panic!("{records:?}");
    };
    assert_eq!(started.kind, RecordKind::StartedSample);
    assert_eq!(StartedSample::from_bytes(started.bytes), Some(STARTED));
    assert_eq!(metadata.kind, RecordKind::Metadata);
    assert_eq!(metadata.series, SeriesRef::new(1));
}
