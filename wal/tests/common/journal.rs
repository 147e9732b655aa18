//! A disk that writes down what it is told, and the disk as a cut at any point may leave it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use wal::fs::{Disk, DiskFile};

use super::HastyDisk;

/// What a disk was told; paths from the store's directory on.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Create(PathBuf, u64),
    Write(PathBuf, u64, Vec<u8>),
    Sync(PathBuf),
    SyncDir(PathBuf),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

/// A lie of a disk: what it says it did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lie {
    /// It made names durable.
    SyncDir,
    /// It made the files under this directory durable.
    Sync(&'static str),
}

/// Does what it is told, in memory where the directory is, and writes it down.
#[derive(Debug)]
pub(crate) struct JournalDisk {
    dir: PathBuf,
    ops: Mutex<Vec<Op>>,
    lie: Option<Lie>,
}

impl JournalDisk {
    /// For a store in `dir`.
    pub(crate) fn new(dir: &Path) -> Arc<Self> {
        Self::lying(dir, None)
    }

    pub(crate) fn lying(dir: &Path, lie: Option<Lie>) -> Arc<Self> {
        Arc::new(Self {
            dir: dir.to_owned(),
            ops: Mutex::default(),
            lie,
        })
    }

    /// What was done so far.
    pub(crate) fn ops(&self) -> Vec<Op> {
        self.ops.lock().unwrap().clone()
    }

    /// How much was done so far.
    pub(crate) fn len(&self) -> usize {
        self.ops.lock().unwrap().len()
    }

    fn push(&self, op: Op) {
        self.ops.lock().unwrap().push(op);
    }

    fn short(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.dir).unwrap().to_owned()
    }
}

impl Disk for JournalDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        HastyDisk.create_dir(dir)
    }
    fn create(&self, path: &Path, bytes: u64) -> io::Result<DiskFile> {
        let file = HastyDisk.create(path, bytes)?;
        self.push(Op::Create(self.short(path), bytes));
        Ok(file)
    }
    fn open(&self, path: &Path) -> io::Result<DiskFile> {
        HastyDisk.open(path)
    }
    fn read_at(&self, file: &DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        HastyDisk.read_at(file, buffer, offset)
    }
    fn write_at(&self, file: &DiskFile, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.push(Op::Write(self.short(file.path()), offset, bytes.to_vec()));
        HastyDisk.write_at(file, bytes, offset)
    }
    fn sync(&self, file: &DiskFile) -> io::Result<()> {
        let path = self.short(file.path());
        if !matches!(self.lie, Some(Lie::Sync(dir)) if path.starts_with(dir)) {
            self.push(Op::Sync(path));
        }
        Ok(())
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if self.lie != Some(Lie::SyncDir) {
            self.push(Op::SyncDir(self.short(dir)));
        }
        Ok(())
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.push(Op::Remove(self.short(path)));
        HastyDisk.remove(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.push(Op::Rename(self.short(from), self.short(to)));
        HastyDisk.rename(from, to)
    }
}

/// How much of what was not synced survives the cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cut {
    /// A killed process: all of it.
    Kill,
    /// A power cut that takes all of it.
    PowerAll,
    /// A power cut after which every unit of so many bytes is old, new or zero, and every name there
    /// or not.
    PowerSome { unit: u64 },
}

/// What becomes of something that was not synced.
enum Fate {
    Old,
    New,
    Zero,
}

impl Cut {
    fn fate(self, random: &mut fastrand::Rng) -> Fate {
        match self {
            Self::Kill => Fate::New,
            Self::PowerAll => Fate::Old,
            Self::PowerSome { .. } => match random.u8(0..8) {
                0..=2 => Fate::Old,
                3..=6 => Fate::New,
                _ => Fate::Zero,
            },
        }
    }

    const fn unit(self) -> u64 {
        match self {
            Self::PowerSome { unit } => unit,
            _ => u64::MAX,
        }
    }
}

/// The bytes of a file up to the last that is not zero, and its size.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    bytes: Vec<u8>,
    size: u64,
}

impl Content {
    /// The byte there; zero behind everything written.
    pub(crate) fn byte(&self, offset: usize) -> u8 {
        self.bytes.get(offset).copied().unwrap_or(0)
    }

    pub(crate) fn size(&self) -> usize {
        usize::try_from(self.size).unwrap()
    }

    /// The same with some bits of a byte changed.
    pub(crate) fn flipped(&self, offset: usize, bits: u8) -> Self {
        let mut flipped = self.clone();
        flipped.patch(offset as u64, &[self.byte(offset) ^ bits]);
        flipped
    }

    pub(crate) fn patch(&mut self, offset: u64, with: &[u8]) {
        let at = usize::try_from(offset).unwrap();
        let end = at + with.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[at..end].copy_from_slice(with);
        self.size = self.size.max(end as u64);
    }
}

