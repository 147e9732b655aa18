//! Fails each disk operation in turn and proves: no crash, no false acknowledgement, nothing lost.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::{HastyDisk, Named, ack_all, define, named, open, options, read_all, scratch};
use wal::fs::{Disk, DiskFile};
use wal::{Error, Sample, Store};

/// Which operation fails, and how.
#[derive(Debug)]
struct FaultyDisk {
    done: AtomicU64,
    /// The first operation to fail and the first not to fail any more.
    fails: std::ops::Range<u64>,
    kind: io::ErrorKind,
}

impl FaultyDisk {
    fn pass(&self) -> io::Result<()> {
        let number = self.done.fetch_add(1, Ordering::Relaxed);
        if self.fails.contains(&number) {
            Err(self.kind.into())
        } else {
            Ok(())
        }
    }
}

impl Disk for FaultyDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        HastyDisk.create_dir(dir)
    }
    fn create(&self, path: &Path, bytes: u64) -> io::Result<DiskFile> {
        self.pass()?;
        HastyDisk.create(path, bytes)
    }
    fn open(&self, path: &Path) -> io::Result<DiskFile> {
        self.pass()?;
        HastyDisk.open(path)
    }
    fn read_at(&self, file: &DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        HastyDisk.read_at(file, buffer, offset)
    }
    fn write_at(&self, file: &DiskFile, bytes: &[u8], offset: u64) -> io::Result<usize> {
        // Half of it arrives.
        if let Err(e) = self.pass() {
            HastyDisk.write_all_at(file, &bytes[..bytes.len() / 2], offset)?;
            return Err(e);
        }
        HastyDisk.write_at(file, bytes, offset)
    }
    fn sync(&self, file: &DiskFile) -> io::Result<()> {
        self.pass()?;
        HastyDisk.sync(file)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.pass()?;
        HastyDisk.sync_dir(dir)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.pass()?;
        HastyDisk.remove(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.pass()?;
        HastyDisk.rename(from, to)
    }
}

const ROUNDS: i64 = 20;
const SAMPLES: u32 = 1200;
/// After this round, everything was delivered.
const DELIVERED: i64 = 8;

/// What a run under faults acknowledged, and how many operations it made.
struct Outcome {
    acked: Vec<Named>,
    /// How many of them were delivered.
    delivered: usize,
    refused: usize,
    poisoned: bool,
    operations: u64,
}

/// [`ROUNDS`] requests that grow the series, cross segments, deliver and reclaim.
fn run(dir: &Path, fails: std::ops::Range<u64>, kind: io::ErrorKind) -> Result<Outcome, Error> {
    let disk = Arc::new(FaultyDisk {
        done: AtomicU64::new(0),
        fails,
        kind,
    });
    let store = Store::open(dir, options(disk.clone()))?;
    let endpoint = store.endpoint("one")?;
    store.endpoints_complete();
    let mut tail = endpoint.tail();
    let mut committer = store.committer().unwrap();
    let mut writer = store.writer()?;
    let mut outcome = Outcome {
        acked: vec![],
        delivered: 0,
        refused: 0,
        poisoned: false,
        operations: 0,
    };
    for round in 0..ROUNDS {
        let first = u32::try_from(round).unwrap() * 10;
        let numbers: Vec<u32> = (first..first + SAMPLES).collect();
        let appended = define(&store, &numbers).and_then(|refs| {
            let sample = |series| Sample {
                series,
                timestamp_ms: round,
                value_bits: 1,
            };
            let batch: Vec<_> = refs.into_iter().map(sample).collect();
            writer.append(&batch, &[]).map(|_| batch)
        });
        let committed = committer.commit_now();
        match (appended, committed) {
            (Ok(batch), Ok(_)) => outcome.acked.extend(batch.iter().map(|s| named(&store, s))),
            (_, Err(e)) | (Err(e), _) => {
                outcome.refused += 1;
                outcome.poisoned |= e.is_poisoned() || matches!(e, Error::Io { .. });
            }
        }
        if round == DELIVERED {
            read_all(&store, &mut tail);
            ack_all(&endpoint, &mut tail);
            outcome.delivered = outcome.acked.len();
        }
        store.keep();
    }
    drop(committer);
    store.close();
    outcome.operations = disk.done.load(Ordering::Relaxed);
    Ok(outcome)
}

/// Everything acknowledged is there after a start on a healthy disk, unless it was delivered.
fn check(dir: &Path, outcome: &Outcome, what: &str) {
    let store = open(dir);
    let found = read_all(&store, &mut store.endpoint("one").unwrap().tail());
    let have: std::collections::BTreeSet<_> = found.iter().collect();
    let owed = &outcome.acked[outcome.delivered..];
    let missing = owed.iter().filter(|s| !have.contains(s)).count();
    assert_eq!(missing, 0, "{what}");
    assert_eq!(store.lost_bytes(), BTreeMap::new(), "{what}");
}

#[test]
fn any_failing_operation_refuses_or_poisons_but_loses_nothing() {
    let dir = scratch();
    let healthy = run(dir.path(), 0..0, io::ErrorKind::Other).unwrap();
    let all = usize::try_from(ROUNDS).unwrap() * SAMPLES as usize;
    assert_eq!((healthy.refused, healthy.acked.len()), (0, all));
    let mut poisoned = 0;
    for at in 0..healthy.operations {
        let kind = if at % 2 == 0 {
            io::ErrorKind::StorageFull
        } else {
            io::ErrorKind::Other
        };
        let dir = scratch();
        let what = format!("operation {at} fails with {kind:?}");
        // A start that fails says so; the next one is whole.
        let Ok(outcome) = run(dir.path(), at..at + 1, kind) else {
            continue;
        };
        assert!(outcome.refused > 0 || outcome.acked.len() == all, "{what}");
        poisoned += usize::from(outcome.poisoned);
        check(dir.path(), &outcome, &what);
    }
    assert!(poisoned > 0, "some operations are commits");
}

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
