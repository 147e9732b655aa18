//! Stops a run at every disk operation and proves that what was acknowledged is recovered.
//!
//! The run goes through a disk that keeps a journal of what it was asked to do. For each prefix of
//! the journal the disk as it could be after a power cut is laid out afresh (what was synced is
//! there; of the rest each write and each name may or may not be, torn writes included), and the
//! real store opens it.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;

use common::{HastyDisk, Named, define, named, open, options, read_all};
use wal::fs::{Disk, DiskFile};
use wal::{Sample, Store};

#[derive(Clone, Debug)]
enum Op {
    Create(PathBuf, u64),
    Write(PathBuf, u64, Vec<u8>),
    Sync(PathBuf),
    SyncDir(PathBuf),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

/// Does what it is told and writes it down.
#[derive(Debug, Default)]
struct Journal {
    ops: Mutex<Vec<Op>>,
}

impl Journal {
    fn push(&self, op: Op) {
        self.ops.lock().unwrap().push(op);
    }

    fn len(&self) -> usize {
        self.ops.lock().unwrap().len()
    }
}

#[derive(Debug)]
struct JournalDisk(Arc<Journal>);

impl Disk for JournalDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        HastyDisk.create_dir(dir)
    }
    fn create(&self, path: &Path, bytes: u64) -> io::Result<DiskFile> {
        let file = HastyDisk.create(path, bytes)?;
        self.0.push(Op::Create(path.to_owned(), bytes));
        Ok(file)
    }
    fn open(&self, path: &Path) -> io::Result<DiskFile> {
        HastyDisk.open(path)
    }
    fn write_all_at(&self, file: &DiskFile, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0
            .push(Op::Write(file.path().to_owned(), offset, bytes.to_vec()));
        HastyDisk.write_all_at(file, bytes, offset)
    }
    fn sync(&self, file: &DiskFile) -> io::Result<()> {
        HastyDisk.sync(file)?;
        self.0.push(Op::Sync(file.path().to_owned()));
        Ok(())
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.push(Op::SyncDir(dir.to_owned()));
        Ok(())
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.push(Op::Remove(path.to_owned()));
        HastyDisk.remove(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.push(Op::Rename(from.to_owned(), to.to_owned()));
        HastyDisk.rename(from, to)
    }
}

/// What one file would hold after a power cut.
#[derive(Clone, Debug, Default)]
struct Image {
    synced: Vec<u8>,
    /// Writes since the last sync.
    loose: Vec<(u64, Vec<u8>)>,
    /// Whether its name is durable.
    named: bool,
}

/// How much of what was not synced survives the cut.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// A killed process: all of it.
    Kill,
    /// A power cut that takes all of it.
    PowerAll,
    /// A power cut that takes a random part, in any order, torn at any 512-byte sector.
    PowerSome(u64),
}

impl Cut {
    fn keeps(self, random: &mut fastrand::Rng) -> bool {
        match self {
            Self::Kill => true,
            Self::PowerAll => false,
            Self::PowerSome(_) => random.bool(),
        }
    }

    fn random(self) -> fastrand::Rng {
        fastrand::Rng::with_seed(if let Self::PowerSome(seed) = self {
            seed
        } else {
            0
        })
    }
}

fn patch(bytes: &mut [u8], offset: u64, with: &[u8]) {
    let at = usize::try_from(offset).unwrap();
    bytes[at..at + with.len()].copy_from_slice(with);
}

/// Lays out in `to` what a cut after `ops` leaves of the store in `from`.
fn lay_out(ops: &[Op], from: &Path, to: &Path, cut: Cut) {
    let mut random = cut.random();
    let mut files: BTreeMap<PathBuf, Image> = BTreeMap::new();
    // Names whose removal is not durable yet: the file may come back.
    let mut ghosts: BTreeMap<PathBuf, Image> = BTreeMap::new();
    for op in ops {
        match op {
            Op::Create(path, bytes) => {
                let synced = vec![0; usize::try_from(*bytes).unwrap()];
                files.insert(
                    path.clone(),
                    Image {
                        synced,
                        ..Image::default()
                    },
                );
            }
            Op::Write(path, offset, bytes) => {
                files
                    .get_mut(path)
                    .unwrap()
                    .loose
                    .push((*offset, bytes.clone()));
            }
            Op::Sync(path) => {
                let image = files.get_mut(path).unwrap();
                for (offset, bytes) in std::mem::take(&mut image.loose) {
                    patch(&mut image.synced, offset, &bytes);
                }
            }
            Op::SyncDir(dir) => {
                ghosts.retain(|path, _| path.parent() != Some(dir));
                for (path, image) in &mut files {
                    image.named |= path.parent() == Some(dir);
                }
            }
            Op::Remove(path) => {
                let image = files.remove(path).unwrap();
                ghosts.insert(path.clone(), image);
            }
            Op::Rename(path, new) => {
                let image = files.remove(path).unwrap();
                files.insert(new.clone(), image);
            }
        }
    }
    for (path, mut image) in files.into_iter().chain(ghosts.clone()) {
        let ghost = ghosts.contains_key(&path);
        if ghost && (matches!(cut, Cut::Kill) || !cut.keeps(&mut random)) {
            continue;
        }
        if !image.named && !cut.keeps(&mut random) {
            continue;
        }
        for (offset, bytes) in &image.loose {
            for (at, sector) in bytes.chunks(512).enumerate() {
                if cut.keeps(&mut random) {
                    patch(&mut image.synced, offset + at as u64 * 512, sector);
                }
            }
        }
        let path = to.join(path.strip_prefix(from).unwrap());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, image.synced).unwrap();
    }
}

/// One acknowledgement: after this many operations, these samples were durable for good.
type Acked = (usize, Vec<Named>);

struct Run {
    ops: Vec<Op>,
    acked: Vec<Acked>,
    /// After this many operations, everything before was delivered to the only endpoint.
    delivered: Vec<(usize, usize)>,
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
    let mut random = fastrand::Rng::with_seed(7);
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
            endpoint.ack(tail.position());
            delivered.push((journal.len(), total));
            store.keep();
        } else if round % 3 == 0 {
            store.keep();
        }
    }
    drop(writers);
    let ops = journal.ops.lock().unwrap().clone();
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
