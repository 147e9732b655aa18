//! Turns bytes that can be made again into ranges of a file without a name, and those into bytes.
//!
//! What is written once, read often and need not survive the process is better off here than on the
//! heap: what is read is mapped, so the kernel may take its memory back and read it again. What is
//! written goes through the kernel (pwrite), never through the map.
//!
//! # Invariants
//! - The file never shrinks: it has no name, its owner never truncates it, and nobody else can open it.
//! - Only bytes that were put are lent, and none of them is written again: a range begins where the one
//!   before ends, and putting needs the file alone (`&mut`) while bytes are lent (`&`).
//!
//! # Failure
//! - A full disk is an error of [`NamelessFile::create`], which takes the space ahead; where the file
//!   system cannot do that, of [`NamelessFile::put`].
//! - Nothing is synced. The file is gone with the process, and after a crash of the machine.
//! - A bad sector is SIGBUS when the kernel has taken the memory back and reads it again: the process ends
//!   with the line of `sys::explain_bus_errors`.
//!
//! # Limits
//! - A file holds what it was made for and does not grow.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use memmap2::Mmap;
use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

use crate::sys;

/// What the file is called for a moment where files need a name. Whoever finds one left behind removes it.
const NAME: &str = "nameless";
/// Others may make and remove that name at the same time, but not for ever.
const TRIES: usize = 100;

/// A file without a name, of a fixed size, that is appended to and read.
#[derive(Debug)]
pub struct NamelessFile {
    /// None when nothing can be put any more.
    file: Option<File>,
    map: Mmap,
    written: usize,
}

impl NamelessFile {
    /// Makes one in this directory, with the space for so many bytes taken.
    ///
    /// # Errors
    /// What the system said; nothing is left behind then.
    pub fn create(dir: &Path, bytes: usize) -> io::Result<Self> {
        let file = match open_unnamed(dir) {
            // Not every file system has such files, and of those that do not each has its own answer.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => {
                open_and_unlink(dir)?
            }
            opened => opened?,
        };
        let len = bytes as u64;
        let taken = retry_on_intr(|| rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, len));
        match taken {
            Err(Errno::OPNOTSUPP) => file.set_len(len)?,
            taken => taken?,
        }
        sys::explain_bus_errors(dir);
        Ok(Self {
            map: sys::map_file(&file)?,
            file: Some(file),
            written: 0,
        })
    }

    /// Appends `bytes`; where they are, or none if they do not fit.
    ///
    /// # Errors
    /// What the system said; nothing is put then.
    pub fn put(&mut self, bytes: &[u8]) -> io::Result<Option<Range<usize>>> {
        let range = self.written..self.written + bytes.len();
        let Some(file) = self.file.as_ref().filter(|_| range.end <= self.map.len()) else {
            return Ok(None);
        };
        file.write_all_at(bytes, range.start as u64)?;
        self.written = range.end;
        Ok(Some(range))
    }

    /// The bytes of a range, which must lie in what was put.
    ///
    /// # Panics
    /// If it does not.
    #[inline]
    #[must_use]
    pub fn get(&self, range: Range<usize>) -> &[u8] {
        assert!(range.end <= self.written, "read beyond what was put");
        &self.map[range]
    }

    /// Closes it for writing: what was put stays readable.
    pub fn seal(&mut self) {
        self.file = None;
    }

    /// Bytes that it holds at most, and takes on disk.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.map.len()
    }

    /// Bytes that can still be put.
    #[must_use]
    pub fn room_bytes(&self) -> usize {
        match self.file {
            Some(_) => self.map.len() - self.written,
            None => 0,
        }
    }
}

/// A file that never had a name, nor can be given one.
fn open_unnamed(dir: &Path) -> Result<File, Errno> {
    let flags = OFlags::TMPFILE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
    let open = || rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR);
    Ok(retry_on_intr(open)?.into())
}

/// A file whose name is removed at once.
fn open_and_unlink(dir: &Path) -> io::Result<File> {
    let path = dir.join(NAME);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    for _ in 0..TRIES {
        let file = options.open(&path);
        match file {
            // Of a process that ended in between, or of a thread that is here too and keeps its file.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            file => {
                let file = file?;
                remove(&path)?;
                return Ok(file);
            }
        }
        remove(&path)?;
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> usize {
        std::fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn what_was_put_is_read_back_and_has_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = NamelessFile::create(dir.path(), 8192).unwrap();
        assert_eq!(names(dir.path()), 0);
        let pieces: [&[u8]; 4] = [b"one", &[7; 5000], b"", b"three"];
        let ranges = pieces.map(|piece| file.put(piece).unwrap().unwrap());
        for (piece, range) in pieces.into_iter().zip(&ranges) {
            assert!(file.get(range.clone()) == piece, "{range:?}");
        }
        assert_eq!(file.put(&[0; 5000]).unwrap(), None, "it does not grow");
        assert_eq!(file.room_bytes(), 8192 - 5008);
        file.seal();
        assert_eq!((file.put(b"more").unwrap(), file.room_bytes()), (None, 0));
        assert_eq!(file.get(ranges[3].clone()), b"three");
    }

    #[test]
    #[should_panic(expected = "beyond what was put")]
    fn reading_what_was_not_put_is_a_bug() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = NamelessFile::create(dir.path(), 4096).unwrap();
        let range = file.put(b"some").unwrap().unwrap();
        assert!(file.get(range.start..range.end + 1).len() > 4);
    }

    #[test]
    fn a_file_that_needs_a_name_loses_it_whatever_was_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(NAME), "of a process that was killed").unwrap();
        let file = open_and_unlink(dir.path()).unwrap();
        assert_eq!((names(dir.path()), file.metadata().unwrap().len()), (0, 0));
    }

    #[test]
    fn threads_that_need_the_same_name_get_files_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for byte in 0..4_u8 {
                let dir = dir.path();
                scope.spawn(move || {
                    for _ in 0..200 {
                        let file = open_and_unlink(dir).unwrap();
                        file.write_all_at(&[byte; 8], 0).unwrap();
                        let mut read = [0; 8];
                        file.read_exact_at(&mut read, 0).unwrap();
                        assert_eq!(read, [byte; 8]);
                    }
                });
            }
        });
        assert_eq!(names(dir.path()), 0);
    }

    #[test]
    fn a_directory_that_is_not_there_takes_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let created = NamelessFile::create(&dir.path().join("gone"), 4096);
        assert_eq!(created.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
