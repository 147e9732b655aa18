//! A disk without room for new files refuses, and service resumes by itself.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::common::{HastyDisk, define, options, read_all, scratch};
use wal::fs::{Disk, DiskFile, SystemDisk};
use wal::{Sample, Store};

#[test]
fn a_full_disk_refuses_and_then_resumes() {
    let dir = scratch();
    // From the first segment beyond those prepared at the start on, creating fails for a while.
    let disk = Arc::new(ShyDisk::default());
    let store = Store::open(dir.path(), options(disk.clone())).unwrap();
    let endpoint = store.endpoint("one").unwrap();
    let mut committer = store.committer().unwrap();
    let mut writer = store.writer().unwrap();
    let refs = define(&store, &(0..500).collect::<Vec<_>>()).unwrap();
    disk.full.store(true, Ordering::Relaxed);
    let batch = |t| {
        refs.iter().map(move |&series| Sample {
            series,
            timestamp_ms: t,
            value_bits: 1,
        })
    };
    let mut taken = 0;
    for timestamp_ms in 0.. {
        store.keep();
        let batch: Vec<_> = batch(timestamp_ms).collect();
        match writer.append(&batch, &[]) {
            Ok(_) => taken += batch.len(),
            Err(e) => {
                assert!(e.is_full(), "{e}");
                break;
            }
        }
        committer.commit_now().unwrap();
    }
    assert_eq!(store.stats().out_of_space.load(Ordering::Relaxed), 1);
    // What was acknowledged drains meanwhile.
    let mut tail = endpoint.tail();
    assert_eq!(read_all(&store, &mut tail).len(), taken);
    disk.full.store(false, Ordering::Relaxed);
    store.keep();
    assert_eq!(store.stats().out_of_space.load(Ordering::Relaxed), 0);
    let batch: Vec<_> = batch(-1).collect();
    writer.append(&batch, &[]).unwrap();
    committer.commit_now().unwrap();
    assert_eq!(read_all(&store, &mut tail).len(), batch.len());
    assert!(store.failure().is_none());
}

/// A disk that has no room for new files while it is told so.
#[derive(Debug, Default)]
struct ShyDisk {
    full: std::sync::atomic::AtomicBool,
}

impl Disk for ShyDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        HastyDisk.create_dir(dir)
    }
    fn create(&self, path: &Path, bytes: u64) -> io::Result<DiskFile> {
        if self.full.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        HastyDisk.create(path, bytes)
    }
    fn open(&self, path: &Path) -> io::Result<DiskFile> {
        HastyDisk.open(path)
    }
    fn read_at(&self, file: &DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        HastyDisk.read_at(file, buffer, offset)
    }
    fn write_at(&self, file: &DiskFile, bytes: &[u8], offset: u64) -> io::Result<usize> {
        HastyDisk.write_at(file, bytes, offset)
    }
    fn sync(&self, file: &DiskFile) -> io::Result<()> {
        HastyDisk.sync(file)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        HastyDisk.sync_dir(dir)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        HastyDisk.remove(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        HastyDisk.rename(from, to)
    }
}

#[test]
fn restarts_while_an_endpoint_is_away_do_not_take_a_segment_each() {
    const RUNS: u64 = 20;
    // Not in memory: what is in the page cache must not count as taken.
    let dir = tempfile::tempdir().unwrap();
    let mut used = 0;
    for timestamp_ms in 0..i64::try_from(RUNS).unwrap() {
        // Not closed: each run ends like a killed process.
        let store = Store::open(dir.path(), options(Arc::new(SystemDisk))).unwrap();
        let endpoint = store.endpoint("away").unwrap();
        let refs = define(&store, &(0..10).collect::<Vec<_>>()).unwrap();
        let samples: Vec<_> = refs
            .iter()
            .map(|&series| Sample {
                series,
                timestamp_ms,
                value_bits: 1,
            })
            .collect();
        store.writer().unwrap().append(&samples, &[]).unwrap();
        store.committer().unwrap().commit_now().unwrap();
        used = store.disk_bytes().0;
        let all = read_all(&store, &mut endpoint.tail());
        assert_eq!(all.len(), 10 * (usize::try_from(timestamp_ms).unwrap() + 1));
    }
    let segment = options(Arc::new(SystemDisk)).segment_bytes;
    assert!(used < RUNS * segment / 2, "{used} bytes after {RUNS} runs");
}
