//! A strict start refuses what a salvaging one sets aside, and touches nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::common::{HastyDisk, define, open, options, read_all, scratch};
use wal::{Error, Recovery, Sample, Store, StoreOptions};

fn open_strictly(dir: &Path) -> Result<Store, Error> {
    let strict = StoreOptions {
        recovery: Recovery::Strict,
        ..options(Arc::new(HastyDisk))
    };
    Store::open(dir, strict)
}

/// A store with three frames, killed.
fn written(dir: &Path) {
    let store = open(dir);
    store.endpoint("one").unwrap();
    let series = define(&store, &[1]).unwrap()[0];
    let mut committer = store.committer().unwrap();
    for timestamp_ms in 0..3 {
        let sample = Sample {
            series,
            timestamp_ms,
            value_bits: 7,
        };
        store.writer().unwrap().append(&[sample], &[]).unwrap();
        committer.commit_now().unwrap();
    }
}

fn files(dir: &Path, all: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, all);
        } else {
            all.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
}

fn snapshot(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    files(dir, &mut all);
    all
}

fn change_byte(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_rotten_byte_refuses_a_strict_start_by_file_and_offset_and_changes_nothing() {
    for (file, at, offset) in [
        ("segments/00000000.seg", 4096 + 64, "offset 4096"),
        ("series/00000000.chunk", 4096 + 30, "offset 4096"),
        // The first save goes to the second slot.
        ("positions/one", 512 + 20, "offset 512"),
    ] {
        let dir = scratch();
        written(dir.path());
        let path = dir.path().join(file);
        change_byte(&path, at);
        let before = snapshot(dir.path());
        let refused = open_strictly(dir.path()).unwrap_err();
        let text = refused.to_string();
        assert!(matches!(refused, Error::Corrupt { .. }), "{text}");
        assert!(text.contains(file) && text.contains(offset), "{text}");
        assert_eq!(snapshot(dir.path()), before, "{file}");
        // The same is salvaged otherwise.
        open(dir.path());
    }
}

#[test]
fn what_an_interrupted_run_was_writing_does_not_refuse_a_strict_start() {
    let dir = scratch();
    written(dir.path());
    // The last frame is torn: nothing proves that it was acknowledged.
    let path = dir.path().join("segments/00000000.seg");
    let bytes = std::fs::read(&path).unwrap();
    let last = bytes.iter().rposition(|&b| b != 0).unwrap();
    change_byte(&path, last);
    let store = open_strictly(dir.path()).unwrap();
    let found = read_all(&store, &mut store.endpoint("one").unwrap().tail());
    assert_eq!(found.len(), 2);
    drop(store);
    open_strictly(dir.path()).unwrap();
    open_strictly(&dir.path().join("a new one")).unwrap();
}