/// What a disk holds after a cut, by path from the store's directory on.
pub(crate) type Image = BTreeMap<PathBuf, Content>;

/// Lays an image out as files.
pub(crate) fn lay_out(image: &Image, to: &Path) {
    for name in ["series", "segments", "positions", "quarantine"] {
        std::fs::create_dir_all(to.join(name)).unwrap();
    }
    for (path, content) in image {
        let path = to.join(path);
        std::fs::write(&path, &content.bytes).unwrap();
        if content.bytes.len() as u64 != content.size {
            let file = std::fs::OpenOptions::new().write(true).open(&path);
            file.unwrap().set_len(content.size).unwrap();
        }
    }
}

#[derive(Debug, Default)]
struct Inode {
    synced: Content,
    /// Writes since the last sync.
    loose: Vec<(u64, Vec<u8>)>,
}

/// A disk's files while it is written to: what is durable and what is not.
#[derive(Debug, Default)]
pub(crate) struct Platter {
    inodes: Vec<Inode>,
    /// Names as the process sees them, and as the last syncs of their directories left them.
    names: BTreeMap<PathBuf, usize>,
    durable: BTreeMap<PathBuf, usize>,
}

impl Platter {
    /// Everything in the image is durable.
    pub(crate) fn of(image: &Image) -> Self {
        let mut platter = Self::default();
        for (path, content) in image {
            let synced = content.clone();
            platter.names.insert(path.clone(), platter.inodes.len());
            platter.inodes.push(Inode {
                synced,
                loose: vec![],
            });
        }
        platter.durable = platter.names.clone();
        platter
    }

    fn inode(&mut self, path: &Path) -> &mut Inode {
        &mut self.inodes[self.names[path]]
    }

    pub(crate) fn apply(&mut self, op: &Op) {
        match op {
            Op::Create(path, bytes) => {
                self.names.insert(path.clone(), self.inodes.len());
                let synced = Content {
                    bytes: vec![],
                    size: *bytes,
                };
                self.inodes.push(Inode {
                    synced,
                    loose: vec![],
                });
            }
            Op::Write(path, offset, bytes) => {
                self.inode(path).loose.push((*offset, bytes.clone()));
            }
            Op::Sync(path) => {
                let inode = self.inode(path);
                for (offset, bytes) in std::mem::take(&mut inode.loose) {
                    inode.synced.patch(offset, &bytes);
                }
            }
            Op::SyncDir(dir) => {
                self.durable.retain(|path, _| path.parent() != Some(dir));
                let here = self.names.iter().filter(|(p, _)| p.parent() == Some(dir));
                self.durable
                    .extend(here.map(|(path, at)| (path.clone(), *at)));
            }
            Op::Remove(path) => {
                self.names.remove(path).unwrap();
            }
            Op::Rename(path, new) => {
                let at = self.names.remove(path).unwrap();
                self.names.insert(new.clone(), at);
            }
        }
    }

    /// What the process sees now.
    pub(crate) fn whole(ops: &[Op]) -> Image {
        let mut platter = Self::default();
        for op in ops {
            platter.apply(op);
        }
        platter.cut(Cut::Kill, &mut fastrand::Rng::with_seed(0))
    }

    /// What a cut now leaves.
    pub(crate) fn cut(&self, cut: Cut, random: &mut fastrand::Rng) -> Image {
        let mut image = Image::new();
        let paths: BTreeSet<_> = self.names.keys().chain(self.durable.keys()).collect();
        for path in paths {
            let (old, new) = (self.durable.get(path), self.names.get(path));
            let there = match cut.fate(random) {
                _ if old == new => new,
                Fate::New => new,
                Fate::Old | Fate::Zero => old,
            };
            if let Some(&at) = there {
                image.insert(path.clone(), self.inodes[at].cut(cut, random));
            }
        }
        image
    }
}

impl Inode {
    /// Each unit of the file has one fate; zero are the bytes of it that were written, as only those
    /// were ever anything else.
    fn cut(&self, cut: Cut, random: &mut fastrand::Rng) -> Content {
        let mut content = self.synced.clone();
        let mut fates: BTreeMap<u64, Fate> = BTreeMap::new();
        for (offset, bytes) in &self.loose {
            let mut at = 0;
            while at < bytes.len() {
                let start = offset + at as u64;
                let unit = start / cut.unit();
                let left = (unit + 1).saturating_mul(cut.unit()) - start;
                let len = usize::try_from(left).unwrap_or(usize::MAX);
                let part = &bytes[at..bytes.len().min(at.saturating_add(len))];
                let fate = fates.entry(unit).or_insert_with(|| cut.fate(random));
                match fate {
                    Fate::Old => {}
                    Fate::New => content.patch(start, part),
                    Fate::Zero => content.patch(start, &vec![0; part.len()]),
                }
                at += part.len();
            }
        }
        content
    }
}
