//! A disk that writes down what it is told, and the disk as a cut at any point may leave it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use wal::fs::{Disk, DiskFile};

use super::HastyDisk;

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Create(PathBuf, u64),
    Write(PathBuf, u64, Vec<u8>),
    Sync(PathBuf),
    SyncDir(PathBuf),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

/// Does what it is told and writes it down.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    ops: Mutex<Vec<Op>>,
}

impl Journal {
    /// What was done so far.
    pub(crate) fn ops(&self) -> Vec<Op> {
        self.ops.lock().unwrap().clone()
    }

    fn push(&self, op: Op) {
        self.ops.lock().unwrap().push(op);
    }

    pub(crate) fn len(&self) -> usize {
        self.ops.lock().unwrap().len()
    }
}

#[derive(Debug)]
pub(crate) struct JournalDisk(pub(crate) Arc<Journal>);

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
    fn read_at(&self, file: &DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        HastyDisk.read_at(file, buffer, offset)
    }
    fn write_at(&self, file: &DiskFile, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.0
            .push(Op::Write(file.path().to_owned(), offset, bytes.to_vec()));
        HastyDisk.write_at(file, bytes, offset)
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
pub(crate) enum Cut {
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

fn patch(bytes: &mut Vec<u8>, offset: u64, with: &[u8]) {
    let at = usize::try_from(offset).unwrap();
    if bytes.len() < at + with.len() {
        bytes.resize(at + with.len(), 0);
    }
    bytes[at..at + with.len()].copy_from_slice(with);
}

/// Lays out in `to` what a cut after `ops` leaves of the store in `from`.
pub(crate) fn lay_out(ops: &[Op], from: &Path, to: &Path, cut: Cut) {
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
