//! Turns a segment file nobody needs any more into the next one: one waits, under a name of its own.
//!
//! A commit into space that was only taken ahead (fallocate) has the file system turn it into written
//! space, and make that durable too. Into blocks that were written before it is a plain write: two
//! thirds of the CPU time and half of the latency or less (`docs/decisions/0025`).
//!
//! # Invariants
//! - Before anything in the file is overwritten the name it had is durably gone, and nobody in this
//!   process holds it. Who reads it from outside finds its name gone as soon as what they read may be
//!   of another segment.
//! - Before it gets its new name its header and [`ERASED_BYTES`] of zeros are durable.
//! - Only whole files of generation 0 without a successor are used again: the device took every byte.
//!
//! # Failure
//! Whatever fails here costs the file, which is removed: the next segment is made anew. A spare that a
//! crash leaves is removed by recovery.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::Error;
use crate::fs::{Disk, DiskFile};
use crate::header::{FILE_HEADER_BYTES, FileHeader};
use crate::reader::{PAGE_BYTES, read_pages};

/// Extension of the file that waits.
pub(crate) const SPARE_EXTENSION: &str = "spare";

/// So much behind the header is zeros in a recycled file that was never written to: more than one page, so
/// that one the device refuses, or has lost, does not make a file with frames an empty one.
const ERASED_BYTES: u64 = 64 << 10;

/// At most so much of what stands behind the last frame of a log is looked at, or kept, as what an
/// interrupted run wrote.
pub(crate) const TORN_BYTES_MAX: u64 = 1 << 20;

/// The file that waits to become the next segment.
#[derive(Debug, Default)]
pub(crate) struct Spare {
    path: Mutex<Option<PathBuf>>,
}

impl Spare {
    /// Whether there is none.
    pub(crate) fn is_none(&self) -> bool {
        self.path.lock().is_none()
    }

    /// Takes the name of a segment from its file, which then waits. The caller makes that durable.
    ///
    /// # Errors
    /// What the system said; the file has its name still.
    pub(crate) fn keep(&self, disk: &Arc<dyn Disk>, segment: &Path) -> Result<(), Error> {
        let spare = segment.with_extension(SPARE_EXTENSION);
        disk.rename(segment, &spare)
            .map_err(Error::io("move", segment))?;
        *self.path.lock() = Some(spare);
        Ok(())
    }

    /// Makes the file that waits a segment of this name; none if there is none, or it cannot be used.
    /// What it was called before must be durably gone.
    pub(crate) fn recycle(
        &self,
        disk: &Arc<dyn Disk>,
        path: &Path,
        header: &FileHeader,
    ) -> Option<DiskFile> {
        let spare = self.path.lock().take()?;
        let (named, made) = match begin_again(disk, &spare, path, header) {
            Ok(()) => (path, disk.sync_dir(path.parent().unwrap_or(path))),
            Err(error) => (&*spare, Err(error)),
        };
        match made.and_then(|()| disk.open(named)) {
            Ok(file) => Some(file),
            Err(error) => {
                tracing::warn!(path = %named.display(), %error, "a file cannot be used again");
                if let Err(error) = disk.remove(named) {
                    tracing::warn!(path = %named.display(), %error, "cannot be removed");
                }
                None
            }
        }
    }

    /// Removes the file that waits.
    ///
    /// # Errors
    /// What the system said; it is forgotten all the same, recovery removes it.
    pub(crate) fn remove(&self, disk: &Arc<dyn Disk>) -> Result<(), Error> {
        let Some(spare) = self.path.lock().take() else {
            return Ok(());
        };
        disk.remove(&spare).map_err(Error::io("remove", &spare))
    }
}

/// Makes the beginning of the file durable and gives it its new name, which is not yet durable.
fn begin_again(
    disk: &Arc<dyn Disk>,
    spare: &Path,
    path: &Path,
    header: &FileHeader,
) -> io::Result<()> {
    let mut begin = header.encode();
    begin.resize(erased_end(header), 0);
    let file = disk.open(spare)?;
    disk.write_all_at(&file, &begin, 0)?;
    disk.sync(&file)?;
    disk.rename(spare, path)
}

