//! A disk of which some calls fail, over one that writes down what reaches it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use wal::fs::{Disk, DiskFile};

use super::HastyDisk;
use super::journal::JournalDisk;

/// How a call fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// This error number; half of what was to be written arrives.
    Errno(i32),
    /// A read or write is interrupted before it does anything; other calls are well.
    Interrupted,
    /// A read or write stops half way; other calls are well.
    Short,
}

impl Fault {
    pub(crate) const NO_SPACE: Self = Self::Errno(28);
    pub(crate) const IO: Self = Self::Errno(5);
    pub(crate) const READ_ONLY: Self = Self::Errno(30);

    fn error(self) -> io::Result<()> {
        match self {
            Self::Errno(number) => Err(io::Error::from_raw_os_error(number)),
            Self::Interrupted | Self::Short => Ok(()),
        }
    }
}

/// What the kernel does with pages whose write-back failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cache {
    /// They stay as they were written until memory is short.
    Keeps,
    /// They are read from the device again.
    TakesBack,
}

/// Which calls fail.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) fails: Range<u64>,
    pub(crate) fault: Fault,
    pub(crate) cache: Cache,
    /// Reads count and fail too.
    pub(crate) reads: bool,
    /// Bytes of a file (by the end of its path) that cannot be read.
    pub(crate) bad: Option<(PathBuf, Range<u64>)>,
}

impl Plan {
    /// Nothing fails; `reads` are counted.
    pub(crate) const fn healthy(reads: bool) -> Self {
        Self {
            fails: 0..0,
            fault: Fault::IO,
            cache: Cache::Keeps,
            reads,
            bad: None,
        }
    }
}

/// Where a write went and what was there before.
type Undo = (u64, Vec<u8>);

#[derive(Debug)]
pub(crate) struct FaultyDisk {
    pub(crate) journal: Arc<JournalDisk>,
    calls: AtomicU64,
    plan: Plan,
    /// What was written since the last good sync, by file.
    loose: Mutex<BTreeMap<PathBuf, Vec<Undo>>>,
    /// Files of which a sync failed.
    failed: Mutex<BTreeSet<PathBuf>>,
    /// What was done to those all the same.
    pub(crate) misused: Mutex<Vec<String>>,
}

impl FaultyDisk {
    pub(crate) fn new(dir: &Path, plan: Plan) -> Arc<Self> {
        Arc::new(Self {
            journal: JournalDisk::new(dir),
            calls: AtomicU64::new(0),
            plan,
            loose: Mutex::default(),
            failed: Mutex::default(),
            misused: Mutex::default(),
        })
    }

    /// Calls made so far.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Whether this call fails.
    fn fails(&self) -> bool {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        self.plan.fails.contains(&number)
    }

    fn pass(&self) -> io::Result<()> {
        if self.fails() {
            self.plan.fault.error()
        } else {
            Ok(())
        }
    }

    /// After a failed sync nothing may be assumed of a file. Positions and ledger are written anew
    /// from memory, so they may try again.
    fn use_of(&self, file: &DiskFile, what: &str) {
        let path = file.path();
        let is_log = path.extension().is_some_and(|e| e == "seg" || e == "chunk");
        if is_log && self.failed.lock().unwrap().contains(path) {
            let text = format!("{what} after a failed sync: {}", path.display());
            self.misused.lock().unwrap().push(text);
        }
    }

    /// Another descriptor, which knows nothing of what failed.
    fn renew(&self, path: &Path) {
        self.failed.lock().unwrap().remove(path);
        self.loose.lock().unwrap().remove(path);
    }

    fn remember(&self, file: &DiskFile, offset: u64, bytes: usize) {
        let mut before = vec![0; bytes];
        let there = HastyDisk.read_full_at(file, &mut before, offset).unwrap();
        before.truncate(there);
        let mut loose = self.loose.lock().unwrap();
        let undo = loose.entry(file.path().to_owned()).or_default();
        undo.push((offset, before));
    }

    /// The device has nothing of what was written since the last good sync.
    fn lose(&self, file: &DiskFile) {
        self.failed.lock().unwrap().insert(file.path().to_owned());
        let undo = self.loose.lock().unwrap().remove(file.path());
        if self.plan.cache == Cache::TakesBack {
            for (offset, before) in undo.into_iter().flatten().rev() {
                HastyDisk.write_all_at(file, &before, offset).unwrap();
            }
        }
    }
}

impl Disk for FaultyDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.journal.create_dir(dir)
    }
    fn create(&self, path: &Path, bytes: u64) -> io::Result<DiskFile> {
        self.pass()?;
        self.renew(path);
        self.journal.create(path, bytes)
    }
    fn open(&self, path: &Path) -> io::Result<DiskFile> {
        if self.plan.reads {
            self.pass()?;
        }
        self.renew(path);
        self.journal.open(path)
    }
    fn read_at(&self, file: &DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let end = offset + buffer.len() as u64;
        let is_bad = |(path, bytes): &(PathBuf, Range<u64>)| {
            file.path().ends_with(path) && bytes.start < end && offset < bytes.end
        };
        if self.plan.bad.as_ref().is_some_and(is_bad) {
            Fault::IO.error()?;
        }
        if !self.plan.reads || !self.fails() {
            return self.journal.read_at(file, buffer, offset);
        }
        match self.plan.fault {
            Fault::Errno(number) => Err(io::Error::from_raw_os_error(number)),
            Fault::Interrupted => Err(io::ErrorKind::Interrupted.into()),
            Fault::Short => {
                let half = buffer.len().div_ceil(2);
                self.journal.read_at(file, &mut buffer[..half], offset)
            }
        }
    }
    fn write_at(&self, file: &DiskFile, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.use_of(file, "write");
        let fails = self.fails();
        if fails && self.plan.fault == Fault::Interrupted {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let half = bytes.len().div_ceil(2);
        let bytes = if fails { &bytes[..half] } else { bytes };
        self.remember(file, offset, bytes.len());
        let written = self.journal.write_at(file, bytes, offset)?;
        if fails {
            self.plan.fault.error()?;
        }
        Ok(written)
    }
    fn sync(&self, file: &DiskFile) -> io::Result<()> {
        self.use_of(file, "sync");
        if let Err(e) = self.pass() {
            self.lose(file);
            return Err(e);
        }
        self.loose.lock().unwrap().remove(file.path());
        self.journal.sync(file)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.pass()?;
        self.journal.sync_dir(dir)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.pass()?;
        self.journal.remove(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.pass()?;
        self.journal.rename(from, to)
    }
}
