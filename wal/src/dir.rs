//! Finds the files of a store: their names, their order, and who owns the directory.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use crate::Error;
use crate::segment::FileKey;

/// The lock that keeps a second process out for as long as it lives.
#[derive(Debug)]
pub(crate) struct DirLock {
    _file: File,
}

impl DirLock {
    /// # Errors
    /// [`Error::Locked`] if another process has it; what the system said otherwise.
    pub(crate) fn take(dir: &Path) -> Result<Self, Error> {
        let path = dir.join("LOCK");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(Error::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::Locked { path }),
            Err(TryLockError::Error(e)) => Err(Error::io("lock", path)(e)),
        }
    }
}

/// The files `<id>.<extension>` and `<id>-<generation>.<extension>` of a directory, in order.
///
/// # Errors
/// What the system said.
pub(crate) fn numbered(dir: &Path, extension: &str) -> Result<Vec<(FileKey, PathBuf)>, Error> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let path = entry.map_err(Error::io("list", dir))?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let key = stem.and_then(|stem| {
            let (id, generation) = stem.split_once('-').unwrap_or((stem, "0"));
            Some((id.parse().ok()?, generation.parse().ok()?))
        });
        if let (Some(key), Some(true)) = (key, path.extension().map(|e| e == extension)) {
            found.push((key, path));
        }
    }
    found.sort_unstable();
    Ok(found)
}
