//! The seam to the disk: the few file operations the log needs, so that a test can stand between.
//!
//! Everything a store writes goes through a [`Disk`], except the committer's frames on io_uring
//! (see `sync.rs`), and so does what it reads, except series labels, which are mapped, and the names
//! in directories.
//!
//! # Failure
//! Each call returns what the system said. [`SystemDisk::create`] leaves no half-made file behind:
//! a failed fallocate keeps what it took on ext4, so the file is removed at once.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, FallocateFlags, SeekFrom};
use rustix::io::Errno;

/// The page cache keeps files in folios of at most so much (2 MiB on x86-64, twice that for good measure).
const FOLIO_BYTES_MAX: u64 = 4 << 20;

/// An open file that knows its path.
#[derive(Debug)]
pub struct DiskFile {
    path: PathBuf,
    file: File,
}

impl DiskFile {
    pub(crate) fn new(path: &Path, file: File) -> Self {
        Self {
            path: path.to_owned(),
            file,
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file itself.
    #[must_use]
    pub const fn file(&self) -> &File {
        &self.file
    }
}

/// A file system, as far as the log needs one.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Makes a directory (and what is above it) unless it is there.
    ///
    /// # Errors
    /// What the system said.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// Makes a new file of this many zero bytes (or an empty one), with its space taken.
    ///
    /// # Errors
    /// What the system said; the file is then gone again.
    fn create(&self, path: &Path, bytes: u64) -> io::Result<DiskFile>;

    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// What the system said.
    fn open(&self, path: &Path) -> io::Result<DiskFile>;

    /// Reads at most a buffer full from this offset on; how many bytes there were, 0 at the end.
    ///
    /// # Errors
    /// What the system said.
    fn read_at(&self, file: &DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes at most these bytes at this offset; how many it took.
    ///
    /// # Errors
    /// What the system said.
    fn write_at(&self, file: &DiskFile, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Writes all bytes at this offset.
    ///
    /// # Errors
    /// What the system said; any part may have been written.
    fn write_all_at(&self, file: &DiskFile, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            match self.write_at(file, &bytes[done..], offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Fills the buffer from this offset on, or as far as the file goes; how many bytes that were.
    ///
    /// # Errors
    /// What the system said.
    fn read_full_at(&self, file: &DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.read_at(file, &mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    /// The first place from `from` on that may hold something other than zeros; none if there is
    /// nothing but zeros. A disk that cannot tell answers `from`. What is in memory of the file from there
    /// on, and of the little before it, may have to be read again.
    ///
    /// # Errors
    /// What the system said.
    fn next_data(&self, file: &DiskFile, from: u64) -> io::Result<Option<u64>> {
        let bytes = file.file.metadata()?.len();
        Ok(Some(from).filter(|from| *from < bytes))
    }

    /// Gives back the space of `[from, to)`, which reads as zeros from then on. The file keeps its
    /// size. Whether that was done: some disks cannot.
    ///
    /// # Errors
    /// What the system said.
    fn give_back(&self, _file: &DiskFile, _from: u64, _to: u64) -> io::Result<bool> {
        Ok(false)
    }

    /// Makes the contents of a file durable (fdatasync).
    ///
    /// # Errors
    /// What the system said. Nothing may be assumed of what was written since the last success.
    fn sync(&self, file: &DiskFile) -> io::Result<()>;

    /// Makes names in a directory durable.
    ///
    /// # Errors
    /// What the system said.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// What the system said.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Moves a file within the store.
    ///
    /// # Errors
    /// What the system said.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
}

/// The disk of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemDisk;

impl Disk for SystemDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        create_dirs(dir, &mut |parent| self.sync_dir(parent))
    }

    fn create(&self, path: &Path, bytes: u64) -> io::Result<DiskFile> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)?;
        let take = || rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes);
        if bytes == 0 {
            return Ok(DiskFile::new(path, file));
        }
        // Completions of io_uring interrupt system calls of this process.
        let taken = match rustix::io::retry_on_intr(take) {
            // Some file systems cannot take space ahead; the file is then sparse and a full disk
            // shows as a failed write instead.
            Err(Errno::OPNOTSUPP) => file.set_len(bytes),
            Err(e) => Err(e.into()),
            Ok(()) => Ok(()),
        };
        if let Err(e) = taken {
            fs::remove_file(path)?;
            return Err(e);
        }
        Ok(DiskFile::new(path, file))
    }

    fn open(&self, path: &Path) -> io::Result<DiskFile> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(DiskFile::new(path, file))
    }

    fn read_at(&self, file: &DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        file.file.read_at(buffer, offset)
    }

    fn write_at(&self, file: &DiskFile, bytes: &[u8], offset: u64) -> io::Result<usize> {
        file.file.write_at(bytes, offset)
    }

    fn next_data(&self, file: &DiskFile, from: u64) -> io::Result<Option<u64>> {
        // Zeros that were read, or read ahead, where nothing was ever written count as data while they are
        // in memory (ext4, xfs). One folio of them may begin before `from`.
        let cached = from.saturating_sub(FOLIO_BYTES_MAX);
        rustix::fs::fadvise(&file.file, cached, None, Advice::DontNeed)?;
        match rustix::fs::seek(&file.file, SeekFrom::Data(from)) {
            Ok(data) => Ok(Some(data)),
            Err(Errno::NXIO) => Ok(None),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(Some(from)),
            Err(e) => Err(e.into()),
        }
    }

    fn give_back(&self, file: &DiskFile, from: u64, to: u64) -> io::Result<bool> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let punch = || rustix::fs::fallocate(&file.file, flags, from, to - from);
        match rustix::io::retry_on_intr(punch) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    fn sync(&self, file: &DiskFile) -> io::Result<()> {
        file.file.sync_data()
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }
}

/// Makes a directory and what is above it. `sync` is called for each that got a new name, from above.
fn create_dirs(dir: &Path, sync: &mut dyn FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    if dir.try_exists()? {
        return Ok(());
    }
    let Some(parent) = dir.parent() else {
        return fs::create_dir(dir);
    };
    // The last part of a relative path is in the working directory.
    let parent = match parent.as_os_str().is_empty() {
        true => Path::new("."),
        false => parent,
    };
    // Each of them, or a power cut takes all that is below the one whose name was not synced.
    create_dirs(parent, sync)?;
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn synced(dir: &Path) -> Vec<PathBuf> {
        let mut all = Vec::new();
        let sync = &mut |parent: &Path| {
            assert!(parent.is_dir(), "{} is not there", parent.display());
            all.push(parent.to_owned());
            Ok(())
        };
        create_dirs(dir, sync).unwrap();
        assert!(dir.is_dir());
        all
    }

    #[test]
    fn every_directory_that_gets_a_name_is_synced_from_above() {
        let above = tempfile::tempdir().unwrap();
        let at = |path: &str| above.path().join(path);
        let want = [above.path().to_owned(), at("a"), at("a/b")];
        assert_eq!(synced(&at("a/b/c")), want);
        assert_eq!(synced(&at("a/b/c")), [""; 0].map(PathBuf::from));
        assert_eq!(synced(&at("a/b/d")), [at("a/b")]);
    }

    #[test]
    fn a_name_that_could_not_be_synced_is_an_error() {
        let above = tempfile::tempdir().unwrap();
        let sync = &mut |_: &Path| Err(io::Error::other("no"));
        assert!(create_dirs(&above.path().join("a/b"), sync).is_err());
        let below = above.path().join("a/b").try_exists();
        assert!(!below.unwrap(), "nothing is below it");
    }

    #[test]
    fn what_was_read_where_nothing_was_written_is_no_data() {
        // Not in memory: it is the page cache that makes the difference.
        let dir = tempfile::tempdir().unwrap();
        let file = SystemDisk
            .create(&dir.path().join("file"), 1 << 20)
            .unwrap();
        SystemDisk.write_all_at(&file, &[1; 5000], 0).unwrap();
        SystemDisk.sync(&file).unwrap();
        let mut whole = vec![1; 1 << 20];
        SystemDisk.read_full_at(&file, &mut whole, 0).unwrap();
        assert_eq!(SystemDisk.next_data(&file, 8192).unwrap(), None);
        assert_eq!(SystemDisk.next_data(&file, 4096).unwrap(), Some(4096));
    }
}
