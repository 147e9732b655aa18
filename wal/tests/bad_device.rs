//! A device that makes files and refuses to write to them is tried again without filling it.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::{HastyDisk, define, open, options, read_all, scratch};
use wal::fs::{Disk, DiskFile};
use wal::{Sample, Store};

/// Takes no frames while it is told so; headers it takes.
#[derive(Debug, Default)]
struct StubbornDisk {
    refuses: AtomicBool,
}

impl Disk for StubbornDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        HastyDisk.create_dir(dir)
    }
    fn create(&self, path: &Path, bytes: u64) -> io::Result<DiskFile> {
        HastyDisk.create(path, bytes)
    }
    fn open(&self, path: &Path) -> io::Result<DiskFile> {
        HastyDisk.open(path)
    }
    fn read_at(&self, file: &DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        HastyDisk.read_at(file, buffer, offset)
    }
    fn write_at(&self, file: &DiskFile, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let is_frame = file.path().extension().is_some_and(|e| e == "seg") && offset > 0;
        if is_frame && self.refuses.load(Ordering::Relaxed) {
            return Err(io::Error::from_raw_os_error(5));
        }
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

fn files(dir: &Path) -> usize {
    std::fs::read_dir(dir.join("segments")).unwrap().count()
}

#[test]
fn many_tries_of_a_bad_device_cost_one_file() {
    let dir = scratch();
    let disk = Arc::new(StubbornDisk::default());
    let store = Store::open(dir.path(), options(disk.clone())).unwrap();
    let endpoint = store.endpoint("one").unwrap();
    let mut committer = store.committer().unwrap();
    let mut writer = store.writer().unwrap();
    let series = define(&store, &[1]).unwrap()[0];
    let mut append = |timestamp_ms| {
        let sample = Sample {
            series,
            timestamp_ms,
            value_bits: 3,
        };
        writer.append(&[sample], &[])
    };
    append(1).unwrap();
    committer.commit_now().unwrap();
    let before = files(dir.path());
    disk.refuses.store(true, Ordering::Relaxed);
    append(2).unwrap();
    for _ in 0..50 {
        assert!(committer.commit_now().is_err());
        assert!(append(9).unwrap_err().is_full(), "the store is stalled");
    }
    assert_eq!(files(dir.path()), before + 1);
    disk.refuses.store(false, Ordering::Relaxed);
    committer.commit_now().unwrap();
    append(3).unwrap();
    committer.commit_now().unwrap();
    let all = read_all(&store, &mut endpoint.tail());
    let times: Vec<i64> = all
        .iter()
        .map(|(_, timestamp_ms, _)| *timestamp_ms)
        .collect();
    assert_eq!(times, [1, 2, 3]);
    drop((store, committer, endpoint, writer));
    let store = open(dir.path());
    assert_eq!(
        read_all(&store, &mut store.endpoint("one").unwrap().tail()),
        all
    );
}
