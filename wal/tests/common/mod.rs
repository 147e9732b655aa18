//! Shared by the log's tests: a store driven by hand, and label sets for it.
pub(crate) mod faulty;
pub(crate) mod journal;
pub(crate) mod life;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wal::fs::{Disk, DiskFile, SystemDisk};
use wal::{
    Clock, Endpoint, NewSeries, Random, Sample, SeriesRef, Store, StoreOptions, Tail, Tally,
};

/// A directory in memory where there is one: these tests write much and keep nothing.
pub(crate) fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    };
    tempfile::tempdir_in(parent).unwrap()
}

/// The disk of the machine without the wait for syncs: these tests cut no real power.
#[derive(Debug)]
pub(crate) struct HastyDisk;

impl Disk for HastyDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(dir)
    }
    fn create(&self, path: &Path, bytes: u64) -> io::Result<DiskFile> {
        SystemDisk.create(path, bytes)
    }
    fn open(&self, path: &Path) -> io::Result<DiskFile> {
        SystemDisk.open(path)
    }
    fn read_at(&self, file: &DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        SystemDisk.read_at(file, buffer, offset)
    }
    fn write_at(&self, file: &DiskFile, bytes: &[u8], offset: u64) -> io::Result<usize> {
        SystemDisk.write_at(file, bytes, offset)
    }
    fn sync(&self, _: &DiskFile) -> io::Result<()> {
        Ok(())
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        SystemDisk.remove(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        SystemDisk.rename(from, to)
    }
}

/// A clock that stands still unless it is told otherwise.
#[derive(Debug, Default)]
pub(crate) struct TestClock {
    unix_ms: AtomicI64,
    monotonic_ms: AtomicI64,
}

impl TestClock {
    /// Some time after the epoch.
    pub(crate) fn shared() -> Arc<Self> {
        let clock = Self::default();
        clock.jump(1_700_000_000_000);
        Arc::new(clock)
    }

    /// Time goes by.
    pub(crate) fn pass(&self, time: Duration) {
        let ms = i64::try_from(time.as_millis()).unwrap();
        self.unix_ms.fetch_add(ms, Ordering::Relaxed);
        self.monotonic_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// Somebody sets the wall clock.
    pub(crate) fn jump(&self, ms: i64) {
        self.unix_ms.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn unix_ms(&self) -> i64 {
        self.unix_ms.load(Ordering::Relaxed)
    }
    fn monotonic(&self) -> Duration {
        let ms = self.monotonic_ms.load(Ordering::Relaxed);
        Duration::from_millis(u64::try_from(ms).unwrap())
    }
}

/// Chance that can be repeated.
#[derive(Debug)]
pub(crate) struct TestRandom(Mutex<fastrand::Rng>);

impl TestRandom {
    pub(crate) fn shared(seed: u64) -> Arc<Self> {
        Arc::new(Self(Mutex::new(fastrand::Rng::with_seed(seed))))
    }
}

impl Random for TestRandom {
    fn next_u64(&self) -> u64 {
        self.0.lock().unwrap().u64(..)
    }
}

/// Small files, so that a short run crosses many of them; no threads.
pub(crate) fn options(disk: Arc<dyn Disk>) -> StoreOptions {
    StoreOptions {
        segment_bytes: 64 << 10,
        ring_bytes: 128 << 10,
        series_chunk_bytes: 8 << 10,
        series_max: 100_000,
        max_disk_bytes: Some(64 << 20),
        disk,
        manual: true,
        ..StoreOptions::default()
    }
}

pub(crate) fn open(dir: &Path) -> Store {
    let store = Store::open(dir, options(Arc::new(HastyDisk))).unwrap();
    store.endpoints_complete();
    store
}

pub(crate) fn labels(n: u32) -> Vec<u8> {
    format!("the labels of series {n:06} and some more text to fill chunks").into_bytes()
}

/// The refs of series `numbers`, defined if need be.
pub(crate) fn define(store: &Store, numbers: &[u32]) -> Result<Vec<SeriesRef>, wal::Error> {
    let table = store.series();
    let all: Vec<_> = numbers.iter().map(|&n| labels(n)).collect();
    let mut new: Vec<_> = all
        .iter()
        .map(|labels| NewSeries {
            hash: table.hash(labels),
            labels,
            series: SeriesRef::NONE,
        })
        .collect();
    table.guard().define(&mut new)?;
    Ok(new.iter().map(|new| new.series).collect())
}

/// A sample as its series' labels instead of its ref, comparable across restarts.
pub(crate) type Named = (Vec<u8>, i64, u64);

pub(crate) fn named(store: &Store, sample: &Sample) -> Named {
    (
        store.series().guard().labels(sample.series).to_vec(),
        sample.timestamp_ms,
        sample.value_bits,
    )
}

/// Everything before the tail was delivered, but for what it found lost.
pub(crate) fn ack_all(endpoint: &Endpoint, tail: &mut Tail) {
    let mut tally = tail.take_lost();
    let mark = tail.mark();
    tally += Tally::of_delivered(mark.records - endpoint.mark().records - tally.total());
    endpoint.ack(mark, tally);
}

/// Everything a tail has left.
pub(crate) fn read_all(store: &Store, tail: &mut Tail) -> Vec<Named> {
    let mut all = Vec::new();
    let mut samples = Vec::new();
    while let Some(frame) = tail.next().unwrap() {
        samples.clear();
        frame.samples(&mut samples).unwrap();
        all.extend(samples.iter().map(|sample| named(store, sample)));
    }
    all
}