/// Where the zeros behind the header of a recycled file end.
fn erased_end(header: &FileHeader) -> usize {
    let end = FILE_HEADER_BYTES as u64 + ERASED_BYTES;
    usize::try_from(end.min(header.file_bytes)).unwrap_or(usize::MAX)
}

/// Where in a file without a readable frame ends what may have been written since it got its header.
pub(crate) fn written_end(header: &FileHeader, bytes: &[u8]) -> usize {
    if !header.is_recycled {
        return bytes.len();
    }
    let erased = bytes.len().min(erased_end(header));
    let last_page = erased.saturating_sub(PAGE_BYTES)..erased;
    if bytes[last_page].iter().all(|&byte| byte == 0) {
        return erased;
    }
    // Written over the zeros and on: how far is not known.
    let most = FILE_HEADER_BYTES as u64 + TORN_BYTES_MAX;
    bytes.len().min(usize::try_from(most).unwrap_or(usize::MAX))
}

/// Whether nothing was ever written behind the header of this file. What cannot be told is "no".
pub(crate) fn is_unwritten(disk: &Arc<dyn Disk>, file: &DiskFile, header: &FileHeader) -> bool {
    let from = FILE_HEADER_BYTES as u64;
    let mut begin = vec![0; erased_end(header) - FILE_HEADER_BYTES];
    let whole = begin.len();
    let is_erased = match read_pages(disk, file, &mut begin, from) {
        Ok((bytes, unreadable)) => {
            bytes == whole && unreadable.is_empty() && begin.iter().all(|&byte| byte == 0)
        }
        Err(_) => false,
    };
    is_erased && (header.is_recycled || matches!(disk.next_data(file, from), Ok(None)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::create_with_header;
    use crate::fs::SystemDisk;
    use crate::header::SEGMENT_MAGIC;

    fn header(is_recycled: bool) -> FileHeader {
        FileHeader {
            magic: SEGMENT_MAGIC,
            generation: 0,
            id: 7,
            file_bytes: 4 << 20,
            salt: 3,
            previous_end: 0,
            created_ms: 0,
            records_before: 0,
            is_recycled,
        }
    }

    #[test]
    fn a_prepared_file_is_known_though_all_of_it_was_read() {
        // Not in memory: it is the page cache that makes the difference.
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
        let header = header(false);
        let file = create_with_header(&disk, &dir.path().join("file"), &header).unwrap();
        let mut whole = vec![1; 4 << 20];
        disk.read_full_at(&file, &mut whole, 0).unwrap();
        assert!(is_unwritten(&disk, &file, &header));
        // Behind what is looked at first.
        disk.write_all_at(&file, &[1], 3 << 20).unwrap();
        assert!(!is_unwritten(&disk, &file, &header), "not yet synced");
        disk.sync(&file).unwrap();
        assert!(!is_unwritten(&disk, &file, &header));
    }

    #[test]
    fn what_was_written_over_the_zeros_is_kept_up_to_a_limit() {
        let mut header = header(true);
        let mut bytes = vec![9; 4 << 20];
        let erased = FILE_HEADER_BYTES..FILE_HEADER_BYTES + (64 << 10);
        bytes[erased.clone()].fill(0);
        bytes[FILE_HEADER_BYTES] = 1;
        assert_eq!(written_end(&header, &bytes), erased.end);
        // Into the last page of the zeros.
        bytes[erased.end - 1] = 1;
        assert_eq!(written_end(&header, &bytes), FILE_HEADER_BYTES + (1 << 20));
        assert_eq!(written_end(&header, &bytes[..100_000]), 100_000);
        header.is_recycled = false;
        assert_eq!(written_end(&header, &bytes), bytes.len());
    }
}
